//! A client over a real socket, which knows of HTTP and WebSocket what the RFCs say. Every wait of
//! it is bounded.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::running::{PATIENCE, Running, ms, now};

/// The opening handshake of RFC 6455 §1.3, for this path.
pub(crate) fn opening(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A masked frame; the key is zero, so the payload can be read in a dump.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&frame_head(first, payload.len() as u64)[..], payload].concat()
}

/// The head of a masked frame that promises so many bytes.
pub(crate) fn frame_head(first: u8, length: u64) -> Vec<u8> {
    let mut head = vec![first];
    match length {
        0..=125 => head.push(0x80 | length as u8),
        126..=65_535 => {
            head.push(0x80 | 126);
            head.extend((length as u16).to_be_bytes());
        }
        _ => {
            head.push(0x80 | 127);
            head.extend(length.to_be_bytes());
        }
    }
    head.extend([0; 4]);
    head
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) content: String,
}

impl Answer {
    /// It may be tried again, after some seconds: not all after as many.
    pub(crate) fn may_be_tried_again(&self) -> bool {
        (3..=7).any(|seconds| self.has(&format!("Retry-After: {seconds}")))
    }

    pub(crate) fn has(&self, field: &str) -> bool {
        self.head.lines().any(|line| line == field)
    }
}

/// See the head of this file.
pub(crate) struct Peer {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Peer {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, unread: Vec::new() }
    }

    /// From this address of the loopback.
    pub(crate) fn connect_from(source: [u8; 4], address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, unread: Vec::new() }
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// The same connection for another thread, which writes while this one reads.
    pub(crate) fn shared(&self) -> Self {
        Self { stream: self.stream.try_clone().unwrap(), unread: Vec::new() }
    }

    /// A client that has opened a WebSocket.
    #[track_caller]
    pub(crate) fn open(address: SocketAddr, path: &str) -> Self {
        let mut peer = Self::connect(address);
        peer.says(opening(path));
        let answer = peer.answer();
        assert_eq!(answer.status, 101, "{}", answer.head);
        peer
    }

    /// A client that has opened a WebSocket, speaks pousse.v1 and was greeted.
    #[track_caller]
    pub(crate) fn open_v1(address: SocketAddr, path: &str) -> Self {
        let mut peer = Self::connect(address);
        let protocol = "Sec-WebSocket-Protocol: pousse.v1\r\n\r\n";
        peer.says(opening(path).replace("\r\n\r\n", &format!("\r\n{protocol}")));
        assert_eq!(peer.answer().status, 101);
        let (_, hello) = peer.hears();
        assert!(hello.starts_with(b"{\"hello\":"), "{}", show(&hello));
        peer
    }

    /// Sends; that the other end may have closed meanwhile is seen by what comes back.
    pub(crate) fn says(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.tries_to_say(bytes.as_ref());
    }

    pub(crate) fn tries_to_say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Asks without content and waits for the answer.
    #[track_caller]
    pub(crate) fn asks(&mut self, what: &str) -> Answer {
        self.says(format!("{what} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.answer()
    }

    /// Publishes and waits for the answer.
    #[track_caller]
    pub(crate) fn posts(&mut self, topic: &str, content: &str) -> Answer {
        let length = content.len();
        self.says(format!(
            "POST /api/messages?topic={topic} HTTP/1.1\r\nHost: localhost\r\n\
             Content-Length: {length}\r\n\r\n{content}"
        ));
        self.answer()
    }

    /// Waits for bytes, at most so long: how many came; 0 if the other end is closed.
    pub(crate) fn reads(&mut self, patience: Duration) -> Option<usize> {
        let end = now() + patience;
        let mut bytes = [0; 16 * 1024];
        loop {
            // A time-out of zero would mean none at all.
            let left = end.saturating_duration_since(now()).max(ms(1));
            self.stream.set_read_timeout(Some(left)).unwrap();
            match self.stream.read(&mut bytes) {
                Ok(count) => {
                    self.unread.extend_from_slice(&bytes[..count]);
                    return Some(count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return None;
                }
                Err(_) => return Some(0),
            }
        }
    }

    /// Forgets what has come and was not looked at.
    pub(crate) fn forgets(&mut self) {
        self.unread.clear();
    }

    #[track_caller]
    fn needs(&mut self, count: usize) {
        while self.unread.len() < count {
            match self.reads(PATIENCE) {
                Some(1..) => {}
                other => panic!("{other:?} in place of more than {}", show(&self.unread)),
            }
        }
    }

    fn takes(&mut self, count: usize) -> Vec<u8> {
        let rest = self.unread.split_off(count);
        std::mem::replace(&mut self.unread, rest)
    }

    /// Waits for an answer to something other than `HEAD`.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        let end = loop {
            match self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None => self.needs(self.unread.len() + 1),
            }
        };
        let head = String::from_utf8(self.takes(end)).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length = length.map_or(0, |length| length.parse().unwrap());
        self.needs(length);
        let content = String::from_utf8(self.takes(length)).unwrap();
        Answer { status: head[9..12].parse().unwrap(), head, content }
    }

    /// Waits for one frame: its first byte and its payload.
    #[track_caller]
    pub(crate) fn hears(&mut self) -> (u8, Vec<u8>) {
        self.needs(2);
        let more = match self.unread[1] {
            127 => 8,
            126 => 2,
            _ => 0,
        };
        self.needs(2 + more);
        let long = self.unread[2..2 + more].iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
        let length = if more == 0 { usize::from(self.unread[1]) } else { long };
        self.needs(2 + more + length);
        let head = self.takes(2 + more);
        (head[0], self.takes(length))
    }

    /// Waits for a close frame, behind whatever else; its code.
    #[track_caller]
    pub(crate) fn hears_close(&mut self) -> u16 {
        loop {
            if let (0x88, payload) = self.hears() {
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
    }

    /// Waits for the end of the other's bytes; those that come before it, unread ones too.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> Vec<u8> {
        loop {
            match self.reads(PATIENCE) {
                Some(0) => return std::mem::take(&mut self.unread),
                Some(_) => {}
                None => panic!("no end, but {}", show(&self.unread)),
            }
        }
    }
}

fn show(bytes: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
    format!("{} bytes: {shown:?}", bytes.len())
}

/// A client who does nothing wrong while others do.
pub(crate) struct Innocent {
    peer: Peer,
    pings: u32,
    slowest: Duration,
}

impl Innocent {
    pub(crate) fn of(running: &Running) -> Self {
        let peer = Peer::open(running.address, "/websocket?topic=innocent");
        Self { peer, pings: 0, slowest: Duration::ZERO }
    }

    /// A ping of this client is answered soon. In a quiet machine it takes a millisecond; what is
    /// promised is half a second; the rest is for a machine that has much else to do.
    #[track_caller]
    pub(crate) fn is_served(&mut self) {
        self.pings += 1;
        let payload = self.pings.to_be_bytes();
        let before = now();
        self.peer.says(frame(0x89, &payload));
        while self.peer.hears() != (0x8a, payload.to_vec()) {}
        let took = now() - before;
        self.slowest = self.slowest.max(took);
        assert!(took < Duration::from_secs(2), "an innocent client waited {took:?}");
    }

    /// The longest that a ping took.
    pub(crate) fn slowest(&self) -> Duration {
        self.slowest
    }
}
