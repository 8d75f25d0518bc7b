//! The client's end of a line: bytes out, and answers, blocks and frames in, as they become whole.
//!
//! A unix socket, because what is written to it is there for the other end at once: with a seed
//! everything happens again just as it did.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

/// See the head of this file.
pub(crate) struct Line {
    stream: UnixStream,
    input: Vec<u8>,
    /// The peer has ended its bytes.
    pub(crate) has_ended: bool,
}

/// A message of a WebSocket, or its close frame.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Close(u16, String),
    Other(u8),
}

/// A block of an event stream.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Block {
    pub(crate) id: Option<String>,
    pub(crate) event: Option<String>,
    pub(crate) data: Option<String>,
}

impl Line {
    pub(crate) fn open(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_nonblocking(true).unwrap();
        Self { stream, input: Vec::new(), has_ended: false }
    }

    pub(crate) fn writes(&mut self, bytes: impl AsRef<[u8]>) {
        // Whoever has been left cannot be written to; reading will tell.
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// A masked text frame (the key is zero).
    pub(crate) fn says(&mut self, text: &str) {
        self.writes(masked(0x81, text.as_bytes()));
    }

    /// Says it if the system takes it.
    pub(crate) fn tries(&mut self, text: &str) -> bool {
        let frame = masked(0x81, text.as_bytes());
        match self.stream.write(&frame) {
            Ok(count) => {
                assert_eq!(count, frame.len(), "half a frame");
                true
            }
            Err(_) => false,
        }
    }

    pub(crate) fn ends(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// Takes at most so many bytes; true if any came.
    pub(crate) fn reads(&mut self, most: usize) -> bool {
        let (mut count, mut buffer) = (0, [0; 16 * 1024]);
        while count < most && !self.has_ended {
            let size = buffer.len().min(most - count);
            match self.stream.read(&mut buffer[..size]) {
                Ok(0) => self.has_ended = true,
                Ok(read) => {
                    count += read;
                    self.input.extend_from_slice(&buffer[..read]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.has_ended = true,
            }
        }
        count > 0
    }

    /// What has come and was not taken.
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.input
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        self.input.drain(..count).collect()
    }

    /// The head of an answer.
    pub(crate) fn head(&mut self) -> Option<String> {
        let end = find(&self.input, b"\r\n\r\n")? + 4;
        Some(String::from_utf8(self.take(end)).unwrap())
    }

    /// A whole answer that says how long it is: status and content.
    pub(crate) fn answer(&mut self) -> Option<(u16, String)> {
        let end = find(&self.input, b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&self.input[..end]).unwrap();
        let field = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = field.map_or(0, |length| length.parse().unwrap());
        let status = head[9..12].parse().unwrap();
        if self.input.len() < end + length {
            return None;
        }
        let content = self.take(end + length).split_off(end);
        Some((status, String::from_utf8(content).unwrap()))
    }

    /// A block of an event stream.
    pub(crate) fn block(&mut self) -> Option<Block> {
        let end = find(&self.input, b"\n\n")? + 2;
        let text = String::from_utf8(self.take(end)).unwrap();
        let mut block = Block::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ").unwrap_or((line, ""));
            match name {
                "id" => block.id = Some(value.into()),
                "event" => block.event = Some(value.into()),
                "data" => {
                    let before = block.data.take().map_or(String::new(), |data| data + "\n");
                    block.data = Some(before + value);
                }
                "retry" => {}
                _ => panic!("{line:?} is no field of an event stream"),
            }
        }
        Some(block)
    }

    /// A frame, which is whole and not masked.
    pub(crate) fn frame(&mut self) -> Option<Heard> {
        let short = usize::from(*self.input.get(1)?);
        let (head, length) = match short {
            126 => {
                let length = self.input.get(2..4)?;
                (4, usize::from(u16::from_be_bytes(length.try_into().unwrap())))
            }
            127 => {
                let length = self.input.get(2..10)?;
                let length = u64::from_be_bytes(length.try_into().unwrap());
                (10, usize::try_from(length).unwrap())
            }
            short => (2, short),
        };
        if self.input.len() < head + length {
            return None;
        }
        let first = self.input[0];
        let payload = self.take(head + length).split_off(head);
        Some(match first {
            0x81 => Heard::Text(String::from_utf8(payload).unwrap()),
            0x82 => Heard::Binary(payload),
            0x88 => {
                let code = payload.get(..2).map_or(1005, |it| u16::from_be_bytes([it[0], it[1]]));
                let reason = payload.get(2..).unwrap_or_default().to_vec();
                Heard::Close(code, String::from_utf8(reason).unwrap())
            }
            other => Heard::Other(other),
        })
    }
}

/// A frame from a client, masked with a key of zeros.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        length @ 0..126 => out.push(0x80 | u8::try_from(length).unwrap()),
        length => {
            out.push(0x80 | 126);
            out.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out
}

/// An opening handshake that offers pousse.v1, or nothing.
pub(crate) fn opening(query: &str, is_session: bool) -> String {
    let offer = if is_session { "Sec-WebSocket-Protocol: pousse.v1\r\n" } else { "" };
    format!(
        "GET /websocket?{query} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n{offer}\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A request for messages.
pub(crate) fn get(query: &str, fields: &str) -> String {
    format!("GET /api/messages?{query} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

/// A request that publishes.
pub(crate) fn post(topic: &str, fields: &str, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = format!(
        "POST /api/messages?topic={topic} HTTP/1.1\r\nHost: a\r\n{fields}\
         Content-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), content].concat()
}

pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|it| it == wanted)
}
