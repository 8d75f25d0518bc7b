//! Suspicions: what somebody may do who knows how the server is built.

use pousse::After;
use serde_json::json;

use crate::desk::{texts, world};
use crate::wire::{Heard, Line, get, json, opening, post};
use crate::world::World;

// Topics that make room for others.

/// Two topics at most, and both are there.
fn full(name: &str) -> World {
    let mut world = world(name, |config| config.limits.max_topics = 2);
    world.says("a", "un");
    world.says("b", "deux");
    world.settle();
    world
}

#[test]
fn to_begin_with_the_earliest_of_a_topic_that_another_makes_room_for_is_no_gap() {
    let query = "topic=c&after=earliest";
    let mut world = full("room-stream");
    let mut stream = world.event_stream(query);
    assert_eq!(world.event(&mut stream), (Some(world.at(2)), None), "no gap");

    let mut world = full("room-session");
    let (mut session, _) = world.session(query);
    let told = world.hears(&mut session);
    assert_eq!(told, json!({"subscribed": "c", "last": world.at(2), "readers": 1}));

    let mut world = full("room-text");
    let mut text = world.text(query);
    let id = world.says("c", "trois");
    assert_eq!((world.frame(&mut text), id), (Heard::Text("trois".into()), world.at(3)));

    let mut world = full("room-wait");
    let mut waiter = world.long_poll(query);
    world.says("c", "trois");
    let (_, told) = world.answer(&mut waiter);
    assert_eq!((&told["gap"], texts(&told["messages"])), (&json!(false), vec!["trois"]));
}

#[test]
fn what_made_room_for_another_topic_of_the_same_request_is_a_gap_and_not_silence() {
    let mut world = full("room-for-both");
    // For c, a goes, which is asked for too; it comes back, and b goes for that.
    let query = format!("topic=c&topic=a&after={}", world.at(0));
    let mut stream = world.event_stream(&query);
    let told = world.block(&mut stream);
    assert_eq!(told.event.as_deref(), Some("gap"), "a had a message: {told:?}");
    assert_eq!(json(&told.data.unwrap())["topic"], "a");

    let mut world = full("room-for-both-by-command");
    let (mut session, _) = world.session(&format!("topic=c&topic=a&after={}", world.at(0)));
    assert_eq!(world.hears(&mut session)["subscribed"], "c");
    assert_eq!(world.hears(&mut session)["gap"]["topic"], "a");
}

// Places.

#[test]
fn who_subscribes_from_now_on_and_is_behind_misses_nothing_above_the_place_it_is_told() {
    let mut world = world("now", |config| config.limits.history_bytes = 64 << 20);
    let (mut session, _) = world.session("topic=a");
    assert_eq!(world.hears(&mut session)["subscribed"], "a");
    let long = "x".repeat(4000);
    for number in 0..200 {
        world.says("a", &format!("{number} {long}"));
    }
    // It has taken what its socket holds and stands somewhere in a. The newest is of b.
    world.settle();
    let missed = world.says("b", "above the place of a");
    session.says(r#"{"subscribe":"b","after":"now"}"#);
    world.settle();
    let last = world.says("a", "the last");
    let (mut place, mut given) = (None, false);
    loop {
        let told = world.hears(&mut session);
        if told["subscribed"] == "b" {
            place = Some(told["last"].as_str().unwrap().parse::<pousse::EntryId>().unwrap());
        }
        given |= told["id"] == missed;
        if told["id"] == last {
            break;
        }
    }
    let is_covered = place.unwrap() < missed.parse().unwrap();
    assert!(!is_covered || given, "subscribed at {place:?}, and {missed} never came");
}

#[test]
fn a_long_poll_that_comes_while_the_one_before_is_written_has_a_place_of_its_own() {
    let mut world = world("two-waits", |config| config.limits.turn_write = 1000);
    for next in [
        get("after=now&wait=50", ""),
        get("after=now", "Accept: text/event-stream\r\n"),
        opening("after=now", false),
    ] {
        let mut line = world.long_poll("after=now");
        let text = "x".repeat(50_000);
        world.says("general", &text);
        // The answer is begun, and takes many turns.
        world.turn();
        line.writes(&next);
        let (_, told) = world.answer(&mut line);
        assert_eq!(texts(&told["messages"]), [text.as_str()]);
        world.settle();
        let id = world.says("general", "next");
        world.settle();
        line.reads(usize::MAX);
        let heard = String::from_utf8_lossy(line.waiting()).into_owned();
        assert!(!heard.contains("xxxx"), "{next}: it was given again: {heard:.300}");
        assert!(heard.contains("next") && id.len() > 3, "{heard}");
    }
}

#[test]
fn a_command_of_the_program_itself_is_answered_without_anything_else_happening() {
    let mut world = world("program", |_| {});
    let (mut session, client) = world.session("topic=a");
    world.hears(&mut session);
    world.settle();
    world.server.context().subscribe(client, "a", After::Now).unwrap();
    assert_eq!(world.hears(&mut session)["subscribed"], "a");
    world.server.context().subscribe(client, "b", After::Earliest).unwrap();
    assert_eq!(world.hears(&mut session)["subscribed"], "b");
    world.server.context().unsubscribe(client, "b");
    world.hears_nothing(&mut session);
}

// Too much.

#[test]
fn who_sends_commands_and_does_not_read_is_not_read_either_and_every_one_is_answered() {
    let mut world = world("commands", |config| config.limits.history = 3);
    for number in 0..9 {
        world.says("gap", &number.to_string());
    }
    world.settle();
    let (mut session, client) = world.session("");
    let (mut other, _) = world.session("topic=other");
    world.hears(&mut other);
    let start = world.at(0);
    let (mut sent, mut answered, mut most) = (0_u64, 0, 0);
    let commands = |number: u64| {
        let long = format!("\"{}\"", "r".repeat(100));
        format!(
            "{{\"subscribe\":\"gap\",\"after\":\"{start}\",\"ref\":{long}}}\
             {{\"subscribe\":\"gap\",\"ref\":{long}}}{{\"unsubscribe\":\"gap\",\"ref\":{long}}}\
             {{\"publish\":\"gap{}\",\"data\":\"\",\"key\":\"k\",\"ref\":{long}}}",
            number % 7
        )
    };
    for _ in 0..60 {
        for _ in 0..20 {
            for command in commands(sent).split_inclusive('}') {
                // What the system does not take any more is not sent at all.
                if !session.tries(command) {
                    break;
                }
                sent += 1;
            }
        }
        world.turn();
        most = most.max(world.waiting_bytes(client));
        let id = world.says("other", "hello");
        assert_eq!(world.hears(&mut other)["id"], id, "everyone else is served");
    }
    let bound = (256 + 2 * 64) * 1024;
    println!("{sent} commands, at most {most} bytes waited");
    assert!(most > 64 * 1024 && most <= bound, "{most} bytes waited");
    while answered < sent {
        answered += u64::from(world.hears(&mut session)["ref"].is_string());
    }
    world.hears_nothing(&mut session);
}

#[test]
fn so_many_subscriptions_may_wait_for_their_backlog_and_no_more() {
    let mut world = world("pending", |config| {
        config.limits.history_bytes = 64 << 20;
        config.limits.subscriptions = 5;
    });
    let long = "x".repeat(4000);
    for _ in 0..100 {
        world.says("old", &long);
    }
    let (mut session, _) = world.session("");
    for reference in 0..20 {
        session.says(&format!(r#"{{"subscribe":"old","after":"earliest","ref":{reference}}}"#));
    }
    world.settle();
    let (mut subscribed, mut refused) = (Vec::new(), Vec::new());
    while subscribed.len() + refused.len() < 20 {
        let told = world.hears(&mut session);
        match (&told["subscribed"], &told["error"]["status"], told["ref"].as_u64()) {
            (_, status, Some(reference)) if *status == 400 => refused.push(reference),
            (topic, _, Some(reference)) if topic == "old" => subscribed.push(reference),
            _ => assert_eq!(told["topic"], "old"),
        }
    }
    assert_eq!((subscribed, refused), ((0..5).collect(), (5..20).collect()));
}

#[test]
fn a_key_counts_in_the_bytes_of_a_history_and_goes_with_its_message() {
    let mut world = world("keys", |config| config.limits.history_bytes = 2000);
    let key = |number: usize| format!("Idempotency-Key: {number:0128}\r\n");
    for number in 0..100 {
        let (status, content) = world.ask(post("general", &key(number), b""));
        assert_eq!(status, 201, "{content}");
    }
    let (_, content) = world.ask(get("limit=1000", ""));
    let kept = texts(&json(&content)["messages"]).len();
    assert!(kept > 2 && kept <= 2000 / (2 + 128), "{kept} are kept");
    // The newest is known; the oldest is forgotten, and published again.
    for (number, id) in [(99, world.at(100)), (0, world.at(101)), (0, world.at(101))] {
        let (status, content) = world.ask(post("general", &key(number), b""));
        assert_eq!((status, &json(&content)["id"]), (201, &json!(id)));
    }
    let (status, _) = world.ask(post("general", &key(0), b"something else"));
    assert_eq!(status, 422);
    // In another topic, and as bytes and not as text, it is another message.
    let (status, content) = world.ask(post("other", &key(0), b"something else"));
    assert_eq!((status, &json(&content)["id"]), (201, &json!(world.at(102))));
    let fields = format!("{}Content-Type: application/octet-stream\r\n", key(0));
    assert_eq!(world.ask(post("general", &fields, b"")).0, 422);
}

/// How much somebody publishes in so many turns beside a reader that reads the old again and again,
/// or once.
fn published_beside(is_repeated: bool) -> usize {
    let mut world = world("again", |config| {
        config.limits.turn_write = 4096;
        config.limits.history_bytes = 256 * 1024;
    });
    let old = "x".repeat(1000);
    (0..240).for_each(|_| drop(world.says("old", &old)));
    let (mut session, _) = world.session("topic=live");
    world.hears(&mut session);
    let mut publisher = Line::open(&world.path);
    let live = post("live", "", &[b'x'; 20_000]);
    let (mut asked, mut published) = (false, 0);
    for turn in 0..600 {
        if turn == 0 || is_repeated && turn % 4 == 0 {
            session.says(r#"{"unsubscribe":"old"}"#);
            session.says(r#"{"subscribe":"old","after":"earliest"}"#);
        }
        if !asked {
            publisher.writes(&live);
            asked = true;
        }
        world.turn();
        // It reads as fast as it is written to.
        session.reads(usize::MAX);
        while session.frame().is_some() {}
        publisher.reads(usize::MAX);
        while let Some((status, _)) = publisher.answer() {
            assert_eq!(status, 201);
            (asked, published) = (false, published + 1);
        }
    }
    published
}

#[test]
fn who_reads_an_old_topic_again_and_again_does_not_hold_up_those_who_publish_to_another() {
    let (once, again) = (published_beside(false), published_beside(true));
    println!("{once} were published in 600 turns, and {again} beside one who reads the old again");
    assert!(again > once / 4, "{again} of {once}");
}

#[test]
fn a_number_that_a_topic_had_means_nothing_to_those_who_read_it_before() {
    let mut world = world("numbers", |config| config.limits.history = 0);
    let (mut session, _) = world.session("topic=keep");
    world.hears(&mut session);
    for round in 0..50 {
        let (old, new) = (format!("old {round}"), format!("new {round}"));
        session.says(&format!(r#"{{"subscribe":"{old}"}}"#));
        assert_eq!(world.hears(&mut session)["subscribed"], *old);
        // All in one turn: one goes, another gets its number, and both are published to.
        session.says(&format!(r#"{{"unsubscribe":"{old}"}}"#));
        session.says(&format!(r#"{{"subscribe":"{new}"}}"#));
        session.says(&format!(r#"{{"publish":"{old}","data":"nobody hears this"}}"#));
        session.says(&format!(r#"{{"publish":"{new}","data":"{round}"}}"#));
        world.turn();
        assert_eq!(world.hears(&mut session)["unsubscribed"], *old);
        assert_eq!(world.hears(&mut session)["subscribed"], *new);
        assert_eq!(world.hears(&mut session)["topic"], *old, "it is published");
        assert_eq!(world.hears(&mut session)["topic"], *new, "it is published");
        let told = world.hears(&mut session);
        assert_eq!((&told["topic"], &told["data"]), (&json!(new), &json!(round.to_string())));
        session.says(&format!(r#"{{"unsubscribe":"{new}"}}"#));
        assert_eq!(world.hears(&mut session)["unsubscribed"], *new);
    }
    world.hears_nothing(&mut session);
}
