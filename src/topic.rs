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
use crate::message::{self, FRAME_HEAD_MAX, Kind, Message};
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

/// How many forms, and the memory that they take.
#[derive(Clone, Copy, Default)]
pub(crate) struct Encoded {
    pub(crate) forms: usize,
    pub(crate) bytes: usize,
}

impl Encoded {
    /// And a form more, of so many bytes.
    pub(crate) fn and(self, bytes: usize) -> Self {
        Self { forms: self.forms + 1, bytes: self.bytes + bytes }
    }
}

/// Forms that are made.
type Forms = [OnceCell<Bytes>; 4];

/// The most that an allocation takes beside what was asked for, as allocators of 64-bit systems go.
const ALLOCATION_BYTES: usize = 24;

/// What a frame or a form takes beside its bytes: two allocations, as `Bytes` is counted.
const SHARED_BYTES: usize = 2 * ALLOCATION_BYTES + 24;

/// What a form costs beside its bytes: its place in these, which it may have for itself, and in the
/// lists of `encodings.rs`.
const FORM_OVERHEAD_BYTES: usize = size_of::<Forms>() + ALLOCATION_BYTES + SHARED_BYTES + 64;

/// What a form that is not compressed was given to grow and has no use for: as much as it is long,
/// or so much where it is short.
const FORM_SPARE_BYTES: usize = 192;

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
            Some(Ok(())) => length + FORM_OVERHEAD_BYTES,
            _ => 0,
        }
    }

    /// Bytes that it takes, without the forms that are made.
    fn bytes(&self) -> usize {
        let key = self.key.as_ref().map_or(0, |key| key.len() + KEY_OVERHEAD_BYTES);
        self.frame.len() + key
    }

    /// The forms that are made.
    fn encoded(&self) -> Encoded {
        if self.forms.get().is_none() && self.deflated.get().is_none() {
            return Encoded::default();
        }
        let deflated = made(&self.deflated).map(|bytes| bytes.len() + FORM_OVERHEAD_BYTES);
        deflated.fold(self.plain(), Encoded::and)
    }

    /// Those among them that are not compressed.
    fn plain(&self) -> Encoded {
        let plain = made(&self.forms).map(|bytes| plain_form_bytes(bytes.len()));
        plain.fold(Encoded::default(), Encoded::and)
    }
}

fn made(forms: &OnceCell<Box<Forms>>) -> impl Iterator<Item = &Bytes> {
    forms.get().into_iter().flat_map(|forms| forms.iter()).filter_map(OnceCell::get)
}

/// Bytes that a form takes which is not compressed.
pub(crate) fn plain_form_bytes(length: usize) -> usize {
    2 * length + FORM_SPARE_BYTES + FORM_OVERHEAD_BYTES
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

/// What an entry costs beside its frame and its room in the list of entries: what the frame was
/// given for a longer head, and its allocations.
const ENTRY_OVERHEAD_BYTES: usize = FRAME_HEAD_MAX + SHARED_BYTES;

/// The least that an entry costs beside its frame.
pub(crate) const ENTRY_BYTES: usize = size_of::<Entry>() + ENTRY_OVERHEAD_BYTES;

/// What a key costs beside its text: two counts, and its allocation.
const KEY_OVERHEAD_BYTES: usize = 16 + ALLOCATION_BYTES;

/// What `keys` takes for each key that it has room for: of eight places it uses seven.
const KEY_ROOM_BYTES: usize = (size_of::<(Arc<str>, u64)>() + 1) * 8 / 7 + 1;

/// The entries of one name.
pub struct Topic {
    name: Arc<str>,
    entries: VecDeque<Entry>,
    /// Entries that were published with a key, so that nothing is published twice.
    keys: HashMap<Arc<str>, u64>,
    /// How many `keys` has room for. It does not say so itself where some were taken out.
    keys_room: usize,
    bytes: usize,
    floor: u64,
    last: u64,
    /// How many read it.
    pub(crate) readers: u32,
    /// The first entry that not every reader was offered yet.
    pub(crate) unoffered: u64,
    /// It got entries since it was last trimmed, or could not be brought within its bounds.
    pub(crate) is_crowded: bool,
    /// Under which `seq` the log has noted it as one that may make room; 0: it has not.
    pub(crate) noted_at: u64,
}

impl Topic {
    /// A topic without entries; what `floor` and below it may have held once, nobody knows.
    pub(crate) fn new(name: Arc<str>, floor: u64) -> Self {
        Self {
            name,
            entries: VecDeque::new(),
            keys: HashMap::new(),
            keys_room: 0,
            bytes: 0,
            floor,
            last: floor,
            readers: 0,
            unoffered: u64::MAX,
            is_crowded: false,
            noted_at: 0,
        }
    }

    /// Appends a message; returns the memory that it takes. What the lists have room for counts
    /// from then on, be it in use or not.
    pub(crate) fn push(
        &mut self,
        seq: u64,
        message: Message<'_>,
        except: Option<ConnId>,
        key: Option<&str>,
    ) -> usize {
        let (frame, payload_at) = message::frame(message);
        let key: Option<Arc<str>> = key.map(Into::into);
        let mut grown = 0;
        if let Some(key) = &key {
            self.keys.insert(key.clone(), seq);
            let room = self.keys_room.max(self.keys.capacity());
            grown = (room - self.keys_room) * KEY_ROOM_BYTES;
            self.keys_room = room;
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
        self.last = seq;
        let bytes = entry.bytes();
        self.bytes += bytes;
        if self.readers > 0 {
            self.unoffered = self.unoffered.min(seq);
        }
        grown += make_room(&mut self.entries);
        self.entries.push_back(entry);
        bytes + ENTRY_OVERHEAD_BYTES + grown
    }

    /// Drops the oldest entry and raises the floor to it; returns the memory that is free now, and
    /// the forms of it that were made.
    pub(crate) fn pop(&mut self) -> Option<(usize, Encoded)> {
        let entry = self.entries.pop_front()?;
        if let Some(key) = &entry.key {
            self.keys.remove(key);
        }
        self.floor = entry.seq;
        let bytes = entry.bytes();
        self.bytes -= bytes;
        let mut free = bytes + ENTRY_OVERHEAD_BYTES + give_back(&mut self.entries);
        if has_too_much(self.keys_room, self.keys.len()) {
            self.keys.shrink_to(2 * self.keys.len());
            free += (self.keys_room - self.keys.capacity()) * KEY_ROOM_BYTES;
            self.keys_room = self.keys.capacity();
        }
        Some((free, entry.encoded()))
    }

    /// Forgets the encoded forms of an entry, but the compressed ones; returns what they were.
    pub(crate) fn forget_forms(&mut self, seq: u64) -> Encoded {
        let Some(entry) = self.entry_mut(seq) else { return Encoded::default() };
        let plain = entry.plain();
        entry.forms = OnceCell::new();
        plain
    }

    /// Forgets a compressed form of an entry; returns what it was.
    pub(crate) fn forget_deflated(&mut self, seq: u64, form: Form) -> Encoded {
        let forget = |topic: &mut Self| {
            let deflated = &mut topic.entry_mut(seq)?.deflated;
            let bytes = deflated.get_mut()?.get_mut(deflated_at(form)?)?.take()?;
            if deflated.get()?.iter().all(|form| form.get().is_none()) {
                deflated.take();
            }
            Some(Encoded { forms: 1, bytes: bytes.len() + FORM_OVERHEAD_BYTES })
        };
        forget(self).unwrap_or_default()
    }

    fn entry_mut(&mut self, seq: u64) -> Option<&mut Entry> {
        let at = self.index_after(seq - 1);
        self.entries.get_mut(at).filter(|entry| entry.seq == seq)
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

/// Has room for one more; where the list has to be moved for that, for a quarter more. Would it
/// double, half of it could lie idle. Returns by how many bytes it grew.
#[inline]
pub(crate) fn make_room<T>(list: &mut VecDeque<T>) -> usize {
    let room = list.capacity();
    if list.len() < room {
        return 0;
    }
    list.reserve_exact(room / 4 + 2);
    (list.capacity() - room) * size_of::<T>()
}

/// Gives back what a burst needed, once three quarters of it have gone; returns how many bytes.
#[inline]
pub(crate) fn give_back<T>(list: &mut VecDeque<T>) -> usize {
    let room = list.capacity();
    if !has_too_much(room, list.len()) {
        return 0;
    }
    shrink(list, room)
}

#[cold]
fn shrink<T>(list: &mut VecDeque<T>, room: usize) -> usize {
    list.shrink_to(2 * list.len());
    (room - list.capacity()) * size_of::<T>()
}

#[inline]
fn has_too_much(room: usize, count: usize) -> bool {
    room > 4 * count && (count == 0 || room > 4 * count + 8)
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
