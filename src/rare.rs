//! What few connections have, or not for long: bytes that are kept unread, and an ending.
//!
//! It is a word to those who have neither, and a box to those who had: whoever needed it once
//! needs it again, and at last everyone has an ending.

use tungstenite::protocol::frame::coding::CloseCode;

use crate::event::Ending;
use crate::limits::TAKE_BYTES;
use crate::metrics::Reason;

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Rare(Option<Box<Parts>>);

#[derive(Debug, Default)]
struct Parts {
    kept: Option<Box<[u8]>>,
    /// Of what was read last something had to be kept.
    had_rest: bool,
    ending: Option<Ending>,
}

impl Rare {
    fn parts(&mut self) -> &mut Parts {
        self.0.get_or_insert_default()
    }

    /// Bytes behind a request that is not answered yet, or behind this turn's last message.
    pub(crate) fn kept(&self) -> Option<&[u8]> {
        self.0.as_ref()?.kept.as_deref()
    }

    pub(crate) fn keep(&mut self, bytes: &[u8]) {
        let parts = self.parts();
        parts.kept = Some(bytes.into());
        parts.had_rest = true;
    }

    /// How many bytes to read next, at most `most`. Where a turn is too short for what was read,
    /// the rest is copied in each: whoever sends so many small messages is read less at once.
    pub(crate) fn read_bytes_max(&mut self, most: usize) -> usize {
        let had_rest = self.0.as_mut().is_some_and(|it| std::mem::take(&mut it.had_rest));
        if had_rest { most.min(TAKE_BYTES) } else { most }
    }

    /// Bytes of memory that it takes beside its own place.
    pub(crate) fn held_bytes(&self) -> usize {
        let Some(parts) = &self.0 else { return 0 };
        let ending = parts.ending.as_ref().map_or(0, |ending| ending.reason.capacity());
        size_of::<Parts>() + parts.kept.as_ref().map_or(0, |kept| kept.len()) + ending
    }

    pub(crate) fn take_kept(&mut self) -> Option<Box<[u8]>> {
        self.0.as_mut()?.kept.take()
    }

    /// How it ended or is ending, if anything is known of it.
    pub(crate) fn ending(&self) -> Option<&Ending> {
        self.0.as_ref()?.ending.as_ref()
    }

    /// Notes how it ended; what is known first is true.
    pub(crate) fn ending_is(&mut self, code: CloseCode, reason: &str, why: Reason) {
        let ending = || Ending { code, reason: reason.to_owned(), why };
        self.parts().ending.get_or_insert_with(ending);
    }
}
