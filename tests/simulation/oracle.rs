//! What is true: everything that was ever published, learned piece by piece, and what each client
//! may be given of it.
//!
//! A message is known by a number in its payload; from that all of it can be made again, so that a
//! byte of another's is noticed. Its place is told by the log's one door, even if it came and went
//! within one turn; by the handler's publishing; by the answer to a request.

use std::collections::{BTreeMap, HashMap, HashSet};

use pousse::seam::machine;
use pousse::seam::{Inside, SeenEntry};
use pousse::{ConnId, EntryId};

/// A message that was given to the server, or was meant to be.
struct Made {
    topic: usize,
    bytes: usize,
    is_binary: bool,
    /// More than one if it was published again under its key, when it was no longer held.
    seqs: Vec<u64>,
    is_keyed: bool,
}

/// See the head of this file.
#[derive(Default)]
pub struct Oracle {
    pub topics: Vec<String>,
    made: Vec<Made>,
    /// By topic: the places of its messages, and who is not to be given them.
    places: Vec<BTreeMap<u64, Option<ConnId>>>,
    numbers: HashMap<u64, usize>,
    /// By topic: up to here messages are no longer held, and whether the topic is there now.
    floors: Vec<(u64, bool)>,
    pub newest: u64,
    pub run: u64,
    /// WebSockets by who they are and the how manieth of that client.
    pub opened: HashMap<(u32, u32), ConnId>,
    pub open: HashMap<ConnId, bool>,
    pub direct: HashMap<u32, u64>,
    pub problems: Vec<String>,
}

impl Oracle {
    pub fn new(topics: usize, run: u64) -> Self {
        Self {
            topics: (0..topics).map(|at| format!("topic-{at}")).collect(),
            places: vec![BTreeMap::new(); topics],
            floors: vec![(0, false); topics],
            run,
            ..Self::default()
        }
    }

    pub fn wrong(&mut self, what: String) {
        self.problems.push(what);
    }

    pub fn topic(&self, name: &str) -> Option<usize> {
        self.topics.iter().position(|topic| topic == name)
    }

    /// A new message; returns its number.
    pub fn make(&mut self, topic: usize, bytes: usize, is_binary: bool) -> usize {
        self.made.push(Made { topic, bytes, is_binary, seqs: Vec::new(), is_keyed: false });
        self.made.len() - 1
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.made.len()
    }

    pub fn payload(&self, number: usize) -> Vec<u8> {
        let made = &self.made[number];
        let head = format!("M {number} {} ", self.topics[made.topic]);
        let mut payload = if made.is_binary { vec![0xff] } else { Vec::new() };
        payload.extend(head.as_bytes());
        // Some of it compresses and some does not.
        let filler = |at: usize| b'a' + ((at / 7 * number) % 26) as u8;
        payload.extend((payload.len()..made.bytes).map(filler));
        payload
    }

    pub fn topic_of(&self, number: usize) -> usize {
        self.made[number].topic
    }

    pub fn is_excepted(&self, seq: u64, topic: usize, conn: Option<ConnId>) -> bool {
        let except = self.places[topic].get(&seq).copied().flatten();
        except.is_some() && except == conn
    }

    pub fn is_binary(&self, number: usize) -> bool {
        self.made[number].is_binary
    }

    /// The number in a payload, if all of it is as it was made.
    pub fn read(&self, payload: &[u8]) -> Result<usize, String> {
        let bare = payload.strip_prefix(&[0xff]).unwrap_or(payload);
        let text = String::from_utf8_lossy(bare.get(..bare.len().min(40)).unwrap_or_default());
        let mut words = text.split(' ');
        let number = match (words.next(), words.next().and_then(|it| it.parse::<usize>().ok())) {
            (Some("M"), Some(number)) if number < self.made.len() => number,
            _ => return Err(format!("a message that nobody has sent: {text:?}")),
        };
        match self.payload(number) == payload {
            true => Ok(number),
            false => Err(format!("message {number} is not as it was sent: {text:?}")),
        }
    }

    /// The place of a message is known from here on.
    pub fn learn(&mut self, seq: u64, number: usize, except: Option<Option<ConnId>>) {
        let made = &mut self.made[number];
        let topic = made.topic;
        if !made.seqs.contains(&seq) {
            let floor = match self.floors[topic] {
                (floor, true) => floor,
                (_, false) => u64::MAX,
            };
            let is_held = |known: &&u64| **known > floor;
            match made.seqs.iter().find(is_held) {
                Some(_) if made.is_keyed && seq <= floor => {}
                Some(known) => {
                    self.problems.push(format!("message {number} stands at {known} and at {seq}"));
                }
                None if !made.is_keyed && !made.seqs.is_empty() => {
                    self.problems.push(format!("message {number} was published again at {seq}"));
                }
                None => {}
            }
            machine::note("learned", seq, number as u64);
            made.seqs.push(seq);
            made.seqs.sort_unstable();
        }
        if *self.numbers.entry(seq).or_insert(number) != number {
            self.problems.push(format!("place {seq} has message {number} and another"));
        }
        let place = self.places[topic].entry(seq).or_insert(None);
        if let Some(except) = except {
            *place = except;
        }
    }

    /// Its place, if it can have no other.
    pub fn seq_of(&self, number: usize) -> Option<u64> {
        let made = &self.made[number];
        made.seqs.last().copied().filter(|_| !made.is_keyed)
    }

    pub fn has_key(&mut self, number: usize) {
        self.made[number].is_keyed = true;
    }

    /// A look into the log: what was appended in this turn, and what of it is there.
    pub fn look(&mut self, inside: &Inside, appended: Vec<SeenEntry>, held: &[SeenEntry]) {
        for entry in &appended {
            self.newest += 1;
            if entry.seq != self.newest {
                self.problems.push(format!("{} was appended after {}", entry.seq, self.newest - 1));
            }
        }
        if self.newest != inside.newest {
            self.problems.push(format!("the newest is {}, not {}", inside.newest, self.newest));
        }
        self.compare(inside, &appended, held);
        for at in 0..self.topics.len() {
            let found = inside.topics.iter().find(|it| it.name == self.topics[at]);
            let known = self.places[at].last_key_value().map_or(0, |(last, _)| *last);
            let (floor, is_here) = match found {
                Some(topic) => (topic.floor, true),
                None => (known, false),
            };
            if floor < self.floors[at].0 && is_here {
                let name = &self.topics[at];
                self.problems.push(format!("the floor of {name} has fallen to {floor}"));
            }
            self.floors[at] = (floor.max(self.floors[at].0), is_here);
        }
        // What attackers publish is theirs.
        for entry in appended.into_iter().filter(|it| it.topic != "evil") {
            match self.read(&entry.payload) {
                Ok(number) => {
                    let made = &self.made[number];
                    let is_text = entry.kind == pousse::Kind::Text;
                    if self.topics[made.topic] != entry.topic || made.is_binary == is_text {
                        self.problems.push(format!("message {number} was published as another"));
                    }
                    self.learn(entry.seq, number, Some(entry.except));
                }
                Err(problem) => self.problems.push(format!("in the log: {problem}")),
            }
        }
    }

    /// The log has what was appended and is above its topic's floor, and nothing else.
    fn compare(&mut self, inside: &Inside, appended: &[SeenEntry], held: &[SeenEntry]) {
        let floors: HashMap<&str, u64> =
            inside.topics.iter().map(|it| (it.name.as_str(), it.floor)).collect();
        let is_held = |it: &&SeenEntry| floors.get(&*it.topic).is_some_and(|floor| it.seq > *floor);
        let mut held: Vec<&SeenEntry> = held.iter().collect();
        held.sort_by_key(|it| it.seq);
        if !appended.iter().filter(is_held).eq(held.iter().copied()) {
            self.problems.push(format!("of {appended:?} the log has {held:?}"));
        }
    }

    pub fn floor(&self, topic: usize) -> u64 {
        match self.floors[topic] {
            (floor, true) => floor,
            // Of what is not there nothing is held.
            (_, false) => u64::MAX,
        }
    }

    /// Whether what is above `place` is still held, as far as that is known.
    pub fn is_held_above(&self, topic: usize, place: u64) -> bool {
        let (floor, is_here) = self.floors[topic];
        is_here && floor <= place
    }

    /// A message between the two that this client should have been given. `is_told`: it was told
    /// of a gap, so what is no longer held may be missing.
    pub fn missing(
        &self,
        topic: usize,
        (above, below): (u64, u64),
        (conn, is_told): (Option<ConnId>, bool),
        given: &HashSet<usize>,
    ) -> Option<u64> {
        let floor = self.floor(topic);
        self.places[topic]
            .range(above + 1..below.max(above + 1))
            .filter(|(_, except)| conn.is_none() || **except != conn)
            .map(|(seq, _)| *seq)
            .filter(|seq| self.numbers.get(seq).is_none_or(|number| !given.contains(number)))
            .find(|seq| !is_told || *seq > floor)
    }

    pub fn id(&self, text: &str) -> Result<u64, String> {
        match text.parse::<EntryId>() {
            Ok(id) if id.run == self.run => Ok(id.seq),
            _ => Err(format!("{text:?} is no id of this run")),
        }
    }
}
