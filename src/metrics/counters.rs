//! Counters: how often each thing happened since the start, and how long it took. Plain numbers,
//! one thread; how they are told to others is `exposition.rs`' business.
//!
//! What always holds: a count never falls, and `held_in_all` is the sum of all that `held` has.

use std::fmt;
use std::time::Duration;

use crate::metrics::{Held, Reason, Way};

/// How often something took how long.
///
/// ```
/// let mut turns = pousse::Histogram::default();
/// turns.observe(std::time::Duration::from_micros(300));
/// assert_eq!((turns.count(), turns.sum().as_micros()), (1, 300));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Observations by the first bound that they are not above; the last are above all.
    buckets: [u64; Histogram::BOUNDS.len() + 1],
    sum_ns: u64,
}

impl Histogram {
    /// The upper bounds of the buckets, in microseconds.
    pub const BOUNDS: [u32; 13] = [
        100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
        1_000_000,
    ];

    /// Counts one that took `time`.
    pub fn observe(&mut self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let is_within = |bound: &u32| ns <= u64::from(*bound) * 1000;
        let at = Self::BOUNDS.iter().position(is_within).unwrap_or(Self::BOUNDS.len());
        if let Some(count) = self.buckets.get_mut(at) {
            *count += 1;
        }
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// How long all of them took together.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns)
    }

    /// For each bound, in microseconds, how many took no longer.
    pub fn cumulative(&self) -> impl Iterator<Item = (u32, u64)> {
        let mut below = 0;
        Self::BOUNDS.iter().zip(self.buckets).map(move |(bound, count)| {
            below += count;
            (*bound, below)
        })
    }
}

/// How often each thing happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Counters {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections ended, by reason.
    closed: [u64; Reason::ALL.len()],
    /// Requests, messages and commands refused, by reason.
    refused: [u64; Reason::ALL.len()],
    /// Times that a limit was reached that refuses nothing.
    held: [u64; Held::COUNT],
    /// All of them.
    pub(crate) held_in_all: u64,
    /// Requests answered.
    pub requests: u64,
    /// WebSockets opened.
    pub opened: u64,
    /// Event streams begun.
    pub streams: u64,
    /// Messages received over WebSockets.
    pub received: u64,
    /// Entries appended to the log.
    pub published: u64,
    /// Entries given to readers and pollers.
    pub delivered: u64,
    /// The same, by the way they went.
    delivered_by: [u64; Way::ALL.len()],
    /// Readings begun at a place that was named: those whose place was still held whole.
    pub resumed: u64,
    /// And those that had a gap.
    pub resumed_with_gap: u64,
    /// Encodings of entries; the frame of an entry is made with it and not counted.
    pub encoded: u64,
    /// Times that several entries were joined into one piece for readers at the same place.
    pub joined: u64,
    /// Readers told that their place is no longer held whole.
    pub gaps: u64,
    /// Handlers that panicked.
    pub panics: u64,
    /// Messages compressed with a window of 512 bytes, and with one of 32 KiB: entries once for all
    /// who read them.
    pub deflated_9: u64,
    /// See `deflated_9`.
    pub deflated_15: u64,
    /// Those of them that did not become shorter, and leave as they are.
    pub deflated_in_vain: u64,
    /// Bytes of all of them before.
    pub deflated_from_bytes: u64,
    /// Bytes of all of them as they leave.
    pub deflated_to_bytes: u64,
    /// Compressed messages received.
    pub inflated: u64,
    /// Their bytes as they came.
    pub inflated_from_bytes: u64,
    /// Their bytes after.
    pub inflated_bytes: u64,
    /// Read calls on sockets, and their bytes.
    pub reads: u64,
    /// Bytes read from sockets; of TLS the plaintext.
    pub read_bytes: u64,
    /// Write calls on sockets.
    pub writes: u64,
    /// Bytes written to sockets; of TLS the plaintext.
    pub written_bytes: u64,
    /// TLS handshakes done.
    pub tls_handshakes: u64,
    /// Connections ended because of what came over TLS.
    pub tls_failures: u64,
    /// Readiness told of a client that has left meanwhile.
    pub stale_events: u64,
    /// Times the system could not hand over a connection (descriptors, memory).
    pub accept_failures: u64,
    /// Calls of the handler, or steps for one client, that took longer than `slow_handler`.
    pub slow_handlers: u64,
    /// Turns of the loop, without the waiting.
    pub turn_time: Histogram,
    /// From the beginning of the turn in which something was published until all who read the
    /// topic then were offered it.
    pub fanout_time: Histogram,
}

impl Default for Counters {
    fn default() -> Self {
        let none = [0; Reason::ALL.len()];
        Self {
            closed: none,
            refused: none,
            held: [0; Held::COUNT],
            held_in_all: 0,
            accepted: 0,
            requests: 0,
            opened: 0,
            streams: 0,
            received: 0,
            published: 0,
            delivered: 0,
            delivered_by: [0; Way::ALL.len()],
            resumed: 0,
            resumed_with_gap: 0,
            encoded: 0,
            joined: 0,
            gaps: 0,
            panics: 0,
            deflated_9: 0,
            deflated_15: 0,
            deflated_in_vain: 0,
            deflated_from_bytes: 0,
            deflated_to_bytes: 0,
            inflated: 0,
            inflated_from_bytes: 0,
            inflated_bytes: 0,
            reads: 0,
            read_bytes: 0,
            writes: 0,
            written_bytes: 0,
            tls_handshakes: 0,
            tls_failures: 0,
            stale_events: 0,
            accept_failures: 0,
            slow_handlers: 0,
            turn_time: Histogram::default(),
            fanout_time: Histogram::default(),
        }
    }
}

impl Counters {
    /// Connections that ended for this reason.
    pub fn closed(&self, reason: Reason) -> u64 {
        self.closed.get(reason as usize).copied().unwrap_or(0)
    }

    /// Requests, messages and commands refused for this reason.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.refused.get(reason as usize).copied().unwrap_or(0)
    }

    /// Times that this limit made somebody wait, shortened an answer, dropped the oldest, or was
    /// the time for something.
    pub fn held(&self, limit: Held) -> u64 {
        self.held.get(limit as usize).copied().unwrap_or(0)
    }

    /// Counts that this limit was reached, if it was.
    #[inline]
    pub(crate) fn count_held(&mut self, limit: Held, is_reached: bool) {
        self.set_held(limit, self.held(limit) + u64::from(is_reached));
    }

    /// Takes over what was counted elsewhere.
    #[inline]
    pub(crate) fn set_held(&mut self, limit: Held, times: u64) {
        if let Some(count) = self.held.get_mut(limit as usize) {
            self.held_in_all += times - *count;
            *count = times;
        }
    }

    /// Entries given to readers or pollers in this way.
    pub fn delivered_by(&self, way: Way) -> u64 {
        self.delivered_by.get(way as usize).copied().unwrap_or(0)
    }

    pub(crate) fn count_delivered(&mut self, way: Way, entries: usize) {
        self.delivered += entries as u64;
        if let Some(count) = self.delivered_by.get_mut(way as usize) {
            *count += entries as u64;
        }
    }

    #[cfg(feature = "deflate")]
    pub(crate) fn count_deflated(&mut self, is_small_window: bool, bytes: usize) {
        match is_small_window {
            true => self.deflated_9 += 1,
            false => self.deflated_15 += 1,
        }
        self.deflated_from_bytes += bytes as u64;
    }

    pub(crate) fn count_closed(&mut self, reason: Reason) {
        if let Some(count) = self.closed.get_mut(reason as usize) {
            *count += 1;
        }
    }

    pub(crate) fn count_refused(&mut self, reason: Reason) {
        self.add_refused(reason, 1);
    }

    pub(crate) fn add_refused(&mut self, reason: Reason, times: u64) {
        if let Some(count) = self.refused.get_mut(reason as usize) {
            *count += times;
        }
    }
}

impl fmt::Display for Counters {
    /// One line of `name=number`; reasons and limits that never occurred are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "accepted={} requests={} opened={} streams={} received={} published={} delivered={} \
             encoded={} joined={} gaps={} panics={} reads={} read_bytes={} writes={} \
             written_bytes={} tls_handshakes={} tls_failures={} stale_events={} \
             accept_failures={} resumed={} resumed_with_gap={} slow_handlers={} \
             deflated_9={} deflated_15={} deflated_in_vain={} deflated_from_bytes={} \
             deflated_to_bytes={} inflated={} inflated_from_bytes={} inflated_bytes={}",
            self.accepted,
            self.requests,
            self.opened,
            self.streams,
            self.received,
            self.published,
            self.delivered,
            self.encoded,
            self.joined,
            self.gaps,
            self.panics,
            self.reads,
            self.read_bytes,
            self.writes,
            self.written_bytes,
            self.tls_handshakes,
            self.tls_failures,
            self.stale_events,
            self.accept_failures,
            self.resumed,
            self.resumed_with_gap,
            self.slow_handlers,
            self.deflated_9,
            self.deflated_15,
            self.deflated_in_vain,
            self.deflated_from_bytes,
            self.deflated_to_bytes,
            self.inflated,
            self.inflated_from_bytes,
            self.inflated_bytes
        )?;
        for &reason in Reason::ALL {
            if self.closed(reason) > 0 {
                write!(f, " closed.{reason}={}", self.closed(reason))?;
            }
            if self.refused(reason) > 0 {
                write!(f, " refused.{reason}={}", self.refused(reason))?;
            }
        }
        for &limit in Held::ALL {
            if self.held(limit) > 0 {
                write!(f, " held.{limit}={}", self.held(limit))?;
            }
        }
        Ok(())
    }
}
