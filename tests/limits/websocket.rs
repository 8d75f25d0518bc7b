//! Limits on WebSockets.

use std::time::Duration;

use pousse::{CloseCode, ConnId, Context, Message, Reason};

use crate::by_hand::{ByHand, LATE_MAX};
use crate::peer::{Innocent, Peer, frame};
use crate::running::{Chat, Does, Running, ms, now};

/// The WebSocket is closed with this code, and both counters have the word.
#[track_caller]
fn is_closed(running: &Running, mut peer: Peer, code: u16, why: Reason) {
    assert_eq!(peer.hears_close(), code);
    assert_eq!(peer.ends(), b"", "nothing follows a close frame");
    drop(peer);
    running.counts(&format!("closed.{why}"), |now| now.closed(why) == 1);
    assert_eq!(running.counters().refused(why), 1, "refused.{why}");
}

#[test]
pub(crate) fn pings_come_at_their_interval_give_or_take_a_fifth() {
    // Over many clients: none earlier, none later, and not all at the same time.
    let mut times = Vec::new();
    for client in 0..200 {
        let mut by_hand = ByHand::new(|limits| limits.ping = Duration::from_secs(25));
        by_hand.connection = pousse::seam::Connection::new(
            ConnId::new(client, client + 1),
            pousse::Peer::Unix,
            &by_hand.turn,
        );
        by_hand.says(crate::peer::opening("/websocket").as_bytes());
        by_hand.heard.clear();
        by_hand.at(by_hand.connection.deadline().since_start());
        assert_eq!(by_hand.heard, [0x89, 0], "a ping without payload");
        times.push(by_hand.turn.now.since_start());
    }
    times.sort();
    assert!(times[0] >= Duration::from_secs(20), "{:?}", times[0]);
    assert!(times[199] <= Duration::from_secs(30) + LATE_MAX, "{:?}", times[199]);
    assert!(times[199] - times[0] > Duration::from_secs(8), "they are spread");

    let running = Running::chat(|limits| limits.ping = ms(500));
    let before = now();
    let mut peer = Peer::open(running.address, "/websocket");
    assert_eq!(peer.hears(), (0x89, vec![]));
    let took = now() - before;
    assert!((ms(400)..ms(3000)).contains(&took), "{took:?}");
    peer.says(frame(0x8a, b""));
    assert_eq!(peer.hears(), (0x89, vec![]), "and again");
    running.serves_others();
}

#[test]
pub(crate) fn a_client_whose_pong_takes_too_long_is_dropped() {
    let mut by_hand = ByHand::websocket(|limits| {
        limits.ping = Duration::from_secs(25);
        limits.pong_timeout = Duration::from_secs(20);
    });
    for _ in 0..2 {
        by_hand.at(by_hand.connection.deadline().since_start());
        assert_eq!(by_hand.heard, [0x89, 0]);
        by_hand.heard.clear();
        let pinged = by_hand.turn.now.since_start();
        by_hand.at(pinged + Duration::from_secs(20));
        by_hand.says(&frame(0x8a, b""));
        assert_eq!(by_hand.heard, b"", "just in time");
    }
    by_hand.at(by_hand.connection.deadline().since_start());
    let pinged = by_hand.turn.now.since_start();
    by_hand.at(pinged + Duration::from_secs(20) + LATE_MAX);
    assert_eq!(by_hand.turn.counters.refused(Reason::PongTimeout), 1);

    let running = Running::chat(|limits| {
        limits.ping = ms(200);
        limits.pong_timeout = ms(200);
    });
    let mut peer = Peer::open(running.address, "/websocket");
    assert_eq!(peer.hears(), (0x89, vec![]));
    is_closed(&running, peer, 1008, Reason::PongTimeout);
    running.serves_others();
}

#[test]
pub(crate) fn a_message_of_too_many_fragments_is_closed_with_1008() {
    let message = |fragments: usize| {
        let middle = frame(0x00, b"").repeat(fragments - 2);
        [frame(0x01, b"ab"), middle, frame(0x80, b"")].concat()
    };
    let running = Running::chat(|limits| limits.fragments = 4);
    let mut innocent = Innocent::of(&running);
    let mut peer = Peer::open(running.address, "/websocket");
    peer.says(message(4).repeat(2));
    assert_eq!([peer.hears(), peer.hears()], [(0x81, b"ab".to_vec()), (0x81, b"ab".to_vec())]);
    peer.says(message(5));
    is_closed(&running, peer, 1008, Reason::Fragments);
    innocent.is_served();
}

#[test]
pub(crate) fn a_message_that_takes_too_long_is_closed_with_1008() {
    let mut by_hand = ByHand::websocket(|limits| {
        limits.message_timeout = Duration::from_secs(30);
        limits.ping = Duration::from_secs(3600);
    });
    by_hand.says(&frame(0x01, b"a"));
    by_hand.at(Duration::from_secs(30));
    by_hand.says(&frame(0x80, b"b"));
    assert_eq!(by_hand.messages, 1, "just in time");
    by_hand.says(&frame(0x01, b"a"));
    // What comes between does not give it more time.
    by_hand.at(Duration::from_secs(50));
    by_hand.says(&[frame(0x00, b"a"), frame(0x89, b"")].concat());
    by_hand.at(Duration::from_secs(60));
    assert!(by_hand.connection.is_open());
    by_hand.at(Duration::from_secs(60) + LATE_MAX);
    assert_eq!(by_hand.turn.counters.refused(Reason::MessageTimeout), 1);

    let running = Running::chat(|limits| limits.message_timeout = ms(300));
    let mut innocent = Innocent::of(&running);
    let before = now();
    let mut peer = Peer::open(running.address, "/websocket");
    peer.says([0x81]);
    is_closed(&running, peer, 1008, Reason::MessageTimeout);
    assert!(now() - before >= ms(300));
    innocent.is_served();
}

#[test]
pub(crate) fn too_many_control_frames_are_closed_with_1008() {
    let running = Running::chat(|limits| limits.controls = 5);
    let mut peer = Peer::open(running.address, "/websocket");
    peer.says(frame(0x89, b"?").repeat(5));
    for _ in 0..5 {
        assert_eq!(peer.hears(), (0x8a, b"?".to_vec()));
    }
    peer.says([frame(0x81, b"a"), frame(0x81, b"b")].concat());
    assert_eq!([peer.hears().1, peer.hears().1], [b"a", b"b"], "messages are none");
    peer.says(frame(0x8a, b""));
    is_closed(&running, peer, 1008, Reason::Controls);
    running.serves_others();

    let mut by_hand = ByHand::websocket(|limits| limits.controls = 5);
    for round in 0..4 {
        by_hand.at((Duration::from_secs(5) + LATE_MAX) * round);
        by_hand.says(&frame(0x8a, b"").repeat(5));
        assert!(by_hand.connection.is_open(), "five every five seconds is the limit");
    }
}

#[test]
pub(crate) fn commands_that_are_wrong_are_answered_until_they_are_a_flood() {
    let running = Running::chat(|limits| limits.wrong_commands = 3);
    let mut innocent = Innocent::of(&running);
    let mut peer = Peer::open_v1(running.address, "/websocket");
    let unnamed = br#"{"publish":"","data":"a topic has a name"}"#;
    for wrong in [&b"nonsense"[..], b"{}", unnamed] {
        peer.says(frame(0x81, wrong));
        let (_, told) = peer.hears();
        assert!(told.starts_with(br#"{"error":{"type":"about:blank","title":"Bad Request""#));
    }
    peer.says(frame(0x81, br#"{"publish":"t","data":"right"}"#));
    assert!(peer.hears().1.starts_with(br#"{"published":"#), "right ones are none");
    peer.says(frame(0x81, b"nonsense"));
    assert_eq!(peer.hears_close(), 1008);
    assert_eq!(peer.ends(), b"", "nothing follows a close frame");
    drop(peer);
    running.counts("closed", |now| now.closed(Reason::WrongCommands) == 1);
    assert_eq!(running.counters().refused(Reason::WrongCommands), 3, "two, and the flood");
    assert_eq!(running.counters().refused(Reason::Request), 1, "the name");

    innocent.is_served();
}

#[test]
pub(crate) fn control_frames_are_limited_in_any_five_seconds() {
    let mut by_hand = ByHand::websocket(|limits| limits.controls = 100);
    by_hand.says(&frame(0x8a, b""));
    by_hand.at(Duration::from_millis(4900));
    by_hand.says(&frame(0x8a, b"").repeat(99));
    by_hand.at(Duration::from_millis(5200));
    by_hand.says(&frame(0x8a, b"").repeat(100));
    assert!(!by_hand.connection.is_open(), "199 frames within 0.3 s, where 100 in 5 s are allowed");
}

#[test]
pub(crate) fn a_close_frame_is_waited_for_and_then_no_more() {
    let mut by_hand = ByHand::websocket(|limits| limits.close_timeout = Duration::from_secs(3));
    by_hand.connection.close(CloseCode::Normal, "", Reason::Handler, &mut by_hand.turn);
    by_hand.flush();
    by_hand.at(Duration::from_secs(3));
    assert!(!by_hand.connection.is_done());
    by_hand.at(Duration::from_secs(3) + LATE_MAX);
    assert!(by_hand.connection.is_done());

    let close = |conn: ConnId, _: Message<'_>, ctx: &mut Context<'_>| {
        ctx.close(conn, CloseCode::Normal, "");
    };
    let running = Running::with(|limits| limits.close_timeout = ms(300), Does(close));
    let mut innocent = Innocent::of(&running);
    let mut prompt = Peer::open(running.address, "/websocket");
    prompt.says(frame(0x81, b"close"));
    assert_eq!(prompt.hears_close(), 1000);
    prompt.says(frame(0x88, &1000u16.to_be_bytes()));
    assert_eq!(prompt.ends(), b"");
    drop(prompt);
    running.counts("closed.handler", |now| now.closed(Reason::Handler) == 1);

    let mut peer = Peer::open(running.address, "/websocket");
    let before = now();
    peer.says(frame(0x81, b"close"));
    assert_eq!(peer.hears_close(), 1000);
    assert_eq!(peer.ends(), b"");
    assert!(now() - before >= ms(300));
    running.counts("close-timeout, closed or refused", |now| {
        now.closed(Reason::CloseTimeout) + now.refused(Reason::CloseTimeout) == 1
    });
    innocent.is_served();
}

#[test]
pub(crate) fn an_ending_server_waits_for_its_clients_and_then_no_more() {
    // Those who answer are all it waits for.
    let running = Running::with(|limits| limits.drain = Duration::from_secs(3600), Chat);
    let mut peer = Peer::open(running.address, "/websocket");
    let mut resting = Peer::connect(running.address);
    assert_eq!(resting.asks("GET /api/messages?limit=0").status, 200);
    running.remote.drain(CloseCode::Away).unwrap();
    assert_eq!(peer.hears_close(), 1001);
    assert_eq!(resting.ends(), b"");
    drop(resting);
    peer.says(frame(0x88, &1001u16.to_be_bytes()));
    assert_eq!(peer.ends(), b"");
    drop(peer);
    assert!(running.has_ended());
    assert_eq!(running.counters().closed(Reason::Drain), 2);

    // One who does not is not waited for any longer, and nobody new is let in.
    let running = Running::chat(|limits| {
        limits.drain = ms(500);
        limits.close_timeout = Duration::from_secs(3600);
    });
    let mut peer = Peer::open(running.address, "/websocket");
    let before = now();
    running.remote.drain(CloseCode::Restart).unwrap();
    assert_eq!(peer.hears_close(), 1012);
    assert!(std::net::TcpStream::connect(running.address).is_err(), "nobody new is let in");
    assert_eq!(peer.ends(), b"");
    assert!(running.has_ended());
    let took = now() - before;
    assert!((ms(500)..ms(3000)).contains(&took), "{took:?}");
    assert_eq!(running.counters().closed(Reason::Drain), 1);
}
