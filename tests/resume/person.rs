//! Someone who reads some topics, on one transport after the other, and believes nothing that the
//! model does not have.
//!
//! What is checked with every entry: it is the one that was published under this id; its id is
//! above all that came before on this connection (but for a topic that catches up); nothing of its
//! topic lies between it and the one before, on whatever connection that came, unless a gap was
//! told; and with every id that says "up to here": nothing is missing up to there.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::BASE64;
use pousse::EntryId;
use serde_json::Value;

use crate::wire::{Heard, Line, get, json, opening};
use crate::world::{Chance, Data, Model, World, id, trace};

/// What someone knows of one topic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    /// Everything up to here came, or was told to be lost. `None`: it begins with what comes first.
    pub(crate) seen: Option<EntryId>,
    /// A gap named this one as the oldest that is kept: it may come, or be gone too.
    oldest: Option<EntryId>,
    /// A gap was told that does not say how far it goes.
    has_gap: bool,
    /// It begins with the oldest that is kept, not with what is new.
    is_eager: bool,
    /// It was asked for by no id: that is never a gap.
    is_fresh: bool,
}

impl Reading {
    fn is_known(&self, run: u64) -> bool {
        self.seen.is_none_or(|seen| seen.run == run) || self.has_gap
    }

    /// What should have come before `to` and did not.
    fn missing(&self, topic: &str, to: EntryId, model: &Model) -> Vec<EntryId> {
        let Some(seen) = self.seen.filter(|_| !self.has_gap) else { return Vec::new() };
        let between = model.between(topic, seen, to);
        between.into_iter().filter(|it| Some(*it) != self.oldest).collect()
    }

    fn takes(&mut self, topic: &str, entry: EntryId, model: &Model) {
        assert!(self.is_known(entry.run), "{topic}: {entry} of another run, and no gap: {self:?}");
        assert!(self.seen.is_none_or(|seen| seen < entry), "{topic}: {entry} again: {self:?}");
        let missing = self.missing(topic, entry, model);
        assert!(missing.is_empty(), "{topic}: {missing:?} missing before {entry}: {self:?}");
        *self = Self { seen: Some(entry), ..Self::default() };
    }

    /// Someone says that everything up to here was given.
    fn covers(&mut self, topic: &str, upto: EntryId, model: &Model) {
        assert!(self.is_known(upto.run), "{topic}: {upto} of another run, and no gap: {self:?}");
        if self.seen.is_some_and(|seen| seen >= upto) {
            return;
        }
        let next = EntryId { seq: upto.seq + 1, ..upto };
        let missing = self.missing(topic, next, model);
        assert!(missing.is_empty(), "{topic}: {missing:?} missing up to {upto}: {self:?}");
        *self = Self { seen: Some(upto), ..Self::default() };
    }

    /// A gap that ends before `oldest`.
    fn passes(&mut self, topic: &str, oldest: EntryId) {
        let before = EntryId { seq: oldest.seq.saturating_sub(1), ..oldest };
        let back = self.seen.is_some_and(|seen| seen.run == before.run && seen > before);
        assert!(!back, "{topic}: a gap that goes back to {oldest}: {self:?}");
        *self = Self { seen: Some(before), oldest: Some(oldest), ..Self::default() };
    }
}

/// A way to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Poll,
    LongPoll,
    Stream,
    Text,
    Session,
}

pub(crate) const TRANSPORTS: [Transport; 5] =
    [Transport::Poll, Transport::LongPoll, Transport::Stream, Transport::Text, Transport::Session];

/// What a command of pousse.v1 was about.
#[derive(Clone, Debug)]
enum Sent {
    Subscribe(String),
    Unsubscribe(String),
    Publish(Option<EntryId>),
}

/// A connection, and what is known by it alone.
struct Connected {
    line: Line,
    /// The run of the server at the other end, which may have ended since.
    run: u64,
    transport: Transport,
    has_head: bool,
    /// Nothing at or below comes any more, but for topics that catch up.
    high: Option<EntryId>,
    /// From where this connection asked to read.
    after: Option<EntryId>,
    /// pousse.v1: topics whose backlog is on its way, and the newest that came of it.
    pending: BTreeMap<String, Reading>,
    caught: BTreeMap<String, EntryId>,
    /// Commands that were not answered yet, by their `ref`.
    sent: BTreeMap<u64, Sent>,
    /// A poll was asked and not answered yet.
    is_asking: bool,
    /// It did not always read: then the log may have gone on without it.
    was_slow: bool,
}

/// See the head of this file.
pub(crate) struct Person {
    name: usize,
    home: String,
    /// Topics up to date at `place`.
    pub(crate) covered: BTreeMap<String, Reading>,
    /// Topics left at another place: to be read again over pousse.v1.
    apart: BTreeMap<String, Reading>,
    pub(crate) place: Option<EntryId>,
    /// Begins with what is kept, or with what is new.
    is_eager: bool,
    connected: Option<Connected>,
    /// It does not read now.
    pub(crate) is_paused: bool,
    refs: u64,
    /// Entries and gaps that it was given.
    pub(crate) given: usize,
    pub(crate) gaps: usize,
    /// Where this person is no gap may be.
    pub(crate) is_strict: bool,
}

impl Person {
    pub(crate) fn new(name: usize, topics: &[&str], is_eager: bool) -> Self {
        let fresh = || Reading { is_eager, ..Reading::default() };
        Self {
            name,
            home: topics[0].to_owned(),
            covered: topics.iter().map(|it| ((*it).to_owned(), fresh())).collect(),
            apart: BTreeMap::new(),
            place: None,
            is_eager,
            connected: None,
            is_paused: false,
            refs: 0,
            given: 0,
            gaps: 0,
            is_strict: false,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected.is_some()
    }

    pub(crate) fn transport(&self) -> Option<Transport> {
        self.connected.as_ref().map(|it| it.transport)
    }

    /// Whether all that is pushed should have come.
    fn is_pushed_to(&self) -> bool {
        let pushed = |it: &Connected| it.transport != Transport::Poll && it.pending.is_empty();
        !self.is_paused && self.connected.as_ref().is_some_and(pushed)
    }

    // What it does.

    /// Comes, from its place, in this way.
    pub(crate) fn connects(&mut self, transport: Transport, world: &World, chance: &mut Chance) {
        self.leaves();
        self.is_paused = false;
        if self.covered.is_empty() {
            // One of those apart goes on from where it was left.
            let fresh = || (self.home.clone(), Reading::default());
            let (topic, reading) = self.apart.pop_first().unwrap_or_else(fresh);
            self.place = reading.seen;
            self.covered.insert(topic, reading);
        }
        for reading in self.covered.values_mut() {
            reading.is_fresh = self.place.is_none();
            reading.is_eager = self.is_eager && reading.is_fresh;
        }
        let mut connected = Connected {
            line: Line::open(&world.path),
            run: world.run,
            transport,
            has_head: false,
            high: None,
            after: self.place,
            pending: BTreeMap::new(),
            caught: BTreeMap::new(),
            sent: BTreeMap::new(),
            is_asking: false,
            was_slow: false,
        };
        let topics: Vec<_> = self.covered.keys().map(|it| format!("topic={it}")).collect();
        let after = match self.place {
            Some(place) => place.to_string(),
            None if self.is_eager => "earliest".into(),
            None => "now".into(),
        };
        let query = format!("{}&after={after}", topics.join("&"));
        match transport {
            Transport::Poll | Transport::LongPoll => {
                self.asks(&mut connected, chance);
            }
            Transport::Stream => {
                let accept = "Accept: text/event-stream\r\n";
                match self.place {
                    // As a browser does that comes back: the old URL, and where it is.
                    Some(place) if chance.one_in(2) => {
                        let query = format!("{}&after=earliest", topics.join("&"));
                        let fields = format!("{accept}Last-Event-ID: {place}\r\n");
                        connected.line.writes(get(&query, &fields));
                    }
                    _ => connected.line.writes(get(&query, accept)),
                }
            }
            Transport::Text => connected.line.writes(opening(&query, false)),
            Transport::Session => {
                connected.line.writes(opening(&query, true));
                connected.pending = std::mem::take(&mut self.covered);
            }
        }
        trace(|| format!("{} comes, {:?}", self.who(&connected), self.covered));
        self.connected = Some(connected);
    }

    fn asks(&self, connected: &mut Connected, chance: &mut Chance) {
        let topics: Vec<_> = self.covered.keys().map(|it| format!("topic={it}")).collect();
        let after = match self.place {
            Some(place) => format!("&after={place}"),
            None if self.is_eager => String::new(),
            None => "&after=now".into(),
        };
        let limit = if chance.one_in(3) { 1 + chance.below(3) } else { 1000 };
        let wait = match connected.transport {
            Transport::LongPoll => "&wait=50",
            _ => "",
        };
        connected.is_asking = true;
        connected.after = self.place;
        connected.high = None;
        let query = format!("{}{after}&limit={limit}{wait}", topics.join("&"));
        connected.line.writes(get(&query, ""));
    }

    /// Is gone, whatever was on its way.
    pub(crate) fn leaves(&mut self) {
        let Some(connected) = self.connected.take() else { return };
        trace(|| format!("{} leaves", self.who(&connected)));
        for (topic, reading) in connected.pending {
            if reading.seen.is_some() {
                self.apart.insert(topic, reading);
            } else if self.covered.is_empty() {
                self.place = None;
                self.covered.insert(topic, reading);
            }
        }
    }

    /// Stops reading, until it comes back to it.
    pub(crate) fn pauses(&mut self) {
        trace(|| format!("person {} reads no more", self.name));
        self.is_paused = true;
        self.is_slow();
    }

    /// It may be that more came than it could take.
    pub(crate) fn is_slow(&mut self) {
        if let Some(connected) = &mut self.connected {
            connected.was_slow = true;
        }
    }

    /// Over pousse.v1: reads one topic more, or the same again, or one no longer.
    pub(crate) fn commands(&mut self, topic: &str, chance: &mut Chance) {
        let Some(connected) = &mut self.connected else { return };
        if connected.transport != Transport::Session || !connected.has_head {
            return;
        }
        let ends = |sent: &Sent| matches!(sent, Sent::Unsubscribe(it) if it == topic);
        if connected.sent.values().any(ends) {
            return;
        }
        self.refs += 1;
        let reference = self.refs;
        trace(|| format!("person {} has {reference} for {topic}", self.name));
        let is_read = self.covered.contains_key(topic) || connected.pending.contains_key(topic);
        if is_read && chance.one_in(2) {
            connected.line.says(&format!(r#"{{"unsubscribe":"{topic}","ref":{reference}}}"#));
            connected.sent.insert(reference, Sent::Unsubscribe(topic.into()));
            return;
        }
        let mut after = ["earliest", "now"][chance.below(2)].to_owned();
        if !is_read {
            let mut reading = self.apart.remove(topic).unwrap_or_default();
            reading.is_eager = after == "earliest" && reading.seen.is_none();
            reading.is_fresh = reading.seen.is_none();
            after = reading.seen.map_or(after, |seen| seen.to_string());
            connected.pending.insert(topic.into(), reading);
        }
        connected
            .line
            .says(&format!(r#"{{"subscribe":"{topic}","after":"{after}","ref":{reference}}}"#));
        connected.sent.insert(reference, Sent::Subscribe(topic.into()));
    }

    /// Over pousse.v1 or in text mode: says something, perhaps twice, perhaps as the last thing it
    /// does. Who is asked afterwards with the same key says under which id.
    pub(crate) fn publishes(&mut self, topic: &str, world: &mut World, chance: &mut Chance) {
        // Nobody else is to come between what is said and who asks for it.
        world.settle();
        self.reads(world, usize::MAX, chance);
        let data = world.data(chance);
        let Some(connected) = self.connected.as_mut().filter(|it| it.has_head) else { return };
        match (connected.transport, &data) {
            (Transport::Text, Data::Text(text)) => connected.line.says(text),
            (Transport::Text, Data::Binary(bytes)) => {
                connected.line.writes(crate::wire::masked(0x82, bytes));
            }
            // Where the last message is not kept, nor is its key.
            (Transport::Session, _) if world.keeps_last => {
                let key = format!("{} of {} \u{1f331}", self.refs, self.name);
                let content = match &data {
                    Data::Text(text) => format!("\"data\":{}", Value::from(text.as_str())),
                    Data::Binary(bytes) => format!("\"base64\":\"{}\"", BASE64.encode(bytes)),
                };
                let mut refs = Vec::new();
                for _ in 0..=chance.below(2) {
                    self.refs += 1;
                    let key = Value::from(key.as_str());
                    connected.line.says(&format!(
                        r#"{{"publish":"{topic}",{content},"key":{key},"ref":{}}}"#,
                        self.refs
                    ));
                    refs.push(self.refs);
                }
                if chance.one_in(4) {
                    self.leaves();
                }
                let id = world.post(topic, &key, &data);
                if let Some(connected) = &mut self.connected {
                    connected.sent.extend(refs.into_iter().map(|it| (it, Sent::Publish(id))));
                }
            }
            _ => {}
        }
    }

    /// Over pousse.v1: reads again what was left at another place.
    pub(crate) fn gathers(&mut self) {
        let Some(connected) = &mut self.connected else { return };
        for (topic, reading) in std::mem::take(&mut self.apart) {
            let after = reading.seen.unwrap();
            connected.line.says(&format!(r#"{{"subscribe":"{topic}","after":"{after}"}}"#));
            connected.pending.insert(topic, reading);
        }
    }

    /// Takes at most so many bytes of what has come; true if there was anything.
    pub(crate) fn reads(&mut self, world: &World, most: usize, chance: &mut Chance) -> bool {
        let Some(mut connected) = self.connected.take() else { return false };
        let has_read = connected.line.reads(most);
        if has_read {
            let waiting = String::from_utf8_lossy(connected.line.waiting());
            trace(|| format!("{} reads {:.300}", self.who(&connected), waiting));
        }
        let stays = self.understands(&mut connected, world, chance);
        if !stays || connected.line.has_ended {
            self.connected = Some(connected);
            self.leaves();
        } else {
            self.connected = Some(connected);
        }
        has_read
    }

    // What it hears.

    fn understands(&mut self, it: &mut Connected, world: &World, chance: &mut Chance) -> bool {
        match it.transport {
            Transport::Poll | Transport::LongPoll => {
                while let Some((status, content)) = it.line.answer() {
                    if status == 503 && world.has_churn {
                        return false;
                    }
                    assert_eq!(status, 200, "{content}");
                    it.is_asking = false;
                    self.hears_answer(it, &json(&content), world);
                    self.asks_on(it, chance);
                }
                return true;
            }
            _ if it.has_head => {}
            _ => match it.line.head() {
                None => return true,
                Some(head) if head.starts_with("HTTP/1.1 503 ") && world.has_churn => return false,
                Some(head) => {
                    let begun = head.starts_with("HTTP/1.1 101 ") || head.contains("event-stream");
                    assert!(begun, "{head}");
                    it.has_head = true;
                }
            },
        }
        if it.transport == Transport::Stream {
            while let Some(block) = it.line.block() {
                match block.event.as_deref() {
                    Some("gap") => {
                        assert_eq!(block.id, None, "a gap has no id");
                        self.hears_gap(it, &json(&block.data.unwrap()), world);
                    }
                    Some(event) => panic!("{event}"),
                    None => self.hears_block(it, block.id, block.data, world),
                }
            }
            return true;
        }
        while let Some(heard) = it.line.frame() {
            match (it.transport, heard) {
                (Transport::Text, Heard::Text(text)) => {
                    self.hears_bare(it, &Data::Text(text), world);
                }
                (Transport::Text, Heard::Binary(bytes)) => {
                    self.hears_bare(it, &Data::Binary(bytes), world);
                }
                (Transport::Text, Heard::Close(1013, reason)) => {
                    self.hears_close(it, &reason, world);
                    return false;
                }
                (Transport::Session, Heard::Text(text)) => self.hears_json(it, &json(&text), world),
                (Transport::Session, Heard::Close(1013, reason)) => {
                    assert!(world.has_churn && reason.contains("topic"), "closed: {reason}");
                    return false;
                }
                (transport, heard) => panic!("{transport:?} hears {heard:?}"),
            }
        }
        true
    }

    fn asks_on(&mut self, it: &mut Connected, chance: &mut Chance) {
        // A poll is asked again by whoever wants to; a long poll at once.
        if it.transport == Transport::LongPoll {
            self.asks(it, chance);
        }
    }

    /// Asks once more, if it polls.
    pub(crate) fn polls(&mut self, chance: &mut Chance) {
        let Some(mut connected) = self.connected.take() else { return };
        if connected.transport == Transport::Poll && !connected.is_asking {
            self.asks(&mut connected, chance);
        }
        self.connected = Some(connected);
    }

    fn who(&self, it: &Connected) -> String {
        let after = it.after.map(|it| it.to_string());
        format!("person {} by {:?} after {after:?}", self.name, it.transport)
    }

    /// All topics were given up to here; what was lost before it began to read is not known.
    fn has_come_to(&mut self, place: EntryId, world: &World) {
        for (topic, reading) in &mut self.covered {
            if reading.seen.is_some() || !reading.is_eager {
                reading.covers(topic, place, &world.model);
            }
        }
        self.place = self.place.max(Some(place));
    }

    /// All that there is was given, and that is up to here.
    fn is_at(&mut self, it: &mut Connected, place: EntryId, world: &World) {
        assert_eq!(place.run, it.run, "{}", self.who(it));
        if !world.drops_topics() && !it.was_slow {
            let start = EntryId { run: it.run, seq: 0 };
            let is_eager = |reading: &Reading| reading.seen.is_none() && reading.is_eager;
            for (topic, _) in self.covered.iter().filter(|(_, reading)| is_eager(reading)) {
                let next = EntryId { seq: place.seq + 1, ..place };
                let all = world.model.between(topic, start, next);
                assert!(all.is_empty(), "{}: {topic}: {all:?} and not one", self.who(it));
            }
        }
        for (topic, reading) in &mut self.covered {
            reading.covers(topic, place, &world.model);
        }
        self.place = self.place.max(Some(place));
    }

    fn hears_entry(&mut self, it: &mut Connected, entry: EntryId, topic: &str, world: &World) {
        self.given += 1;
        let who = self.who(it);
        trace(|| format!("{who} hears {entry} in {topic}"));
        // From now on the log may go on faster than it is read, from wherever it was begun.
        for reading in self.covered.values_mut().chain(it.pending.values_mut()) {
            reading.is_fresh = false;
        }
        if let Some(reading) = it.pending.get_mut(topic) {
            it.caught.insert(topic.into(), entry);
            return reading.takes(topic, entry, &world.model);
        }
        assert!(it.high < Some(entry), "{who}: {entry} after {:?}", it.high);
        it.high = Some(entry);
        let reading = self.covered.get_mut(topic);
        let reading = reading.unwrap_or_else(|| panic!("{who}: {topic} is not read"));
        reading.takes(topic, entry, &world.model);
        self.has_come_to(entry, world);
    }

    fn hears_message(&mut self, it: &mut Connected, message: &Value, world: &World) {
        let (entry, topic) = (id(&message["id"]), message["topic"].as_str().unwrap());
        let published = world.model.get(entry);
        assert_eq!(
            published,
            Some(&(topic.to_owned(), Data::of(message))),
            "{}: {entry} is not what was published",
            self.who(it)
        );
        self.hears_entry(it, entry, topic, world);
    }

    fn hears_answer(&mut self, it: &mut Connected, answer: &Value, world: &World) {
        let messages = answer["messages"].as_array().unwrap();
        let is_gap = answer["gap"].as_bool().unwrap();
        if is_gap {
            self.check_gap_of_poll(it, messages, world);
            for reading in self.covered.values_mut() {
                reading.has_gap = true;
            }
        }
        for message in messages {
            // The order of an answer's entries says it of all topics only where no gap is.
            let (topic, entry) = (message["topic"].as_str().unwrap(), id(&message["id"]));
            let told = (topic.to_owned(), Data::of(message));
            assert_eq!(world.model.get(entry), Some(&told), "{}", self.who(it));
            assert!(it.high < Some(entry), "{}: {entry} after {:?}", self.who(it), it.high);
            it.high = Some(entry);
            self.given += 1;
            let reading = self.covered.get_mut(topic).expect("it was asked for");
            reading.takes(topic, entry, &world.model);
        }
        let last = id(&answer["last"]);
        assert!(it.high <= Some(last), "{}: {last} is before {:?}", self.who(it), it.high);
        self.has_come_to(last, world);
        self.place = Some(last);
    }

    fn check_gap_of_poll(&mut self, it: &Connected, messages: &[Value], world: &World) {
        self.gaps += 1;
        let who = self.who(it);
        assert!(!self.is_strict, "{who}: a gap");
        let after = it.after.unwrap_or_else(|| panic!("{who}: earliest and now are never a gap"));
        if after.run != it.run || world.drops_topics() {
            return;
        }
        let given: BTreeSet<_> = messages.iter().map(|it| id(&it["id"])).collect();
        let end = EntryId { run: it.run + 1, seq: 0 };
        let lost = self.covered.keys().any(|topic| {
            let due = world.model.between(topic, after, end);
            due.first().is_some_and(|first| !given.contains(first))
        });
        assert!(lost, "{who}: a gap, and nothing is missing");
    }

    fn hears_gap(&mut self, it: &mut Connected, gap: &Value, world: &World) {
        self.gaps += 1;
        let who = self.who(it);
        assert!(!self.is_strict, "{who}: {gap}");
        trace(|| format!("{who} hears {gap}"));
        let topic = gap["topic"].as_str().unwrap();
        let (after, oldest) = (id(&gap["after"]), id(&gap["oldest"]));
        assert_eq!(oldest.run, it.run, "{who}: {gap}");
        if after.run == it.run && !world.drops_topics() {
            let lost = world.model.between(topic, after, oldest);
            // Where none is kept, `oldest` is the newest of all, and may be one that is lost.
            let is_lost = world.model.get(oldest).is_some_and(|(name, _)| name == topic);
            assert!(!lost.is_empty() || is_lost, "{who}: {gap}, and nothing is missing");
        }
        let reading = it.pending.get_mut(topic).or_else(|| self.covered.get_mut(topic));
        let reading = reading.unwrap_or_else(|| panic!("{who}: {gap} of what is not read"));
        let is_never = reading.is_fresh && !it.was_slow;
        assert!(!is_never, "{who}: {gap}, but earliest and now are never a gap");
        reading.passes(topic, oldest);
    }

    fn hears_block(
        &mut self,
        it: &mut Connected,
        place: Option<String>,
        data: Option<String>,
        world: &World,
    ) {
        match (place, data) {
            (Some(place), Some(data)) => {
                let message = json(&data);
                assert_eq!(message["id"].as_str(), Some(&*place));
                self.hears_message(it, &message, world);
            }
            (Some(place), None) => {
                let place = place.parse().unwrap();
                assert!(it.high <= Some(place), "{}: at {place}", self.who(it));
                self.is_at(it, place, world);
            }
            (None, None) => {}
            (None, Some(data)) => panic!("{}: {data} without an id", self.who(it)),
        }
    }

    fn hears_bare(&mut self, it: &mut Connected, data: &Data, world: &World) {
        let entry = world.model.find(it.run, data);
        let entry = entry.unwrap_or_else(|| panic!("{}: {data:?}", self.who(it)));
        let topic = world.model.get(entry).unwrap().0.clone();
        self.hears_entry(it, entry, &topic, world);
    }

    fn hears_close(&mut self, it: &mut Connected, reason: &str, world: &World) {
        let who = self.who(it);
        if world.has_churn && !reason.starts_with("gap; ") {
            return;
        }
        self.gaps += 1;
        assert!(!self.is_strict, "{who}: {reason}");
        let oldest: EntryId = reason.strip_prefix("gap; oldest ").unwrap().parse().unwrap();
        assert_eq!(oldest.run, it.run, "{who}: {reason}");
        assert!(
            self.covered.values().any(|it| !it.is_fresh) || it.was_slow,
            "{who}: {reason}, but earliest and now are never a gap"
        );
        let end = EntryId { run: it.run + 1, seq: 0 };
        let run = it.run;
        let lost = |(topic, reading): (&String, &Reading)| match reading.seen {
            Some(seen) if seen.run == run => !world.model.between(topic, seen, end).is_empty(),
            _ => true,
        };
        assert!(world.drops_topics() || self.covered.iter().any(lost), "{who}: nothing is missing");
    }

    fn hears_json(&mut self, it: &mut Connected, said: &Value, world: &World) {
        let who = self.who(it);
        trace(|| format!("{who} hears {:.200}", said.to_string()));
        let sent = said["ref"].as_u64().map(|reference| {
            let sent = it.sent.remove(&reference);
            sent.unwrap_or_else(|| panic!("{who}: {said} answers nothing"))
        });
        if said["id"].is_string() {
            self.hears_message(it, said, world);
        } else if said["gap"].is_object() {
            self.hears_gap(it, &said["gap"], world);
        } else if let Some(topic) = said["subscribed"].as_str() {
            let last = id(&said["last"]);
            // Who was overrun may hear of a place a little before, which is no less true.
            let is_behind = it.high > Some(last) && !it.was_slow;
            assert!(!is_behind, "{who}: {said} after {:?}", it.high);
            let is_asked = match &sent {
                None => true,
                Some(sent) => matches!(sent, Sent::Subscribe(it) if it == topic),
            };
            assert!(is_asked, "{who}: {said} for {sent:?}");
            if let Some(mut reading) = it.pending.remove(topic) {
                let caught = it.caught.remove(topic);
                assert!(caught <= Some(last), "{who}: {said} after {caught:?}");
                // What is kept may begin above the place where the others stand.
                let may_begin_above = it.was_slow || world.drops_topics();
                reading.is_eager |= reading.seen.is_none() && may_begin_above;
                self.covered.insert(topic.into(), reading);
            }
            assert!(self.covered.contains_key(topic), "{who}: {said}");
            it.high = it.high.max(Some(last));
            if self.covered.len() == 1 {
                self.place = None;
            }
            self.has_come_to(last, world);
        } else if let Some(topic) = said["unsubscribed"].as_str() {
            assert!(matches!(&sent, Some(Sent::Unsubscribe(it)) if it == topic), "{who}: {said}");
            it.caught.remove(topic);
            let reading = it.pending.remove(topic).or_else(|| self.covered.remove(topic));
            assert!(reading.is_some() || world.has_churn, "{who}: {said}");
            if let Some(reading) = reading.filter(|it| it.seen.is_some()) {
                self.apart.insert(topic.into(), reading);
            }
        } else if said["published"].is_string() {
            let published = id(&said["published"]);
            let is_so = matches!(sent, Some(Sent::Publish(id)) if id == Some(published));
            assert!(is_so, "{who}: {said} for {sent:?}");
        } else if said["last"].is_string() {
            self.is_at(it, id(&said["last"]), world);
        } else if said["error"].is_object() {
            self.hears_error(it, said, sent, world);
        } else {
            assert_eq!(id(&said["hello"]["last"]).run, it.run, "{who}: {said}");
        }
    }

    fn hears_error(&mut self, it: &mut Connected, said: &Value, sent: Option<Sent>, world: &World) {
        let who = self.who(it);
        match (said["error"]["status"].as_u64(), sent) {
            // It was unsubscribed before the backlog was through.
            (Some(409), Some(Sent::Subscribe(topic))) => {
                let ends = |it: &Sent| matches!(it, Sent::Unsubscribe(of) if *of == topic);
                assert!(it.sent.values().any(ends), "{who}: {said}");
            }
            (Some(503), Some(Sent::Subscribe(topic))) if world.has_churn => {
                if let Some(reading) = it.pending.remove(&topic)
                    && reading.seen.is_some()
                {
                    self.apart.insert(topic, reading);
                }
            }
            (Some(503), Some(Sent::Publish(_))) if world.has_churn => {}
            _ => panic!("{who}: {said}"),
        }
    }

    /// Nothing is on its way: whoever is pushed to has everything.
    pub(crate) fn has_everything(&self, world: &World) {
        let Some(connected) = self.connected.as_ref().filter(|_| !self.is_paused) else { return };
        let who = self.who(connected);
        assert!(connected.sent.is_empty(), "{who}: {:?} unanswered", connected.sent);
        assert!(connected.pending.is_empty(), "{who}: {:?} for ever", connected.pending);
        assert!(connected.line.waiting().is_empty(), "{who}: a part of something");
        if !self.is_pushed_to() {
            return;
        }
        let end = EntryId { run: world.run + 1, seq: 0 };
        for (topic, reading) in &self.covered {
            assert!(reading.is_known(world.run), "{who}: {topic}: {reading:?}");
            let missing = reading.missing(topic, end, &world.model);
            assert!(missing.is_empty(), "{who}: {topic}: {missing:?} did not come: {reading:?}");
        }
    }
}
