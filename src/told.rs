//! What the log is told of now and then, because a line for each time would be a flood: limits that
//! refuse nothing, and handlers that are slow.
//!
//! ```text
//! event=limit limit=turn-read held=4711        once in a minute for each limit, if it was reached
//! event=slow_handler client=3-1 ms=120 suppressed=7                            once in a second
//! ```
//!
//! Invariant: a limit that is reached is told of at once, but for one whose last line is less than
//! a minute old, which is told of when the minute is over.

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
    told: [Told; Held::COUNT],
    in_all: u64,
}

/// How often a limit had been reached when it was told of, and when it may be again.
#[derive(Debug, Default)]
struct Told {
    held: u64,
    next: Tick,
}

impl HeldLimits {
    /// When to tell what was not told yet.
    pub(crate) fn due(&self, counters: &Counters) -> Tick {
        if counters.held_in_all == self.in_all {
            return Tick::NEVER;
        }
        let limits = Held::ALL.iter().zip(&self.told);
        let news = limits.filter(|(limit, told)| counters.held(**limit) > told.held);
        news.map(|(_, told)| told.next).min().unwrap_or(Tick::NEVER)
    }

    /// Tells how often each limit was reached since its last line. What every day brings is for
    /// those who want to know everything.
    pub(crate) fn tell(&mut self, counters: &Counters, now: Tick) {
        for (limit, held) in self.news(counters, now) {
            let level = if limit.is_routine() { Level::Debug } else { Level::Info };
            log::log!(level, "event=limit limit={limit} held={held}");
        }
    }

    /// What may be told now, and is from here on.
    fn news(&mut self, counters: &Counters, now: Tick) -> impl Iterator<Item = (Held, u64)> {
        let (limits, in_all) = (Held::ALL.iter().zip(&mut self.told), &mut self.in_all);
        limits.filter_map(move |(&limit, told)| {
            let held = counters.held(limit);
            if held == told.held || now < told.next {
                return None;
            }
            let since = held - std::mem::replace(&mut told.held, held);
            *in_all += since;
            told.next = now.after(PAUSE);
            Some((limit, since))
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
    fn each_limit_is_told_of_at_once_and_then_a_minute_later_by_how_often_it_was_reached_since() {
        let (mut counters, mut limits) = (Counters::default(), HeldLimits::default());
        let reach = |counters: &mut Counters, limit, times| {
            (0..times).for_each(|_| counters.count_held(limit, true));
        };
        Held::ALL.iter().for_each(|limit| counters.count_held(*limit, false));
        assert_eq!(limits.due(&counters), Tick::NEVER, "there is nothing to tell");

        reach(&mut counters, Held::TurnRead, 3);
        assert_eq!(limits.due(&counters), Tick(0), "the first is told at once");
        assert!(limits.news(&counters, Tick(7)).eq([(Held::TurnRead, 3)]));
        assert_eq!(limits.due(&counters), Tick::NEVER);

        reach(&mut counters, Held::TurnRead, 2);
        let minute_later = Tick(7).after(PAUSE);
        assert_eq!(limits.due(&counters), minute_later, "and then in a minute");
        counters.set_held(Held::History, 5);
        assert_eq!(limits.due(&counters), Tick(0), "another does not wait for that");
        assert!(limits.news(&counters, Tick(8)).eq([(Held::History, 5)]));
        assert_eq!(limits.due(&counters), minute_later);
        assert!(limits.news(&counters, minute_later).eq([(Held::TurnRead, 2)]));
        assert_eq!(limits.due(&counters), Tick::NEVER);
    }

    #[test]
    fn every_limit_is_told_of() {
        let (mut counters, mut limits) = (Counters::default(), HeldLimits::default());
        Held::ALL.iter().for_each(|limit| counters.count_held(*limit, true));
        let all = Held::ALL.iter().map(|limit| (*limit, 1));
        assert!(limits.news(&counters, Tick(0)).eq(all));
    }
}
