//! What a client may do, as a handler is asked and as it answers.
//!
//! The server itself knows no names, passwords or tokens. It asks the handler before anything is
//! read or published, and tells the client in the handler's words. These are fixed texts: nothing
//! of a request can get into a refusal.

use crate::http::Refusal;
use crate::id::Grant;
use crate::metrics::Reason;

/// What a client wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access<'a> {
    /// Read these topics. None: a WebSocket of pousse.v1 that has not subscribed yet.
    Read(&'a [String]),
    /// Publish to this topic.
    Publish(&'a str),
    /// Do what the control listener offers, from another machine.
    Operate,
}

/// Whether it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// Yes, and whatever else is asked for on this connection: `authorize_again` is not called.
    AllowAll,
    /// Yes, this.
    Allow,
    /// Yes, and from here on the connection, or this one request, goes by that name.
    Grant(Grant),
    /// No.
    Refuse(Denial),
}

/// Why not: a status, and a detail that says what to change.
///
/// ```
/// use pousse::Denial;
/// const WHO: &[(&str, &str)] = &[("WWW-Authenticate", "Basic realm=\"the kitchen\"")];
/// const DENIED: Denial = Denial::unauthorized("name yourself to read here", WHO);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    status: u16,
    detail: &'static str,
    fields: &'static [(&'static str, &'static str)],
}

impl Denial {
    /// 401: who asks is not known. `fields` has the `WWW-Authenticate` that the status demands
    /// (RFC 9110 §15.5.2).
    pub const fn unauthorized(
        detail: &'static str,
        fields: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self { status: 401, detail, fields }
    }

    /// 403: it is known and may not, or knowing it would change nothing.
    pub const fn forbidden(detail: &'static str) -> Self {
        Self { status: 403, detail, fields: &[] }
    }

    /// 400: what it says of itself cannot be understood, or contradicts itself.
    pub const fn malformed(
        detail: &'static str,
        fields: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self { status: 400, detail, fields }
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        Refusal::new(denial.status, Reason::Authority, denial.detail).with(denial.fields)
    }
}

impl Denial {
    /// As a command of pousse.v1 is told, where there is no 401: the WebSocket is open already.
    pub(crate) fn of_command(self) -> Refusal {
        Refusal::new(403, Reason::Authority, self.detail)
    }
}
