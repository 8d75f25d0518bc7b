//! The end of a connection, from either side.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use pousse::{CloseCode, Reason};

use crate::common::{Said, Socket, answer, echo, quiet, request, status};
use crate::rig::{Secure, VERSIONS};

/// Reads to the end, which has to be told by a close_notify; else rustls makes an error of it.
fn ends_well(stream: &mut impl Read) {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the end is told");
    assert_eq!(rest, b"");
}

#[test]
fn a_closing_handshake_ends_with_a_close_notify() {
    let secure = Secure::start(|_| {}, echo);
    for version in VERSIONS {
        let mut socket = Socket::over(secure.client(&[version]), "/websocket", &[]).unwrap();
        let id = secure.server.opened();
        socket.0.close(None).unwrap();
        assert!(socket.next().is_close());
        assert!(matches!(socket.0.read(), Err(tungstenite::Error::ConnectionClosed)));
        ends_well(socket.0.get_mut());
        assert!(matches!(secure.server.said(), Said::Close(it, 1005, _) if it == id));
    }
}

#[test]
fn a_connection_that_rests_too_long_ends_with_a_close_notify() {
    let change = |config: &mut pousse::Config| {
        config.limits.idle_timeout = Duration::from_millis(200);
    };
    let secure = Secure::start(change, quiet);
    let mut client = secure.client(&VERSIONS);
    client.write_all(request("GET", "/api/messages", "", "").as_bytes()).unwrap();
    assert_eq!(status(&answer(&mut client)), "200");
    ends_well(&mut client);
    secure.counts("closed.idle-timeout", |now| now.closed(Reason::IdleTimeout) == 1);
}

#[test]
fn the_peers_close_notify_is_the_end_of_its_bytes_even_if_the_socket_stays_open() {
    let secure = Secure::start(|_| {}, quiet);
    for version in VERSIONS {
        let mut socket = Socket::over(secure.client(&[version]), "/websocket", &[]).unwrap();
        let id = secure.server.opened();
        let client = socket.0.get_mut();
        client.conn.send_close_notify();
        client.conn.complete_io(&mut client.sock).unwrap();
        assert_eq!(secure.server.said(), Said::Close(id, 1006, String::new()));

        // What was asked before it is still answered.
        let mut client = secure.client(&[version]);
        client.conn.writer().write_all(request("GET", "/", "", "").as_bytes()).unwrap();
        client.conn.send_close_notify();
        while client.conn.wants_write() {
            client.conn.write_tls(&mut client.sock).unwrap();
        }
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(status(&answer), "200");
    }
}

#[test]
fn an_end_of_tcp_without_a_close_notify_is_an_end() {
    let secure = Secure::start(|_| {}, quiet);
    for version in VERSIONS {
        let mut socket = Socket::over(secure.client(&[version]), "/websocket", &[]).unwrap();
        let id = secure.server.opened();
        socket.0.get_mut().sock.shutdown(Shutdown::Write).unwrap();
        assert_eq!(secure.server.said(), Said::Close(id, 1006, String::new()));
    }
    secure.counts("closed.gone", |now| now.closed(Reason::Gone) == 2);
}

#[test]
fn a_drain_closes_with_1001_over_tls() {
    let mut secure = Secure::start(|_| {}, quiet);
    let sockets = VERSIONS.map(|version| {
        let socket = Socket::over(secure.client(&[version]), "/websocket", &[]).unwrap();
        secure.server.opened();
        socket
    });
    // One that is in the middle of its handshake holds nothing up.
    let mut half = crate::common::connect(secure.server.address());
    half.write_all(&secure.pair.hello()).unwrap();
    assert_eq!(half.read(&mut [0]).unwrap(), 1);
    secure.server.remote.drain(CloseCode::Away).unwrap();
    for mut socket in sockets {
        assert_eq!(socket.hears_close().0, 1001);
        ends_well(socket.0.get_mut());
    }
    let mut server = secure.server.join();
    assert_eq!(server.context().counters().closed(Reason::Drain), 3);
}
