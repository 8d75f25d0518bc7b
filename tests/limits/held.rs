//! Limits that refuse nothing: each is counted by its word when it is reached, and not otherwise.
//!
//! The same is done to a server whose limit is small and to one whose limit is not. Steps of
//! handshakes are counted where turns are made by hand (`turn.rs`).

use std::time::Duration;

use pousse::{Held, Limits};

use crate::peer::{Peer, frame};
use crate::running::{Running, ms};

/// A limit, what makes it small, what makes it large enough, and what is done.
struct Case {
    limit: Held,
    small: fn(&mut Limits),
    large: fn(&mut Limits),
    does: fn(&Running) -> Vec<Peer>,
}

/// Of a limit whose default is large enough.
const fn case(limit: Held, small: fn(&mut Limits), does: fn(&Running) -> Vec<Peer>) -> Case {
    const fn default(_: &mut Limits) {}
    Case { limit, small, large: default, does }
}

const CASES: &[Case] = &[
    case(Held::History, |it| it.history = 1, |server| publishes(server, 3, 10)),
    case(Held::HistoryBytes, |it| it.history_bytes = 300, |server| publishes(server, 3, 200)),
    case(Held::HistoryAge, |it| it.history_age = ms(100), |server| publishes(server, 1, 10)),
    case(Held::HistoryTotal, |it| it.history_total = 1000, |server| publishes(server, 3, 500)),
    case(Held::OutboxSoft, |it| it.outbox_soft = 1, has_a_reader_who_takes_nothing),
    case(Held::OutboxSoft, |it| it.outbox_soft = 1, asks_twice_at_once),
    case(Held::Unsent, |it| it.unsent = 1, reads_more_than_may_wait),
    case(Held::WaitMax, |it| it.wait_max = Duration::ZERO, waits_for_a_message),
    case(Held::PollBytes, |it| it.poll_bytes = 15, polls_two_messages),
    case(
        Held::Ping,
        |it| it.ping = ms(100),
        |server| vec![Peer::open(server.address, "/websocket")],
    ),
    case(Held::Ping, |it| it.ping = ms(100), has_an_event_stream),
    case(Held::TurnRead, |it| it.turn_read = 100, |server| says(server, 1, 1000)),
    case(Held::TurnMessages, |it| it.turn_messages = 2, |server| says(server, 3, 10)),
    case(Held::TurnWrite, |it| it.turn_write = 1000, reads_long_messages),
    case(Held::TurnAccept, |it| it.turn_accept = 1, |server| publishes(server, 1, 10)),
    case(Held::TurnReaders, |it| it.turn_readers = 2, has_three_readers),
    // While there is time, slice follows upon slice.
    Case {
        limit: Held::TurnTime,
        small: |it| (it.turn_readers, it.turn_time) = (1, Duration::from_nanos(1)),
        large: |it| (it.turn_readers, it.turn_time) = (1, Duration::from_secs(600)),
        does: has_three_readers,
    },
];

/// Publishes so many messages of so many bytes to `t`.
fn publishes(server: &Running, messages: usize, bytes: usize) -> Vec<Peer> {
    let mut peer = Peer::connect(server.address);
    for _ in 0..messages {
        assert_eq!(peer.posts("t", &"x".repeat(bytes)).status, 201);
    }
    vec![peer]
}

/// So many messages of so many bytes come at once, and come back.
fn says(server: &Running, messages: usize, bytes: usize) -> Vec<Peer> {
    let mut peer = Peer::open(server.address, "/websocket?topic=t");
    peer.says(frame(0x82, &vec![7; bytes]).repeat(messages));
    (0..messages).for_each(|_| assert_eq!(peer.hears().1.len(), bytes));
    vec![peer]
}

fn has_a_reader_who_takes_nothing(server: &Running) -> Vec<Peer> {
    let mut peers = vec![Peer::open(server.address, "/websocket?topic=t")];
    // More than the system takes, but less than a quarter of a MiB of it is in an outbox.
    peers.extend(publishes(server, 20, 60_000));
    peers[0].says(frame(0x89, b"still there?"));
    peers
}

fn asks_twice_at_once(server: &Running) -> Vec<Peer> {
    let mut peers = publishes(server, 1, 10);
    peers[0].says("GET /api/messages?topic=t HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2));
    peers[0].answer();
    peers[0].answer();
    peers
}

fn reads_more_than_may_wait(server: &Running) -> Vec<Peer> {
    // More than its window, and less than what may wait in the system with it.
    let peers = publishes(server, 4, 50_000);
    let mut reader = Peer::open(server.address, "/websocket?topic=t&after=earliest");
    server.serves_others();
    (0..4).for_each(|_| assert_eq!(reader.hears().1.len(), 50_000));
    peers
}

fn waits_for_a_message(server: &Running) -> Vec<Peer> {
    let mut peer = Peer::connect(server.address);
    peer.says("GET /api/messages?topic=t&wait=1&after=now HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut peers = publishes(server, 1, 10);
    peer.answer();
    peers.push(peer);
    peers
}

fn polls_two_messages(server: &Running) -> Vec<Peer> {
    let mut peers = publishes(server, 2, 10);
    assert!(peers[0].asks("GET /api/messages?topic=t").content.contains("xxx"));
    peers
}

fn has_an_event_stream(server: &Running) -> Vec<Peer> {
    let mut peer = Peer::connect(server.address);
    peer.says("GET /api/messages HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
    vec![peer]
}

fn reads_long_messages(server: &Running) -> Vec<Peer> {
    let peers = publishes(server, 3, 50_000);
    let mut reader = Peer::open(server.address, "/websocket?topic=t&after=earliest");
    (0..3).for_each(|_| assert_eq!(reader.hears().1.len(), 50_000));
    peers
}

fn has_three_readers(server: &Running) -> Vec<Peer> {
    let open = |_| Peer::open(server.address, "/websocket?topic=t");
    let mut peers: Vec<Peer> = (0..3).map(open).collect();
    peers.extend(publishes(server, 1, 10));
    (0..3).for_each(|at| assert_eq!(peers[at].hears().1.len(), 10));
    peers
}

#[test]
fn each_is_counted_when_it_is_reached_and_not_otherwise() {
    for Case { limit, small, large, does } in CASES {
        let running = Running::chat(small);
        let peers = does(&running);
        running.counts(&format!("held.{limit}"), |now| now.held(*limit) > 0);
        drop(peers);

        let running = Running::chat(large);
        let _peers = does(&running);
        // What is asked last is answered in a turn after those that did it.
        running.serves_others();
        running.serves_others();
        assert_eq!(running.counters().held(*limit), 0, "{limit} was not reached");
    }
    for limit in Held::ALL.iter().filter(|limit| **limit != Held::TurnHandshakes) {
        assert!(CASES.iter().any(|case| case.limit == *limit), "{limit} has no case");
    }
}
