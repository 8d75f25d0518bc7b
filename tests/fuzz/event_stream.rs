//! Promise: whatever is published, a page that reads the stream by the letter of the standard gets
//! just that: one event each, with its id, its data whole (line ends become LF in text), and no
//! other event or id, however the payload and the topic's name try.

use data_encoding::BASE64;
use pousse::Limits;
use pousse::Message;
use pousse::seam::{Form, Log, Tick, form};
use serde_json::Value;

use super::answers::{Event, events};
use super::input::Input;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut log = Log::new(7, Limits::default());
    let mut json = b"retry: 2000\n\n".to_vec();
    let mut text = json.clone();
    let mut wanted = Vec::new();
    for _ in 0..4 {
        let size = input.choice().into();
        let payload = input.take(size);
        let name: String = ["general", "a\nb", "\"\u{2028}", "data: x\n\n"]
            [usize::from(input.choice() % 4)]
        .into();
        let message = match std::str::from_utf8(payload) {
            Ok(text) => Message::Text(text),
            Err(_) => Message::Binary(payload),
        };
        let Ok((number, id)) = log.append(&name, message, None, Tick(1)) else { continue };
        let topic = log.topic(number);
        let entry = topic.after(id.seq - 1).next().expect("it was just appended");
        json.extend_from_slice(&form(&log, topic, entry, Form::Event));
        text.extend_from_slice(&form(&log, topic, entry, Form::EventText));
        wanted.push((id.to_string(), name, payload.to_vec()));
    }
    let read = |bytes: &[u8]| events(std::str::from_utf8(bytes).expect("a stream is UTF-8"));
    let (json, text) = (read(&json), read(&text));
    assert_eq!(json.len(), wanted.len(), "{json:?}");
    assert_eq!(text.len(), wanted.len(), "{text:?}");
    for ((json, text), (id, name, payload)) in json.into_iter().zip(text).zip(wanted) {
        let value: Value = serde_json::from_str(&json.data).expect("it is JSON");
        assert_eq!((json.kind.as_str(), &json.last_id), ("message", &id));
        assert_eq!((value["id"].as_str(), value["topic"].as_str()), (Some(&*id), Some(&*name)));
        let of_json = match (value["data"].as_str(), value["base64"].as_str()) {
            (Some(text), None) => text.as_bytes().to_vec(),
            (None, Some(text)) => BASE64.decode(text.as_bytes()).expect("it is base64"),
            _ => panic!("{value}"),
        };
        assert_eq!(of_json, payload);
        let lines = std::str::from_utf8(&payload);
        let lines = lines.map(|text| text.replace("\r\n", "\n").replace('\r', "\n"));
        let (kind, data) = match lines {
            Ok(text) => ("message", text),
            Err(_) => ("binary", BASE64.encode(&payload)),
        };
        assert_eq!(text, Event { kind: kind.into(), data, last_id: id });
    }
}
