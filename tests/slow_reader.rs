//! A client that does not read: it falls behind in the log, not in memory, and nobody else waits
//! for it.

#![expect(clippy::unwrap_used, reason = "a test may end where it is wrong")]

use kit::common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use common::{PATIENCE, Running, Said, Socket, answer, opening, quiet, request};
use pousse::{Config, ConnId, EntryId, Reason};
use serde_json::Value;

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

/// How the slow one reads.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Slow {
    Text,
    #[cfg(feature = "v1")]
    Session,
    Stream,
}

/// The transports that tell a gap and go on.
const GO_ON: &[Slow] = &[
    #[cfg(feature = "v1")]
    Slow::Session,
    Slow::Stream,
];

/// What an entry may be longer on its way than its message.
const AROUND: usize = 128;

impl Slow {
    fn request(self, query: &str) -> String {
        let text = opening(&format!("/websocket?topic=general{query}"));
        match self {
            Slow::Text => text,
            #[cfg(feature = "v1")]
            Slow::Session => {
                text.replace("Upgrade: w", "Sec-WebSocket-Protocol: pousse.v1\r\nUpgrade: w")
            }
            Slow::Stream => request(
                "GET",
                &format!("/api/messages?topic=general{query}"),
                "Accept: text/event-stream\r\n",
                "",
            ),
        }
    }

    /// Connects, and waits until it is a reader.
    fn connect(self, server: &Running, query: &str) -> (TcpStream, ConnId) {
        let mut slow = server.connect();
        let before = server.ask(|ctx| ctx.clients().collect::<Vec<_>>());
        slow.write_all(self.request(query).as_bytes()).unwrap();
        let head = answer(&mut slow);
        assert!(head.starts_with("HTTP/1.1 101 ") || head.starts_with("HTTP/1.1 200 "), "{head}");
        let is_new = move |id: &ConnId| !before.contains(id);
        let id = server.ask(move |ctx| ctx.clients().find(is_new)).unwrap();
        if self != Slow::Stream {
            assert_eq!(server.opened(), id);
        }
        (slow, id)
    }
}

/// What comes over a stream or over pousse.v1: each JSON that tells something, one after the other.
struct Told {
    from: BufReader<TcpStream>,
    slow: Slow,
}

impl Told {
    fn new(slow: Slow, from: TcpStream) -> Self {
        Self { from: BufReader::new(from), slow }
    }

    /// `None`: it ends here, if need be in the middle of something.
    fn next(&mut self) -> Option<Value> {
        loop {
            let json = match self.slow {
                Slow::Stream => {
                    let mut line = String::new();
                    self.from.read_line(&mut line).ok().filter(|count| *count > 0)?;
                    if !line.ends_with('\n') {
                        return None;
                    }
                    match line.strip_prefix("data: ") {
                        Some(json) => json.as_bytes().to_vec(),
                        None => continue,
                    }
                }
                _ => self.frame()?,
            };
            return serde_json::from_slice(&json).ok();
        }
    }

    fn frame(&mut self) -> Option<Vec<u8>> {
        let mut head = [0; 2];
        self.from.read_exact(&mut head).ok()?;
        assert!(head[0] == 0x81 || head[0] == 0x88, "{head:?} begins no frame");
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.from.read_exact(&mut length).ok()?;
                usize::from(u16::from_be_bytes(length))
            }
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        self.from.read_exact(&mut payload).ok()?;
        (head[0] == 0x81).then_some(payload)
    }
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
        Self::of(Slow::Text, change)
    }

    fn of(slow: Slow, change: impl FnOnce(&mut Config)) -> Self {
        let server = Running::start(change, quiet);
        let (slow, id) = slow.connect(&server, "");
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

// The same on an event stream and over pousse.v1.

/// The number that a message tells.
fn number(told: &Value) -> Option<usize> {
    told["data"].as_str()?.parse().ok()
}

#[test]
fn a_stream_or_session_that_is_never_read_is_cut_and_costs_no_memory_and_nobody_else() {
    let _alone = alone();
    for &slow in GO_ON {
        let mut case = Case::of(slow, |config| {
            config.limits.stall = Duration::from_millis(600);
            config.limits.close_timeout = Duration::from_millis(300);
        });
        let before = resident_kib();
        let most = case.publish();
        let grown = resident_kib().saturating_sub(before);
        println!("{slow:?}: at most {most} bytes waited; the process grew by {grown} KiB");
        assert!(most <= 64 * 1024 + LENGTH + AROUND, "{most} bytes waited for the slow one");
        assert!(grown < 12 * 1024, "the process grew by {grown} KiB");
        if slow == Slow::Stream {
            let id = case.id;
            // Nobody is told of it: a stream has no words to end with.
            while case.server.counters().closed(Reason::Stall) == 0 {}
            assert!(case.server.ask(move |ctx| ctx.client(id)).is_none());
        } else {
            assert_eq!(case.ending(), (1013, "too slow".into()));
        }
        let counters = case.server.counters();
        assert_eq!(counters.closed(Reason::Stall), 1, "{counters}");
        // What it finds when it looks at last is whole, in order, from the first on.
        let mut told = Told::new(slow, case.slow);
        let mut next = 0;
        while let Some(it) = told.next() {
            if let Some(number) = number(&it) {
                assert_eq!(number, next);
                next += 1;
            }
        }
        assert!(next > 0 && next < MESSAGES, "{next} messages");
    }
}

#[test]
fn a_stream_or_session_that_was_overrun_is_told_so_and_goes_on_from_the_oldest_that_is_kept() {
    let _alone = alone();
    for &slow in GO_ON {
        let mut case = Case::of(slow, |_| {});
        case.publish();
        let mut told = Told::new(slow, case.slow.try_clone().unwrap());
        let (mut last, mut gaps): (Option<EntryId>, Vec<EntryId>) = (None, Vec::new());
        while last.is_none_or(|last| last.seq < MESSAGES as u64) {
            let it = told.next().unwrap();
            // A stream tells a gap as an event of that name, pousse.v1 as a member of it.
            let gap = if it["oldest"].is_string() { &it } else { &it["gap"] };
            if let Some(oldest) = gap["oldest"].as_str() {
                assert_eq!(gap["topic"], "general");
                assert_eq!(gap["after"], last.unwrap().to_string(), "after what it was given last");
                gaps.push(oldest.parse().unwrap());
            } else if let Some(number) = number(&it) {
                let id: EntryId = it["id"].as_str().unwrap().parse().unwrap();
                assert_eq!(number as u64 + 1, id.seq);
                let expected = match (last, gaps.last()) {
                    (Some(last), Some(oldest)) if last.seq < oldest.seq => oldest.seq,
                    (Some(last), _) => last.seq + 1,
                    (None, _) => 1,
                };
                assert_eq!(id.seq, expected);
                last = Some(id);
            }
        }
        assert_eq!(gaps.iter().map(|it| it.seq).collect::<Vec<_>>(), [9001], "{slow:?}");
        assert_eq!(case.server.counters().gaps, 1);
    }
}

#[test]
fn a_hundred_thousand_messages_are_resumed_by_a_slow_reader_within_the_bound_of_its_outbox() {
    let _alone = alone();
    const MANY: usize = 100_000;
    for &slow in GO_ON {
        let server = Running::start(
            |config| {
                config.limits.history = 2 * MANY;
                config.limits.history_bytes = 64 << 20;
                config.limits.history_total = 256 << 20;
            },
            quiet,
        );
        server.ask(|ctx| {
            for number in 0..MANY {
                ctx.broadcast(&number.to_string()).unwrap();
            }
        });
        let (peer, id) = slow.connect(&server, "&after=earliest");
        let mut told = Told::new(slow, peer);
        let (mut next, mut most) = (0, 0);
        while next < MANY {
            let Some(number) = number(&told.next().unwrap()) else { continue };
            assert_eq!(number, next);
            next += 1;
            if next.is_multiple_of(500) {
                let waiting = server.ask(move |ctx| ctx.client(id).unwrap().waiting_bytes);
                most = most.max(waiting);
            }
        }
        println!("{slow:?}: at most {most} bytes waited");
        // As much as is enough, less a byte, and what is then taken from the log.
        assert!(most <= 2 * 64 * 1024 + AROUND, "{most} bytes waited");
        let counters = server.counters();
        assert_eq!((counters.delivered, counters.gaps), (MANY as u64, 0));
        assert_eq!(counters.encoded, MANY as u64, "each once");
    }
}
