// page-lessons.test.mjs: what the course teaches, with nothing of ours in the page: the README's `new WebSocket(…)`
// in a file on the disk, `EventSource`, `fetch`. They meet the real server, directly or through a proxy that cuts.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { pathToFileURL } from "node:url";
import { picture, readProject, test, until } from "./rig.mjs";

/** The README's `bonjour.html`, saved on the disk, with the port of this test's server. */
async function withBonjour(server, act) {
  const [, html] = /```html\n(<!doctype html>[\s\S]*?)```/.exec(readProject("README.md"));
  assert.match(html, /ws:\/\/127\.0\.0\.1:8080\/websocket/);
  const folder = mkdtempSync(`${tmpdir()}/pousse-`);
  try {
    writeFileSync(`${folder}/bonjour.html`, html.replace("127.0.0.1:8080", server.url.host));
    await act(pathToFileURL(`${folder}/bonjour.html`));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Waits until a page shows this text, and nothing else. */
const shows = (page, text) => until(async () => assert.equal((await page.innerText("body")).trim(), text));

test("the first page of the README works from a file, in two windows", async (stage) => {
  const server = await stage.server("--origin", "null");
  await withBonjour(server, async (file) => {
    const alice = await stage.page(file);
    await shows(alice, "Bonjour serveur!");
    const bob = await stage.page(file);
    await shows(bob, "Bonjour serveur!");
    await shows(alice, "Bonjour serveur!\nBonjour serveur!");
    await server.publish("et par curl");
    await shows(bob, "Bonjour serveur!\net par curl");
    await picture(alice, "lesson-websocket");
    await server.end("SIGTERM");
    await shows(bob, "Bonjour serveur!\net par curl\nclosed: 1001 the server is stopping");
  });
});

test("the first page of the README is told off where files are not let in", async (stage) => {
  const server = await stage.server();
  await withBonjour(server, async (file) => {
    const alice = await stage.page(file);
    await shows(alice, "closed: 1006");
    await until(() => assert.match(server.said.join("\n"), /--origin null/));
  });
});

/** Lets a page listen with a plain EventSource; what comes is in `window.heard`. */
const listen = (page, query) =>
  page.evaluate((query) => {
    window.heard = [];
    window.opened = 0;
    const source = (window.source = new EventSource(`api/messages?${query}`));
    source.onopen = () => (window.opened += 1);
    const hear = ({ type, data, lastEventId }) => window.heard.push({ type, data, lastEventId });
    for (const type of ["message", "gap", "binary"]) source.addEventListener(type, hear);
  }, query);

/** Waits until as many events have come, and gives them. */
const heard = (page, count) =>
  until(async () => {
    const events = await page.evaluate(() => window.heard);
    assert.equal(events.length, count);
    return events;
  });

/** Waits until its event stream has opened for the `count`th time. */
const opened = (page, count) => until(async () => assert.equal(await page.evaluate(() => window.opened), count));

test("an EventSource hears envelopes, and after a cut goes on where it was", async (stage) => {
  const server = await stage.server();
  const proxy = await stage.proxy(server);
  await server.publish("before");
  const page = await stage.page(new URL("blank", proxy.url));
  await listen(page, "topic=general&topic=other&after=earliest");
  const ids = [await server.publish("one"), await server.publish("two\r\nlines\n", "other")];
  const events = await heard(page, 3);
  assert.deepEqual(events.map(({ data }) => JSON.parse(data).data), ["before", "one", "two\r\nlines\n"]);
  assert.deepEqual(JSON.parse(events[2].data), { id: ids[1], topic: "other", data: "two\r\nlines\n" });
  assert.deepEqual(events.slice(1).map(({ lastEventId }) => lastEventId), ids);

  proxy.cut();
  await until(async () => assert.equal(await server.readers(), 0));
  await server.publish("while away");
  await opened(page, 2);
  await server.publish("and back");
  const all = await heard(page, 5);
  assert.deepEqual(all.map(({ data }) => JSON.parse(data).data).slice(3), ["while away", "and back"]);
  const { headers } = proxy.requests.filter(({ kind }) => kind === "event-stream").at(-1);
  assert.equal(headers["last-event-id"], ids[1]);
});

test("an EventSource in text hears the bare lines, and what is binary apart", async (stage) => {
  const server = await stage.server();
  const proxy = await stage.proxy(server);
  const page = await stage.page(new URL("blank", proxy.url));
  await listen(page, "format=text");
  await opened(page, 1);
  await server.publish("Bonjour serveur!");
  await server.publish("a\nb\r\nc\rd");
  await server.publish(new Uint8Array([0, 255, 1]));
  await server.publish("");
  await server.publish("é 🌱");
  const events = await heard(page, 5);
  assert.deepEqual(events.map(({ type, data }) => [type, data]), [
    ["message", "Bonjour serveur!"],
    ["message", "a\nb\nc\nd"],
    ["binary", "AP8B"],
    ["message", ""],
    ["message", "é 🌱"],
  ]);
});

test("an EventSource is told of a gap when the server was restarted", async (stage) => {
  const server = await stage.server();
  const proxy = await stage.proxy(server);
  const page = await stage.page(new URL("blank", proxy.url));
  await listen(page, "topic=general");
  await opened(page, 1);
  const last = await server.publish("before the restart");
  await heard(page, 1);
  // An EventSource gives up for good on a 502; a proxy that is no longer there it asks again.
  proxy.isGone = true;
  await server.end();
  await server.restart();
  const first = await server.publish("after the restart");
  proxy.isGone = false;
  const [, gap, message] = await heard(page, 3);
  assert.equal(gap.type, "gap");
  assert.deepEqual(JSON.parse(gap.data), { topic: "general", after: last, oldest: first });
  assert.equal(JSON.parse(message.data).data, "after the restart");
});

test("an EventSource that hears nothing keeps its place by the heartbeats", async (stage) => {
  const server = await stage.server("--ping", "100ms", "--history", "2");
  const proxy = await stage.proxy(server);
  const page = await stage.page(new URL("blank", proxy.url));
  await listen(page, "topic=quiet");
  await opened(page, 1);
  const streams = () => proxy.requests.filter(({ kind }) => kind === "event-stream");
  // Its own last id, had it one, would soon be older than anything kept.
  let last;
  for (let n = 0; n < 5; n++) last = await server.publish("elsewhere", "loud");
  // The proxy sees them pass, but nobody sees them arrive: a cut may come in between. Then there is another one.
  let times = 1;
  await until(async () => {
    proxy.streamed = "";
    await until(() => assert.ok(proxy.streamed.split(`id: ${last}\n\n`).length > 3));
    proxy.cut();
    await opened(page, ++times);
    assert.equal(streams().at(-1).headers["last-event-id"], last);
  });
  await server.publish("at last", "quiet");
  const [{ type, data }] = await heard(page, 1);
  assert.deepEqual([type, JSON.parse(data).data], ["message", "at last"], "no gap was told");
});

/** What a page gets when it asks another origin by each way, `ok` or the error's kind. */
const asksAbroad = (page, server) =>
  page.evaluate(async (base) => {
    const url = new URL("api/messages", base);
    const result = {};
    const of = async (act) => act().then(({ status }) => status, () => "refused");
    result.poll = await of(() => fetch(`${url}?limit=0`));
    result.publish = await of(() => fetch(url, { method: "POST", body: "from abroad" }));
    // With these it asks with OPTIONS first.
    const headers = { "Idempotency-Key": "1", "Content-Type": "application/octet-stream" };
    result.key = await of(() => fetch(url, { method: "POST", body: "from abroad, once", headers }));
    result.etag = await fetch(`${url}?limit=0`).then((answer) => answer.headers.has("ETag"), () => false);
    const opens = (it) => new Promise((done) => {
      it.onopen = () => done("open");
      it.onerror = () => done("refused");
    }).finally(() => it.close());
    result.source = await opens(new EventSource(url));
    result.socket = await opens(new WebSocket(String(new URL("websocket", base)).replace("http", "ws")));
    return result;
  }, String(server.url));

test("a page of another origin is let in where --origin names it, and otherwise by no way at all", async (stage) => {
  const abroad = await stage.proxy();
  const server = await stage.server("--origin", abroad.url.origin);
  const page = await stage.page(new URL("blank", abroad.url));
  assert.deepEqual(await asksAbroad(page, server), {
    poll: 200, publish: 201, key: 201, etag: true, source: "open", socket: "open",
  });
  const strict = await stage.server();
  assert.deepEqual(await asksAbroad(page, strict), {
    poll: "refused", publish: "refused", key: "refused", etag: false, source: "refused", socket: "refused",
  });
  assert.deepEqual(await strict.history(), [], "and what it sent was not published");
});
