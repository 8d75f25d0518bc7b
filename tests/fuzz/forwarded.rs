//! Promise: whatever a client writes into `X-Forwarded-For` and `Forwarded`, behind a trusted proxy
//! that appends whom it was connected from to one of the two it is that one, or it is refused: no
//! client can be somebody else.

use pousse::Limits;
use pousse::seam::{forwarded_for, request};

use super::input::Input;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let trusted = ["10.0.0.0/8", "::1", "2001:db8::/32"].map(|it| it.parse().expect("a network"));
    let (field, appended) = input.one_of(&[
        ("X-Forwarded-For", "192.0.2.7"),
        ("Forwarded", "for=192.0.2.7"),
        ("Forwarded", "proto=https;For=\"192.0.2.7:4711\";by=_x"),
        ("X-Forwarded-For", "192.0.2.7, 10.0.0.1"),
        ("X-Forwarded-For", "192.0.2.7, ::1 , [2001:db8::1]:80"),
    ]);
    let (own_line, size) = (input.choice().is_multiple_of(2), input.choice().into());
    let (before, more) = (input.take(size), input.take(usize::MAX));
    if before.contains(&b'\n') {
        return;
    }
    // More fields of the client's stand before the proxy's line, which it adds or goes on with.
    let start = format!("GET / HTTP/1.1\r\nHost: a\r\n{field}: ");
    let fields = [start.as_bytes(), before, b"\r\n", more, b"\r\n"].concat();
    let last = match own_line {
        true => format!("{field}: {appended}\r\n\r\n").into_bytes(),
        false => {
            let end = format!(", {appended}\r\n\r\n");
            [field.as_bytes(), b": ", before, end.as_bytes()].concat()
        }
    };
    let head = [&fields[..], &last].concat();
    if head.windows(4).position(|it| it == b"\r\n\r\n") != Some(head.len() - 4) {
        return;
    }
    let Ok(request) = request(&head, &Limits::default()) else { return };
    match forwarded_for(&request, &trusted) {
        Err(400) => {}
        Ok(Some(address)) => {
            assert_eq!(address.ip().to_string(), "192.0.2.7", "{}", head.escape_ascii());
        }
        other => panic!("{other:?}: {}", head.escape_ascii()),
    }
}
