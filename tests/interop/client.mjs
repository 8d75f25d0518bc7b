// Conversations of the npm package `ws` with pousse: `client.mjs CONVERSATION URL [CERTIFICATE]`.
//
// Writes what it saw, a line at a time; `client.py` has to write the same. `tests/interop.rs` starts the servers, reads
// the lines, and knows what has to stand in them.

import assert from "node:assert/strict";
import { on, once } from "node:events";
import { readFileSync } from "node:fs";
import WebSocket from "ws";

const [, , conversation, url, certificate] = process.argv;
const MIB = 1024 * 1024;

const say = (...words) => console.log(words.join(" "));

class Peer {
  static async to(protocols = [], options = {}) {
    const peer = new Peer();
    peer.socket = new WebSocket(`${url}/websocket`, protocols, options);
    peer.messages = on(peer.socket, "message");
    peer.ended = new Promise((resolve) => {
      peer.socket.on("close", (code, reason) => resolve([code, reason.toString()]));
    });
    await once(peer.socket, "open");
    return peer;
  }

  /** The next message: a string, or a Buffer. */
  async hears() {
    const [data, isBinary] = (await this.messages.next()).value;
    return isBinary ? data : data.toString();
  }

  async hearsJson() {
    return JSON.parse(await this.hears());
  }

  async commands(command) {
    this.socket.send(JSON.stringify(command));
    return this.hearsJson();
  }

  async comesBack(message) {
    this.socket.send(message);
    await this.is(message);
  }

  async is(message) {
    const received = await this.hears();
    // Not as a whole: nobody wants to read 1 MiB of differences.
    assert.equal(typeof received, typeof message);
    assert.equal(received.length, message.length);
    assert.ok(typeof message === "string" ? received === message : received.equals(message));
  }

  async fragments(...parts) {
    parts.forEach((part, at) => this.socket.send(part, { fin: at === parts.length - 1 }));
    await this.is(typeof parts[0] === "string" ? parts.join("") : Buffer.concat(parts));
  }

  /** Waits until the server has closed, and tells how it did. */
  async saysClose() {
    const [code, reason] = await this.ended;
    say(code === 1006 ? "no close frame" : `${code} ${reason}`);
  }

  async closes(code, reason) {
    this.socket.close(code, reason);
    return this.ended;
  }
}

const conversations = {
  async messages() {
    const peer = await Peer.to();
    say("extensions:", peer.socket.extensions.split(";")[0].trim());
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, at) => at));
    for (const message of ["Bonjour", "", "caffè ☕ ".repeat(500), Buffer.alloc(0), Buffer.alloc(256 * 40, bytes)]) {
      await peer.comesBack(message);
    }
    say("messages came back");
    await peer.fragments("Bon", "", "jour");
    await peer.fragments("☕".repeat(1000), "à".repeat(1000));
    await peer.fragments(Buffer.alloc(5000, 0), Buffer.alloc(5000, 0xff));
    say("fragments came back");
    const before = peer.socket._socket.bytesRead;
    await peer.comesBack("0123456789abcdef".repeat(MIB / 16));
    const isCompressed = peer.socket._socket.bytesRead - before < MIB / 10;
    assert.equal(isCompressed, peer.socket.extensions !== "", "what comes back is as was agreed");
    await peer.comesBack(Buffer.from(Array.from({ length: MIB }, (_, at) => (at * at) % 251)));
    say("1 MiB came back");
    await peer.closes(1000);
  },

  async closes() {
    for (const [code, reason] of [[1000, ""], [1000, "adieu"], [3000, "à bientôt"], [4999, "x".repeat(123)]]) {
      const peer = await Peer.to();
      await peer.comesBack("Bonjour");
      peer.socket.close(code, reason);
      await peer.saysClose();
    }
  },

  async too_big() {
    const peer = await Peer.to();
    await peer.comesBack("x".repeat(65_536));
    say("64 KiB came back");
    peer.socket.send("x".repeat(65_537));
    await peer.saysClose();
  },

  async broken() {
    const opcodeThatIsReserved = Buffer.from("838000000000", "hex");
    const textThatIsNotUtf8 = Buffer.from("818100000000ff", "hex");
    for (const frame of [opcodeThatIsReserved, textThatIsNotUtf8]) {
      const peer = await Peer.to();
      await peer.comesBack("Bonjour");
      peer.socket._socket.write(frame);
      await peer.saysClose();
    }
  },

  async waits_for_the_end() {
    const peer = await Peer.to();
    say("ready");
    await peer.saysClose();
  },

  async pings() {
    const peer = await Peer.to(["pousse.v1"]);
    peer.socket.ping("are you there?");
    const [payload] = await once(peer.socket, "pong");
    assert.equal(payload.toString(), "are you there?");
    say("pong");
    const { hello } = await peer.hearsJson();
    // It stands beside each ping of the server; a second one means that the first was answered.
    for (let count = 0; count < 2; count += 1) {
      assert.deepEqual(await peer.hearsJson(), { last: hello.last });
    }
    say("two pings of the server");
    await peer.closes(1000);
  },

  async resumes() {
    const one = await Peer.to(["other.v9", "pousse.v1"]);
    say("subprotocol:", one.socket.protocol);
    const { hello } = await one.hearsJson();
    assert.deepEqual(await one.commands({ subscribe: "tea" }), { subscribed: "tea", last: hello.last, readers: 1 });
    one.socket.send(JSON.stringify({ publish: "tea", data: "first" }));
    const last = [await one.hearsJson(), await one.hearsJson()].find((it) => it.id).id;
    one.socket.terminate();

    const other = await Peer.to(["pousse.v1"]);
    await other.hears();
    for (const data of ["second", "thïrd"]) {
      assert.ok((await other.commands({ publish: "tea", data })).published);
    }
    await other.closes(1000);

    const again = await Peer.to(["pousse.v1"]);
    await again.hears();
    again.socket.send(JSON.stringify({ subscribe: "tea", after: last }));
    say("missed:", (await again.hearsJson()).data, (await again.hearsJson()).data);
    say("subscribed:", (await again.hearsJson()).subscribed);
    again.socket.send(Buffer.alloc(1));
    await again.saysClose();
  },

  async refused() {
    const socket = new WebSocket(`${url}/websocket`, ["other.v9"]);
    const [, response] = await once(socket, "unexpected-response");
    say("status:", response.statusCode);
    response.destroy();
  },

  async secure() {
    const peer = await Peer.to([], { ca: readFileSync(certificate) });
    await peer.comesBack("Bonjour".repeat(1000));
    say("came back over", peer.socket._socket.getProtocol());
    await peer.closes(1000);
    const unasked = await Peer.to().catch((error) => error.code);
    say(unasked === "DEPTH_ZERO_SELF_SIGNED_CERT" ? "does not trust it unasked" : unasked);
  },
};

await conversations[conversation]();
