//! Who is measured: how each server is started, and how a load has to talk to it.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    Pousse,
    Ceiling,
    Bun,
    Ws,
    Websockets,
    Nchan,
}

impl Name {
    pub(crate) const ALL: [Name; 6] =
        [Self::Pousse, Self::Ceiling, Self::Bun, Self::Ws, Self::Websockets, Self::Nchan];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Name::Pousse => "pousse",
            Name::Ceiling => "ceiling",
            Name::Bun => "bun",
            Name::Ws => "ws",
            Name::Websockets => "websockets",
            Name::Nchan => "nchan",
        }
    }

    /// How to get it, if it is not here.
    pub(crate) fn missing(self) -> Option<&'static str> {
        let is_here = match self {
            Name::Pousse | Name::Ceiling => true,
            Name::Bun => bun().exists(),
            Name::Ws => peers().join("node_modules/ws").exists() && runs("node"),
            Name::Websockets => python().exists(),
            Name::Nchan => Path::new(NCHAN).exists() && runs("nginx"),
        };
        (!is_here).then_some(match self {
            Name::Bun => "npm install --prefix target/peers bun",
            Name::Ws => "npm install --prefix target/peers ws, and node",
            Name::Websockets => {
                "python3 -m venv target/peers/venv && \
                 target/peers/venv/bin/pip install websockets"
            }
            _ => "Debian: apt-get install nginx libnginx-mod-nchan",
        })
    }
}

const NCHAN: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

/// Where other servers are installed.
fn peers() -> PathBuf {
    std::env::var_os("PEERS").map_or_else(|| root().join("target/peers"), PathBuf::from)
}

fn bun() -> PathBuf {
    peers().join("node_modules/bun/bin/bun.exe")
}

fn python() -> PathBuf {
    peers().join("venv/bin/python")
}

fn runs(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("-v").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok()
}

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// What was built beside this program.
pub(crate) fn built(name: &str) -> PathBuf {
    let folder = std::env::current_exe().expect("it runs").parent().expect("a folder").to_owned();
    match name {
        "pousse" => folder.parent().expect("a folder").join(name),
        _ => folder.join(name),
    }
}

/// A way of running a program: pinned to a processor, traced, counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Under {
    pub(crate) words: Vec<String>,
}

impl Under {
    /// On this processor, where there are two and `taskset`.
    pub(crate) fn cpu(number: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, Into::into);
        let words = match processors > number && processors > 1 && runs("taskset") {
            true => ["taskset", "-c", &number.to_string()].map(String::from).to_vec(),
            false => Vec::new(),
        };
        Self { words }
    }

    pub(crate) fn and(mut self, words: &[&str]) -> Self {
        self.words.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    pub(crate) fn command(&self, program: &Path) -> Command {
        let Some((first, rest)) = self.words.split_first() else { return Command::new(program) };
        let mut command = Command::new(first);
        command.args(rest).arg(program);
        command
    }
}

/// What a load asks of a server: which of its programs, and in which way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Echo,
    Daemon,
    /// The one that counts its allocations.
    Counted,
}

/// A server that runs; it ends with this.
#[derive(Debug)]
pub(crate) struct Running {
    process: Child,
    pub(crate) port: u16,
}

impl Running {
    pub(crate) fn start(name: Name, kind: Kind, with: With, under: &Under) -> Self {
        // One that has just ended may have left connections behind at its port.
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("its port").port();
        drop(free);
        let mut command = command(name, kind, with, under, port);
        command.env("PORT", port.to_string()).env("PEERS", peers());
        command.env("DEFLATE", if with.deflate { "1" } else { "0" });
        command.stdin(Stdio::null()).stdout(Stdio::null());
        if std::env::var_os("BENCH_VERBOSE").is_none() {
            command.stderr(Stdio::null());
        }
        let process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let running = Self { process, port };
        let end = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "{name:?} does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        running
    }

    /// The process itself, not who traces it.
    pub(crate) fn pid(&self) -> u32 {
        let tracer = self.process.id();
        let path = format!("/proc/{tracer}/task/{tracer}/children");
        let children = fs::read_to_string(path).unwrap_or_default();
        children.split_whitespace().next().and_then(|it| it.parse().ok()).unwrap_or(tracer)
    }

    /// Asks it to end, and waits.
    pub(crate) fn end(mut self) {
        let _ = Command::new("kill").arg(self.pid().to_string()).status();
        let end = Instant::now() + Duration::from_secs(20);
        while self.process.try_wait().is_ok_and(|it| it.is_none()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What is different this time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct With {
    pub(crate) tls: bool,
    pub(crate) deflate: bool,
    /// The system takes a message of 1 MiB as a whole: `unsent` is that much. Echo only.
    pub(crate) unsent: bool,
}

/// The certificate and its key, made by `examples/tls_certificate.rs`.
pub(crate) fn certificate() -> (PathBuf, PathBuf) {
    let folder = root().join("target/bench/tls");
    if !folder.join("key.pem").exists() {
        let made = Command::new(built("tls_certificate")).arg(&folder).output();
        assert!(made.is_ok_and(|it| it.status.success()), "no certificate was made");
    }
    (folder.join("cert.pem"), folder.join("key.pem"))
}

fn command(name: Name, kind: Kind, with: With, under: &Under, port: u16) -> Command {
    let address = format!("127.0.0.1:{port}");
    let bench = root().join("tests/bench");
    let tls = with.tls.then(certificate);
    match name {
        Name::Pousse if kind == Kind::Daemon => {
            let mut command = under.command(&built("pousse"));
            command.args(["--listen", &address, "--log", "error", "--max-clients", "19900"]);
            command.args(["--limit", "requests=1000000000", "--limit", "stall=10m"]);
            command.args(["--wait-max", "10m", "--max-topics", "200000", "--publish", "anyone"]);
            if let Some((certificate, key)) = tls {
                command.arg("--tls-cert").arg(certificate).arg("--tls-key").arg(key);
            }
            command
        }
        Name::Pousse => {
            let program = if kind == Kind::Echo { "echo" } else { "counted" };
            let mut command = under.command(&built(program));
            command.arg(address);
            if let Some((certificate, key)) = tls {
                command.args((kind == Kind::Echo).then_some("--tls")).arg(certificate).arg(key);
            }
            if with.unsent {
                command.args(["--limit", "unsent=1MiB"]);
            }
            command
        }
        Name::Ceiling => {
            let mut command = under.command(&built("ceiling"));
            command.arg(address);
            if let Some((certificate, key)) = tls {
                command.arg(certificate).arg(key);
            }
            command
        }
        Name::Bun => {
            let mut command = under.command(&bun());
            command.arg(bench.join("bun.js"));
            command
        }
        Name::Ws => {
            let mut command = under.command(Path::new("node"));
            command.arg(bench.join("ws.mjs"));
            command
        }
        Name::Websockets => {
            let mut command = under.command(&python());
            command.arg(bench.join("websockets.py"));
            command
        }
        Name::Nchan => {
            let folder = root().join("target/bench/nchan");
            fs::create_dir_all(&folder).expect("a folder");
            let text = fs::read_to_string(bench.join("nchan.conf")).expect("nchan.conf");
            let text = text.replace("MODULE", NCHAN).replace("PORT", &port.to_string());
            let text = text.replace("FOLDER", &folder.display().to_string());
            fs::write(folder.join("nchan.conf"), text).expect("nchan.conf");
            let mut command = under.command(Path::new("nginx"));
            command.arg("-p").arg(&folder).arg("-c").arg(folder.join("nchan.conf"));
            command
        }
    }
}
