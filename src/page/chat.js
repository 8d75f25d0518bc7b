// chat.js: the built-in page. Two people open it in two windows and talk; beside it, what the browser does meanwhile.
// What comes from others is shown with textContent only.
import { connect } from "./pousse.js";

const LINES_MAX = 500; // on the page; the server keeps a history of its own
const TRACE_MAX = 60;
const CHECK_MS = 5_000;
const CHECK_HIDDEN_MS = 60_000; // even if nobody looks, our place must stay within the server's history
const CHECK_SOON_MS = 1_000; // after a message

const TEXTS = {
  en: {
    tagline: "a server that pushes", room: "Room", name: "Your name", anonymous: "anonymous",
    link: "Copy link", copy: "Copy", copied: "Copied", write: "Message", send: "Send",
    connecting: "connecting", open: "connected", waiting: "connection lost", closed: "closed",
    count: (n) => `next try in ${n} s`, now: "Connect now", unreachable: "the server cannot be reached",
    handshake: "HTTP works, the WebSocket does not: is there a proxy in between?",
    readers: (n) => `${n} here`, binary: (n) => `[binary, ${n} bytes]`,
    gap: "some messages were missed", refused: "the server did not take this message",
    unsure: "the connection was lost before this message came back",
    empty: "Nothing has sprouted here yet.", second: "Open a second window",
    browser: "What the browser does", curl: "The same with curl",
    poll: "Polling", wait: "Long polling", publish: "Publishing",
  },
  fr: {
    tagline: "un serveur qui pousse", room: "Salon", name: "Votre nom", anonymous: "anonyme",
    link: "Copier le lien", copy: "Copier", copied: "Copié", write: "Message", send: "Envoyer",
    connecting: "connexion en cours", open: "connecté", waiting: "connexion perdue", closed: "fermé",
    count: (n) => `nouvel essai dans ${n} s`, now: "Se connecter", unreachable: "le serveur est injoignable",
    handshake: "HTTP passe, le WebSocket non : y a-t-il un proxy entre les deux ?",
    readers: (n) => `${n} personne${n > 1 ? "s" : ""} ici`, binary: (n) => `[binaire, ${n} octets]`,
    gap: "il manque des messages", refused: "le serveur n’a pas accepté ce message",
    unsure: "la connexion s’est perdue avant le retour de ce message",
    empty: "Rien n’a encore poussé ici.", second: "Ouvrir une seconde fenêtre",
    browser: "Ce que fait le navigateur", curl: "La même chose avec curl",
    poll: "Interrogation (polling)", wait: "Interrogation longue (long polling)", publish: "Publication",
  },
};

const $ = (id) => document.getElementById(id);

// What the browser remembers, if it may.
const remembered = (key) => { try { return localStorage.getItem("pousse." + key); } catch { return null; } };
const remember = (key, value) => { try { localStorage.setItem("pousse." + key, value); } catch { /* then not */ } };

// Languages

let language = (remembered("language") ?? navigator.language).startsWith("fr") ? "fr" : "en";

/** Lets an element say a text of the dictionary, now and after a change of language. */
function says(element, key = "", n = 0) {
  const text = TEXTS[language][key] ?? "";
  const now = typeof text === "function" ? text(n) : text;
  Object.assign(element.dataset, { t: key, n });
  if (element.textContent !== now) element.textContent = now;
  return element;
}

function translate() {
  const texts = TEXTS[language];
  const all = (selector, act) => document.querySelectorAll(selector).forEach(act);
  document.documentElement.lang = language;
  all("[data-t]:not([data-t=''])", (e) => says(e, e.dataset.t, Number(e.dataset.n ?? 0)));
  all("[data-label]", (e) => (e.ariaLabel = texts[e.dataset.label]));
  all("[data-hint]", (e) => (e.placeholder = texts[e.dataset.hint]));
  all("#languages button", (e) => (e.ariaPressed = e.lang === language));
}

// What is shown

function element(tag, text = "", kind = "") {
  return Object.assign(document.createElement(tag), { textContent: text, className: kind });
}

/** Adds to a list that scrolls and follows its end, unless one has scrolled up to read. */
function append(list, line, most) {
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 48;
  list.append(line);
  if (list.childElementCount > most) list.firstElementChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

let pending = []; // sent and not yet come back: { sent, typed }

/** A message. "name: text" is only how this page writes one; any text is shown as it is. */
function show({ data, lastEventId }) {
  const line = element("p");
  if (typeof data === "string") {
    const name = /^[^\s:][^:\n]{0,31}: /.exec(data)?.[0] ?? "";
    line.append(element("b", name), data.slice(name.length));
    line.style.setProperty("--hue", [...name].reduce((sum, c) => (sum * 31 + c.codePointAt(0)) % 360, 0));
    const own = pending.findIndex(({ sent }) => sent === data);
    if (own >= 0) {
      line.className = "own";
      pending.splice(own, 1);
    }
  } else {
    line.append(says(element("i"), "binary", data.byteLength));
  }
  if (!lastEventId) { // live
    line.append(element("time", new Date().toLocaleTimeString(language, { timeStyle: "short" })));
    trace("socket.onmessage", "←", data);
  }
  append($("log"), line, LINES_MAX);
}

/** A line of the page's own. */
function note(key, text) {
  const line = element("p", "", "note");
  line.append(says(element("span"), key), element("q", text));
  append($("log"), line, LINES_MAX);
}

/** A line of the course's program, as it happens. */
function trace(call, arrow = "", value = "") {
  const text = typeof value === "string" ? JSON.stringify(value) : value.byteLength ? `ArrayBuffer(${value.byteLength})` : String(value);
  const line = element("li", call + " ", arrow === "←" ? "in" : "");
  if (arrow) line.append(element("b", arrow), " ", text.length > 120 ? text.slice(0, 120) + "…" : text);
  append($("trace"), line, TRACE_MAX);
}

let counting = 0;

function showState({ detail: { state, why, code = "", reason = "", until } }) {
  const open = state === "open";
  document.body.dataset.state = state;
  says($("state").firstChild, state);
  const spoken = `${code} ${reason}`.trim(); // by the server, in its language
  if (state !== "connecting") says($("reason"), spoken ? "" : why); // while it tries, one may go on reading why
  if (spoken) $("reason").textContent = spoken;
  if (!open) says($("readers"), "");
  $("log").ariaLive = open ? "polite" : "off"; // the history is not read aloud
  $("again").hidden = open || state === "connecting";
  const count = () => says($("count"), until && "count", Math.max(0, Math.ceil((until - Date.now()) / 1000)));
  clearInterval(counting);
  counting = setInterval(count, 500);
  count();
}

// The room

let room; // the connection
let topic = "";

/** A topic has 1 to 128 bytes and no control characters; `encodeInto` stops before the character that is too much. */
function asTopic(text) {
  const bytes = new Uint8Array(128);
  const { written } = new TextEncoder().encodeInto(text.replace(/\p{Cc}/gu, "").trim(), bytes);
  return new TextDecoder().decode(bytes.subarray(0, written)) || "general";
}

function addressed() {
  const hash = location.hash.slice(1);
  try {
    return asTopic(decodeURIComponent(hash) || new URLSearchParams(location.search).get("room") || "");
  } catch {
    return asTopic(hash); // a % that is only a %
  }
}

const link = () => `${location.origin}${location.pathname}#${encodeURIComponent(topic)}`;

function join() {
  if (topic === addressed()) return;
  room?.close();
  topic = addressed();
  pending = [];
  if (location.search) history.replaceState(null, "", link()); // one place for the name of the room
  document.title = `${topic} · pousse`;
  $("room").value = topic;
  $("second").href = link();
  $("log").replaceChildren();
  room = connect({ topic });
  const on = (type, listener) => room.addEventListener(type, listener);
  on("state", showState);
  on("message", (event) => (show(event), checkSoon()));
  on("history", ({ detail: { count, gap } }) => {
    trace("fetch api/messages", "←", count);
    if (gap) note("gap");
  });
  on("socket", ({ detail }) => trace("new WebSocket", "→", detail));
  on("open", () => {
    trace("socket.onopen");
    for (const { typed } of pending) note("unsure", typed);
    pending = [];
    check();
  });
  on("error", () => trace("socket.onerror"));
  on("close", ({ code, reason }) => {
    trace(`socket.onclose ${code}`, reason && "←", reason);
    // What we sent was the cause. It is not sent again but given back.
    if (![1003, 1007, 1008, 1009].includes(code) || !pending[0]) return;
    note("refused", reason);
    $("text").value ||= pending[0].typed;
    pending = [];
  });
  fillCurl();
}

let checking = 0;
let soon = false;

function checkIn(ms) {
  clearTimeout(checking);
  checking = setTimeout(check, ms);
}

function checkSoon() {
  if (!soon) checkIn(CHECK_SOON_MS);
  soon = true;
}

async function check() {
  soon = false;
  checkIn(document.hidden ? CHECK_HIDDEN_MS : CHECK_MS);
  const readers = await room.check();
  if (readers !== undefined) says($("readers"), "readers", readers);
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
  fill("poll", "");
  fill("wait", "", `after=${room.last ?? "now"}`, "wait=30");
  fill("publish", "-d 'Bonjour serveur!' ");
}

// What the visitor does

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    says(button, "copied");
    setTimeout(() => says(button, button.id || "copy"), 1500);
  } catch {
    prompt("", text); // over plain HTTP there is no clipboard, except on the same machine
  }
}

$("link").onclick = () => copy($("link"), link());
$("curl").onclick = ({ target }) => {
  if (target.type) copy(target, target.parentElement.nextElementSibling.textContent);
};
$("now").onclick = () => room.open();
$("languages").onclick = ({ target }) => {
  if (target.lang) remember("language", (language = target.lang));
  translate();
};

$("who").onsubmit = (event) => {
  event.preventDefault();
  $("text").focus();
};
$("room").onchange = () => {
  $("room").value = asTopic($("room").value);
  location.hash = encodeURIComponent($("room").value);
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
  const sent = name ? `${name}: ${typed}` : typed;
  if (!typed) return;
  if (!room.send(sent)) return room.open(); // the text stays in its box
  trace("socket.send", "→", sent);
  pending.push({ sent, typed });
  $("text").value = "";
  $("log").scrollTop = $("log").scrollHeight;
};
$("text").onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("say").requestSubmit();
};

// The life of the page: who looks at it does not wait for a back-off, and put aside it holds no socket.
addEventListener("hashchange", join);
addEventListener("pagehide", () => room.close());
addEventListener("pageshow", () => room.open());
addEventListener("online", () => room.open());
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  room.open();
  check();
});

translate();
join();
if (matchMedia("(pointer: fine)").matches) $("text").focus(); // on a phone the keyboard would cover the page
