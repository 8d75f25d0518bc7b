//! What one connection is in the middle of, and what follows from that alone.
//!
//! The stages and the ways between them are drawn in `connection.rs`, which goes those ways.

use crate::event_stream::EventStream;
use crate::folder::DiskFile;
use crate::head::Head;
use crate::http::Request;
use crate::limits::Limits;
use crate::live::Live;
use crate::long_poll::LongPoll;
use crate::partial::Partial;
use crate::tick::Tick;

/// See the head of this file.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Between requests, or inside a head.
    Head(Option<Box<Head>>),
    /// Inside a content.
    Content(Box<Request>),
    /// A request is with the loop, which will answer.
    Deciding,
    /// An answer is held back until there is something, or until the wait is over.
    LongPoll(LongPoll),
    /// A file is on its way.
    File(Box<DiskFile>),
    /// An answer that never ends.
    EventStream(EventStream),
    WebSocket(Live),
    /// Everything is said; what is queued leaves, then the peer's bytes are read away so that its
    /// kernel does not throw our last words out (RFC 9112 §9.6).
    Leaving,
    Done,
}

impl Stage {
    /// When it has something to do of its own.
    pub(crate) fn deadline(&self) -> Tick {
        match self {
            Stage::WebSocket(live) => live.deadline(),
            Stage::EventStream(stream) => stream.deadline(),
            _ => Tick::NEVER,
        }
    }

    /// How many bytes to read at most: outside a content or a WebSocket no more than a head, so
    /// that what stands behind a request that waits is never more than that.
    pub(crate) fn input_bytes_max(&self, limits: &Limits) -> usize {
        let most = match self {
            Stage::Head(Some(partial)) => limits.head_bytes - partial.bytes(),
            Stage::Content(request) => request.content_length - request.content.len(),
            Stage::WebSocket(_) | Stage::Leaving => limits.turn_read,
            _ => limits.head_bytes,
        };
        most.clamp(1, limits.turn_read)
    }

    /// What of a WebSocket has begun and is not whole.
    pub(crate) fn begun(&mut self) -> Option<&mut Partial> {
        match self {
            Stage::WebSocket(live) => live.begun(),
            _ => None,
        }
    }

    /// Whether it is between two requests.
    pub(crate) fn is_resting(&self) -> bool {
        matches!(self, Stage::Head(_))
    }

    /// Bytes of memory that it takes beside its own place.
    pub(crate) fn held_bytes(&self) -> usize {
        match self {
            Stage::Head(Some(partial)) => partial.held_bytes(),
            Stage::Content(request) => request.held_bytes(),
            Stage::File(file) => size_of_val(&**file),
            Stage::WebSocket(live) => live.held_bytes(),
            _ => 0,
        }
    }

    /// Whether bytes of the peer have to wait, until an answer is through or for ever.
    pub(crate) fn keeps_input(&self) -> bool {
        matches!(
            self,
            Stage::Head(_)
                | Stage::Deciding
                | Stage::LongPoll(_)
                | Stage::File(_)
                | Stage::EventStream(_)
                | Stage::WebSocket(_)
        )
    }

    /// Whether it is a WebSocket on which both sides may still speak.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Stage::WebSocket(live) if live.is_open())
    }

    /// Whether it is a long poll or an event stream: should the peer's bytes end, nobody waits for
    /// it any more.
    pub(crate) fn reads_over_http(&self) -> bool {
        matches!(self, Stage::LongPoll(_) | Stage::EventStream(_))
    }
}
