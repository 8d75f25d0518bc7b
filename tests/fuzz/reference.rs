//! A strict reader of requests, written from RFC 9112 and from nothing of pousse's: what a careful
//! proxy in front would see. It knows no transfer coding, so it stops where it sees one.

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub is_1_1: bool,
    pub fields: Vec<(String, Vec<u8>)>,
    /// As promised; `content` may be shorter if the bytes end.
    pub content_length: u128,
    pub content: Vec<u8>,
}

impl Seen {
    /// The values of a field.
    pub fn field<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s [u8]> {
        self.fields
            .iter()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
    }

    /// Whether all of its content is there.
    pub fn is_whole(&self) -> bool {
        self.content.len() as u128 == self.content_length
    }
}

/// Why there is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// All is read; or it ends inside a head.
    End,
    /// It ends inside a content.
    InContent,
    /// This is no request, or where it ends cannot be told.
    Bad,
}

/// Reads as many requests as there are.
pub fn read(mut bytes: &[u8]) -> (Vec<Seen>, Stop) {
    let mut seen = Vec::new();
    loop {
        while let Some(rest) = bytes.strip_prefix(b"\r\n") {
            bytes = rest;
        }
        let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") else {
            return (seen, Stop::End);
        };
        let Some(mut request) = head(&bytes[..end + 2]) else { return (seen, Stop::Bad) };
        bytes = &bytes[end + 4..];
        let length = usize::try_from(request.content_length).unwrap_or(usize::MAX);
        let (content, rest) = bytes.split_at(length.min(bytes.len()));
        request.content = content.to_vec();
        bytes = rest;
        let is_whole = request.is_whole();
        seen.push(request);
        if !is_whole {
            return (seen, Stop::InContent);
        }
    }
}

fn head(bytes: &[u8]) -> Option<Seen> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let end = rest.windows(2).position(|it| it == b"\r\n")?;
        let line = &rest[..end];
        if line.contains(&b'\r') || line.contains(&b'\n') {
            return None;
        }
        lines.push(line);
        rest = &rest[end + 2..];
    }
    let (first, lines) = lines.split_first()?;
    let parts: Vec<&[u8]> = first.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else { return None };
    let is_1_1 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return None,
    };
    if !is_token(method) || target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let fields: Vec<(String, Vec<u8>)> =
        lines.iter().map(|line| field(line)).collect::<Option<_>>()?;
    let mut request = Seen {
        method: String::from_utf8(method.to_vec()).ok()?,
        target: String::from_utf8(target.to_vec()).ok()?,
        is_1_1,
        fields,
        content_length: 0,
        content: Vec::new(),
    };
    if request.field("transfer-encoding").next().is_some() {
        return None;
    }
    let lengths: Vec<&[u8]> = request.field("content-length").collect();
    request.content_length = match lengths[..] {
        [] => 0,
        [digits] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(digits).ok()?.parse().unwrap_or(u128::MAX)
        }
        _ => return None,
    };
    let hosts = request.field("host").count();
    (hosts == 1 || hosts == 0 && !is_1_1).then_some(request)
}

fn field(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_value = |byte: &u8| *byte >= 0x20 && *byte != 0x7f || *byte == b'\t';
    if !is_token(name) || !value.iter().all(is_value) {
        return None;
    }
    let is_space = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let start = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_space(byte)).map_or(start, |at| at + 1);
    Some((String::from_utf8(name.to_vec()).ok()?, value[start..end].to_vec()))
}

fn is_token(text: &[u8]) -> bool {
    let is_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_byte)
}
