// pousse.js: the browser's side of the push server in text mode, where one frame is one message, both ways.
//
// The lesson is the browser's own: `new WebSocket(url)`, `onopen`, `onmessage`, `onclose`, `onerror`, `send`. The rest
// is what a page needs around it: to come back after a loss without losing or repeating a message.
//
//     const room = connect({ topic: "general" });
//     room.addEventListener("message", (event) => console.log(event.data));
//     room.addEventListener("open", () => room.send("Bonjour serveur!"));

const PAGE = 1000; // the most messages one poll may bring
const OPENING_MS = 20_000; // an opening that takes longer is given up
const STEADY_MS = 5_000; // a connection that lived this long lets the back-off begin anew
const BACKOFF_MS = 1_000; // doubled with every failure ...
const BACKOFF_MAX_MS = 30_000; // ... up to here

/**
 * @typedef {{ id: string, data?: string, base64?: string }} Entry
 * @typedef {{ messages: Entry[], last: string, gap: boolean, readers: number }} Answer
 *
 * `why` it is not connected: the server said so in a close frame ("closed") or in an HTTP answer ("problem"), nobody
 * answered ("unreachable"), or HTTP answers but not the WebSocket ("handshake").
 * @typedef {{ state: "connecting" | "open" | "waiting" | "closed", until?: number,
 *   why?: "closed" | "problem" | "unreachable" | "handshake", code?: number, reason?: string }} State
 */

/** An HTTP answer that is an error, in the words of its RFC 9457 document. */
class Problem extends Error {
  status = 0;
  waitMs = 0;
}

/**
 * Events: `open`, `message` (MessageEvent; with a `lastEventId` if it came from the history), `close` (CloseEvent),
 * `error`, `state` (detail: State), `socket` (detail: the URL that is opened) and, before the messages a connection
 * catches up with, `history` (detail: `{ count, gap }`; `gap`: messages were missed and are no longer kept).
 */
class Connection extends EventTarget {
  /** @type {State} */ state = { state: "closed" };
  /** @type {string | undefined} our place: the last id a poll told */ last;
  // Text frames carry no id, but they come in the order of the log. So a count does: the first `seen` entries after
  // `last` have come as frames, and a catch-up leaves them out.
  #seen = 0;
  #unsure = false; // the count may be wrong: `last` fell out of the history while frames were coming
  #behind = false; // a check knew of messages that have not come as frames
  #checking = false;
  #failures = 0;
  #timer = 0;
  #life = new AbortController(); // of the present attempt; once aborted, none of its callbacks counts
  /** @type {WebSocket | undefined} */ #socket;

  /** @param {{ url?: string | URL, topic?: string, history?: number }} options */
  constructor({ url = "websocket", topic = "general", history = 50 }) {
    super();
    const at = new URL(url, document.baseURI);
    at.search = `?topic=${encodeURIComponent(topic)}`;
    this.history = history;
    this.pollUrl = new URL("api/messages" + at.search, at).href.replace(/^ws/, "http");
    this.socketUrl = at.href.replace(/^http/, "ws");
    queueMicrotask(() => this.open()); // when the caller has added its listeners
  }

  /** Connects now: after `close()`, or instead of waiting. */
  open() {
    if (this.state.state === "waiting" || this.state.state === "closed") this.#start();
  }

  /** Closes, until `open()`. */
  close() {
    this.#end();
    this.#become({ state: "closed" });
  }

  /** Sends, or says false: nothing is kept to be sent later. @param {string} text */
  send(text) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(text);
    return true;
  }

  /**
   * Asks how many read this topic; to be called now and then. The answer also moves our place forward, so that it
   * stays within the history, and shows a socket gone deaf: a network that vanishes closes nothing.
   */
  async check() {
    const { signal } = this.#life;
    if (this.state.state !== "open" || this.#checking) return undefined;
    this.#checking = true;
    try {
      const counted = Math.min(this.#seen, PAGE - 1);
      let answer = await this.#poll(this.last, counted + 1, signal);
      const lost = answer.gap;
      if (lost) answer = await this.#poll("now", 0, signal);
      if (signal.aborted) return undefined;
      const [seen, { messages }] = [this.#seen, answer];
      if (lost) {
        [this.last, this.#seen, this.#unsure] = [answer.last, 0, true];
      } else if (messages.length > seen) {
        if (this.#behind) this.#start(); // what was due at the last check has not come: it never will
        else if (seen) [this.last, this.#seen] = [messages[seen - 1].id, 0];
        this.#behind = true;
      } else {
        if (!seen) this.#unsure = false; // none counted, none kept: the place is exact again
        [this.last, this.#seen] = [answer.last, seen - messages.length];
      }
      return answer.readers;
    } catch {
      return undefined; // if the server is gone, the socket will tell
    } finally {
      this.#checking = false;
    }
  }

  async #start() {
    this.#end();
    const { signal } = (this.#life = new AbortController());
    this.#timer = setTimeout(() => this.#retry({ why: "unreachable" }), OPENING_MS);
    this.#become({ state: "connecting" });
    try {
      await this.#catchUp(signal);
    } catch (error) {
      this.#failed(error, signal);
    }
    if (signal.aborted) return;

    // From here on it is the course's program.
    const url = `${this.socketUrl}&after=${this.last}`;
    this.#tell("socket", url);
    const socket = (this.#socket = new WebSocket(url));
    socket.binaryType = "arraybuffer";
    let openedAt = 0;

    socket.onopen = () => {
      if (signal.aborted) return;
      openedAt = performance.now();
      clearTimeout(this.#timer);
      this.#become({ state: "open" });
      this.#tell("open");
    };
    socket.onmessage = ({ data }) => {
      if (signal.aborted) return;
      this.#seen += 1;
      this.#behind = false;
      this.dispatchEvent(new MessageEvent("message", { data }));
    };
    socket.onerror = () => signal.aborted || this.#tell("error");
    socket.onclose = async ({ code, reason, wasClean }) => {
      if (signal.aborted) return;
      this.dispatchEvent(new CloseEvent("close", { code, reason, wasClean }));
      if (openedAt && !signal.aborted) {
        if (performance.now() - openedAt > STEADY_MS) this.#failures = 0;
        // By this the server says that all we saw lies before the gap: nothing of what comes may be left out.
        if (code === 1013 && reason.startsWith("gap")) this.#unsure = true;
        return this.#retry({ why: "closed", code, reason });
      }
      // The browser hides why a handshake was refused (1006), so HTTP is asked.
      try {
        await this.#poll(this.last, 0, signal);
        if (!signal.aborted) this.#retry({ why: "handshake" });
      } catch (error) {
        this.#failed(error, signal);
      }
    };
  }

  /** Reads what is after our place and has not come as a frame. @param {AbortSignal} signal */
  async #catchUp(signal) {
    let [last, gap, skip, full] = [this.last, this.#unsure, this.#unsure ? 0 : this.#seen, true];
    /** @type {Entry[]} */ const fresh = [];
    while (full) {
      const answer = await this.#poll(last, PAGE, signal);
      if (answer.gap) [gap, skip] = [true, 0]; // what was counted is gone as well
      fresh.push(...answer.messages.slice(skip));
      skip = Math.max(0, skip - answer.messages.length);
      last = answer.last;
      full = answer.messages.length > 0; // an answer may end early; only an empty one says that this is all
    }
    if (signal.aborted) return;
    if (!this.last) fresh.splice(0, fresh.length - this.history); // a poll begins with the oldest
    [this.last, this.#seen, this.#unsure, this.#behind] = [last, 0, false, false];
    this.#tell("history", { count: fresh.length, gap });
    for (const { id, data, base64 } of fresh) {
      const bytes = base64 === undefined ? data : Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)).buffer;
      this.dispatchEvent(new MessageEvent("message", { data: bytes, lastEventId: id }));
    }
  }

  /** @param {string | undefined} after @param {number} limit @param {AbortSignal} signal @returns {Promise<Answer>} */
  async #poll(after, limit, signal) {
    const place = after ? `&after=${after}` : "";
    const response = await fetch(`${this.pollUrl}${place}&limit=${limit}`, { signal, cache: "no-store" });
    if (response.ok) return response.json();
    const { detail, title } = await response.json().catch(() => ({})); // what is in between may answer otherwise
    const problem = new Problem(detail || title || `HTTP ${response.status}`);
    problem.status = response.status;
    problem.waitMs = 1000 * Number(response.headers.get("Retry-After")) || 0;
    throw problem;
  }

  /** @param {unknown} error @param {AbortSignal} signal */
  #failed(error, signal) {
    if (signal.aborted) return;
    if (!(error instanceof Problem)) return this.#retry({ why: "unreachable" });
    const { status, message: reason, waitMs } = error;
    if (status >= 500 || status === 408 || status === 429) return this.#retry({ why: "problem", reason }, waitMs);
    this.#end(); // asked the same, the server would answer the same
    this.#become({ state: "closed", why: "problem", reason });
  }

  /** Exponential back-off with full jitter, so that a thousand pages do not come back in the same instant.
   * @param {Omit<State, "state">} cause */
  #retry(cause, waitMs = 0) {
    this.#end();
    waitMs += Math.random() * Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** this.#failures++);
    this.#timer = setTimeout(() => this.#start(), waitMs);
    this.#become({ state: "waiting", until: Date.now() + waitMs, ...cause });
  }

  #end() {
    clearTimeout(this.#timer);
    this.#life.abort();
    this.#socket?.close(1000);
    this.#socket = undefined;
  }

  /** @param {State} state */
  #become(state) {
    this.state = state;
    this.#tell("state", state);
  }

  /** @param {string} type @param {unknown} [detail] */
  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/**
 * Joins a topic (1 to 128 bytes). `url`: that of the WebSocket, by default `websocket` beside this page; `history`:
 * how many of the older messages to deliver on arrival.
 * @param {{ url?: string | URL, topic?: string, history?: number }} [options]
 */
export const connect = (options = {}) => new Connection(options);
