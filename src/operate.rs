//! Carrying out what is asked over the control listener: the hub as its owner sees it.
//!
//! Invariants: a page has at most `limit` members, and ends with the one that passes `poll-bytes`.
//! Topics and clients keep their slots, so going on after the last one shows everyone who is there
//! all the while exactly once.

use tungstenite::protocol::frame::coding::CloseCode;

use crate::client::Client;
use crate::control::{self, Action, Page};
use crate::error::SendError;
use crate::event::Transport;
use crate::exposition::{self, State};
use crate::forms::put_quoted_id;
use crate::http::{Refusal, Request};
use crate::hub::Hub;
use crate::id::ConnId;
use crate::json::push_string;
use crate::metrics::Reason;
use crate::process::Process;
use crate::response::{Response, put_number, rfc3339};
use crate::tick::Tick;
use crate::tls::Tls;
use crate::topic::Topic;

impl Hub {
    /// Carries out everything but an answer that any listener gives, and the metrics: these two
    /// the handler has a part in.
    pub(crate) fn operate(&mut self, conn: ConnId, request: &Request, action: Action) {
        let answer = match action {
            Action::Answer(_) | Action::Metrics => return,
            Action::Ready => Ok(self.readiness()),
            Action::Topics(page) => Ok(self.topics(page)),
            Action::Topic(name) => self.topic(&name),
            Action::DropTopic(name) => self.drop_topic(conn, &name),
            Action::Clients(page) => Ok(self.clients_page(page)),
            Action::Client(id) => self.client(id),
            Action::CloseClient(id) => self.close_client(conn, id),
            Action::SendTo(id) => self.send_to(id, request),
        };
        match answer {
            Ok(response) => self.respond(conn, &response),
            Err(refusal) => self.refuse(conn, request, &refusal),
        }
    }

    /// All metrics that are built in.
    pub(crate) fn metrics(&self) -> String {
        let numbers = &self.clients.numbers;
        let by_transport = Transport::ALL.iter().map(|it| (it.word(), numbers.of(*it)));
        let state = State {
            clients: by_transport.collect(),
            clients_max: self.turn.limits.max_clients,
            control_clients: numbers.control,
            waiting_bytes: numbers.waiting_bytes,
            history_entries: self.log.len(),
            history_bytes: self.log.bytes(),
            history_dropped: self.log.dropped(),
            topics: self.log.topics(),
            is_draining: self.drain.is_some(),
            uptime_s: self.turn.now.since_start().as_secs_f64(),
            certificate_until_s: self.tls.as_ref().and_then(Tls::not_after),
            process: Process::read(),
        };
        exposition::text(&self.turn.counters, &state)
    }

    /// Asked again and again, so it is neither logged nor counted as a refusal.
    fn readiness(&self) -> Response {
        match self.drain {
            None => control::fresh(Response::text(200, "ready\n")),
            Some(_) => Response::problem(503, "the server is ending and takes no clients")
                .with("Retry-After", "5"),
        }
    }

    fn topics(&self, page: Page) -> Response {
        let topics = self.log.topics_from(page.from);
        self.list("topics", page, topics, |out, (at, topic)| {
            self.put_topic(out, topic);
            at.to_string()
        })
    }

    fn clients_page(&self, page: Page) -> Response {
        let clients = self.clients.beginning_at(page.from).filter(|client| is_shown(client));
        self.list("clients", page, clients, |out, client| {
            self.put_client(out, client);
            format!("\"{}\"", client.connection.id)
        })
    }

    /// A page: `{"NAME":[…],"next":…}`. `put` writes a member and returns, as JSON, after what to
    /// go on.
    fn list<T>(
        &self,
        name: &str,
        page: Page,
        members: impl Iterator<Item = T>,
        put: impl Fn(&mut Vec<u8>, T) -> String,
    ) -> Response {
        let mut out = format!("{{\"{name}\":[").into_bytes();
        let mut last = None;
        let mut members = members.peekable();
        for count in 0..page.limit {
            if count > 0 && out.len() >= self.turn.limits.poll_bytes {
                break;
            }
            let Some(member) = members.next() else { break };
            out.extend_from_slice(if count > 0 { b",\n" } else { b"\n" });
            last = Some(put(&mut out, member));
        }
        let next = last.filter(|_| members.peek().is_some());
        out.extend_from_slice(b"],\"next\":");
        out.extend_from_slice(next.as_deref().unwrap_or("null").as_bytes());
        out.extend_from_slice(b"}\n");
        control::fresh(Response::json(200, out))
    }

    fn topic(&self, name: &str) -> Result<Response, Refusal> {
        let number = self.log.find(name).ok_or_else(control::no_topic)?;
        let mut out = Vec::new();
        self.put_topic(&mut out, self.log.topic(number));
        out.push(b'\n');
        Ok(control::fresh(Response::json(200, out)))
    }

    fn put_topic(&self, out: &mut Vec<u8>, topic: &Topic) {
        out.extend_from_slice(b"{\"topic\":");
        push_string(out, topic.name());
        for (name, number) in [
            (&b",\"readers\":"[..], u64::from(topic.readers())),
            (b",\"messages\":", topic.len() as u64),
            (b",\"bytes\":", topic.bytes() as u64),
        ] {
            out.extend_from_slice(name);
            put_number(out, number);
        }
        out.extend_from_slice(b",\"oldest\":");
        match topic.oldest() {
            Some(oldest) => put_quoted_id(out, self.log.id(oldest)),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"last\":");
        put_quoted_id(out, self.log.id(topic.last()));
        out.push(b'}');
    }

    /// Its readers stay. Those who were behind are visited, and told of the gap.
    fn drop_topic(&mut self, conn: ConnId, name: &str) -> Result<Response, Refusal> {
        let number = self.log.find(name).ok_or_else(control::no_topic)?;
        let messages = self.log.topic(number).len();
        log::info!("event=topic_dropped client={conn} topic={name:?} messages={messages}");
        self.log.clear(number);
        self.clients.readers.spread(number, None);
        Ok(Response::new(204))
    }

    fn client(&self, id: ConnId) -> Result<Response, Refusal> {
        let client = self.shown(id)?;
        let mut out = Vec::new();
        self.put_client(&mut out, client);
        out.push(b'\n');
        Ok(control::fresh(Response::json(200, out)))
    }

    fn shown(&self, id: ConnId) -> Result<&Client, Refusal> {
        let client = self.clients.get(id).filter(|client| is_shown(client));
        client.ok_or_else(control::no_client)
    }

    fn put_client(&self, out: &mut Vec<u8>, client: &Client) {
        let connection = &client.connection;
        let readings = || connection.cursor.readings.iter();
        out.extend_from_slice(format!("{{\"id\":\"{}\"", connection.id).as_bytes());
        out.extend_from_slice(b",\"transport\":");
        push_string(out, connection.transport().word());
        out.extend_from_slice(b",\"peer\":");
        push_string(out, &connection.peer.to_string());
        out.extend_from_slice(b",\"topics\":[");
        for (at, reading) in readings().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            push_string(out, self.log.topic(reading.topic).name());
        }
        out.extend_from_slice(b"],\"lag\":");
        let lag = readings().map(|it| self.log.topic(it.topic).count_after(it.seen));
        put_number(out, lag.sum::<usize>() as u64);
        out.extend_from_slice(b",\"bytes\":");
        put_number(out, connection.waiting_bytes() as u64);
        out.extend_from_slice(b",\"since\":");
        push_string(out, &self.date(client.since));
        out.push(b'}');
    }

    /// A tick as people write it. The clock was looked at once, when the run began.
    fn date(&self, tick: Tick) -> String {
        let run_ms = self.log.newest().run;
        let since_ms = u64::try_from(tick.since_start().as_millis()).unwrap_or(0);
        rfc3339(run_ms.saturating_add(since_ms) / 1000)
    }

    fn close_client(&mut self, conn: ConnId, id: ConnId) -> Result<Response, Refusal> {
        self.shown(id)?;
        log::info!("event=client_closed client={id} by={conn}");
        let reason = "closed by the owner of the server";
        if self.clients.get(id).is_some_and(Client::is_kept_open) {
            self.close(id, CloseCode::Policy, reason, Reason::Control);
        } else {
            // What it is in the middle of saying is not heard any more.
            self.end_now(id, Reason::Control);
        }
        Ok(Response::new(204))
    }

    fn send_to(&mut self, id: ConnId, request: &Request) -> Result<Response, Refusal> {
        self.shown(id)?;
        match self.send(id, request.message()) {
            Ok(()) => Ok(Response::new(202)),
            Err(SendError::Gone) => Err(control::no_websocket()),
            // Where it was refused it was counted.
            Err(SendError::Full) => {
                Ok(Response::problem(503, &SendError::Full.to_string()).with("Retry-After", "5"))
            }
        }
    }
}

/// Whether a client is one of those whom the owner sees: all but those of the control listener that
/// read nothing, such as the one that asks.
fn is_shown(client: &Client) -> bool {
    !client.is_control || client.is_kept_open()
}
