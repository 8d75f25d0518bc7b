//! Promise: a command of pousse.v1 is read as `serde_json` reads its JSON as a whole; what is no
//! command is refused by a status of 400, with its `ref` as it was written; nothing panics.

use data_encoding::BASE64;
use pousse::seam::command;
use pousse::{After, Kind};
use serde_json::{Map, Value};

use super::input::Input;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let text = input.text();
    let got = command(&text);
    let reference = match &got {
        Ok(_) => None,
        Err((status, reference)) => {
            assert_eq!(*status, 400);
            reference.clone()
        }
    };
    if let Some(reference) = reference {
        let value: Value = serde_json::from_str(&reference).unwrap_or(Value::Null);
        // A string that is no Unicode is JSON by its grammar, and goes back as it came.
        let is_written = reference.starts_with(|c: char| "\"-".contains(c) || c.is_ascii_digit());
        assert!(value.is_string() || value.is_number() || is_written, "{reference}");
        assert!(reference.len() <= 128 && text.contains(&reference));
    }
    let Ok(Value::Object(members)) = serde_json::from_str(&text) else {
        // Members that nobody looks at may be what a whole reading refuses: numbers and strings
        // that are out of range, and JSON that is deep.
        return;
    };
    let wanted = wanted(&members, &text);
    match (&got, &wanted) {
        (Ok(got), Some(wanted)) => assert!(got.starts_with(wanted.as_str()), "{got} {wanted}"),
        (Err(_), None) => {}
        _ => panic!("{got:?}, and it should be {wanted:?}: {text}"),
    }
}

/// What the command is, as `Debug` shows it; `None`: it is none.
fn wanted(members: &Map<String, Value>, text: &str) -> Option<String> {
    // How `ref` was written is not to be seen any more; its kind is.
    match members.get("ref") {
        None => {}
        Some(Value::String(_) | Value::Number(_)) if !is_long_ref(text) => {}
        Some(_) => return None,
    }
    let (subscribe, unsubscribe) = (member(members, "subscribe")?, member(members, "unsubscribe")?);
    let what = match (subscribe, unsubscribe, member(members, "publish")?) {
        (Some(topic), None, None) => {
            let after = member(members, "after")?.map_or(Ok(After::Now), |it| it.parse()).ok()?;
            format!("Subscribe {{ topic: {topic:?}, after: {after:?} }}")
        }
        (None, Some(topic), None) => format!("Unsubscribe {{ topic: {topic:?} }}"),
        (None, None, Some(topic)) => {
            let key = member(members, "key")?;
            if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > 128) {
                return None;
            }
            let (kind, payload) = match (member(members, "data")?, member(members, "base64")?) {
                (Some(text), None) => (Kind::Text, text.into_bytes()),
                (None, Some(text)) => (Kind::Binary, BASE64.decode(text.as_bytes()).ok()?),
                _ => return None,
            };
            format!(
                "Publish {{ topic: {topic:?}, kind: {kind:?}, payload: {payload:?}, key: {key:?} }}"
            )
        }
        _ => return None,
    };
    Some(format!("Command {{ what: {what}, reference: "))
}

fn member(members: &Map<String, Value>, name: &str) -> Option<Option<String>> {
    match members.get(name) {
        None => Some(None),
        Some(Value::String(text)) => Some(Some(text.clone())),
        Some(_) => None,
    }
}

/// Whether the last `ref` may have been written in over 128 bytes: then it is not compared.
fn is_long_ref(text: &str) -> bool {
    text.len() > 128 && command(text).is_err_and(|(_, reference)| reference.is_none())
}
