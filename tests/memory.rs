//! What a client costs: its size, the resident memory of ten thousand idle ones, and allocations
//! per message delivered. The figures are printed: `cargo test --test memory -- --nocapture`.

#![cfg(all(feature = "daemon", feature = "v1"))]
#![expect(clippy::unwrap_used, reason = "a test may end where it is wrong")]

use kit::common;

use std::alloc::System;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use common::{PATIENCE, answer, connect, content, frame, opening, request};
use pousse::{ConnId, Context, Handler, Message, Server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What an idle client may cost.
const BYTES_MAX: usize = 256;

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

/// A reader of one topic who rests.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Idle {
    Text,
    /// The same, and what it is sent is compressed.
    Deflated,
    Session,
    EventStream,
    /// One that reads several topics.
    Merged,
    LongPoll,
}

impl Idle {
    /// What it says once, and then no more.
    fn request(self) -> String {
        match self {
            Idle::Text => opening("/websocket"),
            Idle::Deflated => opening("/websocket").replace(
                "Upgrade: w",
                "Sec-WebSocket-Extensions: permessage-deflate\r\nUpgrade: w",
            ),
            Idle::Session => opening("/websocket?topic=general")
                .replace("Upgrade: w", "Sec-WebSocket-Protocol: pousse.v1\r\nUpgrade: w"),
            Idle::EventStream => {
                request("GET", "/api/messages", "Accept: text/event-stream\r\n", "")
            }
            Idle::Merged => {
                let path = "/api/messages?topic=general&topic=another&topic=third";
                request("GET", path, "Accept: text/event-stream\r\n", "")
            }
            Idle::LongPoll => request("GET", "/api/messages?after=now&wait=600", "", ""),
        }
    }

    /// What it hears until it has nothing more to hear ends with this.
    fn last_words(self) -> Option<&'static str> {
        match self {
            Idle::Text | Idle::Deflated => Some("\r\n\r\n"),
            Idle::Session => Some("\"readers\":"),
            Idle::EventStream | Idle::Merged => Some("id: "),
            Idle::LongPoll => None,
        }
    }

    fn open(self, address: SocketAddr) -> TcpStream {
        let mut peer = connect(address);
        peer.write_all(self.request().as_bytes()).unwrap();
        let Some(words) = self.last_words() else { return peer };
        let mut heard = Vec::new();
        while !String::from_utf8_lossy(&heard).contains(words) {
            let mut bytes = [0; 1024];
            let count = peer.read(&mut bytes).unwrap();
            assert!(count > 0, "{:?}", String::from_utf8_lossy(&heard));
            heard.extend_from_slice(bytes.get(..count).unwrap());
        }
        peer
    }
}

// Size.

#[test]
fn a_client_with_its_parts_on_the_heap_is_within_its_bound() {
    let _alone = alone();
    let client = size_of::<pousse::seam::Client>();
    // The slab notes whether a slot is taken in a bit of the client that has no other meaning.
    assert_eq!(size_of::<Option<pousse::seam::Client>>(), client);
    // Beside the slot: the line in the topic's list of readers, and the one in the wheel of
    // deadlines (4 each, in lists that double).
    let heap = 8 + 8;
    println!("size_of::<Client>() is {client}; with heap {} bytes", client + heap);
    assert!(client + heap <= BYTES_MAX);
}

/// What so many more of these take on the heap, beside their slots, which are there from the start.
fn heap_bytes(idle: Idle) -> usize {
    let mut table = Table::new();
    table.open(idle, 500);
    let region = Region::new(GLOBAL);
    table.open(idle, 500);
    let change = region.change();
    (change.bytes_allocated - change.bytes_deallocated) / 500
}

#[test]
fn a_reader_at_rest_is_within_its_bound_on_every_transport() {
    let _alone = alone();
    if descriptors() < 2200 {
        return skip("1,000 readers in one process need 2,200 descriptors (ulimit -Hn 20000)");
    }
    let slot = size_of::<pousse::seam::Client>();
    let all = [Idle::Text, Idle::Deflated, Idle::Session, Idle::EventStream, Idle::LongPoll];
    let heap = all.map(|idle| {
        let heap = heap_bytes(idle);
        println!("{idle:?}: a slot of {slot} bytes and {heap} on the heap");
        assert!(slot + heap <= BYTES_MAX, "{idle:?}: {slot} and {heap}");
        heap
    });
    // Lists that double make a byte or two of it.
    assert!(heap[1].abs_diff(heap[0]) < 8, "compression keeps nothing of a client's");
}

#[test]
#[cfg(feature = "deflate")]
fn a_client_with_whom_compression_is_in_use_keeps_nothing_of_it() {
    let _alone = alone();
    if descriptors() < 500 {
        return skip("200 readers in one process need 500 descriptors");
    }
    let mut table = Table::new();
    table.open(Idle::Deflated, 200);
    let text = "{\"price\":1234},".repeat(300);
    // Sent "Hello" compressed (RFC 7692 §7.2.3.1), everyone hears as much; and all hear the text.
    let hello = frame(0xc1, b"\xf2\x48\xcd\xc9\xc9\x07\x00");
    let use_it = |table: &mut Table| {
        for _ in 0..20 {
            table.server.context().broadcast(&text).unwrap();
            table.settle();
            table.hear_out();
        }
        let inflated = table.server.context().counters().inflated;
        for peer in &mut table.peers {
            peer.write_all(&hello).unwrap();
        }
        while table.server.context().counters().inflated < inflated + 200 {
            table.server.turn(Some(PATIENCE)).unwrap();
        }
        table.settle();
        table.hear_out();
    };
    use_it(&mut table);
    let counters = table.server.context().counters().clone();
    assert_eq!((counters.deflated_15, counters.inflated), (20, 200));
    let region = Region::new(GLOBAL);
    use_it(&mut table);
    let change = region.change();
    let grown = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
    println!("200 clients sent and heard compressed messages, and {grown} bytes are kept");
    // Lists of the log grow now and then, whoever is here: five bytes a client.
    assert!(grown < 1024, "{grown} bytes");
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
            .args(["--wait-max", "10m"])
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

impl Daemon {
    /// Waits until so many read the one topic.
    fn has_readers(&self, count: usize) {
        let expected = format!("\"readers\":{count}}}");
        let mut peer = connect(self.address);
        for _ in 0..900 {
            peer.write_all(request("GET", "/api/messages", "", "").as_bytes()).unwrap();
            if content(&answer(&mut peer)).contains(&expected) {
                return;
            }
        }
        panic!("there are not {count} readers");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn is_within_its_bound_of_resident_memory(idle: Idle) {
    let _alone = alone();
    let all = descriptors().saturating_sub(64).min(10_000);
    if all < 5000 {
        return skip("10,000 clients need as many descriptors (ulimit -Hn 20000)");
    }
    let daemon = Daemon::start(env!("CARGO_BIN_EXE_pousse"));
    // Code and buffers that the first clients bring into memory are no client's.
    let warm = 100;
    let mut open: Vec<_> = (0..warm).map(|_| idle.open(daemon.address)).collect();
    daemon.has_readers(warm);
    let before = daemon.resident_bytes();
    // One fewer: somebody asks how many they are.
    open.extend((warm..all - 1).map(|_| idle.open(daemon.address)));
    daemon.has_readers(all - 1);
    let after = daemon.resident_bytes();
    let each = (after - before) / (all - 1 - warm);
    println!("{idle:?}: {before} bytes with {warm} clients, {after} with {all}: {each} bytes each");
    assert!(each <= BYTES_MAX, "{idle:?}: {each} bytes each");
    drop(open);
}

#[test]
fn an_idle_websocket_costs_at_most_256_bytes_of_resident_memory() {
    is_within_its_bound_of_resident_memory(Idle::Text);
}

#[test]
fn an_idle_client_of_pousse_v1_costs_at_most_288_bytes_of_resident_memory() {
    is_within_its_bound_of_resident_memory(Idle::Session);
}

#[test]
fn an_idle_event_stream_costs_at_most_256_bytes_of_resident_memory() {
    is_within_its_bound_of_resident_memory(Idle::EventStream);
}

#[test]
fn a_waiting_long_poll_costs_at_most_256_bytes_of_resident_memory() {
    is_within_its_bound_of_resident_memory(Idle::LongPoll);
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
        let mut config = common::config();
        config.limits.history = 10;
        config.limits.wait_max = Duration::from_secs(600);
        // All of a fan-out in one turn: what is joined for its readers is joined for a turn.
        config.limits.turn_time = PATIENCE;
        let server = Server::bind(config, Echo).unwrap();
        let address = common::address(&server.addresses());
        Self { server, address, peers: Vec::new() }
    }

    fn settle(&mut self) {
        while self.server.turn(Some(Duration::ZERO)).unwrap() == Some(Duration::ZERO) {}
    }

    fn open(&mut self, idle: Idle, count: usize) {
        self.peers.reserve_exact(count);
        for _ in 0..count {
            let mut peer = connect(self.address);
            peer.write_all(idle.request().as_bytes()).unwrap();
            let readers = self.server.context().clients().count();
            while self.server.context().clients().count() == readers {
                self.server.turn(Some(PATIENCE)).unwrap();
            }
            self.peers.push(peer);
        }
        self.settle();
        self.hear_out();
    }

    /// Everyone takes what there is for them.
    fn hear_out(&mut self) {
        let mut bytes = [0; 64 * 1024];
        for peer in &mut self.peers {
            peer.set_nonblocking(true).unwrap();
            while matches!(peer.read(&mut bytes), Ok(1..)) {}
            peer.set_nonblocking(false).unwrap();
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
        self.hear_out();
        least
    }
}

fn allocations(work: impl FnOnce()) -> usize {
    let region = Region::new(GLOBAL);
    work();
    let change = region.change();
    change.allocations + change.reallocations
}

fn is_delivered_without_an_allocation(idle: Idle) {
    let _alone = alone();
    // Both ends are in this process.
    let more = 1000;
    if descriptors() < 2 * (100 + more) + 200 {
        return skip("1,100 readers in one process need 2,400 descriptors (ulimit -Hn 20000)");
    }
    let mut table = Table::new();
    table.open(idle, 100);
    table.publish(1);
    table.publish(8);
    let few = [table.publish(1), table.publish(8)];
    table.open(idle, more);
    table.publish(1);
    table.publish(8);
    let many = [table.publish(1), table.publish(8)];
    println!("{idle:?}: allocations of one and of eight publishes with 100 readers: {few:?}");
    println!("and with {more} readers more: {many:?}");
    assert_eq!(few, many, "there is one for each delivery, or for some");
    // The frame is made with the entry; another form is made, and put where forms are.
    let each = if idle == Idle::Text { 4 } else { 12 };
    assert!(few[0] <= each && few[1] <= 8 * each, "{few:?} is much for so few entries");
}

#[test]
fn a_message_is_delivered_without_an_allocation() {
    is_delivered_without_an_allocation(Idle::Text);
}

#[test]
#[cfg(feature = "deflate")]
fn a_server_with_whom_nobody_compresses_makes_nothing_to_compress_with() {
    let _alone = alone();
    let mut table = Table::new();
    table.open(Idle::Text, 2);
    let text = "Bonjour".repeat(1000);
    let publish = |table: &mut Table| {
        for _ in 0..20 {
            table.server.context().broadcast(&text).unwrap();
            table.settle();
            table.hear_out();
        }
    };
    publish(&mut table);
    let grown = |table: &mut Table| {
        let region = Region::new(GLOBAL);
        publish(table);
        let change = region.change();
        change.bytes_allocated.saturating_sub(change.bytes_deallocated)
    };
    let without = grown(&mut table);
    table.open(Idle::Deflated, 1);
    let with = grown(&mut table);
    println!("{without} bytes more without, {with} with one who compresses");
    assert!(without < 1024 && with > 100_000, "{without} and {with}");
    assert!(with < 1 << 20, "one deflater");
}

#[test]
fn a_message_is_delivered_over_pousse_v1_without_an_allocation() {
    is_delivered_without_an_allocation(Idle::Session);
}

#[test]
fn a_message_is_delivered_on_an_event_stream_without_an_allocation() {
    is_delivered_without_an_allocation(Idle::EventStream);
}

#[test]
fn a_message_is_delivered_to_readers_of_several_topics_without_an_allocation() {
    is_delivered_without_an_allocation(Idle::Merged);
}

#[test]
fn a_message_is_echoed_without_an_allocation() {
    let _alone = alone();
    let mut table = Table::new();
    table.open(Idle::Text, 1);
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

#[test]
fn what_was_encoded_is_not_remembered_longer_than_its_entry_however_busy_the_server() {
    let _alone = alone();
    if descriptors() < 1000 {
        return skip("400 readers in one process need 1,000 descriptors");
    }
    let mut config = common::config();
    config.limits.history = 10;
    // A fan-out is never through when the next begins.
    config.limits.turn_readers = 1;
    config.limits.turn_time = Duration::from_nanos(1);
    let server = Server::bind(config, Echo).unwrap();
    let address = common::address(&server.addresses());
    let mut table = Table { server, address, peers: Vec::new() };
    table.open(Idle::EventStream, 8);
    let publish = |table: &mut Table| {
        for _ in 0..4000 {
            table.server.context().broadcast("Bonjour").unwrap();
            table.server.turn(Some(Duration::ZERO)).unwrap();
            table.hear_out();
        }
    };
    publish(&mut table);
    let region = Region::new(GLOBAL);
    publish(&mut table);
    let change = region.change();
    let grown = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
    println!("4,000 messages that were encoded, and {grown} bytes more");
    assert!(grown < 16 * 1024, "{grown} bytes");
}
