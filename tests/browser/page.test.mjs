// page.test.mjs: the built-in page as its visitors see it: the four ways side by side, the chat, and two languages.
import assert from "node:assert/strict";
import { TRANSPORTS, picture, run, test, until } from "./rig.mjs";

const at = (place, hash) => new URL(`./${hash}`, place.url);

// The four ways

const lane = (page, way) => page.locator(`[data-lane=${way}]`);

/** A lane's counter, in plain numbers. */
const count = async (page, way, what) => {
  const value = await lane(page, way).locator(`[data-count=${what}]`).getAttribute("data-value");
  return value === "" || value === null ? undefined : Number(value);
};

/** Waits until this holds for every lane's counter. */
const everyLane = (page, what, assertion) =>
  until(async () => {
    for (const way of TRANSPORTS) assertion(await count(page, way, what), way);
  });

const lanesOpen = (page) =>
  until(async () => {
    for (const way of TRANSPORTS) assert.equal(await lane(page, way).getAttribute("data-state"), "open", way);
  });

/** Looks at the pictures from now on, which move: a dot is gone after some seconds. */
const watchPictures = (page) =>
  page.evaluate(() => {
    const style = getComputedStyle(document.documentElement);
    const pen = document.createElement("canvas").getContext("2d");
    const mixed = (colour) => {
      pen.fillStyle = style.getPropertyValue(`--${colour}`).trim();
      pen.fillRect(0, 0, 1, 1);
      return pen.getImageData(0, 0, 1, 1).data;
    };
    const colours = ["dot1", "dot2", "dot3"].map((name) => [name, mixed(name)]);
    window.drawn = {}; // "polling dot1": the most pixels of this colour that were seen in this lane
    setInterval(() => {
      for (const lane of document.querySelectorAll("[data-lane]")) {
        const canvas = lane.querySelector("canvas");
        if (!canvas.width) continue; // the other view is shown
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        for (const [name, colour] of colours) {
          let found = 0;
          const isOurs = (at) => [0, 1, 2].every((n) => Math.abs(colour[n] - data[at + n]) < 4);
          for (let at = 0; at < data.length; at += 4) found += isOurs(at);
          const key = `${lane.dataset.lane} ${name}`;
          window.drawn[key] = Math.max(window.drawn[key] ?? 0, found);
        }
      }
    }, 100);
  });

/** Waits until a message was drawn in every lane, as a dot in its colour. */
const everyLaneDraws = (page, n) =>
  until(async () => {
    const drawn = await page.evaluate(() => window.drawn);
    for (const way of TRANSPORTS) assert.ok(drawn[`${way} dot${n}`] > 50, `${way} draws message ${n}`);
  });

test("the four ways are drawn and counted", async (stage) => {
  const server = await stage.server();
  const page = await stage.page(at(server, ""));
  await lanesOpen(page);
  await watchPictures(page);
  assert.equal(await server.readers("lesson"), 3, "all but the one who polls");
  for (let n = 1; n <= 3; n++) {
    await page.click("#publish-now");
    await everyLane(page, "messages", (value, way) => assert.equal(value, n, way));
    await everyLaneDraws(page, n);
  }
  await until(async () => assert.ok((await count(page, "polling", "requests")) > 6));
  assert.equal(await count(page, "websocket", "requests"), 1);
  assert.equal(await count(page, "event-stream", "requests"), 1);
  assert.ok((await count(page, "long-polling", "requests")) >= 4, "each message ends one, and the next one waits");
  const bytes = {};
  for (const way of TRANSPORTS) bytes[way] = await count(page, way, "bytes");
  assert.ok(bytes.websocket < bytes["long-polling"] && bytes["event-stream"] < bytes.polling, JSON.stringify(bytes));
  assert.ok((await count(page, "websocket", "median")) < (await count(page, "polling", "worst")));
  assert.deepEqual((await server.history("lesson")).map((data) => JSON.parse(data).n), [1, 2, 3]);
  await picture(page, "ways");

  await page.click("#reset");
  await everyLane(page, "messages", (value, way) => assert.equal(value, 0, way));
});

test("what is published elsewhere is drawn too, and a rate publishes by itself", async (stage) => {
  const server = await stage.server();
  const page = await stage.page(at(server, "#ways/quay"));
  await lanesOpen(page);
  await server.publish("Bonjour serveur!", "quay");
  await everyLane(page, "messages", (value, way) => assert.equal(value, 1, way));
  await page.locator("#rate").fill("10");
  await everyLane(page, "messages", (value, way) => assert.ok(value > 20, way));
  await picture(page, "ways-busy");
  await page.locator("#rate").fill("0");
  await until(async () => {
    const all = (await server.poll("quay")).messages.length;
    for (const way of TRANSPORTS) assert.equal(await count(page, way, "messages"), all, way);
  });
});

test("with the network cut the four ways wait, and then get what they have missed", async (stage) => {
  const server = await stage.server();
  const page = await stage.page(at(server, ""));
  await lanesOpen(page);
  await page.click("#cut");
  await until(async () => assert.equal(await server.readers("lesson"), 0));
  for (const way of TRANSPORTS) assert.equal(await lane(page, way).getAttribute("data-state"), "closed", way);
  for (let n = 0; n < 5; n++) await server.publish(`missed ${n}`, "lesson");
  await lanesOpen(page);
  await everyLane(page, "messages", (value, way) => assert.equal(value, 5, way));
  await picture(page, "ways-cut");
});

test("only the view that is shown holds connections", async (stage) => {
  const server = await stage.server();
  const page = await stage.page(at(server, ""));
  await lanesOpen(page);
  await page.click("nav a[href='#chat']");
  await page.locator("[data-view=chat]").waitFor();
  await until(async () => assert.deepEqual([await server.readers("lesson"), await server.readers("general")], [0, 1]));
  await page.goBack();
  await lanesOpen(page);
  assert.equal(await server.readers("general"), 0);
});

test("while the page is hidden the four ways hold no connection, and then get what they have missed", async (stage) => {
  const server = await stage.server();
  const page = await stage.page(at(server, ""));
  await lanesOpen(page);
  const hide = (isHidden) =>
    page.evaluate((isHidden) => {
      Object.defineProperty(document, "hidden", { value: isHidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
    }, isHidden);
  await hide(true);
  await until(async () => assert.equal(await server.readers("lesson"), 0));
  await server.publish("missed", "lesson");
  await hide(false);
  await lanesOpen(page);
  await everyLane(page, "messages", (value, way) => assert.equal(value, 1, way));
});

test("two windows of a browser show the four ways, and a third one waits for a seat", async (stage) => {
  const server = await stage.server();
  const person = await stage.person();
  const open = async () => {
    const page = await person.newPage();
    await page.goto(String(at(server, "")));
    return page;
  };
  const [one, two] = [await open(), await open()];
  await lanesOpen(one);
  await lanesOpen(two);
  const three = await open();
  await three.locator("#lab-note:not(:empty)").waitFor();
  await three.click("#publish-now"); // what it holds back leaves room for this
  for (const page of [one, two]) await everyLane(page, "messages", (value, way) => assert.equal(value, 1, way));
  assert.equal(await server.readers("lesson"), 6);
  await one.close();
  await lanesOpen(three);
  assert.equal(await three.locator("#lab-note").textContent(), "");
});

// The chat

/** Somebody in the chat, by this transport or by the one the page finds. */
async function chatter(stage, place, { name = "", transport = "auto", room = "general", ...options } = {}) {
  const page = await stage.page(at(place, `#chat/${encodeURIComponent(room)}`), options);
  if (name) await page.fill("#name", name);
  if (transport !== "auto") await page.locator(`#transports [value=${transport}]`).check({ force: true });
  await isOpen(page, transport === "auto" ? "websocket" : transport);
  return page;
}

const isOpen = (page, transport) => page.locator(`#talk[data-state=open][data-transport=${transport}]`).waitFor();

async function say(page, text) {
  await page.fill("#text", text);
  await page.press("#text", "Enter");
}

/** What its conversation is: what people said, without the time, and in brackets what the page says. */
const conversation = (page) =>
  page.locator("#messages > *").evaluateAll((all) => all.map((line) => {
    const copy = line.cloneNode(true);
    copy.querySelectorAll("time, button").forEach((part) => part.remove());
    const said = copy.textContent.trim();
    if (!line.matches(".message")) return `[${said}]`;
    return line.matches(".pending") ? `${said} (pending)` : said;
  }));

/** Waits until people have said this there, and nothing else, in this order. */
const reads = (page, ...lines) =>
  until(async () => assert.deepEqual((await conversation(page)).filter((line) => !line.startsWith("[")), lines));

for (const transport of TRANSPORTS) {
  test(`two people chat by ${transport}`, async (stage) => {
    const server = await stage.server();
    const alice = await chatter(stage, server, { name: "Alice", transport });
    const bob = await chatter(stage, server, { name: "Bob", transport, locale: "fr-FR" });
    await say(alice, "Bonjour serveur!");
    await reads(bob, "Alice: Bonjour serveur!");
    await say(bob, "Bonjour Alice !\nÇa pousse ?");
    for (const page of [alice, bob]) await reads(page, "Alice: Bonjour serveur!", "Bob: Bonjour Alice !\nÇa pousse ?");
    assert.equal(await alice.locator(".message.own").count(), 1);
    await server.publish("from curl");
    await server.publish(new Uint8Array([1, 255, 3]));
    await alice.locator(".message", { hasText: "[binary, 3 bytes]" }).waitFor();
    await bob.locator(".message", { hasText: "[binaire, 3 octets]" }).waitFor();
    assert.equal(await server.readers(), transport === "polling" ? 0 : 2);
    await picture(alice, `chat-${transport}`);
  });
}

test("the chat falls back from way to way as each is refused, and nothing is lost", async (stage) => {
  const server = await stage.server();
  const proxy = await stage.proxy(server);
  const bob = await chatter(stage, server, { name: "Bob" });
  const alice = await chatter(stage, proxy, { name: "Alice" });
  const told = [];
  for (const [n, transport] of TRANSPORTS.entries()) {
    if (n) {
      proxy.refused.add(TRANSPORTS[n - 1]);
      proxy.cut();
      await say(bob, `while Alice looks for ${transport}`);
      told.push(`Bob: while Alice looks for ${transport}`);
    }
    await isOpen(alice, transport);
    await say(alice, `by ${transport}`);
    told.push(`Alice: by ${transport}`);
    await reads(bob, ...told);
    await reads(alice, ...told);
  }
  await picture(alice, "chat-fallback");
});

test("a page that comes when everything but polling is refused can chat", async (stage) => {
  const server = await stage.server();
  const proxy = await stage.proxy(server);
  for (const way of TRANSPORTS.slice(0, 3)) proxy.refused.add(way);
  const page = await stage.page(at(proxy, "#chat"));
  await isOpen(page, "polling");
  await say(page, "Bonjour serveur!");
  await reads(page, "Bonjour serveur!");
});

for (const [signal, how] of [["SIGKILL", "killed"], ["SIGUSR2", "restarted in order"]]) {
  test(`the server is ${how} under an open page, which says so, sends what waits and shows the gap`, async (stage) => {
    const server = await stage.server();
    const page = await chatter(stage, server, { name: "Alice" });
    await say(page, "before");
    await reads(page, "Alice: before");
    // All that it is told: a try to come back that fails has another reason.
    await page.evaluate(() => {
      globalThis.problems = "";
      const note = () => (globalThis.problems += document.querySelector("#problem")?.textContent ?? "");
      new MutationObserver(note).observe(document.body, { childList: true, subtree: true, characterData: true });
    });
    await server.end(signal);
    await page.locator("#talk[data-state=waiting]").waitFor();
    await page.getByText("connection lost").waitFor();
    if (signal === "SIGUSR2") assert.match(await page.evaluate(() => globalThis.problems), /1012/);
    await page.locator("#connect-now").waitFor();
    await say(page, "meanwhile");
    await reads(page, "Alice: before", "Alice: meanwhile (pending)");
    await picture(page, "chat-lost");
    await server.restart();
    // It may have come back by itself, and if the server came between two tries by the next way.
    await page.locator("#connect-now").dispatchEvent("click");
    await page.locator("#talk[data-state=open]").waitFor();
    await reads(page, "Alice: before", "Alice: meanwhile");
    assert.equal(await page.locator("#messages .gap").count(), 1);
    assert.deepEqual(await server.history(), ["Alice: meanwhile"]);
    await say(page, "after");
    await reads(page, "Alice: before", "Alice: meanwhile", "Alice: after");
    await picture(page, "chat-gap");
  });
}

test("a page comes back by itself, and says what it missed", async (stage) => {
  const server = await stage.server();
  const proxy = await stage.proxy(server);
  await server.publish("one");
  await server.publish("two");
  const page = await chatter(stage, proxy);
  await reads(page, "one", "two");
  assert.equal((await conversation(page))[0], "[2 earlier messages]");
  // For a moment the page takes what comes for the past. What has a time is not.
  await until(async () => {
    await server.publish("now");
    await page.locator(".message:last-child time").waitFor({ timeout: 100 });
  });
  proxy.isGone = true;
  proxy.cut();
  await page.locator("#talk[data-state=waiting]").waitFor();
  await server.publish("three");
  proxy.isGone = false;
  await isOpen(page, "websocket");
  await until(async () => {
    assert.deepEqual((await conversation(page)).slice(-3), ["now", "[1 message while you were away]", "three"]);
  });
});

test("what the server does not take is shown, with its reason, and can be sent again", async (stage) => {
  const server = await stage.server("--publish", "nobody");
  const page = await chatter(stage, server, { name: "Alice" });
  await say(page, "Bonjour serveur!");
  await page.locator(".message.failed", { hasText: "--publish" }).waitFor();
  await page.locator(".message.failed", { hasText: "403" }).waitFor();
  await picture(page, "chat-refused");
  await page.locator(".message.failed button").click();
  await page.locator(".message.failed", { hasText: "403" }).waitFor();
  assert.equal(await page.locator(".message").count(), 1);
});

test("what others write is shown as it is, and rooms have any name", async (stage) => {
  const server = await stage.server();
  const room = "l’été / 100 % <b>'\"&?#";
  const page = await chatter(stage, server, { room });
  const text = `<img src=x onerror="throw new Error()"> & 'quotes' "too"`;
  await say(page, text);
  await reads(page, text);
  assert.deepEqual(await server.history(room), [text]);
  assert.equal(await page.title(), `${room} · pousse`);
  await page.fill("#room", "  quay ");
  await page.press("#room", "Enter");
  await isOpen(page, "websocket");
  await server.publish("here", "quay");
  await reads(page, "here");
  await page.goBack();
  await reads(page, text);
  assert.equal(await page.inputValue("#room"), room);
});

test("the commands that the chat shows for curl do what they say", async (stage) => {
  const server = await stage.server();
  const page = await chatter(stage, server, { room: "l’été 'quoted'" });
  assert.equal(run(await page.innerText("#curl-publish")).includes('"readers":1'), true);
  await reads(page, "Bonjour serveur!");
  assert.equal(JSON.parse(run(await page.innerText("#curl-poll"))).messages[0].data, "Bonjour serveur!");
});

// Languages, and other people's screens

test("the page speaks French and English, and remembers which", async (stage) => {
  const server = await stage.server();
  const page = await stage.page(at(server, ""), { locale: "fr-CA" });
  await lanesOpen(page);
  const language = () => page.locator("html").getAttribute("lang");
  assert.equal(await language(), "fr");
  await page.getByRole("button", { name: "Publier" }).click();
  await everyLane(page, "messages", (value, way) => assert.equal(value, 1, way));
  await picture(page, "ways-fr");
  const speaks = async () => {
    for (const view of ["ways", "chat"]) {
      await page.click(`nav a[href='#${view}']`);
      await page.locator(`[data-view=${view}]`).waitFor();
      const silent = await page.locator(`[data-view=${view}] [data-t]:visible`).evaluateAll((all) =>
        all.filter((it) => it.dataset.t && !it.textContent.trim()).map((it) => it.dataset.t));
      assert.deepEqual(silent, [], `${await language()} has a text for all`);
    }
  };
  await speaks();
  await isOpen(page, "websocket");
  await page.getByText("connecté").first().waitFor();
  await picture(page, "chat-fr");
  const french = await page.innerText("body");
  await page.click("#languages [lang=en]");
  assert.equal(await language(), "en");
  await page.getByText("connected").first().waitFor();
  await speaks();
  assert.notEqual(await page.innerText("body"), french);
  await page.reload();
  await isOpen(page, "websocket");
  assert.equal(await language(), "en");
});

test("both languages say the same things", async (stage) => {
  const server = await stage.server();
  const page = await stage.page(at(server, ""));
  await lanesOpen(page);
  const seen = {};
  for (const lang of ["en", "fr"]) {
    await page.click(`#languages [lang=${lang}]`);
    const texts = await page.locator("[data-t], [data-label], [data-hint]").evaluateAll((all) =>
      all.flatMap(({ dataset, textContent, ariaLabel, placeholder }) => [
        [dataset.t, textContent], [dataset.label, ariaLabel], [dataset.hint, placeholder],
      ]).filter(([key]) => key));
    seen[lang] = texts.map(([key, said]) => `${key}: ${said?.trim() ? "said" : "silent"}`);
  }
  assert.deepEqual(seen.fr, seen.en);
});

for (const [name, options] of Object.entries({
  phone: { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 },
  dark: { colorScheme: "dark" },
  still: { reducedMotion: "reduce" },
})) {
  test(`the page fits: ${name}`, async (stage) => {
    const server = await stage.server();
    const page = await stage.page(at(server, ""), options);
    await lanesOpen(page);
    await watchPictures(page);
    await page.click("#publish-now");
    await everyLane(page, "messages", (value, way) => assert.equal(value, 1, way));
    await everyLaneDraws(page, 1);
    for (const view of ["ways", "chat"]) {
      await page.click(`nav a[href='#${view}']`);
      await page.locator(`[data-view=${view}]`).waitFor();
      if (view === "chat") {
        await isOpen(page, "websocket");
        await say(page, "a long word: " + "pousse".repeat(60));
        await page.locator(".message:not(.pending)").waitFor();
      }
      await picture(page, `${view}-${name}`, { fullPage: name !== "phone" });
      const [inside, outside] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
      assert.ok(inside <= outside, `${view}: ${inside} wide in ${outside}`);
      const nameless = (await page.locator("body").ariaSnapshot())
        .split("\n").filter((line) => /^\s*- '?(button|link|textbox|slider|radio|combobox|img)\b(?! ")/.test(line));
      assert.deepEqual(nameless, [], "everything one can use has a name");
    }
  });
}
