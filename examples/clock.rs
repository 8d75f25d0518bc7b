//! Pushes the time every second, from a timer of the loop: no thread, no sleep.
//!
//! Run: `cargo run --example clock`
//! Try: `curl 'http://127.0.0.1:8080/api/messages?after=now&wait=5'` (long polling), or a WebSocket
//!      to `ws://127.0.0.1:8080/websocket`.

use std::time::{Duration, Instant};

use pousse::{Config, ConnId, Context, Error, Handler, Message, Server};

const SECOND: Duration = Duration::from_secs(1);

struct Clock {
    started: Option<Instant>,
    seconds: u32,
}

impl Handler for Clock {
    fn on_message(&mut self, _: ConnId, _: Message<'_>, _: &mut Context<'_>) {}

    fn on_wake(&mut self, _: u64, ctx: &mut Context<'_>) {
        let started = *self.started.get_or_insert(ctx.now());
        self.seconds += 1;
        let _ = ctx.broadcast(&format!("{} s", self.seconds));
        // From the moment that was meant, not from this one: so the clock does not fall behind.
        let next = started + SECOND * self.seconds;
        ctx.wake_after(next.saturating_duration_since(ctx.now()), 0);
    }
}

fn main() -> Result<(), Error> {
    let mut server = Server::bind(Config::default(), Clock { started: None, seconds: 0 })?;
    server.context().wake_after(SECOND, 0);
    println!("the clock is at {}", server.addresses().join(" "));
    server.run()
}
