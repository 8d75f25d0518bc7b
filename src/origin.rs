//! Who may ask: the `Origin` of a page (RFC 6454) and the `Host` by which it calls this server.
//!
//! Both checks stand between a server on this machine and a page from anywhere: a browser lets any
//! page open a WebSocket to any host, and a name that an attacker owns may point to 127.0.0.1.
//! Pure functions over text; what follows from the answer is `rules.rs`' business.

use std::net::{IpAddr, Ipv6Addr};

use crate::network::is_loopback;

/// A host and a port as they stand in `Host` or behind the scheme of an origin.
#[derive(Clone, Copy, Debug)]
struct Authority<'a> {
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let after_host = match text.starts_with('[') {
            true => text.find(']')? + 1,
            false => text.bytes().position(|byte| byte == b':').unwrap_or(text.len()),
        };
        let (host, rest) = text.split_at_checked(after_host)?;
        let port = match rest.strip_prefix(':') {
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            None if rest.is_empty() => None,
            _ => return None,
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        is_host(host).then_some(Self { host, port })
    }

    fn is_loopback(&self) -> bool {
        let before = self.host.len().checked_sub("localhost".len());
        let is_name =
            before.and_then(|at| self.host.split_at_checked(at)).is_some_and(|(labels, name)| {
                name.eq_ignore_ascii_case("localhost")
                    && (labels.is_empty() || labels.ends_with('.'))
            });
        let address = self.host.trim_start_matches('[').trim_end_matches(']');
        is_name || address.parse::<IpAddr>().is_ok_and(is_loopback)
    }
}

/// Whether it is an address of IPv6 in brackets, or labels of which none is empty. A comma may
/// stand in a name by RFC 3986 §3.2.2, and parts two hosts by RFC 9110 §5.6.1: here it may not.
fn is_host(text: &str) -> bool {
    let is_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-_~!$&'()*+;=%".contains(&byte);
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => text.split('.').all(|label| !label.is_empty() && label.bytes().all(is_byte)),
    }
}

/// The origins that are listed, as browsers write them. The list may change while answers wait that
/// have to name one of them, so a number that was given stays what it was.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// Those that are or ever were listed.
    texts: Vec<String>,
    /// The numbers of those that are.
    listed: Vec<u16>,
}

impl Origins {
    /// Lists these and no others.
    pub(crate) fn list(&mut self, origins: &[String]) {
        self.listed.clear();
        for origin in origins.iter().map(|origin| canonical(origin)) {
            let known = self.texts.iter().position(|it| *it == origin);
            let at = known.unwrap_or(self.texts.len());
            // So many that the number does not fit are never listed in one life of a server.
            let Ok(number) = u16::try_from(at) else { continue };
            if known.is_none() {
                self.texts.push(origin);
            }
            self.listed.push(number);
        }
    }

    /// The number of the one that is the same as `origin`, if it is listed.
    pub(crate) fn find(&self, origin: &str) -> Option<u16> {
        let is_it = |at: &&u16| self.text(**at).is_some_and(|it| is_same(it, origin));
        self.listed.iter().find(is_it).copied()
    }

    /// The origin of this number, listed still or not.
    pub(crate) fn text(&self, number: u16) -> Option<&str> {
        self.texts.get(usize::from(number)).map(String::as_str)
    }
}

/// Whether it is a host, and a port where there is a colon (RFC 9110 §7.2).
pub(crate) fn is_authority(text: &str) -> bool {
    Authority::parse(text).is_some()
}

/// Whether two origins are the same: scheme, host and port, the usual port filled in. What pages
/// from files send, `null` or `file://`, is one origin.
pub(crate) fn is_same(a: &str, b: &str) -> bool {
    let is_file = |origin: &str| origin == "null" || origin.eq_ignore_ascii_case("file://");
    if is_file(a) || is_file(b) {
        return is_file(a) && is_file(b);
    }
    match (a.split_once("://"), b.split_once("://")) {
        (Some((a_scheme, a)), Some((b_scheme, b))) if a_scheme.eq_ignore_ascii_case(b_scheme) => {
            same_authority(a, b, usual_port(a_scheme), false)
        }
        _ => false,
    }
}

/// Whether a page of `origin` was served by this very host, going by what the request calls it.
///
/// The scheme is ignored and a port left out is the usual one of the origin's scheme, because a
/// proxy in front may speak TLS. On a loopback listener all loopback names are one host.
pub(crate) fn is_own(origin: &str, host: &str, on_loopback: bool) -> bool {
    origin
        .split_once("://")
        .is_some_and(|(scheme, it)| same_authority(it, host, usual_port(scheme), on_loopback))
}

/// The origin as a browser writes it (RFC 6454 §6.1): lower case, the usual port left out.
pub(crate) fn canonical(origin: &str) -> String {
    let origin = origin.to_ascii_lowercase();
    let Some((scheme, authority)) = origin.split_once("://") else { return origin };
    match Authority::parse(authority) {
        None if origin == "file://" => "null".to_owned(),
        None => origin,
        Some(it) if it.port.is_none() || it.port == usual_port(scheme) => {
            format!("{scheme}://{}", it.host)
        }
        Some(it) => format!("{scheme}://{}:{}", it.host, it.port.unwrap_or(0)),
    }
}

fn usual_port(scheme: &str) -> Option<u16> {
    match () {
        () if scheme.eq_ignore_ascii_case("http") => Some(80),
        () if scheme.eq_ignore_ascii_case("https") => Some(443),
        () => None,
    }
}

fn same_authority(a: &str, b: &str, usual_port: Option<u16>, on_loopback: bool) -> bool {
    let (Some(a), Some(b)) = (Authority::parse(a), Authority::parse(b)) else {
        return false;
    };
    a.port.or(usual_port) == b.port.or(usual_port)
        && (a.host.eq_ignore_ascii_case(b.host)
            || (on_loopback && a.is_loopback() && b.is_loopback()))
}

/// Whether `host` is a name by which a loopback listener may be called.
pub(crate) fn is_known_host(host: &str, names: &[String]) -> bool {
    Authority::parse(host).is_some_and(|it| {
        let is_it = |name: &String| {
            let name = name.strip_suffix('.').unwrap_or(name);
            name.eq_ignore_ascii_case(it.host)
        };
        it.is_loopback() || names.iter().any(is_it)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_own_if_host_and_port_are_those_of_the_request() {
        for (origin, host, on_loopback, own) in [
            ("http://example.org", "example.org", false, true),
            ("https://example.org", "example.org", false, true),
            ("https://example.org", "example.org:443", false, true),
            ("http://example.org", "example.org:443", false, false),
            ("http://EXAMPLE.org.:80", "example.org", false, true),
            ("http://example.org:8080", "example.org", false, false),
            ("http://evil.org", "example.org", false, false),
            ("http://example.org.evil.org", "example.org", false, false),
            ("http://localhost:8080", "127.0.0.1:8080", true, true),
            ("http://localhost:8080", "127.0.0.1:8080", false, false),
            ("http://a.localhost:8080", "[::1]:8080", true, true),
            ("http://127.9.9.9:8080", "localhost:8080", true, true),
            ("http://localhost:8081", "127.0.0.1:8080", true, false),
            ("http://localhost.evil.org:8080", "127.0.0.1:8080", true, false),
            ("http://evil.org/.localhost:8080", "127.0.0.1:8080", true, false),
            ("http://evil.org?.localhost:8080", "127.0.0.1:8080", true, false),
            ("http://evil.org#.localhost:8080", "127.0.0.1:8080", true, false),
            ("http://evil.org\\.localhost:8080", "127.0.0.1:8080", true, false),
            ("http://a@localhost:8080", "127.0.0.1:8080", true, false),
            ("null", "127.0.0.1:8080", true, false),
            ("", "127.0.0.1:8080", true, false),
        ] {
            assert_eq!(is_own(origin, host, on_loopback), own, "{origin} {host} {on_loopback}");
        }
    }

    #[test]
    fn origins_are_compared_whole() {
        for (a, b, same) in [
            ("https://example.org", "HTTPS://Example.org:443", true),
            ("https://example.org", "http://example.org", false),
            ("https://example.org:8443", "https://example.org", false),
            ("null", "null", true),
            ("null", "file://", true),
            ("null", "https://example.org", false),
        ] {
            assert_eq!(is_same(a, b), same, "{a} {b}");
        }
    }

    /// Found by fuzzing: `a..` was listed as `a.`, and so was another one than it was.
    #[test]
    fn a_host_that_ends_in_2e_2e_is_none() {
        assert!(is_authority("a.") && !is_authority("a..") && !is_authority("."));
        assert!(!is_same("http://a..", "http://a.."));
    }

    #[test]
    fn a_listed_origin_is_told_as_browsers_write_it() {
        for (origin, canonical) in [
            ("https://Example.org:443", "https://example.org"),
            ("http://example.org:8080", "http://example.org:8080"),
            ("http://[::1]:80", "http://[::1]"),
            ("null", "null"),
            ("file://", "null"),
        ] {
            assert_eq!(super::canonical(origin), canonical);
        }
    }

    #[test]
    fn a_number_stays_with_its_origin_however_the_list_changes() {
        let mut origins = Origins::default();
        let list = |origins: &mut Origins, texts: &[&str]| {
            origins.list(&texts.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
        };
        list(&mut origins, &["https://a.example", "https://B.example:443"]);
        let b = origins.find("https://b.example").unwrap();
        list(&mut origins, &["https://c.example", "https://a.example"]);
        assert_eq!(origins.find("https://b.example"), None, "it is listed no more");
        assert_eq!(origins.text(b), Some("https://b.example"));
        let c = origins.find("https://c.example").unwrap();
        assert_eq!(origins.text(c), Some("https://c.example"));
        list(&mut origins, &["https://b.example"]);
        assert_eq!(origins.find("https://b.example"), Some(b));
    }

    #[test]
    fn a_loopback_listener_is_called_by_a_loopback_name_or_one_that_is_listed() {
        let names = ["push.example.org".to_owned()];
        for (host, known) in [
            ("localhost", true),
            ("LOCALHOST.:8080", true),
            ("app.localhost:1", true),
            ("127.0.0.1:8080", true),
            ("127.1.2.3", true),
            ("[::1]:8080", true),
            ("[::ffff:127.0.0.1]", true),
            ("Push.Example.org:9", true),
            ("push.example.org.", true),
            ("evil.org", false),
            ("127.0.0.1.evil.org", false),
            ("10.0.0.1", false),
            ("[::2]", false),
            ("localhost:port", false),
            ("[[::1]", false),
            ("[127.0.0.1]", false),
            ("[::1", false),
            ("::1", false),
            (".localhost", false),
            ("a..localhost", false),
            (":8080", false),
        ] {
            assert_eq!(is_known_host(host, &names), known, "{host}");
        }
    }
}
