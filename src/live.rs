//! A WebSocket's life after its opening handshake: what is pushed, pings, pongs, and the closing
//! handshake (RFC 6455 §5.5, §7), in text mode or in pousse.v1.
//!
//! What its bytes mean is told by `websocket.rs`, what a command means by `session.rs`; here it is
//! acted upon. Messages are handed on, control frames are answered, silence is noticed.

use tungstenite::protocol::frame::coding::{CloseCode, Control};

use crate::cursor::Cursor;
use crate::deflate::Window;
use crate::error::SendError;
use crate::event::Event;
use crate::frame::{self, Fault};
use crate::handshake::Upgrade;
use crate::http::Refusal;
use crate::id::{ConnId, EntryId};
use crate::log::Log;
use crate::long::Long;
use crate::message::{Kind, Message, put_frame_head};
use crate::metrics::{Held, Reason};
use crate::outgoing::Outgoing;
use crate::partial::{Incoming, Partial};
use crate::session::{self, Command, Reference, Session};
use crate::tick::Tick;
use crate::topic::Form;
use crate::turn::Turn;
use crate::websocket::WebSocket;

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Live {
    frames: WebSocket,
    /// When to ping, or when the pong has not come.
    ping: Tick,
    awaits_pong: bool,
    /// Our close frame is on its way.
    is_closing: bool,
    /// How what it is sent is compressed, if that was agreed on.
    deflate: Option<Window>,
    /// A pong for a peer that takes no bytes; the newest ping is the one that counts.
    pong: Option<Box<Pong>>,
    /// It speaks pousse.v1, else text mode.
    is_session: bool,
    session: Session,
}

/// What the peer put into its ping. Few owe one, so it is behind a box of one word.
#[derive(Debug)]
struct Pong(Box<[u8]>);

/// What came of taking from the log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// It has what there is.
    All,
    /// There is more once that has been written.
    More,
    /// Entries were lost, and text frames cannot tell it; the oldest that is kept.
    Gap(EntryId),
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

/// A message that is longer than this is a piece of its own.
const LONG_BYTES: usize = 32 * 1024;

const NO_PONG: Fault =
    Fault { code: CloseCode::Policy, why: Reason::PongTimeout, text: "no pong came in time" };
const BINARY: Fault = Fault {
    code: CloseCode::Unsupported,
    why: Reason::Protocol,
    text: "pousse.v1 is JSON in text frames; bytes go into base64",
};
const FLOOD: Fault = Fault {
    code: CloseCode::Policy,
    why: Reason::WrongCommands,
    text: "too many commands that are wrong",
};
const UNFINISHED: Fault = Fault {
    code: CloseCode::Policy,
    why: Reason::MessageTimeout,
    text: "the message did not arrive in time",
};

impl Live {
    /// A WebSocket that has just been opened.
    pub(crate) fn new(id: ConnId, upgrade: &Upgrade, turn: &Turn) -> Self {
        let mut live = Self {
            frames: WebSocket::new(upgrade.window().is_some()),
            ping: Tick::NEVER,
            awaits_pong: false,
            is_closing: false,
            deflate: upgrade.window(),
            pong: None,
            is_session: upgrade.is_session(),
            session: Session::default(),
        };
        live.rest_until_next_ping(id, turn);
        live
    }

    /// Whether both sides may still speak.
    pub(crate) fn is_open(&self) -> bool {
        !self.is_closing
    }

    /// Takes bytes until something has come of them that concerns others.
    pub(crate) fn receive<'s>(
        &mut self,
        id: ConnId,
        input: &mut &'s mut [u8],
        out: &mut Outgoing,
        turn: &mut Turn,
    ) -> Heard<'s> {
        turn.inflated_bytes = 0;
        loop {
            let received = match self.frames.receive(input, &turn.limits, turn.now, &mut turn.spare)
            {
                Ok(Some(incoming @ Incoming::Deflated(..))) if !self.is_closing => {
                    turn.inflated(incoming).map(Some)
                }
                received => received,
            };
            match received {
                Ok(None) => return Heard::Nothing,
                Ok(Some(Incoming::Close(code, reason))) => {
                    if !self.is_closing {
                        self.put_close(code, &reason, out, turn);
                    }
                    return Heard::Closed(code, reason);
                }
                // After our close frame only the peer's is of interest.
                Ok(Some(Incoming::Long(kind))) if self.is_closing => {
                    let long = Long::taken(kind, &mut turn.spare);
                    turn.take_memory(long.into_memory());
                }
                Ok(Some(_)) if self.is_closing => {}
                // It was taken out just now.
                Ok(Some(Incoming::Deflated(..))) => {}
                Ok(Some(Incoming::Text(text))) => {
                    turn.counters.received += 1;
                    if !self.is_session {
                        return Heard::Message(Event::Text(text));
                    }
                    match self.hear_command(id, &text, out, turn) {
                        Ok(Some(command)) => return Heard::Message(Event::Command(command)),
                        Ok(None) => {}
                        Err(fault) => return Heard::Failed(fault),
                    }
                }
                Ok(Some(Incoming::Long(kind))) => {
                    turn.counters.received += 1;
                    match self.hear_long(id, kind, out, turn) {
                        Ok(Some(event)) => return Heard::Message(event),
                        Ok(None) => {}
                        Err(fault) => return Heard::Failed(fault),
                    }
                }
                Ok(Some(Incoming::Binary(_))) if self.is_session => {
                    return Heard::Failed(self.fail(BINARY, out, turn));
                }
                Ok(Some(Incoming::Binary(bytes))) => {
                    turn.counters.received += 1;
                    return Heard::Message(Event::Binary(bytes));
                }
                // A peer that takes no bytes gets one pong when it does, not a queue of them.
                Ok(Some(Incoming::Ping(payload))) if out.is_blocked() => {
                    self.pong = Some(Box::new(Pong(payload.into_owned().into())));
                }
                Ok(Some(Incoming::Ping(payload))) => out
                    .outbox(turn)
                    .write_with(|out| frame::put_control(out, Control::Pong, &payload)),
                Ok(Some(Incoming::Pong)) if self.awaits_pong => {
                    self.awaits_pong = false;
                    self.rest_until_next_ping(id, turn);
                }
                Ok(Some(Incoming::Pong)) => {}
                Err(fault) => return Heard::Failed(self.fail(fault, out, turn)),
            }
        }
    }

    /// A command, or nothing if it was wrong and its client may go on.
    ///
    /// # Errors
    /// The peer broke a rule and has been told.
    fn hear_command(
        &mut self,
        id: ConnId,
        text: &str,
        out: &mut Outgoing,
        turn: &mut Turn,
    ) -> Result<Option<Box<Command>>, Fault> {
        match session::parse(text) {
            Ok(command) => Ok(Some(Box::new(command))),
            Err((refusal, reference)) => {
                self.refuse_command(id, (&refusal, &reference), out, turn).map(|()| None)
            }
        }
    }

    /// A long message, or the command that it is.
    ///
    /// # Errors
    /// As [`hear_command`](Self::hear_command).
    fn hear_long(
        &mut self,
        id: ConnId,
        kind: Kind,
        out: &mut Outgoing,
        turn: &mut Turn,
    ) -> Result<Option<Event<'static>>, Fault> {
        let long = Long::taken(kind, &mut turn.spare);
        if !self.is_session {
            turn.at_hand = Some(long);
            return Ok(Some(Event::Long));
        }
        let heard = match long.message() {
            Message::Text(text) => self.hear_command(id, text, out, turn),
            Message::Binary(_) => Err(self.fail(BINARY, out, turn)),
        };
        turn.take_memory(long.into_memory());
        heard.map(|command| command.map(Event::Command))
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
        out.outbox(turn).write_with(|out| frame::put_control(out, Control::Ping, b""));
        turn.counters.count_held(Held::Ping, true);
        if self.is_session {
            self.session.owe_place();
        }
        None
    }

    /// What is not whole, if anything is.
    pub(crate) fn begun(&mut self) -> Option<&mut Partial> {
        self.frames.begun()
    }

    /// Bytes of memory that it takes beside its own place: an unfinished message, a pong that
    /// waits, subscriptions that do.
    pub(crate) fn held_bytes(&self) -> usize {
        let pong = self.pong.as_ref().map_or(0, |pong| size_of::<Pong>() + pong.0.len());
        self.frames.held_bytes() + pong + self.session.held_bytes()
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
        id: ConnId,
        message: Message<'_>,
        out: &mut Outgoing,
        turn: &mut Turn,
    ) -> Result<(), SendError> {
        if self.is_closing {
            return Err(SendError::Gone);
        }
        let is_over = |is: bool, why| is.then_some(why);
        let why = is_over(out.bytes() >= turn.limits.outbox, Reason::Outbox)
            .or(is_over(out.messages() >= turn.limits.outbox_messages, Reason::OutboxMessages));
        if let Some(why) = why {
            turn.counters.count_refused(why);
            if out.outbox(turn).is_to_be_told() {
                log::info!("event=refused client={id} transport=websocket reason={why}");
            }
            return Err(SendError::Full);
        }
        match self.is_session {
            true => self.put(Kind::Text, &session::direct(message), out, turn),
            false => self.put(message.kind(), message.as_bytes(), out, turn),
        }
        out.outbox(turn).add_message();
        Ok(())
    }

    /// Puts a message into the outbox, compressed if that was agreed on and gains something.
    fn put(&self, kind: Kind, payload: &[u8], out: &mut Outgoing, turn: &mut Turn) {
        if let Some(window) = self.deflate
            && turn.may_deflate(payload.len())
            && let Some(frame) = turn.deflated((kind, payload), window)
        {
            return out.outbox(turn).push(frame.into());
        }
        if payload.len() > LONG_BYTES {
            // A piece of its own is copied once, and not moved when more is put behind it.
            let frame = turn.long_frame(kind, payload);
            return out.outbox(turn).push_long(frame);
        }
        out.outbox(turn).write_with(|out| {
            put_frame_head(out, kind.into(), payload.len());
            out.extend_from_slice(payload);
        });
    }

    /// What the client is owed by pousse.v1, if it speaks that and may still be spoken to.
    pub(crate) fn session(&mut self) -> Option<&mut Session> {
        (self.is_session && !self.is_closing).then_some(&mut self.session)
    }

    /// Answers a command with what is wrong with it.
    ///
    /// # Errors
    /// It was one too many: the WebSocket is closing.
    pub(crate) fn refuse_command(
        &mut self,
        id: ConnId,
        (refusal, reference): (&Refusal, &Reference),
        out: &mut Outgoing,
        turn: &mut Turn,
    ) -> Result<(), Fault> {
        let Some(session) = self.session() else { return Ok(()) };
        // That there is no room is not the client's fault.
        if refusal.status < 500 && !session.bears_wrong(&turn.limits, turn.now) {
            return Err(self.fail(FLOOD, out, turn));
        }
        turn.counters.count_refused(refusal.reason);
        log::info!("event=refused client={id} transport=websocket {refusal}");
        session::put_error(out.outbox(turn), refusal, reference);
        Ok(())
    }

    /// Takes what is due from the log.
    pub(crate) fn fill(
        &mut self,
        id: ConnId,
        cursor: &mut Cursor,
        out: &mut Outgoing,
        log: &Log,
        turn: &mut Turn,
    ) -> Filled {
        self.send_pong(out, turn);
        let is_behind = cursor.is_behind(log);
        if is_behind && out.has_enough() {
            // It has enough to take. The rest waits in the log, and is asked for once this is gone.
            return Filled::More;
        }
        if !self.is_session {
            if let Some(behind) = cursor.gap(log) {
                return Filled::Gap(log.oldest(Some(behind)));
            }
            let outbox = if is_behind { out.outbox(turn) } else { return Filled::All };
            let form = Form::Frame.deflated(self.deflate);
            return match cursor.take(id, (form, u64::MAX), log, outbox, turn) {
                true => Filled::More,
                false => Filled::All,
            };
        }
        let session = &mut self.session;
        if is_behind {
            let outbox = out.outbox(turn);
            while let Some(gap) = cursor.pass_gap(log) {
                session::put_gap(outbox, &gap);
                turn.counters.gaps += 1;
            }
            let form = Form::Session.deflated(self.deflate);
            if cursor.take(id, (form, session.upto()), log, outbox, turn) {
                return Filled::More;
            }
        }
        if session.is_catching_up() {
            session.caught_up(log, out.outbox(turn));
            return Filled::More;
        }
        if session.takes_place() {
            session::put_place(out.outbox(turn), log.newest());
        }
        session.rest(&turn.limits, turn.now);
        Filled::All
    }

    /// Sends the pong that had to wait.
    fn send_pong(&mut self, out: &mut Outgoing, turn: &mut Turn) {
        if let Some(pong) = self.pong.take_if(|_| out.bytes() == 0) {
            out.outbox(turn).write_with(|out| frame::put_control(out, Control::Pong, &pong.0));
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

    /// Gives up a peer that takes too little: what it was not sent is dropped at a frame boundary
    /// and it is told why, should it ever read on. Returns what it is told; `None` if it is not
    /// even through with the HTTP before the frames, and cannot be told.
    pub(crate) fn cut(
        &mut self,
        text: &'static str,
        out: &mut Outgoing,
        turn: &mut Turn,
    ) -> Option<(CloseCode, &'static str)> {
        if !out.outbox(turn).cut(frame::frame_bytes) {
            return None;
        }
        self.put_close(CloseCode::Again, text, out, turn);
        Some((CloseCode::Again, text))
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
        out.outbox(turn).write_with(|out| frame::put_close(out, code, reason));
        self.is_closing = true;
        self.pong = None;
    }

    fn rest_until_next_ping(&mut self, id: ConnId, turn: &Turn) {
        self.ping = turn.now.after(turn.scattered(turn.limits.ping, id));
    }
}
