//! The library as an application sees it: Ratchet's four, what panics cost, and what a [`Context`]
//! sends to whom.

use kit::common;

use std::io::{Read, Write};
use std::time::Duration;

use common::{Route, Running, Said, Socket, answer, content, echo, frame, opening, quiet, status};
use pousse::{
    After, Answer, CloseCode, ConnId, Context, PublishError, Response, SendError, SubscribeError,
    Transport,
};

/// A 16th of a mebibyte, the longest message by default.
const LONGEST: usize = 64 * 1024;

fn texts(socket: &mut Socket, count: usize) -> Vec<String> {
    (0..count).map(|_| socket.hears()).collect()
}

// Ratchet's four.

#[test]
fn ratchets_four_come_in_their_order_with_the_id_of_the_connection() {
    let mut server = Running::new(echo);
    let mut peer = server.connect();
    peer.write_all(opening("/websocket").as_bytes()).unwrap();
    peer.write_all(&frame(0x81, b"Bonjour")).unwrap();
    peer.write_all(&frame(0x82, b"\x00\xff")).unwrap();
    peer.write_all(b"\x81\x01?").unwrap(); // not masked
    let id = server.opened();
    assert_eq!(server.said(), Said::Text(id, "Bonjour".into()));
    assert_eq!(server.said(), Said::Binary(id, vec![0, 255]));
    let Said::Error(of, text) = server.said() else { panic!("on_error") };
    assert_eq!(of, id);
    assert!(text.contains("1002"), "{text}");
    drop(peer);
    let Said::Close(of, code, _) = server.said() else { panic!("on_close") };
    assert_eq!((of, code), (id, 1002));
    server.stop();
    assert_eq!(server.rest(), []);
}

#[test]
fn two_connections_have_two_ids_and_each_hears_its_own_answer() {
    let server = Running::new(echo);
    let (mut one, first) = server.open_with_id("/websocket");
    let (mut two, second) = server.open_with_id("/api/messages");
    assert_ne!(first, second);
    two.says("two");
    one.says("one");
    assert_eq!((one.hears(), two.hears()), ("one".into(), "two".into()));
    let listed = server.ask(|ctx| ctx.clients().collect::<Vec<_>>());
    assert_eq!(listed, [first, second]);
}

#[test]
fn on_close_says_the_code_and_reason_of_the_peer_who_closed() {
    let server = Running::new(quiet);
    let (mut peer, id) = server.open_with_id("/websocket");
    peer.closes(4001, "au revoir");
    assert_eq!(server.said(), Said::Close(id, 4001, "au revoir".into()));
    let (mut peer, id) = server.open_with_id("/websocket");
    peer.0.close(None).unwrap();
    while peer.0.read().is_ok() {}
    assert_eq!(server.said(), Said::Close(id, 1005, String::new()));
}

#[test]
fn on_close_says_1006_when_the_peers_bytes_just_end() {
    let mut server = Running::new(quiet);
    let (peer, id) = server.open_with_id("/websocket");
    drop(peer);
    assert_eq!(server.said(), Said::Close(id, 1006, String::new()));
    let (mut peer, id) = server.open_with_id("/websocket");
    // The beginning of a message, and then no more.
    peer.0.get_mut().write_all(&[0x81]).unwrap();
    peer.0.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(server.said(), Said::Close(id, 1006, String::new()));
    server.stop();
    assert_eq!(server.rest(), []);
}

#[test]
fn on_close_says_what_the_handler_closed_with() {
    let mut server = Running::new(|said: &Said, ctx: &mut Context<'_>| {
        if let Said::Text(conn, text) = said {
            ctx.close(*conn, CloseCode::from(4000), text);
            // What is said first is true.
            ctx.close(*conn, CloseCode::Normal, "again");
            assert_eq!(ctx.send(*conn, "too late"), Err(SendError::Gone));
        }
    });
    let (mut peer, id) = server.open_with_id("/websocket");
    peer.says("enough");
    assert_eq!(peer.hears_close(), (4000, "enough".into()));
    assert_eq!(server.said(), Said::Text(id, "enough".into()));
    assert_eq!(server.said(), Said::Close(id, 4000, "enough".into()));
    server.stop();
    assert_eq!(server.rest(), []);
}

#[test]
fn a_close_reason_that_is_too_long_is_cut_between_two_characters() {
    let server = Running::new(quiet);
    let (mut peer, id) = server.open_with_id("/websocket");
    server.ask(move |ctx| ctx.close(id, CloseCode::Policy, &"é".repeat(100)));
    assert_eq!(peer.hears_close(), (1008, "é".repeat(61)), "123 bytes at most");
}

#[test]
fn on_close_comes_once_for_each_client_when_the_server_stops() {
    let mut server = Running::new(quiet);
    let mut open: Vec<_> = (0..20).map(|_| server.open_with_id("/websocket")).collect();
    let half = open.split_off(10);
    let mut told = Vec::new();
    for (peer, id) in half {
        drop(peer);
        told.push(id);
        assert!(matches!(server.said(), Said::Close(of, 1006, _) if of == id));
    }
    server.stop();
    let mut closed = Vec::new();
    for said in server.rest() {
        let Said::Close(id, 1006, _) = said else { panic!("{said:?}") };
        closed.push(id);
    }
    closed.sort();
    assert_eq!(closed, open.iter().map(|(_, id)| *id).collect::<Vec<_>>());
    for (mut peer, _) in open {
        assert!(common::has_ended(peer.0.get_mut()), "the peer reads the end of our bytes");
    }
}

#[test]
fn on_close_is_not_called_for_requests_that_open_nothing() {
    let mut server = Running::new(quiet);
    assert_eq!(status(&server.http("GET", "/api/messages", "")), "200");
    assert_eq!(status(&server.http("POST", "/api/messages", "Bonjour")), "201");
    assert_eq!(status(&server.http("GET", "/api/messages?wait=1&after=now", "")), "200");
    assert_eq!(status(&server.http("GET", "/websocket", "")), "426");
    let mut refused = server.connect();
    let wrong = opening("/websocket").replace("Version: 13", "Version: 12");
    refused.write_all(wrong.as_bytes()).unwrap();
    assert_eq!(status(&answer(&mut refused)), "426");
    let waiter = server.connect();
    (&waiter).write_all(b"GET /api/messages?wait=9&after=now HTTP/1.1\r\n").unwrap();
    drop(waiter);
    server.stop();
    assert_eq!(server.rest(), []);
}

// A handler that panics.

/// Panics at what the test names.
fn panics_at(what: &'static str) -> impl FnMut(&Said, &mut Context<'_>) + Send {
    move |said, ctx| {
        let here = match said {
            Said::Open(_) => "open",
            Said::Text(_, text) if text != "hello" => text,
            Said::Close(_, code, _) if *code == 4009 => "close",
            Said::Wake(..) => "wake",
            _ => "",
        };
        assert_ne!(here, what, "on purpose");
        echo(said, ctx);
    }
}

/// The others are served as if nothing had happened.
fn is_alive(server: &Running, others: &mut [Socket]) {
    for other in others {
        other.says("hello");
        assert_eq!(other.hears(), "hello");
        assert!(matches!(server.said(), Said::Text(..)));
    }
}

#[test]
fn a_panic_in_on_message_costs_that_connection() {
    let mut server = Running::new(panics_at("boom"));
    let (other, _) = server.open_with_id("/websocket");
    let (mut peer, id) = server.open_with_id("/websocket");
    // Frames behind the one that fails are not looked at any more.
    let frames = [frame(0x81, b"boom"), frame(0x81, b"never")].concat();
    peer.0.get_mut().write_all(&frames).unwrap();
    assert_eq!(peer.hears_close().0, 1011);
    assert_eq!(server.said(), Said::Text(id, "boom".into()));
    let Said::Error(of, text) = server.said() else { panic!("on_error") };
    assert_eq!(of, id);
    assert!(text.contains("on purpose"), "{text}");
    assert!(matches!(server.said(), Said::Close(of, 1011, _) if of == id));
    is_alive(&server, &mut [other]);
    let counters = server.counters();
    assert_eq!((counters.panics, counters.closed(pousse::Reason::Panic)), (1, 1));
    server.stop();
}

#[test]
fn a_panic_in_on_open_costs_that_connection() {
    let server = Running::new(panics_at("open"));
    let (mut peer, id) = server.open_with_id("/websocket");
    assert_eq!(peer.hears_close().0, 1011);
    assert!(matches!(server.said(), Said::Error(of, _) if of == id));
    assert!(matches!(server.said(), Said::Close(of, 1011, _) if of == id));
    assert_eq!(status(&server.http("GET", "/api/messages", "")), "200");
    assert_eq!(server.counters().panics, 1);
}

#[test]
fn a_panic_in_on_close_costs_nobody() {
    let server = Running::new(panics_at("close"));
    let (other, _) = server.open_with_id("/websocket");
    let (mut peer, id) = server.open_with_id("/websocket");
    peer.closes(4009, "");
    assert_eq!(server.said(), Said::Close(id, 4009, String::new()));
    assert!(matches!(server.said(), Said::Error(of, _) if of == id));
    is_alive(&server, &mut [other]);
    assert_eq!(server.counters().panics, 1);
}

#[test]
fn a_panic_in_on_close_at_the_end_does_not_keep_the_others_from_being_told() {
    let mut server = Running::new(|said: &Said, _: &mut Context<'_>| {
        assert!(!matches!(said, Said::Close(..)), "on purpose");
    });
    let open: Vec<_> = (0..3).map(|_| server.open_with_id("/websocket")).collect();
    let mut ended = server.stop();
    let closed = server.rest().into_iter().filter(|said| matches!(said, Said::Close(..))).count();
    assert_eq!((closed, ended.context().counters().panics), (open.len(), 3));
}

#[test]
fn a_panic_in_on_wake_costs_nobody_and_wakes_still_come() {
    let server = Running::new(panics_at("wake"));
    let (other, _) = server.open_with_id("/websocket");
    server.ask(|ctx| {
        ctx.wake_after(Duration::from_millis(1), 1);
        ctx.wake_after(Duration::from_millis(2), 2);
    });
    assert!(matches!(server.said(), Said::Wake(1, _)));
    assert!(matches!(server.said(), Said::Wake(2, _)));
    is_alive(&server, &mut [other]);
    assert_eq!(server.counters().panics, 2);
}

#[test]
fn a_panic_in_on_error_is_the_end_of_it() {
    let server = Running::new(|said: &Said, ctx: &mut Context<'_>| {
        assert!(!matches!(said, Said::Error(..)), "on purpose, again");
        panics_at("boom")(said, ctx);
    });
    let (other, _) = server.open_with_id("/websocket");
    let (mut peer, id) = server.open_with_id("/websocket");
    peer.says("boom");
    assert_eq!(peer.hears_close().0, 1011);
    assert!(matches!(server.said(), Said::Text(..)));
    assert!(matches!(server.said(), Said::Error(..)));
    assert!(matches!(server.said(), Said::Close(of, 1011, _) if of == id));
    is_alive(&server, &mut [other]);
}

#[test]
fn a_panic_in_on_request_is_answered_with_500() {
    let mut server = Running::new(Route(|request: &pousse::Request, _: &mut Context<'_>| {
        assert_ne!(request.path(), "/boom", "on purpose");
        (request.path() == "/fine").then(|| Answer::Response(Response::text(200, "fine")))
    }));
    let mut peer = server.connect();
    let get = |path| common::request("GET", path, "", "");
    peer.write_all([get("/fine"), get("/boom"), get("/fine")].concat().as_bytes()).unwrap();
    let mut answers = String::new();
    peer.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 1, "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 500 Internal Server Error").count(), 1, "{answers}");
    assert!(matches!(server.said(), Said::Error(_, text) if text.contains("on purpose")));
    assert_eq!(status(&server.http("POST", "/boom", "content")), "500");
    assert_eq!(content(&server.http("GET", "/fine", "")), "fine");
    assert_eq!(server.counters().panics, 2);
    server.stop();
    let rest = server.rest();
    assert!(rest.iter().all(|said| matches!(said, Said::Error(..))), "no on_close: {rest:?}");
}

// What a context sends, and to whom.

#[test]
fn send_says_gone_for_ids_that_are_unknown_or_closed_and_for_waiting_requests() {
    let server = Running::new(quiet);
    let (mut peer, id) = server.open_with_id("/websocket");
    let waiter = server.connect();
    let wait = common::request("GET", "/api/messages?after=now&wait=50", "", "");
    (&waiter).write_all(wait.as_bytes()).unwrap();
    let waiting = loop {
        let listed = server.ask(|ctx| ctx.clients().collect::<Vec<_>>());
        if let Some(other) = listed.into_iter().find(|other| *other != id) {
            break other;
        }
    };
    server.ask(move |ctx| {
        assert_eq!(ctx.send(ConnId::new(77, 77), "?"), Err(SendError::Gone));
        assert_eq!(
            ctx.send(ConnId::new(id.index(), id.generation() + 9), ""),
            Err(SendError::Gone)
        );
        assert_eq!(ctx.send(waiting, "?"), Err(SendError::Gone));
        assert_eq!(ctx.send(id, "!"), Ok(()));
        ctx.close(id, CloseCode::Normal, "");
        assert_eq!(ctx.send(id, "?"), Err(SendError::Gone));
    });
    assert_eq!(peer.hears(), "!");
    assert_eq!(peer.hears_close().0, 1000);
    assert!(matches!(server.said(), Said::Close(..)));
    assert_eq!(server.ask(move |ctx| ctx.send(id, "?")), Err(SendError::Gone));
}

#[test]
fn send_says_full_when_the_outbox_is_and_takes_nothing_of_that_message() {
    let server = Running::start(|config| config.limits.outbox = 10_000, quiet);
    let (mut peer, id) = server.open_with_id("/websocket");
    let message = "x".repeat(1000);
    let (taken, waiting) = server.ask(move |ctx| {
        let taken = (0..100).take_while(|_| ctx.send(id, &message).is_ok()).count();
        assert_eq!(ctx.send(id, "more"), Err(SendError::Full));
        (taken, ctx.client(id).unwrap().waiting_bytes)
    });
    assert_eq!((taken, waiting), (10, 10 * 1004), "up to the limit and one message");
    assert!(texts(&mut peer, taken).iter().all(|text| text.len() == 1000));
    server.ask(move |ctx| ctx.send(id, "there is room again")).unwrap();
    assert_eq!(peer.hears(), "there is room again");
    assert!(server.counters().refused(pousse::Reason::Outbox) >= 2);
}

#[test]
fn a_broadcast_goes_to_everyone_and_one_except_to_everyone_else() {
    let server = Running::new(quiet);
    let mut open: Vec<_> = (0..3).map(|_| server.open_with_id("/websocket")).collect();
    let second = open[1].1;
    let ids = server.ask(move |ctx| {
        [
            ctx.broadcast("one").unwrap().unwrap(),
            ctx.broadcast_except(second, "two").unwrap().unwrap(),
            ctx.broadcast(&b"\xff"[..]).unwrap().unwrap(),
        ]
    });
    assert!(ids.is_sorted() && ids[0].seq == 1 && ids[2].seq == 3, "{ids:?}");
    for (peer, id) in &mut open {
        assert_eq!(peer.hears(), "one");
        if *id != second {
            assert_eq!(peer.hears(), "two");
        }
        assert_eq!(peer.next().into_data(), &b"\xff"[..]);
    }
    // It is in the log: whoever resumes later is somebody else.
    let mut late = server.open("/websocket?after=earliest");
    assert_eq!(texts(&mut late, 2), ["one", "two"]);
}

#[test]
fn a_publish_goes_to_the_readers_of_its_topic_and_to_nobody_else() {
    let server = Running::new(quiet);
    let mut general = server.open("/websocket");
    let mut news = server.open("/websocket?topic=news");
    let mut both = server.open("/websocket?topic=news&topic=general");
    server.ask(|ctx| {
        ctx.publish("news", "n").unwrap();
        ctx.publish("general", "g").unwrap();
        ctx.publish("nobody reads this", "x").unwrap();
        ctx.broadcast("end").unwrap();
        ctx.publish("news", "end").unwrap();
        let long = "x".repeat(LONGEST + 1);
        assert_eq!(ctx.publish("news", &long), Err(PublishError::TooLong));
        assert_eq!(ctx.publish("", "x"), Err(PublishError::BadTopic));
        assert_eq!(ctx.publish("a\nb", "x"), Err(PublishError::BadTopic));
        assert_eq!(ctx.publish(&"x".repeat(129), "x"), Err(PublishError::BadTopic));
    });
    assert_eq!(texts(&mut general, 2), ["g", "end"]);
    assert_eq!(texts(&mut news, 2), ["n", "end"]);
    assert_eq!(texts(&mut both, 4), ["n", "g", "end", "end"]);
}

#[test]
fn a_topic_subscribed_from_an_older_id_brings_its_backlog_in_the_order_of_ids() {
    let server = Running::new(quiet);
    let after = server.ask(|ctx| {
        let first = ctx.publish("a", "a1").unwrap().unwrap();
        ctx.publish("b", "b1").unwrap();
        ctx.publish("a", "a2").unwrap();
        ctx.publish("b", "b2").unwrap();
        first
    });
    let (mut peer, id) = server.open_with_id("/websocket?topic=quiet");
    server.ask(move |ctx| {
        ctx.subscribe(id, "b", After::Earliest).unwrap();
        ctx.subscribe(id, "a", After::Id(after)).unwrap();
        ctx.publish("quiet", "q").unwrap();
        assert_eq!(ctx.client(id).unwrap().topics.len(), 3);
        assert_eq!(ctx.client(id).unwrap().lag, 4);
    });
    assert_eq!(texts(&mut peer, 4), ["b1", "a2", "b2", "q"]);
    // A second time: nothing is replayed.
    server.ask(move |ctx| {
        ctx.subscribe(id, "a", After::Earliest).unwrap();
        ctx.publish("a", "a3").unwrap();
    });
    assert_eq!(peer.hears(), "a3");
    server.ask(move |ctx| {
        assert!(ctx.unsubscribe(id, "a"));
        assert!(!ctx.unsubscribe(id, "a"));
        assert!(!ctx.unsubscribe(id, "never heard of"));
        ctx.publish("a", "a4").unwrap();
        ctx.publish("b", "b3").unwrap();
    });
    assert_eq!(peer.hears(), "b3");
}

#[test]
fn a_subscription_from_a_place_that_is_gone_is_a_gap_and_closes_with_1013() {
    let server = Running::start(|config| config.limits.history = 2, quiet);
    let (mut peer, id) = server.open_with_id("/websocket?topic=quiet");
    let first = server.ask(|ctx| {
        let first = ctx.publish("a", "1").unwrap().unwrap();
        for text in ["2", "3", "4", "5"] {
            ctx.publish("a", text).unwrap();
        }
        first
    });
    server.ask(move |ctx| ctx.subscribe(id, "a", After::Id(first))).unwrap();
    let (code, reason) = peer.hears_close();
    assert_eq!((code, reason), (1013, format!("gap; oldest {}-4", first.run)));
    assert_eq!(server.counters().gaps, 1);
}

#[test]
fn subscribing_has_its_limits_and_says_which() {
    let server = Running::start(
        |config| {
            config.limits.subscriptions = 2;
            config.limits.max_topics = 3;
        },
        quiet,
    );
    let (_peer, id) = server.open_with_id("/websocket?topic=a");
    let (_other, other) = server.open_with_id("/websocket?topic=x&topic=y");
    server.ask(move |ctx| {
        let now = After::Now;
        assert_eq!(ctx.subscribe(id, "b", now), Err(SubscribeError::TopicsFull));
        assert_eq!(ctx.subscribe(id, "\u{7f}", now), Err(SubscribeError::BadTopic));
        assert_eq!(ctx.subscribe(id, "x", now), Ok(()));
        assert_eq!(ctx.subscribe(id, "y", now), Err(SubscribeError::TooMany));
        assert_eq!(ctx.subscribe(ConnId::new(9, 9), "x", now), Err(SubscribeError::Gone));
        assert_eq!(ctx.publish("b", "x"), Err(PublishError::TopicsFull));
        assert!(ctx.unsubscribe(other, "y"));
        assert!(ctx.publish("b", "x").is_ok(), "the topic without reader or entry made room");
    });
}

#[test]
fn the_list_of_clients_tells_who_they_are_and_how_they_are_connected() {
    let server = Running::new(quiet);
    let (peer, id) = server.open_with_id("/websocket?topic=a&topic=b");
    let waiter = server.connect();
    let wait = common::request("GET", "/api/messages?topic=c&after=now&wait=50", "", "");
    (&waiter).write_all(wait.as_bytes()).unwrap();
    let _resting = server.connect();
    let told = loop {
        let told =
            server.ask(|ctx| ctx.clients().map(|id| ctx.client(id).unwrap()).collect::<Vec<_>>());
        if told.len() > 1 {
            break told;
        }
    };
    let [one, two] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((one.id, one.transport), (id, Transport::WebSocket));
    assert_eq!(one.peer, pousse::Peer::Tcp(peer.0.get_ref().local_addr().unwrap()));
    assert_eq!(one.topics.iter().map(|it| &**it).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((one.lag, one.waiting_bytes), (0, 0));
    assert_eq!(two.transport, Transport::LongPoll);
    assert_eq!(two.peer, pousse::Peer::Tcp(waiter.local_addr().unwrap()));
    assert_eq!(two.topics.iter().map(|it| &**it).collect::<Vec<_>>(), ["c"]);
    assert!(server.ask(|ctx| ctx.client(ConnId::new(9, 9)).is_none()));
}

#[test]
fn what_a_handler_sends_while_somebody_leaves_reaches_the_others() {
    let server = Running::new(|said: &Said, ctx: &mut Context<'_>| match said {
        Said::Open(id) => {
            ctx.send(*id, "welcome").unwrap();
            ctx.broadcast_except(*id, "one more").unwrap();
        }
        Said::Close(id, ..) => {
            assert_eq!(ctx.send(*id, "farewell"), Err(SendError::Gone));
            assert!(ctx.clients().all(|other| other != *id) && ctx.client(*id).is_none());
            ctx.broadcast("one less").unwrap();
        }
        _ => {}
    });
    let mut stays = server.open("/websocket");
    let mut leaves = server.open("/websocket");
    assert_eq!(leaves.hears(), "welcome");
    drop(leaves);
    assert_eq!(texts(&mut stays, 3), ["welcome", "one more", "one less"]);
    assert_eq!(server.counters().panics, 0);
}

#[test]
fn closing_a_waiting_long_poll_answers_it() {
    let server = Running::new(quiet);
    let mut waiter = server.connect();
    let wait = common::request("GET", "/api/messages?after=now&wait=50", "", "");
    waiter.write_all(wait.as_bytes()).unwrap();
    let id = loop {
        if let Some(id) = server.ask(|ctx| ctx.clients().next()) {
            break id;
        }
    };
    server.ask(move |ctx| ctx.close(id, CloseCode::Policy, "enough"));
    let mut told = String::new();
    waiter.read_to_string(&mut told).unwrap();
    assert!(status(&told) == "200" && told.contains("\r\nConnection: close\r\n"), "{told}");
    assert!(content(&told).starts_with("{\"messages\":[],"), "{told}");
}

#[test]
fn on_close_says_the_same_whichever_way_an_unanswered_close_ends() {
    let slow = |config: &mut pousse::Config| {
        config.limits.close_timeout = Duration::from_millis(100);
    };
    for is_stopped in [false, true] {
        let mut server = Running::start(slow, quiet);
        let (_peer, id) = server.open_with_id("/websocket");
        server.ask(move |ctx| ctx.close(id, CloseCode::from(4000), "enough"));
        if is_stopped {
            server.stop();
        }
        assert_eq!(server.said(), Said::Close(id, 4000, "enough".into()), "{is_stopped}");
    }
}

// pousse.v1 and event streams, as a handler sees them.

#[test]
fn a_client_of_pousse_v1_is_opened_and_closed_and_its_commands_do_not_reach_the_handler() {
    let server = Running::new(quiet);
    let mut peer = Socket::offering(server.address(), "/websocket", &["pousse.v1"]).unwrap();
    let hello = peer.hears();
    let id = server.opened();
    assert!(hello.starts_with(&format!("{{\"hello\":{{\"client\":\"{id}\",")), "{hello}");
    peer.says(r#"{"publish":"t","data":"x"}"#);
    assert!(peer.hears().starts_with(r#"{"published":"#));
    // What a handler does to it is told in its own words.
    server.ask(move |ctx| {
        ctx.send(id, "for you").unwrap();
        ctx.send(id, &b"\xff"[..]).unwrap();
        ctx.subscribe(id, "t", After::Earliest).unwrap();
        ctx.publish_except(id, "t", "not for you").unwrap();
        ctx.publish("t", "y").unwrap();
    });
    assert_eq!(texts(&mut peer, 2), [r#"{"data":"for you"}"#, r#"{"base64":"/w=="}"#]);
    assert!(peer.hears().ends_with(r#""topic":"t","data":"x"}"#));
    let subscribed = peer.hears();
    assert!(subscribed.starts_with(r#"{"subscribed":"t","last":"#), "{subscribed}");
    assert!(peer.hears().ends_with(r#""topic":"t","data":"y"}"#));
    server.ask(move |ctx| ctx.close(id, CloseCode::Normal, "enough"));
    peer.closes(1000, "enough");
    assert_eq!(server.said(), Said::Close(id, 1000, "enough".into()), "and nothing before it");
}

#[test]
fn pousse_v1_goes_before_the_subprotocols_of_the_handler_and_is_not_among_them() {
    let server = Running::start(|config| config.subprotocols = vec!["own".into()], quiet);
    let mut both = Socket::offering(server.address(), "/websocket", &["own", "pousse.v1"]).unwrap();
    assert!(both.hears().starts_with(r#"{"hello":"#));
    let mut own = Socket::offering(server.address(), "/websocket", &["other", "own"]).unwrap();
    server.ask(|ctx| ctx.broadcast("text mode").unwrap());
    assert_eq!(own.hears(), "text mode");

    let mut config = pousse::Config::default();
    config.subprotocols = vec!["pousse.v1".into()];
    assert!(config.check().unwrap_err().to_string().contains("built in"));
}

#[test]
fn an_event_stream_stands_in_the_list_of_clients_and_is_not_opened() {
    let server = Running::new(quiet);
    let mut peer = server.connect();
    let request = "GET /api/messages?topic=t HTTP/1.1\r\nHost: localhost\r\n\
                   Accept: text/event-stream\r\n\r\n";
    peer.write_all(request.as_bytes()).unwrap();
    let head = answer(&mut peer);
    assert!(head.contains("Content-Type: text/event-stream\r\n"), "{head}");
    let id = server.ask(|ctx| {
        let ids: Vec<ConnId> = ctx.clients().collect();
        let client = ctx.client(ids[0]).unwrap();
        assert_eq!((ids.len(), client.transport), (1, Transport::EventStream));
        assert_eq!(ctx.send(ids[0], "x"), Err(SendError::Gone), "it is no WebSocket");
        ids[0]
    });
    server.ask(move |ctx| ctx.close(id, CloseCode::Normal, ""));
    let mut rest = String::new();
    peer.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("\n\n"), "it ends between two blocks: {rest:?}");
    assert_eq!(server.rest(), [], "the handler was told nothing");
}
