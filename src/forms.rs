//! An entry in the forms in which it leaves, beside the frame that it is kept as; and a gap.
//!
//! ```text
//! Envelope   {"id":"RUN-SEQ","topic":"general","data":"Bonjour"}     ("base64" if it is binary)
//! Session    the envelope in a text frame
//! Event      id: RUN-SEQ⏎ data: ENVELOPE⏎ ⏎
//! EventText  id: RUN-SEQ⏎ data: one line⏎ data: the next⏎ ⏎         ("event: binary" and base64)
//! ```
//!
//! Blocks are those of the HTML standard, §9.2.6. Each form is made once for all who take it.
//! Frame and Session can be compressed as well, once for each window.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use data_encoding::BASE64;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::id::EntryId;
use crate::json::push_string;
use crate::log::Log;
use crate::message::{FRAME_HEAD_MAX, Kind, Message, put_frame_head};
use crate::response::put_number;
use crate::topic::{Entry, Form, Topic};
use crate::turn::Turn;

/// The entry in this form, made once for all; plain, if it is to be compressed and was not
/// ([`deflate`]), or gained nothing by it.
pub(crate) fn form(log: &Log, topic: &Topic, entry: &Entry, form: Form) -> Bytes {
    if let Some(bytes) = entry.deflated(form).filter(|bytes| !bytes.is_empty()) {
        return bytes.clone();
    }
    let (form, _) = form.plain();
    log.form(topic, entry, form, || {
        let id = log.id(entry.seq);
        match form {
            Form::Frame | Form::FrameDeflated(_) => entry.frame().to_vec(),
            Form::Envelope => envelope(id, topic, entry),
            Form::Session | Form::SessionDeflated(_) => frame(&envelope(id, topic, entry)),
            Form::Event => block(id, |out| {
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(&envelope(id, topic, entry));
                out.push(b'\n');
            }),
            Form::EventText => block(id, |out| put_text(out, entry.message())),
        }
    })
}

/// Compresses the entry for all who take it in this form, unless that was done before, or too much
/// was compressed in this turn: then it leaves as it is.
pub(crate) fn deflate(log: &Log, topic: &Topic, entry: &Entry, form: Form, turn: &mut Turn) {
    let (plain, Some(window)) = form.plain() else { return };
    if entry.deflated(form).is_some() || !turn.may_deflate(entry.payload().len()) {
        return;
    }
    let (kind, content) = match plain {
        Form::Frame => (entry.kind, Cow::Borrowed(entry.payload())),
        _ => (Kind::Text, envelope(log.id(entry.seq), topic, entry).into()),
    };
    // As JSON a message can be six times as long, and that is what takes the time.
    let frame = match turn.may_deflate(content.len()) {
        true => turn.deflated((kind, &content), window),
        // It is too long, now and for every other reader.
        false => None,
    };
    log.keep_deflated(topic.name(), (entry, form), frame);
}

/// Appends `RUN-SEQ`.
pub(crate) fn put_id(out: &mut Vec<u8>, id: EntryId) {
    put_number(out, id.run);
    out.push(b'-');
    put_number(out, id.seq);
}

/// Appends `"RUN-SEQ"`.
pub(crate) fn put_quoted_id(out: &mut Vec<u8>, id: EntryId) {
    out.push(b'"');
    put_id(out, id);
    out.push(b'"');
}

/// Entries of a topic that a reader has missed and that are no longer held.
pub(crate) struct Gap {
    pub(crate) topic: Arc<str>,
    /// They came after this one; `None` if the reader's place was no id.
    pub(crate) after: Option<EntryId>,
    /// Delivery goes on from here.
    pub(crate) oldest: EntryId,
}

impl Gap {
    /// Appends `{"topic":…,"after":…,"oldest":…}`.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"topic\":");
        push_string(out, &self.topic);
        out.extend_from_slice(b",\"after\":");
        match self.after {
            Some(after) => put_quoted_id(out, after),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"oldest\":");
        put_quoted_id(out, self.oldest);
        out.push(b'}');
    }
}

/// Appends `"data":"…"`, or `"base64":"…"` if the message is binary.
pub(crate) fn put_data(out: &mut Vec<u8>, message: Message<'_>) {
    match message {
        Message::Text(text) => {
            out.extend_from_slice(b"\"data\":");
            push_string(out, text);
        }
        Message::Binary(bytes) => {
            out.extend_from_slice(b"\"base64\":\"");
            out.extend_from_slice(BASE64.encode(bytes).as_bytes());
            out.push(b'"');
        }
    }
}

/// JSON in a whole text frame.
pub(crate) fn frame(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FRAME_HEAD_MAX + json.len());
    put_frame_head(&mut out, OpCode::Data(Data::Text), json.len());
    out.extend_from_slice(json);
    out
}

fn envelope(id: EntryId, topic: &Topic, entry: &Entry) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + topic.name().len() + entry.payload().len() * 5 / 4);
    out.extend_from_slice(b"{\"id\":");
    put_quoted_id(&mut out, id);
    out.extend_from_slice(b",\"topic\":");
    push_string(&mut out, topic.name());
    out.push(b',');
    put_data(&mut out, entry.message());
    out.push(b'}');
    out
}

fn block(id: EntryId, put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"id: ");
    put_id(&mut out, id);
    out.push(b'\n');
    put(&mut out);
    out.push(b'\n');
    out
}

fn put_text(out: &mut Vec<u8>, message: Message<'_>) {
    let Message::Text(text) = message else {
        out.extend_from_slice(b"event: binary\ndata: ");
        out.extend_from_slice(BASE64.encode(message.as_bytes()).as_bytes());
        return out.push(b'\n');
    };
    // A line ends in LF, CR or both; whoever reads the stream knows no others, and puts LF back.
    let mut rest = text;
    loop {
        let end = rest.find(['\r', '\n']).unwrap_or(rest.len());
        let (line, after) = rest.split_at(end);
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
        let Some(next) = after.strip_prefix("\r\n").or_else(|| after.get(1..)) else { return };
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "deflate")]
    use crate::deflate::Window;
    use crate::limits::Limits;
    use crate::tick::Tick;

    fn made(message: Message<'_>, form: Form) -> String {
        let mut log = Log::new(7, Limits::default());
        let (number, id) = log.append("g", message, None, Tick(0)).unwrap();
        let topic = log.topic(number);
        let entry = topic.after(id.seq - 1).next().unwrap();
        let bytes = super::form(&log, topic, entry, form);
        assert_eq!(super::form(&log, topic, entry, form), bytes);
        assert_eq!(log.encodings(), 1, "it is made once");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[test]
    fn an_entry_leaves_in_each_form() {
        let hello = Message::Text("Bon\njour");
        let envelope = r#"{"id":"7-1","topic":"g","data":"Bon\njour"}"#;
        assert_eq!(made(hello, Form::Envelope), envelope);
        assert_eq!(made(hello, Form::Session), format!("\u{fffd}+{envelope}"), "0x81, 43 bytes");
        assert_eq!(made(hello, Form::Event), format!("id: 7-1\ndata: {envelope}\n\n"));
        assert_eq!(made(hello, Form::EventText), "id: 7-1\ndata: Bon\ndata: jour\n\n");
        let bytes = Message::Binary(b"\xff\0");
        assert_eq!(made(bytes, Form::Envelope), r#"{"id":"7-1","topic":"g","base64":"/wA="}"#);
        assert_eq!(made(bytes, Form::EventText), "id: 7-1\nevent: binary\ndata: /wA=\n\n");
    }

    /// A turn, and a log with one entry of this content.
    #[cfg(feature = "deflate")]
    fn one(content: Message<'_>) -> (Turn, Log, crate::topic::TopicNumber) {
        let mut config = crate::config::Config::default();
        config.limits.max_message = 1 << 20;
        let mut log = Log::new(7, config.limits.clone());
        let (number, _) = log.append("g", content, None, Tick(0)).unwrap();
        (Turn::new(&config), log, number)
    }

    #[cfg(feature = "deflate")]
    const DEFLATED: [Form; 4] = [
        Form::FrameDeflated(Window::Nine),
        Form::FrameDeflated(Window::Fifteen),
        Form::SessionDeflated(Window::Nine),
        Form::SessionDeflated(Window::Fifteen),
    ];

    #[test]
    #[cfg(feature = "deflate")]
    fn an_entry_is_compressed_once_in_each_form_and_window_and_kept_so() {
        let content = "Bonjour, ".repeat(200);
        let (mut turn, mut log, number) = one(content.as_str().into());
        let before = log.bytes();
        for form in DEFLATED {
            let topic = log.topic(number);
            let entry = topic.after(0).next().unwrap();
            deflate(&log, topic, entry, form, &mut turn);
            deflate(&log, topic, entry, form, &mut turn);
            let bytes = super::form(&log, topic, entry, form);
            assert_eq!(bytes[0], 0xc1, "FIN, RSV1, text");
            let payload = if bytes[1] == 126 { &bytes[4..] } else { &bytes[2..] };
            let inflated = turn.deflate.inflate(payload, 10_000, &mut turn.counters).unwrap();
            let plain = super::form(&log, topic, entry, form.plain().0);
            assert_eq!(inflated, &plain[4..], "{form:?}");
        }
        let compressions = |turn: &Turn| (turn.counters.deflated_9, turn.counters.deflated_15);
        assert_eq!((compressions(&turn), log.encodings()), ((2, 2), 5));
        let made = log.bytes();
        log.drop_encoded();
        assert!((before..made).contains(&log.bytes()), "what is compressed is kept and counted");
        for form in DEFLATED {
            let topic = log.topic(number);
            deflate(&log, topic, topic.after(0).next().unwrap(), form, &mut turn);
        }
        assert_eq!(compressions(&turn), (2, 2));
        log.clear(number);
        assert_eq!(log.bytes(), 0, "all that was counted is counted back");
    }

    #[test]
    #[cfg(feature = "deflate")]
    fn what_is_short_or_becomes_no_shorter_leaves_as_it_is_and_is_tried_once() {
        let mut state = 1_u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .take(2000)
        .collect();
        let short = "a".repeat(1023);
        for (content, tries) in [(Message::from(&short), 0), (Message::from(&noise), 1)] {
            let (mut turn, mut log, number) = one(content);
            for form in DEFLATED.iter().take(2).cycle().take(8) {
                let topic = log.topic(number);
                let entry = topic.after(0).next().unwrap();
                deflate(&log, topic, entry, *form, &mut turn);
                assert_eq!(super::form(&log, topic, entry, *form), entry.frame());
                log.drop_encoded();
            }
            let counters = &turn.counters;
            assert_eq!((counters.deflated_9, counters.deflated_15), (tries, tries));
            assert_eq!(counters.deflated_in_vain, 2 * tries);
            log.clear(number);
            assert_eq!(log.bytes(), 0);
        }
    }

    #[test]
    #[cfg(feature = "deflate")]
    fn a_turn_compresses_so_much_and_what_comes_after_leaves_as_it_is() {
        let content = "Bonjour, ".repeat(5000);
        let (mut turn, mut log, number) = one(content.as_str().into());
        for _ in 1..40 {
            log.append("g", content.as_str().into(), None, Tick(0)).unwrap();
        }
        let form = Form::FrameDeflated(Window::Fifteen);
        let compressed = |turn: &mut Turn| {
            let topic = log.topic(number);
            topic.after(0).for_each(|entry| deflate(&log, topic, entry, form, turn));
            let pieces = topic.after(0).map(|entry| super::form(&log, topic, entry, form));
            let plain = pieces.filter(|piece| piece[0] == 0x81).count() as u64;
            assert_eq!(turn.counters.deflated_15 + plain, 40);
            turn.counters.deflated_15
        };
        assert_eq!(compressed(&mut turn), 24, "1 MiB and the message that passes it");
        assert_eq!(compressed(&mut turn), 24);
        turn.begin(Tick(1), 0);
        assert_eq!(compressed(&mut turn), 40);
    }

    #[test]
    #[cfg(feature = "deflate")]
    fn what_is_six_times_as_long_as_json_counts_as_that() {
        let content = "\u{1}".repeat(60_000);
        let (mut turn, mut log, number) = one(content.as_str().into());
        for _ in 1..10 {
            log.append("g", content.as_str().into(), None, Tick(0)).unwrap();
        }
        let topic = log.topic(number);
        let form = Form::SessionDeflated(Window::Fifteen);
        topic.after(0).for_each(|entry| deflate(&log, topic, entry, form, &mut turn));
        assert_eq!(turn.counters.deflated_15, 3, "3 of 360 KB pass 1 MiB");
    }

    #[test]
    #[cfg(feature = "deflate")]
    fn what_is_too_long_as_json_leaves_as_it_is_and_is_tried_no_more() {
        let content = "\u{1}".repeat(200_000);
        let (mut turn, log, number) = one(content.as_str().into());
        let topic = log.topic(number);
        let entry = topic.after(0).next().unwrap();
        let form = Form::SessionDeflated(Window::Fifteen);
        deflate(&log, topic, entry, form, &mut turn);
        assert_eq!(turn.counters.deflated_15, 0);
        assert!(entry.deflated(form).is_some_and(Bytes::is_empty));
        assert_eq!(super::form(&log, topic, entry, form)[0], 0x81);
    }

    #[test]
    #[cfg(feature = "deflate")]
    fn compressed_forms_make_room_before_messages_do_but_for_a_quarter() {
        let mut config = crate::config::Config::default();
        config.limits.history_total = 200_000;
        let mut log = Log::new(7, config.limits.clone());
        let mut turn = Turn::new(&config);
        let mut state = 1_u32;
        let hex = |state: &mut u32| {
            *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            format!("{:x}", *state >> 28)
        };
        for _ in 0..14 {
            let content: String = (0..10_000).map(|_| hex(&mut state)).collect();
            log.append("g", content.as_str().into(), None, Tick(0)).unwrap();
        }
        let number = log.find("g").unwrap();
        for form in DEFLATED {
            let topic = log.topic(number);
            for entry in topic.after(0) {
                turn.begin(Tick(0), 0);
                deflate(&log, topic, entry, form, &mut turn);
            }
            log.drop_encoded();
            log.trim(Tick(0));
            assert_eq!(log.topic(number).len(), 14, "{form:?}");
            assert!(log.bytes() <= 200_000);
        }
        assert!(turn.counters.deflated_15 == 28 && turn.counters.deflated_in_vain == 0);
        let topic = log.topic(number);
        let held = |form| topic.after(0).filter(|entry| entry.deflated(form).is_some()).count();
        let counts = DEFLATED.map(held);
        assert!(counts[3] > 0 && counts[0] == 0, "the first made went first: {counts:?}");
    }

    #[test]
    fn every_line_end_begins_a_line_of_data_and_none_can_end_the_block() {
        for (text, lines) in [
            ("", &[""][..]),
            ("a", &["a"]),
            ("a\rb\nc\r\nd", &["a", "b", "c", "d"]),
            ("\n", &["", ""]),
            ("\r\r\n\n", &["", "", "", ""]),
            (" a: \u{2028}\u{85}é", &[" a: \u{2028}\u{85}é"]),
            ("a\n\nid: 9-9\n\n", &["a", "", "id: 9-9", "", ""]),
        ] {
            let data: String = lines.iter().map(|line| format!("data: {line}\n")).collect();
            assert_eq!(made(text.into(), Form::EventText), format!("id: 7-1\n{data}\n"));
        }
    }
}
