//! One peer: what it wants, what it does to get it, and what it was promised.
//!
//! Every client that reads keeps a place in each topic and holds the server to it: what comes is in
//! order, comes once, is whole, is meant for it, and what is missing was told.

use std::collections::HashSet;
use std::time::Duration;

use pousse::ConnId;
use pousse::seam::machine::{self, Found, Random};
use serde_json::Value;

use crate::oracle::Oracle;
use crate::secret::Secret;
use crate::wire::{self, Block, Frame};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Good,
    /// Takes a little now and then.
    Slow,
    /// Takes nothing any more, and stays.
    Stalling,
    /// Leaves at any moment, politely or not.
    Dying,
    Hostile,
    /// Sends half a head and waits.
    Lazy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Poll,
    LongPoll,
    Stream,
    Text,
    V1,
}

pub const WAYS: [Way; 5] = [Way::Poll, Way::LongPoll, Way::Stream, Way::Text, Way::V1];

/// What is waited for on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    Resting,
    Publishing {
        number: usize,
    },
    Polling {
        wait: Option<Duration>,
        asked: Duration,
        disturbed: Duration,
        limit: usize,
    },
    Opening {
        is_v1: bool,
    },
    StreamHead,
    Streaming,
    Open {
        is_v1: bool,
        deflates: bool,
    },
    /// Nothing is understood of it any more.
    Lost,
}

/// A place in a topic, and what is known of it.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    seen: Option<u64>,
    /// A gap was told, and nothing has come since.
    is_told: bool,
    /// Over pousse.v1: it was asked for and not answered yet.
    is_pending: bool,
    is_read: bool,
    /// It was to be read no more, and that was not answered yet.
    is_leaving: bool,
}

impl Place {
    fn may_leave(&self) -> bool {
        self.is_read && !self.is_pending && !self.is_leaving
    }
}

pub struct Client {
    pub who: u32,
    pub mood: Mood,
    way: Way,
    socket: Option<usize>,
    secret: Option<Box<Secret>>,
    stage: Stage,
    to_send: Vec<u8>,
    got: Vec<u8>,
    places: Vec<Place>,
    opening: u32,
    random: Random,
    /// The highest number of a message that was sent to it alone.
    direct: u64,
    /// When it connected; for how long the machine had been disturbed then.
    since: (Duration, Duration),
    has_closed: bool,
    pub silent_ends: u64,
    pub entries: u64,
    key: Option<(usize, String)>,
    /// Messages that came before it was known where they stand.
    unplaced: HashSet<usize>,
}

/// What of the run a client must know.
pub struct World {
    pub disturbed: Duration,
    pub late_max: Duration,
    pub head_timeout: Duration,
    pub wait_max: Duration,
    pub is_ending: bool,
    pub is_draining: bool,
    pub message_max: usize,
    pub subscriptions: usize,
    pub listeners: usize,
    pub is_tls: bool,
    /// Everyone is let in at once, so what is promised to a connection begins when it is made.
    pub is_prompt: bool,
}

type Outcome = Result<(), String>;

impl Client {
    pub fn new(who: u32, mood: Mood, topics: usize, mut random: Random) -> Self {
        Self {
            who,
            mood,
            way: random.pick(&WAYS),
            socket: None,
            secret: None,
            stage: Stage::Idle,
            to_send: Vec::new(),
            got: Vec::new(),
            places: vec![Place::default(); topics],
            opening: 0,
            random,
            direct: 0,
            since: (Duration::ZERO, Duration::ZERO),
            has_closed: false,
            silent_ends: 0,
            entries: 0,
            key: None,
            unplaced: HashSet::new(),
        }
    }

    pub fn is_at(&self, socket: usize) -> bool {
        self.socket == Some(socket)
    }

    pub fn is_innocent(&self) -> bool {
        self.mood == Mood::Good
    }

    fn address(&self) -> std::net::SocketAddr {
        let [_, _, high, low] = self.who.to_be_bytes();
        let host = match self.mood {
            // They share an address, and so its limits.
            Mood::Hostile => [10, 66, 66, 66],
            _ => [10, 1, high, low],
        };
        (host, 1024 + (self.opening % 60_000) as u16).into()
    }

    /// How long until it acts again without being asked to.
    pub fn pause(&mut self) -> Duration {
        let most = match self.mood {
            Mood::Slow => 150,
            Mood::Hostile => 400,
            _ => 800,
        };
        Duration::from_millis(self.random.between(1, most))
    }

    /// Lets go, whatever it is doing.
    pub fn leave(&mut self, is_rude: bool) {
        if let Some(at) = self.socket.take() {
            machine::leave(at, is_rude);
        }
        self.forget();
    }

    fn forget(&mut self) {
        self.stage = Stage::Idle;
        self.secret = None;
        self.to_send.clear();
        self.got.clear();
        self.has_closed = false;
        for place in &mut self.places {
            (place.is_pending, place.is_leaving) = (false, false);
            // What was told before the end of a connection was told.
        }
    }

    /// Its socket has changed.
    pub fn wake(&mut self, oracle: &mut Oracle, world: &World) -> Outcome {
        match self.mood {
            Mood::Good | Mood::Dying | Mood::Lazy | Mood::Hostile => {
                self.hear(usize::MAX, oracle, world)
            }
            Mood::Slow | Mood::Stalling => self.flush(),
        }
    }

    /// Its time has come.
    pub fn act(&mut self, oracle: &mut Oracle, world: &World) -> Outcome {
        let most = match self.mood {
            Mood::Slow => 1 + self.random.below(700) as usize,
            Mood::Stalling if self.entries > 3 => 0,
            _ => usize::MAX,
        };
        self.hear(most, oracle, world)?;
        if world.is_ending && self.stage == Stage::Idle {
            return Ok(());
        }
        match self.mood {
            Mood::Dying if self.socket.is_some() && self.random.chance(250) => {
                let is_rude = self.random.chance(500);
                self.leave(is_rude);
            }
            Mood::Hostile => return self.attack(world),
            _ => {}
        }
        match self.stage.clone() {
            Stage::Idle => self.connect(oracle, world),
            Stage::Resting => self.ask(oracle, world),
            Stage::Open { is_v1, deflates } => self.speak(is_v1, deflates, oracle, world),
            Stage::Streaming if !world.is_ending && self.random.chance(100) => self.change(),
            _ => {}
        }
        self.flush()
    }

    fn connect(&mut self, oracle: &mut Oracle, world: &World) {
        self.opening += 1;
        let listener = self.random.below(world.listeners as u64) as usize;
        let Some(at) = machine::connect(self.who, listener, self.address()) else { return };
        self.socket = Some(at);
        let has_secret = world.is_tls && !machine::is_unix(listener) && self.mood != Mood::Lazy;
        self.secret = has_secret.then(|| Box::new(Secret::new()));
        self.stage = Stage::Resting;
        self.since = (machine::elapsed(), world.disturbed);
        if self.mood == Mood::Lazy {
            self.to_send.extend(b"GET /api/messages HTTP/1.1\r\nHost: loc");
            self.stage = Stage::Lost;
            return;
        }
        self.ask(oracle, world);
    }

    /// Comes back in another way.
    fn change(&mut self) {
        let is_rude = self.random.chance(300);
        if self.socket.is_some() {
            self.leave(is_rude);
        }
        self.way = self.random.pick(&WAYS);
    }

    /// The next request on a connection that rests.
    fn ask(&mut self, oracle: &mut Oracle, world: &World) {
        if world.is_ending {
            return self.leave(false);
        }
        if self.random.chance(150) {
            self.way = self.random.pick(&WAYS);
        }
        if self.random.chance(300) {
            return self.publish(oracle, world);
        }
        self.choose_topics();
        let mut left = world.subscriptions;
        for place in self.places.iter_mut().filter(|it| it.is_read) {
            place.is_read = left > 0;
            left = left.saturating_sub(1);
        }
        let mut target = format!("/api/messages?who={}&nth={}", self.who, self.opening);
        let read: Vec<usize> =
            (0..self.places.len()).filter(|at| self.places[*at].is_read).collect();
        read.iter().for_each(|at| target += &format!("&topic={}", oracle.topics[*at]));
        let seen = read.iter().map(|at| self.places[*at].seen).min().flatten();
        let after = match seen {
            Some(seen) => format!("{}-{seen}", oracle.run),
            None => self.random.pick(&["earliest", "now"]).to_owned(),
        };
        // One id is the place in all topics: what some of them gave above it comes again.
        read.iter()
            .for_each(|at| self.places[*at] = Place { seen, is_read: true, ..Place::default() });
        target += &format!("&after={after}");
        let asked = (machine::elapsed(), world.disturbed);
        let mut fields = String::new();
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        match self.way {
            Way::Poll | Way::LongPoll => {
                let limit = self.random.between(1, 30) as usize;
                target += &format!("&limit={limit}");
                let wait = (self.way == Way::LongPoll).then(|| self.random.between(1, 4));
                wait.iter().for_each(|wait| target += &format!("&wait={wait}"));
                let wait = wait.map(|wait| Duration::from_secs(wait).min(world.wait_max));
                self.stage = Stage::Polling { wait, asked: asked.0, disturbed: asked.1, limit };
            }
            Way::Stream => {
                fields += "Accept: text/event-stream\r\n";
                self.stage = Stage::StreamHead;
            }
            Way::Text | Way::V1 => {
                let is_v1 = self.way == Way::V1;
                fields += upgrade;
                fields += if is_v1 { "Sec-WebSocket-Protocol: pousse.v1\r\n" } else { "" };
                if self.random.chance(500) {
                    let window = self.random.pick(&["", "; server_max_window_bits=9"]);
                    fields += &format!("Sec-WebSocket-Extensions: permessage-deflate{window}\r\n");
                }
                self.stage = Stage::Opening { is_v1 };
            }
        }
        machine::note(&target, self.who.into(), 0);
        let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        self.to_send.extend(head.as_bytes());
    }

    fn choose_topics(&mut self) {
        let is_none = self.places.iter().all(|it| !it.is_read);
        if !is_none && !self.random.chance(150) {
            return;
        }
        let count = self.random.between(1, 2);
        self.places.iter_mut().for_each(|it| it.is_read = false);
        for _ in 0..count {
            let at = self.random.below(self.places.len() as u64) as usize;
            self.places[at].is_read = true;
        }
    }

    fn publish(&mut self, oracle: &mut Oracle, world: &World) {
        let topic = self.random.below(self.places.len() as u64) as usize;
        let is_binary = self.random.chance(200);
        let mut key = String::new();
        let number = match self.key.take() {
            // The same once more: it may have come the first time.
            Some((number, it)) => {
                key = format!("Idempotency-Key: {it}\r\n");
                number
            }
            None => {
                let number = oracle.make(topic, self.bytes(world), is_binary);
                if self.random.chance(300) {
                    oracle.has_key(number);
                    key = format!("Idempotency-Key: key-{number}\r\n");
                    self.key = Some((number, format!("key-{number}")));
                }
                number
            }
        };
        let payload = oracle.payload(number);
        let kind = if oracle.is_binary(number) { "application/octet-stream" } else { "text/plain" };
        let topic = &oracle.topics[oracle.topic_of(number)];
        let head = format!(
            "POST /api/messages?topic={topic} HTTP/1.1\r\nHost: localhost\r\nContent-Type: \
             {kind}\r\nContent-Length: {}\r\n{key}\r\n",
            payload.len()
        );
        self.to_send.extend(head.as_bytes());
        self.to_send.extend(payload);
        self.stage = Stage::Publishing { number };
    }

    fn bytes(&mut self, world: &World) -> usize {
        match self.random.below(10) {
            0..6 if world.message_max > 30_000 => {
                self.random.below(world.message_max as u64) as usize
            }
            0 => self.random.below(world.message_max as u64) as usize,
            1..4 => self.random.between(100, 2000).min(world.message_max as u64) as usize,
            _ => 0,
        }
    }

    /// Something over an open WebSocket.
    fn speak(&mut self, is_v1: bool, deflates: bool, oracle: &mut Oracle, world: &World) {
        if world.is_ending || self.has_closed || self.to_send.len() > 100_000 {
            return;
        }
        let topic = self.random.below(self.places.len() as u64) as usize;
        let mut out = std::mem::take(&mut self.to_send);
        let mut text = |text: String, random: &mut Random| {
            let deflates = deflates && random.chance(500);
            wire::put_message(&mut out, 1, text.as_bytes(), deflates, random);
        };
        match self.random.below(12) {
            0 | 1 if is_v1 => {
                let number = oracle.make(topic, self.bytes(world), false);
                let data = String::from_utf8(oracle.payload(number)).expect("text");
                let name = &oracle.topics[topic];
                let command = serde_json::json!({"publish": name, "data": data, "ref": number});
                text(command.to_string(), &mut self.random);
            }
            2 if is_v1 && !self.places[topic].is_read => {
                let place = &mut self.places[topic];
                place.is_read = true;
                place.is_pending = true;
                place.is_told = false;
                let mut command = serde_json::json!({"subscribe": oracle.topics[topic]});
                match place.seen {
                    Some(seen) => command["after"] = format!("{}-{seen}", oracle.run).into(),
                    None => command["after"] = "earliest".into(),
                }
                machine::note("subscribes", self.who.into(), topic as u64);
                text(command.to_string(), &mut self.random);
            }
            3 if is_v1 && self.places[topic].may_leave() => {
                self.places[topic].is_leaving = true;
                // Until it is answered entries may come: it is read until then.
                let command = serde_json::json!({"unsubscribe": oracle.topics[topic]});
                machine::note("unsubscribes", self.who.into(), topic as u64);
                text(command.to_string(), &mut self.random);
            }
            0..4 if !is_v1 => {
                let number = oracle.make(topic, self.bytes(world), self.random.chance(100));
                let verb = self.random.pick(&["P", "P", "P", "X", "R"]);
                text(format!("{verb} {number}"), &mut self.random);
            }
            4 if !is_v1 => {
                let to = self.random.below(u64::from(self.who) + 3);
                text(format!("S {to}"), &mut self.random);
            }
            5 if !is_v1 => {
                let ms = self.random.between(1, 900);
                text(format!("W {ms}"), &mut self.random);
            }
            6 if !is_v1 && self.random.chance(200) => text("C".into(), &mut self.random),
            7 if !is_v1 && self.random.chance(300) => text("Z".into(), &mut self.random),
            8 => wire::put_frame(&mut out, 0x89, b"are you there", &mut self.random),
            9 if self.random.chance(400) => {
                wire::put_frame(&mut out, 0x88, &[3, 0xe8], &mut self.random);
                self.has_closed = true;
            }
            10 if self.random.chance(300) => {
                self.to_send = out;
                return self.change();
            }
            _ => {}
        }
        self.to_send = out;
    }

    fn flush(&mut self) -> Outcome {
        let Some(at) = self.socket else { return Ok(()) };
        let mut left = &mut self.to_send;
        if let Some(secret) = &mut self.secret {
            secret.seal(left);
            left = &mut secret.to_send;
        }
        if !left.is_empty() {
            let count = machine::send(at, left);
            left.drain(..count);
        }
        Ok(())
    }

    /// Takes what has come, and understands it.
    fn hear(&mut self, most: usize, oracle: &mut Oracle, world: &World) -> Outcome {
        let mut left = most;
        while let Some(at) = self.socket {
            let before = self.got.len();
            let found = match &mut self.secret {
                Some(secret) => {
                    let mut raw = Vec::new();
                    let found = machine::receive(at, left, &mut raw);
                    left -= raw.len().min(left);
                    let opened = secret.open(&raw, &mut self.got);
                    opened.map_err(|problem| self.told(&problem))?;
                    found
                }
                None => {
                    let found = machine::receive(at, left, &mut self.got);
                    left -= (self.got.len() - before).min(left);
                    found
                }
            };
            match found {
                Found::Bytes => {
                    self.understand(oracle, world).map_err(|problem| self.told(&problem))?;
                    if left == 0 {
                        break;
                    }
                }
                Found::Nothing => break,
                Found::End | Found::Reset => {
                    self.ended(found, world).map_err(|problem| self.told(&problem))?;
                }
            }
        }
        self.flush()
    }

    fn told(&self, problem: &str) -> String {
        format!(
            "client {} ({:?}, {:?}, {:?}): {problem}",
            self.who, self.mood, self.way, self.stage
        )
    }

    fn ended(&mut self, found: Found, world: &World) -> Outcome {
        let is_asking = matches!(
            self.stage,
            Stage::Polling { .. }
                | Stage::Publishing { .. }
                | Stage::Opening { .. }
                | Stage::StreamHead
                | Stage::Streaming
        );
        let is_open = matches!(self.stage, Stage::Open { .. }) && !self.has_closed;
        machine::note("ended", u64::from(self.who), 0);
        let is_cut = found == Found::End && !self.got.is_empty() && self.stage != Stage::Lost;
        if self.mood == Mood::Lazy {
            let allowed = world.head_timeout + slack(world, self.since.1);
            let took = machine::elapsed() - self.since.0;
            if took > allowed && world.is_prompt {
                return Err(format!("half a head was borne for {took:?}, not {allowed:?}"));
            }
        }
        let is_silent = is_asking || is_open || is_cut;
        if is_silent {
            machine::note(&format!("silent end in {:?}", self.stage), self.who.into(), 0);
        }
        self.silent_ends += u64::from(is_silent);
        self.leave(false);
        Ok(())
    }

    fn understand(&mut self, oracle: &mut Oracle, world: &World) -> Outcome {
        loop {
            match self.stage.clone() {
                Stage::Lost | Stage::Idle => {
                    self.got.clear();
                    return Ok(());
                }
                Stage::Streaming => match wire::block(&mut self.got)? {
                    Some(block) => self.take_block(block, oracle)?,
                    None => return Ok(()),
                },
                Stage::Open { is_v1, deflates } => match wire::frame(&mut self.got, deflates)? {
                    Some(frame) => self.take_frame(frame, is_v1, oracle)?,
                    None => return Ok(()),
                },
                _ => match wire::answer(&mut self.got)? {
                    Some(answer) => self.take_answer(answer, oracle, world)?,
                    None => return Ok(()),
                },
            }
        }
    }

    fn take_answer(&mut self, answer: wire::Answer, oracle: &mut Oracle, world: &World) -> Outcome {
        let stage = std::mem::replace(&mut self.stage, Stage::Resting);
        let is_last = wire::field(&answer.head, "connection") == Some("close");
        let is_refused = matches!(answer.status, 429 | 503 | 431 | 408 | 413);
        match (stage, answer.status) {
            _ if is_refused => {
                self.leave(false);
                return Ok(());
            }
            (Stage::Publishing { number }, 201) => {
                let value: Value = parse(&answer.content)?;
                let seq = oracle.id(value["id"].as_str().unwrap_or_default())?;
                oracle.learn(seq, number, None);
            }
            (Stage::Polling { wait, asked, disturbed, limit }, 200) => {
                let value: Value = parse(&answer.content)?;
                let count = value["messages"].as_array().map_or(0, Vec::len);
                let took = machine::elapsed() - asked;
                if let Some(wait) = wait {
                    let is_nothing = count == 0 && value["gap"] == false;
                    let allowed = wait + slack(world, disturbed);
                    if is_nothing && took < wait && !world.is_draining && !world.is_ending {
                        return Err(format!("nothing was answered after {took:?}, not {wait:?}"));
                    }
                    if is_nothing && took > allowed && self.is_innocent() && world.is_prompt {
                        return Err(format!("the answer came after {took:?}, not {allowed:?}"));
                    }
                }
                if count > limit {
                    return Err(format!("{count} messages, and {limit} were wanted"));
                }
                self.take_poll(&value, oracle)?;
            }
            (Stage::Opening { is_v1 }, 101) => {
                let extensions = wire::field(&answer.head, "sec-websocket-extensions");
                self.stage = Stage::Open { is_v1, deflates: extensions.is_some() };
                return Ok(());
            }
            (Stage::StreamHead, 200) => {
                self.stage = Stage::Streaming;
                return Ok(());
            }
            (stage, status) => return Err(format!("{status} to {stage:?}")),
        }
        if is_last {
            self.leave(false);
        }
        Ok(())
    }

    fn take_poll(&mut self, value: &Value, oracle: &mut Oracle) -> Outcome {
        let what = format!("polled up to {} with gap {}", value["last"], value["gap"]);
        machine::note(&what, self.who.into(), 0);
        if value["gap"] == true {
            self.gap(None, oracle)?;
        }
        for message in value["messages"].as_array().into_iter().flatten() {
            self.take_envelope(message, None, oracle)?;
        }
        let last = oracle.id(value["last"].as_str().unwrap_or_default())?;
        self.claim(last, None, oracle)
    }

    fn take_block(&mut self, block: Block, oracle: &mut Oracle) -> Outcome {
        match (&block.event, &block.data, &block.id) {
            (Some(event), Some(data), _) if event == "gap" => {
                let value: Value = parse(data.as_bytes())?;
                let topic = oracle.topic(value["topic"].as_str().unwrap_or_default());
                self.gap(topic, oracle)
            }
            (None, Some(data), Some(id)) => {
                let value: Value = parse(data.as_bytes())?;
                if value["id"] != id.as_str() {
                    return Err(format!("a block {id} with an envelope of another"));
                }
                self.take_envelope(&value, None, oracle)
            }
            (None, None, Some(id)) => {
                let seq = oracle.id(id)?;
                self.claim(seq, None, oracle)
            }
            (None, None, None) => Ok(()),
            _ => Err(format!("a block that may not be: {block:?}")),
        }
    }

    fn take_frame(&mut self, frame: Frame, is_v1: bool, oracle: &mut Oracle) -> Outcome {
        let conn = oracle.opened.get(&(self.who, self.opening)).copied();
        match frame.opcode {
            9 => {
                let mut out = std::mem::take(&mut self.to_send);
                wire::put_frame(&mut out, 0x8a, &frame.payload, &mut self.random);
                self.to_send = out;
                Ok(())
            }
            10 => Ok(()),
            8 => {
                let code = frame.payload.first_chunk().map_or(1005, |it| u16::from_be_bytes(*it));
                let reason = String::from_utf8_lossy(frame.payload.get(2..).unwrap_or_default());
                if self.is_innocent() && matches!(code, 1002 | 1003 | 1007) {
                    return Err(format!("closed with {code} {reason}"));
                }
                if reason.starts_with("gap") {
                    machine::note("gap", u64::from(self.who), 0);
                    self.gap(None, oracle)?;
                    self.places.iter_mut().for_each(|place| place.seen = None);
                }
                if !self.has_closed {
                    let mut out = std::mem::take(&mut self.to_send);
                    out.clear();
                    wire::put_frame(&mut out, 0x88, &frame.payload, &mut self.random);
                    self.to_send = out;
                    self.has_closed = true;
                }
                self.stage = Stage::Lost;
                Ok(())
            }
            1 | 2 if !is_v1 && frame.payload.starts_with(b"D ") => {
                self.take_direct(&String::from_utf8_lossy(&frame.payload))
            }
            1 | 2 if !is_v1 => {
                let number = oracle.read(&frame.payload)?;
                if oracle.is_binary(number) == (frame.opcode == 1) {
                    return Err(format!("message {number} is of another kind"));
                }
                match oracle.seq_of(number) {
                    Some(seq) => self.take(number, seq, conn, false, oracle),
                    None => {
                        self.unplaced.insert(number);
                        Ok(())
                    }
                }
            }
            1 => {
                let value: Value = parse(&frame.payload)?;
                self.take_v1(&value, conn, oracle)
            }
            other => Err(format!("a frame with opcode {other}")),
        }
    }

    fn take_v1(&mut self, value: &Value, conn: Option<ConnId>, oracle: &mut Oracle) -> Outcome {
        let topic = |value: &Value| oracle.topic(value.as_str().unwrap_or_default());
        if value.get("id").is_none() {
            let text = value.to_string();
            machine::note(&format!("told {}", text.get(..90).unwrap_or(&text)), self.who.into(), 0);
        }
        if value.get("hello").is_some() || value.get("error").is_some() {
            return Ok(());
        }
        if let Some(gap) = value.get("gap") {
            return self.gap(topic(&gap["topic"]), oracle);
        }
        if let Some(name) = value.get("subscribed") {
            let at = topic(name).ok_or("a topic that does not exist")?;
            let last = oracle.id(value["last"].as_str().unwrap_or_default())?;
            self.places[at].is_pending = false;
            return self.claim(last, Some(at), oracle);
        }
        if let Some(name) = value.get("unsubscribed") {
            let at = topic(name).ok_or("a topic that does not exist")?;
            self.places[at] = Place { seen: self.places[at].seen, ..Place::default() };
            return Ok(());
        }
        if let Some(id) = value.get("published") {
            let seq = oracle.id(id.as_str().unwrap_or_default())?;
            let number = value["ref"].as_u64().ok_or("no ref")? as usize;
            oracle.learn(seq, number, None);
            return Ok(());
        }
        if value.get("id").is_some() {
            return self.take_envelope_v1(value, conn, oracle);
        }
        if let Some(data) = value.get("data") {
            return self.take_direct(data.as_str().unwrap_or_default());
        }
        let last = oracle.id(value["last"].as_str().unwrap_or_default())?;
        self.claim(last, None, oracle)
    }

    fn take_direct(&mut self, text: &str) -> Outcome {
        let words: Vec<&str> = text.split(' ').collect();
        let (to, number) = match words.as_slice() {
            ["D", to, number] => (to.parse::<u32>(), number.parse::<u64>()),
            _ => return Err(format!("{text:?}")),
        };
        if to != Ok(self.who) {
            return Err(format!("it was given what was sent to {}", words[1]));
        }
        match number {
            Ok(number) if number > self.direct => self.direct = number,
            _ => return Err(format!("{text:?} after number {}", self.direct)),
        }
        Ok(())
    }

    fn take_envelope_v1(
        &mut self,
        value: &Value,
        conn: Option<ConnId>,
        oracle: &mut Oracle,
    ) -> Outcome {
        self.envelope(value, conn, true, oracle)
    }

    fn take_envelope(
        &mut self,
        value: &Value,
        conn: Option<ConnId>,
        oracle: &mut Oracle,
    ) -> Outcome {
        self.envelope(value, conn, false, oracle)
    }

    fn envelope(
        &mut self,
        value: &Value,
        conn: Option<ConnId>,
        is_v1: bool,
        oracle: &mut Oracle,
    ) -> Outcome {
        let payload = match (value["data"].as_str(), value["base64"].as_str()) {
            (Some(text), None) => text.as_bytes().to_vec(),
            (None, Some(text)) => {
                data_encoding::BASE64.decode(text.as_bytes()).map_err(|it| it.to_string())?
            }
            _ => return Err(format!("an envelope without data: {value}")),
        };
        let number = oracle.read(&payload)?;
        let seq = oracle.id(value["id"].as_str().unwrap_or_default())?;
        if value["topic"] != oracle.topics[oracle.topic_of(number)].as_str() {
            return Err(format!("message {number} of another topic: {}", value["topic"]));
        }
        oracle.learn(seq, number, None);
        self.take(number, seq, conn, is_v1, oracle)
    }

    /// A message: in its order, once, and none is missing before it.
    fn take(
        &mut self,
        number: usize,
        seq: u64,
        conn: Option<ConnId>,
        is_v1: bool,
        oracle: &mut Oracle,
    ) -> Outcome {
        let at = oracle.topic_of(number);
        self.entries += 1;
        machine::note("given", u64::from(self.who), seq);
        let place = &mut self.places[at];
        if !place.is_read {
            return Err(format!("message {number} of a topic that it does not read"));
        }
        if oracle.is_excepted(seq, at, conn) {
            return Err(format!("message {number}, which was for all but it"));
        }
        if place.seen.is_some_and(|seen| seq <= seen) {
            return Err(format!("message {number} at {seq}, after {:?}", place.seen));
        }
        // Over one cursor a message of one topic says that all others are given up to it.
        let others = 0..self.places.len();
        for other in others {
            let place = &mut self.places[other];
            if other != at && (is_v1 || !place.is_read) {
                continue;
            }
            if let Some(seen) = place.seen
                && let Some(lost) =
                    oracle.missing(other, (seen, seq), (conn, place.is_told), &self.unplaced)
            {
                let name = &oracle.topics[other];
                return Err(format!("{lost} of {name} is missing between {seen} and {seq}"));
            }
            if other == at || place.seen.is_some() {
                place.seen = Some(place.seen.unwrap_or(0).max(seq));
            }
            // Another topic's gap may be further up.
            place.is_told &= other != at;
        }
        Ok(())
    }

    /// The server says that up to here everything was given: of one topic, or of all.
    fn claim(&mut self, upto: u64, topic: Option<usize>, oracle: &mut Oracle) -> Outcome {
        let conn = oracle.opened.get(&(self.who, self.opening)).copied();
        for at in 0..self.places.len() {
            let is_meant = topic.is_none_or(|topic| topic == at);
            let place = &mut self.places[at];
            if !is_meant || !place.is_read || place.is_pending {
                continue;
            }
            if let Some(seen) = place.seen
                && let Some(lost) =
                    oracle.missing(at, (seen, upto + 1), (conn, place.is_told), &self.unplaced)
            {
                let name = &oracle.topics[at];
                return Err(format!(
                    "{lost} of {name} is missing, and the place is said to be {upto}"
                ));
            }
            // Whoever subscribed to a topic from its earliest message begins above its floor.
            if topic.is_none() || place.seen.is_some() {
                place.seen = Some(place.seen.unwrap_or(0).max(upto));
            }
            place.is_told &= oracle.floor(at) > upto;
        }
        Ok(())
    }

    /// A gap was told: of one topic, or of one of those that are read.
    fn gap(&mut self, topic: Option<usize>, oracle: &mut Oracle) -> Outcome {
        let read = (0..self.places.len()).filter(|at| self.places[*at].is_read);
        let meant: Vec<usize> = read.filter(|at| topic.is_none_or(|topic| topic == *at)).collect();
        let is_false = !meant.is_empty()
            && meant.iter().all(|at| {
                self.places[*at].seen.is_some_and(|seen| oracle.is_held_above(*at, seen))
            });
        if is_false {
            return Err(format!("a gap was told of {meant:?}, and there is none"));
        }
        meant.into_iter().for_each(|at| self.places[at].is_told = true);
        Ok(())
    }

    /// What is wrong if nothing more comes to it.
    pub fn is_owed(&self, oracle: &Oracle) -> Option<String> {
        let is_reader = match self.stage {
            Stage::Streaming => true,
            Stage::Open { .. } => !self.has_closed,
            _ => false,
        };
        if !is_reader || !self.is_innocent() {
            return None;
        }
        let conn = oracle.opened.get(&(self.who, self.opening)).copied();
        (0..self.places.len()).find_map(|at| {
            let place = self.places[at];
            let seen = place.seen.filter(|_| place.is_read && !place.is_pending)?;
            let told = (conn, place.is_told);
            let lost = oracle.missing(at, (seen, oracle.newest + 1), told, &self.unplaced)?;
            Some(self.told(&format!("{lost} of topic {at} never came, after {seen}")))
        })
    }

    /// Bytes that are wrong in one of many ways.
    fn attack(&mut self, world: &World) -> Outcome {
        if world.is_ending {
            return Ok(());
        }
        if self.socket.is_none() {
            self.opening += 1;
            let listener = self.random.below(world.listeners as u64) as usize;
            let Some(at) = machine::connect(self.who, listener, self.address()) else {
                return Ok(());
            };
            self.socket = Some(at);
            self.stage = Stage::Lost;
            if self.random.chance(600) {
                let protocol = self.random.pick(&["", "Sec-WebSocket-Protocol: pousse.v1\r\n"]);
                self.to_send.extend(
                    format!(
                        "GET /websocket?topic=topic-0&after=earliest HTTP/1.1\r\nHost: \
                         localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{protocol}\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \
                         dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                    )
                    .as_bytes(),
                );
            }
        }
        let mut out = std::mem::take(&mut self.to_send);
        let random = &mut self.random;
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        match random.below(12) {
            0 => {
                let count = random.below(3000);
                out.extend((0..count).map(|_| random.next() as u8));
            }
            1 => out.extend(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "),
            2 => {
                out.extend(b"POST /api/messages?topic=evil HTTP/1.1\r\nHost: localhost\r\n");
                out.extend(b"Content-Length: 9\r\n\r\n");
            }
            3 => out.extend([0xff; 64]),
            4 => wire::put_frame(&mut out, 0x80 | random.below(16) as u8, b"x", random),
            5 => wire::put_frame(&mut out, 0x01, &[b'a'; 4000], random),
            6 => (0..300).for_each(|_| wire::put_frame(&mut out, 0x89, b"", random)),
            7 => (0..60).for_each(|_| wire::put_frame(&mut out, 0x81, b"{\"publish\":7}", random)),
            8 => out.extend([0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4]),
            9 => wire::put_frame(&mut out, 0x81, &[0xff, 0xfe], random),
            10 => out.extend(get("/api/messages?topic=topic-1&after=earliest").repeat(80).bytes()),
            _ => {
                self.to_send = out;
                self.flush()?;
                let is_rude = self.random.chance(500);
                self.leave(is_rude);
                return Ok(());
            }
        }
        self.to_send = out;
        self.to_send.truncate(64 * 1024);
        self.flush()
    }
}

/// How much later than asked something may be noticed: two ticks, what the machine adds to events
/// (over TLS there are some before it), and the time by which it, or a handler, has jumped since.
fn slack(world: &World, disturbed_before: Duration) -> Duration {
    let jumped = world.disturbed.saturating_sub(disturbed_before);
    Duration::from_millis(300) + world.late_max * 12 + jumped
}

fn parse(bytes: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(bytes)
        .map_err(|error| format!("{error}: {:?}", String::from_utf8_lossy(bytes)))
}
