//! Time as the state machines see it: tenths of a second since the server started.
//!
//! A tick fits in four bytes, so a client can hold several deadlines and stay small. Only the loop
//! reads the clock; everyone else is handed the tick of the turn. Deadlines are rounded up: they
//! never come early, and at most two ticks late. The count ends after 13 years of one run.

use std::time::Duration;

/// A moment, or a deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u32);

impl Tick {
    /// Later than any moment.
    pub const NEVER: Tick = Tick(u32::MAX);

    /// How long a tick lasts.
    pub const LENGTH: Duration = Duration::from_millis(100);

    /// The tick that a server which started `elapsed` ago is in.
    pub fn at(elapsed: Duration) -> Self {
        Self::clamp(elapsed.as_millis() / Self::LENGTH.as_millis())
    }

    /// The first tick at which `wait` is surely over.
    pub fn after(self, wait: Duration) -> Self {
        // The present tick may have only just begun or be nearly over: hence one more.
        let ticks = wait.as_millis().div_ceil(Self::LENGTH.as_millis()) + 1;
        Self::clamp(u128::from(self.0) + ticks)
    }

    /// Time from the start of the server to this tick.
    pub fn since_start(self) -> Duration {
        Self::LENGTH * self.0
    }

    fn clamp(ticks: u128) -> Self {
        // One below `NEVER`: a deadline in the far future still is one.
        Self(u32::try_from(ticks).unwrap_or(u32::MAX).min(u32::MAX - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_never_comes_early() {
        let just_before_the_next_tick = Duration::from_millis(199);
        let deadline = Tick::at(just_before_the_next_tick).after(Duration::from_secs(1));
        assert!(deadline.since_start() >= just_before_the_next_tick + Duration::from_secs(1));
        assert!(Tick(5).after(Duration::MAX) < Tick::NEVER);
    }
}
