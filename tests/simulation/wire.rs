//! The peers' side of HTTP, event streams and frames: just enough to read what is answered, and to
//! write what is asked, well or badly.

use std::io::{Read, Write};

use flate2::{Compression, read::DeflateDecoder};
use pousse::seam::machine::Random;

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub content: Vec<u8>,
}

/// A whole answer from the beginning of the bytes, which it is taken from. An event stream's is
/// its head alone.
pub fn answer(bytes: &mut Vec<u8>) -> Result<Option<Answer>, String> {
    let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8(bytes[..end].to_vec()).map_err(|_| "a head that is no text")?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|it| it.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| format!("this is no answer: {head:?}"))?;
    let length = field(&head, "content-length").and_then(|it| it.parse().ok()).unwrap_or(0);
    if bytes.len() < end + 4 + length {
        return Ok(None);
    }
    let rest = bytes.split_off(end + 4 + length);
    let content = bytes.split_off(end + 4);
    *bytes = rest;
    Ok(Some(Answer { status, head, content }))
}

pub fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// A block of an event stream: its id, its event, its data.
#[derive(Debug, Default)]
pub struct Block {
    pub id: Option<String>,
    pub event: Option<String>,
    pub data: Option<String>,
}

pub fn block(bytes: &mut Vec<u8>) -> Result<Option<Block>, String> {
    let Some(end) = bytes.windows(2).position(|it| it == b"\n\n") else { return Ok(None) };
    let rest = bytes.split_off(end + 2);
    let text = String::from_utf8(std::mem::replace(bytes, rest)).map_err(|_| "no text")?;
    let mut block = Block::default();
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.split_once(": ") {
            Some(("id", id)) => block.id = Some(id.to_owned()),
            Some(("event", event)) => block.event = Some(event.to_owned()),
            Some(("data", data)) => block.data = Some(data.to_owned()),
            Some(("retry", _)) => {}
            _ => return Err(format!("a line that is none of an event stream: {line:?}")),
        }
    }
    Ok(Some(block))
}

pub struct Frame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

/// A whole frame from the server: never masked, never in fragments.
pub fn frame(bytes: &mut Vec<u8>, may_deflate: bool) -> Result<Option<Frame>, String> {
    let &[first, second, ..] = bytes.as_slice() else { return Ok(None) };
    let (is_deflated, opcode) = (first & 0x40 != 0, first & 0xf);
    if first & 0xb0 != 0x80 || second & 0x80 != 0 || is_deflated && !may_deflate {
        return Err(format!("a frame that may not be: {first:02x} {second:02x}"));
    }
    let (at, length) = match second {
        126 if bytes.len() >= 4 => (4, usize::from(bytes[2]) << 8 | usize::from(bytes[3])),
        127 if bytes.len() >= 10 => {
            (10, bytes[2..10].iter().fold(0, |all, byte| all << 8 | usize::from(*byte)))
        }
        126 | 127 => return Ok(None),
        short => (2, usize::from(short)),
    };
    if length > 1 << 24 {
        return Err(format!("a frame of {length} bytes"));
    }
    if bytes.len() < at + length {
        return Ok(None);
    }
    let rest = bytes.split_off(at + length);
    let mut payload = bytes.split_off(at);
    *bytes = rest;
    if is_deflated {
        payload.extend([0, 0, 0xff, 0xff]);
        let mut plain = Vec::new();
        let inflated =
            DeflateDecoder::new(payload.as_slice()).take(1 << 22).read_to_end(&mut plain);
        // The stream has no last block: the end of the input is no error of it.
        if let Err(error) = inflated
            && error.kind() != std::io::ErrorKind::UnexpectedEof
        {
            return Err(format!("a frame that cannot be inflated: {error}"));
        }
        payload = plain;
    }
    Ok(Some(Frame { opcode, payload }))
}

/// A message of the client's, in one frame or in several.
pub fn put_message(
    out: &mut Vec<u8>,
    opcode: u8,
    payload: &[u8],
    deflates: bool,
    random: &mut Random,
) {
    let packed = deflates.then(|| deflate(payload));
    let payload = packed.as_deref().unwrap_or(payload);
    let mut rest = payload;
    let mut is_first = true;
    loop {
        let is_last = rest.is_empty() || !random.chance(200);
        let count = match is_last {
            true => rest.len(),
            false => random.below(rest.len() as u64) as usize,
        };
        let (now, later) = rest.split_at(count);
        let mut first = if is_first { opcode } else { 0 };
        first |= if is_first && deflates { 0x40 } else { 0 };
        put_frame(out, first | if is_last { 0x80 } else { 0 }, now, random);
        if is_last {
            return;
        }
        (rest, is_first) = (later, false);
    }
}

pub fn put_frame(out: &mut Vec<u8>, first: u8, payload: &[u8], random: &mut Random) {
    out.push(first);
    match payload.len() {
        short @ ..126 => out.push(0x80 | short as u8),
        middle @ ..0x1_0000 => {
            out.push(0xfe);
            out.extend((middle as u16).to_be_bytes());
        }
        long => {
            out.push(0xff);
            out.extend((long as u64).to_be_bytes());
        }
    }
    let mask = (random.next() as u32).to_be_bytes();
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

fn deflate(payload: &[u8]) -> Vec<u8> {
    let mut deflater = flate2::write::DeflateEncoder::new(Vec::new(), Compression::fast());
    deflater.write_all(payload).and_then(|()| deflater.flush()).expect("memory takes it");
    let mut packed = deflater.get_ref().clone();
    if packed.ends_with(&[0, 0, 0xff, 0xff]) {
        packed.truncate(packed.len() - 4);
    }
    packed
}
