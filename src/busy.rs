//! Who is to be read, in this turn or the next: those whose last visit was quick go first.
//!
//! Nothing else keeps somebody with a short question from waiting until each of a hundred who cost
//! milliseconds has had a turn. Those are not forgotten for it: one of them at least is visited in
//! every turn, the first that came.

use std::collections::VecDeque;

use crate::id::ConnId;

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    quick: VecDeque<ConnId>,
    slow: VecDeque<ConnId>,
    /// How many of each this turn is for: those who were here when it began.
    left: (usize, usize),
    /// One of the slow was visited in this turn.
    has_slow: bool,
}

/// Places that are never given back.
const PLACES_MIN: usize = 4096;

impl Busy {
    /// Somebody is to be read.
    pub(crate) fn push(&mut self, id: ConnId, is_slow: bool) {
        match is_slow {
            true => self.slow.push_back(id),
            false => self.quick.push_back(id),
        }
    }

    /// How many are.
    #[cfg(simulation)]
    pub(crate) fn len(&self) -> usize {
        self.quick.len() + self.slow.len()
    }

    /// Whether nobody is.
    pub(crate) fn is_empty(&self) -> bool {
        self.quick.is_empty() && self.slow.is_empty()
    }

    /// Begins a turn, which is for those who are here now.
    pub(crate) fn begin(&mut self) {
        // What a crowd needed is given back once most of it has had its turn.
        for list in [&mut self.quick, &mut self.slow] {
            if list.capacity() > 4 * list.len() + PLACES_MIN {
                list.shrink_to(2 * list.len());
            }
        }
        self.left = (self.quick.len(), self.slow.len());
        self.has_slow = false;
    }

    /// The next to be read in this turn; those who are not reached in time go first in the next.
    pub(crate) fn next(&mut self, is_late: bool) -> Option<ConnId> {
        let (quick, slow) = &mut self.left;
        if *quick > 0 && !is_late {
            *quick -= 1;
            return self.quick.pop_front();
        }
        if *slow > 0 && !(is_late && self.has_slow) {
            *slow -= 1;
            self.has_slow = true;
            return self.slow.pop_front();
        }
        None
    }

    /// Whether somebody was not reached for whom this turn was.
    pub(crate) fn is_cut(&self) -> bool {
        self.left != (0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visited(busy: &mut Busy, late_after: usize) -> Vec<u32> {
        busy.begin();
        let mut ids = Vec::new();
        while let Some(id) = busy.next(ids.len() >= late_after) {
            ids.push(id.index());
        }
        ids
    }

    #[test]
    fn the_quick_go_first_and_one_of_the_slow_has_its_turn_however_late_it_is() {
        let mut busy = Busy::default();
        let id = |index| ConnId::new(index, 1);
        for slow in [1, 2, 3] {
            busy.push(id(slow), true);
        }
        busy.push(id(10), false);
        busy.push(id(11), false);
        assert_eq!(visited(&mut busy, 1), [10, 1]);
        busy.push(id(1), true);
        assert_eq!(visited(&mut busy, 9), [11, 2, 3, 1]);
        assert!(busy.is_empty() && visited(&mut busy, 9).is_empty());
    }

    #[test]
    fn who_comes_in_a_turn_is_visited_in_the_next() {
        let mut busy = Busy::default();
        busy.push(ConnId::new(1, 1), false);
        busy.begin();
        assert!(busy.next(false).is_some());
        busy.push(ConnId::new(1, 1), false);
        busy.push(ConnId::new(2, 1), true);
        assert!(busy.next(false).is_none());
        assert_eq!(visited(&mut busy, 9), [1, 2]);
    }
}
