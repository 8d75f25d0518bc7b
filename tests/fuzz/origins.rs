//! Promise: an origin passes as the server's own only if its host is the host of the request and
//! its port the same, the usual port filled in; being the same is symmetric, and an origin is the
//! same as it is written canonically.

use pousse::seam::{canonical, is_own, is_same};

use super::input::Input;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let on_loopback = input.choice() % 2 == 1;
    let text = input.text();
    let mut lines = text.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (a, b, host) = (line(), line(), line());
    assert_eq!(is_same(a, b), is_same(b, a), "{a:?} {b:?}");
    if is_same(a, a) {
        assert!(is_same(a, &canonical(a)), "{a:?} {:?}", canonical(a));
    }
    if is_same(a, b) {
        assert_eq!(canonical(a), canonical(b), "{a:?} {b:?}");
    }
    if !is_own(a, host, on_loopback) {
        return;
    }
    let (scheme, authority) = a.split_once("://").expect("who has no scheme is no page");
    let usual = match scheme.to_ascii_lowercase().as_str() {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    let ((page, page_port), (server, server_port)) = (parts(authority), parts(host));
    assert_eq!(page_port.or(usual), server_port.or(usual), "{a:?} {host:?}");
    let is_local = |host: &str| {
        let inner = host.trim_start_matches('[').trim_end_matches(']');
        let is_loopback = |ip: std::net::IpAddr| ip.to_canonical().is_loopback();
        host == "localhost" || host.ends_with(".localhost") || inner.parse().is_ok_and(is_loopback)
    };
    let is_by_name = page == server;
    assert!(is_by_name || on_loopback && is_local(&page) && is_local(&server), "{a:?} {host:?}");
}

/// The host in lower case and without its last dot, and the port.
fn parts(authority: &str) -> (String, Option<u16>) {
    let at = match authority.strip_prefix('[') {
        Some(_) => authority.find(']').map(|at| at + 1),
        None => authority.find(':'),
    };
    let (host, port) = authority.split_at(at.unwrap_or(authority.len()));
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    (host, port.strip_prefix(':').and_then(|port| port.parse().ok()))
}
