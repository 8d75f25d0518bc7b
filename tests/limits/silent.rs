//! Which limits are not heard of, for those tests that look for the words of all others.

/// Limits that end nothing and refuse nothing: they shorten, share out, drop the oldest, or make
/// somebody wait. All others are words of a `Reason`.
pub(crate) const SILENT: &[&str] = &[
    "history",
    "history-bytes",
    "history-age",
    "history-total",
    "wait-max",
    "poll-bytes",
    "ping",
    "outbox-soft",
    "unsent",
    "turn-read",
    "turn-messages",
    "turn-write",
    "turn-accept",
    "turn-handshakes",
    "turn-readers",
    "turn-time",
    "slow-handler",
];
