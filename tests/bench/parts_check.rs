//! Instructions of the parts (`parts.rs`) by callgrind, and whether they are more than those that
//! were recorded.
//!
//! Each part is run twice, so many times and three times as many: the difference is what it costs,
//! without what comes before it. That repeats to the instruction, but for hash tables, whose seed
//! is chosen anew; another compiler makes other code, so it is compared with the same one only.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::costs::{is_missing, total_of};
use crate::servers::{built, root};
use crate::{machine, write};

/// What is more than this share above the record is a failure.
const REGRESSION: f64 = 0.02;

fn recorded() -> PathBuf {
    root().join("tests/bench/instructions.txt")
}

fn rustc() -> String {
    let output = Command::new("rustc").arg("--version").output();
    output.map_or_else(|_| "?".into(), |it| String::from_utf8_lossy(&it.stdout).trim().to_owned())
}

/// The parts and the instructions of one time of each, in the order of `parts.rs`.
fn measure() -> Option<Vec<(String, f64)>> {
    if is_missing("valgrind") {
        return None;
    }
    let list = Command::new(built("parts")).output().expect("parts");
    let list = String::from_utf8(list.stdout).expect("a list");
    let mut parts = Vec::new();
    for line in list.lines() {
        let Some((name, times)) = line.split_once(' ') else { continue };
        let times: u32 = times.parse().expect("a number");
        let few = count(name, times);
        let many = count(name, times * 3);
        parts.push((name.to_owned(), (many - few) / f64::from(times * 2)));
    }
    Some(parts)
}

fn count(name: &str, times: u32) -> f64 {
    let file = root().join("target/bench/callgrind.parts");
    fs::create_dir_all(root().join("target/bench")).expect("a folder");
    let mut command = Command::new("valgrind");
    command.args(["-q", "--tool=callgrind"]);
    command.arg(format!("--callgrind-out-file={}", file.display()));
    command.arg(built("parts")).args([name, &times.to_string()]).stdin(Stdio::null());
    let output = command.output().expect("valgrind");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name}: {said}");
    total_of(&file).expect("a total")
}

pub(crate) fn print() {
    let Some(parts) = measure() else { return };
    for (name, instructions) in &parts {
        println!("{name:28} {instructions:>10.1}");
    }
    let parts: BTreeMap<_, _> = parts.into_iter().collect();
    write("parts", &json!({ "machine": machine(), "instructions": parts }));
}

/// Writes what is to be committed.
pub(crate) fn record() {
    let Some(parts) = measure() else { return };
    let mut text = String::from(
        "# Instructions of one time of each part of tests/bench/parts.rs, by callgrind.\n\
         # Written by `make bench-record`, compared by `make bench-check`.\n",
    );
    let _ = writeln!(text, "{}", rustc());
    for (name, instructions) in parts {
        println!("{name:28} {instructions:>10.1}");
        let _ = writeln!(text, "{name} {instructions:.1}");
    }
    fs::write(recorded(), text).expect("the record");
}

/// Fails if a part needs more than it did.
pub(crate) fn check() {
    let text = fs::read_to_string(recorded()).expect("tests/bench/instructions.txt");
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let compiler = lines.next().unwrap_or_default();
    let before: BTreeMap<&str, f64> = lines
        .filter_map(|line| line.split_once(' '))
        .map(|(name, number)| (name, number.parse().expect("a number")))
        .collect();
    let is_same = compiler == rustc();
    let Some(parts) = measure() else {
        // What is asked for by name is not passed over.
        let is_required = std::env::var("POUSSE_TEST_REQUIRE").is_ok_and(|it| it == "all");
        std::process::exit(i32::from(is_required));
    };
    let mut worse = Vec::new();
    for (name, now) in &parts {
        let Some(before) = before.get(name.as_str()) else {
            println!("{name:28} {now:>10.1}  is not recorded yet");
            continue;
        };
        let change = now / before - 1.0;
        println!("{name:28} {now:>10.1}  recorded {before:>10.1}  {:>+6.1} %", change * 100.0);
        if change > REGRESSION {
            worse.push(name.as_str());
        }
    }
    if !is_same {
        println!("recorded with {compiler}, measured with {}: nothing can be said", rustc());
    } else if !worse.is_empty() {
        println!("more than {} % worse: {}", REGRESSION * 100.0, worse.join(" "));
        std::process::exit(1);
    }
}
