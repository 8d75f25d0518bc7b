//! Request smuggling: where two programs disagree about where a request ends, one of them can be
//! told a second request that the other never saw. The second one here asks for `/smuggled`; what
//! counts is that it is never answered as one of its own.

use crate::peer::Peer;
use crate::target::Target;

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// What the request's fields are, and the status it has to get.
///
/// `$N` is the length of what stands behind the head, which is the smuggled request, or for the
/// codings that request as a chunk, or behind the end of the chunks.
const POSTS: &[(&str, &str, u16)] = &[
    ("a length and chunks", "Content-Length: $N\r\nTransfer-Encoding: chunked", 400),
    ("chunks and a length", "Transfer-Encoding: chunked\r\nContent-Length: $N", 400),
    ("a short length and chunks", "Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
    ("a length of 0 and chunks", "Content-Length: 0\r\nTransfer-Encoding: chunked", 400),
    ("a length and a coding nobody knows", "Content-Length: $N\r\nTransfer-Encoding: xyz", 400),
    ("the same length twice", "Content-Length: $N\r\nContent-Length: $N", 400),
    ("two lengths, the smaller first", "Content-Length: 0\r\nContent-Length: $N", 400),
    ("two lengths, the larger first", "Content-Length: $N\r\nContent-Length: 0", 400),
    ("a list of lengths", "Content-Length: $N, $N", 400),
    ("a list of different lengths", "Content-Length: 0, $N", 400),
    ("a length with a plus", "Content-Length: +$N", 400),
    ("a negative length", "Content-Length: -1", 400),
    ("a length of minus nothing", "Content-Length: -0", 400),
    ("a length in hex", "Content-Length: 0x2a", 400),
    ("a length in octal notation", "Content-Length: 0o52", 400),
    ("a length with an exponent", "Content-Length: 4e1", 400),
    ("a length with a point", "Content-Length: $N.0", 400),
    ("a length with an underscore", "Content-Length: 4_2", 400),
    ("a length with a space in it", "Content-Length: 0 $N", 400),
    ("a length with a tab in it", "Content-Length: 0\t$N", 400),
    ("a length with a parameter", "Content-Length: $N; q=1", 400),
    ("a length in quotes", "Content-Length: \"$N\"", 400),
    ("a length in Arabic digits", "Content-Length: \u{664}\u{662}", 400),
    ("a length in fullwidth digits", "Content-Length: \u{ff14}\u{ff12}", 400),
    ("a length that is empty", "Content-Length:", 400),
    ("a length of 64 bits and no more", "Content-Length: 18446744073709551615", 413),
    ("a length that wraps to 0", "Content-Length: 18446744073709551616", 413),
    ("a length that wraps to 42", "Content-Length: 18446744073709551658", 413),
    ("a length that wraps in 32 bits", "Content-Length: 4294967338", 413),
    ("a length of many digits", "Content-Length: 99999999999999999999999999999999999999", 413),
    ("a length with a space before the colon", "Content-Length : $N", 400),
    ("a length with a tab before the colon", "Content-Length\t: $N", 400),
    ("a length with NUL behind its name", "Content-Length\0: $N", 400),
    ("a length with NUL in its value", "Content-Length: \0$N", 400),
    ("a length with a bare CR before it", "Content-Length:\r $N", 400),
    ("a length behind a bare CR", "X: y\rContent-Length: $N", 400),
    ("a length behind a bare LF", "X: y\nContent-Length: $N", 400),
    ("a folded length", "Content-Length:\r\n $N", 400),
    ("a length folded with a tab", "Content-Length: 0\r\n\t$N", 400),
    ("a length that folds the line before it", "X: y\r\n Content-Length: $N", 400),
    ("a length with a vertical tab", "Content-Length: \x0b$N", 400),
    ("a length with a form feed", "Content-Length:\x0c$N", 400),
    ("a name that begins with a space", " Content-Length: $N", 400),
    ("chunks", "Transfer-Encoding: chunked", 411),
    ("chunks in capitals", "TRANSFER-ENCODING: CHUNKED", 411),
    ("chunks behind a tab", "Transfer-Encoding:\tchunked", 411),
    ("chunks with spaces around", "Transfer-Encoding:   chunked  ", 411),
    ("chunks as a member of a list", "Transfer-Encoding: , chunked", 411),
    ("chunks twice", "Transfer-Encoding: chunked, chunked", 501),
    ("chunks on two lines", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 501),
    ("chunks and identity", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", 501),
    ("identity", "Transfer-Encoding: identity", 501),
    (
        "chunks, but first something else",
        "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked",
        501,
    ),
    ("xchunked", "Transfer-Encoding: xchunked", 501),
    ("chunks in quotes", "Transfer-Encoding: \"chunked\"", 501),
    ("chunks with a parameter", "Transfer-Encoding: chunked;a=b", 501),
    ("chunks with a vertical tab", "Transfer-Encoding: \x0bchunked", 400),
    ("chunks with NUL", "Transfer-Encoding: chunked\0", 400),
    ("chunks, folded", "Transfer-Encoding:\r\n chunked", 400),
    ("chunks, and the line goes on", "Transfer-Encoding: chunked\r\n , identity", 400),
    ("chunks with a space before the colon", "Transfer-Encoding : chunked", 400),
    ("a coding that is empty", "Transfer-Encoding:", 501),
    ("a coding and no such thing in HTTP/1.0", "1.0\r\nTransfer-Encoding: chunked", 400),
];

/// The end of a chunked content, and something behind it.
fn content() -> String {
    format!("0\r\n\r\n{SMUGGLED}")
}

#[test]
fn never_are_there_two_answers_for_one_request_however_its_length_is_told() {
    let mut target = Target::start(&["--publish", "anyone"]);
    for (what, fields, expected) in POSTS {
        let (version, fields) = match fields.strip_prefix("1.0\r\n") {
            Some(rest) => ("1.0", rest),
            None => ("1.1", *fields),
        };
        let content = content();
        let fields = fields.replace("$N", &content.len().to_string());
        let mut peer = Peer::connect(&target.door);
        peer.says(format!(
            "POST /api/messages HTTP/{version}\r\nHost: localhost\r\n{fields}\r\n\r\n{content}"
        ));
        let _ = peer.wire.finish();
        assert_eq!(peer.statuses(), [*expected], "{what}");
    }
    let published = target.gets("/api/messages").json().unwrap();
    assert_eq!(published["messages"], serde_json::json!([]), "none of it was a message");
    target.survives(|_| ());
}

#[test]
fn a_content_is_no_request_whatever_the_method_and_the_answer() {
    let mut target = Target::start(&["--publish", "anyone"]);
    let content = SMUGGLED.repeat(3);
    let length = content.len();
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    target.survives(|target| {
        for (what, line, fields, expected) in [
            ("a GET with content", "GET /api/messages", "", 200),
            ("a GET of a file with content", "GET /", "", 200),
            ("a GET of nothing with content", "GET /nothing", "", 404),
            ("a HEAD with content", "HEAD /api/messages", "", 200),
            ("an OPTIONS with content", "OPTIONS *", "", 204),
            ("a method that is not known", "BREW /api/messages", "", 501),
            ("a DELETE with content", "DELETE /api/messages", "", 405),
            ("a POST to a file", "POST /", "", 405),
            ("a POST that is refused", "POST /api/messages?topic=", "", 400),
            ("a POST whose length has zeros before it", "POST /api/messages", "0", 201),
            ("an upgrade with content", "GET /websocket", upgrade, 400),
            ("a POST that wants to upgrade", "POST /websocket", upgrade, 405),
        ] {
            let (zero, fields) = if fields == "0" { ("000", "") } else { ("", fields) };
            let mut peer = Peer::connect(&target.door);
            peer.says(format!(
                "{line} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {zero}{length}\
                 \r\n\r\n{content}"
            ));
            let answer = peer.answer_to(line.starts_with("HEAD"));
            assert_eq!(answer.status, expected, "{what}: {answer}");
            // What comes next is the answer to the next request, or the end.
            peer.says("GET /pousse.js HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let rest = peer.statuses();
            let ends = answer.is_last();
            assert_eq!(rest, if ends { vec![] } else { vec![200] }, "{what}");
        }
    });
}

#[test]
fn what_stands_behind_a_content_that_is_not_taken_is_not_looked_at() {
    let mut target = Target::start(&["--max-message", "1KiB"]);
    target.survives(|target| {
        for expect in ["", "Expect: 100-continue\r\n", "Expect: 200-ok\r\n"] {
            let content = SMUGGLED.repeat(40);
            let mut peer = Peer::connect(&target.door);
            peer.says(format!(
                "POST /api/messages HTTP/1.1\r\nHost: localhost\r\n{expect}\
                 Content-Length: {}\r\n\r\n{content}",
                content.len()
            ));
            let _ = peer.wire.finish();
            assert_eq!(peer.statuses(), [413], "{expect}");
        }
    });
}
