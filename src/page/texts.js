// texts.js: what both views share: the words in two languages, what the browser remembers, and which view is shown.
//
// An element says a text by its name: `data-t="send"` is its content, `data-label` its name for a screen reader,
// `data-hint` its placeholder. A text that depends on a value is a function of it.

const en = {
  tagline: "a server that pushes", views: "Views", ways: "The four ways", chat: "Chat",
  connecting: "connecting", open: "connected", waiting: "connection lost", closed: "closed",
  polling: "Polling", "long-polling": "Long polling", "event-stream": "Event stream", websocket: "WebSocket",

  lead: "How does a page learn what is new on the server? There are four ways. Publish, and watch the dot travel.",
  publishNow: "Publish now", rate: "Automatically", rateValue: (n) => (n ? `${n} / s` : "off"),
  interval: "Polling every", seconds: (s) => `${number(s)} s`,
  cut: "Cut the network for 4 s", cutting: (s) => `Cut: ${s} s more`,
  freeze: "Freeze", frozen: "Go on", reset: "Start over", lanes: "The four ways, side by side",
  pollingIs: (s) => `The browser asks every ${s === 1 ? "second" : number(s) + " s"}, whether or not there is something.`,
  "long-pollingIs": "The browser asks, and the server holds its answer back until there is something.",
  "event-streamIs": "The browser asks once. It is one answer that never ends.",
  websocketIs: "The two agree on an open line. From then on, both may speak.",
  client: "browser", server: "server", now: "now",
  pollingAsk: "anything new?", pollingNo: "no", pollingYes: "yes!",
  "long-pollingAsk": "anything new? I’ll wait", "long-pollingNo": "still nothing", "long-pollingYes": "here you are",
  "event-streamAsk": "keep me posted", "event-streamYes": "I will, stay on the line",
  websocketAsk: "shall we talk?", websocketYes: "yes, line open",
  held: (s) => `held ${s} s`, awayCut: "network cut", awayHidden: "page hidden", awayWaiting: "connection lost",
  gap: "gap: some are no longer kept",
  requests: "requests", messages: "messages", bytes: "on the wire", median: "median delay", worst: "worst",
  legendBorn: "a message reaches the server", legendWaits: "it waits there for somebody to fetch it",
  legendEmpty: "a question, an empty answer", legendHeld: "a request that the server holds", legendCut: "no connection",
  terminal: "From a terminal:",
  legendLine: "A message has one number and one colour everywhere; those of other pages are grey. From one thin line to the next is a "
    + "second. Bytes count the fields too; those that the browser hides are estimated. What is published during a cut arrives "
    + "after it; if that was more than the server keeps, it says so: a gap.",
  picture: (way) => `Sequence diagram, live: ${way}. The counters below say the same in numbers.`,
  notPublished: (why) => `Not published: ${why}`,
  noSeat: "Two other windows of this browser show the four ways already. This one begins when one of them is closed or hidden.",

  room: "Room", name: "Your name", anonymous: "anonymous", transport: "Transport", auto: "automatic",
  by: (way) => `by ${within(way)}`, link: "Copy link", copy: "Copy", copied: "Copied", write: "Message", send: "Send",
  count: (s) => `next try in ${s} s`, connectNow: "Connect now", unreachable: "the server does not answer",
  readers: (n) => `${n} here`, readersBut: (n) => `${n} here, plus who polls, like you`,
  readersWhy: "WebSockets, event streams and waiting long polls are counted. Who polls is not seen between two questions.",
  binary: (n) => `[binary, ${n} bytes]`, again: "Send again", sending: "sending",
  away: (n) => `${n} message${n === 1 ? "" : "s"} while you were away`,
  earlier: (n) => `${n} earlier message${n === 1 ? "" : "s"}`,
  missing: "some messages may be missing: the server no longer keeps them, or was restarted",
  nothing: "Nothing has sprouted here yet.", second: "Open a second window",
  browser: "What crosses the network", curl: "The same with curl",
  poll: "Polling", wait: "Long polling", stream: "Event stream", publish: "Publishing",
};

/** @type {typeof en} */
const fr = {
  tagline: "un serveur qui pousse", views: "Vues", ways: "Les quatre façons", chat: "Clavardage",
  connecting: "connexion en cours", open: "connecté", waiting: "connexion perdue", closed: "fermé",
  polling: "Interrogation périodique", "long-polling": "Interrogation longue",
  "event-stream": "Flux d’événements", websocket: "WebSocket",

  lead: "Comment une page apprend-elle ce qu’il y a de neuf sur le serveur ? De quatre façons. Publiez, et suivez la pastille.",
  publishNow: "Publier", rate: "Automatiquement", rateValue: (n) => (n ? `${n} / s` : "arrêté"),
  interval: "Interroger toutes les", seconds: (s) => `${number(s)} s`,
  cut: "Couper le réseau 4 s", cutting: (s) => `Coupé, encore ${s} s`,
  freeze: "Figer", frozen: "Reprendre", reset: "Recommencer", lanes: "Les quatre façons, côte à côte",
  pollingIs: (s) => `Le navigateur demande toutes les ${s === 1 ? "secondes" : number(s) + " s"}, qu’il y ait du nouveau ou non.`,
  "long-pollingIs": "Le navigateur demande, et le serveur retient sa réponse jusqu’à ce qu’il y ait du nouveau.",
  "event-streamIs": "Le navigateur demande une fois. C’est une réponse qui ne finit jamais.",
  websocketIs: "Les deux conviennent d’une ligne ouverte. Dès lors, chacun peut parler.",
  client: "navigateur", server: "serveur", now: "maintenant",
  pollingAsk: "du nouveau ?", pollingNo: "non", pollingYes: "oui !",
  "long-pollingAsk": "du nouveau ? j’attends", "long-pollingNo": "toujours rien", "long-pollingYes": "voilà !",
  "event-streamAsk": "tenez-moi au courant", "event-streamYes": "d’accord, restez en ligne",
  websocketAsk: "on se parle ?", websocketYes: "oui, ligne ouverte",
  held: (s) => `retenue ${s} s`, awayCut: "réseau coupé", awayHidden: "page cachée", awayWaiting: "connexion perdue",
  gap: "trou : certains ne sont plus gardés",
  requests: "requêtes", messages: "messages", bytes: "sur le réseau", median: "délai médian", worst: "le pire",
  legendBorn: "un message arrive au serveur", legendWaits: "il y attend qu’on vienne le chercher",
  legendEmpty: "une question, une réponse vide", legendHeld: "une requête que le serveur retient", legendCut: "pas de connexion",
  terminal: "Depuis un terminal :",
  legendLine: "Un message a partout le même numéro et la même couleur ; ceux d’autres pages sont gris. D’un trait fin au suivant : "
    + "une seconde. Les octets comptent aussi les champs ; ceux que le navigateur cache sont estimés. Ce qui est publié "
    + "pendant une coupure arrive après elle ; si c’était plus que ce que le serveur garde, il le dit : un "
    + "trou.",
  picture: (way) => `Diagramme de séquence en direct : ${way}. Les compteurs au-dessous disent la même chose en chiffres.`,
  notPublished: (why) => `Non publié : ${why}`,
  noSeat: "Deux autres fenêtres de ce navigateur montrent déjà les quatre façons. Celle-ci attend que l’une d’elles soit fermée ou cachée.",

  room: "Salon", name: "Votre nom", anonymous: "anonyme", transport: "Transport", auto: "automatique",
  by: (way) => `par ${within(way)}`, link: "Copier le lien", copy: "Copier", copied: "Copié", write: "Message", send: "Envoyer",
  count: (s) => `nouvel essai dans ${s} s`, connectNow: "Se connecter", unreachable: "le serveur ne répond pas",
  readers: (n) => `${n} ici`, readersBut: (n) => `${n} ici, plus qui interroge, comme vous`,
  readersWhy: "Sont comptés les WebSockets, les flux et les interrogations longues. Qui interroge périodiquement ne se voit pas.",
  binary: (n) => `[binaire, ${n} octets]`, again: "Renvoyer", sending: "envoi en cours",
  away: (n) => `${n} message${n > 1 ? "s" : ""} pendant votre absence`,
  earlier: (n) => `${n} message${n > 1 ? "s" : ""} d’avant votre arrivée`,
  missing: "il manque peut-être des messages : le serveur ne les garde plus, ou a redémarré",
  nothing: "Rien n’a encore poussé ici.", second: "Ouvrir une seconde fenêtre",
  browser: "Ce qui passe sur le réseau", curl: "La même chose avec curl",
  poll: "Interrogation périodique", wait: "Interrogation longue", stream: "Flux d’événements", publish: "Publication",
};

// Small things

export const $ = (id) => document.getElementById(id);
export const all = (selector, act, within = document) => within.querySelectorAll(selector).forEach(act);

// What the browser remembers, if it may.
export const remembered = (key) => { try { return localStorage.getItem("pousse." + key); } catch { return null; } };
export const remember = (key, value) => { try { localStorage.setItem("pousse." + key, value); } catch { /* then not */ } };

// Languages

export let language = (remembered("language") ?? navigator.language).startsWith("fr") ? "fr" : "en";
const values = new WeakMap(); // of the elements whose text is a function

const within = (name) => (name === en.websocket ? name : name.toLowerCase()); // a sentence

/** A text of the dictionary. */
export function text(key, value) {
  const found = (language === "fr" ? fr : en)[key] ?? "";
  return typeof found === "function" ? found(value) : found;
}

/** Lets an element say a text, now and after a change of language. */
export function says(element, key = "", value = undefined) {
  element.dataset.t = key;
  values.set(element, value);
  const now = text(key, value);
  if (element.textContent !== now) element.textContent = now;
  return element;
}

/** With the habits of the visitor's country, if that speaks the language. */
export const locale = () => (navigator.language.startsWith(language) ? navigator.language : language);

export const number = (n, digits = 2) => n.toLocaleString(locale(), { maximumFractionDigits: digits });

export const asTime = (ms) => (ms < 1000 ? `${number(ms, ms < 10 ? 1 : 0)} ms` : `${number(ms / 1000, 1)} s`);

export function asBytes(n) {
  const unit = language === "fr" ? "o" : "B";
  return n < 10_000 ? `${number(n)} ${unit}` : n < 1e6 ? `${number(n / 1000, 1)} k${unit}` : `${number(n / 1e6, 1)} M${unit}`;
}

/** What crossed the network, without the address of this very server. */
export const asLocal = (said) => said.replace(` ${location.origin}/`, " /").replace(` ${location.origin.replace("http", "ws")}/`, " /");

const translated = new Set(); // what else there is to do in a new language

/** Calls `act` in every language that is chosen, the present one first. */
export function inEachLanguage(act) {
  translated.add(act);
  act();
}

export function translate(within = document) {
  all("[data-t]", (e) => says(e, e.dataset.t, values.get(e)), within);
  all("[data-label]", (e) => (e.ariaLabel = text(e.dataset.label)), within);
  all("[data-hint]", (e) => (e.placeholder = text(e.dataset.hint)), within);
}

inEachLanguage(() => {
  document.documentElement.lang = language;
  translate();
  all("#languages button", (e) => (e.ariaPressed = e.lang === language));
});

$("languages").onclick = ({ target }) => {
  if (!target.lang) return;
  remember("language", (language = target.lang));
  translated.forEach((act) => act());
};

// Views: `#ways`, `#ways/TOPIC`, `#chat`, `#chat/ROOM`; `#ROOM` alone is a room, too.

const views = new Map();
const FIRST = "ways"; // for who comes without a hash

/** A topic has 1 to 128 bytes and no control characters; `encodeInto` stops before the character that is too much. */
export function asTopic(name) {
  const bytes = new Uint8Array(128);
  const { written } = new TextEncoder().encodeInto(name.replace(/\p{Cc}/gu, "").trim(), bytes);
  return new TextDecoder().decode(bytes.subarray(0, written));
}

const decoded = (part) => { try { return decodeURIComponent(part); } catch { return part; } }; // a % that is only a %

function addressed() {
  const hash = location.hash.slice(1);
  const [, name, topic] = /^(ways|chat)(?:\/(.*))?$/.exec(hash) ?? [];
  if (name) return { name, topic: asTopic(decoded(topic ?? "")) };
  const room = asTopic(decoded(hash) || new URLSearchParams(location.search).get("room") || "");
  return room ? { name: "chat", topic: room } : { name: FIRST, topic: "" };
}

export const address = (view, topic) => `#${view}/${encodeURIComponent(topic)}`;

function turn() {
  const { name, topic } = addressed();
  all("[data-view]", (e) => (e.hidden = e.dataset.view !== name));
  all("nav a", (e) => (e.ariaCurrent = e.hash.slice(1).split("/")[0] === name ? "page" : null));
  for (const [other, { hide }] of views) if (other !== name) hide();
  views.get(name)?.show(topic);
}

/** A view says how it is shown (again for every topic) and hidden. Only the one that is shown holds connections. */
export function view(name, acts) {
  views.set(name, acts);
  turn();
}

addEventListener("hashchange", turn);
