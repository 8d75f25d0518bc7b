// pousse.js: the client, for browsers and Node.
//
//     import { connect } from "./pousse.js";
//     const room = connect({ topics: ["general"], after: "earliest" });
//     room.addEventListener("message", ({ data }) => console.log(data));
//     await room.publish("general", "Bonjour serveur!");
//
// It keeps a place in each topic: the id up to which all was delivered. Every transport goes on from there; what
// the server has dropped is a `gap`. More: pousse.d.ts.

const OPENING_MS = 8_000;
const STEADY_MS = 5_000;
const BACKOFF_MAX_MS = 30_000;
const RETRY_BEST_MS = 600_000;
const REQUEST_BYTES = 480;

/** As strings, 9 is above 10. */
const parse = (place) => ({ earliest: [-1], now: [Infinity] })[place] ?? place.split("-").map(Number);

const isAbove = (a, b) => {
  const [run, seq] = parse(a);
  const [run2, seq2] = parse(b);
  return run > run2 || (run === run2 && seq > seq2);
};

const refusal = (problem, code, waitMs = 0) =>
  Object.assign(new Error(problem), { problem, code, waitMs, isFinal: /^4(?!08|25|29)..$/.test(code) });

const asked = (item) => {
  item.key = crypto.getRandomValues(new Uint32Array(3)).join("");
  item.promise = new Promise((resolve, reject) => Object.assign(item, { resolve, reject }));
  return item;
};

class Connection extends EventTarget {
  state = { state: "closed" };
  #places = new Map(); // topic -> place: an id, `earliest` or `now`
  #pending = new Map(); // topic -> subscription
  #behind = new Set(); // topics that have to catch up
  #left = new Set(); // may still come
  #queue = [];
  #list;
  #index;
  #memory = {};
  #failures = 0;
  #session; // from open() to close()
  #life = new AbortController();
  #openedAt;
  #deadline;
  #wake = () => {};
  #retryMs = 1000;
  #ping = 25;
  #socket;
  #isFlushing;
  #group = new AbortController();
  #channel;
  #isFollower;
  #isDue;

  constructor({ url = new URL("api/messages", import.meta.url), topics = ["general"], after = "now", shared,
    transports = ["websocket", "event-stream", "long-polling", "polling"], interval = 1000, wait = 50,
    token }) {
    super();
    this.url = new URL(url, globalThis.document?.baseURI).href.replace(/^ws/, "http");
    this.locks = shared && globalThis.navigator?.locks;
    try {
      this.#memory = sessionStorage;
    } catch {}
    Object.assign(this, { transports, interval, wait, token });
    for (const topic of topics) this.#places.set(topic, after);
    queueMicrotask(() => this.state.code ?? this.open());
  }

  get transport() {
    return this.state.transport;
  }

  get topics() {
    return [...this.#places.keys()];
  }

  get transports() {
    return this.#list;
  }

  set transports(list) {
    this.#list = list.filter((it) => it !== "websocket" || globalThis.WebSocket);
    this.#choose(Math.max(0, this.#list.indexOf(this.#memory[this.url])));
  }

  open() {
    this.#wake();
    if (this.#session) return;
    const { signal } = (this.#session = new AbortController());
    const wake = ({ type }) => {
      if (this.state.code < 600) return;
      if (type === "online") this.#choose(0);
      this.#wake();
    };
    for (const type of ["online", "visibilitychange"]) globalThis.addEventListener?.(type, wake, { signal });
    if (this.locks) this.#join();
    this.#run(signal);
  }

  close(why = { code: 1000 }) {
    this.state.code ??= why.code;
    if (!this.#session) return;
    this.#session.abort();
    this.#session = undefined;
    this.#group.abort();
    this.#restart();
    this.#become({ state: "closed", ...why });
  }

  async subscribe(topic, after = "now") {
    if (!this.#places.has(topic)) {
      const item = asked({});
      this.#places.set(topic, after);
      this.#pending.set(topic, item);
      this.#behind.add(topic);
      this.#change({ subscribe: topic, after, ref: item.key });
    }
    return this.#pending.get(topic)?.promise;
  }

  unsubscribe(topic) {
    if (!this.#places.delete(topic)) return;
    this.#answer(topic);
    this.#change({ unsubscribe: topic });
    this.#left.add(topic);
  }

  publish(topic, data) {
    const isText = !(data?.byteLength >= 0);
    data = isText ? String(data) : new Uint8Array(data.buffer ?? data, data.byteOffset, data.byteLength).slice();
    const item = asked({ topic, data, isText });
    this.#queue.push(item);
    this.#flush();
    return item.promise;
  }

  async #run(session) {
    while (!session.aborted) {
      const transport = this.#isFollower ? "polling" : this.#list[this.#index];
      const better = this.#index && setTimeout(() => this.#choose(0), RETRY_BEST_MS);
      let error = await this.#live((signal) => this.#read(transport, signal));
      clearTimeout(better);
      this.#socket = undefined;
      for (const item of this.#queue) item.isSent &&= false;
      const isSteady = this.#openedAt && Date.now() - this.#openedAt > STEADY_MS;
      if (isSteady) this.#failures = 0;
      // Browsers hide why; a plain GET is told. If that works, the transport does not.
      if (error && transport !== "polling" && !error.waitMs && (!isSteady || error.isFinal)) {
        const found = await this.#live((signal) => this.#get({ limit: 0 }, signal));
        error.isFinal = false;
        if (!found || found.code) error = found;
        else if (found.messages && (this.#failures || this.#memory[this.url] !== transport)) {
          this.#choose((this.#index + 1) % this.#list.length);
          if (this.#index) continue;
        }
      }
      if (!error) continue;
      const { isFinal, problem, code } = error;
      const ms = this.#backOff(this.#failures++, error);
      const slept = this.#sleep(ms);
      if (!isFinal) this.#become({ state: "waiting", until: Date.now() + ms, transport, problem, code });
      else if (!this.#pending.size) this.close({ problem, code });
      else for (const topic of this.#pending.keys()) this.#answer(topic, error);
      await slept;
    }
  }

  async #live(work) {
    const life = (this.#life = new AbortController());
    this.#expect(OPENING_MS);
    const watch = setInterval(() => Date.now() > this.#deadline && life.abort(new Error("silence")), 1000);
    try {
      return await work(life.signal);
    } catch (error) {
      return life.signal.reason ?? error;
    } finally {
      clearInterval(watch);
      life.abort();
    }
  }

  #expect(ms) {
    this.#deadline = Date.now() + ms;
  }

  #choose(index) {
    this.#index = index;
    this.#restart();
  }

  #restart() {
    this.#life.abort("");
    this.#wake();
  }

  #sleep(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => resolve(clearTimeout(timer));
    });
  }

  #backOff(failures, { waitMs = 0 }) {
    return waitMs + Math.random() * Math.min(BACKOFF_MAX_MS, this.#retryMs * 2 ** failures);
  }

  #opened() {
    if (this.#openedAt) return;
    this.#openedAt = Date.now();
    if (this.#list[1] && !this.#isFollower) this.#memory[this.url] = this.transport;
    if (!this.#socket) for (const topic of this.#pending.keys()) this.#answer(topic);
    if (!this.#isFollower) this.#channel?.postMessage([]);
    this.#become({ state: "open", transport: this.transport });
  }

  #become(state) {
    this.state = state;
    this.#tell("state", state);
    const { state: name, code = 1006, problem: reason = "" } = state;
    if (this.state !== state || name === "connecting") return;
    this.#tell(name === "open" ? name : "close", { code, reason });
    this.#flush();
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /** All up to this id was given, if of a topic that is behind: only its own. */
  #reached(id, topic) {
    this.last = id;
    for (const [it, place] of this.#places) {
      if (this.#behind.has(it) && it !== topic) continue;
      if (place === "now" || isAbove(id, place)) this.#places.set(it, id);
    }
  }

  #message(entry) {
    let { id = "", topic, data, base64 } = entry;
    if (id) {
      const place = this.#places.get(topic);
      if (!place || (place !== "now" && !isAbove(id, place))) return;
      if (!this.#isFollower) this.#channel?.postMessage([entry, place]);
      this.#reached(id, topic);
    }
    if (base64 !== undefined) data = Uint8Array.from(atob(base64), (it) => it.charCodeAt(0)).buffer;
    this.dispatchEvent(Object.assign(new MessageEvent("message", { data, lastEventId: id }), { topic }));
  }

  #gap(gap) {
    const place = this.#places.get(gap.topic);
    // One `after` serves all: a topic beyond the gap lost nothing, unless the ids began anew.
    if (!place || (isAbove(gap.oldest, gap.after) && !isAbove(gap.oldest, place))) return;
    this.#places.set(gap.topic, "earliest");
    this.#tell("gap", gap);
  }

  #answer(topic, error) {
    const item = this.#pending.get(topic);
    this.#pending.delete(topic);
    if (error) this.#places.delete(topic);
    if (error) item.reject(error);
    else item?.resolve();
  }

  #change(command) {
    if (this.locks && this.#session) this.#join();
    else if (this.#socket && !this.#left.has(command.subscribe)) this.#send(command);
    else if (this.state.state !== "waiting") this.#restart();
  }

  async #read(transport, signal) {
    this.#openedAt = 0;
    this.#behind.clear();
    this.#left.clear();
    this.#become({ state: "connecting", transport });
    signal.throwIfAborted();
    // Beside others, `now` has to become an id.
    if (this.#after() !== "now" && [...this.#places.values()].includes("now")) {
      const { last } = await this.#get({ after: "now", limit: 0 }, signal);
      for (const [topic, place] of this.#places) if (place === "now") this.#places.set(topic, last);
      signal.throwIfAborted();
    }
    if (transport === "websocket") return this.#readSocket(signal);
    while (!this.#places.size) {
      this.#expect(Infinity);
      this.#opened();
      await this.#sleep(RETRY_BEST_MS);
      signal.throwIfAborted();
    }
    if (transport === "event-stream") return this.#readStream(signal);
    for (let wait = 0; ; wait = transport === "polling" ? 0 : this.wait) {
      this.#isDue = false;
      this.#expect(OPENING_MS + wait * 1000);
      const after = this.#after();
      const { messages, last, gap } = await this.#get(wait ? { wait } : {}, signal);
      this.#opened();
      for (const topic of gap ? this.topics : []) {
        this.#gap({ topic, after, oldest: messages.find((it) => it.topic === topic)?.id ?? last });
      }
      for (const entry of messages) {
        signal.throwIfAborted();
        this.#message(entry);
      }
      signal.throwIfAborted();
      this.#reached(last);
      if (transport === "long-polling" || messages.length > 99 || this.#isDue) continue;
      const ms = this.#isFollower ? BACKOFF_MAX_MS : this.interval;
      this.#expect(OPENING_MS + ms);
      await this.#sleep(ms);
      signal.throwIfAborted();
    }
  }

  async #readStream(signal) {
    const body = await this.#fetch(this.#href(), { signal, headers: { Accept: "text/event-stream" } });
    const reader = body.getReader();
    const decoder = new TextDecoder();
    for (let rest = "", isAfterCR = false; ;) {
      const { value, done } = await reader.read();
      if (done) throw refusal("", 1006);
      let text = decoder.decode(value, { stream: true });
      if (isAfterCR) text = text.replace(/^\n/, "");
      isAfterCR = text.endsWith("\r");
      const blocks = (rest + text.replace(/\r\n?/g, "\n")).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        signal.throwIfAborted();
        this.#wire("in", "block", block, 2);
        const fields = block.split("\n").map((line) => /^(\w*):? ?([^]*)/.exec(line).slice(1));
        const { event, id, data, retry } = Object.fromEntries(fields);
        if (retry > 0) this.#retryMs = Number(retry);
        this.#expect(2400 * this.#ping); // two heartbeats
        this.#opened();
        if (event === "gap") this.#gap(JSON.parse(data));
        else if (data && !event) this.#message(JSON.parse(data));
        else if (id) this.#reached(id);
      }
    }
  }

  #readSocket(signal) {
    return new Promise((_, reject) => {
      const href = this.#href().replace(/^http/, "ws");
      const socket = new WebSocket(this.token ? `${href}&token=${encodeURIComponent(this.token)}` : href, "pousse.v1");
      this.#wire("out", "handshake", `GET ${href}`, REQUEST_BYTES);
      socket.onopen = () => this.#wire("in", "handshake", "101", 260);
      socket.onmessage = ({ data: text }) => {
        if (signal.aborted) return;
        this.#wire("in", "frame", text);
        const frame = JSON.parse(text);
        const { hello, gap, subscribed, published, error, last, ref } = frame;
        const item = this.#queue.find((it) => it.key === ref);
        if (hello) {
          this.#ping = hello.ping;
          this.#behind = new Set(this.topics);
          this.#socket = socket;
          this.#opened();
        } else if (gap) this.#gap(gap);
        else if (published) this.#settle(item, undefined, published);
        else if (error) {
          const why = refusal(error.detail, error.status);
          for (const [topic, { key }] of this.#pending) if (key === ref) this.#answer(topic, why);
          this.#settle(item, why);
        } else if (last) {
          this.#answer(subscribed);
          this.#behind.delete(subscribed);
          this.#reached(last);
        } else if (!frame.unsubscribed) this.#message(frame);
        this.#expect(2400 * this.#ping);
      };
      socket.onclose = socket.onerror = ({ code = 1006, reason = "" }) => {
        socket.onclose = null;
        this.#wire("in", "end", `${code} ${reason}`);
        reject(refusal(reason, code));
      };
      signal.onabort = () => {
        reject(signal.reason);
        socket.close(1000);
      };
    });
  }

  #send(command) {
    const text = JSON.stringify(command);
    this.#wire("out", "frame", text);
    this.#socket.send(text);
  }

  async #flush() {
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    for (let item, failures = 0; this.state.state === "open" && (item = this.#queue.find((it) => !it.isSent));) {
      const { topic, data, isText, key, isSent } = item;
      item.isSent = true;
      if (this.#socket && isSent === undefined && data.length < 9e3) {
        const binary = isText || data.reduce((text, it) => text + String.fromCharCode(it), "");
        this.#send({ publish: topic, ...(isText ? { data } : { base64: btoa(binary) }), key, ref: key });
        continue;
      }
      // Too large ends a WebSocket; a POST says why.
      const headers = { "Idempotency-Key": key };
      if (!isText) headers["Content-Type"] = "application/octet-stream";
      const init = { method: "POST", headers, body: data, signal: AbortSignal.timeout(4 * OPENING_MS) };
      try {
        this.#settle(item, undefined, (await this.#fetch(this.#href({}, [topic]), init)).id);
        failures = 0;
      } catch (error) {
        this.#settle(item, error);
        if (!error.isFinal) await new Promise((resolve) => setTimeout(resolve, this.#backOff(failures++, error)));
      }
    }
    this.#isFlushing = false;
  }

  #settle(item, error, id) {
    if (!item) return;
    item.isSent = false;
    if (error && !error.isFinal) return this.#flush();
    this.#queue.splice(this.#queue.indexOf(item), 1);
    if (error) item.reject(error);
    else item.resolve(id);
  }

  #after() {
    return [...this.#places.values()].reduce((a, b) => (isAbove(a, b) ? b : a), "now");
  }

  #href(extra = { after: this.#after() }, topics = this.topics) {
    const href = new URL(this.url);
    for (const topic of topics) href.searchParams.append("topic", topic);
    for (const name in extra) href.searchParams.append(name, extra[name]);
    return href.href;
  }

  #get(extra, signal) {
    return this.#fetch(this.#href({ after: this.#after(), ...extra }), { signal });
  }

  async #fetch(href, init) {
    const { method = "GET", body = "" } = init;
    const size = body.byteLength ?? 0;
    this.#wire("out", "request", `${method} ${href} ${size || body}`, REQUEST_BYTES + size);
    if (this.token) init.headers = { ...init.headers, Authorization: `Bearer ${this.token}` };
    const response = await fetch(href, { cache: "no-store", credentials: "include", ...init });
    const { ok, status, headers } = response;
    const isStream = ok && /^text.event-stream/.test(headers.get("Content-Type"));
    const text = isStream ? "" : await response.text();
    this.#wire("in", "answer", `${status} ${text}`, [...headers].join("\r\n  ").length + 20);
    if (isStream) return response.body;
    let answer = {};
    try {
      answer = JSON.parse(text);
    } catch {}
    if (ok) return answer;
    const after = headers.get("Retry-After");
    throw refusal(answer.detail ?? `HTTP ${status}`, status, after * 1000 || Date.parse(after) - Date.now() || 0);
  }

  #wire(way, what, text, extra = 0) {
    let bytes = new TextEncoder().encode(text).length + extra;
    if (what === "frame") bytes += (bytes > 125 ? 4 : 2) + (way === "out" ? 4 : 0);
    const messages = text.startsWith("POST") ? 1 : text.split(/"(?:data|base64)":/).length - 1;
    this.#tell("wire", { way, what, text, bytes, messages, transport: this.transport });
  }

  /** Who gets the lock passes on each message and the place before it. The others poll when that is above theirs. */
  #join() {
    this.#group.abort();
    const { signal } = (this.#group = new AbortController());
    const name = [this.url, ...this.topics.sort()].join();
    const channel = (this.#channel = new BroadcastChannel(name));
    channel.onmessage = ({ data: [entry, place] }) => {
      if (entry && place !== "earliest" && !isAbove(place, this.#places.get(entry.topic))) return this.#message(entry);
      this.#isDue = true;
      if (this.state.state === "open") this.#wake();
    };
    const ended = new Promise((resolve) => (signal.onabort = () => resolve(channel.close())));
    this.#isFollower = true;
    this.#restart();
    const lead = () => {
      this.#isFollower = false;
      this.#restart();
      return ended;
    };
    this.locks.request(name, { signal }, lead).catch(() => {});
  }
}

export const connect = (options = {}) => new Connection(options);
