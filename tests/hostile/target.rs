//! What is attacked: the real program in a process of its own, and the questions it is asked after
//! each attack.
//!
//! [`Target::survives`] runs an attack and asks whether
//!
//! 1. the process lives and its log has no panic,
//! 2. an innocent client is served: the WebSocket that was there all the time still hears what is
//!    published, one that is opened now does, a poll has it, and pings are answered,
//! 3. there are as many descriptors open as before,
//! 4. the heap is as before, give or take [`Target::margin`].
//!
//! [`Target::withstands`] does the same and has an innocent client ping all the time
//! (`bystander.rs`).

use std::fs;
use std::net::SocketAddr;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::bystander::Bystander;
use crate::peer::{PATIENCE, Peer, ms, posting};
#[cfg(feature = "tls")]
use crate::support::certificate::Pair;
use crate::support::websocket::Incoming;
use crate::support::{Door, Server, now};

/// How much more heap a process may have after an attack than before, unless a test says more.
/// The allocator keeps some of what was freed: pieces of pages, and up to 128 KiB at its end (it is
/// told to give back more than that, see `Server::start`).
const MARGIN: u64 = 2 << 20;

/// Floods are alone on the machine as far as this program is concerned: they measure how long an
/// innocent client waits, and two floods at once would measure each other.
static FLOOD: RwLock<()> = RwLock::new(());

/// See the head of this file.
pub(crate) struct Target {
    server: Server,
    pub(crate) door: Door,
    /// A WebSocket that is open all the time.
    witness: Option<Peer>,
    /// What the witness was told so far.
    told: u32,
    base: Usage,
    /// Bytes that an attack may leave behind.
    pub(crate) margin: u64,
}

/// What a process uses.
#[derive(Clone, Copy, Debug)]
struct Usage {
    descriptors: usize,
    heap_bytes: u64,
}

/// Time limits that the attackers run into are short, so that the tests are; the other limits are
/// the defaults.
const SHORT: [&str; 2] = ["--limit", "close-timeout=300ms"];

impl Target {
    /// Starts the program with these flags.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::of(Server::start(&[&SHORT, flags].concat()))
    }

    /// The same with so many descriptors.
    pub(crate) fn start_with_descriptors(descriptors: usize, flags: &[&str]) -> Self {
        Self::of(Server::start_with_descriptors(descriptors, &[&SHORT, flags].concat()))
    }

    /// The same for short limits on pings, which a witness that is not looked at would not answer:
    /// here it is there only while the questions are asked.
    pub(crate) fn start_without_witness(flags: &[&str]) -> Self {
        let server = Server::start(&[&SHORT, flags].concat());
        let door = server.doors()[0].clone();
        Self::watched(server, door, false)
    }

    /// The same with a certificate: whoever speaks with its door speaks TLS.
    #[cfg(feature = "tls")]
    pub(crate) fn start_secure(pair: &Pair, flags: &[&str]) -> Self {
        Self::secure(pair, flags, true)
    }

    /// The same without a witness, as [`start_without_witness`](Self::start_without_witness).
    #[cfg(feature = "tls")]
    pub(crate) fn start_secure_without_witness(pair: &Pair, flags: &[&str]) -> Self {
        Self::secure(pair, flags, false)
    }

    #[cfg(feature = "tls")]
    fn secure(pair: &Pair, flags: &[&str], has_witness: bool) -> Self {
        let server = Server::start(&[&SHORT, &pair.flags()[..], flags].concat());
        let Door::Tcp(address) = server.doors()[0] else { panic!("it listens on TCP") };
        Self::watched(server, Door::Tls(address, pair.trust.clone()), has_witness)
    }

    fn of(server: Server) -> Self {
        let door = server.doors()[0].clone();
        Self::watched(server, door, true)
    }

    fn watched(server: Server, door: Door, has_witness: bool) -> Self {
        let witness = has_witness.then(|| Peer::opens(&door, "/websocket?topic=innocent", ""));
        let base = Usage { descriptors: 0, heap_bytes: 0 };
        let mut target = Self { server, door, witness, told: 0, base, margin: MARGIN };
        // What is set up once is set up now.
        target.base.descriptors = target.usage().descriptors;
        for _ in 0..20 {
            target.serves();
        }
        target
            .until("the first are gone", |target| target.descriptors() <= target.base.descriptors);
        target.base = target.usage();
        target
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match &self.door {
            Door::Tcp(address) => *address,
            _ => panic!("it listens on plain TCP"),
        }
    }

    /// Everything that it has said on standard error.
    pub(crate) fn log(&self) -> String {
        self.server.stderr()
    }

    /// Whether a line with this text is or comes in its log.
    #[track_caller]
    pub(crate) fn logs(&self, text: &str) {
        assert!(self.server.says(text), "the log has no {text}:\n{}", tail(&self.log()));
    }

    /// The counter of this name, as USR1 logs it; 0 if it is left out.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let before = self.log().matches("event=counters").count();
        self.server.signal(rustix::process::Signal::USR1);
        let end = now() + PATIENCE;
        loop {
            let log = self.log();
            if log.matches("event=counters").count() > before {
                let line = log.lines().rfind(|line| line.contains("event=counters")).unwrap();
                let find = |word: &str| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok();
                return line.split(' ').find_map(find).unwrap_or(0);
            }
            assert!(now() < end, "no counters are logged");
            self.server.waits(ms(5));
        }
    }

    /// Sends it a signal.
    pub(crate) fn signals(&self, signal: rustix::process::Signal) {
        self.server.signal(signal);
    }

    /// Has it end: the witness is told, and it ends as it should.
    pub(crate) fn drains(mut self) {
        self.signals(rustix::process::Signal::TERM);
        if let Some(witness) = &mut self.witness {
            assert_eq!(witness.close_code(), 1001);
        }
        let status = self.server.wait().expect("it ends");
        assert!(status.success() && self.log().contains(" event=ended "), "{}", tail(&self.log()));
    }

    /// An attack, and then the questions.
    #[track_caller]
    pub(crate) fn survives<T>(&mut self, attack: impl FnOnce(&mut Self) -> T) -> T {
        let result = {
            let _others_too = FLOOD.read().unwrap_or_else(PoisonError::into_inner);
            attack(self)
        };
        self.is_well();
        result
    }

    /// An attack that is a flood: while it goes on an innocent client pings, and each ping is
    /// answered within half a second.
    #[track_caller]
    pub(crate) fn withstands<T>(&mut self, what: &str, attack: impl FnOnce(&Self) -> T) -> T {
        let alone = FLOOD.write().unwrap_or_else(PoisonError::into_inner);
        let bystander = Bystander::start(&self.door, self.server.pid());
        let result = attack(self);
        let account = bystander.end();
        drop(alone);
        println!("{what}: {account}");
        account.is_served();
        self.is_well();
        result
    }

    /// So many attackers at once, each in a thread of its own, for the time of a flood.
    pub(crate) fn flood(&self, attackers: usize, attack: impl Fn(&Door, &Flood) + Sync) {
        let flood = Flood { until: now() + Flood::TIME };
        std::thread::scope(|scope| {
            for _ in 0..attackers {
                scope.spawn(|| attack(&self.door, &flood));
            }
        });
    }

    /// The questions, in the order in which an answer helps to find what is wrong.
    #[track_caller]
    fn is_well(&mut self) {
        assert!(self.server.is_running(), "the process has ended:\n{}", tail(&self.log()));
        let log = self.log();
        assert!(!log.contains("event=panic") && !log.contains("panicked"), "{}", tail(&log));
        self.serves();
        self.is_back_to_base();
    }

    /// An innocent client is served.
    #[track_caller]
    fn serves(&mut self) {
        self.told += 1;
        let text = format!("message {}", self.told);
        if let Some(witness) = &mut self.witness {
            witness.pings(b"still there?");
        }
        let mut fresh = Peer::opens(&self.door, "/websocket?topic=innocent", "");
        let answer = self.asks(posting("/api/messages?topic=innocent", "", text.as_bytes()));
        assert_eq!(answer.status, 201, "{answer}");
        for reader in self.witness.iter_mut().chain([&mut fresh]) {
            loop {
                match reader.hears() {
                    Incoming::Text(told) if told == text => break,
                    Incoming::Ping(_) | Incoming::Pong(_) => {}
                    other => panic!("an innocent client is told {other} and not {text}"),
                }
            }
        }
        let polled = self.gets("/api/messages?topic=innocent&limit=1000");
        let polled = polled.json().unwrap();
        let last = polled["messages"].as_array().and_then(|all| all.last()).cloned();
        assert_eq!(last.unwrap_or_default()["data"], text.as_str(), "{polled}");
    }

    /// A request on a connection of its own, and the answer.
    #[track_caller]
    pub(crate) fn asks(&self, request: impl AsRef<[u8]>) -> crate::support::http::Answer {
        let mut peer = Peer::connect(&self.door);
        peer.says(request);
        peer.answer()
    }

    #[track_caller]
    pub(crate) fn gets(&self, target: &str) -> crate::support::http::Answer {
        self.asks(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    /// Whoever has attacked has left; the server takes as long as its time limits to see it.
    #[track_caller]
    fn is_back_to_base(&mut self) {
        let end = now() + PATIENCE;
        loop {
            let usage = self.usage();
            let is_back = usage.descriptors <= self.base.descriptors;
            let grown = usage.heap_bytes.saturating_sub(self.base.heap_bytes);
            if is_back && grown <= self.margin {
                return;
            }
            assert!(
                now() < end,
                "{} descriptors, {} before; {} KiB of heap more:\n{}",
                usage.descriptors,
                self.base.descriptors,
                grown >> 10,
                tail(&self.log())
            );
            self.server.waits(ms(20));
        }
    }

    /// Bytes of heap more than before the attack.
    pub(crate) fn heap_grown(&self) -> u64 {
        self.usage().heap_bytes.saturating_sub(self.base.heap_bytes)
    }

    /// Bytes of heap that it had at the most, as far as the system tells: what it has of its file
    /// is what it has now.
    pub(crate) fn heap_peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.pid())).unwrap();
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
        };
        of("VmHWM:").saturating_sub(of("RssFile:"))
    }

    /// Bytes of memory that it has, its own and those of its file. Counted page by page: what
    /// `VmRSS` says is off by what each processor has not added up yet.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.server.pid());
        let text = fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kib << 10
    }

    pub(crate) fn descriptors(&self) -> usize {
        self.usage().descriptors
    }

    /// Every open descriptor: its number and flags.
    pub(crate) fn descriptor_flags(&self) -> Vec<(u32, u32)> {
        descriptor_flags(&self.server.pid().to_string())
    }

    fn usage(&self) -> Usage {
        let pid = self.server.pid();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        // Not RssFile: that is how much of the program has run so far.
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        Usage { descriptors, heap_bytes: kib << 10 }
    }

    /// Time that the process has worked; the kernel counts it in hundredths of a second.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.server.pid())).unwrap();
        // Behind the name, which may have spaces in it: fields 14 and 15 of proc_pid_stat(5).
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
        ms((ticks(11) + ticks(12)) * 10)
    }

    /// Waits until it is so; the end of patience is a failure.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let end = now() + PATIENCE;
        while !is_so(self) {
            assert!(now() < end, "not so in time: {what}\n{}", tail(&self.log()));
            self.server.waits(ms(10));
        }
    }

    /// Lets this much time go by.
    pub(crate) fn waits(&self, time: Duration) {
        self.server.waits(time);
    }
}

/// A flood that is going on.
pub(crate) struct Flood {
    until: Instant,
}

impl Flood {
    /// Long enough for some dozens of the bystander's pings.
    const TIME: Duration = ms(700);

    pub(crate) fn goes_on(&self) -> bool {
        now() < self.until
    }
}

/// The number and flags of each descriptor of a process (proc_pid_fdinfo(5)).
pub(crate) fn descriptor_flags(pid: &str) -> Vec<(u32, u32)> {
    let all = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap();
    let of = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        let number = path.file_name()?.to_str()?.parse().ok()?;
        let info = fs::read_to_string(path).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        Some((number, u32::from_str_radix(flags.trim(), 8).ok()?))
    };
    all.filter_map(of).collect()
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
