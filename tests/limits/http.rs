//! Limits on requests.

use std::time::Duration;

use pousse::{ConnId, Context, Message, Reason, SubscribeError};

use crate::by_hand::{ByHand, LATE_MAX};
use crate::peer::{Innocent, Peer, frame, frame_head};
use crate::running::{Does, Running, ms, now};

const GET: &str = "GET /api/messages?limit=0 HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The connection ends with this one answer, and both counters have the word.
#[track_caller]
fn is_refused(running: &Running, mut peer: Peer, status: u16, why: Reason) {
    let before = running.counters();
    let answer = peer.answer();
    assert_eq!(answer.status, status, "{}", answer.head);
    assert!(answer.has("Connection: close"), "{}", answer.head);
    assert!(answer.content.contains(&format!("\"status\":{status}")), "{}", answer.content);
    assert_eq!(peer.ends(), b"", "one answer, whatever followed");
    drop(peer);
    running.counts(&format!("closed.{why}"), |now| now.closed(why) > before.closed(why));
    assert_eq!(running.counters().refused(why), 1, "refused.{why}");
}

#[test]
pub(crate) fn a_head_over_its_bytes_is_refused_with_431() {
    let running = Running::chat(|limits| limits.head_bytes = 256);
    let mut innocent = Innocent::of(&running);
    let head = |bytes: usize| {
        let head = |fill| format!("{}X: {}\r\n\r\n", &GET[..GET.len() - 2], "a".repeat(fill));
        head(bytes - head(0).len())
    };
    let mut peer = Peer::connect(running.address);
    peer.says(head(256));
    assert_eq!(peer.answer().status, 200);
    peer.says(format!("\r\n\r\n{}", head(252)));
    assert_eq!(peer.answer().status, 200, "empty lines before it count");
    peer.says(head(257));
    is_refused(&running, peer, 431, Reason::HeadBytes);
    innocent.is_served();
}

#[test]
pub(crate) fn a_head_of_too_many_fields_is_refused_with_431() {
    let running = Running::chat(|limits| limits.headers = 6);
    let mut innocent = Innocent::of(&running);
    let head =
        |fields: usize| format!("{}{}\r\n", &GET[..GET.len() - 2], "X: \r\n".repeat(fields - 1));
    let mut peer = Peer::connect(running.address);
    peer.says(head(6));
    assert_eq!(peer.answer().status, 200);
    peer.says(head(7));
    is_refused(&running, peer, 431, Reason::Headers);
    innocent.is_served();
}

#[test]
pub(crate) fn a_target_over_its_bytes_is_refused_with_414() {
    let running = Running::chat(|limits| limits.target_bytes = 64);
    let mut innocent = Innocent::of(&running);
    let target = |bytes: usize| format!("GET /api/messages?{:a<1$}", "limit=0&", bytes - 14);
    let mut peer = Peer::connect(running.address);
    assert_eq!(peer.asks(&target(64)).status, 200);
    peer.says(format!("{} HTTP/1.1\r\nHost: localhost\r\n\r\n", target(65)));
    is_refused(&running, peer, 414, Reason::TargetBytes);
    innocent.is_served();
}

#[test]
pub(crate) fn a_message_over_its_bytes_is_refused_with_413_and_1009_before_it_is_read() {
    let running = Running::chat(|limits| limits.max_message = 100);
    let mut innocent = Innocent::of(&running);
    let mut peer = Peer::connect(running.address);
    assert_eq!(peer.posts("t", &"a".repeat(100)).status, 201);
    // Of the content not one byte is sent.
    peer.says("POST /api/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 101\r\n\r\n");
    is_refused(&running, peer, 413, Reason::MaxMessage);

    let mut peer = Peer::open(running.address, "/websocket?topic=t");
    peer.says(frame(0x82, &[7; 100]));
    assert_eq!(peer.hears(), (0x82, vec![7; 100]));
    peer.says([frame(0x02, &[7; 60]), frame(0x80, &[7; 40])].concat());
    assert_eq!(peer.hears(), (0x82, vec![7; 100]), "in fragments too");
    peer.says([frame(0x02, &[7; 60]), frame_head(0x80, 41)].concat());
    assert_eq!(peer.hears_close(), 1009);
    peer.ends();
    drop(peer);
    running.counts("closed.max-message", |now| now.closed(Reason::MaxMessage) == 2);
    assert_eq!(running.counters().refused(Reason::MaxMessage), 2);
    innocent.is_served();
}

#[test]
pub(crate) fn a_head_that_takes_too_long_is_told_408_and_silence_nothing() {
    let mut by_hand = ByHand::new(|limits| limits.head_timeout = Duration::from_secs(10));
    by_hand.says(&GET.as_bytes()[..20]);
    by_hand.at(Duration::from_secs(10));
    by_hand.says(&GET.as_bytes()[20..]);
    assert!(by_hand.heard_text().starts_with("HTTP/1.1 200 "), "just in time");
    // A later head has its time from its first byte.
    by_hand.at(Duration::from_secs(30));
    by_hand.says(&GET.as_bytes()[..20]);
    by_hand.at(Duration::from_secs(40));
    assert_eq!(by_hand.heard_text().matches("HTTP/1.1").count(), 1);
    by_hand.at(Duration::from_secs(40) + LATE_MAX);
    assert_eq!(by_hand.heard_text().matches("HTTP/1.1 408 ").count(), 1);

    let running = Running::chat(|limits| limits.head_timeout = ms(300));
    let mut innocent = Innocent::of(&running);
    let before = now();
    let mut silent = Peer::connect(running.address);
    let mut slow = Peer::connect(running.address);
    slow.says("G");
    is_refused(&running, slow, 408, Reason::HeadTimeout);
    assert!(now() - before >= ms(300));
    assert_eq!(silent.ends(), b"");
    running.counts("closed.head-timeout", |now| now.closed(Reason::HeadTimeout) == 2);
    innocent.is_served();
}

#[test]
pub(crate) fn a_content_that_takes_too_long_is_told_408() {
    const POST: &[u8] =
        b"POST /api/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\na";
    let mut by_hand = ByHand::new(|limits| limits.body_timeout = Duration::from_secs(10));
    by_hand.at(Duration::from_secs(5));
    by_hand.says(POST);
    by_hand.at(Duration::from_secs(15));
    by_hand.says(b"b");
    assert!(by_hand.heard_text().starts_with("HTTP/1.1 200 "), "just in time");
    by_hand.says(POST);
    by_hand.at(Duration::from_secs(25) + LATE_MAX);
    assert!(by_hand.heard_text().contains("HTTP/1.1 408 "));

    let running = Running::chat(|limits| limits.body_timeout = ms(300));
    let mut innocent = Innocent::of(&running);
    let before = now();
    let mut slow = Peer::connect(running.address);
    slow.says(POST);
    is_refused(&running, slow, 408, Reason::BodyTimeout);
    assert!(now() - before >= ms(300));
    innocent.is_served();
}

#[test]
pub(crate) fn a_connection_that_rests_too_long_is_closed_without_a_word() {
    let mut by_hand = ByHand::new(|limits| limits.idle_timeout = Duration::from_secs(30));
    by_hand.says(GET.as_bytes());
    by_hand.at(Duration::from_secs(30));
    by_hand.says(GET.as_bytes());
    assert_eq!(by_hand.heard_text().matches("HTTP/1.1 200 ").count(), 2, "just in time");
    by_hand.at(Duration::from_secs(60));
    assert!(!by_hand.connection.is_done());
    by_hand.at(Duration::from_secs(60) + LATE_MAX);
    assert!(by_hand.connection.is_done());

    let running = Running::chat(|limits| limits.idle_timeout = ms(300));
    let mut innocent = Innocent::of(&running);
    let mut peer = Peer::connect(running.address);
    let before = now();
    assert_eq!(peer.asks("GET /api/messages?limit=0").status, 200);
    assert_eq!(peer.ends(), b"");
    assert!(now() - before >= ms(300));
    running.counts("closed.idle-timeout", |now| now.closed(Reason::IdleTimeout) == 1);
    innocent.is_served();
}

#[test]
pub(crate) fn the_last_request_of_a_connection_is_answered_with_connection_close() {
    let running = Running::chat(|limits| limits.requests = 3);
    let mut innocent = Innocent::of(&running);
    let mut peer = Peer::connect(running.address);
    peer.says(GET.repeat(5));
    let closes = [peer.answer(), peer.answer(), peer.answer()];
    assert_eq!(closes.map(|answer| answer.has("Connection: close")), [false, false, true]);
    assert_eq!(peer.ends(), b"", "three answers and no more");
    drop(peer);
    running.counts("closed.requests", |now| now.closed(Reason::Requests) == 1);
    innocent.is_served();
}

#[test]
pub(crate) fn a_wait_that_is_too_long_is_shortened() {
    let running = Running::chat(|limits| limits.wait_max = Duration::from_secs(1));
    let mut innocent = Innocent::of(&running);
    let before = now();
    let mut peers = [1, 9999].map(|wait| {
        let mut peer = Peer::connect(running.address);
        let head = &GET[..GET.len() - 2];
        peer.says(format!("{head}Prefer: wait={wait}\r\n\r\n"));
        peer
    });
    let mut bare = Peer::connect(running.address);
    bare.says("GET /api/messages?wait=18446744073709551616 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    innocent.is_served();
    for peer in &mut peers {
        let answer = peer.answer();
        assert_eq!(answer.status, 200, "no status of its own");
        assert!(answer.has("Preference-Applied: wait=1"), "{}", answer.head);
    }
    assert!(bare.answer().content.starts_with("{\"messages\":[],"));
    let took = now() - before;
    assert!((ms(1000)..ms(4000)).contains(&took), "{took:?}");
    innocent.is_served();
}

#[test]
pub(crate) fn a_poll_has_so_many_bytes_of_messages_but_at_least_one_and_the_next_one_goes_on() {
    let running = Running::chat(|_| {});
    let mut peer = Peer::connect(running.address);
    peer.posts("t", "abcdefghij");
    let envelope = peer.asks("GET /api/messages?topic=t").content;
    let envelope =
        envelope.find(']').unwrap() - envelope.find('{').unwrap() - "{messages:[\"\"".len();

    // Just two of them, one byte less, and far too little.
    for (poll_bytes, fits) in [(2 * envelope, 2), (2 * envelope - 1, 1), (1, 1)] {
        let running = Running::chat(|limits| limits.poll_bytes = poll_bytes);
        let mut innocent = Innocent::of(&running);
        let mut peer = Peer::connect(running.address);
        for _ in 0..3 {
            assert_eq!(peer.posts("t", "abcdefghij").status, 201);
        }
        let first = peer.asks("GET /api/messages?topic=t").content;
        assert_eq!(first.matches("abcdefghij").count(), fits, "{poll_bytes}: {first}");
        let last = first.split("\"last\":\"").nth(1).unwrap().split('"').next().unwrap();
        let mut after = last.to_owned();
        let mut got = fits;
        while got < 3 {
            let next = peer.asks(&format!("GET /api/messages?topic=t&after={after}")).content;
            got += next.matches("abcdefghij").count();
            assert!(next.contains("\"gap\":false"), "{next}");
            let last = next.split("\"last\":\"").nth(1).unwrap().split('"').next().unwrap();
            assert_ne!(last, after, "a poll always goes on");
            after = last.to_owned();
        }
        assert_eq!(got, 3);
        innocent.is_served();
    }
}

#[test]
pub(crate) fn a_client_reads_so_many_topics_and_no_more() {
    let (tell, told) = std::sync::mpsc::channel();
    let subscribe = move |conn: ConnId, message: Message<'_>, ctx: &mut Context<'_>| {
        let topic = str::from_utf8(message.as_bytes()).unwrap();
        tell.send(ctx.subscribe(conn, topic, pousse::After::Now)).unwrap();
    };
    let running = Running::with(|limits| limits.subscriptions = 2, Does(subscribe));
    let mut innocent = Innocent::of(&running);
    let mut peer = Peer::connect(running.address);
    assert_eq!(peer.asks("GET /api/messages?topic=a&topic=b&topic=a").status, 200);
    let answer = peer.asks("GET /api/messages?topic=a&topic=b&topic=c");
    assert_eq!((answer.status, answer.has("Connection: close")), (400, false));
    peer.says(crate::peer::opening("/websocket?topic=a&topic=b&topic=c"));
    assert_eq!(peer.answer().status, 400);
    assert_eq!(peer.asks("GET /api/messages?limit=0").status, 200, "the connection goes on");
    running.counts("refused.subscriptions", |now| now.refused(Reason::Subscriptions) == 2);

    let mut peer = Peer::open(running.address, "/websocket?topic=a");
    peer.says(["a", "b", "c"].map(|topic| frame(0x81, topic.as_bytes())).concat());
    let results = [(); 3].map(|()| told.recv_timeout(crate::running::PATIENCE).unwrap());
    assert_eq!(results, [Ok(()), Ok(()), Err(SubscribeError::TooMany)]);
    running.counts("refused.subscriptions", |now| now.refused(Reason::Subscriptions) == 3);
    innocent.is_served();
}
