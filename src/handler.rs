//! What an application writes ([`Handler`]) and what it may do ([`Context`]).
//!
//! The first four methods are those of Ratchet, the usual chat server of PHP, in its order.
//! Handlers name connections by id and hold none; what they ask for is queued or noted and never
//! calls them back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tungstenite::protocol::frame::coding::CloseCode;

use crate::access::{Access, Decision, Denial};
use crate::config::check_origins;
use crate::error::{Error, PublishError, SendError, SubscribeError};
use crate::event::Transport;
use crate::http::{Peer, Request};
use crate::hub::Hub;
use crate::id::{After, ConnId, EntryId, Grant};
use crate::message::Message;
use crate::metrics::{Counters, Reason};
use crate::routes::Answer;
use crate::tls::Tls;
use crate::topic::TOPIC_DEFAULT;

/// What the server calls. All but `on_message` do nothing unless written.
///
/// Everything runs on the one thread of the loop: while a handler works, nobody is served. A
/// handler that panics costs the connection it was called for (1011), not the server; unless the
/// program is built with `panic = "abort"`, where it ends the process.
///
/// ```no_run
/// use pousse::{Config, ConnId, Context, Error, Handler, Message, Server};
///
/// struct Chat;
/// impl Handler for Chat {
///     fn on_message(&mut self, _: ConnId, message: Message<'_>, ctx: &mut Context<'_>) {
///         let _ = ctx.publish("general", message);
///     }
/// }
///
/// fn main() -> Result<(), Error> {
///     Server::bind(Config::default(), Chat)?.run()
/// }
/// ```
#[expect(unused_variables, reason = "names are documentation where a method has no body")]
pub trait Handler {
    /// A WebSocket was opened by this request.
    fn on_open(&mut self, conn: ConnId, request: &Request, ctx: &mut Context<'_>) {}

    /// A WebSocket sent a message. It borrows from the loop's buffer: copy what is to be kept.
    ///
    /// What is published by `POST /api/messages`, or by a command of pousse.v1, goes straight into
    /// the log and does not come here; `Config::publish` and [`authorize`](Self::authorize) decide
    /// who may, and `on_request` can see or answer a `POST` first.
    fn on_message(&mut self, conn: ConnId, message: Message<'_>, ctx: &mut Context<'_>);

    /// A WebSocket ended; exactly once for each `on_open`. The code is 1006 if there was no
    /// closing handshake, 1005 if it named no code.
    fn on_close(&mut self, conn: ConnId, code: CloseCode, reason: &str, ctx: &mut Context<'_>) {}

    /// The peer broke the protocol, and is being closed already, or a handler panicked.
    fn on_error(&mut self, conn: ConnId, error: &Error, ctx: &mut Context<'_>) {
        ctx.close(conn, CloseCode::Error, "");
    }

    /// A whole request has come. `None`: the built-in routes answer it.
    fn on_request(&mut self, request: &Request, ctx: &mut Context<'_>) -> Option<Answer> {
        None
    }

    /// Whether this request may read or publish. Asked before the content of a `POST` is read, and
    /// before any other answer than a [`Response`](crate::Response) or a file is given, whatever
    /// route led to it; not asked where `Config::publish` is nobody.
    ///
    /// A [`Grant`] stays with the connection until its next request: a WebSocket has it for life.
    /// A handler that panics here has not allowed it.
    fn authorize(
        &mut self,
        request: &Request,
        access: Access<'_>,
        ctx: &mut Context<'_>,
    ) -> Decision {
        Decision::AllowAll
    }

    /// Whether a WebSocket of pousse.v1 may subscribe to one more topic, or publish. A client that
    /// is refused is told so (403) and stays connected.
    ///
    /// Not asked about what the handler does itself: in text mode `on_message` publishes, so
    /// `on_message` looks at [`Context::grant`] first (`examples/authorize.rs`).
    ///
    /// Not asked where `authorize` said [`Decision::AllowAll`]. Unless it is written, a client may
    /// do nothing more here than what it was opened with.
    fn authorize_again(
        &mut self,
        conn: ConnId,
        grant: Option<Grant>,
        access: Access<'_>,
        ctx: &mut Context<'_>,
    ) -> Decision {
        Decision::Refuse(Denial::forbidden(
            "nothing more is allowed on this connection than what it was opened with",
        ))
    }

    /// What log lines call a client with this grant.
    fn name_of(&self, grant: Grant) -> Option<&str> {
        None
    }

    /// The time of a [`Context::wake_after`] has come.
    fn on_wake(&mut self, token: u64, ctx: &mut Context<'_>) {}

    /// Somebody asks for the metrics over the control listener. What is appended, in Prometheus'
    /// text format 0.0.4, follows those that are built in; `docs/metrics.md` has the names that are
    /// taken.
    fn on_metrics(&self, out: &mut String) {}

    /// A source of one's own ([`Server::watch`](crate::Server::watch)) is ready. Events come once
    /// until the source says `WouldBlock`.
    fn on_ready(&mut self, token: usize, ctx: &mut Context<'_>) {}
}

/// What a handler may do.
pub struct Context<'a> {
    pub(crate) hub: &'a mut Hub,
}

/// What is known of a client.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientInfo {
    /// Its name.
    pub id: ConnId,
    /// The other end.
    pub peer: Peer,
    /// How it is connected.
    pub transport: Transport,
    /// What it reads.
    pub topics: Vec<Arc<str>>,
    /// Entries that it has still to be given.
    pub lag: usize,
    /// Bytes that wait for its socket.
    pub waiting_bytes: usize,
}

impl Context<'_> {
    /// Sends to one WebSocket, past the log: it cannot be resumed. Over pousse.v1 it is
    /// `{"data":…}`, without topic and id.
    ///
    /// # Errors
    /// [`SendError::Gone`] and [`SendError::Full`]; then nothing was taken.
    pub fn send<'m>(
        &mut self,
        conn: ConnId,
        message: impl Into<Message<'m>>,
    ) -> Result<(), SendError> {
        self.hub.send(conn, message.into())
    }

    /// Appends to a topic: all its readers get it, now or when they resume. Returns its id, always:
    /// `None` is kept for a log outside, which would give the id later.
    ///
    /// # Errors
    /// [`PublishError`]; then nothing was kept.
    pub fn publish<'m>(
        &mut self,
        topic: &str,
        message: impl Into<Message<'m>>,
    ) -> Result<Option<EntryId>, PublishError> {
        self.hub.publish(topic, message.into(), None).map(Some)
    }

    /// Publishes to the topic `general`, which clients read who name none.
    ///
    /// # Errors
    /// [`PublishError`]; then nothing was kept.
    pub fn broadcast<'m>(
        &mut self,
        message: impl Into<Message<'m>>,
    ) -> Result<Option<EntryId>, PublishError> {
        self.publish(TOPIC_DEFAULT, message)
    }

    /// As [`broadcast`](Self::broadcast), but this client is not given it.
    ///
    /// # Errors
    /// [`PublishError`]; then nothing was kept.
    pub fn broadcast_except<'m>(
        &mut self,
        conn: ConnId,
        message: impl Into<Message<'m>>,
    ) -> Result<Option<EntryId>, PublishError> {
        self.publish_except(conn, TOPIC_DEFAULT, message)
    }

    /// As [`publish`](Self::publish), but this client is not given it.
    ///
    /// # Errors
    /// [`PublishError`]; then nothing was kept.
    pub fn publish_except<'m>(
        &mut self,
        conn: ConnId,
        topic: &str,
        message: impl Into<Message<'m>>,
    ) -> Result<Option<EntryId>, PublishError> {
        self.hub.publish(topic, message.into(), Some(conn)).map(Some)
    }

    /// Makes a WebSocket a reader of one more topic; one that reads it already goes on as it is.
    /// Should the place named no longer be held whole, the client is told: over pousse.v1 by a gap,
    /// else it is closed (1013).
    ///
    /// # Errors
    /// [`SubscribeError`]; then nothing was changed.
    pub fn subscribe(
        &mut self,
        conn: ConnId,
        topic: &str,
        after: After,
    ) -> Result<(), SubscribeError> {
        self.hub.subscribe(conn, topic, after, None).inspect_err(|error| {
            if *error == SubscribeError::TooMany {
                self.hub.turn.counters.count_refused(Reason::Subscriptions);
            }
        })
    }

    /// Ends a reading; false if there was none.
    pub fn unsubscribe(&mut self, conn: ConnId, topic: &str) -> bool {
        self.hub.unsubscribe(conn, topic)
    }

    /// Begins the closing handshake. `on_close` follows when the connection has ended.
    pub fn close(&mut self, conn: ConnId, code: CloseCode, reason: &str) {
        self.hub.close(conn, code, reason, Reason::Handler);
    }

    /// As [`close`](Self::close), with the word for it in counters and log: whose fault it is.
    pub fn close_because(&mut self, conn: ConnId, code: CloseCode, reason: &str, why: Reason) {
        self.hub.close(conn, code, reason, why);
    }

    /// The list of clients: open WebSockets, event streams and waiting long polls.
    pub fn clients(&self) -> impl Iterator<Item = ConnId> {
        let listed = self.hub.clients.iter().filter(|client| client.is_kept_open());
        listed.map(|client| client.connection.id)
    }

    /// What is known of a client in the list.
    pub fn client(&self, conn: ConnId) -> Option<ClientInfo> {
        let client = self.hub.clients.get(conn).filter(|client| client.is_kept_open())?;
        let readings = || client.connection.cursor.readings.iter();
        let log = &self.hub.log;
        Some(ClientInfo {
            id: conn,
            peer: client.connection.peer,
            transport: client.connection.transport(),
            topics: readings().map(|it| log.topic(it.topic).name().clone()).collect(),
            lag: readings().map(|it| log.topic(it.topic).count_after(it.seen)).sum(),
            waiting_bytes: client.connection.waiting_bytes(),
        })
    }

    /// The first topic that the client reads: for a WebSocket that subscribes to no other, the
    /// first of its URL.
    pub fn topic(&self, conn: ConnId) -> Option<Arc<str>> {
        let reading = self.hub.clients.get(conn)?.connection.cursor.readings.first()?;
        Some(self.hub.log.topic(reading.topic).name().clone())
    }

    /// What `authorize` called the client, for as long as its request or WebSocket lasts.
    pub fn grant(&self, conn: ConnId) -> Option<Grant> {
        self.hub.clients.get(conn)?.grant()
    }

    /// Lets pages of these origins connect from now on, in place of `Config::origins`. Whoever is
    /// connected stays.
    ///
    /// # Errors
    /// [`Error::Config`]; then nothing was changed.
    pub fn set_origins(&mut self, origins: Vec<String>) -> Result<(), Error> {
        check_origins(&origins)?;
        self.hub.set_origins(origins);
        Ok(())
    }

    /// Whether the client came through the control listener, where nobody is asked what he may.
    pub fn is_owner(&self, conn: ConnId) -> bool {
        self.hub.is_control(conn)
    }

    /// Whether clients may publish, by the configuration; and whoever is connected over the control
    /// listener, in a call for that client.
    pub fn may_publish(&self) -> bool {
        self.hub.may_publish(self.hub.called_for)
    }

    /// Has `on_wake` called with this token when the time is over, not before and soon after.
    pub fn wake_after(&mut self, wait: Duration, token: u64) {
        // A time beyond what the clock can say is one that never comes.
        if let Some(at) = self.hub.now.checked_add(wait) {
            self.hub.wakes_made += 1;
            let order = self.hub.wakes_made;
            self.hub.wakes.push(std::cmp::Reverse((at, order, token)));
        }
    }

    /// Replaces the certificate, for connections accepted from now on; those that are here go on
    /// with the one they began with. Which listeners speak TLS was decided when they were bound.
    pub fn set_tls(&mut self, tls: Tls) {
        self.hub.tls = Some(tls);
    }

    /// The moment at which this turn of the loop began.
    pub fn now(&self) -> Instant {
        self.hub.now
    }

    /// Ends the server: no new clients, WebSockets are closed with this code, answers are finished,
    /// and within the limit `drain` it is over.
    pub fn drain(&mut self, code: CloseCode) {
        self.hub.drain.get_or_insert(code);
    }

    /// Ends the server when this turn is over, whoever is connected.
    pub fn stop(&mut self) {
        self.hub.is_stopped = true;
    }

    /// How often each thing happened.
    pub fn counters(&self) -> &Counters {
        &self.hub.turn.counters
    }

    /// Every number that bounds something.
    pub fn limits(&self) -> &crate::limits::Limits {
        &self.hub.turn.limits
    }
}
