//! WebSocket frames (RFC 6455 §5), and the messages of a load: a number, then always the same text.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Any key will do, as nobody stands between.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub(crate) const TEXT: u8 = 1;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// Makes messages, and knows them again.
#[derive(Debug)]
pub(crate) struct Messages {
    text: Vec<u8>,
    frame: Vec<u8>,
    head: usize,
    is_masked: bool,
    /// The hash of each message as it came compressed to the first who was given it.
    compressed: RefCell<Vec<u64>>,
}

impl Messages {
    /// Messages of so many bytes. Raw ones are framed as a server frames them.
    pub(crate) fn new(size: usize, is_raw: bool) -> Self {
        let letters = (b'a'..=b'z').chain(b'A'..=b'Z').cycle();
        Self::of([b'0'; 8].into_iter().chain(letters).take(size).collect(), is_raw)
    }

    /// Texts as applications compress them: rows of JSON, with numbers that look like chance.
    pub(crate) fn of_json(size: usize) -> Self {
        let (mut text, mut chance) = (String::from("00000000["), 1_u32);
        while text.len() < size {
            chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (price, count) = (chance >> 16, chance >> 24);
            let _ = write!(text, r#"{{"symbol":"S{count}","price":{price},"volume":{count}00}},"#);
        }
        Self::of(text.into_bytes().into_iter().take(size).collect(), false)
    }

    fn of(text: Vec<u8>, is_raw: bool) -> Self {
        let size = text.len();
        let frame = frame(TEXT, &text, !is_raw);
        Self {
            head: frame.len() - size,
            text,
            frame,
            is_masked: !is_raw,
            compressed: RefCell::default(),
        }
    }

    /// The text of the message of this number.
    pub(crate) fn text(&mut self, number: u32) -> &[u8] {
        self.text[..8].copy_from_slice(&digits(number));
        &self.text
    }

    /// Appends the frame of the message of this number.
    pub(crate) fn put(&mut self, number: u32, out: &mut Vec<u8>) {
        for (at, digit) in digits(number).into_iter().enumerate() {
            let key = if self.is_masked { KEY[at % 4] } else { 0 };
            self.frame[self.head + at] = digit ^ key;
        }
        out.extend_from_slice(&self.frame);
    }

    /// Stops unless this is the message of this number.
    pub(crate) fn check(&self, text: &[u8], number: u32) {
        let is_it = text.len() == self.text.len()
            && text[..8] == digits(number)
            && text[8..] == self.text[8..];
        if !is_it {
            let start = String::from_utf8_lossy(&text[..text.len().min(200)]).into_owned();
            panic!("message {number} was to come, and what came is {start:?}");
        }
    }

    /// Stops unless the message of this number is the same bytes to everyone. They are not
    /// inflated here, which would take a library; whether they can be is what the tests say.
    pub(crate) fn check_compressed(&self, payload: &[u8], number: u32) {
        let mut hasher = DefaultHasher::new();
        payload.hash(&mut hasher);
        let mut compressed = self.compressed.borrow_mut();
        match compressed.get(number as usize) {
            Some(hash) => assert_eq!(*hash, hasher.finish(), "message {number} is another"),
            None => compressed.push(hasher.finish()),
        }
    }

    pub(crate) fn size(&self) -> usize {
        self.text.len()
    }
}

fn digits(number: u32) -> [u8; 8] {
    let mut digits = [0; 8];
    for (at, digit) in digits.iter_mut().enumerate() {
        let value = (number >> (28 - 4 * at)) as u8 & 15;
        *digit = b"0123456789abcdef"[value as usize];
    }
    digits
}

/// One frame, of a client if it is masked.
pub(crate) fn frame(opcode: u8, payload: &[u8], is_masked: bool) -> Vec<u8> {
    let mask = if is_masked { 0x80 } else { 0 };
    let mut out = vec![0x80 | opcode];
    match payload.len() {
        len @ ..126 => out.push(mask | len as u8),
        len @ 126..65536 => {
            out.push(mask | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(mask | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    let key = if is_masked { KEY } else { [0; 4] };
    if is_masked {
        out.extend_from_slice(&KEY);
    }
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]));
    out
}

/// A whole frame at the front of these bytes: its first byte, its payload, all its bytes.
pub(crate) fn take(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (first, length) = (*bytes.first()?, *bytes.get(1)?);
    assert!(length < 128, "a server does not mask");
    let (head, length) = match length {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()) as usize),
        length => (2, usize::from(length)),
    };
    Some((first, bytes.get(head..head + length)?, head + length))
}
