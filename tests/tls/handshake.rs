//! Handshakes: in pieces, cut, refused, and many at once.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use pousse::Reason;
use rustls::ProtocolVersion;

use crate::common::{Socket, connect, echo, has_ended, http, quiet, status};
use crate::rig::{Daemon, Pair, Secure, VERSIONS, client, now, read_all};

#[test]
fn both_versions_are_spoken_and_counted() {
    let secure = Secure::start(|_| {}, quiet);
    for (version, wanted) in
        VERSIONS.into_iter().zip([ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3])
    {
        let client = secure.client(&[version]);
        assert_eq!(client.conn.protocol_version(), Some(wanted));
        assert_eq!(status(&http(client, "GET", "/", "")), "200");
    }
    assert_eq!(secure.server.counters().tls_handshakes, 2);
}

#[test]
fn no_handshake_is_shortened_by_one_before() {
    let pair = Pair::new();
    let tls = pair.tls();
    let server = crate::common::Running::start(|config| config.tls = Some(tls), quiet);
    for version in VERSIONS {
        let first = pair.trusted(&[version], &[]);
        // The same settings, so the same memory of sessions.
        let config = Arc::new({
            let mut roots = rustls::RootCertStore::empty();
            roots.add(pair.der()).unwrap();
            rustls::ClientConfig::builder_with_provider(Arc::new(
                rustls::crypto::ring::default_provider(),
            ))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
        });
        drop(first);
        for _ in 0..3 {
            let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
            let session = rustls::ClientConnection::new(config.clone(), name).unwrap();
            let mut client = client(session, server.address());
            let asked = crate::common::request("GET", "/", "Connection: close\r\n", "");
            client.write_all(asked.as_bytes()).unwrap();
            client.read_to_end(&mut Vec::new()).unwrap();
            let kind = client.conn.handshake_kind().unwrap();
            assert_eq!(kind, rustls::HandshakeKind::Full);
        }
    }
}

#[test]
fn a_hello_byte_by_byte_is_understood() {
    let secure = Secure::start(|_| {}, quiet);
    for version in VERSIONS {
        let mut session = secure.pair.trusted(&[version], &[]);
        let mut hello = Vec::new();
        session.write_tls(&mut hello).unwrap();
        let mut socket = connect(secure.server.address());
        for byte in hello {
            socket.write_all(&[byte]).unwrap();
        }
        session.complete_io(&mut socket).unwrap();
        let client = rustls::StreamOwned::new(session, socket);
        assert_eq!(status(&http(client, "GET", "/", "")), "200");
    }
}

#[test]
fn only_http_1_1_is_agreed_on() {
    let secure = Secure::start(|_| {}, quiet);
    for version in VERSIONS {
        for (offered, agreed) in [
            (&[][..], None),
            (&["http/1.1"][..], Some("http/1.1")),
            (&["h2", "http/1.1"][..], Some("http/1.1")),
        ] {
            let session = secure.pair.trusted(&[version], offered);
            let client = client(session, secure.server.address());
            assert_eq!(client.conn.alpn_protocol(), agreed.map(str::as_bytes));
            assert_eq!(status(&http(client, "GET", "/", "")), "200");
        }
    }
    assert_eq!(secure.server.counters().tls_failures, 0);
    for offered in [&["h2"][..], &["ftp", "smtp"], &["http/1.0"]] {
        let mut session = secure.pair.trusted(&VERSIONS, offered);
        let error = session.complete_io(&mut connect(secure.server.address())).unwrap_err();
        assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    }
    secure.counts("tls_failures", |now| now.tls_failures == 3);
    assert_eq!(secure.server.counters().closed(Reason::Tls), 3);
}

#[test]
fn a_hello_that_is_cut_at_any_byte_leaves_nothing_behind() {
    let daemon = Daemon::start("cut", &[]);
    assert!(daemon.serves());
    let hello = daemon.pair.hello();
    let before = daemon.descriptors();
    for end in 0..=hello.len() {
        let mut socket = connect(daemon.address);
        socket.write_all(&hello[..end]).unwrap();
        // One way of leaving after the other: at once, or waiting for what is said to it.
        if end % 2 == 0 {
            socket.shutdown(Shutdown::Write).unwrap();
            let _ = read_all(&mut socket);
        }
    }
    assert!(daemon.serves());
    let until = now() + crate::common::PATIENCE;
    while daemon.descriptors() > before {
        assert!(now() < until, "{} descriptors, before {before}", daemon.descriptors());
    }
}

#[test]
fn a_close_notify_behind_the_hello_ends_the_connection_and_not_the_server() {
    // CVE-2024-32650: it was an endless loop. Who has no keys yet is not believed, so with TLS 1.2
    // the alert is passed over and the deadline decides; with 1.3 it is an error.
    let secure =
        Secure::start(|config| config.limits.head_timeout = Duration::from_millis(300), quiet);
    for version in VERSIONS {
        let mut hello = Vec::new();
        secure.pair.trusted(&[version], &[]).write_tls(&mut hello).unwrap();
        for together in [true, false] {
            let mut socket = connect(secure.server.address());
            let alert = [21, 3, 3, 0, 2, 1, 0];
            if together {
                socket.write_all(&[&hello[..], &alert].concat()).unwrap();
            } else {
                socket.write_all(&hello).unwrap();
                assert!(socket.read(&mut [0; 1]).unwrap() > 0, "the server's flight");
                socket.write_all(&alert).unwrap();
            }
            let _ = read_all(&mut socket);
            secure.serves_others();
        }
    }
    secure.counts("all have gone", |now| {
        now.closed(Reason::HeadTimeout) == 2 && now.closed(Reason::Tls) == 2
    });
}

#[test]
fn a_handshake_that_takes_too_long_is_dropped_at_the_head_deadline() {
    let secure =
        Secure::start(|config| config.limits.head_timeout = Duration::from_millis(300), quiet);
    let hello = secure.pair.hello();
    let mut silent = connect(secure.server.address());
    let mut half = connect(secure.server.address());
    half.write_all(&hello[..hello.len() / 2]).unwrap();
    let mut whole = connect(secure.server.address());
    whole.write_all(&hello).unwrap();
    let mut slow = connect(secure.server.address());
    slow.set_nonblocking(true).unwrap();
    // Bytes that go on coming do not push it away; where they end, the first is repeated.
    let mut sent = hello[..hello.len() - 1].iter();
    let until = now() + crate::common::PATIENCE;
    loop {
        assert!(now() < until, "it is never dropped");
        let next = sent.next();
        if let Some(byte) = next {
            let _ = slow.write(&[*byte]);
            // A round of the loop for each byte.
            secure.server.ask(|_| ());
        }
        match slow.read(&mut [0; 16]) {
            Ok(_) => break,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    assert!(has_ended(&mut silent));
    assert!(has_ended(&mut half));
    let _ = read_all(&mut whole);
    secure.counts("closed.head-timeout", |now| now.closed(Reason::HeadTimeout) == 4);
    secure.serves_others();
}

#[test]
fn a_flood_of_handshakes_leaves_an_innocent_client_served() {
    let secure = Secure::start(|config| config.limits.controls = 1_000_000, echo);
    let mut innocent = Socket::over(secure.client(&VERSIONS), "/websocket", &[]).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let hello = secure.pair.hello();
    let floods: Vec<_> = (0..2)
        .map(|_| {
            let (is_over, hello, address) =
                (is_over.clone(), hello.clone(), secure.server.address());
            std::thread::spawn(move || {
                while !is_over.load(SeqCst) {
                    // Whoever has sent a hello has made the server work, and can go.
                    let mut peers: Vec<_> = (0..50).map(|_| connect(address)).collect();
                    for peer in &mut peers {
                        let _ = peer.write_all(&hello);
                    }
                    for mut peer in peers {
                        let _ = peer.read(&mut [0; 16]);
                    }
                }
            })
        })
        .collect();
    let mut longest = Duration::ZERO;
    let begun = now();
    while now() - begun < Duration::from_secs(2) {
        let before = now();
        innocent.0.send(tungstenite::Message::Ping("alive".into())).unwrap();
        while !innocent.0.read().unwrap().is_pong() {}
        longest = longest.max(now() - before);
    }
    is_over.store(true, SeqCst);
    floods.into_iter().for_each(|flood| flood.join().unwrap());
    let counters = secure.server.counters();
    println!("{} connections, longest wait for a pong {longest:?}", counters.accepted);
    assert!(counters.accepted > 100, "{counters}");
    assert!(longest < Duration::from_millis(500), "{longest:?}");
}
