//! What tests and fuzzing reach that nobody else does: the application turned by hand, without
//! sockets and clock ([`Rehearsal`]), and parsers one by one.
//!
//! It is no part of the server: nothing of it runs there. A rehearsal does what a turn of
//! `server.rs` does for its clients, step by step, with bytes, time and sockets of the caller's.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;

use crate::app::App;
use crate::config::Config;
use crate::connection::Connection;
use crate::deflate::{Deflate, Unfit, Window};
use crate::error::Error;
use crate::event::{Ending, Event};
use crate::extensions;
use crate::files::{FileBody, Files};
use crate::forms;
use crate::forwarded;
use crate::handler::{Context, Handler};
use crate::handshake::handshake;
use crate::head::Head;
use crate::http::{Peer, Request};
use crate::hub::Hub;
use crate::id::ConnId;
use crate::limits::Limits;
use crate::log::Log;
use crate::message::Kind;
use crate::metrics::{Counters, Reason};
use crate::network::Network;
use crate::origin;
use crate::outbox::{Flush, Sink};
use crate::percent;
use crate::rules::Rules;
use crate::session;
use crate::stream::Stream;
use crate::tick::Tick;
use crate::topic::{Entry, Form, Topic};

/// The application with its clients, turned by hand.
pub struct Rehearsal<H> {
    app: App<H>,
}

impl<H: Handler> Rehearsal<H> {
    /// Nobody connected; the run is 7, so that ids are `7-1`, `7-2`, …
    ///
    /// # Errors
    /// Those of the folder to be served.
    pub fn new(config: &Config, handler: H, now: Instant) -> Result<Self, Error> {
        let files = Files::open(config.root.as_deref())?;
        Ok(Self { app: App { handler, hub: Hub::new(config, files, vec![true], now, 7) } })
    }

    /// A client comes. Its stream is only there to be owned: nothing is read from it or written.
    pub fn joins(&mut self, stream: Stream, peer: Peer) -> ConnId {
        let hub = &mut self.app.hub;
        let id = hub.clients.insert(stream, peer, (0, false), &hub.turn);
        if let Some(client) = hub.clients.get_mut(id) {
            client.is_proxy = hub.gate.trusts(peer);
        }
        id
    }

    /// A new turn, at this moment.
    pub fn begin(&mut self, now: Tick) {
        self.app.hub.turn.begin(now, 1_700_000_000 + now.since_start().as_secs());
    }

    /// One read: what was kept before, or as many bytes as the connection can look at now. False:
    /// it looks at none now.
    pub fn reads(&mut self, id: ConnId, input: &mut &[u8]) -> bool {
        let hub = &mut self.app.hub;
        let is_behind = hub.log.is_behind();
        let Some(client) = hub.clients.get_mut(id) else { return false };
        client.connection.begin_turn(&hub.turn.limits);
        if client.is_publisher && is_behind {
            return false;
        }
        if let Some(mut kept) = client.connection.take_kept(&hub.turn) {
            self.app.feed(id, &mut &mut *kept, usize::MAX);
            return true;
        }
        if input.is_empty() || !client.connection.wants_input(&hub.turn) {
            return false;
        }
        let size = client.connection.input_bytes_max(&hub.turn).min(input.len());
        let (now, later) = input.split_at(size);
        *input = later;
        self.app.feed(id, &mut now.to_vec().as_mut_slice(), usize::MAX);
        true
    }

    /// The peer's bytes have ended.
    pub fn ends(&mut self, id: ConnId) {
        if let Some(client) = self.app.hub.clients.get_mut(id) {
            client.connection.receive_eof();
        }
    }

    /// Deadlines that are past.
    pub fn times(&mut self, id: ConnId) {
        let hub = &mut self.app.hub;
        let Some(client) = hub.clients.get_mut(id) else { return };
        if client.connection.deadline() > hub.turn.now {
            return;
        }
        if let Some(Event::Fault(fault)) = client.connection.handle_timeout(&mut hub.turn) {
            self.app.fault(id, fault.code, fault.text);
        }
    }

    /// From the log to the outbox to the sink, until the sink takes no more or a turn's budget is
    /// spent. False: there is more to take.
    ///
    /// # Errors
    /// What the sink said; the client is aborted then.
    pub fn writes(&mut self, id: ConnId, sink: &mut impl Sink) -> io::Result<bool> {
        let hub = &mut self.app.hub;
        let Some(client) = hub.clients.get_mut(id) else { return Ok(true) };
        let before = hub.turn.counters.written_bytes;
        loop {
            let more = client.connection.fill(&hub.log, &mut hub.turn);
            match client.connection.write_to(sink, &mut hub.turn) {
                Ok(Flush::Drained) if !more && !client.connection.owes_pong() => break,
                Ok(Flush::Blocked) => return Ok(true),
                Ok(_) => {
                    let written = hub.turn.counters.written_bytes - before;
                    if written >= hub.turn.limits.turn_write as u64 {
                        return Ok(false);
                    }
                }
                Err(error) => {
                    client.connection.abort(Reason::Gone);
                    return Err(error);
                }
            }
        }
        if !client.connection.cursor.readings.is_empty() && !client.connection.is_reading() {
            hub.clients.leaves_at_turns_end(id);
        }
        Ok(true)
    }

    /// The turn ends: readers have been offered what was published, and those who are done go.
    pub fn end(&mut self, everyone: &[ConnId]) -> Vec<ConnId> {
        let hub = &mut self.app.hub;
        while let Some(topic) = hub.clients.readers.next_spreading() {
            hub.clients.readers.begin_slice(topic, &hub.log);
            while hub.clients.next_reader(topic).is_some() {}
            hub.clients.readers.end_slice(&mut hub.log, &mut hub.turn.counters);
        }
        hub.clients.readers.end_rounds();
        hub.turn.end_delivery();
        hub.log.drop_encoded();
        hub.trim();
        hub.clients.end_readings(&mut hub.log);
        hub.gate.sweep(&hub.turn.limits, hub.turn.now);
        let is_done = |id: &ConnId| {
            self.app.hub.clients.get(*id).is_some_and(|client| client.connection.is_done())
        };
        let done: Vec<ConnId> = everyone.iter().copied().filter(is_done).collect();
        for &id in &done {
            let hub = &mut self.app.hub;
            let Some(mut client) = hub.clients.remove(id, &mut hub.log) else { continue };
            client.part();
            hub.gate.leave(client.connection.peer, &mut client.is_counted);
            self.app.farewell(&client, Reason::Gone);
        }
        done
    }

    /// What a handler has.
    pub fn context(&mut self) -> Context<'_> {
        Context { hub: &mut self.app.hub }
    }

    /// The handler.
    pub fn handler(&mut self) -> &mut H {
        &mut self.app.handler
    }

    /// The connection of a client that is here.
    pub fn connection(&self, id: ConnId) -> Option<&Connection> {
        self.app.hub.clients.get(id).map(|client| &client.connection)
    }

    /// Bytes of memory that the client is the reason for.
    pub fn held_bytes(&self, id: ConnId) -> usize {
        self.connection(id).map_or(0, Connection::held_bytes)
    }

    /// How the client is ending.
    pub fn ending(&self, id: ConnId) -> Option<Ending> {
        self.connection(id).map(|connection| connection.ending(Reason::Gone))
    }

    /// What is published.
    pub fn log(&self) -> &Log {
        &self.app.hub.log
    }

    /// What is left of those who have gone: readers in topics and clients. Nothing, it should be.
    pub fn is_deserted(&self) -> bool {
        let hub = &self.app.hub;
        let readers = |(_, topic): (usize, &Topic)| topic.readers() > 0;
        hub.clients.iter().next().is_none() && !hub.log.topics_from(0).any(readers)
    }
}

/// See `percent.rs`.
pub fn decode(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    percent::decode(text, plus_is_space)
}

/// The request of a head that ends where the bytes do, or the status by which it is refused (0: it
/// ends elsewhere).
///
/// # Errors
/// The status.
pub fn request(head: &[u8], limits: &Limits) -> Result<Request, u16> {
    let mut head = head.to_vec();
    let mut input = head.as_mut_slice();
    let request = Head::default().receive(&mut input, limits, Peer::Unix);
    let request = request.map_err(|refusal| refusal.status)?;
    request.filter(|_| input.is_empty()).ok_or(0)
}

/// `Sec-WebSocket-Accept` and the subprotocol by which an opening handshake is answered.
///
/// # Errors
/// The status.
pub fn opening(request: &Request, rules: &Rules) -> Result<(String, Option<String>), u16> {
    let upgrade = handshake(request, rules, false).map_err(|refusal| refusal.status)?;
    Ok((upgrade.accept, upgrade.subprotocol))
}

/// Whom a proxy speaks for.
///
/// # Errors
/// The status.
pub fn forwarded_for(request: &Request, trusted: &[Network]) -> Result<Option<SocketAddr>, u16> {
    forwarded::client(request, trusted).map_err(|refusal| refusal.status)
}

/// A command of pousse.v1, as its `Debug` shows it.
///
/// # Errors
/// The status, and the `ref` that goes back with it.
pub fn command(text: &str) -> Result<String, (u16, Option<String>)> {
    session::parse(text)
        .map(|command| format!("{command:?}"))
        .map_err(|(refusal, reference)| (refusal.status, reference.map(String::from)))
}

/// An entry as it leaves.
pub fn form(log: &Log, topic: &Topic, entry: &Entry, form: Form) -> Bytes {
    forms::form(log, topic, entry, form)
}

/// See `origin.rs`: whether a page of `origin` was served by `host`.
pub fn is_own(origin: &str, host: &str, on_loopback: bool) -> bool {
    origin::is_own(origin, host, on_loopback)
}

/// See `origin.rs`: whether two origins are the same.
pub fn is_same(a: &str, b: &str) -> bool {
    origin::is_same(a, b)
}

/// See `origin.rs`: the origin as a browser writes it.
pub fn canonical(origin: &str) -> String {
    origin::canonical(origin)
}

/// What is answered to the extensions that these fields offer.
///
/// # Errors
/// The status: they are no list of extensions.
pub fn agreed(fields: &[&[u8]]) -> Result<Option<String>, u16> {
    let agreed = extensions::negotiate(fields.iter().copied()).map_err(|_| 400_u16)?;
    Ok(agreed.map(|it| it.answer().into_owned()))
}

/// What came of taking out a message.
#[derive(Debug)]
pub enum Inflated {
    /// This.
    Message(Vec<u8>),
    /// It is longer than it may be.
    TooBig,
    /// It is not what DEFLATE makes.
    Bad,
}

/// See `deflate.rs`: takes out a message of at most `max` bytes.
pub fn inflated(payload: &[u8], max: usize) -> Inflated {
    INFLATER.with_borrow_mut(|deflate| {
        match deflate.inflate(payload, max, &mut Counters::default()) {
            Ok(message) => Inflated::Message(message),
            Err(Unfit::TooBig) => Inflated::TooBig,
            Err(Unfit::Bad) => Inflated::Bad,
        }
    })
}

/// See `deflate.rs`: the payload of the compressed frame, if there is one.
pub fn deflated(payload: &[u8], is_nine: bool) -> Option<Vec<u8>> {
    let window = if is_nine { Window::Nine } else { Window::Fifteen };
    let message = (Kind::Binary, payload);
    let frame =
        INFLATER.with_borrow_mut(|it| it.frame(message, window, &mut Counters::default()))?;
    let head = match frame.get(1) {
        Some(127) => 10,
        Some(126) => 4,
        _ => 2,
    };
    Some(frame.get(head..)?.to_vec())
}

thread_local! {
    /// One for all, as the loop has it: what one message left is there for the next.
    static INFLATER: RefCell<Deflate> = RefCell::default();
}

/// What is served where no route is.
pub struct Folder(Files);

impl Folder {
    /// Opens it.
    ///
    /// # Errors
    /// It is no folder, or cannot be opened.
    pub fn open(root: &Path) -> Result<Self, Error> {
        Files::open(Some(root)).map(Self)
    }

    /// The whole content of the file at a path, still percent-encoded.
    ///
    /// # Errors
    /// What the system says of descriptors and disks.
    pub fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        let Some(found) = self.0.find(path)? else { return Ok(None) };
        let mut content = Vec::new();
        match found.body {
            FileBody::Memory(bytes) => content.extend_from_slice(&bytes),
            FileBody::Disk(mut file) => {
                while file.remaining() > 0 {
                    content.extend_from_slice(&file.next_piece(4096)?);
                }
            }
        }
        Ok(Some(content))
    }
}
