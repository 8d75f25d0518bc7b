//! One client's protocol, as a state machine without socket, clock or handler.
//!
//! ```text
//!            ┌────────────── answered, persistent ───────────────┐
//!            ▼                                                   │
//!  bytes → Head ──► Deciding ──► (respond) ──────────────────────┤
//!            │       ▲   │  ├──► LongPoll ──► entry, time is up ─┤
//!            │       │   │  ├──► File ──► last piece ────────────┘
//!            │       │   │  ├──► EventStream ──► either end closes ───┐
//!            │    Content│  └──► WebSocket ──► close frames both ways ─┤
//!            └── error ──┴──────────────────► Leaving ──► Done ◄───────┘
//! ```
//!
//! Bytes go in by [`Connection::receive`], which hands out events one by one; the loop reacts and
//! asks again, so nothing queues up between them. Bytes go out through the outbox. What is to be
//! pushed is not sent to a connection: [`Connection::fill`] takes it from the log, from the place
//! where this reader stands.
//!
//! Five functions end it. `close` asks for the end in the words of the protocol, and `end` comes
//! behind the last answer; what waits leaves first. `cut` drops what waits, and tells a WebSocket
//! so. These lead to `leave`: from there on the peer is only read until its bytes have ended.
//! `abort` ends it at once, without a word.
//!
//! Invariants: after a fault or a close frame no event follows. An idle connection owns no buffer.
//! What cannot be looked at yet is kept, and no more is read until then: behind a request at most
//! one head's worth, behind `turn-messages` what one read brought.

use tungstenite::protocol::frame::coding::CloseCode;

use crate::cursor::Cursor;
use crate::error::SendError;
use crate::event::{Ending, Event, Transport};
use crate::event_stream::{self, EventStream};
use crate::exchange::Exchange;
use crate::files::{FileBody, Found};
use crate::forms::Gap;
use crate::frame::{self, Fault};
use crate::handshake::Upgrade;
use crate::head::Head;
use crate::http::{Peer, Refusal, Request};
use crate::id::ConnId;
use crate::input::take;
use crate::limits::Limits;
use crate::live::{Filled, Heard, Live};
use crate::log::Log;
use crate::long_poll::LongPoll;
use crate::message::Message;
use crate::metrics::{Held, Reason};
use crate::outbox::{Flush, Outbox, Sink};
use crate::outgoing::Outgoing;
use crate::poll::Poll;
use crate::rare::Rare;
use crate::response::Response;
use crate::session::{Reference, Session};
use crate::stage::Stage;
use crate::tick::Tick;
use crate::turn::Turn;

/// See the head of this file.
#[derive(Debug)]
pub struct Connection {
    /// Its name.
    pub(crate) id: ConnId,
    /// Who is at the other end.
    pub(crate) peer: Peer,
    pub(crate) stage: Stage,
    /// What it reads, and how far it has come.
    pub cursor: Cursor,
    out: Outgoing,
    pub(crate) rare: Rare,
    pub(crate) exchange: Exchange,
    requests: u32,
    /// Requests, or messages, that are looked at before it is somebody else's turn.
    pub(crate) requests_left: u8,
    messages_left: u32,
    /// The server is ending: the next answer is the last.
    is_draining: bool,
    /// When the stage has lasted too long. While bytes wait that end it, that is judged by their
    /// progress, and this is set when they are written.
    until: Tick,
    transport: Transport,
    /// The peer's bytes have ended.
    has_ended: bool,
}

/// Requests of one client that are looked at in one turn: each may cost as much as its answer.
const REQUESTS_PER_TURN: u8 = 16;

impl Connection {
    /// A connection that has just been accepted.
    pub fn new(id: ConnId, peer: Peer, turn: &Turn) -> Self {
        Self {
            id,
            peer,
            stage: Stage::Head(None),
            cursor: Cursor::default(),
            out: Outgoing::default(),
            rare: Rare::default(),
            exchange: Exchange::default(),
            requests: 0,
            requests_left: REQUESTS_PER_TURN,
            messages_left: u32::MAX,
            is_draining: false,
            until: turn.now.after(turn.limits.head_timeout),
            transport: Transport::Http,
            has_ended: false,
        }
    }

    // Bytes and time in.

    /// Takes bytes until something has come of them. `None`: all are used up, or kept.
    ///
    /// After [`Event::Request`] one of the answers below has to follow before the next call.
    pub fn receive<'s>(&mut self, input: &mut &'s mut [u8], turn: &mut Turn) -> Option<Event<'s>> {
        match self.stage {
            Stage::Head(_) if !self.is_full(turn) && self.requests_left > 0 => {
                self.receive_head(input, turn)
            }
            Stage::Content(_) => self.receive_content(input),
            Stage::WebSocket(_) if self.messages_left > 0 => self.receive_frames(input, turn),
            // Not to be looked at yet.
            _ if self.stage.keeps_input() => {
                if !input.is_empty() {
                    self.rare.keep(std::mem::take::<&mut [u8]>(input));
                    turn.counters.count_held(Held::TurnMessages, self.is_open());
                    self.out.count_full(turn);
                }
                None
            }
            // Never to be looked at.
            _ => {
                *input = &mut [];
                None
            }
        }
    }

    /// The peer will send nothing more. What is at hand is still answered.
    pub fn receive_eof(&mut self) {
        self.has_ended = true;
        match &self.stage {
            // A persistent connection that rests between two requests ends like this.
            Stage::Head(None) if self.requests > 0 => self.end(Reason::Done),
            Stage::Head(_) if self.waiting_bytes() > 0 => self.end(Reason::Done),
            Stage::File(_) | Stage::Deciding => self.exchange.is_last = true,
            Stage::Leaving => {}
            _ => self.abort(Reason::Gone),
        }
    }

    /// Acts on the deadlines that are past. The loop calls it when [`deadline`](Self::deadline)
    /// is reached; being called early does nothing.
    pub fn handle_timeout(&mut self, turn: &mut Turn) -> Option<Event<'static>> {
        let now = turn.now;
        if self.out.deadline() <= now {
            self.out.forget_deadline();
            self.cut(Reason::Stall, turn);
        }
        match &mut self.stage {
            Stage::Head(None) if self.until <= now && self.requests == 0 => {
                self.abort(Reason::HeadTimeout);
            }
            Stage::Head(None) if self.until <= now => self.abort(Reason::IdleTimeout),
            Stage::Head(Some(_)) if self.until <= now => {
                self.refuse_slow(Reason::HeadTimeout, "the request head came too slowly", turn);
            }
            Stage::Content(_) if self.until <= now => {
                self.refuse_slow(Reason::BodyTimeout, "the content came too slowly", turn);
            }
            Stage::LongPoll(poll) if self.until <= now => {
                self.until = Tick::NEVER;
                poll.is_due = true;
            }
            Stage::Leaving | Stage::WebSocket(_) if self.until <= now => {
                turn.counters.count_refused(Reason::CloseTimeout);
                self.ending(Reason::CloseTimeout).tell_late(self.id, self.peer, self.transport());
                self.abort(Reason::CloseTimeout);
            }
            Stage::WebSocket(live) => {
                if let Some(fault) = live.handle_timeout(&mut self.out, turn) {
                    return Some(self.failed(fault));
                }
            }
            Stage::EventStream(stream) => stream.handle_timeout(self.id, turn),
            _ => {}
        }
        None
    }

    // Answers to a request.

    /// Answers with what is at hand.
    pub fn respond(&mut self, response: &Response, turn: &mut Turn) {
        self.exchange.put(response, self.out.outbox(turn), turn);
        self.finish_exchange(turn);
    }

    /// Answers with a problem. `is_last`: what stands behind the request cannot be told apart from
    /// it, so the connection ends.
    pub(crate) fn refuse(&mut self, refusal: &Refusal, is_last: bool, turn: &mut Turn) {
        self.exchange.is_last |= is_last;
        turn.counters.count_refused(refusal.reason);
        if self.exchange.is_last {
            self.rare.ending_is(CloseCode::Status, "", refusal.reason);
        }
        self.respond(&refusal.response(turn.retry_s()), turn);
    }

    /// Goes on to read the content of the request, which comes back as an event when it is whole.
    pub fn read_content(&mut self, mut request: Box<Request>, turn: &mut Turn) {
        if request.is_1_1() && request.lists("expect", "100-continue") {
            self.out.outbox(turn).extend(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        // Not what was promised but what comes decides how much memory it takes.
        request.content.reserve(request.content_length.min(16 * 1024));
        self.stage = Stage::Content(request);
        self.until = turn.now.after(turn.limits.body_timeout);
    }

    /// Answers a poll from the log now: 304 if the client says that it has what there is.
    pub(crate) fn respond_poll(
        &mut self,
        poll: &Poll<'_>,
        response: Response,
        is_known: impl FnOnce(&str) -> bool,
        log: &Log,
        turn: &mut Turn,
    ) {
        self.exchange.put_poll(poll, response, is_known, log, self.out.outbox(turn), turn);
        self.finish_exchange(turn);
    }

    /// Holds the answer back until there is something to give or `wait` is over. What is read has
    /// been put into `cursor`.
    pub(crate) fn wait(&mut self, poll: LongPoll, wait: std::time::Duration, turn: &Turn) {
        self.stage = Stage::LongPoll(poll);
        self.until = turn.now.after(wait);
    }

    /// Begins an event stream. What is read has been put into `cursor`; where that has gaps, the
    /// stream begins with them.
    pub(crate) fn stream(&mut self, is_text: bool, gaps: &[Gap], turn: &mut Turn) {
        self.exchange.is_last = true;
        let response = event_stream::response();
        self.exchange.put_head(&response, None, self.out.outbox(turn), turn);
        if self.exchange.is_head {
            return self.finish_exchange(turn);
        }
        let outbox = self.out.outbox(turn);
        self.stage = Stage::EventStream(EventStream::begin(self.id, is_text, gaps, outbox, turn));
        self.transport = Transport::EventStream;
        self.until = Tick::NEVER;
        turn.counters.streams += 1;
    }

    /// Sends a file, in pieces as the peer takes them.
    pub(crate) fn send_file(&mut self, found: Found, turn: &mut Turn) {
        self.exchange.put_file_head(&found, self.out.outbox(turn), turn);
        match found.body {
            _ if self.exchange.is_head => self.finish_exchange(turn),
            FileBody::Memory(content) => {
                self.out.outbox(turn).push(content);
                self.finish_exchange(turn);
            }
            FileBody::Disk(file) => {
                self.stage = Stage::File(Box::new(file));
                self.until = Tick::NEVER;
            }
        }
    }

    /// Ends the opening handshake: from here on the connection speaks WebSocket.
    pub fn upgrade(&mut self, upgrade: Upgrade, turn: &mut Turn) {
        let live = Live::new(self.id, &upgrade, turn);
        self.exchange.put_head(&upgrade.response(), None, self.out.outbox(turn), turn);
        self.stage = Stage::WebSocket(live);
        self.transport = Transport::WebSocket;
        self.until = Tick::NEVER;
        turn.counters.opened += 1;
    }

    // What the loop or a handler wants sent.

    /// Sends a message to this client alone.
    ///
    /// # Errors
    /// [`SendError`]; then nothing was taken.
    pub fn send(&mut self, message: Message<'_>, turn: &mut Turn) -> Result<(), SendError> {
        match &mut self.stage {
            Stage::WebSocket(live) => live.send(self.id, message, &mut self.out, turn),
            _ => Err(SendError::Gone),
        }
    }

    /// Begins the closing handshake, or ends an HTTP connection once it is answered.
    pub fn close(&mut self, code: CloseCode, reason: &str, why: Reason, turn: &mut Turn) {
        match &mut self.stage {
            Stage::WebSocket(live) => {
                if live.close(code, reason, &mut self.out, turn) {
                    self.rare.ending_is(code, frame::clip(reason), why);
                }
            }
            Stage::LongPoll(poll) => {
                self.exchange.is_last = true;
                poll.is_due = true;
                self.rare.ending_is(code, reason, why);
            }
            Stage::EventStream(_) => {
                self.rare.ending_is(code, reason, why);
                self.leave();
            }
            Stage::Head(None) if self.out.bytes() > 0 => self.end(why),
            Stage::Head(None) => self.abort(why),
            Stage::Head(_) | Stage::Content(_) | Stage::Deciding | Stage::File(_) => {
                self.exchange.is_last = true;
                self.is_draining = true;
                self.rare.ending_is(code, reason, why);
            }
            Stage::Leaving | Stage::Done => {}
        }
    }

    /// Ends the connection at once, without a word.
    pub fn abort(&mut self, why: Reason) {
        self.rare.ending_is(CloseCode::Abnormal, "", why);
        self.stage = Stage::Done;
        self.until = Tick::NEVER;
        self.out = Outgoing::default();
        self.rare.take_kept();
    }

    // Bytes out.

    /// Takes what this reader has still to be given from the log to the outbox, as long as little
    /// waits there. True: there is more to take once that has been written.
    pub fn fill(&mut self, log: &Log, turn: &mut Turn) -> bool {
        match &mut self.stage {
            Stage::WebSocket(live) if live.is_open() => {
                match live.fill(self.id, &mut self.cursor, &mut self.out, log, turn) {
                    Filled::All => false,
                    Filled::More => true,
                    Filled::Gap(oldest) => {
                        turn.counters.gaps += 1;
                        let reason = format!("gap; oldest {oldest}");
                        self.close(CloseCode::Again, &reason, Reason::Gap, turn);
                        false
                    }
                }
            }
            Stage::EventStream(stream) => {
                stream.fill(self.id, &mut self.cursor, &mut self.out, log, turn)
            }
            Stage::LongPoll(poll) => {
                if poll.fill(&self.cursor, &self.exchange, &mut self.out, log, turn) {
                    self.finish_exchange(turn);
                }
                false
            }
            Stage::File(_) => self.fill_file(turn),
            _ => false,
        }
    }

    /// Writes what waits. The outbox goes back to the loop when nothing is left.
    ///
    /// # Errors
    /// What the socket said; the connection is to be aborted then.
    pub fn write_to(&mut self, sink: &mut impl Sink, turn: &mut Turn) -> std::io::Result<Flush> {
        let result = self.out.write_to(sink, turn);
        if matches!(result, Ok(Flush::Drained)) && self.until == Tick::NEVER {
            self.until = match &self.stage {
                Stage::Head(_) => turn.now.after(turn.limits.idle_timeout),
                Stage::WebSocket(live) if live.is_open() => Tick::NEVER,
                Stage::WebSocket(_) | Stage::Leaving => turn.now.after(turn.limits.close_timeout),
                _ => Tick::NEVER,
            };
        }
        result
    }

    // What the loop must know.

    /// Whether it has something to say that had to wait until all else was written.
    pub fn owes_pong(&self) -> bool {
        matches!(&self.stage, Stage::WebSocket(live) if live.owes_pong())
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do at the earliest.
    pub fn deadline(&self) -> Tick {
        self.stage.deadline().min(self.until).min(self.out.deadline())
    }

    /// Whether bytes of the peer can be looked at.
    pub fn wants_input(&self, turn: &Turn) -> bool {
        match &self.stage {
            Stage::Deciding | Stage::Done => false,
            Stage::Leaving => !self.has_ended,
            _ => !self.has_ended && self.rare.kept().is_none() && !self.is_full(turn),
        }
    }

    /// It was not read although it may have something to say: counts that, if it is for what waits.
    pub(crate) fn count_unread(&mut self, turn: &mut Turn) {
        self.out.count_full(turn);
    }

    /// How many bytes to read at most.
    pub fn input_bytes_max(&mut self, turn: &Turn) -> usize {
        self.rare.read_bytes_max(self.stage.input_bytes_max(&turn.limits))
    }

    /// Whether bytes kept from before can be looked at now.
    pub fn has_kept(&self, turn: &Turn) -> bool {
        let is_ready = matches!(self.stage, Stage::Head(_) | Stage::WebSocket(_));
        self.rare.kept().is_some() && is_ready && !self.is_full(turn)
    }

    /// A new turn: so many requests and messages more can be looked at.
    pub fn begin_turn(&mut self, limits: &Limits) {
        self.requests_left = REQUESTS_PER_TURN;
        self.messages_left = u32::try_from(limits.turn_messages).unwrap_or(u32::MAX);
    }

    /// These bytes.
    pub fn take_kept(&mut self, turn: &Turn) -> Option<Box<[u8]>> {
        if self.has_kept(turn) { self.rare.take_kept() } else { None }
    }

    /// Whether the sending direction is to be shut: all is said and written.
    pub fn wants_shutdown(&self) -> bool {
        matches!(self.stage, Stage::Leaving) && self.waiting_bytes() == 0
    }

    /// Whether nothing is left to do but to forget it.
    pub fn is_done(&self) -> bool {
        match self.stage {
            Stage::Done => true,
            Stage::Leaving => self.has_ended && self.waiting_bytes() == 0,
            _ => false,
        }
    }

    /// Whether it is a WebSocket on which both sides may still speak.
    pub fn is_open(&self) -> bool {
        self.stage.is_open()
    }

    /// Whether it reads topics: an open WebSocket, an event stream, or a waiting long poll.
    pub fn is_reading(&self) -> bool {
        self.stage.is_open() || self.stage.reads_over_http()
    }

    /// What the client is owed by pousse.v1, if it speaks that, and where its answers go.
    pub(crate) fn session(&mut self, turn: &mut Turn) -> Option<(&mut Session, &mut Outbox)> {
        let Stage::WebSocket(live) = &mut self.stage else { return None };
        Some((live.session()?, self.out.outbox(turn)))
    }

    /// Answers a command of pousse.v1 with what is wrong with it; too many end the connection.
    pub(crate) fn refuse_command(
        &mut self,
        refusal: &Refusal,
        reference: &Reference,
        turn: &mut Turn,
    ) -> Result<(), Fault> {
        let Stage::WebSocket(live) = &mut self.stage else { return Ok(()) };
        let refused = live.refuse_command(self.id, (refusal, reference), &mut self.out, turn);
        refused.inspect_err(|fault| {
            self.rare.ending_is(fault.code, fault.text, fault.why);
            self.leave();
        })
    }

    /// How it is connected, or was before it began to end.
    pub fn transport(&self) -> Transport {
        match self.stage {
            Stage::LongPoll(_) => Transport::LongPoll,
            _ => self.transport,
        }
    }

    /// Bytes that wait to be written.
    pub fn waiting_bytes(&self) -> usize {
        self.out.bytes()
    }

    /// Bytes of memory that its peer is the reason for, beside its place among the clients.
    pub(crate) fn held_bytes(&self) -> usize {
        // Who no longer reads gives its readings back before the turn ends.
        let readings = if self.is_reading() { self.cursor.held_bytes() } else { 0 };
        self.out.held_bytes() + self.rare.held_bytes() + readings + self.stage.held_bytes()
    }

    /// How it ended or is ending; 1006 and `otherwise` if nothing is known of it.
    pub fn ending(&self, otherwise: Reason) -> Ending {
        let unknown =
            || Ending { code: CloseCode::Abnormal, reason: String::new(), why: otherwise };
        self.rare.ending().cloned().unwrap_or_else(unknown)
    }

    // Inside.

    /// So much waits that nothing more is taken from the peer.
    fn is_full(&self, turn: &Turn) -> bool {
        self.out.is_full(&turn.limits)
    }

    fn receive_head<'s>(&mut self, input: &mut &'s mut [u8], turn: &mut Turn) -> Option<Event<'s>> {
        let Stage::Head(partial) = &mut self.stage else { return None };
        if input.is_empty() {
            return None;
        }
        let had_begun = partial.is_some();
        let mut head = partial.take().map_or_else(Head::default, |head| *head);
        match head.receive(input, &turn.limits, self.peer) {
            Ok(None) => {
                self.stage = Stage::Head(Some(Box::new(head)));
                // The first head has had its deadline since the connection was accepted.
                if !had_begun && self.requests > 0 {
                    self.until = turn.now.after(turn.limits.head_timeout);
                }
                None
            }
            Ok(Some(request)) => {
                self.requests = self.requests.saturating_add(1);
                self.exchange = Exchange::of(&request, turn);
                self.requests_left -= 1;
                self.exchange.is_last |=
                    self.is_draining || self.requests as usize >= turn.limits.requests;
                self.stage = Stage::Deciding;
                self.until = Tick::NEVER;
                Some(Event::Request(Box::new(request)))
            }
            Err(refusal) => {
                self.refuse_unread(&refusal, turn);
                None
            }
        }
    }

    fn refuse_slow(&mut self, why: Reason, detail: &'static str, turn: &mut Turn) {
        if self.is_full(turn) {
            // It was not read: whose fault that is, `stall` decides.
            self.until = turn.now.after(turn.limits.head_timeout);
            return;
        }
        self.refuse_unread(&Refusal::new(408, why, detail), turn);
    }

    /// Answers what is no request yet, and so nobody else hears of.
    pub(crate) fn refuse_unread(&mut self, refusal: &Refusal, turn: &mut Turn) {
        if let Stage::Head(_) = self.stage {
            // What is known of the request before says nothing of this one.
            self.exchange = Exchange::of_none(refusal.origin.as_deref(), turn);
        }
        log::info!("event=refused client={} peer={} {refusal}", self.id, self.peer);
        self.refuse(refusal, true, turn);
    }

    fn receive_content<'s>(&mut self, input: &mut &'s mut [u8]) -> Option<Event<'s>> {
        let Stage::Content(request) = &mut self.stage else { return None };
        let missing = request.content_length - request.content.len();
        request.content.extend_from_slice(take(input, missing.min(input.len())));
        if !request.is_whole() {
            return None;
        }
        let Stage::Content(request) = std::mem::replace(&mut self.stage, Stage::Deciding) else {
            return None;
        };
        self.until = Tick::NEVER;
        Some(Event::Request(request))
    }

    fn receive_frames<'s>(
        &mut self,
        input: &mut &'s mut [u8],
        turn: &mut Turn,
    ) -> Option<Event<'s>> {
        let Stage::WebSocket(live) = &mut self.stage else { return None };
        let was_open = live.is_open();
        match live.receive(self.id, input, &mut self.out, turn) {
            Heard::Nothing => None,
            Heard::Message(event) => {
                self.messages_left = self.messages_left.saturating_sub(turn.message_cost());
                Some(event)
            }
            Heard::Closed(code, reason) => {
                *input = &mut [];
                // If we began to close, how it ended is known already.
                self.rare.ending_is(code, &reason, Reason::Done);
                self.leave();
                // The handshake is complete: nothing of the peer's is left to be read away.
                self.has_ended = true;
                None
            }
            Heard::Failed(fault) => {
                *input = &mut [];
                Some(self.failed(fault)).filter(|_| was_open)
            }
        }
    }

    /// The peer has been told of its fault.
    fn failed(&mut self, fault: Fault) -> Event<'static> {
        self.rare.ending_is(fault.code, fault.text, fault.why);
        self.leave();
        Event::Fault(fault)
    }

    /// Nothing was taken for `stall`, or too much waits for `memory`: what waits is dropped.
    pub(crate) fn cut(&mut self, why: Reason, turn: &mut Turn) {
        let text = if why == Reason::Memory { "no memory is left" } else { "too slow" };
        let told = match &mut self.stage {
            Stage::WebSocket(live) if live.is_open() => live.cut(text, &mut self.out, turn),
            _ => None,
        };
        let Some((code, reason)) = told else {
            // Over HTTP it cannot be told, but log and handler hear the same as of a WebSocket.
            self.rare.ending_is(CloseCode::Again, text, why);
            return self.abort(why);
        };
        self.rare.ending_is(code, reason, why);
        self.leave();
        // What it is told may never be written.
        self.until = turn.now.after(turn.limits.close_timeout);
    }

    fn fill_file(&mut self, turn: &mut Turn) -> bool {
        let Stage::File(file) = &mut self.stage else { return false };
        match self.out.take_from_file(file, turn) {
            Ok(true) => return true,
            Ok(false) => self.finish_exchange(turn),
            // The length is promised: an end before it must not look like one.
            Err(error) => {
                let (id, peer, error) = (self.id, self.peer, error.to_string());
                log::warn!("event=file_failed client={id} peer={peer} error={error:?}");
                self.abort(Reason::File);
            }
        }
        false
    }

    fn finish_exchange(&mut self, turn: &mut Turn) {
        if self.exchange.is_last || self.has_ended {
            let is_limit = self.requests as usize >= turn.limits.requests;
            self.end(if is_limit { Reason::Requests } else { Reason::Done });
        } else {
            self.stage = Stage::Head(None);
            self.until = Tick::NEVER;
        }
    }

    /// All is said over HTTP.
    fn end(&mut self, why: Reason) {
        self.rare.ending_is(CloseCode::Status, "", why);
        self.leave();
    }

    fn leave(&mut self) {
        self.rare.take_kept();
        self.stage = Stage::Leaving;
        self.until = Tick::NEVER;
    }
}
