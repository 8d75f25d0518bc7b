//! THE DOOR: who is let in, who is forgotten, and how everyone leaves when the server ends.
//!
//! The steps of a turn (`server.rs`) that change who is connected, each after everyone has been
//! served: the drain begins in step 5, the finished are forgotten in step 7, and step 8 accepts.
//! That order keeps a slot from being reused while events of the same turn may still name it.

use mio::Interest;
use tungstenite::protocol::frame::coding::CloseCode;

use crate::clients::token_of;
use crate::handler::Handler;
use crate::http::Peer;
use crate::metrics::Reason;
use crate::server::Server;
use crate::stream::Stream;

impl<H: Handler> Server<H> {
    /// No new clients; those who are here are told, and have until the limit to be gone.
    pub(crate) fn begin_drain(&mut self) {
        let Some(code) = self.app.hub.drain.filter(|_| self.drain.is_none()) else { return };
        self.app.hub.is_draining = true;
        self.drain = Some(self.app.hub.now + self.app.hub.turn.limits.drain);
        let clients = self.app.hub.clients.len();
        log::info!("event=drain clients={clients} code={code}");
        // Its owner can ask for the rest to the end, and nobody waits for him.
        self.listeners.close(self.poll.registry(), true);
        let reason = match code {
            CloseCode::Restart => "the server is restarting",
            _ => "the server is stopping",
        };
        for id in self.app.hub.clients.ids() {
            if self.app.hub.is_control(id) {
                continue;
            }
            self.app.hub.close(id, code, reason, Reason::Drain);
        }
    }

    // 7

    pub(crate) fn forget(&mut self) {
        self.app.hub.clients.end_readings(&mut self.app.hub.log);
        let mut done = std::mem::take(&mut self.done);
        for id in done.drain(..) {
            let hub = &mut self.app.hub;
            let Some(mut client) = hub.clients.remove(id, &mut hub.log) else { continue };
            // Closing the descriptor would do, were it not for a copy of it in a child process.
            let _ = self.poll.registry().deregister(&mut client.stream);
            let since = Self::present();
            self.app.farewell(&client, Reason::Gone);
            self.clock(since, Some(id));
        }
        self.done = done;
        let hub = &self.app.hub;
        let is_over = self.drain.is_some_and(|until| hub.clients.is_empty() || until <= hub.now);
        if self.app.hub.is_stopped || is_over {
            self.end();
        }
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
            let Some(client) = hub.clients.remove(id, &mut hub.log) else { continue };
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
            for _ in 0..self.app.hub.turn.limits.turn_accept {
                if !self.may_accept(self.listeners.is_control(at)) {
                    break;
                }
                match self.listeners.accept(at, self.app.hub.now) {
                    Ok(Some((stream, peer))) => self.welcome(stream, peer, at),
                    Ok(None) => break,
                    Err(error) => {
                        log::warn!("event=accept_failed error={error}");
                        self.app.hub.turn.counters.accept_failures += 1;
                        return;
                    }
                }
            }
        }
        self.note_full();
    }

    /// Says once that clients have to wait, and once more when it comes to that again.
    fn note_full(&mut self) {
        for is_control in [false, true] {
            let is_full = self.listeners.is_any_ready(is_control) && !self.may_accept(is_control);
            let clients = &self.app.hub.clients;
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
            true => clients.numbers.control < limits.control_clients,
        }
    }

    /// Whether someone waits who can be accepted at once.
    pub(crate) fn can_accept(&self) -> bool {
        [false, true].iter().any(|it| self.listeners.is_any_ready(*it) && self.may_accept(*it))
    }

    fn welcome(&mut self, stream: Stream, peer: Peer, at: usize) {
        let hub = &mut self.app.hub;
        let is_control = self.listeners.is_control(at);
        hub.turn.counters.accepted += u64::from(!is_control);
        let listener = u16::try_from(at).unwrap_or(u16::MAX);
        let id = hub.clients.insert(stream, peer, (listener, is_control), &hub.turn);
        log::debug!("event=accepted client={id} peer={peer}");
        let Some(client) = hub.clients.get_mut(id) else { return };
        // Once, for both directions and for good: readiness is remembered, not asked for.
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        if let Err(error) = registry.register(&mut client.stream, token_of(id), interest) {
            log::warn!("event=accept_failed peer={peer} error={error}");
            hub.turn.counters.accept_failures += 1;
            client.connection.abort(Reason::Gone);
        }
        self.settle(id);
    }
}
