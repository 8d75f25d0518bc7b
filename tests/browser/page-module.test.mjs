// page-module.test.mjs: `pousse.js` in a real browser, in pages that have nothing else: each transport, what happens
// where one is refused, cut or restarted, and tabs that share. Its finer points are tested in Node: `client*.mjs`.
import assert from "node:assert/strict";
import { TRANSPORTS, test, until } from "./rig.mjs";

/** Lets a page of the proxy's origin connect, as `client`. */
async function connect(page, proxy, options = {}) {
  await page.goto(String(new URL("blank", proxy.url)));
  await page.evaluate(async (options) => {
    const { connect } = await import("/pousse.js");
    const client = (window.client = connect(options));
    window.heard = [];
    client.addEventListener("message", ({ data, topic, lastEventId: id }) => {
      const said = typeof data === "string" ? { data } : { bytes: [...new Uint8Array(data)] };
      window.heard.push({ ...said, topic, id });
    });
    client.addEventListener("gap", ({ detail }) => window.heard.push({ gap: detail ?? true }));
  }, options);
  return page;
}

const state = (page) => page.evaluate(() => ({ ...window.client.state, transport: window.client.transport }));

/** Waits until it is connected, by this transport. */
const open = (page, transport) =>
  until(async () => {
    const now = await state(page);
    assert.deepEqual([now.state, now.transport], ["open", transport], JSON.stringify(now));
  });

/** Publishes; an array of numbers as bytes. The id. */
const publish = (page, data, topic = "general") =>
  page.evaluate(([topic, data]) => {
    return window.client.publish(topic, Array.isArray(data) ? new Uint8Array(data) : data);
  }, [topic, data]);

const heard = (page) => page.evaluate(() => window.heard);

/** Waits until this and nothing else was heard, in this order. */
const hears = (page, ...data) =>
  until(async () => assert.deepEqual((await heard(page)).map((it) => it.data ?? it.bytes ?? "gap"), data));

for (const [event, target] of [["online", "window"], ["visibilitychange", "document"]]) {
  test(`a page that waits comes back at once on ${event}`, async (stage) => {
    const server = await stage.server();
    const proxy = await stage.proxy(server);
    const page = await connect(await stage.page(), proxy);
    await open(page, "websocket");
    await page.evaluate(() => (Math.random = () => 0.999)); // the longest back-off there is
    proxy.isGone = true;
    proxy.cut();
    const next = await until(async () => {
      const { state: name, until: at } = await state(page);
      assert.ok(name === "waiting" && at > Date.now() + 5_000, name);
      return at;
    });
    await server.publish("missed");
    proxy.isGone = false;
    await page.evaluate(([event, target]) => globalThis[target].dispatchEvent(new Event(event, { bubbles: true })), [event, target]);
    await open(page, "websocket");
    assert.ok(Date.now() < next, "before the back-off was over");
    await hears(page, "missed");
  });
}

for (const transport of TRANSPORTS) {
  test(`two pages talk by ${transport}, and by nothing else`, async (stage) => {
    const proxy = await stage.proxy(await stage.server());
    const [alice, bob] = await Promise.all([1, 2].map(async () =>
      connect(await stage.page(), proxy, { transports: [transport], interval: 50 })));
    await Promise.all([open(alice, transport), open(bob, transport)]);
    const id = await publish(alice, "Bonjour serveur!");
    await hears(bob, "Bonjour serveur!");
    assert.deepEqual(await heard(bob), [{ data: "Bonjour serveur!", topic: "general", id }]);
    await publish(bob, "é 🌱\n\"line\" two");
    await publish(bob, [0, 255, 128]);
    await publish(bob, "");
    for (const page of [alice, bob]) await hears(page, "Bonjour serveur!", "é 🌱\n\"line\" two", [0, 255, 128], "");
    // A long poll begins with one question that is answered at once: so it is known to be let through.
    if (transport === "long-polling") proxy.seen.polling -= 2;
    for (const other of TRANSPORTS) assert.equal(proxy.seen[other] > 0, other === transport, other);
  });

  test(`by ${transport} a page goes on where it was when the network is cut`, async (stage) => {
    const server = await stage.server();
    const proxy = await stage.proxy(server);
    const page = await connect(await stage.page(), proxy, { transports: [transport], interval: 50 });
    await open(page, transport);
    await server.publish("1");
    await hears(page, "1");
    proxy.isGone = true;
    proxy.cut();
    await until(async () => assert.notEqual((await state(page)).state, "open"));
    await server.publish("2");
    await server.publish("3");
    const asked = publish(page, "4"); // waits for the network
    proxy.isGone = false;
    await page.evaluate(() => window.client.open());
    await hears(page, "1", "2", "3", "4");
    await asked;
    assert.deepEqual(await server.history(), ["1", "2", "3", "4"]);
  });

  test(`by ${transport} a page is told of a gap after a restart`, async (stage) => {
    const server = await stage.server();
    const proxy = await stage.proxy(server);
    const page = await connect(await stage.page(), proxy, { transports: [transport], interval: 50 });
    await open(page, transport);
    await publish(page, "before");
    await hears(page, "before");
    await server.end();
    await until(async () => assert.notEqual((await state(page)).state, "open"));
    const asked = publish(page, "asked for meanwhile");
    await server.restart();
    await page.evaluate(() => window.client.open());
    await asked;
    await publish(page, "after");
    await hears(page, "before", "gap", "asked for meanwhile", "after");
  });
}

for (const [at, transport] of TRANSPORTS.entries()) {
  test(`a page finds ${transport} where nothing better is let through`, async (stage) => {
    const server = await stage.server();
    const proxy = await stage.proxy(server);
    for (const refused of TRANSPORTS.slice(0, at)) proxy.refused.add(refused);
    const page = await connect(await stage.page(), proxy, { interval: 50 });
    await open(page, transport);
    await server.publish("from elsewhere");
    await publish(page, "from the page");
    await hears(page, "from elsewhere", "from the page");
    for (const better of TRANSPORTS.slice(0, at)) assert.ok(proxy.seen[better] > 0, `${better} was tried`);
  });
}

test("a page does not wait for ever where a transport is neither let through nor refused", async (stage) => {
  const server = await stage.server();
  // Handshakes that nobody answers; streams of which nothing comes before their end; the same without a head.
  const cases = [["swallowed", "websocket"], ["collected", "event-stream"], ["swallowed", "event-stream"]];
  await Promise.all(cases.map(async ([how, what]) => {
    const proxy = await stage.proxy(server);
    proxy[how].add(what);
    const at = TRANSPORTS.indexOf(what);
    const page = await connect(await stage.page(), proxy, { transports: TRANSPORTS.slice(at), interval: 50 });
    await open(page, TRANSPORTS[at + 1]);
    await publish(page, "Bonjour serveur!");
    await until(async () => assert.ok((await heard(page)).length));
  }));
});

test("what is refused under an open page is left for the next transport, and nothing is lost", async (stage) => {
  const server = await stage.server();
  const proxy = await stage.proxy(server);
  const page = await connect(await stage.page(), proxy, { interval: 50 });
  const told = [];
  for (const [at, transport] of TRANSPORTS.entries()) {
    if (at) {
      proxy.refused.add(TRANSPORTS[at - 1]);
      await server.publish(told[told.push(`before ${transport}`) - 1]);
      proxy.cut();
      await server.publish(told[told.push(`during the change to ${transport}`) - 1]);
    }
    await open(page, transport);
    await server.publish(told[told.push(`by ${transport}`) - 1]);
    await hears(page, ...told);
  }
});

test("a page changes its transport in mid-stream, and hears everything once", async (stage) => {
  const server = await stage.server();
  const proxy = await stage.proxy(server);
  const page = await connect(await stage.page(), proxy, { interval: 20 });
  await open(page, "websocket");
  const told = [];
  const [websocket, stream, long, polling] = TRANSPORTS;
  for (const transport of [polling, stream, websocket, long, stream, polling, websocket]) {
    for (let n = 0; n < 5; n++) await server.publish(told[told.push(`${told.length}`) - 1]);
    await page.evaluate((transport) => void (window.client.transports = [transport]), transport);
    for (let n = 0; n < 5; n++) await server.publish(told[told.push(`${told.length}`) - 1]);
    await open(page, transport);
  }
  await hears(page, ...told);
});

test("a page subscribes to more topics, with their past, and leaves them", async (stage) => {
  for (const transport of TRANSPORTS) {
    const server = await stage.server();
    const proxy = await stage.proxy(server);
    await server.publish("old", "other");
    const page = await connect(await stage.page(), proxy, { transports: [transport], interval: 50 });
    await open(page, transport);
    await page.evaluate(() => window.client.subscribe("other", "earliest"));
    await hears(page, "old");
    await server.publish("new", "other");
    await hears(page, "old", "new");
    await page.evaluate(() => window.client.unsubscribe("other"));
    await until(async () => assert.equal(await server.readers("other"), 0));
    await server.publish("unheard", "other");
    await server.publish("last");
    await hears(page, "old", "new", "last");
  }
});

test("tabs that share have one connection, and another takes over when its holder is closed", async (stage) => {
  const server = await stage.server();
  const proxy = await stage.proxy(server);
  const person = await stage.person();
  const tabs = [];
  for (let tab = 0; tab < 3; tab++) {
    tabs.push(await connect(await person.newPage(), proxy, { shared: true }));
    await until(async () => assert.equal((await state(tabs[tab])).state, "open"));
  }
  assert.equal(await server.readers(), 1);
  assert.equal(proxy.open.websocket, 1);
  const told = [];
  const tell = async (publish) => publish(told[told.push(`${told.length}`) - 1]);
  await tell((data) => server.publish(data));
  for (const tab of tabs) await tell((data) => publish(tab, data));
  for (const tab of tabs) await hears(tab, ...told);

  // The first opened the connection. It ends without a word, as a tab that is closed does.
  for (const closed of [0, 1]) {
    await tabs[closed].close();
    await tell((data) => server.publish(data));
    await tell((data) => publish(tabs[2], data));
    for (const tab of tabs.slice(closed + 1)) await hears(tab, ...told);
    await until(async () => assert.equal(await server.readers(), 1));
  }
  assert.deepEqual(await server.history(), told);
});

test("tabs that share all publish at once while their holders leave, and all hear the same", async (stage) => {
  for (const transport of TRANSPORTS) {
    const server = await stage.server();
    const proxy = await stage.proxy(server);
    const person = await stage.person();
    const tabs = [];
    for (const topics of [["general"], ["general"], ["general", "other"], ["other"]]) {
      const options = { shared: true, transports: [transport], interval: 50, topics };
      const tab = await connect(await person.newPage(), proxy, options);
      await until(async () => assert.equal((await state(tab)).state, "open"));
      tabs.push(tab);
    }
    const [first, second, both, other] = tabs;
    const publishes = tabs.map((tab, n) =>
      tab.evaluate(async ([n, last]) => {
        for (let i = 0; i < 30; i++) await window.client.publish(i % 2 ? "general" : "other", `${n} ${i}`);
        if (n === last) window.client.close();
      }, [n, 1]).catch(() => {})); // a closed tab's are cut short
    await server.publish("from elsewhere");
    await first.close();
    await Promise.all(publishes.slice(1)); // the second is now closed by its own will, its tab is not
    const [general, others] = [await server.history(), await server.history("other")];
    await until(async () => {
      const all = await heard(both);
      const of = (topic) => all.filter((it) => it.topic === topic).map((it) => it.data);
      assert.deepEqual([of("general"), of("other")], [general, others], transport);
    });
    await hears(other, ...others);
    assert.equal(new Set([...general, ...others]).size, general.length + others.length);
    for (const n of [1, 2, 3]) {
      for (let i = 0; i < 30; i++) assert.ok([...general, ...others].includes(`${n} ${i}`), `${n} ${i}`);
    }
    const has = await heard(second);
    assert.deepEqual(has.map((it) => it.data), general.slice(0, has.length), "what it heard has no hole");
  }
});

test("a message whose answer is lost is published once all the same", async (stage) => {
  for (const transport of TRANSPORTS) {
    const server = await stage.server();
    const proxy = await stage.proxy(server);
    const page = await connect(await stage.page(), proxy, { transports: [transport], interval: 50 });
    await open(page, transport);
    proxy.isMute = true; // what goes to the server arrives; nothing comes back
    const asked = publish(page, "once");
    await until(async () => assert.deepEqual(await server.history(), ["once"]));
    proxy.isMute = false;
    proxy.cut();
    await page.evaluate(() => window.client.open());
    const id = await asked;
    await hears(page, "once");
    assert.deepEqual((await server.poll()).messages.map((message) => message.id), [id]);
  }
});

test("a page that was away for longer than the history is told what it lost, and gets the rest", async (stage) => {
  for (const transport of TRANSPORTS) {
    const server = await stage.server("--history", "3");
    const proxy = await stage.proxy(server);
    const page = await connect(await stage.page(), proxy, { transports: [transport], interval: 50 });
    await open(page, transport);
    const after = await server.publish("0");
    await hears(page, "0");
    proxy.isGone = true;
    proxy.cut();
    await until(async () => assert.notEqual((await state(page)).state, "open"));
    const ids = [];
    for (let n = 1; n <= 6; n++) ids.push(await server.publish(`${n}`));
    proxy.isGone = false;
    await page.evaluate(() => window.client.open());
    await hears(page, "0", "gap", "4", "5", "6");
    const { gap } = (await heard(page))[1];
    assert.equal(gap.topic, "general", transport);
    assert.equal(gap.after, after, transport);
    assert.equal(gap.oldest, ids[3], transport);
  }
});

test("a page reads a long past in order, by any transport, while more comes", async (stage) => {
  const server = await stage.server();
  const proxy = await stage.proxy(server);
  const all = Array.from({ length: 350 }, (_, n) => `${n}`);
  for (const data of all.slice(0, 300)) await server.publish(data);
  const pages = await Promise.all(TRANSPORTS.map(async (transport) =>
    connect(await stage.page(), proxy, { transports: [transport], interval: 50, after: "earliest" })));
  for (const data of all.slice(300)) await server.publish(data);
  for (const page of pages) await hears(page, ...all);
});

test("a message that is too large is refused in the server's words, and the next one goes through", async (stage) => {
  for (const transport of TRANSPORTS) {
    const server = await stage.server("--max-message", "1KiB");
    const proxy = await stage.proxy(server);
    const page = await connect(await stage.page(), proxy, { transports: [transport], interval: 50 });
    await open(page, transport);
    const codes = await page.evaluate(() => {
      const code = (data) => window.client.publish("general", data).then(() => 201, (error) => error.code);
      return Promise.all([code("x".repeat(5_000)), code("small")]);
    });
    assert.deepEqual(codes, [413, 201], transport);
    await hears(page, "small");
  }
});

test("the server's own words reach the page when it does not publish", async (stage) => {
  for (const transport of TRANSPORTS) {
    const server = await stage.server("--publish", "nobody");
    const proxy = await stage.proxy(server);
    const page = await connect(await stage.page(), proxy, { transports: [transport], interval: 50 });
    await open(page, transport);
    const error = await page.evaluate(() =>
      window.client.publish("general", "x").then(() => ({}), ({ message, code }) => ({ message, code })));
    assert.equal(error.code, 403, transport);
    assert.match(error.message, /--publish/);
    assert.equal((await state(page)).state, "open");
  }
});
