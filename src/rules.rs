//! What, beside a request, decides over it: the settings that name origins, hosts and subprotocols,
//! and the two of them that are asked by a field alone, `Host` (RFC 9110 §7.2) and `Origin`
//! (RFC 6454 §7.3).
//!
//! Whether two names mean the same is `origin.rs`' business; at which requests to ask is
//! `routes.rs`', and who a client is is the handler's.

use crate::config::{Config, Publish};
use crate::http::{Refusal, Request};
use crate::metrics::Reason;
use crate::origin;

/// What, beside the request, decides.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Who may publish.
    pub publish: Publish,
    pub(crate) origins: Vec<String>,
    pub(crate) hosts: Vec<String>,
    pub(crate) subprotocols: Vec<String>,
    pub(crate) deflate: bool,
    pub(crate) subscriptions: usize,
}

impl Rules {
    /// The rules of a configuration whose `publish` has been resolved.
    pub fn new(config: &Config, publish: Publish) -> Self {
        Self {
            publish,
            origins: config.origins.clone(),
            hosts: config.hosts.clone(),
            subprotocols: config.subprotocols.clone(),
            deflate: config.deflate && cfg!(feature = "deflate"),
            subscriptions: config.limits.subscriptions,
        }
    }
}

/// Whether the server may be called by the name in `Host`.
pub(crate) fn check_host(request: &Request, rules: &Rules) -> Result<(), Refusal> {
    let Some(host) = request.texts("host").next() else { return Ok(()) };
    match host.is_some_and(|host| origin::is_known_host(host, &rules.hosts)) {
        true => Ok(()),
        false => Err(Refusal::new(
            421,
            Reason::Host,
            "this server is not known by the name in the Host field; add the name with --host",
        )),
    }
}

/// A page of another origin may not ask. Who sends no `Origin` is no page.
pub(crate) fn check_origin(
    request: &Request,
    rules: &Rules,
    on_loopback: bool,
) -> Result<(), Refusal> {
    let mut origins = request.texts("origin");
    let passes = match (origins.next(), origins.next()) {
        (None, _) => true,
        (Some(Some(origin)), None) => {
            let host = request.field("host").unwrap_or_default();
            origin::is_own(origin, host, on_loopback)
                || rules.origins.iter().any(|it| origin::is_same(it, origin))
        }
        _ => false,
    };
    if passes {
        return Ok(());
    }
    let is_file = request.field("origin").is_some_and(|it| origin::is_same(it, "null"));
    Err(Refusal::new(
        403,
        Reason::Origin,
        match is_file {
            true => "pages opened from files may not connect; allow them with --origin null",
            false => "pages of this origin may not connect; allow the origin with --origin",
        },
    ))
}
