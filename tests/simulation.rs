//! THE SIMULATION: the real loop on a machine made of memory, with peers of every mood, all of it
//! from one seed. `make simulate` runs it (`docs/testing.md`); without `--cfg simulation` this file
//! is empty.
//!
//! `POUSSE_SEED=N` runs one seed and prints the end of its trace (`POUSSE_TRACE=N`: so many lines),
//! `POUSSE_SEEDS=N` so many from `POUSSE_FIRST` (or 1) on, with a thread for each core.

#![cfg(simulation)]
#![expect(clippy::unwrap_used, reason = "a test that stops is a test that tells")]
#![allow(unreachable_pub, reason = "a test has no other crate")]

#[path = "simulation/client.rs"]
mod client;
#[path = "simulation/handler.rs"]
mod handler;
#[path = "simulation/oracle.rs"]
mod oracle;
#[path = "simulation/run.rs"]
mod run;
#[path = "simulation/secret.rs"]
mod secret;
#[path = "simulation/wire.rs"]
mod wire;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use run::{Plan, Sum};

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Runs a seed that fails once more, for its trace.
fn tell(seed: u64) -> String {
    let (problem, trace) = match Plan::new(seed).run(true) {
        Err(failed) => failed,
        Ok(sum) => (format!("it holds: {sum:?}"), Vec::new()),
    };
    let lines = setting("POUSSE_TRACE").unwrap_or(200);
    let from = trace.len().saturating_sub(usize::try_from(lines).unwrap());
    let trace = trace[from..].join("\n");
    format!("{trace}\n\nseed {seed}: {problem}\nagain: make simulate SEED={seed}\n")
}

#[test]
fn every_seed_holds() {
    std::panic::set_hook(Box::new(|panic| {
        if std::thread::current().name() != Some("seeds") {
            eprintln!("{panic}");
        }
    }));
    if let Some(seed) = setting("POUSSE_SEED") {
        let told = tell(seed);
        assert!(told.contains("it holds"), "\n{told}");
        println!("{told}");
        return;
    }
    let first = setting("POUSSE_FIRST").unwrap_or(1);
    let last = first + setting("POUSSE_SEEDS").unwrap_or(200);
    let next = AtomicU64::new(first);
    let failed = Mutex::new(Vec::new());
    let total = Mutex::new(Sum::default());
    let began = Instant::now();
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= last || !failed.lock().unwrap().is_empty() {
                return;
            }
            match Plan::new(seed).run(false) {
                Ok(sum) => total.lock().unwrap().add(&sum),
                Err(_) => failed.lock().unwrap().push(seed),
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            std::thread::Builder::new().name("seeds".into()).spawn_scoped(scope, work).unwrap();
        }
    });
    let told = failed.lock().unwrap().iter().min().map(|seed| tell(*seed));
    assert!(told.is_none(), "\n{}", told.unwrap_or_default());
    println!("seeds {first} to {} in {:?}: {:?}", last - 1, began.elapsed(), total.lock().unwrap());
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 1..30 {
        let hash = || Plan::new(seed).run(false).map(|sum| sum.hash).ok();
        assert_eq!(hash(), hash(), "seed {seed}");
    }
}
