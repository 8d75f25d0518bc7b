//! What the system is asked to do for each client: how much it takes, and when it gives a peer up.

use std::sync::atomic::Ordering::SeqCst;

use crate::clients::Filler;
use crate::peer::{Innocent, Peer, frame};
use crate::running::Running;

#[test]
pub(crate) fn the_system_takes_no_more_than_it_can_send_soon_and_a_reader_that_reads_on_gets_all() {
    // What is in flight is the peer's window, 64 KiB unless it reads.
    let in_flight = 200_000;
    let mut taken = Vec::new();
    for unsent in [1, 16 * 1024, 0] {
        let (filler, waits) = Filler::new();
        let running = Running::with(|limits| limits.unsent = unsent, filler);
        let mut innocent = Innocent::of(&running);
        let mut peer = Peer::open(running.address, "/websocket");
        let before = running.counters().written_bytes;
        peer.says(frame(0x81, b"fill"));
        running.counts("bytes wait for it", |_| waits.load(SeqCst) > 0);
        innocent.is_served();
        let by_system = (running.counters().written_bytes - before) as usize;
        taken.push(by_system);
        // A ping of the innocent one was answered meanwhile.
        let messages = (by_system + waits.load(SeqCst)) / (Filler::PAYLOAD.len() + 4);
        for _ in 0..messages {
            assert_eq!(peer.hears(), (0x82, Filler::PAYLOAD.to_vec()));
        }
        innocent.is_served();
    }
    if cfg!(target_os = "linux") {
        assert!(taken[0] < in_flight && taken[1] < in_flight + 100_000, "{taken:?}");
        assert!(taken[2] > 2 * taken[1], "the system's own measure is larger: {taken:?}");
    }
}

#[cfg(target_os = "linux")]
mod options {
    use std::net::TcpListener;
    use std::time::Duration;

    use pousse::{Server, Tls};
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    use socket2::Socket;

    use crate::peer::Peer;
    use crate::running::{Chat, Running};

    /// The server's end of this connection, which is in this process.
    fn server_end(of: &Peer) -> Socket {
        let us = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
        let numbers = descriptors.filter_map(|it| it.unwrap().file_name().to_str()?.parse().ok());
        let sockets = numbers.filter_map(|number| {
            Some(Socket::from(pidfd_getfd(&us, number, PidfdGetfdFlags::empty()).ok()?))
        });
        let is_other_end = |it: &Socket| {
            it.peer_addr().is_ok_and(|address| address.as_socket() == Some(of.local_address()))
        };
        let mut found = sockets.filter(is_other_end);
        found.next().expect("the server has accepted it")
    }

    /// `tls`: with a certificate, which a build without TLS cannot have.
    fn has_its_options(tls: Option<Tls>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let inherited = listener.local_addr().unwrap();
        let mut config = kit::common::config();
        config.tls = tls;
        let server = Server::bind_with(config, vec![listener.into()], Chat).unwrap();
        let own = server.addresses()[0].split("://").nth(1).unwrap().parse().unwrap();
        let running = Running::of(server, own);
        for (at, address) in [own, inherited].into_iter().enumerate() {
            let peer = Peer::connect(address);
            running.counts("it is accepted", |now| now.accepted > at as u64);
            let socket = server_end(&peer);
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
            assert_eq!(socket.tcp_notsent_lowat().unwrap(), 256 * 1024);
            assert!(socket.tcp_nodelay().unwrap());
        }
    }

    #[test]
    fn of_a_silent_peer_the_system_asks_whether_it_is_there() {
        has_its_options(None);
        let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        has_its_options(Tls::from_pem(certificate.as_bytes(), key.as_bytes()).ok());
    }
}
