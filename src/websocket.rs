//! Messages over tungstenite's frame layer (RFC 6455 §5 to §7): the receiving side of a server.
//!
//! Bytes go in as they arrive, messages and control frames come out. A message that arrives whole
//! in one frame is unmasked in place and borrowed from the input; only one that is cut, by frames
//! or by reads, is copied to [`Partial`]. Between messages nothing is kept.
//!
//! What a header proves wrong is refused at the header, before its payload. After a [`Fault`]
//! the caller must not come back: nothing behind it can be trusted.
//!
//! tungstenite knows opcodes, close codes and our own headers; the message is assembled here
//! because its `WebSocket` never yields on endless fragments, reserves the declared length, and
//! keeps a buffer per client (see `docs/architecture.md`).

use std::borrow::Cow;
use std::io::Cursor;

use bytes::BufMut;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use crate::bucket::Bucket;
use crate::deflate::{self, Deflate, Unfit};
use crate::input::take;
use crate::limits::Limits;
use crate::message::{Kind, put_frame_head};
use crate::metrics::{Counters, Reason};
use crate::spare::Spare;
use crate::tick::Tick;

/// What a peer sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'s> {
    /// A whole text message.
    Text(Cow<'s, str>),
    /// A whole binary message.
    Binary(Cow<'s, [u8]>),
    /// A ping, to be answered with the same payload.
    Ping(Cow<'s, [u8]>),
    /// A pong, asked for or not.
    Pong,
    /// The closing handshake; 1005 if it names no code.
    Close(CloseCode, String),
    /// A whole compressed message, as it came (RFC 7692 §6.2).
    Deflated(Kind, Cow<'s, [u8]>),
}

impl<'s> Incoming<'s> {
    /// A compressed message taken out, by what `turn` lends; anything else as it is.
    ///
    /// # Errors
    /// [`Fault`]: it is no DEFLATE, no UTF-8, or too big once taken out.
    pub(crate) fn inflated(
        self,
        deflate: &mut Deflate,
        max: usize,
        counters: &mut Counters,
    ) -> Result<Self, Fault> {
        let Incoming::Deflated(kind, payload) = self else { return Ok(self) };
        let message = deflate.inflate(&payload, max, counters).map_err(|unfit| match unfit {
            Unfit::Bad => NO_DEFLATE,
            Unfit::TooBig => TOO_BIG,
        })?;
        match kind {
            Kind::Binary => Ok(Incoming::Binary(message.into())),
            Kind::Text => {
                let text = String::from_utf8(message).map_err(|_| NOT_UTF8)?;
                Ok(Incoming::Text(text.into()))
            }
        }
    }
}

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

const fn protocol(text: &'static str) -> Fault {
    Fault { code: CloseCode::Protocol, why: Reason::Protocol, text }
}

const NOT_UTF8: Fault =
    Fault { code: CloseCode::Invalid, why: Reason::Utf8, text: "text that is not UTF-8" };
const NO_DEFLATE: Fault = Fault {
    code: CloseCode::Invalid,
    why: Reason::Deflate,
    text: "a compressed message that cannot be taken out",
};
const TOO_BIG: Fault =
    Fault { code: CloseCode::Size, why: Reason::MaxMessage, text: "the message is too big" };
const TOO_MANY_FRAGMENTS: Fault = Fault {
    code: CloseCode::Policy,
    why: Reason::Fragments,
    text: "too many fragments in one message",
};
const TOO_MANY_CONTROLS: Fault =
    Fault { code: CloseCode::Policy, why: Reason::Controls, text: "too many control frames" };

/// The longest header of a frame from a client: two bytes, a 64-bit length, the masking key.
const HEAD_BYTES_MAX: usize = 14;

/// The payload of a control frame is at most this long (RFC 6455 §5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// Space taken at once for a payload that is promised; more is taken as bytes arrive.
const RESERVE_BYTES_MAX: usize = 16 * 1024;

/// The receiving side of one WebSocket.
#[derive(Debug, Default)]
pub struct WebSocket {
    partial: Option<Box<Partial>>,
    controls: Bucket,
    /// Compression was agreed on: RSV1 has its meaning.
    takes_deflated: bool,
}

/// What has arrived of something unfinished.
#[derive(Debug, Default)]
struct Partial {
    /// A header that is not whole yet.
    head: [u8; HEAD_BYTES_MAX],
    head_bytes: usize,
    /// The frame whose payload is arriving.
    frame: Option<Frame>,
    control: Vec<u8>,
    /// The message whose fragments are arriving, and whether it is compressed.
    message: Option<Kind>,
    is_deflated: bool,
    /// Its text as far as it is checked; what of it is not, and cannot be yet, is less than a
    /// character. Of any other message the text is empty.
    text: String,
    payload: Vec<u8>,
    fragments: usize,
    deadline: Tick,
}

/// A frame, as its header tells.
#[derive(Clone, Copy, Debug)]
struct Frame {
    /// The first byte. It is taken apart when that is asked for, as many small fields are slow to
    /// hand on.
    first: u8,
    /// The masking key; its first byte is the lowest.
    mask: u32,
    /// Bytes of the payload that have not arrived yet.
    missing: usize,
    arrived: usize,
}

impl Frame {
    fn opcode(self) -> OpCode {
        OpCode::from(self.first & 0x0f)
    }

    fn is_final(self) -> bool {
        self.first & 0x80 != 0
    }

    /// RSV1: its message is compressed.
    fn is_deflated(self) -> bool {
        self.first & 0x40 != 0
    }
}

impl WebSocket {
    /// One on which it was agreed, or was not, that messages may be compressed.
    pub fn new(takes_deflated: bool) -> Self {
        Self { takes_deflated, ..Self::default() }
    }

    /// Takes bytes from `input` until something is whole; `None` when they are used up.
    ///
    /// # Errors
    /// [`Fault`]; nothing may be received after it.
    ///
    /// Work: bounded by the length of the input.
    pub fn receive<'s>(
        &mut self,
        input: &mut &'s mut [u8],
        limits: &Limits,
        now: Tick,
        spare: &mut Spare,
    ) -> Result<Option<Incoming<'s>>, Fault> {
        while !input.is_empty() {
            let incoming = match self.partial.as_deref_mut().filter(|it| it.frame.is_some()) {
                Some(partial) => partial.receive_payload(input)?,
                None => self.receive_frame(input, limits, now, spare)?,
            };
            if self.partial.as_ref().is_some_and(|partial| partial.is_idle()) {
                self.partial = None;
            }
            if let Some(incoming) = incoming {
                if matches!(incoming, Incoming::Ping(_) | Incoming::Pong | Incoming::Close(..)) {
                    self.count_control(limits, now)?;
                }
                return Ok(Some(incoming));
            }
        }
        Ok(None)
    }

    /// When the unfinished message will have taken too long.
    pub fn deadline(&self) -> Tick {
        self.partial.as_ref().map_or(Tick::NEVER, |partial| partial.deadline)
    }

    /// Bytes kept of what is unfinished.
    pub(crate) fn held_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.held_bytes())
    }

    /// Begins a frame, and ends it too if all of it is there.
    fn receive_frame<'s>(
        &mut self,
        input: &mut &'s mut [u8],
        limits: &Limits,
        now: Tick,
        spare: &mut Spare,
    ) -> Result<Option<Incoming<'s>>, Fault> {
        let Some((mut frame, length)) = self.receive_head(input, limits, now)? else {
            return Ok(None);
        };
        let in_message = self.partial.as_ref().and_then(|partial| partial.message);
        check_frame(&frame, length, in_message.is_some())?;
        let is_whole = length <= input.len() as u64;
        frame.missing = usize::try_from(length).unwrap_or(usize::MAX);
        if let OpCode::Data(_) = frame.opcode() {
            let begun = self.partial.as_ref().filter(|_| in_message.is_some());
            let before = begun.map_or(0, |partial| partial.bytes() as u64);
            // What is compressed may be longer than what comes of it; there the limit holds then.
            let most = match begun.map_or(frame.is_deflated(), |partial| partial.is_deflated) {
                true => deflate::bound(limits.max_message),
                false => limits.max_message,
            };
            if length > (most as u64).saturating_sub(before) {
                return Err(TOO_BIG);
            }
            if in_message.is_none() && frame.is_final() && is_whole {
                return whole_message(frame, take(input, frame.missing)).map(Some);
            }
        } else if is_whole {
            let payload = take(input, frame.missing);
            unmask(payload, frame.mask, 0);
            return control(frame.opcode(), Cow::Borrowed(payload)).map(Some);
        }
        self.partial(limits, now).begin(frame, limits, spare)?;
        match self.partial.as_deref_mut() {
            Some(partial) => partial.receive_payload(input),
            None => Ok(None),
        }
    }

    /// Takes the header of the next frame, if it is whole, and checks what it can prove.
    fn receive_head(
        &mut self,
        input: &mut &mut [u8],
        limits: &Limits,
        now: Tick,
    ) -> Result<Option<(Frame, u64)>, Fault> {
        let held = self.partial.as_ref().map_or(0, |partial| partial.head_bytes);
        if held == 0
            && let Some((frame, length, taken)) = parse_head(input, self.takes_deflated)?
        {
            take(input, taken);
            return Ok(Some((frame, length)));
        }
        // Rare: a read ended inside a header.
        let takes_deflated = self.takes_deflated;
        let partial = self.partial(limits, now);
        let fresh = partial.head.get_mut(held..).unwrap_or_default();
        let count = fresh.len().min(input.len());
        fresh.iter_mut().zip(input.iter()).for_each(|(to, from)| *to = *from);
        let head = partial.head.get(..held + count).unwrap_or_default();
        match parse_head(head, takes_deflated)? {
            Some((frame, length, taken)) => {
                partial.head_bytes = 0;
                take(input, taken - held);
                Ok(Some((frame, length)))
            }
            None => {
                partial.head_bytes = held + count;
                take(input, count);
                Ok(None)
            }
        }
    }

    fn partial(&mut self, limits: &Limits, now: Tick) -> &mut Partial {
        self.partial.get_or_insert_with(|| {
            Box::new(Partial { deadline: now.after(limits.message_timeout), ..Partial::default() })
        })
    }

    fn count_control(&mut self, limits: &Limits, now: Tick) -> Result<(), Fault> {
        match self.controls.take(limits.controls, now) {
            true => Ok(()),
            false => Err(TOO_MANY_CONTROLS),
        }
    }
}

impl Partial {
    /// Whether nothing is unfinished.
    fn is_idle(&self) -> bool {
        self.head_bytes == 0 && self.frame.is_none() && self.message.is_none()
    }

    /// Bytes of the message that have arrived.
    fn bytes(&self) -> usize {
        self.text.len() + self.payload.len()
    }

    fn held_bytes(&self) -> usize {
        let parts = self.text.capacity() + self.payload.capacity() + self.control.capacity();
        size_of::<Self>() + parts
    }

    fn begin(&mut self, frame: Frame, limits: &Limits, spare: &mut Spare) -> Result<(), Fault> {
        self.frame = Some(frame);
        let OpCode::Data(data) = frame.opcode() else {
            return Ok(());
        };
        if let Some(kind) = kind_of(data) {
            self.message = Some(kind);
            self.is_deflated = frame.is_deflated();
            let room = spare.lend(frame.missing);
            match self.is_text() {
                true => self.text = String::from_utf8(room).unwrap_or_default(),
                false => self.payload = room,
            }
        }
        self.fragments += 1;
        if self.fragments > limits.fragments {
            return Err(TOO_MANY_FRAGMENTS);
        }
        Ok(())
    }

    /// Takes what is there of the payload of the frame begun.
    fn receive_payload<'s>(
        &mut self,
        input: &mut &'s mut [u8],
    ) -> Result<Option<Incoming<'s>>, Fault> {
        let Some(mut frame) = self.frame else {
            return Ok(None);
        };
        let payload = take(input, frame.missing.min(input.len()));
        unmask(payload, frame.mask, frame.arrived);
        frame.missing -= payload.len();
        frame.arrived += payload.len();
        self.frame = Some(frame).filter(|frame| frame.missing > 0);
        let is_whole = self.frame.is_none();
        if let OpCode::Control(_) = frame.opcode() {
            self.control.extend_from_slice(payload);
            return match is_whole {
                true => control(frame.opcode(), std::mem::take(&mut self.control).into()).map(Some),
                false => Ok(None),
            };
        }
        self.make_room(payload.len(), payload.len() + frame.missing);
        let is_end = is_whole && frame.is_final();
        match self.is_text() {
            true => self.take_text(payload, is_end)?,
            false => self.payload.extend_from_slice(payload),
        }
        Ok(if is_end { self.end() } else { None })
    }

    fn is_text(&self) -> bool {
        self.message == Some(Kind::Text) && !self.is_deflated
    }

    /// Room for so many bytes, of a frame that brings so many. What it promises takes no memory but
    /// that which is there for long messages (`spare.rs`); where more is needed, it is not much
    /// more than the frame needs.
    fn make_room(&mut self, bytes: usize, promised: usize) {
        let (length, capacity) = match self.is_text() {
            true => (self.text.len(), self.text.capacity()),
            false => (self.payload.len(), self.payload.capacity()),
        };
        if capacity - length < bytes {
            let more = promised.min(bytes.max(length).max(RESERVE_BYTES_MAX));
            match self.is_text() {
                true => self.text.reserve_exact(more),
                false => self.payload.reserve_exact(more),
            }
        }
    }

    /// Checks what is new, so that bad text is refused where it stands and not at its end.
    fn take_text(&mut self, mut bytes: &[u8], is_end: bool) -> Result<(), Fault> {
        while !self.payload.is_empty()
            && let Some((first, rest)) = bytes.split_first()
        {
            self.payload.push(*first);
            bytes = rest;
            self.take_character()?;
        }
        let (whole, open) = bytes.split_at(bytes.len() - open_bytes(bytes));
        self.text.push_str(text(whole)?);
        self.payload.extend_from_slice(open);
        self.take_character()?;
        if is_end && !self.payload.is_empty() { Err(NOT_UTF8) } else { Ok(()) }
    }

    /// Moves the character to the text, if it is whole.
    fn take_character(&mut self) -> Result<(), Fault> {
        match str::from_utf8(&self.payload) {
            Ok(character) => {
                self.text.push_str(character);
                self.payload.clear();
            }
            // Without a length the error is an end in mid-character, which may yet be completed.
            Err(error) if error.error_len().is_none() => {}
            Err(_) => return Err(NOT_UTF8),
        }
        Ok(())
    }

    fn end<'s>(&mut self) -> Option<Incoming<'s>> {
        let (text, payload) = (std::mem::take(&mut self.text), std::mem::take(&mut self.payload));
        self.fragments = 0;
        match self.message.take()? {
            kind if self.is_deflated => Some(Incoming::Deflated(kind, payload.into())),
            Kind::Text => Some(Incoming::Text(text.into())),
            Kind::Binary => Some(Incoming::Binary(payload.into())),
        }
    }
}

/// Bytes at the end that begin a character and do not end it, if anything does.
fn open_bytes(text: &[u8]) -> usize {
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

/// Parses a header and refuses what it proves wrong (RFC 6455 §5.2, §5.5), byte by byte.
///
/// ```text
///  0               1
/// |F|R|R|R| opcode|M| length      |  length 126: 16 bits follow, 127: 64 bits
/// |I|S|S|S| (4)   |A| (7)         |  then the masking key, 32 bits
/// |N|V|V|V|       |S|             |
/// ```
fn parse_head(bytes: &[u8], takes_deflated: bool) -> Result<Option<(Frame, u64, usize)>, Fault> {
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
fn check_frame(frame: &Frame, length: u64, in_message: bool) -> Result<(), Fault> {
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
fn kind_of(data: Data) -> Option<Kind> {
    match data {
        Data::Text => Some(Kind::Text),
        Data::Binary => Some(Kind::Binary),
        _ => None,
    }
}

/// A message that is one frame: unmasked where it stands.
fn whole_message(frame: Frame, payload: &mut [u8]) -> Result<Incoming<'_>, Fault> {
    unmask(payload, frame.mask, 0);
    match frame.opcode() {
        OpCode::Data(data) if frame.is_deflated() => {
            let kind = kind_of(data).unwrap_or(Kind::Binary);
            Ok(Incoming::Deflated(kind, Cow::Borrowed(payload)))
        }
        OpCode::Data(Data::Text) => Ok(Incoming::Text(text(payload)?.into())),
        _ => Ok(Incoming::Binary(Cow::Borrowed(payload))),
    }
}

/// std's check goes by words of 8 bytes, and was a quarter of what an echo of 1 KiB costs.
fn text(payload: &[u8]) -> Result<&str, Fault> {
    simdutf8::basic::from_utf8(payload).map_err(|_| NOT_UTF8)
}

fn control(opcode: OpCode, payload: Cow<'_, [u8]>) -> Result<Incoming<'_>, Fault> {
    match opcode {
        OpCode::Control(Control::Ping) => Ok(Incoming::Ping(payload)),
        OpCode::Control(Control::Pong) => Ok(Incoming::Pong),
        _ => close(&payload),
    }
}

/// The payload of a close frame: nothing, or a code and a reason (RFC 6455 §5.5.1, §7.4).
fn close(payload: &[u8]) -> Result<Incoming<'static>, Fault> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return Ok(Incoming::Close(CloseCode::Status, String::new()));
    };
    let code = CloseCode::from(u16::from_be_bytes(*code));
    if !code.is_allowed() {
        return Err(protocol("a close code that may not be sent"));
    }
    match str::from_utf8(reason) {
        Ok(reason) => Ok(Incoming::Close(code, reason.to_owned())),
        Err(_) => Err(NOT_UTF8),
    }
}

/// Undoes the masking (RFC 6455 §5.3) of bytes that begin `offset` bytes into their payload.
fn unmask(payload: &mut [u8], mask: u32, offset: usize) {
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
    /// What a client writes: a masked frame.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let mut frame = vec![first];
        let length = payload.len() as u64;
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short @ ..=125), _) => frame.push(0x80 | short),
            (_, Ok(length)) => {
                frame.push(0x80 | 126);
                frame.put_u16(length);
            }
            _ => {
                frame.push(0x80 | 127);
                frame.put_u64(length);
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    fn text(text: &str) -> Incoming<'static> {
        Incoming::Text(text.to_owned().into())
    }

    fn owned(incoming: Incoming<'_>) -> Incoming<'static> {
        match incoming {
            Incoming::Text(text) => Incoming::Text(text.into_owned().into()),
            Incoming::Binary(bytes) => Incoming::Binary(bytes.into_owned().into()),
            Incoming::Ping(bytes) => Incoming::Ping(bytes.into_owned().into()),
            Incoming::Pong => Incoming::Pong,
            Incoming::Close(code, reason) => Incoming::Close(code, reason),
            Incoming::Deflated(kind, bytes) => Incoming::Deflated(kind, bytes.into_owned().into()),
        }
    }

    /// Everything that comes of these pieces, and the code of the fault at the end.
    fn receive(pieces: &[&[u8]], limits: &Limits) -> (Vec<Incoming<'static>>, u16) {
        receive_by(WebSocket::default(), pieces, limits)
    }

    fn receive_by(
        mut websocket: WebSocket,
        pieces: &[&[u8]],
        limits: &Limits,
    ) -> (Vec<Incoming<'static>>, u16) {
        let mut all = Vec::new();
        for piece in pieces {
            let mut piece = piece.to_vec();
            let mut input = piece.as_mut_slice();
            loop {
                match websocket.receive(&mut input, limits, Tick(0), &mut Spare::default()) {
                    Ok(Some(incoming)) => all.push(owned(incoming)),
                    Ok(None) => break,
                    Err(fault) => return (all, fault.code.into()),
                }
            }
        }
        (all, 0)
    }

    /// The same however the bytes are cut: whole, at every place, one by one.
    fn receive_cut(bytes: &[u8], limits: &Limits) -> (Vec<Incoming<'static>>, u16) {
        receive_cut_by(false, bytes, limits)
    }

    fn receive_cut_by(
        takes_deflated: bool,
        bytes: &[u8],
        limits: &Limits,
    ) -> (Vec<Incoming<'static>>, u16) {
        let receive = |pieces: &[&[u8]]| receive_by(WebSocket::new(takes_deflated), pieces, limits);
        let whole = receive(&[bytes]);
        for at in 0..bytes.len().min(300) {
            let (left, right) = bytes.split_at(at);
            assert_eq!(receive(&[left, right]), whole, "cut at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(receive(&single), whole, "one by one");
        whole
    }

    #[test]
    fn the_examples_of_rfc_6455_section_5_7_are_read() {
        let limits = Limits::default();
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(receive_cut(&hello, &limits), (vec![text("Hello")], 0));
        let fragments = [masked(0x01, b"Hel"), masked(0x80, b"lo")].concat();
        assert_eq!(receive_cut(&fragments, &limits), (vec![text("Hello")], 0));
        let ping = masked(0x89, b"Hello");
        let bytes = Incoming::Ping(b"Hello".to_vec().into());
        assert_eq!(receive_cut(&ping, &limits), (vec![bytes], 0));
        let long = vec![0xfe; 256];
        let bytes = Incoming::Binary(long.clone().into());
        assert_eq!(receive_cut(&masked(0x82, &long), &limits), (vec![bytes], 0));
    }

    #[test]
    fn control_frames_may_stand_between_fragments_and_empty_frames_are_frames() {
        let bytes = [
            masked(0x01, "é".as_bytes().get(..1).unwrap()),
            masked(0x89, b""),
            masked(0x00, b""),
            masked(0x8a, b"late"),
            masked(0x80, "é!".as_bytes().get(1..).unwrap()),
            masked(0x81, b""),
            masked(0x88, b"\x03\xe8bye"),
        ]
        .concat();
        let close = Incoming::Close(CloseCode::Normal, "bye".into());
        let expected =
            vec![Incoming::Ping(vec![].into()), Incoming::Pong, text("é!"), text(""), close];
        assert_eq!(receive_cut(&bytes, &Limits::default()), (expected, 0));
    }

    #[test]
    fn what_a_header_proves_wrong_is_refused_before_its_payload() {
        for (bytes, code) in [
            (&b"\x81\x05"[..], 1002),                        // not masked
            (b"\xc1", 1002),                                 // RSV1
            (b"\xa1", 1002),                                 // RSV2
            (b"\x91", 1002),                                 // RSV3
            (b"\x83", 1002),                                 // reserved data opcode
            (b"\x8b", 1002),                                 // reserved control opcode
            (b"\x89\xfe", 1002),                             // a ping of more than 125 bytes
            (b"\x09", 1002),                                 // a ping in fragments
            (b"\x80\x80\0\0\0\0", 1002),                     // a continuation of nothing
            (b"\x81\xfe\x00\x7d\0\0\0\0", 1002),             // 125 in two bytes
            (b"\x81\xff\0\0\0\0\0\0\xff\xff\0\0\0\0", 1002), // 65535 in eight
            (b"\x81\xff\x80\0\0\0\0\0\0\0\0\0\0\0", 1002),   // the first bit of the length
            (b"\x81\xff\0\0\0\0\0\x01\0\x01\0\0\0\0", 1009), // 65537 over 65536
            (b"\x88\x81\0\0\0\0", 1002),                     // half a close code
        ] {
            assert_eq!(receive_cut(bytes, &Limits::default()), (vec![], code), "{bytes:x?}");
        }
    }

    #[test]
    fn rsv1_stands_where_a_compressed_message_begins_and_nowhere_else() {
        let limits = Limits::default();
        let deflated = |kind, bytes: &[u8]| Incoming::Deflated(kind, bytes.to_vec().into());
        for (bytes, expected) in [
            (masked(0xc1, b"\xf2\x48"), (vec![deflated(Kind::Text, b"\xf2\x48")], 0)),
            (masked(0xc2, b""), (vec![deflated(Kind::Binary, b"")], 0)),
            (masked(0x81, b"Hi"), (vec![text("Hi")], 0)),
            (masked(0xe1, b""), (vec![], 1002)),
            (masked(0xd1, b""), (vec![], 1002)),
            (masked(0xc0, b""), (vec![], 1002)),
            (masked(0xc3, b""), (vec![], 1002)),
            (masked(0xc8, b""), (vec![], 1002)),
            (masked(0xc9, b""), (vec![], 1002)),
            (masked(0xca, b""), (vec![], 1002)),
            // Not in a continuation, compressed or not, final or not.
            ([masked(0x01, b"a"), masked(0xc0, b"b")].concat(), (vec![], 1002)),
            ([masked(0x41, b"a"), masked(0x40, b"b")].concat(), (vec![], 1002)),
            // Fragments are put together as they are; others may stand between them, and behind
            // them a message that is not compressed.
            (
                [
                    masked(0x41, b"\xff"),
                    masked(0x89, b"?"),
                    masked(0x00, b""),
                    masked(0x80, b"\xfe"),
                    masked(0x01, b"pla"),
                    masked(0x80, b"in"),
                ]
                .concat(),
                (
                    vec![
                        Incoming::Ping(b"?".to_vec().into()),
                        deflated(Kind::Text, b"\xff\xfe"),
                        text("plain"),
                    ],
                    0,
                ),
            ),
        ] {
            assert_eq!(receive_cut_by(true, &bytes, &limits), expected, "{bytes:x?}");
        }
        // Text that is cut is not looked at before it is taken out, but plain text behind it is.
        let bytes = [masked(0x41, b"\xff"), masked(0x80, b""), masked(0x81, b"\xff")].concat();
        let expected = (vec![deflated(Kind::Text, b"\xff")], 1007);
        assert_eq!(receive_cut_by(true, &bytes, &limits), expected);
    }

    #[test]
    fn a_compressed_message_may_be_a_little_longer_than_the_limit_until_it_is_taken_out() {
        let limits = Limits { max_message: 2048, ..Limits::default() };
        let most = 2048 + 2 + 64;
        let deflated = |bytes: usize| vec![Incoming::Deflated(Kind::Binary, vec![7; bytes].into())];
        let whole = |bytes: usize| {
            receive_by(WebSocket::new(true), &[&masked(0xc2, &vec![7; bytes])], &limits)
        };
        assert_eq!(whole(most), (deflated(most), 0));
        assert_eq!(whole(most + 1), (vec![], 1009));
        let cut = |bytes: usize| {
            let frames = [masked(0x42, &[7; 2000]), masked(0x80, &vec![7; bytes - 2000])].concat();
            receive_by(WebSocket::new(true), &[&frames], &limits)
        };
        assert_eq!(cut(most), (deflated(most), 0));
        assert_eq!(cut(most + 1), (vec![], 1009));
        // What is not compressed is not.
        let plain = receive_by(WebSocket::new(true), &[&masked(0x82, &[7; 2049])], &limits);
        assert_eq!(plain, (vec![], 1009));
    }

    #[test]
    fn a_compressed_message_is_taken_out_or_told_what_is_wrong_with_it() {
        let inflated = |kind, payload: &[u8], max| {
            let incoming = Incoming::Deflated(kind, payload.to_vec().into());
            let (mut lent, mut counters) = (Deflate::default(), Counters::default());
            incoming.inflated(&mut lent, max, &mut counters).map(owned).map_err(|it| it.code)
        };
        if cfg!(not(feature = "deflate")) {
            return;
        }
        let hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
        assert_eq!(inflated(Kind::Text, hello, 5), Ok(text("Hello")));
        let bytes = Incoming::Binary(b"Hello".to_vec().into());
        assert_eq!(inflated(Kind::Binary, hello, 5), Ok(bytes));
        assert_eq!(inflated(Kind::Text, hello, 4), Err(CloseCode::Size));
        assert_eq!(inflated(Kind::Text, b"\xff", 4), Err(CloseCode::Invalid));
        let not_utf8 = b"\x00\x01\x00\xfe\xff\xff\x00";
        assert_eq!(inflated(Kind::Text, not_utf8, 4), Err(CloseCode::Invalid));
        let bytes = Incoming::Binary(b"\xff".to_vec().into());
        assert_eq!(inflated(Kind::Binary, not_utf8, 4), Ok(bytes));
    }

    #[test]
    fn the_message_limit_holds_over_fragments_and_lets_exactly_the_limit_pass() {
        let limits = Limits { max_message: 10, ..Limits::default() };
        let exact = [masked(0x02, b"12345"), masked(0x80, b"67890")].concat();
        let bytes = Incoming::Binary(b"1234567890".to_vec().into());
        assert_eq!(receive_cut(&exact, &limits), (vec![bytes], 0));
        let over = [masked(0x02, b"12345"), masked(0x80, b"678901")].concat();
        assert_eq!(receive_cut(&over, &limits), (vec![], 1009));
    }

    #[test]
    fn fragments_are_limited_empty_ones_too() {
        let limits = Limits { fragments: 3, ..Limits::default() };
        let message = |count: usize| {
            let middle = masked(0x00, b"").repeat(count - 2);
            [masked(0x01, b""), middle, masked(0x80, b"")].concat()
        };
        assert_eq!(receive_cut(&message(3), &limits), (vec![text("")], 0));
        assert_eq!(receive_cut(&message(4), &limits), (vec![], 1008));
    }

    #[test]
    fn bad_text_is_refused_where_it_stands() {
        let limits = Limits::default();
        for bad in [&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"] {
            // The frame promises a hundred bytes more than it sends.
            let mut frame = masked(0x81, &[b"abc", bad, &[0; 100]].concat());
            frame.truncate(6 + 3 + bad.len());
            assert_eq!(receive(&[&frame], &limits), (vec![], 1007), "{bad:x?}");
        }
        assert_eq!(receive_cut(&masked(0x81, b"\xc3"), &limits), (vec![], 1007));
        let open_end = [masked(0x01, b"\xc3"), masked(0x80, b"")].concat();
        assert_eq!(receive_cut(&open_end, &limits), (vec![], 1007));
    }

    #[test]
    fn close_codes_are_checked() {
        for (payload, code) in [
            (&b""[..], Ok(1005)),
            (b"\x03\xe8", Ok(1000)),
            (b"\x0f\xa0ok", Ok(4000)),
            (b"\x03\xed", Err(1002)),
            (b"\x03\xee", Err(1002)),
            (b"\x03\xe7", Err(1002)),
            (b"\xff\xff", Err(1002)),
            (b"\x03\xe8\xff", Err(1007)),
        ] {
            let got = match receive_cut(&masked(0x88, payload), &Limits::default()) {
                (all, 0) => match &all[..] {
                    [Incoming::Close(code, _)] => Ok(u16::from(*code)),
                    other => panic!("{other:?}"),
                },
                (_, fault) => Err(fault),
            };
            assert_eq!(got, code, "{payload:x?}");
        }
    }

    #[test]
    fn control_frames_are_limited_in_five_seconds() {
        let limits = Limits { controls: 2, ..Limits::default() };
        let receive = |ticks: [u32; 3]| {
            let mut websocket = WebSocket::default();
            ticks.map(|now| {
                let mut pong = masked(0x8a, b"");
                websocket
                    .receive(&mut pong.as_mut_slice(), &limits, Tick(now), &mut Spare::default())
                    .is_ok()
            })
        };
        assert_eq!(receive([0, 1, 2]), [true, true, false]);
        assert_eq!(receive([0, 0, 24]), [true, true, false]);
        assert_eq!(receive([0, 0, 25]), [true, true, true], "one more in half the time");
    }

    #[test]
    fn a_promised_length_takes_no_memory_and_nothing_is_kept_between_messages() {
        let limits = Limits { max_message: 1 << 30, ..Limits::default() };
        let mut websocket = WebSocket::default();
        let mut head = b"\x82\xff\0\0\0\0\x3f\0\0\0\0\0\0\0x".to_vec();
        websocket
            .receive(&mut head.as_mut_slice(), &limits, Tick(0), &mut Spare::default())
            .unwrap();
        let partial = websocket.partial.as_ref().unwrap();
        assert!(partial.payload.capacity() <= 2 * RESERVE_BYTES_MAX);
        let mut websocket = WebSocket::default();
        let mut whole = [masked(0x01, b"a"), masked(0x80, b"b")].concat();
        assert!(
            websocket
                .receive(&mut whole.as_mut_slice(), &limits, Tick(0), &mut Spare::default())
                .unwrap()
                .is_some()
        );
        assert!(websocket.partial.is_none());
    }

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
