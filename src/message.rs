//! A message, and the frame that carries it from the server to a client (RFC 6455 §5.2).
//!
//! Frames from the server are unmasked, so the bytes of one frame serve every reader.

use bytes::{BufMut, Bytes, BytesMut};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

/// What is pushed: text, or bytes that are no text.
///
/// ```
/// use pousse::Message;
/// assert_eq!(Message::from("Bonjour"), Message::Text("Bonjour"));
/// assert_eq!(Message::from(&b"\xff"[..]).as_bytes(), b"\xff");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// UTF-8.
    Text(&'a str),
    /// Anything else.
    Binary(&'a [u8]),
}

impl<'a> Message<'a> {
    /// Bytes that were taken from a message of this kind.
    pub(crate) fn of(kind: Kind, bytes: &'a [u8]) -> Self {
        match (kind, str::from_utf8(bytes)) {
            (Kind::Text, Ok(text)) => Message::Text(text),
            _ => Message::Binary(bytes),
        }
    }

    /// The bytes of either kind.
    pub fn as_bytes(&self) -> &'a [u8] {
        match self {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
        }
    }

    /// Which of the two it is.
    pub fn kind(&self) -> Kind {
        match self {
            Message::Text(_) => Kind::Text,
            Message::Binary(_) => Kind::Binary,
        }
    }
}

impl<'a> From<&'a str> for Message<'a> {
    fn from(text: &'a str) -> Self {
        Message::Text(text)
    }
}

impl<'a> From<&'a String> for Message<'a> {
    fn from(text: &'a String) -> Self {
        Message::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Message<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Message::Binary(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Message<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Message::Binary(bytes)
    }
}

/// Text or binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Anything else.
    Binary,
}

impl From<Kind> for OpCode {
    fn from(kind: Kind) -> Self {
        OpCode::Data(match kind {
            Kind::Text => Data::Text,
            Kind::Binary => Data::Binary,
        })
    }
}

/// The longest header of a frame that is not masked: two bytes and a 64-bit length.
pub(crate) const FRAME_HEAD_MAX: usize = 10;

/// Appends the header of one whole unmasked frame.
///
/// ```text
/// FIN 000 opcode | 0 length (7 bits)        length <= 125
///                | 0 126 | length (16 bits)  <= 65535
///                | 0 127 | length (64 bits)
/// ```
pub(crate) fn put_frame_head(out: &mut impl BufMut, opcode: OpCode, payload_bytes: usize) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    header
        .format(payload_bytes as u64, &mut out.writer())
        .expect("writing to memory that grows cannot fail");
}

/// The same for a frame whose payload is a whole compressed message: RSV1 (RFC 7692 §6).
#[cfg(feature = "deflate")]
pub(crate) fn put_deflated_head(out: &mut impl BufMut, opcode: OpCode, payload_bytes: usize) {
    let header = FrameHeader { opcode, rsv1: true, ..FrameHeader::default() };
    header
        .format(payload_bytes as u64, &mut out.writer())
        .expect("writing to memory that grows cannot fail");
}

/// A message as one whole frame, and the place in it where the payload begins.
pub(crate) fn frame(message: Message<'_>) -> (Bytes, usize) {
    let payload = message.as_bytes();
    let mut frame = BytesMut::with_capacity(FRAME_HEAD_MAX + payload.len());
    put_frame_head(&mut frame, message.kind().into(), payload.len());
    let head_bytes = frame.len();
    frame.put_slice(payload);
    (frame.freeze(), head_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_of_rfc_6455_section_5_7() {
        assert_eq!(&frame("Hello".into()).0[..], b"\x81\x05Hello");
        let bytes = vec![7; 256];
        assert_eq!(&frame(Message::from(&bytes)).0[..4], [0x82, 0x7e, 0x01, 0x00]);
        let bytes = vec![7; 65536];
        let (long, head_bytes) = frame(Message::from(&bytes));
        assert_eq!(&long[..10], [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!((head_bytes, long.len()), (10, 65546));
    }

    #[test]
    fn a_length_takes_the_fewest_bytes() {
        for (payload, head) in [(0, 2), (125, 2), (126, 4), (65535, 4), (65536, 10)] {
            assert_eq!(frame(Message::from(&vec![0; payload])).1, head, "{payload}");
        }
    }
}
