//! What is to be done, from the command line: a work, then `--name value` pairs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
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
    /// What the words say; else what is wrong with them.
    pub(crate) fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let work = words.next().unwrap_or_default();
        let mut args = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
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
                "mixed" => {
                    use Transport::{EventStream, LongPoll, V1, Websocket};
                    vec![Websocket, V1, EventStream, LongPoll]
                }
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
            args.set(&word, || words.next().ok_or_else(|| format!("{word} needs a value")))?;
        }
        if args.size < 8 {
            return Err("--size has to be 8 at least: a message begins with its number".into());
        }
        Ok(args)
    }

    fn set(
        &mut self,
        word: &str,
        mut value: impl FnMut() -> Result<String, String>,
    ) -> Result<(), String> {
        let transports = |text: String| text.split(',').map(named).collect::<Result<Vec<_>, _>>();
        match word {
            "--address" => self.address = parsed(word, &value()?)?,
            "--pid" => self.pid = Some(parsed(word, &value()?)?),
            "--path" => self.path = value()?,
            "--publish-path" => self.publish_path = value()?,
            "--publisher-only" => self.publisher_reads = false,
            "--connections" | "--readers" => self.connections = parsed(word, &value()?)?,
            "--stalled" => self.stalled = parsed(word, &value()?)?,
            "--size" => self.size = parsed(word, &value()?)?,
            "--in-flight" => self.in_flight = parsed(word, &value()?)?,
            "--transport" => self.transports = transports(value()?)?,
            "--messages" => self.goal = Goal::Messages(parsed(word, &value()?)?),
            "--seconds" => {
                let warm = Duration::from_millis(300);
                self.goal = Goal::Time { warm, measured: seconds(word, &value()?)? };
            }
            "--hold" => self.hold = seconds(word, &value()?)?,
            "--status" => self.status = parsed(word, &value()?)?,
            "--topics" => self.topics = parsed(word, &value()?)?,
            "--raw" => self.is_raw = true,
            "--deflate" => self.deflate = true,
            "--nchan" => self.is_nchan = true,
            "--tls" => self.tls = Some(value()?.into()),
            "--sources" => self.sources = parsed(word, &value()?)?,
            "--json" => self.is_json = true,
            other => return Err(format!("there is no {other}")),
        }
        Ok(())
    }
}

fn parsed<T: FromStr>(word: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{word} cannot be {text:?}"))
}

fn seconds(word: &str, text: &str) -> Result<Duration, String> {
    let seconds = parsed(word, text)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{word} cannot be {text:?}"))
}

fn named(name: &str) -> Result<Transport, String> {
    match name {
        "websocket" => Ok(Transport::Websocket),
        "v1" => Ok(Transport::V1),
        "event-stream" => Ok(Transport::EventStream),
        "long-poll" => Ok(Transport::LongPoll),
        other => Err(format!(
            "--transport cannot be {other:?}: websocket, v1, event-stream, long-poll, with commas"
        )),
    }
}
