//! Gaps, backlogs, heartbeats and endings, as each transport tells them.

use std::time::Duration;

use pousse::{CloseCode, Reason};
use serde_json::json;

use crate::desk::{texts, world};
use crate::wire::{Heard, Line, get, opening, post};

// Gaps.

#[test]
fn whoever_comes_back_two_hundred_messages_later_is_told_of_a_gap_on_every_transport() {
    let mut world = world("gap", |config| config.limits.history = 100);
    let start = world.at(0);
    for number in 1..=200 {
        world.says("general", &number.to_string());
    }
    world.settle();
    let (oldest, last) = (world.at(101), world.at(200));
    let query = format!("after={start}");
    let gap = json!({"topic": "general", "after": start, "oldest": oldest});
    let all: Vec<_> = (101..=200).map(|it| it.to_string()).collect();

    for wait in ["", "&wait=50"] {
        let (status, content) = world.ask(get(&format!("{query}&limit=1000{wait}"), ""));
        let told = crate::wire::json(&content);
        assert_eq!((status, &told["gap"], &told["last"]), (200, &json!(true), &json!(last)));
        assert_eq!(texts(&told["messages"]), all);
    }

    let mut stream = world.event_stream(&query);
    let told = world.block(&mut stream);
    assert_eq!((told.id, told.event.as_deref()), (None, Some("gap")));
    assert_eq!(crate::wire::json(&told.data.unwrap()), gap);
    for number in 101..=200 {
        let (id, event) = world.event(&mut stream);
        assert_eq!(
            (id, &event.unwrap()["data"]),
            (Some(world.at(number)), &json!(number.to_string()))
        );
    }

    for by_command in [false, true] {
        let url = if by_command { "" } else { &*format!("topic=general&{query}") };
        let (mut session, _) = world.session(url);
        if by_command {
            session.says(&format!(r#"{{"subscribe":"general","after":"{start}"}}"#));
        }
        assert_eq!(world.hears(&mut session), json!({ "gap": gap }));
        for number in 101..=200 {
            assert_eq!(world.hears(&mut session)["data"], number.to_string());
        }
        let told = world.hears(&mut session);
        assert_eq!((&told["subscribed"], &told["last"]), (&json!("general"), &json!(last)));
    }

    let mut text = world.text(&query);
    assert_eq!(world.frame(&mut text), Heard::Close(1013, format!("gap; oldest {oldest}")));
}

#[test]
fn ids_at_the_edge_of_what_can_be_said_are_places_or_gaps_and_nothing_else() {
    let mut world = world("edges", |config| config.limits.history = 2);
    for number in 1..=3 {
        world.says("general", &number.to_string());
    }
    world.settle();
    let run = world.run;
    let most = u64::MAX;
    for (after, is_gap, first) in [
        (format!("{run}-{most}"), true, 2),
        (format!("{run}-4"), true, 2),
        (format!("{run}-0"), true, 2),
        (format!("{run}-1"), false, 2),
        (format!("{run}-2"), false, 3),
        (format!("{run}-3"), false, 4),
        ("0-0".into(), true, 2),
        (format!("0-{most}"), true, 2),
        (format!("{most}-{most}"), true, 2),
        (format!("{}-0", run + 1), true, 2),
        ("earliest".into(), false, 2),
        ("now".into(), false, 4),
    ] {
        let query = format!("topic=general&after={after}");
        let (status, content) = world.ask(get(&query, ""));
        let told = crate::wire::json(&content);
        assert_eq!((status, &told["gap"]), (200, &json!(is_gap)), "{after}");
        let due: Vec<_> = (first..4).map(|it| it.to_string()).collect();
        assert_eq!(texts(&told["messages"]), due, "{after}");

        let mut stream = world.event_stream(&query);
        if is_gap {
            assert_eq!(world.block(&mut stream).event.as_deref(), Some("gap"), "{after}");
        }
        for number in first..4 {
            assert_eq!(world.event(&mut stream).0, Some(world.at(number)), "{after}");
        }
        let (mut session, _) = world.session(&query);
        if is_gap {
            assert_eq!(world.hears(&mut session)["gap"]["oldest"], world.at(2), "{after}");
        }
        for number in first..4 {
            assert_eq!(world.hears(&mut session)["id"], world.at(number), "{after}");
        }
        assert_eq!(world.hears(&mut session)["subscribed"], "general", "{after}");
        let mut text = world.text(&query);
        if is_gap {
            let reason = format!("gap; oldest {run}-2");
            assert_eq!(world.frame(&mut text), Heard::Close(1013, reason), "{after}");
        }
    }
    // A place that is no id at all is a gap without a name.
    let fields = "Accept: text/event-stream\r\nLast-Event-ID: yesterday\r\n";
    let mut line = Line::open(&world.path);
    line.writes(get("", fields));
    world.settle();
    line.reads(usize::MAX);
    line.head().unwrap();
    let (_, gap) = world.event(&mut line);
    assert_eq!(gap.unwrap()["after"], json!(null));
    // And a last one goes on: the places above were nobody's but the askers'.
    let id = world.says("general", "4");
    assert_eq!(id, world.at(4));
}

// A backlog.

#[test]
fn topics_subscribed_late_are_caught_up_with_before_anything_new_however_slow_the_reader() {
    let mut world = world("backlog", |config| {
        config.limits.history_bytes = 64 << 20;
        config.limits.turn_write = 16 * 1024;
    });
    let (mut session, client) = world.session("topic=live");
    assert_eq!(world.hears(&mut session)["subscribed"], "live");
    let long = "x".repeat(2000);
    for number in 0..400 {
        world.says(["old", "older"][number % 2], &format!("{number} {long}"));
    }
    let before = world.says("live", "before");
    assert_eq!(world.hears(&mut session)["id"], before);
    session.says(r#"{"subscribe":"old","after":"earliest","ref":1}"#);
    world.settle();
    session.says(r#"{"subscribe":"older","after":"earliest","ref":2}"#);
    world.settle();
    // It has read nothing since, and takes no more: what is new waits in the log.
    let after = world.says("live", "after");
    let old_after = world.says("old", "after");
    world.settle();
    assert!(world.waiting_bytes(client) <= 64 * 1024 + 2100);
    let mut next = [0, 1];
    for _ in 0..400 {
        let told = world.hears(&mut session);
        let at = usize::from(told["topic"] == "older");
        let number = told["data"].as_str().unwrap().split_once(' ').unwrap().0;
        assert_eq!(number.parse::<usize>().unwrap(), next[at], "{}", told["id"]);
        next[at] += 2;
        assert!(world.waiting_bytes(client) <= 64 * 1024 + 2100);
    }
    for (reference, topic) in [(1, "old"), (2, "older")] {
        let told = world.hears(&mut session);
        let expected = json!({"subscribed": topic, "last": before, "readers": 1, "ref": reference});
        assert_eq!(told, expected);
    }
    assert_eq!(world.hears(&mut session)["id"], after);
    assert_eq!(world.hears(&mut session)["id"], old_after);
    world.hears_nothing(&mut session);
}

#[test]
fn a_topic_that_is_given_up_while_it_catches_up_holds_nobody_back() {
    let mut world = world("given-up", |config| config.limits.history_bytes = 64 << 20);
    let (mut session, _) = world.session("topic=live");
    world.hears(&mut session);
    let long = "x".repeat(2000);
    for number in 0..400 {
        world.says("old", &format!("{number} {long}"));
    }
    session.says(r#"{"subscribe":"old","after":"earliest","ref":"first"}"#);
    session.says(r#"{"subscribe":"old","ref":"again"}"#);
    world.settle();
    let live = world.says("live", "live");
    world.settle();
    session.says(r#"{"unsubscribe":"old","ref":"enough"}"#);
    world.settle();
    let mut refs = Vec::new();
    loop {
        let told = world.hears(&mut session);
        if told["topic"] == "old" {
            assert!(refs.is_empty(), "{told} after {refs:?}");
            continue;
        }
        match told["ref"].as_str() {
            Some(reference) => refs.push((reference.to_owned(), told["error"]["status"].clone())),
            None => {
                assert_eq!(told["id"], live);
                break;
            }
        }
    }
    let expected = [("first", json!(409)), ("again", json!(409)), ("enough", json!(null))];
    assert_eq!(refs, expected.map(|(name, status)| (name.to_owned(), status)));
}

// The place.

#[test]
fn a_reader_of_a_quiet_topic_comes_back_without_a_gap_however_much_others_have_said() {
    for is_session in [false, true] {
        let mut world = world("quiet", |config| {
            config.limits.history = 5;
            config.limits.ping = Duration::from_millis(1);
        });
        world.says("quiet", "once");
        world.settle();
        let mut line = match is_session {
            true => world.session("topic=quiet&after=earliest").0,
            false => world.event_stream("topic=quiet&after=earliest"),
        };
        for number in 0..50 {
            world.says("loud", &number.to_string());
        }
        // The quiet topic loses what it had: whoever is only at its last entry has a gap.
        for number in 0..5 {
            world.says("quiet", &number.to_string());
        }
        let newest = world.at(56);
        let mut place = None;
        while place.as_ref() != Some(&newest) {
            world.server.turn(Some(Duration::from_millis(50))).unwrap();
            line.reads(usize::MAX);
            while is_session && let Some(heard) = line.frame() {
                let Heard::Text(text) = heard else { continue };
                let told = crate::wire::json(&text);
                place = told["last"].as_str().map(Into::into).or(place);
            }
            while !is_session && let Some(block) = line.block() {
                place = block.id.filter(|_| block.data.is_none()).or(place);
            }
        }
        for number in 0..50 {
            world.says("loud", &number.to_string());
        }
        world.settle();
        let query = format!("topic=quiet&after={newest}");
        let (_, content) = world.ask(get(&query, ""));
        assert_eq!(crate::wire::json(&content)["gap"], json!(false), "{content}");
        let id = world.says("quiet", "again");
        let mut stream = world.event_stream(&query);
        assert_eq!(world.event(&mut stream).0, Some(id));
    }
}

#[test]
fn the_place_is_told_to_nobody_whose_backlog_is_not_through() {
    for is_session in [false, true] {
        let mut world = world("place", |config| {
            config.limits.history_bytes = 64 << 20;
            config.limits.ping = Duration::from_millis(1);
        });
        let long = "x".repeat(4000);
        for number in 0..300 {
            world.says("general", &format!("{number} {long}"));
        }
        let mut line = match is_session {
            true => world.session("topic=general&after=earliest").0,
            false => world.event_stream("topic=general&after=earliest"),
        };
        // It reads nothing, and many a heartbeat is due meanwhile.
        let until = world.server.context().now() + Duration::from_millis(700);
        world.until(|world| world.server.context().now() > until);
        let (mut seen, newest) = (0, world.at(300));
        let mut is_told = false;
        while !is_told {
            world.server.turn(Some(Duration::ZERO)).unwrap();
            line.reads(20_000);
            while is_session && let Some(heard) = line.frame() {
                let Heard::Text(text) = heard else { continue };
                let told = crate::wire::json(&text);
                if told["data"].is_string() {
                    seen += 1;
                } else if told["last"] == *newest && told["subscribed"].is_null() {
                    assert_eq!(seen, 300, "{told}");
                    is_told = true;
                }
            }
            while !is_session && let Some(block) = line.block() {
                if block.data.is_some() {
                    seen += 1;
                } else if let Some(id) = block.id {
                    assert_eq!((seen, id), (300, newest.clone()));
                    is_told = true;
                }
            }
        }
    }
}

// Endings, and what stands behind a request.

#[test]
fn bytes_behind_the_request_of_an_event_stream_are_kept_and_never_answered() {
    let mut world = world("behind", |_| {});
    let mut line = Line::open(&world.path);
    let ask = get("", "Accept: text/event-stream\r\n");
    line.writes(format!("{ask}{}", get("", "")));
    // More than is kept: it waits in the system, and is nobody's memory.
    line.writes(vec![b'x'; 64 * 1024]);
    world.settle();
    let reads = world.server.context().counters().read_bytes;
    assert!(reads < 32 * 1024, "{reads} bytes were read");
    for number in 0..3 {
        let id = world.says("general", &number.to_string());
        world.settle();
        line.reads(usize::MAX);
        if number == 0 {
            line.head().unwrap();
            assert_eq!(world.event(&mut line), (Some(world.at(0)), None));
        }
        assert_eq!(world.event(&mut line).0, Some(id));
    }
    world.hears_nothing(&mut line);
    assert_eq!(world.server.context().counters().requests, 2, "the test's own, and the stream");
}

#[test]
fn an_event_stream_whose_reader_leaves_is_forgotten_at_once() {
    let mut world = world("leaves", |_| {});
    let leave: [fn(Line); 3] = [
        drop,
        |mut line| {
            line.ends();
            std::mem::forget(line);
        },
        |mut line| {
            line.writes("GET / HTTP/1.1\r\n");
            line.ends();
            std::mem::forget(line);
        },
    ];
    for leave in leave {
        let line = world.event_stream("");
        assert_eq!(world.server.context().clients().count(), 1);
        leave(line);
        world.until(|world| world.server.context().clients().count() == 0);
        let (_, content) = world.ask(post("other", "", b"x"));
        assert!(content.contains("\"readers\":0"), "{content}");
        assert!(world.server.context().clients().next().is_none());
    }
    assert_eq!(world.server.context().counters().closed(Reason::Gone), 3);
}

#[test]
fn an_ending_server_ends_event_streams_and_sessions_and_begins_no_more() {
    for is_stopped in [false, true] {
        let mut world = world("ending", |_| {});
        let mut stream = world.event_stream("");
        assert_eq!(world.event(&mut stream), (Some(world.at(0)), None));
        let (mut session, _) = world.session("topic=general");
        world.hears(&mut session);
        let id = world.says("general", "the last one");
        world.settle();
        let mut waiter = world.long_poll("after=now");
        // One that is connected already and asks too late.
        let mut late = Line::open(&world.path);
        world.settle();
        match is_stopped {
            true => world.server.context().stop(),
            false => world.server.context().drain(CloseCode::Away),
        }
        late.writes(get("", "Accept: text/event-stream\r\n"));
        for _ in 0..10 {
            world.turn();
        }
        if is_stopped {
            assert!(world.server.has_ended());
        } else {
            assert_eq!(world.event(&mut stream).0, Some(id.clone()), "what was said is told");
            assert_eq!(world.hears(&mut session)["id"], id);
            let close = Heard::Close(1001, "the server is stopping".into());
            assert_eq!(world.frame(&mut session), close);
            let (status, told) = world.answer(&mut waiter);
            assert_eq!((status, texts(&told["messages"])), (200, vec![]));
        }
        for line in [&mut stream, &mut waiter, &mut late] {
            for _ in 0..1000 {
                line.reads(usize::MAX);
                if !line.has_ended {
                    world.turn();
                }
            }
            assert!(line.has_ended);
        }
    }
}

#[test]
fn where_no_topic_fits_any_more_an_event_stream_is_503_and_reads_none_of_its_topics() {
    let mut world = world("full", |config| config.limits.max_topics = 2);
    let mut one = world.event_stream("topic=a");
    world.block(&mut one);
    let ask = get("topic=a&topic=b&topic=c", "Accept: text/event-stream\r\n");
    let (status, content) = world.ask(ask);
    assert_eq!(status, 503, "{content}");
    let (_, content) = world.ask(post("a", "", b"x"));
    assert!(content.contains("\"readers\":1"), "{content}");
    // b was left behind by it, unread and empty: it is no topic, and takes no place.
    let mut two = world.event_stream("topic=d");
    world.block(&mut two);
    let (mut session, _) = world.session("");
    session.says(r#"{"subscribe":"e","ref":1}"#);
    let told = world.hears(&mut session);
    assert_eq!((&told["error"]["status"], &told["ref"]), (&json!(503), &json!(1)));
    session.says(r#"{"subscribe":"a","ref":2}"#);
    assert_eq!(world.hears(&mut session)["subscribed"], "a");
    drop(two);
    world.settle();
    session.says(r#"{"subscribe":"e","ref":3}"#);
    assert_eq!(world.hears(&mut session)["subscribed"], "e");
    let mut refused = Line::open(&world.path);
    refused.writes(opening("topic=f", true));
    world.settle();
    refused.reads(usize::MAX);
    refused.head().unwrap();
    world.hears(&mut refused);
    assert!(matches!(world.frame(&mut refused), Heard::Close(1013, _)));
}
