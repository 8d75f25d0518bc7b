//! HTTP/1.1 requests (RFC 9110 §5, §7): what a request says, and the refusal of one that cannot be
//! served.
//!
//! A request is only looked at here. How it comes of the bytes of a head is `parse.rs`' business,
//! and which answer it gets is `routes.rs`'.
//!
//! What holds: a request keeps its head as it came, in one piece, and its parts are places in that;
//! method and target are ASCII, and everything else may be any bytes.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::{fmt, ops};

use crate::message::Message;
use crate::metrics::Reason;
use crate::percent;
use crate::response::Response;

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP, from this address.
    Tcp(SocketAddr),
    /// Over a unix socket.
    Unix,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => write!(f, "{address}"),
            Peer::Unix => f.write_str("unix"),
        }
    }
}

/// What is wrong with a request: the status, the word for counters, and what to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub(crate) status: u16,
    pub(crate) reason: Reason,
    pub(crate) detail: Cow<'static, str>,
    /// What the status demands beside the problem: `Allow`, `Upgrade`.
    pub(crate) fields: &'static [(&'static str, &'static str)],
    /// The origin of the page that asked, where no [`Request`] came of it that would tell.
    pub(crate) origin: Option<Box<str>>,
}

impl Refusal {
    pub(crate) fn new(status: u16, reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, reason, detail: detail.into(), fields: &[], origin: None }
    }

    pub(crate) fn with(mut self, fields: &'static [(&'static str, &'static str)]) -> Self {
        self.fields = fields;
        self
    }

    /// What comes of a head that is no request. Its page can read the answer all the same.
    pub(crate) fn of_head(mut self, head: &[u8]) -> Self {
        let lines = head.split_inclusive(|byte| *byte == b'\n').filter_map(|line| {
            let (name, value) = str::from_utf8(line).ok()?.strip_suffix("\r\n")?.split_once(':')?;
            name.eq_ignore_ascii_case("origin").then_some(value.trim())
        });
        let mut origins = lines.fuse();
        self.origin = origins.next().filter(|_| origins.next().is_none()).map(Into::into);
        self
    }

    /// The refusal as an answer. What may be tried again, is to be after `retry_s` seconds.
    pub(crate) fn response(&self, retry_s: u64) -> Response {
        let response = match self.reason {
            // Who does not see that it is the wrong scheme looks at it with a tool, not a program.
            Reason::Tls => Response::text(self.status, format!("{}\n", self.detail)),
            _ => Response::problem(self.status, &self.detail),
        };
        let response = match self.status {
            429 | 503 => response.with("Retry-After", retry_s.to_string()),
            _ => response,
        };
        self.fields.iter().fold(response, |response, (name, value)| response.with(name, *value))
    }
}

/// As a log line has it.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status={} reason={} detail={:?}", self.status, self.reason, self.detail)
    }
}

pub(crate) fn bad(detail: &'static str) -> Refusal {
    Refusal::new(400, Reason::Syntax, detail)
}

/// Where a part of the head stands in it.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    start: u32,
    end: u32,
}

impl Part {
    fn of(part: &[u8], whole: &[u8]) -> Self {
        let start = part.as_ptr() as usize - whole.as_ptr() as usize;
        let fit = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self { start: fit(start), end: fit(start + part.len()) }
    }

    fn range(self) -> ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A head as it came. Nearly all are UTF-8, and whether it is, is asked once.
#[derive(Debug)]
enum Head {
    Text(Box<str>),
    Bytes(Box<[u8]>),
}

impl Head {
    fn new(head: &[u8]) -> Self {
        match str::from_utf8(head) {
            Ok(text) => Head::Text(text.into()),
            Err(_) => Head::Bytes(head.into()),
        }
    }

    fn bytes(&self, part: Part) -> &[u8] {
        let head = match self {
            Head::Text(text) => text.as_bytes(),
            Head::Bytes(bytes) => bytes,
        };
        head.get(part.range()).unwrap_or_default()
    }

    /// The part, if it is UTF-8.
    fn text(&self, part: Part) -> Option<&str> {
        match self {
            Head::Text(text) => text.get(part.range()),
            Head::Bytes(_) => str::from_utf8(self.bytes(part)).ok(),
        }
    }
}

/// A request: its head, and its content once that is whole.
#[derive(Debug)]
pub struct Request {
    head: Head,
    method: Part,
    target: Part,
    /// Of the target what stands before its question mark, and what stands behind it.
    path: Part,
    query: Part,
    fields: Vec<(Part, Part)>,
    is_1_1: bool,
    pub(crate) content_length: usize,
    pub(crate) content: Vec<u8>,
    pub(crate) refusal: Option<Refusal>,
    pub(crate) peer: Peer,
}

impl Request {
    /// Bytes of memory that it takes, its own and those that it has room for.
    pub(crate) fn held_bytes(&self) -> usize {
        let head = match &self.head {
            Head::Text(text) => text.len(),
            Head::Bytes(bytes) => bytes.len(),
        };
        let fields = self.fields.capacity() * size_of::<(Part, Part)>();
        size_of::<Self>() + head + fields + self.content.capacity()
    }

    /// A request that has no content yet, of the parts that were found in `head`. Method and target
    /// are to be ASCII.
    pub(crate) fn new<'h>(
        head: &'h [u8],
        (method, target): (&str, &str),
        fields: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        is_1_1: bool,
        peer: Peer,
    ) -> Self {
        let fields = fields.map(|(name, value)| (Part::of(name, head), Part::of(value, head)));
        let mut request = Self {
            method: Part::of(method.as_bytes(), head),
            target: Part::of(target.as_bytes(), head),
            path: Part::default(),
            query: Part::default(),
            fields: fields.collect(),
            is_1_1,
            content_length: 0,
            content: Vec::new(),
            refusal: None,
            head: Head::new(head),
            peer,
        };
        request.split_target();
        request
    }

    /// Of the target only its last `length` bytes count: the rest is scheme and authority.
    pub(crate) fn shorten_target(&mut self, length: usize) {
        let start = self.target.range().end - length;
        self.target.start = u32::try_from(start).unwrap_or(u32::MAX);
        self.split_target();
    }

    /// The method, as sent: methods are case-sensitive.
    pub fn method(&self) -> &str {
        self.part(self.method)
    }

    /// The request target: path and query as sent, without what an absolute form has before them.
    pub fn target(&self) -> &str {
        self.part(self.target)
    }

    /// The target up to its query, still percent-encoded.
    pub fn path(&self) -> &str {
        match self.part(self.path) {
            // An absolute target may leave it out (RFC 9110 §4.2.3).
            "" => "/",
            path => path,
        }
    }

    /// The decoded names and values of the query, in their order; `None` for one that is not
    /// percent-encoded UTF-8.
    pub fn query(&self) -> impl Iterator<Item = Option<(Cow<'_, str>, Cow<'_, str>)>> {
        self.pairs().map(|(name, value)| {
            Some((percent::decode(name, true)?, percent::decode(value, true)?))
        })
    }

    /// Whether the query has a value of this name.
    pub(crate) fn asks(&self, name: &str) -> bool {
        self.pairs().any(|(it, _)| percent::decode(it, true).is_some_and(|it| it == name))
    }

    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.part(self.query).split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// The value of the first field of this name (names ignore case) that is text.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields(name).next()
    }

    /// The values of all fields of this name that are text.
    pub fn fields(&self, name: &str) -> impl Iterator<Item = &str> {
        self.values(name).filter_map(|value| self.head.text(value))
    }

    /// The content, empty if there is none.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// The content as a message: binary if it is said to be octets or is no text.
    pub(crate) fn message(&self) -> Message<'_> {
        let kind = self.field("content-type").unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        match str::from_utf8(&self.content) {
            Ok(text) if !kind.eq_ignore_ascii_case("application/octet-stream") => {
                Message::Text(text)
            }
            _ => Message::Binary(&self.content),
        }
    }

    /// Whether all of the content is here.
    pub fn is_whole(&self) -> bool {
        self.content.len() >= self.content_length
    }

    /// Who asks.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Whether it asks to go on as a WebSocket (RFC 6455 §4.2.1; RFC 9110 §7.8: not in HTTP/1.0).
    pub fn is_upgrade(&self) -> bool {
        self.is_1_1
            && self.method() == "GET"
            && self.lists("connection", "upgrade")
            && self.lists("upgrade", "websocket")
    }

    /// Whether `Accept` names an event stream; `*/*` does not.
    pub fn accepts_event_stream(&self) -> bool {
        self.members("accept").any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let is_named =
                parts.next().is_some_and(|it| it.eq_ignore_ascii_case("text/event-stream"));
            // A weight of 0 means "not this" (RFC 9110 §12.4.2).
            let is_no = |part: &str| {
                let weight =
                    part.split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case("q"));
                weight.is_some_and(|(_, value)| {
                    let value = value.trim();
                    value.starts_with('0') && value.bytes().all(|byte| matches!(byte, b'0' | b'.'))
                })
            };
            is_named && !parts.any(is_no)
        })
    }

    /// Whether the request is HTTP/1.1 and not 1.0.
    pub(crate) fn is_1_1(&self) -> bool {
        self.is_1_1
    }

    /// The values of all fields of this name, text or not.
    pub fn raw_fields(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.values(name).map(|value| self.head.bytes(value))
    }

    /// The values of all fields of this name; those that are no text are `None`.
    pub(crate) fn texts(&self, name: &str) -> impl Iterator<Item = Option<&str>> {
        self.values(name).map(|value| self.head.text(value))
    }

    fn values(&self, name: &str) -> impl Iterator<Item = Part> {
        let is_it = |field: Part| self.head.bytes(field).eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().filter(move |(field, _)| is_it(*field)).map(|(_, value)| *value)
    }

    /// Whether a comma-separated field (all its lines together) has this member, ignoring case.
    pub(crate) fn lists(&self, name: &str, member: &str) -> bool {
        self.members(name).any(|it| it.eq_ignore_ascii_case(member))
    }

    /// The members of a comma-separated field, all its lines joined (RFC 9110 §5.3).
    pub(crate) fn members(&self, name: &str) -> impl Iterator<Item = &str> {
        self.fields(name)
            .flat_map(|value| value.split(','))
            .map(str::trim_ascii)
            .filter(|it| !it.is_empty())
    }

    /// Whether the connection ends with the answer.
    pub(crate) fn wants_close(&self) -> bool {
        !self.is_1_1 || self.lists("connection", "close")
    }

    /// Finds path and query in the target.
    fn split_target(&mut self) {
        let target = self.target;
        let before = self.target().bytes().position(|byte| byte == b'?').map(u32::try_from);
        (self.path, self.query) = match before {
            Some(Ok(length)) => {
                let end = target.start + length;
                (Part { end, ..target }, Part { start: end + 1, ..target })
            }
            _ => (target, Part { start: target.end, ..target }),
        };
    }

    fn part(&self, part: Part) -> &str {
        // Method and target are ASCII, whatever else the head is.
        self.head.text(part).unwrap_or_default()
    }
}
