//! A topic and its entries: what is kept of one name, oldest first.
//!
//! Plain data with its bookkeeping. Which entries are dropped, and when, is `log.rs`' business.

use std::cell::OnceCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::deflate::Window;
use crate::id::ConnId;
use crate::limits::Limits;
use crate::message::{self, Kind, Message};
use crate::metrics::Way;

/// The topic of those who name none, and of `broadcast`.
pub(crate) const TOPIC_DEFAULT: &str = "general";

/// The longest name of a topic, in bytes.
pub(crate) const TOPIC_BYTES_MAX: usize = 128;

/// Whether `name` may be a topic: 1 to 128 bytes of UTF-8 without control characters.
pub(crate) fn is_topic_name(name: &str) -> bool {
    (1..=TOPIC_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// A topic's number while it exists. Whoever holds one as a reader keeps the topic in existence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicNumber(pub(crate) u32);

/// The forms in which an entry leaves. It is kept in the first; the others are made when they are
/// needed, once for all who take it in that form (`forms.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The message alone in a WebSocket frame: text mode.
    Frame,
    /// The JSON envelope, as it stands in the answer of a poll.
    Envelope,
    /// The envelope in a WebSocket frame: pousse.v1.
    Session,
    /// The envelope as a block of an event stream.
    Event,
    /// The bare text as a block of an event stream.
    EventText,
    /// The first, compressed.
    FrameDeflated(Window),
    /// The third, compressed.
    SessionDeflated(Window),
}

impl Form {
    /// The way in which it leaves. Envelopes are in the answers to both kinds of poll.
    pub(crate) fn way(self) -> Way {
        match self {
            Form::Frame | Form::Session => Way::WebSocket,
            Form::FrameDeflated(_) | Form::SessionDeflated(_) => Way::WebSocket,
            Form::Event | Form::EventText => Way::EventStream,
            Form::Envelope => Way::Poll,
        }
    }

    /// The form as it is if compressing an entry gains nothing, and how it is compressed.
    pub(crate) fn plain(self) -> (Form, Option<Window>) {
        match self {
            Form::FrameDeflated(window) => (Form::Frame, Some(window)),
            Form::SessionDeflated(window) => (Form::Session, Some(window)),
            form => (form, None),
        }
    }

    /// This form for a reader with whom compression was agreed on.
    pub(crate) fn deflated(self, window: Option<Window>) -> Form {
        match (self, window) {
            (Form::Frame, Some(window)) => Form::FrameDeflated(window),
            (Form::Session, Some(window)) => Form::SessionDeflated(window),
            (form, _) => form,
        }
    }
}

/// Forms that are made.
type Forms = [OnceCell<Bytes>; 4];

/// What a compressed form costs beside its bytes: its place in these, the allocator's share.
const DEFLATED_OVERHEAD_BYTES: usize = 128;

/// One message, kept as the frame in which it leaves (the payload is the end of it).
pub struct Entry {
    /// Its place in the run.
    pub seq: u64,
    /// Text or binary.
    pub kind: Kind,
    /// Who is not to be given it.
    pub except: Option<ConnId>,
    payload_at: u8,
    frame: Bytes,
    forms: OnceCell<Box<Forms>>,
    /// Compressed forms. They are kept as long as the entry, as making them is dear; one that is
    /// empty was tried and gains nothing.
    deflated: OnceCell<Box<Forms>>,
    key: Option<Arc<str>>,
}

impl Entry {
    /// The whole WebSocket frame.
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The message alone.
    pub fn payload(&self) -> &[u8] {
        self.frame.get(usize::from(self.payload_at)..).unwrap_or_default()
    }

    /// The message and its kind.
    pub(crate) fn message(&self) -> Message<'_> {
        Message::of(self.kind, self.payload())
    }

    /// The entry in this form, made by `encode` when it is first asked for. What is compressed is
    /// asked for by [`deflated`](Self::deflated).
    pub(crate) fn form(&self, form: Form, encode: impl FnOnce() -> Bytes) -> Bytes {
        let at = match form {
            Form::Frame | Form::FrameDeflated(_) => return self.frame.clone(),
            Form::Envelope => 0,
            Form::Session | Form::SessionDeflated(_) => 1,
            Form::Event => 2,
            Form::EventText => 3,
        };
        let cell = self.forms.get_or_init(Box::default).get(at);
        cell.map_or_else(Bytes::new, |cell| cell.get_or_init(encode).clone())
    }

    /// The entry in this compressed form, if that was tried: empty where nothing was gained.
    pub(crate) fn deflated(&self, form: Form) -> Option<&Bytes> {
        self.deflated.get()?.get(deflated_at(form)?)?.get()
    }

    /// Keeps a compressed form that was made; returns the bytes that it takes.
    pub(crate) fn keep_deflated(&self, form: Form, bytes: Bytes) -> usize {
        let length = bytes.len();
        let cell = deflated_at(form).and_then(|at| self.deflated.get_or_init(Box::default).get(at));
        match cell.map(|cell| cell.set(bytes)) {
            Some(Ok(())) => length + DEFLATED_OVERHEAD_BYTES,
            _ => 0,
        }
    }

    /// Bytes that it takes, without the forms that are made.
    fn bytes(&self) -> usize {
        let key = self.key.as_ref().map_or(0, |key| key.len() + KEY_OVERHEAD_BYTES);
        self.frame.len() + key
    }

    /// Bytes of the forms that are made.
    fn encoded_bytes(&self) -> usize {
        let deflated = made(&self.deflated).map(|bytes| bytes.len() + DEFLATED_OVERHEAD_BYTES);
        self.plain_bytes() + deflated.sum::<usize>()
    }

    /// Bytes of those among them that are not compressed.
    fn plain_bytes(&self) -> usize {
        made(&self.forms).map(Bytes::len).sum()
    }
}

fn made(forms: &OnceCell<Box<Forms>>) -> impl Iterator<Item = &Bytes> {
    forms.get().into_iter().flat_map(|forms| forms.iter()).filter_map(OnceCell::get)
}

/// Where a compressed form is kept.
fn deflated_at(form: Form) -> Option<usize> {
    match form {
        Form::FrameDeflated(Window::Nine) => Some(0),
        Form::FrameDeflated(Window::Fifteen) => Some(1),
        Form::SessionDeflated(Window::Nine) => Some(2),
        Form::SessionDeflated(Window::Fifteen) => Some(3),
        _ => None,
    }
}

/// What a key costs: its text, its place in `keys`, the allocator's share.
const KEY_OVERHEAD_BYTES: usize = 64;

/// The entries of one name.
pub struct Topic {
    name: Arc<str>,
    entries: VecDeque<Entry>,
    /// Entries that were published with a key, so that nothing is published twice.
    keys: HashMap<Arc<str>, u64>,
    bytes: usize,
    floor: u64,
    last: u64,
    /// How many read it.
    pub(crate) readers: u32,
    /// The first entry that not every reader was offered yet.
    pub(crate) unoffered: u64,
    /// It got entries since it was last trimmed, or could not be brought within its bounds.
    pub(crate) is_crowded: bool,
}

impl Topic {
    /// A topic without entries; what `floor` and below it may have held once, nobody knows.
    pub(crate) fn new(name: Arc<str>, floor: u64) -> Self {
        Self {
            name,
            entries: VecDeque::new(),
            keys: HashMap::new(),
            bytes: 0,
            floor,
            last: floor,
            readers: 0,
            unoffered: u64::MAX,
            is_crowded: false,
        }
    }

    /// Appends a message; returns the bytes that it takes.
    pub(crate) fn push(
        &mut self,
        seq: u64,
        message: Message<'_>,
        except: Option<ConnId>,
        key: Option<&str>,
    ) -> usize {
        let (frame, payload_at) = message::frame(message);
        let key: Option<Arc<str>> = key.map(Into::into);
        if let Some(key) = &key {
            self.keys.insert(key.clone(), seq);
        }
        let entry = Entry {
            seq,
            kind: message.kind(),
            except,
            payload_at: u8::try_from(payload_at).unwrap_or(0),
            frame,
            forms: OnceCell::new(),
            deflated: OnceCell::new(),
            key,
        };
        let bytes = entry.bytes();
        self.last = seq;
        self.bytes += bytes;
        if self.readers > 0 {
            self.unoffered = self.unoffered.min(seq);
        }
        self.entries.push_back(entry);
        bytes
    }

    /// Drops the oldest entry and raises the floor to it; returns the bytes that it and its encoded
    /// forms took.
    pub(crate) fn pop(&mut self) -> Option<(usize, usize)> {
        let entry = self.entries.pop_front()?;
        if let Some(key) = &entry.key {
            self.keys.remove(key);
        }
        self.floor = entry.seq;
        self.bytes -= entry.bytes();
        // What a burst needed is given back once three quarters of it have gone.
        if self.entries.capacity() > 4 * self.entries.len() + 32 {
            self.entries.shrink_to(2 * self.entries.len());
        }
        if self.keys.capacity() > 4 * self.keys.len() + 32 {
            self.keys.shrink_to(2 * self.keys.len());
        }
        Some((entry.bytes(), entry.encoded_bytes()))
    }

    /// Forgets the encoded forms of an entry, but the compressed ones; returns their bytes.
    pub(crate) fn forget_forms(&mut self, seq: u64) -> usize {
        let at = self.index_after(seq - 1);
        let Some(entry) = self.entries.get_mut(at).filter(|entry| entry.seq == seq) else {
            return 0;
        };
        let bytes = entry.plain_bytes();
        entry.forms = OnceCell::new();
        bytes
    }

    /// Forgets the compressed forms of an entry; returns their bytes.
    pub(crate) fn forget_deflated(&mut self, seq: u64) -> usize {
        let at = self.index_after(seq - 1);
        let Some(entry) = self.entries.get_mut(at).filter(|entry| entry.seq == seq) else {
            return 0;
        };
        let bytes = entry.encoded_bytes() - entry.plain_bytes();
        entry.deflated = OnceCell::new();
        bytes
    }

    /// The entry that was published with this key, while it is kept.
    pub(crate) fn keyed(&self, key: &str) -> Option<&Entry> {
        let seq = *self.keys.get(key)?;
        self.after(seq - 1).next().filter(|entry| entry.seq == seq)
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The `seq` of its newest entry, dropped or not; what it began at if it never had one.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The `seq` of the last entry dropped.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// How many read it.
    pub fn readers(&self) -> u32 {
        self.readers
    }

    /// Bytes that its entries take, without the forms that are made.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many entries are kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The `seq` of the oldest entry that is kept.
    pub fn oldest(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.seq)
    }

    /// The entries above `seen`, oldest first. Finding the first takes a binary search.
    pub fn after(&self, seen: u64) -> impl Iterator<Item = &Entry> {
        self.entries.range(self.index_after(seen)..)
    }

    /// How many entries are above `seen`.
    pub fn count_after(&self, seen: u64) -> usize {
        self.entries.len() - self.index_after(seen)
    }

    /// Where the first entry above `seen` stands.
    pub(crate) fn index_after(&self, seen: u64) -> usize {
        match seen >= self.last {
            true => self.entries.len(),
            false => self.entries.partition_point(|entry| entry.seq <= seen),
        }
    }

    /// The entry at this place.
    pub(crate) fn get(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    /// By how much it is over its bounds: entries, bytes.
    pub(crate) fn excess(&self, limits: &Limits) -> (usize, usize) {
        (
            self.entries.len().saturating_sub(limits.history),
            self.bytes.saturating_sub(limits.history_bytes),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_burst_needed_is_given_back_when_its_messages_have_gone() {
        let mut topic = Topic::new("t".into(), 0);
        for seq in 1..=1000 {
            topic.push(seq, "x".into(), None, Some(&format!("key {seq}")));
        }
        assert!(topic.entries.capacity() >= 1000 && topic.keys.capacity() >= 1000);
        for _ in 1..1000 {
            topic.pop();
        }
        assert!(topic.entries.capacity() <= 64 && topic.keys.capacity() <= 64);
        assert_eq!(topic.keyed("key 1000").map(|entry| entry.seq), Some(1000));
        assert!(topic.keyed("key 999").is_none());
    }
}
