//! THE CROWD: the real loop with very many clients at once, on the machine of the simulation.
//! `make simulate` has 100,000 of them, `make simulate-crowd CLIENTS=1000000` as many as are wanted
//! (`docs/testing.md`); without `--cfg simulation` this file is empty.
//!
//! What is measured is counted: bytes that the server has allocated, clients that it looks at, what
//! it asks of the machine, turns, and simulated time, in which each accept, read and write takes
//! 5 µs, each look at a client 50 ns, and everything else none. So nothing here depends on how fast
//! this machine is. How much processor time it took is told beside it.

#![cfg(simulation)]
#![expect(clippy::unwrap_used, reason = "a test that stops is a test that tells")]
#![allow(unreachable_pub, reason = "a test has no other crate")]

#[path = "simulation/crowd.rs"]
mod crowd;

use std::alloc::System;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::LazyLock;
use std::time::Duration;

use crowd::Crowd;
use pousse::seam::Tick;
use pousse::seam::machine::{self, Faults};
use pousse::{Config, ConnId, Context, Handler, Message, Reason, Server};
use rustix::time::{ClockId, clock_gettime};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What an accept, a read or a write takes, about as much as with a socket.
const COST: Duration = Duration::from_micros(5);
/// What a look at a client takes, with what is done for it then.
const LOOK: Duration = Duration::from_nanos(50);

/// What the server may have allocated for an idle client, all of its own included.
const BYTES_MAX: usize = 256;

/// How long an innocent may wait for an answer, whatever there is to do.
const WAIT_MAX: Duration = Duration::from_millis(500);

struct Quiet;

impl Handler for Quiet {
    fn on_message(&mut self, _: ConnId, _: Message<'_>, _: &mut Context<'_>) {}
}

fn allocated() -> isize {
    let stats = GLOBAL.stats();
    stats.bytes_allocated.wrapping_sub(stats.bytes_deallocated).cast_signed()
}

/// Processor time of this thread, in ns. Valgrind cannot ask for it: none with `POUSSE_CLOCK=no`.
fn spent() -> u64 {
    static HAS_NONE: LazyLock<bool> =
        LazyLock::new(|| std::env::var("POUSSE_CLOCK").is_ok_and(|it| it == "no"));
    if *HAS_NONE {
        return 0;
    }
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap()
}

/// A server, its crowd, and what was measured.
struct Run {
    server: Server<Quiet>,
    crowd: Rc<RefCell<Crowd>>,
    count: usize,
    /// Allocated before there was a server.
    before: isize,
    /// Of the turns since the last phase began: the longest in simulated time, and in the
    /// processor's; the most writes in one.
    longest: Duration,
    longest_ns: u64,
    writes_max: u64,
    turns: u64,
    /// Looks at clients, and what they were for: events, accepts, reads, writes, deadlines, and
    /// readers of what was published.
    looked: u64,
    done: u64,
    given: u64,
    /// Looks in a turn in which nothing was to be done, at most.
    idle: u64,
}

impl Run {
    /// `ping`: how often each is pinged.
    fn new(count: usize, ping: Duration) -> Self {
        machine::begin(count as u64, Faults::default(), false);
        machine::set_meter(allocated);
        let mut config = Config::default();
        let limits = &mut config.limits;
        // The innocent beside them.
        limits.max_clients = count + 1;
        limits.ping = ping;
        limits.history = 100;
        let faults = Faults {
            to_server: 64 << 10,
            to_client: 64 << 10,
            descriptors: count + 10,
            read_max: limits.turn_read,
            write_max: 2 * limits.turn_write,
            accept_max: limits.turn_accept,
            cost: COST,
            look: LOOK,
            ..Faults::default()
        };
        machine::begin(count as u64, faults, false);
        let crowd = machine::aside(|| Crowd::new(count));
        let before = allocated() - machine::aside_bytes();
        let server = Server::bind(config, Quiet).unwrap();
        machine::aside(|| Crowd::comes(&crowd, server.remote()));
        Self {
            server,
            crowd,
            count,
            before,
            longest: Duration::ZERO,
            longest_ns: 0,
            writes_max: 0,
            turns: 0,
            looked: 0,
            done: 0,
            given: 0,
            idle: 0,
        }
    }

    /// What the server has allocated.
    fn bytes(&self) -> usize {
        (allocated() - machine::aside_bytes() - self.before).try_into().unwrap()
    }

    /// Forgets what the turns until now took.
    fn begin(&mut self) {
        (self.longest, self.longest_ns, self.writes_max, self.turns) = Default::default();
        self.crowd.borrow_mut().waits.clear();
    }

    /// One turn, and what must be so in each.
    fn turn(&mut self) {
        let (work, looked, ns) = (machine::work(), machine::looked(), spent());
        let came = self.server.came();
        self.server.turn(None).unwrap();
        let (ns, looked) = (spent() - ns, machine::looked() - looked);
        let now = machine::work();
        let did = (now.accepts - work.accepts, now.reads - work.reads, now.writes - work.writes);
        let took = COST * u32::try_from(did.0 + did.1 + did.2).unwrap()
            + LOOK * u32::try_from(looked).unwrap();
        self.turns += 1;
        self.longest = self.longest.max(took);
        self.longest_ns = self.longest_ns.max(ns);
        self.writes_max = self.writes_max.max(did.2);
        if let Some(problem) = self.crowd.borrow_mut().problem.take() {
            panic!("{problem}");
        }
        let problems = machine::problems();
        assert!(problems.is_empty(), "{problems:?}");
        // Reading, deadlines, answers and fan-out each end in their time, or with the slice or the
        // sixteen that were begun.
        let limits = self.server.limits();
        let came = self.server.came() - came;
        let most = 4 * limits.turn_time
            + limits.turn_time / 8
            + (COST + 8 * LOOK) * (limits.turn_readers + 2 * 16 + 1 + limits.turn_accept) as u32;
        assert!(took <= most, "a turn took {took:?}: {did:?}");
        // A client is looked at for what it does, or for what is to be done for it.
        let events = now.events - work.events;
        let done = events + did.0 + did.1 + did.2 + came;
        let given = u64::from(self.crowd.borrow().published) * self.count as u64;
        self.done += done + given - std::mem::replace(&mut self.given, given);
        self.looked += looked;
        assert!(self.looked <= 16 * self.done, "{} looks for {} things", self.looked, self.done);
        if done == 0 {
            self.idle = self.idle.max(looked);
        }
        let from = usize::try_from(now.turns).unwrap() * 16 % (self.count + 1);
        for client in self.server.some(from, 16) {
            let due = client.deadline.max(Tick(self.server.now().0 + 1));
            let is_armed = client.deadline == Tick::NEVER || client.armed <= due;
            assert!(client.is_listed || is_armed, "{client:?} at {:?}", self.server.now());
            assert!(!client.is_lost, "{client:?}");
        }
    }

    fn turn_until(&mut self, is_through: impl Fn(&Crowd) -> bool) {
        while !is_through(&self.crowd.borrow()) {
            self.turn();
        }
    }

    fn turn_for(&mut self, time: Duration) {
        let until = machine::elapsed() + time;
        while machine::elapsed() < until {
            self.turn();
        }
    }

    /// Messages one after the other for five seconds; how long an innocent waited meanwhile.
    fn flooded(&mut self) -> (Duration, Duration) {
        self.begin();
        self.crowd.borrow_mut().publishes(Some(Duration::from_millis(100)));
        self.turn_for(Duration::from_secs(5));
        self.crowd.borrow_mut().publishes(None);
        self.turn_until(Crowd::is_through);
        println!("{} messages in 5 s:", self.crowd.borrow().published);
        self.tell()
    }

    /// Says what the phase came to; how long an innocent waited, 99 times of a hundred and at most.
    fn tell(&self) -> (Duration, Duration) {
        let (p99, longest, turns) = self.waits();
        println!("  an innocent waited {p99:?} (99 of 100), {longest:?} at most, {turns} turns");
        println!("  the longest turn {:?}; {:.1} ms in truth", self.longest, ms(self.longest_ns));
        assert!(longest < WAIT_MAX, "{longest:?}");
        (p99, longest)
    }

    /// How long the innocent waited: of a hundred answers the longest but one, and the longest of
    /// all; and for how many turns at most.
    fn waits(&self) -> (Duration, Duration, u64) {
        let mut waits = self.crowd.borrow().waits.clone();
        assert!(!waits.is_empty(), "the innocent has asked nothing");
        let turns = waits.iter().map(|(_, turns)| *turns).max().unwrap();
        waits.sort_unstable();
        let at = |of_a_hundred: usize| waits[(waits.len() - 1) * of_a_hundred / 100].0;
        (at(99), at(100), turns)
    }
}

fn clients(usual: usize) -> usize {
    let text = std::env::var("POUSSE_CLIENTS").unwrap_or_default();
    if text.is_empty() { usual } else { text.parse().expect("POUSSE_CLIENTS is a number") }
}

const PING: Duration = Duration::from_secs(25);

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

#[test]
fn a_crowd_is_let_in_and_rests_and_costs_what_it_may() {
    let count = clients(100_000);
    let mut run = Run::new(count, PING);
    let began = spent();
    run.turn_until(|crowd| crowd.open == count);
    println!("\n{count} clients");
    println!(
        "let in after {:?}, {:.0} ms of processor time",
        machine::elapsed(),
        ms(spent() - began)
    );
    run.tell();
    assert_eq!(run.server.counted().0, count + 1);

    // A round of pings, behind the first one: those who came together do not stay together.
    run.turn_for(Duration::from_secs(40));
    let from = usize::try_from(machine::elapsed().as_millis() / 100).unwrap();
    run.begin();
    let began = spent();
    run.turn_for(2 * PING);
    let cpu = ms(spent() - began) / 500.0;
    let pings = run.crowd.borrow().pings[from..].to_vec();
    let (sum, most) = (pings.iter().sum::<u32>(), *pings.iter().max().unwrap());
    let mean = f64::from(sum) / pings.len() as f64;
    println!(
        "pings: {sum} in 50 s, {mean:.0} in a tick, {most} at most; {cpu:.1} % of a processor"
    );
    run.tell();
    assert!(u64::from(sum) >= 2 * count as u64 * 8 / 10, "{sum} pings");
    assert!(f64::from(most) <= 3.0 * mean + 10.0, "{most} pings in a tick, {mean} on average");

    // What a turn costs in which there is nothing to do.
    while run.server.turn(Some(Duration::ZERO)).unwrap() == Some(Duration::ZERO)
        || !machine::is_quiet()
    {}
    let (looked, allocations) = (machine::looked(), GLOBAL.stats().allocations);
    let began = spent();
    for _ in 0..1000 {
        run.server.turn(Some(Duration::ZERO)).unwrap();
    }
    println!("a turn with nothing to do: {} ns of processor time", (spent() - began) / 1000);
    assert!(machine::looked() == looked, "{} looks", machine::looked() - looked);
    assert!(GLOBAL.stats().allocations == allocations, "something was allocated");

    let (bytes, slot) = (run.bytes(), size_of::<pousse::seam::Client>());
    println!(
        "at rest: {bytes} bytes, {:.1} a client, {slot} its slot",
        bytes as f64 / count as f64
    );
    // And what does not depend on how many there are.
    assert!(bytes <= count * BYTES_MAX + (1 << 20), "{bytes} bytes for {count} clients");

    // The machine sleeps for so long that everyone's deadline has come when it wakes.
    run.begin();
    machine::advance(Duration::from_secs(60));
    run.crowd.borrow_mut().wakes();
    run.turn_for(Duration::from_secs(30));
    println!("after a sleep of a minute:");
    run.tell();
    assert_eq!(run.server.counted().0, count + 1);
}

#[test]
fn while_a_crowd_is_given_what_is_published_an_innocent_waits_a_little() {
    let count = clients(100_000);
    let mut run = Run::new(count, PING);
    run.turn_until(|crowd| crowd.open == count);
    run.turn_for(Duration::from_secs(1));
    // One alone: how long it takes to reach all.
    run.begin();
    let (since, began, looked) = (machine::elapsed(), spent(), machine::looked());
    run.crowd.borrow_mut().publish();
    run.turn_until(Crowd::is_through);
    let each = (spent() - began) / count as u64;
    let looks = (machine::looked() - looked) as f64 / count as f64;
    let took = machine::elapsed() - since;
    println!("\n{count} readers\none message reaches all in {took:?}, {} turns", run.turns);
    println!(
        "{} writes in a turn at most, {looks:.1} looks and {each} ns for each",
        run.writes_max
    );
    // Then one after the other, faster than all can be given them one by one.
    let (p99, _) = run.flooded();
    assert!(count > 100_000 || p99 < Duration::from_millis(50), "{p99:?}");
    // Then they leave, and nothing is left of them.
    run.crowd.borrow_mut().leave();
    while run.server.counted().0 > 1 {
        run.turn();
    }
    run.turn_for(Duration::from_secs(130));
    assert_eq!(run.server.counters().closed(Reason::Gone), count as u64);
    let slots = size_of::<pousse::seam::Client>() * (count + 1);
    let left = run.bytes() - slots;
    println!("when they have left {left} bytes are left, beside the room for their slots");
    assert!(left < 1 << 20, "{left} bytes are left");
}

/// A million who came together are pinged together, 60,000 a second at the worst, and that alone
/// takes more than half of the time. Here a tenth of them are pinged so much more often.
#[test]
fn with_as_much_to_do_as_a_million_make_an_innocent_waits_a_little() {
    let count = 100_000;
    let mut run = Run::new(count, PING / 16);
    run.turn_until(|crowd| crowd.open == count);
    run.turn_for(Duration::from_secs(10));
    println!("\n{count} readers, pinged every {:?}", PING / 16);
    run.flooded();
}

/// Also under valgrind (`docs/performance.md`), where the instructions are counted of `one_turn`
/// without those of the peers.
#[test]
fn what_a_delivery_costs() {
    let count = clients(1000);
    // No deadline comes while it is measured.
    let mut run = Run::new(count, Duration::from_secs(3600));
    run.turn_until(|crowd| crowd.open == count);
    run.turn_for(Duration::from_secs(12));
    let times = (100_000 / count).clamp(1, 1000);
    let mut ns = 0;
    for _ in 0..times {
        run.crowd.borrow_mut().publish();
        while !run.crowd.borrow().is_through() {
            let (began, others) = (spent(), run.crowd.borrow().spent);
            one_turn(&mut run.server);
            ns += spent() - began - (run.crowd.borrow().spent - others);
        }
    }
    let deliveries = times * count;
    println!("\n{count} readers, {times} messages: {} ns a delivery", ns / deliveries as u64);
}

#[inline(never)]
fn one_turn(server: &mut Server<Quiet>) {
    server.turn(None).unwrap();
}
