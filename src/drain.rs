//! How an ending server lets its clients go: who has still to be told, and when.
//!
//! Whoever is told to leave comes back at once, here to the next server or there to another. So
//! they are told evenly over the first four fifths of the limit `drain`, a share in each tick, and
//! the last fifth is left for their answers. A handful is told at once: at least [`AT_ONCE`] leave
//! in a tick. It is counted from the beginning, not from share to share, so a turn that comes late
//! catches up, and all are told in time.

use std::time::Duration;

use crate::id::ConnId;
use crate::tick::Tick;

/// So many are no wave.
pub(crate) const AT_ONCE: usize = 10;

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Drain {
    /// Those who have not been told, the next one last.
    waiting: Vec<ConnId>,
    all: usize,
    /// In how many shares, one a tick.
    shares: usize,
    began: Tick,
    /// When the next share is due.
    next: Tick,
    /// The server has ended by then.
    until: Tick,
}

impl Drain {
    /// `clients` are told in their order; all of it is over at `limit`.
    pub(crate) fn new(mut clients: Vec<ConnId>, began: Tick, limit: Duration) -> Self {
        clients.reverse();
        let ticks = spread_over(limit).as_millis() / Tick::LENGTH.as_millis();
        Self {
            all: clients.len(),
            waiting: clients,
            shares: usize::try_from(ticks).unwrap_or(usize::MAX).max(1),
            began,
            next: began,
            until: if limit.is_zero() { began } else { began.after(limit) },
        }
    }

    /// Those who are to be told by now.
    ///
    /// Work: a share, and those that were missed.
    pub(crate) fn take(&mut self, now: Tick) -> Vec<ConnId> {
        if now < self.next {
            return Vec::new();
        }
        let past = (now.0 - self.began.0) as usize + 1;
        let even = (self.all as u128 * past as u128).div_ceil(self.shares as u128);
        let even = usize::try_from(even).unwrap_or(usize::MAX);
        let told = even.max(AT_ONCE.saturating_mul(past)).min(self.all);
        let left = (self.all - told).min(self.waiting.len());
        self.next = if left == 0 { Tick::NEVER } else { now.after(Duration::ZERO) };
        let mut due = self.waiting.split_off(left);
        due.reverse();
        due
    }

    /// When there is something to do: the next share, at last the end.
    pub(crate) fn deadline(&self) -> Tick {
        self.next.min(self.until)
    }

    /// Whether those who are still here have had their time.
    pub(crate) fn is_over(&self, now: Tick) -> bool {
        self.until <= now
    }
}

/// The time in which all are told.
pub(crate) fn spread_over(limit: Duration) -> Duration {
    limit / 5 * 4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(count: u32) -> Vec<ConnId> {
        (0..count).map(|index| ConnId::new(index, 1)).collect()
    }

    fn drain(count: u32, limit: Duration) -> Drain {
        Drain::new(clients(count), Tick(100), limit)
    }

    /// How many are told in each tick, and whether that is in order.
    fn told(drain: &mut Drain) -> Vec<usize> {
        let (mut counts, mut all) = (Vec::new(), Vec::new());
        while drain.next != Tick::NEVER {
            let due = drain.take(drain.next);
            counts.push(due.len());
            all.extend(due);
        }
        assert_eq!(all, clients(u32::try_from(all.len()).unwrap()), "each once, in their order");
        counts
    }

    #[test]
    fn a_handful_is_told_at_once() {
        let mut few = drain(10, Duration::from_secs(10));
        assert_eq!(few.take(Tick(100)), clients(10));
        assert_eq!(few.deadline(), Tick(201), "then there is only the end to wait for");
        assert!(!few.is_over(Tick(200)) && few.is_over(Tick(201)));
        assert!(drain(0, Duration::from_secs(10)).take(Tick(100)).is_empty());
    }

    #[test]
    fn many_are_told_evenly_over_four_fifths_of_the_limit() {
        let counts = told(&mut drain(10_000, Duration::from_secs(10)));
        assert_eq!(counts, [125; 80]);
        let counts = told(&mut drain(1_001, Duration::from_secs(2)));
        assert_eq!((counts.len(), counts.iter().sum()), (16, 1_001));
        assert!(counts.iter().all(|count| (62..=63).contains(count)), "{counts:?}");
        assert_eq!(told(&mut drain(35, Duration::from_secs(3600))), [10, 10, 10, 5]);
    }

    #[test]
    fn a_turn_that_comes_late_catches_up_and_one_in_between_tells_nobody() {
        let mut drain = drain(1_000, Duration::from_secs(10));
        assert_eq!(drain.take(Tick(100)).len(), 13);
        assert_eq!(drain.deadline(), Tick(101));
        assert!(drain.take(Tick(100)).is_empty());
        assert_eq!(drain.take(Tick(139)).len(), 500 - 13);
        assert_eq!(drain.take(Tick(10_000)).len(), 500);
        assert!(drain.is_over(Tick(10_000)));
    }

    #[test]
    fn without_time_all_are_told_at_once_and_it_is_over() {
        let mut drain = drain(1_000, Duration::ZERO);
        assert_eq!(drain.take(Tick(100)).len(), 1_000);
        assert!(drain.is_over(Tick(100)));
    }

    #[test]
    fn the_longest_limit_does_not_overflow() {
        let mut drain = drain(1_000, Duration::from_secs(36_525 * 86_400));
        assert_eq!(drain.take(Tick(100)).len(), AT_ONCE);
        assert_eq!(drain.take(Tick(u32::MAX - 1)).len(), 990);
    }
}
