//! A strict reader of what the server says: answers, then frames (RFC 6455 §5) or an event stream
//! (HTML standard §9.2.6). Written from the standards and from nothing of pousse's.

use std::collections::HashMap;

use serde_json::Value;

use super::inflate::puff;
use super::reference::{Seen, Stop};

/// What of a server's bytes is not as it has to be.
pub type Wrong = String;

/// What was heard on one connection.
#[derive(Debug, Default)]
pub struct Heard {
    /// The status of each answer, those of 100 left out.
    pub statuses: Vec<u16>,
    /// Payloads of the frames of data.
    pub messages: Vec<(u8, Vec<u8>)>,
    pub events: Vec<Event>,
    /// A close frame came, or an answer said that it is the last.
    pub is_over: bool,
}

/// An event as a page gets it.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: String,
    pub data: String,
    pub last_id: String,
}

/// Reads all that one connection has said to requests of `asked`. `is_cut`: the end may be missing.
pub fn read(mut bytes: &[u8], asked: &(Vec<Seen>, Stop), is_cut: bool) -> Result<Heard, Wrong> {
    let mut heard = Heard::default();
    let mut requests = asked.0.iter();
    while !bytes.is_empty() {
        if heard.is_over {
            return Err("something stands behind the last answer".into());
        }
        let Some(answer) = head(bytes)? else { return cut(heard, is_cut, "an answer's head") };
        bytes = &bytes[answer.bytes..];
        if answer.status == 100 {
            continue;
        }
        heard.statuses.push(answer.status);
        heard.is_over = answer.has("connection", "close");
        let request = requests.next();
        if request.is_none() && !(heard.is_over && answer.status >= 400) {
            return Err(format!("an answer {} to no request", answer.status));
        }
        if answer.status == 101 {
            let is_session = answer.has("sec-websocket-protocol", "pousse.v1");
            let is_deflated = answer.fields.iter().any(|(it, _)| it == "sec-websocket-extensions");
            return frames(bytes, heard, (is_session, is_deflated), is_cut);
        }
        let is_head = request.is_some_and(|request| request.method == "HEAD");
        if answer.has("content-type", "text/event-stream") && !is_head {
            let is_whole = bytes.ends_with(b"\n\n");
            let text = std::str::from_utf8(bytes).or_else(|error| match is_cut {
                true => Ok(std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()),
                false => Err("an event stream that is no UTF-8".to_owned()),
            })?;
            heard.events = events(text);
            return if is_whole { Ok(heard) } else { cut(heard, is_cut, "a block") };
        }
        let length = match (answer.status, answer.length()?) {
            (204 | 304, None) => 0,
            (204 | 304, Some(_)) => return Err(format!("a length in a {}", answer.status)),
            // What was refused before it was understood is answered with a content.
            (_, Some(_)) if is_head && (bytes.is_empty() || !heard.is_over) => 0,
            (_, Some(length)) => length,
            (_, None) if is_head => 0,
            (_, None) => return Err("a content without its length".into()),
        };
        if bytes.len() < length {
            return cut(heard, is_cut, "a content");
        }
        let content = &bytes[..length];
        if answer.has("content-type", "application/json") && length > 0 {
            serde_json::from_slice::<Value>(content).map_err(|error| error.to_string())?;
        }
        bytes = &bytes[length..];
    }
    Ok(heard)
}

fn cut(heard: Heard, is_cut: bool, what: &str) -> Result<Heard, Wrong> {
    if is_cut { Ok(heard) } else { Err(format!("{what} without its end")) }
}

struct Head {
    status: u16,
    fields: Vec<(String, String)>,
    bytes: usize,
}

impl Head {
    fn has(&self, name: &str, value: &str) -> bool {
        self.fields.iter().any(|(field, it)| field == name && it.eq_ignore_ascii_case(value))
    }

    fn length(&self) -> Result<Option<usize>, Wrong> {
        let mut lengths = self.fields.iter().filter(|(name, _)| name == "content-length");
        match (lengths.next(), lengths.next()) {
            (None, _) => Ok(None),
            (Some((_, length)), None) => length.parse().map(Some).map_err(|_| "a length".into()),
            _ => Err("two lengths".into()),
        }
    }
}

/// Fields that may stand in an answer; no other name is known to those who wrote it.
const FIELDS: &[&str] = &[
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "allow",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "date",
    "etag",
    "location",
    "preference-applied",
    "referrer-policy",
    "retry-after",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "upgrade",
    "vary",
    "www-authenticate",
    "x-accel-buffering",
    "x-content-type-options",
];

fn head(bytes: &[u8]) -> Result<Option<Head>, Wrong> {
    let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| "a head that is no text")?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let rest = first.strip_prefix("HTTP/1.1 ").ok_or_else(|| format!("{first:?} is no status"))?;
    let status = rest.get(..3).and_then(|it| it.parse().ok());
    let status = status.ok_or_else(|| format!("{first:?} is no status"))?;
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or_else(|| format!("{line:?} is no field"))?;
        let name = name.to_ascii_lowercase();
        if !FIELDS.contains(&name.as_str()) || value.chars().any(char::is_control) {
            return Err(format!("{line:?} is no field of ours"));
        }
        fields.push((name, value.to_owned()));
    }
    let is_final = status != 100;
    if is_final && !fields.iter().any(|(name, _)| name == "x-content-type-options") {
        return Err("an answer without nosniff".into());
    }
    Ok(Some(Head { status, fields, bytes: end + 4 }))
}

/// Frames from a server: whole messages, not masked, in the shortest form, the close frame last.
fn frames(
    mut bytes: &[u8],
    mut heard: Heard,
    (is_session, is_deflated): (bool, bool),
    is_cut: bool,
) -> Result<Heard, Wrong> {
    while !bytes.is_empty() {
        if heard.is_over {
            return Err("something stands behind the close frame".into());
        }
        let [first, second, rest @ ..] = bytes else { return cut(heard, is_cut, "a header") };
        let (opcode, is_data) = (first & 0x0f, first & 0x08 == 0);
        let is_squeezed = is_deflated && is_data && first & 0x40 != 0;
        if first & 0xf0 != if is_squeezed { 0xc0 } else { 0x80 }
            || !matches!(opcode, 1 | 2 | 8..=10)
            || second & 0x80 != 0
        {
            return Err(format!("a frame that begins {first:02x} {second:02x}"));
        }
        let (length, rest) = match (second, rest) {
            (126, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), rest),
            (127, [a, b, c, d, e, f, g, h, rest @ ..]) => {
                let length = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
                (usize::try_from(length).map_err(|_| "a length")?, rest)
            }
            (126 | 127, _) => return cut(heard, is_cut, "a header"),
            (short, rest) => (usize::from(*short), rest),
        };
        if *second == 126 && length < 126 || *second == 127 && length < 65_536 {
            return Err("a length in more bytes than it needs".into());
        }
        if !is_data && length > 125 {
            return Err("a long control frame".into());
        }
        if rest.len() < length {
            return cut(heard, is_cut, "a frame");
        }
        let payload = match is_squeezed {
            true => puff(&rest[..length], 1 << 20).map_err(|_| "what is no DEFLATE")?,
            false => rest[..length].to_vec(),
        };
        bytes = &rest[length..];
        match opcode {
            1 => {
                std::str::from_utf8(&payload).map_err(|_| "a text that is no UTF-8")?;
                heard.messages.push((1, payload));
            }
            2 => heard.messages.push((2, payload)),
            8 => {
                heard.is_over = true;
                close(&payload)?;
            }
            _ => {}
        }
    }
    if is_session {
        session(&heard)?;
    }
    Ok(heard)
}

fn close(payload: &[u8]) -> Result<(), Wrong> {
    match payload {
        [] => Ok(()),
        [a, b, reason @ ..] => {
            let code = u16::from_be_bytes([*a, *b]);
            let is_code = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            if !is_code || std::str::from_utf8(reason).is_err() {
                return Err(format!("a close frame of {code}"));
            }
            Ok(())
        }
        _ => Err("half a close code".into()),
    }
}

/// The messages of pousse.v1 are objects; the first greets, and entries of a topic come in order.
fn session(heard: &Heard) -> Result<(), Wrong> {
    for (at, (opcode, payload)) in heard.messages.iter().enumerate() {
        let value: Value = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
        if *opcode != 1 || !value.is_object() || (at == 0) != value.get("hello").is_some() {
            return Err(format!("the message {value} of pousse.v1"));
        }
    }
    Ok(())
}

/// What was heard of each topic in JSON, in its order: the `seq` of an entry, or that there is a
/// gap.
pub fn places(heard: &Heard) -> HashMap<String, Vec<Option<u64>>> {
    let mut places: HashMap<String, Vec<Option<u64>>> = HashMap::new();
    let texts = heard.messages.iter().map(|(_, payload)| ("message", payload.as_slice()));
    let events = heard.events.iter().map(|it| (it.kind.as_str(), it.data.as_bytes()));
    for (kind, text) in texts.chain(events) {
        let Ok(value) = serde_json::from_slice::<Value>(text) else { continue };
        let gap = if kind == "gap" { &value } else { &value["gap"] };
        if let Some(topic) = gap["topic"].as_str() {
            places.entry(topic.to_owned()).or_default().push(None);
        }
        let (Some(id), Some(topic)) = (value["id"].as_str(), value["topic"].as_str()) else {
            continue;
        };
        let Some(seq) = id.split_once('-').and_then(|(_, seq)| seq.parse().ok()) else { continue };
        places.entry(topic.to_owned()).or_default().push(Some(seq));
    }
    places
}

/// The events of a stream, by the letter of the standard: what a page would be handed.
pub fn events(text: &str) -> Vec<Event> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut events, mut data, mut kind) = (Vec::new(), String::new(), String::new());
    let (mut id, mut last_id) = (String::new(), String::new());
    let mut rest = text;
    while let Some(end) = rest.find(['\r', '\n']) {
        let line = &rest[..end];
        rest = &rest[end..];
        rest = rest.strip_prefix("\r\n").unwrap_or_else(|| &rest[1..]);
        if line.is_empty() {
            last_id.clone_from(&id);
            if !data.is_empty() {
                data.pop();
                let kind = if kind.is_empty() { "message".into() } else { kind.clone() };
                events.push(Event { kind, data: data.clone(), last_id: last_id.clone() });
            }
            data.clear();
            kind.clear();
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => kind = value.to_owned(),
            "data" => {
                data.push_str(value);
                data.push('\n');
            }
            "id" if !value.contains('\0') => id = value.to_owned(),
            _ => {}
        }
    }
    events
}
