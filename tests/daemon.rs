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
use std::os::unix::fs::PermissionsExt;
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
    let mut command = Command::new(kit::program());
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
        (&["-\x1b"], &["-\\u{1b}", "--help"]),
        (&["a\nb"], &["a\\nb", "--help"]),
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
        (&["--publish", "all"], &["--publish is anyone, token or nobody", "\"all\""]),
        (&["--publish", "token"], &["--publish token", "give --token-file FILE"]),
        (&["--subscribe", "token"], &["--subscribe token", "give --token-file FILE"]),
        (&["--subscribe", "nobody"], &["--subscribe is anyone or token", "\"nobody\""]),
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
const NOT_YET: [&str; 2] = ["redis", "reuse-port"];

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
fn whether_it_compresses_is_on_or_off() {
    refused(&mut pousse(&["--deflate", "maybe"]), 64, &["--deflate is on or off", "\"maybe\""]);
    refused(pousse(&[]).env("POUSSE_DEFLATE", "1"), 78, &["POUSSE_DEFLATE is on or off"]);
    let has_line = |command: &mut Command, line: &str| {
        let lines = checked(command);
        assert!(lines.iter().any(|it| it == line), "{lines:?}");
    };
    has_line(&mut pousse(&["--check", "--deflate", "off"]), "deflate off");
    if cfg!(feature = "deflate") {
        has_line(&mut pousse(&["--check"]), "deflate on");
        let path = file("deflate.conf", "deflate = off\n");
        has_line(&mut pousse(&["--check", "--config", &path]), "deflate off");
        has_line(&mut pousse(&["--check", "--config", &path, "--deflate", "on"]), "deflate on");
    } else {
        has_line(&mut pousse(&["--check"]), "deflate off");
        let words = ["--deflate cannot be on", "lacks the feature `deflate`"];
        refused(&mut pousse(&["--deflate", "on"]), 64, &words);
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
fn a_control_listener_that_others_can_reach_is_78_wherever_it_was_asked_for() {
    let words = ["control", "can be reached from other machines", "127.0.0.1:9090"];
    for address in [":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:9090"] {
        refused(&mut pousse(&["--control", address]), 78, &words);
        refused(&mut pousse(&["--control", address, "--check"]), 78, &words);
        refused(pousse(&[]).env("POUSSE_CONTROL", address), 78, &words);
    }
    let path = file("control.conf", "control = :9090\n");
    refused(&mut pousse(&["--config", &path]), 78, &words);
    refused(&mut pousse(&["--control", "9090"]), 64, &["--control is HOST:PORT", "9090"]);

    for given in ["127.0.0.1:9090", "[::1]:9090", "localhost:9090", "unix:/tmp/p.sock"] {
        let lines = checked(&mut pousse(&["--check", "--control", given]));
        assert!(lines.contains(&format!("control {given}")), "{lines:?}");
    }
    assert!(!checked(&mut pousse(&["--check"])).iter().any(|line| line.starts_with("control ")));
}

#[test]
fn the_control_listener_has_the_last_start_line_and_knows_when_the_program_drains() {
    let args = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0"];
    let (running, address) = Running::start(
        &[&args[..], &["--drain", "100s", "--limit", "close-timeout=100s"]].concat(),
    );
    running.address();
    let line = running.line().unwrap();
    let start = concat!("pousse ", env!("CARGO_PKG_VERSION"), " listening on http://");
    let control = line.strip_prefix(start).unwrap_or_else(|| panic!("{line}")).to_owned();
    let ready = || {
        let mut stream = TcpStream::connect(&control).unwrap();
        let head = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer[9..12].to_owned()
    };
    assert_eq!(ready(), "200");
    let mut client = websocket(&address);
    running.signal(Signal::TERM);
    running.line_with("event=drain");
    assert_eq!(ready(), "503");
    assert_eq!(hear_close(&mut client).0, 1001);
    while client.read().is_ok() {}
    assert_eq!(running.exit_code(), Some(0));

    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("control.sock");
    let path = format!("unix:{}", path.display());
    let (running, _) = Running::start(&["--listen", "127.0.0.1:0", "--control", &path]);
    assert!(running.line().unwrap().ends_with(&format!(" listening on {path}")));
}

#[test]
fn help_lists_every_flag_of_this_build_in_a_hundred_columns() {
    let (code, help, stderr) = output(&mut pousse(&["--ping", "nonsense", "--help"]));
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    let (own, other): (Vec<_>, Vec<_>) = pousse::LIMITS.iter().partition(|limit| limit.has_flag);
    let flags = "listen control root tls-cert tls-key publish subscribe token-file origin host \
                 deny trust-proxy limit log config check help version";
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
    let program = kit::program();
    let shell = |script: &str, flag: &str| {
        let mut command = Command::new("/bin/sh");
        clean(&mut command).args(["-c", script]).arg(&program).args(["--check", flag]);
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
fn what_fails_and_no_setting_can_mend_is_70() {
    // All descriptors that it may have are taken, by bash, when it starts.
    let take = "for n in {3..78}; do eval \"exec $n</dev/null\"; done; ulimit -n 80; exec \"$0\"";
    let mut command = Command::new("bash");
    clean(&mut command).args(["-c", take]).arg(kit::program());
    if has("bash") {
        refused(&mut command, 70, &["Too many open files"]);
    }
}

#[test]
fn a_loop_that_cannot_be_told_what_is_ready_ends_with_70() {
    let fault = "inject=?epoll_wait,?epoll_pwait:error=EBADF";
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", fault]);
    let traces = |command: &mut Command| command.status().is_ok_and(|it| it.success());
    if !has("strace") || !traces(Command::new("strace").args(["-qq", "-o", "/dev/null", "true"])) {
        return;
    }
    clean(&mut command).arg(kit::program()).args(["--listen", "127.0.0.1:0"]);
    let (code, _, log) = output(&mut command);
    assert_eq!(code, 70, "{log}");
    assert!(log.contains(" error event=failed error=\"the readiness queue failed: "), "{log}");
}

/// Whether the machine has this program; where nothing may be skipped, it has to.
fn has(program: &str) -> bool {
    let is_there = Command::new(program).arg("--version").output().is_ok();
    let is_required = std::env::var("POUSSE_TEST_REQUIRE").is_ok_and(|it| it == "all");
    assert!(is_there || !is_required, "{program} is missing");
    if !is_there {
        println!("SKIPPED: exit code 70 (apt-get install {program})");
    }
    is_there
}

#[test]
fn check_looks_at_what_can_be_seen_without_listening() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = env!("CARGO_TARGET_TMPDIR");
    let said = checked(&mut pousse(&["--check", "--listen", &address, "--root", folder]));
    assert!(
        said.contains(&"note there is no index.html in the root: / is a 404".into()),
        "{said:?}"
    );
    assert!(said.iter().any(|line| line.starts_with("memory-at-worst ")), "{said:?}");
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

/// A token file that nobody else can read.
fn tokens(name: &str, text: &str) -> String {
    let path = file(name, text);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

const ALICE: &str = "alice-0123456789abcdef";
const BOB: &str = "bob-0123456789abcdef";

#[test]
fn a_wrong_token_file_is_78_and_the_token_in_it_is_not_told() {
    for (name, text, words) in [
        ("short", "alice secret-secret\n", &[":1:", "at least 16 characters"][..]),
        ("odd", "# all\nalice secret_secret_secret\"\n", &[":2:", "a token has letters"]),
        ("words", "alice = secret-secret-secret\n", &[":1:", "NAME TOKEN"]),
        ("alone", "secret-secret-secret\n", &[":1:", "NAME TOKEN"]),
        ("name", "al/ice secret-secret-secret\n", &[":1:", "a name has"]),
        ("names", "a secret-secret-11\na secret-secret-22\n", &[":2:", "name a", "line 1"]),
        ("twice", "a secret-secret-11\nb secret-secret-11\n", &[":2:", "this token", "line 1"]),
        ("empty", "# nobody yet\n", &["nobody is named"]),
        ("long", &"#".repeat(70_000), &["over 65536 bytes"]),
    ] {
        let path = tokens(&format!("wrong-{name}.tokens"), text);
        for args in [&["--token-file", &path][..], &["--token-file", &path, "--check"]] {
            let (code, _, stderr) = output(&mut pousse(args));
            assert!(!stderr.contains("secret"), "{stderr}");
            assert_eq!((code, stderr.lines().count()), (78, 1), "{stderr}");
            for word in [&[path.as_str()], words].concat() {
                assert!(stderr.contains(word), "{name}: no {word:?} in {stderr}");
            }
        }
    }
    refused(&mut pousse(&["--token-file", "/nowhere"]), 78, &["token file /nowhere", "No such"]);
    refused(&mut pousse(&["--token-file", "/dev/zero"]), 78, &["/dev/zero", "no regular file"]);
    // Whose fault it is that the file is missing depends on who asks for tokens.
    refused(pousse(&[]).env("POUSSE_PUBLISH", "token"), 78, &["--publish token", "--token-file"]);
    let path = tokens("checked.tokens", &format!("alice {ALICE}\n"));
    let mut command = pousse(&["--check", "--publish", "token", "--token-file", &path]);
    let told = checked(command.env("POUSSE_SUBSCRIBE", "token"));
    for line in ["publish token".into(), "subscribe token".into(), format!("token-file {path}")] {
        assert!(told.contains(&line), "{line}: {told:?}");
    }
    // A flag takes back what the environment wants.
    let mut command = pousse(&["--check", "--publish", "nobody"]);
    assert!(checked(command.env("POUSSE_PUBLISH", "token")).contains(&"publish nobody".into()));
}

#[test]
fn a_token_file_that_everyone_can_read_is_warned_of() {
    let path = tokens("public.tokens", &format!("alice {ALICE}\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (running, _) = Running::start(&["--listen", "127.0.0.1:0", "--token-file", &path]);
    let line = running.line_with(" warn event=token_file ");
    assert!(line.contains("chmod 600"), "{line}");
}

/// Asks, with these fields, on a connection of its own; the answer.
fn ask(address: &str, request: &str, fields: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let rest = format!("Host: localhost\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(format!("{request} HTTP/1.1\r\n{rest}").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn post(address: &str, token: &str) -> String {
    let fields = format!("Authorization: Bearer {token}\r\nContent-Length: 0\r\n");
    ask(address, "POST /api/messages", &fields)[9..12].to_owned()
}

#[test]
fn a_token_file_of_no_names_takes_back_all_of_them() {
    let path = tokens("taken_back.tokens", &format!("alice {ALICE}\n"));
    let flags = ["--listen", "127.0.0.1:0", "--publish", "token", "--token-file", &path];
    let (running, address) = Running::start(&flags);
    assert_eq!(post(&address, ALICE), "201");
    std::fs::write(&path, "# nobody any more\n").unwrap();
    running.signal(Signal::HUP);
    assert!(running.line_with("event=reload what=tokens").contains("names=0"));
    assert_eq!(post(&address, ALICE), "401");
}

#[test]
fn what_is_no_regular_file_is_not_waited_for() {
    let fifo = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("settings.fifo");
    let _ = std::fs::remove_file(&fifo);
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let fifo = fifo.to_str().unwrap();
    refused(&mut pousse(&["--config", fifo]), 78, &["settings.fifo", "no regular file"]);
    let words = ["settings.fifo", "no regular file"];
    refused(&mut pousse(&["--tls-cert", fifo, "--tls-key", fifo]), 78, &words);
    refused(&mut pousse(&["--check", "--tls-cert", fifo, "--tls-key", fifo]), 78, &words);
    refused(&mut pousse(&["--config", "/dev/zero"]), 78, &["/dev/zero", "no regular file"]);
}

#[test]
fn from_other_machines_the_control_listener_asks_for_a_token() {
    let path = tokens("control.tokens", &format!("alice {ALICE}\n"));
    let flags = ["--listen", "127.0.0.1:0", "--token-file", &path, "--control"];
    let control = |running: &Running| {
        let line = running.line().unwrap();
        line.rsplit_once("http://").unwrap().1.replace("0.0.0.0", "127.0.0.1")
    };
    let (running, _) = Running::start(&[&flags[..], &["0.0.0.0:0"]].concat());
    let everywhere = control(&running);
    let alice = format!("Authorization: Bearer {ALICE}\r\n");
    for request in ["GET /metrics", "GET /api/clients", "DELETE /api/topics/t", "GET /nowhere"] {
        assert_eq!(&ask(&everywhere, request, "")[9..12], "401", "{request}");
        assert_ne!(&ask(&everywhere, request, &alice)[9..12], "401", "{request}");
    }
    let wrong = ask(&everywhere, "GET /metrics", "Authorization: Bearer 0123456789abcdef\r\n");
    assert!(wrong.contains("error=\"invalid_token\""), "{wrong}");
    assert_eq!(&ask(&everywhere, "GET /metrics", &alice)[9..12], "200");
    let (running, _) = Running::start(&[&flags[..], &["127.0.0.1:0"]].concat());
    assert_eq!(&ask(&control(&running), "GET /metrics", "")[9..12], "200", "here nobody is asked");
}

#[test]
fn no_token_is_ever_logged_or_answered_and_the_log_says_who_it_was() {
    let path = tokens("logged.tokens", &format!("alice {ALICE}\nbob {BOB}\n"));
    let (running, address) = Running::start(&[
        "--listen",
        "127.0.0.1:0",
        "--log",
        "debug",
        "--publish",
        "token",
        "--subscribe",
        "token",
        "--token-file",
        &path,
    ]);
    let stream = TcpStream::connect(&address).unwrap();
    let url = format!("ws://{address}/websocket?topic=tea&token={ALICE}");
    let mut client = tungstenite::client(url, stream).unwrap().0;
    client.send("hot".into()).unwrap();
    assert_eq!(client.read().unwrap(), "hot".into());
    assert_eq!(post(&address, BOB), "201");
    let mut answers = String::new();
    let fields = format!("Authorization: Bearer {BOB}\r\n");
    for (request, fields) in [
        (format!("GET /api/messages?token={ALICE}"), ""),
        (format!("GET /websocket?token={ALICE}"), ""),
        (format!("GET /websocket?token={ALICE}"), &fields),
        (format!("GET /nowhere?token={ALICE}"), &fields),
        (format!("GET /nowhere;token={ALICE}"), &fields),
        (format!("GET /%20?access_token={ALICE}"), &fields),
        (format!("POST /api/messages?token={ALICE}"), "Content-Length: 99999999\r\n"),
        (format!("DELETE /api/messages?token={ALICE}"), &fields),
        (format!("GET /api/messages?after=x&token={ALICE}"), &fields),
        (format!("GET /api/messages?token={ALICE}"), "Host: twice\r\n"),
        ("GET /api/messages".into(), &format!("Authorization: Bearer {ALICE}x\r\n")),
        ("GET /api/messages".into(), &format!("Authorization: Basic {ALICE}\r\n")),
        ("GET /api/messages".into(), &format!("{fields}Authorization: Bearer {ALICE}\r\n")),
    ] {
        answers.push_str(&ask(&address, &request, fields));
    }
    client.close(None).unwrap();
    while client.read().is_ok() {}
    running.signal(Signal::USR1);
    running.signal(Signal::TERM);
    let lines: Vec<String> = std::iter::from_fn(|| running.line()).collect();
    let log = lines.join("\n");
    for told in [&log, &answers] {
        assert!(!told.contains("0123456789"), "{told}");
    }
    for words in [
        "event=opened client=0-1 peer=127.0.0.1:",
        " name=alice\n",
        "event=may_publish client=0-1 name=alice topic=\"tea\"",
        " name=bob topic=\"general\"",
        "event=token name=alice subscribes=1 publishes=1\n",
        "event=token name=bob subscribes=0 publishes=1",
        "path=\"/nowhere;token=***\"",
    ] {
        assert!(log.contains(words), "no {words:?} in {log}");
    }
}

#[test]
fn hup_reads_tokens_and_origins_again_and_drops_nobody() {
    let path = tokens("reloaded.tokens", &format!("alice {ALICE}\nbob {BOB}\n"));
    let text = |origin: &str| format!("origin = {origin}\ntoken-file = {path}\npublish = token\n");
    let config = file("reloaded.conf", &text("https://a.example"));
    let args = ["--listen", "127.0.0.1:0", "--config", &config, "--ping", "1h"];
    let (running, address) = Running::start(&args);
    let open = |token| {
        let stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let url = format!("ws://{address}/websocket?token={token}");
        tungstenite::client(url, stream).unwrap().0
    };
    let reload = || {
        running.signal(Signal::HUP);
        running.line_with("event=signal name=SIGHUP");
        (running.line().unwrap(), running.line().unwrap())
    };
    let from = |origin: &str| {
        let answer = ask(&address, "GET /api/messages", &format!("Origin: {origin}\r\n"));
        answer[9..12].to_owned()
    };
    let (mut alice, mut bob) = (open(ALICE), open(BOB));
    assert_eq!(
        (from("https://a.example"), from("https://b.example")),
        ("200".into(), "403".into())
    );

    // What is wrong changes nothing.
    tokens("reloaded.tokens", &format!("alice {ALICE}\nbob\n"));
    file("reloaded.conf", "origin = example.org\n");
    let (settings, names) = reload();
    assert!(settings.contains(" error event=reload_failed what=settings error="), "{settings}");
    assert!(settings.contains("reloaded.conf:1: origin is https://HOST"), "{settings}");
    assert!(names.contains(" error event=reload_failed what=tokens error="), "{names}");
    assert!(names.contains("reloaded.tokens:2: a line is NAME TOKEN"), "{names}");
    assert_eq!((post(&address, BOB), from("https://a.example")), ("201".into(), "200".into()));
    for client in [&mut alice, &mut bob] {
        assert_eq!(client.read().unwrap(), "".into());
    }

    // Bob is gone, and Alice has another token.
    tokens("reloaded.tokens", "alice another-0123456789abcdef\ncarol carol-0123456789abcdef\n");
    file("reloaded.conf", &(text("https://b.example") + "max-topics = 5\n"));
    let (settings, restart) = reload();
    assert!(settings.contains(" info event=reload what=origins origins=1"), "{settings}");
    assert!(restart.contains(" warn event=reload what=max-topics hint="), "{restart}");
    let names = running.line().unwrap();
    assert!(names.contains(" info event=reload what=tokens names=2"), "{names}");
    assert_eq!(
        (from("https://a.example"), from("https://b.example")),
        ("403".into(), "200".into())
    );
    assert_eq!((post(&address, ALICE), post(&address, BOB)), ("401".into(), "401".into()));
    assert_eq!(post(&address, "another-0123456789abcdef"), "201");
    alice.send("still here".into()).unwrap();
    for client in [&mut alice, &mut bob] {
        assert_eq!(client.read().unwrap(), "".into());
        assert_eq!(client.read().unwrap(), "still here".into());
    }
    bob.send("me too".into()).unwrap();
    let reason = "the name that this WebSocket was opened with is no longer in the token file";
    assert_eq!(hear_close(&mut bob), (1008, reason.into()));
    running.signal(Signal::USR1);
    let line = running.line_with("event=token name=alice ");
    assert!(line.contains("subscribes=1 publishes=2"), "{line}");
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

#[test]
fn a_log_on_a_full_disk_stops_nobody() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let place = std::env::temp_dir().join(format!("pousse-full-disk-{}", std::process::id()));
    let listen = format!("unix:{}", place.display());
    let mut child = pousse(&["--listen", &listen, "--log", "debug"]).stderr(full).spawn().unwrap();
    let connect = || {
        let mut attempts = std::iter::repeat_with(|| UnixStream::connect(&place)).take(20_000_000);
        attempts.find_map(Result::ok).expect("it listens")
    };
    for _ in 0..20 {
        assert_eq!(page(connect()), "HTTP/1.1 200", "though no line of it can be written");
    }
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::USR1).unwrap();
    assert_eq!(page(connect()), "HTTP/1.1 200");
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Whether a pipe takes 4 KiB without waiting, asked without a change to the program's end of it.
fn takes_more(pipe: impl AsFd) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&pipe, PollFlags::OUT)], Some(&at_once)).unwrap() > 0
}
