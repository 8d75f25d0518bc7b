//! A topic and its entries: what is kept of one name, oldest first.
//!
//! Plain data with its bookkeeping. Which entries are dropped, and when, is `log.rs`' business.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::Limits;
use crate::id::ConnId;
use crate::message::{self, Kind, Message};

/// The topic of those who name none, and of `broadcast`.
pub(crate) const TOPIC_DEFAULT: &str = "general";

/// The longest name of a topic, in bytes.
pub(crate) const TOPIC_BYTES_MAX: usize = 128;

/// Whether `name` may be a topic: 1 to 128 bytes of UTF-8 without control characters.
pub(crate) fn is_topic_name(name: &str) -> bool {
    (1..=TOPIC_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// A topic's number while it exists. Whoever holds one as a reader keeps the topic in existence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicNumber(pub(crate) u32);

/// One message, kept as the frame in which it leaves (the payload is the end of it).
pub struct Entry {
    /// Its place in the run.
    pub seq: u64,
    /// Text or binary.
    pub kind: Kind,
    /// Who is not to be given it.
    pub except: Option<ConnId>,
    payload_at: u8,
    frame: Bytes,
    envelope: OnceCell<Bytes>,
}

impl Entry {
    /// The whole WebSocket frame.
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The message alone.
    pub fn payload(&self) -> &[u8] {
        self.frame.get(usize::from(self.payload_at)..).unwrap_or_default()
    }

    /// The entry as JSON, made by `encode` when it is first asked for.
    pub(crate) fn envelope(&self, encode: impl FnOnce() -> Bytes) -> Bytes {
        self.envelope.get_or_init(encode).clone()
    }
}

/// The entries of one name.
pub struct Topic {
    name: Arc<str>,
    entries: VecDeque<Entry>,
    bytes: usize,
    floor: u64,
    last: u64,
    /// How many read it.
    pub(crate) readers: u32,
    /// The first entry that not every reader was offered yet.
    pub(crate) unoffered: u64,
    /// It got entries since it was last trimmed, or could not be brought within its bounds.
    pub(crate) is_crowded: bool,
}

impl Topic {
    /// A topic without entries; what `floor` and below it may have held once, nobody knows.
    pub(crate) fn new(name: Arc<str>, floor: u64) -> Self {
        Self {
            name,
            entries: VecDeque::new(),
            bytes: 0,
            floor,
            last: floor,
            readers: 0,
            unoffered: u64::MAX,
            is_crowded: false,
        }
    }

    /// Appends a message; returns the bytes that it takes.
    pub(crate) fn push(&mut self, seq: u64, message: Message<'_>, except: Option<ConnId>) -> usize {
        let (frame, payload_at) = message::frame(message);
        let bytes = frame.len();
        self.last = seq;
        self.bytes += bytes;
        if self.readers > 0 {
            self.unoffered = self.unoffered.min(seq);
        }
        self.entries.push_back(Entry {
            seq,
            kind: message.kind(),
            except,
            payload_at: u8::try_from(payload_at).unwrap_or(0),
            frame,
            envelope: OnceCell::new(),
        });
        bytes
    }

    /// Drops the oldest entry and raises the floor to it; returns the bytes that its frame and its
    /// encoded form took.
    pub(crate) fn pop(&mut self) -> Option<(usize, usize)> {
        let entry = self.entries.pop_front()?;
        self.floor = entry.seq;
        self.bytes -= entry.frame.len();
        Some((entry.frame.len(), entry.envelope.get().map_or(0, Bytes::len)))
    }

    /// Forgets the encoded form of an entry.
    pub(crate) fn forget_envelope(&mut self, seq: u64) {
        let at = self.index_after(seq - 1);
        if let Some(entry) = self.entries.get_mut(at).filter(|entry| entry.seq == seq) {
            entry.envelope = OnceCell::new();
        }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The `seq` of its newest entry, dropped or not; what it began at if it never had one.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The `seq` of the last entry dropped.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// How many read it.
    pub fn readers(&self) -> u32 {
        self.readers
    }

    /// How many entries are kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The `seq` of the oldest entry that is kept.
    pub fn oldest(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.seq)
    }

    /// The entries above `seen`, oldest first. Finding the first takes a binary search.
    pub fn after(&self, seen: u64) -> impl Iterator<Item = &Entry> {
        self.entries.range(self.index_after(seen)..)
    }

    /// How many entries are above `seen`.
    pub fn count_after(&self, seen: u64) -> usize {
        self.entries.len() - self.index_after(seen)
    }

    /// Where the first entry above `seen` stands.
    pub(crate) fn index_after(&self, seen: u64) -> usize {
        match seen >= self.last {
            true => self.entries.len(),
            false => self.entries.partition_point(|entry| entry.seq <= seen),
        }
    }

    /// The entry at this place.
    pub(crate) fn get(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    /// By how much it is over its bounds: entries, bytes.
    pub(crate) fn excess(&self, limits: &Limits) -> (usize, usize) {
        (
            self.entries.len().saturating_sub(limits.history),
            self.bytes.saturating_sub(limits.history_bytes),
        )
    }
}
