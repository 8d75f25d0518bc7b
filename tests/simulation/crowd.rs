//! A crowd: as many peers as memory holds, all alike, each of them a few bytes; and an innocent who
//! asks now and then whether somebody is there, and waits for the answer.
//!
//! They read one topic by WebSocket. Each sees to it that what comes to it is the next message,
//! once; and answers pings.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use pousse::Remote;
use pousse::seam::machine::{self, Found};

/// The topic of all.
pub const TOPIC: &str = "crowd";

/// So many may wait to be accepted.
const QUEUE: usize = 256;

/// How often the innocent asks. More control frames than 250 in 5 s are refused.
const ASKS_EVERY: Duration = Duration::from_micros(97_300);

#[derive(Clone, Copy, Default)]
struct Peer {
    socket: u32,
    /// How many messages it was given.
    given: u32,
    is_open: bool,
}

/// The innocent's question that is not answered yet.
#[derive(Clone, Copy)]
struct Question {
    at: Duration,
    turn: u64,
}

/// What the crowd is to do, and what it has seen.
pub struct Crowd {
    peers: Vec<Peer>,
    come: usize,
    pub open: usize,
    remote: Option<Remote>,
    /// How many messages were published, and how many came in all.
    pub published: u32,
    pub given: u64,
    /// When the next is published, if any is.
    publishes: Option<(Duration, Duration)>,
    /// Pings by the tick in which they came.
    pub pings: Vec<u32>,
    innocent: Option<usize>,
    is_innocent_open: bool,
    asks_at: Duration,
    question: Option<Question>,
    /// How long each answer was waited for, and for how many turns.
    pub waits: Vec<(Duration, u64)>,
    pub problem: Option<String>,
    got: Vec<u8>,
    leaves: bool,
    /// Processor time in which peers acted, in ns.
    pub spent: u64,
}

/// The innocent's number, which is no peer's.
const INNOCENT: u32 = u32::MAX;

impl Crowd {
    pub fn new(count: usize) -> Rc<RefCell<Self>> {
        let crowd = Self {
            peers: vec![Peer::default(); count],
            come: 0,
            open: 0,
            remote: None,
            published: 0,
            given: 0,
            publishes: None,
            pings: Vec::new(),
            innocent: None,
            is_innocent_open: false,
            asks_at: Duration::ZERO,
            question: None,
            waits: Vec::new(),
            problem: None,
            got: Vec::new(),
            leaves: false,
            spent: 0,
        };
        Rc::new(RefCell::new(crowd))
    }

    /// From here on they come, as fast as they are let in.
    pub fn comes(crowd: &Rc<RefCell<Self>>, remote: Remote) {
        crowd.borrow_mut().remote = Some(remote);
        let crowd = crowd.clone();
        machine::set_hook(move || {
            let began = crate::spent();
            let mut crowd = crowd.borrow_mut();
            let next = crowd.step();
            crowd.spent += crate::spent() - began;
            Some(next)
        });
    }

    /// From here on something is published so often; `None`: no more.
    pub fn publishes(&mut self, every: Option<Duration>) {
        self.publishes = every.map(|every| (machine::elapsed() + every, every));
    }

    /// One message now.
    pub fn publish(&mut self) {
        let remote = self.remote.as_ref().expect("they have come");
        let text = format!("M {:>9}", self.published + 1);
        match remote.publish(TOPIC, text.as_str()) {
            Ok(()) => self.published += 1,
            Err(error) => self.wrong(format!("it was not published: {error}")),
        }
    }

    /// The innocent has slept until now.
    pub fn wakes(&mut self) {
        self.asks_at = machine::elapsed();
    }

    /// Everyone but the innocent leaves, at once.
    pub fn leave(&mut self) {
        self.leaves = true;
        for peer in &mut self.peers {
            peer.is_open = false;
            machine::leave(peer.socket as usize, false);
        }
    }

    /// Whether everyone has everything.
    pub fn is_through(&self) -> bool {
        self.given == u64::from(self.published) * self.peers.len() as u64
    }

    fn wrong(&mut self, problem: String) {
        self.problem.get_or_insert(problem);
    }

    /// Has everyone act who has something to do; returns when the next has.
    #[inline(never)]
    fn step(&mut self) -> Duration {
        let now = machine::elapsed();
        for (at, owner) in machine::take_woken() {
            if !self.leaves || owner == INNOCENT {
                self.hear(at, owner);
            }
        }
        self.ask(now);
        if !self.leaves {
            self.come();
        }
        let mut next = self.asks_at;
        if self.come < self.peers.len() {
            next = next.min(now + Duration::from_millis(1));
        }
        if let Some((at, every)) = self.publishes {
            if at <= now {
                self.publishes = Some((at + every, every));
                self.publish();
            }
            next = next.min(at.max(now) + every);
        }
        next
    }

    fn come(&mut self) {
        if self.innocent.is_none() {
            self.innocent = machine::connect(INNOCENT, 0, ([10, 255, 255, 255], 1).into());
            let at = self.innocent.expect("somebody listens");
            machine::send(at, opening("elsewhere").as_bytes());
        }
        let request = opening(TOPIC);
        let free = QUEUE.saturating_sub(machine::queued(0));
        for _ in 0..free.min(self.peers.len() - self.come) {
            // Each has an address of its own.
            let [_, a, b, c] = (self.come as u32).to_be_bytes();
            let at = machine::connect(self.come as u32, 0, ([11, a, b, c], 4711).into());
            let at = at.expect("somebody listens");
            machine::send(at, request.as_bytes());
            self.peers[self.come].socket = at as u32;
            self.come += 1;
        }
    }

    fn ask(&mut self, now: Duration) {
        if now < self.asks_at {
            return;
        }
        // Its time came while the server was busy; it asked then, and is heard now.
        let asked = std::mem::replace(&mut self.asks_at, now + ASKS_EVERY);
        let Some(at) = self.innocent.filter(|_| self.is_innocent_open) else { return };
        // One that has not been answered is waited for.
        if self.question.is_none() {
            self.question = Some(Question { at: asked, turn: machine::work().turns - 1 });
            machine::send(at, &[0x89, 0x80, 0, 0, 0, 0]);
        }
    }

    fn hear(&mut self, at: usize, owner: u32) {
        let mut got = std::mem::take(&mut self.got);
        got.clear();
        loop {
            match machine::receive(at, usize::MAX, &mut got) {
                Found::Bytes => {}
                Found::Nothing => break,
                Found::End | Found::Reset => {
                    self.wrong(format!("{owner} was cut: {:?}", String::from_utf8_lossy(&got)));
                    break;
                }
            }
        }
        if let Err(problem) = self.understand(at, owner, &got) {
            self.wrong(format!("{owner}: {problem}: {got:?}"));
        }
        self.got = got;
    }

    /// The machine cuts nothing here, so heads and frames are whole.
    fn understand(&mut self, at: usize, owner: u32, mut got: &[u8]) -> Result<(), String> {
        let is_open = match owner {
            INNOCENT => self.is_innocent_open,
            _ => self.peers[owner as usize].is_open,
        };
        if !is_open && !got.is_empty() {
            let end = got.windows(4).position(|it| it == b"\r\n\r\n").ok_or("no head")?;
            if !got.starts_with(b"HTTP/1.1 101 ") {
                return Err("it was not let in".into());
            }
            got = &got[end + 4..];
            match owner {
                INNOCENT => self.is_innocent_open = true,
                _ => {
                    self.peers[owner as usize].is_open = true;
                    self.open += 1;
                }
            }
        }
        while let [first, length, rest @ ..] = got {
            let (payload, rest) =
                rest.split_at_checked(usize::from(*length)).ok_or("no whole frame")?;
            got = rest;
            match first {
                0x81 => self.take(owner, payload)?,
                0x89 => self.answer(at, payload),
                0x8a if owner == INNOCENT => {
                    let asked = self.question.take().ok_or("an answer without a question")?;
                    let turns = machine::work().turns - asked.turn;
                    self.waits.push((machine::elapsed() - asked.at, turns));
                }
                _ => return Err(format!("a frame that may not be: {first:02x}")),
            }
        }
        match got.is_empty() {
            true => Ok(()),
            false => Err("half a frame".into()),
        }
    }

    fn take(&mut self, owner: u32, payload: &[u8]) -> Result<(), String> {
        let number = payload.strip_prefix(b"M ").and_then(|it| std::str::from_utf8(it).ok());
        let number = number.and_then(|it| it.trim_start().parse::<u32>().ok());
        let peer = self.peers.get_mut(owner as usize).ok_or("it reads nothing")?;
        if number != Some(peer.given + 1) {
            return Err(format!("{number:?} after {}", peer.given));
        }
        peer.given += 1;
        self.given += 1;
        Ok(())
    }

    fn answer(&mut self, at: usize, payload: &[u8]) {
        let tick = (machine::elapsed().as_millis() / 100) as usize;
        if self.pings.len() <= tick {
            self.pings.resize(tick + 1, 0);
        }
        self.pings[tick] += 1;
        let mut pong = [0; 6 + 125];
        let length = payload.len();
        (pong[0], pong[1]) = (0x8a, 0x80 | length as u8);
        pong[6..6 + length].copy_from_slice(payload);
        machine::send(at, &pong[..6 + length]);
    }
}

fn opening(topic: &str) -> String {
    format!(
        "GET /websocket?topic={topic} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}
