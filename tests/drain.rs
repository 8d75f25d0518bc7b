//! How everyone leaves when the server ends: a handful at once, many spread over the limit `drain`.
//!
//! `src/drain.rs` tests who is told in which tick; here it is seen from the clients.

use kit::common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::{Running, quiet, request};
use pousse::{CloseCode, Config, Reason};
use tungstenite::Message;

#[expect(clippy::disallowed_methods, reason = "what is spread takes time")]
fn now() -> Instant {
    Instant::now()
}

fn limit(drain: Duration) -> impl FnOnce(&mut Config) {
    move |config| config.limits.drain = drain
}

#[test]
fn a_handful_is_told_at_once_however_long_a_drain_may_last() {
    let mut server = Running::start(limit(Duration::from_secs(3600)), quiet);
    let peers: Vec<_> = (0..3).map(|_| server.open("/websocket")).collect();
    server.remote.drain(CloseCode::Away).unwrap();
    for mut peer in peers {
        assert_eq!(peer.hears_close(), (1001, "the server is stopping".into()));
    }
    server.join();
}

#[test]
fn a_hundred_are_told_one_after_the_other_and_all_before_the_end() {
    let mut server = Running::start(limit(Duration::from_secs(2)), quiet);
    let mut peers: Vec<_> = (0..100).map(|_| server.open("/websocket")).collect();
    let began = now();
    server.remote.drain(CloseCode::Restart).unwrap();
    assert_eq!(peers[0].hears_close().0, 1012);
    // Those behind are served meanwhile.
    server.ask(|ctx| ctx.publish("general", "still here").map(drop)).unwrap();
    let heard = |message| matches!(message, Message::Text(text) if text == "still here");
    assert!(heard(peers.last_mut().unwrap().0.read().unwrap()));
    let mut hears_late = 0;
    for peer in &mut peers[1..] {
        let is_told = |message| match message {
            Message::Close(frame) => frame.is_some_and(|frame| u16::from(frame.code) == 1012),
            _ => false,
        };
        while !is_told(peer.0.read().unwrap()) {}
        hears_late += usize::from(now() - began >= Duration::from_millis(300));
        while peer.0.read().is_ok() {}
    }
    // Ten in each tenth of a second.
    assert!(now() - began >= Duration::from_millis(800));
    assert!(hears_late >= 60, "{hears_late}");
    drop(peers);
    let mut ended = server.join();
    assert_eq!(ended.context().counters().closed(Reason::Drain), 100);
}

#[test]
fn a_herd_that_is_told_of_a_restart_is_back_at_once_and_nobody_is_sent_away_again() {
    let mut before = Running::start(limit(Duration::from_secs(1)), quiet);
    let address = before.address();
    let mut herd: Vec<_> = (0..200).map(|_| before.open("/websocket")).collect();
    before.remote.drain(CloseCode::Restart).unwrap();
    for peer in &mut herd {
        assert_eq!(peer.hears_close().0, 1012);
        while peer.0.read().is_ok() {}
    }
    before.join();
    let again = |config: &mut Config| config.listen = vec![address.to_string().parse().unwrap()];
    let after = Running::start(again, quiet);
    // All at once: nobody waits for the answer of another.
    let opening = common::opening("/websocket");
    let mut streams: Vec<_> = herd.iter().map(|_| after.connect()).collect();
    streams.iter_mut().for_each(|stream| stream.write_all(opening.as_bytes()).unwrap());
    for stream in &mut streams {
        assert_eq!(common::status(&common::answer(stream)), "101");
    }
    after.ask(|ctx| ctx.publish("general", "all are back").map(drop)).unwrap();
    for stream in &mut streams {
        let mut frame = [0; 14];
        stream.read_exact(&mut frame).unwrap();
        assert_eq!(&frame, b"\x81\x0call are back");
    }
    let counters = after.counters();
    assert_eq!((counters.accepted, counters.opened), (200, 200));
    assert!(Reason::ALL.iter().all(|it| counters.refused(*it) + counters.closed(*it) == 0));
}

#[test]
fn who_rests_leaves_at_once_and_a_poll_that_ends_meanwhile_is_the_last() {
    let mut server = Running::start(limit(Duration::from_secs(2)), quiet);
    let mut peers: Vec<_> = (0..95).map(|_| server.open("/websocket")).collect();
    let mut waiter = server.connect();
    let wait = request("GET", "/api/messages?after=now&wait=50", "", "");
    // The second is looked at when the first is answered, which is before the turn of this client.
    waiter.write_all(wait.as_bytes()).unwrap();
    waiter.write_all(wait.as_bytes()).unwrap();
    while server.ask(|ctx| ctx.clients().count()) < 96 {}
    let mut resting = server.connect();
    while server.counters().accepted < 97 {}
    let began = now();
    server.remote.drain(CloseCode::Away).unwrap();
    assert!(common::has_ended(&mut resting));
    server.ask(|ctx| ctx.publish("general", "news").map(drop)).unwrap();
    // On a machine that has much else to do it may have been told by now.
    let is_first = now() - began < Duration::from_millis(500);
    let mut told = String::new();
    waiter.read_to_string(&mut told).unwrap();
    let (answers, lasts) =
        (told.matches("HTTP/1.1 200").count(), told.matches("ion: close").count());
    assert!(told.contains("news") && lasts == 1, "{told}");
    assert!(answers == 2 || !is_first, "{told}");
    drop(waiter);
    for peer in &mut peers {
        while peer.0.read().is_ok() {}
    }
    server.join();
}
