//! Connections to one address, plain or TLS, over one mio `Poll`: registered once for both
//! directions, edge-triggered, read until a read is short.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::{Domain, SockRef, Socket, Type};

use crate::args::Args;
use crate::http::{self, Answer};

/// So many are opened at a time: a queue of a listener is not endless.
const OPENING_MAX: usize = 64;

/// How many have a source of their own, so that none is used twice.
static OPENED: AtomicUsize = AtomicUsize::new(0);

const SCRATCH_BYTES: usize = 256 * 1024;

#[derive(Debug)]
pub(crate) struct Conn {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// What the socket did not take.
    out: VecDeque<u8>,
    /// The beginning of what is not whole.
    rest: Vec<u8>,
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Net {
    poll: Poll,
    events: Events,
    pub(crate) conns: Vec<Conn>,
    pub(crate) scratch: Vec<u8>,
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    sources: u8,
    /// Who has something to be read or can be written to.
    pub(crate) ready: Vec<usize>,
}

impl Net {
    pub(crate) fn new(args: &Args) -> Self {
        Self {
            poll: Poll::new().unwrap(),
            events: Events::with_capacity(1024),
            conns: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
            address: args.address,
            tls: args.tls.as_deref().map(trust),
            sources: args.sources,
            ready: Vec::new(),
        }
    }

    /// Begins one more connection; what it is to say first goes out when it stands.
    fn begin(&mut self, receive_buffer: Option<usize>) -> Conn {
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.set_tcp_nodelay(true).unwrap();
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        if self.sources > 1 {
            // With a port of our choice: one that the system chooses here is for all addresses.
            let opened = OPENED.fetch_add(1, Ordering::Relaxed);
            let (round, last) =
                (opened / usize::from(self.sources), opened % usize::from(self.sources));
            let address = Ipv4Addr::new(127, 0, 1, last as u8);
            socket.set_reuse_address(true).unwrap();
            let source = SocketAddr::from((address, 10_000 + round as u16));
            socket.bind(&source.into()).unwrap();
        }
        match socket.connect(&self.address.into()) {
            Err(error) if error.raw_os_error() != Some(115) => panic!("connect: {error}"),
            _ => {}
        }
        let tls = self.tls.clone().map(|trust| {
            let name = ServerName::try_from("localhost").unwrap();
            let mut session = ClientConnection::new(trust, name).unwrap();
            session.set_buffer_limit(None);
            Box::new(session)
        });
        let stream = TcpStream::from_std(socket.into());
        Conn { stream, tls, out: VecDeque::new(), rest: Vec::new() }
    }

    /// Opens one more, which says this first.
    pub(crate) fn open(&mut self, first: &[u8], receive_buffer: Option<usize>) -> usize {
        let conn = self.begin(receive_buffer);
        let at = self.conns.len();
        self.conns.push(conn);
        self.register(at, first);
        at
    }

    /// Ends one without a word, and puts another in its place, which says this first.
    pub(crate) fn replace(&mut self, at: usize, first: &[u8]) {
        // With a reset: an end in order would keep the port for a minute.
        SockRef::from(&self.conns[at].stream).set_linger(Some(Duration::ZERO)).unwrap();
        self.conns[at] = self.begin(None);
        self.register(at, first);
    }

    fn register(&mut self, at: usize, first: &[u8]) {
        let conn = &mut self.conns[at];
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut conn.stream, Token(at), both).unwrap();
        match &mut conn.tls {
            Some(tls) => tls.writer().write_all(first).unwrap(),
            None => conn.out.extend(first),
        }
    }

    /// Who is ready, in `ready`.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) {
        self.ready.clear();
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => panic!("{error}"),
            _ => self.ready.extend(self.events.iter().map(|event| event.token().0)),
        }
    }

    /// Opens so many, and waits until each has been answered; what came behind that stays.
    pub(crate) fn open_all(
        &mut self,
        count: usize,
        receive_buffer: Option<usize>,
        first: impl Fn(usize) -> Vec<u8>,
        mut opened: impl FnMut(usize, &Answer<'_>),
    ) {
        let (before, mut begun, mut open) = (self.conns.len(), 0, 0);
        let mut is_open = vec![false; count];
        while open < count {
            while begun < count && begun - open < OPENING_MAX {
                self.open(&first(begun), receive_buffer);
                begun += 1;
            }
            self.wait(Some(Duration::from_secs(20)));
            assert!(!self.ready.is_empty(), "{open} of {count} were answered");
            for at in 0..self.ready.len() {
                let at = self.ready[at];
                let conn = &mut self.conns[at];
                conn.flush();
                if at < before || is_open[at - before] {
                    conn.receive(&mut self.scratch, |_| 0);
                    continue;
                }
                conn.receive(&mut self.scratch, |bytes| {
                    if is_open[at - before] {
                        return 0;
                    }
                    let Some((answer, used)) = http::take(bytes) else { return 0 };
                    assert!(matches!(answer.status, 101 | 200..=202), "{answer:?}");
                    is_open[at - before] = true;
                    open += 1;
                    opened(at, &answer);
                    used
                });
            }
        }
    }

    /// Lets one be as it is: it is not read any more.
    pub(crate) fn stall(&mut self, at: usize) {
        self.poll.registry().deregister(&mut self.conns[at].stream).unwrap();
    }
}

impl Conn {
    /// Sends this, now or when the socket takes it.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(bytes).unwrap();
            return self.flush();
        }
        if !self.out.is_empty() {
            return self.out.extend(bytes);
        }
        let taken = match self.stream.write(bytes) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("send: {error}"),
        };
        self.out.extend(&bytes[taken..]);
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self) {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                match tls.write_tls(&mut self.stream) {
                    Ok(_) => {}
                    Err(error) if is_later(error.kind()) => return,
                    Err(error) => panic!("send: {error}"),
                }
            }
            return;
        }
        while !self.out.is_empty() {
            match self.stream.write(self.out.as_slices().0) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if is_later(error.kind()) => return,
                Err(error) => panic!("send: {error}"),
            }
        }
    }

    /// Reads what there is. `take` is given all bytes that it has not used yet, and returns how
    /// many it uses.
    pub(crate) fn receive(&mut self, scratch: &mut [u8], mut take: impl FnMut(&[u8]) -> usize) {
        loop {
            let (count, is_all) = match self.read(scratch) {
                Ok(Some(it)) => it,
                Ok(None) => return,
                Err(error) if is_later(error.kind()) => return,
                Err(error) => panic!("receive: {error}"),
            };
            let rest = &mut self.rest;
            if rest.is_empty() {
                let used = take_all(&scratch[..count], &mut take);
                rest.extend_from_slice(&scratch[used..count]);
            } else {
                rest.extend_from_slice(&scratch[..count]);
                let used = take_all(rest, &mut take);
                rest.drain(..used);
            }
            if is_all {
                return;
            }
        }
    }

    /// One read: how many bytes, and whether there are no more for now. `None`: none for us.
    fn read(&mut self, scratch: &mut [u8]) -> std::io::Result<Option<(usize, bool)>> {
        let Some(tls) = &mut self.tls else {
            let count = self.stream.read(scratch)?;
            assert!(count > 0, "the server has ended the connection");
            return Ok(Some((count, count < scratch.len())));
        };
        // Until the socket has no more: rustls takes some kilobytes at a time.
        let mut count = 0;
        let is_all = loop {
            match tls.reader().read(&mut scratch[count..]) {
                Ok(0) if count < scratch.len() => panic!("the server has ended the connection"),
                Ok(more) => count += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if count == scratch.len() {
                break false;
            }
            match tls.read_tls(&mut self.stream) {
                Ok(0) => panic!("the server has ended the connection"),
                Ok(_) => drop(tls.process_new_packets().expect("TLS")),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break true,
                Err(error) => return Err(error),
            }
        };
        if tls.wants_write() {
            self.flush();
        }
        Ok((count > 0).then_some((count, is_all)))
    }
}

fn take_all(bytes: &[u8], take: &mut impl FnMut(&[u8]) -> usize) -> usize {
    let mut used = 0;
    while used < bytes.len() {
        match take(&bytes[used..]) {
            0 => break,
            more => used += more,
        }
    }
    used
}

fn is_later(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted)
}

/// Trusts the one certificate of this file.
fn trust(file: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}
