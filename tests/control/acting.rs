//! What the owner sees of topics and clients, and does to them.

use std::collections::BTreeSet;
use std::io::Write;

use serde_json::{Value, json};

use crate::common::{
    Said, Socket, answer, connect, content, has_ended, http, opening, quiet, request, status,
};
use crate::{ask, block, door, get, hears, publish, session, start, stream, until};

/// Names, and how they stand in a path.
const NAMES: [(&str, &str); 6] = [
    ("general", "general"),
    ("a/b", "a%2Fb"),
    ("say \"hi\" \\", "say%20%22hi%22%20%5C"),
    ("été 🌱", "%C3%A9t%C3%A9%20%F0%9F%8C%B1"),
    ("a+b?c#d%25", "a+b%3Fc%23d%2525"),
    ("..", ".."),
];

#[test]
fn topics_are_found_by_their_percent_encoded_names() {
    let running = start(|_| {}, quiet);
    let mut ids = Vec::new();
    for (_, encoded) in NAMES {
        ids.push(publish(&running, &encoded.replace('+', "%2B"), "12345"));
    }
    for ((name, encoded), id) in NAMES.iter().zip(&ids) {
        let topic = get(&running, &format!("/api/topics/{encoded}"));
        let expected = json!({
            "topic": name, "readers": 0, "messages": 1, "bytes": 7, "oldest": id, "last": id
        });
        assert_eq!(topic, expected);
    }
    assert_eq!(get(&running, "/api/topics/a/b")["topic"], "a/b", "a slash may stand as it is");
    for path in ["/api/topics/nobody", "/api/topics/General", "/api/topics/a%00b"] {
        assert_eq!(status(&ask(&running, "GET", path, "")), "404", "{path}");
        assert_eq!(status(&ask(&running, "DELETE", path, "")), "404", "{path}");
    }
    for path in ["/api/topics/%", "/api/topics/%zz", "/api/topics/%ff"] {
        assert_eq!(status(&ask(&running, "GET", path, "")), "400", "{path}");
        assert_eq!(status(&ask(&running, "DELETE", path, "")), "400", "{path}");
    }
    for (_, encoded) in NAMES {
        assert_eq!(status(&ask(&running, "DELETE", &format!("/api/topics/{encoded}"), "")), "204");
    }
    assert_eq!(get(&running, "/api/topics"), json!({"topics": [], "next": null}));
}

/// Goes through a list to its end; the members' names, and the pages.
fn all(running: &crate::Running, list: &str, name: &str, limit: &str) -> (Vec<String>, usize) {
    let (mut names, mut pages, mut after) = (Vec::new(), 0, String::new());
    loop {
        let page = get(running, &format!("/api/{list}?limit={limit}{after}"));
        pages += 1;
        for member in page[list].as_array().unwrap() {
            names.push(member[name].as_str().unwrap().to_owned());
        }
        after = match &page["next"] {
            Value::Null => return (names, pages),
            Value::String(id) => format!("&after={id}"),
            number => format!("&after={number}"),
        };
    }
}

#[test]
fn lists_come_in_pages_that_show_everyone_once() {
    let running = start(|config| config.limits.poll_bytes = 1000, quiet);
    let mut expected = BTreeSet::new();
    for at in 0..25 {
        publish(&running, &format!("t{at}"), "x");
        expected.insert(format!("t{at}"));
    }
    for (limit, pages) in [("1", 25), ("10", 3), ("24", 3), ("1000", 3), ("99999999999", 3)] {
        let (names, counted) = all(&running, "topics", "topic", limit);
        assert_eq!(names.iter().cloned().collect::<BTreeSet<_>>(), expected, "{limit}");
        assert_eq!((names.len(), counted), (25, pages), "in pages of {limit}, or of 1000 bytes");
    }
    for at in (0..25).step_by(2) {
        assert_eq!(status(&ask(&running, "DELETE", &format!("/api/topics/t{at}"), "")), "204");
    }
    assert_eq!(all(&running, "topics", "topic", "5").0.len(), 12, "over the holes they left");

    let mut sockets: Vec<(Socket, pousse::ConnId)> =
        (0..7).map(|_| running.open_with_id("/websocket?topic=t1")).collect();
    drop(sockets.remove(3));
    until(&running, "it has left", || all(&running, "clients", "id", "100").0.len() == 6);
    for limit in ["1", "3", "6", "7"] {
        let ids = all(&running, "clients", "id", limit).0;
        let there: Vec<String> = sockets.iter().map(|(_, id)| id.to_string()).collect();
        assert_eq!(ids, there, "in pages of {limit}");
    }
    for query in ["limit=0", "limit=x", "after=x", "after=-1", "after=", "limit=%zz"] {
        for list in ["topics", "clients"] {
            let answer = ask(&running, "GET", &format!("/api/{list}?{query}"), "");
            assert_eq!(status(&answer), "400", "{list} {query}: {answer}");
        }
    }
    let beyond = get(&running, "/api/topics?after=18446744073709551615");
    assert_eq!(beyond, json!({"topics": [], "next": null}));
    assert_eq!(get(&running, "/api/clients?after=4294967295-1")["clients"], json!([]));
}

#[test]
fn a_topic_that_is_deleted_is_a_gap_to_who_comes_back_on_every_transport() {
    let running = start(|_| {}, quiet);
    let mut up_to_date = running.open("/websocket?topic=t&after=earliest");
    let first = publish(&running, "t", "1");
    let last = publish(&running, "t", "2");
    assert_eq!((up_to_date.hears(), up_to_date.hears()), ("1".into(), "2".into()));
    assert_eq!(status(&ask(&running, "DELETE", "/api/topics/t", "")), "204");
    let topic = get(&running, "/api/topics/t");
    let expected =
        json!({"topic":"t","readers":1,"messages":0,"bytes":0,"oldest":null,"last":last});
    assert_eq!(topic, expected, "its readers stay, and so it does");
    let metrics = ask(&running, "GET", "/metrics", "");
    assert!(metrics.contains("\npousse_history_dropped_messages_total 2\n"), "{metrics}");

    let query = format!("topic=t&after={first}");
    for wait in ["", "&wait=50"] {
        let poll = get(&running, &format!("/api/messages?{query}{wait}"));
        assert_eq!((&poll["gap"], &poll["messages"]), (&json!(true), &json!([])), "{wait}");
    }
    let poll = get(&running, &format!("/api/messages?topic=t&after={last}"));
    assert_eq!(poll["gap"], false, "who had all of it has missed nothing");
    let mut events = stream(running.address(), &query).unwrap();
    assert!(block(&mut events, "event: gap").contains(&format!("\"after\":\"{first}\"")));
    let mut text = running.open(&format!("/websocket?{query}"));
    assert_eq!(text.hears_close(), (1013, format!("gap; oldest {last}")));
    let (mut session, _) = session(running.address(), &query);
    let gap = json!({"gap": {"topic": "t", "after": first, "oldest": last}});
    assert_eq!(hears(&mut session), gap);
    assert_eq!(hears(&mut session)["subscribed"], "t");

    publish(&running, "t", "3");
    assert_eq!(up_to_date.hears(), "3", "and reads on");
    assert_eq!(hears(&mut session)["data"], "3");
    block(&mut events, "\"3\"");
}

#[test]
fn an_unread_topic_that_is_deleted_is_gone_and_still_a_gap() {
    let running = start(|_| {}, quiet);
    let first = publish(&running, "t", "1");
    let last = publish(&running, "t", "2");
    assert_eq!(status(&ask(&running, "DELETE", "/api/topics/t", "")), "204");
    assert_eq!(status(&ask(&running, "GET", "/api/topics/t", "")), "404");
    assert_eq!(get(&running, "/api/messages?topic=t")["messages"], json!([]));
    let told =
        |id: &str| get(&running, &format!("/api/messages?topic=t&after={id}"))["gap"].clone();
    assert_eq!((told(&first), told(&last)), (json!(true), json!(false)));
}

#[test]
fn readers_who_are_behind_when_their_topic_is_deleted_are_told_when_they_read_on() {
    // More than the sockets between us take.
    const MESSAGES: usize = 600;
    let running = start(
        |config| {
            config.limits.history_bytes = 256 << 20;
            config.limits.history_total = 512 << 20;
            config.limits.stall = std::time::Duration::from_secs(1000);
        },
        quiet,
    );
    let (mut session, _) = session(running.address(), "topic=t");
    assert_eq!(hears(&mut session)["subscribed"], "t");
    let mut events = stream(running.address(), "topic=t").unwrap();
    let mut text = running.open("/websocket?topic=t");
    let long = "a".repeat(60_000);
    running.ask(move |ctx| {
        for _ in 0..MESSAGES {
            ctx.publish("t", &long).unwrap();
        }
    });
    // All of them have been offered it once a message published since has been.
    let lags = || {
        let page = get(&running, "/api/clients");
        let clients = page["clients"].as_array().unwrap().clone();
        clients.iter().map(|client| client["lag"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let full = || {
        let (before, now) = (lags(), lags());
        now == before && now.iter().all(|lag| (1..MESSAGES as u64).contains(lag))
    };
    until(&running, "they take no more", full);
    assert_eq!(status(&ask(&running, "DELETE", "/api/topics/t", "")), "204");
    publish(&running, "t", "after it");

    let mut count = 0;
    let gap = loop {
        let told = hears(&mut session);
        if told.get("gap").is_some() {
            break told;
        }
        count += 1;
    };
    assert!((1..MESSAGES).contains(&count), "{count}");
    assert_eq!(gap["gap"]["topic"], "t");
    assert_eq!(hears(&mut session)["data"], "after it");
    let told = block(&mut events, "event: gap");
    assert!(told.contains("\"topic\":\"t\""), "{told}");
    block(&mut events, "after it");
    let code = loop {
        match text.next() {
            tungstenite::Message::Close(frame) => break frame.unwrap(),
            message => assert!(message.is_text()),
        }
    };
    assert_eq!(u16::from(code.code), 1013);
    assert!(code.reason.as_str().starts_with("gap; oldest "), "{code}");
}

#[test]
fn clients_are_shown_as_they_are() {
    let running = start(|_| {}, quiet);
    let (text, id) = running.open_with_id("/websocket?topic=a&topic=b%22");
    let client = get(&running, &format!("/api/clients/{id}"));
    let peer = text.0.get_ref().local_addr().unwrap().to_string();
    assert_eq!(client["id"], id.to_string());
    assert_eq!(client["transport"], "websocket");
    assert_eq!(client["peer"], peer);
    assert_eq!(client["topics"], json!(["a", "b\""]));
    assert_eq!((&client["lag"], &client["bytes"]), (&json!(0), &json!(0)));
    let since = client["since"].as_str().unwrap();
    assert!(since.len() == 20 && since.ends_with('Z') && since.as_bytes()[10] == b'T', "{since}");
    assert_eq!(client.as_object().unwrap().len(), 7, "{client}");

    let _events = stream(running.address(), "topic=a").unwrap();
    let mut waits = connect(running.address());
    waits.write_all(request("GET", "/api/messages?wait=50", "", "").as_bytes()).unwrap();
    let mut rests = connect(running.address());
    rests.write_all(request("GET", "/api/messages", "", "").as_bytes()).unwrap();
    answer(&mut rests);
    let transports = || {
        let page = get(&running, "/api/clients");
        let clients = page["clients"].as_array().unwrap().clone();
        let word = |client: &Value| client["transport"].as_str().unwrap().to_owned();
        clients.iter().map(word).collect::<BTreeSet<_>>()
    };
    let four = ["event-stream", "http", "long-poll", "websocket"].map(String::from);
    until(&running, "all of them", || transports() == BTreeSet::from(four.clone()));
    for path in ["0-0", "x", "1", "-", "0-", "+0-1", "0-1-2", "99999999999-1", "%30-1"] {
        let path = format!("/api/clients/{path}");
        for method in ["GET", "DELETE", "POST"] {
            assert_eq!(status(&ask(&running, method, &path, "")), "404", "{method} {path}");
        }
    }
    let own = get(&running, "/api/clients")["clients"].as_array().unwrap().len();
    assert_eq!(own, 4, "who asks here is none of them");
}

#[test]
fn a_client_can_be_closed_whatever_its_transport() {
    let running = start(|_| {}, quiet);
    let close = |id: &str| {
        let answer = ask(&running, "DELETE", &format!("/api/clients/{id}"), "");
        assert_eq!((status(&answer), content(&answer)), ("204", ""), "{answer}");
    };
    let (mut text, id) = running.open_with_id("/websocket");
    close(&id.to_string());
    assert_eq!(text.hears_close(), (1008, "closed by the owner of the server".into()));
    let told = Said::Close(id, 1008, "closed by the owner of the server".into());
    assert_eq!(running.said(), told, "and the handler is told");
    let path = format!("/api/clients/{id}");
    until(&running, "gone", || status(&ask(&running, "DELETE", &path, "")) == "404");

    let (mut session, hello) = session(running.address(), "");
    close(hello["hello"]["client"].as_str().unwrap());
    assert_eq!(session.hears_close().0, 1008);

    let only = || get(&running, "/api/clients")["clients"][0]["id"].as_str().map(String::from);
    let now_there = || {
        let mut id = None;
        until(&running, "it is there", || {
            id = only();
            id.is_some()
        });
        id.unwrap()
    };
    until(&running, "nobody is there", || only().is_none());
    let mut events = stream(running.address(), "").unwrap();
    close(&now_there());
    while !has_ended(&mut events) {}
    drop(events);
    until(&running, "nobody is there", || only().is_none());
    let mut waits = connect(running.address());
    waits.write_all(request("GET", "/api/messages?wait=50", "", "").as_bytes()).unwrap();
    close(&now_there());
    let answered = answer(&mut waits);
    assert_eq!(status(&answered), "200", "it is answered, and then it ends");
    assert!(has_ended(&mut waits));
    drop(waits);
    until(&running, "nobody is there", || only().is_none());
    let mut rests = connect(running.address());
    close(&now_there());
    assert!(has_ended(&mut rests));
    let closed = || running.counters().closed(pousse::Reason::Control);
    until(&running, "five closed", || closed() == 5);
}

#[test]
fn a_message_can_be_sent_to_one_websocket() {
    let running = start(|config| config.limits.outbox = 100_000, quiet);
    let post = |id: &str, fields: &str, content: &str| {
        let mut socket = connect(door(&running));
        let target = format!("/api/clients/{id}");
        socket.write_all(request("POST", &target, fields, content).as_bytes()).unwrap();
        status(&answer(&mut socket)).to_owned()
    };
    let (mut text, id) = running.open_with_id("/websocket");
    let (mut other, _) = running.open_with_id("/websocket");
    let id = id.to_string();
    assert_eq!(post(&id, "", "for you"), "202");
    assert_eq!(text.hears(), "for you");
    assert_eq!(post(&id, "Content-Type: application/octet-stream\r\n", "bytes"), "202");
    assert_eq!(text.next(), tungstenite::Message::binary(&b"bytes"[..]));
    assert_eq!(post(&id, "", ""), "202");
    assert_eq!(text.hears(), "");
    let mut socket = connect(door(&running));
    let head = format!("POST /api/clients/{id} HTTP/1.1\r\nHost: a.localhost\r\n");
    socket.write_all(format!("{head}Content-Length: 2\r\n\r\n").as_bytes()).unwrap();
    socket.write_all(b"\xff\xfe").unwrap();
    assert_eq!(status(&answer(&mut socket)), "202");
    assert_eq!(text.next(), tungstenite::Message::binary(&b"\xff\xfe"[..]), "what is no text");

    let (mut session, hello) = session(running.address(), "");
    let session_id = hello["hello"]["client"].as_str().unwrap();
    assert_eq!(post(session_id, "", "for \"you\""), "202");
    assert_eq!(hears(&mut session), json!({"data": "for \"you\""}));
    publish(&running, "general", "for all");
    assert_eq!(other.hears(), "for all", "and nobody else was sent it");

    let _events = stream(running.address(), "topic=e").unwrap();
    let page = get(&running, "/api/clients");
    let events = page["clients"].as_array().unwrap().iter().rev();
    let events = events.clone().find(|client| client["transport"] == "event-stream").unwrap();
    assert_eq!(post(events["id"].as_str().unwrap(), "", "x"), "404", "it reads no WebSocket");
    assert_eq!(post("0-0", "", "x"), "404");

    // One who takes nothing.
    let mut blocked = connect(running.address());
    blocked.write_all(opening("/websocket?topic=none").as_bytes()).unwrap();
    answer(&mut blocked);
    let opened = running.rest().into_iter().rev().find_map(|said| match said {
        Said::Open(id) => Some(id.to_string()),
        _ => None,
    });
    let id = opened.unwrap();
    let long = "a".repeat(60_000);
    until(&running, "full", || post(&id, "", &long) == "503");
    let refused = running.counters().refused(pousse::Reason::Outbox);
    assert_eq!(refused, 1, "one refusal is counted once");
    let full = http(connect(door(&running)), "POST", &format!("/api/clients/{id}"), "x");
    assert!(full.contains("\r\nRetry-After: 5\r\n"), "{full}");
    let client = get(&running, &format!("/api/clients/{id}"));
    assert!(client["bytes"].as_u64().unwrap() >= 100_000, "{client}");
}
