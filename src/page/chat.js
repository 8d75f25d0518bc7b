// chat.js: the view "chat". Two people open it in two windows and talk; beside it, what crosses the network meanwhile.
// What comes from others is shown with textContent only.
import { connect } from "./pousse.js";
import { $, address, all, asBytes, asLocal, asTopic, inEachLanguage, locale, remember, remembered, says, text, view } from "./texts.js";

const WAYS = ["websocket", "event-stream", "long-polling", "polling"];
const LINES_MAX = 500; // on the page; the server keeps a history of its own
const WIRE_MAX = 80;
const COUNT_MS = 5_000;
const CATCHING_UP_MS = 700; // after a connection has opened: what comes so soon was there before

let room; // the client
let topic = "";
let shown = false;
let force = WAYS.includes(remembered("transport")) ? remembered("transport") : "";

const ways = () => (force ? [force] : WAYS);

// What is shown

function element(tag, text = "", kind = "") {
  return Object.assign(document.createElement(tag), { textContent: text, className: kind });
}

let lines = []; // to be added: all that comes in one go is added at once

/** Adds to the conversation, which follows its end unless one has scrolled up to read. */
function append(line) {
  if (!lines.length) queueMicrotask(flush);
  lines.push(line);
  return line;
}

function flush() {
  const list = $("messages");
  list.append(...lines);
  lines = [];
  while (list.childElementCount > LINES_MAX) list.children[Number(list.firstElementChild === missed?.line)].remove();
  list.append(...pending.map(({ line }) => line)); // what is not sent yet stays last
  toEnd();
}

let follows = true; // the end of the conversation

function toEnd(always = false) {
  follows ||= always;
  if (follows) $("messages").scrollTop = $("messages").scrollHeight;
}
$("messages").onscroll = ({ target }) => (follows = target.scrollHeight - target.scrollTop - target.clientHeight < 48);
new ResizeObserver(() => toEnd()).observe($("messages"));

/** "name: text" is only how this page writes a message; any text is shown as it is. */
function messageLine(data) {
  const line = element("p", "", "message");
  if (typeof data === "string") {
    const name = /^[^\s:][^:\n]{0,31}: /.exec(data)?.[0] ?? "";
    line.append(element("b", name), data.slice(name.length));
    line.style.setProperty("--hue", [...name].reduce((sum, c) => (sum * 31 + c.codePointAt(0)) % 360, 0));
  } else {
    line.append(says(element("i"), "binary", data.byteLength));
  }
  return line;
}

function divider(key, value) {
  return append(says(element("p", "", `divider ${key}`), key, value));
}

// Before us, or while we were away: what comes until the connection has caught up is told apart by a line that counts.
let missed; // { key, line, count, until }

function missing(key) {
  if (!missed || missed.until < Date.now()) missed = { key, count: 0, until: Infinity };
}

function show({ data, lastEventId }) {
  const mine = pending.find((one) => one.id === lastEventId) ?? pending.find((one) => !one.id && one.sent === data);
  const late = missed && (document.hidden || Date.now() < missed.until);
  if (mine) {
    pending.splice(pending.indexOf(mine), 1);
    mine.line.classList.remove("pending");
    mine.line.classList.add("settled");
    append(mine.line);
  } else {
    if (late) {
      missed.line ??= divider(missed.key, 0);
      says(missed.line, missed.key, (missed.count += 1));
    }
    append(messageLine(data));
  }
  const line = lines.at(-1);
  line.dataset.id = lastEventId;
  if (!late || missed.key === "away") { // of what is earlier, nobody knows when it was
    line.append(element("time", new Date().toLocaleTimeString(locale(), { timeStyle: "short" })));
  }
  if (document.hidden) sayTitle();
}

function sayTitle() {
  const unread = document.hidden && missed?.key === "away" ? missed.count : 0;
  document.title = `${unread ? `(${unread}) ` : ""}${topic} · pousse`;
}

function trace({ way, text, bytes }) {
  const [list, line] = [$("wire"), element("li", "", way)];
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 48;
  const said = asLocal(text);
  const short = said.length > 160 ? said.slice(0, 160) + "…" : said;
  line.append(element("b", way === "out" ? "→" : "←"), ` ${short} `, element("small", asBytes(bytes)));
  list.append(line);
  if (list.childElementCount > WIRE_MAX) list.firstElementChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

let counting = 0;

function showState({ state, transport, until, problem = "", code = "" }) {
  const open = state === "open";
  $("talk").dataset.state = state;
  $("talk").dataset.transport = transport ?? "";
  all("#transports label", (e) => e.classList.toggle("used", open && e.firstChild.value === transport));
  says($("state").firstElementChild, state);
  says($("by"), open && "by", text(transport));
  if (open) $("problem").textContent = "";
  else if (problem || code) $("problem").textContent = `${code} ${problem}`.trim();
  else if (state === "waiting") says($("problem"), "unreachable");
  if (open) countReaders();
  else says($("readers"));
  $("messages").ariaLive = open ? "polite" : "off"; // the history is not read aloud
  $("again").hidden = open || state === "connecting";
  const say = () => says($("count"), until && "count", Math.max(0, Math.ceil((until - Date.now()) / 1000)));
  clearInterval(counting);
  if (until) counting = setInterval(say, 500);
  say();
  if (open && missed) missed.until = Math.min(missed.until, Date.now() + CATCHING_UP_MS);
  if ((state === "waiting" || state === "closed") && room?.last) missing("away");
}

// Sending

let pending = []; // published and not yet come back: { sent, line, id }

async function publish(sent) {
  const [mine, to] = [{ sent, line: messageLine(sent) }, room];
  mine.line.classList.add("own", "pending");
  mine.line.title = text("sending");
  pending.push(mine);
  $("messages").append(mine.line);
  toEnd(true);
  try {
    mine.id = await to.publish(topic, sent);
    if (to !== room || !pending.includes(mine)) return;
    const here = [...$("messages").children].find((line) => line.dataset.id === mine.id); // it was here before we knew its id
    if (!here) return;
    pending.splice(pending.indexOf(mine), 1);
    mine.line.remove();
    here.classList.add("own");
  } catch ({ message, code = "" }) {
    if (to !== room) return;
    pending = pending.filter((one) => one !== mine);
    mine.line.classList.replace("pending", "failed");
    const again = says(element("button"), "again");
    again.onclick = () => (mine.line.remove(), publish(sent));
    mine.line.append(element("em", `${code} ${message}`.trim()), again);
  } finally {
    mine.line.removeAttribute("title");
  }
}

// The room

const link = () => new URL(address("chat", topic), location.origin + location.pathname).href;

function join(name) {
  topic = name;
  room?.close();
  pending = [];
  lines = [];
  missed = undefined;
  missing("earlier");
  sayTitle();
  $("room").value = topic;
  $("second").href = link();
  $("messages").replaceChildren();
  $("wire").replaceChildren();
  const client = (room = connect({ topics: [topic], after: "earliest" }));
  client.transports = ways();
  const on = (type, act) => client.addEventListener(type, (event) => client === room && act(event));
  on("state", ({ detail }) => showState(detail));
  on("message", show);
  on("gap", () => divider("missing").classList.add("gap"));
  on("wire", ({ detail }) => trace(detail));
  fillCurl();
}

let asking = 0;

/** Who is here: a poll of nothing tells how many read. */
async function countReaders() {
  clearTimeout(asking);
  const client = room;
  if (!shown || document.hidden || client.state.state !== "open") return;
  asking = setTimeout(countReaders, COUNT_MS);
  try {
    const answer = await fetch(`api/messages?topic=${encodeURIComponent(topic)}&limit=0&after=now`, { cache: "no-store" });
    const { readers } = await answer.json();
    if (client !== room || client.state.state !== "open" || !Number.isFinite(readers)) return;
    says($("readers"), client.transport === "polling" ? "readersBut" : "readers", readers);
    $("readers").title = text("readersWhy");
  } catch { /* if the server is gone, the connection will tell */ }
  fillCurl();
}

function fillCurl() {
  const fill = (id, before, ...query) => {
    if (topic !== "general") query.unshift(`topic=${encodeURIComponent(topic)}`);
    const url = new URL("api/messages" + (query.length ? "?" + query.join("&") : ""), document.baseURI).href;
    // The topic may come from a link somebody sent: it must not end the quotes of a shell.
    const text = `curl ${before}'${url.replaceAll("'", "%27")}'`;
    if ($(id).textContent !== text) $(id).textContent = text; // otherwise a selection would be lost
  };
  fill("curl-poll", "");
  fill("curl-wait", "", `after=${room.last ?? "now"}`, "wait=30");
  fill("curl-stream", "-NH 'Accept: text/event-stream' ");
  fill("curl-publish", "-d 'Bonjour serveur!' ");
}

// What the visitor does

for (const way of ["", ...WAYS]) {
  const [label, input] = [element("label"), element("input")];
  Object.assign(input, { type: "radio", name: "transport", value: way || "auto", checked: way === force });
  if (way) input.dataset.transport = way;
  label.append(input);
  label.insertAdjacentHTML("beforeend", `<svg class="icon" aria-hidden="true"><use href="#${way || "sprout"}"/></svg>`);
  label.append(says(element("span"), way || "auto"));
  input.onchange = () => {
    remember("transport", (force = way));
    room.transports = ways();
    room.open();
  };
  $("transports").append(label);
}

async function copy(button, what) {
  try {
    await navigator.clipboard.writeText(what);
    says(button, "copied");
    setTimeout(() => says(button, button.id || "copy"), 1500);
  } catch {
    prompt("", what); // over plain HTTP there is no clipboard, except on the same machine
  }
}

$("link").onclick = () => copy($("link"), link());
$("curl").onclick = ({ target }) => {
  if (target.type) copy(target, target.parentElement.nextElementSibling.textContent);
};
$("connect-now").onclick = () => room.open();

$("who").onsubmit = (event) => {
  event.preventDefault();
  $("text").focus();
};
$("room").onchange = () => {
  $("room").value = asTopic($("room").value) || "general";
  location.hash = address("chat", $("room").value);
};
$("name").value = remembered("name") ?? "";
$("name").onchange = () => {
  $("name").value = $("name").value.replace(/[\s:]+/g, " ").trim(); // a colon ends the name
  remember("name", $("name").value);
};

$("say").onsubmit = (event) => {
  event.preventDefault();
  const typed = $("text").value.trim();
  const name = $("name").value;
  if (!typed) return;
  publish(name ? `${name}: ${typed}` : typed);
  $("text").value = "";
};
$("text").onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("say").requestSubmit();
};

// The life of the page: who looks at it does not wait for a back-off. Hidden it keeps a WebSocket at most, because
// a browser has only six other connections to a host.
document.addEventListener("visibilitychange", () => {
  if (!shown) return;
  if (document.hidden) {
    if (room.last) missing("away");
    if (room.transport !== "websocket") room.close();
  } else {
    if (missed && room.state.state === "open") missed.until = Date.now() + CATCHING_UP_MS;
    room.open();
    countReaders();
  }
  sayTitle();
});
addEventListener("pagehide", () => room?.close());
addEventListener("pageshow", () => shown && !document.hidden && room.open());
addEventListener("online", () => shown && room.open());

inEachLanguage(() => room && showState(room.state));
view("chat", {
  show(name) {
    name ||= topic || "general";
    shown = true;
    if (name !== topic) join(name);
    else room.open();
    sayTitle();
    if (location.search) history.replaceState(null, "", link()); // one place for the name of the room
    if (matchMedia("(pointer: fine)").matches) $("text").focus(); // on a phone the keyboard would cover the page
  },
  hide() {
    if (!shown) return;
    shown = false;
    room.close();
  },
});
