//! The subprotocol pousse.v1: JSON in text frames, several topics over one WebSocket.
//!
//! ```text
//! client  {"subscribe":T,"after":ID?}    server  {"subscribed":T,"last":ID,"readers":N}
//!         {"unsubscribe":T}                      {"unsubscribed":T}
//!         {"publish":T,"data":S,"key":K?}        {"published":ID,"topic":T}
//!         (or "base64":S)                        {"error":{type,title,status,detail}}
//!         "ref":X in any of them                 … ,"ref":X in its answer
//!
//! unasked {"hello":{"client":"0-1","last":ID,"ping":25}}      first
//!         {"id":ID,"topic":T,"data":S}                        an entry
//!         {"gap":{"topic":T,"after":ID,"oldest":ID}}          entries between the two are lost
//!         {"last":ID}                                         beside a ping: nothing was missed
//! ```
//!
//! Here commands are read and answers are written; carrying them out is the hub's business.
//!
//! Invariant: `subscribed` follows the backlog. While one topic, or several, catch up with what was
//! published before they were subscribed, nothing above the place where the others stood is sent.

use crate::bucket::Bucket;
use crate::forms::{self, Gap, put_data, put_quoted_id};
use crate::http::Refusal;
use crate::id::{After, ConnId, EntryId};
use crate::json::push_string;
use crate::limits::Limits;
use crate::log::Log;
use crate::message::{Kind, Message};
use crate::metrics::Reason;
use crate::outbox::Outbox;
use crate::response::{put_number, put_problem};
use crate::tick::Tick;
use crate::topic::TopicNumber;

/// The longest `ref`, and the longest `key`, in bytes.
pub(crate) const REF_BYTES_MAX: usize = 128;

/// What a client of pousse.v1 is owed. A word to those who are owed nothing, as nearly all are.
#[derive(Debug, Default)]
pub(crate) struct Session(Option<Box<Owed>>);

#[derive(Debug, Default)]
struct Owed {
    /// While topics catch up.
    catching_up: Option<CatchingUp>,
    /// A ping was sent: its place beside it.
    place: bool,
    /// Wrong commands.
    wrong: Bucket,
}

/// Topics that are given what was published before they were subscribed.
#[derive(Debug)]
struct CatchingUp {
    /// Subscriptions that are answered when their backlog has been given.
    pending: Vec<Pending>,
    /// Until then nothing above this is sent.
    upto: u64,
}

#[derive(Debug)]
struct Pending {
    topic: TopicNumber,
    reference: Reference,
}

/// The `ref` of a command, as JSON.
pub(crate) type Reference = Option<Box<str>>;

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    pub(crate) what: What,
    pub(crate) reference: Reference,
}

#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "v1"), expect(dead_code, reason = "nobody speaks pousse.v1 then"))]
pub(crate) enum What {
    Subscribe { topic: String, after: After },
    Unsubscribe { topic: String },
    Publish { topic: String, kind: Kind, payload: Vec<u8>, key: Option<String> },
}

impl Session {
    fn catching_up(&self) -> Option<&CatchingUp> {
        self.0.as_ref()?.catching_up.as_ref()
    }

    fn owed(&mut self) -> &mut Owed {
        self.0.get_or_insert_default()
    }

    /// Gives back the memory for what it was owed and is owed no more.
    pub(crate) fn rest(&mut self, limits: &Limits, now: Tick) {
        self.0.take_if(|it| {
            it.catching_up.is_none() && !it.place && it.wrong.is_empty(limits.wrong_commands, now)
        });
    }

    /// Its place is to be told beside the ping that was sent.
    pub(crate) fn owe_place(&mut self) {
        self.owed().place = true;
    }

    /// Whether that is to be done now; then it is done.
    pub(crate) fn takes_place(&mut self) -> bool {
        self.0.as_mut().is_some_and(|it| std::mem::take(&mut it.place))
    }

    /// Nothing above this is to be sent yet.
    pub(crate) fn upto(&self) -> u64 {
        self.stands(u64::MAX)
    }

    /// Whether a topic is catching up.
    pub(crate) fn is_catching_up(&self) -> bool {
        self.catching_up().is_some()
    }

    /// The place up to which it is given what it reads, if `position` is where its cursor is.
    pub(crate) fn stands(&self, position: u64) -> u64 {
        self.catching_up().map_or(position, |it| it.upto)
    }

    /// Subscriptions that wait for their answer.
    pub(crate) fn pending(&self) -> usize {
        self.catching_up().map_or(0, |it| it.pending.len())
    }

    /// Bytes of memory that it takes beside its own place.
    pub(crate) fn held_bytes(&self) -> usize {
        let Some(owed) = &self.0 else { return 0 };
        let pending = owed.catching_up.as_ref().map_or(0, |it| {
            let references = it.pending.iter().filter_map(|it| it.reference.as_ref());
            let references: usize = references.map(|it| it.len()).sum();
            it.pending.capacity() * size_of::<Pending>() + references
        });
        size_of::<Owed>() + pending
    }

    /// A topic is read from now on, or (`is_new` is false) was before. It is answered at once if
    /// there is nothing to catch up with, else when all up to `position`, where the client stood
    /// before, has been given. One that comes while others catch up joins them, and their place
    /// holds.
    pub(crate) fn subscribed(
        &mut self,
        topic: TopicNumber,
        (is_new, has_backlog): (bool, bool),
        position: u64,
        reference: Reference,
        log: &Log,
        outbox: &mut Outbox,
    ) {
        let waits = match (is_new, self.catching_up()) {
            (true, catching_up) => catching_up.is_some() || has_backlog,
            (false, Some(it)) => it.pending.iter().any(|it| it.topic == topic),
            (false, None) => false,
        };
        if !waits {
            return put_subscribed(outbox, log, topic, self.stands(position), &reference);
        }
        let begin = || CatchingUp { pending: Vec::new(), upto: position };
        let catching_up = self.owed().catching_up.get_or_insert_with(begin);
        catching_up.pending.push(Pending { topic, reference });
    }

    /// The backlog has been given: answers those who waited for it.
    pub(crate) fn caught_up(&mut self, log: &Log, outbox: &mut Outbox) {
        let caught_up = self.0.as_mut().and_then(|it| it.catching_up.take());
        let Some(caught_up) = caught_up else { return };
        for Pending { topic, reference } in caught_up.pending {
            put_subscribed(outbox, log, topic, caught_up.upto, &reference);
        }
    }

    /// The subscriptions of this topic that still wait are over; returns what they go by.
    pub(crate) fn give_up(&mut self, topic: TopicNumber) -> Vec<Reference> {
        let Some(owed) = &mut self.0 else { return Vec::new() };
        let Some(catching_up) = &mut owed.catching_up else { return Vec::new() };
        let gone = catching_up.pending.extract_if(.., |it| it.topic == topic);
        let gone = gone.map(|it| it.reference).collect();
        owed.catching_up.take_if(|it| it.pending.is_empty());
        gone
    }

    /// Counts a wrong command; false if they have become a flood.
    pub(crate) fn bears_wrong(&mut self, limits: &Limits, now: Tick) -> bool {
        self.owed().wrong.take(limits.wrong_commands, now)
    }
}

// What the server says.

/// Appends a frame of JSON. An answer to a command ends in the `ref` of the command.
fn put(outbox: &mut Outbox, reference: &Reference, write: impl FnOnce(&mut Vec<u8>)) {
    let mut json = b"{".to_vec();
    write(&mut json);
    if let Some(reference) = reference {
        json.extend_from_slice(b",\"ref\":");
        json.extend_from_slice(reference.as_bytes());
    }
    json.push(b'}');
    outbox.push(forms::frame(&json).into());
}

/// The greeting.
pub(crate) fn put_hello(outbox: &mut Outbox, client: ConnId, last: EntryId, limits: &Limits) {
    put(outbox, &None, |out| {
        let ping_s = limits.ping.as_secs_f64();
        out.extend_from_slice(format!("\"hello\":{{\"client\":\"{client}\",\"last\":").as_bytes());
        put_quoted_id(out, last);
        out.extend_from_slice(format!(",\"ping\":{ping_s}}}").as_bytes());
    });
}

/// The place of a client that has been given everything.
pub(crate) fn put_place(outbox: &mut Outbox, last: EntryId) {
    put(outbox, &None, |out| {
        out.extend_from_slice(b"\"last\":");
        put_quoted_id(out, last);
    });
}

/// A gap.
pub(crate) fn put_gap(outbox: &mut Outbox, gap: &Gap) {
    put(outbox, &None, |out| {
        out.extend_from_slice(b"\"gap\":");
        gap.put(out);
    });
}

/// A message for this client alone, which is in no topic and has no id, as JSON.
pub(crate) fn direct(message: Message<'_>) -> Vec<u8> {
    let mut json = b"{".to_vec();
    put_data(&mut json, message);
    json.push(b'}');
    json
}

/// From here on `last` covers this topic too.
pub(crate) fn put_subscribed(
    outbox: &mut Outbox,
    log: &Log,
    topic: TopicNumber,
    last: u64,
    reference: &Reference,
) {
    put(outbox, reference, |out| {
        let topic = log.topic(topic);
        out.extend_from_slice(b"\"subscribed\":");
        push_string(out, topic.name());
        out.extend_from_slice(b",\"last\":");
        put_quoted_id(out, log.id(last));
        out.extend_from_slice(b",\"readers\":");
        put_number(out, topic.readers().into());
    });
}

/// The topic is not read, any more or ever.
pub(crate) fn put_unsubscribed(outbox: &mut Outbox, topic: &str, reference: &Reference) {
    put(outbox, reference, |out| {
        out.extend_from_slice(b"\"unsubscribed\":");
        push_string(out, topic);
    });
}

/// The message is in the log.
pub(crate) fn put_published(outbox: &mut Outbox, topic: &str, id: EntryId, reference: &Reference) {
    put(outbox, reference, |out| {
        out.extend_from_slice(b"\"published\":");
        put_quoted_id(out, id);
        out.extend_from_slice(b",\"topic\":");
        push_string(out, topic);
    });
}

/// The command could not be carried out.
pub(crate) fn put_error(outbox: &mut Outbox, refusal: &Refusal, reference: &Reference) {
    put(outbox, reference, |out| {
        out.extend_from_slice(b"\"error\":");
        put_problem(out, refusal.status, &refusal.detail);
    });
}

// What the client says.

const WORDS: &str = "a command is a JSON object with subscribe, unsubscribe or publish";

/// A command that is none: what is wrong, and the `ref` if that could be read.
pub(crate) type Wrong = (Refusal, Reference);

/// Reads a command.
///
/// # Errors
/// [`Wrong`], with a detail that says what to change.
#[cfg(feature = "v1")]
pub(crate) fn parse(text: &str) -> Result<Command, Wrong> {
    use std::collections::HashMap;

    use serde_json::value::RawValue;

    let Ok(mut members) = serde_json::from_str::<HashMap<String, &RawValue>>(text) else {
        return Err((wrong(WORDS), None));
    };
    // It comes back as it was written: whoever counts in big numbers finds them again.
    let reference: Reference = match members.get("ref").map(|value| value.get()) {
        None => None,
        Some(json) if json.len() > REF_BYTES_MAX => {
            return Err((wrong(format!("ref has at most {REF_BYTES_MAX} bytes of JSON")), None));
        }
        Some(json) if json.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) => {
            Some(json.into())
        }
        Some(_) => return Err((wrong("ref has to be a string or a number"), None)),
    };
    let mut member = |name: &str| match members.remove(name) {
        None => Ok(None),
        Some(value) => match serde_json::from_str(value.get()) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(wrong(format!("{name} has to be a string of Unicode"))),
        },
    };
    match read(&mut member) {
        Ok(what) => Ok(Command { what, reference }),
        Err(refusal) => Err((refusal, reference)),
    }
}

/// Without the feature nobody speaks pousse.v1, so there is nothing to read.
#[cfg(not(feature = "v1"))]
pub(crate) fn parse(_: &str) -> Result<Command, Wrong> {
    Err((wrong(WORDS), None))
}

#[cfg(feature = "v1")]
fn read(member: &mut impl FnMut(&str) -> Result<Option<String>, Refusal>) -> Result<What, Refusal> {
    use data_encoding::BASE64;

    match (member("subscribe")?, member("unsubscribe")?, member("publish")?) {
        (Some(topic), None, None) => {
            let after = member("after")?.map_or(Ok(After::Now), |after| after.parse());
            let after = after
                .map_err(|_| wrong("after has to be an id that was given here, earliest or now"))?;
            Ok(What::Subscribe { topic, after })
        }
        (None, Some(topic), None) => Ok(What::Unsubscribe { topic }),
        (None, None, Some(topic)) => {
            let key = member("key")?;
            if key.as_ref().is_some_and(|key| !is_key(key)) {
                return Err(wrong(BAD_KEY));
            }
            let (kind, payload) = match (member("data")?, member("base64")?) {
                (Some(text), None) => (Kind::Text, text.into_bytes()),
                (None, Some(text)) => {
                    let bytes = BASE64.decode(text.as_bytes());
                    (Kind::Binary, bytes.map_err(|_| wrong("base64 has to be base64"))?)
                }
                _ => return Err(wrong("what is published is either data or base64")),
            };
            Ok(What::Publish { topic, kind, payload, key })
        }
        _ => Err(wrong(WORDS)),
    }
}

/// What is said of a key that is none.
pub(crate) const BAD_KEY: &str = "a key has 1 to 128 bytes";

/// Whether this may be the key of a message.
pub(crate) fn is_key(key: &str) -> bool {
    (1..=REF_BYTES_MAX).contains(&key.len())
}

fn wrong(detail: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(400, Reason::WrongCommands, detail)
}

#[cfg(test)]
#[cfg(feature = "v1")]
mod tests {
    use super::*;

    fn what(text: &str) -> Result<(What, Option<String>), (String, Option<String>)> {
        match parse(text) {
            Ok(command) => Ok((command.what, command.reference.map(String::from))),
            Err((refusal, reference)) => {
                assert_eq!(refusal.status, 400);
                Err((refusal.detail.into_owned(), reference.map(String::from)))
            }
        }
    }

    #[test]
    fn commands_are_read_with_their_ref() {
        let publish = |kind, payload: &[u8], key: Option<&str>| What::Publish {
            topic: "t".into(),
            kind,
            payload: payload.to_vec(),
            key: key.map(Into::into),
        };
        for (text, expected, reference) in [
            (
                r#"{"subscribe":"t"}"#,
                What::Subscribe { topic: "t".into(), after: After::Now },
                None,
            ),
            (
                r#"{"after":"7-3","subscribe":"t","ref":12}"#,
                What::Subscribe { topic: "t".into(), after: After::Id(EntryId { run: 7, seq: 3 }) },
                Some("12"),
            ),
            (
                r#" {"unsubscribe":"t","ref":"a\"b","whatever":[1]} "#,
                What::Unsubscribe { topic: "t".into() },
                Some(r#""a\"b""#),
            ),
            (
                r#"{"unsubscribe":"t","ref": 12345678901234567890123.0 }"#,
                What::Unsubscribe { topic: "t".into() },
                Some("12345678901234567890123.0"),
            ),
            (r#"{"publish":"t","data":""}"#, publish(Kind::Text, b"", None), None),
            (
                r#"{"publish":"t","base64":"/wA=","key":"k"}"#,
                publish(Kind::Binary, b"\xff\0", Some("k")),
                None,
            ),
        ] {
            assert_eq!(what(text), Ok((expected, reference.map(Into::into))), "{text}");
        }
    }

    #[test]
    fn subscriptions_that_wait_count_with_their_ref_and_no_more_than_is_promised() {
        let mut session = Session::default();
        assert_eq!(session.held_bytes(), 0, "as of nearly everyone");
        let pending = (0..128).map(|number| Pending {
            topic: TopicNumber(number),
            reference: Some("7".repeat(REF_BYTES_MAX).into()),
        });
        let catching_up = CatchingUp { pending: pending.collect(), upto: 0 };
        session.owed().catching_up = Some(catching_up);
        let each = session.held_bytes() / 128;
        assert!((REF_BYTES_MAX..180).contains(&each), "{each} bytes each");
        session.owed().catching_up = None;
        assert_eq!(session.held_bytes(), size_of::<Owed>());
    }

    #[test]
    fn a_wrong_command_is_told_what_to_change_and_keeps_its_ref() {
        let long = format!(r#"{{"subscribe":"t","ref":"{}"}}"#, "x".repeat(127));
        let key = format!(r#"{{"publish":"t","data":"","key":"{}"}}"#, "x".repeat(129));
        for (text, detail, reference) in [
            ("", "a command is", None),
            ("nonsense", "a command is", None),
            ("[]", "a command is", None),
            (r#"{"ref":1}"#, "a command is", Some("1")),
            (r#"{"subscribe":"t","unsubscribe":"t"}"#, "a command is", None),
            (r#"{"subscribe":7,"ref":"x"}"#, "subscribe has to be a string", Some("\"x\"")),
            (r#"{"subscribe":"t","after":"yesterday"}"#, "after has to be", None),
            (r#"{"publish":"t"}"#, "either data or base64", None),
            (r#"{"publish":"t","data":"","base64":""}"#, "either data or base64", None),
            (r#"{"publish":"t","data":1}"#, "data has to be a string", None),
            (r#"{"publish":"t","base64":"/w"}"#, "base64 has to be base64", None),
            (r#"{"publish":"t","data":"","key":""}"#, BAD_KEY, None),
            (&key, BAD_KEY, None),
            (&long, "ref has at most", None),
            (r#"{"subscribe":"t","ref":null}"#, "ref has to be", None),
            (&"[".repeat(60_000), "a command is", None),
        ] {
            let (told, kept) = what(text).unwrap_err();
            assert!(told.contains(detail), "{text}: {told}");
            assert_eq!(kept.as_deref(), reference, "{text}");
        }
    }
}
