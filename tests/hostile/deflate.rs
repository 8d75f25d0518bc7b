//! Compressed messages that are bombs, lies or garbage, and those that are so many bytes as may be.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::peer::{Peer, ms};
use crate::support::websocket::{BINARY, Incoming, RSV1, TEXT, deflate, frame};
use crate::target::{Flood, Target};

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";

/// A whole compressed message.
fn message(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(true, RSV1 | opcode, payload)
}

#[test]
fn compressed_garbage_is_refused_and_the_next_client_is_served_by_the_same_inflater() {
    let mut target = Target::start(&[]);
    // What is kept of what compressed the first time.
    target.margin = 1 << 20;
    let whole = deflate("a text that is whole, a text that is whole".repeat(30).as_bytes());
    let mut cases: Vec<(Vec<u8>, u16)> = vec![
        (b"".to_vec(), 1007),
        (b"\xff".to_vec(), 1007),
        (b"\x07\x00".to_vec(), 1007),
        (b"\x00\xff\xff\x00\x00".to_vec(), 1007),
        (b"\x02\x06\x00".to_vec(), 1007),
        (b"\x04\xc0\xff\xff\xff\xff".to_vec(), 1007),
        (vec![0xaa; 30_000], 1007),
        (deflate(&[0xff; 40]), 1007),
        (deflate(&vec![b'a'; 65_537]), 1009),
        (deflate(&vec![b'a'; 50 << 20]), 1009),
    ];
    cases.extend((1..whole.len()).map(|end| (whole[..end].to_vec(), 1007)));
    target.survives(|target| {
        for (payload, code) in &cases {
            let mut peer = Peer::opens(&target.door, "/websocket?topic=garbage", OFFER);
            peer.says(message(TEXT, payload));
            assert_eq!(peer.close_code(), *code, "{payload:x?}");
        }
        // No error of one is an error of the next, and none of them has heard anything.
        let mut peer = Peer::opens(&target.door, "/websocket?topic=garbage", OFFER);
        peer.says(message(TEXT, b"\xf2\x48\xcd\xc9\xc9\x07\x00"));
        assert_eq!(peer.hears().text(), Some("Hello"));
    });
}

/// Peers who send this again and again, read nothing, and come back when they are cut off; the
/// server's heap at its highest.
fn flood(what: &str, piece: &[u8], flags: &[&str]) -> u64 {
    let mut target = Target::start(flags);
    // The history of one topic, what compresses, and what the allocator keeps of both.
    target.margin = 4 << 20;
    let most = target.withstands(what, |target| {
        let most = AtomicU64::new(0);
        target.flood(4, |door, flood: &Flood| {
            while flood.goes_on() {
                let mut peer = Peer::opens(door, "/websocket?topic=bombs", OFFER);
                let mut fails = false;
                let mut at = 0;
                while flood.goes_on() && !fails {
                    match peer.wire.send_some(&piece[at..]) {
                        Ok(sent) => at = (at + sent) % piece.len(),
                        Err(_) => fails = true,
                    }
                }
                most.fetch_max(target.heap_grown(), Ordering::SeqCst);
            }
        });
        most.into_inner()
    });
    println!("{what}: {} KiB of heap more at the most", most >> 10);
    most
}

#[test]
fn bombs_without_end_take_no_memory_and_disturb_nobody() {
    // 1 GiB would come of each kilobyte or so, were they taken out.
    let bomb = message(BINARY, &deflate(&vec![0; 60 << 20]));
    let most = flood("bombs", &bomb, &[]);
    assert!(most < 6 << 20, "{most} bytes");
}

#[test]
fn messages_that_become_just_as_long_as_they_may_take_no_memory_and_disturb_nobody() {
    let zeros = message(BINARY, &deflate(&vec![0; 65_536]));
    let most = flood("zeros", &zeros.repeat(100), &[]);
    assert!(most < 6 << 20, "{most} bytes");
    let text = message(TEXT, &deflate("\u{1f331}".repeat(16_384).as_bytes()));
    let most = flood("texts", &text.repeat(100), &[]);
    assert!(most < 6 << 20, "{most} bytes");
}

#[test]
fn messages_of_final_blocks_that_are_empty_disturb_nobody() {
    let blocks = message(BINARY, &b"\x03\x00".repeat(32_000));
    let most = flood("blocks", &blocks, &[]);
    assert!(most < 6 << 20, "{most} bytes");
}

#[test]
fn messages_that_are_published_and_compressed_again_without_end_disturb_nobody() {
    let text = message(TEXT, &deflate("{\"price\":1234},".repeat(4000).as_bytes()));
    let most = flood("published", &text, &["--publish", "anyone"]);
    // History: 1 MiB, what is kept compressed of it, and its bookkeeping; for each of the four what
    // waits for it.
    assert!(most < 6 << 20, "{most} bytes");
}

/// Blocks of one letter, each with the largest code trees that there are: to read these takes most
/// of the time that a byte can cost.
fn trees(length: usize) -> Vec<u8> {
    /// Deflate's order of the lengths of code lengths (RFC 1951 section 3.2.7).
    const ORDER: [u8; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    /// The code lengths that occur; each has two bits.
    const LENGTHS: [u8; 4] = [4, 5, 8, 9];
    let mut block = Vec::new();
    let put = |block: &mut Vec<u8>, value: u16, bits: u8| {
        block.extend((0..bits).map(|at| (value >> at & 1) as u8));
    };
    // Codes come with their first bit first.
    let code = |block: &mut Vec<u8>, value: u16, bits: u8| {
        block.extend((0..bits).rev().map(|at| (value >> at & 1) as u8));
    };
    for (value, bits) in [(0, 1), (2, 2), (29, 5), (29, 5), (15, 4)] {
        put(&mut block, value, bits);
    }
    for length in ORDER {
        put(&mut block, if LENGTHS.contains(&length) { 2 } else { 0 }, 3);
    }
    // 286 codes of letters and lengths, 30 of distances, each set complete.
    let codes = [(8, 226), (9, 60), (5, 28), (4, 2)];
    for length in codes.iter().flat_map(|(length, count)| std::iter::repeat_n(length, *count)) {
        let at = LENGTHS.iter().position(|known| known == length).unwrap();
        code(&mut block, at as u16, 2);
    }
    code(&mut block, u16::from(b'a'), 8);
    code(&mut block, (226 << 1) + 30, 9);
    let mut bits = block.repeat(length * 8 / block.len());
    // An empty block that is stored: its length is what every message leaves out at its end.
    bits.extend([0, 0, 0]);
    let byte = |bits: &[u8]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | bit);
    bits.chunks(8).map(byte).collect()
}

#[test]
fn a_crowd_whose_messages_all_lack_their_last_byte_and_then_have_it_disturbs_nobody() {
    let message = message(BINARY, &trees(64_000));
    let (last, most) = message.split_last().unwrap();
    let mut target = Target::start(&[]);
    // What the allocator keeps of 250 messages that were held at once.
    target.margin = 24 << 20;
    let path = |number| format!("/websocket?topic=crowd-{number}");
    let mut heard = 0;
    target.withstands("250 whose last bytes come at once", |target| {
        let mut peers: Vec<Peer> =
            (0..250).map(|number| Peer::opens(&target.door, &path(number), OFFER)).collect();
        for _ in 0..2 {
            peers.iter_mut().for_each(|peer| peer.says(most));
            // All of it is there, and for a moment nothing else comes.
            target.waits(ms(200));
            peers.iter_mut().for_each(|peer| peer.says([*last]));
            for peer in &mut peers {
                let came = peer.hears();
                assert!(matches!(came, Incoming::Binary(_)), "{came}");
                heard += 1;
            }
        }
    });
    assert_eq!(heard, 500);
}
