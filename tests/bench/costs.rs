//! What one message costs, in units that repeat on a noisy machine: system calls (strace),
//! allocations (`counted.rs`), instructions of the program (callgrind).
//!
//! Each is measured twice, with different numbers of messages: the difference is the messages'.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::cells::Cell;
use crate::servers::{Kind, Name, Running, Under, With, root};
use crate::table::short;
use crate::{load, machine, write};

/// A load, and how many messages of it, at first and then.
struct Cost {
    title: &'static str,
    load: &'static str,
    first: u64,
    then: u64,
}

const COSTS: &[Cost] = &[
    cost("echo 20×20 B×1", "echo --connections 20 --size 20", 2000),
    cost("echo 20×20 B×16", "echo --connections 20 --size 20 --in-flight 16", 20_000),
    cost("echo 20×1 KiB×16", "echo --connections 20 --size 1024 --in-flight 16", 20_000),
    cost("echo 20×16 KiB×16", "echo --connections 20 --size 16384 --in-flight 16", 2000),
    cost("echo 5×1 MiB×1", "echo --connections 5 --size 1048576", 50),
    cost("broadcast 1000×64 B×1", "broadcast --readers 1000", 10),
    cost("broadcast 1000×64 B×16", "broadcast --readers 1000 --in-flight 16", 160),
    cost("broadcast 1000×1 KiB×16", "broadcast --readers 1000 --size 1024 --in-flight 16", 160),
    cost("broadcast 200×16 KiB×4", "broadcast --readers 200 --size 16384 --in-flight 4", 40),
    cost(
        "1000×1 KiB×16, none stalled",
        "slow --stalled 0 --readers 1000 --size 1024 --in-flight 16",
        640,
    ),
    cost("1000×1 KiB×16, 10 more stalled", "slow --readers 1000 --size 1024 --in-flight 16", 640),
    cost("v1 1000×64 B×1", "broadcast --readers 1000 --transport v1", 10),
    cost("event-stream 1000×64 B×1", "broadcast --readers 1000 --transport event-stream", 10),
    cost("long-poll 1000×64 B×1", "longpoll --readers 1000", 10),
    cost("poll 304", "poll --connections 20 --status 304", 1000),
    cost("poll 200", "poll --connections 20 --status 200", 1000),
    cost("publish", "publish --connections 20", 1000),
    cost("publish over 10,000 topics", "publish --connections 20 --topics 10000", 20_000),
    cost("opening handshake", "connect --connections 20", 500),
];

const fn cost(title: &'static str, load: &'static str, first: u64) -> Cost {
    Cost { title, load, first, then: first * 3 }
}

/// Measures, prints, writes.
pub(crate) fn all(word: &str) {
    println!("{}", machine());
    println!("{:38}  system calls  allocations  instructions, each of one message", "");
    let (traces, counts) = (!is_missing("strace"), !is_missing("valgrind"));
    let mut rows = Vec::new();
    for cost in COSTS.iter().filter(|cost| cost.title.contains(word)) {
        let calls = traces.then(|| cost.measured(system_calls)).flatten();
        let allocations = cost.measured(allocations);
        let instructions = counts.then(|| cost.measured(instructions)).flatten();
        let show = |value: Option<f64>| value.map_or("-".into(), short);
        println!(
            "{:38}  {:>12}  {:>11}  {:>12}",
            cost.title,
            show(calls),
            show(allocations),
            show(instructions)
        );
        rows.push(json!({
            "title": cost.title, "load": cost.load, "system_calls": calls,
            "allocations": allocations, "instructions": instructions,
        }));
    }
    write("costs", &json!({ "machine": machine(), "rows": rows }));
}

impl Cost {
    /// By the difference; `None`: the load has stopped.
    fn measured(&self, count: fn(&Self, u64) -> Option<Counted>) -> Option<f64> {
        let ((first, few), (then, many)) = (count(self, self.first)?, count(self, self.then)?);
        Some((then - first) / (many - few))
    }

    fn kind(&self) -> Kind {
        if self.load.starts_with("echo") { Kind::Echo } else { Kind::Daemon }
    }

    /// The load against this server, so many messages sent; how many came, unless it stopped.
    fn run(&self, kind: Kind, messages: u64, server: &Running) -> Option<f64> {
        let words = self.load.split_whitespace().map(String::from).collect();
        let (title, with, servers) = (self.title.into(), With::default(), vec![Name::Pousse]);
        let cell = Cell { title, load: words, kind, with, servers, figure: "" };
        let report = load(&cell, Name::Pousse, server, &["--messages", &messages.to_string()]);
        if let Err(error) = &report {
            println!("{}: {error}", self.title);
        }
        report.ok()?.get("messages")?.as_f64()
    }
}

/// What was counted, and the messages that came.
type Counted = (f64, f64);

fn file(name: &str) -> String {
    let folder = root().join("target/bench");
    fs::create_dir_all(&folder).expect("a folder");
    folder.join(name).display().to_string()
}

fn system_calls(cost: &Cost, messages: u64) -> Option<Counted> {
    let file = file("strace.txt");
    let under = Under::cpu(0).and(&["strace", "-f", "-c", "-o", &file]);
    let server = Running::start(Name::Pousse, cost.kind(), With::default(), &under);
    let came = cost.run(cost.kind(), messages, &server);
    server.end();
    let text = fs::read_to_string(&file).ok()?;
    let total = text.lines().rev().find(|line| line.ends_with(" total"))?;
    // % time, seconds, usecs/call, calls, errors: the last two are numbers without a point.
    let numbers: Vec<f64> = total
        .split_whitespace()
        .filter(|word| !word.contains('.'))
        .filter_map(|word| word.parse().ok())
        .collect();
    let calls = numbers.get(1).or(numbers.first()).copied();
    calls.zip(came)
}

fn allocations(cost: &Cost, messages: u64) -> Option<Counted> {
    let server = Running::start(Name::Pousse, Kind::Counted, With::default(), &Under::cpu(0));
    let came = cost.run(Kind::Counted, messages, &server)?;
    let mut peer = TcpStream::connect(("127.0.0.1", server.port)).ok()?;
    let request = "GET /allocations HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    peer.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    peer.read_to_string(&mut answer).ok()?;
    let count = answer.rsplit("\r\n").next()?.trim().parse().ok()?;
    Some((count, came))
}

fn instructions(cost: &Cost, messages: u64) -> Option<Counted> {
    let file = file(&format!("callgrind.{}.{messages}", cost.title.replace(' ', "_")));
    let out = format!("--callgrind-out-file={file}");
    let under = Under::cpu(0).and(&["valgrind", "-q", "--tool=callgrind", &out]);
    let server = Running::start(Name::Pousse, cost.kind(), With::default(), &under);
    let came = cost.run(cost.kind(), messages, &server);
    server.end();
    total_of(Path::new(&file)).zip(came)
}

/// The instructions in all that a file of callgrind tells of.
pub(crate) fn total_of(file: &Path) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    let is_total = |line: &&str| line.starts_with("totals: ") || line.starts_with("summary: ");
    let total = text.lines().find(is_total)?.split(' ').nth(1)?;
    total.parse().ok()
}

/// Whether a tool is not here, which is said.
pub(crate) fn is_missing(tool: &str) -> bool {
    let mut command = Command::new(tool);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    let is_missing = command.status().is_err();
    if is_missing {
        println!("SKIPPED: no {tool} here (Debian: apt-get install {tool})");
    }
    is_missing
}
