//! Rooms: a topic is a room, and what one says in it goes to the others there, not back to whoever
//! said it; one who comes back `after` an id hears what was said meanwhile. Who comes and goes is
//! told to everyone else, whatever room they are in.
//!
//! Run: `cargo run --example rooms`, or with an address: `… -- 127.0.0.1:9000`
//! Try: say in the consoles of two browser windows
//!      `s = new WebSocket("ws://127.0.0.1:8080/websocket?topic=kitchen&topic=general")`, then
//!      `s.onmessage = (event) => console.log(event.data)`, then `s.send("Bonjour")`, and
//!      `s.send("/go garden")` to walk from the kitchen into the garden.

use std::sync::Arc;

use pousse::{After, Config, ConnId, Context, Error, Handler, Message, Request, Server};

struct Rooms;

/// The room that someone is in: what they read beside `general`, which is for everyone.
fn room_of(conn: ConnId, ctx: &Context<'_>) -> Option<Arc<str>> {
    ctx.client(conn)?.topics.into_iter().find(|topic| &**topic != "general")
}

impl Handler for Rooms {
    fn on_open(&mut self, conn: ConnId, _: &Request, ctx: &mut Context<'_>) {
        let room = room_of(conn, ctx).unwrap_or_else(|| "street".into());
        let _ = ctx.broadcast_except(conn, &format!("{conn} is in the {room}"));
    }

    fn on_message(&mut self, conn: ConnId, message: Message<'_>, ctx: &mut Context<'_>) {
        let room = room_of(conn, ctx);
        if let Message::Text(text) = message
            && let Some(next) = text.strip_prefix("/go ")
        {
            if let Err(error) = ctx.subscribe(conn, next, After::Now) {
                let _ = ctx.send(conn, &format!("you cannot go there: {error}"));
                return;
            }
            if let Some(room) = room.filter(|room| &**room != next) {
                ctx.unsubscribe(conn, &room);
            }
            let _ = ctx.broadcast_except(conn, &format!("{conn} is in the {next}"));
            return;
        }
        if let Some(room) = room {
            let _ = ctx.publish_except(conn, &room, message);
        }
    }
}

fn main() -> Result<(), Error> {
    let mut config = Config::default();
    if let Some(address) = std::env::args().nth(1) {
        config.listen = vec![address.parse()?];
    }
    let mut server = Server::bind(config, Rooms)?;
    println!("the rooms are at {}", server.addresses().join(" "));
    server.run()
}
