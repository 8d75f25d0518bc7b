//! Memory of long messages, kept for the next ones.
//!
//! What is freed at this length goes back to the system, and comes from it page by page, emptied:
//! that costs several times what the message does. So some stay here, until none was given back
//! for a second. It is no cache of anything, but it is not emptied either, as that would take as
//! long as all else: whoever is lent it writes over what is there, and shows nothing else.

use std::sync::Arc;
use std::time::Duration;

use crate::tick::Tick;

/// What is not longer is left to the allocator, which keeps it for the next as well.
const LONG_BYTES: usize = 128 * 1024;

/// How long they stay after the last was given back.
const STAY: Duration = Duration::from_secs(1);

/// What is kept at most, all together.
const SPARE_BYTES_MAX: usize = 16 << 20;

/// See the head of this file.
#[derive(Debug)]
pub struct Spare {
    buffers: Vec<Arc<Vec<u8>>>,
    bytes: usize,
    /// When they are not worth their memory any more.
    until: Tick,
    /// The frame of a message that has just become whole, for whoever is told of that.
    whole: Option<Arc<Vec<u8>>>,
}

impl Default for Spare {
    fn default() -> Self {
        Self { buffers: Vec::new(), bytes: 0, until: Tick::NEVER, whole: None }
    }
}

impl Spare {
    /// Memory for so many bytes: one that has room for them and an eighth more at most, as only
    /// what is in it is counted; or one that has to grow. What is in it is of no meaning.
    pub(crate) fn lend(&mut self, bytes: usize) -> Arc<Vec<u8>> {
        let sizes = |most: usize| most - most / 8..=most;
        let fits = |it: &Arc<Vec<u8>>| sizes(it.capacity()).contains(&bytes);
        // The newest is the likeliest to be at hand of the processor.
        let found = self.buffers.iter().rposition(fits).filter(|_| bytes > LONG_BYTES);
        let buffer = found.map(|at| self.buffers.swap_remove(at)).unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer
    }

    /// Keeps a message that is whole until it is asked for. So the results that are handed on for
    /// every message, short ones too, stay small and simple to drop.
    pub(crate) fn put_whole(&mut self, frame: Arc<Vec<u8>>) {
        self.whole = Some(frame);
    }

    /// That message.
    pub(crate) fn take_whole(&mut self) -> Option<Arc<Vec<u8>>> {
        self.whole.take()
    }

    /// Takes what is not needed any more, and keeps it if it is worth that and nobody else has it.
    pub(crate) fn take_back(&mut self, mut buffer: Arc<Vec<u8>>, now: Tick) {
        let size = buffer.capacity();
        let is_worth = size > LONG_BYTES && self.bytes.saturating_add(size) <= SPARE_BYTES_MAX;
        if is_worth && Arc::get_mut(&mut buffer).is_some() {
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

    fn memory(bytes: usize) -> Arc<Vec<u8>> {
        Arc::new(vec![1; bytes])
    }

    #[test]
    fn what_somebody_else_has_is_not_lent() {
        let mut spare = Spare::default();
        let shared = memory(3 * LONG_BYTES);
        spare.take_back(shared.clone(), Tick(0));
        assert_eq!((spare.bytes, spare.buffers.len()), (0, 0));
        spare.take_back(shared, Tick(0));
        assert_eq!((spare.bytes, spare.buffers.len()), (3 * LONG_BYTES, 1));
    }

    #[test]
    fn what_is_lent_is_about_as_long_as_it_has_to_be() {
        let mut spare = Spare::default();
        spare.take_back(memory(3 * LONG_BYTES), Tick(0));
        assert_eq!(spare.lend(LONG_BYTES).capacity(), 0, "short ones are the allocator's");
        assert_eq!(spare.lend(3 * LONG_BYTES + 1).capacity(), 0, "too long for it");
        assert_eq!(spare.lend(5 * LONG_BYTES / 2).capacity(), 0, "an eighth of it would be over");
        let lent = spare.lend(11 * LONG_BYTES / 4);
        assert_eq!(lent.capacity(), 3 * LONG_BYTES);
        assert_eq!(spare.lend(11 * LONG_BYTES / 4).capacity(), 0, "it is lent once");
    }

    #[test]
    fn no_more_is_kept_than_it_may() {
        let mut spare = Spare::default();
        for _ in 0..100 {
            spare.take_back(memory(1 << 20), Tick(0));
            spare.take_back(memory(LONG_BYTES), Tick(0));
        }
        assert_eq!((spare.bytes, spare.buffers.len()), (SPARE_BYTES_MAX, 16));
        spare.take_back(Arc::new(Vec::with_capacity(2 * SPARE_BYTES_MAX)), Tick(0));
        for left in (0..16).rev() {
            spare.lend(1 << 20);
            assert_eq!((spare.bytes, spare.buffers.len()), (left << 20, left));
        }
    }

    #[test]
    fn what_nobody_used_for_a_second_is_given_back() {
        let mut spare = Spare::default();
        assert_eq!(spare.deadline(), Tick::NEVER);
        spare.take_back(memory(1 << 20), Tick(5));
        let due = spare.deadline();
        assert_eq!(due, Tick(5).after(STAY));
        spare.leave(Tick(due.0 - 1));
        assert_eq!(spare.bytes, 1 << 20);
        spare.leave(due);
        assert_eq!((spare.bytes, spare.buffers.len(), spare.deadline()), (0, 0, Tick::NEVER));
    }
}
