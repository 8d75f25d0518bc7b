//! Certificates, clients that trust exactly one of them, and servers that have it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use pousse::{Config, Counters, Tls};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use crate::common::{Act, PATIENCE, Running, connect};

/// Both versions that are spoken.
pub(crate) const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// The clock of the tests.
#[expect(clippy::disallowed_methods, reason = "a test over real sockets is in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A certificate for `localhost` and its key, as PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Pair {
    pub(crate) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
        Self { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    pub(crate) fn tls(&self) -> Tls {
        Tls::from_pem(self.certificate.as_bytes(), self.key.as_bytes()).unwrap()
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }

    /// A client's side that trusts this certificate and no other.
    pub(crate) fn trusted(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&str],
    ) -> ClientConnection {
        let mut roots = RootCertStore::empty();
        roots.add(self.der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        ClientConnection::new(Arc::new(config), name).unwrap()
    }

    /// The first flight of a client, as bytes.
    pub(crate) fn hello(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.trusted(&VERSIONS, &[]).write_tls(&mut bytes).unwrap();
        bytes
    }
}

/// A client over TLS.
pub(crate) type Client = StreamOwned<ClientConnection, TcpStream>;

/// A server with a certificate.
pub(crate) struct Secure {
    pub(crate) server: Running,
    pub(crate) pair: Pair,
}

impl Secure {
    pub(crate) fn start(change: impl FnOnce(&mut Config), act: impl Act) -> Self {
        let pair = Pair::new();
        let tls = pair.tls();
        let server = Running::start(
            |config| {
                config.tls = Some(tls);
                change(config);
            },
            act,
        );
        assert!(server.addresses[0].starts_with("https://127.0.0.1:"), "{:?}", server.addresses);
        Self { server, pair }
    }

    pub(crate) fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> Client {
        client(self.pair.trusted(versions, &[]), self.server.address())
    }

    /// Waits until the counters are so. The loop is asked over and over, which turns it, too.
    #[track_caller]
    pub(crate) fn counts(&self, what: &str, is_so: impl Fn(&Counters) -> bool) {
        let until = now() + PATIENCE;
        loop {
            let counters = self.server.counters();
            if is_so(&counters) {
                return;
            }
            assert!(now() < until, "never: {what}; {counters}");
        }
    }

    /// Somebody who comes now is served.
    #[track_caller]
    pub(crate) fn serves_others(&self) {
        let answer = crate::common::http(self.client(&VERSIONS), "GET", "/api/messages", "");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

/// A client whose handshake is done.
pub(crate) fn client(mut session: ClientConnection, address: SocketAddr) -> Client {
    let mut socket = connect(address);
    session.complete_io(&mut socket).unwrap();
    StreamOwned::new(session, socket)
}

/// The program, with a certificate in files.
pub(crate) struct Daemon {
    child: Child,
    lines: Receiver<String>,
    pub(crate) address: SocketAddr,
    pub(crate) pair: Pair,
    pub(crate) files: [PathBuf; 2],
}

impl Daemon {
    /// `name` names its files, and has to be another for each test.
    pub(crate) fn start(name: &str, flags: &[&str]) -> Self {
        let pair = Pair::new();
        let files = write(name, &pair);
        Self::start_with(pair, files, flags)
    }

    /// The same with what is in these files.
    pub(crate) fn start_with(pair: Pair, files: [PathBuf; 2], flags: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pousse"))
            .env_clear()
            .args(["--listen", "127.0.0.1:0", "--tls-cert"])
            .arg(&files[0])
            .arg("--tls-key")
            .arg(&files[1])
            .args(flags)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (said, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| said.send(line))
        });
        let first = lines.recv_timeout(PATIENCE).expect("a start line");
        let (_, address) = first.split_once(" listening on https://").expect(&first);
        let address = address.parse().unwrap();
        Self { child, lines, address, pair, files }
    }

    /// The next line of the log with this word.
    #[track_caller]
    pub(crate) fn line_with(&self, word: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {word}"));
            if line.contains(word) {
                return line;
            }
        }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    pub(crate) fn resident_bytes(&self) -> usize {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
    }

    pub(crate) fn client(&self) -> Client {
        client(self.pair.trusted(&VERSIONS, &[]), self.address)
    }

    /// Whether somebody who comes now is served.
    pub(crate) fn serves(&self) -> bool {
        crate::common::http(self.client(), "GET", "/", "").starts_with("HTTP/1.1 200 ")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes both files.
pub(crate) fn write(name: &str, pair: &Pair) -> [PathBuf; 2] {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let files = ["cert", "key"].map(|kind| folder.join(format!("tls-{name}-{kind}.pem")));
    std::fs::write(&files[0], &pair.certificate).unwrap();
    std::fs::write(&files[1], &pair.key).unwrap();
    files
}

/// Everything up to the end of the peer's bytes, or to a reset.
pub(crate) fn read_all(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What came before a reset is there in any case.
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

/// Writes as much as the peer takes before it ends the connection.
pub(crate) fn write_some(stream: &mut impl Write, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
}
