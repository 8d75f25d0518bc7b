//! Someone with a connection: what they send, and what they wait for.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::step::Timing;
use crate::support::http::Answer;
use crate::support::websocket::{self, Incoming, Reader};
use crate::support::{Came, PATIENCE, Server, Wire, now, show};

/// A line may come this much before its `after`: both clocks are read a little late.
const EARLY_MAX: Duration = Duration::from_millis(50);

/// What was expected, and what came.
pub(crate) struct Wrong(pub(crate) String, pub(crate) String);

pub(crate) type Played<T = ()> = Result<T, Wrong>;

pub(crate) fn wrong<T>(expected: impl Into<String>, came: impl Into<String>) -> Played<T> {
    Err(Wrong(expected.into(), came.into()))
}

/// Someone with a connection.
pub(crate) struct Actor {
    pub(crate) wire: Option<Wire>,
    pub(crate) listener: usize,
    pub(crate) sent_at: Instant,
    /// For each request not yet answered, except raw ones: whether it was `HEAD`.
    pub(crate) asked: VecDeque<bool>,
    pub(crate) answer: Option<Answer>,
    /// Once the connection is a WebSocket.
    pub(crate) messages: Option<Reader>,
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
            messages: None,
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

    pub(crate) fn open(&mut self) -> Played {
        self.hear_answer(101, Timing::default())?;
        let answer = self.answer()?;
        for (name, value) in [
            ("Upgrade", "websocket"),
            ("Connection", "upgrade"),
            ("Sec-WebSocket-Accept", websocket::ACCEPT),
        ] {
            let came = answer.field(name).unwrap_or_default();
            // Only the accept value has a case of its own.
            if came != value
                && !(name != "Sec-WebSocket-Accept" && came.eq_ignore_ascii_case(value))
            {
                return wrong(format!("{name}: {value}"), answer.to_string());
            }
        }
        Ok(())
    }

    pub(crate) fn hear_answer(&mut self, status: u16, timing: Timing) -> Played {
        if self.messages.is_some() {
            return wrong("a connection for HTTP", "a WebSocket");
        }
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
            self.messages = Some(Reader::default());
        }
        let came = answer.status;
        let answer = self.answer.insert(answer);
        if came == status { Ok(()) } else { wrong(expected, answer.to_string()) }
    }

    /// Waits for the next message or control frame, and returns whether it is the one expected;
    /// if not, what it is.
    fn hear_next(&mut self, expected: &Expected, end: Instant) -> Played<Result<(), Incoming>> {
        let Some(messages) = &mut self.messages else {
            return wrong("a WebSocket", "a connection for HTTP");
        };
        let Some(wire) = &mut self.wire else { return wrong("a connection", "none") };
        let came = messages.read(wire, end).map_err(|came| Wrong(expected.to_string(), came))?;
        if let Incoming::Ping(payload) = &came {
            self.last_ping = payload.clone();
        }
        Ok(if expected.fits(&came) { Ok(()) } else { Err(came) })
    }

    pub(crate) fn hear(&mut self, expected: &Expected, timing: Timing) -> Played {
        let came = self.hear_next(expected, timing.deadline(self.sent_at))?;
        timing.check(self.sent_at, &expected.to_string())?;
        came.or_else(|came| wrong(expected.to_string(), came.to_string()))
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
                    self.messages = None;
                    self.asked.clear();
                    return Ok(());
                }
            }
        }
        wrong("the end", show(&wire.unread))
    }
}

/// What a script waits for on a WebSocket.
pub(crate) struct Expected {
    pub(crate) incoming: Incoming,
    /// Whether any payload of a control frame will do, or any reason of a close frame.
    pub(crate) any_payload: bool,
}

impl Expected {
    fn fits(&self, came: &Incoming) -> bool {
        match (&self.incoming, came) {
            (Incoming::Ping(_), Incoming::Ping(_)) if self.any_payload => true,
            (Incoming::Pong(_), Incoming::Pong(_)) if self.any_payload => true,
            (Incoming::Close(Some((code, _))), Incoming::Close(Some((came, _))))
                if self.any_payload =>
            {
                code == came
            }
            (expected, came) => expected == came,
        }
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.incoming {
            Incoming::Ping(_) if self.any_payload => f.write_str("a ping"),
            Incoming::Pong(_) if self.any_payload => f.write_str("a pong"),
            Incoming::Close(Some((code, _))) if self.any_payload => {
                write!(f, "close {code}, any reason")
            }
            incoming => incoming.fmt(f),
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
