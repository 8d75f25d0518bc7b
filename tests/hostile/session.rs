//! Floods and nonsense in pousse.v1, topics without number, keys without number.

use crate::peer::{Peer, posting};
use crate::support::websocket::{Incoming, TEXT, frame};
use crate::target::Target;

fn text(json: impl AsRef<[u8]>) -> Vec<u8> {
    frame(true, TEXT, json.as_ref())
}

/// What is no command: answered with an error, whatever it is made of, and the session goes on.
fn nonsense() -> Vec<String> {
    let deep = |open: &str, close: &str, count: usize| open.repeat(count) + &close.repeat(count);
    let mut all: Vec<String> = [
        "",
        " ",
        "x",
        "null",
        "true",
        "[]",
        "{}",
        "\"subscribe\"",
        "{\"subscribe\":}",
        "{\"subscribe\":null}",
        "{\"subscribe\":1}",
        "{\"subscribe\":[\"a\"]}",
        "{\"subscribe\":{\"a\":\"b\"}}",
        "{\"subscribe\":\"\"}",
        "{\"subscribe\":\"a\\u0000b\"}",
        "{\"subscribe\":\"a\\nb\"}",
        "{\"subscribe\":\"\\ud800\"}",
        "{\"subscribe\":\"a\\u0085\"}",
        "{\"subscribe\":\"a\",\"publish\":\"b\",\"data\":\"c\"}",
        "{\"subscribe\":\"a\",\"unsubscribe\":\"a\"}",
        "{\"subscribe\":\"a\",\"after\":\"-1\"}",
        "{\"subscribe\":\"a\",\"after\":1}",
        "{\"subscribe\":\"a\",\"after\":\"1-99999999999999999999999\"}",
        "{\"subscribe\":\"a\",\"ref\":{}}",
        "{\"subscribe\":\"a\",\"ref\":[1]}",
        "{\"subscribe\":\"a\",\"ref\":true}",
        "{\"publish\":\"a\"}",
        "{\"publish\":\"a\",\"data\":1}",
        "{\"publish\":\"a\",\"data\":\"x\",\"base64\":\"eA==\"}",
        "{\"publish\":\"a\",\"base64\":\"%%%\"}",
        "{\"publish\":\"a\",\"base64\":\"eA\"}",
        "{\"publish\":\"a\",\"data\":\"x\",\"key\":\"\"}",
        "{\"publish\":\"a\",\"data\":\"x\",\"key\":1}",
        "{\"publish\":\"a\",\"data\":\"\\ud800\"}",
        "{\"SUBSCRIBE\":\"a\"}",
        "{\"subscribe\":\"a\"} {\"subscribe\":\"b\"}",
        "{\"subscribe\":\"a\",}",
        "{'subscribe':'a'}",
        "{\"subscribe\":\"a\"",
        "{\"constructor\":\"a\",\"__proto__\":{\"subscribe\":\"a\"}}",
        "\u{feff}{\"subscribe\":\"a\"}",
    ]
    .map(String::from)
    .into();
    for count in [100, 200, 10_000, 30_000] {
        all.push(deep("[", "]", count));
        all.push("[".repeat(count));
        all.push(format!("{{\"subscribe\":{}}}", deep("[", "]", count)));
        all.push(format!("{{\"x\":{},\"subscribe\":1}}", deep("[", "]", count)));
    }
    all.push("{\"a\":".repeat(10_000) + "1" + &"}".repeat(10_000));
    all.push(format!("{{\"ref\":{},\"subscribe\":1}}", "9".repeat(60_000)));
    all.push(format!("{{\"subscribe\":\"{}\"}}", "a".repeat(129)));
    all.push(format!("{{\"subscribe\":\"{}\"}}", "a".repeat(60_000)));
    all.push(format!("{{\"publish\":\"{}\",\"data\":\"x\"}}", "é".repeat(65)));
    all.push(format!("{{\"publish\":\"a\",\"data\":\"x\",\"key\":\"{}\"}}", "k".repeat(129)));
    all.push(format!("{{\"{}\":1}}", "n".repeat(60_000)));
    let members: Vec<String> = (0..5000).map(|n| format!("\"m{n}\":1")).collect();
    all.push(format!("{{{}}}", members.join(",")));
    all.push(format!("{{{}\"subscribe\":1}}", "\"subscribe\":\"a\",".repeat(3000)));
    all
}

#[test]
fn what_is_no_command_is_answered_with_an_error_whatever_it_is_made_of() {
    let mut target = Target::start(&[]);
    target.survives(|target| {
        for (at, json) in nonsense().iter().enumerate() {
            let shown = json.get(..json.len().min(60)).unwrap_or("…");
            let mut peer = Peer::opens_v1(&target.door, "/websocket");
            peer.says(text(json));
            let heard = peer.hears();
            let Incoming::Text(answer) = &heard else { panic!("{at} {shown}: {heard}") };
            let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
            assert!(answer["error"]["status"].is_u64(), "{at} {shown}: {answer}");
            peer.says(text("{\"subscribe\":\"general\",\"ref\":1}"));
            let heard = peer.hears();
            assert!(matches!(&heard, Incoming::Text(it) if it.contains("subscribed")), "{heard}");
        }
    });
}

#[test]
fn a_member_given_twice_counts_once_and_a_ref_comes_back_as_what_it_is() {
    let mut target = Target::start(&[]);
    target.survives(|target| {
        for (json, answer) in [
            ("{\"publish\":\"a\",\"publish\":\"b\",\"data\":\"x\"}", "\"topic\":\"b\"}"),
            (
                "{\"unsubscribe\":\"a\",\"ref\":1234567890123456789012345}",
                "\"ref\":1234567890123456789012345}",
            ),
            ("{\"unsubscribe\":\"a\",\"ref\":\"\\u003c/script>\"}", "\"ref\":\"\\u003c/script>\"}"),
            (
                "{\"unsubscribe\":\"a\",\"ref\":\"\\\",\\\"id\\\":\\\"1-1\"}",
                "\\\"id\\\":\\\"1-1\"}",
            ),
            (
                "{\"unsubscribe\":\"\\\",\\\"id\\\":\\\"1-1\"}",
                "{\"unsubscribed\":\"\\\",\\\"id\\\":\\\"1-1\"}",
            ),
        ] {
            let mut peer = Peer::opens_v1(&target.door, "/websocket");
            peer.says(text(json));
            let heard = peer.hears();
            let Incoming::Text(told) = &heard else { panic!("{json}: {heard}") };
            assert!(told.ends_with(answer), "{json}: {told}");
            let told: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(told).unwrap();
            assert!(!told.contains_key("id"), "{told:?}");
        }
    });
}

#[test]
fn wrong_commands_without_end_are_cut_off_and_disturb_nobody() {
    let mut target = Target::start(&[]);
    let wrong = [text("["), text("{\"subscribe\":1}"), text("{\"publish\":\"a\"}")].concat();
    let wrong = wrong.repeat(1000);
    target.withstands("wrong commands", |target| {
        target.flood(4, |door, flood| {
            while flood.goes_on() {
                let mut peer = Peer::opens_v1(door, "/websocket");
                peer.says(&wrong);
                assert_eq!(peer.close_code(), 1008);
            }
        });
    });
    assert!(target.counter("closed.wrong-commands") > 0);
}

#[test]
fn commands_without_end_whose_answers_nobody_reads_take_no_memory_and_disturb_nobody() {
    let mut target = Target::start(&[]);
    let commands = [
        text("{\"subscribe\":\"a\",\"after\":\"earliest\",\"ref\":\"x\"}"),
        text("{\"publish\":\"a\",\"data\":\"y\"}"),
        text("{\"unsubscribe\":\"a\",\"ref\":2}"),
    ]
    .concat()
    .repeat(100);
    // A thousand of the messages are kept, and what four outboxes had at the most.
    target.margin = 3 << 20;
    target.withstands("commands that nobody hears the answers of", |target| {
        let most = std::sync::atomic::AtomicU64::new(0);
        target.flood(4, |door, flood| {
            let mut peer = Peer::opens_v1(door, "/websocket");
            let mut at = 0;
            while flood.goes_on() {
                at = (at + peer.wire.send_some(&commands[at..]).unwrap()) % commands.len();
                most.fetch_max(target.heap_grown(), std::sync::atomic::Ordering::SeqCst);
            }
        });
        let most = most.into_inner();
        println!("4 of them: {} KiB of heap more at the most", most >> 10);
        assert!(most < 6 << 20, "{most} bytes");
    });
}

#[test]
fn topics_without_number_take_no_more_than_max_topics_and_leave_those_that_are_read() {
    let mut target = Target::start(&["--max-topics", "100"]);
    target.withstands("topics", |target| {
        target.flood(3, |door, flood| {
            let mut number = 0;
            while flood.goes_on() {
                let mut peer = Peer::opens_v1(door, "/websocket");
                for _ in 0..40 {
                    number += 1;
                    let long = "x".repeat(100);
                    peer.says(text(format!("{{\"subscribe\":\"{number} {long}\"}}")));
                    peer.says(text(format!("{{\"unsubscribe\":\"{number} {long}\"}}")));
                    peer.hears();
                    peer.hears();
                }
                for path in ["websocket?topic", "api/messages?wait=1&topic"] {
                    number += 1;
                    let mut peer = Peer::connect(door);
                    peer.says(format!("GET /{path}={number} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
                    peer.wire.reset();
                }
            }
        });
    });
}

#[test]
fn strangers_who_hold_every_topic_are_told_so_and_the_innocent_keep_theirs() {
    let mut target = Target::start(&["--max-topics", "60"]);
    target.survives(|target| {
        let mut peer = Peer::opens_v1(&target.door, "/websocket");
        let mut refused = 0;
        for number in 0..100 {
            peer.says(text(format!("{{\"subscribe\":\"mine {number}\"}}")));
            let heard = peer.hears();
            let Incoming::Text(told) = &heard else { panic!("{heard}") };
            refused += u64::from(told.contains("\"status\":503"));
        }
        assert!((40..50).contains(&refused), "{refused}");
        let answer = target.asks(posting("/api/messages?topic=one-more", "", b"x"));
        assert_eq!(answer.status, 503, "{answer}");
        assert!(answer.field("Retry-After").is_some());
    });
    assert!(target.counter("refused.max-topics") > 40);
}

#[test]
fn names_of_topics_are_bounded_and_have_no_controls_however_they_are_written() {
    let mut target = Target::start(&[]);
    target.survives(|target| {
        let long = "a".repeat(129);
        let longer = "%C3%A9".repeat(65);
        let longest = "a".repeat(3000);
        for name in [
            "",
            "%00",
            "a%00b",
            "%0d%0a",
            "%0A",
            "a%09b",
            "%7f",
            "%C2%85",
            "%ff",
            "%c0%80",
            "%",
            "%zz",
            "%ed%a0%80",
            &long,
            &longer,
            &longest,
        ] {
            for (what, request) in [
                ("poll", format!("GET /api/messages?topic={name}")),
                ("long poll", format!("GET /api/messages?wait=1&topic={name}")),
                ("WebSocket", format!("GET /websocket?topic={name}")),
                ("publishing", format!("POST /api/messages?topic={name}")),
            ] {
                let mut peer = Peer::connect(&target.door);
                let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n\
                               Sec-WebSocket-Version: 13\r\n\
                               Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
                let fields = if what == "WebSocket" { upgrade } else { "" };
                peer.says(format!("{request} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
                assert_eq!(peer.answer().status, 400, "{what} {name}");
            }
        }
        let topics: String = (0..129).map(|number| format!("topic={number}&")).collect();
        assert_eq!(target.gets(&format!("/api/messages?{topics}")).status, 400);
    });
    assert!(target.counter("refused.subscriptions") > 0);
}

#[test]
fn keys_without_number_go_with_their_messages_and_take_no_more_memory_than_history() {
    let mut target = Target::start(&["--history", "100"]);
    target.withstands("keys", |target| {
        target.flood(3, |door, flood| {
            let mut number = 0;
            let mut peer = Peer::connect(door);
            // A topic each: else the others' messages may drop one, and its key, between the two.
            let topic = format!("/api/messages?topic=keys-{:?}", std::thread::current().id());
            let topic = topic.replace(['(', ')'], "");
            while flood.goes_on() {
                number += 1;
                let long = "k".repeat(100);
                let field = format!(
                    "Idempotency-Key: {number} {:?} {long}\r\n",
                    std::thread::current().id()
                );
                peer.says(posting(&topic, &field, b"x"));
                assert_eq!(peer.answer().status, 201);
                // One that is used again for something else.
                peer.says(posting(&topic, &field, b"y"));
                let answer = peer.answer();
                assert_eq!(answer.status, 422, "{answer}");
                if number % 400 == 0 {
                    peer = Peer::connect(door);
                }
            }
        });
        for (field, status) in [
            ("Idempotency-Key: \r\n".to_owned(), 400),
            (format!("Idempotency-Key: {}\r\n", "k".repeat(129)), 400),
            ("Idempotency-Key: a\r\nIdempotency-Key: b\r\n".to_owned(), 400),
            ("Idempotency-Key: \u{e9}\r\n".to_owned(), 201),
        ] {
            let answer = target.asks(posting("/api/messages?topic=keys", &field, b"x"));
            assert_eq!(answer.status, status, "{field}: {answer}");
        }
    });
}
