//! Everything but the handler and the readiness of sockets: clients, log, rules, files.
//!
//! This is what a handler's `Context` acts on, and where commands of pousse.v1 are carried out;
//! answers to requests are in `perform.rs`. It queues and notes; it calls no handler and writes to
//! no socket, so nothing re-enters.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use tungstenite::protocol::frame::coding::CloseCode;

use crate::clients::Clients;
use crate::config::{Config, Publish};
use crate::error::{PublishError, SendError, SubscribeError};
use crate::files::Files;
use crate::forms::Gap;
use crate::frame::Fault;
use crate::gate::Gate;
use crate::http::{Peer, Refusal, Request};
use crate::id::{After, ConnId, EntryId, Grant};
use crate::limits::Limits;
use crate::log::Log;
use crate::message::Message;
use crate::metrics::Reason;
use crate::outbox::Outbox;
use crate::routes;
use crate::rules::Rules;
use crate::session::{self, Command, Reference, What};
use crate::tls::Tls;
use crate::topic::TopicNumber;
use crate::turn::Turn;

/// Slots reserved at the start; beyond it the slab grows as clients come.
const CLIENTS_RESERVED_MAX: usize = 1 << 20;

/// See the head of this file.
pub(crate) struct Hub {
    /// Everyone connected.
    pub(crate) clients: Clients,
    /// Everything published.
    pub(crate) log: Log,
    /// What connections are lent.
    pub(crate) turn: Turn,
    /// What decides on requests.
    pub(crate) rules: Rules,
    /// What is served where no route is.
    pub(crate) files: Files,
    /// Who may come in.
    pub(crate) gate: Gate,
    /// Whether each listener can be reached from this machine alone.
    pub(crate) on_loopback: Vec<bool>,
    /// What clients of the listeners that speak TLS are met with.
    pub(crate) tls: Option<Tls>,
    /// The moment at which this turn began.
    pub(crate) now: Instant,
    /// When a handler wants to be woken, and with which token; the middle keeps the order.
    pub(crate) wakes: BinaryHeap<Reverse<(Instant, u64, u64)>>,
    pub(crate) wakes_made: u64,
    /// The server is to end, telling clients this code.
    pub(crate) drain: Option<CloseCode>,
    /// The loop has begun to.
    pub(crate) is_draining: bool,
    /// The server is to end at once.
    pub(crate) is_stopped: bool,
    /// For which client the handler is being called.
    pub(crate) called_for: Option<ConnId>,
}

impl Hub {
    /// Nobody connected, nothing published. `run` is the Unix millisecond of the start.
    pub(crate) fn new(
        config: &Config,
        files: Files,
        on_loopback: Vec<bool>,
        now: Instant,
        run: u64,
    ) -> Self {
        // Behind a proxy, and that is what the two are given for, everyone comes from this machine.
        let is_behind_proxy = !config.hosts.is_empty() || !config.trusted_proxies.is_empty();
        let is_private = on_loopback.iter().all(|it| *it) && !is_behind_proxy;
        let publish = config.publish.unwrap_or(match is_private {
            true => Publish::Anyone,
            false => Publish::Nobody,
        });
        Self {
            clients: Clients::new(config.limits.max_clients.min(CLIENTS_RESERVED_MAX)),
            log: Log::new(run, config.limits.clone()),
            turn: Turn::new(config),
            rules: Rules::new(config, publish),
            files,
            gate: Gate::new(config),
            on_loopback,
            tls: config.tls.clone(),
            now,
            wakes: BinaryHeap::new(),
            wakes_made: 0,
            drain: None,
            is_draining: false,
            is_stopped: false,
            called_for: None,
        }
    }

    /// Appends a message and has its readers visited.
    pub(crate) fn publish(
        &mut self,
        topic: &str,
        message: Message<'_>,
        except: Option<ConnId>,
    ) -> Result<EntryId, PublishError> {
        let appended = self.log.append(topic, message, except, self.turn.now);
        let (number, id) =
            appended.inspect_err(|error| self.turn.counters.count_refused(reason_of(*error)))?;
        self.turn.counters.published += 1;
        self.clients.readers.spread(number, Some(self.now));
        Ok(id)
    }

    /// Drops what is over a bound of the log, and takes over what the log has counted.
    pub(crate) fn trim(&mut self) {
        self.log.trim(self.turn.now);
        let counters = &mut self.turn.counters;
        counters.encoded = self.log.encodings();
        self.log.dropped_by().for_each(|(limit, times)| counters.set_held(limit, times));
    }

    /// Publishes for a client, once for each key of its publisher. Who publishes is not read while
    /// readers are behind.
    pub(crate) fn publish_for(
        &mut self,
        conn: ConnId,
        topic: &str,
        message: Message<'_>,
        key: Option<&str>,
    ) -> Result<(TopicNumber, EntryId), Refusal> {
        let now = self.turn.now;
        let grant = self.clients.get(conn).and_then(|client| client.grant());
        let appended = match key {
            None => self.log.append(topic, message, None, now).map(|it| (it, true)),
            Some(key) => self.log.append_once(topic, message, &own_key(grant, key), now),
        };
        let ((number, id), is_new) = appended.map_err(refusal_of)?;
        if is_new {
            self.turn.counters.published += 1;
            self.clients.readers.spread(number, Some(self.now));
        }
        if let Some(client) = self.clients.get_mut(conn) {
            client.is_publisher = true;
        }
        Ok((number, id))
    }

    /// Lets pages of these origins in from now on, beside the server's own, and no others.
    pub(crate) fn set_origins(&mut self, origins: Vec<String>) {
        self.turn.origins.list(&origins);
        self.rules.origins = origins;
    }

    /// Whether something waits for the next turn that no event will announce.
    pub(crate) fn has_work(&self) -> bool {
        self.clients.readers.next_spreading().is_some()
            || self.clients.has_touched()
            || self.is_stopped
            || self.drain.is_some() && !self.is_draining
    }

    /// Sends to one client.
    pub(crate) fn send(&mut self, to: ConnId, message: Message<'_>) -> Result<(), SendError> {
        let client = self.clients.get_mut(to).ok_or(SendError::Gone)?;
        client.connection.send(message, &mut self.turn)?;
        self.clients.touch(to);
        Ok(())
    }

    /// Begins to close one client.
    pub(crate) fn close(&mut self, conn: ConnId, code: CloseCode, reason: &str, why: Reason) {
        if let Some(client) = self.clients.get_mut(conn) {
            client.connection.close(code, reason, why, &mut self.turn);
            self.clients.touch(conn);
        }
    }

    /// Ends one client at once, without a word.
    pub(crate) fn end_now(&mut self, conn: ConnId, why: Reason) {
        if let Some(client) = self.clients.get_mut(conn) {
            client.connection.abort(why);
            self.clients.touch(conn);
        }
    }

    /// Tells a client that the server ends: a WebSocket by a close frame, who waits for an answer
    /// by its being the last.
    pub(crate) fn tell_the_end(&mut self, conn: ConnId, code: CloseCode) {
        let reason = match code {
            CloseCode::Restart => "the server is restarting",
            _ => "the server is stopping",
        };
        self.close(conn, code, reason, Reason::Drain);
    }

    /// Makes an open WebSocket a reader of one more topic. Over pousse.v1 it is told so, and of a
    /// gap; in text mode a gap closes it.
    pub(crate) fn subscribe(
        &mut self,
        conn: ConnId,
        topic: &str,
        after: After,
        reference: Reference,
    ) -> Result<(), SubscribeError> {
        let client = self.clients.get_mut(conn).filter(|client| client.connection.is_open());
        let client = client.ok_or(SubscribeError::Gone)?;
        let is_new = !self.log.find(topic).is_some_and(|number| client.reads(number));
        // How many subscriptions wait for their backlog; `None` in text mode.
        let pending = client.connection.session(&mut self.turn).map(|(it, _)| it.pending());
        if !is_new && pending.is_none() {
            return Ok(());
        }
        // Where it stands before it reads this topic: up to there the topic is to catch up.
        let position = client.connection.cursor.position(&self.log);
        let stands = client.connection.session(&mut self.turn).map(|(it, _)| it.stands(position));
        let readings = client.connection.cursor.readings.len() + usize::from(is_new);
        let most = self.turn.limits.subscriptions;
        if readings > most || pending.is_some_and(|pending| pending >= most) {
            return Err(SubscribeError::TooMany);
        }
        let gap = self.gap(topic, after).filter(|_| is_new);
        if is_new {
            self.count_resumed(after, gap.is_some());
        }
        self.turn.counters.gaps += u64::from(gap.is_some());
        if let (Some(gap), None) = (&gap, pending) {
            let reason = format!("gap; oldest {}", gap.oldest);
            self.close(conn, CloseCode::Again, &reason, Reason::Gap);
            return Ok(());
        }
        let number = self.log.find(topic);
        let seen = match (after, stands) {
            // Its `last` is to cover this topic as well: now is where the client stands.
            (After::Now, Some(seen)) => seen.max(self.log.place(number, After::Earliest).seen),
            _ => self.log.place(number, after).seen,
        };
        match self.clients.read(conn, topic, seen, &mut self.log) {
            Ok(_) => {}
            Err(PublishError::BadTopic) => return Err(SubscribeError::BadTopic),
            Err(_) => return Err(SubscribeError::TopicsFull),
        }
        self.answer_subscribed(conn, topic, (is_new, position), gap.as_ref(), reference);
        Ok(())
    }

    /// Tells a client of pousse.v1 that it reads the topic, now or when it has caught up.
    fn answer_subscribed(
        &mut self,
        conn: ConnId,
        topic: &str,
        (is_new, position): (bool, u64),
        gap: Option<&Gap>,
        reference: Reference,
    ) {
        let (Some(client), Some(number)) = (self.clients.get_mut(conn), self.log.find(topic))
        else {
            return;
        };
        let has_backlog = client.connection.cursor.has_backlog(number, position, &self.log);
        if let Some((session, outbox)) = client.connection.session(&mut self.turn) {
            if let Some(gap) = gap {
                session::put_gap(outbox, gap);
            }
            let state = (is_new, has_backlog);
            session.subscribed(number, state, position, reference, &self.log, outbox);
            // Who reads the topic already was not touched by reading it.
            self.clients.touch(conn);
        }
    }

    /// Counts a reading that begins, if it begins at a place that was named.
    pub(crate) fn count_resumed(&mut self, after: After, is_gap: bool) {
        let counters = &mut self.turn.counters;
        match after {
            After::Id(_) if is_gap => counters.resumed_with_gap += 1,
            After::Id(_) => counters.resumed += 1,
            After::Earliest | After::Now => {}
        }
    }

    /// The gap that someone has who asks for `after` in this topic, if there is one.
    pub(crate) fn gap(&self, topic: &str, after: After) -> Option<Gap> {
        let number = self.log.find(topic);
        let gap =
            || Gap { topic: topic.into(), after: after.id(), oldest: self.log.oldest(number) };
        self.log.place(number, after).is_gap.then(gap)
    }

    /// Ends a reading; false if there was none.
    pub(crate) fn unsubscribe(&mut self, conn: ConnId, topic: &str) -> bool {
        let Some(number) = self.log.find(topic) else { return false };
        if let Some(client) = self.clients.get_mut(conn)
            && let Some((session, outbox)) = client.connection.session(&mut self.turn)
        {
            let refusal = Refusal::new(
                409,
                Reason::WrongCommands,
                "the topic was unsubscribed before its backlog had been given",
            );
            for reference in session.give_up(number) {
                session::put_error(outbox, &refusal, &reference);
            }
            self.clients.touch(conn);
        }
        self.clients.unread(conn, number, &mut self.log)
    }

    /// Carries out a command of pousse.v1.
    ///
    /// # Errors
    /// It was wrong, and one too many: the connection is closing.
    pub(crate) fn command(&mut self, conn: ConnId, command: Command) -> Result<(), Fault> {
        let Command { what, reference } = command;
        let refused = match what {
            What::Subscribe { topic, after } => {
                let result = self.subscribe(conn, &topic, after, reference.clone());
                result.err().map(|error| subscribe_refusal(error, &self.turn.limits))
            }
            What::Unsubscribe { topic } => {
                self.unsubscribe(conn, &topic);
                self.answer(conn, |outbox| session::put_unsubscribed(outbox, &topic, &reference));
                None
            }
            What::Publish { .. } if !self.may_publish(Some(conn)) => {
                Some(routes::publishing_not_allowed())
            }
            What::Publish { topic, kind, payload, key } => {
                let message = Message::of(kind, &payload);
                let result = self.publish_for(conn, &topic, message, key.as_deref());
                if let Ok((_, id)) = result {
                    self.answer(conn, |outbox| {
                        session::put_published(outbox, &topic, id, &reference);
                    });
                }
                result.err()
            }
        };
        refused.map_or(Ok(()), |refusal| self.refuse_command(conn, &refusal, &reference))
    }

    /// Answers a command with what is wrong with it.
    ///
    /// # Errors
    /// It was one too many: the connection is closing.
    pub(crate) fn refuse_command(
        &mut self,
        conn: ConnId,
        refusal: &Refusal,
        reference: &Reference,
    ) -> Result<(), Fault> {
        let Some(client) = self.clients.get_mut(conn) else { return Ok(()) };
        client.connection.refuse_command(refusal, reference, &mut self.turn)
    }

    fn answer(&mut self, conn: ConnId, put: impl FnOnce(&mut Outbox)) {
        let client = self.clients.get_mut(conn);
        if let Some((_, outbox)) = client.and_then(|it| it.connection.session(&mut self.turn)) {
            put(outbox);
        }
    }

    /// Notes for whom a trusted proxy sends this request. Whom it sent the last one for says
    /// nothing of this one.
    ///
    /// # Errors
    /// [`Refusal`]: that client may not come in.
    pub(crate) fn attribute(&mut self, conn: ConnId, request: &mut Request) -> Result<(), Refusal> {
        self.clients.is_fresh_no_more(conn);
        let Some(client) = self.clients.get_mut(conn).filter(|client| client.is_proxy) else {
            return Ok(());
        };
        self.gate.leave(client.connection.peer, &mut client.is_counted);
        let found = self.gate.client_of(request);
        let peer = found.as_ref().ok().copied().flatten().map(Peer::Tcp);
        request.peer = peer.unwrap_or_else(|| client.stream.peer());
        client.connection.peer = request.peer;
        if let Some(address) = found? {
            client.is_counted = self.gate.forward(address.ip(), &self.turn.limits)?;
        }
        Ok(())
    }

    /// A connection of a proxy that rests is nobody's.
    pub(crate) fn give_back(&mut self, conn: ConnId) {
        if let Some(client) = self.clients.get_mut(conn).filter(|client| client.is_proxy) {
            self.gate.leave(client.connection.peer, &mut client.is_counted);
        }
    }

    /// Whether the client may publish: whoever comes over the control listener always may.
    pub(crate) fn may_publish(&self, conn: Option<ConnId>) -> bool {
        self.rules.publish == Publish::Anyone || conn.is_some_and(|conn| self.is_control(conn))
    }

    /// Whether the client was allowed everything when it was asked about.
    pub(crate) fn is_free(&self, conn: ConnId) -> bool {
        self.clients.get(conn).is_some_and(|client| client.is_free)
    }

    /// Whether the client came through the control listener.
    pub(crate) fn is_control(&self, conn: ConnId) -> bool {
        self.clients.get(conn).is_some_and(|client| client.is_control)
    }

    /// Whether the client came through a listener that only this machine can reach.
    pub(crate) fn is_on_loopback(&self, conn: ConnId) -> bool {
        let listener = self.clients.get(conn).map_or(0, |client| usize::from(client.listener));
        self.on_loopback.get(listener).copied().unwrap_or(false)
    }
}

/// A key as the log knows it. Those of two publishers never meet; all who have no grant are one.
fn own_key(publisher: Option<Grant>, key: &str) -> String {
    match publisher {
        Some(Grant(number)) => format!("{number} {key}"),
        None => format!(" {key}"),
    }
}

/// The word under which a failed publish is counted.
fn reason_of(error: PublishError) -> Reason {
    match error {
        PublishError::BadTopic => Reason::Request,
        PublishError::TooLong => Reason::MaxMessage,
        PublishError::TopicsFull => Reason::MaxTopics,
        PublishError::Busy => Reason::Outbox,
        PublishError::KeyReused => Reason::Key,
    }
}

fn subscribe_refusal(error: SubscribeError, limits: &Limits) -> Refusal {
    match error {
        SubscribeError::TooMany => Refusal::new(
            400,
            Reason::Subscriptions,
            format!("at most {} topics can be read at once", limits.subscriptions),
        ),
        SubscribeError::TopicsFull => refusal_of(PublishError::TopicsFull),
        SubscribeError::Gone | SubscribeError::BadTopic => refusal_of(PublishError::BadTopic),
    }
}

/// What a publisher is told.
pub(crate) fn refusal_of(error: PublishError) -> Refusal {
    let status = match error {
        PublishError::BadTopic => 400,
        PublishError::TooLong => 413,
        PublishError::KeyReused => 422,
        PublishError::TopicsFull | PublishError::Busy => 503,
    };
    Refusal::new(status, reason_of(error), error.to_string())
}
