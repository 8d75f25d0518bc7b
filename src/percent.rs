//! Percent-decoding (RFC 3986 §2.1), once: what comes out is not looked at again.

use std::borrow::Cow;

/// The text that `text` stands for: `%XX` is a byte, and in a query `+` is a space. `None` if a
/// percent sign has no two digits behind it or the bytes are not UTF-8.
pub(crate) fn decode(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| matches!(byte, b'+' | b'%')) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' if plus_is_space => b' ',
            b'%' => {
                // Not `u8::from_str_radix`: it takes `+1` for a number.
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            plain => plain,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_percent_encoded_utf_8_is_told_apart() {
        for (text, decoded) in [
            ("plain", Some("plain")),
            ("a%20b", Some("a b")),
            ("%41%c3%A9", Some("Aé")),
            ("%2525", Some("%25")),
            ("%", None),
            ("%4", None),
            ("%zz", None),
            ("%ff", None),
            ("%c0%af", None),
            ("%+1", None),
        ] {
            assert_eq!(decode(text, true).as_deref(), decoded, "{text}");
        }
        assert_eq!(decode("a+b", true).as_deref(), Some("a b"));
        assert_eq!(decode("a+b", false).as_deref(), Some("a+b"));
    }
}
