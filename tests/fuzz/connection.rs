//! Promise: whatever three peers say to one server, however it is cut, whenever time passes, and
//! whatever their sockets take, nothing panics; what each hears are answers, frames or an event
//! stream by the letter of the standards, never more answers than a strict reader sees requests;
//! entries come in order, none twice, none lost unless a gap is told; each peer, and the log, costs
//! at most what the limits say; and of those who have gone nothing is left.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Write};

use mio::net::UnixStream;
use pousse::seam::{Rehearsal, Sink, Stream, Tick, deflated};
use pousse::{CloseCode, Config, ConnId, Limits, Peer, Reason};

use super::answers::{self, places};
use super::input::Input;
use super::policy::Policy;
use super::reference;

/// Few and small, so that each is reached.
pub fn config() -> Config {
    let mut config = Config::default();
    config.trusted_proxies = vec!["10.0.0.0/8".parse().expect("a network")];
    config.publish = Some(pousse::Publish::Anyone);
    config.origins = vec!["https://example.org".into(), "null".into()];
    config.subprotocols = vec!["chat".into()];
    // Seeds and dictionary call the server so; who does not is told 421.
    config.hosts = vec!["a".into()];
    let limits = &mut config.limits;
    limits.head_bytes = 700;
    limits.headers = 12;
    limits.target_bytes = 200;
    limits.max_message = 4000;
    limits.history = 6;
    limits.history_bytes = 20_000;
    limits.history_total = 60_000;
    limits.max_topics = 4;
    limits.subscriptions = 3;
    limits.poll_bytes = 2000;
    limits.requests = 40;
    limits.fragments = 5;
    limits.controls = 10;
    limits.wrong_commands = 5;
    limits.outbox_soft = 3000;
    limits.outbox = 4000;
    limits.turn_read = 600;
    limits.turn_write = 5000;
    limits.turn_messages = 4;
    config
}

/// What one client can cost at most, by the sum that the program tells its owner: a client alone,
/// without its slot.
fn client_bytes_max(limits: &Limits) -> usize {
    let of = |max_clients| {
        let mut limits = limits.clone();
        limits.max_clients = max_clients;
        limits.memory_bytes_max()
    };
    of(1) - of(0) - 320
}

/// The far end of a socket.
struct Socket {
    heard: Vec<u8>,
    /// How many bytes it still takes.
    room: usize,
    is_broken: bool,
}

impl Sink for Socket {}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_broken {
            return Err(ErrorKind::ConnectionReset.into());
        }
        let taken = bytes.len().min(self.room);
        if taken == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.room -= taken;
        self.heard.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A peer.
struct Client {
    id: ConnId,
    socket: Socket,
    /// All that it said, and how much of that was read.
    said: Vec<u8>,
    read: usize,
    has_ended: bool,
    is_gone: bool,
    /// The end of what it heard may be missing.
    is_cut: bool,
    /// The program unsubscribed it, so it may begin anew from an older place.
    may_repeat: bool,
}

/// All that was ever published, by topic: its place, and who was not to get it.
type Published = HashMap<String, Vec<(u64, Option<ConnId>)>>;

/// Three peers and their server.
struct World {
    rehearsal: Rehearsal<Policy>,
    limits: Limits,
    now: Tick,
    clients: Vec<Client>,
    published: Published,
}

/// How much is said at once.
pub const SIZES: [usize; 14] = [usize::MAX, 1, 2, 3, 5, 7, 13, 16, 30, 64, 100, 200, 333, 500];

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new();
    let mut at = world.joins(0);
    let mut turns = 0;
    while !input.is_empty() && turns < 2000 {
        turns += 1;
        let choice = input.choice();
        let more = usize::from(choice / 12);
        match choice % 12 {
            0..=4 => {
                let size = SIZES[more % SIZES.len()];
                world.says(at, input.take(size));
            }
            5 => world.passes([1, 3, 10, 20, 31, 60, 100, 250, 301, 600, 40_000][more % 11]),
            6 => world.clients[at].has_ended = true,
            7 => {
                let rooms = [usize::MAX, 0, 1, 5, 40, 300, 2000];
                world.clients[at].socket.room = rooms[more % 7];
            }
            8 => at = world.joins(more % 3),
            9 => {
                let payload = input.take(more * 3);
                // Long enough to be compressed, or to be more than a reader is given at once.
                world.publishes(more, &payload.repeat([1, 20, 80][more / 6 % 3]));
            }
            10 => {
                let opcodes =
                    [0x81, 0x81, 0xc1, 0xc2, 0x81, 0x82, 0x01, 0x80, 0x00, 0x89, 0x8a, 0x88, 0x41];
                let opcode = opcodes[more % opcodes.len()];
                let payload = input.take([5, 20, 60, 125, 130, 300, 1, 0][more % 8]);
                world.says(
                    at,
                    &match opcode & 0x40 {
                        0 => frame(opcode, payload),
                        _ => frame(opcode, &squeezed(&payload.repeat(1 + more % 3 * 10))),
                    },
                );
            }
            _ => world.strikes(at, more),
        }
        world.turns();
    }
    world.ends();
}

/// A frame as a client sends it; the masking key is zero.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len();
    let mut frame = match length {
        ..=125 => vec![first, 0x80 | length as u8],
        _ => vec![first, 0xfe, (length >> 8) as u8, length as u8],
    };
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// A message as DEFLATE has it: compressed, or stored if that is no shorter.
pub fn squeezed(payload: &[u8]) -> Vec<u8> {
    deflated(payload, false).unwrap_or_else(|| {
        let length = payload.len() as u16;
        [&[0][..], &length.to_le_bytes(), &(!length).to_le_bytes(), payload, &[0]].concat()
    })
}

/// A socket that is there to be owned.
pub fn stream() -> Stream {
    Stream::Unix(UnixStream::pair().expect("a pair of sockets").0)
}

#[expect(clippy::disallowed_methods, reason = "the machine has no clock; it is handed a start")]
pub fn rehearsal(config: &Config) -> Rehearsal<Policy> {
    Rehearsal::new(config, Policy::default(), std::time::Instant::now()).expect("no folder")
}

impl World {
    fn new() -> Self {
        let config = config();
        Self {
            rehearsal: rehearsal(&config),
            limits: config.limits.clone(),
            now: Tick(0),
            clients: Vec::new(),
            published: Published::new(),
        }
    }

    /// The peer of this number, a new one if it is not there.
    fn joins(&mut self, number: usize) -> usize {
        let here: Vec<usize> =
            (0..self.clients.len()).filter(|at| !self.clients[*at].is_gone).collect();
        if let Some(at) = here.get(number) {
            return *at;
        }
        let peer = match number {
            2 => Peer::Tcp("10.0.0.1:5".parse().expect("an address")),
            _ => Peer::Unix,
        };
        let id = self.rehearsal.joins(stream(), peer);
        self.clients.push(Client {
            id,
            socket: Socket { heard: Vec::new(), room: usize::MAX, is_broken: false },
            said: Vec::new(),
            read: 0,
            has_ended: false,
            is_gone: false,
            is_cut: false,
            may_repeat: false,
        });
        self.clients.len() - 1
    }

    fn says(&mut self, at: usize, bytes: &[u8]) {
        if !self.clients[at].has_ended {
            self.clients[at].said.extend_from_slice(bytes);
        }
    }

    fn passes(&mut self, ticks: u32) {
        self.now = Tick(self.now.0 + ticks);
    }

    fn publishes(&mut self, more: usize, payload: &[u8]) {
        let topic = ["general", "a", "b", "a\nb", "c", "d"][more % 6];
        let _ = self.rehearsal.context().publish(topic, payload);
        if let Ok(text) = std::str::from_utf8(payload) {
            let _ = self.rehearsal.context().publish(topic, text);
        }
    }

    fn strikes(&mut self, at: usize, more: usize) {
        let id = self.clients[at].id;
        let mut context = self.rehearsal.context();
        match more % 8 {
            0 => context.close(id, CloseCode::Away, "the reason"),
            1 => context.close_because(id, CloseCode::Status, "", Reason::Handler),
            2 => self.clients[at].socket.is_broken = true,
            3 => drop(context.send(id, "direct")),
            4 => drop(context.subscribe(id, "a", pousse::After::Earliest)),
            5 => self.clients[at].may_repeat |= context.unsubscribe(id, "general"),
            6 => context.drain(CloseCode::Restart),
            _ => {
                let _ = context.set_origins(vec!["https://other.example".into()]);
            }
        }
    }

    /// Turns until nobody reads any more, as the loop would go round.
    fn turns(&mut self) {
        for _ in 0..10_000 {
            self.rehearsal.begin(self.now);
            let mut is_rest = true;
            for client in self.clients.iter_mut().filter(|client| !client.is_gone) {
                let mut unread = &client.said[client.read..];
                is_rest &= !self.rehearsal.reads(client.id, &mut unread);
                client.read = client.said.len() - unread.len();
                let wants = self.rehearsal.connection(client.id).is_some_and(|it| !it.is_done());
                if client.has_ended && client.read == client.said.len() && wants {
                    client.has_ended = false;
                    client.said.truncate(client.read);
                    self.rehearsal.ends(client.id);
                }
                self.rehearsal.times(client.id);
            }
            for client in self.clients.iter_mut().filter(|client| !client.is_gone) {
                let before = client.socket.heard.len();
                match self.rehearsal.writes(client.id, &mut client.socket) {
                    Ok(has_all) => is_rest &= has_all,
                    Err(_) => client.is_cut = true,
                }
                // Whoever has taken something says that it takes more.
                is_rest &= client.socket.heard.len() == before;
                let most = client_bytes_max(&self.limits);
                let held = self.rehearsal.held_bytes(client.id);
                assert!(
                    held <= most,
                    "a client holds {held} bytes, and at most {most} are allowed"
                );
                if let Some(ending) = self.rehearsal.ending(client.id) {
                    client.is_cut |= matches!(ending.code, CloseCode::Abnormal | CloseCode::Again);
                }
            }
            self.notes();
            let here: Vec<ConnId> = self.clients.iter().map(|client| client.id).collect();
            for id in self.rehearsal.end(&here) {
                let client = self.clients.iter_mut().find(|client| client.id == id);
                let client = client.expect("whoever is done is known");
                client.is_gone = true;
                client.is_cut |= client.socket.is_broken;
                check(client, &self.published);
            }
            let (held, most) = (self.rehearsal.log().bytes(), self.limits.history_total);
            assert!(held <= most, "the log holds {held} bytes, and at most {most} are allowed");
            if is_rest {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Notes what was published in this turn, before anything of it may go.
    fn notes(&mut self) {
        let log = self.rehearsal.log();
        for (_, topic) in log.topics_from(0) {
            let name = topic.name().to_string();
            let known = self.published.entry(name).or_default();
            let last = known.last().map_or(0, |(seq, _)| *seq);
            known.extend(topic.after(last).map(|entry| (entry.seq, entry.except)));
        }
    }

    /// Everyone takes what there is, goes, and leaves nothing.
    fn ends(mut self) {
        for client in &mut self.clients {
            client.socket.room = usize::MAX;
        }
        self.turns();
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            if !client.is_gone {
                check(client, &self.published);
                client.has_ended = true;
                self.rehearsal.context().close(self.clients[at].id, CloseCode::Away, "the end");
            }
        }
        self.turns();
        self.passes(self.limits.close_timeout.as_millis() as u32 / 100 + 2);
        self.turns();
        for client in self.clients.iter().filter(|client| !client.is_gone) {
            // It waits for its request to be whole; nothing more than time will end it.
            self.rehearsal.context().close_because(client.id, CloseCode::Away, "", Reason::Drain);
        }
        for ticks in [400, 1000, 1000, 1000] {
            self.passes(ticks);
            self.turns();
        }
        let left = self.clients.iter().filter(|client| !client.is_gone).count();
        assert_eq!(left, 0, "everyone is gone in the end");
        assert!(self.rehearsal.is_deserted(), "a reader is left who is nobody");
        assert_eq!(self.rehearsal.context().counters().panics, 0, "the handler panicked");
        assert!(self.rehearsal.handler().open.is_empty(), "on_close comes for each on_open");
    }
}

/// What a peer heard is what the standards say, and of what it reads it has everything in order, or
/// was told of a gap.
fn check(client: &Client, published: &Published) {
    let asked = reference::read(&client.said[..client.read]);
    let heard = match answers::read(&client.socket.heard, &asked, client.is_cut) {
        Ok(heard) => heard,
        Err(wrong) => panic!(
            "{wrong}\nsaid: {}\nheard: {}",
            client.said[..client.read].escape_ascii(),
            client.socket.heard.escape_ascii()
        ),
    };
    // Who unsubscribes may begin anew from an older place; a backslash may spell it otherwise.
    let said = String::from_utf8_lossy(&client.said);
    if client.may_repeat || said.contains("unsub") || said.contains('\\') {
        return;
    }
    for (topic, places) in places(&heard) {
        let all = published.get(&topic).map(Vec::as_slice).unwrap_or_default();
        let mut before = None;
        for place in places {
            let is_due = |(seq, except): &&(u64, Option<ConnId>)| {
                let is_between = before.is_some_and(|before| *seq > before) && Some(*seq) < place;
                is_between && *except != Some(client.id)
            };
            let lost = all.iter().find(is_due);
            assert_eq!(lost, None, "{topic:?} has nothing between {before:?} and {place:?}");
            assert!(before.is_none() || place.is_none() || before < place, "{topic:?} goes back");
            before = place;
        }
    }
}
