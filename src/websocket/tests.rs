//! Unit tests of `websocket.rs`: messages by frames, however they are cut, and what is refused.

use bytes::BufMut;
use tungstenite::protocol::frame::coding::CloseCode;

use super::*;
use crate::deflate::Deflate;
use crate::long::Long;
use crate::message::Message;
use crate::metrics::Counters;
use crate::partial::RESERVE_BYTES_MAX;

/// What a client writes: a masked frame.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    let length = payload.len() as u64;
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..=125), _) => frame.push(0x80 | short),
        (_, Ok(length)) => {
            frame.push(0x80 | 126);
            frame.put_u16(length);
        }
        _ => {
            frame.push(0x80 | 127);
            frame.put_u64(length);
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn text(text: &str) -> Incoming<'static> {
    Incoming::Text(text.to_owned().into())
}

/// What it is, with the memory of its own that a long message has.
fn owned(incoming: Incoming<'_>, spare: &mut Spare) -> Incoming<'static> {
    match incoming {
        Incoming::Text(text) => Incoming::Text(text.into_owned().into()),
        Incoming::Binary(bytes) => Incoming::Binary(bytes.into_owned().into()),
        Incoming::Long(kind) => match Long::taken(kind, spare).message() {
            Message::Text(it) => text(it),
            Message::Binary(it) => Incoming::Binary(it.to_vec().into()),
        },
        Incoming::Ping(bytes) => Incoming::Ping(bytes.into_owned().into()),
        Incoming::Pong => Incoming::Pong,
        Incoming::Close(code, reason) => Incoming::Close(code, reason),
        Incoming::Deflated(kind, bytes) => Incoming::Deflated(kind, bytes.into_owned().into()),
    }
}

/// Everything that comes of these pieces, and the code of the fault at the end.
fn receive(pieces: &[&[u8]], limits: &Limits) -> (Vec<Incoming<'static>>, u16) {
    receive_by(WebSocket::default(), pieces, limits)
}

/// All that comes of these bytes.
fn hear(
    websocket: &mut WebSocket,
    mut input: &mut [u8],
    limits: &Limits,
    spare: &mut Spare,
    all: &mut Vec<Incoming<'static>>,
) -> Result<(), Fault> {
    while let Some(incoming) = websocket.receive(&mut input, limits, Tick(0), spare)? {
        all.push(owned(incoming, spare));
    }
    Ok(())
}

fn receive_by(
    mut websocket: WebSocket,
    pieces: &[&[u8]],
    limits: &Limits,
) -> (Vec<Incoming<'static>>, u16) {
    let (mut all, mut spare) = (Vec::new(), Spare::default());
    for piece in pieces {
        let mut piece = piece.to_vec();
        if let Err(fault) = hear(&mut websocket, &mut piece, limits, &mut spare, &mut all) {
            return (all, fault.code.into());
        }
    }
    (all, 0)
}

/// The same however the bytes are cut: whole, at every place, one by one.
fn receive_cut(bytes: &[u8], limits: &Limits) -> (Vec<Incoming<'static>>, u16) {
    receive_cut_by(false, bytes, limits)
}

fn receive_cut_by(
    takes_deflated: bool,
    bytes: &[u8],
    limits: &Limits,
) -> (Vec<Incoming<'static>>, u16) {
    let receive = |pieces: &[&[u8]]| receive_by(WebSocket::new(takes_deflated), pieces, limits);
    let whole = receive(&[bytes]);
    for at in 0..bytes.len().min(300) {
        let (left, right) = bytes.split_at(at);
        assert_eq!(receive(&[left, right]), whole, "cut at {at}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(receive(&single), whole, "one by one");
    whole
}

#[test]
fn the_examples_of_rfc_6455_section_5_7_are_read() {
    let limits = Limits::default();
    let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(receive_cut(&hello, &limits), (vec![text("Hello")], 0));
    let fragments = [masked(0x01, b"Hel"), masked(0x80, b"lo")].concat();
    assert_eq!(receive_cut(&fragments, &limits), (vec![text("Hello")], 0));
    let ping = masked(0x89, b"Hello");
    let bytes = Incoming::Ping(b"Hello".to_vec().into());
    assert_eq!(receive_cut(&ping, &limits), (vec![bytes], 0));
    let long = vec![0xfe; 256];
    let bytes = Incoming::Binary(long.clone().into());
    assert_eq!(receive_cut(&masked(0x82, &long), &limits), (vec![bytes], 0));
}

/// As the loop does: what there is room for is read straight, what is behind it is not.
fn receive_straight(bytes: &[u8], size: usize, limits: &Limits) -> (Vec<Incoming<'static>>, u16) {
    let (mut websocket, mut all, mut spare) = (WebSocket::default(), vec![], Spare::default());
    for piece in bytes.chunks(size) {
        let mut own = 0;
        if let Some(partial) = websocket.begun()
            && let Some(room) = partial.room()
        {
            own = room.len().min(piece.len());
            room[..own].copy_from_slice(&piece[..own]);
            partial.took(own);
        }
        let mut rest = piece[own..].to_vec();
        if let Err(fault) = hear(&mut websocket, &mut rest, limits, &mut spare, &mut all) {
            return (all, fault.code.into());
        }
    }
    (all, 0)
}

#[test]
fn a_long_message_is_the_same_read_straight_or_not_with_others_before_and_behind_it() {
    let limits = Limits { max_message: 1 << 20, ..Limits::default() };
    let long = "déjà".repeat(20_000);
    let (begin, rest) = long.as_bytes().split_at(70_001);
    let bytes = [
        masked(0x81, b"short"),
        masked(0x01, begin),
        masked(0x89, b"?"),
        masked(0x00, b""),
        masked(0x00, &rest[..1]),
        masked(0x80, &rest[1..]),
        masked(0x82, &[0xff; 65_536]),
        masked(0x82, &[0xfe; 65_535]),
        masked(0x81, b"short"),
    ]
    .concat();
    let whole = receive(&[&bytes], &limits);
    assert_eq!((whole.0.len(), whole.1), (6, 0));
    assert_eq!(whole.0[2], text(&long));
    for size in [1, 13, 1000, 4096, 65_537, 200_000] {
        assert_eq!(receive_straight(&bytes, size, &limits), whole, "{size}");
    }
    let mut bad = masked(0x81, &[b'a'; 70_000]);
    bad[60_000] ^= b'a' ^ 0xff;
    bad.truncate(60_001);
    for size in [1, 1000, 59_999] {
        assert_eq!(receive_straight(&bad, size, &limits), (vec![], 1007), "{size}");
    }
}

#[test]
fn control_frames_may_stand_between_fragments_and_empty_frames_are_frames() {
    let bytes = [
        masked(0x01, "é".as_bytes().get(..1).unwrap()),
        masked(0x89, b""),
        masked(0x00, b""),
        masked(0x8a, b"late"),
        masked(0x80, "é!".as_bytes().get(1..).unwrap()),
        masked(0x81, b""),
        masked(0x88, b"\x03\xe8bye"),
    ]
    .concat();
    let close = Incoming::Close(CloseCode::Normal, "bye".into());
    let expected = vec![Incoming::Ping(vec![].into()), Incoming::Pong, text("é!"), text(""), close];
    assert_eq!(receive_cut(&bytes, &Limits::default()), (expected, 0));
}

#[test]
fn what_a_header_proves_wrong_is_refused_before_its_payload() {
    for (bytes, code) in [
        (&b"\x81\x05"[..], 1002),                        // not masked
        (b"\xc1", 1002),                                 // RSV1
        (b"\xa1", 1002),                                 // RSV2
        (b"\x91", 1002),                                 // RSV3
        (b"\x83", 1002),                                 // reserved data opcode
        (b"\x8b", 1002),                                 // reserved control opcode
        (b"\x89\xfe", 1002),                             // a ping of more than 125 bytes
        (b"\x09", 1002),                                 // a ping in fragments
        (b"\x80\x80\0\0\0\0", 1002),                     // a continuation of nothing
        (b"\x81\xfe\x00\x7d\0\0\0\0", 1002),             // 125 in two bytes
        (b"\x81\xff\0\0\0\0\0\0\xff\xff\0\0\0\0", 1002), // 65535 in eight
        (b"\x81\xff\x80\0\0\0\0\0\0\0\0\0\0\0", 1002),   // the first bit of the length
        (b"\x81\xff\0\0\0\0\0\x01\0\x01\0\0\0\0", 1009), // 65537 over 65536
        (b"\x88\x81\0\0\0\0", 1002),                     // half a close code
    ] {
        assert_eq!(receive_cut(bytes, &Limits::default()), (vec![], code), "{bytes:x?}");
    }
}

#[test]
fn rsv1_stands_where_a_compressed_message_begins_and_nowhere_else() {
    let limits = Limits::default();
    let deflated = |kind, bytes: &[u8]| Incoming::Deflated(kind, bytes.to_vec().into());
    for (bytes, expected) in [
        (masked(0xc1, b"\xf2\x48"), (vec![deflated(Kind::Text, b"\xf2\x48")], 0)),
        (masked(0xc2, b""), (vec![deflated(Kind::Binary, b"")], 0)),
        (masked(0x81, b"Hi"), (vec![text("Hi")], 0)),
        (masked(0xe1, b""), (vec![], 1002)),
        (masked(0xd1, b""), (vec![], 1002)),
        (masked(0xc0, b""), (vec![], 1002)),
        (masked(0xc3, b""), (vec![], 1002)),
        (masked(0xc8, b""), (vec![], 1002)),
        (masked(0xc9, b""), (vec![], 1002)),
        (masked(0xca, b""), (vec![], 1002)),
        // Not in a continuation, compressed or not, final or not.
        ([masked(0x01, b"a"), masked(0xc0, b"b")].concat(), (vec![], 1002)),
        ([masked(0x41, b"a"), masked(0x40, b"b")].concat(), (vec![], 1002)),
        // Fragments are put together as they are; others may stand between them, and behind
        // them a message that is not compressed.
        (
            [
                masked(0x41, b"\xff"),
                masked(0x89, b"?"),
                masked(0x00, b""),
                masked(0x80, b"\xfe"),
                masked(0x01, b"pla"),
                masked(0x80, b"in"),
            ]
            .concat(),
            (
                vec![
                    Incoming::Ping(b"?".to_vec().into()),
                    deflated(Kind::Text, b"\xff\xfe"),
                    text("plain"),
                ],
                0,
            ),
        ),
    ] {
        assert_eq!(receive_cut_by(true, &bytes, &limits), expected, "{bytes:x?}");
    }
    // Text that is cut is not looked at before it is taken out, but plain text behind it is.
    let bytes = [masked(0x41, b"\xff"), masked(0x80, b""), masked(0x81, b"\xff")].concat();
    let expected = (vec![deflated(Kind::Text, b"\xff")], 1007);
    assert_eq!(receive_cut_by(true, &bytes, &limits), expected);
}

#[test]
fn a_compressed_message_may_be_a_little_longer_than_the_limit_until_it_is_taken_out() {
    let limits = Limits { max_message: 2048, ..Limits::default() };
    let most = 2048 + 2 + 64;
    let deflated = |bytes: usize| vec![Incoming::Deflated(Kind::Binary, vec![7; bytes].into())];
    let whole =
        |bytes: usize| receive_by(WebSocket::new(true), &[&masked(0xc2, &vec![7; bytes])], &limits);
    assert_eq!(whole(most), (deflated(most), 0));
    assert_eq!(whole(most + 1), (vec![], 1009));
    let cut = |bytes: usize| {
        let frames = [masked(0x42, &[7; 2000]), masked(0x80, &vec![7; bytes - 2000])].concat();
        receive_by(WebSocket::new(true), &[&frames], &limits)
    };
    assert_eq!(cut(most), (deflated(most), 0));
    assert_eq!(cut(most + 1), (vec![], 1009));
    // What is not compressed is not.
    let plain = receive_by(WebSocket::new(true), &[&masked(0x82, &[7; 2049])], &limits);
    assert_eq!(plain, (vec![], 1009));
}

#[test]
fn a_compressed_message_is_taken_out_or_told_what_is_wrong_with_it() {
    let inflated = |kind, payload: &[u8], max| {
        let incoming = Incoming::Deflated(kind, payload.to_vec().into());
        let (mut lent, mut counters) = (Deflate::default(), Counters::default());
        let inflated = incoming.inflated(&mut lent, max, &mut counters);
        inflated.map(|it| owned(it, &mut Spare::default())).map_err(|it| it.code)
    };
    if cfg!(not(feature = "deflate")) {
        return;
    }
    let hello = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
    assert_eq!(inflated(Kind::Text, hello, 5), Ok(text("Hello")));
    let bytes = Incoming::Binary(b"Hello".to_vec().into());
    assert_eq!(inflated(Kind::Binary, hello, 5), Ok(bytes));
    assert_eq!(inflated(Kind::Text, hello, 4), Err(CloseCode::Size));
    assert_eq!(inflated(Kind::Text, b"\xff", 4), Err(CloseCode::Invalid));
    let not_utf8 = b"\x00\x01\x00\xfe\xff\xff\x00";
    assert_eq!(inflated(Kind::Text, not_utf8, 4), Err(CloseCode::Invalid));
    let bytes = Incoming::Binary(b"\xff".to_vec().into());
    assert_eq!(inflated(Kind::Binary, not_utf8, 4), Ok(bytes));
}

#[test]
fn the_message_limit_holds_over_fragments_and_lets_exactly_the_limit_pass() {
    let limits = Limits { max_message: 10, ..Limits::default() };
    let exact = [masked(0x02, b"12345"), masked(0x80, b"67890")].concat();
    let bytes = Incoming::Binary(b"1234567890".to_vec().into());
    assert_eq!(receive_cut(&exact, &limits), (vec![bytes], 0));
    let over = [masked(0x02, b"12345"), masked(0x80, b"678901")].concat();
    assert_eq!(receive_cut(&over, &limits), (vec![], 1009));
}

#[test]
fn fragments_are_limited_empty_ones_too() {
    let limits = Limits { fragments: 3, ..Limits::default() };
    let message = |count: usize| {
        let middle = masked(0x00, b"").repeat(count - 2);
        [masked(0x01, b""), middle, masked(0x80, b"")].concat()
    };
    assert_eq!(receive_cut(&message(3), &limits), (vec![text("")], 0));
    assert_eq!(receive_cut(&message(4), &limits), (vec![], 1008));
}

#[test]
fn bad_text_is_refused_where_it_stands() {
    let limits = Limits::default();
    for bad in [&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"] {
        // The frame promises a hundred bytes more than it sends.
        let mut frame = masked(0x81, &[b"abc", bad, &[0; 100]].concat());
        frame.truncate(6 + 3 + bad.len());
        assert_eq!(receive(&[&frame], &limits), (vec![], 1007), "{bad:x?}");
    }
    assert_eq!(receive_cut(&masked(0x81, b"\xc3"), &limits), (vec![], 1007));
    let open_end = [masked(0x01, b"\xc3"), masked(0x80, b"")].concat();
    assert_eq!(receive_cut(&open_end, &limits), (vec![], 1007));
}

#[test]
fn close_codes_are_checked() {
    for (payload, code) in [
        (&b""[..], Ok(1005)),
        (b"\x03\xe8", Ok(1000)),
        (b"\x0f\xa0ok", Ok(4000)),
        (b"\x03\xed", Err(1002)),
        (b"\x03\xee", Err(1002)),
        (b"\x03\xe7", Err(1002)),
        (b"\xff\xff", Err(1002)),
        (b"\x03\xe8\xff", Err(1007)),
    ] {
        let got = match receive_cut(&masked(0x88, payload), &Limits::default()) {
            (all, 0) => match &all[..] {
                [Incoming::Close(code, _)] => Ok(u16::from(*code)),
                other => panic!("{other:?}"),
            },
            (_, fault) => Err(fault),
        };
        assert_eq!(got, code, "{payload:x?}");
    }
}

#[test]
fn control_frames_are_limited_in_five_seconds() {
    let limits = Limits { controls: 2, ..Limits::default() };
    let receive = |ticks: [u32; 3]| {
        let mut websocket = WebSocket::default();
        ticks.map(|now| {
            let mut pong = masked(0x8a, b"");
            websocket
                .receive(&mut pong.as_mut_slice(), &limits, Tick(now), &mut Spare::default())
                .is_ok()
        })
    };
    assert_eq!(receive([0, 1, 2]), [true, true, false]);
    assert_eq!(receive([0, 0, 24]), [true, true, false]);
    assert_eq!(receive([0, 0, 25]), [true, true, true], "one more in half the time");
}

#[test]
fn a_promised_length_takes_no_memory_and_nothing_is_kept_between_messages() {
    let limits = Limits { max_message: 1 << 30, ..Limits::default() };
    let mut websocket = WebSocket::default();
    let mut head = b"\x82\xff\0\0\0\0\x3f\0\0\0\0\0\0\0x".to_vec();
    websocket.receive(&mut head.as_mut_slice(), &limits, Tick(0), &mut Spare::default()).unwrap();
    let partial = websocket.partial.as_ref().unwrap();
    assert!(partial.payload.capacity() <= 2 * RESERVE_BYTES_MAX);
    let mut websocket = WebSocket::default();
    let mut whole = [masked(0x01, b"a"), masked(0x80, b"b")].concat();
    assert!(
        websocket
            .receive(&mut whole.as_mut_slice(), &limits, Tick(0), &mut Spare::default())
            .unwrap()
            .is_some()
    );
    assert!(websocket.partial.is_none());
}
