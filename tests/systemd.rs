//! The program under a service manager: what it tells it, and sockets that it is handed.
//!
//! systemd itself is not needed: the tests play its part of the protocol (`sd_notify(3)`,
//! `sd_listen_fds(3)`).
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests are tests")]

use kit::support;

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use support::http::Answer;
use support::{Door, PATIENCE, Server, Wire, now, program};

fn path(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("pousse-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

fn get(door: &Door) -> u16 {
    let mut wire = Wire::connect(door);
    wire.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    Answer::read(&mut wire, false, now() + PATIENCE).unwrap().status
}

/// The socket on which a service manager is told things.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(name: &str) -> Self {
        let path = path(name);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path }
    }

    /// Starts the program and tells it where the socket is.
    fn start(&self, settings: &[(&str, &str)]) -> Server {
        let mut command = program(env!("CARGO_BIN_EXE_pousse"));
        command.args(["--listen", "127.0.0.1:0", "--drain", "7s"]).env("NOTIFY_SOCKET", &self.path);
        Server::spawn(command.envs(settings.iter().copied()), 1).map_err(|it| it.1).unwrap()
    }

    /// The lines of the next word.
    fn hears(&self) -> Vec<String> {
        let mut datagram = [0; 4096];
        let count = self.socket.recv(&mut datagram).expect("it says something");
        let text = str::from_utf8(&datagram[..count]).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[test]
fn the_manager_is_told_of_readiness_reload_and_end() {
    let manager = Manager::new("words");
    let mut server = manager.start(&[]);
    let status = format!("STATUS=listening on http://{}", server.authority());
    assert_eq!(manager.hears(), ["READY=1", &status]);
    server.signal(Signal::HUP);
    let reloading = manager.hears();
    assert_eq!(reloading[0], "RELOADING=1");
    let at = reloading[1].strip_prefix("MONOTONIC_USEC=").unwrap();
    assert!(at.parse::<u64>().is_ok_and(|usec| usec > 0), "{reloading:?}");
    assert_eq!(manager.hears()[0], "READY=1");
    server.signal(Signal::TERM);
    let stopping = manager.hears();
    // The drain may take longer than the unit's own time-out.
    assert!(stopping.contains(&"STOPPING=1".into()), "{stopping:?}");
    assert!(stopping.contains(&"EXTEND_TIMEOUT_USEC=12000000".into()), "{stopping:?}");
    assert_eq!(server.wait().unwrap().code(), Some(0));
}

#[test]
fn a_watchdog_hears_of_the_loop_twice_in_its_time() {
    let manager = Manager::new("watchdog");
    let server = manager.start(&[("WATCHDOG_USEC", "100000")]);
    assert_eq!(manager.hears()[0], "READY=1");
    let began = now();
    for _ in 0..4 {
        assert_eq!(manager.hears(), ["WATCHDOG=1"]);
    }
    assert!(now() - began >= std::time::Duration::from_millis(150));
    drop(server);

    // One that is set for another process is none of ours.
    let mut server = manager.start(&[("WATCHDOG_USEC", "2"), ("WATCHDOG_PID", "1")]);
    server.signal(Signal::TERM);
    server.wait().unwrap();
    let words = std::iter::from_fn(|| Some(manager.hears()));
    let words: Vec<_> = words.skip_while(|it| it.contains(&"WATCHDOG=1".into())).take(2).collect();
    assert_eq!((words[0][0].as_str(), words[1][0].as_str()), ("READY=1", "STOPPING=1"));
}

#[test]
fn a_manager_that_has_gone_ends_nothing() {
    let manager = Manager::new("gone");
    let mut server = manager.start(&[]);
    assert_eq!(manager.hears()[0], "READY=1");
    drop(manager);
    server.signal(Signal::HUP);
    assert!(server.says(" warn event=notify_failed error="));
    assert_eq!(get(&server.doors()[0]), 200);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().unwrap().code(), Some(0));
}

/// The program, started by a shell that has these sockets from 3 on, as a service manager has.
fn activated(sockets: Vec<OwnedFd>, pid: &str, flags: &[&str]) -> Command {
    let mut command = program("/bin/sh");
    let count = sockets.len();
    let script = format!(
        "exec {} 0</dev/null; export LISTEN_PID={pid} LISTEN_FDS={count}; exec \"$0\" \"$@\"",
        ["3<&0", "3<&0 4<&1 1>/dev/null"][count - 1]
    );
    command.args(["-c", &script, env!("CARGO_BIN_EXE_pousse")]).args(flags);
    let mut sockets = sockets.into_iter();
    command.stdin(Stdio::from(sockets.next().unwrap()));
    command.stdout(sockets.next().map_or_else(Stdio::null, Stdio::from));
    command
}

fn tcp() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn is_tcp(door: &Door, address: SocketAddr) -> bool {
    matches!(door, Door::Tcp(at) if *at == address)
}

#[test]
fn sockets_of_the_manager_are_listened_on_in_place_of_the_default() {
    let (tcp, address) = tcp();
    let file = path("activated.sock");
    let unix = UnixListener::bind(&file).unwrap();
    let mut command = activated(vec![tcp.into(), unix.into()], "$$", &[]);
    let mut server = Server::spawn(&mut command, 2).map_err(|it| it.1).unwrap();
    let doors = server.doors().to_vec();
    assert!(is_tcp(&doors[0], address), "{doors:?}");
    assert!(matches!(&doors[1], Door::Unix(path) if *path == file), "{doors:?}");
    assert_eq!(doors.iter().map(get).collect::<Vec<_>>(), [200, 200]);
    assert!(server.says("event=publish rule=nobody"), "a unix socket may be a proxy's");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().unwrap().code(), Some(0));
    assert_eq!(server.doors().len(), 2, "and nowhere else: {}", server.stderr());
    assert!(file.exists(), "the file belongs to who made it");
    std::fs::remove_file(file).unwrap();
}

#[cfg(feature = "tls")]
#[test]
fn a_socket_of_the_manager_speaks_tls_if_there_is_a_certificate() {
    let (tcp, address) = tcp();
    let pair = support::certificate::Pair::new("activated");
    let mut command = activated(vec![tcp.into()], "$$", &pair.flags());
    let server = Server::spawn(&mut command, 1).map_err(|it| it.1).unwrap();
    let start = format!(" listening on https://{address}");
    assert!(server.stderr().lines().next().unwrap().ends_with(&start), "{}", server.stderr());
    let until = "not-after=4096-01-01T00:00:00Z";
    assert!(server.says(until), "rcgen's own choice, as a date: {}", server.stderr());
    assert_eq!(get(&Door::Tls(address, pair.trust)), 200);
}

#[test]
fn addresses_that_are_given_are_listened_on_too() {
    let (tcp, address) = tcp();
    let mut command = activated(vec![tcp.into()], "$$", &["--listen", "127.0.0.1:0"]);
    let server = Server::spawn(&mut command, 2).map_err(|it| it.1).unwrap();
    assert!(is_tcp(&server.doors()[1], address), "{:?}", server.doors());
    assert_eq!(server.doors().iter().map(get).collect::<Vec<_>>(), [200, 200]);
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let (tcp, address) = tcp();
    let mut command = activated(vec![tcp.into()], "1", &["--listen", "127.0.0.1:0"]);
    let mut server = Server::spawn(&mut command, 1).map_err(|it| it.1).unwrap();
    assert!(!is_tcp(&server.doors()[0], address));
    server.signal(Signal::TERM);
    server.wait().unwrap();
    assert_eq!(server.stderr().matches(" listening on ").count(), 1);
}

#[test]
fn a_descriptor_that_does_not_listen_is_78() {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (_tcp, address) = tcp();
    let connected = TcpStream::connect(address).unwrap();
    let not_bound = UnixDatagram::unbound().unwrap();
    for socket in [OwnedFd::from(udp), connected.into(), not_bound.into()] {
        let ended = Server::spawn(&mut activated(vec![socket], "$$", &[]), 1).err().unwrap();
        assert_eq!(ended.0.code(), Some(78), "{}", ended.1);
        assert!(ended.1.contains("descriptor 3 of LISTEN_FDS"), "{}", ended.1);
    }
}

#[test]
fn between_two_runs_the_managers_socket_keeps_who_comes() {
    let (tcp, address) = tcp();
    let start = || {
        let socket = OwnedFd::from(tcp.try_clone().unwrap());
        Server::spawn(&mut activated(vec![socket], "$$", &[]), 1).map_err(|it| it.1).unwrap()
    };
    let mut first = start();
    first.signal(Signal::USR2);
    assert_eq!(first.wait().unwrap().code(), Some(0));
    let mut early = Wire::connect(&Door::Tcp(address));
    early.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let _second = start();
    assert_eq!(Answer::read(&mut early, false, now() + PATIENCE).unwrap().status, 200);
}
