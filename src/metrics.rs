//! The words of metrics: why something was refused or ended, which limit made somebody wait, how an
//! entry went. One word is the same in counters, log lines, and, for a limit, on the command line.
//!
//! How often each occurred is counted in `metrics/counters.rs`; the texts that say it to a client
//! are with what refuses.

use std::fmt;

pub use self::counters::{Counters, Histogram};

mod counters;

macro_rules! words {
    (
        $(#[$outer:meta])*
        $name:ident { $($(#[doc = $doc:literal])+ $case:ident => $word:literal,)+ }
    ) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name { $($(#[doc = $doc])+ $case,)+ }

        impl $name {
            /// Every one of them.
            pub const ALL: &[$name] = &[$($name::$case,)+];

            /// The word for it in counters, in log lines and, for a limit, on the command line.
            pub const fn word(self) -> &'static str {
                match self { $($name::$case => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words! {
    /// Why a request was refused or a connection ended.
    Reason {
        /// The closing handshake that the peer began, or a whole answer.
        Done => "done",
        /// The peer's bytes ended, or were reset, without a closing handshake.
        Gone => "gone",
        /// The handler closed it.
        Handler => "handler",
        /// It was closed over the control listener, or what was asked there cannot be done.
        Control => "control",
        /// A handler panicked on it.
        Panic => "panic",
        /// The server is ending.
        Drain => "drain",
        /// A request that is not HTTP/1.1.
        Syntax => "syntax",
        /// A method, path, version or field that cannot be served.
        Request => "request",
        /// `Origin` is neither the server's own nor listed.
        Origin => "origin",
        /// `Host` is not a name of this server.
        Host => "host",
        /// Publishing is not allowed.
        Publish => "publish",
        /// The handler's `authorize` says no.
        Authority => "authority",
        /// Bytes that are not RFC 6455.
        Protocol => "protocol",
        /// Text that is not UTF-8.
        Utf8 => "utf8",
        /// A compressed message that cannot be taken out.
        Deflate => "deflate",
        /// The reader's place is no longer held whole.
        Gap => "gap",
        /// The limit of that name.
        MaxMessage => "max-message",
        /// The limit of that name.
        MaxTopics => "max-topics",
        /// The limit of that name.
        HeadBytes => "head-bytes",
        /// The limit of that name.
        Headers => "headers",
        /// The limit of that name.
        TargetBytes => "target-bytes",
        /// The limit of that name.
        HeadTimeout => "head-timeout",
        /// The limit of that name.
        BodyTimeout => "body-timeout",
        /// The limit of that name.
        IdleTimeout => "idle-timeout",
        /// The limit of that name.
        Requests => "requests",
        /// The limit of that name.
        Subscriptions => "subscriptions",
        /// A command of pousse.v1 that cannot be carried out, or too many of them.
        WrongCommands => "wrong-commands",
        /// An idempotency key that was used for another content.
        Key => "key",
        /// The limit of that name.
        PongTimeout => "pong-timeout",
        /// The limit of that name.
        Fragments => "fragments",
        /// The limit of that name.
        MessageTimeout => "message-timeout",
        /// The limit of that name.
        Controls => "controls",
        /// The limit of that name.
        CloseTimeout => "close-timeout",
        /// The limit of that name.
        Outbox => "outbox",
        /// The limit of that name.
        OutboxMessages => "outbox-messages",
        /// The limit of that name.
        Stall => "stall",
        /// The limit of that name.
        AckTimeout => "ack-timeout",
        /// The limit of that name.
        Commands => "commands",
        /// The limit of that name.
        MaxClients => "max-clients",
        /// The address is of a network that is denied.
        Deny => "deny",
        /// The limit of that name.
        MaxPerIp => "max-per-ip",
        /// The limit of that name.
        MaxNewPerIp => "max-new-per-ip",
        /// The limit of that name.
        AuthFailures => "auth-failures",
        /// The limit of that name.
        Openings => "openings",
        /// The limit of that name.
        Memory => "memory",
        /// The system had no descriptor left for the client.
        Descriptors => "descriptors",
        /// The limit of that name.
        ControlClients => "control-clients",
        /// Bytes that are not TLS, or a handshake that cannot come about.
        Tls => "tls",
        /// A file that ended before its length, or that the server had no descriptor for.
        File => "file",
    }
}

impl Reason {
    /// Whether a connection that ends for it was made to end: by a limit, or by what it sent.
    pub(crate) fn is_of_peer(self) -> bool {
        !matches!(
            self,
            Self::Done
                | Self::Gone
                | Self::Handler
                | Self::Drain
                | Self::IdleTimeout
                | Self::Requests
                | Self::CloseTimeout
        )
    }
}

words! {
    /// A limit that ends nothing and refuses nothing: it makes somebody wait, shortens an answer,
    /// drops the oldest, or is the time for something.
    Held {
        /// The limit of that name: an entry was dropped, as its topic had more of them.
        History => "history",
        /// The limit of that name: an entry was dropped, as its topic had more bytes.
        HistoryBytes => "history-bytes",
        /// The limit of that name: an entry was dropped.
        HistoryAge => "history-age",
        /// The limit of that name: an entry was dropped.
        HistoryTotal => "history-total",
        /// The limit of that name: a client was not read, once until all that waits has left.
        OutboxSoft => "outbox-soft",
        /// The limit of that name, or the system's own: it took no more for a client for now.
        Unsent => "unsent",
        /// The limit of that name: a long poll waits for less than was asked for.
        WaitMax => "wait-max",
        /// The limit of that name: an answer has not all that there was.
        PollBytes => "poll-bytes",
        /// The limit of that name: a ping was sent, or an event stream told its place.
        Ping => "ping",
        /// The limit of that name: a read was full.
        TurnRead => "turn-read",
        /// The limit of that name: more messages had come with the same read.
        TurnMessages => "turn-messages",
        /// The limit of that name: a client would perhaps have taken more.
        TurnWrite => "turn-write",
        /// The limit of that name: so many were accepted; more may have been waiting.
        TurnAccept => "turn-accept",
        /// The limit of that name: a step of a handshake was put off.
        TurnHandshakes => "turn-handshakes",
        /// The limit of that name: a slice ended before all readers had been visited.
        TurnReaders => "turn-readers",
        /// The limit of that name: a step of a turn ended before everybody had been visited.
        TurnTime => "turn-time",
    }
}

impl Held {
    /// How many there are.
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// Whether it comes with each day that nothing is wrong on.
    pub(crate) fn is_routine(self) -> bool {
        matches!(
            self,
            Self::History | Self::HistoryBytes | Self::HistoryAge | Self::Unsent | Self::Ping
        )
    }
}

words! {
    /// How an entry reaches those who read it.
    Way {
        /// The answer to a poll, at once.
        Poll => "poll",
        /// The answer to a long poll, at once or later.
        LongPoll => "long-poll",
        /// An event stream.
        EventStream => "event-stream",
        /// A WebSocket.
        WebSocket => "websocket",
    }
}
