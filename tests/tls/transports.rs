//! Everything that is served over TCP is served over TLS, in pieces of every size.

use std::io::{Read, Write};

use pousse::{Limits, Reason};

use crate::common::{Socket, answer, content, echo, http, quiet, request, status};
use crate::rig::{Client, Daemon, Secure, VERSIONS, read_all};

#[test]
fn page_poll_publishing_and_event_stream_come_over_both_versions() {
    let secure = Secure::start(|_| {}, quiet);
    for version in VERSIONS {
        let client = || secure.client(&[version]);
        let page = http(client(), "GET", "/", "");
        assert_eq!(status(&page), "200");
        assert!(page.contains("<html"), "{page}");
        let published = http(client(), "POST", "/api/messages?topic=t", "Bonjour");
        assert_eq!(status(&published), "201", "{published}");
        let polled = http(client(), "GET", "/api/messages?topic=t", "");
        assert!(content(&polled).contains("\"data\":\"Bonjour\""), "{polled}");

        let mut waits = client();
        let target = "/api/messages?topic=u&after=now&wait=50";
        waits.write_all(request("GET", target, "", "").as_bytes()).unwrap();
        let mut stream = client();
        let fields = "Accept: text/event-stream\r\n";
        stream.write_all(request("GET", target, fields, "").as_bytes()).unwrap();
        let is_there = |ctx: &mut pousse::Context<'_>| ctx.clients().count();
        while secure.server.ask(is_there) < 2 {}
        secure.server.remote.publish("u", "là").unwrap();
        assert!(content(&answer(&mut waits)).contains("\"data\":\"là\""));
        let mut heard = Vec::new();
        while !String::from_utf8_lossy(&heard).contains("\"data\":\"là\"") {
            let mut bytes = [0; 1024];
            let count = stream.read(&mut bytes).unwrap();
            heard.extend_from_slice(&bytes[..count]);
        }
        assert!(String::from_utf8_lossy(&heard).contains("text/event-stream"));
        drop((waits, stream));
        while secure.server.ask(is_there) > 0 {}
    }
    assert_eq!(secure.server.counters().tls_failures, 0);
}

/// Sends messages around the sizes that records have, and hears each again.
fn is_echoed(socket: &mut Socket<Client>, sizes: &[usize]) {
    for &size in sizes {
        let sent = tungstenite::Message::binary(vec![7; size]);
        socket.0.send(sent.clone()).unwrap();
        assert!(socket.next() == sent, "{size} bytes come back");
    }
}

fn large(limits: &mut Limits) {
    limits.max_message = 2 << 20;
    limits.outbox = 8 << 20;
}

#[test]
fn a_websocket_over_tls_echoes_messages_of_every_size_whatever_one_turn_reads() {
    let sizes = [0, 1, 125, 4000, 16_383, 16_384, 16_385, 70_000, 1 << 20];
    for turn_read in [1, 100, 1000, 16 * 1024, 64 * 1024] {
        let change = |config: &mut pousse::Config| {
            large(&mut config.limits);
            config.limits.turn_read = turn_read;
        };
        let secure = Secure::start(change, echo);
        for version in VERSIONS {
            let mut socket = Socket::over(secure.client(&[version]), "/websocket", &[]).unwrap();
            // A turn for each byte takes its time where there are a million of them.
            let count = if turn_read < 1000 { 6 } else { sizes.len() };
            is_echoed(&mut socket, &sizes[..count]);
            socket.closes(1000, "");
        }
    }
}

#[test]
fn many_requests_in_one_record_are_all_answered() {
    // 15 KB: more than a head, so more than one read of the connection's, and no event for it.
    let secure = Secure::start(|_| {}, quiet);
    for version in VERSIONS {
        let mut client = secure.client(&[version]);
        client
            .write_all(request("GET", "/api/messages?limit=0", "", "").repeat(200).as_bytes())
            .unwrap();
        for _ in 0..200 {
            assert_eq!(status(&answer(&mut client)), "200");
        }
    }
}

#[test]
fn a_client_that_renews_its_keys_is_understood() {
    let secure = Secure::start(|_| {}, echo);
    let mut socket = Socket::over(secure.client(&VERSIONS[1..]), "/websocket", &[]).unwrap();
    for _ in 0..50 {
        socket.0.get_mut().conn.refresh_traffic_keys().unwrap();
        is_echoed(&mut socket, &[10]);
    }
}

#[test]
fn a_reader_over_tls_that_takes_nothing_is_cut_and_nobody_else() {
    let change = |config: &mut pousse::Config| {
        config.limits.stall = std::time::Duration::from_millis(300);
        config.limits.history_bytes = 64 << 20;
        config.limits.history_total = 64 << 20;
        config.limits.history = 100_000;
    };
    let secure = Secure::start(change, quiet);
    let mut slow = Socket::over(secure.client(&VERSIONS), "/websocket", &[]).unwrap();
    let slow_id = secure.server.opened();
    let mut quick = Socket::over(secure.client(&VERSIONS), "/websocket", &[]).unwrap();
    secure.server.opened();
    // More than the buffers of the two sockets hold.
    let mut heard = 0;
    for _ in 0..16 {
        secure.server.ask(|ctx| {
            for _ in 0..16 {
                ctx.publish("general", &vec![7u8; 60_000]).unwrap();
            }
        });
        for _ in 0..16 {
            assert_eq!(quick.next().len(), 60_000);
            heard += 1;
        }
    }
    assert_eq!(heard, 256);
    match secure.server.said() {
        crate::common::Said::Close(id, code, _) => assert_eq!((id, code), (slow_id, 1013)),
        other => panic!("{other:?}"),
    }
    secure.counts("closed.stall", |now| now.closed(Reason::Stall) == 1);
    secure.server.remote.publish("general", "and on").unwrap();
    assert_eq!(quick.hears(), "and on");
    // What it had been sent is whole up to where it was cut.
    slow.0.get_mut().sock.set_nonblocking(false).unwrap();
    let mut taken = 0;
    while let Ok(message) = slow.0.read() {
        assert!(message.len() == 60_000 || message.is_close() || message.is_ping());
        taken += 1;
    }
    assert!(taken < 256, "{taken}");
}

#[test]
fn a_reader_over_tls_that_comes_back_in_time_has_everything() {
    let change = |config: &mut pousse::Config| {
        config.limits.history_bytes = 64 << 20;
        config.limits.history = 100_000;
    };
    let secure = Secure::start(change, quiet);
    for version in VERSIONS {
        let mut socket = Socket::over(secure.client(&[version]), "/websocket", &[]).unwrap();
        secure.server.opened();
        secure.server.ask(|ctx| {
            for number in 0..400 {
                let text = format!("{number:05}").repeat(8000);
                ctx.publish("general", &text).unwrap();
            }
        });
        secure.server.ask(|_| ());
        for number in 0..400 {
            assert!(socket.hears().starts_with(&format!("{number:05}")), "{number}");
        }
        socket.closes(1000, "");
        assert!(matches!(secure.server.said(), crate::common::Said::Close(..)));
    }
}

#[test]
fn what_curl_asks_over_https_is_answered() {
    let daemon = Daemon::start("curl", &[]);
    let url = format!("https://{}/api/messages", daemon.address);
    let curl = std::process::Command::new("curl")
        .args(["-k", "-sS", "-v", "-d", "Bonjour", &url])
        .output();
    let Ok(output) = curl else {
        let is_required = std::env::var("POUSSE_TEST_REQUIRE").is_ok_and(|it| it == "all");
        assert!(!is_required, "curl is missing");
        return println!("SKIPPED: curl asks over https (apt-get install curl)");
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"id\":"), "{said}");
    assert!(daemon.serves());
}

#[test]
fn an_answer_that_ends_with_the_connection_ends_with_a_close_notify() {
    let secure = Secure::start(|_| {}, quiet);
    for version in VERSIONS {
        let mut client = secure.client(&[version]);
        let asked = request("GET", "/", "Connection: close\r\n", "");
        client.write_all(asked.as_bytes()).unwrap();
        // rustls makes an error of an end that nobody has told of.
        assert!(client.read_to_end(&mut Vec::new()).is_ok());
        assert!(read_all(&mut client.sock).is_empty());
    }
}
