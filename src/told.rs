//! What the log is told of now and then, because a line for each time would be a flood: limits that
//! refuse nothing, and handlers that are slow.
//!
//! ```text
//! event=limit limit=turn-read held=4711        once in a minute for each limit, if it was reached
//! event=slow_handler client=3-1 ms=120 suppressed=7                            once in a second
//! ```
//!
//! Invariant: what is reached is told at once, but for what was reached less than a minute after
//! the last lines, which is told when the minute is over.

use std::time::{Duration, Instant};

use log::Level;

use crate::id::ConnId;
use crate::metrics::{Counters, Held};
use crate::tick::Tick;

/// Between two lines of one limit.
const PAUSE: Duration = Duration::from_secs(60);

/// Between two lines of slow handlers.
const SLOW_PAUSE: Duration = Duration::from_secs(1);

/// How much of [`Held`] was told.
#[derive(Debug, Default)]
pub(crate) struct HeldLimits {
    told: [u64; Held::COUNT],
    in_all: u64,
    /// Nothing is told before.
    next: Tick,
}

impl HeldLimits {
    /// When to tell what was not told yet.
    pub(crate) fn due(&self, counters: &Counters) -> Tick {
        if counters.held_in_all == self.in_all { Tick::NEVER } else { self.next }
    }

    /// Tells how often each limit was reached since the last time. What every day brings is for
    /// those who want to know everything.
    pub(crate) fn tell(&mut self, counters: &Counters, now: Tick) {
        for (limit, held) in self.news(counters) {
            let level = if limit.is_routine() { Level::Debug } else { Level::Info };
            log::log!(level, "event=limit limit={limit} held={held}");
        }
        self.in_all = counters.held_in_all;
        self.next = now.after(PAUSE);
    }

    fn news(&mut self, counters: &Counters) -> impl Iterator<Item = (Held, u64)> {
        let limits = Held::ALL.iter().zip(&mut self.told);
        limits.filter_map(|(&limit, told)| {
            let held = counters.held(limit);
            let before = std::mem::replace(told, held);
            (held > before).then_some((limit, held - before))
        })
    }
}

/// When the last one was told of, and how many were not since.
#[derive(Debug, Default)]
pub(crate) struct SlowHandlers {
    told: Option<Instant>,
    untold: u64,
}

impl SlowHandlers {
    /// One took from `since` until `now`, for this client if it was for one.
    pub(crate) fn tell(&mut self, client: Option<ConnId>, since: Instant, now: Instant) {
        if self.told.is_some_and(|told| now - told < SLOW_PAUSE) {
            self.untold += 1;
            return;
        }
        self.told = Some(now);
        let suppressed = std::mem::take(&mut self.untold);
        let client = client.map_or("-".into(), |id| id.to_string());
        let ms = (now - since).as_millis();
        log::warn!("event=slow_handler client={client} ms={ms} suppressed={suppressed}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_told_of_by_how_often_it_was_reached_since_the_last_time() {
        let (mut counters, mut limits) = (Counters::default(), HeldLimits::default());
        Held::ALL.iter().for_each(|limit| counters.count_held(*limit, false));
        assert_eq!(limits.due(&counters), Tick::NEVER, "there is nothing to tell");
        for limit in Held::ALL.iter().flat_map(|limit| [limit; 3]) {
            counters.count_held(*limit, true);
        }
        assert_eq!(limits.due(&counters), Tick(0), "the first is told at once");
        let all: Vec<(Held, u64)> = Held::ALL.iter().map(|limit| (*limit, 3)).collect();
        assert!(limits.news(&counters).eq(all));
        limits.tell(&counters, Tick(7));
        assert_eq!(limits.due(&counters), Tick::NEVER);
        counters.count_held(Held::TurnRead, true);
        counters.set_held(Held::History, 5);
        assert_eq!(limits.due(&counters), Tick(7).after(PAUSE), "and then in a minute");
        assert!(limits.news(&counters).eq([(Held::History, 2), (Held::TurnRead, 1)]));
    }
}
