//! Pages of other sites in the browser of somebody who may connect, and names that were made to
//! point here (DNS rebinding). Nothing is to be read by them, and nothing said.

use crate::peer::{Peer, opening};
use crate::target::Target;

/// `$PORT` is the server's own, `$HOST` is what the request says in `Host`.
const FOREIGN: &[&str] = &[
    "https://evil.example",
    "http://evil.example:$PORT",
    "null",
    "NULL",
    "",
    "*",
    "file://",
    "http://localhost:1",
    "http://localhost",
    "http://$HOST.evil.example",
    "http://evil.example/$HOST",
    "http://evil.example#$HOST",
    "http://evil.example?$HOST",
    "http://evil.example\\@$HOST",
    "http://$HOST@evil.example",
    "http://localhost.evil.example:$PORT",
    "http://evillocalhost:$PORT",
    "http://127.0.0.1.evil.example:$PORT",
    "http://2130706433.evil.example:$PORT",
    "http://$HOST/",
    "http://$HOST/path",
    "http://$HOST http://evil.example",
    "https://evil.example, http://$HOST",
    "http://$HOST, https://evil.example",
    "chrome-extension://abcdefghijklmnop",
    "moz-extension://$HOST:1",
    "data:text/html,x",
    "javascript:alert(1)",
    "//$HOST",
    "$HOST",
    "http:$HOST",
    "http://[::1]:1",
    "http://0.0.0.0:1",
    "http://[::ffff:127.0.0.1]:1",
    "http://localhost:$PORT0",
    "http://localhost:0$PORT:",
    "http://l\u{f6}calhost:$PORT",
];

#[test]
fn a_page_of_another_site_can_neither_read_nor_say_anything() {
    let mut target = Target::start(&["--publish", "anyone"]);
    target.survives(|target| {
        for origin in FOREIGN {
            let host = target.address().to_string();
            let port = target.address().port().to_string();
            let origin = origin.replace("$HOST", &host).replace("$PORT", &port);
            let field = format!("Origin: {origin}\r\n");
            let request = |line: &str, more: &str| {
                format!("{line} HTTP/1.1\r\nHost: {host}\r\n{field}{more}\r\n")
            };
            let post = |kind: &str| {
                request(
                    "POST /api/messages",
                    &format!("Content-Type: {kind}\r\nContent-Length: 0\r\n"),
                )
            };
            for (what, request) in [
                (
                    "upgrade",
                    opening("/websocket", &field)
                        .replace("Host: localhost", &format!("Host: {host}")),
                ),
                (
                    "upgrade to pousse.v1",
                    opening("/api/messages", "Sec-WebSocket-Protocol: pousse.v1\r\n")
                        .replace("Host: localhost\r\n", &format!("Host: {host}\r\n{field}")),
                ),
                ("poll", request("GET /api/messages", "")),
                ("HEAD", request("HEAD /api/messages", "")),
                ("long poll", request("GET /api/messages?wait=9", "")),
                ("event stream", request("GET /api/messages", "Accept: text/event-stream\r\n")),
                ("form", post("application/x-www-form-urlencoded")),
                ("plain text", post("text/plain")),
                ("JSON", post("application/json")),
                ("no kind", request("POST /api/messages", "Content-Length: 0\r\n")),
            ] {
                let mut peer = Peer::connect(&target.door);
                peer.says(&request);
                let answer = peer.answer_to(what == "HEAD");
                assert!(matches!(answer.status, 400 | 403), "{what} of {origin:?}: {answer}");
                let allowed = answer.field("Access-Control-Allow-Origin");
                assert_eq!(allowed, None, "{what} of {origin:?}");
            }
            // What a browser asks before: it hears that nothing is allowed.
            let mut peer = Peer::connect(&target.door);
            peer.says(request(
                "OPTIONS /api/messages",
                "Access-Control-Request-Method: POST\r\n\
                 Access-Control-Request-Headers: authorization\r\n",
            ));
            let answer = peer.answer();
            assert_eq!(answer.field("Access-Control-Allow-Origin"), None, "{origin:?}");
        }
        let told = target.gets("/api/messages").json().unwrap();
        assert_eq!(told["messages"], serde_json::json!([]), "nothing was said");
    });
    assert!(target.counter("refused.origin") > 100);
}

#[test]
fn two_origins_are_none_that_passes() {
    let mut target = Target::start(&["--publish", "anyone"]);
    target.survives(|target| {
        let host = target.address();
        let own = format!("Origin: http://{host}\r\n");
        let evil = "Origin: https://evil.example\r\n";
        for fields in [format!("{own}{evil}"), format!("{evil}{own}")] {
            for line in ["GET /api/messages", "POST /api/messages"] {
                let answer =
                    target.asks(format!("{line} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"));
                assert!(matches!(answer.status, 400 | 403), "{line}: {answer}");
            }
        }
    });
}

/// Names that are not this machine's, however much they look like it; `421`, or `400` where it is
/// no name at all.
const REBOUND: &[&str] = &[
    "evil.example",
    "evil.example:$PORT",
    "evil.example.",
    "localhost.evil.example",
    "evil-localhost",
    "evillocalhost:$PORT",
    "127.0.0.1.evil.example",
    "127.0.0.1.nip.io",
    "10.0.0.1",
    "192.168.0.1:$PORT",
    "0.0.0.0",
    "0.0.0.0:$PORT",
    "0",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.1",
    "127.0.0.1.",
    "128.0.0.1",
    "[::]",
    "[::2]",
    "[::ffff:10.0.0.1]",
    "[fe80::1]",
    "[::1",
    "::1",
    "localhost:",
    "localhost:0x50",
    "localhost:99999",
    "localhost:-1",
    "localhost%00.evil.example",
    "localhost\u{0}.evil.example",
    "loc\u{e4}lhost",
    "localhost,evil.example",
    "user@localhost",
    "localhost@evil.example",
    "localhost/evil",
    "localhost?evil",
    "localhost#evil",
    "localhost\\evil",
    ".",
    "..",
    "..localhost",
    ".localhost",
    "xn--localhost-cua",
    "*.localhost",
    "_",
    "",
];

/// Of these, what this machine takes for its own: nobody else can have a name beneath `localhost`
/// (RFC 6761 §6.3), and ports are not compared.
const OWN: &[&str] = &["127.0.0.1.", "localhost:", "*.localhost", ".localhost", "..localhost"];

#[test]
fn a_name_that_was_made_to_point_here_opens_nothing() {
    let mut target = Target::start(&["--publish", "anyone"]);
    target.survives(|target| {
        for host in REBOUND {
            let port = target.address().port().to_string();
            let name = host.replace("$PORT", &port);
            for (what, request) in [
                ("page", format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n")),
                ("poll", format!("GET /api/messages HTTP/1.1\r\nHost: {name}\r\n\r\n")),
                (
                    "publishing",
                    format!(
                        "POST /api/messages HTTP/1.1\r\nHost: {name}\r\nOrigin: http://{name}\r\n\
                         Content-Length: 4\r\n\r\nevil"
                    ),
                ),
                (
                    "upgrade",
                    opening("/websocket", &format!("Origin: http://{name}\r\n"))
                        .replace("Host: localhost", &format!("Host: {name}")),
                ),
                (
                    "absolute",
                    format!("GET http://{name}/api/messages HTTP/1.1\r\nHost: {name}\r\n\r\n"),
                ),
            ] {
                let mut peer = Peer::connect(&target.door);
                peer.says(&request);
                let status = peer.answer().status;
                let is_refused = matches!(status, 400 | 421);
                assert!(is_refused || OWN.contains(host), "{what} of {name:?}: {status}");
            }
        }
    });
    assert!(target.counter("refused.host") > 50);
}

#[test]
fn names_that_are_listed_open_nothing_that_only_looks_like_them() {
    let flags = ["--host", "chat.example.org", "--origin", "https://app.example.org"];
    let mut target = Target::start(&[&flags[..], &["--publish", "anyone"]].concat());
    target.survives(|target| {
        let poll = |host: &str, origin: &str| {
            let origin =
                if origin.is_empty() { String::new() } else { format!("Origin: {origin}\r\n") };
            target.asks(format!("GET /api/messages HTTP/1.1\r\nHost: {host}\r\n{origin}\r\n"))
        };
        for (host, origin, expected) in [
            ("chat.example.org", "", 200),
            ("CHAT.example.org.:8443", "", 200),
            ("chat.example.org", "https://app.example.org", 200),
            ("xchat.example.org", "", 421),
            ("chat.example.org.evil.example", "", 421),
            ("x.chat.example.org", "", 421),
            ("example.org", "", 421),
            ("chat.example.org", "https://app.example.org.evil.example", 403),
            ("chat.example.org", "https://xapp.example.org", 403),
            ("chat.example.org", "https://app.example.org:444", 403),
            ("chat.example.org", "https://example.org", 403),
            ("chat.example.org", "https://evil.example/https://app.example.org", 403),
        ] {
            let answer = poll(host, origin);
            assert_eq!(answer.status, expected, "{host} {origin}: {answer}");
            let allowed = answer.field("Access-Control-Allow-Origin");
            let is_listed = origin == "https://app.example.org";
            assert_eq!(allowed.as_deref(), is_listed.then_some(origin), "{host} {origin}");
        }
    });
}
