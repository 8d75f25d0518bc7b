//! An answer of HTTP/1.1 (RFC 9112), read by someone who believes nothing.

use std::time::Instant;

use super::{Came, Wire, show};

/// One answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub content: Vec<u8>,
}

impl Answer {
    /// Waits for an answer. One to `HEAD` has no content, whatever its fields promise; that of an
    /// event stream is for the caller to read. An error says what came instead.
    pub fn read(wire: &mut Wire, to_head: bool, deadline: Instant) -> Result<Self, String> {
        let head_bytes = loop {
            let end = wire.unread.windows(4).position(|four| four == b"\r\n\r\n");
            match end {
                Some(end) => break end + 4,
                None => wire.need(wire.unread.len() + 1, deadline)?,
            }
        };
        let mut answer = parse(&wire.take(head_bytes))?;
        if to_head || answer.status < 200 || matches!(answer.status, 204 | 304) {
            return Ok(answer);
        }
        if answer.is_event_stream() {
            return Ok(answer);
        }
        let Some(length) = answer.field("Content-Length") else {
            while wire.fill(deadline) != Came::End {}
            answer.content = wire.take(wire.unread.len());
            return Ok(answer);
        };
        let length = length.parse().map_err(|_| format!("Content-Length: {length}"))?;
        wire.need(length, deadline)?;
        answer.content = wire.take(length);
        Ok(answer)
    }

    /// The value of a field, several of the same name joined.
    pub fn field(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .fields
            .iter()
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// The content as JSON.
    pub fn json(&self) -> Result<serde_json::Value, String> {
        serde_json::from_slice(&self.content)
            .map_err(|error| format!("{} ({error})", show(&self.content)))
    }

    /// Whether blocks follow, without an end that was told.
    pub fn is_event_stream(&self) -> bool {
        let kind = self.field("Content-Type").unwrap_or_default();
        kind.starts_with("text/event-stream") && self.field("Content-Length").is_none()
    }

    /// Whether the connection ends with this answer.
    pub fn is_last(&self) -> bool {
        let connection = self.field("Connection").unwrap_or_default();
        connection.split(',').any(|option| option.trim().eq_ignore_ascii_case("close"))
    }

    /// What is true of every answer of this server, whatever was asked.
    pub fn check(&self, to_head: bool) -> Result<(), String> {
        if self.status < 200 {
            return Ok(());
        }
        let date = self.field("Date").ok_or("an answer without Date")?;
        httpdate::parse_http_date(&date).map_err(|_| format!("Date: {date}"))?;
        for (name, value) in
            [("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer")]
        {
            if self.field(name).as_deref() != Some(value) {
                return Err(format!("an answer without {name}: {value}"));
            }
        }
        if self.status < 400 {
            return Ok(());
        }
        let kind = self.field("Content-Type");
        if kind.as_deref() != Some("application/problem+json") {
            return Err(format!("a problem of Content-Type {kind:?}"));
        }
        if to_head {
            return Ok(());
        }
        let problem = self.json()?;
        let is_text = |name: &str| problem[name].as_str().is_some_and(|text| !text.is_empty());
        let is_whole = problem["type"] == "about:blank"
            && problem["status"] == self.status
            && is_text("title")
            && is_text("detail");
        is_whole.then_some(()).ok_or_else(|| format!("the problem {problem}"))
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.status > 0 {
            write!(f, "status {}", self.status)?;
        }
        for (name, value) in &self.fields {
            write!(f, "\n    {name}: {value}")?;
        }
        write!(f, "\n    content {}", show(&self.content))
    }
}

/// Parses the head of an answer, by the letter of RFC 9112 §4 and §5.
fn parse(head: &[u8]) -> Result<Answer, String> {
    let wrong = || format!("no head of an answer: {}", show(head));
    let text = std::str::from_utf8(head).map_err(|_| wrong())?;
    let mut lines = text.strip_suffix("\r\n\r\n").ok_or_else(wrong)?.split("\r\n");
    let status_line = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
    let (status, reason) = status_line.and_then(|line| line.split_once(' ')).ok_or_else(wrong)?;
    let status_is_three_digits = status.len() == 3;
    let status = status.parse().map_err(|_| wrong())?;
    let mut answer = Answer { status, ..Answer::default() };
    let is_control = |line: &str| line.chars().any(|c| c.is_control());
    if !status_is_three_digits || is_control(reason) {
        return Err(wrong());
    }
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(is_token) || is_control(value) {
            return Err(wrong());
        }
        answer.fields.push((name.into(), value.trim().into()));
    }
    Ok(answer)
}
