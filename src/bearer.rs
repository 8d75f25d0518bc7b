//! Who a client is by its token (RFC 6750), and what `--publish` and `--subscribe` let it do.
//!
//! A token comes in `Authorization: Bearer TOKEN`; a page cannot send that with a WebSocket or an
//! `EventSource`, so for these two it may be `?token=TOKEN`. One that is sent is checked, whether
//! it is needed or not; so nobody learns only later that it was wrong. What another scheme says is
//! for somebody else, a proxy perhaps, unless a token is needed.
//!
//! What is answered is one of a few texts: no name, no token and nothing else of the request is in
//! them.

use std::borrow::Cow;

use pousse::{Access, ConnId, Decision, Denial, Grant, Request};

use crate::tokens::{Names, is_token};

/// See the head of this file.
pub(crate) struct Bearers {
    /// `--publish token`.
    pub(crate) publish: bool,
    /// `--subscribe token`.
    pub(crate) subscribe: bool,
    /// Nobody has a name where no file is given.
    pub(crate) names: Option<Names>,
}

/// The field of a 401, with what is wrong with the token that was sent (RFC 6750 §3).
macro_rules! challenge {
    () => {
        &[("WWW-Authenticate", "Bearer realm=\"pousse\"")]
    };
    ($error:literal, $why:literal) => {
        &[(
            "WWW-Authenticate",
            concat!(
                "Bearer realm=\"pousse\", error=\"",
                $error,
                "\", error_description=\"",
                $why,
                "\""
            ),
        )]
    };
}

const NO_TOKEN_TO_READ: Denial = Denial::unauthorized(
    "a token is needed to read here: send Authorization: Bearer TOKEN, or, for a WebSocket or an \
     event stream of a page, put it into the query of the URL as token",
    challenge!(),
);
const NO_TOKEN_TO_PUBLISH: Denial = Denial::unauthorized(
    "a token is needed to publish here: send Authorization: Bearer TOKEN",
    challenge!(),
);
const NO_TOKEN_TO_OPERATE: Denial = Denial::unauthorized(
    "a token is needed here from other machines: send Authorization: Bearer TOKEN",
    challenge!(),
);
const NOT_IN_THE_URL: Denial = Denial::unauthorized(
    "a token in the URL is taken for a WebSocket or an event stream only: send Authorization: \
     Bearer TOKEN",
    challenge!(),
);
const UNKNOWN: Denial = Denial::unauthorized(
    "the token is not known here, or no longer: send one that stands in the server's token file",
    challenge!("invalid_token", "the token is not known here, or no longer"),
);
const FOREIGN: Denial = Denial::unauthorized(
    "the scheme of Authorization has to be Bearer: send Authorization: Bearer TOKEN",
    challenge!("invalid_request", "the scheme of Authorization has to be Bearer"),
);
const MALFORMED: Denial = Denial::unauthorized(
    "the token is malformed: send Authorization: Bearer TOKEN, with one space and the token as it \
     stands in the token file",
    challenge!("invalid_request", "the token is malformed"),
);
const TWO_TOKENS: Denial = Denial::malformed(
    "there is more than one token: send one, in one Authorization field",
    challenge!("invalid_request", "there is more than one token"),
);

const OPENED_WITHOUT: &str = "publishing needs a token here: open the WebSocket with one";
const WITHDRAWN: &str =
    "the name that this WebSocket was opened with is no longer in the token file";

impl Bearers {
    /// Decides on a request.
    pub(crate) fn decide(&mut self, request: &Request, access: Access<'_>) -> Decision {
        let (is_needed, is_to_read) = match access {
            Access::Read(_) => (self.subscribe, true),
            Access::Publish(_) => (self.publish, false),
            _ => (true, false),
        };
        let Some(names) = &mut self.names else {
            return if is_needed { Decision::Refuse(NO_TOKEN_TO_PUBLISH) } else { Decision::Allow };
        };
        let may_be_in_url = is_to_read && (request.is_upgrade() || request.accepts_event_stream());
        let token = match token_of(request, may_be_in_url) {
            Ok(Some(token)) => token,
            Ok(None) | Err(FOREIGN) if !is_needed => return Decision::Allow,
            Ok(None) if !may_be_in_url && tokens_in_url(request).next().is_some() => {
                return Decision::Refuse(NOT_IN_THE_URL);
            }
            Ok(None) if is_to_read => return Decision::Refuse(NO_TOKEN_TO_READ),
            Ok(None) if access == Access::Operate => {
                return Decision::Refuse(NO_TOKEN_TO_OPERATE);
            }
            Ok(None) => return Decision::Refuse(NO_TOKEN_TO_PUBLISH),
            Err(denial) => return Decision::Refuse(denial),
        };
        let Some(grant) = names.find(&token) else { return Decision::Refuse(UNKNOWN) };
        count(names, grant, access, &format_args!("peer={}", request.peer()));
        Decision::Grant(grant)
    }

    /// Decides on what a WebSocket wants that is open.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn decide_again(
        &mut self,
        conn: ConnId,
        grant: Option<Grant>,
        access: Access<'_>,
    ) -> Result<(), &'static str> {
        match (grant, &mut self.names) {
            (Some(grant), Some(names)) if names.is_listed(grant) => {
                count(names, grant, access, &format_args!("client={conn}"));
                Ok(())
            }
            (Some(_), _) => Err(WITHDRAWN),
            // Without a name it could not have been opened if that were needed.
            (None, _) if self.publish && !matches!(access, Access::Read(_)) => Err(OPENED_WITHOUT),
            (None, _) => Ok(()),
        }
    }

    /// What log lines call it.
    pub(crate) fn name(&self, grant: Grant) -> Option<&str> {
        self.names.as_ref()?.name(grant)
    }
}

fn count(names: &mut Names, grant: Grant, access: Access<'_>, who: &std::fmt::Arguments<'_>) {
    match access {
        Access::Publish(topic) => {
            names.count_publish(grant);
            let name = names.name(grant).unwrap_or_default();
            log::debug!("event=may_publish {who} name={name} topic={topic:?}");
        }
        _ => names.count_subscribe(grant),
    }
}

/// The one token of a request.
fn token_of(request: &Request, may_be_in_url: bool) -> Result<Option<Cow<'_, str>>, Denial> {
    let mut fields = request.raw_fields("authorization");
    let in_field = match (fields.next(), fields.next()) {
        (None, _) => None,
        (Some(value), None) => Some(bearer(value)?.into()),
        _ => return Err(TWO_TOKENS),
    };
    let mut in_url = tokens_in_url(request).filter(|_| may_be_in_url);
    match (in_field, in_url.next(), in_url.next()) {
        (_, _, Some(_)) => Err(TWO_TOKENS),
        (Some(field), Some(url), _) if field != url => Err(TWO_TOKENS),
        (None, Some(token), _) if !is_token(&token) => Err(MALFORMED),
        (in_field, in_url, _) => Ok(in_field.or(in_url)),
    }
}

/// The token behind `Bearer`, whose case does not matter (RFC 9110 §11.1).
fn bearer(value: &[u8]) -> Result<&str, Denial> {
    let (scheme, rest) = value.split_at_checked("bearer".len()).unwrap_or((value, b""));
    if !scheme.eq_ignore_ascii_case(b"bearer") || rest.first().is_some_and(|it| *it != b' ') {
        return Err(FOREIGN);
    }
    let token = rest.strip_prefix(b" ").and_then(|token| str::from_utf8(token).ok());
    token.filter(|token| is_token(token)).ok_or(MALFORMED)
}

fn tokens_in_url(request: &Request) -> impl Iterator<Item = Cow<'_, str>> {
    request.query().flatten().filter(|(name, _)| name == "token").map(|(_, value)| value)
}
