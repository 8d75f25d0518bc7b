//! Requests as text, and answers as far as a load needs them (RFC 9112).

/// An answer, all of it.
#[derive(Debug)]
pub(crate) struct Answer<'b> {
    pub(crate) status: u16,
    head: &'b str,
    pub(crate) content: &'b [u8],
}

impl<'b> Answer<'b> {
    pub(crate) fn field(&self, name: &str) -> Option<&'b str> {
        let mut fields = self.head.split("\r\n").filter_map(|line| line.split_once(':'));
        fields.find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// The answer at the front of these bytes, and how many they are. One without a length ends with
/// its head.
pub(crate) fn take(bytes: &[u8]) -> Option<(Answer<'_>, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = str::from_utf8(&bytes[..end]).unwrap();
    assert!(head.starts_with("HTTP/1.1 "), "no answer but {head:?}");
    let status = head[9..12].parse().unwrap();
    let mut answer = Answer { status, head, content: &[] };
    let length = answer.field("content-length").map_or(0, |length| length.parse().unwrap());
    answer.content = bytes.get(end..end + length)?;
    Some((answer, end + length))
}

/// A request; each of the fields ends its line.
pub(crate) fn request(method: &str, target: &str, fields: &str, content: &[u8]) -> Vec<u8> {
    let length = match method {
        "POST" => format!("Content-Length: {}\r\n", content.len()),
        _ => String::new(),
    };
    let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}{length}\r\n");
    [head.as_bytes(), content].concat()
}

/// An opening handshake.
pub(crate) fn opening(path: &str, fields: &str) -> Vec<u8> {
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    request("GET", path, &format!("{upgrade}{fields}"), &[])
}
