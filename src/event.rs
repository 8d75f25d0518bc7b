//! What a connection tells the loop, and how a connection ended.

use std::borrow::Cow;
use std::fmt;

use tungstenite::protocol::frame::coding::CloseCode;

use crate::frame::Fault;
use crate::http::{Peer, Request};
use crate::id::ConnId;
use crate::metrics::Reason;
use crate::session::Command;

/// What came of the bytes that a connection was given. Messages may borrow from them.
#[derive(Debug)]
pub enum Event<'s> {
    /// A request. If [`Request::is_whole`] is false only its head is there: it is to be refused by
    /// that, or its content is to be read. Until then the connection takes nothing more.
    Request(Box<Request>),
    /// A text message.
    Text(Cow<'s, str>),
    /// A long message, text or binary, which [`Turn::at_hand`](crate::turn::Turn::at_hand) has:
    /// what is handed on for every message has to be small and simple to drop.
    Long,
    /// A binary message.
    Binary(Cow<'s, [u8]>),
    /// A command of pousse.v1.
    Command(Box<Command>),
    /// The peer broke the protocol or a limit. The connection is closing, no event follows.
    Fault(Fault),
}

/// How a connection ended, or is ending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The close code; 1006 if there was no closing handshake, 1005 if it named none.
    pub code: CloseCode,
    /// The close reason, of whoever began to close.
    pub reason: String,
    /// The word for counters and log.
    pub why: Reason,
}

impl Ending {
    /// Says that the peer took no part in it in time. That it ended has a line of its own.
    pub(crate) fn tell_late(&self, id: ConnId, peer: Peer, transport: Transport) {
        let is_new = transport != Transport::Http || self.why.is_of_peer();
        let level = if is_new { log::Level::Info } else { log::Level::Debug };
        let (began, reason) = (self.why, Reason::CloseTimeout);
        log::log!(level, "event=refused client={id} peer={peer} began={began} reason={reason}");
    }
}

/// How a client is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// Requests and answers; a poll.
    #[default]
    Http,
    /// A request whose answer is held back.
    LongPoll,
    /// An answer that never ends.
    EventStream,
    /// A WebSocket.
    WebSocket,
}

impl Transport {
    /// Every one of them.
    pub const ALL: &[Transport] = &[Self::Http, Self::LongPoll, Self::EventStream, Self::WebSocket];

    /// The word for it in metrics and log lines.
    pub const fn word(self) -> &'static str {
        match self {
            Transport::Http => "http",
            Transport::LongPoll => "long-poll",
            Transport::EventStream => "event-stream",
            Transport::WebSocket => "websocket",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
