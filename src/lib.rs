//! draft lib
mod app;
mod clients;
mod config;
mod connection;
mod cursor;
mod deadlines;
mod error;
mod event;
mod exchange;
mod files;
mod handler;
mod head;
mod http;
mod hub;
mod id;
mod input;
mod json;
mod listeners;
mod live;
mod log;
mod message;
mod metrics;
mod origin;
mod outbox;
mod outgoing;
mod poll;
mod remote;
mod response;
mod routes;
mod server;
mod stream;
mod tick;
mod topic;
mod turn;
mod websocket;

pub use crate::config::{Address, Config, LIMITS, Limit, Limits, Publish};
pub use crate::connection::Transport;
pub use crate::error::{Error, PublishError, RemoteError, SendError, SubscribeError};
pub use crate::handler::{ClientInfo, Context, Handler};
pub use crate::http::{Peer, Refusal, Request};
pub use crate::id::{After, BadEntryId, ConnId, EntryId};
pub use crate::message::{Kind, Message};
pub use crate::metrics::{Counters, Reason};
pub use crate::remote::Remote;
pub use crate::response::Response;
pub use crate::routes::{Answer, Poll, Reads};
pub use crate::server::Server;
pub use tungstenite::protocol::frame::coding::CloseCode;

/// The parts below the loop, for tests and fuzzing. Not covered by the promise of semver.
#[doc(hidden)]
pub mod seam {
    pub use crate::clients::Client;
    pub use crate::connection::Connection;
    pub use crate::cursor::{Cursor, Reading};
    pub use crate::deadlines::Deadlines;
    pub use crate::event::{Ending, Event};
    pub use crate::log::{Log, Place};
    pub use crate::outbox::{Flush, Outbox};
    pub use crate::routes::{Rules, handshake};
    pub use crate::tick::Tick;
    pub use crate::topic::{Entry, Topic, TopicNumber};
    pub use crate::turn::Turn;
    pub use crate::websocket::{Fault, Incoming, WebSocket};
}
