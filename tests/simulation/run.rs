//! One run: a server, its peers, a machine between them, all from one seed; and what must be so
//! after every turn, whenever the loop rests, and at the end.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use pousse::seam::machine::{self, Faults, Random};
use pousse::seam::{Inside, Seen, Tick};
use pousse::{CloseCode, Config, Inherited, Limits, Reason, Remote, Server};

use crate::client::{Client, Mood, World};
use crate::handler::Application;
use crate::oracle::Oracle;

/// What a seed decides before anything happens.
pub struct Plan {
    seed: u64,
    limits: Limits,
    faults: Faults,
    moods: Vec<Mood>,
    topics: usize,
    ends_at: Duration,
    drains_at: Option<Duration>,
    is_prompt: bool,
    is_tls: bool,
    /// Listeners of TCP, and of unix sockets.
    listeners: (usize, usize),
}

/// What a run came to.
#[derive(Debug, Default)]
pub struct Sum {
    pub turns: u64,
    pub entries: u64,
    pub clients: u64,
    pub hash: u64,
    pub gaps: u64,
    pub stale: u64,
    /// Messages that the server compressed, and those that it took out.
    pub deflated: u64,
    pub inflated: u64,
    pub simulated: Duration,
}

impl Sum {
    pub fn add(&mut self, other: &Sum) {
        self.turns += other.turns;
        self.entries += other.entries;
        self.clients += other.clients;
        self.hash ^= other.hash;
        self.gaps += other.gaps;
        self.stale += other.stale;
        self.deflated += other.deflated;
        self.inflated += other.inflated;
        self.simulated += other.simulated;
    }
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Plan {
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x0070_6c61_6e00);
        let r = &mut random;
        let mut limits = Limits::default();
        // A few are small in each run: so each is met, and most are not in the way.
        limits.max_message = r.pick(&[600, 4096, 4096, 4096, 100_000]);
        limits.history = r.pick(&[0, 1, 3, 10, 100, 1000]);
        limits.history_bytes = r.pick(&[2000, 20_000, 1 << 20, 1 << 20]);
        limits.history_total = r.pick(&[8000, 100_000, 1 << 20, 1 << 20]);
        limits.history_age = r.pick(&[Duration::from_secs(3), Duration::from_secs(60)]);
        limits.max_topics = r.pick(&[2, 10, 10, 10]);
        limits.max_clients = r.pick(&[5, 10_000, 10_000, 10_000]);
        limits.openings = r.pick(&[3, 1000]);
        limits.max_per_ip = r.pick(&[2, 256]);
        limits.memory = r.pick(&[30_000, 1 << 29, 1 << 29, 1 << 29]);
        limits.outbox_soft = r.pick(&[3000, 256 << 10]);
        limits.outbox = r.pick(&[3000, 1 << 20]);
        limits.poll_bytes = r.pick(&[2000, 256 << 10]);
        limits.subscriptions = r.pick(&[2, 128]);
        limits.requests = r.pick(&[3, 1000, 1000]);
        limits.commands = r.pick(&[1, 1024]);
        limits.controls = r.pick(&[20, 250]);
        limits.head_timeout = ms(2000);
        limits.body_timeout = ms(2000);
        limits.idle_timeout = ms(3000);
        limits.ping = r.pick(&[ms(1000), ms(2500)]);
        limits.pong_timeout = ms(2000);
        limits.message_timeout = ms(3000);
        limits.close_timeout = ms(1000);
        limits.stall = r.pick(&[ms(1500), ms(4000)]);
        limits.wait_max = ms(3000);
        limits.drain = r.pick(&[ms(0), ms(1000), ms(4000)]);
        limits.turn_read = r.pick(&[300, 4096, 64 << 10, 320 << 10]);
        limits.turn_messages = r.pick(&[1, 3, 1024]);
        limits.turn_write = r.pick(&[1000, 320 << 10]);
        limits.turn_accept = r.pick(&[1, 64]);
        limits.turn_readers = r.pick(&[1, 3, 1024]);
        let mut rate = |of: &[u64]| if r.chance(500) { r.pick(of) } else { 0 };
        let usual = [5, 30, 150];
        let mut faults = Faults {
            short_read: rate(&usual),
            short_write: rate(&usual),
            would_block: rate(&usual),
            interrupted: rate(&usual),
            late: rate(&[30, 300]),
            repeated: rate(&usual),
            reordered: rate(&[500]),
            spurious: rate(&usual),
            stale: rate(&[500, 1000]),
            accept_gone: rate(&[20]),
            accept_lack: rate(&[20, 100]),
            jump: rate(&[2, 20]),
            ..Faults::default()
        };
        faults.late_max = r.pick(&[ms(5), ms(60)]);
        faults.jump_max = r.pick(&[ms(300), ms(5000)]);
        faults.to_server = r.pick(&[200, 3000, 64 << 10]);
        faults.to_client = r.pick(&[300, 3000, 64 << 10, 1 << 20]);
        let answer = limits.poll_bytes + limits.outbox_soft.max(limits.outbox);
        faults.read_max = limits.turn_read;
        // Once while it is read, and once more.
        faults.write_max = 2 * limits.turn_write + answer + (64 << 10) + 4 * limits.max_message;
        faults.accept_max = limits.turn_accept;
        let count = match r.below(60) {
            0 => r.between(80, 200),
            1..4 => r.between(20, 50),
            _ => r.between(2, 9),
        };
        let moods = [Mood::Slow, Mood::Stalling, Mood::Dying, Mood::Hostile, Mood::Lazy];
        let moods = (0..count).map(|at| match at < 2 || r.chance(500) {
            true => Mood::Good,
            false => r.pick(&moods),
        });
        let moods: Vec<Mood> = moods.collect();
        faults.descriptors = match r.below(6) {
            0 => 6,
            _ => 10_000,
        };
        let is_tls = moods.len() < 10 && r.chance(120);
        if is_tls {
            // Records are longer than what is in them, one may not be whole, and rustls reads so
            // much at once.
            faults.read_max += 40 << 10;
            faults.reads_on = true;
            faults.write_max += 96 << 10;
        }
        let is_prompt = limits.max_clients > 1000
            && faults.descriptors > 1000
            && faults.accept_lack == 0
            && limits.memory > 1 << 20;
        if r.chance(40) {
            // Long messages, and kernels that take all of them: more than is taken at once.
            limits.max_message = 40_000;
            limits.history = 1000;
            (limits.history_bytes, limits.history_total) = (1 << 20, 4 << 20);
            (limits.turn_write, limits.turn_readers) = (256 << 10, 1024);
            (limits.outbox_soft, limits.outbox, limits.memory) = (256 << 10, 1 << 20, 1 << 29);
            (faults.short_write, faults.would_block) = (0, 0);
            (faults.to_server, faults.to_client) = (64 << 10, 1 << 20);
            let answer = limits.poll_bytes + limits.outbox;
            faults.write_max = 2 * limits.turn_write + answer + (256 << 10);
        }
        let mut topics = r.between(1, 5) as usize;
        let ends_at = ms(r.between(3000, 9000));
        let drains_at = r.chance(200).then(|| ms(r.between(2000, 5000)));
        let listeners = r.pick(&[(1, 0), (1, 0), (1, 0), (1, 1), (1, 1), (0, 1)]);
        if r.chance(200) {
            // So a round of readers, or of those who are read, takes more than one turn.
            faults.cost = r.pick(&[Duration::from_micros(300), ms(1), ms(4)]);
        }
        let mut moods = moods;
        if r.chance(60) {
            // Many who read one topic of which little is kept, and rounds of many turns.
            topics = 1;
            limits.history = r.pick(&[0, 1, 3]);
            (limits.turn_time, limits.turn_readers) = (ms(1), r.pick(&[1, 3]));
            (limits.max_clients, limits.openings, limits.max_per_ip) = (10_000, 1000, 256);
            faults.cost = r.pick(&[Duration::from_micros(300), ms(1)]);
            (faults.to_client, faults.descriptors) = (64 << 10, 10_000);
            moods.resize(moods.len() + 12, Mood::Good);
        }
        Self {
            seed,
            topics,
            ends_at,
            drains_at,
            listeners,
            limits,
            faults,
            moods,
            is_prompt,
            is_tls,
        }
    }

    /// The run; the second is the end of its trace, if it failed and was to be traced.
    pub fn run(self, is_traced: bool) -> Result<Sum, (String, Vec<String>)> {
        machine::begin(self.seed, self.faults.clone(), is_traced);
        let what = catch_unwind(AssertUnwindSafe(|| self.go()));
        let what = what.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
            Err(format!("a panic: {}", text.unwrap_or_default()))
        });
        what.map_err(|problem| (problem, machine::trace()))
    }

    fn go(self) -> Result<Sum, String> {
        let mut config = Config::default();
        config.limits = self.limits.clone();
        config.tls = self.is_tls.then(crate::secret::certificate);
        config.publish = Some(pousse::Publish::Anyone);
        let oracle = Rc::new(RefCell::new(Oracle::new(self.topics, machine::BEGAN_MS)));
        let application =
            Application { oracle: oracle.clone(), remote: Rc::default(), wakes: Vec::new() };
        let queue = application.remote.clone();
        config.listen.truncate(self.listeners.0);
        let unix = (0..self.listeners.1).map(|_| somewhere()).collect();
        let mut server =
            Server::bind_with(config, unix, application).map_err(|error| error.to_string())?;
        let peers =
            Rc::new(RefCell::new(Peers::new(&self, oracle.clone(), server.remote(), queue)));
        let acting = peers.clone();
        machine::set_hook(move || acting.borrow_mut().step());
        let mut watch = Watch { seen: 0, idle: (Duration::ZERO, 0), plan: &self };
        let mut sum = Sum { clients: self.moods.len() as u64, ..Sum::default() };
        loop {
            let rest = server.turn(None).map_err(|error| error.to_string())?;
            sum.turns += 1;
            let inside = server.inside();
            let (appended, held) = (server.appended(), server.entries_after(watch.seen));
            oracle.borrow_mut().look(&inside, appended, &held);
            watch.seen = inside.newest;
            let mut problems = machine::problems();
            problems.append(&mut oracle.borrow_mut().problems);
            problems.extend(peers.borrow_mut().problem.take());
            if let Some(problem) = problems.into_iter().next() {
                machine::freeze();
                return Err(problem);
            }
            watch
                .after_a_turn(&inside, rest, server.limits())
                .inspect_err(|_| machine::freeze())?;
            if server.has_ended() || peers.borrow().is_over {
                break;
            }
        }
        let inside = server.inside();
        let (stale, counters) = (machine::stale_told(), server.counters().clone());
        self.at_the_end(&inside, &oracle.borrow(), server.has_ended(), &peers.borrow())?;
        let closed: u64 = Reason::ALL.iter().map(|it| counters.closed(*it)).sum();
        if closed != counters.accepted {
            return Err(format!("{} were accepted, {closed} were closed", counters.accepted));
        }
        if stale != counters.stale_events {
            return Err(format!("{stale} stale events, and {} counted", counters.stale_events));
        }
        if self.drains_at.is_none() {
            let excused = Reason::ALL.iter().filter(|it| !NO_EXCUSES.contains(it));
            let turned_away = [Reason::Descriptors, Reason::MaxPerIp, Reason::MaxNewPerIp];
            let excuses = machine::excuses()
                + excused.map(|it| counters.closed(*it)).sum::<u64>()
                + turned_away.iter().map(|it| counters.refused(*it)).sum::<u64>();
            let peers = peers.borrow();
            let ends = peers.clients.iter().filter(|it| it.is_innocent());
            let ends: u64 = ends.map(|it| it.silent_ends).sum();
            if ends > excuses {
                let closed = Reason::ALL.iter().map(|it| (it, counters.closed(*it)));
                let closed: Vec<_> = closed.filter(|(_, count)| *count > 0).collect();
                return Err(format!(
                    "innocents were cut {ends} times, excused {excuses}; {closed:?}"
                ));
            }
        }
        sum.entries = peers.borrow().clients.iter().map(|it| it.entries).sum();
        sum.gaps = counters.gaps;
        sum.deflated = counters.deflated_9 + counters.deflated_15;
        sum.inflated = counters.inflated;
        sum.stale = stale;
        sum.simulated = machine::elapsed();
        drop(server);
        let (_, _, descriptors) = machine::census();
        if descriptors != 0 {
            return Err(format!("{descriptors} descriptors are left when the server is gone"));
        }
        sum.hash = machine::hash();
        // The hook holds the peers, and they the oracle.
        machine::begin(0, Faults::default(), false);
        Ok(sum)
    }

    fn at_the_end(
        &self,
        inside: &Inside,
        oracle: &Oracle,
        has_ended: bool,
        peers: &Peers,
    ) -> Result<(), String> {
        let wrong = |what: String| Err(format!("at the end: {what}"));
        if let Some(client) = inside.clients.first() {
            return wrong(format!("a client is left: {client:?}"));
        }
        if inside.counted_clients + inside.held_bytes + inside.waiting_bytes != 0 {
            return wrong(format!("something is still counted: {inside:?}"));
        }
        if let Some(topic) = inside.topics.iter().find(|it| it.readers > 0) {
            return wrong(format!("a topic has readers: {topic:?}"));
        }
        if let Some((conn, _)) = oracle.open.iter().find(|(_, is_open)| **is_open) {
            return wrong(format!("{conn} was opened and never closed"));
        }
        if let Some(drained) = self.drains_at {
            let jumped = machine::disturbed() - peers.drained_at.1;
            let allowed = self.limits.drain + jumped + ms(400) + 3 * self.faults.late_max;
            let took = machine::elapsed() - peers.drained_at.0;
            if !has_ended || took > allowed {
                return wrong(format!(
                    "a drain begun at {drained:?} took {took:?}, not {allowed:?}"
                ));
            }
            return Ok(());
        }
        let (held, waiting, descriptors) = machine::census();
        let listeners = self.listeners.0 + self.listeners.1;
        if (held, waiting) != (0, 0) || descriptors != 1 + listeners {
            return wrong(format!("sockets {held}, waiting {waiting}, descriptors {descriptors}"));
        }
        if inside.soonest != Tick::NEVER || inside.lists > 0 {
            return wrong(format!("a deadline or a list is not empty: {inside:?}"));
        }
        Ok(())
    }
}

/// A socket for which the machine has one of its own.
fn somewhere() -> Inherited {
    let (it, _) = UnixStream::pair().expect("two ends");
    UnixListener::from(OwnedFd::from(it)).into()
}

/// Ends that are no reason to cut an innocent client. All others are limits, or a closing that had
/// begun and may not have reached it.
const NO_EXCUSES: [Reason; 7] = [
    Reason::Done,
    Reason::Gone,
    Reason::Panic,
    Reason::Protocol,
    Reason::Utf8,
    Reason::Syntax,
    Reason::Request,
];

/// What is kept from turn to turn.
struct Watch<'p> {
    seen: u64,
    /// The moment, and how many turns it has lasted.
    idle: (Duration, u64),
    plan: &'p Plan,
}

impl Watch<'_> {
    fn after_a_turn(
        &mut self,
        inside: &Inside,
        rest: Option<Duration>,
        limits: &Limits,
    ) -> Result<(), String> {
        let now = machine::elapsed();
        self.idle = if self.idle.0 == now { (now, self.idle.1 + 1) } else { (now, 0) };
        if self.idle.1 > 50_000 {
            return Err(format!("{} turns, and no time has passed", self.idle.1));
        }
        // Who was visited late may have a deadline that is past, and is looked at in the next tick.
        let next = Tick(inside.now.0 + 1);
        for client in &inside.clients {
            if client.is_listed {
                continue;
            }
            if client.deadline <= inside.now && client.armed > next {
                return Err(format!("a deadline has passed: {client:?} at {:?}", inside.now));
            }
            if client.is_lost {
                return Err(format!("it would have taken what is no longer there: {client:?}"));
            }
            if client.deadline != Tick::NEVER && client.armed > client.deadline.max(next) {
                return Err(format!("nobody will look at {client:?}"));
            }
        }
        let looked_at = |it: &Seen| if it.is_listed { it.deadline } else { it.deadline.max(next) };
        let soonest = inside.clients.iter().map(looked_at).min().unwrap_or(Tick::NEVER);
        if soonest != Tick::NEVER {
            let due = soonest.since_start() + Tick::LENGTH;
            match rest {
                Some(rest) if now + rest <= due.max(now) => {}
                _ => return Err(format!("the loop would rest for {rest:?}, and {due:?} is due")),
            }
        }
        let client_bytes = limits.turn_read + 2 * limits.max_message + limits.head_bytes;
        let client_bytes = client_bytes + self.plan.faults.write_max;
        // Whoever passes the limit has somebody dropped at once.
        if inside.held_bytes > limits.memory + client_bytes {
            return Err(format!("clients hold {} bytes", inside.held_bytes));
        }
        // What one turn publishes comes on top: every client what it was read, and the handler.
        let each = client_bytes.min((64 << 10) + limits.max_message);
        let turn_bytes = (inside.clients.len() + 4) * each + (64 << 10);
        if inside.log_bytes > 2 * limits.history_total + turn_bytes {
            return Err(format!("the log holds {} bytes", inside.log_bytes));
        }
        if inside.clients.len() > limits.max_clients {
            return Err(format!("{} clients", inside.clients.len()));
        }
        match rest != Some(Duration::ZERO) && machine::is_quiet() {
            true => self.at_rest(inside, limits),
            false => Ok(()),
        }
    }

    /// Nothing is on its way, and the loop would sleep: then nobody is owed anything.
    fn at_rest(&self, inside: &Inside, limits: &Limits) -> Result<(), String> {
        let held: usize = inside.clients.iter().map(|it| it.held_bytes).sum();
        if held != inside.held_bytes || inside.counted_clients != inside.clients.len() {
            return Err(format!("{held} bytes are held, and {} counted", inside.held_bytes));
        }
        let states: HashMap<_, _> = machine::states()
            .into_iter()
            .map(|(token, reads, writes)| (token, (reads, writes)))
            .collect();
        for client in &inside.clients {
            let Some((is_readable, has_room)) = states.get(&client.token).copied() else {
                return Err(format!("a client without a socket: {client:?}"));
            };
            if has_room && (client.waiting_bytes > 0 || client.is_behind) {
                return Err(format!("at rest, and its socket would take more: {client:?}"));
            }
            if is_readable && client.wants_input {
                return Err(format!("at rest, and its bytes are not read: {client:?}"));
            }
        }
        let (_, waiting, _) = machine::census();
        if waiting > 0 && !inside.is_paused && inside.clients.len() < limits.max_clients {
            return Err(format!("at rest, and {waiting} wait to be accepted"));
        }
        Ok(())
    }
}

/// All peers, and when each acts.
struct Peers {
    clients: Vec<Client>,
    timers: BinaryHeap<Reverse<(Duration, usize)>>,
    oracle: Rc<RefCell<Oracle>>,
    remote: Remote,
    queue: Rc<RefCell<Vec<usize>>>,
    random: Random,
    world: World,
    problem: Option<String>,
    ends_at: Duration,
    drains_at: Option<Duration>,
    drained_at: (Duration, Duration),
    has_left: bool,
    is_over: bool,
}

impl Peers {
    fn new(
        plan: &Plan,
        oracle: Rc<RefCell<Oracle>>,
        remote: Remote,
        queue: Rc<RefCell<Vec<usize>>>,
    ) -> Self {
        let mut random = Random::new(plan.seed ^ 0x0070_6565_7273);
        let clients = plan.moods.iter().enumerate().map(|(at, mood)| {
            Client::new(at as u32, *mood, plan.topics, Random::new(random.next()))
        });
        let clients: Vec<Client> = clients.collect();
        let timers = (0..clients.len()).map(|at| Reverse((random.time(ms(1500)), at))).collect();
        Self {
            clients,
            timers,
            oracle,
            remote,
            queue,
            random,
            world: World {
                disturbed: Duration::ZERO,
                late_max: plan.faults.late_max,
                head_timeout: plan.limits.head_timeout,
                wait_max: plan.limits.wait_max,
                is_ending: false,
                is_draining: false,
                message_max: plan.limits.max_message,
                subscriptions: plan.limits.subscriptions,
                listeners: plan.listeners.0 + plan.listeners.1,
                is_tls: plan.is_tls,
                is_prompt: plan.is_prompt,
            },
            problem: None,
            ends_at: plan.ends_at,
            drains_at: plan.drains_at,
            drained_at: Default::default(),
            has_left: false,
            is_over: false,
        }
    }

    /// Has everyone act whose time has come; returns when the next has something to do.
    fn step(&mut self) -> Option<Duration> {
        let now = machine::elapsed();
        self.world.disturbed = machine::disturbed();
        let oracle = self.oracle.clone();
        let oracle = &mut *oracle.borrow_mut();
        for (at, owner) in machine::take_woken() {
            let client = &mut self.clients[owner as usize];
            if client.is_at(at) {
                let outcome = client.wake(oracle, &self.world);
                self.note(outcome);
            }
        }
        while let Some(&Reverse((due, at))) = self.timers.peek() {
            if due > now || self.has_left {
                break;
            }
            self.timers.pop();
            let outcome = self.clients[at].act(oracle, &self.world);
            self.note(outcome);
            let next = now + self.clients[at].pause();
            self.timers.push(Reverse((next, at)));
        }
        self.publish(oracle);
        self.end(now, oracle);
        if self.is_over || self.problem.is_some() {
            return None;
        }
        let next = self.timers.peek().map_or(now + ms(1000), |Reverse((due, _))| *due);
        let next = if self.has_left { now + ms(5000) } else { next };
        Some(next.max(now + Duration::from_micros(1)))
    }

    fn note(&mut self, outcome: Result<(), String>) {
        if let Err(problem) = outcome {
            self.problem.get_or_insert(problem);
        }
    }

    /// What another thread publishes.
    fn publish(&mut self, oracle: &mut Oracle) {
        let mut numbers = std::mem::take(&mut *self.queue.borrow_mut());
        if !self.world.is_ending && self.random.chance(30) {
            let topic = self.random.below(oracle.topics.len() as u64) as usize;
            numbers.extend((0..self.random.between(1, 12)).map(|_| oracle.make(topic, 200, false)));
        }
        for number in numbers {
            let payload = oracle.payload(number);
            let text = String::from_utf8_lossy(&payload);
            let topic = oracle.topics[oracle.topic_of(number)].clone();
            let given = match oracle.is_binary(number) {
                true => self.remote.publish(&topic, pousse::Message::Binary(&payload)),
                false => self.remote.publish(&topic, &*text),
            };
            if given.is_ok() && !machine::is_rung() {
                self.note(Err("a command was taken, and the loop is not woken for it".into()));
            }
        }
    }

    fn end(&mut self, now: Duration, oracle: &Oracle) {
        if self.drains_at.is_some_and(|at| at <= now) && !self.world.is_draining {
            let code = self.random.pick(&[CloseCode::Away, CloseCode::Restart]);
            self.drained_at = (now, machine::disturbed());
            self.world.is_draining = self.remote.drain(code).is_ok();
        }
        if self.world.is_draining {
            return;
        }
        if !self.world.is_ending && now >= self.ends_at {
            self.world.is_ending = true;
            machine::be_kind();
        }
        if self.drains_at.is_some() {
            return;
        }
        if !self.has_left && now >= self.ends_at + ms(5000) {
            self.has_left = true;
            self.problem = self
                .problem
                .take()
                .or_else(|| self.clients.iter().find_map(|it| it.is_owed(oracle)));
            for client in &mut self.clients {
                let is_rude = self.random.chance(300);
                client.leave(is_rude);
            }
        }
        // The wheel goes round once, the log's oldest entry grows too old.
        self.is_over = self.has_left && now >= self.ends_at + ms(130_000);
    }
}
