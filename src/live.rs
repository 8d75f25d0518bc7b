//! A WebSocket's life after its opening handshake: pings, pongs, and the closing handshake
//! (RFC 6455 §5.5, §7).
//!
//! What its bytes mean is told by `websocket.rs`; here it is acted upon. Messages are handed on,
//! control frames are answered, silence is noticed.

use tungstenite::protocol::frame::coding::{CloseCode, Control};

use crate::error::SendError;
use crate::event::Event;
use crate::id::ConnId;
use crate::message::{Message, put_frame_head};
use crate::metrics::Reason;
use crate::outgoing::Outgoing;
use crate::tick::Tick;
use crate::turn::Turn;
use crate::websocket::{self, Fault, Incoming, WebSocket};

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Live {
    frames: WebSocket,
    id: ConnId,
    /// When to ping, or when the pong has not come.
    ping: Tick,
    awaits_pong: bool,
    /// Our close frame is on its way.
    is_closing: bool,
    /// A pong for a peer that takes no bytes; the newest ping is the one that counts.
    pong: Option<Box<[u8]>>,
}

/// What came of the peer's bytes.
#[derive(Debug)]
pub(crate) enum Heard<'s> {
    /// They are used up.
    Nothing,
    /// A message.
    Message(Event<'s>),
    /// The peer's close frame, which is answered now; or it was the answer to ours.
    Closed(CloseCode, String),
    /// The peer broke a rule and has been told. Nothing it says counts any more.
    Failed(Fault),
}

const NO_PONG: Fault =
    Fault { code: CloseCode::Policy, why: Reason::PongTimeout, text: "no pong came in time" };
const TOO_SLOW: &str = "too slow";
const UNFINISHED: Fault = Fault {
    code: CloseCode::Policy,
    why: Reason::MessageTimeout,
    text: "the message did not arrive in time",
};

impl Live {
    /// A WebSocket that has just been opened.
    pub(crate) fn new(id: ConnId, turn: &Turn) -> Self {
        let mut live = Self {
            frames: WebSocket::default(),
            id,
            ping: Tick::NEVER,
            awaits_pong: false,
            is_closing: false,
            pong: None,
        };
        live.rest_until_next_ping(turn);
        live
    }

    /// Whether both sides may still speak.
    pub(crate) fn is_open(&self) -> bool {
        !self.is_closing
    }

    /// Takes bytes until something has come of them that concerns others.
    pub(crate) fn receive<'s>(
        &mut self,
        input: &mut &'s mut [u8],
        out: &mut Outgoing,
        turn: &mut Turn,
    ) -> Heard<'s> {
        loop {
            match self.frames.receive(input, &turn.limits, turn.now) {
                Ok(None) => return Heard::Nothing,
                Ok(Some(Incoming::Close(code, reason))) => {
                    if !self.is_closing {
                        self.put_close(code, &reason, out, turn);
                    }
                    return Heard::Closed(code, reason);
                }
                // After our close frame only the peer's is of interest.
                Ok(Some(_)) if self.is_closing => {}
                Ok(Some(Incoming::Text(text))) => {
                    turn.counters.received += 1;
                    return Heard::Message(Event::Text(text));
                }
                Ok(Some(Incoming::Binary(bytes))) => {
                    turn.counters.received += 1;
                    return Heard::Message(Event::Binary(bytes));
                }
                // A peer that takes no bytes gets one pong when it does, not a queue of them.
                Ok(Some(Incoming::Ping(payload))) if out.is_blocked() => {
                    self.pong = Some(payload.into_owned().into());
                }
                Ok(Some(Incoming::Ping(payload))) => out
                    .outbox(turn)
                    .write_with(|out| websocket::put_control(out, Control::Pong, &payload)),
                Ok(Some(Incoming::Pong)) if self.awaits_pong => {
                    self.awaits_pong = false;
                    self.rest_until_next_ping(turn);
                }
                Ok(Some(Incoming::Pong)) => {}
                Err(fault) => return Heard::Failed(self.fail(fault, out, turn)),
            }
        }
    }

    /// Pings, or notices that a pong or the rest of a message has not come.
    pub(crate) fn handle_timeout(&mut self, out: &mut Outgoing, turn: &mut Turn) -> Option<Fault> {
        if self.is_closing {
            return None;
        }
        if self.frames.deadline() <= turn.now {
            return Some(self.fail(UNFINISHED, out, turn));
        }
        if self.ping > turn.now {
            return None;
        }
        if self.awaits_pong && out.is_blocked() {
            // The ping may not even have left. As long as bytes do, the peer lives.
            self.ping = turn.now.after(turn.limits.pong_timeout);
            return None;
        }
        if self.awaits_pong {
            return Some(self.fail(NO_PONG, out, turn));
        }
        self.awaits_pong = true;
        self.ping = turn.now.after(turn.limits.pong_timeout);
        out.outbox(turn).write_with(|out| websocket::put_control(out, Control::Ping, b""));
        None
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(crate) fn deadline(&self) -> Tick {
        match self.is_closing {
            true => Tick::NEVER,
            false => self.ping.min(self.frames.deadline()),
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`SendError`]; then nothing was taken.
    pub(crate) fn send(
        &mut self,
        message: Message<'_>,
        out: &mut Outgoing,
        turn: &mut Turn,
    ) -> Result<(), SendError> {
        if self.is_closing {
            return Err(SendError::Gone);
        }
        if out.bytes() >= turn.limits.outbox {
            turn.counters.count_refused(Reason::Outbox);
            return Err(SendError::Full);
        }
        let payload = message.as_bytes();
        out.outbox(turn).write_with(|out| {
            put_frame_head(out, message.kind().into(), payload.len());
            out.extend_from_slice(payload);
        });
        Ok(())
    }

    /// Sends the pong that had to wait.
    pub(crate) fn send_pong(&mut self, out: &mut Outgoing, turn: &mut Turn) {
        if let Some(payload) = self.pong.take_if(|_| out.bytes() == 0) {
            out.outbox(turn).write_with(|out| websocket::put_control(out, Control::Pong, &payload));
        }
    }

    /// Whether a pong waits to be sent.
    pub(crate) fn owes_pong(&self) -> bool {
        self.pong.is_some()
    }

    /// Begins the closing handshake; false if it has begun already.
    pub(crate) fn close(
        &mut self,
        code: CloseCode,
        reason: &str,
        out: &mut Outgoing,
        turn: &mut Turn,
    ) -> bool {
        let is_first = !self.is_closing;
        if is_first {
            self.put_close(code, reason, out, turn);
        }
        is_first
    }

    /// Gives up a peer that takes nothing: what it was not sent is dropped at a frame boundary and
    /// it is told why, should it ever read on. Returns what it is told; `None` if it is not even
    /// through with the HTTP before the frames, and cannot be told.
    pub(crate) fn cut(
        &mut self,
        out: &mut Outgoing,
        turn: &mut Turn,
    ) -> Option<(CloseCode, &'static str)> {
        if !out.outbox(turn).cut(websocket::frame_bytes) {
            return None;
        }
        self.put_close(CloseCode::Again, TOO_SLOW, out, turn);
        Some((CloseCode::Again, TOO_SLOW))
    }

    /// Fails the WebSocket: a close frame, then no more events, ever (RFC 6455 §7.1.7).
    fn fail(&mut self, fault: Fault, out: &mut Outgoing, turn: &mut Turn) -> Fault {
        if !self.is_closing {
            turn.counters.count_refused(fault.why);
            self.put_close(fault.code, fault.text, out, turn);
        }
        fault
    }

    fn put_close(&mut self, code: CloseCode, reason: &str, out: &mut Outgoing, turn: &mut Turn) {
        out.outbox(turn).write_with(|out| websocket::put_close(out, code, reason));
        self.is_closing = true;
        self.pong = None;
    }

    /// The interval, spread by ±20 % so that clients who came together do not answer together.
    fn rest_until_next_ping(&mut self, turn: &Turn) {
        let share = (self.id.scatter() ^ u64::from(turn.now.0)) % 401;
        let per_mille = 800 + u32::try_from(share).unwrap_or(0);
        self.ping = turn.now.after(turn.limits.ping * per_mille / 1000);
    }
}
