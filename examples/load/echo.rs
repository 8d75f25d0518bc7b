//! `echo`: each WebSocket has so many messages under way, and sends one for each that comes back.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::args::Args;
use crate::frame::{self, Messages};
use crate::http;
use crate::meter::Meter;
use crate::net::Net;

#[derive(Debug, Default)]
struct Peer {
    sent: u32,
    heard: u32,
    /// When those that are under way were sent.
    times: VecDeque<Instant>,
}

pub(crate) fn run(args: &Args) -> Value {
    let mut net = Net::new(args);
    net.open_all(args.connections, None, |_| http::opening(&args.path, ""), |_, _| {});
    let mut messages = Messages::new(args.size, args.is_raw);
    let mut meter = Meter::new(args);
    let mut peers: Vec<Peer> = Vec::new();
    peers.resize_with(args.connections, Peer::default);
    let (mut under_way, mut batch) = (0, Vec::new());
    let now = Instant::now();
    for (peer, conn) in peers.iter_mut().zip(&mut net.conns) {
        let allowed = meter.allow(args.in_flight as u64, now);
        peer.prepare(allowed, now, &mut messages, &mut batch);
        conn.send(&batch);
        under_way += allowed;
    }
    while under_way > 0 {
        net.wait(Some(Duration::from_secs(20)));
        assert!(!net.ready.is_empty(), "{under_way} messages never came back");
        for &at in &net.ready {
            let (peer, conn) = (&mut peers[at], &mut net.conns[at]);
            conn.flush();
            let now = Instant::now();
            let (mut came, mut pongs) = (0, Vec::new());
            conn.receive(&mut net.scratch, |bytes| {
                let Some((first, payload, used)) = frame::take(bytes) else { return 0 };
                if first & 15 == frame::PING {
                    pongs.extend(frame::frame(frame::PONG, payload, true));
                    return used;
                }
                assert_eq!(first, 0x81, "a text was to come back");
                messages.check(payload, peer.heard);
                peer.heard += 1;
                meter.count(1, now - peer.times.pop_front().unwrap());
                came += 1;
                used
            });
            if !pongs.is_empty() {
                conn.send(&pongs);
            }
            if came > 0 {
                let allowed = meter.allow(came, now);
                peer.prepare(allowed, now, &mut messages, &mut batch);
                conn.send(&batch);
                under_way = under_way - came + allowed;
            }
        }
    }
    meter.report(args, json!({}))
}

impl Peer {
    fn prepare(&mut self, count: u64, now: Instant, messages: &mut Messages, batch: &mut Vec<u8>) {
        batch.clear();
        for _ in 0..count {
            messages.put(self.sent, batch);
            self.sent += 1;
            self.times.push_back(now);
        }
    }
}
