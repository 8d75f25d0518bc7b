//! A push server: messages reach browsers the moment they exist, by polling, long polling, an event
//! stream or a WebSocket, all from one log. One thread, one [mio] readiness loop, no async runtime.
//!
//! Write a [`Handler`], give it to [`Server::bind`], call [`Server::run`]:
//!
//! ```no_run
//! use pousse::{Config, ConnId, Context, Error, Handler, Message, Server};
//!
//! struct Chat;
//! impl Handler for Chat {
//!     fn on_message(&mut self, _: ConnId, message: Message<'_>, ctx: &mut Context<'_>) {
//!         let _ = ctx.publish("general", message); // everyone who reads it, now and on resume
//!     }
//! }
//!
//! fn main() -> Result<(), Error> {
//!     Server::bind(Config::default(), Chat)?.run()
//! }
//! ```
//!
//! What a handler may do is [`Context`]; another thread has a [`Remote`]; a loop of one's own calls
//! [`Server::turn`]. Every bound is a field of [`Limits`].
//!
//! # The map
//!
//! A file knows only those on the floors below it (a test keeps that), and nothing imports from
//! this one.
//!
//! ```text
//! 15  door        who is let in, who is forgotten, how everyone leaves
//!     embedder    what an embedder has of a server
//! 14  server      THE LOOP: wait, note, read, time, obey, deliver, forget, accept
//!     seams       what only tests reach
//! 13  app         the handler beside the hub, and each call of it
//! 12  handler     what an application writes     perform    an answer carried out
//!     operate     what the owner wants done
//! 11  hub         clients, log, rules and files: what handlers and commands act on
//! 10  clients     everyone connected             client     one of them
//!  9  connection  one client's protocol as a state machine
//!  8  stage       what a connection is in the middle of
//!     control     from a request of the owner's to what is wanted
//!     rare        what few connections have
//!  7  live        a WebSocket after its opening  long_poll  an answer held back
//!     routes      from a request to an answer
//!  6  event       what a connection tells        exchange   the writing of one answer
//!     listeners   whom to accept                 event_stream  one answer that never ends
//!  5  cursor      from the log to an outbox      poll       entries as one answer
//!     session     the subprotocol pousse.v1      gate       which addresses may come in
//!  4  forms       an entry as it leaves          outgoing   an outbox and its delay
//!     head        a request head as it arrives   stream     TCP and unix sockets
//!     forwarded   whom a proxy speaks for
//!     access      what a client may do           readers    whom a topic is offered to
//!     handshake   the opening of a WebSocket
//!  3  log         everything published           turn       what the loop lends
//!     parse       from a head to a request       remote     the door for other threads
//!     encodings   the forms of its entries, counted
//!     rules       which hosts and origins
//!  2  topic       the entries of one name        websocket  messages over frames
//!     extensions  what is agreed on              tls_session  one client's TLS
//!     http        requests                       partial    a message that is not whole
//!     long        a message in memory of its own
//!  1  config      every setting                  outbox     bytes on their way out
//!     response    answers as bytes               files      from a path to a file
//!     deadlines   who must be looked at by when  bucket     how much at once
//!     drain       who is told of the end when    tls        a certificate and its key
//!     exposition  metrics as text                deflate     messages made shorter
//!     busy        who is to be read, in order    told        what the log hears of now and then
//!     spare       memory of long messages        origin     hosts, and of whom a page is
//!     frame       one frame of a WebSocket
//!  0  id  message  error  limits  net  network  tick  json  input  percent  process
//!     metrics, and in its folder counters        folder      files on disk
//! ```
//!
//! # Features
//!
//! `daemon` (default): the program `pousse`. `v1` (default): the subprotocol pousse.v1, JSON over
//! one WebSocket. `deflate` (default): [`Config::deflate`], compression of WebSocket messages.
//! `tls` (default): [`Config::tls`], https and wss. `files`: [`Config::root`], folders of static
//! files.
//! Without any: mio, tungstenite, slab, httparse, simdutf8, socket2, bytes, log and what these pull
//! in.

#![forbid(unsafe_code)]

mod access;
mod app;
mod bucket;
mod busy;
mod client;
mod clients;
mod config;
mod connection;
mod control;
mod cursor;
mod deadlines;
mod deflate;
mod door;
mod drain;
mod embedder;
mod encodings;
mod error;
mod event;
mod event_stream;
mod exchange;
mod exposition;
mod extensions;
mod files;
mod folder;
mod forms;
mod forwarded;
mod frame;
mod gate;
mod handler;
mod handshake;
mod head;
mod http;
mod hub;
mod id;
mod input;
#[cfg(simulation)]
#[path = "../tests/simulation/inspect.rs"]
mod inspect;
mod json;
mod limits;
mod listeners;
mod live;
mod log;
mod long;
mod long_poll;
mod message;
mod metrics;
mod net;
mod network;
mod operate;
mod origin;
mod outbox;
mod outgoing;
mod parse;
mod partial;
mod percent;
mod perform;
mod poll;
mod process;
mod rare;
mod readers;
mod remote;
mod response;
mod routes;
mod rules;
mod seams;
mod server;
mod session;
mod spare;
mod stage;
mod stream;
mod tick;
mod tls;
mod tls_session;
mod told;
mod topic;
mod turn;
mod websocket;

pub use tungstenite::protocol::frame::coding::CloseCode;

pub use crate::access::{Access, Decision, Denial};
pub use crate::config::{Address, Config, Publish};
pub use crate::error::{Error, PublishError, RemoteError, SendError, SubscribeError};
pub use crate::event::Transport;
pub use crate::handler::{ClientInfo, Context, Handler};
pub use crate::http::{Peer, Request};
pub use crate::id::{After, BadEntryId, ConnId, EntryId, Grant};
pub use crate::limits::{LIMITS, Limit, Limits};
pub use crate::message::{Kind, Message};
pub use crate::metrics::{Counters, Held, Histogram, Reason, Way};
pub use crate::network::Network;
pub use crate::remote::Remote;
pub use crate::response::Response;
pub use crate::routes::{Answer, Poll, Reads};
pub use crate::server::Server;
pub use crate::stream::Inherited;
pub use crate::tls::Tls;

/// The parts below the loop, for tests and fuzzing. Not covered by the promise of semver.
#[doc(hidden)]
pub mod seam {
    pub use crate::client::Client;
    pub use crate::connection::Connection;
    pub use crate::cursor::{Cursor, Reading};
    pub use crate::deadlines::Deadlines;
    pub use crate::deflate::Window;
    pub use crate::event::{Ending, Event};
    pub use crate::frame::Fault;
    pub use crate::handshake::handshake;
    pub use crate::http::Refusal;
    #[cfg(simulation)]
    pub use crate::inspect::{Inside, Seen, SeenEntry, SeenTopic};
    pub use crate::log::{Log, Place};
    pub use crate::long::Long;
    #[cfg(simulation)]
    pub use crate::net::machine;
    pub use crate::outbox::{Flush, Outbox, Sink};
    pub use crate::partial::Incoming;
    pub use crate::rules::Rules;
    pub use crate::seams::*;
    pub use crate::spare::Spare;
    pub use crate::stream::Stream;
    pub use crate::tick::Tick;
    pub use crate::topic::{Entry, Form, Topic, TopicNumber};
    pub use crate::turn::Turn;
    pub use crate::websocket::WebSocket;
}

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
