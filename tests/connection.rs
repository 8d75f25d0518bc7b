//! Transcripts without sockets: what a peer says and hears, with time as an argument.
//!
//! However the peer's bytes are cut, the same has to come of them. `chopped` plays a transcript as
//! written, with every piece cut in two at each place in turn, and byte by byte, and compares all
//! that was heard; `in_pieces` plays one with time in it in pieces of several sizes.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may end where it is wrong"
)]

use std::cell::Cell;
use std::time::Duration;

use pousse::seam::{Connection, Event, Log, Rules, Sink, Tick, Turn, handshake};
use pousse::{CloseCode, Config, ConnId, Message, Peer, Publish, Reason, Response};

const GET: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
const UPGRADE: &str = "GET /websocket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

thread_local! {
    /// The peer's bytes arrive in pieces of this size.
    static PIECE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Plays a transcript with the peer's bytes in pieces of several sizes.
fn in_pieces(transcript: impl Fn()) {
    for size in [usize::MAX, 1, 2, 3, 5, 8, 13] {
        PIECE.set(size);
        transcript();
    }
}

/// The other end of one connection, and its loop.
struct Script {
    connection: Connection,
    turn: Turn,
    log: Log,
    heard: Vec<u8>,
    events: Vec<String>,
}

impl Script {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        let turn = Turn::new(&config);
        Self {
            connection: Connection::new(ConnId::new(0, 1), Peer::Unix, &turn),
            log: Log::new(7, config.limits.clone()),
            turn,
            heard: Vec::new(),
            events: Vec::new(),
        }
    }

    /// The peer's bytes arrive; the loop answers requests as `answer` says, and writes.
    fn says(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE.get()) {
            self.says_at_once(piece);
        }
    }

    fn says_at_once(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let mut rest = bytes.as_mut_slice();
        while !rest.is_empty() && self.connection.wants_input(&self.turn) {
            // As the loop does: no more than the connection can look at now.
            let size = self.connection.input_bytes_max(&self.turn).min(rest.len());
            let (mut input, later) = rest.split_at_mut(size);
            rest = later;
            self.feed(&mut input);
            self.flush();
            while let Some(mut kept) = self.connection.take_kept(&self.turn) {
                self.feed(&mut &mut kept[..]);
                self.flush();
            }
        }
    }

    fn feed(&mut self, input: &mut &mut [u8]) {
        while let Some(event) = self.connection.receive(input, &mut self.turn) {
            match event {
                Event::Request(request) if !request.is_whole() => {
                    self.events.push(format!("head {}", request.path()));
                    self.connection.read_content(request, &mut self.turn);
                }
                Event::Request(request) => {
                    let content = String::from_utf8_lossy(request.content()).into_owned();
                    self.events.push(format!(
                        "{} {} {content:?}",
                        request.method(),
                        request.path()
                    ));
                    self.answer(&request);
                }
                Event::Text(text) => self.events.push(format!("text {text:?}")),
                Event::Long => {
                    let long = self.turn.at_hand.take().unwrap();
                    self.events.push(format!("long {:?}", long.message()));
                }
                Event::Binary(bytes) => self.events.push(format!("binary {bytes:?}")),
                Event::Command(command) => self.events.push(format!("{command:?}")),
                Event::Fault(fault) => self.events.push(format!("fault {}", fault.code)),
            }
        }
    }

    fn answer(&mut self, request: &pousse::Request) {
        match request.is_upgrade() {
            true => {
                let rules = Rules::new(&Config::default(), Publish::Anyone);
                let upgrade = handshake(request, &rules, false).unwrap();
                self.connection.upgrade(upgrade, &mut self.turn);
            }
            false => self.connection.respond(&Response::text(200, "ok"), &mut self.turn),
        }
    }

    fn flush(&mut self) {
        while self.connection.fill(&self.log, &mut self.turn) {}
        self.connection.write_to(&mut self.heard, &mut self.turn).unwrap();
    }

    /// Time passes; deadlines are looked at as the loop would.
    fn at(&mut self, seconds: f32) {
        let until = Tick::at(Duration::from_secs_f32(seconds));
        while self.connection.deadline() <= until {
            self.turn.begin(self.connection.deadline().max(self.turn.now), 0);
            if let Some(Event::Fault(fault)) = self.connection.handle_timeout(&mut self.turn) {
                self.events.push(format!("fault {}", fault.code));
            }
            self.flush();
            if self.connection.is_done() {
                break;
            }
        }
        self.turn.begin(until.max(self.turn.now), 0);
    }

    /// What was heard since the last time.
    fn hears(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.heard)
    }

    fn hears_text(&mut self) -> String {
        String::from_utf8(self.hears()).unwrap()
    }

    /// A script that is a WebSocket already.
    fn websocket(change: impl FnOnce(&mut Config)) -> Self {
        let mut script = Self::new(change);
        script.says(UPGRADE.as_bytes());
        assert!(script.hears_text().contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "RFC 6455 §1.3");
        script.events.clear();
        script
    }
}

/// What a client writes: a masked frame (the key is zero, so the payload can be read).
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126, "short frames are enough here");
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

fn close(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason.as_bytes()].concat()
}

/// Plays the pieces whole, cut in two at each place, and byte by byte.
fn chopped(
    change: impl Fn(&mut Config),
    pieces: &[&[u8]],
) -> (Vec<String>, Vec<u8>, Option<Reason>) {
    let play = |cut: &dyn Fn(&[u8]) -> Vec<Vec<u8>>| {
        let mut script = Script::new(&change);
        for piece in pieces {
            for part in cut(piece) {
                script.says(&part);
            }
        }
        let reason = (!script.connection.is_open() && script.connection.is_done())
            .then(|| script.connection.ending(Reason::Gone).why);
        (script.events, script.heard, reason)
    };
    let whole = play(&|piece| vec![piece.to_vec()]);
    let longest = pieces.iter().map(|piece| piece.len()).max().unwrap_or(0);
    for at in 1..longest {
        let halves = play(&|piece| {
            let (left, right) = piece.split_at(at.min(piece.len()));
            vec![left.to_vec(), right.to_vec()]
        });
        assert_eq!(halves, whole, "cut at {at}");
    }
    assert_eq!(play(&|piece| piece.chunks(1).map(<[u8]>::to_vec).collect()), whole, "byte by byte");
    whole
}

/// Takes bytes up to so many in all, and then none.
struct Socket(Vec<u8>, usize);

impl Sink for Socket {}

impl std::io::Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let taken = bytes.len().min(self.1 - self.0.len());
        if taken == 0 {
            return Err(std::io::ErrorKind::WouldBlock.into());
        }
        self.0.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_and_none_is_lost() {
    let post = "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\nBonjour";
    let (events, heard, _) = chopped(|_| {}, &[format!("{GET}{post}\r\n{GET}{GET}").as_bytes()]);
    let get = "GET /a \"\"";
    assert_eq!(events, [get, "head /b", "POST /b \"Bonjour\"", get, get]);
    assert_eq!(String::from_utf8(heard).unwrap().matches("HTTP/1.1 200 OK\r\n").count(), 4);
}

#[test]
fn bytes_behind_an_opening_handshake_are_frames() {
    let bytes = [
        UPGRADE.as_bytes(),
        &frame(0x81, b"un"),
        &frame(0x02, b"de"),
        &frame(0x89, b"?"),
        &frame(0x80, b"ux"),
        &frame(0x88, &close(1000, "bye")),
    ]
    .concat();
    let (events, heard, reason) = chopped(|_| {}, &[&bytes]);
    assert_eq!(events, ["GET /websocket \"\"", "text \"un\"", "binary [100, 101, 117, 120]"]);
    let answer = [&[0x8a, 1, b'?', 0x88, 5][..], &close(1000, "bye")].concat();
    assert!(heard.ends_with(&answer), "a pong, then the close frame with code and reason");
    assert_eq!(reason, Some(Reason::Done));
}

#[test]
fn nothing_is_heard_of_what_stands_behind_a_fault() {
    let bytes = [UPGRADE.as_bytes(), &frame(0x81, b"\xff"), &frame(0x81, b"never")].concat();
    let (events, heard, _) = chopped(|_| {}, &[&bytes]);
    assert_eq!(events, ["GET /websocket \"\"", "fault 1007"]);
    let end = [&[0x88, 24][..], &close(1007, "text that is not UTF-8")].concat();
    assert!(heard.ends_with(&end));
}

#[test]
fn a_request_that_cannot_be_read_ends_the_connection() {
    for (bytes, status) in [
        ("GET / HTTP/1.1\nHost: a\n\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "411"),
    ] {
        let (events, heard, _) = chopped(|_| {}, &[format!("{bytes}{GET}").as_bytes()]);
        let heard = String::from_utf8(heard).unwrap();
        assert!(events.is_empty(), "{bytes:?}: {events:?}");
        assert!(heard.starts_with(&format!("HTTP/1.1 {status} ")), "{heard}");
        assert!(heard.contains("\r\nConnection: close\r\n"), "{heard}");
        assert_eq!(heard.matches("HTTP/1.1").count(), 1, "one answer, whatever follows");
    }
}

#[test]
fn a_head_that_does_not_end_is_refused_at_its_limit() {
    let endless = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(500));
    let small = |config: &mut Config| config.limits.head_bytes = 256;
    let (_, heard, _) = chopped(small, &[endless.as_bytes()]);
    assert!(heard.starts_with(b"HTTP/1.1 431 "));
    let (_, heard, _) = chopped(small, &["/".repeat(500).as_bytes()]);
    assert!(heard.starts_with(b"HTTP/1.1 414 "));
    let (_, heard, _) = chopped(small, &["\r\n".repeat(500).as_bytes()]);
    assert!(heard.starts_with(b"HTTP/1.1 431 "));
}

#[test]
fn a_head_of_just_the_limit_passes() {
    let head =
        |fill: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(fill));
    let least = head(0).len();
    let limit = |config: &mut Config| config.limits.head_bytes = 128;
    let (_, heard, _) = chopped(limit, &[head(128 - least).as_bytes()]);
    assert!(heard.starts_with(b"HTTP/1.1 200 "));
    let (_, heard, _) = chopped(limit, &[head(129 - least).as_bytes()]);
    assert!(heard.starts_with(b"HTTP/1.1 431 "));
}

#[test]
fn a_slow_head_is_told_408_and_a_silent_connection_nothing() {
    in_pieces(|| {
        let mut script = Script::new(|_| {});
        script.says(b"GET / HT");
        script.at(9.0);
        script.says(b"TP/1.1\r\n");
        assert_eq!(script.hears(), b"");
        script.at(10.3);
        assert!(script.hears_text().starts_with("HTTP/1.1 408 "), "ten seconds from the beginning");

        let mut script = Script::new(|_| {});
        script.at(10.3);
        assert!(script.connection.is_done());
        assert_eq!(
            (script.hears(), script.connection.ending(Reason::Gone).why),
            (vec![], Reason::HeadTimeout)
        );
    });
}

#[test]
fn a_persistent_connection_may_rest_for_the_idle_timeout() {
    in_pieces(|| {
        let mut script = Script::new(|_| {});
        script.says(GET.as_bytes());
        script.at(29.0);
        script.says(GET.as_bytes());
        assert_eq!(script.events.len(), 2);
        script.hears();
        script.at(58.9);
        assert!(!script.connection.is_done());
        script.at(59.3);
        assert_eq!(
            (script.hears(), script.connection.ending(Reason::Gone).why),
            (vec![], Reason::IdleTimeout)
        );
    });
}

#[test]
fn a_slow_content_is_told_408() {
    in_pieces(|| {
        let mut script = Script::new(|_| {});
        script.says(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1234");
        script.at(10.3);
        assert!(script.hears_text().starts_with("HTTP/1.1 408 "));
    });
}

#[test]
fn content_is_asked_for_if_the_client_waits_to_be_asked() {
    in_pieces(|| {
        let mut script = Script::new(|_| {});
        script.says(
            b"POST /b HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n",
        );
        assert_eq!(script.hears_text(), "HTTP/1.1 100 Continue\r\n\r\n");
        script.says(b"ok");
        assert!(script.hears_text().starts_with("HTTP/1.1 200 OK\r\n"));
    });
}

#[test]
fn the_end_of_the_peers_bytes_ends_the_connection_once_it_is_answered() {
    in_pieces(|| {
        let mut script = Script::new(|_| {});
        script.says(GET.as_bytes());
        script.connection.receive_eof();
        assert!(script.connection.is_done());
        assert_eq!(script.connection.ending(Reason::Gone).why, Reason::Done);

        let mut script = Script::new(|_| {});
        script.says(b"GET /a HT");
        script.connection.receive_eof();
        assert_eq!((script.connection.is_done(), script.hears()), (true, vec![]));
        assert_eq!(script.connection.ending(Reason::Gone).why, Reason::Gone);
    });
}

#[test]
fn after_so_many_requests_the_connection_closes() {
    in_pieces(|| {
        let mut script = Script::new(|config| config.limits.requests = 2);
        script.says(format!("{GET}{GET}{GET}").as_bytes());
        let heard = script.hears_text();
        assert_eq!(script.events.len(), 2);
        assert_eq!(heard.matches("Connection: close").count(), 1);
    });
}

#[test]
fn a_ping_comes_about_every_interval_and_the_pong_has_its_time() {
    in_pieces(|| {
        let mut script = Script::websocket(|_| {});
        script.at(19.9);
        assert_eq!(script.hears(), b"", "20 s is the earliest: 25 s less 20 %");
        script.at(30.3);
        assert_eq!(script.hears(), [0x89, 0]);
        script.says(&frame(0x8a, b""));
        script.at(49.0);
        assert_eq!(script.hears(), b"");
        script.at(61.0);
        assert_eq!(script.hears(), [0x89, 0]);
        script.at(82.0);
        assert_eq!(script.connection.ending(Reason::Gone).why, Reason::PongTimeout);
        let heard = script.hears();
        assert_eq!(heard[..4], [0x88, heard[1], 0x03, 0xf0], "1008");
    });
}

#[test]
fn an_unfinished_message_has_thirty_seconds() {
    in_pieces(|| {
        for start in [&frame(0x01, b"a")[..], &frame(0x81, b"abc")[..8], &[0x81]] {
            let mut script =
                Script::websocket(|config| config.limits.ping = Duration::from_secs(90));
            script.says(start);
            script.at(29.9);
            assert!(script.connection.is_open());
            script.at(30.3);
            assert_eq!(script.events, ["fault 1008"]);
            assert_eq!(script.connection.ending(Reason::Gone).why, Reason::MessageTimeout);
        }
    });
}

#[test]
fn our_close_is_answered_or_the_time_for_it_passes() {
    in_pieces(|| {
        let mut script = Script::websocket(|_| {});
        let Script { connection, turn, .. } = &mut script;
        connection.close(CloseCode::Away, "au revoir", Reason::Drain, turn);
        script.flush();
        assert_eq!(script.hears(), [&[0x88, 11][..], &close(1001, "au revoir")].concat());
        script.says(&frame(0x81, b"too late"));
        assert!(script.events.is_empty(), "after a close frame no message is told");
        script.says(&frame(0x88, &close(1001, "")));
        assert!(script.connection.is_done());
        let ending = script.connection.ending(Reason::Gone);
        assert_eq!(
            (ending.code, &*ending.reason, ending.why),
            (CloseCode::Away, "au revoir", Reason::Drain)
        );

        let mut script = Script::websocket(|_| {});
        let Script { connection, turn, .. } = &mut script;
        connection.close(CloseCode::Away, "", Reason::Drain, turn);
        script.flush();
        script.at(2.9);
        assert!(!script.connection.is_done());
        script.at(3.3);
        assert!(script.connection.is_done());
    });
}

#[test]
fn a_peer_that_takes_no_bytes_gets_one_pong_and_is_cut_at_a_frame_boundary() {
    let mut script = Script::websocket(|_| {});
    let mut socket = Socket(Vec::new(), 10);
    let Script { connection, turn, .. } = &mut script;
    for text in ["Bonjour", "serveur!", "never"] {
        connection.send(Message::Text(text), turn).unwrap();
    }
    connection.write_to(&mut socket, turn).unwrap();
    for number in 0..100u8 {
        let mut ping = frame(0x89, &[number]);
        let mut input = ping.as_mut_slice();
        assert!(connection.receive(&mut input, turn).is_none());
    }
    assert_eq!(connection.waiting_bytes(), 9 + 10 + 7 - 10, "no pong waits behind them");
    turn.begin(Tick::at(Duration::from_secs(11)), 0);
    connection.handle_timeout(turn);
    assert_eq!(connection.ending(Reason::Gone).why, Reason::Stall);
    socket.1 = usize::MAX;
    while connection.waiting_bytes() > 0 {
        connection.write_to(&mut socket, turn).unwrap();
    }
    let close = [&[0x88, 10][..], &close(1013, "too slow")].concat();
    let expected = [b"\x81\x07Bonjour\x81\x08serveur!", &close[..]].concat();
    assert_eq!(socket.0, expected, "whole frames, then the close frame");
}

#[test]
fn a_slow_reader_falls_behind_in_the_log_not_in_memory() {
    // Goal: whatever is published, and however little the socket takes at a time, little waits.
    let mut script = Script::websocket(|config| {
        config.limits.history = 1_000_000;
        config.limits.history_bytes = 1 << 30;
        config.limits.history_total = 1 << 30;
    });
    let Script { connection, turn, log, .. } = &mut script;
    let topic = log.join("general").unwrap();
    connection.cursor.read(topic, 0, 0);
    let mut socket = Socket(Vec::new(), 0);
    for round in 1..500 {
        for _ in 0..60 {
            log.append("general", Message::Binary(&[7; 1000]), None, turn.now).unwrap();
        }
        socket.1 += 30_000;
        connection.fill(log, turn);
        connection.write_to(&mut socket, turn).unwrap();
        assert!(connection.waiting_bytes() < 200_000, "round {round}");
    }
}

#[test]
fn an_answer_has_as_long_as_its_bytes_make_progress() {
    for (field, kept) in [("", true), ("Connection: close\r\n", false)] {
        let mut script = Script::new(|_| {});
        let Script { connection, turn, .. } = &mut script;
        let mut request = format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n").into_bytes();
        connection.receive(&mut request.as_mut_slice(), turn).unwrap();
        connection.respond(&Response::text(200, "x".repeat(100_000)), turn);
        let mut socket = Socket(Vec::new(), 0);
        // A thousand bytes in every five seconds: slow, but not still.
        for second in (0..500).step_by(5) {
            turn.begin(Tick::at(Duration::from_secs(second)), 0);
            socket.1 += 1000;
            connection.write_to(&mut socket, turn).unwrap();
            assert!(connection.handle_timeout(turn).is_none());
            assert!(!connection.is_done(), "after {second} s");
        }
        while connection.waiting_bytes() > 0 {
            socket.1 += 1000;
            connection.write_to(&mut socket, turn).unwrap();
        }
        assert!(socket.0.ends_with(b"xxx") && socket.0.len() > 100_000);
        assert_eq!(connection.wants_shutdown(), !kept);
        assert!(connection.deadline() < Tick::NEVER, "from here on its time runs");
    }
}

#[test]
fn what_is_known_of_one_request_says_nothing_of_the_next() {
    in_pieces(|| {
        let mut script = Script::new(|_| {});
        script.says(b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\nnonsense\r\n\r\n");
        let heard = script.hears_text();
        let (_, second) = heard.split_once("HTTP/1.1 400 ").unwrap();
        assert!(
            second.ends_with("}\n"),
            "the answer to HEAD has no content, this one has: {second}"
        );
    });
}

#[test]
fn nothing_follows_our_close_frame_not_even_a_ping_that_was_due() {
    in_pieces(|| {
        let mut script = Script::websocket(|config| {
            config.limits.ping = Duration::from_secs(1);
            config.limits.close_timeout = Duration::from_secs(60);
        });
        script.at(1.5);
        assert_eq!(script.hears(), [0x89, 0], "the pong is awaited");
        let Script { connection, turn, .. } = &mut script;
        connection.close(CloseCode::Normal, "", Reason::Handler, turn);
        script.flush();
        assert_eq!(script.hears(), [0x88, 2, 0x03, 0xe8]);
        for second in 2..60 {
            script.turn.begin(Tick::at(Duration::from_secs(second)), 0);
            assert!(script.connection.handle_timeout(&mut script.turn).is_none());
            script.flush();
        }
        assert_eq!(script.hears(), b"");
    });
}

#[test]
fn so_many_requests_are_looked_at_before_it_is_somebody_elses_turn() {
    let mut script = Script::new(|_| {});
    let Script { connection, turn, .. } = &mut script;
    let mut bytes = GET.repeat(100).into_bytes();
    let mut input = bytes.as_mut_slice();
    let mut answered = 0;
    while connection.receive(&mut input, turn).is_some() {
        connection.respond(&Response::text(200, "ok"), turn);
        answered += 1;
    }
    assert_eq!((answered, input.len()), (16, 0), "the rest is kept");
    assert!(connection.has_kept(turn), "and asked for in the next turn");
}

#[test]
fn a_peer_that_stalls_inside_the_answer_to_its_handshake_is_dropped_without_a_frame() {
    for room in [1, 50, 100] {
        let mut script = Script::new(|_| {});
        let Script { connection, turn, .. } = &mut script;
        let mut upgrade = UPGRADE.as_bytes().to_vec();
        let Some(Event::Request(request)) = connection.receive(&mut upgrade.as_mut_slice(), turn)
        else {
            panic!("a handshake is a request");
        };
        let rules = Rules::new(&Config::default(), Publish::Anyone);
        connection.upgrade(handshake(&request, &rules, false).unwrap(), turn);
        connection.send(Message::Text("Bonjour"), turn).unwrap();
        let mut socket = Socket(Vec::new(), room);
        connection.write_to(&mut socket, turn).unwrap();
        turn.begin(Tick::at(Duration::from_secs(11)), 0);
        connection.handle_timeout(turn);
        assert!(connection.is_done(), "nothing can be said in the middle of a head");
        assert_eq!(connection.ending(Reason::Gone).why, Reason::Stall);
    }
}

// pousse.v1.

#[cfg(feature = "v1")]
mod session {
    use super::*;

    const BINARY: &str = "pousse.v1 is JSON in text frames; bytes go into base64";

    fn upgrade() -> String {
        UPGRADE.replace("Upgrade: w", "Sec-WebSocket-Protocol: pousse.v1\r\nUpgrade: w")
    }

    /// A script that speaks pousse.v1 and reads one topic; the hub, which greets and carries out
    /// commands, is not here.
    fn reader(change: impl FnOnce(&mut Config)) -> Script {
        let mut script = Script::new(change);
        script.says(upgrade().as_bytes());
        assert!(script.hears_text().contains("\r\nSec-WebSocket-Protocol: pousse.v1\r\n"));
        script.events.clear();
        let topic = script.log.join("g").unwrap();
        script.connection.cursor.read(topic, 0, 0);
        script
    }

    /// What the server writes: JSON in a frame.
    fn told(json: &str) -> Vec<u8> {
        assert!(json.len() < 126, "short frames are enough here");
        [&[0x81, json.len() as u8], json.as_bytes()].concat()
    }

    fn publish(script: &mut Script, text: &str) {
        script.log.append("g", text.into(), None, script.turn.now).unwrap();
    }

    #[test]
    fn commands_come_one_by_one_however_they_are_cut() {
        let bytes = [
            upgrade().as_bytes(),
            &frame(0x81, br#"{"subscribe":"t","after":"7-3","ref":1}"#),
            &frame(0x01, br#"{"unsub"#),
            &frame(0x80, br#"scribe":"t","ref":"two"}"#),
            &frame(0x81, br#"{"publish":"t","data":"un","key":"k"}"#),
        ]
        .concat();
        let (events, _, _) = chopped(|_| {}, &[&bytes]);
        assert_eq!(events.len(), 4, "{events:?}");
        for (event, parts) in events[1..].iter().zip([
            ["Subscribe", "run: 7, seq: 3", "Some(\"1\")"],
            ["Unsubscribe", "\"t\"", "two"],
            ["Publish", "[117, 110]", "Some(\"k\")"],
        ]) {
            assert!(parts.iter().all(|part| event.contains(part)), "{event} and not {parts:?}");
        }
    }

    #[test]
    fn what_is_no_command_is_told_so_with_its_ref_and_bytes_end_it() {
        let (events, heard, _) = chopped(
            |_| {},
            &[upgrade().as_bytes(), &frame(0x81, br#"{"ref":"x"}"#), &frame(0x82, b"bytes")],
        );
        let heard = String::from_utf8_lossy(&heard).into_owned();
        let error = heard.find("\"status\":400,").unwrap();
        let reference = heard.find(",\"ref\":\"x\"}").unwrap();
        assert!(error < reference && reference < heard.find(BINARY).unwrap(), "{heard}");
        assert_eq!(events, ["GET /websocket \"\"", "fault 1003"]);
    }

    #[test]
    fn wrong_commands_are_borne_until_they_are_a_flood_and_time_forgives_them() {
        let few = |config: &mut Config| config.limits.wrong_commands = 5;
        let mut script = reader(few);
        for second in 1..10 {
            script.says(&frame(0x81, b"?"));
            script.at(second as f32);
        }
        assert!(script.events.is_empty(), "one in a second is no flood");
        script.at(20.0);
        (0..5).for_each(|_| script.says(&frame(0x81, b"?")));
        assert!(script.events.is_empty(), "nor are five");
        script.says(&frame(0x81, b"?"));
        assert_eq!(script.events, ["fault 1008"]);
        assert!(script.hears().ends_with(b"too many commands that are wrong"));
        script.says(&frame(0x81, br#"{"subscribe":"t"}"#));
        assert_eq!(script.events, ["fault 1008"]);
    }

    #[test]
    fn entries_come_with_their_ids_and_the_place_beside_each_ping() {
        let mut script = reader(|_| {});
        publish(&mut script, "un");
        script.flush();
        assert_eq!(script.hears(), told(r#"{"id":"7-1","topic":"g","data":"un"}"#));
        script.log.append("h", "of no concern".into(), None, script.turn.now).unwrap();
        script.at(31.0);
        assert_eq!(script.hears(), [vec![0x89, 0], told(r#"{"last":"7-2"}"#)].concat());
        script.says(&frame(0x8a, b""));
        publish(&mut script, "trois");
        script.at(62.5);
        let entry = told(r#"{"id":"7-3","topic":"g","data":"trois"}"#);
        let place = told(r#"{"last":"7-3"}"#);
        let heard = script.hears();
        assert_eq!(heard.len(), entry.len() + 2 + place.len());
        assert!(heard.ends_with(&place), "the place is behind what it covers");
    }

    #[test]
    fn a_gap_is_told_before_what_comes_after_it_and_once() {
        let mut script = reader(|config| config.limits.history = 2);
        for text in ["un", "deux", "trois", "quatre"] {
            publish(&mut script, text);
        }
        let topic = script.log.find("g").unwrap();
        script.log.offered(topic, 4);
        script.log.trim(script.turn.now);
        script.flush();
        let expected = [
            r#"{"gap":{"topic":"g","after":"7-0","oldest":"7-3"}}"#,
            r#"{"id":"7-3","topic":"g","data":"trois"}"#,
            r#"{"id":"7-4","topic":"g","data":"quatre"}"#,
        ];
        assert_eq!(script.hears(), expected.map(told).concat());
        script.flush();
        assert_eq!((script.hears(), script.turn.counters.gaps), (vec![], 1));
    }

    #[test]
    fn a_place_that_is_due_waits_until_the_backlog_is_through() {
        let mut script = reader(|config| config.limits.history_bytes = 10 << 20);
        let long = "x".repeat(10_000);
        (0..100).for_each(|_| publish(&mut script, &long));
        // The socket takes nothing until the ping is long due.
        let mut socket = Socket(Vec::new(), 0);
        let mut write = |script: &mut Script, room: usize| {
            socket.1 += room;
            loop {
                let before = socket.0.len();
                script.connection.fill(&script.log, &mut script.turn);
                script.connection.write_to(&mut socket, &mut script.turn).unwrap();
                if socket.0.len() == before {
                    break;
                }
            }
            String::from_utf8_lossy(&socket.0).into_owned()
        };
        write(&mut script, 0);
        assert!(script.connection.waiting_bytes() <= 64 * 1024 + 10_100);
        for second in 1..35 {
            script.turn.begin(Tick::at(Duration::from_secs(second)), 0);
            script.connection.handle_timeout(&mut script.turn);
            // A little at a time, so that it is no stall.
            assert!(!write(&mut script, 1000).contains("\"last\""));
        }
        let heard = write(&mut script, usize::MAX / 2);
        assert_eq!(heard.matches("\"topic\"").count(), 100);
        assert!(heard.ends_with(r#"{"last":"7-100"}"#));
    }
}
