//! What is to be done, from the command line: a work, then `--name value` pairs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How messages come to a reader.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Transport {
    Websocket,
    V1,
    EventStream,
    LongPoll,
}

/// When it is enough.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// Just so many messages, all of them measured.
    Messages(u64),
    /// So long, after a time in which nothing is measured.
    Time { warm: Duration, measured: Duration },
}

#[derive(Clone, Debug)]
pub(crate) struct Args {
    pub(crate) work: String,
    pub(crate) address: SocketAddr,
    pub(crate) pid: Option<u32>,
    pub(crate) path: String,
    /// Where the publisher connects.
    pub(crate) publish_path: String,
    /// Whether whoever publishes is given it as well.
    pub(crate) publisher_reads: bool,
    pub(crate) connections: usize,
    pub(crate) stalled: usize,
    pub(crate) size: usize,
    pub(crate) in_flight: usize,
    pub(crate) transports: Vec<Transport>,
    pub(crate) goal: Goal,
    pub(crate) hold: Duration,
    pub(crate) status: u16,
    pub(crate) topics: usize,
    /// What is sent is what comes back, byte for byte: for the ceiling, which knows no frames.
    pub(crate) is_raw: bool,
    /// Offers permessage-deflate.
    pub(crate) deflate: bool,
    /// Places in a log as Nchan has them, in `Last-Modified` and `Etag`.
    pub(crate) is_nchan: bool,
    /// The certificate of the server.
    pub(crate) tls: Option<PathBuf>,
    /// Addresses to come from: 127.0.0.1 and the next ones.
    pub(crate) sources: u8,
    pub(crate) is_json: bool,
}

impl Args {
    pub(crate) fn read() -> Self {
        let mut words = std::env::args().skip(1);
        let work = words.next().unwrap_or_default();
        let mut args = Self {
            address: "127.0.0.1:8080".parse().unwrap(),
            pid: None,
            path: if work == "echo" { "/" } else { "/websocket" }.into(),
            publish_path: "/websocket".into(),
            publisher_reads: true,
            connections: 100,
            stalled: if work == "slow" { 10 } else { 0 },
            size: 64,
            in_flight: 1,
            transports: match work.as_str() {
                "longpoll" => vec![Transport::LongPoll],
                "mixed" => "websocket,v1,event-stream,long-poll".split(',').map(named).collect(),
                _ => vec![Transport::Websocket],
            },
            goal: Goal::Time {
                warm: Duration::from_millis(300),
                measured: Duration::from_millis(1500),
            },
            hold: Duration::ZERO,
            status: 200,
            topics: 1,
            is_raw: false,
            deflate: false,
            is_nchan: false,
            tls: None,
            sources: 1,
            is_json: false,
            work,
        };
        while let Some(word) = words.next() {
            args.set(&word, || words.next().unwrap_or_else(|| panic!("{word} needs a value")));
        }
        assert!(args.size >= 8, "a message has 8 bytes at least: its number");
        args
    }

    fn set(&mut self, word: &str, mut value: impl FnMut() -> String) {
        let seconds = |text: String| Duration::from_secs_f64(text.parse().unwrap());
        match word {
            "--address" => self.address = value().parse().unwrap(),
            "--pid" => self.pid = Some(value().parse().unwrap()),
            "--path" => self.path = value(),
            "--publish-path" => self.publish_path = value(),
            "--publisher-only" => self.publisher_reads = false,
            "--connections" | "--readers" => self.connections = value().parse().unwrap(),
            "--stalled" => self.stalled = value().parse().unwrap(),
            "--size" => self.size = value().parse().unwrap(),
            "--in-flight" => self.in_flight = value().parse().unwrap(),
            "--transport" => self.transports = value().split(',').map(named).collect(),
            "--messages" => self.goal = Goal::Messages(value().parse().unwrap()),
            "--seconds" => {
                let warm = Duration::from_millis(300);
                self.goal = Goal::Time { warm, measured: seconds(value()) };
            }
            "--hold" => self.hold = seconds(value()),
            "--status" => self.status = value().parse().unwrap(),
            "--topics" => self.topics = value().parse().unwrap(),
            "--raw" => self.is_raw = true,
            "--deflate" => self.deflate = true,
            "--nchan" => self.is_nchan = true,
            "--tls" => self.tls = Some(value().into()),
            "--sources" => self.sources = value().parse().unwrap(),
            "--json" => self.is_json = true,
            other => panic!("{other}: no such flag"),
        }
    }
}

fn named(name: &str) -> Transport {
    match name {
        "websocket" => Transport::Websocket,
        "v1" => Transport::V1,
        "event-stream" => Transport::EventStream,
        "long-poll" => Transport::LongPoll,
        other => panic!("{other}: websocket v1 event-stream long-poll"),
    }
}
