//! A cursor over the log: what one client reads, and how far it has come.
//!
//! This is what makes push cheap. Nothing is queued for a reader: when it can take bytes, the
//! entries above its place are looked up and put into its outbox, in a form that all readers of
//! that form share. One that takes none stands still here and costs nothing.
//!
//! Invariant: entries leave in the order of their ids, whatever topics they are of, as long as all
//! topics are at the same place; one subscribed later from an older place catches up first.

use std::ops::{Deref, DerefMut};

use crate::forms::{self, Gap};
use crate::id::ConnId;
use crate::limits::TAKE_BYTES;
use crate::log::Log;
use crate::outbox::Outbox;
use crate::topic::{Form, TopicNumber};
use crate::turn::Turn;

/// A place in one topic.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The topic, held.
    pub topic: TopicNumber,
    /// Everything up to here has been given.
    pub seen: u64,
    /// Where the topic's list of readers has this reading (`clients.rs` keeps it).
    pub(crate) listed_at: u32,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Cursor {
    /// One for each topic, in the order in which they were subscribed, until one is given up: the
    /// last takes its place.
    pub(crate) readings: Readings,
}

/// What one client reads, as a slice. Most read one topic, and need no memory beside their slot.
#[derive(Debug)]
pub(crate) enum Readings {
    One(Reading),
    /// Several, or none; or one, if there were several.
    Several(Vec<Reading>),
}

impl Default for Readings {
    fn default() -> Self {
        Readings::Several(Vec::new())
    }
}

impl Deref for Readings {
    type Target = [Reading];

    fn deref(&self) -> &[Reading] {
        match self {
            Readings::One(reading) => std::slice::from_ref(reading),
            Readings::Several(list) => list,
        }
    }
}

impl DerefMut for Readings {
    fn deref_mut(&mut self) -> &mut [Reading] {
        match self {
            Readings::One(reading) => std::slice::from_mut(reading),
            Readings::Several(list) => list,
        }
    }
}

impl Readings {
    fn push(&mut self, reading: Reading) {
        match self {
            Readings::Several(list) if list.is_empty() => *self = Readings::One(reading),
            Readings::Several(list) => list.push(reading),
            Readings::One(first) => *self = Readings::Several(vec![*first, reading]),
        }
    }

    /// Takes out this one; the last takes its place.
    fn swap_remove(&mut self, at: usize) {
        match self {
            Readings::Several(list) => {
                list.swap_remove(at);
                if list.is_empty() {
                    *self = Readings::default();
                }
            }
            Readings::One(_) => *self = Readings::default(),
        }
    }
}

/// Up to this size several frames are copied into one piece that all readers share; above it each
/// frame is a piece of the gathered write.
const JOIN_BYTES_MAX: usize = 64 * 1024;

/// What a reading takes in its topic's list of readers, which grows in doubling.
const LISTED_BYTES: usize = 2 * size_of::<u32>();

impl Cursor {
    /// Bytes of memory that it takes beside its own place, and in its topics' lists. Those of one
    /// topic count as the client's.
    pub(crate) fn held_bytes(&self) -> usize {
        match &self.readings {
            Readings::One(_) => 0,
            Readings::Several(list) => {
                list.capacity() * size_of::<Reading>() + list.len() * LISTED_BYTES
            }
        }
    }

    /// Reads one more topic from `seen` on; `listed_at` is where it stands in its list of readers.
    pub fn read(&mut self, topic: TopicNumber, seen: u64, listed_at: u32) {
        self.readings.push(Reading { topic, seen, listed_at });
    }

    /// Gives up the topic; what it read of it, if it did.
    pub(crate) fn give_up(&mut self, topic: TopicNumber) -> Option<Reading> {
        let at = self.readings.iter().position(|reading| reading.topic == topic)?;
        let gone = self.readings.get(at).copied();
        self.readings.swap_remove(at);
        gone
    }

    /// What it reads of the topic.
    pub(crate) fn reading_mut(&mut self, topic: TopicNumber) -> Option<&mut Reading> {
        self.readings.iter_mut().find(|reading| reading.topic == topic)
    }

    /// Whether there is an entry, or the gap that one has left, above its place.
    pub fn is_behind(&self, log: &Log) -> bool {
        self.readings.iter().any(|it| it.seen < log.topic(it.topic).last())
    }

    /// A topic in which entries above its place are no longer held.
    pub fn gap(&self, log: &Log) -> Option<TopicNumber> {
        let is_gap = |it: &&Reading| it.seen < log.topic(it.topic).floor();
        self.readings.iter().find(is_gap).map(|it| it.topic)
    }

    /// Goes over such a gap, which its reader is to be told of.
    pub(crate) fn pass_gap(&mut self, log: &Log) -> Option<Gap> {
        let is_gap = |it: &&mut Reading| it.seen < log.topic(it.topic).floor();
        let reading = self.readings.iter_mut().find(is_gap)?;
        let topic = log.topic(reading.topic);
        let after = Some(log.id(std::mem::replace(&mut reading.seen, topic.floor())));
        Some(Gap { topic: topic.name().clone(), after, oldest: log.oldest(Some(reading.topic)) })
    }

    /// The `seq` up to which all its topics have been given.
    pub fn position(&self, log: &Log) -> u64 {
        let next = self.readings.iter().filter_map(|it| {
            let topic = log.topic(it.topic);
            // What is lost is not given: the place is before it.
            let first_lost = Some(it.seen + 1).filter(|_| it.seen < topic.floor());
            first_lost.or_else(|| topic.after(it.seen).next().map(|entry| entry.seq))
        });
        next.min().map_or(log.newest().seq, |next| next - 1)
    }

    /// Whether the topic holds entries above its place in it and not above `upto`.
    pub fn has_backlog(&self, number: TopicNumber, upto: u64, log: &Log) -> bool {
        let reading = self.readings.iter().find(|it| it.topic == number);
        let next = reading.and_then(|it| log.topic(number).after(it.seen).next());
        next.is_some_and(|entry| entry.seq <= upto)
    }

    /// Topics and places.
    pub fn places(&self) -> impl Iterator<Item = (TopicNumber, u64)> {
        self.readings.iter().map(|it| (it.topic, it.seen))
    }

    /// Moves on over what is due, but not above `upto`, and puts it into the outbox in this form.
    /// True: there is more of it.
    ///
    /// Work: at most 64 KiB and one entry more.
    pub fn take(
        &mut self,
        id: ConnId,
        (form, upto): (Form, u64),
        log: &Log,
        outbox: &mut Outbox,
        turn: &mut Turn,
    ) -> bool {
        match &mut *self.readings {
            [] => false,
            [one] => take_run(one, id, (form, upto), log, outbox, turn),
            several => {
                let is_behind = |it: &&mut Reading| it.seen < log.topic(it.topic).last();
                let mut behind = several.iter_mut().filter(is_behind);
                let (Some(one), another) = (behind.next(), behind.next()) else { return false };
                if another.is_some() {
                    return self.take_merged(id, (form, upto), log, outbox, turn);
                }
                let more = take_run(one, id, (form, upto), log, outbox, turn);
                let seen = one.seen;
                self.given(seen);
                more
            }
        }
    }

    /// Every topic is given up to here: what one of them holds above it was not reached.
    fn given(&mut self, seen: u64) {
        for reading in self.readings.iter_mut() {
            reading.seen = reading.seen.max(seen);
        }
    }

    /// Several topics: their entries in the order of their ids.
    fn take_merged(
        &mut self,
        id: ConnId,
        (form, upto): (Form, u64),
        log: &Log,
        outbox: &mut Outbox,
        turn: &mut Turn,
    ) -> bool {
        let (mut bytes, mut seen, mut more) = (0, 0, false);
        for (topic, entry) in log.merge(self.places()) {
            if entry.seq > upto {
                break;
            }
            if bytes >= TAKE_BYTES {
                more = true;
                break;
            }
            forms::deflate(log, topic, entry, form, turn);
            let piece = forms::form(log, topic, entry, form);
            bytes += piece.len();
            seen = entry.seq;
            if entry.except != Some(id) {
                outbox.push(piece);
                turn.counters.count_delivered(form.way(), 1);
            }
        }
        self.given(seen);
        more
    }
}

/// The common case: one topic, so that what is due is one run of entries.
fn take_run(
    reading: &mut Reading,
    id: ConnId,
    (form, upto): (Form, u64),
    log: &Log,
    outbox: &mut Outbox,
    turn: &mut Turn,
) -> bool {
    let topic = log.topic(reading.topic);
    let (from, is_deflated) = (reading.seen, form.plain().1.is_some());
    let (mut bytes, mut count, mut excepted, mut more) = (0, 0, 0, false);
    for entry in topic.after(from).take_while(|entry| entry.seq <= upto) {
        if bytes >= TAKE_BYTES {
            more = true;
            break;
        }
        if is_deflated {
            forms::deflate(log, topic, entry, form, turn);
        }
        bytes += match form {
            Form::Frame => entry.frame().len(),
            _ => forms::form(log, topic, entry, form).len(),
        };
        count += 1;
        excepted += usize::from(entry.except == Some(id));
        reading.seen = entry.seq;
    }
    let run = topic.after(from).take(count).filter(|entry| entry.except != Some(id));
    let pieces = run.map(|entry| forms::form(log, topic, entry, form));
    if count > 1 && excepted == 0 && bytes <= JOIN_BYTES_MAX && topic.readers() > 1 {
        outbox.push(turn.joined((reading.topic, form), (from, reading.seen), pieces));
    } else {
        pieces.for_each(|piece| outbox.push(piece));
    }
    turn.counters.count_delivered(form.way(), count - excepted);
    more
}
