//! A machine made of memory: sockets, readiness, bell and clock of `src/net.rs`, driven by a seed.
//!
//! It is compiled into the library in the place of mio and the system's clock, and is one for each
//! thread: the server's side of it are mio's names (`mio.rs`), the peers' side are the functions
//! below. Readiness is that of epoll, edge-triggered: an event tells what is so when it is
//! delivered, and comes because something has changed since the last one.
//!
//! What a kernel never does is not done here either: bytes neither vanish nor change places, and
//! whoever was told `WouldBlock`, or was given less than it asked for, gets an edge later.
//!
//! Rules of the loop that only a machine can see are checked here: work in a turn, accepting last.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "a test that is compiled elsewhere")]

mod mio;
mod random;
mod slots;

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use slab::Slab;

pub use ::mio::{Interest, Token};
pub use mio::{
    Event, Events, Poll, Registry, Source, TcpListener, TcpStream, UnixListener, UnixStream, Waker,
};
pub use random::Random;
pub(crate) use slots::Slab as Slots;
pub use slots::looked;

/// How often the machine does what it may do, of a thousand times; and how large it is.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    pub short_read: u64,
    pub short_write: u64,
    pub would_block: u64,
    pub interrupted: u64,
    pub late: u64,
    pub late_max: Duration,
    pub repeated: u64,
    pub reordered: u64,
    pub spurious: u64,
    pub stale: u64,
    pub accept_gone: u64,
    pub accept_lack: u64,
    pub jump: u64,
    pub jump_max: Duration,
    /// Bytes that the kernel holds of one connection, to the server and from it.
    pub to_server: usize,
    pub to_client: usize,
    pub descriptors: usize,
    /// What the loop may do for one client in one turn: bytes read, bytes written.
    pub read_max: usize,
    pub write_max: usize,
    /// Those bytes may come in several reads: rustls reads some kilobytes at a time.
    pub reads_on: bool,
    pub accept_max: usize,
    /// How long each accept, read and write takes, and each look at a client.
    pub cost: Duration,
    pub look: Duration,
}

/// What a peer finds when it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Bytes,
    Nothing,
    End,
    Reset,
}

struct Socket {
    owner: u32,
    peer: SocketAddr,
    token: Option<Token>,
    to_server: VecDeque<u8>,
    to_client: VecDeque<u8>,
    /// The peer has ended its direction.
    is_ended: bool,
    /// The peer is not there any more.
    is_gone: bool,
    /// The server has ended its direction, and its whole socket.
    is_shut: bool,
    is_closed: bool,
    is_accepted: bool,
    error: Option<i32>,
    is_reset: bool,
    /// A write was refused, so an edge is owed when there is room.
    is_full: bool,
    /// When its event comes, and the how manieth it is of all.
    due: Option<(Duration, u64)>,
    turn: u64,
    accepted_in: u64,
    reads: usize,
    read_bytes: usize,
    written_bytes: usize,
    is_woken: bool,
    waits_to_send: bool,
}

struct Listening {
    token: Option<Token>,
    queue: VecDeque<usize>,
    due: Option<Duration>,
    is_closed: bool,
    accepted: usize,
    accepted_turn: u64,
    /// Its clients have no address.
    is_unix: bool,
}

/// An event that names what is not there any more, or what has not changed.
struct Ghost {
    due: Duration,
    event: Event,
    is_stale: bool,
}

#[derive(Default)]
pub(crate) struct Machine {
    random: Random,
    now: Duration,
    faults: Faults,
    sockets: Slab<Socket>,
    listening: Vec<Listening>,
    /// Sockets whose event is to come, the next first, and some whose event has come; how many.
    pending: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    pending_count: usize,
    events_made: u64,
    ghosts: Vec<Ghost>,
    bell: Option<Token>,
    bell_due: Option<Duration>,
    descriptors: usize,
    turn: u64,
    accepted_in: u64,
    /// Sockets whose peers have something to look at.
    woken: Vec<usize>,
    hook: Option<Box<dyn FnMut() -> Option<Duration>>>,
    horizon: Duration,
    is_over: bool,
    hash: u64,
    trace: Option<VecDeque<String>>,
    problems: Vec<String>,
    stale_told: u64,
    work: Work,
    /// How often clients had been looked at when the clock was read.
    looked: u64,
    is_frozen: bool,
    excuses: u64,
    disturbed: Duration,
    disturbed_before: Duration,
}

/// What the server has asked the machine for, from the beginning on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    pub turns: u64,
    pub events: u64,
    pub accepts: u64,
    pub reads: u64,
    pub writes: u64,
}

thread_local! {
    static MACHINE: RefCell<Machine> = RefCell::default();
    static METER: Cell<Option<fn() -> isize>> = const { Cell::new(None) };
    static ASIDE: Cell<Account> = const { Cell::new(Account { depth: 0, since: 0, bytes: 0 }) };
}

/// Memory that is not the server's: of the machine and of the peers.
#[derive(Clone, Copy, Default)]
struct Account {
    depth: u32,
    since: isize,
    bytes: isize,
}

/// As long as it lives what is allocated is not the server's.
struct Aside(Option<fn() -> isize>);

impl Aside {
    fn begin() -> Self {
        let meter = METER.get();
        if let Some(meter) = meter {
            let mut account = ASIDE.get();
            if account.depth == 0 {
                account.since = meter();
            }
            account.depth += 1;
            ASIDE.set(account);
        }
        Self(meter)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(meter) = self.0 {
            let mut account = ASIDE.get();
            account.depth -= 1;
            if account.depth == 0 {
                account.bytes += meter() - account.since;
            }
            ASIDE.set(account);
        }
    }
}

/// From here on it is counted what is not the server's, by what this says of all that is allocated.
pub fn set_meter(meter: fn() -> isize) {
    ASIDE.set(Account::default());
    METER.set(Some(meter));
}

/// What this allocates is not the server's.
pub fn aside<T>(act: impl FnOnce() -> T) -> T {
    let _aside = Aside::begin();
    act()
}

/// Bytes that are allocated and not the server's, since the meter was set.
pub fn aside_bytes() -> isize {
    ASIDE.get().bytes
}

static START: OnceLock<Instant> = OnceLock::new();

/// The millisecond in which every machine is switched on.
pub const BEGAN_MS: u64 = 1_800_000_000_000;

const TRACE_LINES: usize = 1_000_000;

fn with<T>(act: impl FnOnce(&mut Machine) -> T) -> T {
    let _aside = Aside::begin();
    MACHINE.with(|it| act(&mut it.borrow_mut()))
}

pub(crate) fn now() -> Instant {
    *START.get_or_init(Instant::now) + with(Machine::read_clock)
}

pub(crate) fn unix_time() -> Duration {
    Duration::from_millis(BEGAN_MS) + with(|it| it.now)
}

/// A descriptor that is kept for the time when there is no other.
#[derive(Debug)]
pub(crate) struct Spare;

impl Spare {
    pub(crate) fn new() -> io::Result<Self> {
        with(Machine::take_descriptor).map(|()| Self)
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        with(|it| it.descriptors += 1);
    }
}

pub(crate) fn queue_more(_: &TcpListener, _: i32) -> io::Result<()> {
    Ok(())
}

pub(crate) fn set_options(_: &TcpListener, _: Duration, _: usize) -> io::Result<()> {
    Ok(())
}

// What the test does with its machine.

/// Switches this thread's machine on, as new.
pub fn begin(seed: u64, faults: Faults, is_traced: bool) {
    let reserves = faults.descriptors > 10_000;
    with(|it| {
        *it = Machine {
            random: Random::new(seed),
            descriptors: faults.descriptors,
            hash: seed,
            trace: is_traced.then(VecDeque::new),
            // Growing is to take no time from those who are measured.
            sockets: Slab::with_capacity(if reserves { faults.descriptors } else { 0 }),
            looked: looked(),
            faults,
            ..Machine::default()
        };
    });
}

/// Who acts while the server waits: called when the time that it answered has come, or when a peer
/// has something to look at. `None`: never again.
pub fn set_hook(hook: impl FnMut() -> Option<Duration> + 'static) {
    with(|it| it.hook = Some(Box::new(hook)));
}

/// Time since the start.
pub fn elapsed() -> Duration {
    with(|it| it.now)
}

/// Time passes: a handler is slow.
pub fn advance(time: Duration) {
    with(|it| {
        it.now += time;
        it.disturbed += time;
    });
}

/// No more is injected from here on.
pub fn be_kind() {
    with(|it| {
        let old = it.faults.clone();
        it.faults = Faults {
            to_server: old.to_server,
            to_client: old.to_client,
            descriptors: old.descriptors,
            read_max: old.read_max,
            write_max: old.write_max,
            reads_on: old.reads_on,
            accept_max: old.accept_max,
            ..Faults::default()
        };
    });
}

/// What was found wrong; the hash of all that has happened; the end of its trace.
pub fn problems() -> Vec<String> {
    with(|it| std::mem::take(&mut it.problems))
}

pub fn hash() -> u64 {
    with(|it| it.hash)
}

pub fn trace() -> Vec<String> {
    with(|it| it.trace.take().unwrap_or_default().into())
}

/// What comes from here on is the end of a run that has failed, and not of interest.
pub fn freeze() {
    with(|it| it.is_frozen = true);
}

/// Notes what happens, for the hash and for the trace.
pub fn note(what: &str, a: u64, b: u64) {
    with(|it| it.note(what, a, b));
}

/// Whether somebody has rung, and the server has not woken yet.
pub fn is_rung() -> bool {
    with(|it| it.bell_due.is_some())
}

/// For how long time has jumped in all.
pub fn disturbed() -> Duration {
    with(|it| it.disturbed)
}

/// The same when this turn began.
pub fn disturbed_before() -> Duration {
    with(|it| it.disturbed_before)
}

/// Connections that the machine has ended itself.
pub fn excuses() -> u64 {
    with(|it| it.excuses)
}

/// Events for clients that had left.
pub fn stale_told() -> u64 {
    with(|it| it.stale_told)
}

/// Whether no event is on its way and nobody has anything to look at.
pub fn is_quiet() -> bool {
    with(|it| {
        it.pending_count == 0
            && it.woken.is_empty()
            && it.bell_due.is_none()
            && it.listening.iter().all(|listening| listening.due.is_none())
    })
}

/// Sockets that the server holds, those that wait to be accepted, descriptors in use.
pub fn census() -> (usize, usize, usize) {
    with(|it| {
        let held = it.sockets.iter().filter(|(_, it)| it.is_accepted && !it.is_closed).count();
        let waiting = it.listening.iter().map(|it| it.queue.len()).sum();
        (held, waiting, it.faults.descriptors - it.descriptors)
    })
}

/// Server's ends, by their tokens: whether bytes, or an end, wait to be read; whether they would
/// take bytes.
pub fn states() -> Vec<(Token, bool, bool)> {
    with(|it| {
        let held = it.sockets.iter().filter(|(_, it)| it.is_accepted && !it.is_closed);
        held.filter_map(|(_, it)| Some((it.token?, it.is_readable(), it.has_room()))).collect()
    })
}

/// What was done until now.
pub fn work() -> Work {
    with(|it| Work { turns: it.turn, ..it.work })
}

/// Those whose sockets have changed, each once.
pub fn take_woken() -> Vec<(usize, u32)> {
    with(|it| {
        let woken = std::mem::take(&mut it.woken);
        let mut found = Vec::new();
        for at in woken {
            if let Some(socket) = it.sockets.get_mut(at) {
                socket.is_woken = false;
                found.push((at, socket.owner));
                it.bury(at);
            }
        }
        found
    })
}

/// Whether clients of this listener have no address.
pub fn is_unix(listener: usize) -> bool {
    with(|it| it.listening.get(listener).is_some_and(|it| it.is_unix))
}

/// How many wait at this listener.
pub fn queued(listener: usize) -> usize {
    with(|it| it.listening.get(listener).map_or(0, |it| it.queue.len()))
}

// What a peer does.

pub fn connect(owner: u32, listener: usize, peer: SocketAddr) -> Option<usize> {
    with(|it| {
        if it.listening.get(listener).is_none_or(|it| it.is_closed) {
            return None;
        }
        let at = it.sockets.insert(Socket {
            owner,
            peer,
            token: None,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            is_ended: false,
            is_gone: false,
            is_shut: false,
            is_closed: false,
            is_accepted: false,
            error: None,
            is_reset: false,
            is_full: false,
            due: None,
            turn: 0,
            accepted_in: 0,
            reads: 0,
            read_bytes: 0,
            written_bytes: 0,
            is_woken: false,
            waits_to_send: false,
        });
        it.note("connect", at as u64, u64::from(owner));
        let due = it.when();
        let listening = &mut it.listening[listener];
        listening.queue.push_back(at);
        listening.due.get_or_insert(due);
        Some(at)
    })
}

/// Gives bytes to the kernel; returns how many it took.
pub fn send(at: usize, bytes: &[u8]) -> usize {
    with(|it| {
        it.note("send", at as u64, bytes.len() as u64);
        let room = it.faults.to_server;
        let socket = &mut it.sockets[at];
        if socket.is_closed || socket.is_reset || socket.is_ended {
            return bytes.len();
        }
        let count = bytes.len().min(room.saturating_sub(socket.to_server.len()));
        socket.to_server.extend(&bytes[..count]);
        socket.waits_to_send = count < bytes.len();
        if count > 0 {
            it.edge(at);
        }
        count
    })
}

/// Takes at most so many bytes from the kernel.
pub fn receive(at: usize, most: usize, out: &mut Vec<u8>) -> Found {
    with(|it| {
        let size = it.faults.to_client;
        let socket = &mut it.sockets[at];
        let count = most.min(socket.to_client.len());
        out.extend(socket.to_client.drain(..count));
        give_back(&mut socket.to_client);
        if count > 0 {
            let has_room = socket.is_full && size - socket.to_client.len() >= size.div_ceil(3);
            socket.is_full &= !has_room;
            it.note("receive", at as u64, count as u64);
            if has_room {
                it.edge(at);
            }
            return Found::Bytes;
        }
        match (socket.to_client.is_empty(), socket.is_shut || socket.is_closed) {
            _ if socket.is_reset => Found::Reset,
            (true, true) => Found::End,
            _ => Found::Nothing,
        }
    })
}

/// Bytes that the server has written and the peer has not looked at.
pub fn unread(at: usize) -> usize {
    with(|it| it.sockets[at].to_client.len())
}

/// Ends the peer's direction.
pub fn end(at: usize) {
    with(|it| {
        it.note("end", at as u64, 0);
        it.sockets[at].is_ended = true;
        it.edge(at);
    });
}

/// The peer lets go. It ends as a kernel ends it: by a reset if something was not read.
pub fn leave(at: usize, is_rude: bool) {
    with(|it| {
        let loses = it.random.chance(500);
        let socket = &mut it.sockets[at];
        let resets = is_rude || !socket.to_client.is_empty();
        socket.is_gone = true;
        socket.is_ended = true;
        socket.to_client.clear();
        if resets && loses {
            socket.to_server.clear();
        }
        it.note("leave", at as u64, u64::from(resets));
        match resets {
            true => it.reset(at),
            false => it.edge(at),
        }
        it.bury(at);
    });
}

/// An idle socket is to be small.
fn give_back(queue: &mut VecDeque<u8>) {
    if queue.is_empty() && queue.capacity() > 64 {
        *queue = VecDeque::new();
    }
}

impl Socket {
    fn is_readable(&self) -> bool {
        !self.to_server.is_empty() || self.is_ended || self.is_reset
    }

    fn has_room(&self) -> bool {
        !self.is_full || self.is_reset
    }
}

impl Machine {
    fn note(&mut self, what: &str, a: u64, b: u64) {
        let mut mix = |value: u64| {
            self.hash = (self.hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.hash ^= self.hash >> 29;
        };
        let word = what.bytes().fold(0, |all: u64, byte| all.rotate_left(7) ^ u64::from(byte));
        [word, a, b].into_iter().for_each(&mut mix);
        let ns = u64::try_from(self.now.as_nanos()).unwrap_or(u64::MAX);
        mix(ns);
        if let Some(trace) = self.trace.as_mut().filter(|_| !self.is_frozen) {
            if trace.len() == TRACE_LINES {
                trace.pop_front();
            }
            trace.push_back(format!("{:>12.6} {what} {a} {b}", self.now.as_secs_f64()));
        }
    }

    fn wrong(&mut self, what: String) {
        self.note(&what, 0, 0);
        self.is_frozen = true;
        self.problems.push(what);
    }

    /// When an event comes of what happens now.
    fn when(&mut self) -> Duration {
        match self.random.chance(self.faults.late) {
            true => self.now + self.random.time(self.faults.late_max),
            false => self.now,
        }
    }

    fn edge(&mut self, at: usize) {
        let due = self.when();
        let Some(socket) = self.sockets.get_mut(at) else { return };
        if socket.token.is_some() && socket.due.is_none() {
            self.events_made += 1;
            socket.due = Some((due, self.events_made));
            self.pending.push(Reverse((due, self.events_made, at)));
            self.pending_count += 1;
        }
    }

    fn wake(&mut self, at: usize) {
        let socket = &mut self.sockets[at];
        if !socket.is_gone && !socket.is_woken {
            socket.is_woken = true;
            self.woken.push(at);
        }
    }

    fn reset(&mut self, at: usize) {
        let socket = &mut self.sockets[at];
        if !socket.is_reset {
            socket.is_reset = true;
            socket.error = Some(ECONNRESET);
            socket.to_client.clear();
            self.edge(at);
        }
    }

    /// Forgets what neither side holds.
    fn bury(&mut self, at: usize) {
        let socket = &self.sockets[at];
        let is_queued = !socket.is_accepted && !socket.is_closed;
        if socket.is_gone && socket.is_closed && !is_queued && !socket.is_woken {
            self.pending_count -= usize::from(socket.due.is_some());
            self.sockets.remove(at);
        }
    }

    /// What the server has done since it last looked at the clock took time.
    fn read_clock(&mut self) -> Duration {
        if self.faults.look > Duration::ZERO {
            let looks = u32::try_from(looked() - self.looked).unwrap_or(u32::MAX);
            self.looked = looked();
            self.now += self.faults.look * looks;
        }
        self.now
    }

    /// What the server has asked for takes time.
    fn takes_time(&mut self) {
        self.now += self.faults.cost;
        self.disturbed += self.faults.cost;
    }

    fn take_descriptor(&mut self) -> io::Result<()> {
        match self.descriptors.checked_sub(1) {
            Some(left) => {
                self.descriptors = left;
                Ok(())
            }
            None => Err(io::Error::from_raw_os_error(EMFILE)),
        }
    }
}

const EINTR: i32 = 4;
const EMFILE: i32 = 24;
const EPIPE: i32 = 32;
const ECONNABORTED: i32 = 103;
const ECONNRESET: i32 = 104;
