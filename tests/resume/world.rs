//! A server that the test turns by hand, and the model it is held against: a plain list of all that
//! was ever published.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use data_encoding::BASE64;
use pousse::{Config, ConnId, Context, EntryId, Handler, Message, Publish, PublishError, Server};
use serde_json::Value;

use crate::wire::{Line, get, json, post};

/// Numbers that look random and come again with the same seed (SplitMix64).
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }

    pub(crate) fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    pub(crate) fn of<'t, T>(&mut self, all: &'t [T]) -> &'t T {
        &all[self.below(all.len())]
    }
}

/// So many turns with nothing to do: nothing is on its way.
pub(crate) const QUIET: usize = 3;

/// A message, as published and as received.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    Text(String),
    Binary(Vec<u8>),
}

impl Data {
    pub(crate) fn of(value: &Value) -> Self {
        match (&value["data"], &value["base64"]) {
            (Value::String(text), Value::Null) => Self::Text(text.clone()),
            (Value::Null, Value::String(text)) => {
                Self::Binary(BASE64.decode(text.as_bytes()).unwrap())
            }
            _ => panic!("{value} has neither data nor base64, or both"),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    fn message(&self) -> Message<'_> {
        match self {
            Self::Text(text) => Message::Text(text),
            Self::Binary(bytes) => Message::Binary(bytes),
        }
    }
}

/// All that was ever published, and nothing else.
#[derive(Default)]
pub(crate) struct Model {
    all: BTreeMap<EntryId, (String, Data)>,
}

impl Model {
    pub(crate) fn add(&mut self, id: EntryId, topic: &str, data: Data) {
        trace(|| format!("{id} in {topic}, {} bytes", data.bytes().len()));
        let before = self.all.insert(id, (topic.into(), data.clone()));
        let again = before.is_none_or(|it| it == (topic.into(), data));
        assert!(again, "{id} was given to two messages");
    }

    pub(crate) fn get(&self, id: EntryId) -> Option<&(String, Data)> {
        self.all.get(&id)
    }

    /// The entries of a topic between two ids, neither of them included.
    pub(crate) fn between(&self, topic: &str, from: EntryId, to: EntryId) -> Vec<EntryId> {
        if from >= to {
            return Vec::new();
        }
        let range = (std::ops::Bound::Excluded(from), std::ops::Bound::Excluded(to));
        let all = self.all.range(range).filter(|(_, (name, _))| name == topic);
        all.map(|(id, _)| *id).collect()
    }

    /// The entry of this run with this content: in text mode there is no other name for it.
    pub(crate) fn find(&self, run: u64, data: &Data) -> Option<EntryId> {
        let (start, end) = (EntryId { run, seq: 0 }, EntryId { run: run + 1, seq: 0 });
        self.all.range(start..end).rev().find(|(_, (_, it))| it == data).map(|(id, _)| *id)
    }
}

type Published = Rc<RefCell<Vec<(EntryId, String, Data)>>>;

/// Publishes what WebSockets in text mode say to the first topic of their URL, and keeps a list.
pub(crate) struct Chat(Published);

impl Handler for Chat {
    fn on_message(&mut self, conn: ConnId, message: Message<'_>, ctx: &mut Context<'_>) {
        let data = match message {
            Message::Text(text) => Data::Text(text.into()),
            Message::Binary(bytes) => Data::Binary(bytes.into()),
        };
        let Some(topic) = ctx.topic(conn) else { return };
        if let Ok(Some(id)) = ctx.publish(&topic, message) {
            self.0.borrow_mut().push((id, (*topic).into(), data));
        }
    }
}

/// See the head of this file.
pub(crate) struct World {
    pub(crate) server: Server<Chat>,
    pub(crate) path: PathBuf,
    pub(crate) model: Model,
    pub(crate) run: u64,
    /// Topics may be dropped to make room: then nobody knows what they held.
    pub(crate) has_churn: bool,
    /// The last message of a topic is always kept.
    pub(crate) keeps_last: bool,
    config: Config,
    published: Published,
    messages: usize,
}

impl World {
    pub(crate) fn new(name: &str, change: impl FnOnce(&mut Config)) -> Self {
        let name = format!("pousse-{}-{name}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mut config = Config::default();
        config.listen = vec![format!("unix:{}", path.display()).parse().unwrap()];
        config.publish = Some(Publish::Anyone);
        config.limits.ping = Duration::from_secs(3600);
        config.limits.stall = Duration::from_secs(3600);
        config.limits.requests = usize::MAX;
        change(&mut config);
        let published = Published::default();
        let server = Server::bind(config.clone(), Chat(published.clone())).unwrap();
        let mut world = Self {
            server,
            path,
            model: Model::default(),
            run: 0,
            has_churn: false,
            keeps_last: true,
            config,
            published,
            messages: 0,
        };
        world.run = world.newest().run;
        world
    }

    /// The server ends, and one that remembers nothing takes its place.
    pub(crate) fn restart(&mut self) {
        self.check_whole();
        self.server.context().stop();
        while !self.server.has_ended() {
            self.turn();
        }
        // A run is named by its millisecond.
        while self.run >= unix_ms() {}
        let chat = Chat(self.published.clone());
        // Two cannot listen at one path: the old one goes before the new one comes.
        self.server = Server::bind(kit::common::config(), chat).unwrap();
        let chat = Chat(self.published.clone());
        self.server = Server::bind(self.config.clone(), chat).unwrap();
        let before = self.run;
        self.run = self.newest().run;
        assert!(self.run > before, "a run is told from the one before");
    }

    /// Whether a topic can be dropped with all that it held: what is absent is a gap to whoever
    /// comes from before the last that was dropped, whatever it held.
    pub(crate) fn drops_topics(&self) -> bool {
        self.has_churn || !self.keeps_last
    }

    /// Once round; true if there is more to do.
    pub(crate) fn turn(&mut self) -> bool {
        let rest = self.server.turn(Some(Duration::ZERO)).unwrap();
        for (id, topic, data) in self.published.borrow_mut().drain(..) {
            self.model.add(id, &topic, data);
        }
        rest == Some(Duration::ZERO)
    }

    /// Goes round until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        let (mut turns, mut quiet) = (0, 0);
        // Who was accepted in a turn is ready in the next, and what it asked for in the one after.
        while quiet < QUIET {
            quiet = if self.turn() { 0 } else { quiet + 1 };
            turns += 1;
            assert!(turns < 100_000, "it does not come to rest");
        }
    }

    /// Asks and goes round until the answer has come.
    pub(crate) fn ask(&mut self, request: impl AsRef<[u8]>) -> (u16, String) {
        let mut line = Line::open(&self.path);
        line.writes(request);
        for _ in 0..100_000 {
            self.turn();
            line.reads(usize::MAX);
            if let Some(answer) = line.answer() {
                return answer;
            }
        }
        panic!("no answer");
    }

    /// The newest id, as a poll tells it.
    pub(crate) fn newest(&mut self) -> EntryId {
        let (status, content) = self.ask(get("topic=nothing&after=now", ""));
        assert_eq!(status, 200, "{content}");
        id(&json(&content)["last"])
    }

    /// A content that no other message has.
    pub(crate) fn data(&mut self, chance: &mut Chance) -> Data {
        self.messages += 1;
        let number = self.messages;
        let length = if chance.one_in(40) { 20_000 } else { chance.below(40) };
        match chance.below(6) {
            0 => Data::Binary([format!("{number} ").as_bytes(), &vec![0xff; length + 1]].concat()),
            1 => Data::Text(format!("{number}\r\n\n\"\\{{id: \u{1f331}\u{2028}\t\0\r")),
            _ => Data::Text(format!("{number} {}", "x".repeat(length))),
        }
    }

    /// This content, told from all others.
    pub(crate) fn data_of(&mut self, text: &str) -> Data {
        self.messages += 1;
        Data::Text(format!("{} {text}", self.messages))
    }

    /// The program itself publishes. `None`: there is no room for a topic more.
    pub(crate) fn publish(&mut self, topic: &str, data: Data) -> Option<EntryId> {
        match self.server.context().publish(topic, data.message()) {
            Ok(id) => {
                let id = id.unwrap();
                self.model.add(id, topic, data);
                Some(id)
            }
            Err(PublishError::TopicsFull) if self.has_churn => None,
            // While readers have not been offered what there is.
            Err(PublishError::Busy) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Publishes by request, under a key. Done twice, it is the same.
    pub(crate) fn post(&mut self, topic: &str, key: &str, data: &Data) -> Option<EntryId> {
        let kind = match data {
            Data::Text(_) => "text/plain",
            Data::Binary(_) => "application/octet-stream",
        };
        let fields = format!("Content-Type: {kind}\r\nIdempotency-Key: {key}\r\n");
        let (status, content) = self.ask(post(topic, &fields, data.bytes()));
        trace(|| format!("post in {topic} under {key:?}: {status} {content:.100}"));
        if status == 503 {
            return None;
        }
        assert_eq!(status, 201, "{content}");
        let id = id(&json(&content)["id"]);
        self.model.add(id, topic, data.clone());
        Some(id)
    }

    /// Every id of the run up to the newest has its message, and just one: what was published
    /// with a key, however often, is there once.
    pub(crate) fn check_whole(&mut self) {
        let newest = self.newest();
        for seq in 1..=newest.seq {
            let id = EntryId { run: self.run, seq };
            assert!(self.model.get(id).is_some(), "{id} is a message that nobody published");
        }
        let above = EntryId { run: self.run, seq: newest.seq + 1 };
        assert!(self.model.all.range(above..).next().is_none(), "the newest is {newest}");
    }
}

fn unix_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a run is named by the clock")]
    let now = SystemTime::now();
    u64::try_from(now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Says what happens, if it is one seed that is played.
pub(crate) fn trace(what: impl FnOnce() -> String) {
    static IS_ON: OnceLock<bool> = OnceLock::new();
    if *IS_ON.get_or_init(|| std::env::var_os("POUSSE_SEED").is_some()) {
        println!("{}", what());
    }
}

pub(crate) fn id(value: &Value) -> EntryId {
    value.as_str().unwrap().parse().unwrap()
}
