// Node's `ws`: sends back on any path, to everyone on /broadcast.
// PORT=9000 PEERS=target/peers node tests/bench/ws.mjs; DEFLATE=1 compresses from 1 KiB on.
import { createRequire } from "node:module";
import { resolve } from "node:path";
const { WebSocketServer } = createRequire(resolve(process.env.PEERS, "any.js"))("ws");

const perMessageDeflate = process.env.DEFLATE === "1" && {
  serverNoContextTakeover: true,
  clientNoContextTakeover: true,
};
const everyone = new Set();
const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.env.PORT),
  backlog: 1024,
  maxPayload: 64 << 20,
  perMessageDeflate,
});
server.on("connection", (socket, request) => {
  socket.on("error", () => {});
  if (request.url !== "/broadcast") {
    socket.on("message", (message, binary) => socket.send(message, { binary }));
    return;
  }
  everyone.add(socket);
  socket.on("close", () => everyone.delete(socket));
  socket.on("message", (message, binary) => {
    for (const reader of everyone) reader.send(message, { binary });
  });
});
