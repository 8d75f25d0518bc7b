// rig.mjs: what the tests in a browser need: the real program, a proxy that refuses what it is told to, a headless
// Chromium, and waits that end. No fixed port, no fixed sleep: a test waits for what has to come, at most `PATIENCE`.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { delimiter, join } from "node:path";
import { createInterface } from "node:readline";
import { Transform } from "node:stream";
import { after, before, test as nodeTest } from "node:test";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

export const PATIENCE = 20_000;
const TEST_MAX = 60_000;

const project = (path) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
export const readProject = (path) => readFileSync(project(path), "utf8");

// Waiting

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Asserts again and again, until nothing is wrong any more; at the end of all patience says what is. */
export async function until(assertion, patience = PATIENCE) {
  for (const end = Date.now() + patience; ; await pause(10)) {
    try {
      return await assertion();
    } catch (error) {
      if (Date.now() > end) throw error;
    }
  }
}

// The program

/** Everything that was started and runs; whatever ends this process ends them too. */
const running = new Set();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => process.exit(1));

export class Server {
  said = [];

  static async start(flags = []) {
    const server = new Server();
    server.flags = flags;
    await server.open(0);
    return server;
  }

  async open(port) {
    const root = process.env.POUSSE_PAGE_ROOT;
    const flags = ["--publish", "anyone", ...(root ? ["--root", root] : []), ...this.flags];
    const program = process.env.POUSSE_BIN ?? project("target/debug/pousse");
    const child = spawn(program, ["--listen", `127.0.0.1:${port}`, ...flags], {
      env: {}, // nothing of the tester's own settings
      stdio: ["ignore", "ignore", "pipe"],
    });
    this.child = child;
    this.ended = once(child, "exit").then(() => running.delete(child));
    running.add(child);
    const lines = createInterface({ input: child.stderr });
    const started = new Promise((resolve, reject) => {
      child.once("error", reject);
      lines.on("line", (line) => {
        this.said.push(line);
        const [, url] = / listening on (http:\S+)$/.exec(line) ?? [];
        if (url) resolve(url);
      });
      lines.once("close", () => reject(new Error(`pousse ended at once:\n${this.said.join("\n")}`)));
    });
    this.url = new URL(await started);
    this.port = Number(this.url.port);
  }

  /** Ends it: KILL as a crash does, TERM in order (closes with 1001), USR2 for a restart (1012). */
  async end(signal = "SIGKILL") {
    this.child.kill(signal);
    await this.ended;
  }

  /** Starts it again where it was. It has forgotten everything. */
  restart = () => this.open(this.port);

  /** Publishes as curl does. The id. */
  async publish(data, topic = "general") {
    const url = new URL(`api/messages?topic=${encodeURIComponent(topic)}`, this.url);
    const answer = await fetch(url, { method: "POST", body: data });
    if (answer.status !== 201) throw new Error(`publishing: ${answer.status} ${await answer.text()}`);
    return (await answer.json()).id;
  }

  /** What a poll says. */
  async poll(topic = "general", limit = 1000) {
    const url = new URL(`api/messages?topic=${encodeURIComponent(topic)}&limit=${limit}`, this.url);
    return (await fetch(url)).json();
  }

  readers = async (topic) => (await this.poll(topic, 0)).readers;

  /** The data of all messages, oldest first. */
  history = async (topic) => (await this.poll(topic)).messages.map(({ data, base64 }) => data ?? { base64 });
}

/** Runs a command as a person does who has copied it. What it prints. */
export const run = (command) =>
  execFileSync("sh", ["-c", command], { encoding: "utf8", timeout: PATIENCE, stdio: ["ignore", "pipe", "ignore"] });

// The proxy

export const TRANSPORTS = ["websocket", "event-stream", "long-polling", "polling"];

/** What kind of request it is, in the words of pousse.js; `publish` and `file` beside them. */
function kindOf(request) {
  const url = new URL(request.url, "http://any");
  if (request.headers.upgrade) return "websocket";
  if (!url.pathname.endsWith("/api/messages")) return "file";
  if (request.method === "POST") return "publish";
  if (/text\/event-stream/.test(request.headers.accept)) return "event-stream";
  return Number(url.searchParams.get("wait")) > 0 ? "long-polling" : "polling";
}

/** A page of the proxy's own, in which there is nothing. */
const BLANK = '<!doctype html><title>blank</title><link rel="icon" href="data:,">';

/** What stands between a page and the server in many a company: it lets through what it knows. */
export class Proxy {
  /** Kinds that it answers itself, with 502. */
  refused = new Set();
  /** Kinds that it takes and never answers. */
  swallowed = new Set();
  /** Kinds whose answers it collects, to pass them on in one piece: the head comes, the rest when it has ended. */
  collected = new Set();
  /** How many of each kind have come: `seen.websocket`. */
  seen = {};
  /** How many of each kind are under way. */
  open = {};
  /** The requests, in order: `{ kind, method, url, headers }`. */
  requests = [];
  /** What has come on all event streams. */
  streamed = "";
  /** Connections are closed as soon as they open. */
  isGone = false;
  /** What comes from the server is kept back; what goes to it is not. */
  isMute = false;
  #sockets = new Set();

  static async before(server) {
    const proxy = new Proxy();
    proxy.server = server;
    for (const kind of [...TRANSPORTS, "publish", "file"]) proxy.seen[kind] = proxy.open[kind] = 0;
    proxy.http = http.createServer({ keepAliveTimeout: PATIENCE });
    proxy.http.on("request", (request, answer) => proxy.#pass(request, answer));
    proxy.http.on("upgrade", (request, socket, head) => proxy.#tunnel(request, socket, head));
    proxy.http.on("connection", (socket) => (proxy.isGone ? socket.destroy() : proxy.#keep(socket)));
    proxy.http.listen(0, "127.0.0.1");
    await once(proxy.http, "listening");
    proxy.url = new URL(`http://127.0.0.1:${proxy.http.address().port}/`);
    return proxy;
  }

  /** Ends every connection that goes through it, as a lost network does. */
  cut() {
    for (const socket of this.#sockets) socket.destroy();
  }

  async end() {
    this.http.close();
    this.cut();
  }

  #keep(socket) {
    socket.setNoDelay(true);
    this.#sockets.add(socket);
    socket.on("error", () => {}); // `close` follows
    socket.on("close", () => this.#sockets.delete(socket));
  }

  /** Notes that it has come, and when it ends. */
  #note(request, socketOrAnswer) {
    const { method, url, headers } = request;
    const kind = kindOf(request);
    this.requests.push({ kind, method, url, headers });
    this.seen[kind] += 1;
    this.open[kind] += 1;
    socketOrAnswer.once("close", () => (this.open[kind] -= 1));
    return kind;
  }

  #mute() {
    return new Transform({ transform: (chunk, _, next) => (this.isMute ? next() : next(null, chunk)) });
  }

  #pass(request, answer) {
    if (request.url === "/blank") return answer.end(BLANK);
    const kind = this.#note(request, answer);
    if (this.swallowed.has(kind)) return;
    const refuse = () => answer.writeHead(502, { "Content-Type": "text/html" }).end("<h1>502 Bad Gateway</h1>");
    if (this.refused.has(kind)) return refuse();
    const { port } = this.server;
    const { method, url: path } = request;
    const headers = { ...request.headers, connection: "close" };
    const onward = http.request({ host: "127.0.0.1", port, method, path, headers, agent: false });
    onward.on("socket", (socket) => this.#keep(socket));
    onward.on("response", (its) => {
      its.on("error", () => answer.destroy());
      if (this.isMute) return its.resume();
      answer.writeHead(its.statusCode, its.headers);
      answer.flushHeaders();
      if (kind === "event-stream") its.on("data", (chunk) => (this.streamed += chunk));
      if (!this.collected.has(kind)) return its.pipe(this.#mute()).pipe(answer);
      const parts = [];
      its.on("data", (part) => parts.push(part));
      its.on("end", () => answer.end(Buffer.concat(parts)));
    });
    onward.on("error", () => (answer.headersSent ? answer.destroy() : refuse()));
    answer.on("close", () => onward.destroy());
    request.pipe(onward);
  }

  #tunnel(request, socket, head) {
    const kind = this.#note(request, socket);
    if (this.swallowed.has(kind)) return;
    const refuse = () => socket.end("HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    if (this.refused.has(kind)) return refuse();
    const onward = net.connect(this.server.port, "127.0.0.1");
    this.#keep(onward);
    onward.on("connect", () => {
      const fields = request.rawHeaders.flatMap((name, at, all) => (at % 2 ? [] : [`${name}: ${all[at + 1]}\r\n`]));
      onward.write(`${request.method} ${request.url} HTTP/1.1\r\n${fields.join("")}\r\n`);
      onward.write(head);
      socket.pipe(onward).pipe(this.#mute()).pipe(socket);
    });
    socket.on("close", () => onward.destroy());
    onward.on("close", (isBroken) => isBroken && socket.destroy()); // an end in order goes through the pipe
  }
}

// The browser

const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

function findChromium() {
  if (process.env.POUSSE_CHROMIUM) return process.env.POUSSE_CHROMIUM;
  const folders = (process.env.PATH ?? "").split(delimiter);
  const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
  return names.flatMap((name) => folders.map((folder) => join(folder, name))).find((path) => existsSync(path));
}

let browser;
before(async () => {
  browser = await chromium.launch({ executablePath: findChromium(), args: FLAGS });
});
after(() => browser?.close());

const OUT = process.env.POUSSE_TEST_OUT ?? project("tests/out");
mkdirSync(OUT, { recursive: true });
const outFile = (name) => `${OUT}/${name.replaceAll(/[^\w.-]+/g, "-")}`;

/** Takes a picture for people to look at. */
export const picture = (page, name, options) =>
  page.screenshot({ path: outFile(`${name}.png`), fullPage: true, animations: "disabled", ...options });

/** What one test starts; it ends with the test. */
class Stage {
  #ends = [];
  #servers = [];
  #pages = [];
  /** What pages threw, or browsers said is wrong with them: a test fails if there is any. */
  faults = [];

  async server(...flags) {
    const server = await Server.start(flags);
    this.#servers.push(server);
    this.#ends.push(() => server.end());
    return server;
  }

  async proxy(server) {
    const proxy = await Proxy.before(server);
    this.#ends.push(() => proxy.end());
    return proxy;
  }

  /** Another person's browser; its pages share cookies, storage and locks with each other only. */
  async person(options = {}) {
    const context = await browser.newContext({ locale: "en-GB", viewport: { width: 1120, height: 720 }, ...options });
    context.setDefaultTimeout(PATIENCE);
    context.on("page", (page) => this.#watch(page));
    this.#ends.push(() => context.close());
    return context;
  }

  /** A page of a new person's. */
  async page(url, options) {
    const page = await (await this.person(options)).newPage();
    if (url) await page.goto(String(url));
    return page;
  }

  #watch(page) {
    const said = [];
    this.#pages.push({ page, said });
    page.on("console", (message) => {
      said.push(`${message.type()}: ${message.text()}`);
      const isOfNetwork = /Failed to load|WebSocket connection|EventSource's response|CORS/.test(message.text());
      if (message.type() === "error" && !isOfNetwork) this.faults.push(message.text());
    });
    page.on("pageerror", (error) => this.faults.push(error.stack));
  }

  /** After a failure: what everybody saw and said. */
  async explain(name) {
    const lines = [];
    for (const [at, { page, said }] of this.#pages.entries()) {
      lines.push(`page ${at + 1}, ${page.url()}, closed: ${page.isClosed()}`, ...said);
      if (page.isClosed()) continue;
      const file = outFile(`failed-${name}-${at + 1}`);
      await page.screenshot({ path: `${file}.png`, timeout: 5_000 }).catch(() => {});
      await page.content().then((text) => writeFileSync(`${file}.html`, text)).catch(() => {});
    }
    for (const { said } of this.#servers) lines.push("the server:", ...said);
    return lines.join("\n");
  }

  async end() {
    for (const end of this.#ends.reverse()) await end();
  }
}

/** A test with a stage of its own. */
export function test(name, body) {
  nodeTest(name, { timeout: TEST_MAX }, async () => {
    const stage = new Stage();
    try {
      await body(stage);
      if (stage.faults.length) throw new Error(`a page has faults:\n${stage.faults.join("\n")}`);
    } catch (error) {
      console.error(`${name}: ${error.message}\n${await stage.explain(name)}`);
      throw error;
    } finally {
      await stage.end();
    }
  });
}
