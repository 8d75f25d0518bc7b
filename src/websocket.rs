//! Messages from frames (RFC 6455 §5 to §7): the receiving side of a server.
//!
//! Bytes go in as they arrive, messages and control frames come out. A message that arrives whole
//! in one frame is unmasked in place and borrowed from the input; only one that is cut, by frames
//! or by reads, is copied to [`Partial`], and a long one is read there ([`WebSocket::begun`]).
//! Between messages nothing is kept.
//!
//! What a header proves wrong is refused at the header, before its payload (`frame.rs`). After a
//! [`Fault`] the caller must not come back: nothing behind it can be trusted.
//!
//! tungstenite does not put messages together here, because its `WebSocket` never yields on endless
//! fragments, reserves the declared length, and keeps a buffer per client (see
//! `docs/architecture.md`).

use std::borrow::Cow;

use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::bucket::Bucket;
use crate::deflate;
use crate::frame::{
    Fault, Frame, TOO_BIG, TOO_MANY_CONTROLS, check_frame, kind_of, parse_head, text, unmask,
};
use crate::input::take;
use crate::limits::Limits;
use crate::message::Kind;
use crate::partial::{Incoming, Partial, control};
use crate::spare::Spare;
use crate::tick::Tick;

/// The receiving side of one WebSocket.
#[derive(Debug, Default)]
pub struct WebSocket {
    partial: Option<Box<Partial>>,
    controls: Bucket,
    /// Compression was agreed on: RSV1 has its meaning.
    takes_deflated: bool,
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
        while !input.is_empty() || self.is_fresh() {
            let incoming = match self.partial.as_deref_mut().filter(|it| it.frame.is_some()) {
                Some(partial) => partial.receive_payload(input, spare)?,
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

    /// What is not whole, if anything is.
    pub(crate) fn begun(&mut self) -> Option<&mut Partial> {
        self.partial.as_deref_mut()
    }

    fn is_fresh(&self) -> bool {
        self.partial.as_ref().is_some_and(|partial| partial.fresh_bytes() > 0)
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
            Some(partial) => partial.receive_payload(input, spare),
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
        let begin = || Box::new(Partial::new(now.after(limits.message_timeout)));
        self.partial.get_or_insert_with(begin)
    }

    fn count_control(&mut self, limits: &Limits, now: Tick) -> Result<(), Fault> {
        match self.controls.take(limits.controls, now) {
            true => Ok(()),
            false => Err(TOO_MANY_CONTROLS),
        }
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

#[cfg(test)]
mod tests;
