//! Peers that speak something else, or break what they have begun.

use std::io::{Read, Write};
use std::time::Duration;

use pousse::Reason;

use crate::common::{Said, Socket, connect, content, has_ended, quiet, request, status};
use crate::rig::{Secure, VERSIONS, read_all, write_some};

#[test]
fn plain_http_is_told_in_plain_text_to_use_https() {
    let secure = Secure::start(|_| {}, quiet);
    let long = format!("POST / HTTP/1.1\r\nContent-Length: 300000\r\n\r\n{}", "a".repeat(300_000));
    for asked in [
        "G",
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "HEAD / HTTP/1.0\r\n\r\n",
        "GET /websocket HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
        &long,
    ] {
        let mut socket = connect(secure.server.address());
        socket.write_all(asked.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("no reset takes the answer away");
        assert_eq!(status(&answer), "400");
        assert!(answer.contains("\r\nContent-Type: text/plain"), "{answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
        assert!(content(&answer).contains("https://"), "{answer}");
    }
    secure.counts("refused.tls", |now| now.refused(Reason::Tls) == 5);
    secure.counts("closed.tls", |now| now.closed(Reason::Tls) == 5);
    assert_eq!(secure.server.counters().tls_failures, 0, "it is no failure of TLS");
    secure.serves_others();
}

#[test]
fn what_is_no_tls_gets_an_alert_and_the_end() {
    let secure = Secure::start(|_| {}, quiet);
    let alphabet = b"\x00\x15\x17\x80\xff\xc3 \r\nab!";
    let mut failures = 0;
    for first in alphabet {
        let mut socket = connect(secure.server.address());
        let mut garbage = vec![*first; 2000];
        garbage[1] = *first ^ 0x55;
        write_some(&mut socket, &garbage);
        let said = read_all(&mut socket);
        assert!(said.is_empty() || said[0] == 21, "no alert but {said:?}");
        failures += 1;
    }
    secure.counts("tls_failures", |now| now.tls_failures == failures);
    secure.counts("closed.tls", |now| now.closed(Reason::Tls) == failures);
    secure.serves_others();
}

#[test]
fn an_endless_flow_of_garbage_is_ended() {
    let secure = Secure::start(|_| {}, quiet);
    let mut socket = connect(secure.server.address());
    let chunk = [0x16; 65_536];
    while socket.write_all(&chunk).is_ok() {}
    secure.counts("closed.tls", |now| now.closed(Reason::Tls) == 1);
    secure.serves_others();
}

#[test]
fn a_record_that_was_changed_on_its_way_ends_the_connection() {
    let secure = Secure::start(|_| {}, quiet);
    for (number, version) in (1..).zip(VERSIONS) {
        let mut socket = Socket::over(secure.client(&[version]), "/websocket", &[]).unwrap();
        let id = secure.server.opened();
        let client = socket.0.get_mut();
        client.conn.writer().write_all(b"\x81\x80\0\0\0\0").unwrap();
        let mut record = Vec::new();
        client.conn.write_tls(&mut record).unwrap();
        *record.last_mut().unwrap() ^= 1;
        client.sock.write_all(&record).unwrap();
        let error = client.read(&mut [0; 100]).unwrap_err();
        assert!(error.to_string().contains("BadRecordMac"), "{error}");
        assert_eq!(secure.server.said(), Said::Close(id, 1006, String::new()));
        secure.counts("closed.tls", |now| now.closed(Reason::Tls) == number);
    }
    secure.serves_others();
}

#[test]
fn half_a_record_and_then_silence_is_dropped_at_its_deadline() {
    let change = |config: &mut pousse::Config| {
        config.limits.head_timeout = Duration::from_millis(300);
        config.limits.ping = Duration::from_millis(200);
        config.limits.pong_timeout = Duration::from_millis(200);
    };
    let secure = Secure::start(change, quiet);
    let half = |client: &mut crate::rig::Client, bytes: &[u8]| {
        client.conn.writer().write_all(bytes).unwrap();
        let mut record = Vec::new();
        client.conn.write_tls(&mut record).unwrap();
        client.sock.write_all(&record[..record.len() / 2]).unwrap();
    };
    let mut client = secure.client(&VERSIONS);
    half(&mut client, request("GET", "/", "", "").as_bytes());
    let _ = read_all(&mut client);
    secure.counts("closed.head-timeout", |now| now.closed(Reason::HeadTimeout) == 1);

    let mut socket = Socket::over(secure.client(&VERSIONS), "/websocket", &[]).unwrap();
    half(socket.0.get_mut(), b"\x81\x85\0\0\0\0hello");
    let _ = read_all(&mut socket.0.get_mut().sock);
    secure.counts("closed.pong-timeout", |now| now.closed(Reason::PongTimeout) == 1);
}

#[test]
fn a_record_over_the_length_of_records_is_refused_at_its_header() {
    let secure = Secure::start(|_| {}, quiet);
    let mut socket = connect(secure.server.address());
    socket.write_all(&[0x16, 3, 1, 0xff, 0xff]).unwrap();
    let said = read_all(&mut socket);
    assert_eq!(said.first(), Some(&21), "{said:?}");
    let mut socket = connect(secure.server.address());
    // A hello of 16 MB, said record by record: it is not waited for.
    socket.write_all(&[0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff]).unwrap();
    write_some(&mut socket, &[0; 16_380]);
    assert!(has_ended(&mut socket) || has_ended(&mut socket));
    secure.counts("tls_failures", |now| now.tls_failures == 2);
    secure.serves_others();
}
