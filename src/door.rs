//! THE DOOR: who is let in, who is forgotten, and how everyone leaves when the server ends.
//!
//! The steps of a turn (`server.rs`) that change who is connected, each after everyone has been
//! served: the drain begins in step 5, the finished are forgotten in step 7, and step 8 accepts.
//! That order keeps a slot from being reused while events of the same turn may still name it.

use std::io;
use std::time::Duration;

use tungstenite::protocol::frame::coding::CloseCode;

use crate::client::Client;
use crate::clients::token_of;
use crate::drain::{self, Drain};
use crate::exchange::Exchange;
use crate::gate;
use crate::handler::Handler;
use crate::http::Peer;
use crate::id::ConnId;
use crate::listeners::Comes;
use crate::metrics::{Held, Reason};
use crate::net::Interest;
use crate::network::is_loopback;
use crate::server::{PLACES_MIN, Server};
use crate::stream::Stream;
use crate::tick::Tick;

impl<H: Handler> Server<H> {
    /// No new clients. Who rests between requests leaves at once, the others when they are told:
    /// [`Drain`] says when.
    pub(crate) fn drain(&mut self) {
        let Some(code) = self.app.hub.drain else { return };
        if self.drain.is_none() {
            self.begin_drain(code);
        }
        let now = self.app.hub.turn.now;
        let due = self.drain.as_mut().map(|drain| drain.take(now)).unwrap_or_default();
        for id in due {
            self.app.hub.tell_the_end(id, code);
        }
    }

    fn begin_drain(&mut self, code: CloseCode) {
        let hub = &mut self.app.hub;
        hub.is_draining = true;
        let (now, limit) = (hub.turn.now, hub.turn.limits.drain);
        log::info!(
            "event=drain clients={} code={code} over={:?} within={limit:?} hint={:?}",
            hub.clients.len(),
            drain::spread_over(limit),
            "a second TERM or INT (or Context::stop) ends it at once"
        );
        // Its owner can ask for the rest to the end, and nobody waits for him.
        self.listeners.close(self.poll.registry(), true);
        let waits = |id: &ConnId| self.app.hub.clients.get(*id).is_some_and(Client::is_kept_open);
        let is_guest = |id: &ConnId| !self.app.hub.is_control(*id);
        let (waiting, others): (Vec<_>, Vec<_>) =
            self.app.hub.clients.ids().into_iter().filter(is_guest).partition(waits);
        self.drain = Some(Drain::new(waiting, now, limit));
        for id in others {
            self.app.hub.tell_the_end(id, code);
        }
    }

    // 7

    pub(crate) fn forget(&mut self) {
        self.app.hub.clients.forget_heaviest();
        self.openings_due = self.drop_openings();
        self.app.hub.clients.end_readings(&mut self.app.hub.log);
        let mut done = std::mem::take(&mut self.done);
        for id in done.drain(..) {
            let hub = &mut self.app.hub;
            let Some(mut client) = hub.clients.remove(id, &mut hub.log) else { continue };
            client.part();
            // Closing the descriptor would do, were it not for a copy of it in a child process.
            let _ = self.poll.registry().deregister(&mut client.stream);
            hub.gate.leave(client.connection.peer, &mut client.is_counted);
            let since = Self::present();
            self.app.farewell(&client, Reason::Gone);
            self.clock(since, Some(id));
        }
        done.shrink_to(PLACES_MIN);
        self.done = done;
        let hub = &mut self.app.hub;
        hub.gate.sweep(&hub.turn.limits, hub.turn.now);
        let is_over = self
            .drain
            .as_ref()
            .is_some_and(|drain| hub.clients.is_empty() || drain.is_over(hub.turn.now));
        if self.app.hub.is_stopped || is_over && self.has_told_owner() {
            self.end();
        }
    }

    /// Tells the owner, the last one here, of the end; true if there is nobody to be told any more.
    /// What he is told is written in the next turn.
    fn has_told_owner(&mut self) -> bool {
        let hub = &mut self.app.hub;
        if std::mem::replace(&mut self.owner_is_told, true) || hub.clients.numbers.control == 0 {
            return true;
        }
        let code = hub.drain.unwrap_or(CloseCode::Away);
        for id in hub.clients.ids() {
            hub.tell_the_end(id, code);
        }
        false
    }

    /// The end: whoever is still here sees the end of our bytes.
    fn end(&mut self) {
        if self.has_ended {
            return;
        }
        self.has_ended = true;
        self.listeners.close(self.poll.registry(), false);
        for id in self.app.hub.clients.ids() {
            let hub = &mut self.app.hub;
            let Some(mut client) = hub.clients.remove(id, &mut hub.log) else { continue };
            client.part();
            self.app.farewell(&client, Reason::Drain);
        }
        self.commands.close();
        log::info!("event=ended {}", self.app.hub.turn.counters);
    }

    // 8

    pub(crate) fn accept(&mut self) {
        if self.listeners.is_paused(self.app.hub.now) {
            return;
        }
        for at in 0..self.listeners.len() {
            if let Err(error) = self.accept_some(at) {
                log::warn!("event=accept_failed error={:?}", error.to_string());
                self.app.hub.turn.counters.accept_failures += 1;
                return;
            }
        }
        self.note_full();
    }

    fn accept_some(&mut self, at: usize) -> io::Result<()> {
        let now = self.app.hub.now;
        let mut was_too_many = false;
        let most = self.app.hub.turn.limits.turn_accept;
        for number in 1..=most {
            if !self.may_accept(self.listeners.is_control(at)) {
                break;
            }
            match self.listeners.accept(at, self.app.hub.tls.as_ref(), now)? {
                Comes::Client(stream, peer) => self.welcome(stream, peer, at),
                Comes::TooMany(stream, peer) => {
                    self.turn_away(stream, peer, Reason::Descriptors);
                    self.listeners.keep_spare();
                    was_too_many = true;
                }
                Comes::Nobody => break,
            }
            self.app.hub.turn.counters.count_held(Held::TurnAccept, number == most);
        }
        if was_too_many {
            self.listeners.pause(now);
        }
        Ok(())
    }

    /// Tells somebody why not, as far as that can be told in one write, and lets go.
    fn turn_away(&mut self, mut stream: Stream, peer: Peer, reason: Reason) {
        let refusal = gate::refusal(reason);
        log::info!("event=refused client=- peer={peer} {refusal}");
        let turn = &mut self.app.hub.turn;
        turn.counters.count_refused(reason);
        // Before TLS there is nothing that could be told and understood.
        if reason == Reason::Deny || stream.is_handshaking() {
            return;
        }
        let mut outbox = turn.lend();
        let exchange = Exchange { is_last: true, ..Exchange::default() };
        exchange.put(&refusal.response(turn.retry_s()), &mut outbox, turn);
        // Who does not even take this does not want to know.
        let _ = outbox.write_to(&mut stream, usize::MAX);
        let _ = stream.shutdown();
        turn.take_back(outbox);
    }

    /// Says once that clients have to wait, and once more when it comes to that again.
    fn note_full(&mut self) {
        for is_control in [false, true] {
            let is_full = self.listeners.is_any_ready(is_control) && !self.may_accept(is_control);
            let (clients, limits) = (&self.app.hub.clients, &self.app.hub.turn.limits);
            // Whoever makes room there is still counted.
            let is_full =
                is_full && !(is_control && clients.numbers.control > limits.control_clients);
            let (was_full, count, reason) = match is_control {
                false => (&mut self.is_full, clients.len(), Reason::MaxClients),
                true => {
                    (&mut self.is_control_full, clients.numbers.control, Reason::ControlClients)
                }
            };
            if !std::mem::replace(was_full, is_full) && is_full {
                self.app.hub.turn.counters.count_refused(reason);
                log::warn!("event=full clients={count} reason={reason}");
            }
        }
    }

    /// Whether one more may come, through the control listener or one of the others.
    fn may_accept(&self, is_control: bool) -> bool {
        let (clients, limits) = (&self.app.hub.clients, &self.app.hub.turn.limits);
        match is_control {
            false => clients.len() < limits.max_clients,
            true => {
                // Who asks for nothing there has no claim to a place, and goes when another comes.
                let most = limits.control_clients;
                clients.numbers.control < most
                    || clients.numbers.control == most && clients.oldest_idle_control().is_some()
            }
        }
    }

    /// Whether someone waits who can be accepted at once.
    pub(crate) fn can_accept(&self) -> bool {
        [false, true].iter().any(|it| self.listeners.is_any_ready(*it) && self.may_accept(*it))
    }

    fn welcome(&mut self, stream: Stream, peer: Peer, at: usize) {
        let hub = &mut self.app.hub;
        let is_control = self.listeners.is_control(at);
        let is_near = match peer {
            Peer::Tcp(address) => is_loopback(address.ip()),
            Peer::Unix => true,
        };
        let admitted = match is_control && is_near {
            // The owner gets in.
            true => Ok(false),
            false => hub.gate.admit(peer, &hub.turn.limits, hub.turn.now),
        };
        let is_counted = match admitted {
            Ok(is_counted) => is_counted,
            Err(reason) => return self.turn_away(stream, peer, reason),
        };
        hub.turn.counters.accepted += u64::from(!is_control);
        if is_control
            && hub.clients.numbers.control >= hub.turn.limits.control_clients
            && let Some(idle) = hub.clients.oldest_idle_control()
        {
            hub.end_now(idle, Reason::ControlClients);
        }
        let listener = u16::try_from(at).unwrap_or(u16::MAX);
        let id = hub.clients.insert(stream, peer, (listener, is_control), &hub.turn);
        log::debug!("event=accepted client={id} peer={peer}");
        let Some(client) = hub.clients.get_mut(id) else { return };
        client.is_counted = is_counted;
        client.is_proxy = !is_control && hub.gate.trusts(peer);
        // Once, for both directions and for good: readiness is remembered, not asked for.
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        if let Err(error) = registry.register(&mut client.stream, token_of(id), interest) {
            let text = error.to_string();
            log::warn!("event=accept_failed client={id} peer={peer} error={text:?}");
            hub.turn.counters.accept_failures += 1;
            client.connection.abort(Reason::Gone);
        }
        self.settle(id);
    }

    /// Whoever has not made a request has no claim to a place: the oldest make room, but each has
    /// had a second for it. Returns when the next one's is over.
    fn drop_openings(&mut self) -> Tick {
        let hub = &mut self.app.hub;
        let limits = &hub.turn.limits;
        let most = limits.openings.min((limits.max_clients / 10).max(OPENINGS_MIN));
        while let Some((id, since)) = hub.clients.oldest_fresh(most) {
            let until = since.after(OPENING_MIN);
            if until > hub.turn.now {
                return until;
            }
            hub.clients.is_fresh_no_more(id);
            hub.end_now(id, Reason::Openings);
        }
        Tick::NEVER
    }

    /// Counts anew what a client holds, who may hold more now: whether all hold more than `memory`.
    pub(crate) fn is_over(&mut self, id: ConnId) -> bool {
        let hub = &mut self.app.hub;
        hub.clients.recount(id);
        hub.clients.numbers.held_bytes > hub.turn.limits.memory
    }

    /// The same, and then whoever holds most is dropped until it holds again: at once, as thousands
    /// may send something in one turn. What can be written is to be written before.
    pub(crate) fn weigh(&mut self, id: ConnId) {
        for _ in 0..RELIEVED_MAX {
            if !self.is_over(id) {
                return;
            }
            let hub = &mut self.app.hub;
            let Some(heaviest) = hub.clients.heaviest(id) else { return };
            let Some(client) = hub.clients.get_mut(heaviest) else { return };
            hub.turn.counters.count_refused(Reason::Memory);
            let before = client.connection.held_bytes();
            client.connection.cut(Reason::Memory, &mut hub.turn);
            // A frame that is partly written stays, lest what follows be read as its end.
            if client.connection.held_bytes() > before / 2 {
                client.connection.abort(Reason::Memory);
            }
            hub.clients.recount(heaviest);
            hub.clients.touch(heaviest);
        }
    }
}

/// Clients who may be without a request, however few may be here.
const OPENINGS_MIN: usize = 64;

/// How long a client may be without a request, however many are.
const OPENING_MIN: Duration = Duration::from_secs(1);

/// Clients that are dropped because one has grown. One is enough, if that one is the heaviest; many
/// may be those who held as little as they could.
const RELIEVED_MAX: usize = 64;
