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
//! Pure: nothing is carried out here, and only the request and the [`Rules`] decide. Whether what
//! asks for a WebSocket is an opening handshake is seen later, in `handshake.rs`.

use std::borrow::Cow;
use std::time::Duration;

use crate::config::Publish;
use crate::handshake::offers_v1;
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
