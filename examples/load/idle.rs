//! `idle`: many connections that rest: what the server's memory grows by, whether a publish reaches
//! them all, and what they cost while nothing happens but pings.

use std::time::Instant;

use serde_json::{Value, json};

use crate::args::{Args, Goal};
use crate::broadcast::Room;
use crate::meter::Meter;
use crate::server::Server;

/// So many are there before memory is looked at: what the first ones bring in is nobody's.
const WARM: usize = 100;

pub(crate) fn run(args: &Args) -> Value {
    let server = match args.pid {
        Some(pid) => Server::new(pid),
        None => Server::of_port(args.address.port()).expect("nobody listens there"),
    };
    let at_start = server.resident();
    let mut warm_args = args.clone();
    warm_args.connections = WARM;
    let mut warm = Room::open(&warm_args);
    let before = server.resident();
    let mut args = args.clone();
    args.connections -= WARM;
    args.goal = Goal::Messages(1);
    let mut room = Room::open(&args);
    let after = server.resident();
    let each = (after.saturating_sub(before)) as f64 / args.connections as f64;

    let mut meter = Meter::new(&args);
    let begun = Instant::now();
    let usage = server.usage();
    // Heartbeats and pings are answered; no message is among them.
    while begun.elapsed() < args.hold {
        for room in [&mut warm, &mut room] {
            room.net.wait(Some(std::time::Duration::from_millis(50)));
            room.hear(begun, &mut meter);
        }
    }
    let (user, system) = server.usage().since(usage);
    let held = begun.elapsed().as_secs_f64().max(1e-9);

    let now = Instant::now();
    room.publish(1);
    room.hear_all(now, &mut meter);
    let all = now.elapsed();
    args.connections += WARM;
    let more = json!({
        "resident_at_start": at_start, "resident_with_100": before, "resident": after,
        "bytes_each": each.round(), "hold_seconds": held.round(),
        "hold_core_percent": ((user + system) / held / 1e5).round() / 100.0,
        "publish_to_all_ms": (all.as_secs_f64() * 1e4).round() / 10.0,
    });
    meter.report(&args, more)
}
