//! The log: topics, their entries, and what a reader at a given place has still to be given.
//!
//! Every push is an entry here and every client is a cursor over it. [`Log::append`] is the only
//! way in. The log knows no clients: readers ask it what comes after their place, and it only
//! counts how many there are, because a topic that is read is never dropped.
//!
//! Invariants:
//! - `seq` grows by one per entry over all topics, so one number is a place in every topic.
//! - `floor` of a topic is the `seq` of its last entry dropped. A place below it has missed
//!   something, a place at or above it has not. It never falls.
//! - An entry is dropped only after every reader of its topic was offered it ([`Log::offered`]).
//!   A reader that could not take it then is behind, and will be told of the gap.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;

use crate::encodings::{Encodings, Holder};
use crate::error::PublishError;
use crate::id::{After, ConnId, EntryId};
use crate::limits::Limits;
#[cfg(simulation)]
use crate::message::Kind;
use crate::message::Message;
use crate::metrics::Held;
use crate::tick::Tick;
use crate::topic::{ENTRY_BYTES, Entry, Form, Topic, TopicNumber, is_topic_name};
use crate::topic::{give_back, make_room, plain_form_bytes};

/// Of `history_total` this part may be compressed forms, before they make room for entries.
const DEFLATED_SHARE: usize = 4;

/// The limits that drop entries.
const BOUNDS: [Held; 4] = [Held::History, Held::HistoryBytes, Held::HistoryAge, Held::HistoryTotal];

/// Where a reader stands in a topic, found from what it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Everything up to this `seq` is behind it.
    pub seen: u64,
    /// Whether something between what it asked for and here is no longer held.
    pub is_gap: bool,
}

/// One line of the order in which entries of all topics were written.
struct Ordered {
    seq: u64,
    topic: TopicNumber,
    at: Tick,
}

/// All topics.
pub struct Log {
    run: u64,
    last: u64,
    /// The highest `last` of the topics dropped: below it, nobody knows what an absent topic held.
    dropped_floor: u64,
    topics: Slab<Topic>,
    names: HashMap<Arc<str>, TopicNumber>,
    /// Topics that may be unread, by the `seq` of their oldest entry when they were noted here. It
    /// may have gone since: what is true is looked up when one of them is to make room.
    unread: BTreeMap<u64, TopicNumber>,
    /// Entries by age. A line whose entry was trimmed by its topic's own bound is stale.
    order: VecDeque<Ordered>,
    entries: usize,
    dropped: u64,
    /// How many of them each of the limits has dropped.
    dropped_by: [u64; Held::COUNT],
    bytes: usize,
    /// Topics that got entries since the last trim.
    crowded: Vec<TopicNumber>,
    /// Bytes kept over the bounds because not every reader was offered them yet.
    excess_bytes: usize,
    encodings: Encodings,
    limits: Limits,
    /// What was appended since somebody looked.
    #[cfg(simulation)]
    pub(crate) appended: Vec<(Arc<str>, u64, (Kind, Vec<u8>), Option<ConnId>)>,
}

impl Log {
    /// An empty log; `run` is the Unix millisecond of the start.
    pub fn new(run: u64, limits: Limits) -> Self {
        Self {
            run,
            last: 0,
            dropped_floor: 0,
            topics: Slab::new(),
            names: HashMap::new(),
            unread: BTreeMap::new(),
            order: VecDeque::new(),
            entries: 0,
            dropped: 0,
            dropped_by: [0; Held::COUNT],
            bytes: 0,
            crowded: Vec::new(),
            excess_bytes: 0,
            encodings: Encodings::default(),
            limits,
            #[cfg(simulation)]
            appended: Vec::new(),
        }
    }

    // What is published comes in.

    /// Appends a message. The one door through which anything reaches more than one client.
    ///
    /// # Errors
    /// [`PublishError`]; then nothing was kept.
    pub fn append(
        &mut self,
        topic: &str,
        message: Message<'_>,
        except: Option<ConnId>,
        now: Tick,
    ) -> Result<(TopicNumber, EntryId), PublishError> {
        self.append_keyed(topic, message, except, None, now)
    }

    /// Appends a message unless this key was used in the topic for one that is still kept: then
    /// that one is the answer (the second value is false), if its content is the same.
    ///
    /// # Errors
    /// [`PublishError`]; then nothing was kept.
    pub fn append_once(
        &mut self,
        topic: &str,
        message: Message<'_>,
        key: &str,
        now: Tick,
    ) -> Result<((TopicNumber, EntryId), bool), PublishError> {
        if let Some(number) = self.find(topic)
            && let Some(entry) = self.topic(number).keyed(key)
        {
            return match entry.message() == message {
                true => Ok(((number, self.id(entry.seq)), false)),
                false => Err(PublishError::KeyReused),
            };
        }
        Ok((self.append_keyed(topic, message, None, Some(key), now)?, true))
    }

    /// As [`append`](Self::append), under a key with which the same will not be appended twice.
    fn append_keyed(
        &mut self,
        topic: &str,
        message: Message<'_>,
        except: Option<ConnId>,
        key: Option<&str>,
        now: Tick,
    ) -> Result<(TopicNumber, EntryId), PublishError> {
        if message.as_bytes().len() > self.limits.max_message {
            return Err(PublishError::TooLong);
        }
        if self.excess_bytes > self.limits.history_total {
            return Err(PublishError::Busy);
        }
        let number = self.open(topic)?;
        self.last += 1;
        let seq = self.last;
        self.bytes += make_room(&mut self.order);
        self.order.push_back(Ordered { seq, topic: number, at: now });
        let topic = self.topics.get_mut(number.0 as usize).expect("it was opened just now");
        self.bytes += topic.push(seq, message, except, key);
        self.entries += 1;
        #[cfg(simulation)]
        self.appended.push((
            topic.name().clone(),
            seq,
            (message.kind(), message.as_bytes().to_vec()),
            except,
        ));
        if !topic.is_crowded {
            topic.is_crowded = true;
            self.crowded.push(number);
        }
        if topic.readers == 0 && topic.noted_at == 0 {
            self.note_unread(number);
        }
        Ok((number, self.id(seq)))
    }

    // Readers look up what comes after their place.

    /// The topic of this name, if it exists.
    pub fn find(&self, name: &str) -> Option<TopicNumber> {
        self.names.get(name).copied()
    }

    /// The topic of this number, which the caller got as a reader or in this turn.
    ///
    /// # Panics
    /// If it does not exist: only a mistake in pousse can ask for such a one.
    pub fn topic(&self, number: TopicNumber) -> &Topic {
        self.topics.get(number.0 as usize).expect("a topic that is held exists")
    }

    /// Where someone who asks for `after` stands in `topic` (`None`: absent).
    pub fn place(&self, topic: Option<TopicNumber>, after: After) -> Place {
        let floor = topic.map_or(self.dropped_floor, |number| self.topic(number).floor());
        match after {
            After::Now => Place { seen: self.last, is_gap: false },
            After::Earliest => Place { seen: floor, is_gap: false },
            After::Id(id) if id.run == self.run && (floor..=self.last).contains(&id.seq) => {
                Place { seen: id.seq, is_gap: false }
            }
            After::Id(_) => Place { seen: floor, is_gap: true },
        }
    }

    /// Entries of several topics above the places given, in the order of their ids.
    pub fn merge(&self, places: impl Iterator<Item = (TopicNumber, u64)>) -> Merge<'_> {
        let mut next = BinaryHeap::new();
        for (number, seen) in places {
            let topic = self.topic(number);
            let at = topic.index_after(seen);
            if let Some(entry) = topic.get(at) {
                next.push(Reverse((entry.seq, number.0, at)));
            }
        }
        Merge { log: self, next }
    }

    /// The id of the `seq`th entry of this run.
    pub fn id(&self, seq: u64) -> EntryId {
        EntryId { run: self.run, seq }
    }

    /// The id of the newest entry of all topics.
    pub fn newest(&self) -> EntryId {
        self.id(self.last)
    }

    /// The oldest entry of the topic that is kept; the newest of all if it keeps none.
    pub fn oldest(&self, topic: Option<TopicNumber>) -> EntryId {
        let kept = topic.and_then(|number| self.topic(number).oldest());
        self.id(kept.unwrap_or(self.last))
    }

    // Who reads a topic, and what its readers were offered.

    /// Counts a reader of the topic, which exists from now on.
    ///
    /// # Errors
    /// [`PublishError::BadTopic`] and [`PublishError::TopicsFull`].
    pub fn join(&mut self, topic: &str) -> Result<TopicNumber, PublishError> {
        let number = self.open(topic)?;
        self.topic_mut(number).readers += 1;
        Ok(number)
    }

    /// Takes back one [`join`](Self::join).
    pub fn leave(&mut self, number: TopicNumber) {
        let topic = self.topic_mut(number);
        topic.readers -= 1;
        if topic.readers == 0 {
            topic.unoffered = u64::MAX;
            self.note_unread(number);
            self.drop_if_unused(number);
        }
    }

    /// Every reader of the topic has been offered its entries up to `seq`.
    pub fn offered(&mut self, number: TopicNumber, seq: u64) {
        if let Some(topic) = self.topics.get_mut(number.0 as usize) {
            topic.unoffered = if topic.last() > seq { seq + 1 } else { u64::MAX };
        }
    }

    /// Whether so much waits to be offered to readers that publishers should not be read.
    pub fn is_behind(&self) -> bool {
        self.excess_bytes > self.limits.history_bytes
    }

    // What is over a bound is dropped.

    /// Drops what is over a bound, oldest first, and topics that are empty and unread.
    ///
    /// Work: proportional to what is dropped, and so to what was published.
    pub fn trim(&mut self, now: Tick) {
        self.excess_bytes = 0;
        let mut crowded = std::mem::take(&mut self.crowded);
        crowded.retain(|&number| self.trim_topic(number));
        self.crowded = crowded;
        // Who reads must not crowd out what there is to be read, but for a share.
        while self.bytes() > self.limits.history_total
            && self.encodings.bytes() > self.limits.history_total / DEFLATED_SHARE
            && self.forget_deflated()
        {}
        while let Some(oldest) = self.order.front() {
            let (seq, number, at) = (oldest.seq, oldest.topic, oldest.at);
            let is_held = self.holds(number, seq);
            let is_old = at.after(self.limits.history_age) <= now;
            let is_due = is_old || self.bytes() > self.limits.history_total;
            if is_held && (!is_due || self.topic(number).unoffered <= seq) {
                break;
            }
            self.order.pop_front();
            self.bytes -= give_back(&mut self.order);
            if is_held {
                let limit = if is_old { Held::HistoryAge } else { Held::HistoryTotal };
                self.drop_front_for(limit, number);
                self.drop_if_unused(number);
            }
        }
        // A topic that trims itself leaves stale lines behind an older entry of a quiet one.
        if self.order.len() > 2 * self.entries + 64 {
            let topics = &self.topics;
            self.order.retain(|it| holds(topics, it.topic, it.seq));
            self.bytes -= give_back(&mut self.order);
        }
        let topics = &self.topics;
        self.encodings.tidy(|it| holds(topics, it.topic, it.seq));
    }

    /// When the oldest entry will be too old.
    pub fn deadline(&self) -> Tick {
        self.order.front().map_or(Tick::NEVER, |oldest| oldest.at.after(self.limits.history_age))
    }

    /// Drops all entries of the topic, offered or not, so that its floor is its last id. If nobody
    /// reads it, it is gone.
    ///
    /// The one exception to the third invariant: readers who were behind are told of a gap.
    pub(crate) fn clear(&mut self, number: TopicNumber) {
        while !self.topic(number).is_empty() {
            self.drop_front(number);
        }
        self.topic_mut(number).unoffered = u64::MAX;
        self.drop_if_unused(number);
    }

    // Forms of entries, beside the frame that each is kept as.

    /// The entry in this form, made by `encode` when it is first needed.
    pub fn form(
        &self,
        topic: &Topic,
        entry: &Entry,
        form: Form,
        encode: impl FnOnce() -> Vec<u8>,
    ) -> Bytes {
        entry.form(form, || {
            let bytes = Bytes::from(encode());
            if let Some(topic) = self.find(topic.name()) {
                let holder = Holder { topic, seq: entry.seq, form };
                self.encodings.add(holder, plain_form_bytes(bytes.len()));
            }
            bytes
        })
    }

    /// Keeps the entry in this compressed form, or, if `frame` is `None`, that it gains nothing.
    pub(crate) fn keep_deflated(
        &self,
        topic: &str,
        (entry, form): (&Entry, Form),
        frame: Option<Vec<u8>>,
    ) {
        let bytes = entry.keep_deflated(form, frame.unwrap_or_default().into());
        if let Some(topic) = self.find(topic) {
            self.encodings.add_deflated(Holder { topic, seq: entry.seq, form }, bytes);
        }
    }

    /// Forgets forms that were made for readers who all have them now. Those that are compressed
    /// stay as long as their entries.
    pub fn drop_encoded(&mut self) {
        for holder in self.encodings.take_plain() {
            if let Some(topic) = self.topics.get_mut(holder.topic.0 as usize) {
                self.encodings.remove(topic.forget_forms(holder.seq));
            }
        }
    }

    /// Forgets the compressed form that was made first; false if there is none.
    fn forget_deflated(&mut self) -> bool {
        let Some(holder) = self.encodings.take_deflated() else { return false };
        if let Some(topic) = self.topics.get_mut(holder.topic.0 as usize) {
            self.encodings.remove(topic.forget_deflated(holder.seq, holder.form));
        }
        true
    }

    // What there is.

    /// The topics from this number on, in the order of their numbers.
    pub fn topics_from(&self, first: usize) -> impl Iterator<Item = (usize, &Topic)> {
        let end = self.topics.iter().next_back().map_or(0, |(last, _)| last + 1);
        (first..end).filter_map(|at| Some((at, self.topics.get(at)?)))
    }

    /// How many topics exist.
    pub fn topics(&self) -> usize {
        self.topics.len()
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether no entry is held.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Memory that all entries take, with their forms and what is noted of them. What topics take
    /// beside their entries is not in it.
    pub fn bytes(&self) -> usize {
        self.bytes + self.encodings.bytes()
    }

    /// How many entries were dropped, by whatever bound, since the start.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many entries each bound has dropped.
    pub(crate) fn dropped_by(&self) -> impl Iterator<Item = (Held, u64)> {
        let count = |limit: &Held| self.dropped_by.get(*limit as usize).copied().unwrap_or(0);
        BOUNDS.iter().map(move |limit| (*limit, count(limit)))
    }

    /// How often an entry was encoded in a form other than its frame.
    pub fn encodings(&self) -> u64 {
        self.encodings.made()
    }

    // Inside: topics come and go.

    fn topic_mut(&mut self, number: TopicNumber) -> &mut Topic {
        self.topics.get_mut(number.0 as usize).expect("a topic that is held exists")
    }

    fn open(&mut self, name: &str) -> Result<TopicNumber, PublishError> {
        if let Some(number) = self.find(name) {
            return Ok(number);
        }
        if !is_topic_name(name) {
            return Err(PublishError::BadTopic);
        }
        // What this one may have held is known as of before another makes room for it.
        let floor = self.dropped_floor;
        if self.topics.len() >= self.limits.max_topics {
            self.drop_oldest_unread()?;
        }
        let name: Arc<str> = name.into();
        let index = self.topics.insert(Topic::new(name.clone(), floor));
        let number = TopicNumber(u32::try_from(index).map_err(|_| PublishError::TopicsFull)?);
        self.names.insert(name, number);
        Ok(number)
    }

    /// Drops the unread topic with the oldest entry.
    ///
    /// Work: with the logarithm of the number of topics, for each that was read or lost its oldest
    /// entry since it was noted, which took as many steps. Then all of the topic goes.
    #[inline(never)]
    fn drop_oldest_unread(&mut self) -> Result<(), PublishError> {
        while let Some((noted, number)) = self.unread.pop_first() {
            let topic = self.topic_mut(number);
            topic.noted_at = 0;
            if topic.readers > 0 || topic.oldest() != Some(noted) {
                self.note_unread(number);
                continue;
            }
            while !self.topic(number).is_empty() {
                self.drop_front(number);
            }
            self.drop_topic(number);
            return Ok(());
        }
        Err(PublishError::TopicsFull)
    }

    /// Has the topic among those that may make room, if it may and is not among them yet.
    fn note_unread(&mut self, number: TopicNumber) {
        let topic = self.topic_mut(number);
        if topic.readers == 0
            && topic.noted_at == 0
            && let Some(oldest) = topic.oldest()
        {
            topic.noted_at = oldest;
            self.unread.insert(oldest, number);
        }
    }

    /// A topic that holds nothing and that nobody reads is none.
    fn drop_if_unused(&mut self, number: TopicNumber) {
        let topic = self.topic(number);
        if topic.is_empty() && topic.readers == 0 {
            self.drop_topic(number);
        }
    }

    fn drop_topic(&mut self, number: TopicNumber) {
        let topic = self.topics.remove(number.0 as usize);
        assert!(topic.readers == 0 && topic.is_empty(), "a topic in use was dropped");
        self.names.remove(topic.name());
        self.unread.remove(&topic.noted_at);
        self.dropped_floor = self.dropped_floor.max(topic.last());
    }

    // Inside: entries go.

    fn holds(&self, number: TopicNumber, seq: u64) -> bool {
        holds(&self.topics, number, seq)
    }

    /// Brings the topic within its own bounds; true if it has to be looked at again.
    fn trim_topic(&mut self, number: TopicNumber) -> bool {
        let Some(topic) = self.topics.get(number.0 as usize).filter(|topic| topic.is_crowded)
        else {
            return false;
        };
        let unoffered = topic.unoffered;
        let (entries, bytes) = loop {
            let topic = self.topic(number);
            let excess = topic.excess(&self.limits);
            if excess == (0, 0) || topic.oldest().is_none_or(|oldest| oldest >= unoffered) {
                break excess;
            }
            let limit = if excess.0 > 0 { Held::History } else { Held::HistoryBytes };
            self.drop_front_for(limit, number);
        };
        if (entries, bytes) != (0, 0) {
            self.excess_bytes += bytes.max(entries * ENTRY_BYTES);
            return true;
        }
        self.topic_mut(number).is_crowded = false;
        self.drop_if_unused(number);
        false
    }

    fn drop_front_for(&mut self, limit: Held, number: TopicNumber) {
        self.drop_front(number);
        if let Some(count) = self.dropped_by.get_mut(limit as usize) {
            *count += 1;
        }
    }

    fn drop_front(&mut self, number: TopicNumber) {
        if let Some((bytes, encoded)) = self.topic_mut(number).pop() {
            self.bytes -= bytes;
            self.encodings.remove(encoded);
            self.entries -= 1;
            self.dropped += 1;
        }
    }
}

/// Whether the topic still is the one, and still has the entry, that a line of `order` names.
fn holds(topics: &Slab<Topic>, number: TopicNumber, seq: u64) -> bool {
    // Numbers are reused; the entries of the topic that has it now are all younger.
    let oldest = topics.get(number.0 as usize).and_then(Topic::oldest);
    oldest.is_some_and(|oldest| oldest <= seq)
}

/// See [`Log::merge`]. A step takes time with the logarithm of the number of topics.
pub struct Merge<'l> {
    log: &'l Log,
    /// Of each topic the next `seq`, the topic's number, and where in it the entry is.
    next: BinaryHeap<Reverse<(u64, u32, usize)>>,
}

impl<'l> Iterator for Merge<'l> {
    type Item = (&'l Topic, &'l Entry);

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((_, number, at)) = self.next.pop()?;
        let topic = self.log.topic(TopicNumber(number));
        let entry = topic.get(at)?;
        if let Some(following) = topic.get(at + 1) {
            self.next.push(Reverse((following.seq, number, at + 1)));
        }
        Some((topic, entry))
    }
}
