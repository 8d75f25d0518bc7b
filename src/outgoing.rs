//! The outgoing side of one connection: an outbox while bytes wait, and how long they have waited.
//!
//! What TLS has taken and its socket has not counts as waiting, and goes before the outbox.

use std::io;

use crate::folder::DiskFile;
use crate::limits::{Limits, TAKE_BYTES};
use crate::metrics::Held;
use crate::outbox::{Flush, Outbox, Sink};
use crate::tick::Tick;
use crate::turn::Turn;

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Outgoing {
    outbox: Option<Box<Outbox>>,
    /// When bytes will have waited too long for a socket that takes none.
    stall: Tick,
    /// Bytes that the sink holds, as of the last write.
    held: u32,
}

impl Default for Outgoing {
    fn default() -> Self {
        Self { outbox: None, stall: Tick::NEVER, held: 0 }
    }
}

impl Outgoing {
    /// Where to put what is to leave. It is lent here, and goes back when nothing waits.
    pub(crate) fn outbox(&mut self, turn: &mut Turn) -> &mut Outbox {
        self.outbox.get_or_insert_with(|| turn.lend())
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.outbox_bytes() + self.held as usize
    }

    /// Bytes of memory that they take. An outbox with nothing in it, or whose socket has not been
    /// asked yet, was just lent and is the loop's own: only what is in it counts.
    pub(crate) fn held_bytes(&self) -> usize {
        let blocked = self.outbox.as_ref().filter(|it| self.is_blocked() && !it.is_empty());
        let outbox = blocked.map_or(self.outbox_bytes(), |outbox| outbox.held_bytes());
        outbox + self.held as usize
    }

    /// Messages for this client alone that wait.
    pub(crate) fn messages(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.messages())
    }

    /// Whether so much waits that nothing more is taken from the peer.
    pub(crate) fn is_full(&self, limits: &Limits) -> bool {
        // As `outbox-soft` is a quarter of `outbox`.
        self.bytes() >= limits.outbox_soft || self.messages() > limits.outbox_messages / 4
    }

    /// Counts that its peer is not read, if that is for what waits.
    pub(crate) fn count_full(&mut self, turn: &mut Turn) {
        if self.is_full(&turn.limits) {
            let is_first = self.outbox(turn).is_to_be_counted();
            turn.counters.count_held(Held::OutboxSoft, is_first);
        }
    }

    fn outbox_bytes(&self) -> usize {
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

    /// Writes what waits, within the budget of a turn. The sink is asked even if the outbox is
    /// empty: a handshake or an alert of TLS may wait there.
    ///
    /// # Errors
    /// What the socket said.
    pub(crate) fn write_to(&mut self, sink: &mut impl Sink, turn: &mut Turn) -> io::Result<Flush> {
        let (before, held_before) = (self.outbox_bytes(), sink.held_bytes());
        let result = match &mut self.outbox {
            Some(outbox) if !outbox.is_empty() => outbox.write_to(sink, turn.limits.turn_write),
            // One may have been lent, and nothing put into it.
            _ if held_before > 0 => sink.flush().map(|()| Flush::Drained),
            _ => Ok(Flush::Drained),
        };
        let written = before - self.outbox_bytes();
        turn.counters.written_bytes += written as u64;
        if let Some(emptied) = self.outbox.as_mut().and_then(|outbox| outbox.take_emptied()) {
            turn.take_memory(emptied);
        }
        let held = sink.held_bytes();
        self.held = u32::try_from(held).unwrap_or(u32::MAX);
        if let Some(outbox) = self.outbox.take_if(|outbox| outbox.is_empty()) {
            turn.take_back(outbox);
        }
        if self.bytes() == 0 {
            self.stall = Tick::NEVER;
        } else if written > 0 || held < held_before || !self.is_blocked() {
            // Judged by progress: a slow reader may take its time as long as it takes something.
            self.stall = turn.now.after(turn.limits.stall);
        }
        match result? {
            Flush::Drained if held == 0 => Ok(Flush::Drained),
            Flush::Drained | Flush::Blocked => {
                turn.counters.count_held(Held::Unsent, true);
                Ok(Flush::Blocked)
            }
            Flush::Budget => Ok(Flush::Budget),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::config::Config;

    /// Holds bytes until it is flushed.
    struct Holding(usize);

    impl Write for Holding {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0 = 0;
            Ok(())
        }
    }

    impl Sink for Holding {
        fn held_bytes(&self) -> usize {
            self.0
        }
    }

    #[test]
    fn what_the_sink_holds_leaves_although_an_outbox_was_lent_for_nothing() {
        let mut turn = Turn::new(&Config::default());
        let (mut out, mut sink) = (Outgoing::default(), Holding(7));
        out.outbox(&mut turn);
        assert_eq!(out.write_to(&mut sink, &mut turn).unwrap(), Flush::Drained);
        assert_eq!((sink.0, out.bytes(), out.is_blocked()), (0, 0, false));
    }
}
