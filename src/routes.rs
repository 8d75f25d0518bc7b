//! From a request to what is to be done with it: an [`Answer`], or a [`Refusal`].
//!
//! ```text
//!  /api/messages  GET        poll; with `wait` a long poll; with `Accept: text/event-stream` an
//!                            event stream; with `Upgrade` a WebSocket
//!                 POST       publish
//!  /websocket     GET        a WebSocket, or 426
//!  anything else  GET        a file
//! ```
//!
//! Pure: nothing is carried out here, and only the request and the [`Rules`] decide.

use std::borrow::Cow;
use std::time::Duration;

use data_encoding::BASE64;
use tungstenite::handshake::derive_accept_key;

use crate::config::{PROTOCOL_V1, Publish};
use crate::exchange::Upgrade;
use crate::extensions;
use crate::http::{Refusal, Request};
use crate::id::{After, EntryId};
use crate::metrics::Reason;
use crate::origin;
use crate::response::Response;
use crate::rules::{Rules, check_host, check_origin};
use crate::topic::{TOPIC_DEFAULT, is_topic_name};

/// What is to be done with a request. A handler's `on_request` may return one of these.
#[derive(Debug)]
#[non_exhaustive]
pub enum Answer {
    /// This is the answer.
    Response(Response),
    /// Open a WebSocket that reads these topics, if the request is an opening handshake.
    Upgrade(Reads),
    /// Give what comes after the place, at once or when there is something.
    Poll(Poll),
    /// Give what comes after the place, for ever: each message as JSON, or as its bare text.
    EventStream {
        /// Which topics, from where.
        reads: Reads,
        /// Bare text.
        is_text: bool,
    },
    /// Append the content to this topic.
    Publish(String),
    /// Send the file of the request's path.
    File,
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Answer::Response(response)
    }
}

/// Topics, and the place in them from which to read. Its default reads nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// No two the same.
    pub topics: Vec<String>,
    /// `None`: what is usual for the transport.
    pub after: Option<After>,
}

/// What a poll or long poll asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poll {
    /// Which topics, from where.
    pub reads: Reads,
    /// Most messages wanted.
    pub limit: usize,
    /// How long the answer may be held back, at most `wait_max` of it; `None`: not at all, it is a
    /// poll.
    pub wait: Option<Duration>,
    /// Whether the wait was asked for by `Prefer`.
    pub is_preference: bool,
}

/// The one resource of messages.
pub(crate) const MESSAGES: &str = "/api/messages";
const WEBSOCKET: &str = "/websocket";

/// `limit` where none is given, and the most that can be asked for.
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;

/// What can be said of a request by its head alone, before its content is read.
///
/// # Errors
/// [`Refusal`]; the content is not to be read then.
pub(crate) fn admit(request: &Request, rules: &Rules, on_loopback: bool) -> Result<(), Refusal> {
    if on_loopback {
        check_host(request, rules)?;
    }
    if let Some(refusal) = &request.refusal {
        return Err(refusal.clone());
    }
    if is_publish(request) {
        check_origin(request, rules, on_loopback)?;
        if rules.publish == Publish::Nobody {
            return Err(publishing_not_allowed());
        }
    }
    Ok(())
}

/// Whether its content is to be published, unless a handler answers it.
fn is_publish(request: &Request) -> bool {
    request.path() == MESSAGES && request.method() == "POST"
}

/// Where it wants to publish, if that is what it wants and its query is in order.
pub(crate) fn published_topic<'r>(request: &'r Request, rules: &Rules) -> Option<Cow<'r, str>> {
    is_publish(request).then(|| topic_to_publish(request, rules).ok()).flatten()
}

/// What is said to those who may not publish.
pub(crate) fn publishing_not_allowed() -> Refusal {
    let detail = "publishing is not allowed here; the server's --publish decides";
    Refusal::new(403, Reason::Publish, detail)
}

/// A method that nobody knows is told apart from one that is not for this path.
pub(crate) fn check_method(request: &Request) -> Result<(), Refusal> {
    match request.method() {
        "GET" | "HEAD" | "POST" | "OPTIONS" | "PUT" | "PATCH" | "DELETE" | "TRACE" | "CONNECT" => {
            Ok(())
        }
        _ => Err(Refusal::new(501, Reason::Request, "this method is not known")),
    }
}

/// What to do with a whole request that was admitted.
///
/// # Errors
/// [`Refusal`], with a detail that says what to change.
pub(crate) fn route(request: &Request, rules: &Rules) -> Result<Answer, Refusal> {
    check_method(request)?;
    match (request.path(), request.method()) {
        (MESSAGES | WEBSOCKET, "GET") if request.is_upgrade() => {
            let query = Query::parse(request, rules.subscriptions)?;
            // Over pousse.v1 topics come by command as well: none in the URL means none.
            Ok(Answer::Upgrade(match offers_v1(request) {
                true => query.named(),
                false => query.reads(),
            }))
        }
        (MESSAGES, "GET" | "HEAD") if request.accepts_event_stream() => {
            let query = Query::parse(request, rules.subscriptions)?;
            Ok(Answer::EventStream { is_text: query.is_text, reads: query.reads() })
        }
        (MESSAGES, "GET" | "HEAD") => {
            Ok(Answer::Poll(Query::parse(request, rules.subscriptions)?.poll(request)))
        }
        (MESSAGES, "POST") => {
            topic_to_publish(request, rules).map(|topic| Answer::Publish(topic.into_owned()))
        }
        (MESSAGES, "OPTIONS") => Ok(options("GET, HEAD, POST, OPTIONS", request, rules)),
        (MESSAGES, _) => Err(not_allowed(&[("Allow", "GET, HEAD, POST, OPTIONS")])),
        (WEBSOCKET, "GET" | "HEAD") => Err(Refusal::new(
            426,
            Reason::Request,
            "this is a WebSocket; ask with Connection: Upgrade and Upgrade: websocket",
        )
        .with(&[("Upgrade", "websocket"), ("Connection", "Upgrade")])),
        (_, "OPTIONS") => Ok(options("GET, HEAD, OPTIONS", request, rules)),
        (WEBSOCKET, _) => Err(not_allowed(&[("Allow", "GET, HEAD, OPTIONS")])),
        (_, "GET" | "HEAD") => Ok(Answer::File),
        _ => Err(not_allowed(&[("Allow", "GET, HEAD, OPTIONS")])),
    }
}

/// Checks an opening handshake (RFC 6455 §4.2.1) and prepares its answer.
///
/// # Errors
/// [`Refusal`]: 400, 403 for a foreign origin, 426 for another version.
pub fn handshake(request: &Request, rules: &Rules, on_loopback: bool) -> Result<Upgrade, Refusal> {
    check_origin(request, rules, on_loopback)?;
    let bad = |detail: &'static str| Err(Refusal::new(400, Reason::Request, detail));
    if !request.is_upgrade() {
        return bad("a WebSocket is opened by GET with Connection: Upgrade, Upgrade: websocket");
    }
    if request.content_length > 0 {
        return bad("an opening handshake has no content");
    }
    let mut versions = request.raw_fields("sec-websocket-version");
    match (versions.next(), versions.next()) {
        (Some(b"13"), None) => {}
        (Some(_), None) => {
            let detail = "this version is not spoken; ask with Sec-WebSocket-Version: 13";
            return Err(Refusal::new(426, Reason::Request, detail)
                .with(&[("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")]));
        }
        _ => return bad("an opening handshake has one Sec-WebSocket-Version, which is 13"),
    }
    let mut keys = request.raw_fields("sec-websocket-key");
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return bad("an opening handshake has one Sec-WebSocket-Key");
    };
    if !is_nonce(key) {
        return bad("Sec-WebSocket-Key has to be 16 bytes in base64");
    }
    let mut offered = request.members("sec-websocket-protocol").peekable();
    let offers_some = offered.peek().is_some();
    let is_spoken = |name: &&str| rules.subprotocols.iter().any(|it| it == name);
    let chosen = PROTOCOL_V1.filter(|_| offers_v1(request)).or_else(|| offered.find(is_spoken));
    if offers_some && chosen.is_none() {
        return bad("none of the subprotocols offered is spoken here; offer none, or another");
    }
    let extensions = request.raw_fields("sec-websocket-extensions");
    let Ok(agreed) = extensions::negotiate(extensions) else {
        return bad("Sec-WebSocket-Extensions has to be a list of extensions (RFC 6455 §9.1)");
    };
    Ok(Upgrade {
        accept: derive_accept_key(key),
        subprotocol: chosen.map(str::to_owned),
        deflate: agreed.filter(|_| rules.deflate),
    })
}

/// Whether these are 16 bytes in base64. Decoding also takes what is padded in its middle.
fn is_nonce(key: &[u8]) -> bool {
    key.strip_suffix(b"==").is_some_and(|digits| digits.len() == 22 && !digits.contains(&b'='))
        && BASE64.decode_mut(key, &mut [0; 18]).is_ok()
}

fn offers_v1(request: &Request) -> bool {
    let mut offered = request.members("sec-websocket-protocol");
    PROTOCOL_V1.is_some_and(|v1| offered.any(|name| name == v1))
}

/// Whether the tag of a representation is among those the client has (RFC 9110 §13.1.2).
pub(crate) fn has_tag(request: &Request, tag: &str) -> bool {
    let tag = strong(tag);
    request.members("if-none-match").any(|it| it == "*" || strong(it) == tag)
}

/// The tag without the mark of a weak one.
fn strong(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// Whether the request shows who asks: only then it can have been wrong.
pub(crate) fn has_credential(request: &Request) -> bool {
    request.raw_fields("authorization").next().is_some() || request.asks("token")
}

pub(crate) fn not_allowed(allow: &'static [(&'static str, &'static str)]) -> Refusal {
    Refusal::new(405, Reason::Request, "this method is not for this path; see Allow").with(allow)
}

fn options(allow: &'static str, request: &Request, rules: &Rules) -> Answer {
    let response = Response::new(204).with("Allow", allow);
    let is_listed =
        |origin: &str| rules.origins.iter().any(|listed| origin::is_same(listed, origin));
    Answer::Response(match request.field("origin").is_some_and(is_listed) {
        true => response
            .with("Access-Control-Allow-Methods", "GET, HEAD, POST")
            .with(
                "Access-Control-Allow-Headers",
                "Authorization, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, \
                 Prefer",
            )
            .with("Access-Control-Max-Age", "600"),
        false => response,
    })
}

fn topic_to_publish<'r>(request: &'r Request, rules: &Rules) -> Result<Cow<'r, str>, Refusal> {
    let mut topics = Query::parse(request, rules.subscriptions)?.topics;
    match (topics.pop(), topics.is_empty()) {
        (None, _) => Ok(TOPIC_DEFAULT.into()),
        (Some(topic), true) => Ok(topic),
        _ => Err(wrong("a message is published to one topic; give one")),
    }
}

pub(crate) fn wrong(detail: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(400, Reason::Request, detail)
}

/// The query of `/api/messages` and `/websocket`.
#[derive(Debug, Default)]
struct Query<'r> {
    topics: Vec<Cow<'r, str>>,
    after: Option<After>,
    wait: Option<u64>,
    limit: Option<usize>,
    is_text: bool,
}

impl<'r> Query<'r> {
    /// Names that are not known are passed over: they may be somebody else's.
    fn parse(request: &'r Request, subscriptions_max: usize) -> Result<Self, Refusal> {
        let mut query = Self::default();
        for pair in request.query() {
            let (name, value) =
                pair.ok_or_else(|| wrong("the query has to be percent-encoded UTF-8"))?;
            match &*name {
                "topic" => query.add_topic(value, subscriptions_max)?,
                "after" => {
                    let after = value.parse();
                    query.after = Some(after.map_err(|_| {
                        wrong("after has to be an id that was given here, earliest or now")
                    })?);
                }
                "wait" => {
                    query.wait = Some(
                        number(&value)
                            .ok_or_else(|| wrong("wait has to be a number of whole seconds"))?,
                    );
                }
                "limit" => {
                    let limit = number(&value).ok_or_else(|| wrong("limit has to be a number"))?;
                    query.limit = Some(usize::try_from(limit).unwrap_or(LIMIT_MAX));
                }
                "format" => match &*value {
                    "json" => query.is_text = false,
                    "text" => query.is_text = true,
                    _ => return Err(wrong("format has to be json or text")),
                },
                _ => {}
            }
        }
        // An `EventSource` that reconnects repeats its old URL and says here where it is.
        if let Some(id) = request.raw_fields("last-event-id").next().filter(|id| !id.is_empty()) {
            let id = str::from_utf8(id).ok().and_then(|id| id.parse().ok());
            query.after = Some(After::Id(id.unwrap_or(EntryId::UNKNOWN)));
        }
        Ok(query)
    }

    fn add_topic(&mut self, name: Cow<'r, str>, subscriptions_max: usize) -> Result<(), Refusal> {
        if !is_topic_name(&name) {
            return Err(wrong("a topic is 1 to 128 bytes of UTF-8 without control characters"));
        }
        if self.topics.contains(&name) {
            return Ok(());
        }
        if self.topics.len() >= subscriptions_max {
            return Err(Refusal::new(
                400,
                Reason::Subscriptions,
                format!("at most {subscriptions_max} topics can be read at once"),
            ));
        }
        self.topics.push(name);
        Ok(())
    }

    /// The topics that are named.
    fn named(self) -> Reads {
        let topics = self.topics.into_iter().map(Cow::into_owned).collect();
        Reads { topics, after: self.after }
    }

    /// The topics that are named, or the one that is meant where none is.
    fn reads(mut self) -> Reads {
        if self.topics.is_empty() {
            self.topics.push(TOPIC_DEFAULT.into());
        }
        self.named()
    }

    fn poll(self, request: &Request) -> Poll {
        let preference = preferred_wait(request).filter(|_| self.wait.is_none());
        let wait = self.wait.or(preference);
        Poll {
            limit: self.limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX),
            wait: wait.map(Duration::from_secs),
            is_preference: preference.is_some(),
            reads: self.reads(),
        }
    }
}

/// A decimal number; one too large for 64 bits is the largest.
pub(crate) fn number(text: &str) -> Option<u64> {
    let is_decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_decimal.then(|| text.parse().unwrap_or(u64::MAX))
}

/// The `wait` of a `Prefer` field (RFC 7240 §4.3). A preference that is wrong is none.
fn preferred_wait(request: &Request) -> Option<u64> {
    let preferences = request.members("prefer").flat_map(|member| member.split(';').next());
    preferences
        .filter_map(|preference| preference.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))
        .and_then(|(_, value)| number(value.trim().trim_matches('"')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::http::Peer;
    use crate::limits::Limits;
    use crate::parse::parse_head;

    /// What comes of an opening handshake with this offer.
    fn agreed(offer: &str, config: &Config) -> Result<bool, u16> {
        let head = format!(
            "GET /websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Extensions: {offer}\r\n\r\n"
        );
        let request = parse_head(head.as_bytes(), &Limits::default(), Peer::Unix).unwrap();
        let rules = Rules::new(config, Publish::Anyone);
        let upgrade = handshake(&request, &rules, true).map_err(|refusal| refusal.status)?;
        let is_agreed = upgrade.window().is_some();
        let fields = upgrade.response().fields;
        let is_answered = fields.iter().any(|(name, _)| *name == "Sec-WebSocket-Extensions");
        assert_eq!(is_agreed, is_answered);
        Ok(is_agreed)
    }

    #[test]
    fn compression_is_agreed_on_where_the_build_and_the_settings_have_it() {
        let mut config = Config::default();
        let offer = "permessage-deflate; client_max_window_bits";
        assert_eq!(agreed(offer, &config), Ok(cfg!(feature = "deflate")));
        assert_eq!(agreed("permessage-deflate; a=b", &config), Ok(false));
        assert_eq!(agreed("permessage-deflate; a=", &config), Err(400));
        assert!(config.check().is_ok());
        config.deflate = false;
        assert_eq!(agreed(offer, &config), Ok(false));
        assert_eq!(agreed("permessage-deflate; a=", &config), Err(400));
        config.deflate = true;
        assert_eq!(agreed(offer, &config), Ok(cfg!(feature = "deflate")));
        assert_eq!(config.check().is_ok(), cfg!(feature = "deflate"), "and it is said");
    }
}
