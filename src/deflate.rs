//! permessage-deflate (RFC 7692 §7.2): messages are compressed to leave, and taken out when they
//! have come. What is agreed on in the opening handshake is `extensions.rs`' business.
//!
//! Every message is a stream of its own, in both directions (no context takeover): so what comes of
//! different origins is never compressed together, one compressed message serves all its readers,
//! and a connection keeps nothing. All there is, two deflaters and one inflater, belongs to the
//! loop; each is made when it is first needed.
//!
//! Invariants:
//! - Before each message its deflater or inflater is reset, whatever came of the last one.
//! - What is taken out is held only up to the limit, and one piece of 16 KiB.
//! - zlib cannot do a window of 256 bytes, and flate2 panics if it is asked for. A window of 512 is
//!   used instead: zlib looks back only as far as leaves room for its lookahead of 262 bytes, so no
//!   distance is above 250. (A test reads the distances of what is compressed.)

#[cfg(feature = "deflate")]
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
#[cfg(feature = "deflate")]
use tungstenite::protocol::frame::coding::OpCode;

use crate::message::Kind;
#[cfg(feature = "deflate")]
use crate::message::{FRAME_HEAD_MAX, put_deflated_head};
use crate::metrics::Counters;

/// Messages from this length on are compressed: below it there is little to gain.
const BYTES_MIN: usize = 1024;

/// Messages above this length are not: the loop would stand still for too long.
const BYTES_MAX: usize = 1024 * 1024;

/// Bytes compressed in one turn, and one message more.
pub(crate) const TURN_BYTES: usize = 1024 * 1024;

/// Bytes taken out at once.
#[cfg(feature = "deflate")]
const PIECE_BYTES: usize = 16 * 1024;

/// Kept of the room for what is compressed, once a longer message has gone.
#[cfg(feature = "deflate")]
const SCRATCH_BYTES: usize = 64 * 1024;

/// What zlib calls the level: how much time is spent on looking for repetitions.
#[cfg(feature = "deflate")]
const LEVEL: u32 = 6;

/// What the sender takes off the end of a compressed message, and the receiver puts back: the
/// length of an empty block (RFC 7692 §7.2.1).
#[cfg(feature = "deflate")]
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// The same, and one more empty block that is the final one: a message that was whole ends there.
#[cfg(feature = "deflate")]
const TAIL_AND_END: [u8; 9] = [0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];

/// How far back what we compress may refer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// 512 bytes, of which at most 250 are used.
    Nine,
    /// 32 KiB.
    Fifteen,
}

/// Why a message could not be taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It is not what DEFLATE makes, or ends too early.
    #[cfg_attr(not(feature = "deflate"), expect(dead_code, reason = "none is taken out"))]
    Bad,
    /// It is longer than it may be.
    TooBig,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Deflate {
    #[cfg(feature = "deflate")]
    deflaters: [Option<Compress>; 2],
    #[cfg(feature = "deflate")]
    inflater: Option<Decompress>,
    #[cfg(feature = "deflate")]
    scratch: Vec<u8>,
}

/// Whether a message of this length is to be compressed.
pub(crate) fn is_worth(bytes: usize) -> bool {
    (BYTES_MIN..=BYTES_MAX).contains(&bytes)
}

/// Bytes that a compressed message of at most `max_message` may take. What gains nothing grows by
/// five bytes for each block, and usual blocks are of 16 KiB and more. A compressor that is told to
/// use little memory makes shorter ones, and may not get a message of exactly the limit through.
pub(crate) fn bound(max_message: usize) -> usize {
    max_message.saturating_add(max_message / 1024).saturating_add(64)
}

#[cfg(feature = "deflate")]
impl Window {
    fn bits(self) -> u8 {
        match self {
            Window::Nine => 9,
            Window::Fifteen => 15,
        }
    }
}

#[cfg(feature = "deflate")]
impl Deflate {
    /// The message in one compressed frame; `None` if it is shorter as it is.
    ///
    /// Work: proportional to its length, which is to be such that it [`is_worth`] it.
    pub(crate) fn frame(
        &mut self,
        (kind, payload): (Kind, &[u8]),
        window: Window,
        counters: &mut Counters,
    ) -> Option<Vec<u8>> {
        counters.count_deflated(window == Window::Nine, payload.len());
        let frame = self.deflated(payload, window).map(|deflated| {
            let mut frame = Vec::with_capacity(FRAME_HEAD_MAX + deflated.len());
            put_deflated_head(&mut frame, OpCode::from(kind), deflated.len());
            frame.extend_from_slice(deflated);
            counters.deflated_to_bytes += deflated.len() as u64;
            frame
        });
        if frame.is_none() {
            counters.deflated_in_vain += 1;
            counters.deflated_to_bytes += payload.len() as u64;
        }
        self.scratch.clear();
        self.scratch.shrink_to(SCRATCH_BYTES);
        frame
    }

    fn deflated(&mut self, payload: &[u8], window: Window) -> Option<&[u8]> {
        let make = || Compress::new_with_window_bits(Compression::new(LEVEL), false, window.bits());
        let deflater = self.deflaters.get_mut(window as usize)?.get_or_insert_with(make);
        deflater.reset();
        self.scratch.clear();
        self.scratch.reserve(payload.len() + TAIL.len());
        deflater.compress_vec(payload, &mut self.scratch, FlushCompress::Sync).ok()?;
        let is_whole = deflater.total_in() == payload.len() as u64
            && self.scratch.len() < self.scratch.capacity();
        let deflated = self.scratch.strip_suffix(&TAIL).filter(|_| is_whole)?;
        (deflated.len() < payload.len()).then_some(deflated)
    }

    /// What was compressed, if that is at most `max` bytes.
    ///
    /// # Errors
    /// [`Unfit`].
    pub(crate) fn inflate(
        &mut self,
        payload: &[u8],
        max: usize,
        counters: &mut Counters,
    ) -> Result<Vec<u8>, Unfit> {
        let inflater = self.inflater.get_or_insert_with(|| Decompress::new(false));
        inflater.reset(false);
        let mut message = Taken { bytes: Vec::new(), max };
        // A final block may be the last of the message, with nothing behind it.
        if !message.take(inflater, payload)? && !message.take(inflater, &TAIL_AND_END)? {
            return Err(Unfit::Bad);
        }
        counters.inflated += 1;
        counters.inflated_from_bytes += payload.len() as u64;
        counters.inflated_bytes += message.bytes.len() as u64;
        Ok(message.bytes)
    }
}

/// What has been taken out of a message.
#[cfg(feature = "deflate")]
struct Taken {
    bytes: Vec<u8>,
    max: usize,
}

#[cfg(feature = "deflate")]
impl Taken {
    /// Takes out what `input` holds; true if it ends with a final block.
    fn take(&mut self, inflater: &mut Decompress, mut input: &[u8]) -> Result<bool, Unfit> {
        let mut piece = [0; PIECE_BYTES];
        loop {
            let (read, written) = (inflater.total_in(), inflater.total_out());
            let status = inflater.decompress(input, &mut piece, FlushDecompress::None);
            let status = status.map_err(|_| Unfit::Bad)?;
            let read = usize::try_from(inflater.total_in() - read).unwrap_or(usize::MAX);
            let written = usize::try_from(inflater.total_out() - written).unwrap_or(usize::MAX);
            input = input.get(read..).unwrap_or_default();
            if written > self.max - self.bytes.len() {
                return Err(Unfit::TooBig);
            }
            self.bytes.extend_from_slice(piece.get(..written).unwrap_or_default());
            match status {
                Status::StreamEnd if input.is_empty() => return Ok(true),
                // More blocks may follow, beginning anew (RFC 7692 §7.2.3.4).
                Status::StreamEnd => inflater.reset(false),
                _ if written == PIECE_BYTES => {}
                _ if input.is_empty() => return Ok(false),
                _ if (read, written) == (0, 0) => return Err(Unfit::Bad),
                _ => {}
            }
        }
    }
}

/// Without the feature nothing is agreed on, so nothing of this is asked for.
#[cfg(not(feature = "deflate"))]
impl Deflate {
    pub(crate) fn frame(
        &mut self,
        _: (Kind, &[u8]),
        _: Window,
        _: &mut Counters,
    ) -> Option<Vec<u8>> {
        None
    }

    pub(crate) fn inflate(
        &mut self,
        _: &[u8],
        _: usize,
        _: &mut Counters,
    ) -> Result<Vec<u8>, Unfit> {
        Err(Unfit::TooBig)
    }
}

#[cfg(test)]
#[cfg(feature = "deflate")]
mod tests;
