//! Memory of long messages, kept for the next ones.
//!
//! What is freed at this length goes back to the system, and comes from it page by page, emptied:
//! that costs several times what the message does. So a few stay here, until none was given back
//! for a second. It is no cache of anything: what is lent is empty.

use std::time::Duration;

use crate::tick::Tick;

/// What is not longer is left to the allocator, which keeps it for the next as well.
const LONG_BYTES: usize = 128 * 1024;

/// How long they stay after the last was given back.
const STAY: Duration = Duration::from_secs(1);

/// What is kept at most, all together.
const SPARE_BYTES_MAX: usize = 4 << 20;

/// See the head of this file.
#[derive(Debug)]
pub struct Spare {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
    /// When they are not worth their memory any more.
    until: Tick,
}

impl Default for Spare {
    fn default() -> Self {
        Self { buffers: Vec::new(), bytes: 0, until: Tick::NEVER }
    }
}

impl Spare {
    /// An empty buffer for so many bytes: one that has room for them and an eighth more at most, as
    /// only what is in it is counted; or one that has to grow.
    pub(crate) fn lend(&mut self, bytes: usize) -> Vec<u8> {
        let sizes = |most: usize| most - most / 8..=most;
        let fits = |it: &Vec<u8>| sizes(it.capacity()).contains(&bytes);
        // The newest is the likeliest to be at hand of the processor.
        let found = self.buffers.iter().rposition(fits).filter(|_| bytes > LONG_BYTES);
        let buffer = found.map(|at| self.buffers.swap_remove(at)).unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer
    }

    /// Takes what is not needed any more, and keeps it if it is worth that.
    pub(crate) fn take_back(&mut self, mut buffer: Vec<u8>, now: Tick) {
        let size = buffer.capacity();
        if size > LONG_BYTES && self.bytes.saturating_add(size) <= SPARE_BYTES_MAX {
            buffer.clear();
            self.bytes += size;
            self.buffers.push(buffer);
            self.until = now.after(STAY);
        }
    }

    /// When [`leave`](Self::leave) has something to do.
    pub(crate) fn deadline(&self) -> Tick {
        self.until
    }

    /// Gives everything back that has not been used for long.
    pub(crate) fn leave(&mut self, now: Tick) {
        if self.until <= now {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lent_is_empty_and_about_as_long_as_it_has_to_be() {
        let mut spare = Spare::default();
        spare.take_back(vec![1; 3 * LONG_BYTES], Tick(0));
        assert_eq!(spare.lend(LONG_BYTES).capacity(), 0, "short ones are the allocator's");
        assert_eq!(spare.lend(3 * LONG_BYTES + 1).capacity(), 0, "too long for it");
        assert_eq!(spare.lend(5 * LONG_BYTES / 2).capacity(), 0, "an eighth of it would be over");
        let lent = spare.lend(11 * LONG_BYTES / 4);
        assert_eq!((lent.len(), lent.capacity()), (0, 3 * LONG_BYTES));
        assert_eq!(spare.lend(11 * LONG_BYTES / 4).capacity(), 0, "it is lent once");
    }

    #[test]
    fn no_more_is_kept_than_it_may() {
        let mut spare = Spare::default();
        for _ in 0..100 {
            spare.take_back(vec![1; 1 << 20], Tick(0));
            spare.take_back(vec![1; LONG_BYTES], Tick(0));
        }
        assert_eq!((spare.bytes, spare.buffers.len()), (SPARE_BYTES_MAX, 4));
        spare.take_back(Vec::with_capacity(2 * SPARE_BYTES_MAX), Tick(0));
        for left in (0..4).rev() {
            spare.lend(1 << 20);
            assert_eq!((spare.bytes, spare.buffers.len()), (left << 20, left));
        }
    }

    #[test]
    fn what_nobody_used_for_a_second_is_given_back() {
        let mut spare = Spare::default();
        assert_eq!(spare.deadline(), Tick::NEVER);
        spare.take_back(vec![1; 1 << 20], Tick(5));
        let due = spare.deadline();
        assert_eq!(due, Tick(5).after(STAY));
        spare.leave(Tick(due.0 - 1));
        assert_eq!(spare.bytes, 1 << 20);
        spare.leave(due);
        assert_eq!((spare.bytes, spare.buffers.len(), spare.deadline()), (0, 0, Tick::NEVER));
    }
}
