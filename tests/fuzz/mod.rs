//! What is fuzzed, and what each target promises: a file a target, its promise at its head.
//!
//! A target is a function over bytes that panics if the promise is broken. `bins/` makes programs
//! of libFuzzer of them, `tests/fuzz.rs` plays the seeds and what was found before to them.

pub mod answers;
pub mod commands;
pub mod connection;
pub mod cuts;
pub mod event_stream;
pub mod forwarded;
pub mod heads;
pub mod ids;
pub mod inflate;
pub mod input;
pub mod negotiation;
pub mod offers;
pub mod oracle;
pub mod origins;
pub mod paths;
pub mod policy;
pub mod query;
pub mod reference;
pub mod settings;

/// Plays one input; panics if the promise is broken.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: &[(&str, Target)] = &[
    ("commands", commands::run),
    ("connection", connection::run),
    ("cuts", cuts::run),
    ("event_stream", event_stream::run),
    ("forwarded", forwarded::run),
    ("heads", heads::run),
    ("ids", ids::run),
    ("inflate", inflate::run),
    ("negotiation", negotiation::run),
    ("offers", offers::run),
    ("oracle", oracle::run),
    ("origins", origins::run),
    ("paths", paths::run),
    ("query", query::run),
    ("settings", settings::run),
];
