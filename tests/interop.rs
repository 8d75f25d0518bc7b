//! Clients that other people wrote, against the real program and the echo: `websockets` of PyPI
//! and `ws` of npm.
//!
//! Each conversation is written twice, in `tests/interop/client.py` and `client.mjs`, and both have
//! to see the same. Here is who starts the server, what it does in the meantime, and what has to
//! be seen. Browsers are tried in `tests/browser.rs`.

#![cfg(all(feature = "daemon", feature = "tls", feature = "v1"))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests are tests")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use kit::support::skip;
use rustix::process::{Pid, Signal, kill_process};

/// How long a line is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Both clients have to hold each conversation.
macro_rules! conversations {
    ($($name:ident)+) => {
        mod websockets_of_python {
            $(
                #[test]
                fn $name() {
                    super::python().map_or_else(|missing| super::skip(&missing), super::$name);
                }
            )+
        }
        mod ws_of_node {
            $(
                #[test]
                fn $name() {
                    super::node().map_or_else(|missing| super::skip(&missing), super::$name);
                }
            )+
        }
    };
}

conversations! {
    messages_fragments_and_a_mebibyte_come_back
    the_code_and_reason_of_a_close_come_back
    a_message_that_is_too_big_is_closed_with_1009
    what_cannot_be_is_closed_with_1002_and_1007
    a_server_that_drains_says_1001_and_one_that_restarts_1012
    pings_are_answered_on_both_sides
    pousse_v1_resumes_where_it_was_cut
    a_subprotocol_that_is_unknown_is_refused
    tls_with_a_certificate_that_signs_itself
}

fn messages_fragments_and_a_mebibyte_come_back(client: Client) {
    let echo = Server::echo();
    let negotiated = if compresses() { "extensions: permessage-deflate" } else { "extensions:" };
    let seen = ["messages came back", "fragments came back", "1 MiB came back"];
    client.talks("messages", &echo.url, &[]).says(&[&[negotiated], &seen[..]].concat());
}

fn the_code_and_reason_of_a_close_come_back(client: Client) {
    let long = format!("4999 {}", "x".repeat(123));
    let seen = ["1000", "1000 adieu", "3000 à bientôt", &long];
    client.talks("closes", &Server::echo().url, &[]).says(&seen);
}

fn a_message_that_is_too_big_is_closed_with_1009(client: Client) {
    let server = Server::pousse(&[]);
    let seen = ["64 KiB came back", "1009 the message is too big"];
    client.talks("too_big", &server.url, &[]).says(&seen);
}

fn what_cannot_be_is_closed_with_1002_and_1007(client: Client) {
    let seen = ["1002 an opcode that is reserved", "1007 text that is not UTF-8"];
    client.talks("broken", &Server::echo().url, &[]).says(&seen);
}

fn a_server_that_drains_says_1001_and_one_that_restarts_1012(client: Client) {
    let stopping = (Signal::TERM, "1001 the server is stopping");
    let restarting = (Signal::USR2, "1012 the server is restarting");
    for (signal, seen) in [stopping, restarting] {
        let server = Server::pousse(&["--drain", "1s"]);
        let mut talk = client.talks("waits_for_the_end", &server.url, &[]);
        assert_eq!(talk.line().as_deref(), Some("ready"));
        kill_process(Pid::from_child(&server.child), signal).unwrap();
        talk.says(&[seen]);
    }
}

fn pings_are_answered_on_both_sides(client: Client) {
    let server = Server::pousse(&["--ping", "1s"]);
    client.talks("pings", &server.url, &[]).says(&["pong", "two pings of the server"]);
}

fn pousse_v1_resumes_where_it_was_cut(client: Client) {
    let server = Server::pousse(&[]);
    let seen = ["subprotocol: pousse.v1", "missed: second thïrd", "subscribed: tea"];
    let mut talk = client.talks("resumes", &server.url, &[]);
    seen.iter().for_each(|line| assert_eq!(talk.line().as_deref(), Some(*line)));
    assert!(talk.line().is_some_and(|line| line.starts_with("1003 ")), "binary is no command");
    talk.says(&[]);
}

fn a_subprotocol_that_is_unknown_is_refused(client: Client) {
    let server = Server::pousse(&[]);
    client.talks("refused", &server.url, &[]).says(&["status: 400"]);
}

fn tls_with_a_certificate_that_signs_itself(client: Client) {
    let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let files = ["cert", "key"].map(|kind| folder.join(format!("{}-{kind}.pem", client.script)));
    fs::write(&files[0], made.cert.pem()).unwrap();
    fs::write(&files[1], made.signing_key.serialize_pem()).unwrap();
    let [certificate, key] = files.each_ref().map(|file| file.to_str().unwrap());
    let server = Server::pousse(&["--tls-cert", certificate, "--tls-key", key]);
    let url = server.url.replace("127.0.0.1", "localhost");
    let seen = ["came back over TLSv1.3", "does not trust it unasked"];
    client.talks("secure", &url, &[certificate]).says(&seen);
}

/// Whether this build negotiates permessage-deflate.
fn compresses() -> bool {
    let help = Command::new(env!("CARGO_BIN_EXE_pousse")).arg("--help").output().unwrap();
    String::from_utf8_lossy(&help.stdout).contains("--deflate")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop")
}

/// A client that other people wrote, in a script of ours.
struct Client {
    runs: PathBuf,
    script: &'static str,
}

fn python() -> Result<Client, String> {
    let runs = folder().join(".venv/bin/python");
    match runs.is_file() {
        true => Ok(Client { runs, script: "client.py" }),
        false => Err("no websockets of Python here (make interop)".into()),
    }
}

fn node() -> Result<Client, String> {
    let is_there = folder().join("node_modules/ws/package.json").is_file();
    match is_there && Command::new("node").arg("--version").output().is_ok() {
        true => Ok(Client { runs: "node".into(), script: "client.mjs" }),
        false => Err("no ws of Node here (make interop)".into()),
    }
}

impl Client {
    fn talks(&self, conversation: &str, url: &str, more: &[&str]) -> Talk {
        let mut command = Command::new(&self.runs);
        command.arg(folder().join(self.script)).args([conversation, url]).args(more);
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONUTF8", "1");
        command.env_remove("NODE_OPTIONS").stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = lines(child.stdout.take().unwrap());
        let complaints = lines_of_errors(child.stderr.take().unwrap());
        Talk { child, lines, complaints }
    }
}

/// A conversation that is going on.
struct Talk {
    child: Child,
    lines: Receiver<String>,
    complaints: Receiver<String>,
}

impl Talk {
    /// What it says next; nothing when it has ended.
    fn line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line.trim_end().to_owned()),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                self.child.kill().unwrap();
                panic!("the client waits: {:?}", self.complaints.recv());
            }
        }
    }

    /// Expects these lines, and then a good end.
    #[track_caller]
    fn says(mut self, expected: &[&str]) {
        let said: Vec<String> = std::iter::from_fn(|| self.line()).collect();
        let complaints = self.complaints.recv_timeout(PATIENCE).unwrap_or_default();
        assert_eq!(said, expected, "{complaints}");
        assert!(self.child.wait().unwrap().success(), "{complaints}");
    }
}

/// A server under test. It ends with the test.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    /// The program as it is, but for these flags.
    fn pousse(flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pousse"));
        command.args(["--listen", "127.0.0.1:0"]).args(flags).stdout(Stdio::null());
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        Self::of(child, stderr)
    }

    /// The example, whose limits are opened wide. It stands beside the program.
    fn echo() -> Self {
        let echo = Path::new(env!("CARGO_BIN_EXE_pousse")).with_file_name("examples").join("echo");
        assert!(echo.is_file(), "no {} here (cargo build --examples)", echo.display());
        let mut command = Command::new(echo);
        command.arg("127.0.0.1:0").stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        Self::of(child, stdout)
    }

    /// Both say in their first line where they listen; the rest is read, so that they can go on.
    fn of(child: Child, said: impl Read + Send + 'static) -> Self {
        let line = lines(said).recv_timeout(PATIENCE).unwrap();
        let address = line.split("http").nth(1).unwrap();
        Self { child, url: format!("ws{address}") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What comes, line by line; read to its end even if nobody wants it.
fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        BufReader::new(from).lines().map_while(Result::ok).for_each(|line| {
            let _ = sender.send(line);
        });
    });
    receiver
}

/// All that comes, at its end.
fn lines_of_errors(mut from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut text = String::new();
        let _ = from.read_to_string(&mut text);
        let _ = sender.send(text);
    });
    receiver
}
