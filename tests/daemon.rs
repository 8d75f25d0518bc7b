//! The program from outside: exit codes and their sentences, where settings come from, first
//! lines, signals, and a log that nobody reads.
//!
//! What it serves is tested elsewhere; here a page or a WebSocket only shows that it is alive.
//! Nothing sleeps: a test reads the line, the frame or the exit that it waits for, and gives up
//! after `PATIENCE`.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests are tests")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write, pipe};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use tungstenite::{Message, WebSocket};

const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(5);

/// The program with these arguments and nothing of ours in its environment.
fn pousse(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pousse"));
    clean(&mut command).args(args);
    command
}

fn clean(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os().filter(|(n, _)| n.as_bytes().starts_with(b"POUSSE_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null())
}

/// Runs a program that ends by itself.
fn output(command: &mut Command) -> (i32, String, String) {
    finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

fn finish(child: Child) -> (i32, String, String) {
    let pid = Pid::from_child(&child);
    let (sender, receiver) = channel();
    thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    let Output { status, stdout, stderr } = receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        kill_process(pid, Signal::KILL).unwrap();
        panic!("it does not end: {:?}", receiver.recv())
    });
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// Expects one sentence on standard error with these words in it, and nothing else.
#[track_caller]
fn refused(command: &mut Command, code: i32, words: &[&str]) {
    let (got, stdout, stderr) = output(command);
    assert_eq!(got, code, "{command:?}: {stderr}");
    assert_eq!(stdout, "", "{command:?}");
    assert!(stderr.starts_with("pousse: ") && stderr.lines().count() == 1, "{command:?}: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "{command:?}: no {word:?} in {stderr}");
    }
}

/// What `--check` says, as `name value` lines with single spaces.
#[track_caller]
fn checked(command: &mut Command) -> Vec<String> {
    let (code, stdout, stderr) = output(command);
    assert_eq!((code, stderr.as_str()), (0, ""), "{command:?}");
    stdout.lines().skip(1).map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn file(name: &str, text: &str) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path.into_os_string().into_string().unwrap()
}

/// A program that serves. It is killed when this is dropped or patience is over; then whatever
/// waits for it, a read or a line, ends too.
struct Running {
    pid: Pid,
    lines: Receiver<String>,
    exit: Receiver<ExitStatus>,
    _alive: Sender<()>,
}

impl Running {
    fn start(args: &[&str]) -> (Self, String) {
        let mut child = pousse(args).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let mut running = Self::of(child);
        running.listen(stderr);
        let address = running.address();
        (running, address)
    }

    fn of(mut child: Child) -> Self {
        let pid = Pid::from_child(&child);
        let ((status, exit), (_alive, dropped)) = (channel(), channel());
        thread::spawn(move || {
            for _ in 0..PATIENCE.as_millis() / LOOK.as_millis() {
                if let Some(ended) = child.try_wait().unwrap() {
                    return status.send(ended).unwrap_or(());
                }
                if dropped.recv_timeout(LOOK) == Err(RecvTimeoutError::Disconnected) {
                    break;
                }
            }
            child.kill().and_then(|()| child.wait()).unwrap();
        });
        Self { pid, lines: channel().1, exit, _alive }
    }

    fn listen(&mut self, stderr: impl Read + Send + 'static) {
        let (line, lines) = channel();
        thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|l| line.send(l))
        });
        self.lines = lines;
    }

    /// The next line of the log; none when it has ended.
    fn line(&self) -> Option<String> {
        self.lines.recv().ok()
    }

    /// Reads the log up to a line with this word.
    fn line_with(&self, word: &str) -> String {
        let mut lines = std::iter::from_fn(|| self.line());
        lines.find(|line| line.contains(word)).unwrap_or_else(|| panic!("no line has {word:?}"))
    }

    /// Reads a start line: `HOST:PORT` or `unix:PATH`.
    fn address(&self) -> String {
        let line = self.line().expect("a start line");
        let start = concat!("pousse ", env!("CARGO_PKG_VERSION"), " listening on ");
        let address = line.strip_prefix(start).unwrap_or_else(|| panic!("{line}"));
        address.strip_prefix("http://").unwrap_or(address).to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    fn exit_code(&self) -> Option<i32> {
        self.exit.recv().expect("it ends").code()
    }
}

fn page(mut stream: impl Read + Write) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned()
}

/// A WebSocket in text mode. It answers a close frame only when it is read from again.
fn websocket(address: &str) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    tungstenite::client(format!("ws://{address}/websocket"), stream).unwrap().0
}

#[track_caller]
fn hear_close(client: &mut WebSocket<TcpStream>) -> (u16, String) {
    match client.read().unwrap() {
        Message::Close(Some(frame)) => (frame.code.into(), frame.reason.to_string()),
        other => panic!("{other:?} is no close frame with a code"),
    }
}

#[test]
fn a_wrong_command_line_is_64_and_says_what_is_wanted() {
    for (args, words) in [
        (&["--max-client", "3"][..], &["--max-client;", "did you mean --max-clients?"][..]),
        (&["--pub", "nobody"], &["did you mean --publish?"]),
        (&["--frobnicate"], &["--frobnicate", "--help"]),
        (&["-q"], &["-q", "--help"]),
        (&["serve"], &["serve", "--help"]),
        (&["--ping"], &["--ping wants TIME"]),
        (&["--check=yes"], &["--check", "yes"]),
        (&["--ping", "25"], &["--ping", "500ms", "\"25\""]),
        (&["--ping=0s"], &["ping cannot be 0"]),
        (&["--ping", "\x1b[2J\n"], &["\"\\u{1b}[2J\\n\""]),
        (&["--max-clients", "-5"], &["--max-clients is a number", "\"-5\""]),
        (&["--listen", "8080"], &["--listen", "HOST:PORT", "unix:PATH", "\"8080\""]),
        (&["--origin", "example.org"], &["--origin", "https://HOST", "\"example.org\""]),
        (&["--host", "http://a"], &["--host", "a name", "\"http://a\""]),
        (&["--log", "trace"], &["--log", "debug", "\"trace\""]),
        (&["--publish", "all"], &["--publish is anyone or nobody", "\"all\""]),
        (&["--publish", "token"], &["--publish", "this build", "yet"]),
        (&["--stall", "5s"], &["--stall", "--limit", "stall=VALUE"]),
        (&["--limit", "stal=5s"], &["\"stal\"", "did you mean stall?"]),
        (&["--limit", "stall"], &["--limit is NAME=VALUE", "\"stall\""]),
        (&["--limit", "stall=5"], &["--limit stall is a time", "\"5\""]),
        (&["--limit", "max-message=1KiB"], &["use --max-message 1KiB"]),
    ] {
        refused(&mut pousse(args), 64, words);
    }
    let not_utf8 = OsStr::from_bytes(b"\xff");
    refused(pousse(&["--root"]).arg(not_utf8), 64, &["--root", "UTF-8", "\\xFF"]);
}

#[rustfmt::skip]
const NOT_YET: [&str; 6] = [
    "control", "subscribe", "token-file", "deflate", "redis", "reuse-port",
];

#[test]
fn what_this_build_does_not_have_yet_is_said_and_not_passed_over() {
    for name in NOT_YET {
        let words = [name, "not in this build yet"];
        refused(&mut pousse(&[&format!("--{name}"), "x"]), 64, &words);
        let variable = format!("POUSSE_{}", name.replace('-', "_").to_uppercase());
        refused(pousse(&[]).env(&variable, "x"), 78, &[&variable, words[1]]);
        let path = file(&format!("{name}.conf"), &format!("{name} = x\n"));
        refused(&mut pousse(&["--config", &path]), 78, &[":1:", name, words[1]]);
    }
}

#[test]
fn networks_are_checked_when_they_are_given() {
    for flag in ["--deny", "--trust-proxy"] {
        refused(&mut pousse(&[flag, "10.0.0.0/33"]), 64, &[flag, "such as 192.0.2.0/24"]);
        refused(&mut pousse(&[flag, "10.0.0.1/8"]), 64, &[flag, "behind the first 8"]);
        let lines = checked(&mut pousse(&["--check", flag, "10.0.0.0/8", flag, "::1"]));
        let name = flag.trim_start_matches('-');
        for network in ["10.0.0.0/8", "::1/128"] {
            assert!(lines.contains(&format!("{name} {network}")), "{lines:?}");
        }
    }
    let (running, _) = Running::start(&["--listen", "127.0.0.1:0", "--trust-proxy", "10.0.0.0/8"]);
    assert!(running.line_with("event=publish").contains("rule=nobody"), "a proxy is the world");
}

#[test]
fn a_wrong_environment_file_or_folder_is_78() {
    refused(pousse(&[]).env("POUSSE_PING", "25"), 78, &["POUSSE_PING is a time", "\"25\""]);
    refused(pousse(&[]).env("POUSSE_PING", "0s"), 78, &["ping cannot be 0"]);
    refused(&mut pousse(&["--config", "/nowhere"]), 78, &["\"/nowhere\""]);
    refused(pousse(&[]).env("POUSSE_CONFIG", "/nowhere"), 78, &["\"/nowhere\""]);
    refused(&mut pousse(&["--root", "/nowhere"]), 78, &["/nowhere"]);
    refused(&mut pousse(&["--root", "/nowhere", "--check"]), 78, &["/nowhere"]);
    for (name, line, words) in [
        ("key", "max-client = 3", &["did you mean max-clients?"][..]),
        ("form", "max-clients", &["NAME = VALUE", "\"max-clients\""]),
        ("empty", "origin =", &["NAME = VALUE"]),
        ("value", "ping = 25", &["ping is a time", "\"25\""]),
        ("limit", "stall = 5s", &["stall is set by limit", "stall=VALUE"]),
        ("check", "check = yes", &["check cannot stand in a file"]),
        ("config", "config = other", &["config cannot stand in a file"]),
    ] {
        let path = file(&format!("wrong-{name}.conf"), &format!("# first\n\n{line}\n"));
        let place = format!("{path}:3:");
        refused(&mut pousse(&["--config", &path]), 78, &[&[place.as_str()], words].concat());
        let hidden = ["--config", &path, "--ping", "1s"];
        refused(&mut pousse(&hidden), 78, &[&place]);
    }
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let path = file(
        "precedence.conf",
        "# all of it\r\nmax-topics = 10   # a few\nping=11s\nhistory_age = 12m\n\
         origin = https://a, https://b\nlimit = stall=1s, outbox=2MiB\nlisten = unix:/tmp/a#b\n",
    );
    let alone = checked(&mut pousse(&["--config", &path, "--check"]));
    for line in ["max-topics 10", "ping 11s", "history-age 12m", "origin https://a", "stall 1s"] {
        assert!(alone.contains(&line.into()), "{line}: {alone:?}");
    }
    assert!(alone.contains(&"listen unix:/tmp/a#b".into()), "{alone:?}");

    let mut command = pousse(&["--check", "--ping=30s", "--ping", "31s", "--limit", "stall=3s"]);
    command.args(["--listen", ":1", "--listen=[::1]:2"]);
    command.env("POUSSE_CONFIG", &path).env("POUSSE_MAX_TOPICS", "20").env("POUSSE_PING", "21s");
    command.env("POUSSE_ORIGIN", "https://c,null").env("POUSSE_LOG", "");
    command.env("POUSSE_TEST_REQUIRE", "all").env("POUSSE_CHECKED", "no");
    let all = checked(&mut command);
    let (settings, bounds) = all.split_at(6);
    let expected = ["listen :1", "listen [::1]:2", "root (the built-in page)"];
    assert_eq!(settings[..3], expected, "a list replaces the weaker one whole");
    assert_eq!(settings[4..], ["origin https://c", "origin null"]);
    for line in ["history-age 12m", "max-topics 20", "ping 31s", "stall 3s", "log info"] {
        assert!(bounds.contains(&line.into()), "{line}: {all:?}");
    }
    assert!(!bounds.iter().any(|line| line.starts_with("outbox ")), "{all:?}");
}

#[test]
fn help_lists_every_flag_of_this_build_in_a_hundred_columns() {
    let (code, help, stderr) = output(&mut pousse(&["--ping", "nonsense", "--help"]));
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    let (own, other): (Vec<_>, Vec<_>) = pousse::LIMITS.iter().partition(|limit| limit.has_flag);
    let flags = "listen root tls-cert tls-key publish origin host deny trust-proxy limit log config check help version";
    for name in own.iter().map(|limit| limit.name).chain(flags.split(' ')) {
        assert!(help.contains(&format!("\n  --{name} ")), "{name}");
    }
    assert!(NOT_YET.iter().all(|name| !help.contains(&format!("--{name}"))), "{help}");

    let (code, help, _) = output(&mut pousse(&["--limit", "help"]));
    assert_eq!(code, 0);
    for limit in other {
        let default = (limit.show)(&pousse::Limits::default());
        assert!(help.contains(&format!("\n  {}={default} ", limit.name)), "{}", limit.name);
    }
    assert!(own.iter().all(|limit| !help.contains(&format!("  {}=", limit.name))), "{help}");
    let version = concat!("pousse ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(output(&mut pousse(&["--version"])), (0, version.into(), String::new()));
}

#[test]
fn help_into_a_pipe_that_nobody_reads_ends_well() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let child = pousse(&["--help"]).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let (code, _, stderr) = finish(child);
    assert_eq!((code, stderr.as_str()), (0, ""));
}

#[test]
fn as_many_clients_as_descriptors_allow_and_no_more() {
    let program = env!("CARGO_BIN_EXE_pousse");
    let shell = |script: &str, flag: &str| {
        let mut command = Command::new("/bin/sh");
        clean(&mut command).args(["-c", script, program, "--check", flag]);
        command
    };
    let few = "ulimit -n 256; exec \"$0\" \"$@\"";
    assert!(checked(&mut shell(few, "--ping=9s")).contains(&"max-clients 192".into()));
    refused(&mut shell(few, "--max-clients=193"), 78, &["193", "256", "leaves 192"]);
    let soft = "ulimit -S -n 100; ulimit -H -n 300; exec \"$0\" \"$@\"";
    assert!(checked(&mut shell(soft, "--ping=9s")).contains(&"max-clients 236".into()));
}

#[test]
fn an_address_in_use_is_69() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused(&mut pousse(&["--listen", &address]), 69, &["cannot listen on", &address]);
}

#[test]
fn check_looks_at_what_can_be_seen_without_listening() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = env!("CARGO_TARGET_TMPDIR");
    let said = checked(&mut pousse(&["--check", "--listen", &address, "--root", folder]));
    assert!(said.contains(&format!("root {folder} (without index.html: / is a 404)")), "{said:?}");
    assert!(said.iter().any(|line| line.starts_with("memory ")), "{said:?}");
    for address in ["unix:/nowhere/pousse.sock", "name.invalid:80"] {
        refused(&mut pousse(&["--check", "--listen", address]), 69, &["cannot listen", address]);
    }
}

#[test]
fn what_a_beginner_wonders_about_is_in_the_log() {
    let folder = env!("CARGO_TARGET_TMPDIR");
    let (running, address) = Running::start(&["--listen", ":0", "--root", folder]);
    let port = address.rsplit(':').next().unwrap();
    let line = running.line_with(" info event=open ");
    assert!(line.contains(&format!(" url=http://localhost:{port} hint=")), "{line}");
    let line = running.line_with(" warn event=no_index ");
    assert!(line.contains("there is no index.html in it"), "{line}");
}

#[test]
fn the_first_lines_say_where_it_listens_with_the_real_port() {
    let socket = std::env::temp_dir().join(format!("pousse-{}.sock", std::process::id()));
    let unix = format!("unix:{}", socket.display());
    let listen = ["--listen", "127.0.0.1:0", "--listen", &unix, "--log", "error"];
    let (running, address) = Running::start(&listen);
    assert_eq!(running.address(), unix);
    assert_eq!(page(TcpStream::connect(&address).unwrap()), "HTTP/1.1 200");
    assert_eq!(page(UnixStream::connect(&socket).unwrap()), "HTTP/1.1 200");
    running.signal(Signal::TERM);
    assert_eq!(running.exit_code(), Some(0));
    assert_eq!(running.line(), None, "--log error: the start lines and nothing else");
    assert!(!socket.exists());
}

#[test]
fn the_log_says_who_may_publish_and_text_mode_keeps_to_it() {
    let (running, address) = Running::start(&["--listen", "127.0.0.1:0"]);
    let line = running.line().unwrap();
    assert!(
        line.contains("Z info event=publish rule=anyone ") && line.contains("--publish nobody")
    );
    let mut client = websocket(&address);
    client.send("Bonjour".into()).unwrap();
    assert_eq!(client.read().unwrap(), "Bonjour".into());

    let (running, address) = Running::start(&["--listen", "127.0.0.1:0", "--host", "example.org"]);
    let line = running.line().unwrap();
    assert!(line.contains("event=publish rule=nobody ") && line.contains("--publish anyone"));
    let mut client = websocket(&address);
    client.send("Bonjour".into()).unwrap();
    let reason = "publishing is not allowed here; see --publish";
    assert_eq!(hear_close(&mut client), (1008, reason.into()));
}

#[test]
fn signals_end_it_restart_it_and_ask_it() {
    // Clients that never answer the close frame, so that draining would last an hour.
    let slow = ["--listen", "127.0.0.1:0", "--drain", "1h", "--limit", "close-timeout=1h"];
    for (signal, code) in [(Signal::TERM, 1001), (Signal::INT, 1001), (Signal::USR2, 1012)] {
        let (running, address) = Running::start(&slow);
        let mut client = websocket(&address);
        running.signal(Signal::HUP);
        running.line_with(" info event=signal name=SIGHUP");
        running.line_with(" info event=reload ");
        running.signal(Signal::USR1);
        let counters = running.line_with(" info event=counters ");
        assert!(counters.contains(" accepted=1 "), "{counters}");
        running.signal(signal);
        assert_eq!(hear_close(&mut client).0, code);
        running.signal(Signal::TERM);
        assert_eq!(running.exit_code(), Some(0), "the second signal ends it at once");
    }
}

#[test]
fn a_log_that_nobody_reads_stops_nobody() {
    let (reader, writer) = pipe().unwrap();
    let mut filler = writer.try_clone().unwrap();
    let mut running =
        Running::of(pousse(&["--listen", "127.0.0.1:0"]).stderr(writer).spawn().unwrap());
    let mut reader = BufReader::new(reader);
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let address = first.trim().rsplit('/').next().unwrap();
    assert_eq!(
        page(TcpStream::connect(address).unwrap()),
        "HTTP/1.1 200",
        "so it has said all it says at its start"
    );
    let mut filled = Vec::new();
    while takes_more(&filler) {
        filler.write_all(&[b'\n'; 4096]).unwrap();
        filled.resize(filled.len() + 4096, 0);
    }
    drop(filler);
    running.signal(Signal::USR1);
    assert_eq!(page(TcpStream::connect(address).unwrap()), "HTTP/1.1 200");

    reader.read_exact(&mut filled).unwrap();
    running.listen(reader);
    running.signal(Signal::USR1);
    let dropped = running.line_with("event=log_dropped lines=");
    assert!(dropped.contains("Z warn "), "{dropped}");
    running.line_with(" info event=counters ");
    running.signal(Signal::TERM);
    assert_eq!(running.exit_code(), Some(0));
}

/// Whether a pipe takes 4 KiB without waiting, asked without a change to the program's end of it.
fn takes_more(pipe: impl AsFd) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&pipe, PollFlags::OUT)], Some(&at_once)).unwrap() > 0
}
