//! A server whose allocations are counted: `GET /allocations` tells how many there were. On `/echo`
//! a message goes back; elsewhere it is published, as by the daemon.
//!
//! Run: `cargo run --release --example counted -- 127.0.0.1:9000`; `make bench` does, twice, with
//!      different numbers of messages, so that the difference is what messages allocate.

use std::alloc::System;

use pousse::{
    Answer, Config, ConnId, Context, Error, Handler, Message, Reads, Request, Response, Server,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

struct Counted;

impl Handler for Counted {
    fn on_message(&mut self, conn: ConnId, message: Message<'_>, ctx: &mut Context<'_>) {
        let _ = match ctx.topic(conn) {
            Some(topic) => ctx.publish(&topic, message).is_ok(),
            None => ctx.send(conn, message).is_ok(),
        };
    }

    fn on_request(&mut self, request: &Request, _: &mut Context<'_>) -> Option<Answer> {
        match request.path() {
            "/echo" => Some(Answer::Upgrade(Reads::default())),
            "/allocations" => {
                let stats = GLOBAL.stats();
                let count = stats.allocations + stats.reallocations;
                Some(Answer::Response(Response::text(200, count.to_string())))
            }
            _ => None,
        }
    }
}

fn main() -> Result<(), Error> {
    let mut config = Config::default();
    if let Some(address) = std::env::args().nth(1) {
        config.listen = vec![address.parse()?];
    }
    config.limits.history = 100;
    config.limits.max_message = 64 << 20;
    config.limits.outbox = 256 << 20;
    config.limits.outbox_soft = 128 << 20;
    config.limits.requests = 1_000_000_000;
    Server::bind(config, Counted)?.run()
}
