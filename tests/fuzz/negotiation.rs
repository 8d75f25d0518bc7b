//! Promise: a WebSocket is opened by what RFC 6455 §4.2.1 demands and by nothing else: one version,
//! which is 13, one key of 16 bytes in canonical base64, no content, no foreign origin; the accept
//! key is that of §1.3, and the subprotocol is one that was offered and is spoken here.

use pousse::seam::{Rules, opening, request};
use pousse::{Config, Limits, Publish, Request};

use super::input::Input;
use super::offers;

const SPOKEN: [&str; 3] = ["pousse.v1", "chat", "a"];

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let start: &[u8] = input.one_of(&[
        b"GET /websocket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            as &[u8],
        b"GET /websocket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Version: 13\r\n",
        b"GET /websocket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
        b"GET /websocket HTTP/1.1\r\nHost: a\r\n",
        b"",
    ]);
    let head = [start, input.take(usize::MAX), b"\r\n\r\n"].concat();
    let Some(end) = head.windows(4).position(|it| it == b"\r\n\r\n") else { return };
    let Ok(request) = request(&head[..end + 4], &Limits::default()) else { return };
    let mut config = Config::default();
    config.subprotocols = vec!["chat".into(), "a".into()];
    let result = opening(&request, &Rules::new(&config, Publish::Anyone));
    let wanted = wanted(&request);
    let has_origin = request.raw_fields("origin").next().is_some();
    match (&result, &wanted) {
        (Ok((accept, subprotocol)), Some(wanted)) => {
            assert_eq!(accept, &accept_of(request.field("sec-websocket-key").unwrap_or_default()));
            assert_eq!(subprotocol.as_deref(), wanted.as_deref());
        }
        (Err(400 | 426), None) => {}
        (Err(403), _) => assert!(has_origin),
        _ => panic!("{result:?}, and it should be {wanted:?}: {}", head.escape_ascii()),
    }
}

/// The subprotocol that an opening handshake should get; `None`: it is none.
fn wanted(request: &Request) -> Option<Option<String>> {
    let lists = |name: &str, member: &str| {
        members(request, name).iter().any(|it| it.eq_ignore_ascii_case(member))
    };
    let only = |name: &str| {
        let mut values = request.raw_fields(name);
        values.next().filter(|_| values.next().is_none())
    };
    let is_opening = request.method() == "GET"
        && lists("connection", "upgrade")
        && lists("upgrade", "websocket")
        && only("sec-websocket-version") == Some(b"13")
        && only("sec-websocket-key").is_some_and(is_key)
        && request.is_whole();
    if !is_opening {
        return None;
    }
    if request.raw_fields("sec-websocket-extensions").any(|it| offers::list(it).is_none()) {
        return None;
    }
    // `is_upgrade` also wants HTTP/1.1, which a request does not tell.
    if !request.is_upgrade() {
        return None;
    }
    let offered = members(request, "sec-websocket-protocol");
    if offered.is_empty() {
        return Some(None);
    }
    let is_v1 = offered.iter().any(|name| name == SPOKEN[0]);
    let first = offered.iter().find(|name| SPOKEN.contains(&name.as_str()));
    let chosen = if is_v1 { Some(SPOKEN[0].to_owned()) } else { first.cloned() };
    chosen.map(Some)
}

fn members(request: &Request, name: &str) -> Vec<String> {
    let mut members = Vec::new();
    for value in request.raw_fields(name).filter_map(|it| std::str::from_utf8(it).ok()) {
        let trimmed =
            value.split(',').map(|it| it.trim_matches([' ', '\t'])).filter(|it| !it.is_empty());
        members.extend(trimmed.map(str::to_owned));
    }
    members
}

/// 22 characters and two `=`, and the four bits that stand for nothing are 0 (RFC 4648 §3.5).
fn is_key(key: &[u8]) -> bool {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
    key.len() == 24
        && key[..22].iter().all(is_base64)
        && b"AQgw".contains(&key[21])
        && &key[22..] == b"=="
}

/// RFC 6455 §4.2.2: SHA-1 (FIPS 180-4) of the key and a constant, in base64.
fn accept_of(key: &str) -> String {
    let mut message = [key, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat().into_bytes();
    let bits = message.len() as u64 * 8;
    message.push(0x80);
    while message.len() % 64 != 56 {
        message.push(0);
    }
    message.extend_from_slice(&bits.to_be_bytes());
    let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    for block in message.chunks(64) {
        let mut words: Vec<u32> = block
            .chunks(4)
            .map(|word| word.iter().fold(0, |all, byte| all << 8 | u32::from(*byte)))
            .collect();
        for at in 16..80 {
            let word = words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16];
            words.push(word.rotate_left(1));
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (at, word) in words.iter().enumerate() {
            let (mix, constant) = match at {
                ..20 => (b & c | !b & d, 0x5a82_7999_u32),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6),
            };
            let sum = [mix, e, constant, *word].into_iter().fold(0, u32::wrapping_add);
            let next = a.rotate_left(5).wrapping_add(sum);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (all, part) in state.iter_mut().zip([a, b, c, d, e]) {
            *all = all.wrapping_add(part);
        }
    }
    let digest: Vec<u8> = state.iter().flat_map(|word| word.to_be_bytes()).collect();
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in digest.chunks(3) {
        let bits = part.iter().fold(0_u32, |all, byte| all << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - part.len()));
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at)) as usize & 63];
            text.push(if at <= part.len() { char::from(letter) } else { '=' });
        }
    }
    text
}
