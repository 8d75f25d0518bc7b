//! Sends every message back to whoever sent it, text or binary, on every path.
//!
//! Run: `cargo run --release --example echo`, or with an address: `… -- 127.0.0.1:9001`; over TLS
//!      with a certificate and its key behind that (`examples/tls_certificate.rs` makes them)
//! Try: `websocat ws://127.0.0.1:8080/`, or say in a browser's console
//!      `s = new WebSocket("ws://127.0.0.1:8080/")`, then
//!      `s.onmessage = (event) => console.log(event.data)`, then `s.send("Bonjour")`.
//!
//! Conformance and speed are measured with it, so its limits are opened wide.

use pousse::{
    Answer, CloseCode, Config, ConnId, Context, Error, Handler, Message, Reads, Request, Server,
};

struct Echo;

impl Handler for Echo {
    fn on_message(&mut self, conn: ConnId, message: Message<'_>, ctx: &mut Context<'_>) {
        if ctx.send(conn, message).is_err() {
            // It sends and does not read.
            ctx.close(conn, CloseCode::Again, "too much waits for you");
        }
    }

    fn on_request(&mut self, request: &Request, _: &mut Context<'_>) -> Option<Answer> {
        request.is_upgrade().then(|| Answer::Upgrade(Reads::default()))
    }
}

fn main() -> Result<(), Error> {
    let mut config = Config::default();
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(address) = words.first() {
        config.listen = vec![address.parse()?];
    }
    #[cfg(feature = "tls")]
    if let [_, certificate, key] = words.as_slice() {
        config.tls = Some(pousse::Tls::load(certificate, key)?);
    }
    config.limits.max_message = 64 << 20;
    config.limits.outbox = 256 << 20;
    config.limits.outbox_soft = 128 << 20;
    config.limits.fragments = 131_072;
    config.limits.controls = 1_000_000;
    let mut server = Server::bind(config, Echo)?;
    println!("listening on {}", server.addresses().join(" "));
    server.run()
}
