// Bun's server (uWebSockets inside): sends back on any path, to everyone on /broadcast.
// PORT=9000 bun tests/bench/bun.js; DEFLATE=1 compresses what is published.
const deflate = process.env.DEFLATE === "1";
Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.env.PORT),
  fetch(request, server) {
    const everyone = new URL(request.url).pathname === "/broadcast";
    return server.upgrade(request, { data: { everyone } })
      ? undefined
      : new Response(null, { status: 400 });
  },
  websocket: {
    maxPayloadLength: 64 << 20,
    backpressureLimit: 256 << 20,
    idleTimeout: 0,
    perMessageDeflate: deflate ? { compress: "shared", decompress: "shared" } : false,
    open(socket) {
      if (socket.data.everyone) socket.subscribe("general");
    },
    message(socket, message) {
      if (!socket.data.everyone) return void socket.send(message);
      // To all others, and to whoever sent it.
      socket.publish("general", message, deflate);
      socket.send(message, deflate);
    },
  },
});
