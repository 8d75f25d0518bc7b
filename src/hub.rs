//! Everything but the handler and the readiness of sockets: clients, log, rules, files.
//!
//! This is what a handler's `Context` acts on and what an [`Answer`] is carried out on. It queues
//! and notes; it calls no handler and writes to no socket, so nothing re-enters.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use tungstenite::protocol::frame::coding::CloseCode;

use crate::clients::Clients;
use crate::config::{Config, Publish};
use crate::error::{PublishError, SendError, SubscribeError};
use crate::files::Files;
use crate::http::{Refusal, Request};
use crate::id::{After, ConnId, EntryId};
use crate::log::Log;
use crate::message::Message;
use crate::metrics::Reason;
use crate::poll::{self, LongPoll};
use crate::response::Response;
use crate::routes::{self, Answer, Poll, Reads, Rules};
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
    /// Whether each listener can be reached from this machine alone.
    pub(crate) on_loopback: Vec<bool>,
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
        // Behind a proxy, and that is what names are listed for, everyone comes from this machine.
        let is_private = on_loopback.iter().all(|it| *it) && config.hosts.is_empty();
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
            on_loopback,
            now,
            wakes: BinaryHeap::new(),
            wakes_made: 0,
            drain: None,
            is_draining: false,
            is_stopped: false,
        }
    }

    /// Appends a message and has its readers visited.
    pub(crate) fn publish(
        &mut self,
        topic: &str,
        message: Message<'_>,
        except: Option<ConnId>,
    ) -> Result<EntryId, PublishError> {
        self.append(topic, message, except).inspect_err(|error| {
            self.turn.counters.count_refused(reason_of(*error));
        })
    }

    fn append(
        &mut self,
        topic: &str,
        message: Message<'_>,
        except: Option<ConnId>,
    ) -> Result<EntryId, PublishError> {
        let (number, id) = self.log.append(topic, message, except, self.turn.now)?;
        self.turn.counters.published += 1;
        self.clients.spread(number);
        Ok(id)
    }

    /// Whether something waits for the next turn that no event will announce.
    pub(crate) fn has_work(&self) -> bool {
        self.clients.next_spreading().is_some()
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

    /// Makes an open WebSocket a reader of one more topic.
    pub(crate) fn subscribe(
        &mut self,
        conn: ConnId,
        topic: &str,
        after: After,
    ) -> Result<(), SubscribeError> {
        let client = self.clients.get(conn).filter(|client| client.connection.is_open());
        let client = client.ok_or(SubscribeError::Gone)?;
        let number = self.log.find(topic);
        if number.is_some_and(|number| client.reads(number)) {
            return Ok(());
        }
        if client.connection.cursor.readings.len() >= self.turn.limits.subscriptions {
            self.turn.counters.count_refused(Reason::Subscriptions);
            return Err(SubscribeError::TooMany);
        }
        let place = self.log.place(number, after);
        if place.is_gap {
            self.turn.counters.gaps += 1;
            let reason = format!("gap; oldest {}", self.log.oldest(number));
            self.close(conn, CloseCode::Again, &reason, Reason::Gap);
            return Ok(());
        }
        match self.clients.read(conn, topic, place.seen, &mut self.log) {
            Ok(_) => Ok(()),
            Err(PublishError::BadTopic) => Err(SubscribeError::BadTopic),
            Err(_) => Err(SubscribeError::TopicsFull),
        }
    }

    /// Carries out an answer. True: a WebSocket was opened by it.
    pub(crate) fn perform(&mut self, conn: ConnId, request: &Request, answer: Answer) -> bool {
        let result = match answer {
            Answer::Response(response) => {
                self.respond(conn, &response);
                Ok(())
            }
            Answer::Upgrade(reads) => return self.open(conn, request, &reads),
            Answer::Poll(poll) => {
                self.check_origin(conn, request).and_then(|()| self.poll(conn, request, &poll))
            }
            Answer::Publish(topic) => self
                .check_origin(conn, request)
                .and_then(|()| self.publish_request(conn, request, &topic)),
            Answer::File => self.send_file(conn, request),
        };
        if let Err(refusal) = result {
            self.refuse(conn, request, &refusal);
        }
        false
    }

    /// Messages are not for pages of foreign origins, whatever route led to them.
    fn check_origin(&self, conn: ConnId, request: &Request) -> Result<(), Refusal> {
        routes::check_origin(request, &self.rules, self.is_on_loopback(conn))
    }

    /// Answers with what is wrong, and says so in the log.
    pub(crate) fn refuse(&mut self, conn: ConnId, request: &Request, refusal: &Refusal) {
        // Everyone asks for files that are not there.
        let level = if refusal.status == 404 { log::Level::Debug } else { log::Level::Info };
        log::log!(
            level,
            "event=refused client={conn} peer={} status={} reason={} path={:?} detail={:?}",
            request.peer(),
            refusal.status,
            refusal.reason,
            request.path(),
            refusal.detail
        );
        if let Some(client) = self.clients.get_mut(conn) {
            client.connection.refuse(refusal, !request.is_whole(), &mut self.turn);
        }
    }

    /// Answers a request whose handler panicked.
    pub(crate) fn fail_request(&mut self, conn: ConnId) {
        let detail = "the handler of this request failed; the server's log says why";
        if let Some(client) = self.clients.get_mut(conn) {
            let refusal = Refusal::new(500, Reason::Panic, detail);
            client.connection.refuse(&refusal, true, &mut self.turn);
        }
    }

    /// Whether the client came through a listener that only this machine can reach.
    pub(crate) fn is_on_loopback(&self, conn: ConnId) -> bool {
        let listener = self.clients.get(conn).map_or(0, |client| usize::from(client.listener));
        self.on_loopback.get(listener).copied().unwrap_or(false)
    }

    fn respond(&mut self, conn: ConnId, response: &Response) {
        if let Some(client) = self.clients.get_mut(conn) {
            client.connection.respond(response, &mut self.turn);
        }
    }

    /// The opening handshake, then the topics. A gap closes it again: text frames cannot tell one.
    fn open(&mut self, conn: ConnId, request: &Request, reads: &Reads) -> bool {
        let upgrade = match routes::handshake(request, &self.rules, self.is_on_loopback(conn)) {
            Ok(upgrade) => upgrade,
            Err(refusal) => {
                self.refuse(conn, request, &refusal);
                return false;
            }
        };
        let Some(client) = self.clients.get_mut(conn) else { return false };
        client.connection.upgrade(upgrade, &mut self.turn);
        client.is_opened = true;
        for topic in &reads.topics {
            let after = reads.after.unwrap_or(After::Now);
            if let Err(error) = self.subscribe(conn, topic, after) {
                self.close(conn, CloseCode::Again, &error.to_string(), Reason::MaxTopics);
            }
        }
        if let Some(code) = self.drain {
            self.close(conn, code, "", Reason::Drain);
        }
        true
    }

    /// Answers a poll, or has it wait for something to answer.
    fn poll(&mut self, conn: ConnId, request: &Request, poll: &Poll) -> Result<(), Refusal> {
        let after = poll.reads.after.unwrap_or(After::Earliest);
        let mut is_gap = false;
        let mut has_news = false;
        let mut places: Vec<(TopicNumber, u64)> = Vec::new();
        for topic in &poll.reads.topics {
            let number = self.log.find(topic);
            let place = self.log.place(number, after);
            is_gap |= place.is_gap;
            if let Some(number) = number {
                has_news |= self.log.topic(number).count_after(place.seen) > 0;
                places.push((number, place.seen));
            }
        }
        self.turn.counters.gaps += u64::from(is_gap);
        let may_wait = request.method() == "GET" && !has_news && !is_gap && self.drain.is_none();
        if let Some(wait) = poll.wait.filter(|wait| may_wait && !wait.is_zero()) {
            return self.begin_wait(conn, poll, wait);
        }
        let response = match poll.wait {
            Some(_) => long_poll(poll).response(),
            None => Response::new(200).with("Cache-Control", "private, no-cache"),
        };
        let Some(client) = self.clients.get_mut(conn) else { return Ok(()) };
        let answer = poll::Poll { places: &places, limit: poll.limit, is_gap };
        let known = |tag: &str| poll.wait.is_none() && routes::has_tag(request, tag);
        client.connection.respond_poll(&answer, response, known, &self.log, &mut self.turn);
        Ok(())
    }

    fn begin_wait(
        &mut self,
        conn: ConnId,
        poll: &Poll,
        wait: std::time::Duration,
    ) -> Result<(), Refusal> {
        let after = poll.reads.after.unwrap_or(After::Earliest);
        for topic in &poll.reads.topics {
            let place = self.log.place(self.log.find(topic), after);
            if let Err(error) = self.clients.read(conn, topic, place.seen, &mut self.log) {
                self.clients.stop_reading(conn, &mut self.log);
                return Err(refusal_of(error));
            }
        }
        if let Some(client) = self.clients.get_mut(conn) {
            client.connection.wait(long_poll(poll), wait, &self.turn);
        }
        Ok(())
    }

    fn publish_request(
        &mut self,
        conn: ConnId,
        request: &Request,
        topic: &str,
    ) -> Result<(), Refusal> {
        let content = request.content();
        let is_octets = request.field("content-type").is_some_and(|value| {
            let kind = value.split(';').next().unwrap_or_default();
            kind.trim().eq_ignore_ascii_case("application/octet-stream")
        });
        let message = match str::from_utf8(content) {
            Ok(text) if !is_octets => Message::Text(text),
            _ => Message::Binary(content),
        };
        let id = self.append(topic, message, None).map_err(refusal_of)?;
        let readers = self.log.find(topic).map_or(0, |number| self.log.topic(number).readers());
        let mut json = format!("{{\"id\":\"{id}\",\"topic\":").into_bytes();
        crate::json::push_string(&mut json, topic);
        json.extend_from_slice(format!(",\"readers\":{readers}}}\n").as_bytes());
        let response = Response::json(201, json).with("Cache-Control", "no-store");
        self.respond(conn, &response);
        if let Some(client) = self.clients.get_mut(conn) {
            client.is_publisher = true;
        }
        Ok(())
    }

    fn send_file(&mut self, conn: ConnId, request: &Request) -> Result<(), Refusal> {
        let not_found = Refusal::new(404, Reason::Request, "there is nothing at this path");
        let found = self.files.find(request.path()).map_err(|error| {
            log::warn!("event=file_failed client={conn} error={error}");
            let detail = "the server has no descriptor left for the file; try again in a moment";
            Refusal::new(503, Reason::File, detail).with(&[("Retry-After", "5")])
        })?;
        let found = found.ok_or(not_found)?;
        let Some(client) = self.clients.get_mut(conn) else { return Ok(()) };
        if routes::has_tag(request, &found.etag) {
            let response = Response::new(304)
                .with("ETag", String::from(found.etag))
                .with("Cache-Control", "no-cache");
            client.connection.respond(&response, &mut self.turn);
        } else {
            client.connection.send_file(found, &mut self.turn);
        }
        Ok(())
    }
}

/// What a long poll waits with.
fn long_poll(poll: &Poll) -> LongPoll {
    let preference = poll.wait.filter(|_| poll.is_preference).map(|wait| wait.as_secs());
    LongPoll { limit: poll.limit, preference, is_due: false }
}

/// The word under which a failed publish is counted.
fn reason_of(error: PublishError) -> Reason {
    match error {
        PublishError::BadTopic => Reason::Request,
        PublishError::TooLong => Reason::MaxMessage,
        PublishError::TopicsFull => Reason::MaxTopics,
        PublishError::Busy => Reason::Outbox,
    }
}

fn refusal_of(error: PublishError) -> Refusal {
    let status = match error {
        PublishError::BadTopic => 400,
        PublishError::TooLong => 413,
        PublishError::TopicsFull | PublishError::Busy => 503,
    };
    let refusal = Refusal::new(status, reason_of(error), error.to_string());
    match status {
        503 => refusal.with(&[("Retry-After", "5")]),
        _ => refusal,
    }
}
