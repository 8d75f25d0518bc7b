//! What pousse costs, beside others on the same machine: `make bench`, `make bench-peers`,
//! `make bench-check`. It starts servers and loads, pinned to processors of their own where there
//! are two, and prints tables; `docs/performance.md` says what they mean.
//!
//! | mode | what it does |
//! |---|---|
//! | `table [WORD]` | pousse and the ceiling, cells whose title has the word; `table.json` |
//! | `peers [WORD]` | the same with everyone who is installed; `peers.json` |
//! | `costs [WORD]` | system calls, allocations and instructions of one message; `costs.json` |
//! | `parts` | instructions of the parts; `parts.json` |
//! | `check` | the same, compared with `tests/bench/instructions.txt`; `record` writes that file |
//!
//! The files are written to `target/bench`.
//!
//! `ROUNDS` (5), `SECONDS` (1) in the environment: how often, how long. One server after the other
//! in each round, each time another first; figures are medians, ratios those of pairs of a round.

#![expect(clippy::disallowed_methods, reason = "it waits for servers, by the clock")]

mod cells;
mod costs;
mod parts_check;
mod servers;
mod table;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::cells::{Cell, cells, flags};
use crate::servers::{Name, Running, Under, built, certificate};
use crate::table::Row;

fn main() {
    let mut words = std::env::args().skip(1);
    let mode = words.next().unwrap_or_default();
    let word = words.next().unwrap_or_default();
    match mode.as_str() {
        "table" => compare("table", &word, &[Name::Pousse, Name::Ceiling]),
        "peers" => {
            for name in Name::ALL {
                if let Some(how) = name.missing() {
                    println!("SKIPPED: {}, which is not installed ({how})", name.word());
                }
            }
            let here = Name::ALL.into_iter().filter(|name| name.missing().is_none());
            compare("peers", &word, &here.collect::<Vec<_>>());
        }
        "costs" => costs::all(&word),
        "parts" => parts_check::print(),
        "check" => parts_check::check(),
        "record" => parts_check::record(),
        other => panic!("{other:?}: table peers costs parts check record"),
    }
}

fn number<N: std::str::FromStr>(name: &str, otherwise: N) -> N {
    let text = std::env::var(name).ok();
    text.map_or(otherwise, |text| text.parse().ok().expect("a number"))
}

/// Runs each cell against these servers in turn.
fn compare(file: &str, word: &str, names: &[Name]) {
    println!("{}", machine());
    let mut rows = Vec::new();
    let mut known: BTreeMap<(String, Name, usize), Value> = BTreeMap::new();
    for cell in cells().into_iter().filter(|cell| cell.title.contains(word)) {
        let servers = cell.servers.iter().copied().filter(|name| names.contains(name));
        let servers: Vec<Name> = servers.collect();
        // What needs long says the same when it is repeated: memory, and what is done for long.
        let is_slow = cell.load.first().is_some_and(|work| work == "idle");
        let rounds = if is_slow { 1 } else { number("ROUNDS", 5) };
        let mut reports: BTreeMap<Name, Vec<Value>> = BTreeMap::new();
        for round in 0..rounds {
            for turn in 0..servers.len() {
                let Some(&name) = servers.get((turn + round) % servers.len()) else { continue };
                // Two cells may be two figures of the same load.
                let key = (format!("{:?}{:?}", cell.load, cell.with), name, round);
                let report = known.entry(key).or_insert_with(|| once(&cell, name)).clone();
                reports.entry(name).or_default().push(report);
            }
        }
        let row = Row::new(&cell, &reports);
        println!("{row}");
        rows.push(json!({ "row": row.json(), "load": cell.load, "reports": of_names(&reports) }));
    }
    write(file, &json!({ "machine": machine(), "rows": rows }));
}

fn of_names(reports: &BTreeMap<Name, Vec<Value>>) -> Value {
    reports.iter().map(|(name, reports)| (name.word().to_owned(), json!(reports))).collect()
}

/// One load against a server that was started for it.
fn once(cell: &Cell, name: Name) -> Value {
    let server = Running::start(name, cell.kind, cell.with, &Under::cpu(0));
    let seconds = number("SECONDS", 1.0_f64).to_string();
    let report = load(cell, name, &server, &["--seconds", &seconds]);
    server.end();
    report.unwrap_or_else(|error| {
        println!("{} by {}: {error}", cell.title, name.word());
        Value::Null
    })
}

/// What a load reports of a server.
///
/// # Errors
/// What it says where it stopped.
pub(crate) fn load(
    cell: &Cell,
    name: Name,
    server: &Running,
    more: &[&str],
) -> Result<Value, String> {
    let mut command: Command = Under::cpu(1).command(&built("load"));
    command.args(&cell.load).args(flags(name, cell)).args(more).arg("--json");
    command.arg("--address").arg(format!("127.0.0.1:{}", server.port));
    command.arg("--pid").arg(server.pid().to_string()).stdin(Stdio::null());
    if cell.with.tls {
        command.arg("--tls").arg(certificate().0);
    }
    let output = command.output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&said).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        said.lines().skip(1).take(3).collect::<Vec<_>>().join(" ")
    })
}

/// Writes `target/bench/NAME.json`.
pub(crate) fn write(name: &str, value: &Value) {
    let folder = servers::root().join("target/bench");
    std::fs::create_dir_all(&folder).expect("a folder");
    let text = serde_json::to_string_pretty(value).expect("JSON");
    std::fs::write(folder.join(format!("{name}.json")), text).expect("a file");
    println!("target/bench/{name}.json");
}

/// Which machine this is, when it is.
pub(crate) fn machine() -> String {
    let said = |program: &str, words: &[&str]| {
        let output = Command::new(program).args(words).output();
        output
            .map_or_else(|_| "?".into(), |it| String::from_utf8_lossy(&it.stdout).trim().to_owned())
    };
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("?");
    let count = std::thread::available_parallelism().map_or(1, Into::into);
    let (kernel, rustc, day) =
        (said("uname", &["-sr"]), said("rustc", &["--version"]), said("date", &["+%Y-%m-%d"]));
    format!("{day}, {count} × {model}, {kernel}, {rustc}")
}
