//! Promise: of the same frames the message layer makes the same messages as tungstenite's
//! `WebSocket`, and refuses what that refuses, by the same close code.
//!
//! It is stricter, or sooner, in this, and in nothing else:
//! - what a header proves wrong is refused at the header, before tungstenite has the payload;
//! - text that is no UTF-8 is refused where it stands, tungstenite waits for the end of it;
//! - a length in more bytes than it needs is refused (RFC 6455 §5.2), tungstenite takes it, in
//!   control frames too;
//! - a length with its first bit set is refused as that, tungstenite says that it is too big;
//! - a close code that may not be sent is refused, tungstenite answers it with 1002 by itself.
//!
//! So behind a refusal tungstenite may still hand out control frames, never a message.

use std::io::{self, ErrorKind, Read, Write};

use pousse::seam::{Fault, Incoming, Long, Spare, Tick, WebSocket as Ours};
use pousse::{CloseCode, Limits, Message as OurMessage};
use tungstenite::protocol::{Role, WebSocket as Theirs, WebSocketConfig};
use tungstenite::{Error, Message};

use super::input::Input;

/// The longest message. A control frame fits.
const MOST: usize = 300;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(u16, String),
}

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let size = input.one_of(&[usize::MAX, 1, 2, 3, 5, 17, 100]);
    let bytes = input.take(usize::MAX);
    let (ours, fault) = ours(bytes, size);
    let (theirs, error) = theirs(bytes);
    let Some(fault) = fault else {
        assert_eq!(ours, theirs, "they stopped by {error:?}");
        assert!(error.is_none(), "{error:?} is no fault to us; both got {ours:?}");
        return;
    };
    let (before, behind) = theirs.split_at(ours.len().min(theirs.len()));
    assert_eq!(ours, before, "and then {fault:?}, they {error:?}");
    let is_long = fault.text == "a control frame over 125 bytes";
    if is_long || fault.text.starts_with("a length in more bytes than it needs") {
        return;
    }
    if fault.text == "a close code that may not be sent" {
        // Of two mistakes in one close frame they tell the other.
        let is_text = matches!((behind, &error), ([], Some(Error::Utf8(_))));
        assert!(is_text || matches!(behind, [Got::Close(1002, _)]), "{behind:?}, {error:?}");
        return;
    }
    let is_message = |got: &Got| matches!(got, Got::Text(_) | Got::Binary(_));
    assert!(!behind.iter().any(is_message), "{fault:?}, and they got {behind:?}");
    match (&error, fault.code) {
        // They have not seen all of it yet, or saw an end before.
        (None, _) => {}
        (Some(Error::Protocol(_)), CloseCode::Protocol)
        | (Some(Error::Utf8(_)), CloseCode::Invalid)
        | (Some(Error::Capacity(_)), CloseCode::Size) => {}
        // Bad text is told at once; something else was wrong before they came to its end.
        (Some(_), CloseCode::Invalid) => {}
        // A frame too big or unmasked: which of two mistakes in one header is told.
        (Some(Error::Capacity(_)), CloseCode::Protocol) => {}
        _ => panic!("{fault:?}, and to them it is {error:?}"),
    }
}

/// What we make of the bytes, in pieces of this size.
fn ours(bytes: &[u8], size: usize) -> (Vec<Got>, Option<Fault>) {
    let mut limits = Limits::default();
    limits.max_message = MOST;
    limits.fragments = usize::MAX;
    limits.controls = usize::MAX / 100;
    let (mut socket, mut spare) = (Ours::default(), Spare::default());
    let mut got = Vec::new();
    for piece in bytes.chunks(size) {
        let mut piece = piece.to_vec();
        let mut input = piece.as_mut_slice();
        loop {
            let incoming = match socket.receive(&mut input, &limits, Tick(1), &mut spare) {
                Ok(None) => break,
                Ok(Some(incoming)) => incoming,
                Err(fault) => return (got, Some(fault)),
            };
            got.push(match incoming {
                Incoming::Text(text) => Got::Text(text.into_owned()),
                Incoming::Binary(bytes) => Got::Binary(bytes.into_owned()),
                Incoming::Long(kind) => match Long::taken(kind, &mut spare).message() {
                    OurMessage::Text(text) => Got::Text(text.to_owned()),
                    OurMessage::Binary(bytes) => Got::Binary(bytes.to_vec()),
                },
                Incoming::Ping(bytes) => Got::Ping(bytes.into_owned()),
                Incoming::Pong => Got::Pong,
                Incoming::Deflated(..) => panic!("nobody agreed on that"),
                Incoming::Close(code, reason) => {
                    got.push(Got::Close(code.into(), reason));
                    return (got, None);
                }
            });
        }
    }
    (got, None)
}

/// The peer's bytes; what is written goes nowhere.
struct Wire<'d>(&'d [u8]);

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What tungstenite makes of them.
fn theirs(bytes: &[u8]) -> (Vec<Got>, Option<Error>) {
    let config = WebSocketConfig::default()
        .read_buffer_size(1024)
        .max_message_size(Some(MOST))
        .max_frame_size(Some(MOST));
    let mut socket = Theirs::from_raw_socket(Wire(bytes), Role::Server, Some(config));
    let mut got = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => got.push(Got::Text(text.to_string())),
            Ok(Message::Binary(bytes)) => got.push(Got::Binary(bytes.to_vec())),
            Ok(Message::Ping(bytes)) => got.push(Got::Ping(bytes.to_vec())),
            Ok(Message::Pong(_)) => got.push(Got::Pong),
            Ok(Message::Close(close)) => {
                let (code, reason) = close
                    .map_or((1005, String::new()), |it| (it.code.into(), it.reason.to_string()));
                got.push(Got::Close(code, reason));
                return (got, None);
            }
            Ok(Message::Frame(_)) => panic!("a frame is not read"),
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return (got, None),
            Err(error) => return (got, Some(error)),
        }
    }
}
