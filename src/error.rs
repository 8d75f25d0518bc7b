//! What can go wrong: at the start ([`Error`]), for one call ([`SendError`], [`PublishError`],
//! [`RemoteError`]).
//!
//! A peer's fault is none of these on its way out of the loop: it becomes a status or a close code,
//! a log line, a counter and the end of that one connection. Handlers are shown it as an [`Error`].

use std::path::PathBuf;
use std::{fmt, io};

use tungstenite::protocol::frame::coding::CloseCode;

/// Why a server did not start or cannot go on, or what a handler is told by `on_error`.
///
/// Its `Debug` is its `Display`, so `fn main() -> Result<(), pousse::Error>` ends in a sentence.
#[non_exhaustive]
pub enum Error {
    /// An address that cannot be listened on.
    Bind {
        /// The address as it was given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// A setting that cannot hold. The text says what to change.
    Config(String),
    /// The folder of `Config::root` cannot be opened.
    Root {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate or its key cannot be used. The text says which, and what is wanted.
    Tls(String),
    /// The system's readiness queue failed: nothing can be served any more.
    Poll(io::Error),
    /// This process is a fork of the one that made the server, and has the same sockets: two loops
    /// would take each other's bytes. The server goes on in the other. Whoever forks in a handler
    /// has it within a tick, not at once.
    Forked,
    /// A handler panicked. Its connection is closed with 1011, the server goes on.
    Panicked(String),
    /// The peer broke the protocol or a limit. Its connection is closing with this code.
    Peer {
        /// The close code that the peer is sent.
        code: CloseCode,
        /// What it did.
        reason: &'static str,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Bind { address, source } => match source.kind() {
                io::ErrorKind::AddrInUse => write!(
                    f,
                    "cannot listen on {address}: something listens there already; stop it \
                     or choose another address"
                ),
                io::ErrorKind::PermissionDenied => write!(
                    f,
                    "cannot listen on {address}: not permitted ({source}); ports below 1024 \
                     need a privilege"
                ),
                _ => write!(f, "cannot listen on {address}: {source}"),
            },
            Error::Config(what) | Error::Tls(what) => f.write_str(what),
            Error::Root { path, source } => {
                write!(f, "cannot serve files from {}: {source}", path.display())
            }
            Error::Poll(source) => write!(f, "the readiness queue failed: {source}"),
            Error::Forked => f.write_str(
                "this process is a fork of the one that made the server: it cannot serve too",
            ),
            Error::Panicked(what) => write!(f, "a handler panicked: {what}"),
            Error::Peer { code, reason } => write!(f, "{reason} (close code {code})"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Bind { source, .. } | Error::Root { source, .. } | Error::Poll(source) => {
                Some(source)
            }
            _ => None,
        }
    }
}

/// Gives a small error enum its sentences.
macro_rules! sentences {
    ($name:ident { $($case:ident => $text:literal,)+ }) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($name::$case => $text,)+ })
            }
        }
        impl std::error::Error for $name {}
    };
}

/// Why a message was not taken for one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The client has left, is leaving, or reads no WebSocket.
    Gone,
    /// `outbox` bytes, or `outbox_messages` messages, already wait for this client; nothing of the
    /// message was taken.
    Full,
}

sentences!(SendError {
    Gone => "the client is gone",
    Full => "too much already waits for this client",
});

/// Why a message was not published. Nothing of it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// A topic is 1 to 128 bytes of UTF-8 without control characters.
    BadTopic,
    /// The message is over `max_message`.
    TooLong,
    /// There are `max_topics` topics and each of them is being read.
    TopicsFull,
    /// Readers have not yet been offered what is already published; try again in a moment.
    Busy,
    /// The key was used in this topic for a message of other content.
    KeyReused,
}

sentences!(PublishError {
    BadTopic => "a topic is 1 to 128 bytes of UTF-8 without control characters",
    TooLong => "the message is over the limit max-message",
    TopicsFull => "no further topic fits: the limit max-topics is reached and all are being read",
    Busy => "readers have not yet been offered what is already published; try again in a moment",
    KeyReused => "this key was used in this topic for another content; give each message its own",
});

/// Why a client was not made a reader of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeError {
    /// The client has left or is leaving.
    Gone,
    /// A topic is 1 to 128 bytes of UTF-8 without control characters.
    BadTopic,
    /// There are `max_topics` topics and each of them is being read.
    TopicsFull,
    /// The client reads `subscriptions` topics already.
    TooMany,
}

sentences!(SubscribeError {
    Gone => "the client is gone",
    BadTopic => "a topic is 1 to 128 bytes of UTF-8 without control characters",
    TopicsFull => "no further topic fits: the limit max-topics is reached and all are being read",
    TooMany => "the client reads as many topics as the limit subscriptions allows",
});

/// Why a command from another thread was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteError {
    /// The queue to the loop is full. Nothing waits: try again, or let it go.
    Full,
    /// The server has ended.
    Stopped,
}

sentences!(RemoteError {
    Full => "the queue to the server is full",
    Stopped => "the server has ended",
});
