//! Parts of an answer, and how they are compared with what a script says.

use serde_json::Value;

use crate::actor::{Played, Wrong, wrong};
use crate::step::{Operator, What};
use crate::support::http::Answer;

/// The part of the answer; `None` if it has none such.
pub(crate) fn found(answer: &Answer, what: &What) -> Played<Option<Value>> {
    Ok(match what {
        What::Field(name) => answer.field(name).map(Value::String),
        What::Content if answer.content.is_empty() => None,
        What::Content => Some(String::from_utf8_lossy(&answer.content).into_owned().into()),
        What::Json(path) => match answer.json() {
            Ok(value) => walk(value, path),
            Err(came) => return wrong("JSON", came),
        },
    })
}

/// The value at a path such as `messages[0].data`; `[*]`: of all of them, in a list.
fn walk(mut value: Value, path: &str) -> Option<Value> {
    let path = path.replace('[', ".[");
    let mut steps = path.split('.').filter(|step| !step.is_empty());
    while let Some(step) = steps.next() {
        value = match step.strip_prefix('[').map(|step| step.trim_end_matches(']')) {
            Some("*") => {
                let rest = steps.collect::<Vec<_>>().join(".");
                let Value::Array(list) = value else { return None };
                return Some(list.into_iter().filter_map(|item| walk(item, &rest)).collect());
            }
            Some(index) => value.get_mut(index.parse::<usize>().ok()?)?.take(),
            None => value.get_mut(step)?.take(),
        };
    }
    Some(value)
}

/// The JSON of a script, in which `…` stands for any value, and within a text for any piece of it.
pub(crate) fn json(text: &str) -> Played<Value> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let mut json = String::new();
    for c in text.chars() {
        is_quoted ^= c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        match c {
            '…' if !is_quoted => json += "\"…\"",
            c => json.push(c),
        }
    }
    serde_json::from_str(&json)
        .map_err(|error| Wrong("JSON in the script".into(), format!("{text} ({error})")))
}

/// Whether it is what the script says.
pub(crate) fn is_like(came: &Value, said: &Value) -> bool {
    match (came, said) {
        (_, Value::String(said)) if said == "…" => true,
        (Value::String(came), Value::String(said)) => is_like_text(came, said),
        (Value::Array(came), Value::Array(said)) => {
            came.len() == said.len()
                && came.iter().zip(said).all(|(came, said)| is_like(came, said))
        }
        (Value::Object(came), Value::Object(said)) => {
            let is_there = |(name, said): (&String, &Value)| {
                came.get(name).is_some_and(|came| is_like(came, said))
            };
            came.len() == said.len() && said.iter().all(is_there)
        }
        (came, said) => came == said,
    }
}

/// The same for texts: each `…` is some text, or none.
pub(crate) fn is_like_text(came: &str, said: &str) -> bool {
    let Some((before, after)) = said.split_once('…') else { return came == said };
    let Some(rest) = came.strip_prefix(before) else { return false };
    let mut ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    ends.any(|at| is_like_text(&rest[at..], after))
}

pub(crate) fn fits(came: &Value, operator: Operator, operand: &Value) -> bool {
    let texts = came.as_str().zip(operand.as_str());
    match operator {
        Operator::Equals => is_like(came, operand),
        Operator::Differs => !is_like(came, operand),
        Operator::Has => came.as_array().map(Vec::len) == operand.as_u64().map(|n| n as usize),
        Operator::Contains => texts.is_some_and(|(came, text)| came.contains(text)),
        Operator::Lacks => texts.is_some_and(|(came, text)| !came.contains(text)),
        Operator::Begins => texts.is_some_and(|(came, text)| came.starts_with(text)),
        Operator::Ends => texts.is_some_and(|(came, text)| came.ends_with(text)),
    }
}

/// The bytes that a quoted text stands for.
pub(crate) fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next()? {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'x' => {
                    let digits = [rest.next()?, rest.next()?];
                    u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
                }
                quoted @ (b'"' | b'\\') => quoted,
                _ => return None,
            },
            byte => byte,
        });
    }
    Some(bytes)
}
