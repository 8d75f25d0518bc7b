//! The control listener: from a request to what its owner wants done (`docs/control.md`).
//!
//! ```text
//!  /metrics           GET           for Prometheus
//!  /healthz /readyz   GET           whether the loop goes round; whether clients are taken
//!  /api/messages      GET POST      as everywhere, and publishing is always allowed
//!  /api/topics        GET           in pages         /api/topics/T     GET DELETE
//!  /api/clients       GET           in pages         /api/clients/ID   GET DELETE POST
//! ```
//!
//! Whoever reaches this listener may do everything, so no page may: any `Origin` is refused, any
//! `Sec-Fetch-Site` of another page's (W3C Fetch Metadata §2.3: a picture's address has no
//! `Origin`), and over TCP any `Host` that is no name of this machine. There are no files here and
//! no CORS.
//!
//! Pure: nothing is carried out here (`operate.rs` does), only the request and the rules decide.

use std::borrow::Cow;

use crate::http::{Peer, Refusal, Request};
use crate::id::ConnId;
use crate::metrics::Reason;
use crate::percent;
use crate::response::Response;
use crate::routes::{self, Answer, MESSAGES, number, wrong};
use crate::rules::{self, Rules};

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Action {
    /// What could be asked of any listener, or needs nothing else to be answered.
    Answer(Answer),
    Metrics,
    Ready,
    Topics(Page),
    Topic(String),
    DropTopic(String),
    Clients(Page),
    Client(ConnId),
    CloseClient(ConnId),
    SendTo(ConnId),
}

/// Which part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// The first slot to be looked at.
    pub(crate) from: usize,
    /// Most members wanted.
    pub(crate) limit: usize,
}

/// The most members in one page, and as many as there are without `limit`.
const PAGE_MAX: usize = 1000;

/// What a path names.
enum Place<'r> {
    Metrics,
    Health,
    Ready,
    Topics,
    Topic(Option<Cow<'r, str>>),
    Clients,
    Client(Option<ConnId>),
    /// `*`: the server as such.
    Server,
}

impl<'r> Place<'r> {
    fn of(path: &'r str) -> Option<Self> {
        Some(match path {
            "/metrics" => Place::Metrics,
            "/healthz" => Place::Health,
            "/readyz" => Place::Ready,
            "/api/topics" => Place::Topics,
            "/api/clients" => Place::Clients,
            "*" => Place::Server,
            _ => match (path.strip_prefix("/api/topics/"), path.strip_prefix("/api/clients/")) {
                (Some(name), _) if !name.is_empty() => Place::Topic(percent::decode(name, false)),
                (_, Some(id)) if !id.is_empty() => Place::Client(client(id)),
                _ => return None,
            },
        })
    }

    /// What is said to those who ask by another method.
    fn allow(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Place::Topic(_) => &[("Allow", "GET, HEAD, DELETE, OPTIONS")],
            Place::Client(_) => &[("Allow", "GET, HEAD, POST, DELETE, OPTIONS")],
            Place::Server => &[("Allow", "GET, HEAD, POST, DELETE, OPTIONS")],
            _ => &[("Allow", "GET, HEAD, OPTIONS")],
        }
    }
}

/// What to do with a request, of which the head is enough to decide.
///
/// # Errors
/// [`Refusal`], with a detail that says what to change.
pub(crate) fn route(request: &Request, rules: &Rules) -> Result<Action, Refusal> {
    admit(request, rules)?;
    if request.path() == MESSAGES {
        return routes::route(request, rules).map(Action::Answer);
    }
    routes::check_method(request)?;
    let place = Place::of(request.path()).ok_or_else(|| not_found("there is nothing here"))?;
    let method = match request.method() {
        "HEAD" => "GET",
        method => method,
    };
    Ok(match (&place, method) {
        (_, "OPTIONS") => {
            let allow = place.allow().iter();
            let response = Response::new(204);
            let response = allow.fold(response, |it, (name, value)| it.with(name, *value));
            Action::Answer(response.into())
        }
        (Place::Metrics, "GET") => Action::Metrics,
        (Place::Health, "GET") => Action::Answer(fresh(Response::text(200, "ok\n")).into()),
        (Place::Ready, "GET") => Action::Ready,
        (Place::Topics, "GET") => Action::Topics(page(request, |after| {
            number(after).map(|after| usize::try_from(after).unwrap_or(usize::MAX))
        })?),
        (Place::Clients, "GET") => {
            Action::Clients(page(request, |id| client(id).map(|id| id.index() as usize))?)
        }
        (Place::Topic(None), "GET" | "DELETE") => {
            return Err(wrong("the name of the topic has to be percent-encoded UTF-8"));
        }
        (Place::Topic(Some(name)), "GET") => Action::Topic(name.clone().into_owned()),
        (Place::Topic(Some(name)), "DELETE") => Action::DropTopic(name.clone().into_owned()),
        (Place::Client(None), "GET" | "DELETE" | "POST") => return Err(no_client()),
        (Place::Client(Some(id)), "GET") => Action::Client(*id),
        (Place::Client(Some(id)), "DELETE") => Action::CloseClient(*id),
        (Place::Client(Some(id)), "POST") => Action::SendTo(*id),
        _ => return Err(routes::not_allowed(place.allow())),
    })
}

/// What is said of a topic that does not exist.
pub(crate) fn no_topic() -> Refusal {
    not_found("there is no topic of this name; GET /api/topics has those that there are")
}

/// What is said of a client that is not here.
pub(crate) fn no_client() -> Refusal {
    not_found("there is no client of this id; GET /api/clients has those that there are")
}

/// What is said of a client who reads no WebSocket, and so can be sent nothing.
pub(crate) fn no_websocket() -> Refusal {
    not_found("this client has no open WebSocket; only such a one can be sent to")
}

/// An answer that nobody is to keep.
pub(crate) fn fresh(response: Response) -> Response {
    response.with("Cache-Control", "no-store")
}

fn not_found(detail: &'static str) -> Refusal {
    Refusal::new(404, Reason::Control, detail)
}

/// Whether the owner may be asking. Where there are tokens, this is where one is asked for.
fn admit(request: &Request, rules: &Rules) -> Result<(), Refusal> {
    if matches!(request.peer(), Peer::Tcp(_)) {
        rules::check_host(request, rules)?;
    }
    // `none`: its owner has typed the address himself.
    let is_by_hand = |site: Option<&str>| matches!(site, Some("none" | "same-origin"));
    let is_of_page = !request.texts("sec-fetch-site").all(is_by_hand);
    if is_of_page || request.raw_fields("origin").next().is_some() {
        let detail = "no page may ask here; leave out Origin and Sec-Fetch-Site if you are none";
        return Err(Refusal::new(403, Reason::Origin, detail));
    }
    request.refusal.clone().map_or(Ok(()), Err)
}

/// `INDEX-GENERATION`.
fn client(text: &str) -> Option<ConnId> {
    let number = |text: &str| number(text).and_then(|number| u32::try_from(number).ok());
    let (index, generation) = text.split_once('-')?;
    Some(ConnId::new(number(index)?, number(generation)?))
}

/// Which page the query asks for; `slot` finds the place of its `after`.
fn page(request: &Request, slot: impl Fn(&str) -> Option<usize>) -> Result<Page, Refusal> {
    let mut page = Page { from: 0, limit: PAGE_MAX };
    for pair in request.query() {
        let (name, value) =
            pair.ok_or_else(|| wrong("the query has to be percent-encoded UTF-8"))?;
        match &*name {
            "after" => {
                let after = slot(&value);
                let after = after.ok_or_else(|| wrong("after has to be the next of a page"))?;
                page.from = after.saturating_add(1);
            }
            "limit" => {
                let limit = number(&value).filter(|limit| *limit > 0);
                let limit = limit.ok_or_else(|| wrong("limit has to be a number from 1 on"))?;
                page.limit = usize::try_from(limit).unwrap_or(PAGE_MAX).min(PAGE_MAX);
            }
            _ => {}
        }
    }
    Ok(page)
}
