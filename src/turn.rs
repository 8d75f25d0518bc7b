//! What the loop lends to a connection for one call: the time, the limits, the counters, an outbox.
//!
//! Connections have no clock and no buffers of their own; they get these from here and nothing of
//! it stays with an idle one. Tests make a [`Turn`] and move its time by hand.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::config::Config;
use crate::deflate::{self, Deflate, Window};
use crate::frame::Fault;
use crate::id::ConnId;
use crate::limits::{Limits, TAKE_BYTES};
use crate::long::Long;
use crate::message::{FRAME_HEAD_MAX, Kind, put_frame_head};
use crate::metrics::{Counters, Held};
use crate::origin::Origins;
use crate::outbox::Outbox;
use crate::partial::Incoming;
use crate::response::{self, DATE_BYTES};
use crate::spare::Spare;
use crate::tick::Tick;
use crate::told::HeldLimits;
use crate::topic::{Form, TopicNumber};

/// Outboxes kept for lending. More are made, and freed, when more clients have bytes waiting.
const SPARE_MAX: usize = 64;

/// Pieces remembered for the next reader at the same place.
const JOINED_MAX: usize = 8;

/// See the head of this file.
pub struct Turn {
    /// The present moment.
    pub now: Tick,
    /// Every limit.
    pub limits: Limits,
    /// Every counter.
    pub counters: Counters,
    /// Origins beside the server's own.
    pub origins: Origins,
    /// Steps of TLS handshakes that this turn has still time for.
    handshakes_left: usize,
    /// What the log knows of limits that refuse nothing.
    pub(crate) told: HeldLimits,
    /// What messages are compressed with, and taken out.
    pub(crate) deflate: Deflate,
    /// Bytes that may still be compressed in this turn.
    deflate_left: usize,
    /// Bytes that this client's messages were taken out to, since it was last asked what they cost.
    pub(crate) inflated_bytes: u64,
    /// Memory of long messages.
    pub(crate) spare: Spare,
    /// The long message that is with the handler.
    pub at_hand: Option<Long>,
    /// Room for a content that is put together before its length can be written.
    pub(crate) content: Vec<u8>,
    unix_s: u64,
    date: (u64, [u8; DATE_BYTES]),
    #[expect(clippy::vec_box, reason = "clients keep outboxes boxed; they go to and fro whole")]
    outboxes: Vec<Box<Outbox>>,
    joined: Vec<Joined>,
}

/// Several entries of a topic as one piece.
struct Joined {
    topic: TopicNumber,
    form: Form,
    first: u64,
    last: u64,
    bytes: Bytes,
}

impl Turn {
    /// A turn at the moment of the start.
    pub fn new(config: &Config) -> Self {
        let mut origins = Origins::default();
        origins.list(&config.origins);
        Self {
            now: Tick(0),
            limits: config.limits.clone(),
            counters: Counters::default(),
            origins,
            handshakes_left: config.limits.turn_handshakes,
            told: HeldLimits::default(),
            deflate: Deflate::default(),
            deflate_left: deflate::TURN_BYTES,
            inflated_bytes: 0,
            at_hand: None,
            content: Vec::new(),
            unix_s: 0,
            date: (u64::MAX, [0; DATE_BYTES]),
            outboxes: Vec::new(),
            spare: Spare::default(),
            joined: Vec::new(),
        }
    }

    /// Begins the next turn.
    pub fn begin(&mut self, now: Tick, unix_s: u64) {
        self.now = now;
        self.spare.leave(now);
        self.unix_s = unix_s;
        self.handshakes_left = self.limits.turn_handshakes;
        self.deflate_left = deflate::TURN_BYTES;
    }

    /// Ends a turn that took so long: what limits have held is told, if it is time for it.
    pub(crate) fn end(&mut self, took: Duration) {
        self.counters.turn_time.observe(took);
        if self.told.due(&self.counters) <= self.now {
            self.told.tell(&self.counters, self.now);
        }
    }

    /// When there will be something to tell, or memory to give back.
    pub(crate) fn deadline(&self) -> Tick {
        self.told.due(&self.counters).min(self.spare.deadline())
    }

    /// Whether one more step of a handshake fits into this turn; it is counted.
    pub(crate) fn may_handshake(&mut self) -> bool {
        let left = self.handshakes_left.checked_sub(1);
        self.handshakes_left = left.unwrap_or(0);
        self.counters.count_held(Held::TurnHandshakes, left.is_none());
        left.is_some()
    }

    /// Whether a message of this length is to be compressed now. What is too much for a turn
    /// leaves as it is.
    pub(crate) fn may_deflate(&self, bytes: usize) -> bool {
        deflate::is_worth(bytes) && self.deflate_left > 0
    }

    /// A message in one compressed frame, which is counted; `None` if it is shorter as it is.
    pub(crate) fn deflated(
        &mut self,
        (kind, payload): (Kind, &[u8]),
        window: Window,
    ) -> Option<Vec<u8>> {
        self.deflate_left = self.deflate_left.saturating_sub(payload.len());
        self.deflate.frame((kind, payload), window, &mut self.counters)
    }

    /// What came, taken out if it is compressed.
    ///
    /// # Errors
    /// [`Fault`]: it cannot be.
    pub(crate) fn inflated<'s>(&mut self, incoming: Incoming<'s>) -> Result<Incoming<'s>, Fault> {
        let max = self.limits.max_message;
        let before = self.counters.inflated_bytes;
        let came = match &incoming {
            Incoming::Deflated(_, payload) => payload.len() as u64,
            _ => 0,
        };
        let incoming = incoming.inflated(&mut self.deflate, max, &mut self.counters)?;
        // Many bytes can become none, and take as long.
        self.inflated_bytes += came.max(self.counters.inflated_bytes - before);
        Ok(incoming)
    }

    /// As how many the message just received counts, of those that its client may send in a turn. A
    /// few bytes can become many: 64 KiB that were taken out, or `turn-read`, count as all.
    pub(crate) fn message_cost(&mut self) -> u32 {
        let inflated = std::mem::take(&mut self.inflated_bytes);
        if inflated == 0 {
            return 1;
        }
        let share = (self.limits.turn_messages as u64).saturating_mul(inflated);
        let most = self.limits.turn_read.min(TAKE_BYTES) as u64;
        let cost = (share / most.max(1)).saturating_add(1);
        u32::try_from(cost).unwrap_or(u32::MAX)
    }

    /// Ends the delivery of a turn: what was joined for it is not kept over a sleep.
    pub(crate) fn end_delivery(&mut self) {
        self.joined.clear();
    }

    /// The present second as a date field has it, formatted once a second.
    pub(crate) fn date(&mut self) -> [u8; DATE_BYTES] {
        if self.date.0 != self.unix_s {
            let text = response::date(self.unix_s);
            let mut date = [b' '; DATE_BYTES];
            date.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
            self.date = (self.unix_s, date);
        }
        self.date.1
    }

    pub(crate) fn lend(&mut self) -> Box<Outbox> {
        self.outboxes.pop().unwrap_or_default()
    }

    /// A frame with this payload, in memory for long messages. Should it be the message that is
    /// with the handler, it is there already, and nothing is copied.
    pub(crate) fn long_frame(&mut self, kind: Kind, payload: &[u8]) -> Arc<Vec<u8>> {
        let at_hand = self.at_hand.as_ref().and_then(|long| long.frame_of(kind, payload));
        at_hand.unwrap_or_else(|| {
            let bytes = FRAME_HEAD_MAX + payload.len();
            let mut memory = self.spare.lend(bytes);
            let frame = Arc::make_mut(&mut memory);
            frame.clear();
            frame.reserve_exact(bytes);
            put_frame_head(frame, kind.into(), payload.len());
            frame.extend_from_slice(payload);
            memory
        })
    }

    /// Takes the memory of a message that is through.
    pub(crate) fn take_memory(&mut self, buffer: Arc<Vec<u8>>) {
        self.spare.take_back(buffer, self.now);
    }

    pub(crate) fn take_back(&mut self, mut outbox: Box<Outbox>) {
        if self.outboxes.len() < SPARE_MAX {
            outbox.clear();
            // The last is lent first, and so only that one has to be large.
            if let Some(last) = self.outboxes.last_mut() {
                last.shrink();
            }
            self.outboxes.push(outbox);
        }
    }

    /// In how many seconds somebody may try again: 3 to 7, so that those who are sent away together
    /// do not come back together.
    pub(crate) fn retry_s(&self) -> u64 {
        3 + self.counters.requests % 5
    }

    /// `wait`, give or take 20 %, so that clients who came together do not come back together.
    pub(crate) fn scattered(&self, wait: Duration, id: ConnId) -> Duration {
        let share = (id.scatter() ^ u64::from(self.now.0)) % 401;
        wait * (800 + u32::try_from(share).unwrap_or(0)) / 1000
    }

    /// The entries of `topic` from `first` to `last` in one piece, joined once for all who stand
    /// at the same place in this turn and take the same form.
    pub(crate) fn joined(
        &mut self,
        (topic, form): (TopicNumber, Form),
        (first, last): (u64, u64),
        pieces: impl Iterator<Item = Bytes>,
    ) -> Bytes {
        let is_same = |it: &&Joined| {
            (it.topic, it.form) == (topic, form) && it.first == first && it.last == last
        };
        // The readers of one place come one after the other: the newest piece is the likely one.
        if let Some(joined) = self.joined.iter().rev().find(is_same) {
            return joined.bytes.clone();
        }
        let mut bytes = Vec::new();
        pieces.for_each(|piece| bytes.extend_from_slice(&piece));
        let bytes = Bytes::from(bytes);
        self.counters.joined += 1;
        if self.joined.len() >= JOINED_MAX {
            self.joined.remove(0);
        }
        self.joined.push(Joined { topic, form, first, last, bytes: bytes.clone() });
        bytes
    }
}
