//! Frames that lie about their length, break a rule that the header shows, or come without end.

use crate::peer::{PATIENCE, Peer, promise};
use crate::support::now;
use crate::support::websocket::{BINARY, Incoming, PING, PONG, TEXT, frame};
use crate::target::{Flood, Target};

const FIN: u8 = 0x80;

/// The bytes of a header and no more, and the close code that has to come.
fn headers() -> Vec<(&'static str, Vec<u8>, u16)> {
    let continuation = 0x00;
    vec![
        ("a text that is not masked", vec![0x81, 0x05], 1002),
        ("a long text that is not masked", vec![0x81, 0x7e, 0x10, 0x00], 1002),
        ("a ping that is not masked", vec![0x89, 0x01], 1002),
        ("a close that is not masked", vec![0x88, 0x02], 1002),
        ("RSV1", vec![0xc1, 0x85], 1002),
        ("RSV2", vec![0xa1, 0x85], 1002),
        ("RSV3", vec![0x91, 0x85], 1002),
        ("all of RSV", vec![0xf1, 0x85], 1002),
        ("RSV1 on a ping", vec![0xc9, 0x80], 1002),
        ("opcode 3", vec![0x83, 0x85], 1002),
        ("opcode 7", vec![0x87, 0x85], 1002),
        ("opcode 11", vec![0x8b, 0x80], 1002),
        ("opcode 15", vec![0x8f, 0x80], 1002),
        ("a ping of 126", vec![0x89, 0xfe, 0x00, 0x7e], 1002),
        ("a pong of 64 KiB", promise(FIN | PONG, 65_536), 1002),
        ("a close of 126", vec![0x88, 0xfe, 0x00, 0x7e], 1002),
        ("a ping in fragments", vec![0x09, 0x80], 1002),
        ("a close in fragments", vec![0x08, 0x82], 1002),
        ("a continuation of nothing", vec![continuation, 0x85, 0, 0, 0, 0], 1002),
        ("the end of nothing", vec![FIN | continuation, 0x85, 0, 0, 0, 0], 1002),
        ("a length of 5 in two bytes", vec![0x82, 0xfe, 0x00, 0x05, 0, 0, 0, 0], 1002),
        ("a length of 125 in two bytes", vec![0x82, 0xfe, 0x00, 0x7d, 0, 0, 0, 0], 1002),
        ("a length of 0 in eight bytes", promise(FIN | BINARY, 0), 1002),
        ("a length of 65535 in eight bytes", promise(FIN | BINARY, 65_535), 1002),
        ("a length with the sign bit", promise(FIN | BINARY, 1 << 63), 1002),
        ("a length of -1", promise(FIN | BINARY, u64::MAX), 1002),
        ("the longest length", promise(FIN | BINARY, (1 << 63) - 1), 1009),
        ("a length of 2^62", promise(FIN | TEXT, 1 << 62), 1009),
        ("a length of 2^32 and a little", promise(FIN | BINARY, (1 << 32) + 5), 1009),
        ("a length of 2^31", promise(TEXT, 1 << 31), 1009),
        ("one byte too many", promise(FIN | BINARY, 65_537), 1009),
        (
            "one byte too many, in fragments",
            [frame(false, BINARY, b"12"), vec![0x80, 0xfe, 0xff, 0xff, 0, 0, 0, 0]].concat(),
            1009,
        ),
        (
            "a length that wraps with the fragment before",
            [frame(false, BINARY, b"12345678"), promise(0x80, (1 << 63) - 1)].concat(),
            1009,
        ),
    ]
}

#[test]
fn what_a_header_proves_wrong_is_refused_at_the_header_without_a_byte_of_its_payload() {
    let mut target = Target::start(&[]);
    target.survives(|target| {
        for (what, bytes, code) in headers() {
            // Whole, and byte by byte.
            for piece in [bytes.len(), 1] {
                let mut peer = Peer::opens(&target.door, "/websocket", "");
                bytes.chunks(piece).for_each(|piece| peer.says(piece));
                let close = peer.hears_until(now() + PATIENCE);
                let is_told =
                    matches!(&close, Ok(Incoming::Close(Some((told, _)))) if *told == code);
                assert!(is_told, "{what}: {close:?} and not {code}");
            }
        }
    });
}

#[test]
fn hundreds_of_lengths_that_are_only_promised_take_no_memory() {
    // One more than allowed is refused; so many that are allowed are believed and not prepared for.
    let mut target = Target::start(&["--max-message", "256MiB"]);
    target.margin = 4 << 20;
    let grown = target.survives(|target| {
        let mut peers: Vec<Peer> =
            (0..300).map(|_| Peer::opens(&target.door, "/websocket?topic=promises", "")).collect();
        for peer in &mut peers {
            peer.says([promise(FIN | BINARY, 256 << 20), vec![7; 10]].concat());
        }
        // Whoever is answered now was read after all of them.
        assert_eq!(target.gets("/api/messages?limit=0").status, 200);
        target.heap_grown()
    });
    println!("300 frames of 256 MiB promised: {} KiB of heap", grown >> 10);
    assert!(grown < 300 * 40 * 1024, "{grown} bytes for promises");
}

#[test]
fn payloads_that_are_no_utf8_or_no_close_are_refused_and_nothing_behind_them_is_heard() {
    let mut target = Target::start(&[]);
    let close = |payload: &[u8]| frame(true, 8, payload);
    let text = |payload: &[u8]| frame(true, TEXT, payload);
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("ff", text(b"\xff"), 1007),
        ("an overlong slash", text(b"\xc0\xaf"), 1007),
        ("an overlong NUL", text(b"\xe0\x80\x80"), 1007),
        ("a surrogate", text(b"\xed\xa0\x80"), 1007),
        ("above U+10FFFF", text(b"\xf4\x90\x80\x80"), 1007),
        ("half a character", text(b"abc\xf0\x9f\x98"), 1007),
        ("a continuation byte", text(b"\x80"), 1007),
        ("five bytes for one", text(b"\xf8\x88\x80\x80\x80"), 1007),
        // Told at once: the message is not over.
        ("bad in the first fragment", frame(false, TEXT, b"ok \xc0"), 1007),
        (
            "bad across fragments",
            [frame(false, TEXT, b"\xe2\x82"), frame(false, 0, b"a")].concat(),
            1007,
        ),
        (
            "half a character at the end of fragments",
            [frame(false, TEXT, b"a"), frame(true, 0, b"\xe2\x82")].concat(),
            1007,
        ),
        ("a close of one byte", close(&[3]), 1002),
        ("close code 0", close(&[0, 0]), 1002),
        ("close code 999", close(&999u16.to_be_bytes()), 1002),
        ("close code 1004", close(&1004u16.to_be_bytes()), 1002),
        ("close code 1005", close(&1005u16.to_be_bytes()), 1002),
        ("close code 1006", close(&1006u16.to_be_bytes()), 1002),
        ("close code 1015", close(&1015u16.to_be_bytes()), 1002),
        ("close code 2999", close(&2999u16.to_be_bytes()), 1002),
        ("close code 5000", close(&5000u16.to_be_bytes()), 1002),
        ("close code 65535", close(&[0xff, 0xff]), 1002),
        ("a reason that is no UTF-8", close(b"\x03\xe8\xc0\xaf"), 1007),
    ];
    target.survives(|target| {
        let mut reader = Peer::opens(&target.door, "/websocket?topic=behind", "");
        for (what, bytes, code) in &cases {
            let mut peer = Peer::opens(&target.door, "/websocket?topic=behind", "");
            peer.says([bytes.clone(), text(b"behind")].concat());
            assert_eq!(peer.close_code(), *code, "{what}");
        }
        // The reader has heard none of what stood behind.
        reader.pings(b"nothing?");
    });
}

/// Peers who send this again and again, do not read, and come back when they are cut off.
fn floods_without_reading(
    what: &str,
    path: &str,
    begin: &[u8],
    piece: &[u8],
    flags: &[&str],
) -> Target {
    let mut target = Target::start(flags);
    // The history, and what the allocator keeps: in the turn that one of them begins, each of the
    // four may bring `turn-read` bytes more, which are dropped only at its end.
    target.margin = 4 << 20;
    let most = target.withstands(what, |target| {
        let most = std::sync::atomic::AtomicU64::new(0);
        target.flood(4, |door, flood: &Flood| {
            while flood.goes_on() {
                let mut peer = Peer::opens(door, path, "");
                if peer.wire.send(begin).is_err() {
                    continue;
                }
                // A part that was not taken is sent first the next time, so that frames stay whole.
                let (mut at, mut fails) = (0, false);
                while flood.goes_on() && !fails {
                    match peer.wire.send_some(&piece[at..]) {
                        Ok(sent) => at = (at + sent) % piece.len(),
                        Err(_) => fails = true,
                    }
                }
                most.fetch_max(target.heap_grown(), std::sync::atomic::Ordering::SeqCst);
            }
        });
        most.into_inner()
    });
    println!("{what}: {} KiB of heap more at the most", most >> 10);
    // History: 1 MiB and its bookkeeping. For each of the four: `outbox-soft` and one message.
    assert!(most < (4 << 20), "{what}: {most} bytes");
    target
}

#[test]
fn tiny_fragments_without_end_are_cut_off_and_disturb_nobody() {
    let (begin, tiny) = (frame(false, BINARY, b"x"), frame(false, 0, b"x").repeat(5000));
    let path = "/websocket?topic=flood";
    let target = floods_without_reading("tiny fragments", path, &begin, &tiny, &[]);
    assert!(target.counter("closed.fragments") > 0);
}

#[test]
fn empty_fragments_without_end_are_cut_off_and_disturb_nobody() {
    let (begin, empty) = (frame(false, TEXT, b""), frame(false, 0, b"").repeat(5000));
    let path = "/websocket?topic=flood";
    let target = floods_without_reading("empty fragments", path, &begin, &empty, &[]);
    assert!(target.counter("closed.fragments") > 0);
}

#[test]
fn pings_between_fragments_do_not_hide_how_many_fragments_there_are() {
    let pair = [frame(false, 0, b""), frame(true, PONG, b"")].concat().repeat(3000);
    let path = "/websocket?topic=flood";
    let begin = frame(false, TEXT, b"");
    let target = floods_without_reading("fragments and pongs", path, &begin, &pair, &[]);
    assert!(target.counter("closed.fragments") + target.counter("closed.controls") > 0);
}

#[test]
fn pings_without_end_are_cut_off_and_disturb_nobody() {
    let pings = frame(true, PING, &[7; 125]).repeat(1000);
    let path = "/websocket?topic=flood";
    let target = floods_without_reading("pings", path, b"", &pings, &[]);
    assert!(target.counter("closed.controls") > 0);
}

#[test]
fn pings_that_are_allowed_without_end_take_no_memory_and_disturb_nobody() {
    let pings = frame(true, PING, &[7; 125]).repeat(1000);
    let path = "/websocket?topic=flood";
    floods_without_reading(
        "pings without a limit",
        path,
        b"",
        &pings,
        &["--limit", "controls=1000000000"],
    );
}

#[test]
fn messages_without_end_from_peers_who_do_not_read_them_take_no_memory_and_disturb_nobody() {
    let large = frame(true, BINARY, &[7; 16_000]).repeat(4);
    let path = "/websocket?topic=flood";
    floods_without_reading("messages of 16 kB", path, b"", &large, &[]);
}

#[test]
fn tiny_messages_without_end_take_no_memory_and_disturb_nobody() {
    let tiny = frame(true, TEXT, b"").repeat(5000);
    let path = "/websocket?topic=flood";
    floods_without_reading("empty messages", path, b"", &tiny, &[]);
}

#[test]
fn after_a_close_frame_nothing_that_comes_is_heard_and_the_peer_is_dropped_in_time() {
    let mut target = Target::start(&[]);
    target.survives(|target| {
        let mut reader = Peer::opens(&target.door, "/websocket?topic=after", "");
        let mut peer = Peer::opens(&target.door, "/websocket?topic=after", "");
        peer.says([frame(true, 8, &1000u16.to_be_bytes()), frame(true, TEXT, b"late")].concat());
        assert_eq!(peer.close_code(), 1000);
        // It goes on for as long as it is let.
        let end = now() + PATIENCE;
        while peer.wire.send(&frame(true, TEXT, b"later")).is_ok() {
            assert!(now() < end, "who has closed may not go on for ever");
        }
        reader.pings(b"nothing?");
    });
}
