//! Who is to be read, in this turn or the next: those with a short question go first.
//!
//! What a visit costs is known only when it is over, so nobody may make one cost much before those
//! who ask little have been heard. There are three lists:
//!
//! 1. Whoever is not known to want more. They are visited before all others and briefly:
//!    [`SHORT_BYTES`] and one request, and what that leaves is for later.
//! 2. Whoever says much: had more to say than a brief visit takes, not [`MUCH_TIME`] ago, or holds
//!    a part of a message that is as long, for a last byte can cost as much as all before it.
//! 3. Whoever takes long: shakes hands over TLS, for a signature takes milliseconds; or took long,
//!    not [`MUCH_TIME`] ago, in some brief visits in a row or in one that was not brief.
//!
//! The second and third are not forgotten for the first: one of each at least is visited in every
//! turn, the first that came, and as long as `turn-time` lasts the others too. Which list a client
//! belongs to is looked at when a turn begins (`Client::pace`).

use std::collections::VecDeque;
use std::time::Duration;

use crate::id::ConnId;

/// What is known of a client: which of the three lists it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    Brief,
    Much,
    Long,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    /// Those who came since the turn began, whose pace has not been asked for yet.
    come: VecDeque<ConnId>,
    brief: List,
    much: List,
    long: List,
}

#[derive(Debug, Default)]
struct List {
    ids: VecDeque<ConnId>,
    /// How many of them this turn is for: those who were here when it began, and are not visited.
    left: usize,
    /// One of them was visited in this turn.
    has_begun: bool,
}

/// A client that may be visited, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    pub(crate) id: ConnId,
    /// Others wait who may ask less.
    pub(crate) is_brief: bool,
}

impl Next {
    /// How much may be read, of so many bytes.
    pub(crate) fn bytes(self, most: usize) -> usize {
        if self.is_brief { most.min(SHORT_BYTES) } else { most }
    }

    /// How many requests may be looked at, of so many.
    pub(crate) fn requests(self, most: u8) -> u8 {
        if self.is_brief { most.min(1) } else { most }
    }
}

/// What a ping, a subscription or a request with its fields fits into. So many bytes cost 50 µs, if
/// they are compressed by somebody who wants it so: a crowd of a thousand makes 50 ms of it.
pub(crate) const SHORT_BYTES: usize = 2048;

/// For so long it is known of somebody. A crowd who all say much at the same moment are heard
/// briefly once, before that is known of them; more than once in this time they cannot do it.
pub(crate) const MUCH_TIME: Duration = Duration::from_secs(10);

/// Places that are never given back.
const PLACES_MIN: usize = 4096;

impl Busy {
    /// Somebody is to be read.
    pub(crate) fn push(&mut self, id: ConnId) {
        self.come.push_back(id);
    }

    /// How many are.
    #[cfg(simulation)]
    pub(crate) fn len(&self) -> usize {
        let lists = [&self.brief, &self.much, &self.long];
        self.come.len() + lists.map(|list| list.ids.len()).iter().sum::<usize>()
    }

    /// Whether nobody is.
    pub(crate) fn is_empty(&self) -> bool {
        let mut lists = [&self.brief, &self.much, &self.long].into_iter();
        self.come.is_empty() && lists.all(|list| list.ids.is_empty())
    }

    /// Begins a turn, which is for those who are here now.
    pub(crate) fn begin(&mut self, pace: impl Fn(ConnId) -> Pace) {
        for id in self.come.drain(..) {
            let list = match pace(id) {
                Pace::Brief => &mut self.brief,
                Pace::Much => &mut self.much,
                Pace::Long => &mut self.long,
            };
            list.ids.push_back(id);
        }
        give_back(&mut self.come);
        for list in [&mut self.brief, &mut self.much, &mut self.long] {
            give_back(&mut list.ids);
            (list.left, list.has_begun) = (list.ids.len(), false);
        }
    }

    /// The next to be read in this turn; those who are not reached in time go first in the next.
    /// Whoever is no longer here, as `is_here` tells, has no turn.
    pub(crate) fn next(&mut self, is_late: bool, is_here: impl Fn(ConnId) -> bool) -> Option<Next> {
        let brief = if is_late { None } else { self.brief.pop(&is_here) };
        if let Some(id) = brief {
            return Some(Next { id, is_brief: true });
        }
        let mut others = [&mut self.much, &mut self.long].into_iter();
        let id = others.find_map(|list| match is_late && list.has_begun {
            true => None,
            false => list.pop(&is_here),
        });
        id.map(|id| Next { id, is_brief: false })
    }

    /// Whether somebody was not reached for whom this turn was.
    pub(crate) fn is_cut(&self) -> bool {
        [&self.brief, &self.much, &self.long].iter().any(|list| list.left > 0)
    }
}

impl List {
    fn pop(&mut self, is_here: impl Fn(ConnId) -> bool) -> Option<ConnId> {
        while self.left > 0 {
            self.left -= 1;
            let id = self.ids.pop_front().filter(|id| is_here(*id));
            if id.is_some() {
                self.has_begun = true;
                return id;
            }
        }
        None
    }
}

/// What a crowd needed is given back once most of it has had its turn.
fn give_back(ids: &mut VecDeque<ConnId>) {
    if ids.capacity() > 4 * ids.len() + PLACES_MIN {
        ids.shrink_to(2 * ids.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From 1 on they take long, from 10 on they say much, from 20 on they are brief.
    fn pace(id: ConnId) -> Pace {
        match id.index() {
            ..10 => Pace::Long,
            10..20 => Pace::Much,
            _ => Pace::Brief,
        }
    }

    fn visited(busy: &mut Busy, late_after: usize) -> Vec<u32> {
        busy.begin(pace);
        let mut ids = Vec::new();
        while let Some(next) = busy.next(ids.len() >= late_after, |id| id.generation() == 1) {
            assert_eq!(next.is_brief, pace(next.id) == Pace::Brief);
            ids.push(next.id.index());
        }
        ids
    }

    fn push(busy: &mut Busy, ids: &[u32]) {
        ids.iter().for_each(|index| busy.push(ConnId::new(*index, 1)));
    }

    #[test]
    fn the_brief_go_first_and_one_of_each_of_the_others_has_its_turn_however_late_it_is() {
        let mut busy = Busy::default();
        push(&mut busy, &[1, 2, 3, 10, 11, 20, 21]);
        assert_eq!(visited(&mut busy, 1), [20, 10, 1]);
        assert!(busy.is_cut());
        push(&mut busy, &[1]);
        assert_eq!(visited(&mut busy, 9), [21, 11, 2, 3, 1]);
        assert!(!busy.is_cut() && busy.is_empty() && visited(&mut busy, 9).is_empty());
    }

    #[test]
    fn who_has_gone_takes_nobodys_turn() {
        let mut busy = Busy::default();
        (1..1000).for_each(|index| busy.push(ConnId::new(index % 20, 2)));
        push(&mut busy, &[1, 10]);
        assert_eq!(visited(&mut busy, 0), [10, 1], "however late it is");
        assert!(busy.is_empty());
    }

    #[test]
    fn who_comes_in_a_turn_is_visited_in_the_next_as_what_it_is_then() {
        let mut busy = Busy::default();
        push(&mut busy, &[20]);
        busy.begin(pace);
        assert!(busy.next(false, |_| true).is_some());
        push(&mut busy, &[1, 20, 10]);
        assert!(busy.next(false, |_| true).is_none() && !busy.is_empty());
        assert_eq!(visited(&mut busy, 9), [20, 10, 1]);
    }

    #[test]
    fn a_brief_visit_is_for_few_bytes_and_one_request() {
        let brief = Next { id: ConnId::new(1, 1), is_brief: true };
        assert_eq!((brief.bytes(100_000), brief.bytes(100)), (SHORT_BYTES, 100));
        assert_eq!((brief.requests(16), brief.requests(0)), (1, 0));
        let other = Next { is_brief: false, ..brief };
        assert_eq!((other.bytes(100_000), other.requests(16)), (100_000, 16));
    }
}
