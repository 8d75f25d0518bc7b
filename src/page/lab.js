// lab.js: the view "the four ways". Four clients read the same topic, each by one transport; what crosses the network
// is drawn as a sequence diagram while it happens, and counted.
//
// Time runs downwards and at the same pace in all four, so that what is at one height happened at one time. A message
// comes to the server from the right; the thread under it is the time it waits there; then it travels to the left.
import { COLOURS, FLIGHT_MS, KEPT_MS, Picture, clamp, still } from "./diagram.js";
import { connect } from "./pousse.js";
import { $, asBytes, asLocal, asTime, inEachLanguage, number, says, text, translate, view } from "./texts.js";

const WAYS = ["polling", "long-polling", "event-stream", "websocket"]; // in the order of the lesson
const CALLS = { // in the words of the browser
  polling: (ms) => `setInterval(() => fetch(url), ${ms})`,
  "long-polling": () => 'fetch(url + "&wait=50")',
  "event-stream": () => "new EventSource(url)",
  websocket: () => "new WebSocket(url)",
};
const CUT_MS = 4_000;
const KEPT_MAX = 3_000; // what is more than that is forgotten, and so is what is older than KEPT_MS
const DELAYS_MAX = 1_000; // of which the median is
const LOST_MS = 1_500; // what has not come so long after a gap will not
const TOGETHER_MS = 40; // what comes within is one arrow

const now = () => performance.now();

// Messages: the same for all lanes

let topic = "";
let me = ""; // whose messages are ours
let count = 0;
let lastBorn = 0;
const messages = new Map(); // by sender and number, oldest first

/** A message exists from now on: it is being published, or it has come and nobody here knew of it. */
function born(key, n, own) {
  const at = now();
  const message = { n, at, colour: own ? `dot${n % COLOURS}` : "soft", small: !own || at - lastBorn < 280 };
  if (own) lastBorn = at;
  messages.set(key, message);
  for (const [old, { at: then }] of messages) {
    if (messages.size <= KEPT_MAX && then > at - KEPT_MS) break;
    messages.delete(old);
  }
  for (const lane of lanes) lane.expect(message);
  return message;
}

/** By POST and not over one of the four, so that all four are equal. */
async function publish() {
  const n = ++count;
  const message = born(`${me} ${n}`, n, true);
  const body = JSON.stringify({ from: me, n, at: performance.timeOrigin + message.at });
  try {
    const answer = await fetch(`api/messages?topic=${encodeURIComponent(topic)}`, { method: "POST", body });
    const { detail, title } = answer.ok ? {} : await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(detail || title || `HTTP ${answer.status}`);
    says($("lab-note"));
  } catch (error) {
    for (const lane of lanes) lane.entries.delete(message);
    setRate(0);
    says($("lab-note"), "notPublished", error instanceof TypeError ? text("unreachable") : error.message);
  }
}

const parsed = (data) => { try { return Object(JSON.parse(data)); } catch { return {}; } };

// A lane: a client, what it did, and its counters

class Lane {
  arrows = []; // { at, begins, out, says, small, answers, messages, carried: [{ entry, delay }] }, oldest first
  spans = []; // { kind: "held" | "line" | "away", from, to, why }
  gaps = []; // when
  entries = new Map(); // message -> { message, arrow, lost }: how it fares here; lost: when
  #unclaimed = []; // what has come and whose arrow is not known: it may be told before or after

  constructor(way) {
    this.way = way;
    this.asks = way.endsWith("polling"); // again and again
    const part = $("lane").content.cloneNode(true);
    this.article = part.querySelector("article");
    this.article.dataset.lane = way;
    this.article.querySelector("use").setAttribute("href", `#${way}`);
    this.article.querySelector("h2 span").dataset.t = way;
    this.wire = [...this.article.querySelectorAll(".wire li")];
    for (const line of this.wire) line.append(...["b", "span", "small"].map((tag) => document.createElement(tag)));
    $("lanes").append(part);
    this.picture = new Picture(this);
    this.reset();
  }

  reset() {
    Object.assign(this, { requests: 0, received: 0, bytes: 0, delays: [], worst: undefined, last: [] });
    this.arrows.length = this.gaps.length = 0;
    this.entries.clear();
    this.spans = this.spans.filter((span) => span.to === undefined); // what goes on, goes on
  }

  open(interval) {
    if (this.isOpen && this.topic === topic) return;
    this.isOpen = true;
    if (this.topic === topic) return this.client.open();
    this.client?.close();
    this.#end(now(), "held", "line");
    this.topic = topic;
    const client = (this.client = connect({ topics: [topic], transports: [this.way], after: "now", interval }));
    const on = (type, act) => client.addEventListener(type, (event) => client === this.client && act(event));
    on("state", ({ detail }) => this.#state(detail));
    on("wire", ({ detail }) => this.#wire(detail));
    on("message", (event) => this.#message(event));
    on("gap", () => this.#gap());
  }

  close(why) {
    if (!this.isOpen) return;
    [this.isOpen, this.why] = [false, why];
    this.client.close();
  }

  expect(message) {
    const entry = { message };
    this.entries.set(message, entry);
    if (this.entries.size > KEPT_MAX) this.entries.delete(this.entries.keys().next().value);
    return entry;
  }

  #begin(kind, from, why) {
    if (frozenAt && this.spans.length > KEPT_MAX) return;
    this.spans.push({ kind, from, why });
    if (this.spans.length > KEPT_MAX) this.spans.shift();
  }

  #end(to, ...kinds) {
    for (const span of this.spans) if (span.to === undefined && kinds.includes(span.kind)) span.to = to;
  }

  #state({ state, problem = "" }) {
    this.article.dataset.state = state;
    this.article.title = problem;
    this.sayState();
    $("lab").dataset.state = lanes.some((lane) => lane.article.dataset.state === "open") ? "open" : state;
    if (state === "open") {
      this.#end(now(), "away");
      if (lanes.every((lane) => lane.article.dataset.state === "open")) says($("lab-note")); // what it said is over
    }
    if (state !== "waiting" && state !== "closed") return;
    this.#end(now(), "held", "line");
    if (this.spans.some((span) => span.kind === "away" && span.to === undefined)) return;
    this.#begin("away", now(), this.isOpen ? "Waiting" : this.why);
  }

  sayState() {
    this.article.querySelector(".lamp").ariaLabel = text(this.article.dataset.state);
  }

  #wire({ way, what, bytes, text: said, messages: carries }) {
    const [at, out] = [now(), way === "out"];
    const asks = out && (what === "request" || what === "handshake");
    const answers = !out && (what === "answer" || what === "handshake");
    this.bytes += bytes;
    this.requests += Number(asks);
    this.last = [{ out, said: said.slice(0, 300), bytes }, ...this.last].slice(0, this.wire.length);

    if (answers || what === "end") this.#end(at, "held");
    if (what === "end") return this.#end(at, "line");
    if (asks && this.asks) this.#begin("held", at);
    if (what === (this.way === "websocket" ? "handshake" : "answer") && answers && !this.asks) this.#begin("line", at);

    const last = this.arrows.at(-1);
    if (last && at - last.at < TOGETHER_MS && !out && !last.out && !answers && (!carries || last.messages)) {
      last.messages += carries;
    } else if (!frozenAt || this.arrows.length < KEPT_MAX) {
      // A long poll that does not ask to be held, as the first one, is a poll.
      if (asks) this.kind = this.way === "long-polling" && !said.includes("wait=") ? "polling" : this.way;
      const word = asks ? "Ask" : answers ? (carries || !this.asks ? "Yes" : "No") : "";
      this.arrows.push({
        at, out, answers, carried: [], messages: carries, small: !word && !carries, says: word && this.kind + word,
        begins: clamp((last?.begins ?? 0) + FLIGHT_MS * 0.8, at, at + 400), // after the one before it has arrived
      });
      if (this.arrows.length > KEPT_MAX) this.arrows.shift();
    }
    this.#carry();
  }

  #message({ data, lastEventId }) {
    const { from, n, at } = parsed(data);
    const own = from === me && Number.isFinite(at);
    const key = own ? `${from} ${n}` : lastEventId;
    const message = messages.get(key) ?? born(key, own ? n : 0, own);
    const delay = own ? Math.max(0, performance.timeOrigin + now() - at) : undefined; // the clocks of others differ
    this.received += 1;
    if (own) {
      this.delays.push(delay);
      if (this.delays.length > DELAYS_MAX) this.delays.shift();
      this.worst = Math.max(this.worst ?? 0, delay);
    }
    this.#unclaimed.push({ entry: this.entries.get(message) ?? this.expect(message), delay });
    this.#carry();
  }

  #carry() {
    const arrow = this.arrows.findLast((one) => one.messages);
    while (this.#unclaimed.length && arrow && arrow.carried.length < arrow.messages) {
      const carried = this.#unclaimed.shift();
      carried.entry.arrow = arrow;
      arrow.carried.push(carried);
    }
    if (this.#unclaimed.length > KEPT_MAX) this.#unclaimed.length = 0;
  }

  #gap() {
    const at = now();
    this.gaps.push(at);
    const missing = [...this.entries.values()].filter((entry) => !entry.arrow);
    setTimeout(() => missing.forEach((entry) => entry.arrow || (entry.lost = at)), LOST_MS);
  }

  get median() {
    return this.delays.toSorted((a, b) => a - b)[this.delays.length >> 1];
  }

  /** Shows the counters; `most` is the largest of each in all lanes. */
  show(most) {
    const put = (name, value, say) => {
      const field = this.article.querySelector(`[data-count=${name}]`);
      field.textContent = value === undefined ? "–" : say(value);
      field.dataset.value = value ?? "";
      field.style.setProperty("--share", value && most[name] ? Math.max(0.015, value / most[name]) : 0);
    };
    put("requests", this.requests, number);
    put("messages", this.received, number);
    put("bytes", this.bytes, asBytes);
    put("median", this.median, asTime);
    put("worst", this.worst, asTime);
    for (const [at, line] of this.wire.entries()) {
      const { out, said, bytes } = this.last[at] ?? { said: "" };
      line.className = said && (out ? "out" : "in");
      line.title = said;
      // What differs is wanted, and there is little room: not the topic, and not the server's half of an id.
      const short = asLocal(said).replaceAll(/\b\d{12,}-(?=\d)/g, "…-").replace(/topic=[^&]*&/, "");
      const parts = [said && (out ? "→" : "←"), short, said && asBytes(bytes)];
      for (const [i, part] of parts.entries()) if (line.children[i].textContent !== part) line.children[i].textContent = part;
    }
  }
}

// What runs

const lanes = [];
let isShown = false;
let cutUntil = 0;
let frozenAt = 0;
let frame = 0;
let ticking = 0;
let publishing = 0;
let lastDrawn = 0;

const interval = () => Number($("interval").value) * 1000;

// A browser has six connections to a host, and this view holds two of them all the time: a third window that one looks
// at would starve them all. So two have a seat, and the next one waits for it.
let hasSeat = false;
let stand; // gives the seat up, or the wait for it

function sit() {
  if (!navigator.locks) { // over plain HTTP from another machine
    hasSeat = true;
    return (stand = () => (hasSeat = false));
  }
  const waiting = new AbortController();
  const hint = setTimeout(() => says($("lab-note"), "noSeat"), 500);
  const end = () => (clearTimeout(hint), waiting.abort());
  const take = () => {
    if (hasSeat || waiting.signal.aborted) return undefined;
    hasSeat = true;
    end();
    says($("lab-note"));
    apply();
    return new Promise((resolve) => (stand = () => resolve((hasSeat = false))));
  };
  for (const seat of [1, 2]) navigator.locks.request(`pousse ways ${seat}`, { signal: waiting.signal }, take).catch(() => {});
  return (stand = end);
}

/** Connections are held only while one looks, and not while the network is cut. */
function apply() {
  const isLooking = isShown && !document.hidden;
  if (isLooking && !stand) sit();
  if (!isLooking) {
    stand?.();
    stand = undefined;
  }
  for (const lane of lanes) {
    if (isLooking && hasSeat && !cutUntil) lane.open(interval());
    else lane.close(cutUntil ? "Cut" : "Hidden");
  }
  cancelAnimationFrame(frame);
  clearInterval(ticking);
  clearInterval(publishing);
  if (!isLooking) return;
  frame = requestAnimationFrame(draw);
  ticking = setInterval(tick, 250);
  const rate = Number($("rate").value);
  if (rate) publishing = setInterval(publish, 1000 / rate);
}

function draw(time) {
  frame = requestAnimationFrame(draw);
  if (still.matches && time - lastDrawn < 250) return;
  lastDrawn = time;
  for (const { picture } of lanes) picture.draw(frozenAt || now());
}

function tick() {
  says($("cut"), cutUntil ? "cutting" : "cut", Math.max(1, Math.ceil((cutUntil - now()) / 1000)));
  if (frozenAt) return;
  const largest = (of) => Math.max(...lanes.map((lane) => of(lane) ?? 0));
  const most = {
    requests: largest((lane) => lane.requests), bytes: largest((lane) => lane.bytes),
    median: largest((lane) => lane.median), worst: largest((lane) => lane.worst),
  };
  for (const lane of lanes) lane.show(most);
}

function setRate(n) {
  $("rate").value = n;
  says($("rate-value"), "rateValue", n);
  apply();
}

function freeze(wanted) {
  frozenAt = wanted ? now() : 0;
  $("freeze").ariaPressed = wanted;
  says($("freeze"), wanted ? "frozen" : "freeze");
  tick();
}

function reset() {
  me = Math.random().toString(36).slice(2, 10);
  count = 0;
  messages.clear();
  for (const lane of lanes) lane.reset();
  freeze(false);
}

function sayInterval() {
  says($("interval-value"), "seconds", interval() / 1000);
  for (const { way, article } of lanes) {
    says(article.querySelector(".is"), `${way}Is`, interval() / 1000);
    article.querySelector(".call").textContent = CALLS[way](interval());
  }
}

function cut() {
  if (cutUntil) return;
  cutUntil = now() + CUT_MS;
  $("cut").setAttribute("aria-disabled", "true");
  setTimeout(() => {
    cutUntil = 0;
    $("cut").removeAttribute("aria-disabled");
    apply();
    tick();
  }, CUT_MS);
  apply();
  tick();
}

lanes.push(...WAYS.map((way) => new Lane(way)));
translate($("lanes"));
reset();
setRate(Number($("rate").value)); // a browser may remember it
inEachLanguage(() => {
  sayInterval();
  tick();
  for (const lane of lanes) {
    lane.picture.canvas.ariaLabel = text("picture", text(lane.way));
    lane.sayState();
  }
  if (isShown) document.title = `${text("ways")} · pousse`;
});

$("controls").onsubmit = (event) => {
  event.preventDefault();
  document.body.classList.add("published");
  publish();
};
$("rate").oninput = () => setRate(Number($("rate").value));
$("interval").oninput = () => {
  for (const { way, client } of lanes) if (way === "polling" && client) client.interval = interval();
  sayInterval();
};
$("cut").onclick = cut;
$("freeze").onclick = () => freeze(!frozenAt);
$("reset").onclick = reset;

document.addEventListener("visibilitychange", apply);
addEventListener("pagehide", () => lanes.forEach((lane) => lane.close("Hidden")));
addEventListener("pageshow", apply);
view("ways", {
  show(name) {
    [isShown, topic] = [true, name || "lesson"];
    document.title = `${text("ways")} · pousse`;
    // The topic may come from a link somebody sent: it must not end the quotes of a shell.
    const url = new URL(`api/messages?topic=${encodeURIComponent(topic)}`, document.baseURI).href;
    $("from-terminal").textContent = `curl -d 'Bonjour serveur!' '${url.replaceAll("'", "%27")}'`;
    apply();
  },
  hide() {
    isShown = false;
    apply();
  },
});
