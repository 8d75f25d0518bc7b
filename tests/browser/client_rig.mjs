// client_rig.mjs: what the tests of pousse.js in Node need, and nothing from npm: the real program, a server that says
// what a test wants it to say, and waits that end. No fixed port, no fixed sleep.
import { spawn } from "node:child_process";
import { once } from "node:events";
import http from "node:http";
import net from "node:net";
import { test as nodeTest } from "node:test";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { connect as connectTo } from "../../src/page/pousse.js";

export const PATIENCE = 20_000;
const PROGRAM = process.env.POUSSE_BIN ?? fileURLToPath(new URL("../../target/debug/pousse", import.meta.url));

/** A test that ends. */
export const test = (name, ...rest) => {
  const [body, options] = rest.reverse();
  nodeTest(name, { timeout: 3 * PATIENCE, ...options }, body);
};

/** The transports that this Node has. */
export const TRANSPORTS = ["websocket", "event-stream", "long-polling", "polling"].filter(
  (it) => it !== "websocket" || globalThis.WebSocket,
);

/** Asserts again and again until nothing is wrong; at the end of all patience it says what is. */
export async function until(assertion, patience = PATIENCE) {
  for (const end = Date.now() + patience; ; await new Promise((done) => setTimeout(done, 5))) {
    try {
      return await assertion();
    } catch (error) {
      if (Date.now() > end) throw error;
    }
  }
}

/** A client, and all that it tells: `heard` is what the application gets, in order. */
export function connect(t, server, options = {}) {
  const client = connectTo({ url: `${server.url}/api/messages`, interval: 20, ...options });
  t.after(() => client.close());
  Object.assign(client, { heard: [], ids: [], states: [], gaps: [], wires: [] });
  const on = (type, act) => client.addEventListener(type, act);
  on("message", ({ data, topic, lastEventId }) => {
    client.heard.push(typeof data === "string" ? data : [...new Uint8Array(data)]);
    client.ids.push(lastEventId && `${topic} ${lastEventId}`);
  });
  on("gap", ({ detail }) => client.heard.push("(gap)") && client.gaps.push(detail));
  on("state", ({ detail }) => client.states.push(detail));
  on("wire", ({ detail }) => client.wires.push(detail));
  client.becomes = async (state, transport) => {
    await null; // it begins when what calls it has ended
    return new Promise((resolve) => {
      const look = () => {
        if (client.state.state !== state || (transport && client.transport !== transport)) return;
        client.removeEventListener("state", look);
        resolve(client.state);
      };
      on("state", look);
      look();
    });
  };
  return client;
}

/** The program. */
export class Server {
  static async start(t, ...flags) {
    const server = Object.assign(new Server(), { flags, port: 0 });
    await server.open();
    t.after(() => server.end());
    return server;
  }

  async open() {
    const flags = ["--listen", `127.0.0.1:${this.port}`, "--publish", "anyone", "--log", "error", ...this.flags];
    this.child = spawn(PROGRAM, flags, { env: {}, stdio: ["ignore", "ignore", "pipe"] });
    const lines = createInterface({ input: this.child.stderr });
    const [line] = await Promise.race([once(lines, "line"), once(this.child, "error").then(([error]) => Promise.reject(error))]);
    this.url = /http:\S+/.exec(line)[0];
    this.port = Number(new URL(this.url).port);
  }

  /** As a crash does. */
  async end() {
    if (this.child.exitCode === null && !this.child.killed) {
      this.child.kill("SIGKILL");
      await once(this.child, "exit");
    }
  }

  async publish(data, topic = "general") {
    const query = `topic=${encodeURIComponent(topic)}`;
    const answer = await fetch(`${this.url}/api/messages?${query}`, { method: "POST", body: data });
    if (answer.status !== 201) throw new Error(await answer.text());
    return (await answer.json()).id;
  }

  async poll(topic = "general") {
    const answer = await fetch(`${this.url}/api/messages?topic=${encodeURIComponent(topic)}&limit=1000`);
    return answer.json();
  }

  history = async (topic) => (await this.poll(topic)).messages.map((entry) => entry.data);
}

/** What lies between a client and the program: `cut()` ends every connection, `isMute` keeps back what would go in. */
export class Wire {
  static async to(t, server) {
    const wire = Object.assign(new Wire(), { sockets: new Set(), isMute: false });
    const listener = net.createServer((socket) => {
      const onward = net.connect(server.port, "127.0.0.1");
      const wires = [socket, onward];
      wire.sockets.add(socket);
      for (const it of wires) {
        it.setNoDelay(true);
        it.on("error", () => {});
        it.on("close", () => wires.forEach((other) => other.destroy()));
      }
      socket.on("close", () => wire.sockets.delete(socket));
      socket.on("data", (chunk) => onward.write(chunk));
      onward.on("data", (chunk) => wire.isMute || socket.write(chunk));
    });
    listener.listen(0, "127.0.0.1");
    await once(listener, "listening");
    wire.url = `http://127.0.0.1:${listener.address().port}`;
    t.after(() => {
      listener.close();
      wire.cut();
    });
    return wire;
  }

  cut() {
    for (const socket of this.sockets) socket.destroy();
  }
}

/** A server that says what `answer(request)` does: `requests` are all that have come. */
export class Fake {
  static async start(t, answer) {
    const fake = Object.assign(new Fake(), { requests: [] });
    const read = async (message) => {
      let content = "";
      for await (const part of message) content += part;
      return content;
    };
    const server = http.createServer(async (message, response) => {
      const { pathname, searchParams } = new URL(message.url, "http://fake");
      const { method, headers } = message;
      const isStream = headers.accept === "text/event-stream";
      const kind = method === "POST" ? "publish" : isStream ? "event-stream" : searchParams.has("wait") ? "long-polling" : "polling";
      const request = { kind, method, headers, pathname, query: searchParams, at: Date.now() };
      fake.requests.push(request);
      request.content = await read(message);
      request.response = response;
      const { status = 200, fields = {}, ...json } = (await answer(request)) ?? {};
      if (response.headersSent || response.destroyed || json.isOver) return;
      response.writeHead(status, { "Content-Type": status < 300 ? "application/json" : "application/problem+json", ...fields });
      response.end(json.text ?? JSON.stringify(json));
    });
    server.on("upgrade", (message, socket) => {
      fake.requests.push({ kind: "websocket", at: Date.now() });
      socket.on("error", () => {});
      socket.end(`HTTP/1.1 ${fake.upgrade ?? "400 Bad Request"}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    fake.url = `http://127.0.0.1:${server.address().port}`;
    t.after(() => {
      server.close();
      server.closeAllConnections();
    });
    return fake;
  }

  of = (kind) => this.requests.filter((request) => request.kind === kind);
}

/** What a server says that has nothing new. */
export const quiet = (last = "7-0") => ({ messages: [], last, gap: false, readers: 0 });

/** Begins an event stream. Writes to it with the function that comes back. */
export function stream({ response }, ...parts) {
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
  response.flushHeaders();
  for (const part of parts) response.write(part);
  return { isOver: true };
}
