//! Peers who mean harm, against the real program in a process of its own.
//!
//! After each attack the same questions are asked (`hostile/target.rs`): the process lives and has
//! not panicked, an innocent client is served by every transport, descriptors and memory are what
//! they were before; and during a flood an innocent client's pings are answered within half a
//! second, 99 of 100 within 50 ms (`hostile/bystander.rs`). What a test itself asserts is what only
//! its attack shows. `docs/security.md` is the list of threats, with the test of each.
//!
//! Single refusals, one by one and readable, are scripts: `http_framing_refused`,
//! `http_heads_refused`, `http_targets`, `http_host`, `http_origin`, `ws_violations`,
//! `ws_opening_refused` … in `tests/scripts/`. The edges of each limit are `tests/limits.rs`,
//! readers that are slow `tests/slow_reader.rs`, the loop's fairness from inside
//! `tests/fairness.rs`, what TLS has to hold `tests/tls.rs`.

#![cfg(all(feature = "daemon", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test that stops is a test that tells"
)]

#[path = "hostile/bystander.rs"]
mod bystander;
#[path = "hostile/crowds.rs"]
mod crowds;
#[cfg(feature = "deflate")]
#[path = "hostile/deflate.rs"]
mod deflate;
#[path = "hostile/descriptors.rs"]
mod descriptors;
#[path = "hostile/endings.rs"]
mod endings;
#[path = "hostile/files.rs"]
mod files;
#[path = "hostile/frames.rs"]
mod frames;
#[path = "hostile/heads.rs"]
mod heads;
#[path = "hostile/injection.rs"]
mod injection;
#[path = "hostile/memory.rs"]
mod memory;
#[path = "hostile/origins.rs"]
mod origins;
#[path = "hostile/peer.rs"]
mod peer;
#[path = "hostile/readers.rs"]
mod readers;
#[path = "hostile/session.rs"]
mod session;
#[path = "hostile/signals.rs"]
mod signals;
#[path = "limits/silent.rs"]
mod silent;
#[path = "hostile/smuggling.rs"]
mod smuggling;
use kit::support;
#[path = "hostile/target.rs"]
mod target;
#[cfg(feature = "tls")]
#[path = "hostile/tls.rs"]
mod tls;
#[path = "hostile/words.rs"]
mod words;
