//! Whom a reverse proxy speaks for: `X-Forwarded-For`, and `Forwarded` (RFC 7239).
//!
//! Only asked about requests that come from a trusted proxy. Each proxy on the way appends the
//! address that it was connected from, so the list is read from its end: the first one that is not
//! a trusted proxy itself is the client. What stands before it anyone may have written.

use std::net::{IpAddr, SocketAddr};

use crate::http::{Refusal, Request, bad};
use crate::network::Network;

/// The client that the request was forwarded for; `None`: the request says nothing of it.
///
/// # Errors
/// The two fields tell different clients. A proxy writes one of them and hands the other on as it
/// came, so one of the two is forged.
pub(crate) fn client(
    request: &Request,
    trusted: &[Network],
) -> Result<Option<SocketAddr>, Refusal> {
    let plain = last_untrusted(list(request, "x-forwarded-for"), address, trusted);
    let tagged = last_untrusted(list(request, "forwarded"), forwarded_for, trusted);
    match (plain, tagged) {
        (Some(one), Some(other)) if one.ip() != other.ip() => {
            Err(bad("X-Forwarded-For and Forwarded tell different clients; send one of them"))
        }
        (one, other) => Ok(one.or(other)),
    }
}

/// The members of all lines of a field. One that is no text is a member too, and no address: it
/// must not take along what the proxy appended to its line.
fn list<'r>(request: &'r Request, name: &str) -> Vec<&'r str> {
    let members = request.raw_fields(name).flat_map(|line| line.split(|byte| *byte == b','));
    let texts = members.map(|member| str::from_utf8(member).unwrap_or_default().trim());
    texts.collect()
}

/// From the end of the list: the first address that is no trusted proxy's, or the last before what
/// is no address. Should all be trusted, the first of the list.
fn last_untrusted(
    members: Vec<&str>,
    address_of: impl Fn(&str) -> Option<SocketAddr>,
    trusted: &[Network],
) -> Option<SocketAddr> {
    let mut found = None;
    for member in members.into_iter().rev() {
        let Some(address) = address_of(member) else { break };
        found = Some(address);
        if !trusted.iter().any(|network| network.contains(address.ip())) {
            break;
        }
    }
    found
}

/// `192.0.2.7`, `192.0.2.7:4711`, `2001:db8::7`, `[2001:db8::7]:4711`. Port 0: none was said.
fn address(text: &str) -> Option<SocketAddr> {
    let bare = || text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let address = text.parse().or_else(|_| bare().map(|ip| SocketAddr::new(ip, 0))).ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// The `for` of one element: `for=192.0.2.7;proto=https`, `for="[2001:db8::7]:4711"`.
fn forwarded_for(element: &str) -> Option<SocketAddr> {
    let is_for = |pair: &&str| pair.trim_start().get(..4).is_some_and(|it| is_word(it, "for="));
    let value = element.split(';').find(is_for)?.trim().get(4..)?;
    address(value.trim_matches('"'))
}

fn is_word(text: &str, word: &str) -> bool {
    text.eq_ignore_ascii_case(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Peer;
    use crate::limits::Limits;
    use crate::parse::parse_head;

    fn told(fields: &str) -> Result<Option<String>, u16> {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let request = parse_head(head.as_bytes(), &Limits::default(), Peer::Unix).unwrap();
        let trusted = ["10.0.0.0/8", "::1"].map(|it| it.parse().unwrap());
        client(&request, &trusted)
            .map(|it| it.map(|it| it.to_string()))
            .map_err(|refusal| refusal.status)
    }

    #[test]
    fn the_client_is_the_last_that_is_no_proxy_of_ours() {
        for (fields, client) in [
            ("", None),
            ("X-Forwarded-For: 192.0.2.7\r\n", Some("192.0.2.7:0")),
            ("X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\n", Some("192.0.2.7:0")),
            ("X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.1.2.3\r\n", Some("192.0.2.7:0")),
            ("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 192.0.2.7\r\n", Some("192.0.2.7:0")),
            ("X-Forwarded-For: 192.0.2.7:4711\r\n", Some("192.0.2.7:4711")),
            ("X-Forwarded-For: 2001:db8::7\r\n", Some("[2001:db8::7]:0")),
            ("X-Forwarded-For: [2001:db8::7]:1\r\n", Some("[2001:db8::7]:1")),
            ("X-Forwarded-For: ::ffff:192.0.2.7\r\n", Some("192.0.2.7:0")),
            ("X-Forwarded-For: 10.0.0.1, 10.0.0.2\r\n", Some("10.0.0.1:0")),
            ("X-Forwarded-For: nonsense, 10.0.0.2\r\n", Some("10.0.0.2:0")),
            ("X-Forwarded-For: nonsense\r\n", None),
            ("Forwarded: for=192.0.2.7;proto=https\r\n", Some("192.0.2.7:0")),
            ("Forwarded: proto=https; For=\"[2001:db8::7]:4711\"\r\n", Some("[2001:db8::7]:4711")),
            ("Forwarded: for=6.6.6.6, for=192.0.2.7, for=\"[::1]\"\r\n", Some("192.0.2.7:0")),
            ("Forwarded: for=_hidden\r\n", None),
            ("Forwarded: for=192.0.2.7\r\nX-Forwarded-For: 192.0.2.7\r\n", Some("192.0.2.7:0")),
        ] {
            assert_eq!(told(fields), Ok(client.map(String::from)), "{fields}");
        }
    }

    #[test]
    fn two_fields_that_tell_different_clients_are_refused() {
        assert_eq!(told("Forwarded: for=6.6.6.6\r\nX-Forwarded-For: 192.0.2.7\r\n"), Err(400));
    }

    #[test]
    fn a_byte_that_is_no_text_hides_nothing_of_what_the_proxy_appended() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let of = |head: &[u8]| {
            let request = parse_head(head, &Limits::default(), Peer::Unix).unwrap();
            client(&request, &trusted).map(|it| it.map(|it| it.to_string())).map_err(|it| it.status)
        };
        let plain = of(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: \xff, 192.0.2.7\r\n\r\n");
        let forged = of(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: \xff, 192.0.2.7\r\n\
            Forwarded: for=6.6.6.6\r\n\r\n");
        assert_eq!(plain, Ok(Some("192.0.2.7:0".into())));
        assert_eq!(forged, Err(400));
    }
}
