//! Compressed messages that are bombs, lies or garbage, and those that are so many bytes as may be.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::peer::Peer;
use crate::support::websocket::{BINARY, RSV1, TEXT, deflate, frame};
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
