//! Each limit says in the log that it was reached, by its own word: one that ends or refuses
//! something in a line of `event=refused`, `event=closed` or `event=full`, as `reason=`; any other
//! in one of `event=limit`. Each is made small and gone over by one peer; what is answered and
//! counted is `tests/limits.rs`.

use crate::silent::SILENT;
use std::os::unix::fs::PermissionsExt;

use crate::peer::{PATIENCE, Peer, ms, opening, posting};
use crate::support::websocket::{PING, TEXT, frame};
use crate::support::{Door, Server, now};

/// A limit, the flags that make it small, and who goes over it: they stay until the log is read.
struct Word(&'static str, &'static [&'static str], fn(&Server) -> Vec<Peer>);

/// One of the events that tell of a limit.
const EVENTS: [&str; 3] = [" event=refused ", " event=closed ", " event=full "];

/// Limits that have no line of their own, and why.
const LEFT_OUT: [(&str, &str); 3] = [
    ("turn-handshakes", "it takes a certificate: the test of handshakes below"),
    ("ack-timeout", "it takes a machine that is gone; `tests/limits/gate.rs` takes one away"),
    ("commands", "only an embedder has other threads; `tests/limits/clients.rs` has one"),
];

fn door(server: &Server) -> &Door {
    &server.doors()[0]
}

/// Whoever says this on a connection of their own, and stays.
fn says(server: &Server, bytes: impl AsRef<[u8]>) -> Vec<Peer> {
    let mut peer = Peer::connect(door(server));
    peer.says(bytes);
    vec![peer]
}

/// The same of a client that has opened a WebSocket.
fn sends(server: &Server, bytes: impl AsRef<[u8]>) -> Vec<Peer> {
    let mut peer = Peer::opens(door(server), "/websocket", "");
    peer.says(bytes);
    vec![peer]
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// One has the only place, and another comes.
fn crowds(server: &Server) -> Vec<Peer> {
    let mut peers = says(server, get("/api/messages"));
    assert_eq!(peers[0].answer().status, 200);
    peers.extend(says(server, get("/api/messages")));
    peers
}

fn owners_door(server: &Server) -> Door {
    assert!(server.says(" event=control "), "{}", server.stderr());
    let log = server.stderr();
    let (_, rest) = log.split_once(" event=control url=http://").unwrap();
    Door::Tcp(rest.split(' ').next().unwrap().parse().unwrap())
}

/// The owner sends to a client that takes nothing until he may not.
fn is_sent_too_much(server: &Server) -> Vec<Peer> {
    let client = Peer::opens(door(server), "/websocket", "");
    let mut owner = Peer::connect(&owners_door(server));
    owner.says(get("/api/clients"));
    let list = owner.answer().content;
    let list: serde_json::Value = serde_json::from_slice(&list).unwrap();
    let target = format!("/api/clients/{}", list["clients"][0]["id"].as_str().unwrap());
    let end = now() + PATIENCE;
    loop {
        owner.says(posting(&target, "", &[b'a'; 60_000]));
        match owner.answer().status {
            503 => return vec![client, owner],
            status => assert!(status == 202 && now() < end, "{status}"),
        }
    }
}

fn crowds_the_owner(server: &Server) -> Vec<Peer> {
    let owner = owners_door(server);
    let mut first = Peer::connect(&owner);
    first.says(get("/api/messages?after=now&wait=50"));
    vec![first, Peer::connect(&owner)]
}

/// Asks for much again and again, and reads nothing.
fn asks_and_does_not_read(server: &Server) -> Vec<Peer> {
    let mut publisher = Peer::connect(door(server));
    for _ in 0..4 {
        publisher.says(posting("/api/messages", "", &[b'a'; 60_000]));
        assert_eq!(publisher.answer().status, 201);
    }
    let mut peers = says(server, get("/api/messages").repeat(100));
    peers.push(publisher);
    peers
}

fn guesses(server: &Server) -> Vec<Peer> {
    let guess = "GET /api/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \
                 guess-guess-guess\r\n\r\n";
    says(server, guess.repeat(3))
}

fn names_one_topic_too_many(server: &Server) -> Vec<Peer> {
    let mut peers = vec![Peer::opens(door(server), "/websocket?topic=one", "")];
    peers.extend(says(server, posting("/api/messages?topic=two", "", b"x")));
    peers
}

fn speaks_nonsense(server: &Server) -> Vec<Peer> {
    let mut peer = Peer::opens_v1(door(server), "/websocket");
    peer.says(frame(true, TEXT, b"nonsense").repeat(4));
    vec![peer]
}

fn is_told_to_go(server: &Server) -> Vec<Peer> {
    let peers = vec![Peer::opens(door(server), "/websocket", "")];
    server.signal(rustix::process::Signal::TERM);
    peers
}

/// A line for each way over each limit. Who has asked and goes is in the log at debug only; on
/// loopback the limits of one address hold if `max-per-ip` is given.
const WORDS: &[Word] = &[
    Word("max-topics", &["--max-topics", "1"], names_one_topic_too_many),
    Word("max-clients", &["--max-clients", "1"], crowds),
    Word("max-per-ip", &["--max-per-ip", "1"], crowds),
    Word("max-new-per-ip", &["--max-per-ip", "100", "--limit", "max-new-per-ip=1"], crowds),
    Word(
        "auth-failures",
        &["--max-per-ip", "100", "--limit", "auth-failures=1", "--subscribe", "token"],
        guesses,
    ),
    Word("openings", &["--limit", "openings=1"], |server| {
        (0..2).map(|_| Peer::connect(door(server))).collect()
    }),
    Word("memory", &["--limit", "memory=20KiB"], |server| {
        sends(server, &frame(true, TEXT, &[b'a'; 60_000])[..50_000])
    }),
    Word(
        "control-clients",
        &["--control", "127.0.0.1:0", "--limit", "control-clients=1"],
        crowds_the_owner,
    ),
    Word("max-message", &["--max-message", "10"], |server| {
        says(server, posting("/api/messages", "", &[b'a'; 11]))
    }),
    Word("max-message", &["--max-message", "10"], |server| {
        sends(server, frame(true, TEXT, &[b'a'; 11]))
    }),
    Word("head-bytes", &["--limit", "head-bytes=100"], |server| {
        says(server, format!("GET / HTTP/1.1\r\nHost: localhost\r\nA: {}", "a".repeat(100)))
    }),
    Word("headers", &["--limit", "headers=2"], |server| {
        says(server, "GET / HTTP/1.1\r\nHost: localhost\r\nA: a\r\nB: b\r\n\r\n")
    }),
    Word("target-bytes", &["--limit", "target-bytes=10"], |server| {
        says(server, get("/0123456789"))
    }),
    Word("head-timeout", &["--head-timeout", "100ms"], |server| says(server, "GET /")),
    Word("head-timeout", &["--head-timeout", "100ms"], |server| says(server, "")),
    Word("body-timeout", &["--limit", "body-timeout=100ms"], |server| {
        let whole = posting("/api/messages", "", b"what is missing is the end");
        says(server, &whole[..whole.len() - 7])
    }),
    Word("idle-timeout", &["--log", "debug", "--limit", "idle-timeout=100ms"], |server| {
        says(server, get("/api/messages"))
    }),
    Word("requests", &["--log", "debug", "--limit", "requests=1"], |server| {
        says(server, get("/api/messages"))
    }),
    Word("subscriptions", &["--limit", "subscriptions=1"], |server| {
        says(server, get("/api/messages?topic=one&topic=two"))
    }),
    Word("subscriptions", &["--limit", "subscriptions=1"], |server| {
        says(server, opening("/websocket?topic=one&topic=two", ""))
    }),
    Word("pong-timeout", &["--ping", "100ms", "--pong-timeout", "100ms"], |server| {
        sends(server, "")
    }),
    Word("fragments", &["--limit", "fragments=2"], |server| {
        sends(server, [frame(false, TEXT, b"a"), frame(false, 0, b"b").repeat(2)].concat())
    }),
    Word("message-timeout", &["--limit", "message-timeout=100ms"], |server| {
        sends(server, frame(false, TEXT, b"a"))
    }),
    Word("wrong-commands", &["--limit", "wrong-commands=1"], speaks_nonsense),
    Word("controls", &["--limit", "controls=2"], |server| {
        sends(server, frame(true, PING, b"").repeat(4))
    }),
    Word("close-timeout", &["--limit", "fragments=1"], |server| {
        sends(server, [frame(false, TEXT, b"a"), frame(false, 0, b"b").repeat(2)].concat())
    }),
    Word("outbox", &["--control", "127.0.0.1:0", "--limit", "outbox=1"], is_sent_too_much),
    Word(
        "outbox-messages",
        &["--control", "127.0.0.1:0", "--limit", "outbox-messages=1"],
        is_sent_too_much,
    ),
    Word("stall", &["--limit", "stall=200ms"], asks_and_does_not_read),
    Word("drain", &["--drain", "5s"], is_told_to_go),
];

/// The same for limits that refuse nothing. What every day brings is in the log at debug.
const HELD: &[Word] = &[
    Word("history", &["--log", "debug", "--history", "1"], publishes_twice),
    Word("history-bytes", &["--log", "debug", "--history-bytes", "1"], publishes_twice),
    Word("history-age", &["--log", "debug", "--history-age", "100ms"], publishes_twice),
    Word("history-total", &["--limit", "history-total=1"], publishes_twice),
    Word("outbox-soft", &["--limit", "outbox-soft=1"], asks_and_does_not_read),
    Word("unsent", &["--log", "debug", "--limit", "unsent=1"], asks_and_does_not_read),
    Word("wait-max", &["--wait-max", "1s"], |server| says(server, get("/api/messages?wait=2"))),
    Word("poll-bytes", &["--limit", "poll-bytes=1"], publishes_twice),
    Word("ping", &["--log", "debug", "--ping", "100ms"], |server| sends(server, "")),
    Word("turn-read", &["--limit", "turn-read=100"], |server| {
        sends(server, frame(true, TEXT, &[b'a'; 1000]))
    }),
    Word("turn-messages", &["--limit", "turn-messages=1"], |server| {
        sends(server, frame(true, TEXT, b"a").repeat(3))
    }),
    Word("turn-write", &["--limit", "turn-write=1000"], |server| {
        // More than is taken from the log in one go.
        let mut peers: Vec<Peer> = (0..5).flat_map(|_| publishes_twice(server)).collect();
        peers.push(Peer::opens(door(server), "/websocket?after=earliest", ""));
        peers
    }),
    Word("turn-accept", &["--limit", "turn-accept=1"], |server| says(server, "")),
    Word("turn-readers", &["--limit", "turn-readers=1"], |server| {
        let mut peers: Vec<Peer> =
            (0..3).map(|_| Peer::opens(door(server), "/websocket", "")).collect();
        peers.extend(publishes_twice(server));
        peers
    }),
    Word("turn-time", &["--limit", "turn-time=1ms"], |server| {
        all_say_at_once(server, &posting("/api/messages", "", &[b'a'; 60_000]))
    }),
];

/// Three hundred say this while the server is held, so that it finds it all in one turn.
fn all_say_at_once(server: &Server, bytes: &[u8]) -> Vec<Peer> {
    let Some(Door::Tcp(address)) = server.doors().first() else { panic!("it listens on TCP") };
    let mut peers: Vec<Peer> = (0..300).map(|_| Peer::connect(&Door::Tcp(*address))).collect();
    server.signal(rustix::process::Signal::STOP);
    peers.iter_mut().for_each(|peer| peer.says(bytes));
    server.signal(rustix::process::Signal::CONT);
    peers
}

/// And then asks for it.
fn publishes_twice(server: &Server) -> Vec<Peer> {
    let mut peer = Peer::connect(door(server));
    for _ in 0..2 {
        peer.says(posting("/api/messages", "", &[b'a'; 10_000]));
        assert_eq!(peer.answer().status, 201);
    }
    peer.says(get("/api/messages"));
    assert_eq!(peer.answer().status, 200);
    vec![peer]
}

/// Those of the table of whom the log of the program, attacked like that, has no line.
fn silent(words: &[Word], flags: &[&str], tells: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let mut silent = Vec::new();
    for Word(name, own, attack) in words {
        let server = Server::start(&[flags, own].concat());
        let _peers = attack(&server);
        let end = now() + PATIENCE;
        while !server.stderr().lines().any(|line| tells(name, line)) {
            if now() >= end {
                silent.push(format!("{name}:\n{}", server.stderr()));
                break;
            }
            server.waits(ms(5));
        }
    }
    silent
}

#[test]
fn each_limit_that_ends_or_refuses_something_says_so_in_the_log_by_its_word() {
    let tokens = concat!(env!("CARGO_TARGET_TMPDIR"), "/words-tokens");
    std::fs::write(tokens, "alice alice-0123456789abcdef\n").unwrap();
    std::fs::set_permissions(tokens, std::fs::Permissions::from_mode(0o600)).unwrap();
    // They stay, and the end is told when they are dropped.
    let flags = ["--limit", "close-timeout=100ms", "--token-file", tokens];
    let silent = silent(WORDS, &flags, |name, line| {
        EVENTS.iter().any(|event| line.contains(event)) && has(line, &format!(" reason={name}"))
    });
    assert!(silent.is_empty(), "the log has no word of {}", silent.join("\n\n"));
}

#[test]
fn each_limit_that_refuses_nothing_says_in_the_log_how_often_it_was_reached() {
    let silent =
        silent(HELD, &[], |name, line| line.contains(&format!(" event=limit limit={name} held=")));
    assert!(silent.is_empty(), "the log has no word of {}", silent.join("\n\n"));
}

#[test]
#[cfg(feature = "tls")]
fn handshakes_that_are_put_off_are_in_the_log_by_how_many_they_were() {
    let pair = crate::support::certificate::Pair::new("words");
    // The first byte of a record is enough for a step.
    let word = Word("turn-handshakes", &["--limit", "turn-handshakes=1"], |server| {
        all_say_at_once(server, &[22])
    });
    let silent = silent(&[word], &pair.flags(), |name, line| {
        line.contains(&format!(" event=limit limit={name} held="))
    });
    assert!(silent.is_empty(), "the log has no word of {}", silent.join("\n\n"));
}

/// Whether this is in the line, and no longer word is there in place of it.
fn has(line: &str, word: &str) -> bool {
    let is_whole = |rest: &str| rest.is_empty() || rest.starts_with(' ');
    line.split_once(word).is_some_and(|(_, rest)| is_whole(rest))
}

#[test]
fn each_limit_has_its_line_here_or_a_reason_why_not() {
    let words: Vec<&str> = WORDS.iter().chain(HELD).map(|word| word.0).collect();
    let others: Vec<&str> = SILENT.iter().chain(&LEFT_OUT).map(|(name, _)| *name).collect();
    for limit in pousse::LIMITS {
        let lists = [words.contains(&limit.name), others.contains(&limit.name)];
        assert!(lists[0] != lists[1], "{}", limit.name);
    }
    for name in words.iter().chain(&others) {
        assert!(pousse::Limits::find(name).is_some(), "{name} is no limit any more");
    }
    for word in HELD {
        assert!(pousse::Held::ALL.iter().any(|limit| limit.word() == word.0), "{}", word.0);
    }
}
