//! A long message, in memory of its own: read to where it stays, and sent on from there.
//!
//! ```text
//!  ┌ header ┬ payload ────────────────────┬ read, not looked at ┬ room ─────┐
//!  10 bytes                               └ filled              └ + fresh   └ memory.len()
//! ```
//!
//! The room at the front is for the header of a frame of ours. So once a message is whole its
//! memory is the frame in which it leaves, should the handler send it on: handed over, and copied
//! nowhere. What came of the frames around it is `partial.rs`' business.
//!
//! Invariant: the memory was another message's before. What is behind `filled` is shown to nobody,
//! and is cut off before the message is.

use std::sync::Arc;

use crate::frame::{Fault, NOT_UTF8, open_bytes, text, unmask};
use crate::message::{FRAME_HEAD_MAX, Kind, Message, put_frame_head};
use crate::spare::Spare;

/// From here on a message is a long one: its length takes eight bytes, so it is known beforehand
/// how long our header will be.
pub(crate) const LONG_BYTES: usize = 65_536;

/// Space taken at once for a payload that is promised; more is taken as bytes arrive.
const RESERVE_BYTES_MAX: usize = 16 * 1024;

/// A long message that is not whole yet.
#[derive(Debug)]
pub(crate) struct Growing {
    memory: Arc<Vec<u8>>,
    filled: usize,
    /// Bytes behind these that were read and not looked at.
    fresh: usize,
    /// How far it is known to be UTF-8, if that is asked.
    checked: usize,
}

impl Growing {
    /// Nothing yet, in this memory.
    pub(crate) fn new(memory: Arc<Vec<u8>>) -> Self {
        Self { memory, filled: FRAME_HEAD_MAX, fresh: 0, checked: FRAME_HEAD_MAX }
    }

    /// Bytes of the message that have arrived.
    pub(crate) fn bytes(&self) -> usize {
        self.filled - FRAME_HEAD_MAX
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.memory.capacity()
    }

    /// Bytes that were read here and not looked at.
    pub(crate) fn fresh_bytes(&self) -> usize {
        self.fresh
    }

    /// Where to read what comes next, of a frame that brings so many bytes more. What it promises
    /// takes no memory but that which is there for long messages (`spare.rs`); where more is needed
    /// it is as much again as has come.
    pub(crate) fn room(&mut self, promised: usize) -> &mut [u8] {
        let there = self.memory.len().saturating_sub(self.filled);
        self.make_room(promised.min(there.max(self.filled)), promised)
    }

    /// So many bytes were read to [`room`](Self::room).
    pub(crate) fn took(&mut self, count: usize) {
        self.fresh = count;
    }

    /// Bytes that were read elsewhere, of a frame that brings so many.
    pub(crate) fn copy(&mut self, bytes: &[u8], promised: usize) {
        self.make_room(bytes.len(), promised).copy_from_slice(bytes);
        self.fresh = bytes.len();
    }

    /// Unmasks what was read, and checks it if it is text, so that bad text is refused where it
    /// stands and not at its end.
    pub(crate) fn look(&mut self, mask: u32, offset: usize, is_text: bool) -> Result<(), Fault> {
        let memory = Arc::make_mut(&mut self.memory);
        let end = self.filled + std::mem::take(&mut self.fresh);
        unmask(memory.get_mut(self.filled..end).unwrap_or_default(), mask, offset);
        self.filled = end;
        if is_text {
            let fresh = memory.get(self.checked..end).unwrap_or_default();
            let (whole, open) = fresh.split_at(fresh.len() - open_bytes(fresh));
            text(whole)?;
            // With a length the error is no end in mid-character.
            if str::from_utf8(open).is_err_and(|error| error.error_len().is_some()) {
                return Err(NOT_UTF8);
            }
            self.checked += whole.len();
        }
        Ok(())
    }

    /// The message, which is whole, as a frame.
    ///
    /// # Errors
    /// [`Fault`]: it is a text that ends inside a character.
    pub(crate) fn end(mut self, kind: Kind) -> Result<Arc<Vec<u8>>, Fault> {
        let memory = Arc::make_mut(&mut self.memory);
        memory.truncate(self.filled);
        if kind == Kind::Text {
            text(memory.get(self.checked..).unwrap_or_default())?;
        }
        let (mut head, payload_bytes) = (memory.as_mut_slice(), self.filled - FRAME_HEAD_MAX);
        put_frame_head(&mut head, kind.into(), payload_bytes);
        Ok(self.memory)
    }

    /// Room for so many bytes, of a frame that brings so many.
    fn make_room(&mut self, bytes: usize, promised: usize) -> &mut [u8] {
        // Nobody has a part in it before it is whole.
        let memory = Arc::make_mut(&mut self.memory);
        let end = self.filled + bytes;
        if memory.capacity() < end {
            let until = self.filled + promised.min(bytes.max(self.filled).max(RESERVE_BYTES_MAX));
            memory.reserve_exact(until - memory.len());
        }
        if memory.len() < end {
            // Not all of it: what is not written to, the system need not have.
            memory.resize(end, 0);
        }
        memory.get_mut(self.filled..end).unwrap_or_default()
    }
}

/// A long message, whole, as the frame that carries it to whoever it is sent on to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Long {
    kind: Kind,
    frame: Arc<Vec<u8>>,
}

impl Long {
    /// The message that the last [`Incoming::Long`](crate::partial::Incoming::Long) told of.
    pub fn taken(kind: Kind, spare: &mut Spare) -> Self {
        Self { kind, frame: spare.take_whole().unwrap_or_default() }
    }

    /// The message, which was checked as it came.
    pub fn message(&self) -> Message<'_> {
        match (self.kind, text(self.payload())) {
            (Kind::Text, Ok(text)) => Message::Text(text),
            _ => Message::Binary(self.payload()),
        }
    }

    /// The frame, if it is this message that is to be sent: not one like it, but the same memory.
    pub(crate) fn frame_of(&self, kind: Kind, payload: &[u8]) -> Option<Arc<Vec<u8>>> {
        (self.kind == kind && std::ptr::eq(self.payload(), payload)).then(|| self.frame.clone())
    }

    /// Its memory.
    pub(crate) fn into_memory(self) -> Arc<Vec<u8>> {
        self.frame
    }

    fn payload(&self) -> &[u8] {
        self.frame.get(FRAME_HEAD_MAX..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: u32 = 0x3d21_fa37;

    fn masked(bytes: &[u8], offset: usize) -> Vec<u8> {
        let mut masked = bytes.to_vec();
        unmask(&mut masked, MASK, offset);
        masked
    }

    /// What comes of it when pieces of this size are read straight, or are copied.
    fn grown(kind: Kind, payload: &[u8], size: usize, is_straight: bool) -> Result<Long, Fault> {
        // Another's message is in it.
        let mut growing = Growing::new(Arc::new(vec![b'x'; payload.len() + 1000]));
        let mut done = 0;
        while done < payload.len() {
            let promised = payload.len() - done;
            let piece = masked(&payload[done..done + promised.min(size)], done);
            let count = match is_straight {
                true => {
                    let room = growing.room(promised);
                    let count = room.len().min(piece.len());
                    room[..count].copy_from_slice(&piece[..count]);
                    growing.took(count);
                    count
                }
                false => {
                    growing.copy(&piece, promised);
                    piece.len()
                }
            };
            growing.look(MASK, done, kind == Kind::Text)?;
            done += count;
            assert_eq!(growing.bytes(), done);
        }
        growing.end(kind).map(|frame| Long { kind, frame })
    }

    #[test]
    fn it_is_the_frame_it_leaves_in_however_its_bytes_came() {
        let text = "aé€𐍈".repeat(10_000);
        for (kind, payload) in [(Kind::Text, text.as_bytes()), (Kind::Binary, &[0xff; 70_001])] {
            let frame = crate::message::frame(Message::of(kind, payload)).0;
            for size in [1000, 1001, 40_003, usize::MAX] {
                for is_straight in [true, false] {
                    let long = grown(kind, payload, size, is_straight).unwrap();
                    assert_eq!(long.message(), Message::of(kind, payload));
                    assert_eq!(long.into_memory()[..], frame[..], "{size}, {is_straight}");
                }
            }
        }
    }

    #[test]
    fn text_that_is_none_is_refused_where_it_stands_and_where_it_ends() {
        let mut text = vec![b'a'; 70_000];
        text[30_000] = 0xff;
        let mut growing = Growing::new(Arc::default());
        growing.copy(&masked(&text[..30_000], 0), 70_000);
        growing.look(MASK, 0, true).unwrap();
        growing.copy(&masked(&text[30_000..30_001], 30_000), 40_000);
        assert!(growing.look(MASK, 30_000, true).is_err());
        text[30_000] = b'a';
        text[69_999] = 0xc3;
        assert!(grown(Kind::Text, &text, 1000, true).is_err());
        assert!(grown(Kind::Binary, &text, 1000, true).is_ok());
    }

    #[test]
    fn a_promise_takes_little_memory_and_what_comes_at_most_as_much_again() {
        let mut growing = Growing::new(Arc::default());
        assert_eq!(growing.room(1 << 30).len(), FRAME_HEAD_MAX, "as if that had come");
        assert!(growing.held_bytes() <= FRAME_HEAD_MAX + RESERVE_BYTES_MAX);
        let mut promised = 1 << 20;
        while promised > 0 {
            let count = growing.room(promised).len();
            assert!(growing.held_bytes() <= 2 * growing.bytes() + 2 * RESERVE_BYTES_MAX);
            growing.took(count);
            growing.look(MASK, 0, false).unwrap();
            promised -= count;
        }
        assert_eq!(growing.held_bytes(), FRAME_HEAD_MAX + (1 << 20), "and no more than it needs");
    }

    #[test]
    fn only_the_message_itself_is_handed_over() {
        let long = grown(Kind::Text, &[b'a'; 70_000], 1000, true).unwrap();
        let Message::Text(text) = long.message() else { panic!("{long:?}") };
        assert!(long.frame_of(Kind::Text, text.as_bytes()).is_some());
        assert!(long.frame_of(Kind::Binary, text.as_bytes()).is_none(), "another header");
        assert!(long.frame_of(Kind::Text, &text.as_bytes()[1..]).is_none(), "a part of it");
        assert!(long.frame_of(Kind::Text, &[b'a'; 70_000]).is_none(), "one like it");
    }
}
