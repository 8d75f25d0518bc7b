//! From the bytes of a request head to a [`Request`] (RFC 9112 §2–§6, RFC 9110 §5).
//!
//! Pure functions over bytes. httparse finds the parts of a head; what it lets pass and RFC 9112
//! does not is refused here: bare line feeds, two `Host` or `Content-Length`, a length beside a
//! transfer coding. Where a head ends is looked for as its bytes arrive (`head.rs`), and it is
//! parsed once, when it is whole. Contents are not read here.

use std::mem::MaybeUninit;

use crate::config::is_token_byte;
use crate::http::{Peer, Refusal, Request, bad};
use crate::limits::{FIELDS_MAX, Limits};
use crate::metrics::Reason;
use crate::origin;

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
    let method = parsed.method.unwrap_or_default();
    let fields = parsed.headers.iter().map(|field| (field.name.as_bytes(), field.value));
    let mut request = Request::new(head, (method, target), fields, parsed.version == Some(1), peer);
    if !request.method().bytes().all(is_token_byte) {
        return Err(bad("the request method is not a token"));
    }
    check_target(&mut request)?;
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
    if second.is_some() || (host.is_none() && request.is_1_1()) {
        return Err(bad("a request has to have exactly one Host field"));
    }
    if host.is_some_and(|host| !host.is_some_and(origin::is_authority)) {
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
    if !host.is_some_and(|host| authority.eq_ignore_ascii_case(host)) {
        return Err(bad("the host in the request target has to be that of the Host field"));
    }
    let length = rest.len() - authority.len();
    request.shorten_target(length);
    Ok(())
}

/// Where the content ends (RFC 9112 §6): by `Content-Length` or not at all.
fn check_framing(request: &mut Request, limits: &Limits) -> Result<(), Refusal> {
    let lengths = request.raw_fields("content-length").count();
    let has_coding = request.raw_fields("transfer-encoding").next().is_some();
    if has_coding && (lengths > 0 || !request.is_1_1()) {
        return Err(bad("Transfer-Encoding cannot stand beside Content-Length or in HTTP/1.0"));
    }
    if has_coding {
        let mut codings = request.members("transfer-encoding");
        let is_chunked = |coding: &str| coding.eq_ignore_ascii_case("chunked");
        return Err(match codings.next().is_some_and(is_chunked) && codings.next().is_none() {
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
            ("GET http://a/ HTTP/1.0\r\n\r\n", 400),
            ("GET http://a/ HTTP/1.0\r\nHost: b\r\n\r\n", 400),
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
