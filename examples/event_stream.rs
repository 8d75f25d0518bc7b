//! A ticker: counts the seconds into a topic, and serves it as an event stream of bare text.
//!
//! Run: `cargo run --example event_stream`, or with an address: `… -- 127.0.0.1:9000`
//! Try: the `curl` line that it prints, in two terminals; or in a browser's console
//!      `new EventSource("/ticker").onmessage = (event) => console.log(event.data)`. Stop a reader
//!      and let it come back with `-H 'Last-Event-ID: …'`, the last `id:` that it saw: what it has
//!      missed comes first.

use std::time::{Duration, Instant};

use pousse::{
    Answer, Config, ConnId, Context, Error, Handler, Message, Reads, Request, Server, Transport,
};

const SECOND: Duration = Duration::from_secs(1);

struct Ticker {
    started: Option<Instant>,
    ticks: u32,
}

impl Handler for Ticker {
    fn on_message(&mut self, _: ConnId, _: Message<'_>, _: &mut Context<'_>) {}

    /// A second has passed.
    fn on_wake(&mut self, _: u64, ctx: &mut Context<'_>) {
        let started = *self.started.get_or_insert(ctx.now());
        self.ticks += 1;
        let is_stream = |conn: &ConnId| {
            ctx.client(*conn).is_some_and(|client| client.transport == Transport::EventStream)
        };
        let streams = ctx.clients().filter(is_stream).count();
        let _ = ctx.publish("ticks", &format!("tick {}, {streams} listening", self.ticks));
        // From the moment that was meant, not from this one: so the ticker does not fall behind.
        let next = started + SECOND * self.ticks;
        ctx.wake_after(next.saturating_duration_since(ctx.now()), 0);
    }

    /// `/ticker` is a path of our own; `None` leaves all others as they are.
    fn on_request(&mut self, request: &Request, _: &mut Context<'_>) -> Option<Answer> {
        let is_ours = request.path() == "/ticker" && request.method() == "GET";
        let after = request.field("Last-Event-ID").and_then(|id| id.parse().ok());
        let reads = Reads { topics: vec!["ticks".into()], after };
        is_ours.then_some(Answer::EventStream { reads, is_text: true })
    }
}

fn main() -> Result<(), Error> {
    let mut config = Config::default();
    if let Some(address) = std::env::args().nth(1) {
        config.listen = vec![address.parse()?];
    }
    let mut server = Server::bind(config, Ticker { started: None, ticks: 0 })?;
    server.context().wake_after(SECOND, 0);
    println!("curl -N {}/ticker", server.addresses().join(" "));
    server.run()
}
