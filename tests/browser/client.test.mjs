// client.test.mjs: pousse.js in Node, against the real program and against servers that misbehave. Needs no package:
//
//     node --experimental-websocket --test tests/browser/client.test.mjs
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { Fake, Server, TRANSPORTS, Wire, connect, quiet, stream, test, until } from "./client_rig.mjs";

const range = (from, to) => Array.from({ length: to - from }, (_, n) => `${from + n}`);
const hears = (client, ...heard) => until(() => assert.deepEqual(client.heard, heard));

test("the module is under 6 kB compressed, as it is", () => {
  const bytes = gzipSync(readFileSync(new URL("../../src/page/pousse.js", import.meta.url)), { level: 9 }).length;
  assert.ok(bytes < 6000, `${bytes} bytes`);
});

if (!globalThis.WebSocket) test("over a WebSocket", { skip: "SKIPPED: this Node has none without --experimental-websocket" });

test("a client that is closed before it could open stays closed, until it is opened", async (t) => {
  const server = await Server.start(t);
  const client = connect(t, server);
  client.close();
  await new Promise((done) => setTimeout(done)); // when it would have opened
  assert.equal(client.state.state, "closed");
  client.open();
  await client.becomes("open");
});

for (const transport of TRANSPORTS) {
  const only = { transports: [transport] };

  test(`${transport}: messages come in order and once, text and binary, the past and what follows`, async (t) => {
    const server = await Server.start(t);
    for (const data of range(0, 250)) await server.publish(data);
    const client = connect(t, server, { ...only, after: "earliest" });
    await client.becomes("open");
    const ids = [];
    for (const data of range(250, 300)) ids.push(await client.publish("general", data));
    await client.publish("general", "é 🌱\n\"\\\r\n\0");
    await client.publish("general", "");
    await client.publish("general", new Uint8Array([9, 0, 255, 128, 9]).subarray(1, 4));
    await hears(client, ...range(0, 300), "é 🌱\n\"\\\r\n\0", "", [0, 255, 128]);
    assert.deepEqual(client.ids.slice(250, 300), ids.map((id) => `general ${id}`));
    assert.equal(`general ${client.last}`, client.ids.at(-1));
    assert.deepEqual(client.gaps, []);
  });

  test(`${transport}: with a token it reads and publishes, and the token is not in what it tells`, async (t) => {
    const token = "a+/b~c.d_e-f0123==";
    const file = join(mkdtempSync(join(tmpdir(), "pousse-")), "tokens");
    t.after(() => rmSync(dirname(file), { recursive: true }));
    writeFileSync(file, `alice ${token}\n`);
    const server = await Server.start(t, "--publish", "token", "--subscribe", "token", "--token-file", file);
    const nobody = connect(t, server, only);
    const { code, problem } = await nobody.becomes("closed");
    assert.equal(code, 401);
    assert.match(problem, /a token is needed to read here/);
    const client = connect(t, server, { ...only, token });
    await client.becomes("open");
    await client.publish("general", "text");
    await client.publish("general", new Uint8Array(10_000)); // by POST, whatever the transport
    await until(() => assert.equal(client.heard.length, 2));
    assert.ok(!JSON.stringify(client.wires).includes("0123"));
    nobody.token = token;
    nobody.open();
    await nobody.becomes("open");
  });

  test(`${transport}: after a crash of the server it is told of the gap, and what waited is published once`, async (t) => {
    const server = await Server.start(t);
    const client = connect(t, server, only);
    await client.becomes("open");
    const before = await client.publish("general", "before");
    await hears(client, "before");
    await server.end();
    await client.becomes("waiting");
    const asked = Promise.all(range(0, 20).map((data) => client.publish("general", data)));
    await server.open();
    await asked;
    await hears(client, "before", "(gap)", ...range(0, 20));
    assert.deepEqual(await server.history(), range(0, 20));
    assert.equal(client.gaps[0].topic, "general");
    assert.equal(client.gaps[0].after, before);
  });

  test(`${transport}: a topic that is left and read again brings its past, whatever was on its way`, async (t) => {
    const server = await Server.start(t);
    for (const data of range(0, 5)) await server.publish(data);
    const client = connect(t, server, only);
    await client.becomes("open");
    let isAgain = false;
    client.addEventListener("message", () => {
      if (isAgain) return;
      isAgain = true;
      client.unsubscribe("general");
      client.subscribe("general", "earliest");
    });
    await Promise.all(range(5, 8).map((data) => server.publish(data)));
    await until(() => assert.equal(client.heard.length, 9));
    assert.deepEqual([...client.heard.slice(1)].sort(), range(0, 8));
  });

  test(`${transport}: after a cut it resumes, and tells nothing twice`, async (t) => {
    const server = await Server.start(t);
    const wire = await Wire.to(t, server);
    const client = connect(t, wire, { ...only, topics: ["general", "other"] });
    await client.becomes("open");
    const told = [];
    const hear = () =>
      until(() => {
        if (client.state.state === "waiting") client.open();
        assert.deepEqual(client.heard, told);
      });
    for (const n of range(0, 4)) {
      for (const topic of ["general", "other"]) {
        await server.publish(told[told.push(`${topic} ${n} a`) - 1], topic);
        if (n % 2) await hear();
        wire.cut();
        await server.publish(told[told.push(`${topic} ${n} b`) - 1], topic);
      }
    }
    await hear();
  });

  test(`${transport}: a place that the history no longer holds is a gap, and the rest follows`, async (t) => {
    const server = await Server.start(t, "--history", "5");
    const client = connect(t, server, { ...only, topics: ["general", "quiet"] });
    await client.becomes("open");
    const after = await client.publish("general", "0");
    await hears(client, "0");
    client.close();
    const ids = [];
    for (const data of range(1, 12)) ids.push(await server.publish(data));
    client.open();
    await until(() => assert.deepEqual(client.heard.slice(-5), range(7, 12)));
    const [gap] = client.gaps.filter((it) => it.topic === "general");
    assert.deepEqual({ ...gap }, { topic: "general", after, oldest: ids[6] });
    assert.deepEqual(client.heard.filter((it) => it !== "(gap)"), ["0", ...range(7, 12)]);
  });

  test(`${transport}: what the server refuses is final, in its own words`, async (t) => {
    const server = await Server.start(t);
    const client = connect(t, server, { ...only, topics: ["x".repeat(200)] });
    const ended = new Promise((resolve) => client.addEventListener("close", resolve));
    const { problem, code } = await client.becomes("closed");
    assert.equal(code, 400);
    assert.match(problem, /128/);
    const { detail } = await ended;
    assert.deepEqual(detail, { code, reason: problem });
  });

  test(`${transport}: a topic that is subscribed later brings its past, or only what is new`, async (t) => {
    const server = await Server.start(t);
    const ids = [];
    for (const data of range(0, 5)) ids.push(await server.publish(`past ${data}`, "other"));
    await server.publish("unheard", "new");
    const client = connect(t, server, only);
    await client.becomes("open");
    await client.publish("general", "hello");
    await hears(client, "hello");
    await Promise.all([client.subscribe("other", ids[2]), client.subscribe("new"), client.subscribe("other")]);
    await server.publish("live", "other");
    await server.publish("news", "new");
    await hears(client, "hello", "past 3", "past 4", "live", "news");
    assert.deepEqual(client.topics, ["general", "other", "new"]);

    client.unsubscribe("other");
    await server.publish("unheard", "other");
    await until(async () => assert.equal((await server.poll("other")).readers, 0));
    await server.publish("end");
    await hears(client, "hello", "past 3", "past 4", "live", "news", "end");
  });

  test(`${transport}: a topic that is refused does not end the others`, async (t) => {
    const server = await Server.start(t);
    const client = connect(t, server, only);
    await client.becomes("open");
    await assert.rejects(client.subscribe("x".repeat(200)), { code: 400, message: /128/ });
    assert.deepEqual(client.topics, ["general"]);
    await client.becomes("open");
    await client.publish("general", "still here");
    await hears(client, "still here");
  });

  test(`${transport}: a client that reads nothing can publish, and read later`, async (t) => {
    const server = await Server.start(t);
    const client = connect(t, server, { ...only, topics: [] });
    const first = await client.publish("general", "0");
    await client.publish("general", "1");
    assert.deepEqual(client.heard, []);
    await client.subscribe("general", first);
    await hears(client, "1");
    client.unsubscribe("general");
    await client.publish("general", "2");
    assert.deepEqual(await server.history(), ["0", "1", "2"]);
  });

  test(`${transport}: what is refused to a publisher reaches him, and what follows goes on`, async (t) => {
    const server = await Server.start(t, "--max-message", "1KiB");
    const client = connect(t, server, only);
    await client.becomes("open");
    const large = client.publish("general", "x".repeat(5000));
    const small = client.publish("general", "small");
    await assert.rejects(large, { code: 413, message: /./ });
    await small;
    await assert.rejects(client.publish("x".repeat(200), "x"), { code: 400, message: /128/ });
    await hears(client, "small");
  });

  test(`${transport}: publishes keep their order and are made once, whatever is cut`, async (t) => {
    const server = await Server.start(t);
    const wire = await Wire.to(t, server);
    const client = connect(t, wire, { ...only, after: "earliest" });
    const all = range(0, 60);
    const asked = [];
    for (const data of all) {
      if (data % 20 === 10) await Promise.all(asked);
      wire.isMute = data % 20 === 10; // what is sent arrives; nobody is told
      asked.push(client.publish("general", data));
      if (!wire.isMute) continue;
      await until(async () => assert.equal((await server.history()).at(-1), data));
      wire.isMute = false;
      wire.cut();
      if (data > 30) client.open();
    }
    await Promise.all(asked);
    assert.deepEqual(await server.history(), all);
    await hears(client, ...all);
  });

  test(`${transport}: a connection that is silent is given up`, { skip: transport.endsWith("polling") }, async (t) => {
    const server = await Server.start(t, "--ping", "400ms");
    const wire = await Wire.to(t, server);
    const client = connect(t, wire, only);
    if (transport === "event-stream" && globalThis.WebSocket) {
      client.transports = ["websocket"]; // which tells how often the heart beats
      await client.becomes("open", "websocket");
      client.transports = ["event-stream"];
    } else if (transport === "event-stream") return t.skip("SKIPPED: without a WebSocket it takes a minute");
    await client.becomes("open", transport);
    const states = client.states.length;
    await until(() => assert.ok(client.wires.filter(({ way }) => way === "in").length > 5)); // heartbeats come
    assert.equal(client.states.length, states);
    wire.isMute = true;
    const { code } = await client.becomes("waiting");
    assert.equal(code, undefined);
    await server.publish("meanwhile");
    wire.isMute = false;
    wire.cut();
    await hears(client, "meanwhile");
  });

  test(`${transport}: a server that stops in order is found again`, async (t) => {
    const server = await Server.start(t);
    const client = connect(t, server, only);
    await client.becomes("open");
    server.child.kill("SIGTERM");
    await client.becomes("waiting");
    await new Promise((resolve) => (server.child.exitCode === null ? server.child.once("exit", resolve) : resolve()));
    await server.open();
    await client.becomes("open");
    await client.publish("general", "back");
    await until(() => assert.equal(client.heard.at(-1), "back"));
  });

  test(`${transport}: \`wire\` tells what crosses the network`, async (t) => {
    const server = await Server.start(t);
    const client = connect(t, server, only);
    await client.becomes("open");
    await client.publish("general", "é".repeat(200));
    await until(() => assert.equal(client.heard.length, 1));
    const sum = (way) => client.wires.filter((it) => it.way === way).reduce((sum, it) => sum + it.messages, 0);
    assert.deepEqual([sum("out"), sum("in")], [1, 1]);
    for (const { bytes, transport: by, text } of client.wires) {
      assert.ok(bytes > 0 && Number.isInteger(bytes), text);
      assert.equal(by, transport);
    }
    if (transport !== "websocket") return;
    const command = client.wires.find((it) => it.way === "out" && it.what === "frame");
    assert.equal(command.bytes, 2 + 2 + 4 + new TextEncoder().encode(command.text).length);
  });
}

test("a change of transports in mid-stream, under load, loses and doubles nothing", async (t) => {
  const server = await Server.start(t);
  const client = connect(t, server, { topics: ["general", "other"] });
  await client.becomes("open");
  const told = [];
  let isOver = false;
  const load = (async () => {
    for (let n = 0; !isOver; n++) {
      const publish = n % 3 ? server.publish(`${n}`, n % 2 ? "general" : "other") : client.publish("general", `${n}`);
      told.push(`${n}`);
      await publish;
    }
  })();
  for (let round = 0; round < 12; round++) {
    const [transport] = (client.transports = [TRANSPORTS[(round * 3) % TRANSPORTS.length]]);
    await client.becomes("open", transport);
    const { length } = client.heard;
    if (round % 2) await until(() => assert.ok(client.heard.length > length + 20));
  }
  isOver = true;
  await load;
  await hears(client, ...told);
  assert.equal(new Set(client.ids).size, told.length);
});

test("of several topics only what is new comes, whichever place each of them has", async (t) => {
  const server = await Server.start(t);
  for (const n of range(0, 10)) for (const topic of ["a", "b"]) await server.publish(`${topic}${n}`, topic);
  for (const transport of TRANSPORTS) {
    const client = connect(t, server, { topics: ["a"], after: "earliest", transports: [transport] });
    await until(() => assert.equal(client.heard.length, 10));
    await client.subscribe("b", "earliest");
    await until(() => assert.equal(client.heard.length, 20));
    assert.equal(new Set(client.ids).size, 20, transport);
  }
});

// Servers, and what stands before them, that do not do as they should

test("where the WebSocket is refused the event stream is taken", { skip: !globalThis.WebSocket }, async (t) => {
  for (const upgrade of ["400 Bad Request", "404 Not Found", "200 OK"]) {
    const fake = await Fake.start(t, (request) =>
      request.kind === "event-stream" ? stream(request, "retry: 5\n\n", "id: 7-1\n\n") : quiet());
    fake.upgrade = upgrade;
    const client = connect(t, fake);
    await client.becomes("open", "event-stream");
    assert.deepEqual(fake.requests.map(({ kind }) => kind), ["websocket", "polling", "event-stream"]);
    await until(() => assert.equal(client.last, "7-1"));
  }
});

test("an event stream that is answered as JSON, or collected on its way, is left for long polling", async (t) => {
  for (const isCollected of [false, true]) {
    const fake = await Fake.start(t, (request) => {
      if (request.kind === "event-stream" && isCollected) return stream(request);
      if (request.kind === "long-polling") return new Promise(() => {});
      return quiet();
    });
    const client = connect(t, fake, { transports: ["event-stream", "long-polling", "polling"] });
    await client.becomes("open", "long-polling");
    await until(() => assert.equal(fake.of("long-polling").length, 1));
    assert.equal(fake.of("event-stream").length, 1);
  }
});

test("where nobody holds a long poll back, there is polling", async (t) => {
  const fake = await Fake.start(t, ({ kind }) => (kind === "long-polling" ? { status: 400, detail: "no wait" } : quiet()));
  const client = connect(t, fake, { transports: ["long-polling", "polling"] });
  await client.becomes("open", "polling");
  await until(() => assert.ok(fake.of("polling").length > 6));
});

test("a transport that has worked is not given up for one failure", async (t) => {
  const fake = await Fake.start(t, (request) => (request.kind === "event-stream" ? stream(request, "retry: 1\n\n") : quiet()));
  const client = connect(t, fake, { transports: ["event-stream", "polling"] });
  await client.becomes("open");
  fake.of("event-stream")[0].response.destroy();
  await until(() => assert.equal(fake.of("event-stream").length, 2));
  await client.becomes("open", "event-stream");
});

test("a refusal is final, whatever the transport", async (t) => {
  for (const status of [400, 401, 403, 404, 421]) {
    const fake = await Fake.start(t, () => ({ status, detail: `no: ${status}` }));
    const client = connect(t, fake);
    const { problem, code } = await client.becomes("closed");
    assert.deepEqual([problem, code], [`no: ${status}`, status]);
    const { length } = fake.requests;
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(fake.requests.length, length);
  }
});

test("Retry-After is waited for, in seconds or as a date", async (t) => {
  for (const after of ["1", () => new Date(Date.now() + 2000).toUTCString()]) {
    let isBusy = true;
    const fake = await Fake.start(t, () => {
      const fields = { "Retry-After": typeof after === "string" ? after : after() };
      return isBusy ? { status: 503, detail: "busy", fields } : quiet();
    });
    const client = connect(t, fake, { transports: ["long-polling"] });
    const { problem, code, until: time } = await client.becomes("waiting");
    assert.deepEqual([problem, code], ["busy", 503]);
    assert.ok(time > Date.now() + 900 - 200);
    const { length } = fake.requests;
    isBusy = false;
    await client.becomes("open");
    const [before, next] = fake.requests.slice(length - 1);
    assert.ok(next.at - before.at >= 900, `${next.at - before.at} ms`);
  }
});

test("an event stream is read however it is cut, and whatever ends its lines", async (t) => {
  for (const end of ["\n", "\r\n", "\r"]) {
    const envelope = (seq, data) => JSON.stringify({ id: `7-${seq}`, topic: "general", data });
    const text = [
      ": a comment", "", "retry: 5", "", "id: 7-1", `data: ${envelope(1, "é 🌱\u2028")}`, "", "id:7-2", `data:${envelope(2, "2")}`,
      "", "", "id: 7-3", `data: ${envelope(3, "3")}`, "", "event: other", "data: unknown", "",
      "event: gap", 'data: {"topic":"general","after":"7-3","oldest":"7-9"}', "", "id: 7-10", `data: ${envelope(10, "10")}`, "",
      'data: {"data":"to you alone"}', "", "id: 7-11", "", "id: 7-12", `data: ${envelope(12, "never ended")}`,
    ].join(end);
    const bytes = Buffer.from(`\ufeff${text}`);
    for (const size of [1, 2, 3, 7, 4096]) {
      const fake = await Fake.start(t, async (request) => {
        if (request.kind !== "event-stream") return quiet();
        stream(request);
        for (let at = 0; at < bytes.length; at += size) {
          request.response.write(bytes.subarray(at, at + size));
          if (size < 9) await new Promise((resolve) => setImmediate(resolve));
        }
        return { isOver: true };
      });
      const client = connect(t, fake, { transports: ["event-stream"] });
      await until(() => assert.equal(client.last, "7-11"));
      assert.deepEqual(client.heard, ["é 🌱\u2028", "2", "3", "(gap)", "10", "to you alone"], `${JSON.stringify(end)} ${size}`);
      assert.deepEqual(client.ids.at(-1), "");
      client.close();
    }
  }
});

test("ids are numbers: 9 is before 10, and what was told is not told again", async (t) => {
  const envelope = (seq) => ({ id: `1000-${seq}`, topic: "general", data: seq });
  const answers = [["8", "9"], ["9", "10"], ["10", "11", "9"], ["99"], ["100", "99"]];
  const fake = await Fake.start(t, () => {
    const seqs = answers.shift() ?? [];
    return { ...quiet(`1000-${seqs.at(-1) ?? 100}`), messages: seqs.map(envelope) };
  });
  const client = connect(t, fake, { transports: ["polling"], after: "999-50" });
  await hears(client, "8", "9", "10", "11", "99", "100");
  assert.equal(fake.requests[0].query.get("after"), "999-50");
});

test("a server that has begun anew is heard from its beginning, even if its clock went back", async (t) => {
  const fake = await Fake.start(t, ({ query }) => {
    const after = query.get("after");
    const entry = (id) => ({ id, topic: "general", data: id });
    if (after === "9-50") return { messages: [entry("8-1"), entry("8-2")], last: "8-2", gap: true, readers: 0 };
    return quiet(after);
  });
  const client = connect(t, fake, { transports: ["polling"], after: "9-50" });
  await hears(client, "(gap)", "8-1", "8-2");
  await until(() => assert.equal(fake.requests.at(-1).query.get("after"), "8-2"));
});

test("what is lost of one topic does not repeat the others", async (t) => {
  // `busy` is behind, `ahead` is beyond the gap: one `after` serves both.
  const entry = (seq, topic) => ({ id: `7-${seq}`, topic, data: `${topic} ${seq}` });
  const fake = await Fake.start(t, ({ query }) => {
    if (query.get("after") === "earliest") return { ...quiet("7-30"), messages: [entry(30, "ahead")] };
    if (query.get("after") !== "7-5") return quiet(query.get("after"));
    const messages = [entry(20, "ahead"), entry(25, "busy"), entry(30, "ahead"), entry(31, "ahead")];
    return { ...quiet("7-31"), messages, gap: true };
  });
  const client = connect(t, fake, { transports: ["polling"], topics: ["ahead"], after: "earliest" });
  await hears(client, "ahead 30");
  client.subscribe("busy", "7-5");
  await hears(client, "ahead 30", "(gap)", "busy 25", "ahead 31");
  assert.deepEqual({ ...client.gaps[0] }, { topic: "busy", after: "7-5", oldest: "7-25" });
});

test("a publish whose answer is lost is sent again with its key, and one that is refused for now waits", async (t) => {
  const answers = ["lost", { status: 503, detail: "later", fields: { "Retry-After": "1" } }, { status: 429 }];
  const taken = [];
  const fake = await Fake.start(t, (request) => {
    if (request.kind !== "publish") return quiet();
    const answer = answers.shift();
    if (answer === "lost") return request.response.destroy();
    if (answer) return answer;
    return { status: 201, id: `7-${taken.push(request.content)}` };
  });
  const client = connect(t, fake, { transports: ["polling"] });
  const ids = await Promise.all([client.publish("general", "a"), client.publish("general", "b"), client.publish("other", "c")]);
  assert.deepEqual(ids, ["7-1", "7-2", "7-3"]);
  assert.deepEqual(taken, ["a", "b", "c"]);
  const publishes = fake.of("publish");
  const keys = publishes.map(({ headers }) => headers["idempotency-key"]);
  assert.equal(new Set(keys.slice(0, 4)).size, 1);
  assert.equal(new Set(keys).size, 3);
  assert.ok(publishes[2].at - publishes[1].at >= 900);
  assert.deepEqual(publishes.map(({ query }) => query.toString()).slice(-2), ["topic=general", "topic=other"]);
});

test("a client that is closed says nothing more, asks nothing more, and goes on where it was", async (t) => {
  const server = await Server.start(t);
  for (const transport of TRANSPORTS) {
    const topic = `of ${transport}`;
    const client = connect(t, server, { transports: [transport], topics: [topic] });
    await client.becomes("open");
    client.addEventListener("message", ({ data }) => data === "1" && client.close());
    for (const data of range(0, 4)) await server.publish(data, topic);
    await client.becomes("closed");
    const { length } = client.wires;
    await server.publish("4", topic);
    assert.deepEqual(client.heard, ["0", "1"]);
    assert.deepEqual(client.wires.slice(length).filter(({ what }) => what !== "end"), []);
    const asked = client.publish(topic, "5");
    client.open();
    client.open();
    await asked;
    await hears(client, ...range(0, 6));
    client.close();
    client.open();
    client.close();
    client.close();
    assert.equal(client.state.state, "closed");
  }
});

test("`open` and `close` are told as a WebSocket tells them", async (t) => {
  const server = await Server.start(t);
  const client = connect(t, server);
  const told = [];
  client.addEventListener("open", () => told.push("open"));
  client.addEventListener("close", ({ detail }) => told.push(detail.code));
  await client.becomes("open");
  client.close();
  assert.deepEqual(told, ["open", 1000]);
});

test("clients that share have one connection, and another takes over", async (t) => {
  // Node may have no locks: these are enough.
  const holders = new Map();
  const locks = {
    request(name, { signal }, act) {
      const before = holders.get(name) ?? Promise.resolve();
      const mine = before.then(() => (signal.aborted ? undefined : act()));
      holders.set(name, mine);
      return mine;
    },
  };
  const had = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  Object.defineProperty(globalThis, "navigator", { value: { locks, userAgent: "Node" }, configurable: true });
  t.after(() => (had ? Object.defineProperty(globalThis, "navigator", had) : delete globalThis.navigator));

  const server = await Server.start(t);
  const fresh = () => connect(t, server, { shared: true, after: "earliest", transports: [TRANSPORTS[0]] });
  const told = range(0, 3);
  for (const data of told) await server.publish(data);
  const [first, second] = [fresh(), fresh()];
  const all = [first, second];
  await until(async () => assert.equal((await server.poll()).readers, 1));
  for (let round = 0; round < 2; round++) {
    for (const client of all) await client.publish("general", told[told.push(`${told.length}`) - 1]);
    for (const client of all) await hears(client, ...told);
    assert.equal((await server.poll()).readers, 1);
    all.shift().close();
    await server.publish(told[told.push(`${told.length}`) - 1]);
    all.push(fresh());
    for (const client of all) await hears(client, ...told);
  }
  // Enough is passed on: a follower does not poll for each message.
  const follower = all[1];
  const polls = () => follower.wires.filter(({ what }) => what === "request").length;
  await until(async () => assert.equal((await server.poll()).readers, 1));
  const before = polls();
  for (const data of range(100, 120)) await server.publish(told[told.push(data) - 1]);
  for (const client of all) await hears(client, ...told);
  assert.ok(polls() - before <= 2, `${polls() - before} polls`);
});
