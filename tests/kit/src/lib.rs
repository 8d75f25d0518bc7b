//! What several test programs use: a package of its own, of which each takes what it needs.
//!
//! [`common`] has a server in a thread of the test, [`support`] the real program in a process of
//! its own; both have peers that know of HTTP and WebSocket what the RFCs say, and no more.
//!
//! What only one test program uses stands beside it.

// The simulation has no sockets, and takes nothing from here.
#![cfg(not(simulation))]

pub mod common;
pub mod lines;
pub mod support;

use std::ffi::OsString;
use std::path::PathBuf;

/// The folder of the profile that this test was built in: `target/debug`.
fn built() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    let folder = test.ancestors().nth(2).expect("cargo puts tests into a folder, deps");
    folder.to_owned()
}

/// The program that cargo has built with this test, or the one that `POUSSE_TEST_PROGRAM` names:
/// `make check` tries that of `make small`, which cargo would not build for a test.
pub fn program() -> OsString {
    if let Some(named) = std::env::var_os("POUSSE_TEST_PROGRAM") {
        return named;
    }
    // Older ones say it when they build a test, and not when they run it.
    let said = std::env::var_os("CARGO_BIN_EXE_pousse");
    said.unwrap_or_else(|| built().join("pousse").into_os_string())
}

/// A folder for files of tests, as `CARGO_TARGET_TMPDIR` is.
pub fn folder() -> PathBuf {
    let folder = built().parent().expect("it is in a folder, target").join("tmp");
    std::fs::create_dir_all(&folder).expect("cargo makes it too");
    folder
}
