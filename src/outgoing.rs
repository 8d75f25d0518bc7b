//! The outgoing side of one connection: an outbox while bytes wait, and how long they have waited.

use std::io::{self, Write};

use crate::config::TAKE_BYTES;
use crate::files::DiskFile;
use crate::outbox::{Flush, Outbox};
use crate::tick::Tick;
use crate::turn::Turn;

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Outgoing {
    outbox: Option<Box<Outbox>>,
    /// When bytes will have waited too long for a socket that takes none.
    stall: Tick,
}

impl Default for Outgoing {
    fn default() -> Self {
        Self { outbox: None, stall: Tick::NEVER }
    }
}

impl Outgoing {
    /// Where to put what is to leave. It is lent here, and goes back when nothing waits.
    pub(crate) fn outbox(&mut self, turn: &mut Turn) -> &mut Outbox {
        self.outbox.get_or_insert_with(|| turn.lend())
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.bytes())
    }

    /// Whether the socket has enough to take: what else there is can wait where it is.
    pub(crate) fn has_enough(&self) -> bool {
        self.bytes() >= TAKE_BYTES
    }

    /// Whether the socket did not take all that it was offered last.
    pub(crate) fn is_blocked(&self) -> bool {
        self.stall != Tick::NEVER
    }

    /// When the socket will have taken nothing for too long.
    pub(crate) fn deadline(&self) -> Tick {
        self.stall
    }

    /// The time is over and acted upon.
    pub(crate) fn forget_deadline(&mut self) {
        self.stall = Tick::NEVER;
    }

    /// Takes the next piece of a file, if little waits. True: there is more of it.
    ///
    /// # Errors
    /// The file could not be read, or ended before its length.
    pub(crate) fn take_from_file(
        &mut self,
        file: &mut DiskFile,
        turn: &mut Turn,
    ) -> io::Result<bool> {
        if self.has_enough() {
            return Ok(true);
        }
        let piece = file.next_piece(TAKE_BYTES)?;
        self.outbox(turn).push(piece);
        Ok(file.remaining() > 0)
    }

    /// Writes what waits, within the budget of a turn.
    ///
    /// # Errors
    /// What the socket said.
    pub(crate) fn write_to(&mut self, sink: &mut impl Write, turn: &mut Turn) -> io::Result<Flush> {
        let Some(mut outbox) = self.outbox.take() else {
            return Ok(Flush::Drained);
        };
        let before = outbox.bytes();
        let result = outbox.write_to(sink, turn.limits.turn_write);
        let written = before - outbox.bytes();
        turn.counters.written_bytes += written as u64;
        if outbox.is_empty() {
            turn.take_back(outbox);
            self.stall = Tick::NEVER;
        } else {
            self.outbox = Some(outbox);
            // Judged by progress: a slow reader may take its time as long as it takes something.
            if written > 0 || !self.is_blocked() {
                self.stall = turn.now.after(turn.limits.stall);
            }
        }
        result
    }
}
