//! Everything that a peer can make the server hold, by crowds of peers who do: `memory` bounds it,
//! whatever it consists of, and at every moment. `docs/limits.md` says what is promised, and the
//! daemon says it in figures when it starts.
//!
//! Each crowd would hold several times what is allowed. A machine's own figures are too coarse for
//! what one client does; the edges of the limit are `tests/limits/gate.rs`.

use crate::peer::{Peer, opening, posting, promise};
use crate::support::websocket::{BINARY, PING, TEXT, frame};
use crate::target::Target;

/// What all clients may hold together.
const MEMORY: u64 = 2 << 20;

/// Where they hold so little that they are not dropped for that.
const SMALL: &str = "memory=128KiB";

/// A crowd, and what each of it takes beside (`docs/limits.md`).
const CROWD: u64 = 900;
const PLACE: u64 = 320;

/// What one client may hold more than all may, until somebody is dropped, and what the allocator
/// keeps for itself. It may keep all that was freed, for the next: what is bounded stays bounded.
const MORE: u64 = 2 << 20;

fn target(flags: &[&str]) -> Target {
    let memory = match flags.contains(&SMALL) {
        true => ["--limit", "history-total=4MiB"].to_vec(),
        false => ["--limit", "memory=2MiB", "--limit", "history-total=4MiB"].to_vec(),
    };
    let patience = ["--limit", "body-timeout=60s", "--limit", "stall=60s"];
    let few = ["--max-clients", "1000", "--max-topics", "200"];
    let mut target = Target::start(&[&memory[..], &patience, &few, flags].concat());
    target.margin = MEMORY + MORE;
    target
}

/// A crowd comes; each says this, and no more. What is held then, and was at the most, is within
/// what is promised; who did nothing of it is served.
fn is_bounded(what: &str, mut target: Target, mut come: impl FnMut(&Target) -> Peer) {
    let promised = {
        let log = target.log();
        let mib = log.split("memory-at-worst=").nth(1).unwrap().split("MiB").next().unwrap();
        mib.parse::<u64>().unwrap() << 20
    };
    target.survives(|target| {
        // Whoever is answered now was read after all of them. `openings` is to drop nobody.
        let is_served = || assert_eq!(target.gets("/api/messages?limit=0").status, 200);
        let mut crowd = Vec::new();
        for number in 1..=CROWD {
            crowd.push(come(target));
            if number % 50 == 0 {
                is_served();
            }
        }
        target.until("some are dropped", |target| {
            is_served();
            target.counter("refused.memory") > CROWD / 16
        });
        let (grown, peak) = (target.heap_grown(), target.heap_peak());
        let show = |bytes: u64| bytes >> 10;
        println!(
            "{what}: {} KiB more, {} at the most; {} are promised",
            show(grown),
            show(peak),
            show(promised)
        );
        assert!(grown <= CROWD * PLACE + target.margin, "{what}: {grown} bytes more");
        assert!(peak <= promised, "{what}: {peak} bytes, {promised} are promised");
        drop(crowd);
    });
}

fn says(target: &Target, bytes: impl AsRef<[u8]>) -> Peer {
    let mut peer = Peer::connect(&target.door);
    peer.says(bytes);
    peer
}

/// As many topics as one may read.
fn topics() -> String {
    (0..128).map(|number| format!("topic=t{number}&")).collect()
}

#[test]
fn a_burst_of_messages_that_are_not_whole_is_bounded_at_every_moment() {
    let most = [promise(0x80 | BINARY, 65_536), vec![7; 65_000]].concat();
    is_bounded("messages that are not whole", target(&[]), |target| {
        let mut peer = Peer::opens(&target.door, "/websocket?topic=burst", "");
        peer.says(&most);
        peer
    });
}

#[test]
fn heads_of_requests_whose_content_never_comes_count() {
    let fields: String = (0..60).map(|number| format!("a{number}: \r\n")).collect();
    let head = posting("/api/messages", &format!("{fields}b: {}\r\n", "b".repeat(7000)), b"12345");
    is_bounded("heads of requests", target(&[]), |target| says(target, &head[..head.len() - 1]));
}

#[test]
fn subscriptions_count_over_every_transport() {
    let ask = |fields: &str| {
        let target = format!("/api/messages?{}after=now&wait=50", topics());
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
    };
    let stream = ask("Accept: text/event-stream\r\n");
    is_bounded("subscriptions of streams", target(&[]), |target| says(target, &stream));
    let poll = ask("");
    is_bounded("subscriptions of polls", target(&[]), |target| says(target, &poll));
    let protocol = "Sec-WebSocket-Protocol: pousse.v1\r\n";
    let session = opening("/websocket", protocol).into_bytes();
    let commands = (0..128)
        .map(|number| frame(true, TEXT, format!(r#"{{"subscribe":"t{number}"}}"#).as_bytes()));
    let session = [session, commands.collect::<Vec<_>>().concat()].concat();
    is_bounded("subscriptions of pousse.v1", target(&[]), |target| says(target, &session));
}

#[test]
fn control_frames_that_are_not_whole_count() {
    let ping = frame(true, PING, &[7; 125]);
    is_bounded("control frames", target(&["--limit", SMALL]), |target| {
        let mut peer = Peer::opens(&target.door, "/websocket?topic=pings", "");
        peer.says(&ping[..ping.len() - 1]);
        peer
    });
}

#[test]
fn last_answers_that_nobody_fetches_count() {
    let flags =
        ["--history-bytes", "4MiB", "--limit", "poll-bytes=4MiB", "--limit", "unsent=16KiB"];
    let mut target = target(&flags);
    // What is published stays.
    target.margin += 4 << 20;
    for _ in 0..60 {
        let content = vec![b'a'; 60_000];
        assert_eq!(target.asks(posting("/api/messages?topic=much", "", &content)).status, 201);
    }
    let ask = "GET /api/messages?topic=much&after=earliest&limit=1000 HTTP/1.1\r\n\
               Host: localhost\r\nConnection: close\r\n\r\n";
    is_bounded("last answers", target, |target| says(target, ask));
}
