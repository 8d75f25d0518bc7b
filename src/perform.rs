//! Carrying out an [`Answer`]: what the hub does for a request that may have it.
//!
//! Each way of asking for messages ends here: the opening handshake, the poll that is answered and
//! the one that waits, the event stream, the publish; and files.

use tungstenite::protocol::frame::coding::CloseCode;

use crate::error::SubscribeError;
use crate::forms::{Gap, put_quoted_id};
use crate::handshake::handshake;
use crate::http::{Refusal, Request};
use crate::hub::{Hub, refusal_of};
use crate::id::{After, ConnId};
use crate::json::push_string;
use crate::long_poll::LongPoll;
use crate::metrics::{Held, Reason, Way};
use crate::poll;
use crate::response::{Response, put_number};
use crate::routes::{self, Answer, Poll, Reads};
use crate::session;
use crate::topic::TopicNumber;

impl Hub {
    /// Carries out an answer. True: a WebSocket was opened by it.
    pub(crate) fn perform(&mut self, conn: ConnId, request: &Request, answer: Answer) -> bool {
        let result = match answer {
            Answer::Response(response) => {
                self.respond(conn, &response);
                Ok(())
            }
            Answer::Upgrade(reads) => return self.open(conn, request, &reads),
            Answer::Poll(poll) => self.poll(conn, request, &poll),
            Answer::EventStream { reads, is_text } => self.stream(conn, request, &reads, is_text),
            Answer::Publish(topic) => self.publish_request(conn, request, &topic),
            Answer::File => self.send_file(conn, request),
        };
        if let Err(refusal) = result {
            self.refuse(conn, request, &refusal);
        }
        false
    }

    /// Answers with what is wrong, and says so in the log.
    pub(crate) fn refuse(&mut self, conn: ConnId, request: &Request, refusal: &Refusal) {
        // Everyone asks for files that are not there.
        let level = if refusal.status == 404 { log::Level::Debug } else { log::Level::Info };
        let (peer, path) = (request.peer(), request.path());
        // The path last: a long one is where the line is cut.
        log::log!(level, "event=refused client={conn} peer={peer} {refusal} path={path:?}");
        if let Some(client) = self.clients.get_mut(conn) {
            // Who has no business at the control listener is not to hold one of its few places.
            let is_stranger = client.is_control && matches!(refusal.status, 401 | 403);
            let is_last = !request.is_whole() || is_stranger;
            client.connection.refuse(refusal, is_last, &mut self.turn);
        }
    }

    /// Goes on to read the content of a request whose head was admitted.
    pub(crate) fn read_content(&mut self, conn: ConnId, request: Box<Request>) {
        if let Some(client) = self.clients.get_mut(conn) {
            client.connection.read_content(request, &mut self.turn);
        }
    }

    /// Answers with what is at hand.
    pub(crate) fn respond(&mut self, conn: ConnId, response: &Response) {
        if let Some(client) = self.clients.get_mut(conn) {
            client.connection.respond(response, &mut self.turn);
        }
    }

    /// The opening handshake, then the topics.
    fn open(&mut self, conn: ConnId, request: &Request, reads: &Reads) -> bool {
        let upgrade = match handshake(request, &self.rules, self.is_on_loopback(conn)) {
            Ok(upgrade) => upgrade,
            Err(refusal) => {
                self.refuse(conn, request, &refusal);
                return false;
            }
        };
        let Some(client) = self.clients.get_mut(conn) else { return false };
        client.connection.upgrade(upgrade, &mut self.turn);
        client.is_opened = true;
        if let Some((_, outbox)) = client.connection.session(&mut self.turn) {
            session::put_hello(outbox, conn, self.log.newest(), &self.turn.limits);
        }
        for topic in &reads.topics {
            let after = reads.after.unwrap_or(After::Now);
            if let Err(error) = self.subscribe(conn, topic, after, None) {
                let why = match error {
                    SubscribeError::TooMany => Reason::Subscriptions,
                    _ => Reason::MaxTopics,
                };
                self.close(conn, CloseCode::Again, &error.to_string(), why);
                break;
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
            self.count_resumed(after, place.is_gap);
            if let Some(number) = number {
                has_news |= self.log.topic(number).count_after(place.seen) > 0;
                places.push((number, place.seen));
            }
        }
        self.turn.counters.gaps += u64::from(is_gap);
        let may_wait = request.method() == "GET" && !has_news && !is_gap && self.drain.is_none();
        let wait = poll.wait.map(|wait| wait.min(self.turn.limits.wait_max));
        self.turn.counters.count_held(Held::WaitMax, may_wait && wait < poll.wait);
        if let Some(wait) = wait.filter(|wait| may_wait && !wait.is_zero()) {
            return self.begin_wait(conn, poll, wait);
        }
        let response = match wait {
            Some(wait) => long_poll(poll, wait).response(),
            None => Response::new(200).with("Cache-Control", "private, no-cache"),
        };
        let Some(client) = self.clients.get_mut(conn) else { return Ok(()) };
        let way = if poll.wait.is_some() { Way::LongPoll } else { Way::Poll };
        let answer = poll::Poll { places: &places, limit: poll.limit, is_gap, way };
        let known = |tag: &str| poll.wait.is_none() && routes::has_tag(request, tag);
        client.connection.respond_poll(&answer, response, known, &self.log, &mut self.turn);
        Ok(())
    }

    /// Begins an event stream, and tells the gaps at its place.
    fn stream(
        &mut self,
        conn: ConnId,
        request: &Request,
        reads: &Reads,
        is_text: bool,
    ) -> Result<(), Refusal> {
        if self.drain.is_some() {
            let detail = "the server is ending; come back in a moment";
            return Err(Refusal::new(503, Reason::Drain, detail));
        }
        let after = reads.after.unwrap_or(After::Now);
        let mut gaps = Vec::new();
        if request.method() != "HEAD" {
            gaps = self.read_all(conn, reads, after)?;
            for topic in &reads.topics {
                self.count_resumed(after, gaps.iter().any(|gap| *gap.topic == **topic));
            }
        }
        if let Some(client) = self.clients.get_mut(conn) {
            client.connection.stream(is_text, &gaps, &mut self.turn);
        }
        Ok(())
    }

    /// Makes the client a reader of all these topics, or of none; returns the gaps at its place.
    fn read_all(&mut self, conn: ConnId, reads: &Reads, after: After) -> Result<Vec<Gap>, Refusal> {
        let mut gaps = Vec::new();
        for topic in &reads.topics {
            // Only now: the topic before may have made another one go, perhaps this.
            let place = self.log.place(self.log.find(topic), after);
            if place.is_gap {
                gaps.extend(self.gap(topic, after));
            }
            if let Err(error) = self.clients.read(conn, topic, place.seen, &mut self.log) {
                self.clients.stop_reading(conn, &mut self.log);
                return Err(refusal_of(error));
            }
        }
        Ok(gaps)
    }

    fn begin_wait(
        &mut self,
        conn: ConnId,
        poll: &Poll,
        wait: std::time::Duration,
    ) -> Result<(), Refusal> {
        // Who has a gap is answered at once, so none is left to be told.
        self.read_all(conn, &poll.reads, poll.reads.after.unwrap_or(After::Earliest))?;
        if let Some(client) = self.clients.get_mut(conn) {
            client.connection.wait(long_poll(poll, wait), wait, &self.turn);
        }
        Ok(())
    }

    fn publish_request(
        &mut self,
        conn: ConnId,
        request: &Request,
        topic: &str,
    ) -> Result<(), Refusal> {
        let key = idempotency_key(request)?;
        let (number, id) = self.publish_for(conn, topic, request.message(), key)?;
        let readers = self.log.topic(number).readers();
        let mut json = Vec::with_capacity(96 + topic.len());
        json.extend_from_slice(b"{\"id\":");
        put_quoted_id(&mut json, id);
        json.extend_from_slice(b",\"topic\":");
        push_string(&mut json, topic);
        json.extend_from_slice(b",\"readers\":");
        put_number(&mut json, readers.into());
        json.extend_from_slice(b"}\n");
        let response = Response::json(201, json).with("Cache-Control", "no-store");
        self.respond(conn, &response);
        Ok(())
    }

    fn send_file(&mut self, conn: ConnId, request: &Request) -> Result<(), Refusal> {
        let not_found = Refusal::new(404, Reason::Request, "there is nothing at this path");
        let found = self.files.find(request.path()).map_err(|error| {
            let (peer, error) = (request.peer(), error.to_string());
            log::warn!("event=file_failed client={conn} peer={peer} error={error:?}");
            let detail = "the server has no descriptor left for the file; try again in a moment";
            Refusal::new(503, Reason::File, detail)
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

/// What is answered when a handler panicked.
pub(crate) fn handler_failed() -> Refusal {
    let detail = "the handler of this request failed; the server's log says why";
    Refusal::new(500, Reason::Panic, detail)
}

/// What a long poll waits with.
fn long_poll(poll: &Poll, wait: std::time::Duration) -> LongPoll {
    let preference = poll.is_preference.then_some(wait.as_secs());
    LongPoll { limit: poll.limit, preference, is_due: false }
}

/// The key under which the same is published once.
fn idempotency_key(request: &Request) -> Result<Option<&str>, Refusal> {
    let mut keys = request.raw_fields("idempotency-key");
    let key = match (keys.next(), keys.next()) {
        (None, _) => return Ok(None),
        (Some(key), None) => str::from_utf8(key).ok().filter(|key| session::is_key(key)),
        _ => None,
    };
    let wrong = || Refusal::new(400, Reason::Request, session::BAD_KEY);
    key.map(Some).ok_or_else(wrong)
}
