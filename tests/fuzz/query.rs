//! Promise: a query is cut at `&` and `=`, and decoded once (RFC 3986 §2.1, `+` is a space); what
//! is encoded comes back as it was; what is no UTF-8 is told apart, pair by pair.

use pousse::Limits;
use pousse::seam::{decode, request};

use super::input::Input;
use super::paths;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let text = input.text();
    for plus_is_space in [false, true] {
        let plain = if plus_is_space { text.replace('+', " ") } else { text.clone() };
        let decoded = decode(&text, plus_is_space).map(|it| it.into_owned());
        assert_eq!(decoded, paths::decode(&plain), "{text:?}");
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        assert_eq!(decode(&encoded, plus_is_space).as_deref(), Some(text.as_str()));
    }
    let head = format!("GET /a?{text} HTTP/1.1\r\nHost: a\r\n\r\n");
    if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return;
    }
    let Ok(request) = request(head.as_bytes(), &Limits::default()) else {
        assert!(head.len() > 4096, "{text:?} is refused");
        return;
    };
    assert_eq!(request.path(), "/a");
    let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let spaced = |part: &str| paths::decode(&part.replace('+', " "));
        Some((spaced(name)?, spaced(value)?))
    });
    let got = request.query().map(|pair| pair.map(|(a, b)| (a.into_owned(), b.into_owned())));
    assert_eq!(got.collect::<Vec<_>>(), pairs.collect::<Vec<_>>());
}
