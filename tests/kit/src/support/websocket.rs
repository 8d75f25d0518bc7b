//! The client's side of WebSocket frames (RFC 6455 §5), written from the RFC alone.

use std::time::Instant;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::{Wire, show};

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;
/// Beside an opcode: what follows is compressed (RFC 7692 §6).
pub const RSV1: u8 = 0x40;

/// The nonce of the RFC's own example (§1.3), and what has to come back for it.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The masking key of the RFC's own example (§5.7).
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// The fields that ask for a WebSocket.
pub fn opening_fields() -> [(&'static str, &'static str); 4] {
    [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY),
    ]
}

/// A frame from a client: masked.
pub fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![u8::from(fin) << 7 | opcode];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..=125), _) => frame.push(0x80 | length),
        (_, Ok(length)) => {
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The content of a close frame.
pub fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

/// What a server can send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// `None`: without a code.
    Close(Option<(u16, String)>),
    /// A message that came compressed.
    Deflated(Box<Incoming>),
}

impl Incoming {
    /// The text of a message, compressed or not.
    pub fn text(&self) -> Option<&str> {
        match self {
            Incoming::Text(text) => Some(text),
            Incoming::Deflated(message) => message.text(),
            _ => None,
        }
    }
}

/// The payload of one compressed message, as long as it is short enough to be made in one go.
pub fn deflate(message: &[u8]) -> Vec<u8> {
    let mut compress = Compress::new(Compression::best(), false);
    let mut payload = Vec::with_capacity(message.len() + 1024);
    compress.compress_vec(message, &mut payload, FlushCompress::Sync).unwrap();
    assert!(payload.ends_with(&[0, 0, 0xff, 0xff]));
    payload.truncate(payload.len() - 4);
    payload
}

/// What comes of the payload of a compressed message, by an inflater with the whole window.
fn inflate(mut payload: Vec<u8>) -> Result<Vec<u8>, String> {
    payload.extend([0, 0, 0xff, 0xff]);
    let mut decompress = Decompress::new(false);
    let mut message = Vec::new();
    while decompress.total_in() < payload.len() as u64 {
        message.reserve(16 * 1024);
        let rest = &payload[usize::try_from(decompress.total_in()).unwrap()..];
        let flush = FlushDecompress::Sync;
        decompress.decompress_vec(rest, &mut message, flush).map_err(|error| error.to_string())?;
    }
    // What has been read may not have been written yet.
    message.reserve(16 * 1024);
    let _ = decompress.decompress_vec(&[], &mut message, FlushDecompress::Sync);
    Ok(message)
}

impl std::fmt::Display for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Incoming::Text(text) => f.write_str(&show(text.as_bytes())),
            Incoming::Binary(bytes) => write!(f, "binary {}", show(bytes)),
            Incoming::Ping(bytes) => write!(f, "ping {}", show(bytes)),
            Incoming::Pong(bytes) => write!(f, "pong {}", show(bytes)),
            Incoming::Deflated(message) => write!(f, "deflated {message}"),
            Incoming::Close(None) => f.write_str("close without a code"),
            Incoming::Close(Some((code, reason))) => write!(f, "close {code} {reason:?}"),
        }
    }
}

/// Puts messages together from frames.
#[derive(Default)]
pub struct Reader {
    /// The opcode, with RSV1 if that was set, and the payload so far of a message that is not
    /// complete.
    unfinished: Option<(u8, Vec<u8>)>,
}

impl Reader {
    /// Waits for a message or a control frame. An error says what came instead.
    pub fn read(&mut self, wire: &mut Wire, end: Instant) -> Result<Incoming, String> {
        loop {
            let (fin, opcode, payload) = read_frame(wire, end)?;
            let (opcode, payload) = match (opcode, self.unfinished.take()) {
                (8..=15, unfinished) => {
                    self.unfinished = unfinished;
                    if !fin || payload.len() > 125 {
                        return Err("a control frame that is fragmented or too long".into());
                    }
                    (opcode, payload)
                }
                (0, Some((opcode, mut message))) => {
                    message.extend(payload);
                    (opcode, message)
                }
                (0, None) => return Err("a continuation of nothing".into()),
                (_, Some(_)) => return Err("a new message within another".into()),
                (_, None) => (opcode, payload),
            };
            match fin {
                true => return incoming(opcode, payload),
                false => self.unfinished = Some((opcode, payload)),
            }
        }
    }
}

/// One frame as it stands: FIN, opcode, payload.
fn read_frame(wire: &mut Wire, deadline: Instant) -> Result<(bool, u8, Vec<u8>), String> {
    wire.need(2, deadline)?;
    let (first, second) = (wire.unread[0], wire.unread[1]);
    let length_bytes = match second {
        128.. => return Err(format!("a masked frame from the server: {}", show(&wire.unread))),
        127 => 8,
        126 => 2,
        _ => 0,
    };
    if first & 0x30 != 0 || first & RSV1 != 0 && !matches!(first & 0x0f, TEXT | BINARY) {
        return Err(format!("a frame with reserved bits: {}", show(&wire.unread)));
    }
    wire.need(2 + length_bytes, deadline)?;
    let long = wire.unread[2..2 + length_bytes].iter().fold(0, |n, b| n << 8 | u64::from(*b));
    let (length, least) = match length_bytes {
        0 => (u64::from(second), 0),
        2 => (long, 126),
        _ => (long, 65_536),
    };
    if length < least {
        return Err(format!("a length in more bytes than needed: {}", show(&wire.unread)));
    }
    let length = usize::try_from(length).map_err(|_| "a frame larger than memory")?;
    wire.need(2 + length_bytes + length, deadline)?;
    wire.take(2 + length_bytes);
    Ok((first & 0x80 != 0, first & (RSV1 | 0x0f), wire.take(length)))
}

fn incoming(opcode: u8, payload: Vec<u8>) -> Result<Incoming, String> {
    let text = |bytes: Vec<u8>| {
        String::from_utf8(bytes).map_err(|error| format!("no UTF-8: {}", show(error.as_bytes())))
    };
    Ok(match opcode {
        RSV1.. => Incoming::Deflated(Box::new(incoming(opcode & !RSV1, inflate(payload)?)?)),
        TEXT => Incoming::Text(text(payload)?),
        BINARY => Incoming::Binary(payload),
        PING => Incoming::Ping(payload),
        PONG => Incoming::Pong(payload),
        CLOSE => match payload[..] {
            [] => Incoming::Close(None),
            [_] => return Err("a close frame of one byte".into()),
            [high, low, ref reason @ ..] => {
                Incoming::Close(Some((u16::from_be_bytes([high, low]), text(reason.to_vec())?)))
            }
        },
        _ => return Err(format!("a frame with opcode {opcode}")),
    })
}
