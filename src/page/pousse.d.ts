// pousse.d.ts: the types of pousse.js, the browser's side of the push server, and what they promise.

/** The four ways to the same messages, best first. */
export type Transport = "websocket" | "event-stream" | "long-polling" | "polling";

/** An id as the server gives it. Opaque: never compare it as a string. `earliest` and `now` are places too. */
export type Id = string;

export interface Options {
  /** The resource: `https://…/api/messages`. Default: `api/messages` beside this module. `ws:` and `wss:` are taken for `http:` and `https:`. */
  url?: string | URL;
  /** Topics to read from the start. Default: `["general"]`. None: a client that only publishes. */
  topics?: string[];
  /** Where to begin: an id, `earliest` or `now` (the default). */
  after?: Id;
  /** Which transports may be used, in this order. Default: all four. Those that do not exist here are passed over. */
  transports?: Transport[];
  /** Milliseconds between two polls of the transport `polling`. Default: 1000. */
  interval?: number;
  /** Seconds that a long poll asks to be held back. Default: 50. */
  wait?: number;
  /** By which the server knows who this is (`--token-file`). It is sent as `Authorization: Bearer`; a WebSocket has it in
   * its URL, for browsers allow nothing else there. `wire` does not show it. */
  token?: string;
  /**
   * The tabs of this browser that ask for the same (URL and topics) share one connection. Default: false. One tab has
   * it and passes on what comes, each message together with the place before it. The others poll once when they begin,
   * and when that place is above their own; their `transport` is `polling`. Where there are no Web Locks (a page that
   * was not loaded by HTTPS or from this machine) each tab has its own connection.
   */
  shared?: boolean;
}

/** What the connection is doing. `problem`: the server's own words on why it is not connected, if it gave any. */
export interface State {
  state: "connecting" | "open" | "waiting" | "closed";
  transport?: Transport;
  /** `waiting`: when the next attempt begins (`Date.now()`). */
  until?: number;
  problem?: string;
  /** The HTTP status or WebSocket close code behind `problem`. */
  code?: number;
}

/** `message`: `data` is a string, or an ArrayBuffer if the message is binary; `lastEventId` is its id. What the server
 * sends to this client alone has neither id (`""`) nor topic. */
export interface PousseMessage extends MessageEvent<string | ArrayBuffer> {
  readonly topic: string | undefined;
}

/** `gap`: messages after `after` and before `oldest` are no longer held; `oldest` comes next, if it is a message. A
 * poll of several topics does not say which of them it was: then each that may have lost something is told. */
export interface Gap {
  topic: string;
  after: Id;
  oldest?: Id;
}

/** `wire`: something crossed the network. Bytes include head fields, frame headers, block fields; those that a page
 * cannot see (what the browser adds to a request) are estimated, and compression is not looked at. */
export interface Wire {
  way: "out" | "in";
  what: "request" | "answer" | "handshake" | "frame" | "block" | "end";
  bytes: number;
  /** What it says, in full: `GET http://…/api/messages?…`, `200 {"messages":…`, `{"publish":…}`. */
  text: string;
  transport: Transport | undefined;
  /** How many messages it carried. */
  messages: number;
}

/** `close`: the WebSocket close code, the HTTP status of a refusal, 1006 if there was neither, 1000 after `close()`. */
export interface Close {
  code: number;
  reason: string;
}

/** All but `message` are a CustomEvent. */
export interface Events {
  /** A connection is open. */
  open: CustomEvent<null>;
  /** A message, once, in the order of the ids of its topic. */
  message: PousseMessage;
  /** Messages were lost. Told before those that follow. */
  gap: CustomEvent<Gap>;
  state: CustomEvent<State>;
  /** It is not open, or no longer, or an attempt has failed: as a WebSocket tells it. `state` says what follows. */
  close: CustomEvent<Close>;
  wire: CustomEvent<Wire>;
}

export interface Client extends EventTarget {
  /** What is being done right now; also the `detail` of every `state` event. */
  readonly state: State;
  /** The transport in use, or being tried. */
  readonly transport: Transport | undefined;
  /** The last id: everything up to it was delivered (for every topic that has caught up). To be kept as the `after` of
   * another time. */
  readonly last: Id | undefined;
  readonly topics: string[];
  /** Setting it changes the transport at once, in mid-stream; nothing is lost or delivered twice. */
  transports: Transport[];
  /** Setting it counts from the next poll on. */
  interval: number;
  /** Setting it counts from the next long poll on. */
  wait: number;
  /** Setting it counts from the next request or WebSocket on. */
  token: string | undefined;
  /**
   * Publishes; settles with the id when the server has it. While there is no connection it waits in a queue, and is
   * published once however often it has to be sent. Rejects with an `Error` whose `message` is the server's detail and
   * whose `code` is its status. What is neither a string nor binary is published as a string.
   */
  publish(topic: string, data: string | ArrayBuffer | ArrayBufferView): Promise<Id>;
  /** Reads one more topic, from `after` (default `now`). Settles when it is being read; rejects, as `publish` does, if
   * the server refuses it, and then the other topics go on without it. */
  subscribe(topic: string, after?: Id): Promise<void>;
  unsubscribe(topic: string): void;
  /** Connects now, instead of waiting; or again after `close()`, from the last id. */
  open(): void;
  /** Closes until `open()`. What waits to be published stays queued. */
  close(): void;

  addEventListener<K extends keyof Events>(
    type: K,
    listener: ((event: Events[K]) => void) | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

/**
 * Connects, when what calls it has ended: so listeners can be added first. Nothing is global, but that the transport
 * which works for a URL is kept in `sessionStorage`, if there is one.
 *
 * The transports are tried in order. One that does not work while a plain GET is answered is left for the next; the
 * first is tried again after ten minutes and when the browser is `online` again. If the GET is refused as well (4xx),
 * that is final: the state is `closed`, with the server's words.
 */
export function connect(options?: Options): Client;
