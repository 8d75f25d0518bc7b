//! What tests from outside need: the real program, a wire to it, and a peer who knows no more
//! of HTTP and WebSocket than the RFCs say.
//!
//! [`Server`] starts the program that cargo built and ends it when dropped. [`Wire`] is a socket
//! whose every wait is bounded. [`http`] reads answers, [`websocket`] writes and reads frames,
//! [`event_stream`] reads blocks. [`certificate`] makes one and trusts it: a wire to a
//! [`Door::Tls`] speaks TLS.
//! Nothing here shares code with the server, so that both cannot be wrong in the same way.
//!
//! A test that uses this needs `#![cfg(feature = "daemon")]`: there is no program without it.

pub mod certificate;
pub mod event_stream;
pub mod http;
pub mod websocket;

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a test waits for something that has to come.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How long the program may take to listen or to end, on a machine that has much else to do.
const START_MAX: Duration = Duration::from_secs(20);

/// The clock of the tests.
#[expect(clippy::disallowed_methods, reason = "a test of a real program is in real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// The program, running.
pub struct Server {
    pub child: Child,
    pub said: Arc<Said>,
    collector: Option<JoinHandle<()>>,
    doors: Vec<Door>,
}

/// Where the program listens.
#[derive(Clone, Debug)]
pub enum Door {
    Tcp(SocketAddr),
    Unix(PathBuf),
    /// TCP with TLS, for those who trust its certificate.
    Tls(SocketAddr, Arc<rustls::ClientConfig>),
}

/// What the program has written to its standard error so far.
#[derive(Default)]
pub struct Said {
    lines: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

impl Said {
    /// Waits until `wanted` has an answer for the lines and whether they have ended.
    pub fn wait<T>(
        &self,
        patience: Duration,
        mut wanted: impl FnMut(&[String], bool) -> Option<T>,
    ) -> Option<T> {
        let mut found = None;
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let _unlocked = self.more.wait_timeout_while(lines, patience, |(lines, ended)| {
            found = wanted(lines, *ended);
            found.is_none()
        });
        found
    }
}

impl Server {
    /// Starts the program with these flags, on a free port of the loopback unless they say where.
    pub fn start(flags: &[&str]) -> Server {
        Server::try_start(flags).unwrap_or_else(|(status, stderr)| {
            panic!("pousse {} ended at once, {status}:\n{stderr}", flags.join(" "))
        })
    }

    /// The same; if the program ends instead of listening: how, and what it said.
    pub fn try_start(flags: &[&str]) -> Result<Server, (ExitStatus, String)> {
        Server::try_start_by(program(crate::program()), flags)
    }

    /// The same of a command that becomes the program with these flags.
    pub fn try_start_by(
        mut command: Command,
        flags: &[&str],
    ) -> Result<Server, (ExitStatus, String)> {
        // Nothing of the tester's own settings, but coverage counters must find their file.
        command.env_clear();
        command.envs(std::env::vars_os().filter(|(name, _)| name == "LLVM_PROFILE_FILE"));
        // glibc keeps freed pieces of the size of the largest that was ever freed, unless one of
        // its thresholds is set (mallopt(3)). Memory that is freed is to be seen as free.
        command.env("MALLOC_TRIM_THRESHOLD_", "131072");
        let listeners = flags.iter().filter(|flag| flag.starts_with("--listen")).count();
        if listeners == 0 {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.args(flags);
        Server::spawn(&mut command, listeners.max(1))
    }

    /// The same of a command that becomes the program, with so many start lines.
    pub fn spawn(command: &mut Command, listeners: usize) -> Result<Server, (ExitStatus, String)> {
        let mut child = command.spawn().expect("the program that cargo built can be started");
        let stderr = child.stderr.take().expect("it was asked for");
        let said = Arc::new(Said::default());
        let collector = Some(std::thread::spawn({
            let said = said.clone();
            move || collect(stderr, &said)
        }));
        let mut server = Server { child, said, collector, doors: Vec::new() };
        let doors = server.said.wait(START_MAX, |lines, ended| {
            let doors: Vec<Door> = lines.iter().filter_map(|line| door(line)).collect();
            (ended || doors.len() >= listeners).then_some(doors)
        });
        match doors {
            None => panic!("no start line within {START_MAX:?}:\n{}", server.stderr()),
            Some(doors) if doors.len() >= listeners => server.doors = doors,
            Some(_) => {
                let status = server.child.wait().expect("it is our child");
                return Err((status, server.stderr()));
            }
        }
        Ok(server)
    }

    /// Starts the program with so many descriptors and no more.
    pub fn start_with_descriptors(descriptors: usize, flags: &[&str]) -> Server {
        let mut command = program("/bin/sh");
        let script = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(crate::program());
        Server::try_start_by(command, flags).unwrap_or_else(|(status, stderr)| {
            panic!("pousse {} ended at once, {status}:\n{stderr}", flags.join(" "))
        })
    }

    /// The name under which the system knows it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets this much time go by, unless it ends.
    pub fn waits(&self, time: Duration) {
        self.said.wait(time, |_, ended| ended.then_some(()));
    }

    /// Where it listens, in the order of its start lines.
    pub fn doors(&self) -> &[Door] {
        &self.doors
    }

    /// `127.0.0.1:PORT`, as it belongs in `Host`; `localhost` if it listens on no TCP port.
    pub fn authority(&self) -> String {
        let tcp = self.doors.iter().find_map(|door| match door {
            Door::Tcp(address) => Some(address.to_string()),
            _ => None,
        });
        tcp.unwrap_or_else(|| "localhost".into())
    }

    /// Everything it has said on standard error so far.
    pub fn stderr(&self) -> String {
        self.said.wait(Duration::ZERO, |lines, _| Some(lines.join("\n"))).unwrap_or_default()
    }

    /// Whether a line with this text comes on standard error, or has come.
    pub fn says(&self, text: &str) -> bool {
        self.said
            .wait(PATIENCE, |lines, ended| {
                let found = lines.iter().any(|line| line.contains(text));
                (found || ended).then_some(found)
            })
            .unwrap_or(false)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("it is our child and not yet waited for");
    }

    /// Waits for its end. `None`: it still runs.
    pub fn wait(&mut self) -> Option<ExitStatus> {
        self.said.wait(START_MAX, |_, ended| ended.then_some(()))?;
        Some(self.child.wait().expect("it is our child"))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(collector) = self.collector.take() {
            let _ = collector.join();
        }
    }
}

/// A program that is to be started with nothing of the tester's own settings; but coverage counters
/// must find their file.
pub fn program(path: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(path);
    command.env_clear();
    command.envs(std::env::vars_os().filter(|(name, _)| name == "LLVM_PROFILE_FILE"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Says what is missing, past the test runner that keeps the words of tests that pass; where
/// nothing may be skipped, it fails.
pub fn skip(missing: &str) {
    let is_required = std::env::var("POUSSE_TEST_REQUIRE").is_ok_and(|it| it == "all");
    assert!(!is_required, "{missing}");
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    writeln!(io::stderr(), "SKIPPED: {name}: {missing}").unwrap_or_default();
}

/// Reads the program's standard error to its end, so that its pipe is never full.
fn collect(stderr: impl Read, said: &Said) {
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        let ended = !matches!(stderr.read_until(b'\n', &mut line), Ok(1..));
        let mut lines = said.lines.lock().unwrap_or_else(PoisonError::into_inner);
        match ended {
            true => lines.1 = true,
            false => {
                // Nothing else is taken away: what does not belong into a log is to be seen.
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                lines.0.push(String::from_utf8_lossy(line).into_owned());
            }
        }
        said.more.notify_all();
        if ended {
            return;
        }
    }
}

/// The address in a start line: `pousse VERSION listening on http://127.0.0.1:8080`.
fn door(line: &str) -> Option<Door> {
    let rest = line.strip_prefix("pousse ")?;
    let (_version, address) = rest.split_once(" listening on ")?;
    if let Some(path) = address.strip_prefix("unix:") {
        return Some(Door::Unix(path.into()));
    }
    let mut address: SocketAddr = address.split_once("://")?.1.parse().ok()?;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    Some(Door::Tcp(address))
}

/// One connection: bytes there, bytes back, and never a wait without an end.
pub struct Wire {
    stream: Stream,
    /// What has come and was not yet looked at.
    pub unread: Vec<u8>,
    ended: bool,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

/// What a bounded wait brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// `unread` has grown.
    More,
    /// The peer's bytes have ended, in order or by a reset.
    End,
    /// Nothing, up to the deadline.
    Nothing,
}

/// The bytes as the peer means them.
macro_rules! on_stream {
    ($stream:expr, $name:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($name) => $call,
            Stream::Unix($name) => $call,
            Stream::Tls($name) => $call,
        }
    };
}

/// The socket below.
macro_rules! on_socket {
    ($stream:expr, $name:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($name) => $call,
            Stream::Unix($name) => $call,
            Stream::Tls(tls) => {
                let $name = &tls.sock;
                $call
            }
        }
    };
}

impl Wire {
    /// Connects. What TLS needs before is said with the first bytes.
    pub fn connect(door: &Door) -> Wire {
        let tcp = |address| {
            let stream = TcpStream::connect_timeout(address, PATIENCE)?;
            stream.set_nodelay(true).expect("an open TCP socket takes this option");
            Ok(stream)
        };
        let stream = match door {
            Door::Tcp(address) => tcp(address).map(Stream::Tcp),
            Door::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
            Door::Tls(address, trust) => {
                tcp(address).map(|stream| Stream::Tls(certificate::client(trust, stream)))
            }
        };
        let stream: io::Result<Stream> = stream;
        let stream = stream.unwrap_or_else(|error| panic!("cannot connect to {door:?}: {error}"));
        on_socket!(&stream, s => s.set_write_timeout(Some(PATIENCE)).expect("it is not zero"));
        on_socket!(&stream, s => s.set_read_timeout(Some(PATIENCE)).expect("it is not zero"));
        Wire { stream, unread: Vec::new(), ended: false }
    }

    /// Sends all of it, in one write where the system takes it.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        on_stream!(&mut self.stream, s => s.write_all(bytes))
    }

    /// Says that nothing more will be sent; what comes can still be read.
    pub fn finish(&mut self) -> io::Result<()> {
        on_socket!(&self.stream, s => s.shutdown(Shutdown::Write))
    }

    /// Ends it by a reset (`SO_LINGER` of 0): what is on its way is thrown away at both ends.
    pub fn reset(self) {
        use rustix::net::sockopt::set_socket_linger;
        on_socket!(&self.stream, s => set_socket_linger(s, Some(Duration::ZERO))
            .expect("an open socket takes this option"));
    }

    /// Takes one byte, if one has come; whether one has.
    pub fn fill_one(&mut self) -> bool {
        let mut byte = [0];
        let soon = Some(Duration::from_millis(1));
        on_socket!(&self.stream, s => s.set_read_timeout(soon).expect("it is not zero"));
        let count = on_stream!(&mut self.stream, s => s.read(&mut byte));
        self.unread.extend(&byte[..count.unwrap_or(0)]);
        !self.unread.is_empty()
    }

    /// Sends what the other end takes, and waits no more than a moment for it to take some; how
    /// many bytes that was.
    pub fn send_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let patience = |wire: &Self, time| {
            on_socket!(&wire.stream, s => s.set_write_timeout(Some(time))).expect("it is not zero");
        };
        patience(self, Duration::from_millis(5));
        let sent = on_stream!(&mut self.stream, s => s.write(bytes));
        patience(self, PATIENCE);
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            sent => sent,
        }
    }

    /// Waits until something comes, at the longest until `deadline`.
    pub fn fill(&mut self, deadline: Instant) -> Came {
        if self.ended {
            return Came::End;
        }
        // A time-out of zero would mean none at all.
        let left = deadline.saturating_duration_since(now()).max(Duration::from_millis(1));
        on_socket!(&self.stream, s => s.set_read_timeout(Some(left)).expect("it is not zero"));
        let mut chunk = [0; 16 * 1024];
        match on_stream!(&mut self.stream, s => s.read(&mut chunk)) {
            Ok(0) => self.ended = true,
            Ok(count) => {
                self.unread.extend_from_slice(&chunk[..count]);
                return Came::More;
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return Came::Nothing,
                io::ErrorKind::Interrupted => return self.fill(deadline),
                _ => self.ended = true,
            },
        }
        Came::End
    }

    /// Whether bytes are there or come, before the end.
    #[track_caller]
    pub fn fill_or_has(&mut self) -> bool {
        if !self.unread.is_empty() {
            return true;
        }
        match self.fill(now() + 2 * PATIENCE) {
            Came::More => true,
            Came::End => false,
            Came::Nothing => panic!("neither bytes nor the end"),
        }
    }

    /// Waits until there are `count` bytes to be read. An error says what came instead.
    pub fn need(&mut self, count: usize, deadline: Instant) -> Result<(), String> {
        while self.unread.len() < count {
            match self.fill(deadline) {
                Came::More => {}
                Came::End if self.unread.is_empty() => return Err("the end".into()),
                Came::End => return Err(format!("{}, then the end", show(&self.unread))),
                Came::Nothing if self.unread.is_empty() => return Err("nothing".into()),
                Came::Nothing => return Err(format!("{}, then nothing", show(&self.unread))),
            }
        }
        Ok(())
    }

    /// Takes the first `count` of the bytes that have come.
    pub fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.unread.split_off(count);
        std::mem::replace(&mut self.unread, rest)
    }
}

/// Bytes as a person can read them: as text if they are some, else in hex; the rest is counted.
pub fn show(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 400;
    let (shown, rest) = bytes.split_at(bytes.len().min(SHOWN_MAX));
    let is_text = |byte: &u8| *byte >= b' ' || byte.is_ascii_whitespace();
    let mut text = match std::str::from_utf8(shown) {
        Ok(text) if shown.iter().all(is_text) => format!("{text:?}"),
        _ => shown.iter().map(|byte| format!("{byte:02x} ")).collect::<String>().trim_end().into(),
    };
    if !rest.is_empty() {
        text += &format!(" and {} bytes more", rest.len());
    }
    text
}
