//! A leaky bucket: how much of something a peer may do at once, and how soon it may again.
//!
//! Each doing adds to it, each tick takes some away. It holds two numbers and knows no clock.

use crate::tick::Tick;

/// A full bucket is empty again after so many ticks: 5 seconds.
const EMPTY_AFTER_TICKS: u32 = 50;

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    /// `EMPTY_AFTER_TICKS` for each doing, less the limit for each tick.
    level: u32,
    at: Tick,
}

impl Bucket {
    /// Counts one; false if that is more than `limit` at once, of which as many are free again
    /// after 5 seconds.
    pub(crate) fn take(&mut self, limit: usize, now: Tick) -> bool {
        self.level = self.level_with_one_more(limit, now);
        self.at = now;
        self.level <= full(limit)
    }

    /// Whether one more would be taken.
    pub(crate) fn has_room(&self, limit: usize, now: Tick) -> bool {
        self.level_with_one_more(limit, now) <= full(limit)
    }

    /// Whether nothing is left of what was done.
    pub(crate) fn is_empty(&self, limit: usize, now: Tick) -> bool {
        self.level_at(limit, now) == 0
    }

    fn level_with_one_more(&self, limit: usize, now: Tick) -> u32 {
        self.level_at(limit, now).saturating_add(EMPTY_AFTER_TICKS)
    }

    fn level_at(&self, limit: usize, now: Tick) -> u32 {
        let passed = now.0.saturating_sub(self.at.0);
        self.level.saturating_sub(passed.saturating_mul(fit(limit)))
    }
}

/// What a bucket holds. One of over 80 million is never full.
fn full(limit: usize) -> u32 {
    fit(limit).saturating_mul(EMPTY_AFTER_TICKS)
}

fn fit(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_as_many_again_after_five_seconds() {
        let mut bucket = Bucket::default();
        let mut taken = |at, times: usize| (0..times).filter(|_| bucket.take(10, Tick(at))).count();
        assert_eq!(taken(0, 10), 10);
        assert!(!Bucket::default().take(0, Tick(9)));
        assert_eq!(taken(5, 1), 1, "a tenth of the time, a tenth of the limit");
        assert_eq!(taken(55, 11), 10);
        let mut wide = Bucket { level: u32::MAX - 1, at: Tick(9) };
        assert!(wide.take(usize::MAX, Tick(9)) && wide.has_room(usize::MAX, Tick(9)));
    }
}
