//! The library inside a program: timers, other threads, own routes, own loops, other listeners.

#![expect(clippy::unwrap_used, reason = "a test may end where it is wrong")]

use kit::common;

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::time::Duration;

use common::{
    PATIENCE, Route, Running, Said, Socket, answer, content, echo, has_ended, http, opening, quiet,
    request, status,
};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use pousse::{
    Answer, CloseCode, Config, ConnId, Context, Error, Handler, Message, Reads, RemoteError,
    Request, Response, Server,
};

// Time.

#[test]
fn wakes_come_in_their_order_and_not_early() {
    let server = Running::new(quiet);
    let start = server.ask(|ctx| {
        for (ms, token) in [(60, 4), (20, 1), (40, 3), (20, 2)] {
            ctx.wake_after(Duration::from_millis(ms), token);
        }
        ctx.now()
    });
    for (ms, token) in [(20, 1), (20, 2), (40, 3), (60, 4)] {
        let Said::Wake(told, at) = server.said() else { panic!("on_wake") };
        assert_eq!(told, token);
        assert!(at >= start + Duration::from_millis(ms), "{token} came early");
    }
}

#[test]
fn a_wake_that_never_comes_may_be_asked_for() {
    let server = Running::new(quiet);
    server.ask(|ctx| {
        ctx.wake_after(Duration::MAX, 1);
        ctx.wake_after(Duration::ZERO, 2);
    });
    assert!(matches!(server.said(), Said::Wake(2, _)));
}

#[test]
fn a_handler_that_wakes_itself_at_once_for_ever_keeps_nobody_waiting() {
    let mut is_heard = false;
    let server = Running::new(move |said: &Said, ctx: &mut Context<'_>| match said {
        Said::Text(..) => {
            is_heard = true;
            echo(said, ctx);
        }
        // The test ends even if nobody else is ever served.
        Said::Wake(count, _) if !is_heard && *count < 200_000 => {
            ctx.wake_after(Duration::ZERO, count + 1);
        }
        Said::Wake(..) if !is_heard => ctx.stop(),
        _ => {}
    });
    let (mut peer, _) = server.open_with_id("/websocket");
    server.ask(|ctx| ctx.wake_after(Duration::ZERO, 0));
    peer.says("me too");
    assert_eq!(peer.hears(), "me too");
}

// Other threads.

#[test]
fn each_threads_messages_come_in_its_order() {
    let server = Running::new(quiet);
    let (mut peer, id) = server.open_with_id("/websocket");
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let remote = server.remote.clone();
            std::thread::spawn(move || {
                for number in 0..200 {
                    let text = format!("{thread} {number}");
                    let to_one = number % 2 == 1;
                    let give = || match to_one {
                        true => remote.publish("general", &text),
                        false => remote.broadcast(&text),
                    };
                    while give() == Err(RemoteError::Full) {
                        std::thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let mut next = [0; 4];
    for _ in 0..800 {
        let text = peer.hears();
        let (thread, number) = text.split_once(' ').unwrap();
        let thread: usize = thread.parse().unwrap();
        assert_eq!(number.parse(), Ok(next[thread]), "of thread {thread}");
        next[thread] += 1;
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    server.remote.send(id, "to you").unwrap();
    server.remote.send(ConnId::new(9, 9), "to nobody").unwrap();
    server.remote.close(id, CloseCode::from(4002), "enough").unwrap();
    assert_eq!(peer.hears(), "to you");
    assert_eq!(peer.hears_close(), (4002, "enough".into()));
}

#[test]
fn a_queue_that_is_full_is_an_answer_and_never_a_wait() {
    let server = Running::start(|config| config.limits.commands = 4, quiet);
    let (mut peer, _) = server.open_with_id("/websocket");
    let (gate, closed) = channel::<()>();
    let (inside, is_inside) = channel();
    server.post(move |_| {
        inside.send(()).unwrap();
        let _ = closed.recv();
    });
    is_inside.recv_timeout(PATIENCE).unwrap();
    for text in ["1", "2", "3", "4"] {
        server.remote.broadcast(text).unwrap();
    }
    assert_eq!(server.remote.broadcast("5"), Err(RemoteError::Full));
    assert_eq!(server.remote.stop(), Err(RemoteError::Full));
    drop(gate);
    for text in ["1", "2", "3", "4"] {
        assert_eq!(peer.hears(), text);
    }
    server.remote.broadcast("6").unwrap();
    assert_eq!(peer.hears(), "6", "what was refused was not kept either");
}

#[test]
fn after_the_end_a_remote_says_stopped() {
    let mut server = Running::new(quiet);
    let remote = server.remote.clone();
    let ended = server.stop();
    assert!(ended.has_ended());
    assert_eq!(remote.broadcast("x"), Err(RemoteError::Stopped), "run has returned");
    drop(ended);
    assert_eq!(remote.broadcast("x"), Err(RemoteError::Stopped), "the server is dropped");
}

#[test]
fn a_drain_closes_with_its_code_and_run_returns() {
    for (code, number, reason) in [
        (CloseCode::Away, 1001, "the server is stopping"),
        (CloseCode::Restart, 1012, "the server is restarting"),
    ] {
        let mut server = Running::new(quiet);
        let address = server.address();
        let (mut peer, id) = server.open_with_id("/websocket");
        let mut waiter = server.connect();
        let wait = request("GET", "/api/messages?after=now&wait=50", "", "");
        waiter.write_all(wait.as_bytes()).unwrap();
        while server.ask(|ctx| ctx.clients().count()) < 2 {}
        let mut resting = server.connect();
        while server.counters().accepted < 3 {}
        server.remote.drain(code).unwrap();
        assert_eq!(peer.hears_close(), (number, reason.into()));
        let mut told = String::new();
        waiter.read_to_string(&mut told).unwrap();
        assert_eq!(status(&told), "200");
        assert!(told.contains("\r\nConnection: close\r\n"), "{told}");
        assert!(has_ended(&mut resting));
        drop(waiter);
        let mut ended = server.join();
        assert_eq!(server.rest(), [Said::Close(id, number, reason.into())]);
        assert_eq!(ended.context().counters().closed(pousse::Reason::Drain), 3);
        assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
    }
}

#[test]
fn a_drain_waits_for_those_who_do_not_answer_only_so_long() {
    let mut server = Running::start(
        |config| {
            config.limits.drain = Duration::from_millis(200);
            config.limits.close_timeout = Duration::from_secs(60);
        },
        quiet,
    );
    let (mut peer, id) = server.open_with_id("/websocket");
    server.ask(|ctx| ctx.drain(CloseCode::Away));
    server.join();
    assert_eq!(peer.hears_close().0, 1001);
    assert!(matches!(server.rest()[..], [Said::Close(of, _, _)] if of == id), "once");
}

// Own routes.

fn routes(request: &Request, ctx: &mut Context<'_>) -> Option<Answer> {
    match (request.path(), request.method()) {
        ("/hello", "GET" | "HEAD") => Some(Response::text(200, "Bonjour\n").into()),
        ("/upper", "POST") => {
            let text = String::from_utf8_lossy(request.content()).to_uppercase();
            Some(Response::text(200, text).with("X-Length", "1\r\nX-Evil: 1".to_owned()).into())
        }
        ("/nothing", _) => Some(Response::new(204).into()),
        ("/problem", _) => Some(Response::problem(404, "look elsewhere").into()),
        ("/say", "POST") => Some(Answer::Publish("said".into())),
        (path, _) if path.starts_with("/rooms/") => {
            let topics = vec![path.trim_start_matches("/rooms/").to_owned()];
            Some(Answer::Upgrade(Reads { topics, after: None }))
        }
        ("/count", _) => {
            Some(Response::json(200, format!("{}", ctx.clients().count()).into_bytes()).into())
        }
        _ => None,
    }
}

#[test]
fn own_routes_come_first_and_the_built_in_ones_answer_the_rest() {
    let server = Running::new(Route(routes));
    assert_eq!(content(&server.http("GET", "/hello", "")), "Bonjour\n");
    let head = server.http("HEAD", "/hello", "");
    assert!(head.contains("\r\nContent-Length: 8\r\n") && content(&head).is_empty(), "{head}");
    let upper = server.http("POST", "/upper", "bonjour é");
    assert_eq!(content(&upper), "BONJOUR É");
    assert!(upper.contains("\r\nX-Length: 1X-Evil: 1\r\n"), "{upper}");
    let nothing = server.http("GET", "/nothing", "");
    assert!(status(&nothing) == "204" && !nothing.contains("Content-Length"), "{nothing}");
    let problem = server.http("GET", "/problem", "");
    assert!(problem.contains("application/problem+json") && problem.contains("look elsewhere"));
    assert_eq!(status(&server.http("POST", "/say", "Bonjour")), "201");
    assert!(server.http("GET", "/api/messages?topic=said", "").contains("\"data\":\"Bonjour\""));
    assert!(server.http("GET", "/", "").contains("<html"));
    assert_eq!(status(&server.http("GET", "/elsewhere", "")), "404");
    assert_eq!(status(&server.http("DELETE", "/hello", "")), "405");
}

#[test]
fn a_websocket_may_be_opened_on_any_path() {
    let server = Running::new(Route(routes));
    let (mut peer, id) = server.open_with_id("/rooms/caf%C3%A9");
    let topics = server.ask(move |ctx| ctx.client(id).unwrap().topics);
    let path = topics.first().unwrap().to_string();
    assert_eq!(content(&server.http("GET", "/count", "")), "1");
    server.ask(move |ctx| ctx.publish(&path, "here").map(|_| ()).unwrap());
    assert_eq!(peer.hears(), "here");
    // The same route, asked for without a handshake.
    let plain = server.http("GET", "/rooms/x", "");
    assert!(matches!(status(&plain), "400" | "426"), "{plain}");
}

#[test]
fn pipelined_requests_of_own_routes_are_answered_in_their_order() {
    let server = Running::new(Route(routes));
    let mut peer = server.connect();
    let ask = [
        request("POST", "/upper", "", "un"),
        request("GET", "/hello", "", ""),
        request("POST", "/upper", "", "deux"),
        request("GET", "/api/messages", "", ""),
    ];
    peer.write_all(ask.concat().as_bytes()).unwrap();
    let answers: Vec<_> = (0..4).map(|_| content(&answer(&mut peer)).to_owned()).collect();
    assert_eq!(answers[..3], ["UN", "Bonjour\n", "DEUX"]);
    assert!(answers[3].starts_with("{\"messages\":[]"), "{answers:?}");
}

#[test]
fn own_subprotocols_are_chosen_and_unknown_ones_refused() {
    let server = Running::start(
        |config| config.subprotocols = vec!["chat.v2".into(), "chat.v1".into()],
        echo,
    );
    let offer = |names: &[&str]| Socket::offering(server.address(), "/websocket", names);
    for names in [&["chat.v2"][..], &["chat.v0", "chat.v2"], &["chat.v1"]] {
        let mut peer = offer(names).unwrap();
        peer.says("Bonjour");
        assert_eq!(peer.hears(), "Bonjour");
    }
    let mut peer = offer(&[]).expect("a peer may offer none");
    peer.says("Bonjour");
    assert_eq!(peer.hears(), "Bonjour");
    let Err(tungstenite::Error::Http(refused)) = offer(&["chat.v3", "CHAT.V2"]) else {
        panic!("only unknown ones were offered");
    };
    assert_eq!(refused.status(), 400);
    let mut peer = server.connect();
    let fields = "Version: 13\r\nSec-WebSocket-Protocol: chat.v0\r\nSec-WebSocket-Protocol:chat.v1";
    let ask = opening("/websocket").replace("Version: 13", fields);
    peer.write_all(ask.as_bytes()).unwrap();
    let told = answer(&mut peer);
    assert!(told.contains("\r\nSec-WebSocket-Protocol: chat.v1\r\n"), "{told}");
}

// Own loops and other listeners.

struct Echo;

impl Handler for Echo {
    fn on_message(&mut self, conn: ConnId, message: Message<'_>, ctx: &mut Context<'_>) {
        ctx.send(conn, message).unwrap();
    }
}

/// Echoes, and ends the server with its first client.
struct UntilTheyLeave;

impl Handler for UntilTheyLeave {
    fn on_message(&mut self, conn: ConnId, message: Message<'_>, ctx: &mut Context<'_>) {
        ctx.send(conn, message).unwrap();
    }

    fn on_close(&mut self, _: ConnId, _: CloseCode, _: &str, ctx: &mut Context<'_>) {
        ctx.stop();
    }
}

#[test]
fn a_server_lives_in_somebody_elses_loop() {
    let mut server = Server::bind(common::config(), UntilTheyLeave).unwrap();
    let address = common::address(&server.addresses());
    let client = std::thread::spawn(move || {
        let mut peer = Socket::open(address, "/websocket");
        for number in 0..50 {
            peer.says(&number.to_string());
            assert_eq!(peer.hears(), number.to_string());
        }
    });
    let mut poll = Poll::new().unwrap();
    let descriptor = server.as_fd().as_raw_fd();
    let mut source = SourceFd(&descriptor);
    poll.registry().register(&mut source, Token(0), Interest::READABLE).unwrap();
    let mut events = Events::with_capacity(8);
    let (mut turns, mut asleep) = (0, 0);
    while !server.has_ended() {
        // It does not wait: nothing of the other loop's is held up.
        let sleep = server.turn(Some(Duration::ZERO)).unwrap();
        turns += 1;
        assert!(turns < 100_000, "it has nothing to do and does not rest");
        poll.poll(&mut events, sleep.or(Some(PATIENCE))).unwrap();
        assert!(sleep.is_some() || !events.is_empty(), "nothing woke it");
        asleep += usize::from(sleep != Some(Duration::ZERO));
    }
    client.join().unwrap();
    assert!(asleep >= 50, "each message woke the outer loop: {asleep} of {turns}");
}

#[test]
fn what_is_published_between_two_turns_is_delivered_by_the_next() {
    let mut server = Server::bind(common::config(), Echo).unwrap();
    let address = common::address(&server.addresses());
    let mut peer = common::connect(address);
    peer.write_all(opening("/websocket").as_bytes()).unwrap();
    while server.context().clients().count() == 0 {
        server.turn(Some(PATIENCE)).unwrap();
    }
    assert!(answer(&mut peer).starts_with("HTTP/1.1 101 "));
    server.context().broadcast("Bonjour").unwrap();
    // Whoever asks before sleeping must not be told to sleep.
    server.turn(Some(Duration::ZERO)).unwrap();
    let mut frame = [0; 9];
    peer.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\x81\x07Bonjour");
}

#[test]
fn a_server_with_nothing_to_do_says_so() {
    let mut server = Server::bind(common::config(), Echo).unwrap();
    server.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(server.turn(Some(Duration::ZERO)).unwrap(), None);
    server.context().wake_after(Duration::from_secs(5), 0);
    let sleep = server.turn(Some(Duration::ZERO)).unwrap().unwrap();
    assert!(sleep <= Duration::from_secs(5) && sleep > Duration::from_secs(4), "{sleep:?}");
}

#[test]
fn a_source_of_ones_own_is_watched() {
    let config = common::config();
    struct Watch(Vec<usize>);
    impl Handler for Watch {
        fn on_message(&mut self, _: ConnId, _: Message<'_>, _: &mut Context<'_>) {}
        fn on_ready(&mut self, token: usize, ctx: &mut Context<'_>) {
            self.0.push(token);
            if self.0 == [0, 65_535] {
                ctx.stop();
            }
        }
    }
    let mut server = Server::bind(config, Watch(Vec::new())).unwrap();
    let (mut one, first) = UnixStream::pair().unwrap();
    let (mut two, second) = UnixStream::pair().unwrap();
    let mut first = mio::net::UnixStream::from_std(first);
    let mut second = mio::net::UnixStream::from_std(second);
    server.watch(&mut first, 0).unwrap();
    server.watch(&mut second, 65_535).unwrap();
    one.write_all(b"!").unwrap();
    server.turn(Some(PATIENCE)).unwrap();
    two.write_all(b"!").unwrap();
    server.run().unwrap();
}

/// A path of this test's own, where nothing is.
fn path(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("pousse-{}-{name}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

fn listen_on(path: &std::path::Path) -> impl FnOnce(&mut Config) {
    let address = format!("unix:{}", path.display()).parse().unwrap();
    move |config| config.listen.push(address)
}

#[test]
fn one_server_listens_on_tcp_and_on_a_unix_socket() {
    let path = path("both");
    let mut server = Running::start(listen_on(&path), |said: &Said, ctx: &mut Context<'_>| {
        if let Said::Text(_, text) = said {
            ctx.broadcast(text).unwrap();
        }
    });
    assert_eq!(server.addresses[1], format!("unix:{}", path.display()));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let stream = || {
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let mut far = Socket::over(stream(), "/websocket", &[]).unwrap();
    let far_id = server.opened();
    let (mut near, _) = server.open_with_id("/websocket");
    near.says("from tcp");
    assert_eq!((far.hears(), near.hears()), ("from tcp".into(), "from tcp".into()));
    far.says("from unix");
    assert_eq!((far.hears(), near.hears()), ("from unix".into(), "from unix".into()));
    let peer = server.ask(move |ctx| ctx.client(far_id).unwrap().peer);
    assert_eq!(peer, pousse::Peer::Unix);
    assert!(http(stream(), "GET", "/api/messages", "").contains("from unix"));
    server.stop();
    assert!(!path.exists(), "removed at the end");
}

#[test]
fn a_dead_socket_file_is_replaced_and_a_live_one_is_not_stolen() {
    let path = path("stale");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "whoever dies leaves it there");
    let mut server = Running::start(listen_on(&path), quiet);
    let again = || {
        let mut config = Config::default();
        config.listen.clear();
        listen_on(&path)(&mut config);
        Server::bind(config, Echo)
    };
    let Err(Error::Bind { address, source }) = again() else { panic!("it was stolen") };
    assert_eq!(address, format!("unix:{}", path.display()));
    assert_eq!(source.kind(), std::io::ErrorKind::AddrInUse);
    let alive = http(UnixStream::connect(&path).unwrap(), "GET", "/api/messages", "");
    assert_eq!(status(&alive), "200");
    server.stop();
    drop(again().unwrap());
    assert!(!path.exists(), "removed with a server that never ran, too");
}

#[test]
fn a_live_socket_whose_queue_is_full_is_not_waited_for() {
    let path = path("full");
    let _live = UnixListener::bind(&path).unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = mio::net::UnixStream::connect(&path) {
        waiting.push(stream);
        assert!(waiting.len() < 100_000, "the queue never fills");
    }
    let (said, heard) = channel();
    let theirs = path.clone();
    std::thread::spawn(move || {
        let mut config = Config::default();
        config.listen.clear();
        listen_on(&theirs)(&mut config);
        let _ = said.send(Server::bind(config, Echo).map(|_| ()));
    });
    let result = heard.recv_timeout(Duration::from_secs(2)).expect("bind does not wait");
    let Err(Error::Bind { source, .. }) = result else { panic!("it was stolen") };
    assert_eq!(source.kind(), std::io::ErrorKind::AddrInUse);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_file_that_is_no_socket_is_not_touched() {
    let path = path("plain");
    std::fs::write(&path, "precious").unwrap();
    let mut config = Config::default();
    config.listen.clear();
    listen_on(&path)(&mut config);
    assert!(matches!(Server::bind(config, Echo), Err(Error::Bind { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_socket_file_that_is_somebody_elses_by_now_is_left_alone() {
    let path = path("replaced");
    let bind = || {
        let mut config = Config::default();
        config.listen.clear();
        listen_on(&path)(&mut config);
        Server::bind(config, Echo).unwrap()
    };
    let first = bind();
    std::fs::remove_file(&path).unwrap();
    let second = bind();
    drop(first);
    assert!(UnixStream::connect(&path).is_ok(), "the second one is still reached");
    drop(second);
    assert!(!path.exists());
}

#[test]
fn a_request_that_was_begun_before_a_drain_is_answered_and_is_the_last() {
    let mut server = Running::new(quiet);
    let mut resting = server.connect();
    let mut stream = server.connect();
    stream.write_all(b"GET /api/messages HTTP/1.1\r\n").unwrap();
    while server.counters().read_bytes == 0 {}
    server.remote.drain(CloseCode::Away).unwrap();
    assert!(has_ended(&mut resting), "from here on the server drains");
    stream.write_all(b"Host: localhost\r\n\r\n").unwrap();
    let mut told = String::new();
    stream.read_to_string(&mut told).unwrap();
    assert_eq!(status(&told), "200");
    assert!(told.contains("\r\nConnection: close\r\n"), "{told}");
    drop(stream);
    server.join();
}

#[test]
fn a_time_without_end_is_refused_at_the_start() {
    let mut config = Config::default();
    config.limits.ping = Duration::MAX;
    let error = Server::bind(config, Echo).map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "limit ping cannot be over 100 years");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "time between two turns has to pass")]
fn between_two_turns_time_is_what_the_clock_says() {
    let mut server = Server::bind(common::config(), Echo).unwrap();
    server.turn(Some(Duration::ZERO)).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    server.context().wake_after(Duration::from_secs(1), 0);
    let rest = server.turn(Some(Duration::ZERO)).unwrap().unwrap();
    assert!(rest > Duration::from_millis(800), "the second begins now: {rest:?}");
}
