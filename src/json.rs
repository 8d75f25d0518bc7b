//! The JSON that is written here: strings, escaped after RFC 8259 §7. Nothing is read.

/// Appends `text` as a JSON string, quotes included.
///
/// Only what must be escaped is: the quote, the backslash and control characters. U+2028 and
/// U+2029 are escaped too, so that the text may also stand in a script.
pub(crate) fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain_from = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        // Most text needs nothing: whole runs are copied, the escapes stand between them.
        let length = match byte {
            b'"' | b'\\' | ..0x20 => 1,
            0xe2 if matches!(bytes.get(at + 1..at + 3), Some([0x80, 0xa8 | 0xa9])) => 3,
            _ => continue,
        };
        out.extend_from_slice(bytes.get(plain_from..at).unwrap_or_default());
        push_escape(out, byte, bytes.get(at + 2).copied());
        plain_from = at + length;
    }
    out.extend_from_slice(bytes.get(plain_from..).unwrap_or_default());
    out.push(b'"');
}

fn push_escape(out: &mut Vec<u8>, byte: u8, third: Option<u8>) {
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        0xe2 if third == Some(0xa8) => out.extend_from_slice(b"\\u2028"),
        0xe2 => out.extend_from_slice(b"\\u2029"),
        control => out.extend_from_slice(format!("\\u{control:04x}").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_escaped_where_rfc_8259_says_and_nowhere_else() {
        for (text, json) in [
            ("", r#""""#),
            ("Bonjour serveur\u{a0}!", "\"Bonjour serveur\u{a0}!\""),
            ("a\"b\\c/", r#""a\"b\\c/""#),
            ("\u{0}\u{1f}\n\r\t", r#""\u0000\u001f\n\r\t""#),
            ("\u{2028}a\u{2029}\u{2027}", "\"\\u2028a\\u2029\u{2027}\""),
            ("🌱", "\"🌱\""),
        ] {
            let mut out = Vec::new();
            push_string(&mut out, text);
            assert_eq!(String::from_utf8(out).unwrap(), json);
        }
    }
}
