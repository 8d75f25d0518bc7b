//! The control listener while the server ends.

use std::io::Write;
use std::time::Duration;

use pousse::CloseCode;

use crate::common::{
    PATIENCE, Socket, answer, connect, content, has_ended, opening, quiet, status,
};
use crate::{ask, door, start, until};

#[test]
fn to_the_end_it_is_open_says_that_no_clients_are_taken_and_is_not_waited_for() {
    let hours = Duration::from_secs(10_000);
    let mut running = start(
        |config| {
            config.limits.drain = hours;
            config.limits.close_timeout = hours;
            config.limits.idle_timeout = hours;
        },
        quiet,
    );
    // It will not answer the close frame.
    let mut stubborn = connect(running.address());
    stubborn.write_all(opening("/websocket").as_bytes()).unwrap();
    assert_eq!(status(&answer(&mut stubborn)), "101");
    let mut kept = connect(door(&running));
    let mut reader = Socket::open(door(&running), "/api/messages");
    let probe = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    kept.write_all(probe).unwrap();
    assert_eq!(content(&answer(&mut kept)), "ready\n");

    running.remote.drain(CloseCode::Away).unwrap();
    until(&running, "draining", || status(&ask(&running, "GET", "/readyz", "")) == "503");
    kept.write_all(probe).unwrap();
    let answered = answer(&mut kept);
    assert_eq!(status(&answered), "503");
    assert!(answered.contains("\r\nContent-Type: application/problem+json\r\n"), "{answered}");
    assert!(answered.contains("\r\nRetry-After: 5\r\n"), "{answered}");
    assert_eq!(status(&ask(&running, "GET", "/healthz", "")), "200");
    assert!(ask(&running, "GET", "/metrics", "").contains("\npousse_draining 1\n"));
    assert!(std::net::TcpStream::connect_timeout(&running.address(), PATIENCE).is_err());
    assert_eq!(running.counters().refused(pousse::Reason::Drain), 0, "probes count for nothing");
    // What is published still comes: the drain has not closed it.
    assert_eq!(status(&ask(&running, "POST", "/api/messages", "still here")), "201");
    assert_eq!(reader.hears(), "still here");

    drop(stubborn);
    running.join();
    assert!(has_ended(&mut kept), "the end of the server is the end of these as well");
    assert_eq!(reader.hears_close().0, 1001, "the owner is told too, last of all");
}
