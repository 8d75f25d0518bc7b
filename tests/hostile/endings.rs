//! Connections that end where nobody expects it: a reset or an end of bytes at every stage, peers
//! that never close and never answer, and thousands who come and go.

use crate::peer::{PATIENCE, Peer, ms, opening, posting};
use crate::support::websocket::{Incoming, TEXT, frame};
use crate::support::{Came, now};
use crate::target::Target;

/// What a connection does up to an answer, or into one that does not end.
fn beginnings() -> Vec<(&'static str, Vec<u8>)> {
    let get = |target: &str, field: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{field}\r\n").into_bytes()
    };
    vec![
        ("a WebSocket", opening("/websocket?topic=ends", "").into_bytes()),
        (
            "pousse.v1",
            [
                opening("/websocket", "Sec-WebSocket-Protocol: pousse.v1\r\n").as_bytes(),
                &frame(true, TEXT, b"{\"subscribe\":\"ends\",\"after\":\"earliest\"}"),
            ]
            .concat(),
        ),
        ("a long poll", get("/api/messages?topic=ends&wait=30&after=now", "")),
        ("an event stream", get("/api/messages?topic=ends", "Accept: text/event-stream\r\n")),
        ("a publishing", posting("/api/messages?topic=ends", "", b"what was said")),
        (
            "a WebSocket that speaks",
            [
                opening("/websocket?topic=ends", "").as_bytes(),
                &frame(false, TEXT, b"in "),
                &frame(true, 9, b"?"),
                &frame(true, 0, b"pieces"),
                &frame(true, 8, &1000u16.to_be_bytes()),
            ]
            .concat(),
        ),
    ]
}

/// Every few bytes, and each of the last ones.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    (0..=length).filter(move |at| at % 3 == 0 || length - at < 40)
}

#[test]
fn a_reset_at_every_stage_of_everything_leaves_nothing_behind() {
    let mut target = Target::start(&[]);
    target.survives(|target| {
        for (what, bytes) in beginnings() {
            for at in cuts(bytes.len()) {
                let mut peer = Peer::connect(&target.door);
                peer.says(&bytes[..at]);
                // Before it was looked at, and after it was answered.
                if at == bytes.len() && what != "a long poll" {
                    assert_eq!(peer.wire.fill(now() + PATIENCE), Came::More);
                }
                peer.wire.reset();
            }
        }
        // What is published now has nobody left to go to, or somebody who is not yet known to have
        // left.
        let answer = target.asks(posting("/api/messages?topic=ends", "", b"anyone?"));
        assert_eq!(answer.status, 201);
    });
}

#[test]
fn an_end_of_bytes_at_every_stage_of_everything_leaves_nothing_behind() {
    let mut target = Target::start(&[]);
    target.survives(|target| {
        for (what, bytes) in beginnings() {
            for at in cuts(bytes.len()) {
                let mut peer = Peer::connect(&target.door);
                peer.says(&bytes[..at]);
                let _ = peer.wire.finish();
                // It does not end by itself: the server has to.
                let end = now() + PATIENCE;
                while peer.wire.fill(end) == Came::More {}
                assert!(now() < end, "{what}, {at} bytes: no end");
            }
        }
    });
}

#[test]
fn peers_who_never_answer_a_close_frame_are_dropped_in_time() {
    let mut target = Target::start(&["--limit", "close-timeout=200ms"]);
    target.survives(|target| {
        // Refused with a close frame or an answer, and then they stay.
        let mut peers: Vec<Peer> = (0..40)
            .map(|at| {
                let mut peer = Peer::opens(&target.door, "/websocket", "");
                // An unmasked frame; and the pipe of some is filled too.
                peer.says([0x81, 0x01, b'a']);
                if at % 2 == 0 {
                    let _ = peer.wire.send_some(&[b'a'; 100_000]);
                }
                peer
            })
            .collect();
        peers.extend((0..40).map(|_| {
            let mut peer = Peer::connect(&target.door);
            peer.says("nonsense\r\n\r\n");
            peer
        }));
        target.until("all are dropped", |target| target.descriptors() < 40);
        peers
    });
    assert!(target.counter("refused.close-timeout") >= 40);
}

#[test]
fn peers_who_never_answer_a_ping_are_dropped_in_time() {
    let flags = ["--ping", "300ms", "--pong-timeout", "300ms"];
    let mut target = Target::start_without_witness(&flags);
    target.survives(|target| {
        let peers: Vec<Peer> =
            (0..50).map(|_| Peer::opens(&target.door, "/websocket?topic=silent", "")).collect();
        target.until("all are dropped", |target| target.descriptors() < 40);
        peers
    });
    assert_eq!(target.counter("closed.pong-timeout"), 50);
}

#[test]
fn nobody_is_given_bytes_that_were_meant_for_a_client_before_it() {
    let mut target = Target::start(&["--max-topics", "64"]);
    target.withstands("clients in the places of others", |target| {
        let door = &target.door;
        std::thread::scope(|scope| {
            // Each has a topic of its own, so that what it hears tells whose it is; slots and
            // descriptors are used again at once.
            for whose in 0..4 {
                scope.spawn(move || {
                    let before = now();
                    let mut round = 0;
                    while now() - before < ms(1000) {
                        round += 1;
                        let own = format!("topic-{whose}-{round}");
                        let mut peer = Peer::opens(door, &format!("/websocket?topic={own}"), "");
                        peer.says(frame(true, TEXT, own.as_bytes()).repeat(3));
                        match round % 3 {
                            0 => peer.wire.reset(),
                            1 => {
                                let heard = peer.hears();
                                assert!(
                                    matches!(&heard, Incoming::Text(it) if *it == own),
                                    "{heard}"
                                );
                                peer.wire.reset();
                            }
                            _ => {
                                for _ in 0..3 {
                                    let heard = peer.hears();
                                    assert!(
                                        matches!(&heard, Incoming::Text(it) if *it == own),
                                        "{own} hears {heard}"
                                    );
                                }
                            }
                        }
                        let mut poll = Peer::connect(door);
                        poll.says(format!(
                            "GET /api/messages?topic={own}&format=text HTTP/1.1\r\n\
                             Host: localhost\r\n\r\n"
                        ));
                        if round % 2 == 0 {
                            poll.wire.reset();
                            continue;
                        }
                        let told = poll.answer().json().unwrap();
                        for message in told["messages"].as_array().unwrap() {
                            assert_eq!(message["data"], own.as_str(), "{told}");
                        }
                    }
                });
            }
        });
    });
    assert!(target.counter("opened") > 200);
}

/// So many who come and go.
fn churns(target: &Target, clients: usize) {
    let door = &target.door;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for round in 0..clients / 4 {
                    let mut peer = Peer::connect(door);
                    match (round + thread) % 5 {
                        0 => peer.wire.reset(),
                        1 => {
                            peer.says(opening("/websocket?topic=churn", ""));
                            assert_eq!(peer.answer().status, 101);
                        }
                        2 => {
                            peer.says(
                                "GET /api/messages?wait=9&after=now HTTP/1.1\r\n\
                                 Host: localhost\r\n\r\n",
                            );
                            peer.wire.reset();
                        }
                        3 => {
                            peer.says("GET /style.css HTTP/1.1\r\nHost: localhost\r\n\r\n");
                            assert_eq!(peer.answer().status, 200);
                        }
                        _ => {}
                    }
                }
            });
        }
    });
}

#[test]
fn five_thousand_who_come_and_go_leave_neither_descriptors_nor_memory() {
    let mut target = Target::start(&[]);
    target.withstands("5000 who come and go", |target| churns(target, 5000));
    assert!(target.counter("accepted") >= 4000, "some had left before they were accepted");
}

/// What the first leave behind is there for the next: so many times as many make the process no
/// larger, but for a twentieth.
pub(crate) fn grows_no_more(target: &mut Target, clients: usize) {
    const TIMES: usize = 4;
    // The allocator keeps up to this much at its end (`Server::start` says so to it).
    const KEPT: u64 = 128 << 10;
    target.survives(|target| churns(target, clients));
    let base = target.resident_bytes();
    let most = base + base / 20 + KEPT;
    for _ in 0..TIMES {
        target.survives(|target| churns(target, clients));
    }
    target.until("it is as large as before", |target| target.resident_bytes() <= most);
    let now = target.resident_bytes();
    println!(
        "{} KiB after {clients} clients, {} after {TIMES} times as many",
        base >> 10,
        now >> 10
    );
}

#[test]
fn once_it_has_seen_many_who_come_and_go_it_grows_no_more() {
    grows_no_more(&mut Target::start(&[]), 2000);
}
