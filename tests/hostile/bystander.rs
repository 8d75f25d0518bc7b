//! An innocent client who pings all the time while others attack, and what it has to say.
//!
//! What is promised, half a second, is promised by the server and not by the machine under it. So
//! from the time that a ping took is taken away the time in which the server, or the bystander,
//! was ready to run and had no processor: the kernel counts it (`/proc/PID/schedstat`, the second
//! number, nanoseconds). Where it does not, the time as it is has to do.

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::peer::{PATIENCE, Peer, ms};
use crate::support::websocket::{Incoming, PING, frame};
use crate::support::{Door, now};

/// How long a ping may take.
const PROMISED: Duration = ms(500);

/// Between two pings, so that the bystander is no flood itself: `controls` allows 250 at once and
/// 50 a second.
const PAUSE: Duration = ms(20);

/// See the head of this file.
pub(crate) struct Bystander {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Account>,
}

/// What a bystander tells.
#[derive(Default)]
pub(crate) struct Account {
    pings: u32,
    /// The longest that one took.
    longest: Duration,
    /// The longest without the time in which somebody had no processor.
    longest_of_server: Duration,
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
                    let end = now() + PAUSE;
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
        self.pings += 1;
        let payload = self.pings.to_be_bytes();
        let waited = unscheduled(pid);
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
        let waited = unscheduled(pid).saturating_sub(waited);
        self.longest = self.longest.max(took);
        self.longest_of_server = self.longest_of_server.max(took.saturating_sub(waited));
    }

    #[track_caller]
    pub(crate) fn is_served(&self) {
        assert!(self.pings >= 3, "{self}: the attack was over before it was one");
        assert!(self.longest_of_server < PROMISED, "an innocent client waited: {self}");
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (longest, of_server) = (self.longest.as_millis(), self.longest_of_server.as_millis());
        write!(
            f,
            "{} pings of a bystander, the slowest took {longest} ms, {of_server} ms of it the \
             server",
            self.pings
        )
    }
}

/// For how long the server and this thread have been ready to run without a processor.
fn unscheduled(pid: u32) -> Duration {
    let of = |path: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().nth(1).and_then(|count| count.parse().ok()).unwrap_or(0)
    };
    let server: u64 = of(&format!("/proc/{pid}/schedstat"));
    Duration::from_nanos(server + of("/proc/thread-self/schedstat"))
}
