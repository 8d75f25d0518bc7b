//! Promise: of `Sec-WebSocket-Extensions` the first offer of permessage-deflate is agreed on that
//! RFC 7692 §7.1 lets us accept, and none if there is none; what is no list of extensions is told
//! apart; and what is answered keeps to the offer and has nothing of its text.

use pousse::seam::agreed;

use super::input::Input;

const BASE: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let fields: Vec<&[u8]> = input.take(usize::MAX).split(|byte| *byte == b'\n').collect();
    let wanted: Option<Vec<Vec<Extension>>> = fields.iter().map(|field| list(field)).collect();
    let wanted = wanted.map(|lists| lists.concat().iter().find_map(bits));
    let answer = match wanted {
        None => Err(400),
        Some(None) => Ok(None),
        Some(Some(None)) => Ok(Some(BASE.to_owned())),
        // 15 is the window we use anyway; else we use 9, and 8 if that is asked for.
        Some(Some(Some(asked))) => {
            let told = if asked == 15 { 15 } else { asked.min(9) };
            Ok(Some(format!("{BASE}; server_max_window_bits={told}")))
        }
    };
    let shown: Vec<String> = fields.iter().map(|it| it.escape_ascii().to_string()).collect();
    assert_eq!(agreed(&fields), answer, "{shown:?}");
}

/// An extension by its name, and its parameters.
type Extension = (Vec<u8>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

/// The `server_max_window_bits` of an offer that can be accepted; `None`: it cannot.
fn bits((name, parameters): &Extension) -> Option<Option<u8>> {
    let mut bits = None;
    let mut names: Vec<&[u8]> = parameters.iter().map(|(name, _)| name.as_slice()).collect();
    names.sort_unstable();
    if name != b"permessage-deflate" || names.windows(2).any(|two| two[0] == two[1]) {
        return None;
    }
    for (name, value) in parameters {
        let number = value.as_deref().and_then(|it| std::str::from_utf8(it).ok());
        let window = (8..=15_u8).find(|it| number == Some(it.to_string().as_str()));
        match (name.as_slice(), value) {
            (b"server_no_context_takeover" | b"client_no_context_takeover", None)
            | (b"client_max_window_bits", None) => {}
            (b"client_max_window_bits", Some(_)) => drop(window?),
            (b"server_max_window_bits", Some(_)) => bits = Some(window?),
            _ => return None,
        }
    }
    Some(bits)
}

/// The grammar of RFC 6455 §9.1, by characters: tokens, and the separators that stand alone.
pub fn list(field: &[u8]) -> Option<Vec<Extension>> {
    let words = words(field)?;
    let mut extensions = Vec::new();
    for element in words.split(|word| *word == Word::Mark(b',')) {
        if element.is_empty() {
            continue;
        }
        let mut parts = element.split(|word| *word == Word::Mark(b';'));
        let [Word::Token(name)] = parts.next()? else { return None };
        let parameters = parts.map(|part| match part {
            [Word::Token(name)] => Some((name.clone(), None)),
            [Word::Token(name), Word::Mark(b'='), Word::Token(value) | Word::Quoted(value)] => {
                Some((name.clone(), Some(value.clone())))
            }
            _ => None,
        });
        extensions.push((name.clone(), parameters.collect::<Option<_>>()?));
    }
    Some(extensions)
}

#[derive(PartialEq)]
enum Word {
    Token(Vec<u8>),
    Quoted(Vec<u8>),
    Mark(u8),
}

fn words(field: &[u8]) -> Option<Vec<Word>> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(byte) = field.get(at) {
        match byte {
            b',' | b';' | b'=' => words.push(Word::Mark(*byte)),
            b'"' => {
                let mut value = Vec::new();
                loop {
                    at += 1;
                    let byte = *field.get(at)?;
                    if byte == b'"' {
                        break;
                    }
                    if byte == b'\\' {
                        at += 1;
                    }
                    let byte = *field.get(at)?;
                    if byte < 0x20 && byte != b'\t' || byte == 0x7f {
                        return None;
                    }
                    value.push(byte);
                }
                words.push(Word::Quoted(value));
            }
            byte if byte.is_ascii_whitespace() => {}
            byte if is_token(byte) => {
                let end = field[at..].iter().position(|byte| !is_token(byte));
                let end = end.map_or(field.len(), |count| at + count);
                words.push(Word::Token(field[at..end].to_vec()));
                at = end - 1;
            }
            _ => return None,
        }
        at += 1;
    }
    Some(words)
}
