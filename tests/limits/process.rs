//! A server in a process of its own: its descriptors can be limited, its memory be measured.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use pousse::Limits;

use crate::running::{Chat, bind};

/// What tells this program that it is to be a server: the limits, `NAME=VALUE` by commas.
const ASKED: &str = "POUSSE_TEST_LIMITS";

/// What stands before the address, on standard error.
const LISTENING: &str = "listening on http://";

/// See the head of this file.
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    child: Child,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// This test program again, with so many descriptors, as a server that chats.
    pub(crate) fn start(descriptors: usize, limits: &[(&str, &str)]) -> Self {
        let limits: Vec<String> =
            limits.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let program = std::env::current_exe().unwrap();
        let mut command = limited(descriptors, program.to_str().unwrap());
        command.args(["--exact", "process::a_server_of_its_own_if_asked", "--nocapture"]);
        command.env(ASKED, limits.join(","));
        Self::spawn(command)
    }

    /// The real program.
    #[cfg(feature = "daemon")]
    pub(crate) fn program(descriptors: usize, flags: &[&str]) -> Self {
        let mut command = limited(descriptors, env!("CARGO_BIN_EXE_pousse"));
        command.args(["--listen", "127.0.0.1:0"]).args(flags);
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let address = loop {
            let from = said.len();
            assert!(stderr.read_line(&mut said).unwrap() > 0, "it does not listen: {said}");
            if let Some((_, address)) = said[from..].split_once(LISTENING) {
                break address.trim().parse().unwrap();
            }
        };
        // Read on, so that its pipe is never full.
        let reader = std::thread::spawn(move || {
            let _ = stderr.read_to_end(&mut Vec::new());
        });
        Self { address, child, reader: Some(reader) }
    }

    /// Memory that it really uses.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Time that it has worked; the kernel counts it in hundredths of a second.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // Behind the name, which may have spaces in it: fields 14 and 15 of proc_pid_stat(5).
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.reader.take().map(JoinHandle::join);
    }
}

fn limited(descriptors: usize, program: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\""), program]);
    command
}

#[test]
fn a_server_of_its_own_if_asked() {
    let Ok(asked) = std::env::var(ASKED) else { return };
    let (mut server, address) = bind(
        |limits| {
            for (name, value) in asked.split(',').filter_map(|pair| pair.split_once('=')) {
                (Limits::find(name).unwrap().set)(limits, value).unwrap();
            }
        },
        Chat,
    );
    eprintln!("{LISTENING}{address}");
    let remote = server.remote();
    std::thread::spawn(move || {
        // The end of the one who asked is the end of this.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = remote.stop();
    });
    server.run().unwrap();
}
