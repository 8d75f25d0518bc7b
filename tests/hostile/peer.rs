//! One who speaks HTTP and WebSocket by hand, and may be innocent or not.

use std::time::{Duration, Instant};

use crate::support::http::Answer;
use crate::support::websocket::{self, Incoming, Reader};
use crate::support::{Came, Door, Wire, now, show};

/// How long anything that has to come is waited for, on a machine that has much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The opening handshake of RFC 6455 §1.3.
pub(crate) fn opening(path: &str, fields: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n{fields}\r\n",
        websocket::KEY
    )
}

/// A publishing request.
pub(crate) fn posting(target: &str, fields: &str, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), content].concat()
}

/// The head of a masked frame that promises so many bytes, in as few or as many as asked for.
pub(crate) fn promise(first: u8, length: u64) -> Vec<u8> {
    let mut head = vec![first, 0x80 | 127];
    head.extend(length.to_be_bytes());
    head.extend([0; 4]);
    head
}

/// See the head of this file.
pub(crate) struct Peer {
    pub(crate) wire: Wire,
    reader: Reader,
}

impl Peer {
    pub(crate) fn connect(door: &Door) -> Self {
        Self { wire: Wire::connect(door), reader: Reader::default() }
    }

    /// A client that has opened a WebSocket; `fields` are whole lines.
    #[track_caller]
    pub(crate) fn opens(door: &Door, path: &str, fields: &str) -> Self {
        let mut peer = Self::connect(door);
        peer.says(opening(path, fields));
        let answer = peer.answer();
        assert_eq!(answer.status, 101, "{answer}");
        peer
    }

    /// A client that has opened a WebSocket and speaks pousse.v1.
    #[track_caller]
    pub(crate) fn opens_v1(door: &Door, path: &str) -> Self {
        let mut peer = Self::opens(door, path, "Sec-WebSocket-Protocol: pousse.v1\r\n");
        let hello = peer.hears();
        assert!(matches!(&hello, Incoming::Text(text) if text.contains("hello")), "{hello}");
        peer
    }

    /// A client that has begun an event stream.
    #[track_caller]
    pub(crate) fn streams(door: &Door, target: &str) -> Self {
        let mut peer = Self::connect(door);
        peer.says(format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        ));
        let answer = peer.answer();
        assert!(answer.is_event_stream(), "{answer}");
        peer
    }

    /// Sends; that the other end may have closed meanwhile is seen by what comes back.
    pub(crate) fn says(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.wire.send(bytes.as_ref());
    }

    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_to(false)
    }

    /// Waits for an answer and looks at what is true of all of them.
    #[track_caller]
    pub(crate) fn answer_to(&mut self, is_head: bool) -> Answer {
        let answer = Answer::read(&mut self.wire, is_head, now() + PATIENCE)
            .unwrap_or_else(|came| panic!("{came} in place of an answer"));
        answer.check(is_head).unwrap_or_else(|wrong| panic!("{wrong}: {answer}"));
        answer
    }

    /// Waits for answers until the connection ends: their statuses.
    #[track_caller]
    pub(crate) fn statuses(&mut self) -> Vec<u16> {
        let mut statuses = Vec::new();
        while self.wire.fill_or_has() {
            statuses.push(self.answer().status);
        }
        statuses
    }

    /// Waits for what a WebSocket brings next.
    #[track_caller]
    pub(crate) fn hears(&mut self) -> Incoming {
        self.hears_until(now() + PATIENCE)
            .unwrap_or_else(|came| panic!("{came} in place of a frame"))
    }

    pub(crate) fn hears_until(&mut self, end: Instant) -> Result<Incoming, String> {
        self.reader.read(&mut self.wire, end)
    }

    /// Waits for a close frame behind whatever else: its code, 1005 if it has none.
    #[track_caller]
    pub(crate) fn close_code(&mut self) -> u16 {
        loop {
            if let Incoming::Close(close) = self.hears() {
                return close.map_or(1005, |(code, _)| code);
            }
        }
    }

    /// Waits for the end of the other's bytes, in order or by a reset; what came before it.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> Vec<u8> {
        let deadline = now() + PATIENCE;
        loop {
            match self.wire.fill(deadline) {
                Came::End => return std::mem::take(&mut self.wire.unread),
                Came::More => {}
                Came::Nothing => panic!("no end, but {}", show(&self.wire.unread)),
            }
        }
    }

    /// A ping of this WebSocket is answered.
    #[track_caller]
    pub(crate) fn pings(&mut self, payload: &[u8]) {
        self.says(websocket::frame(true, websocket::PING, payload));
        loop {
            match self.hears() {
                Incoming::Pong(pong) if pong == payload => return,
                Incoming::Ping(_) | Incoming::Pong(_) => {}
                other => panic!("{other} in place of a pong"),
            }
        }
    }
}
