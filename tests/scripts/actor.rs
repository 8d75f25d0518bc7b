//! Someone with a connection: what they send, and what they wait for.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::step::{Lasting, Timing};
use crate::support::event_stream::{self, Block};
use crate::support::http::Answer;
use crate::support::websocket::{self, Incoming, Reader};
use crate::support::{Came, PATIENCE, Server, Wire, now, show};
use crate::values::{is_like, is_like_text};

/// A line may come this much before its `after`: both clocks are read a little late.
const EARLY_MAX: Duration = Duration::from_millis(50);

/// What was expected, and what came.
pub(crate) struct Wrong(pub(crate) String, pub(crate) String);

pub(crate) type Played<T = ()> = Result<T, Wrong>;

pub(crate) fn wrong<T>(expected: impl Into<String>, came: impl Into<String>) -> Played<T> {
    Err(Wrong(expected.into(), came.into()))
}

/// What a connection speaks.
pub(crate) enum Speaks {
    Http,
    WebSocket(Reader),
    /// An answer that goes on.
    EventStream,
}

/// Someone with a connection.
pub(crate) struct Actor {
    pub(crate) wire: Option<Wire>,
    pub(crate) listener: usize,
    pub(crate) sent_at: Instant,
    /// For each request not yet answered, except raw ones: whether it was `HEAD`.
    pub(crate) asked: VecDeque<bool>,
    /// What came last and can be looked at: an answer, or the JSON of a message as its content, or
    /// a block of an event stream with its data as the content.
    pub(crate) answer: Option<Answer>,
    pub(crate) speaks: Speaks,
    pub(crate) last_ping: Vec<u8>,
}

impl Actor {
    pub(crate) fn new() -> Self {
        Actor {
            wire: None,
            listener: 1,
            sent_at: now(),
            asked: VecDeque::new(),
            answer: None,
            speaks: Speaks::Http,
            last_ping: Vec::new(),
        }
    }

    pub(crate) fn connect(&mut self, server: &Server) {
        let door = &server.doors()[self.listener - 1];
        let wire = Some(Wire::connect(door));
        *self = Actor { wire, listener: self.listener, ..Actor::new() };
    }

    pub(crate) fn wire(&mut self) -> Played<&mut Wire> {
        self.wire.as_mut().ok_or_else(|| Wrong("a connection".into(), "none".into()))
    }

    pub(crate) fn answer(&self) -> Played<&Answer> {
        self.answer.as_ref().ok_or_else(|| Wrong("an answer before".into(), "none".into()))
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Played {
        self.sent_at = now();
        self.wire()?
            .send(bytes)
            .map_err(|error| Wrong("that the server takes it".into(), error.to_string()))
    }

    /// Gets what was asked for, up to its first words.
    pub(crate) fn open(&mut self, lasting: Lasting) -> Played {
        if lasting == Lasting::Stream {
            self.hear_answer(200, Timing::default())?;
            self.check_fields(&[("Content-Type", "text/event-stream")])?;
            return self.hear(&Expected::Retry, Timing::default());
        }
        self.hear_answer(101, Timing::default())?;
        self.check_fields(&[
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", websocket::ACCEPT),
        ])?;
        if lasting == Lasting::V1 {
            self.check_fields(&[("Sec-WebSocket-Protocol", "pousse.v1")])?;
            let hello = serde_json::json!({"hello": {"client": "…-…", "last": "…-…", "ping": "…"}});
            self.hear(&Expected::Json(hello, false), Timing::default())?;
        }
        Ok(())
    }

    fn check_fields(&self, fields: &[(&str, &str)]) -> Played {
        let answer = self.answer()?;
        for (name, value) in fields {
            if answer.field(name).as_deref() != Some(value) {
                return wrong(format!("{name}: {value}"), answer.to_string());
            }
        }
        Ok(())
    }

    pub(crate) fn hear_answer(&mut self, status: u16, timing: Timing) -> Played {
        self.speaks_http()?;
        let expected = format!("status {status}");
        let (sent_at, to_head) = (self.sent_at, self.asked.front() == Some(&true));
        let answer = Answer::read(self.wire()?, to_head, timing.deadline(sent_at))
            .and_then(|answer| answer.check(to_head).map(|()| answer))
            .map_err(|came| Wrong(expected.clone(), came))?;
        timing.check(sent_at, &expected)?;
        if answer.status >= 200 {
            self.asked.pop_front();
        }
        if answer.status == 101 {
            self.speaks = Speaks::WebSocket(Reader::default());
        } else if answer.is_event_stream() && !to_head {
            self.speaks = Speaks::EventStream;
        }
        let came = answer.status;
        let answer = self.answer.insert(answer);
        if came == status { Ok(()) } else { wrong(expected, answer.to_string()) }
    }

    pub(crate) fn speaks_http(&self) -> Played {
        match self.speaks {
            Speaks::Http => Ok(()),
            Speaks::WebSocket(_) => wrong("a connection for HTTP", "a WebSocket"),
            Speaks::EventStream => wrong("a connection for HTTP", "an event stream"),
        }
    }

    /// Waits for the next message, control frame or block, and returns whether it is the one
    /// expected; if not, what it is.
    fn hear_next(&mut self, expected: &Expected, end: Instant) -> Played<Result<(), String>> {
        let Some(wire) = &mut self.wire else { return wrong("a connection", "none") };
        let failed = |came| Wrong(expected.to_string(), came);
        let (is_it, came) = match &mut self.speaks {
            Speaks::Http => return wrong("a WebSocket or an event stream", "one for HTTP"),
            Speaks::EventStream => {
                let block = event_stream::read(wire, end).map_err(failed)?;
                let came = (expected.fits_block(&block), event_stream::show(&block));
                self.answer = Some(as_answer(block));
                came
            }
            Speaks::WebSocket(messages) => {
                let came = messages.read(wire, end).map_err(failed)?;
                let is_it = expected.fits(&came);
                let text = came.to_string();
                match came {
                    Incoming::Ping(payload) => self.last_ping = payload,
                    came => {
                        if let (Expected::Json(..), Some(text)) = (expected, came.text()) {
                            let content = text.as_bytes().to_vec();
                            self.answer = Some(Answer { content, ..Answer::default() });
                        }
                    }
                }
                (is_it, text)
            }
        };
        Ok(if is_it { Ok(()) } else { Err(came) })
    }

    pub(crate) fn hear(&mut self, expected: &Expected, timing: Timing) -> Played {
        let came = self.hear_next(expected, timing.deadline(self.sent_at))?;
        timing.check(self.sent_at, &expected.to_string())?;
        came.or_else(|came| wrong(expected.to_string(), came))
    }

    pub(crate) fn hear_on_until(&mut self, expected: &Expected) -> Played {
        let deadline = now() + PATIENCE;
        while self.hear_next(expected, deadline)?.is_err() {}
        Ok(())
    }

    pub(crate) fn hear_nothing(&mut self, within: Duration) -> Played {
        let deadline = now() + within;
        let wire = self.wire()?;
        match wire.unread.is_empty() {
            true if wire.fill(deadline) == Came::Nothing => Ok(()),
            true if wire.unread.is_empty() => wrong("nothing", "the end"),
            _ => wrong("nothing", show(&wire.unread)),
        }
    }

    pub(crate) fn hear_end(&mut self, timing: Timing) -> Played {
        let sent_at = self.sent_at;
        let wire = self.wire()?;
        while wire.unread.is_empty() {
            match wire.fill(timing.deadline(sent_at)) {
                Came::More => {}
                Came::Nothing => return wrong("the end", "nothing"),
                Came::End => {
                    timing.check(sent_at, "the end")?;
                    // A next request comes over a new connection, as with everyone.
                    self.wire = None;
                    self.speaks = Speaks::Http;
                    self.asked.clear();
                    return Ok(());
                }
            }
        }
        wrong("the end", show(&wire.unread))
    }
}

/// A block as something to be looked at.
fn as_answer(block: Block) -> Answer {
    let mut answer = Answer::default();
    let mut data = Vec::new();
    for (name, value) in block {
        match name.as_str() {
            "data" => data.push(value),
            _ => answer.fields.push((name, value)),
        }
    }
    answer.content = data.join("\n").into_bytes();
    answer
}

/// What a script waits for on a WebSocket or an event stream.
pub(crate) enum Expected {
    /// The second: whether any payload of a control frame will do, or any reason of a close frame.
    Frame(Incoming, bool),
    /// And whether it comes compressed.
    Json(Value, bool),
    Block(Vec<(String, Wanted)>),
    /// The block with which an event stream begins.
    Retry,
}

/// What stands behind the name of a line in a block.
pub(crate) enum Wanted {
    Text(String),
    Json(Value),
}

/// How long a client is to wait before it comes back: 2 s, spread by a fifth.
const RETRY_MS: std::ops::RangeInclusive<u32> = 1600..=2400;

impl Expected {
    fn fits(&self, came: &Incoming) -> bool {
        match (self, came) {
            (Expected::Frame(Incoming::Ping(_), true), Incoming::Ping(_))
            | (Expected::Frame(Incoming::Pong(_), true), Incoming::Pong(_)) => true,
            (
                Expected::Frame(Incoming::Close(Some((code, _))), true),
                Incoming::Close(Some((came, _))),
            ) => code == came,
            (Expected::Frame(expected, _), came) => expected == came,
            (Expected::Json(expected, is_deflated), came) => {
                let is_so = matches!(came, Incoming::Deflated(_)) == *is_deflated;
                let came = came.text().filter(|_| is_so).map(serde_json::from_str);
                came.is_some_and(|came| came.is_ok_and(|came| is_like(&came, expected)))
            }
            _ => false,
        }
    }

    fn fits_block(&self, came: &Block) -> bool {
        match (self, &came[..]) {
            (Expected::Retry, [(name, value)]) => {
                name == "retry" && value.parse().is_ok_and(|ms| RETRY_MS.contains(&ms))
            }
            (Expected::Block(lines), came) => {
                let fits =
                    |((name, wanted), (came, value)): (&(String, Wanted), &(String, String))| {
                        name == came && wanted.fits(value)
                    };
                lines.len() == came.len() && lines.iter().zip(came).all(fits)
            }
            _ => false,
        }
    }
}

impl Wanted {
    fn fits(&self, came: &str) -> bool {
        match self {
            Wanted::Text(text) => is_like_text(came, text),
            Wanted::Json(json) => serde_json::from_str(came).is_ok_and(|came| is_like(&came, json)),
        }
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Expected::Frame(Incoming::Ping(_), true) => f.write_str("a ping"),
            Expected::Frame(Incoming::Pong(_), true) => f.write_str("a pong"),
            Expected::Frame(Incoming::Close(Some((code, _))), true) => {
                write!(f, "close {code}, any reason")
            }
            Expected::Frame(incoming, _) => incoming.fmt(f),
            Expected::Json(json, false) => json.fmt(f),
            Expected::Json(json, true) => write!(f, "deflated {json}"),
            Expected::Retry => write!(f, "retry: {RETRY_MS:?}"),
            Expected::Block(lines) => {
                let line = |(name, wanted): &(String, Wanted)| match wanted {
                    Wanted::Text(text) => format!("{name}: {text}"),
                    Wanted::Json(json) => format!("{name}: {json}"),
                };
                f.write_str(&lines.iter().map(line).collect::<Vec<_>>().join(" ⏎ "))
            }
        }
    }
}

impl Timing {
    /// Until when to wait for something, having last sent something at that time.
    pub(crate) fn deadline(self, sent_at: Instant) -> Instant {
        match (self.within, self.after) {
            // At once means soon, and not before a busy machine had a moment for it.
            (Some(within), _) => sent_at + within,
            (None, after) => now().max(sent_at + after.unwrap_or_default()) + PATIENCE,
        }
    }

    pub(crate) fn check(self, sent_at: Instant, what: &str) -> Played {
        let passed = now().saturating_duration_since(sent_at);
        match self.after {
            Some(after) if passed + EARLY_MAX < after => {
                wrong(format!("{what} after {after:?}"), format!("it, but after {passed:?}"))
            }
            _ => Ok(()),
        }
    }
}
