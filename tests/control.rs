//! The control listener, over real sockets: every path, every refusal, what its owner may do to
//! topics and clients, and the metrics against what was done.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that stops is a test that tells"
)]

use kit::common;

#[path = "control/acting.rs"]
mod acting;
#[path = "control/ending.rs"]
mod ending;
#[path = "control/metrics.rs"]
mod metrics;
#[path = "control/paths.rs"]
mod paths;
#[path = "control/prometheus.rs"]
mod prometheus;

use std::net::{SocketAddr, TcpStream};

use pousse::{Config, Publish};
use serde_json::Value;

use common::{Act, Running, Socket, connect, content, head, http, status};

/// A server where nobody may publish, with a control listener.
fn start(change: impl FnOnce(&mut Config), act: impl Act) -> Running {
    Running::start(
        |config| {
            config.control = Some("127.0.0.1:0".parse().unwrap());
            config.publish = Some(Publish::Nobody);
            change(config);
        },
        act,
    )
}

/// Where its control listener is.
fn door(running: &Running) -> SocketAddr {
    running.control.as_deref().unwrap().strip_prefix("http://").unwrap().parse().unwrap()
}

/// One request over the control listener, and all of the answer.
fn ask(running: &Running, method: &str, target: &str, content: &str) -> String {
    http(connect(door(running)), method, target, content)
}

/// The JSON that this path has.
#[track_caller]
fn get(running: &Running, target: &str) -> Value {
    let answer = ask(running, "GET", target, "");
    assert_eq!(status(&answer), "200", "{target}: {answer}");
    serde_json::from_str(content(&answer)).unwrap()
}

/// Publishes over the control listener; the id.
#[track_caller]
fn publish(running: &Running, topic: &str, text: &str) -> String {
    let answer = ask(running, "POST", &format!("/api/messages?topic={topic}"), text);
    assert_eq!(status(&answer), "201", "{answer}");
    let json: Value = serde_json::from_str(content(&answer)).unwrap();
    json["id"].as_str().unwrap().to_owned()
}

/// A WebSocket of pousse.v1 that has been greeted.
fn session(address: SocketAddr, query: &str) -> (Socket, Value) {
    let path = format!("/websocket?{query}");
    let mut socket = Socket::offering(address, &path, &["pousse.v1"]).unwrap();
    let hello = serde_json::from_str(&socket.hears()).unwrap();
    (socket, hello)
}

/// The next JSON over pousse.v1.
fn hears(socket: &mut Socket) -> Value {
    serde_json::from_str(&socket.hears()).unwrap()
}

/// An event stream whose head has been read and passed; the status of another answer.
fn stream(address: SocketAddr, query: &str) -> Result<TcpStream, String> {
    use std::io::Write;
    let mut stream = connect(address);
    let request = format!(
        "GET /api/messages?{query} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let head = head(&mut stream);
    if status(&head) == "200" { Ok(stream) } else { Err(status(&head).to_owned()) }
}

/// Reads an event stream up to a block with this text; that block.
fn block(stream: &mut TcpStream, wanted: &str) -> String {
    use std::io::Read;
    let mut block = Vec::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte).expect("the block comes in time");
        block.push(byte[0]);
        if block.ends_with(b"\n\n") {
            let text = String::from_utf8(std::mem::take(&mut block)).unwrap();
            if text.contains(wanted) {
                return text;
            }
        }
    }
}

/// Waits, turn by turn, until this is so.
#[track_caller]
fn until(running: &Running, what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..100_000 {
        if is_so() {
            return;
        }
        // A turn of the loop, and with it time for everyone else.
        running.counters();
    }
    panic!("never: {what}");
}
