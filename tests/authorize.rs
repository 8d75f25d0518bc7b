//! Who may, as a handler decides it: when it is asked, what follows, and what a panic means (never
//! "allowed").

#![expect(clippy::unwrap_used, reason = "a test that stops is a test that tells")]

use kit::common;

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};

use common::{Act, Running, Said, answer, content, has_ended, opening, request, status};
use pousse::{
    Access, Answer, Config, ConnId, Context, Decision, Denial, Grant, Publish, Reads, Reason,
    Request,
};

const WHO: &[(&str, &str)] = &[("WWW-Authenticate", "Name realm=\"test\"")];
const UNKNOWN: Denial = Denial::unauthorized("say who you are in the field X-Name", WHO);
const FORBIDDEN: Denial = Denial::forbidden("this topic is not for you");

/// What it was asked, and of whom.
#[derive(Debug, PartialEq)]
enum Asked {
    Read(Vec<String>),
    Publish(String),
    ReadAgain(Option<Grant>, Vec<String>),
    PublishAgain(Option<Grant>, String),
}

/// The field `X-Name` is a number, and that is the grant; the topic `secret` is for 7 alone, and
/// about `broken` it panics. Whoever has no name may do what is `open`.
struct Gate {
    asked: Sender<Asked>,
    is_open: bool,
    is_silent_later: bool,
}

impl Gate {
    fn decide(&self, grant: Option<Grant>, access: Access<'_>) -> Decision {
        let topics = match access {
            Access::Read(topics) => topics,
            Access::Publish(topic) => &[topic.to_owned()],
            other => panic!("{other:?} is new"),
        };
        assert!(!topics.iter().any(|topic| topic == "broken"), "the gate is broken");
        match grant {
            Some(Grant(7)) => Decision::Grant(Grant(7)),
            _ if topics.iter().any(|topic| topic == "secret") => Decision::Refuse(FORBIDDEN),
            Some(grant) => Decision::Grant(grant),
            None if self.is_open => Decision::Allow,
            None => Decision::Refuse(UNKNOWN),
        }
    }
}

impl Act for Gate {
    fn act(&mut self, _: &Said, _: &mut Context<'_>) {}

    fn route(&mut self, request: &Request, _: &mut Context<'_>) -> Option<Answer> {
        match request.path() {
            "/to-secret" => Some(Answer::Publish("secret".into())),
            "/from-secret" => {
                Some(Answer::Upgrade(Reads { topics: vec!["secret".into()], after: None }))
            }
            _ => None,
        }
    }

    fn allows(&mut self, request: &Request, access: Access<'_>) -> Decision {
        self.asked
            .send(match access {
                Access::Read(topics) => Asked::Read(topics.to_vec()),
                Access::Publish(topic) => Asked::Publish(topic.into()),
                other => panic!("{other:?} is new"),
            })
            .unwrap();
        let grant = request.field("x-name").map(|name| Grant(name.parse().unwrap()));
        self.decide(grant, access)
    }

    fn allows_again(
        &mut self,
        _: ConnId,
        grant: Option<Grant>,
        access: Access<'_>,
    ) -> Option<Decision> {
        self.asked
            .send(match access {
                Access::Read(topics) => Asked::ReadAgain(grant, topics.to_vec()),
                Access::Publish(topic) => Asked::PublishAgain(grant, topic.into()),
                other => panic!("{other:?} is new"),
            })
            .unwrap();
        (!self.is_silent_later).then(|| self.decide(grant, access))
    }
}

fn gated(is_open: bool) -> (Running, Receiver<Asked>) {
    start(is_open, false, |_| {})
}

fn start(
    is_open: bool,
    is_silent_later: bool,
    change: impl FnOnce(&mut Config),
) -> (Running, Receiver<Asked>) {
    let (asked, hears) = channel();
    (Running::start(change, Gate { asked, is_open, is_silent_later }), hears)
}

fn topics(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Sends these bytes and takes one answer.
fn ask(server: &Running, bytes: &str) -> String {
    let mut stream = server.connect();
    stream.write_all(bytes.as_bytes()).unwrap();
    answer(&mut stream)
}

#[test]
fn every_way_to_read_is_asked_about_once_with_its_topics() {
    let (server, asked) = gated(false);
    for target in ["/api/messages?topic=a&topic=b", "/api/messages?topic=a&topic=b&wait=30"] {
        let refused = ask(&server, &request("GET", target, "", ""));
        assert_eq!(status(&refused), "401", "{refused}");
        assert!(refused.contains("\r\nWWW-Authenticate: Name realm=\"test\"\r\n"), "{refused}");
        assert!(content(&refused).contains("say who you are in the field X-Name"), "{refused}");
        assert_eq!(asked.try_iter().collect::<Vec<_>>(), [Asked::Read(topics(&["a", "b"]))]);
    }
    let stream = request("GET", "/api/messages", "Accept: text/event-stream\r\n", "");
    assert_eq!(status(&ask(&server, &stream)), "401");
    assert_eq!(status(&ask(&server, &opening("/websocket"))), "401", "before the 101");
    let general = || Asked::Read(topics(&["general"]));
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), [general(), general()]);
    assert_eq!(server.counters().refused(Reason::Authority), 4);

    // The same connection goes on, and by another name.
    let mut stream = server.connect();
    for (name, expected) in [("", "401"), ("X-Name: 1\r\n", "200"), ("", "401")] {
        stream.write_all(request("GET", "/api/messages", name, "").as_bytes()).unwrap();
        assert_eq!(status(&answer(&mut stream)), expected);
    }
}

#[test]
fn what_gives_no_messages_away_is_not_asked_about() {
    let (server, asked) = gated(false);
    for (method, target, expected) in [
        ("GET", "/", "200"),
        ("GET", "/nowhere", "404"),
        ("OPTIONS", "/api/messages", "204"),
        ("DELETE", "/api/messages", "405"),
        ("GET", "/websocket", "426"),
        ("GET", "/api/messages?after=yesterday", "400"),
        ("POST", "/api/messages?topic=a&topic=b", "400"),
    ] {
        assert_eq!(status(&server.http(method, target, "")), expected, "{method} {target}");
    }
    let foreign = request("GET", "/api/messages", "Origin: https://evil.example\r\n", "");
    assert_eq!(status(&ask(&server, &foreign)), "403", "the origin goes before");
    assert_eq!(asked.try_iter().count(), 0);
}

#[test]
fn a_publisher_is_asked_about_before_its_content_is_read_and_only_then() {
    let (server, asked) = gated(false);
    let head = "POST /api/messages?topic=tea HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\
                Expect: 100-continue\r\n";
    let mut stream = server.connect();
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    assert_eq!(status(&answer(&mut stream)), "401", "and not 100");
    assert!(has_ended(&mut stream), "the content that was promised cannot be told apart");
    assert_eq!(asked.recv().unwrap(), Asked::Publish("tea".into()));

    let mut stream = server.connect();
    stream.write_all(format!("{head}X-Name: 1\r\n\r\n").as_bytes()).unwrap();
    assert_eq!(status(&answer(&mut stream)), "100");
    stream.write_all(b"hot").unwrap();
    assert_eq!(status(&answer(&mut stream)), "201");
    // A content of no bytes is whole with its head.
    stream.write_all(request("POST", "/api/messages", "X-Name: 1\r\n", "").as_bytes()).unwrap();
    assert_eq!(status(&answer(&mut stream)), "201");
    let expected = [Asked::Publish("tea".into()), Asked::Publish("general".into())];
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn where_nobody_may_publish_nobody_is_asked() {
    let (server, asked) = start(true, false, |config| config.publish = Some(Publish::Nobody));
    assert_eq!(status(&server.http("POST", "/api/messages", "x")), "403");
    assert_eq!(asked.try_iter().count(), 0);
}

#[test]
fn a_route_of_the_handlers_own_is_asked_about_too() {
    let (server, asked) = gated(true);
    assert_eq!(status(&server.http("POST", "/to-secret", "x")), "403");
    assert_eq!(status(&ask(&server, &opening("/from-secret"))), "403");
    let expected = [Asked::Publish("secret".into()), Asked::Read(topics(&["secret"]))];
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), expected);
    let named = request("POST", "/to-secret", "X-Name: 7\r\n", "x");
    assert_eq!(status(&ask(&server, &named)), "201");
}

#[test]
fn a_key_is_its_publishers_own_and_nameless_publishers_are_one() {
    let (server, _asked) = gated(true);
    let publish = |name: &str, text: &str| {
        let fields = format!("{name}Idempotency-Key: 1\r\n");
        let answer = ask(&server, &request("POST", "/api/messages", &fields, text));
        (status(&answer).to_owned(), content(&answer).to_owned())
    };
    let (one, two) = (publish("X-Name: 1\r\n", "one"), publish("X-Name: 2\r\n", "two"));
    let nameless = publish("", "nobody's");
    assert!([&one, &two, &nameless].iter().all(|(status, _)| status == "201"));
    assert_ne!(one.1, two.1);
    assert_eq!(publish("X-Name: 1\r\n", "one"), one);
    assert_eq!(publish("", "nobody's"), nameless);
    assert_eq!(publish("X-Name: 1\r\n", "two").0, "422");
    assert_eq!(publish("", "another's").0, "422");
}

#[test]
fn the_grant_of_a_client_is_known_as_long_as_its_request_lasts() {
    let (server, _asked) = gated(true);
    let mut stream = server.connect();
    let named = opening("/websocket").replace("\r\n\r\n", "\r\nX-Name: 5\r\n\r\n");
    stream.write_all(named.as_bytes()).unwrap();
    assert_eq!(status(&answer(&mut stream)), "101");
    let id = server.opened();
    assert_eq!(server.ask(move |ctx| ctx.grant(id)), Some(Grant(5)));

    let mut stream = server.connect();
    let get = |name| request("GET", "/api/messages", name, "");
    stream.write_all(get("X-Name: 5\r\n").as_bytes()).unwrap();
    answer(&mut stream);
    let wait = request("GET", "/api/messages?after=now&wait=30", "", "");
    stream.write_all(wait.as_bytes()).unwrap();
    let poller = loop {
        let mut others = server.ask(|ctx| ctx.clients().collect::<Vec<_>>()).into_iter();
        if let Some(other) = others.find(|it| *it != id) {
            break other;
        }
    };
    assert_eq!(server.ask(move |ctx| ctx.grant(poller)), None, "that was another request");
}

#[test]
fn a_handler_that_panics_has_not_allowed_it() {
    let (server, _asked) = gated(true);
    for bytes in [
        request("GET", "/api/messages?topic=broken", "", ""),
        request("GET", "/api/messages?topic=broken&wait=30", "", ""),
        request("GET", "/api/messages?topic=broken", "Accept: text/event-stream\r\n", ""),
        request("POST", "/api/messages?topic=broken", "", "x"),
        request("POST", "/api/messages?topic=broken", "Expect: 100-continue\r\n", "x"),
        opening("/websocket?topic=broken"),
    ] {
        let mut stream = server.connect();
        stream.write_all(bytes.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(status(&answer), "500", "{bytes}");
        assert!(!answer.contains("gate"), "what it said is for the log: {answer}");
    }
    let counters = server.counters();
    assert_eq!((counters.panics, counters.published, counters.opened), (6, 0, 0));
}

#[cfg(feature = "v1")]
mod over_pousse_v1 {
    use super::*;
    use common::Socket;
    use serde_json::{Value, json};

    fn open(server: &Running, path: &str) -> Socket {
        let mut socket = Socket::offering(server.address(), path, &["pousse.v1"]).unwrap();
        assert!(says(&mut socket, "hello").is_object());
        socket
    }

    /// The next frame, which has this member.
    fn says(socket: &mut Socket, member: &str) -> Value {
        let frame: Value = serde_json::from_str(&socket.hears()).unwrap();
        frame.get(member).unwrap_or_else(|| panic!("{frame} has no {member}")).clone()
    }

    #[test]
    fn each_subscription_and_each_publish_is_asked_about_with_the_grant() {
        let (server, asked) = gated(true);
        let mut socket = open(&server, "/websocket");
        assert_eq!(asked.recv().unwrap(), Asked::Read(Vec::new()), "none in the URL: none");
        socket.says(r#"{"subscribe":"secret","ref":1}"#);
        let error = says(&mut socket, "error");
        assert_eq!(
            (&error["status"], &error["detail"]),
            (&json!(403), &json!("this topic is not for you"))
        );
        socket.says(r#"{"publish":"secret","data":"x"}"#);
        assert_eq!(says(&mut socket, "error")["status"], 403);
        socket.says(r#"{"subscribe":"tea"}"#);
        assert_eq!(says(&mut socket, "subscribed"), "tea");
        socket.says(r#"{"unsubscribe":"tea"}"#);
        assert_eq!(says(&mut socket, "unsubscribed"), "tea");
        socket.says(r#"{"publish":"tea","data":"hot"}"#);
        says(&mut socket, "published");
        socket.says(r#"{"subscribe":""}"#);
        assert_eq!(says(&mut socket, "error")["status"], 400, "that is no topic for anyone");
        assert_eq!(
            asked.try_iter().collect::<Vec<_>>(),
            [
                Asked::ReadAgain(None, topics(&["secret"])),
                Asked::PublishAgain(None, "secret".into()),
                Asked::ReadAgain(None, topics(&["tea"])),
                Asked::PublishAgain(None, "tea".into()),
            ]
        );
        let counters = server.counters();
        assert_eq!((counters.published, counters.refused(Reason::Authority)), (1, 2));
    }

    #[test]
    fn a_handler_that_says_nothing_of_later_keeps_everyone_to_what_he_was_opened_with() {
        let (server, _asked) = start(true, true, |_| {});
        let mut nameless = open(&server, "/websocket");
        nameless.says(r#"{"subscribe":"tea"}"#);
        assert_eq!(says(&mut nameless, "error")["status"], 403);

        let uri = "ws://localhost/websocket".parse().unwrap();
        let named = tungstenite::client::ClientRequestBuilder::new(uri)
            .with_header("X-Name", "7")
            .with_sub_protocol("pousse.v1");
        let mut named = Socket(tungstenite::client(named, server.connect()).unwrap().0);
        says(&mut named, "hello");
        named.says(r#"{"subscribe":"tea"}"#);
        assert_eq!(says(&mut named, "error")["status"], 403);
    }

    #[test]
    fn a_handler_that_panics_over_a_command_closes_it_with_1011() {
        let (server, _asked) = gated(true);
        for command in [r#"{"subscribe":"broken"}"#, r#"{"publish":"broken","data":"x"}"#] {
            let mut socket = open(&server, "/websocket");
            socket.says(command);
            assert_eq!(socket.hears_close(), (1011, "the handler failed".into()));
        }
        assert_eq!(server.counters().published, 0);
    }
}

#[test]
fn origins_are_changed_while_it_runs_and_whoever_waits_hears_its_own() {
    let (server, _asked) = start(true, false, |config| {
        config.origins = vec!["https://a.example".into(), "https://b.example".into()];
    });
    let get = |target, origin: &str| {
        request("GET", target, &format!("Origin: https://{origin}.example\r\n"), "")
    };
    let mut waiting = server.connect();
    let wait = get("/api/messages?after=now&wait=30", "b");
    waiting.write_all(wait.as_bytes()).unwrap();
    while server.ask(|ctx| ctx.clients().count()) == 0 {}
    let wrong = server.ask(|ctx| ctx.set_origins(vec!["c.example".into()]).map_err(drop));
    assert_eq!(wrong, Err(()), "nothing was changed by that");
    server.ask(|ctx| {
        ctx.set_origins(vec!["https://c.example".into(), "https://a.example".into()]).unwrap();
    });
    for (origin, expected) in [("a", "200"), ("b", "403"), ("c", "200")] {
        let answer = ask(&server, &get("/api/messages", origin));
        assert_eq!(status(&answer), expected, "{origin}");
        let field = format!("\r\nAccess-Control-Allow-Origin: https://{origin}.example\r\n");
        assert_eq!(answer.contains(&field), expected == "200", "{answer}");
    }
    server.http("POST", "/api/messages", "x");
    let answer = answer(&mut waiting);
    assert!(answer.contains("\r\nAccess-Control-Allow-Origin: https://b.example\r\n"), "{answer}");
}
