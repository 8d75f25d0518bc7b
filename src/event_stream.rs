//! The event stream: one answer that never ends (HTML standard §9.2, "server-sent events").
//!
//! ```text
//! retry: 2034⏎ ⏎                                  how long to wait before coming back
//! id: 7-1⏎ data: {"id":"7-1",…}⏎ ⏎                an entry (`forms.rs` writes it)
//! event: gap⏎ data: {"topic":…,"after":…,"oldest":…}⏎ ⏎
//! id: 7-9⏎ ⏎                                      the place: sets the last event ID, tells nothing
//! ```
//!
//! The place is told to a reader who has been given everything, at once and then in every ping
//! interval: so one who has heard nothing yet can resume, a quiet room does not turn into a gap,
//! and a dead connection is noticed at either end. It ends only by closing: no chunked coding.

use std::time::Duration;

use crate::cursor::Cursor;
use crate::forms::{Gap, put_id};
use crate::id::ConnId;
use crate::log::Log;
use crate::metrics::Held;
use crate::outbox::Outbox;
use crate::outgoing::Outgoing;
use crate::response::Response;
use crate::tick::Tick;
use crate::topic::Form;
use crate::turn::Turn;

/// How long a client waits before it comes back, spread by ±20 %.
const RETRY: Duration = Duration::from_secs(2);

/// The reader of an event stream.
#[derive(Debug)]
pub(crate) struct EventStream {
    form: Form,
    /// When the place is to be told again.
    beat: Tick,
    /// It is to be told now, unless something else is.
    owes_place: bool,
}

/// The answer, but for the stream.
pub(crate) fn response() -> Response {
    Response::new(200)
        .with("Content-Type", "text/event-stream")
        .with("Cache-Control", "no-store")
        .with("X-Accel-Buffering", "no")
}

/// Appends the event of a gap. It has no id: the place is that of the entry after it.
fn put_gap(outbox: &mut Outbox, gap: &Gap) {
    outbox.write_with(|out| {
        out.extend_from_slice(b"event: gap\ndata: ");
        gap.put(out);
        out.extend_from_slice(b"\n\n");
    });
}

impl EventStream {
    /// A stream that begins, in JSON or in bare text.
    pub(crate) fn begin(
        id: ConnId,
        is_text: bool,
        gaps: &[Gap],
        outbox: &mut Outbox,
        turn: &mut Turn,
    ) -> Self {
        let retry = turn.scattered(RETRY, id).as_millis();
        outbox.extend(format!("retry: {retry}\n\n").as_bytes());
        gaps.iter().for_each(|gap| put_gap(outbox, gap));
        turn.counters.gaps += gaps.len() as u64;
        Self {
            form: if is_text { Form::EventText } else { Form::Event },
            beat: turn.now.after(turn.scattered(turn.limits.ping, id)),
            owes_place: true,
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(crate) fn deadline(&self) -> Tick {
        self.beat
    }

    /// The place is to be told again.
    pub(crate) fn handle_timeout(&mut self, id: ConnId, turn: &mut Turn) {
        if self.beat <= turn.now {
            self.owes_place = true;
            turn.counters.count_held(Held::Ping, true);
            self.beat = turn.now.after(turn.scattered(turn.limits.ping, id));
        }
    }

    /// Takes what is due from the log. True: there is more once that has been written.
    pub(crate) fn fill(
        &mut self,
        id: ConnId,
        cursor: &mut Cursor,
        out: &mut Outgoing,
        log: &Log,
        turn: &mut Turn,
    ) -> bool {
        if cursor.is_behind(log) {
            if out.has_enough() {
                return true;
            }
            let before = turn.counters.delivered;
            while let Some(gap) = cursor.pass_gap(log) {
                put_gap(out.outbox(turn), &gap);
                turn.counters.gaps += 1;
                self.owes_place = true;
            }
            let outbox = out.outbox(turn);
            let more = cursor.take(id, (self.form, u64::MAX), log, outbox, turn);
            // An entry says where we are as well as a heartbeat does.
            self.owes_place &= turn.counters.delivered == before;
            if more {
                return true;
            }
        }
        if self.owes_place {
            self.owes_place = false;
            out.outbox(turn).write_with(|out| {
                out.extend_from_slice(b"id: ");
                put_id(out, log.newest());
                out.extend_from_slice(b"\n\n");
            });
        }
        false
    }
}
