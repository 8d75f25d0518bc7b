//! Everyone connected: the slab of clients, how many there are and what they hold, and who of them
//! is to be visited. What each topic's readers are offered, and when, is `readers.rs`.
//!
//! Invariants: an id is never reused, so a stale one finds nobody. A client's reading knows where
//! it stands in its topic's list, and that knows the client's slot, so joining and leaving take the
//! same time however many readers there are.

use std::collections::VecDeque;

#[cfg(not(simulation))]
use slab::Slab;

use crate::busy::Next;
use crate::client::{Client, Counted};
use crate::connection::Connection;
use crate::error::PublishError;
use crate::event::Transport;
use crate::http::Peer;
use crate::id::ConnId;
use crate::log::Log;
use crate::net::Token;
#[cfg(simulation)]
use crate::net::machine::Slots as Slab;
use crate::readers::Readers;
use crate::stream::Stream;
use crate::tick::Tick;
use crate::topic::TopicNumber;
use crate::turn::Turn;

/// How many there are, and what they hold, kept up to date rather than looked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Numbers {
    /// By transport; without those of the control listener.
    by_transport: [usize; Transport::ALL.len()],
    /// Those of the control listener.
    pub(crate) control: usize,
    /// Bytes that wait for sockets.
    pub(crate) waiting_bytes: usize,
    /// Bytes that count for the limit `memory`.
    pub(crate) held_bytes: usize,
}

impl Numbers {
    /// How many are connected in this way.
    pub(crate) fn of(&self, transport: Transport) -> usize {
        self.by_transport.get(transport as usize).copied().unwrap_or(0)
    }

    /// A client goes from the one to the other; `None`: from, or to, where it is not counted.
    fn change(&mut self, is_control: bool, from: Option<Counted>, to: Option<Counted>) {
        if let Some(to) = to {
            *self.number_mut(is_control, to.transport) += 1;
            self.waiting_bytes += to.waiting_bytes as usize;
            self.held_bytes += to.held_bytes as usize;
        }
        if let Some(from) = from {
            *self.number_mut(is_control, from.transport) -= 1;
            self.waiting_bytes -= from.waiting_bytes as usize;
            self.held_bytes -= from.held_bytes as usize;
        }
    }

    fn number_mut(&mut self, is_control: bool, transport: Transport) -> &mut usize {
        match self.by_transport.get_mut(transport as usize) {
            Some(number) if !is_control => number,
            _ => &mut self.control,
        }
    }
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Clients {
    slots: Slab<Client>,
    generation: u32,
    pub(crate) numbers: Numbers,
    /// Who reads which topic, and which topics are being offered to them.
    pub(crate) readers: Readers,
    touched: VecDeque<ConnId>,
    /// Clients whose deadline has come, to be visited after those.
    due: VecDeque<ConnId>,
    /// Clients whose readings are to be given up.
    leaving: Vec<ConnId>,
    /// Those who have not made a request yet, the oldest first, and some who have; and how many.
    fresh: VecDeque<ConnId>,
    fresh_count: usize,
    /// Those of the control listener, few as they are.
    control: Vec<ConnId>,
    /// The heaviest of this turn, as they were when they were looked for; the heaviest is the last.
    heaviest: Vec<(u32, ConnId)>,
}

/// Places of the lists of those to be visited that are never given back.
const PLACES_MIN: usize = 4096;

/// So many of the heaviest are found with one look at all clients.
const HEAVIEST: usize = 64;

impl Clients {
    /// Room for `capacity` clients.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            // A large slab is address space, not memory, until clients come.
            slots: Slab::with_capacity(capacity),
            generation: 0,
            numbers: Numbers::default(),
            readers: Readers::default(),
            touched: VecDeque::new(),
            due: VecDeque::new(),
            leaving: Vec::new(),
            fresh: VecDeque::new(),
            fresh_count: 0,
            control: Vec::new(),
            heaviest: Vec::new(),
        }
    }

    /// How many are connected, without those of the control listener.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.numbers.control
    }

    /// Whether nobody is, but through the control listener.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn insert(
        &mut self,
        stream: Stream,
        peer: Peer,
        (listener, is_control): (u16, bool),
        turn: &Turn,
    ) -> ConnId {
        self.generation = self.generation.wrapping_add(1);
        let slot = self.slots.vacant_entry();
        let index = u32::try_from(slot.key()).expect("max-clients fits in 32 bits");
        let id = ConnId::new(index, self.generation);
        let counted = Counted::default();
        self.numbers.change(is_control, None, Some(counted));
        slot.insert(Client::new(id, stream, peer, (listener, is_control), turn));
        if is_control {
            self.control.push(id);
        } else {
            self.fresh.push_back(id);
            self.fresh_count += 1;
        }
        if self.fresh.len() > 2 * self.fresh_count + 64 {
            let is_fresh = |id: &ConnId| self.get(*id).is_some_and(|client| client.is_fresh);
            let fresh = self.fresh.iter().copied().filter(is_fresh).collect();
            self.fresh = fresh;
        }
        id
    }

    /// The client has made a request, or will never.
    pub(crate) fn is_fresh_no_more(&mut self, id: ConnId) {
        if let Some(client) = self.get_mut(id).filter(|client| client.is_fresh) {
            client.is_fresh = false;
            self.fresh_count -= 1;
        }
    }

    /// The oldest client of those who have not made a request yet, and when it came, if there are
    /// more than so many.
    pub(crate) fn oldest_fresh(&mut self, most: usize) -> Option<(ConnId, Tick)> {
        while self.fresh_count > most {
            let id = *self.fresh.front()?;
            if let Some(client) = self.get(id).filter(|client| client.is_fresh) {
                return Some((id, client.since));
            }
            self.fresh.pop_front();
        }
        None
    }

    /// The client of the control listener that came first, of those who ask for nothing.
    pub(crate) fn oldest_idle_control(&self) -> Option<ConnId> {
        let rests = |it: &Connection| it.stage.is_resting() && it.waiting_bytes() == 0;
        let control = self.control.iter().filter_map(|id| self.get(*id));
        let idle = control.filter(|it| rests(&it.connection) && !it.is_readable);
        let oldest = idle.min_by_key(|it| (it.since, it.connection.id.generation()))?;
        Some(oldest.connection.id)
    }

    /// The client that holds most, as far as is known without a look at all for each: of those who
    /// held most when they were looked for in this turn, and `grown`, who has just grown.
    pub(crate) fn heaviest(&mut self, grown: ConnId) -> Option<ConnId> {
        let grown_bytes = self.droppable_bytes(grown);
        for is_new in [self.heaviest.is_empty(), true] {
            if is_new {
                self.find_heaviest();
            }
            while let Some((before, id)) = self.heaviest.pop() {
                let bytes = self.droppable_bytes(id);
                // What it held may have become a message meanwhile, or it has gone.
                if bytes == 0 || bytes < before / 2 {
                    continue;
                }
                if bytes < grown_bytes {
                    self.heaviest.push((before, id));
                    return Some(grown);
                }
                return Some(id);
            }
        }
        (grown_bytes > 0).then_some(grown)
    }

    fn droppable_bytes(&self, id: ConnId) -> u32 {
        let here = self.get(id).filter(|client| !client.connection.is_done());
        here.map_or(0, |client| client.counted.held_bytes)
    }

    fn find_heaviest(&mut self) {
        let here = self.iter().filter(|client| !client.connection.is_done());
        let held = here.map(|client| (client.counted.held_bytes, client.connection.id));
        let mut all: Vec<_> = held.filter(|(bytes, _)| *bytes > 0).collect();
        let light = all.len().saturating_sub(HEAVIEST);
        if light > 0 {
            all.select_nth_unstable_by_key(light, |(bytes, _)| *bytes);
            all.drain(..light);
        }
        all.sort_unstable_by_key(|(bytes, _)| *bytes);
        self.heaviest = all;
    }

    /// A turn ends: who holds most in the next is another question.
    pub(crate) fn forget_heaviest(&mut self) {
        self.heaviest = Vec::new();
    }

    /// The client of this name, if it has not left.
    pub(crate) fn get(&self, id: ConnId) -> Option<&Client> {
        self.slots.get(id.index() as usize).filter(|client| client.connection.id == id)
    }

    /// The client of this name, if it has not left.
    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut Client> {
        self.slots.get_mut(id.index() as usize).filter(|client| client.connection.id == id)
    }

    /// The client in this slot, whoever it is.
    pub(crate) fn at_slot_mut(&mut self, slot: u32) -> Option<&mut Client> {
        self.slots.get_mut(slot as usize)
    }

    /// The client whose stream is registered with this token.
    pub(crate) fn get_by_token(&mut self, token: Token) -> Option<&mut Client> {
        let client = self.slots.get_mut(index_of(token))?;
        (token_of(client.connection.id) == token).then_some(client)
    }

    /// This client was read, which took long or did not.
    pub(crate) fn note_visit(&mut self, visit: Next, took_long: bool, now: Tick) {
        if let Some(client) = self.get_mut(visit.id) {
            client.note_visit(visit, took_long, now);
        }
    }

    /// Whether this one is still here.
    pub(crate) fn has(&self, id: ConnId) -> bool {
        self.get(id).is_some()
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Client> {
        self.slots.iter().map(|(_, client)| client)
    }

    /// Their names, for a walk on which they change.
    pub(crate) fn ids(&self) -> Vec<ConnId> {
        self.iter().map(|client| client.connection.id).collect()
    }

    pub(crate) fn remove(&mut self, id: ConnId, log: &mut Log) -> Option<Client> {
        self.get(id)?;
        self.stop_reading(id, log);
        self.control.retain(|it| *it != id);
        self.is_fresh_no_more(id);
        let client = self.slots.remove(id.index() as usize);
        self.numbers.change(client.is_control, Some(client.counted), None);
        Some(client)
    }

    /// Brings the numbers up to date with what this client is now.
    pub(crate) fn recount(&mut self, id: ConnId) {
        let Some(client) = self.slots.get_mut(id.index() as usize) else { return };
        let now = Counted::of(&client.connection);
        if client.counted != now {
            let before = std::mem::replace(&mut client.counted, now);
            self.numbers.change(client.is_control, Some(before), Some(now));
        }
    }

    /// Those in the slots from this one on, in the order of their slots.
    pub(crate) fn beginning_at(&self, first: usize) -> impl Iterator<Item = &Client> {
        let end = self.slots.iter().next_back().map_or(0, |(last, _)| last + 1);
        (first..end).filter_map(|at| self.slots.get(at))
    }

    /// Has the loop visit the client before this turn ends.
    pub(crate) fn touch(&mut self, id: ConnId) {
        if let Some(client) = self.get_mut(id).filter(|client| !client.is_touched) {
            client.is_touched = true;
            self.touched.push_back(id);
        }
    }

    /// Has the loop visit the client when it has visited those who have done something: its
    /// deadline has come.
    pub(crate) fn touch_later(&mut self, id: ConnId) {
        let is_new = |client: &&mut Client| !client.is_touched && !client.is_due;
        if let Some(client) = self.get_mut(id).filter(is_new) {
            client.is_due = true;
            self.due.push_back(id);
        }
    }

    /// Whether somebody is to be visited.
    pub(crate) fn has_touched(&self) -> bool {
        self.touched.len() + self.due.len() > 0
    }

    /// How many are: those who were touched, or those whose deadline has come.
    pub(crate) fn touched(&self, is_due: bool) -> usize {
        if is_due { self.due.len() } else { self.touched.len() }
    }

    /// The next of them.
    pub(crate) fn next_touched(&mut self, is_due: bool) -> Option<ConnId> {
        let id = if is_due { self.due.pop_front() } else { self.touched.pop_front() }?;
        match self.get_mut(id) {
            Some(client) if is_due => client.is_due = false,
            Some(client) => (client.is_touched, client.is_spent) = (false, false),
            None => {}
        }
        Some(id)
    }

    /// What a crowd needed is given back once most of it has been visited.
    pub(crate) fn end_visits(&mut self) {
        for list in [&mut self.touched, &mut self.due] {
            if list.capacity() > 4 * list.len() + PLACES_MIN {
                list.shrink_to(2 * list.len());
            }
        }
    }

    // Who reads which topic.

    /// Makes the client a reader of the topic from `seen` on; false if it is one already.
    ///
    /// # Errors
    /// What [`Log::join`] says.
    pub(crate) fn read(
        &mut self,
        id: ConnId,
        topic: &str,
        seen: u64,
        log: &mut Log,
    ) -> Result<bool, PublishError> {
        if let Some(number) = log.find(topic) {
            let reads = |client: &Client| client.reads(number);
            if self.get(id).is_none_or(reads) {
                return Ok(false);
            }
        }
        let number = log.join(topic)?;
        let Some(client) = self.slots.get_mut(id.index() as usize) else { return Ok(false) };
        let listed_at = self.readers.join(number, id.index());
        client.connection.cursor.read(number, seen, listed_at);
        self.touch(id);
        Ok(true)
    }

    /// Ends the client's reading of the topic; false if it was no reader.
    pub(crate) fn unread(&mut self, id: ConnId, number: TopicNumber, log: &mut Log) -> bool {
        let Some(client) = self.get_mut(id) else { return false };
        let Some(gone) = client.connection.cursor.give_up(number) else { return false };
        if let Some(moved) = self.readers.leave(number, gone.listed_at) {
            let moved = self.slots.get_mut(moved as usize);
            let reading = moved.and_then(|it| it.connection.cursor.reading_mut(number));
            if let Some(reading) = reading {
                reading.listed_at = gone.listed_at;
            }
        }
        log.leave(number);
        true
    }

    pub(crate) fn stop_reading(&mut self, id: ConnId, log: &mut Log) {
        while let Some(reading) =
            self.get(id).and_then(|client| client.connection.cursor.readings.last().copied())
        {
            self.unread(id, reading.topic, log);
        }
    }

    /// The next reader of the topic to be visited; `None`: all were.
    pub(crate) fn next_reader(&mut self, number: TopicNumber) -> Option<ConnId> {
        let slot = self.readers.next(number)?;
        self.slots.get(slot as usize).map(|client| client.connection.id)
    }

    /// Notes that the client's readings are over. They count until the turn's end, so that all
    /// whose wait ends together are told the same number of readers.
    pub(crate) fn leaves_at_turns_end(&mut self, id: ConnId) {
        self.leaving.push(id);
    }

    pub(crate) fn end_readings(&mut self, log: &mut Log) {
        while let Some(id) = self.leaving.pop() {
            if self.get(id).is_some_and(|client| !client.connection.is_reading()) {
                self.stop_reading(id, log);
                self.recount(id);
            }
        }
    }
}

/// On 64 bits the token carries the whole name, so an event for a client that has left is known by
/// it; on 32 bits it carries the slot, and rule 5 (free late, accept last) keeps them apart.
pub(crate) fn token_of(id: ConnId) -> Token {
    #[cfg(target_pointer_width = "64")]
    return Token((id.generation() as usize) << 32 | id.index() as usize);
    #[cfg(not(target_pointer_width = "64"))]
    return Token(id.index() as usize);
}

fn index_of(token: Token) -> usize {
    token.0 & u32::MAX as usize
}
