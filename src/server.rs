//! THE LOOP: wait, note, read, time, obey, deliver, forget, accept.
//!
//! One thread, one mio [`Poll`]. Here, and in `door.rs`, sockets are asked, and only here the clock
//! is read; what the bytes mean is `connection.rs`' business, and what is to be pushed waits in the
//! log. Reading `Server::go_round` and the eight steps below it, in their order, is reading all of
//! the loop; the last two, who leaves and who comes, stand in `door.rs`.
//!
//! House rules that live here:
//! - Readiness ends with `WouldBlock`, or with a short read or write. Whoever was stopped by a
//!   budget before that goes on the list `busy`, and then the next turn does not wait.
//! - Clients are freed late in a turn and accepted last, so that no event of this turn can meet a
//!   slot that was reused in it.
//! - A peer's fault ends that one connection; a handler's panic does too. Neither ends the loop.

use std::cmp::Reverse;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use crate::app::App;
use crate::busy::{Busy, Next, Pace};
use crate::config::Config;
use crate::deadlines::Deadlines;
use crate::drain::Drain;
use crate::error::Error;
use crate::event::Event;
use crate::files::Files;
use crate::handler::Handler;
use crate::http::Refusal;
use crate::hub::Hub;
use crate::id::ConnId;
use crate::limits::WRITE_BYTES;
use crate::listeners::Listeners;
use crate::metrics::{Held, Reason};
use crate::net::{self, Events, Poll, Token, Waker};
use crate::outbox::{Flush, Sink};
use crate::remote::Commands;
use crate::stream::{Inherited, Listener, why_gone};
use crate::tick::Tick;
use crate::tls_session::Received;
use crate::told::SlowHandlers;

/// A server: clients, log and loop around a [`Handler`]. It is `Send` if the handler is.
pub struct Server<H> {
    pub(crate) app: App<H>,
    pub(crate) poll: Poll,
    pub(crate) events: Events,
    /// Clients wait who cannot be accepted: there are `max_clients`.
    pub(crate) is_full: bool,
    /// The same of the control listener: there are `control_clients`.
    pub(crate) is_control_full: bool,
    /// As many events came as fit: there may be more.
    pub(crate) had_more: bool,
    pub(crate) listeners: Listeners,
    /// Clients to be read in this turn, or in the next.
    pub(crate) busy: Busy,
    pub(crate) deadlines: Deadlines,
    pub(crate) commands: Commands,
    /// Commands were left in the queue, and no bell will ring for them.
    pub(crate) has_commands: bool,
    /// Sources of the embedder's that are ready.
    pub(crate) ready: Vec<usize>,
    pub(crate) scratch: Vec<u8>,
    /// What the log knows of handlers that were slow.
    slow: SlowHandlers,
    /// Clients whose deadline has come, and those to be forgotten: lists that are reused.
    pub(crate) due: Vec<u32>,
    pub(crate) done: Vec<ConnId>,
    pub(crate) started: Instant,
    /// The server is ending.
    pub(crate) drain: Option<Drain>,
    /// Nobody is left but the owner, who has been told.
    pub(crate) owner_is_told: bool,
    /// When clients who have not made a request may have to make room.
    pub(crate) openings_due: Tick,
    pub(crate) has_ended: bool,
    /// The process that made it.
    process: u32,
}

/// What a visit to a client came to.
#[derive(PartialEq, Eq)]
enum Visit {
    /// It has what there is, or takes no more.
    Done,
    /// It would take more, but it is somebody else's turn.
    Unfinished,
}

/// Tokens: clients' names fill the numbers below, these stand at the top of them.
const WAKER: Token = Token(usize::MAX);
const LISTENERS_FROM: usize = usize::MAX - 0xffff;
pub(crate) const WATCHED_FROM: usize = usize::MAX - 0xf_ffff;

/// What is said in plain HTTP to those who speak it to a listener that speaks TLS.
const PLAIN: &str = "this port speaks TLS: use https:// in place of http://, wss:// of ws://";

/// A visit that takes this part of `turn-time` took long.
const SLOW_SHARE: u32 = 8;

/// Those whose deadline has come are visited for this part of `turn-time` at least.
const DUE_SHARE: u32 = 8;

/// Places of a list that is reused that are never given back.
pub(crate) const PLACES_MIN: usize = 4096;

/// So many bytes of answers leave as soon as all that was read is looked at, with the outbox that
/// the one before has just given back; fewer wait for what else the turn brings.
const ANSWER_BYTES: usize = 4096;

/// Events taken from the system at once.
const EVENTS: usize = 4096;

impl<H: Handler> Server<H> {
    /// Listens, but serves nobody until [`run`](Self::run) or [`turn`](Self::turn).
    ///
    /// # Errors
    /// [`Error::Bind`], [`Error::Config`], [`Error::Root`], [`Error::Poll`].
    pub fn bind(config: Config, handler: H) -> Result<Self, Error> {
        Self::bind_with(config, Vec::new(), handler)
    }

    /// Listens also on sockets that listen already; `Config::listen` may then be empty.
    ///
    /// # Errors
    /// Those of [`bind`](Self::bind).
    pub fn bind_with(config: Config, inherited: Vec<Inherited>, handler: H) -> Result<Self, Error> {
        match inherited.is_empty() {
            true => config.check()?,
            false => config.check_but_addresses()?,
        }
        let files = Files::open(config.root.as_deref())?;
        let poll = Poll::new().map_err(Error::Poll)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(Error::Poll)?;
        config.check_control()?;
        let listeners = Listeners::bind(&config, inherited, poll.registry(), LISTENERS_FROM)?;
        let on_loopback: Vec<bool> = listeners.iter().map(Listener::is_loopback).collect();
        let started = net::now();
        let unix = net::unix_time();
        let run = u64::try_from(unix.as_millis()).unwrap_or(0);
        let limits = &config.limits;
        let mut hub = Hub::new(&config, files, on_loopback, started, run);
        // The owner's comes last, and says nothing of whether the others are private.
        hub.on_loopback.extend(listeners.control().map(Listener::is_loopback));
        Ok(Self {
            app: App { handler, hub },
            events: Events::with_capacity(EVENTS),
            is_full: false,
            is_control_full: false,
            slow: SlowHandlers::default(),
            had_more: false,
            busy: Busy::default(),
            deadlines: Deadlines::default(),
            commands: Commands::new(limits.commands, waker),
            has_commands: false,
            ready: Vec::new(),
            scratch: vec![0; limits.turn_read],
            due: Vec::new(),
            done: Vec::new(),
            started,
            drain: None,
            owner_is_told: false,
            openings_due: Tick::NEVER,
            has_ended: false,
            process: std::process::id(),
            poll,
            listeners,
        })
    }

    /// Serves until a handler, a [`Remote`](crate::Remote) or a drain ends it.
    ///
    /// # Errors
    /// [`Error::Poll`]: the system cannot tell any more what is ready. [`Error::Forked`].
    pub fn run(&mut self) -> Result<(), Error> {
        self.check_process()?;
        while !self.has_ended {
            self.go_round(None)?;
        }
        Ok(())
    }

    /// One time round. Waits for something to do, at most for `timeout`, and does it; returns when
    /// to come back at the latest (`Some(0)`: there is more to do now; `None`: when the descriptor
    /// is ready).
    ///
    /// # Errors
    /// [`Error::Poll`]: the system cannot tell any more what is ready. [`Error::Forked`].
    ///
    /// Work: bounded by the limits that begin with `turn`.
    pub fn turn(&mut self, timeout: Option<Duration>) -> Result<Option<Duration>, Error> {
        self.check_process()?;
        self.go_round(timeout)
    }

    /// The eight steps of a turn.
    fn go_round(&mut self, timeout: Option<Duration>) -> Result<Option<Duration>, Error> {
        self.wait(timeout)?; //  1  until someone is ready or a deadline has come
        self.note(); //          2  who is ready; nobody is touched yet
        self.read(); //          3  bytes into connections, events into the handler
        self.time(); //          4  deadlines
        self.obey(); //          5  what other threads want
        self.deliver(); //       6  from the log to the outboxes to the sockets
        self.forget(); //        7  those who are done
        self.accept(); //        8  last, so that no slot is reused before the next turn
        let took = net::now() - self.app.hub.now;
        self.app.hub.turn.end(took);
        Ok(self.rest())
    }

    // 1

    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), Error> {
        let timeout = [timeout, self.rest()].into_iter().flatten().min();
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => self.events.clear(),
            Err(error) => return Err(Error::Poll(error)),
        }
        let now = net::now();
        let unix = net::unix_time();
        self.app.hub.now = now;
        let (before, tick) = (self.app.hub.turn.now, Tick::at(now - self.started));
        self.app.hub.turn.begin(tick, unix.as_secs());
        // A handler may fork as well. Asking costs a call, so it is not asked in every turn.
        if tick == before { Ok(()) } else { self.check_process() }
    }

    /// A fork has the descriptors of its parent, and would read what is for that one.
    fn check_process(&self) -> Result<(), Error> {
        (std::process::id() == self.process).then_some(()).ok_or(Error::Forked)
    }

    /// When to come back at the latest.
    fn rest(&self) -> Option<Duration> {
        let hub = &self.app.hub;
        let is_busy = !self.busy.is_empty()
            || !self.done.is_empty()
            || !self.due.is_empty()
            || self.has_commands
            || hub.has_work()
            || self.can_accept()
            || self.had_more
            || self.has_ended;
        if is_busy {
            return Some(Duration::ZERO);
        }
        let drain = self.drain.as_ref().map_or(Tick::NEVER, Drain::deadline);
        let tick = self.deadlines.soonest().min(hub.log.deadline());
        let tick = tick.min(drain).min(self.openings_due).min(hub.turn.deadline());
        let tick = (tick != Tick::NEVER).then(|| self.started + tick.since_start());
        let wake = hub.wakes.peek().map(|Reverse((at, ..))| *at);
        let paused = self.listeners.paused_until();
        let soonest = [tick, wake, paused].into_iter().flatten().min()?;
        Some(soonest.saturating_duration_since(net::now()))
    }

    // 2

    fn note(&mut self) {
        let mut count = 0;
        for event in &self.events {
            count += 1;
            let token = event.token();
            if token == WAKER {
                continue;
            }
            if token.0 >= LISTENERS_FROM {
                self.listeners.ready(token.0 - LISTENERS_FROM);
                continue;
            }
            if token.0 >= WATCHED_FROM {
                self.ready.push(token.0 - WATCHED_FROM);
                continue;
            }
            let Some(client) = self.app.hub.clients.get_by_token(token) else {
                self.app.hub.turn.counters.stale_events += 1;
                continue;
            };
            client.is_read_closed |= event.is_read_closed();
            let id = client.connection.id;
            if event.is_readable() || event.is_error() || event.is_read_closed() {
                client.is_readable = true;
                if !std::mem::replace(&mut client.is_busy, true) {
                    self.busy.push(id);
                }
            }
            if event.is_writable() && !client.is_writable {
                client.is_writable = true;
                self.app.hub.clients.touch(id);
            }
        }
        self.had_more = count == EVENTS;
    }

    // 3

    fn read(&mut self) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut now = net::now();
        let (turn_time, mut is_late) = (self.app.hub.turn.limits.turn_time, false);
        let until = now + turn_time;
        let (clients, tick) = (&self.app.hub.clients, self.app.hub.turn.now);
        self.busy.begin(|id| clients.get(id).map_or(Pace::Brief, |client| client.pace(tick)));
        while let Some(next) = self.busy.next(is_late, |id| self.app.hub.clients.has(id)) {
            let since = now;
            self.read_client(next, &mut scratch);
            now = self.clock(now, Some(next.id));
            is_late = now >= until;
            let took_long = now - since >= turn_time / SLOW_SHARE;
            self.app.hub.clients.note_visit(next, took_long, tick);
        }
        self.app.hub.turn.counters.count_held(Held::TurnTime, self.busy.is_cut());
        self.scratch = scratch;
        let mut ready = std::mem::take(&mut self.ready);
        for token in ready.drain(..) {
            let since = net::now();
            self.app.call(None, |handler, ctx| handler.on_ready(token, ctx));
            self.clock(since, None);
        }
        self.ready = ready;
    }

    /// At most one read, or over TLS as many as bring as much, so that everyone has a turn.
    fn read_client(&mut self, next: Next, scratch: &mut [u8]) {
        let id = next.id;
        let Some(client) = self.app.hub.clients.get_mut(id) else { return };
        client.begin_visit(next, &self.app.hub.turn.limits);
        if client.is_publisher && self.app.hub.log.is_behind() {
            return self.make_busy(id);
        }
        if let Some(mut kept) = client.connection.take_kept(&self.app.hub.turn) {
            return self.feed(id, &mut kept);
        }
        if client.is_read_closed && client.connection.stage.reads_over_http() {
            // Nobody waits any more; whatever else was sent, its answer would go nowhere.
            match client.stream.take_error() {
                Some(error) => client.connection.abort(why_gone(&error)),
                None => client.connection.receive_eof(),
            }
            return self.app.hub.clients.touch(id);
        }
        if !client.is_readable || !client.connection.wants_input(&self.app.hub.turn) {
            // Readiness is remembered, and looked at again when bytes are wanted.
            return client.connection.count_unread(&mut self.app.hub.turn);
        }
        if client.stream.is_handshaking() && !self.app.hub.turn.may_handshake() {
            return self.make_busy(id);
        }
        let most = scratch.len();
        let size = client.connection.input_bytes_max(&self.app.hub.turn).min(next.bytes(most));
        let input = scratch.get_mut(..size).unwrap_or_default();
        let counters = &mut self.app.hub.turn.counters;
        counters.reads += 1;
        match client.receive(input) {
            Ok(Received::End) => {
                client.is_readable = false;
                client.connection.receive_eof();
            }
            Ok(Received::Bytes { count, has_more }) => {
                let rest = client.note_bytes(count, self.app.hub.turn.now);
                counters.read_bytes += count as u64;
                counters.count_held(Held::TurnRead, count == most);
                client.is_readable = has_more || client.is_read_closed;
                if client.is_readable {
                    self.make_busy(id);
                }
                return self.feed(id, input.get_mut(..rest).unwrap_or_default());
            }
            Ok(Received::Shaken) => {
                counters.tls_handshakes += 1;
                self.make_busy(id);
            }
            Ok(Received::Plain) => {
                let refusal = Refusal::new(400, Reason::Tls, PLAIN);
                client.connection.refuse_unread(&refusal, &mut self.app.hub.turn);
            }
            Ok(Received::Failed(error)) => {
                counters.tls_failures += 1;
                let peer = client.connection.peer;
                log::info!("event=tls_failed client={id} peer={peer} reason=tls error={error:?}");
                client.connection.abort(Reason::Tls);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => client.is_readable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => self.make_busy(id),
            Err(error) => client.connection.abort(why_gone(&error)),
        }
        self.app.hub.clients.touch(id);
    }

    /// Into the connection, and what comes of it out again as soon as it is enough for a write: so
    /// long the processor has it at hand.
    fn feed(&mut self, id: ConnId, mut input: &mut [u8]) {
        let (mut left, mut enough) = (self.app.hub.turn.limits.turn_write, WRITE_BYTES);
        while self.app.feed(id, &mut input, enough) {
            let before = left;
            self.visit_within(id, &mut left);
            // The socket takes no more now, or has had its share: the rest waits for its turn.
            enough = if left == before || left == 0 { usize::MAX } else { enough };
        }
        let Some(client) = self.app.hub.clients.get_mut(id) else { return };
        let is_enough = client.connection.waiting_bytes() >= ANSWER_BYTES && left > 0;
        if is_enough || self.is_over(id) {
            self.visit_within(id, &mut left);
        } else {
            self.app.hub.clients.touch(id);
        }
    }

    fn make_busy(&mut self, id: ConnId) {
        if let Some(client) = self.app.hub.clients.get_mut(id).filter(|client| !client.is_busy) {
            client.is_busy = true;
            self.busy.push(id);
        }
    }

    // 4

    fn time(&mut self) {
        let now = self.app.hub.turn.now;
        let mut due = std::mem::take(&mut self.due);
        if due.is_empty() {
            self.deadlines.take(now, &mut due);
        }
        let until = net::now() + self.app.hub.turn.limits.turn_time;
        while let Some(slot) = due.pop() {
            self.look_at(slot, now);
            // A machine that wakes from its sleep finds everyone's deadline past.
            if due.len().is_multiple_of(64) && net::now() >= until {
                break;
            }
        }
        self.app.hub.turn.counters.count_held(Held::TurnTime, !due.is_empty());
        if due.is_empty() {
            due.shrink_to(PLACES_MIN);
        }
        self.due = due;
        let made = self.app.hub.wakes_made;
        while let Some(&Reverse((at, order, token))) = self.app.hub.wakes.peek() {
            // One that was made just now has its turn in the next.
            if at > self.app.hub.now || order > made {
                break;
            }
            self.app.hub.wakes.pop();
            let since = net::now();
            self.app.call(None, |handler, ctx| handler.on_wake(token, ctx));
            self.clock(since, None);
        }
    }

    /// The deadline of whoever has this slot has come, or of who had it.
    fn look_at(&mut self, slot: u32, now: Tick) {
        let hub = &mut self.app.hub;
        let Some(client) = hub.clients.at_slot_mut(slot) else { return };
        if client.armed > now {
            // It was armed anew for another tick since, or is another client.
            return;
        }
        let id = client.connection.id;
        client.armed = Tick::NEVER;
        let event = client.connection.handle_timeout(&mut hub.turn);
        hub.clients.touch_later(id);
        if let Some(Event::Fault(fault)) = event {
            let since = net::now();
            self.app.fault(id, fault.code, fault.text);
            self.clock(since, Some(id));
        }
    }

    /// Notes how long a step took that began at `since`, and says so if that was too long, at most
    /// once in a second; returns the present.
    pub(crate) fn clock(&mut self, since: Instant, id: Option<ConnId>) -> Instant {
        let now = net::now();
        if now - since <= self.app.hub.turn.limits.slow_handler {
            return now;
        }
        self.app.hub.turn.counters.slow_handlers += 1;
        self.slow.tell(id, since, now);
        now
    }

    /// The moment that it is, for what is timed elsewhere.
    pub(crate) fn present() -> Instant {
        net::now()
    }

    // 5

    fn obey(&mut self) {
        self.has_commands = self.app.obey(&self.commands);
        self.drain();
    }

    // 6

    fn deliver(&mut self) {
        let turn_time = self.app.hub.turn.limits.turn_time;
        let until = net::now() + turn_time;
        self.visit_touched(false, until);
        // Who was asked something answers first. Deadlines come by the thousand, and can wait.
        self.visit_touched(true, until.max(net::now() + turn_time / DUE_SHARE));
        self.app.hub.clients.end_visits();
        self.spread();
        self.app.hub.turn.end_delivery();
        let hub = &mut self.app.hub;
        if hub.clients.readers.next_spreading().is_none() {
            hub.log.drop_encoded();
        }
        hub.trim();
    }

    /// Visits those who are to be visited now, as long as there is time.
    fn visit_touched(&mut self, is_due: bool, until: Instant) {
        for visited in 1..=self.app.hub.clients.touched(is_due) {
            let Some(id) = self.app.hub.clients.next_touched(is_due) else { break };
            self.visit(id);
            if visited % 16 == 0 && net::now() >= until {
                let is_cut = self.app.hub.clients.touched(is_due) > 0;
                self.app.hub.turn.counters.count_held(Held::TurnTime, is_cut);
                break;
            }
        }
    }

    /// Offers what was published to its readers, topic by topic, a slice of them at a time.
    fn spread(&mut self) {
        if self.app.hub.clients.readers.next_spreading().is_none() {
            return;
        }
        let until = net::now() + self.app.hub.turn.limits.turn_time;
        while let Some(topic) = self.app.hub.clients.readers.next_spreading() {
            self.app.hub.clients.readers.begin_slice(topic, &self.app.hub.log);
            for _ in 0..self.app.hub.turn.limits.turn_readers {
                let Some(id) = self.app.hub.clients.next_reader(topic) else { break };
                if self.visit(id) == Visit::Unfinished {
                    self.app.hub.clients.readers.note_unfinished(topic);
                }
            }
            let (hub, now) = (&mut self.app.hub, net::now());
            let counters = &mut hub.turn.counters;
            if let Some(since) = hub.clients.readers.end_slice(&mut hub.log, counters) {
                counters.fanout_time.observe(now - since);
            }
            if now >= until {
                let is_cut = hub.clients.readers.next_spreading().is_some();
                counters.count_held(Held::TurnTime, is_cut);
                break;
            }
        }
        self.app.hub.clients.readers.end_rounds();
    }

    /// Fills and writes by turns, until one of the two has no more or the budget is spent.
    fn visit(&mut self, id: ConnId) -> Visit {
        let mut left = self.app.hub.turn.limits.turn_write;
        self.visit_within(id, &mut left)
    }

    /// The same, until nothing is `left` of a budget.
    fn visit_within(&mut self, id: ConnId, left: &mut usize) -> Visit {
        let hub = &mut self.app.hub;
        let Some(client) = hub.clients.get_mut(id) else { return Visit::Done };
        if client.is_spent {
            return Visit::Unfinished;
        }
        while client.is_writable {
            let before = hub.turn.counters.written_bytes;
            let more = client.connection.fill(&hub.log, &mut hub.turn);
            if client.connection.waiting_bytes() > 0 {
                hub.turn.counters.writes += 1;
            }
            let result = client.connection.write_to(&mut client.stream, &mut hub.turn);
            let written = hub.turn.counters.written_bytes - before;
            *left = left.saturating_sub(usize::try_from(written).unwrap_or(usize::MAX));
            match result {
                Ok(Flush::Drained) if !more && !client.connection.owes_pong() => break,
                Ok(Flush::Blocked) => client.is_writable = false,
                Ok(Flush::Drained | Flush::Budget) => {
                    if *left == 0 {
                        // Whoever is touched now is visited later, at the latest in the next turn.
                        client.is_spent = true;
                        hub.turn.counters.count_held(Held::TurnWrite, true);
                        hub.clients.touch(id);
                        self.settle(id);
                        return Visit::Unfinished;
                    }
                }
                Err(error) => {
                    client.connection.abort(why_gone(&error));
                    break;
                }
            }
        }
        self.settle(id);
        Visit::Done
    }

    /// After a visit: what follows from the state that the connection is in now.
    pub(crate) fn settle(&mut self, id: ConnId) {
        self.weigh(id);
        let hub = &mut self.app.hub;
        let Some(client) = hub.clients.get_mut(id) else { return };
        let connection = &client.connection;
        if connection.wants_shutdown() && !client.is_shut {
            client.is_shut = true;
            // It fails only if the peer is gone already, which a read will tell.
            let _ = client.stream.shutdown();
            // What it then holds goes, and the shutdown with it, when the socket says so.
            client.is_writable &= client.stream.held_bytes() == 0;
        }
        let deadline = connection.deadline();
        if deadline < client.armed {
            client.armed = self.deadlines.arm(deadline, id.index());
        }
        let is_left = !connection.cursor.readings.is_empty() && !connection.is_reading();
        let is_given_back = client.is_counted && connection.stage.is_resting();
        let is_done = connection.is_done();
        let wants_turn = connection.has_kept(&hub.turn)
            || client.is_readable && connection.wants_input(&hub.turn);
        if is_given_back {
            hub.give_back(id);
        }
        if is_left {
            hub.clients.leaves_at_turns_end(id);
        }
        if is_done {
            self.done.push(id);
        } else if wants_turn {
            self.make_busy(id);
        }
    }
}
