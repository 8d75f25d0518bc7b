//! One client: its bytes, its protocol, and what the loop remembers of both. Who else there is, and
//! who of them is to be visited, is `clients.rs`' business.
//!
//! A slot is most of what an idle client costs: what few clients have, or only now and then, is in
//! a box (`rare.rs`, `live.rs`, `session.rs`).

use std::io;

use crate::busy::{MUCH_TIME, Next, Pace, SHORT_BYTES};
use crate::connection::Connection;
use crate::event::Transport;
use crate::http::Peer;
use crate::id::{ConnId, Grant};
use crate::limits::Limits;
use crate::metrics::Reason;
use crate::stream::Stream;
use crate::tick::Tick;
use crate::tls_session::Received;
use crate::topic::TopicNumber;
use crate::turn::Turn;

/// A client: its bytes, its protocol, and what the loop remembers of both.
#[derive(Debug)]
pub struct Client {
    /// What is read and written.
    pub stream: Stream,
    /// What it means.
    pub connection: Connection,
    /// The deadline that the loop will come back by.
    pub(crate) armed: Tick,
    /// Which listener it came through.
    pub(crate) listener: u16,
    /// It is counted under its peer's address (`gate.rs`).
    pub(crate) is_counted: bool,
    /// It is a proxy whose word is taken on whom it speaks for.
    pub(crate) is_proxy: bool,
    /// It has not made a request yet.
    pub(crate) is_fresh: bool,
    /// See [`Client::grant`]. Apart they take 9 bytes, as an `Option` 16.
    has_grant: bool,
    grant: Grant,
    /// It was allowed everything on this connection.
    pub(crate) is_free: bool,
    /// That was the control listener.
    pub(crate) is_control: bool,
    /// When it came.
    pub(crate) since: Tick,
    /// As what it stands in `Numbers`.
    pub(crate) counted: Counted,
    /// Until when it is one of those who say much, or take long.
    known_until: Tick,
    pub(crate) is_readable: bool,
    pub(crate) is_writable: bool,
    /// The system says that the peer's bytes end: reads go on until they have.
    pub(crate) is_read_closed: bool,
    pub(crate) is_touched: bool,
    /// Its deadline has come, and it has not been visited since.
    pub(crate) is_due: bool,
    /// Its budget for writing is spent until it is visited as one who was touched.
    pub(crate) is_spent: bool,
    pub(crate) is_busy: bool,
    /// How many of its visits in a row took long; at `LONG_IN_A_ROW` it is one of those who do,
    /// until `known_until`.
    long_visits: u8,
    pub(crate) is_shut: bool,
    /// `on_open` was called, so `on_close` will be.
    pub(crate) is_opened: bool,
    /// It has published: it is not read while readers are behind.
    pub(crate) is_publisher: bool,
}

impl Client {
    /// One who has just come.
    pub(crate) fn new(
        id: ConnId,
        stream: Stream,
        peer: Peer,
        (listener, is_control): (u16, bool),
        turn: &Turn,
    ) -> Self {
        Self {
            stream,
            connection: Connection::new(id, peer, turn),
            armed: Tick::NEVER,
            listener,
            is_counted: false,
            is_proxy: false,
            is_fresh: !is_control,
            has_grant: false,
            grant: Grant(0),
            is_free: false,
            is_control,
            since: turn.now,
            counted: Counted::default(),
            is_readable: false,
            is_writable: true,
            is_read_closed: false,
            is_touched: false,
            is_due: false,
            is_spent: false,
            is_busy: false,
            long_visits: 0,
            known_until: Tick(0),
            is_shut: false,
            is_opened: false,
            is_publisher: false,
        }
    }

    /// What the handler called it when it was asked about the present request.
    pub(crate) fn grant(&self) -> Option<Grant> {
        self.has_grant.then_some(self.grant)
    }

    pub(crate) fn set_grant(&mut self, grant: Option<Grant>) {
        self.has_grant = grant.is_some();
        self.grant = grant.unwrap_or(Grant(0));
    }

    /// When in a turn it is read, and how (`busy.rs`).
    pub(crate) fn pace(&self, now: Tick) -> Pace {
        if self.takes_long(now) || self.stream.is_handshaking() {
            Pace::Long
        } else if now < self.known_until || self.has_much() {
            Pace::Much
        } else {
            Pace::Brief
        }
    }

    fn takes_long(&self, now: Tick) -> bool {
        self.long_visits == LONG_IN_A_ROW && now < self.known_until
    }

    /// It is to be read.
    pub(crate) fn begin_visit(&mut self, visit: Next, limits: &Limits) {
        self.is_busy = false;
        self.connection.begin_turn(limits);
        self.connection.requests_left = visit.requests(self.connection.requests_left);
    }

    /// It was read, which took long or did not. What came before its first request, a handshake,
    /// says nothing of what comes.
    pub(crate) fn note_visit(&mut self, visit: Next, took_long: bool, now: Tick) {
        if !self.takes_long(now) {
            // It did once, and that is over.
            self.long_visits %= LONG_IN_A_ROW;
        }
        let visits = match took_long && !self.is_fresh {
            true if visit.is_brief => LONG_IN_A_ROW.min(self.long_visits + 1),
            true => LONG_IN_A_ROW,
            false => 0,
        };
        if visits == LONG_IN_A_ROW {
            (self.long_visits, self.known_until) = (visits, now.after(MUCH_TIME));
        } else if !self.takes_long(now) {
            self.long_visits = visits;
        }
        if self.has_much() {
            self.says_much(now);
        }
    }

    /// So many bytes were read of it. Returns how many of them are in the buffer; the others are
    /// where they stay.
    pub(crate) fn note_bytes(&mut self, count: usize, now: Tick) -> usize {
        if count >= SHORT_BYTES {
            self.says_much(now);
        }
        count - self.connection.stage.begun().map_or(0, |it| it.fresh_bytes())
    }

    /// Whether more is kept of what it said than fits into a brief visit, or anything that has to
    /// wait for another.
    fn has_much(&self) -> bool {
        self.connection.rare.kept().is_some() || self.connection.stage.held_bytes() >= SHORT_BYTES
    }

    /// It is known from now on that it says much, or still that it takes long.
    fn says_much(&mut self, now: Tick) {
        if !self.takes_long(now) {
            self.long_visits %= LONG_IN_A_ROW;
            self.known_until = now.after(MUCH_TIME);
        }
    }

    /// Whether it keeps its connection open for what may come, and so stands in the list of clients
    /// that handlers see: a WebSocket, an event stream, a poll that waits.
    pub(crate) fn is_kept_open(&self) -> bool {
        self.connection.is_reading()
    }

    pub(crate) fn reads(&self, topic: TopicNumber) -> bool {
        self.connection.cursor.readings.iter().any(|reading| reading.topic == topic)
    }

    /// At most one read from the socket. What comes of a long message is read to where it stays,
    /// what is behind it, and all else, to `buffer`.
    ///
    /// # Errors
    /// What the socket said.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut begun = self.connection.stage.begun().filter(|_| self.stream.is_plain());
        let own = begun.as_mut().and_then(|it| it.room()).unwrap_or_default();
        let own_bytes = own.len().min(buffer.len());
        let own = own.get_mut(..own_bytes).unwrap_or_default();
        let rest = buffer.len() - own_bytes;
        let received = self.stream.receive(own, buffer.get_mut(..rest).unwrap_or_default())?;
        if let (Some(begun), Received::Bytes { count, .. }) = (begun, &received) {
            begun.took(own_bytes.min(*count));
        }
        Ok(received)
    }

    /// Before its socket is closed: an end that TLS was not told of looks like a line that was cut
    /// (RFC 8446 §6.1). Where something is missing that was promised, it is to look like that.
    pub(crate) fn part(&mut self) {
        let is_whole = self.connection.waiting_bytes() == 0
            && self.connection.ending(Reason::Gone).why != Reason::File;
        if is_whole && !self.is_shut {
            self.stream.part();
        }
    }
}

/// So many brief visits in a row that took long are no chance: once, or twice, another program had
/// the processor meanwhile.
const LONG_IN_A_ROW: u8 = 4;

/// What of one client is counted; packed it takes 9 bytes, and else 12.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(Rust, packed)]
pub(crate) struct Counted {
    pub(crate) transport: Transport,
    pub(crate) waiting_bytes: u32,
    pub(crate) held_bytes: u32,
}

impl Counted {
    pub(crate) fn of(connection: &Connection) -> Self {
        let fit = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        Self {
            transport: connection.transport(),
            waiting_bytes: fit(connection.waiting_bytes()),
            held_bytes: fit(connection.held_bytes()),
        }
    }
}
