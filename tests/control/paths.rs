//! Which paths and methods there are, who is refused, and what needs no permission.

use std::io::Write;
use std::os::unix::net::UnixStream;

use pousse::{Answer, CloseCode, Config, Context, Reason, Request, Response};

use crate::common::{Route, Said, Socket, answer, config, connect, content, http, quiet, status};
use crate::{ask, door, get, publish, session, start, stream};

const NOTHING: &str = "DELETE /api/clients/0-0";

#[test]
fn every_path_answers_its_methods_and_names_them_to_the_others() {
    let running = start(|_| {}, quiet);
    publish(&running, "t", "1");
    let lists = "GET, HEAD, OPTIONS";
    for (path, allow) in [
        ("/metrics", lists),
        ("/healthz", lists),
        ("/readyz", lists),
        ("/api/topics", lists),
        ("/api/clients", lists),
        ("/api/topics/t", "GET, HEAD, DELETE, OPTIONS"),
        ("/api/clients/0-0", "GET, HEAD, POST, DELETE, OPTIONS"),
        ("/api/messages", "GET, HEAD, POST, OPTIONS"),
    ] {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "TRACE", "CONNECT", "OPTIONS"] {
            let answer = ask(&running, method, path, "");
            let expected = match method {
                "OPTIONS" => "204",
                _ if !allow.contains(method) => "405",
                _ if path == "/api/clients/0-0" => "404",
                "POST" => "201",
                _ => "200",
            };
            assert_eq!(status(&answer), expected, "{method} {path}");
            let has_allow = answer.contains(&format!("\r\nAllow: {allow}\r\n"));
            assert_eq!(has_allow, matches!(expected, "405" | "204"), "{method} {path}: {answer}");
            if matches!(expected, "404" | "405") && method != "HEAD" {
                assert!(answer.contains("\r\nContent-Type: application/problem+json\r\n"));
                assert!(content(&answer).starts_with("{\"type\":\"about:blank\""), "{answer}");
            }
            if method == "HEAD" {
                assert_eq!(content(&answer), "", "{path}");
            }
            assert!(!answer.contains("Access-Control"), "{answer}");
        }
        assert_eq!(status(&ask(&running, "BREW", path, "")), "501", "{path}");
    }
    let star = ask(&running, "OPTIONS", "*", "");
    assert_eq!(status(&star), "204", "{star}");
    assert_eq!(status(&ask(&running, "DELETE", "/api/topics/t", "")), "204");
    assert!(ask(&running, "GET", "/healthz", "").contains("\r\nCache-Control: no-store\r\n"));
}

#[test]
fn there_are_no_files_and_no_pages_here_and_nothing_of_it_elsewhere() {
    let running = start(|_| {}, quiet);
    for path in ["/", "/pousse.js", "/websocket", "/metric", "/metrics/", "/api", "/api/topics/"] {
        assert_eq!(status(&ask(&running, "GET", path, "")), "404", "{path}");
    }
    assert_eq!(status(&ask(&running, "GET", "/api/clients/", "")), "404");
    for path in ["/metrics", "/healthz", "/readyz", "/api/topics", "/api/clients"] {
        assert_eq!(status(&running.http("GET", path, "")), "404", "{path} on the open listener");
    }
    assert_eq!(status(&running.http("DELETE", "/api/clients/0-1", "")), "405");
}

#[test]
fn any_origin_is_refused_and_shown_nothing_though_it_may_connect_elsewhere() {
    let running = start(|config| config.origins = vec!["https://a.example".into()], quiet);
    let own = format!("http://{}", door(&running));
    for origin in ["https://a.example", "null", "", "file://", "http://localhost", &own] {
        for (method, path) in [
            ("GET", "/healthz"),
            ("GET", "/metrics"),
            ("OPTIONS", "/api/topics"),
            ("DELETE", "/api/topics/t"),
            ("GET", "/api/messages"),
            ("GET", "/nothing"),
        ] {
            let mut socket = connect(door(&running));
            let fields = format!("Host: localhost\r\nOrigin: {origin}\r\n");
            write!(socket, "{method} {path} HTTP/1.1\r\n{fields}\r\n").unwrap();
            let answer = answer(&mut socket);
            assert_eq!(status(&answer), "403", "{method} {path} of {origin:?}");
            assert!(!answer.contains("Access-Control"), "{answer}");
        }
    }
    let post = "POST /api/messages HTTP/1.1\r\nHost: localhost\r\nOrigin: https://a.example\r\n\
                Content-Length: 1\r\n\r\nx";
    let mut socket = connect(door(&running));
    socket.write_all(post.as_bytes()).unwrap();
    assert_eq!(status(&answer(&mut socket)), "403");
    assert_eq!(running.counters().refused(Reason::Origin), 37);
    assert_eq!(running.counters().published, 0);
}

/// Of a picture's address, and of a link's, browsers send no `Origin`.
#[test]
fn a_page_that_asks_without_an_origin_is_refused_and_holds_no_place() {
    let running = start(|_| {}, quiet);
    let ask = |fields: &str| {
        let mut socket = connect(door(&running));
        write!(socket, "GET /api/topics HTTP/1.1\r\nHost: a.localhost\r\n{fields}\r\n").unwrap();
        answer(&mut socket)
    };
    for site in ["cross-site", "same-site", "", "none, cross-site", "None"] {
        let answer = ask(&format!("Sec-Fetch-Site: {site}\r\n"));
        assert_eq!(status(&answer), "403", "{site}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    }
    let two = ask("Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n");
    assert_eq!(status(&two), "403");
    for owner in ["", "Sec-Fetch-Site: none\r\n", "Sec-Fetch-Site: same-origin\r\n"] {
        assert_eq!(status(&ask(owner)), "200", "{owner}");
    }
}

#[test]
fn a_name_that_is_not_of_this_machine_is_421_over_tcp_and_over_a_unix_socket_not_looked_at() {
    let ask = |stream: &mut dyn Both, host: &str| {
        write!(stream, "GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        status(&answer(&mut &mut *stream)).to_owned()
    };
    let running = start(|config| config.hosts = vec!["push.example".into()], quiet);
    let mut socket = connect(door(&running));
    for host in ["localhost", "127.0.0.1:9", "[::1]:9090", "a.localhost", "PUSH.example.:80"] {
        assert_eq!(ask(&mut socket, host), "200", "{host}");
    }
    for host in ["evil.example", "192.0.2.1", "localhost.evil.example"] {
        assert_eq!(ask(&mut socket, host), "421", "{host}");
    }
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("control-host.sock");
    let address: pousse::Address = format!("unix:{}", path.display()).parse().unwrap();
    let mut running = start(|config| config.control = Some(address.clone()), quiet);
    assert_eq!(running.control.as_deref(), Some(&*address.to_string()));
    let mut socket = UnixStream::connect(&path).unwrap();
    assert_eq!(ask(&mut socket, "evil.example"), "200");
    running.stop();
    // Its file goes with the server that `stop` returns.
    assert!(!path.exists());
}

trait Both: std::io::Read + Write {}
impl<T: std::io::Read + Write> Both for T {}

#[test]
fn a_control_listener_that_others_can_reach_is_not_bound() {
    let mut config = config();
    config.control = Some("0.0.0.0:0".parse().unwrap());
    let error = pousse::Server::bind(config, Nothing).err().unwrap();
    assert!(matches!(error, pousse::Error::Config(_)), "{error}");
}

struct Nothing;
impl pousse::Handler for Nothing {
    fn on_message(&mut self, _: pousse::ConnId, _: pousse::Message<'_>, _: &mut Context<'_>) {}
}

#[test]
fn a_unix_socket_for_control_does_not_change_who_may_publish() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("control-publish.sock");
    let address: pousse::Address = format!("unix:{}", path.display()).parse().unwrap();
    let change = |config: &mut Config| {
        config.publish = None;
        config.control = Some(address);
    };
    let running = start(change, quiet);
    assert_eq!(status(&running.http("POST", "/api/messages", "x")), "201");
}

/// As the daemon does.
fn publishes(said: &Said, ctx: &mut Context<'_>) {
    if let Said::Text(conn, text) = said {
        match (ctx.may_publish(), ctx.topic(*conn)) {
            (true, Some(topic)) => drop(ctx.publish(&topic, text).unwrap()),
            _ => ctx.close(*conn, CloseCode::Policy, "not here"),
        }
    }
}

#[test]
fn publishing_is_always_allowed_here_and_reaches_the_readers_of_every_listener() {
    let running = start(|_| {}, publishes);
    let mut reader = running.open("/websocket");
    assert_eq!(status(&running.http("POST", "/api/messages", "x")), "403");
    publish(&running, "general", "by POST");
    assert_eq!(reader.hears(), "by POST");

    let mut text = Socket::open(door(&running), "/api/messages");
    text.says("in text mode");
    assert_eq!(reader.hears(), "in text mode");
    assert_eq!(text.hears(), "in text mode");
    reader.says("not allowed");
    assert_eq!(reader.hears_close(), (1008, "not here".into()));

    let mut owner = Socket::offering(door(&running), "/api/messages", &["pousse.v1"]).unwrap();
    owner.hears();
    owner.says("{\"publish\":\"general\",\"data\":\"by command\"}");
    assert!(owner.hears().starts_with("{\"published\":"));
    assert_eq!(text.hears(), "by command");
    let (mut other, _) = session(running.address(), "");
    other.says("{\"publish\":\"general\",\"data\":\"by command\"}");
    assert!(other.hears().contains("\"status\":403"));

    let mut events = stream(door(&running), "after=earliest").unwrap();
    crate::block(&mut events, "in text mode");
    let poll = get(&running, "/api/messages?wait=20");
    assert_eq!(poll["messages"].as_array().unwrap().len(), 3, "{poll}");
}

#[test]
fn a_content_is_bounded_and_one_that_goes_nowhere_is_not_waited_for() {
    let running = start(|config| config.limits.max_message = 10, quiet);
    assert_eq!(status(&ask(&running, "POST", "/api/messages", "0123456789")), "201");
    assert_eq!(status(&ask(&running, "POST", "/api/messages", "0123456789a")), "413");
    let mut socket = connect(door(&running));
    socket
        .write_all(b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
        .unwrap();
    let answer = answer(&mut socket);
    assert_eq!(status(&answer), "405");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
}

#[test]
fn the_handler_is_not_asked_about_requests_of_the_owner() {
    let teapot = |_: &Request, _: &mut Context<'_>| -> Option<Answer> {
        Some(Response::text(418, "short and stout").into())
    };
    let running = start(|_| {}, Route(teapot));
    assert_eq!(status(&running.http("GET", "/healthz", "")), "418");
    assert_eq!(status(&ask(&running, "GET", "/healthz", "")), "200");
    assert_eq!(status(&ask(&running, "GET", "/api/messages", "")), "200");
}

#[test]
fn requests_may_be_pipelined_and_a_broken_one_ends_the_connection() {
    let running = start(|_| {}, quiet);
    let mut socket = connect(door(&running));
    let get = "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    socket.write_all(format!("{get}{get}{NOTHING} HTTP/2\r\n\r\n").as_bytes()).unwrap();
    for expected in ["200", "200", "400"] {
        assert_eq!(status(&answer(&mut socket)), expected);
    }
    assert!(crate::common::has_ended(&mut socket));
    let old = http(connect(door(&running)), "GET", "/healthz", "");
    assert!(old.ends_with("\r\n\r\nok\n"), "{old}");
}
