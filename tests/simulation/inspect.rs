//! What a simulation looks at inside the server, between two turns. It changes nothing.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "a test that is compiled elsewhere")]

use std::time::Duration;

use crate::client::Client;
use crate::clients::token_of;
use crate::id::ConnId;
use crate::limits::Limits;
use crate::message::Kind;
use crate::metrics::Counters;
use crate::net::Token;
use crate::server::Server;
use crate::tick::Tick;

/// One client, as the server sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub id: ConnId,
    pub token: Token,
    pub waiting_bytes: usize,
    pub held_bytes: usize,
    pub is_reading: bool,
    /// There is something for it in the log.
    pub is_behind: bool,
    /// Its socket takes bytes, and something that it has not been given is no longer there.
    pub is_lost: bool,
    pub wants_input: bool,
    /// The loop will come to it without being told.
    pub is_listed: bool,
    pub deadline: Tick,
    pub armed: Tick,
    pub readings: usize,
}

/// One topic.
#[derive(Clone, Debug)]
pub struct SeenTopic {
    pub name: String,
    pub floor: u64,
    pub last: u64,
    pub readers: usize,
}

/// One entry of the log.
#[derive(Debug, PartialEq)]
pub struct SeenEntry {
    pub seq: u64,
    pub topic: String,
    pub kind: Kind,
    pub payload: Vec<u8>,
    pub except: Option<ConnId>,
}

/// Everything else.
#[derive(Clone, Debug)]
pub struct Inside {
    pub clients: Vec<Seen>,
    pub topics: Vec<SeenTopic>,
    pub newest: u64,
    pub now: Tick,
    pub log_bytes: usize,
    /// As it is counted.
    pub held_bytes: usize,
    pub waiting_bytes: usize,
    pub counted_clients: usize,
    pub soonest: Tick,
    pub lists: usize,
    pub is_paused: bool,
    pub elapsed: Duration,
}

impl<H> Server<H> {
    /// A look at one client.
    fn seen(&self, client: &Client) -> Seen {
        let (connection, log) = (&client.connection, &self.app.hub.log);
        Seen {
            id: connection.id,
            token: token_of(connection.id),
            waiting_bytes: connection.waiting_bytes(),
            held_bytes: connection.held_bytes(),
            is_reading: connection.is_reading(),
            is_behind: connection.is_reading() && connection.cursor.is_behind(log),
            is_lost: connection.is_reading()
                && client.is_writable
                && connection.cursor.gap(log).is_some(),
            wants_input: connection.wants_input(&self.app.hub.turn),
            // Of those whose deadline has come some may not have been looked at yet.
            is_listed: !self.due.is_empty()
                || client.is_touched
                || client.is_due
                || client.is_busy
                || connection.is_done(),
            deadline: connection.deadline(),
            armed: client.armed,
            readings: connection.cursor.places().count(),
        }
    }

    /// A look at some of them, from this slot on, and round.
    pub fn some(&self, first: usize, count: usize) -> Vec<Seen> {
        let clients = &self.app.hub.clients;
        let found = clients.beginning_at(first).take(count).map(|it| self.seen(it));
        found.collect()
    }

    /// How many there are, and the bytes that they hold.
    pub fn counted(&self) -> (usize, usize) {
        let clients = &self.app.hub.clients;
        (clients.len(), clients.numbers.held_bytes)
    }

    /// A look at everything.
    pub fn inside(&self) -> Inside {
        let hub = &self.app.hub;
        let log = &hub.log;
        let clients = hub.clients.iter().map(|client| self.seen(client));
        let topics = log.topics_from(0).map(|(_, topic)| SeenTopic {
            name: topic.name().to_string(),
            floor: topic.floor(),
            last: topic.last(),
            readers: topic.readers() as usize,
        });
        let by_transport: usize =
            crate::event::Transport::ALL.iter().map(|it| hub.clients.numbers.of(*it)).sum();
        Inside {
            clients: clients.collect(),
            topics: topics.collect(),
            newest: log.newest().seq,
            now: hub.turn.now,
            log_bytes: log.bytes(),
            held_bytes: hub.clients.numbers.held_bytes,
            waiting_bytes: hub.clients.numbers.waiting_bytes,
            counted_clients: by_transport + hub.clients.numbers.control,
            soonest: self.deadlines.soonest(),
            lists: self.busy.len() + self.done.len() + self.due.len() + self.ready.len(),
            is_paused: self.listeners.paused_until().is_some(),
            elapsed: hub.now - self.started,
        }
    }

    /// What was appended since the last time, even if it is no longer there.
    pub fn appended(&mut self) -> Vec<SeenEntry> {
        let appended = std::mem::take(&mut self.app.hub.log.appended).into_iter();
        let seen = appended.map(|(topic, seq, (kind, payload), except)| SeenEntry {
            seq,
            topic: topic.to_string(),
            kind,
            payload,
            except,
        });
        seen.collect()
    }

    /// The entries above this one, in the order of their topics.
    pub fn entries_after(&self, seq: u64) -> Vec<SeenEntry> {
        let log = &self.app.hub.log;
        let mut found = Vec::new();
        for (_, topic) in log.topics_from(0) {
            found.extend(topic.after(seq).map(|entry| SeenEntry {
                seq: entry.seq,
                topic: topic.name().to_string(),
                kind: entry.kind,
                payload: entry.payload().to_vec(),
                except: entry.except,
            }));
        }
        found
    }

    /// How many are to be read, how many are to be visited, and how many of those later.
    pub fn lists(&self) -> (usize, usize, usize) {
        let clients = &self.app.hub.clients;
        (self.busy.len(), clients.touched(false), clients.touched(true))
    }

    /// How many deadlines have come, from the beginning on.
    pub fn came(&self) -> u64 {
        self.deadlines.came
    }

    pub fn now(&self) -> Tick {
        self.app.hub.turn.now
    }

    pub fn counters(&self) -> &Counters {
        &self.app.hub.turn.counters
    }

    pub fn limits(&self) -> &Limits {
        &self.app.hub.turn.limits
    }
}
