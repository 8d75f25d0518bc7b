//! The long poll: an answer that is held back until there is something to give (RFC 6202 §2), or
//! until the wait is over. Then it is the answer of a poll.

use crate::cursor::Cursor;
use crate::exchange::Exchange;
use crate::log::Log;
use crate::metrics::Way;
use crate::outgoing::Outgoing;
use crate::poll::Poll;
use crate::response::Response;
use crate::turn::Turn;

/// What a long poll is waiting with.
#[derive(Debug)]
pub(crate) struct LongPoll {
    pub(crate) limit: usize,
    /// The `wait` to be confirmed by `Preference-Applied`.
    pub(crate) preference: Option<u64>,
    /// The wait is over.
    pub(crate) is_due: bool,
}

impl LongPoll {
    /// The answer, but for its content.
    pub(crate) fn response(&self) -> Response {
        let response = Response::new(200).with("Cache-Control", "no-store");
        match self.preference {
            Some(wait) => response.with("Preference-Applied", format!("wait={wait}")),
            None => response,
        }
    }

    /// Answers if there is something to give: an entry, a gap, or the news that the wait is over.
    /// False: it waits on.
    pub(crate) fn fill(
        &self,
        cursor: &Cursor,
        exchange: &Exchange,
        out: &mut Outgoing,
        log: &Log,
        turn: &mut Turn,
    ) -> bool {
        let is_gap = cursor.gap(log).is_some();
        if !(self.is_due || is_gap || cursor.is_behind(log)) {
            return false;
        }
        turn.counters.gaps += u64::from(is_gap);
        let places: Vec<_> = cursor.places().collect();
        let (limit, way) = (self.limit, Way::LongPoll);
        let poll = Poll { places: &places, limit, is_gap, way };
        exchange.put_poll(&poll, self.response(), |_| false, log, out.outbox(turn), turn);
        true
    }
}
