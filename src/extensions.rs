//! Sec-WebSocket-Extensions (RFC 6455 §9.1), and what of it is agreed on: permessage-deflate
//! without context takeover (RFC 7692 §7.1), or nothing.
//!
//! ```text
//! permessage-deflate; server_max_window_bits=10, permessage-deflate; client_max_window_bits
//! └ an offer ─────────────────────────────────┘  └ another, should we decline that one ───┘
//! ```
//!
//! An offer with a parameter that is unknown, there twice, or not of its form is declined; the
//! first that is left is accepted. Pure, and no text of the peer's is in the answer.

use std::borrow::Cow;

use crate::config::is_token_byte;
use crate::deflate::Window;

/// The one extension that is spoken.
const NAME: &[u8] = b"permessage-deflate";

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// How far back we refer.
    pub(crate) window: Window,
    /// The same as we tell it, if the offer asks.
    bits: Option<u8>,
}

/// A field that is no list of extensions.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The first offer that can be accepted.
///
/// # Errors
/// [`Malformed`], wherever in the fields that is.
pub(crate) fn negotiate<'f>(
    fields: impl Iterator<Item = &'f [u8]>,
) -> Result<Option<Agreed>, Malformed> {
    let mut agreed = None;
    for rest in fields {
        let mut list = List { rest };
        while !list.is_at_end() {
            if list.takes(b',') {
                continue;
            }
            let offer = list.offer()?;
            agreed = agreed.or(offer);
            if !list.is_at_end() && !list.takes(b',') {
                return Err(Malformed);
            }
        }
    }
    Ok(agreed)
}

impl Agreed {
    /// The field of the answer.
    pub(crate) fn answer(self) -> Cow<'static, str> {
        let answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        match self.bits {
            None => answer.into(),
            Some(bits) => format!("{answer}; server_max_window_bits={bits}").into(),
        }
    }
}

/// What is left of a field.
struct List<'f> {
    rest: &'f [u8],
}

impl<'f> List<'f> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn is_at_end(&mut self) -> bool {
        self.skip_space();
        self.rest.is_empty()
    }

    /// Takes this byte if it is next.
    fn takes(&mut self, byte: u8) -> bool {
        self.skip_space();
        let rest = self.rest.strip_prefix(&[byte]);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn token(&mut self) -> Result<&'f [u8], Malformed> {
        self.skip_space();
        let end = self.rest.iter().position(|byte| !is_token_byte(*byte));
        let (token, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        if token.is_empty() { Err(Malformed) } else { Ok(token) }
    }

    /// A token, or what stands between quotation marks.
    fn value(&mut self) -> Result<Cow<'f, [u8]>, Malformed> {
        if !self.takes(b'"') {
            return self.token().map(Cow::Borrowed);
        }
        let mut value = Vec::new();
        loop {
            let (mut byte, mut rest) = self.rest.split_first().ok_or(Malformed)?;
            let is_escaped = *byte == b'\\';
            if is_escaped {
                (byte, rest) = rest.split_first().ok_or(Malformed)?;
            }
            self.rest = rest;
            match byte {
                b'"' if !is_escaped => return Ok(value.into()),
                b'\t' | b' '..=b'~' | 0x80.. => value.push(*byte),
                _ => return Err(Malformed),
            }
        }
    }

    /// One extension with its parameters; `None` if it is not acceptable.
    fn offer(&mut self) -> Result<Option<Agreed>, Malformed> {
        let mut offer = Offer { is_declined: self.token()? != NAME, ..Offer::default() };
        while self.takes(b';') {
            let name = self.token()?;
            let value = if self.takes(b'=') { Some(self.value()?) } else { None };
            offer.is_declined |= !offer.accepts(name, value.as_deref());
        }
        Ok((!offer.is_declined).then(|| offer.agreed()))
    }
}

/// What an offer says.
#[derive(Default)]
struct Offer {
    is_declined: bool,
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    client_max_window_bits: bool,
    server_max_window_bits: Option<u8>,
}

impl Offer {
    /// Whether the offer can be accepted with this parameter (RFC 7692 §7.1.1, §7.1.2).
    fn accepts(&mut self, name: &[u8], value: Option<&[u8]>) -> bool {
        let is_first = |seen: &mut bool| !std::mem::replace(seen, true);
        match (name, value) {
            (b"server_no_context_takeover", None) => is_first(&mut self.server_no_context_takeover),
            (b"client_no_context_takeover", None) => is_first(&mut self.client_no_context_takeover),
            // It says how far back the client can be told to refer. It need not be: ours is 32 KiB.
            (b"client_max_window_bits", None) => is_first(&mut self.client_max_window_bits),
            (b"client_max_window_bits", Some(value)) => {
                window_bits(value).is_some() && is_first(&mut self.client_max_window_bits)
            }
            (b"server_max_window_bits", Some(value)) => {
                let before = self.server_max_window_bits;
                self.server_max_window_bits = window_bits(value);
                before.is_none() && self.server_max_window_bits.is_some()
            }
            _ => false,
        }
    }

    fn agreed(&self) -> Agreed {
        let (window, bits) = match self.server_max_window_bits {
            None => (Window::Fifteen, None),
            Some(15) => (Window::Fifteen, Some(15)),
            // The answer may be less than what was asked for, and has to be no more.
            Some(bits) => (Window::Nine, Some(bits.min(9))),
        };
        Agreed { window, bits }
    }
}

/// 8 to 15, in decimal without a zero before it.
fn window_bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(fields: &[&str]) -> Option<String> {
        let agreed = negotiate(fields.iter().map(|field| field.as_bytes())).unwrap();
        agreed.map(|agreed| {
            let answer = agreed.answer();
            let base = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
            let rest = answer.strip_prefix(base).unwrap().to_owned();
            format!("{:?}{rest}", agreed.window)
        })
    }

    #[test]
    fn the_first_acceptable_offer_wins_and_a_wrong_parameter_declines_one_offer_alone() {
        for (offer, expected) in [
            ("", None),
            ("permessage-deflate", Some("Fifteen")),
            ("permessage-deflate; client_max_window_bits", Some("Fifteen")),
            ("permessage-deflate;client_max_window_bits=8", Some("Fifteen")),
            ("permessage-deflate; client_max_window_bits=15", Some("Fifteen")),
            ("permessage-deflate; server_max_window_bits=15", Some("Fifteen; 15")),
            ("permessage-deflate; server_max_window_bits=14", Some("Nine; 9")),
            ("permessage-deflate; server_max_window_bits=9", Some("Nine; 9")),
            ("permessage-deflate; server_max_window_bits=8", Some("Nine; 8")),
            (
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                 server_max_window_bits=10; client_max_window_bits=10",
                Some("Nine; 9"),
            ),
            // Values may be quoted, and there may be space.
            ("permessage-deflate; server_max_window_bits=\"10\"", Some("Nine; 9")),
            ("permessage-deflate ; server_max_window_bits = \"1\\2\" ", Some("Nine; 9")),
            // Not of their form.
            ("permessage-deflate; server_max_window_bits", None),
            ("permessage-deflate; server_max_window_bits=7", None),
            ("permessage-deflate; server_max_window_bits=16", None),
            ("permessage-deflate; server_max_window_bits=08", None),
            ("permessage-deflate; server_max_window_bits=+9", None),
            ("permessage-deflate; server_max_window_bits=-1", None),
            ("permessage-deflate; server_max_window_bits=\"\"", None),
            ("permessage-deflate; server_max_window_bits=\" 9\"", None),
            ("permessage-deflate; server_max_window_bits=999999999999999999999", None),
            ("permessage-deflate; client_max_window_bits=7", None),
            ("permessage-deflate; client_max_window_bits=0x9", None),
            ("permessage-deflate; server_no_context_takeover=1", None),
            ("permessage-deflate; client_no_context_takeover=\"\"", None),
            // Twice, unknown, or another extension.
            ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
            ("permessage-deflate; client_max_window_bits=9; client_max_window_bits", None),
            ("permessage-deflate; server_max_window_bits=9; server_max_window_bits=9", None),
            ("permessage-deflate; server_max_window_bits=3; server_max_window_bits=9", None),
            ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
            ("permessage-deflate; client_no_context_takeover; client_no_context_takeover", None),
            ("permessage-deflate; mode=fast", None),
            ("permessage-deflate; Server_Max_Window_Bits=9", None),
            ("x-webkit-deflate-frame", None),
            ("permessage-deflate-2", None),
            ("x-unknown; a=\"b, permessage-deflate\"", None),
            // Several.
            ("permessage-deflate; a, permessage-deflate", Some("Fifteen")),
            (
                "x, permessage-deflate; server_max_window_bits=9, permessage-deflate",
                Some("Nine; 9"),
            ),
            (
                ", ,permessage-deflate; server_max_window_bits=3,,permessage-deflate,",
                Some("Fifteen"),
            ),
            ("x-unknown; a=\"b, c\", permessage-deflate", Some("Fifteen")),
        ] {
            let expected = expected.map(|it| it.replace("; ", "; server_max_window_bits="));
            assert_eq!(answer(&[offer]), expected, "{offer}");
        }
        let fields = ["permessage-deflate; x", "permessage-deflate; server_max_window_bits=8"];
        let answered = Some("Nine; server_max_window_bits=8".to_owned());
        assert_eq!(answer(&fields), answered, "several fields are one list");
        assert_eq!(answer(&[]), None);
    }

    #[test]
    fn what_is_no_list_of_extensions_is_told_apart_wherever_it_stands() {
        for field in [
            &b";"[..],
            b"=",
            b"permessage-deflate;",
            b"permessage-deflate; =8",
            b"permessage-deflate; a=",
            b"permessage-deflate; a=,",
            b"permessage-deflate; a=\"",
            b"permessage-deflate; a=\"\\",
            b"permessage-deflate; a=\"\x07\"",
            b"permessage-deflate; a=\"b\"c",
            b"permessage-deflate permessage-deflate",
            b"permessage-deflate, \"x\"",
            b"permessage-deflate, x/y",
            b"permessage-deflate, x; a=b c",
            b"permessage-deflate, \xe9",
        ] {
            let shown = String::from_utf8_lossy(field);
            assert_eq!(negotiate([field].into_iter()), Err(Malformed), "{shown}");
            let fields = [b"permessage-deflate", field].into_iter();
            assert_eq!(negotiate(fields), Err(Malformed), "{shown}");
        }
    }
}
