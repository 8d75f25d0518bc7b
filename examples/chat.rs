//! Ratchet's chat: a list of clients, a function for each thing that happens, one to send with.
//!
//! Run: `cargo run --example chat`
//! Try: open <http://127.0.0.1:8080/> in two windows, or say in a browser's console
//!      `s = new WebSocket("ws://127.0.0.1:8080/websocket")`, then
//!      `s.onmessage = (event) => console.log(event.data)`, then `s.send("Bonjour serveur!")`.

use pousse::{CloseCode, Config, ConnId, Context, Error, Handler, Message, Request, Server};

struct Chat;

impl Handler for Chat {
    /// Somebody connects: everyone else is told. A broadcast is published to `general`, the topic
    /// of all who name none in their URL; it is refused only where a limit is reached.
    fn on_open(&mut self, conn: ConnId, request: &Request, ctx: &mut Context<'_>) {
        println!("{conn} connected from {}, {} here", request.peer(), ctx.clients().count());
        let _ = ctx.broadcast_except(conn, &format!("{conn} has come"));
    }

    /// Somebody speaks: everyone who reads the topic gets it, the speaker too.
    fn on_message(&mut self, conn: ConnId, message: Message<'_>, ctx: &mut Context<'_>) {
        if let Err(error) = ctx.publish("general", message) {
            let _ = ctx.send(conn, &format!("not published: {error}"));
        }
    }

    /// Somebody has left, with a word or without.
    fn on_close(&mut self, conn: ConnId, code: CloseCode, reason: &str, ctx: &mut Context<'_>) {
        println!("{conn} left: {code} {reason}");
        let _ = ctx.broadcast(&format!("{conn} has left"));
    }

    /// Somebody broke the protocol, and is being closed already; or one of the functions above
    /// panicked, and here it is decided what becomes of its client.
    fn on_error(&mut self, conn: ConnId, error: &Error, ctx: &mut Context<'_>) {
        println!("{conn}: {error}");
        ctx.close(conn, CloseCode::Error, "");
    }
}

fn main() -> Result<(), Error> {
    let mut server = Server::bind(Config::default(), Chat)?;
    println!("the chat is at {}", server.addresses().join(" "));
    server.run()
}
