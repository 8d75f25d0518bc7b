//! A cursor over the log: what one client reads, and how far it has come.
//!
//! This is what makes push cheap. Nothing is queued for a reader: when it can take bytes, the
//! entries above its place are looked up and their frames, which all readers share, are put into
//! its outbox. One that takes none stands still here and costs nothing.
//!
//! Invariant: entries leave in the order of their ids, whatever topics they are of, as long as all
//! topics are at the same place; one subscribed later from an older place catches up first.

use crate::config::TAKE_BYTES;
use crate::id::ConnId;
use crate::log::Log;
use crate::outbox::Outbox;
use crate::topic::TopicNumber;
use crate::turn::Turn;

/// A place in one topic.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The topic, held.
    pub topic: TopicNumber,
    /// Everything up to here has been given.
    pub seen: u64,
    /// Where the topic's list of readers has this reading (`clients.rs` keeps it).
    pub(crate) place: u32,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Cursor {
    /// One for each topic, in the order in which they were subscribed, until one is given up: the
    /// last takes its place.
    pub(crate) readings: Vec<Reading>,
}

/// Up to this size several frames are copied into one piece that all readers share; above it each
/// frame is a piece of the gathered write.
const JOIN_BYTES_MAX: usize = 16 * 1024;

impl Cursor {
    /// Reads one more topic from `seen` on; `place` is where the topic's list of readers has it.
    pub fn read(&mut self, topic: TopicNumber, seen: u64, place: u32) {
        // Most clients read one topic: room for just that.
        self.readings.reserve_exact(1);
        self.readings.push(Reading { topic, seen, place });
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

    /// Topics and places.
    pub fn places(&self) -> impl Iterator<Item = (TopicNumber, u64)> {
        self.readings.iter().map(|it| (it.topic, it.seen))
    }

    /// Moves on over what is due and puts its frames into the outbox. True: there is more.
    ///
    /// Work: at most 64 KiB of frames and one frame more.
    pub fn take_frames(
        &mut self,
        id: ConnId,
        log: &Log,
        outbox: &mut Outbox,
        turn: &mut Turn,
    ) -> bool {
        match self.readings.as_mut_slice() {
            [] => false,
            [one] => take_run(one, id, log, outbox, turn),
            _ => self.take_merged(id, log, outbox, turn),
        }
    }

    /// Several topics: their entries in the order of their ids.
    fn take_merged(&mut self, id: ConnId, log: &Log, outbox: &mut Outbox, turn: &mut Turn) -> bool {
        let (mut bytes, mut seen, mut more) = (0, 0, false);
        for (_, entry) in log.merge(self.places()) {
            if bytes >= TAKE_BYTES {
                more = true;
                break;
            }
            bytes += entry.frame().len();
            seen = entry.seq;
            if entry.except != Some(id) {
                outbox.push(entry.frame().clone());
                turn.counters.delivered += 1;
            }
        }
        // Every topic is given up to here: what one of them holds above it was not reached.
        for reading in &mut self.readings {
            reading.seen = reading.seen.max(seen);
        }
        more
    }
}

/// The common case: one topic, so that what is due is one run of entries.
fn take_run(
    reading: &mut Reading,
    id: ConnId,
    log: &Log,
    outbox: &mut Outbox,
    turn: &mut Turn,
) -> bool {
    let topic = log.topic(reading.topic);
    let from = reading.seen;
    let (mut bytes, mut count, mut excepted) = (0, 0, 0);
    for entry in topic.after(from) {
        if bytes >= TAKE_BYTES {
            break;
        }
        bytes += entry.frame().len();
        count += 1;
        excepted += usize::from(entry.except == Some(id));
        reading.seen = entry.seq;
    }
    let run = topic.after(from).take(count);
    if count > 1 && excepted == 0 && bytes <= JOIN_BYTES_MAX && topic.readers() > 1 {
        let range = (from, reading.seen);
        outbox.push(turn.joined(reading.topic, range, run.map(|entry| entry.frame())));
    } else {
        for entry in run.filter(|entry| entry.except != Some(id)) {
            outbox.push(entry.frame().clone());
        }
    }
    turn.counters.delivered += (count - excepted) as u64;
    reading.seen < topic.last()
}
