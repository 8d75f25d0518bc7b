//! What a peer sent, and what has arrived of it while it is not whole.
//!
//! A message whose frames are cut, by reads or into fragments, is put together here, and so is a
//! control frame that is cut. Text is checked as it arrives. What a promise may take of memory is
//! bounded in [`Partial::make_room`]; how long it may last is told by its deadline.

use std::borrow::Cow;

use tungstenite::protocol::frame::coding::{CloseCode, Control, OpCode};

use crate::deflate::{Deflate, Unfit};
use crate::frame::{
    Fault, Frame, HEAD_BYTES_MAX, NO_DEFLATE, NOT_UTF8, TOO_BIG, TOO_MANY_FRAGMENTS, kind_of,
    open_bytes, protocol, text, unmask,
};
use crate::input::take;
use crate::limits::Limits;
use crate::long::{Growing, LONG_BYTES};
use crate::message::{FRAME_HEAD_MAX, Kind};
use crate::metrics::Counters;
use crate::spare::Spare;
use crate::tick::Tick;

/// What a peer sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'s> {
    /// A whole text message.
    Text(Cow<'s, str>),
    /// A whole binary message.
    Binary(Cow<'s, [u8]>),
    /// A whole long message, in memory of its own: [`Long::taken`](crate::long::Long::taken).
    Long(Kind),
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

/// Space taken at once for a payload that is promised; more is taken as bytes arrive.
pub(crate) const RESERVE_BYTES_MAX: usize = 16 * 1024;

/// What has arrived of something unfinished.
#[derive(Debug, Default)]
pub(crate) struct Partial {
    /// A header that is not whole yet.
    pub(crate) head: [u8; HEAD_BYTES_MAX],
    pub(crate) head_bytes: usize,
    /// The frame whose payload is arriving.
    pub(crate) frame: Option<Frame>,
    control: Vec<u8>,
    /// The message whose fragments are arriving, and whether it is compressed.
    pub(crate) message: Option<Kind>,
    pub(crate) is_deflated: bool,
    /// Its text as far as it is checked; what of it is not, and cannot be yet, is less than a
    /// character. Of any other message the text is empty.
    text: String,
    pub(crate) payload: Vec<u8>,
    /// The message, if its first frame is a long one that is not compressed.
    long: Option<Growing>,
    fragments: usize,
    pub(crate) deadline: Tick,
}

impl Partial {
    /// Nothing yet, and when it will have taken too long.
    pub(crate) fn new(deadline: Tick) -> Self {
        Self { deadline, ..Self::default() }
    }

    /// Whether nothing is unfinished.
    pub(crate) fn is_idle(&self) -> bool {
        self.head_bytes == 0 && self.frame.is_none() && self.message.is_none()
    }

    /// Bytes of the message that have arrived.
    pub(crate) fn bytes(&self) -> usize {
        let long = self.long.as_ref().map_or(0, Growing::bytes);
        self.text.len() + self.payload.len() + long
    }

    pub(crate) fn held_bytes(&self) -> usize {
        let long = self.long.as_ref().map_or(0, Growing::held_bytes);
        let parts = self.text.capacity() + self.payload.capacity() + self.control.capacity();
        size_of::<Self>() + parts + long
    }

    /// Where to read what comes next, should that be a long message's.
    pub(crate) fn room(&mut self) -> Option<&mut [u8]> {
        let frame = self.frame.filter(|frame| matches!(frame.opcode(), OpCode::Data(_)))?;
        self.long.as_mut().map(|long| long.room(frame.missing))
    }

    /// So many bytes were read to [`room`](Self::room).
    pub(crate) fn took(&mut self, count: usize) {
        self.long.iter_mut().for_each(|long| long.took(count));
    }

    /// Bytes that were read there and not looked at.
    pub(crate) fn fresh_bytes(&self) -> usize {
        self.long.as_ref().map_or(0, Growing::fresh_bytes)
    }

    pub(crate) fn begin(
        &mut self,
        frame: Frame,
        limits: &Limits,
        spare: &mut Spare,
    ) -> Result<(), Fault> {
        self.frame = Some(frame);
        let OpCode::Data(data) = frame.opcode() else {
            return Ok(());
        };
        if let Some(kind) = kind_of(data) {
            self.message = Some(kind);
            self.is_deflated = frame.is_deflated();
            if frame.missing >= LONG_BYTES && !self.is_deflated {
                let memory = spare.lend(FRAME_HEAD_MAX.saturating_add(frame.missing));
                self.long = Some(Growing::new(memory));
            }
        }
        self.fragments += 1;
        if self.fragments > limits.fragments {
            return Err(TOO_MANY_FRAGMENTS);
        }
        Ok(())
    }

    /// Takes what is there of the payload of the frame begun.
    pub(crate) fn receive_payload<'s>(
        &mut self,
        input: &mut &'s mut [u8],
        spare: &mut Spare,
    ) -> Result<Option<Incoming<'s>>, Fault> {
        let Some(mut frame) = self.frame else {
            return Ok(None);
        };
        if self.long.is_some() && matches!(frame.opcode(), OpCode::Data(_)) {
            return self.receive_long(frame, input, spare);
        }
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

    /// The same of a long message, whose bytes may be in their place already.
    fn receive_long<'s>(
        &mut self,
        mut frame: Frame,
        input: &mut &'s mut [u8],
        spare: &mut Spare,
    ) -> Result<Option<Incoming<'s>>, Fault> {
        let is_text = self.is_text();
        let Some(long) = &mut self.long else { return Ok(None) };
        if long.fresh_bytes() == 0 {
            long.copy(take(input, frame.missing.min(input.len())), frame.missing);
        }
        let count = long.fresh_bytes();
        long.look(frame.mask, frame.arrived, is_text)?;
        frame.missing -= count;
        frame.arrived += count;
        self.frame = Some(frame).filter(|frame| frame.missing > 0);
        if self.frame.is_some() || !frame.is_final() {
            return Ok(None);
        }
        self.fragments = 0;
        let (Some(kind), Some(long)) = (self.message.take(), self.long.take()) else {
            return Ok(None);
        };
        spare.put_whole(long.end(kind)?);
        Ok(Some(Incoming::Long(kind)))
    }

    fn is_text(&self) -> bool {
        self.message == Some(Kind::Text) && !self.is_deflated
    }

    /// Room for so many bytes, of a frame that brings so many. What it promises takes no memory;
    /// where more is needed, it is not much more than the frame needs.
    fn make_room(&mut self, bytes: usize, promised: usize) {
        let more = |length: usize, capacity: usize| match capacity - length < bytes {
            true => promised.min(bytes.max(length).max(RESERVE_BYTES_MAX)),
            false => 0,
        };
        match self.is_text() {
            true => self.text.reserve_exact(more(self.text.len(), self.text.capacity())),
            false => self.payload.reserve_exact(more(self.payload.len(), self.payload.capacity())),
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

pub(crate) fn control(opcode: OpCode, payload: Cow<'_, [u8]>) -> Result<Incoming<'_>, Fault> {
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
