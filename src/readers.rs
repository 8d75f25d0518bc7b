//! Who reads which topic, and the rounds in which all of them are offered what is new there.
//!
//! Readers are named by their clients' slots; who they are, and what they take, is not known here.
//!
//! Invariants: a topic's list is dense, so whoever leaves is replaced by the last of it. A round
//! that has begun visits everyone who was in the list then and has not left.

use std::collections::VecDeque;
use std::time::Instant;

use crate::log::Log;
use crate::metrics::{Counters, Held};
use crate::topic::TopicNumber;

/// Those who read one topic.
#[derive(Debug, Default)]
struct OfTopic {
    /// Their slots.
    list: Vec<u32>,
    /// When the oldest entry that is being offered was published, and the oldest that came since.
    since: Option<Instant>,
    since_next: Option<Instant>,
    /// New entries are being offered to those below this place; `upto` is the newest of them.
    next: usize,
    upto: u64,
    is_spreading: bool,
    /// A round is due and has not begun: what is published until it does belongs to it.
    is_due: bool,
    /// One who would have taken more was stopped: nothing counts as offered to all yet.
    is_unfinished: bool,
    /// Rounds in a row that ended so.
    unfinished_rounds: u32,
}

/// So many rounds in a row are waited for those who would take more. Whoever always has something
/// older to be given, and asks for it again, is behind like one who takes nothing.
const UNFINISHED_ROUNDS_MAX: u32 = 64;

/// Places of a list that are never given back.
const PLACES_MIN: usize = 32;

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    /// By the topic's number.
    of: Vec<OfTopic>,
    /// Topics whose new entries have not been offered to all readers, in turn.
    spreading: VecDeque<TopicNumber>,
    /// Topics that have another round, but not in this turn.
    spreading_later: Vec<TopicNumber>,
}

impl Readers {
    /// One more; where it stands in the topic's list.
    pub(crate) fn join(&mut self, number: TopicNumber, slot: u32) -> u32 {
        let at = number.0 as usize;
        if self.of.len() <= at {
            self.of.resize_with(at + 1, OfTopic::default);
        }
        let Some(readers) = self.of.get_mut(at) else { return u32::MAX };
        let listed_at = u32::try_from(readers.list.len()).unwrap_or(u32::MAX);
        readers.list.push(slot);
        listed_at
    }

    /// One fewer; who stands there now.
    pub(crate) fn leave(&mut self, number: TopicNumber, listed_at: u32) -> Option<u32> {
        let list = &mut self.of.get_mut(number.0 as usize)?.list;
        list.swap_remove(listed_at as usize);
        // What a crowd needed is given back once three quarters of it have gone.
        if list.capacity() > 4 * list.len() + PLACES_MIN {
            list.shrink_to(2 * list.len());
        }
        list.get(listed_at as usize).copied()
    }

    /// The topic has new entries: its readers are to be offered them.
    ///
    /// `since` is when the turn began in which they were published; `None`: there is nothing new,
    /// but those who are behind have a gap to be told.
    pub(crate) fn spread(&mut self, number: TopicNumber, since: Option<Instant>) {
        let Some(readers) = self.of.get_mut(number.0 as usize) else { return };
        if readers.list.is_empty() {
            return;
        }
        match readers.is_spreading && !readers.is_due {
            true => readers.since_next = readers.since_next.or(since),
            false => readers.since = readers.since.or(since),
        }
        if !readers.is_spreading {
            readers.is_spreading = true;
            readers.is_due = true;
            self.spreading.push_back(number);
        }
    }

    /// Ends the rounds of a turn.
    pub(crate) fn end_rounds(&mut self) {
        self.spreading.extend(self.spreading_later.drain(..));
    }

    /// The topic whose turn it is to be offered to some of its readers.
    pub(crate) fn next_spreading(&self) -> Option<TopicNumber> {
        self.spreading.front().copied()
    }

    /// Begins a slice, and with it a round if one is due.
    pub(crate) fn begin_slice(&mut self, number: TopicNumber, log: &Log) {
        let Some(readers) = self.of.get_mut(number.0 as usize) else { return };
        if readers.is_due && !readers.list.is_empty() {
            readers.is_due = false;
            readers.is_unfinished = false;
            let since_next = readers.since_next.take();
            readers.since = readers.since.or(since_next);
            readers.next = readers.list.len();
            readers.upto = log.topic(number).last();
        }
    }

    /// The next reader of the topic to be visited; `None`: all were.
    ///
    /// Goes from the end to the beginning, so that whoever leaves meanwhile, and is replaced by the
    /// last of the list, makes nobody be passed over.
    pub(crate) fn next(&mut self, number: TopicNumber) -> Option<u32> {
        let readers = self.of.get_mut(number.0 as usize)?;
        readers.next = readers.next.min(readers.list.len()).checked_sub(1)?;
        readers.list.get(readers.next).copied()
    }

    /// A reader of the topic was stopped by its budget: there will be another round.
    pub(crate) fn note_unfinished(&mut self, number: TopicNumber) {
        if let Some(readers) = self.of.get_mut(number.0 as usize) {
            readers.is_unfinished = true;
        }
    }

    /// Ends a slice: the topic goes to the end of the queue, or out of it if all its readers were
    /// offered what it holds. Then the answer is since when the oldest of that waited.
    pub(crate) fn end_slice(&mut self, log: &mut Log, counters: &mut Counters) -> Option<Instant> {
        let number = self.spreading.pop_front()?;
        let readers = self.of.get_mut(number.0 as usize)?;
        if readers.next > 0 && !readers.list.is_empty() {
            counters.count_held(Held::TurnReaders, true);
            self.spreading.push_back(number);
            return None;
        }
        readers.is_spreading = false;
        if readers.list.is_empty() {
            (readers.since, readers.since_next) = (None, None);
            return None;
        }
        if readers.is_unfinished && readers.unfinished_rounds < UNFINISHED_ROUNDS_MAX {
            readers.unfinished_rounds += 1;
            readers.is_spreading = true;
            readers.is_due = true;
            self.spreading_later.push(number);
            return None;
        }
        readers.unfinished_rounds = 0;
        let (since, next) = (readers.since.take(), readers.since_next.take());
        log.offered(number, readers.upto);
        if log.topic(number).last() > readers.upto {
            self.spread(number, next);
        }
        since
    }
}
