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
mod tests;
