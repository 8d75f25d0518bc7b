//! What a client costs: its size, the resident memory of ten thousand idle ones, and allocations
//! per message delivered. The figures are printed: `cargo test --test memory -- --nocapture`.

#![cfg(feature = "daemon")]
#![expect(clippy::unwrap_used, reason = "a test may end where it is wrong")]

mod common;

use std::alloc::System;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use common::{PATIENCE, answer, connect, frame, opening};
use pousse::{Config, ConnId, Context, Handler, Message, Server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What an idle client may cost.
const BYTES_MAX: usize = 512;

/// One test after the other: they count what the whole process does.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// How many descriptors this process may open, having asked for all that it can get.
fn descriptors() -> usize {
    let allowed = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: allowed.maximum, maximum: allowed.maximum };
    let soft = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { allowed };
    soft.current.map_or(usize::MAX, |number| usize::try_from(number).unwrap())
}

/// Says that a test needs what is not there; where nothing may be skipped, it fails.
fn skip(what: &str) {
    let is_required = std::env::var("POUSSE_TEST_REQUIRE").is_ok_and(|it| it == "all");
    assert!(!is_required, "{what}");
    println!("SKIPPED: {what}");
}

/// A WebSocket that is open and rests.
fn idle(address: SocketAddr) -> TcpStream {
    let mut peer = connect(address);
    peer.write_all(opening("/websocket").as_bytes()).unwrap();
    assert!(answer(&mut peer).starts_with("HTTP/1.1 101 "));
    peer
}

// Size.

#[test]
fn a_client_with_its_parts_on_the_heap_is_within_its_bound() {
    let _alone = alone();
    let client = size_of::<pousse::seam::Client>();
    // The slab's tag, and beside the slot: one place in a topic (its own allocation of at least 32
    // bytes), the line in that topic's list of readers (8, in a list that doubles) and the line in
    // the wheel of deadlines (8, in a list that doubles).
    let slot = client.next_multiple_of(8) + 8;
    let heap = 32 + 16 + 16;
    println!("size_of::<Client>() is {client}; with slot and heap {} bytes", slot + heap);
    assert!(slot + heap <= BYTES_MAX);
}

// Resident memory.

/// The daemon, in a process of its own.
struct Daemon {
    process: Child,
    address: SocketAddr,
}

impl Daemon {
    fn start(program: &str) -> Self {
        let mut process = Command::new(program)
            .args(["--listen", "127.0.0.1:0", "--ping", "10m", "--log", "error"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit("http://").next().unwrap().parse().unwrap();
        Self { process, address }
    }

    fn resident_bytes(&self) -> usize {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn an_idle_websocket_costs_at_most_512_bytes_of_resident_memory() {
    let _alone = alone();
    let all = descriptors().saturating_sub(64).min(10_000);
    if all < 5000 {
        return skip("10,000 clients need as many descriptors (ulimit -Hn 20000)");
    }
    let daemon = Daemon::start(env!("CARGO_BIN_EXE_pousse"));
    // Code and buffers that the first clients bring into memory are no client's.
    let warm = 100;
    let mut open: Vec<_> = (0..warm).map(|_| idle(daemon.address)).collect();
    let before = daemon.resident_bytes();
    open.extend((warm..all).map(|_| idle(daemon.address)));
    let after = daemon.resident_bytes();
    let each = (after - before) / (all - warm);
    println!("{before} bytes with {warm} clients, {after} with {all}: {each} bytes each");
    assert!(each <= BYTES_MAX, "{each} bytes each");
    drop(open);
}

// Allocations.

struct Echo;

impl Handler for Echo {
    fn on_message(&mut self, conn: ConnId, message: Message<'_>, ctx: &mut Context<'_>) {
        ctx.send(conn, message).unwrap();
    }
}

struct Table {
    server: Server<Echo>,
    address: SocketAddr,
    peers: Vec<TcpStream>,
}

impl Table {
    fn new() -> Self {
        let mut config = Config::default();
        config.listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.limits.history = 10;
        // All of a fan-out in one turn: what is joined for its readers is joined for a turn.
        config.limits.turn_time = PATIENCE;
        let server = Server::bind(config, Echo).unwrap();
        let address = common::address(&server.addresses());
        Self { server, address, peers: Vec::new() }
    }

    fn settle(&mut self) {
        while self.server.turn(Some(Duration::ZERO)).unwrap() == Some(Duration::ZERO) {}
    }

    fn open(&mut self, count: usize) {
        for _ in 0..count {
            let mut peer = connect(self.address);
            peer.write_all(opening("/websocket").as_bytes()).unwrap();
            let opened = self.server.context().counters().opened;
            while self.server.context().counters().opened == opened {
                self.server.turn(Some(PATIENCE)).unwrap();
            }
            assert!(answer(&mut peer).starts_with("HTTP/1.1 101 "));
            self.peers.push(peer);
        }
    }

    /// Allocations of one turn in which so many messages are published; the least of several, for
    /// now and then a list grows.
    fn publish(&mut self, count: usize) -> usize {
        let once = |table: &mut Self| {
            let delivered = table.server.context().counters().delivered;
            let allocations = allocations(|| {
                for _ in 0..count {
                    table.server.context().broadcast("Bonjour").unwrap();
                }
                table.settle();
            });
            let delivered = table.server.context().counters().delivered - delivered;
            assert_eq!(delivered, (count * table.peers.len()) as u64);
            allocations
        };
        let least = (0..20).map(|_| once(self)).min().unwrap();
        for peer in &mut self.peers {
            let mut bytes = vec![0; 20 * count * b"\x81\x07Bonjour".len()];
            peer.read_exact(&mut bytes).unwrap();
        }
        least
    }
}

fn allocations(work: impl FnOnce()) -> usize {
    let region = Region::new(GLOBAL);
    work();
    let change = region.change();
    change.allocations + change.reallocations
}

#[test]
fn a_message_is_delivered_without_an_allocation() {
    let _alone = alone();
    // Both ends are in this process.
    let more = 1000;
    if descriptors() < 2 * (100 + more) + 200 {
        return skip("1,100 readers in one process need 2,400 descriptors (ulimit -Hn 20000)");
    }
    let mut table = Table::new();
    table.open(100);
    table.publish(1);
    table.publish(8);
    let few = [table.publish(1), table.publish(8)];
    table.open(more);
    table.publish(1);
    table.publish(8);
    let many = [table.publish(1), table.publish(8)];
    println!("allocations of one and of eight publishes with 100 readers: {few:?}");
    println!("and with {more} readers more: {many:?}");
    assert_eq!(few, many, "there is one for each delivery, or for some");
    assert!(few[0] <= 4 && few[1] <= 8 * 4, "{few:?} is much for so few entries");
}

#[test]
fn a_message_is_echoed_without_an_allocation() {
    let _alone = alone();
    let mut table = Table::new();
    table.open(1);
    let sixteen = frame(0x81, b"Bonjour").repeat(16);
    let mut heard = [0; 16 * 9];
    let mut least = usize::MAX;
    for _ in 0..20 {
        least = least.min(allocations(|| {
            let peer = &mut table.peers[0];
            peer.write_all(&sixteen).unwrap();
            let received = table.server.context().counters().received;
            while table.server.context().counters().received < received + 16 {
                table.server.turn(Some(PATIENCE)).unwrap();
            }
            table.peers[0].read_exact(&mut heard).unwrap();
        }));
        assert_eq!(heard, *b"\x81\x07Bonjour".repeat(16));
    }
    println!("allocations of sixteen echoes: {least}");
    assert_eq!(least, 0);
}
