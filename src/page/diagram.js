// diagram.js: the sequence diagram of one lane of lab.js, drawn on a canvas: the browser's life line on the left, the
// server's on the right, the present at the bottom, and all that the lane has noted above it, at its time.
//
// It only draws, and forgets what has left the picture. What happens, and when, is lab.js' business.
import { asTime, text } from "./texts.js";

export const KEPT_MS = 60_000; // what is older is not needed any more
export const COLOURS = 8;
const VISIBLE_S = 6.2; // in a picture
export const FLIGHT_MS = 220; // an arrow grows; where it stands does not depend on it
const DROP = 7; // pixels that an arrow falls
const TOP = 30; // pixels, for the names of the two
const BOTTOM = 16; // pixels, for "now"

export const still = matchMedia("(prefers-reduced-motion: reduce)");
export const clamp = (n, least, most) => Math.min(Math.max(n, least), most);

const ink = {}; // the colours of style.css

function mix() {
  const style = getComputedStyle(document.documentElement);
  const names = "ink soft faint line life card card-clear green amber hatch band chevron held held-edge held-text on-dot".split(" ");
  for (let n = 0; n < COLOURS; n += 1) names.push(`dot${n}`);
  for (const name of names) ink[name] = style.getPropertyValue(`--${name}`).trim();
}
mix();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", mix);

export class Picture {
  constructor(lane) {
    this.lane = lane;
    this.canvas = lane.article.querySelector("canvas");
    this.pen = this.canvas.getContext("2d");
    new ResizeObserver(() => this.#fit()).observe(this.canvas);
    new IntersectionObserver(([entry]) => (this.isSeen = entry.isIntersecting)).observe(this.canvas);
  }

  #fit() {
    const { devicePixelRatio: ratio } = window;
    const { clientWidth: wide, clientHeight: high } = this.canvas;
    [this.canvas.width, this.canvas.height] = [wide * ratio, high * ratio];
    this.pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    const narrow = wide < 220; // a phone: no words
    const [left, right, bottom] = [narrow ? 16 : 56, wide - (narrow ? 26 : 34), high - BOTTOM];
    const scale = clamp((bottom - TOP) / VISIBLE_S, 24, 60) / 1000; // pixels a millisecond
    Object.assign(this, { wide, high, narrow, left, right, bottom, scale, middle: (left + right) / 2 });
  }

  /** Draws what happened up to `until`. */
  draw(until) {
    const { lane, high, bottom, scale } = this;
    if (!this.isSeen || !high) return;
    // Without motion the picture stands, and turns on by a third when it is full.
    const page = (bottom - TOP) / scale / 3;
    const edge = still.matches ? Math.ceil(until / page) * page : until;
    this.until = until;
    this.oldest = edge - (high + 60) / scale;
    this.y = (at) => bottom - (edge - at) * scale;
    this.nowY = this.y(until);
    this.#forget();
    this.spans = lane.spans.filter((span) => span.from < until && (span.to ?? until) > this.oldest);
    this.arrows = this.#place().filter((arrow) => arrow.end > -20 && arrow.at <= until);

    this.pen.clearRect(0, 0, this.wide, high);
    this.#seconds();
    this.#lines();
    this.#aways();
    this.#lives();
    this.#helds();
    this.#threads();
    this.arrows.forEach((arrow) => this.#arrow(arrow));
    this.arrows.forEach((arrow) => this.#arrival(arrow));
    this.#gaps();
    this.#frame();
  }

  #forget() {
    const { lane, oldest } = this;
    const before = oldest - KEPT_MS / 2;
    while (lane.arrows[0]?.at < before) lane.arrows.shift();
    while (lane.spans[0]?.to < before) lane.spans.shift();
    while (lane.gaps[0] < before) lane.gaps.shift();
    for (const [message, { arrow }] of lane.entries) {
      if (message.at < before || (arrow && arrow.end < -20)) lane.entries.delete(message);
    }
  }

  /** Where arrows stand: one that goes back begins where the one before it has ended; and whether their words have room. */
  #place() {
    let before;
    let full;
    for (const arrow of this.lane.arrows) {
      const own = this.y(arrow.at);
      arrow.follows = Boolean(before) && before.out !== arrow.out && before.end > own;
      const clear = arrow.follows ? before.end : before?.answers ? before.start + DROP : own;
      arrow.start = clamp(clear, own, own + 2 * DROP);
      arrow.end = arrow.start + DROP;
      arrow.above = before ? arrow.start - before.end - (before.follows ? 11 : 0) : 99;
      arrow.below = 99;
      if (before) before.below = arrow.start - before.end;
      before = arrow;
      if (!arrow.messages) continue;
      if (full) full.apart = arrow.end - full.end;
      arrow.apart = 99;
      full = arrow;
    }
    return this.lane.arrows;
  }

  #style(colour, width = 1, dash = []) {
    this.pen.strokeStyle = this.pen.fillStyle = ink[colour];
    this.pen.lineWidth = width;
    this.pen.setLineDash(dash);
  }

  #line(...points) {
    this.pen.beginPath();
    for (let i = 0; i < points.length; i += 2) this.pen.lineTo(points[i], points[i + 1]);
    this.pen.stroke();
  }

  #write(what, x, y, align = "center", size = 11, halo = false) {
    const { pen } = this;
    pen.font = `${size}px system-ui, "Liberation Sans", sans-serif`;
    pen.textAlign = align;
    pen.setLineDash([]);
    if (halo) [pen.strokeStyle, pen.lineWidth] = [ink.card, 3];
    if (halo) pen.strokeText(what, x, y);
    pen.fillText(what, x, y);
  }

  #within = (span) => [Math.max(this.y(span.from), -9), Math.min(this.y(span.to ?? this.until), this.nowY)];

  #seconds() {
    this.#style("line");
    for (let at = Math.floor(this.until / 1000) * 1000; at > this.oldest; at -= 1000) {
      this.#line(this.left, this.y(at), this.right, this.y(at));
    }
  }

  /** Lines that are open: a band, with a pattern that says who may speak. */
  #lines() {
    const { left, right, until, oldest } = this;
    for (const span of this.spans.filter(({ kind }) => kind === "line")) {
      const [from, to] = this.#within(span);
      this.#style("band");
      this.pen.fillRect(left, from, right - left, to - from);
      this.#style("chevron", 1.5);
      for (let at = Math.ceil(Math.max(span.from, oldest) / 500) * 500; at < Math.min(span.to ?? until, until) - 60; at += 500) {
        const y = this.y(at);
        const way = this.lane.way === "websocket" && at % 1000 ? 1 : -1;
        for (const x of [0.3, 0.7].map((part) => left + (right - left) * part)) {
          if (y > from + 5) this.#line(x - 3 * way, y - 4, x + way, y, x - 3 * way, y + 4);
        }
      }
    }
  }

  /** Times without a connection. */
  #aways() {
    const { pen, left, right, middle } = this;
    for (const span of this.spans.filter(({ kind }) => kind === "away")) {
      const [from, to] = this.#within(span);
      if (to <= from) continue;
      pen.save();
      pen.beginPath(), pen.rect(left, from, right - left, to - from), pen.clip();
      this.#style("card"), pen.fillRect(left, from, right - left, to - from);
      this.#style("hatch");
      const tall = to - from;
      const foot = ((((to - this.y(0)) % 9) + 9) % 9) - 9; // the pattern moves with the time
      for (let x = left - tall + foot; x < right + 9; x += 9) this.#line(x, to, x + tall, from);
      pen.restore();
      this.#style("amber", 1.25, [3, 4]);
      this.#line(left, from, right, from);
      if (span.to) this.#line(left, to, right, to);
      const under = to - (this.lane.gaps.some((at) => Math.abs(at - span.to) < 500) ? 36 : 20); // there are other words
      const at = Math.min((Math.max(from, TOP) + to) / 2 + 4, under);
      if (at > from + 12) this.#write(text("away" + span.why), middle, at, "center", 12, true);
    }
  }

  /** The two life lines. */
  #lives() {
    this.#style("life", 1.5);
    this.#line(this.left, 0, this.left, this.nowY), this.#line(this.right, 0, this.right, this.nowY);
    for (const span of this.spans.filter(({ kind }) => kind === "away")) {
      const [from, to] = this.#within(span);
      this.#style("card", 3), this.#line(this.left, from, this.left, to);
      this.#style("life", 1.5, [1, 5]), this.#line(this.left, from, this.left, to);
    }
  }

  /** Requests that the server holds. */
  #helds() {
    const { pen, right } = this;
    for (const span of this.spans.filter(({ kind }) => kind === "held")) {
      const [from, to] = this.#within(span);
      if (to - from < 10) continue;
      this.#style("held");
      pen.beginPath(), pen.roundRect(right - 4.5, from + 3, 9, to - from - 1, 3), pen.fill();
      this.#style("held-edge"), pen.stroke();
      const above = Math.max(from + 8, TOP + 6);
      const seconds = Math.floor(((span.to ?? this.until) - span.from) / 1000);
      if (to - above < 40 || !seconds || this.narrow) continue;
      this.#style("held-text"), this.#write(text("held", seconds), right - 10, (above + to) / 2 + 8, "right");
    }
  }

  /** Messages at the server: from their coming to their leaving. */
  #threads() {
    const { right, until, y } = this;
    const x = right + (this.narrow ? 11 : 14);
    for (const { message, arrow, lost } of this.lane.entries.values()) {
      const from = y(message.at);
      if (message.at > until) continue;
      const left = arrow && until >= (still.matches ? arrow.at : arrow.begins);
      const to = left ? Math.max(arrow.start, from) : lost ? y(lost) : this.nowY;
      this.#style(message.colour, message.small ? 1.5 : 2.5, lost ? [1, 5] : []);
      this.#line(x, from, x, to);
      if (left) this.#line(x, to, right, to);
      if (lost) this.#write("✕", x, to + 5, "center", 14, true);
      this.#style(message.colour, 1.5);
      if (!message.small) this.#line(this.wide, from, x, from);
      this.#dot(x, from, message);
    }
  }

  #flown = ({ at, begins }) => (still.matches ? Number(this.until >= at) : clamp((this.until - begins) / FLIGHT_MS, 0, 1));

  #arrow(arrow) {
    const part = this.#flown(arrow);
    if (!part) return;
    const { pen } = this;
    const [from, to, back] = arrow.out ? [this.left, this.right, -1] : [this.right, this.left, 1];
    const [x, y] = [from + (to - from) * part, arrow.start + DROP * part];
    const full = arrow.messages > 0;
    this.#style(full ? "green" : arrow.small ? "faint" : "soft", full ? 2 : 1.25, arrow.small ? [2, 3] : []);
    this.#line(from, arrow.start, x, y);
    const head = arrow.small ? 4 : 6;
    pen.beginPath(), pen.moveTo(x, y), pen.lineTo(x + head * 1.25 * back, y - head * 0.65);
    pen.lineTo(x + head * 1.25 * back, y + head * 0.4), pen.fill();
    if (!arrow.says || part < 1 || this.narrow || (arrow.follows ? arrow.below : arrow.above) < 12) return;
    const at = arrow.follows ? arrow.end + 9 : arrow.start - 1;
    if (at < this.nowY) this.#write(text(arrow.says), this.middle, at);
  }

  /** What an arrow carries, side by side. */
  #arrival(arrow) {
    const { left, right, narrow } = this;
    const [part, { carried, start, end }] = [this.#flown(arrow), arrow];
    if (!part || !carried.length) return;
    const apart = carried.length > 8 ? 9 : 18;
    const fit = Math.max(1, Math.floor((right - left - 30) / apart));
    const shown = carried.slice(0, fit);
    for (const [at, { entry }] of shown.entries()) {
      const x = right + (left + at * apart - right) * part;
      this.#dot(x, start + (DROP * (right - x)) / (right - left), entry.message);
    }
    if (part < 1) return;
    this.#style("ink");
    const delay = Math.max(...carried.map((one) => one.delay ?? -1));
    const isAlone = !carried[0].entry.message.small && arrow.apart > 11; // else there is no room
    if (delay >= 0 && isAlone && !narrow) this.#write(asTime(delay), left - 11, end + 4, "right");
    else if (delay >= 0 && isAlone && end + 10 < this.nowY) {
      this.#write(asTime(delay), left + shown.length * apart - 6, end + 12, "left", 11, true);
    }
    if (fit < carried.length && !(narrow && isAlone)) this.#write(`+${carried.length - fit}`, right - 4, end + 12, "right");
  }

  #dot(x, y, { n, small, colour }) {
    const { pen } = this;
    pen.setLineDash([]);
    pen.beginPath(), pen.arc(x, y, small ? 4 : 8.5, 0, 7);
    [pen.fillStyle, pen.strokeStyle, pen.lineWidth] = [ink[colour], ink.card, 1.5];
    pen.fill(), pen.stroke();
    pen.fillStyle = ink["on-dot"];
    if (!small) this.#write(n % 1000, x, y + 3.5, "center", n > 99 ? 8 : 10);
  }

  #gaps() {
    for (const at of this.lane.gaps) {
      this.#style("amber", 1.5, [6, 3]);
      this.#line(this.left, this.y(at), this.right, this.y(at));
      this.#write(this.narrow ? "✕" : text("gap"), this.middle, this.y(at) - 16, "center", 12, true);
    }
  }

  /** What stands still: the names above, and the present below. */
  #frame() {
    const { pen, left, right, nowY, narrow, wide } = this;
    this.#style("soft");
    this.#line(left - 5, nowY, left + 5, nowY), this.#line(right - 5, nowY, right + 5, nowY);
    this.#write(text("now"), this.middle, nowY + 13, "center", 10, true);

    const fade = pen.createLinearGradient(0, TOP - 6, 0, TOP + 26);
    fade.addColorStop(0, ink.card), fade.addColorStop(1, ink["card-clear"]);
    pen.fillStyle = fade;
    pen.fillRect(0, 0, wide, TOP + 26);
    this.#style("life", 1.5), this.#line(left, TOP - 8, left, TOP), this.#line(right, TOP - 8, right, TOP);
    this.#style("ink");
    this.#write(text("client"), narrow ? 2 : left, 15, narrow ? "left" : "center", narrow ? 10 : 12);
    this.#write(text("server"), narrow ? wide - 2 : right, 15, narrow ? "right" : "center", narrow ? 10 : 12);
  }
}
