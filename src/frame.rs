//! One frame (RFC 6455 §5.2): a peer's, taken apart and unmasked, and those of our own that are no
//! message.
//!
//! What a header proves wrong is refused at the header, byte by byte, before its payload. What
//! frames come to is not known here: messages are put together in `partial.rs`.
//!
//! tungstenite knows opcodes, close codes and our own headers; those that come are taken apart here
//! (see `docs/architecture.md`).

use std::io::Cursor;

use bytes::BufMut;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use crate::message::{Kind, put_frame_head};
use crate::metrics::Reason;

/// Why the connection has to fail (RFC 6455 §7.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What the peer is told.
    pub code: CloseCode,
    /// The word for counters and log.
    pub why: Reason,
    /// The reason in words.
    pub text: &'static str,
}

pub(crate) const fn protocol(text: &'static str) -> Fault {
    Fault { code: CloseCode::Protocol, why: Reason::Protocol, text }
}

pub(crate) const NOT_UTF8: Fault =
    Fault { code: CloseCode::Invalid, why: Reason::Utf8, text: "text that is not UTF-8" };
pub(crate) const NO_DEFLATE: Fault = Fault {
    code: CloseCode::Invalid,
    why: Reason::Deflate,
    text: "a compressed message that cannot be taken out",
};
pub(crate) const TOO_BIG: Fault =
    Fault { code: CloseCode::Size, why: Reason::MaxMessage, text: "the message is too big" };
pub(crate) const TOO_MANY_FRAGMENTS: Fault = Fault {
    code: CloseCode::Policy,
    why: Reason::Fragments,
    text: "too many fragments in one message",
};
pub(crate) const TOO_MANY_CONTROLS: Fault =
    Fault { code: CloseCode::Policy, why: Reason::Controls, text: "too many control frames" };

/// The longest header of a frame from a client: two bytes, a 64-bit length, the masking key.
pub(crate) const HEAD_BYTES_MAX: usize = 14;

/// The payload of a control frame is at most this long (RFC 6455 §5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// A frame, as its header tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// The first byte. It is taken apart when that is asked for, as many small fields are slow to
    /// hand on.
    pub(crate) first: u8,
    /// The masking key; its first byte is the lowest.
    pub(crate) mask: u32,
    /// Bytes of the payload that have not arrived yet.
    pub(crate) missing: usize,
    pub(crate) arrived: usize,
}

impl Frame {
    pub(crate) fn opcode(self) -> OpCode {
        OpCode::from(self.first & 0x0f)
    }

    pub(crate) fn is_final(self) -> bool {
        self.first & 0x80 != 0
    }

    /// RSV1: its message is compressed.
    pub(crate) fn is_deflated(self) -> bool {
        self.first & 0x40 != 0
    }
}

/// Parses a header and refuses what it proves wrong (RFC 6455 §5.2, §5.5), byte by byte.
///
/// ```text
///  0               1
/// |F|R|R|R| opcode|M| length      |  length 126: 16 bits follow, 127: 64 bits
/// |I|S|S|S| (4)   |A| (7)         |  then the masking key, 32 bits
/// |N|V|V|V|       |S|             |
/// ```
pub(crate) fn parse_head(
    bytes: &[u8],
    takes_deflated: bool,
) -> Result<Option<(Frame, u64, usize)>, Fault> {
    if let Some(first) = bytes.first() {
        // RSV1 says that a message is compressed, and so stands where one begins (RFC 7692 §6).
        let begins_message = matches!(first & 0x0f, 1..=2);
        let allowed = if takes_deflated && begins_message { 0x40 } else { 0 };
        if first & 0x70 & !allowed != 0 {
            return Err(protocol("a reserved bit is set"));
        }
        if !matches!(first & 0x0f, 0..=2 | 8..=10) {
            return Err(protocol("an opcode that is reserved"));
        }
        if first & 0x88 == 0x08 {
            return Err(protocol("a control frame in fragments"));
        }
    }
    let Some([first, second]) = bytes.first_chunk::<2>() else {
        return Ok(None);
    };
    if second & 0x80 == 0 {
        return Err(protocol("a frame that is not masked"));
    }
    let short = second & 0x7f;
    if first & 0x08 != 0 && usize::from(short) > CONTROL_BYTES_MAX {
        return Err(protocol("a control frame over 125 bytes"));
    }
    let rest = bytes.get(2..).unwrap_or_default();
    // Each length is one load. `FrameHeader::parse` puts it together in memory and reads it back,
    // which takes as long as all else that is done with a header.
    let Some((length, rest)) = (match short {
        126 => rest.split_first_chunk().map(|(it, rest)| (u16::from_be_bytes(*it).into(), rest)),
        127 => rest.split_first_chunk().map(|(it, rest)| (u64::from_be_bytes(*it), rest)),
        _ => Some((u64::from(short), rest)),
    }) else {
        return Ok(None);
    };
    let Some((mask, rest)) = rest.split_first_chunk::<4>() else {
        return Ok(None);
    };
    if (short == 126 && length < 126) || (short == 127 && length < 65_536) || length >> 63 != 0 {
        return Err(protocol("a length in more bytes than it needs, or with its first bit set"));
    }
    let frame = Frame { first: *first, mask: u32::from_le_bytes(*mask), missing: 0, arrived: 0 };
    Ok(Some((frame, length, bytes.len() - rest.len())))
}

/// What is wrong with this frame at this place of the stream.
pub(crate) fn check_frame(frame: &Frame, length: u64, in_message: bool) -> Result<(), Fault> {
    match frame.opcode() {
        OpCode::Data(Data::Continue) if !in_message => {
            Err(protocol("a continuation of no message"))
        }
        OpCode::Data(Data::Text | Data::Binary) if in_message => {
            Err(protocol("a message inside another"))
        }
        OpCode::Control(Control::Close) if length == 1 => Err(protocol("half a close code")),
        _ => Ok(()),
    }
}

/// What kind of message a frame with this opcode begins.
pub(crate) fn kind_of(data: Data) -> Option<Kind> {
    match data {
        Data::Text => Some(Kind::Text),
        Data::Binary => Some(Kind::Binary),
        _ => None,
    }
}

/// Undoes the masking (RFC 6455 §5.3) of bytes that begin `offset` bytes into their payload.
pub(crate) fn unmask(payload: &mut [u8], mask: u32, offset: usize) {
    let turned = [0, 8, 16, 24].get(offset % 4).copied().unwrap_or(0);
    let mask = u64::from(mask.rotate_right(turned));
    let key = mask << 32 | mask;
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        if let Some(word) = word.first_chunk_mut::<8>() {
            *word = (u64::from_le_bytes(*word) ^ key).to_le_bytes();
        }
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(key.to_le_bytes()) {
        *byte ^= mask;
    }
}

/// std's check goes by words of 8 bytes, and was a quarter of what an echo of 1 KiB costs.
pub(crate) fn text(payload: &[u8]) -> Result<&str, Fault> {
    simdutf8::basic::from_utf8(payload).map_err(|_| NOT_UTF8)
}

/// Bytes at the end that begin a character and do not end it, if anything does.
pub(crate) fn open_bytes(text: &[u8]) -> usize {
    for (count, byte) in (1..).zip(text.iter().rev().take(3)) {
        let character = match byte {
            ..0x80 => 1,
            ..0xc0 => continue,
            ..0xe0 => 2,
            ..0xf0 => 3,
            _ => 4,
        };
        return if character > count { count } else { 0 };
    }
    0
}

/// Appends a close frame. A reason over 123 bytes is cut between two characters.
pub(crate) fn put_close(out: &mut Vec<u8>, code: CloseCode, reason: &str) {
    if !code.is_allowed() {
        // 1005 and 1006 say that there was no code, and may not be sent.
        return put_frame_head(out, OpCode::Control(Control::Close), 0);
    }
    let reason = clip(reason);
    put_frame_head(out, OpCode::Control(Control::Close), 2 + reason.len());
    out.put_u16(code.into());
    out.extend_from_slice(reason.as_bytes());
}

/// What of a close reason fits.
pub(crate) fn clip(reason: &str) -> &str {
    let end = reason.len().min(CONTROL_BYTES_MAX - 2);
    (0..=end).rev().find_map(|end| reason.get(..end)).unwrap_or_default()
}

/// Appends a ping or pong.
pub(crate) fn put_control(out: &mut Vec<u8>, control: Control, payload: &[u8]) {
    put_frame_head(out, OpCode::Control(control), payload.len());
    out.extend_from_slice(payload);
}

/// The length of the frame of ours at the beginning of `bytes`, header included.
pub(crate) fn frame_bytes(bytes: &[u8]) -> Option<usize> {
    let mut cursor = Cursor::new(bytes);
    let (header, length) = FrameHeader::parse(&mut cursor).ok()??;
    // An answer of HTTP that was not sent yet is none: read as a frame it would not be final.
    let is_ours = header.is_final && header.mask.is_none() && !(header.rsv2 || header.rsv3);
    usize::try_from(cursor.position().checked_add(length)?).ok().filter(|_| is_ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_reason_is_cut_between_characters() {
        let mut frame = Vec::new();
        put_close(&mut frame, CloseCode::Policy, &"é".repeat(100));
        assert_eq!(frame[1], 2 + 122);
        assert!(str::from_utf8(&frame[4..]).is_ok());
        assert_eq!(frame_bytes(&frame), Some(frame.len()));
        let mut frame = Vec::new();
        put_close(&mut frame, CloseCode::Status, "not sent");
        assert_eq!(frame, [0x88, 0]);
    }

    #[test]
    fn frames_of_ours_are_known_compressed_or_not_and_http_is_none() {
        assert_eq!(frame_bytes(b"\x81\x02Hi..."), Some(4));
        assert_eq!(frame_bytes(b"\xc1\x02\xff\xff"), Some(4));
        for other in
            [&b"HTTP/1.1 101 Switching Protocols"[..], b"\xa1\x02", b"\x81\x82", b"\x01\x00"]
        {
            assert_eq!(frame_bytes(other), None, "{other:x?}");
        }
    }
}
