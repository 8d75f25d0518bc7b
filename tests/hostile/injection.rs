//! Text of a peer where it could be taken for somebody else's: in the fields of an answer, in the
//! page of an error, in the blocks of an event stream, in the lines of the log.

use crate::peer::{PATIENCE, Peer, ms, opening, posting};
use crate::support::now;
use crate::support::websocket::{CLOSE, TEXT, close_payload, frame};
use crate::target::Target;

/// A word that no answer has unless it comes from the request.
const MARK: &str = "zq7marker";

#[test]
fn no_answer_has_a_field_that_a_peer_made() {
    let mut target = Target::start(&["--publish", "anyone"]);
    target.survives(|target| {
        let tricks = [
            "%0d%0aX-Evil:%20yes",
            "%0aX-Evil:%20yes",
            "%0dX-Evil:%20yes",
            "%0d%0a%0d%0a<script>",
            "%E5%98%8A%E5%98%8DX-Evil:%20yes",
            "%c4%8d%c4%8aX-Evil:%20yes",
            "%u000aX-Evil:yes",
            "%250d%250aX-Evil:%20yes",
            "\\r\\nX-Evil:%20yes",
        ];
        for trick in tricks {
            for request in [
                format!("GET /{trick}"),
                format!("GET /api/messages?topic={trick}"),
                format!("GET /api/messages?after={trick}"),
                format!("GET /api/messages?wait={trick}"),
                format!("GET /api/messages?limit={trick}"),
                format!("GET /api/messages?format={trick}"),
                format!("GET /api/messages?{trick}={trick}"),
                format!("POST /api/messages?topic={trick}"),
                format!("OPTIONS /{trick}"),
                format!("BREW /{trick}"),
                format!("GET http://localhost/{trick}"),
            ] {
                for field in ["Prefer: wait=", "If-None-Match: ", "Accept: ", "Last-Event-ID: "] {
                    let mut peer = Peer::connect(&target.door);
                    peer.says(format!(
                        "{request} HTTP/1.1\r\nHost: localhost\r\n{field}{trick}\r\n\
                         Connection: close\r\n\r\n"
                    ));
                    let answer = peer.answer();
                    assert!(answer.field("X-Evil").is_none(), "{request}: {answer}");
                    let fields = format!("{:?}", answer.fields);
                    assert!(!fields.contains("Evil"), "{request}: {answer}");
                    assert_eq!(peer.ends(), b"", "{request}: something behind the answer");
                }
            }
        }
    });
}

#[test]
fn an_error_has_nothing_of_the_request_in_it() {
    let mut target = Target::start(&[]);
    target.survives(|target| {
        let html = "<script>alert(1)</script>";
        let encoded = "%3Cscript%3E";
        let host = "Host: localhost";
        let upgrade = opening("/websocket", "").replace("GET ", "").replacen("HTTP/1.1", "", 0);
        let requests = [
            format!("GET /{MARK}{encoded} HTTP/1.1\r\n{host}\r\n\r\n"),
            format!("GET /api/messages?topic={MARK}%00 HTTP/1.1\r\n{host}\r\n\r\n"),
            format!("GET /api/messages?after={MARK} HTTP/1.1\r\n{host}\r\n\r\n"),
            format!("GET /api/messages?wait={MARK} HTTP/1.1\r\n{host}\r\n\r\n"),
            format!("GET /api/messages?limit={MARK} HTTP/1.1\r\n{host}\r\n\r\n"),
            format!("GET /api/messages?{MARK}=%ff HTTP/1.1\r\n{host}\r\n\r\n"),
            format!("{MARK} / HTTP/1.1\r\n{host}\r\n\r\n"),
            format!("DELETE /api/messages?{MARK} HTTP/1.1\r\n{host}\r\n\r\n"),
            format!("GET {MARK} HTTP/1.1\r\n{host}\r\n\r\n"),
            format!("GET / {MARK}/1.1\r\n{host}\r\n\r\n"),
            format!("GET / HTTP/1.1\r\n{host}\r\n{MARK}\r\n\r\n"),
            format!("GET / HTTP/1.1\r\n{host}\r\n{MARK} : {html}\r\n\r\n"),
            format!("GET / HTTP/1.1\r\nHost: {MARK}.example\r\n\r\n"),
            format!("GET / HTTP/1.1\r\nHost: {MARK} {html}\r\n\r\n"),
            format!("GET /api/messages HTTP/1.1\r\n{host}\r\nOrigin: https://{MARK}\r\n\r\n"),
            format!("GET /websocket?{MARK} HTTP/1.1\r\n{host}\r\n\r\n"),
            format!("POST /{MARK} HTTP/1.1\r\n{host}\r\nContent-Length: 0\r\n\r\n"),
            format!("POST /api/messages HTTP/1.1\r\n{host}\r\nContent-Length: {MARK}\r\n\r\n"),
            format!("POST /api/messages HTTP/1.1\r\n{host}\r\nTransfer-Encoding: {MARK}\r\n\r\n"),
            format!("GET /{} HTTP/1.1\r\n{host}\r\n\r\n", MARK.repeat(600)),
            format!("GET / HTTP/1.1\r\n{host}\r\n{}\r\n", format!("{MARK}: {html}\r\n").repeat(99)),
            format!(
                "GET /websocket HTTP/1.1\r\n{upgrade}",
                upgrade =
                    upgrade.split_once("\r\n").unwrap().1.replace("dGhlIHNhbXBsZSBub25jZQ==", MARK)
            ),
            opening("/websocket", &format!("Sec-WebSocket-Protocol: {MARK}\r\n")),
            opening("/websocket", "").replace("Version: 13", &format!("Version: {MARK}")),
            String::from_utf8(posting(
                "/api/messages",
                &format!("Idempotency-Key: {MARK}{}\r\n", "k".repeat(128)),
                MARK.as_bytes(),
            ))
            .unwrap(),
        ];
        for request in requests {
            let mut peer = Peer::connect(&target.door);
            peer.says(&request);
            let answer = peer.answer();
            let shown = &request[..request.len().min(80)];
            assert!(answer.status >= 400, "{shown:?}: {answer}");
            let whole = format!("{answer} {:?}", String::from_utf8_lossy(&answer.content));
            let reflects = whole.contains(MARK) || whole.contains("script");
            assert!(!reflects, "{shown:?}: {answer}");
        }
    });
}

/// What a browser makes of the bytes of an event stream, by the letter of the HTML standard
/// (§9.2.6, "interpreting an event stream"): lines end in CR LF, LF or CR.
fn interpret(stream: &[u8]) -> Vec<Event> {
    let text = String::from_utf8(stream.to_vec()).expect("an event stream is UTF-8");
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).replace("\r\n", "\n");
    let (mut events, mut event, mut last_id) = (Vec::new(), Event::default(), String::new());
    let mut has_data = false;
    for line in text.split(['\n', '\r']) {
        if line.is_empty() {
            if has_data {
                event.data.pop();
                event.id.clone_from(&last_id);
                events.push(std::mem::take(&mut event));
            }
            (event, has_data) = (Event::default(), false);
            continue;
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => event.kind = value.into(),
            "data" => {
                event.data += value;
                event.data.push('\n');
                has_data = true;
            }
            "id" if !value.contains('\0') => last_id = value.into(),
            "retry" => event.retries += 1,
            _ => {}
        }
    }
    events
}

#[derive(Debug, Default)]
struct Event {
    kind: String,
    data: String,
    id: String,
    retries: u32,
}

#[test]
fn an_event_of_a_stream_is_the_message_and_no_second_event_whatever_is_in_it() {
    let mut target = Target::start(&["--publish", "anyone"]);
    let texts = [
        "plain",
        "",
        " leading space",
        "\nid: 666\n\n",
        "a\n\nevent: evil\ndata: forged\nid: 6-6\n\n",
        "a\r\rdata: forged\r\r",
        "a\r\n\r\nevent: gap\r\ndata: {}\r\n\r\n",
        "a\n\rdata: forged\n\r",
        "\r",
        "\n",
        "\r\n",
        "\r\n\n\r",
        "retry: 1\n\nretry: 1",
        "\u{feff}data: x",
        ": comment",
        "\0id: 1\0",
        "a\u{2028}data: x\u{2029}data: y\u{85}data: z\u{b}data: w\u{c}data: v",
        "</script><script>alert(1)</script>",
        "\"}\n\ndata: {\"id\":\"1-1\"",
        "\u{1b}[2J",
    ];
    let topics =
        ["a", "\u{2028}", "\"", "\\", "data: x", ":", "é\u{1f600}", "</script>", "a b,c;d"];
    let encode =
        |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
    target.survives(|target| {
        for topic in topics {
            for format in ["&format=text", ""] {
                let path = format!("/api/messages?topic={}", encode(topic));
                let mut stream = Peer::streams(&target.door, &format!("{path}{format}"));
                let mut ids = Vec::new();
                for text in texts {
                    let answer = target.asks(posting(&path, "", text.as_bytes()));
                    assert_eq!(answer.status, 201, "{answer}");
                    ids.push(answer.json().unwrap()["id"].as_str().unwrap().to_owned());
                }
                let end = format!("the end of {topic}");
                target.asks(posting(&path, "", end.as_bytes()));
                let deadline = now() + PATIENCE;
                while !String::from_utf8_lossy(&stream.wire.unread).contains("the end of") {
                    assert_eq!(stream.wire.fill(deadline), crate::support::Came::More);
                }
                // The block's last line.
                while !stream.wire.unread.ends_with(b"\n\n") {
                    stream.wire.fill(deadline);
                }
                let events = interpret(&stream.wire.unread);
                assert_eq!(events.len(), texts.len() + 1, "{topic:?}{format}: {events:?}");
                for ((event, text), id) in events.iter().zip(texts).zip(&ids) {
                    assert_eq!((&*event.kind, &event.id, event.retries), ("", id, 0), "{event:?}");
                    if format.is_empty() {
                        let told: serde_json::Value = serde_json::from_str(&event.data).unwrap();
                        assert_eq!(told["data"], text);
                        assert_eq!(told["topic"], topic);
                    } else {
                        let lines = text.replace("\r\n", "\n").replace('\r', "\n");
                        assert_eq!(event.data, lines, "{text:?}");
                    }
                }
            }
        }
    });
}

#[test]
fn a_gap_in_a_topic_of_any_name_is_one_event_of_a_stream() {
    let mut target = Target::start(&["--history", "1"]);
    target.survives(|target| {
        for topic in ["%22", "%E2%80%A8", "a:%20b", "data%3A%20x", "%5C", "%5C%22"] {
            let mut stream = Peer::connect(&target.door);
            stream.says(format!(
                "GET /api/messages?topic={topic}&after=1-1 HTTP/1.1\r\nHost: localhost\r\n\
                 Accept: text/event-stream\r\n\r\n"
            ));
            assert_eq!(stream.answer().status, 200);
            let deadline = now() + PATIENCE;
            while !String::from_utf8_lossy(&stream.wire.unread).contains("oldest\"") {
                stream.wire.fill(deadline);
            }
            let _ = stream.wire.fill(now() + ms(50));
            let events = interpret(&stream.wire.unread);
            assert_eq!(events.len(), 1, "{events:?}");
            assert_eq!((&*events[0].kind, &*events[0].id), ("gap", ""));
            let told: serde_json::Value = serde_json::from_str(&events[0].data).unwrap();
            assert_eq!(told["after"], "1-1");
        }
    });
}

#[test]
fn a_line_of_the_log_is_one_line_whatever_a_peer_says() {
    let mut target = Target::start(&["--log", "debug", "--publish", "anyone"]);
    let evil = "\r\n2026-01-01T00:00:00Z error event=forged\x1b[2J\x1b]0;x\x07\x08\x7f\
                \u{85}\u{9b}31m\u{202e}\u{2028}\u{200b}";
    let encoded: String = evil.bytes().map(|byte| format!("%{byte:02X}")).collect();
    target.survives(|target| {
        for request in [
            format!("GET /{encoded}"),
            format!("GET /sub/{encoded}/x"),
            format!("GET /api/messages?topic={encoded}"),
            format!("GET /api/messages?after={encoded}"),
            format!("POST /api/messages?topic={encoded}"),
            format!("BREW /{encoded}"),
            format!("GET /{}", "%0a".repeat(1300)),
            format!("GET /{}", "a".repeat(4000)),
            format!("PUT /{}", "a".repeat(4000)),
            "GET /api/messages/event=forged%20reason=done".to_owned(),
        ] {
            target.asks(format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        }
        for field in ["Host", "Origin", "User-Agent", "Referer", "X-Forwarded-For", "Forwarded"] {
            for value in ["a event=forged", "\x1b[2J", "\u{202e}\u{85}", "a\rb", "a\0b"] {
                let host = if field == "Host" { "" } else { "Host: localhost\r\n" };
                target.asks(format!("GET /no HTTP/1.1\r\n{host}{field}: {value}\r\n\r\n"));
                let mut peer = Peer::connect(&target.door);
                peer.says(opening("/websocket", &format!("{field}: {value}\r\n")));
                peer.answer();
            }
        }
        // Of one event only so many lines are logged in a second, and all of the next are wanted.
        target.waits(ms(1100));
        // The reason of a close frame is text of the peer's that is logged as such.
        for (number, reason) in [
            "\r\nevent=forged",
            "\" event=forged reason=\"",
            "\x1b[2J",
            "\u{85}\u{9b}31m",
            "\u{202e}\u{2028}\u{200b}",
            "\\\"",
        ]
        .into_iter()
        .enumerate()
        {
            let mut peer = Peer::opens(&target.door, "/websocket", "");
            let code = 4000 + number as u16;
            peer.says(frame(true, CLOSE, &close_payload(code, reason.as_bytes())));
            assert_eq!(peer.close_code(), code);
            peer.ends();
            target.logs(&format!("code={code}"));
        }
        let mut peer = Peer::opens_v1(&target.door, "/websocket");
        let command = serde_json::json!({ "subscribe": evil, "publish": evil, "ref": evil });
        peer.says(frame(true, TEXT, command.to_string().as_bytes()));
        peer.hears();
    });
    for line in target.log().split('\n').filter(|line| !line.starts_with("pousse ")) {
        let raw = line.chars().find(|c| c.is_control() || "\u{202e}\u{2028}\u{200b}".contains(*c));
        assert!(raw.is_none(), "{raw:?} in {line:?}");
        let mut words = line.split(' ');
        let (time, level, event) = (words.next().unwrap(), words.next(), words.next());
        let is_line = time.len() == 20
            && time.ends_with('Z')
            && matches!(level, Some("error" | "warn" | "info" | "debug"))
            && event.is_some_and(|event| event.starts_with("event=") && event != "event=forged");
        assert!(is_line, "no line of ours: {line:?}");
        // Outside of quotes nothing is said that a peer said.
        let outside: String =
            line.replace("\\\\", "").replace("\\\"", "").split('"').step_by(2).collect();
        assert!(!outside.contains("forged"), "{line}");
        assert!(line.len() <= 4096, "{} bytes", line.len());
        let has_reason = !line.contains("event=refused") || line.contains(" reason=");
        assert!(has_reason, "a long path has pushed the reason out of {line}");
    }
}

#[test]
fn a_flood_of_what_is_logged_is_no_flood_of_the_log_and_holds_nobody_up() {
    let mut target = Target::start(&[]);
    target.withstands("a flood of refusals", |target| {
        target.flood(4, |door, flood| {
            while flood.goes_on() {
                let mut peer = Peer::connect(door);
                let wrong = "GET /api/messages?limit=x HTTP/1.1\r\nHost: localhost\r\n\r\n";
                peer.says(wrong.repeat(200));
                for _ in 0..200 {
                    assert_eq!(peer.answer().status, 400);
                }
            }
        });
    });
    // How many were left out is told by the first line of a later second.
    target.waits(ms(1100));
    target.asks("GET /api/messages?limit=x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    target.logs("event=log_suppressed of=refused");
    let lines = target.log().lines().filter(|line| line.contains("event=refused ")).count();
    let refused = target.counter("refused.request");
    println!("{lines} lines of log for {refused} refusals");
    // A hundred a second, and the flood lasts for some seconds at most.
    assert!(refused > 1000 && lines <= 2000, "{lines} lines for {refused}");
}
