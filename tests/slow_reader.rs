//! A client that does not read: it falls behind in the log, not in memory, and nobody else waits
//! for it.

#![expect(clippy::unwrap_used, reason = "a test may end where it is wrong")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use common::{PATIENCE, Running, Said, Socket, answer, opening, quiet};
use pousse::{Config, ConnId, Reason};

const MESSAGES: usize = 10_000;
const LENGTH: usize = 1024;
const AT_ONCE: usize = 100;
const READERS: usize = 5;

/// One after the other: the memory of the process is looked at.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Memory of this process that is in use, in KiB.
fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn message(number: usize) -> String {
    format!("{number:0LENGTH$}")
}

/// Hears everything in order, and says so after every so many.
fn reader(mut socket: Socket, heard: Sender<usize>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for number in 0..MESSAGES {
            assert_eq!(socket.hears(), message(number));
            if number % AT_ONCE == AT_ONCE - 1 {
                heard.send(number).unwrap();
            }
        }
    })
}

struct Case {
    server: Running,
    slow: TcpStream,
    id: ConnId,
    readers: Vec<JoinHandle<()>>,
    heard: Receiver<usize>,
}

impl Case {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let server = Running::start(change, quiet);
        let mut slow = server.connect();
        slow.write_all(opening("/websocket").as_bytes()).unwrap();
        assert!(answer(&mut slow).starts_with("HTTP/1.1 101 "));
        let id = server.opened();
        let (said, heard) = channel();
        let readers = (0..READERS)
            .map(|_| {
                let (socket, _) = server.open_with_id("/websocket");
                reader(socket, said.clone())
            })
            .collect();
        Self { server, slow, id, readers, heard }
    }

    /// Publishes everything, no faster than those hear it who read. Returns the most that ever
    /// waited for the slow one.
    fn publish(&mut self) -> usize {
        let (id, mut most) = (self.id, 0);
        for first in (0..MESSAGES).step_by(AT_ONCE) {
            self.server.ask(move |ctx| {
                for number in first..first + AT_ONCE {
                    ctx.broadcast(&message(number)).unwrap();
                }
            });
            for _ in 0..READERS {
                self.heard.recv_timeout(PATIENCE).expect("everyone else is served");
            }
            let waiting =
                self.server.ask(move |ctx| ctx.client(id).map_or(0, |told| told.waiting_bytes));
            most = most.max(waiting);
        }
        for reader in self.readers.drain(..) {
            reader.join().expect("everyone else hears everything in order");
        }
        most
    }

    /// How the slow one ended.
    fn ending(&self) -> (u16, String) {
        loop {
            match self.server.said() {
                Said::Close(of, code, reason) if of == self.id => return (code, reason),
                _ => {}
            }
        }
    }
}

#[test]
fn a_reader_that_never_reads_is_cut_and_costs_no_memory_and_nobody_else() {
    let _alone = alone();
    let mut case = Case::new(|config| {
        config.limits.stall = Duration::from_millis(600);
        config.limits.close_timeout = Duration::from_millis(300);
    });
    let before = resident_kib();
    let most = case.publish();
    let grown = resident_kib().saturating_sub(before);
    println!("at most {most} bytes waited; the process grew by {grown} KiB");
    assert!(most <= 64 * 1024 + LENGTH + 16, "{most} bytes waited for the slow one");
    assert!(grown < 12 * 1024, "the process grew by {grown} KiB");
    assert_eq!(case.ending(), (1013, "too slow".into()));
    let counters = case.server.counters();
    assert_eq!(counters.closed(Reason::Stall) + counters.closed(Reason::Gap), 1, "{counters}");
    // What it finds when it looks at last is whole frames, in order, from the first on.
    let mut bytes = Vec::new();
    // The connection was given up with bytes on their way: that may be a reset.
    let _ = case.slow.read_to_end(&mut bytes);
    let frame_bytes = LENGTH + 4;
    for (number, frame) in bytes.chunks_exact(frame_bytes).enumerate() {
        assert_eq!(&frame[..4], [0x81, 126, 4, 0]);
        assert_eq!(&frame[4..], message(number).as_bytes());
    }
}

#[test]
fn a_reader_that_comes_back_too_late_is_told_of_the_gap() {
    let _alone = alone();
    let mut case = Case::new(|_| {});
    case.publish();
    // It reads again before the limit `stall`.
    let mut number = 0;
    let mut frame = [0; 4];
    loop {
        case.slow.read_exact(&mut frame).unwrap();
        if frame[0] != 0x81 {
            break;
        }
        let mut payload = [0; LENGTH];
        case.slow.read_exact(&mut payload).unwrap();
        assert_eq!(payload, message(number).as_bytes());
        number += 1;
    }
    assert_eq!((frame[0], &frame[2..]), (0x88, &1013u16.to_be_bytes()[..]));
    let mut reason = vec![0; usize::from(frame[1]) - 2];
    case.slow.read_exact(&mut reason).unwrap();
    let reason = String::from_utf8(reason).unwrap();
    assert!(reason.starts_with("gap; oldest ") && reason.ends_with("-9001"), "{reason}");
    case.slow.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(case.ending(), (1013, reason));
    let counters = case.server.counters();
    assert_eq!((counters.closed(Reason::Gap), counters.gaps), (1, 1));
}

#[test]
fn a_reader_that_comes_back_in_time_catches_up() {
    let _alone = alone();
    let mut case = Case::new(|config| {
        config.limits.history = MESSAGES;
        config.limits.history_bytes = 32 << 20;
    });
    let most = case.publish();
    assert!(most <= 64 * 1024 + LENGTH + 16, "{most} bytes waited for the slow one");
    let mut frame = [0; LENGTH + 4];
    for number in 0..MESSAGES {
        case.slow.read_exact(&mut frame).unwrap();
        assert_eq!(&frame[4..], message(number).as_bytes());
    }
    let id = case.id;
    let told = case.server.ask(move |ctx| ctx.client(id).unwrap());
    assert_eq!((told.lag, told.waiting_bytes), (0, 0));
}
