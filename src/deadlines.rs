//! Who must be looked at by when: a hashed timing wheel (Varghese and Lauck, 1987).
//!
//! ```text
//!   now ──►┌───┬───┬───┬───┬───┬─ … ─┬───┐   one slot per tick, round and round;
//!          │   │a b│   │ c │   │     │   │   later than a round goes into the last slot
//!          └───┴───┴───┴───┴───┴─ … ─┴───┘   and is put back when that comes
//! ```
//!
//! Putting in costs the same for ten clients and for a million, and nothing is ever taken out: a
//! client notes for which tick it is in the wheel, and an entry for another tick is an old one. So
//! a deadline that moves away, as most do, is left where it is: it fires, someone looks, and it is
//! armed anew. That is also why the number of the client's own slot names it well enough.

use crate::tick::Tick;

/// Ticks in a round: a little over 100 seconds.
const SLOTS: u32 = 1024;

/// See the head of this file.
#[derive(Debug)]
pub struct Deadlines {
    slots: Vec<Vec<u32>>,
    /// Everything up to this tick has been taken.
    taken: Tick,
    /// No slot that is not empty comes before this tick.
    soonest: Tick,
    /// How many came, from the beginning on.
    #[cfg(simulation)]
    pub(crate) came: u64,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            slots: vec![Vec::new(); SLOTS as usize],
            taken: Tick(0),
            soonest: Tick::NEVER,
            #[cfg(simulation)]
            came: 0,
        }
    }
}

impl Deadlines {
    /// Has the client in this slot looked at when `deadline` has come; returns the tick at which
    /// it will be, which is earlier if the deadline is more than a round away.
    pub fn arm(&mut self, deadline: Tick, client: u32) -> Tick {
        let tick = deadline.max(Tick(self.taken.0 + 1)).min(Tick(self.taken.0 + SLOTS - 1));
        if let Some(slot) = self.slots.get_mut(slot_of(tick)) {
            slot.push(client);
        }
        self.soonest = self.soonest.min(tick);
        tick
    }

    /// When somebody has to be looked at.
    pub fn soonest(&self) -> Tick {
        self.soonest
    }

    /// Moves those whose tick has come to `due`.
    ///
    /// Work: a look at each slot passed by, at most a round, and at each entry taken.
    pub fn take(&mut self, now: Tick, due: &mut Vec<u32>) {
        if self.soonest > now {
            self.taken = self.taken.max(now);
            return;
        }
        let first = self.soonest.0.max(self.taken.0 + 1);
        let last = now.0.min(self.taken.0 + SLOTS);
        for tick in first..=last {
            if let Some(slot) = self.slots.get_mut(slot_of(Tick(tick))) {
                #[cfg(simulation)]
                {
                    self.came += slot.len() as u64;
                }
                // An empty slot keeps no memory, else each kept what its fullest moment took.
                due.append(&mut std::mem::take(slot));
            }
        }
        self.taken = self.taken.max(now);
        let mut ahead = self.taken.0 + 1..self.taken.0 + SLOTS;
        let is_full =
            |tick: &u32| self.slots.get(slot_of(Tick(*tick))).is_some_and(|slot| !slot.is_empty());
        self.soonest = ahead.find(is_full).map_or(Tick::NEVER, Tick);
    }
}

fn slot_of(tick: Tick) -> usize {
    (tick.0 % SLOTS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(deadlines: &mut Deadlines, now: u32) -> Vec<u32> {
        let mut due = Vec::new();
        deadlines.take(Tick(now), &mut due);
        due
    }

    #[test]
    fn each_comes_when_its_tick_has_come_and_not_before() {
        let mut deadlines = Deadlines::default();
        for (tick, index) in [(5, 1), (7, 2), (5, 3), (9, 4)] {
            assert_eq!(deadlines.arm(Tick(tick), index), Tick(tick));
        }
        assert_eq!(deadlines.soonest(), Tick(5));
        assert!(take(&mut deadlines, 4).is_empty());
        assert_eq!(take(&mut deadlines, 5), [1, 3]);
        assert_eq!(deadlines.soonest(), Tick(7));
        assert_eq!(take(&mut deadlines, 20), [2, 4]);
        assert_eq!(deadlines.soonest(), Tick::NEVER);
    }

    #[test]
    fn a_deadline_in_the_past_comes_with_the_next_tick_and_one_far_off_comes_early() {
        let mut deadlines = Deadlines::default();
        take(&mut deadlines, 100);
        assert_eq!(deadlines.arm(Tick(3), 1), Tick(101));
        assert_eq!(deadlines.arm(Tick(1_000_000), 2), Tick(100 + SLOTS - 1));
        assert_eq!(take(&mut deadlines, 101), [1]);
        assert_eq!(take(&mut deadlines, 100 + SLOTS), [2]);
    }

    #[test]
    fn after_a_long_sleep_every_slot_is_looked_at_once() {
        let mut deadlines = Deadlines::default();
        for index in 1..SLOTS {
            deadlines.arm(Tick(index), index);
        }
        assert_eq!(take(&mut deadlines, 50_000).len(), SLOTS as usize - 1);
        assert_eq!(deadlines.arm(Tick(50_001), 1), Tick(50_001));
        assert_eq!(take(&mut deadlines, 50_001), [1]);
    }
}
