//! HTTP/1.1 requests: the head (RFC 9112 §2–§6, RFC 9110 §5).
//!
//! Pure functions over bytes. httparse finds the parts of a head; what it lets pass and RFC 9112
//! does not is refused here: bare line feeds, two `Host` or `Content-Length`, a length beside a
//! transfer coding. A head is looked for as its bytes arrive and parsed once, when it is whole.
//! Contents are not read here, and which answer a request gets is `routes.rs`' business.

use std::borrow::Cow;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::{fmt, ops};

use crate::config::is_token_byte;
use crate::limits::{FIELDS_MAX, Limits};
use crate::message::Message;
use crate::metrics::Reason;
use crate::origin;
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
        // Method and target are checked to be ASCII when the head is parsed.
        self.head.text(part).unwrap_or_default()
    }
}

/// Parses a whole head, blank lines before it taken away.
///
/// # Errors
/// What cannot be trusted to end where it says is refused; the connection has to end then. A
/// request whose end is known but whose content will not be taken comes back with a `refusal`.
pub(crate) fn parse_head(head: &[u8], limits: &Limits, peer: Peer) -> Result<Request, Refusal> {
    parse(head, limits, peer).map_err(|refusal| refusal.of_head(head))
}

fn parse(head: &[u8], limits: &Limits, peer: Peer) -> Result<Request, Refusal> {
    let mut storage = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let storage = storage.get_mut(..limits.headers).unwrap_or_default();
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(head, storage) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(bad("the request head is not whole")),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::new(
                431,
                Reason::Headers,
                "the request has too many header fields; send fewer",
            ));
        }
        Err(httparse::Error::Version) => {
            return Err(bad("the request line has to end in HTTP/1.1 or HTTP/1.0"));
        }
        Err(_) => return Err(bad("the request head is not that of RFC 9112")),
    }
    let target = parsed.path.unwrap_or_default();
    if target.len() > limits.target_bytes {
        return Err(too_long_target());
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(bad("the request target has a character that has to be percent-encoded"));
    }
    let mut request = Request {
        method: Part::of(parsed.method.unwrap_or_default().as_bytes(), head),
        target: Part::of(target.as_bytes(), head),
        path: Part::default(),
        query: Part::default(),
        fields: parsed
            .headers
            .iter()
            .map(|field| (Part::of(field.name.as_bytes(), head), Part::of(field.value, head)))
            .collect(),
        is_1_1: parsed.version == Some(1),
        content_length: 0,
        content: Vec::new(),
        refusal: None,
        head: Head::new(head),
        peer,
    };
    if !request.method().bytes().all(is_token_byte) {
        return Err(bad("the request method is not a token"));
    }
    check_target(&mut request)?;
    request.split_target();
    check_framing(&mut request, limits)?;
    Ok(request)
}

pub(crate) fn too_long_target() -> Refusal {
    Refusal::new(414, Reason::TargetBytes, "the request target is too long; send a shorter one")
}

/// One `Host`, and a target in one of the forms of RFC 9112 §3.2.
fn check_target(request: &mut Request) -> Result<(), Refusal> {
    let (host, second) = {
        let mut hosts = request.texts("host");
        (hosts.next(), hosts.next())
    };
    if second.is_some() || (host.is_none() && request.is_1_1) {
        return Err(bad("a request has to have exactly one Host field"));
    }
    let is_host = |host: &str| host.bytes().all(is_host_byte) && origin::is_authority(host);
    if host.is_some_and(|host| !host.is_some_and(is_host)) {
        return Err(bad("the Host field has to name a host, and a port where it is not the usual"));
    }
    let host = host.flatten();
    let target = request.target();
    if target.starts_with('/') || (target == "*" && request.method() == "OPTIONS") {
        return Ok(());
    }
    let rest = ["http://", "https://"].iter().find_map(|scheme| {
        let (head, rest) = target.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    let Some(rest) = rest else {
        return Err(bad("the request target has to begin with a slash"));
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if host.is_some_and(|host| !authority.eq_ignore_ascii_case(host)) {
        return Err(bad("the request target names another host than the Host field"));
    }
    let start = request.target.range().end - rest.len() + authority.len();
    request.target.start = u32::try_from(start).unwrap_or(u32::MAX);
    Ok(())
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_graphic()
        && !matches!(
            byte,
            b'/' | b'?'
                | b'#'
                | b'@'
                | b'\\'
                | b','
                | b'<'
                | b'>'
                | b'"'
                | b'{'
                | b'}'
                | b'|'
                | b'^'
                | b'`'
        )
}

/// Where the content ends (RFC 9112 §6): by `Content-Length` or not at all.
fn check_framing(request: &mut Request, limits: &Limits) -> Result<(), Refusal> {
    let lengths = request.raw_fields("content-length").count();
    let has_coding = request.raw_fields("transfer-encoding").next().is_some();
    if has_coding && (lengths > 0 || !request.is_1_1) {
        return Err(bad("Transfer-Encoding cannot stand beside Content-Length or in HTTP/1.0"));
    }
    if has_coding {
        let is_chunked = request.members("transfer-encoding").eq_by_case("chunked");
        return Err(match is_chunked {
            true => Refusal::new(
                411,
                Reason::Request,
                "chunked content is not taken; send it with Content-Length",
            ),
            false => Refusal::new(
                501,
                Reason::Request,
                "this transfer coding is not known; send the content with Content-Length",
            ),
        });
    }
    if lengths > 1 {
        return Err(bad("there is more than one Content-Length"));
    }
    let Some(length) = request.raw_fields("content-length").next() else {
        return Ok(());
    };
    if length.is_empty() || !length.iter().all(u8::is_ascii_digit) {
        return Err(bad("Content-Length has to be a decimal number"));
    }
    let length = str::from_utf8(length).ok().and_then(|digits| digits.parse::<u64>().ok());
    match length.and_then(|length| usize::try_from(length).ok()) {
        Some(length) if length <= limits.max_message => request.content_length = length,
        _ => {
            let detail = format!("the content is over {} bytes; send less", limits.max_message);
            request.refusal = Some(Refusal::new(413, Reason::MaxMessage, detail));
        }
    }
    Ok(())
}

/// Whether an iterator has one item and that is `word`, ignoring case.
trait EqByCase {
    fn eq_by_case(self, word: &str) -> bool;
}

impl<'a, I: Iterator<Item = &'a str>> EqByCase for I {
    fn eq_by_case(mut self, word: &str) -> bool {
        self.next().is_some_and(|it| it.eq_ignore_ascii_case(word)) && self.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Result<Request, u16> {
        parse_head(head.as_bytes(), &Limits::default(), Peer::Unix)
            .map_err(|refusal| refusal.status)
    }

    fn status(head: &str) -> u16 {
        parse(head)
            .map_or_else(|status| status, |request| request.refusal.map_or(0, |it| it.status))
    }

    #[test]
    fn what_two_servers_could_read_differently_is_refused() {
        for (head, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0),
            ("GET / HTTP/1.0\r\n\r\n", 0),
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400),
            ("GET nowhere HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 0),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n", 0),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65537\r\n\r\n", 413),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 413),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n", 411),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 501),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: a\r\n\r\n",
                400,
            ),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ] {
            assert_eq!(status(head), expected, "{head:?}");
        }
    }

    #[test]
    fn an_absolute_target_is_read_as_its_path_if_its_host_is_the_host_field() {
        let request = parse("GET http://A:80/x?y HTTP/1.1\r\nHost: a:80\r\n\r\n").unwrap();
        assert_eq!((request.target(), request.path()), ("/x?y", "/x"));
        assert_eq!(status("GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
        let request = parse("GET http://a?y HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert_eq!((request.target(), request.path()), ("?y", "/"));
        assert_eq!(status("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    }

    #[test]
    fn limits_on_fields_and_target_have_their_own_status() {
        let fields: String = (0..63).map(|n| format!("X-{n}: 1\r\n")).collect();
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")), 0);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: a\r\nY: 1\r\n{fields}\r\n")), 431);
        let target = "a".repeat(4095);
        assert_eq!(status(&format!("GET /{target} HTTP/1.1\r\nHost: a\r\n\r\n")), 0);
        assert_eq!(status(&format!("GET /{target}a HTTP/1.1\r\nHost: a\r\n\r\n")), 414);
    }

    #[test]
    fn fields_are_joined_over_lines_and_ignore_case() {
        let request = parse(
            "GET /?a=1&b=%C3%A9+x&c HTTP/1.1\r\nhOST: a\r\nConnection: keep-alive\r\n\
             connection: Foo , UPGRADE\r\n\r\n",
        )
        .unwrap();
        assert!(request.lists("Connection", "upgrade") && !request.wants_close());
        let query: Vec<_> = request.query().map(Option::unwrap).collect();
        assert_eq!(query.len(), 3);
        assert_eq!(query[1], ("b".into(), "é x".into()));
        assert_eq!(query[2], ("c".into(), "".into()));
    }
}
