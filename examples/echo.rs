//! Sends every message back to whoever sent it, text or binary, on every path.
//!
//! Run: `cargo run --release --example echo`, or with an address: `… -- 127.0.0.1:9001`, and with
//!      any limit of the program: `… -- 127.0.0.1:9001 --limit max-message=64KiB`; over TLS with
//!      `--tls CERT KEY` (`examples/tls_certificate.rs` makes them)
//! Try: `websocat ws://127.0.0.1:8080/`, or say in a browser's console
//!      `s = new WebSocket("ws://127.0.0.1:8080/")`, then
//!      `s.onmessage = (event) => console.log(event.data)`, then `s.send("Bonjour")`.
//!
//! Conformance and speed are measured with it, so its limits are opened wide.

use std::env::args;
use std::error::Error;

use pousse::{
    Answer, CloseCode, Config, ConnId, Context, Handler, Limits, Message, Reads, Request, Server,
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

/// Sets what `NAME=VALUE` says.
fn set(limits: &mut Limits, text: &str) -> Result<(), String> {
    let (name, value) = text.split_once('=').ok_or("--limit wants NAME=VALUE")?;
    let limit = Limits::find(name).ok_or_else(|| format!("there is no limit {name:?}"))?;
    (limit.set)(limits, value).map_err(|error| format!("{name} {error}"))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut config = Config::default();
    config.limits.max_message = 64 << 20;
    config.limits.outbox = 256 << 20;
    config.limits.outbox_soft = 128 << 20;
    config.limits.fragments = 131_072;
    config.limits.controls = 1_000_000;
    config.limits.outbox_messages = 1_000_000;
    let mut args = args().skip(1);
    while let Some(arg) = args.next() {
        match &*arg {
            #[cfg(feature = "tls")]
            "--tls" => {
                let (cert, key) = args.next().zip(args.next()).ok_or("--tls wants CERT KEY")?;
                config.tls = Some(pousse::Tls::load(cert, key)?);
            }
            "--limit" => set(&mut config.limits, &args.next().unwrap_or_default())?,
            address => config.listen = vec![address.parse()?],
        }
    }
    let mut server = Server::bind(config, Echo)?;
    println!("listening on {}", server.addresses().join(" "));
    server.run()?;
    Ok(())
}
