//! Leaving one transport and going on with another: nothing is lost, nothing comes twice, and what
//! is no longer held is told to be a gap.
//!
//! The server is turned by the test's own thread, so a seed decides everything: `history.rs` plays
//! many of them (`POUSSE_SEEDS=5000` for more, `POUSSE_SEED=17` for one) against a plain list of
//! all that was ever published (`world.rs`); whoever reads checks every entry against it
//! (`person.rs`). What each transport has to say is written out in `streams.rs`; `edges.rs` tries
//! what somebody would who means harm.

#![cfg(feature = "v1")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that stops is a test that tells"
)]

#[path = "resume/desk.rs"]
mod desk;
#[path = "resume/edges.rs"]
mod edges;
#[path = "resume/history.rs"]
mod history;
#[path = "resume/person.rs"]
mod person;
#[path = "resume/streams.rs"]
mod streams;
#[path = "resume/wire.rs"]
mod wire;
#[path = "resume/world.rs"]
mod world;
