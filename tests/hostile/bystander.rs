//! An innocent client who pings all the time while others attack, and what it has to say.
//!
//! What is promised is promised by the server, and not by the machine under it, on which others
//! work too. The kernel counts for how long a task had a processor, and for how long it was ready
//! for one and had none (`/proc/PID/schedstat`). So of the time that a ping took
//!
//! - the server's is what is left without that in which it, or the bystander, had no processor: at
//!   most half a second;
//! - work is what the server did meanwhile, if that is less, for it was done before the answer: of
//!   99 in 100 pings at most 50 ms. Whatever else the machine has to do adds nothing to that.
//!
//! Where the kernel does not count, the first is judged by the time as it is, and the second not.

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::peer::{PATIENCE, Peer, ms};
use crate::support::websocket::{Incoming, PING, frame};
use crate::support::{Door, now};

/// How long any ping may take, and how much work 99 of 100 may wait for.
const PROMISED: Duration = ms(500);
const PROMISED_P99: Duration = ms(50);

/// Between two pings, so that the bystander is no flood itself: `controls` allows 250 at once and
/// 50 a second. The first of them come faster.
const PAUSE: Duration = ms(20);
const FIRST_PAUSE: Duration = ms(4);
const FIRST: usize = 200;

/// See the head of this file.
pub(crate) struct Bystander {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Account>,
}

/// What a bystander tells: of each ping how long it took, how much of that was the server's, and
/// how much was work.
#[derive(Default)]
pub(crate) struct Account {
    took: Vec<Duration>,
    of_server: Vec<Duration>,
    /// Empty where it is not known.
    work: Vec<Duration>,
}

impl Bystander {
    pub(crate) fn start(door: &Door, pid: u32) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut peer = Peer::opens(door, "/websocket?topic=bystander", "");
        peer.pings(b"ready");
        let thread = std::thread::spawn({
            let is_over = is_over.clone();
            move || {
                let mut account = Account::default();
                while !is_over.load(SeqCst) {
                    account.ping(&mut peer, pid);
                    let is_first = account.took.len() < FIRST;
                    let end = now() + if is_first { FIRST_PAUSE } else { PAUSE };
                    // Nothing is due to it; should something come, it says what.
                    if let Ok(came) = peer.hears_until(end) {
                        assert!(matches!(came, Incoming::Ping(_)), "the bystander hears {came}");
                    }
                }
                account
            }
        });
        Self { is_over, thread }
    }

    #[track_caller]
    pub(crate) fn end(self) -> Account {
        self.is_over.store(true, SeqCst);
        self.thread.join().expect("each ping of the bystander is answered")
    }
}

impl Account {
    fn ping(&mut self, peer: &mut Peer, pid: u32) {
        let payload = (self.took.len() as u32).to_be_bytes();
        let scheduled = Scheduled::now(pid);
        let before = now();
        peer.says(frame(true, PING, &payload));
        loop {
            let end = before + PATIENCE;
            match peer.hears_until(end).expect("a ping of the bystander is answered") {
                Incoming::Pong(pong) if pong == payload => break,
                Incoming::Ping(_) => {}
                other => panic!("the bystander hears {other}"),
            }
        }
        let took = now() - before;
        let mut of_server = took;
        if let (Some(before), Some(after)) = (scheduled, Scheduled::now(pid)) {
            of_server = took.saturating_sub(after.waited - before.waited);
            self.work.push(of_server.min(after.worked - before.worked));
        }
        self.took.push(took);
        self.of_server.push(of_server);
    }

    #[track_caller]
    pub(crate) fn is_served(&self) {
        assert!(self.took.len() >= 3, "{self}: the attack was over before it was one");
        assert!(share(&self.of_server, 100) < PROMISED, "an innocent client waited: {self}");
        assert!(share(&self.work, 99) < PROMISED_P99, "an innocent client waits: {self}");
    }
}

/// The time that so many in a hundred of these are not above.
fn share(times: &[Duration], percent: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    let count = (times.len() * percent).div_ceil(100);
    times.get(count.saturating_sub(1)).copied().unwrap_or_default()
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pings of a bystander, p50/p99/max in ms:", self.took.len())?;
        let kinds = [("took", &self.took), ("the server's", &self.of_server), ("work", &self.work)];
        for (at, (what, times)) in kinds.into_iter().enumerate() {
            let [p50, p99, max] =
                [50, 99, 100].map(|percent| share(times, percent).as_secs_f64() * 1e3);
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma} {what} {p50:.1}/{p99:.1}/{max:.1}")?;
        }
        Ok(())
    }
}

/// What the kernel has counted (Documentation/scheduler/sched-stats.rst).
struct Scheduled {
    /// How long the server had a processor.
    worked: Duration,
    /// How long it, or this thread, was ready to run without one.
    waited: Duration,
}

impl Scheduled {
    fn now(pid: u32) -> Option<Self> {
        let of = |path: &str| {
            let text = fs::read_to_string(path).ok()?;
            let mut numbers = text.split_whitespace().map_while(|number| number.parse().ok());
            Some((numbers.next()?, numbers.next()?))
        };
        // The loop is the process's first thread.
        let (worked, server): (u64, u64) = of(&format!("/proc/{pid}/schedstat"))?;
        let (_, own): (u64, u64) = of("/proc/thread-self/schedstat")?;
        (worked > 0).then(|| Self {
            worked: Duration::from_nanos(worked),
            waited: Duration::from_nanos(server + own),
        })
    }
}
