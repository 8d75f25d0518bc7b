//! One connection without a socket, where time is an argument: for limits that are times.

use std::time::Duration;

use pousse::seam::{Connection, Event, Rules, Tick, Turn, handshake};
use pousse::{Config, ConnId, Limits, Peer, Publish, Response};

use crate::peer::opening;

/// A connection whose requests are answered at once with 200, or with an opening handshake.
pub(crate) struct ByHand {
    pub(crate) connection: Connection,
    pub(crate) turn: Turn,
    pub(crate) heard: Vec<u8>,
    pub(crate) messages: usize,
}

impl ByHand {
    pub(crate) fn new(change: impl FnOnce(&mut Limits)) -> Self {
        let mut config = Config::default();
        change(&mut config.limits);
        let turn = Turn::new(&config);
        let connection = Connection::new(ConnId::new(0, 1), Peer::Unix, &turn);
        Self { connection, turn, heard: Vec::new(), messages: 0 }
    }

    /// A WebSocket, opened at time 0.
    pub(crate) fn websocket(change: impl FnOnce(&mut Limits)) -> Self {
        let mut by_hand = Self::new(change);
        by_hand.says(opening("/websocket").as_bytes());
        assert!(by_hand.connection.is_open());
        by_hand.heard.clear();
        by_hand
    }

    /// Gives it bytes and writes what comes of them.
    pub(crate) fn says(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let mut input = bytes.as_mut_slice();
        while let Some(event) = self.connection.receive(&mut input, &mut self.turn) {
            match event {
                Event::Request(request) if !request.is_whole() => {
                    self.connection.read_content(request, &mut self.turn);
                }
                Event::Request(request) if request.is_upgrade() => {
                    let rules = Rules::new(&Config::default(), Publish::Anyone);
                    let upgrade = handshake(&request, &rules, false).unwrap();
                    self.connection.upgrade(upgrade, &mut self.turn);
                }
                Event::Request(_) => {
                    self.connection.respond(&Response::text(200, "ok"), &mut self.turn);
                }
                Event::Text(_) | Event::Binary(_) | Event::Long => self.messages += 1,
                _ => {}
            }
        }
        self.flush();
    }

    pub(crate) fn flush(&mut self) {
        self.connection.write_to(&mut self.heard, &mut self.turn).unwrap();
    }

    /// Goes on to this time since the start, looking at deadlines as the loop does.
    pub(crate) fn at(&mut self, time: Duration) {
        let until = Tick::at(time);
        while self.connection.deadline() <= until && !self.connection.is_done() {
            self.turn.begin(self.connection.deadline().max(self.turn.now), 0);
            self.connection.handle_timeout(&mut self.turn);
            self.flush();
        }
        self.turn.begin(until.max(self.turn.now), 0);
    }

    pub(crate) fn heard_text(&self) -> String {
        String::from_utf8_lossy(&self.heard).into_owned()
    }
}

/// Deadlines are rounded up to ticks of a tenth of a second: not early, and two ticks late at most.
pub(crate) const LATE_MAX: Duration = Duration::from_millis(200);
