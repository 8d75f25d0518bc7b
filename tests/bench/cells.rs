//! What is measured: each cell is a load with its numbers, the servers that can do it, and the
//! figure in which they are compared.

use crate::servers::{Kind, Name, With};

/// See the head of this file.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) title: String,
    pub(crate) load: Vec<String>,
    pub(crate) kind: Kind,
    pub(crate) with: With,
    pub(crate) servers: Vec<Name>,
    /// The figure, a path into the load's report.
    pub(crate) figure: &'static str,
}

const CPU: &str = "/server_cpu_us";
const RATE: &str = "/per_second";

fn cell(title: &str, load: &str, kind: Kind, servers: &[Name], figure: &'static str) -> Cell {
    let load = load.split_whitespace().map(String::from).collect();
    let (title, servers) = (title.to_owned(), servers.to_vec());
    Cell { title, load, kind, with: With::default(), servers, figure }
}

/// Whoever speaks WebSocket and can be given a program.
const ECHO: &[Name] = &[Name::Pousse, Name::Ceiling, Name::Bun, Name::Ws, Name::Websockets];
const ROOM: &[Name] =
    &[Name::Pousse, Name::Ceiling, Name::Bun, Name::Ws, Name::Websockets, Name::Nchan];
const HTTP: &[Name] = &[Name::Pousse, Name::Nchan];
const US: &[Name] = &[Name::Pousse];
const BOTH: &[Name] = &[Name::Pousse, Name::Ceiling];

/// All of them.
pub(crate) fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    echo(&mut cells);
    let broadcast =
        [(1000, 64, 1), (1000, 64, 16), (1000, 1024, 1), (1000, 1024, 16), (200, 16384, 4)];
    for (readers, size, in_flight) in broadcast {
        let title = format!("broadcast {readers}×{size} B×{in_flight}: µs");
        let load = format!("--readers {readers} --size {size} --in-flight {in_flight}");
        cells.push(cell(&title, &format!("broadcast {load}"), Kind::Daemon, ROOM, CPU));
    }
    let load = "broadcast --readers 1000 --size 64";
    let figure = "/latency_us/p50";
    cells.push(cell("publish to 1000, median µs", load, Kind::Daemon, ROOM, figure));
    for transport in ["v1", "event-stream", "long-poll"] {
        let title = format!("broadcast {transport} 1000×64 B×1: µs");
        let load = format!("broadcast --readers 1000 --transport {transport}");
        cells.push(cell(&title, &load, Kind::Daemon, US, CPU));
    }
    cells.push(cell("slow 1000×64 B×1: µs", "slow --readers 1000", Kind::Daemon, US, CPU));
    cells.push(cell("mixed 1000×64 B×1: µs", "mixed --readers 1000", Kind::Daemon, US, CPU));
    let load = "longpoll --readers 1000";
    cells.push(cell("long-poll answers/s", load, Kind::Daemon, HTTP, RATE));
    cells.push(cell("long-poll answer: µs", load, Kind::Daemon, HTTP, CPU));
    for status in [304, 200] {
        let load = format!("poll --connections 100 --status {status}");
        cells.push(cell(&format!("poll {status}/s"), &load, Kind::Daemon, HTTP, RATE));
        cells.push(cell(&format!("poll {status}: µs"), &load, Kind::Daemon, HTTP, CPU));
    }
    cells.push(cell("publish/s", "publish", Kind::Daemon, HTTP, RATE));
    for topics in [1, 100, 10_000, 100_000] {
        let title = format!("publish over {topics} topics: µs");
        let load = format!("publish --topics {topics}");
        cells.push(cell(&title, &load, Kind::Daemon, US, CPU));
    }
    cells.push(cell("opening handshakes/s", "connect", Kind::Daemon, ROOM, RATE));
    cells.push(cell("opening handshake: µs", "connect", Kind::Daemon, ROOM, CPU));
    for count in [10, 100, 1000, 10_000, 18_000] {
        let title = format!("broadcast {count}×64 B×1: µs");
        let load = format!("broadcast --readers {count} --sources 4");
        cells.push(cell(&title, &load, Kind::Daemon, BOTH, CPU));
    }
    idle(&mut cells);
    tls(&mut cells);
    for in_flight in [1, 16] {
        let title = format!("compressed 1000×4 KiB×{in_flight}: µs");
        let load = "broadcast --readers 1000 --size 4096 --deflate --in-flight";
        let servers = &[Name::Pousse, Name::Bun, Name::Ws];
        let load = format!("{load} {in_flight}");
        let mut compressed = cell(&title, &load, Kind::Daemon, servers, CPU);
        compressed.with.deflate = true;
        cells.push(compressed);
    }
    // What it comes to, as it is: beside the row above it says what compressing costs each reader.
    let load = "broadcast --readers 1000 --size 841";
    let title = "as long as if compressed, 1000×841 B×1: µs";
    cells.push(cell(title, load, Kind::Daemon, &[Name::Pousse], CPU));
    cells
}

fn echo(cells: &mut Vec<Cell>) {
    let loads = [
        (100, 20, 1),
        (100, 20, 16),
        (100, 1024, 1),
        (100, 1024, 16),
        (100, 16384, 16),
        (10, 1_048_576, 1),
    ];
    for (connections, size, in_flight) in loads {
        let title = format!("echo {connections}×{size} B×{in_flight}: µs");
        let load = format!("--connections {connections} --size {size} --in-flight {in_flight}");
        cells.push(cell(&title, &format!("echo {load}"), Kind::Echo, ECHO, CPU));
    }
    let load = "echo --connections 10 --size 1048576 --in-flight 1";
    let title = "echo 10×1048576 B×1, unsent=1MiB: µs";
    let mut taken_whole = cell(title, load, Kind::Echo, BOTH, CPU);
    taken_whole.with.unsent = true;
    cells.push(taken_whole);
}

fn idle(cells: &mut Vec<Cell>) {
    let figure = "/bytes_each";
    let load = "idle --connections 10000";
    let servers = &[Name::Pousse, Name::Ceiling, Name::Bun, Name::Ws, Name::Nchan];
    cells.push(cell("idle 10,000 WebSockets: bytes each", load, Kind::Daemon, servers, figure));
    for transport in ["v1", "event-stream", "long-poll"] {
        let title = format!("idle 10,000 {transport}: bytes each");
        let load = format!("idle --connections 10000 --transport {transport}");
        cells.push(cell(&title, &load, Kind::Daemon, US, figure));
    }
    let load = "idle --connections 18000 --sources 4 --hold 30";
    let figure = "/hold_core_percent";
    cells.push(cell("idle 18,000, pings: % of a core", load, Kind::Daemon, US, figure));
}

fn tls(cells: &mut Vec<Cell>) {
    let mut own = Vec::new();
    for (size, in_flight) in [(20, 1), (20, 16), (1024, 16), (16384, 16)] {
        let title = format!("wss echo 100×{size} B×{in_flight}: µs");
        let load = format!("echo --connections 100 --size {size} --in-flight {in_flight}");
        own.push(cell(&title, &load, Kind::Echo, BOTH, CPU));
    }
    for (size, in_flight) in [(64, 1), (64, 16), (1024, 16)] {
        let title = format!("wss broadcast 500×{size} B×{in_flight}: µs");
        let load = format!("broadcast --readers 500 --size {size} --in-flight {in_flight}");
        own.push(cell(&title, &load, Kind::Daemon, BOTH, CPU));
    }
    own.push(cell("wss opening handshake: µs", "connect", Kind::Daemon, BOTH, CPU));
    let load = "idle --connections 5000";
    own.push(cell("wss idle 5,000: bytes each", load, Kind::Daemon, BOTH, "/bytes_each"));
    own.iter_mut().for_each(|cell| cell.with.tls = true);
    cells.append(&mut own);
}

/// How a load has to talk to this server.
pub(crate) fn flags(name: Name, cell: &Cell) -> Vec<&'static str> {
    let work = cell.load.first().map_or("", String::as_str);
    let is_room = matches!(work, "broadcast" | "longpoll" | "slow" | "mixed" | "idle");
    let room = ["--path", "/broadcast", "--publish-path", "/broadcast"];
    match name {
        Name::Pousse if cell.kind == Kind::Counted && work == "echo" => vec!["--path", "/echo"],
        Name::Pousse => vec![],
        Name::Ceiling if is_room => [&room[..], &["--raw"]].concat(),
        Name::Ceiling => vec!["--raw"],
        Name::Nchan => {
            vec!["--path", "/sub", "--publish-path", "/pub", "--publisher-only", "--nchan"]
        }
        _ if is_room => room.to_vec(),
        _ => vec![],
    }
}
