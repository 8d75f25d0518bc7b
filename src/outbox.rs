//! Bytes on their way to one client: the only place where they wait.
//!
//! ```text
//!   written      chunks: shared, never copied          tail: small things, copied together
//!  ░░░░░░░░[▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒][▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒][▒▒▒▒▒▒▒▒▒][head, pong, short frame, …]
//!          └ sent ┘                                        → one gathered write
//! ```
//!
//! An idle client owns no outbox: it is lent one while something is to be written, and keeps it
//! only as long as the socket refuses bytes. Every chunk, and the tail, begins with a whole frame.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

use crate::limits::WRITE_BYTES;

/// Up to this size a chunk is copied to its neighbours rather than shared: a longer write costs
/// less than one more piece of it.
const COPY_BYTES_MAX: usize = 512;

/// A tail of this length becomes a chunk: what a client is sent while it is read fits one.
const TAIL_BYTES_MAX: usize = WRITE_BYTES;

/// So much memory an empty tail keeps at most: it grows in doubling, and a message may pass the
/// length above.
const TAIL_KEPT_MAX: usize = 2 * TAIL_BYTES_MAX;

/// So much more memory than it needs is left to what becomes a chunk.
const WASTE_BYTES_MAX: usize = 4096;

/// Pieces in one gathered write.
const PIECES_MAX: usize = 32;

/// Where bytes leave to: a socket, or TLS over one.
pub trait Sink: Write {
    /// Bytes that it has taken and that have not left, because the socket takes no more. `flush`
    /// has as many of them leave as can.
    fn held_bytes(&self) -> usize {
        0
    }
}

impl Sink for Vec<u8> {}

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Everything is written.
    Drained,
    /// The socket takes no more; it will say when it does.
    Blocked,
    /// The budget is spent. The socket might take more and will not say so again.
    Budget,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Outbox {
    chunks: VecDeque<Chunk>,
    tail: Vec<u8>,
    /// Bytes of the first piece that are written already.
    sent: usize,
    bytes: usize,
    /// Messages that wait, those of the first piece all counted; and those of the tail.
    messages: usize,
    tail_messages: usize,
    /// That too much waits has been told.
    is_told: bool,
    /// That its client is not read for what waits has been counted.
    is_counted: bool,
    /// The memory of a long piece that is written, and that nobody shares.
    emptied: Option<Arc<Vec<u8>>>,
}

#[derive(Debug)]
struct Chunk {
    bytes: Piece,
    messages: usize,
}

#[derive(Debug)]
enum Piece {
    Shared(Bytes),
    /// One frame, in memory for long messages.
    Long(Arc<Vec<u8>>),
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Piece::Shared(bytes) => bytes,
            Piece::Long(frame) => frame,
        }
    }
}

impl Piece {
    /// Its beginning, which ends with a frame.
    fn upto(self, end: usize) -> Self {
        match self {
            Piece::Shared(bytes) if end == bytes.len() => Piece::Shared(bytes),
            // A part of it would keep all of it.
            Piece::Shared(bytes) => Piece::Shared(Bytes::copy_from_slice(&bytes.slice(..end))),
            // It has but one.
            Piece::Long(frame) => Piece::Long(frame),
        }
    }
}

impl Outbox {
    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of memory that it takes. What is partly written is there in whole, and what others may
    /// share counts as if it were not.
    pub(crate) fn held_bytes(&self) -> usize {
        let tail = self.tail.capacity() - self.tail.len();
        let chunks = self.chunks.capacity() * size_of::<Chunk>();
        size_of::<Self>() + self.bytes + self.sent + tail + chunks
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Messages that wait, of those that [`add_message`](Self::add_message) was told of. Of a piece
    /// that is partly written, as many as its rest has bytes for.
    pub fn messages(&self) -> usize {
        match self.chunks.front() {
            Some(first) if self.sent > 0 && first.messages > 0 => {
                let rest = (first.bytes.len() - self.sent).saturating_mul(first.messages);
                self.messages - first.messages + rest.div_ceil(first.bytes.len())
            }
            _ => self.messages,
        }
    }

    /// What was appended last is a message for this client alone.
    pub(crate) fn add_message(&mut self) {
        // A piece that is shared seals the tail, so what is behind it is empty.
        match self.chunks.back_mut().filter(|_| self.tail.is_empty()) {
            Some(last) => last.messages += 1,
            None => self.tail_messages += 1,
        }
        self.messages += 1;
    }

    /// Whether it is to be told that too much waits: once, until nothing does.
    pub(crate) fn is_to_be_told(&mut self) -> bool {
        !std::mem::replace(&mut self.is_told, true)
    }

    /// Whether it is to be counted that its client is not read: once, until nothing waits.
    pub(crate) fn is_to_be_counted(&mut self) -> bool {
        !std::mem::replace(&mut self.is_counted, true)
    }

    /// Appends bytes that others may share.
    pub fn push(&mut self, chunk: Bytes) {
        if chunk.len() <= COPY_BYTES_MAX {
            return self.extend(&chunk);
        }
        self.push_piece(Piece::Shared(chunk));
    }

    /// Appends a long frame, whose memory is given back once it is written.
    pub(crate) fn push_long(&mut self, frame: Arc<Vec<u8>>) {
        self.push_piece(Piece::Long(frame));
    }

    fn push_piece(&mut self, piece: Piece) {
        self.bytes += piece.len();
        self.seal();
        self.chunks.push_back(Chunk { bytes: piece, messages: 0 });
    }

    /// Appends a copy of the bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.write_with(|tail| tail.extend_from_slice(bytes));
    }

    /// Appends what `write` appends to the tail.
    pub fn write_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.tail.len() >= TAIL_BYTES_MAX {
            // A backlog is freed piece by piece as it is sent, not when all of it has been.
            self.seal();
        }
        let before = self.tail.len();
        write(&mut self.tail);
        self.bytes += self.tail.len() - before;
    }

    /// Writes at most about `budget` bytes: one call if the socket takes them or says no.
    ///
    /// # Errors
    /// What the socket said, `WouldBlock` and `Interrupted` excepted. Nothing is lost by it.
    pub fn write_to(&mut self, sink: &mut impl Sink, budget: usize) -> io::Result<Flush> {
        let mut written = 0;
        while !self.is_empty() {
            if written >= budget {
                return Ok(Flush::Budget);
            }
            let (offered, result) = self.write_once(sink);
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => {
                    self.advance(taken);
                    written += taken;
                    // A short write means that the buffer is full: asking again would only say so.
                    if taken < offered || sink.held_bytes() > 0 {
                        return Ok(Flush::Blocked);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Flush::Blocked);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Flush::Drained)
    }

    /// Drops all but the rest of the frame that is partly written. `frame_bytes` tells the length
    /// of the frame at the beginning of what it is shown.
    ///
    /// False: what comes first is no frame, so no frame can follow what is written already.
    #[must_use]
    pub fn cut(&mut self, frame_bytes: impl Fn(&[u8]) -> Option<usize>) -> bool {
        self.seal();
        let first = self.chunks.pop_front().map(|it| it.bytes);
        let first = first.unwrap_or(Piece::Shared(Bytes::new()));
        self.chunks.clear();
        self.messages = 0;
        let mut end = 0usize;
        let mut is_frame = first.is_empty() || frame_bytes(&first).is_some();
        while is_frame && end < self.sent {
            match first.get(end..).and_then(&frame_bytes) {
                // Were it no frame after all, its length could be anything.
                Some(length @ 1..) => end = end.saturating_add(length),
                _ => is_frame = false,
            }
        }
        if !is_frame {
            self.clear();
            return false;
        }
        let end = end.min(first.len());
        self.bytes = end.saturating_sub(self.sent);
        match self.bytes {
            0 => self.sent = 0,
            _ => self.chunks.push_back(Chunk { bytes: first.upto(end), messages: 0 }),
        }
        true
    }

    /// Forgets everything, and gives back memory that only a rare burst needed.
    pub fn clear(&mut self) {
        if !self.chunks.is_empty() || self.chunks.capacity() > 2 * PIECES_MAX {
            self.clear_chunks();
        }
        self.tail.clear();
        self.tail.shrink_to(TAIL_KEPT_MAX);
        self.sent = 0;
        self.bytes = 0;
        self.messages = 0;
        self.tail_messages = 0;
        self.is_told = false;
        self.is_counted = false;
    }

    #[cold] // all of them are written, as a rule, and were not many
    fn clear_chunks(&mut self) {
        self.chunks.clear();
        self.chunks.shrink_to(2 * PIECES_MAX);
    }

    /// Gives back what memory not every outbox may keep.
    pub(crate) fn shrink(&mut self) {
        self.tail.shrink_to(TAIL_BYTES_MAX / 2);
    }

    /// Memory that is free to be used again.
    pub(crate) fn take_emptied(&mut self) -> Option<Arc<Vec<u8>>> {
        self.emptied.take()
    }

    /// Turns the tail into a chunk, so that what comes next begins one of its own.
    pub(crate) fn seal(&mut self) {
        if !self.tail.is_empty() {
            let messages = std::mem::take(&mut self.tail_messages);
            let mut bytes = std::mem::take(&mut self.tail);
            if bytes.capacity() - bytes.len() > WASTE_BYTES_MAX {
                // It may wait for long, and only its length is counted.
                bytes.shrink_to_fit();
            }
            self.chunks.push_back(Chunk { bytes: Piece::Shared(bytes.into()), messages });
        }
    }

    fn write_once(&self, sink: &mut impl Write) -> (usize, io::Result<usize>) {
        let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
        let mut count = 0;
        let mut offered = 0;
        let mut skip = self.sent;
        let tail = Some(self.tail.as_slice()).filter(|tail| !tail.is_empty());
        for (piece, bytes) in
            pieces.iter_mut().zip(self.chunks.iter().map(|chunk| &*chunk.bytes).chain(tail))
        {
            let rest = bytes.get(skip..).unwrap_or_default();
            skip = 0;
            *piece = IoSlice::new(rest);
            offered += rest.len();
            count += 1;
        }
        let result = match pieces.get(..count) {
            Some([one]) => sink.write(one),
            Some(several) => sink.write_vectored(several),
            None => Ok(0),
        };
        (offered, result)
    }

    fn advance(&mut self, taken: usize) {
        self.bytes -= taken;
        self.sent += taken;
        while let Some(first) = self.chunks.front() {
            if self.sent < first.bytes.len() {
                return;
            }
            self.sent -= first.bytes.len();
            self.messages -= first.messages;
            if let Some(Piece::Long(frame)) = self.chunks.pop_front().map(|it| it.bytes) {
                self.emptied = Some(frame);
            }
        }
        if self.sent == self.tail.len() {
            self.tail.clear();
            self.sent = 0;
            self.messages -= std::mem::take(&mut self.tail_messages);
        } else if self.sent > 0 {
            // Else a socket that is never quite done would have the tail grow for ever.
            self.seal();
        }
    }
}

#[cfg(test)]
mod tests;
