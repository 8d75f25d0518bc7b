//! Peers who mean harm, and the innocent client beside them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use pousse::Reason;

use crate::by_hand::ByHand;
use crate::clients::Filler;
use crate::peer::{Innocent, Peer, frame, frame_head, opening};
use crate::process::Process;
use crate::running::{PATIENCE, Running, ms, now};

#[test]
fn a_head_byte_by_byte_is_cut_off_at_its_deadline() {
    let running = Running::chat(|limits| limits.head_timeout = ms(500));
    let mut innocent = Innocent::of(&running);
    let before = now();
    let mut peers = [(); 20].map(|()| Peer::connect(running.address));
    // The time-outs of reading are what slows it down: twenty clients, some milliseconds each.
    let told = 'all: loop {
        for peer in &mut peers {
            peer.says("a");
            if peer.reads(ms(2)).is_some() {
                break 'all now() - before;
            }
        }
        innocent.is_served();
        assert!(now() - before < PATIENCE, "bytes that go on coming must not push it away");
    };
    assert!((ms(500)..ms(3000)).contains(&told), "{told:?}");
    for mut peer in peers {
        assert_eq!(peer.answer().status, 408);
    }
    running.counts("closed.head-timeout", |now| now.closed(Reason::HeadTimeout) == 20);
    innocent.is_served();
}

#[test]
fn the_work_for_an_endless_head_grows_with_its_bytes_and_not_with_their_square() {
    // Looked at again after each byte this would be 32 billion bytes, and an hour here.
    let mut by_hand = ByHand::new(|limits| limits.head_bytes = 1 << 20);
    let before = now();
    by_hand.says(b"GET / HTTP/1.1\r\nX: ");
    for _ in 0..1 << 18 {
        by_hand.says(b"a");
    }
    let took = now() - before;
    println!("256 KiB of one head byte by byte: {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(by_hand.heard.is_empty());
}

#[test]
fn empty_lines_without_end_are_refused_with_431() {
    let running = Running::chat(|_| {});
    let mut innocent = Innocent::of(&running);
    for flood in ["\r\n".repeat(100_000), "\r".repeat(100_000)] {
        let mut peer = Peer::connect(running.address);
        peer.says(flood);
        let answer = peer.answer();
        assert!(matches!(answer.status, 400 | 414 | 431), "{}", answer.head);
        innocent.is_served();
    }
    running.counts("refused.head-bytes", |now| now.refused(Reason::HeadBytes) >= 1);
}

#[test]
fn a_content_promised_without_measure_is_refused_before_it_comes() {
    let running = Running::chat(|_| {});
    let mut innocent = Innocent::of(&running);
    for length in ["65537", "9223372036854775808", "18446744073709551616", &"9".repeat(1000)] {
        for expect in ["", "Expect: 100-continue\r\n"] {
            let mut peer = Peer::connect(running.address);
            peer.says(format!(
                "POST /api/messages HTTP/1.1\r\nHost: localhost\r\n{expect}\
                 Content-Length: {length}\r\n\r\n"
            ));
            let answer = peer.answer();
            assert_eq!(answer.status, 413, "{length}: {}", answer.head);
            assert_eq!(peer.ends(), b"");
        }
    }
    running.counts("closed.max-message", |now| now.closed(Reason::MaxMessage) == 8);
    innocent.is_served();
}

#[test]
fn lengths_that_are_only_promised_take_no_memory() {
    const PEERS: u64 = 200;
    let process = Process::start(1024, &[("max-message", "1GiB"), ("max-clients", "900")]);
    let mut peers: Vec<Peer> =
        (0..PEERS).map(|_| Peer::open(process.address, "/websocket")).collect();
    let before = process.resident_bytes();
    for peer in &mut peers {
        peer.says(frame_head(0x82, 1 << 30));
        peer.says([7; 100]);
    }
    let posting: Vec<Peer> = (0..PEERS)
        .map(|_| {
            let mut peer = Peer::connect(process.address);
            peer.says(format!(
                "POST /api/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\na",
                1 << 30
            ));
            peer
        })
        .collect();
    // Whoever is answered now was read after all of them.
    let mut innocent = Peer::connect(process.address);
    assert_eq!(innocent.asks("GET /api/messages?limit=0").status, 200);
    let grown = process.resident_bytes().saturating_sub(before);
    println!("{PEERS} frames and {PEERS} contents of 1 GiB promised: {grown} bytes more");
    assert!(grown < PEERS * 2 * 40 * 1024, "{grown} bytes for promises");
    drop((peers, posting));
}

#[test]
fn fragments_without_end_are_closed_with_1008_whatever_is_in_them() {
    let running = Running::chat(|_| {});
    let mut innocent = Innocent::of(&running);
    for payload in [&b""[..], b"x", &[7; 200]] {
        let mut peer = Peer::open(running.address, "/websocket");
        peer.says(frame(0x02, payload));
        peer.says(frame(0x00, payload).repeat(10_000));
        assert_eq!(peer.hears_close(), 1008, "{} bytes", payload.len());
        innocent.is_served();
    }
    running.counts("closed.fragments", |now| now.refused(Reason::Fragments) == 3);
}

#[test]
fn control_frames_without_end_are_closed_with_1008() {
    let running = Running::chat(|_| {});
    let mut innocent = Innocent::of(&running);
    for first in [0x89, 0x8a] {
        let mut peer = Peer::open(running.address, "/websocket");
        peer.says(frame(first, &[7; 125]).repeat(2000));
        assert_eq!(peer.hears_close(), 1008);
        innocent.is_served();
    }
    running.counts("refused.controls", |now| now.refused(Reason::Controls) == 2);
}

#[test]
fn a_client_that_does_not_read_gets_one_pong_for_all_its_pings() {
    let (filler, waits) = Filler::new();
    let running = Running::with(
        |limits| {
            limits.outbox_soft = 1 << 30;
            limits.controls = 1 << 30;
        },
        filler,
    );
    let mut innocent = Innocent::of(&running);
    let mut peer = Peer::open(running.address, "/websocket");
    peer.says(frame(0x81, b"fill"));
    running.counts("bytes wait for it", |_| waits.load(SeqCst) > 0);
    let pings: Vec<u8> = (0..1000u32).flat_map(|n| frame(0x89, &n.to_be_bytes())).collect();
    peer.says([pings, frame(0x81, b"done")].concat());
    running.counts("all are read", |now| now.received == 2);
    innocent.is_served();
    let before = now();
    let pong = loop {
        match peer.hears() {
            (0x82, payload) => assert_eq!(payload, Filler::PAYLOAD),
            other => break other,
        }
    };
    assert_eq!(pong, (0x8a, 999u32.to_be_bytes().to_vec()), "the newest is the one that counts");
    let took = now() - before;
    assert!(took < Duration::from_secs(4), "the pong came {took:?} after the client began to read");
    peer.says(frame(0x89, b"now"));
    assert_eq!(next_control(&mut peer), (0x8a, b"now".to_vec()), "and no other before this one");
}

fn next_control(peer: &mut Peer) -> (u8, Vec<u8>) {
    loop {
        let (first, payload) = peer.hears();
        if first & 0x08 != 0 {
            return (first, payload);
        }
    }
}

#[test]
fn beside_clients_that_chatter_an_innocent_one_is_served() {
    let running = Running::chat(|limits| limits.controls = 1 << 30);
    let mut innocent = Innocent::of(&running);
    let is_over = Arc::new(AtomicBool::new(false));
    let tiny = frame(0x82, b"").repeat(5000);
    let pings = frame(0x89, b"?").repeat(5000);
    let large = frame(0x82, &[7; 60_000]);
    let requests = b"GET /api/messages?limit=0 HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(50);
    let chatter = [("", tiny), ("", pings), ("", large), ("http", requests)];
    let threads: Vec<_> = chatter
        .into_iter()
        .map(|(kind, bytes)| {
            let is_over = is_over.clone();
            let address = running.address;
            std::thread::spawn(move || {
                let connect = || match kind {
                    "http" => Peer::connect(address),
                    _ => Peer::open(address, "/websocket?topic=nobody&topic=reads"),
                };
                let mut peer = connect();
                while !is_over.load(SeqCst) {
                    // One that reads too, in between, so that it can go on chattering.
                    if peer.tries_to_say(&bytes).is_err() || peer.reads(ms(1)) == Some(0) {
                        peer = connect();
                    }
                    while matches!(peer.reads(ms(1)), Some(1..)) && !is_over.load(SeqCst) {}
                    peer.forgets();
                }
            })
        })
        .collect();
    running.counts("they chatter", |now| now.read_bytes > 1 << 20 && now.requests > 100);
    for _ in 0..20 {
        innocent.is_served();
        running.serves_others();
    }
    is_over.store(true, SeqCst);
    for thread in threads {
        thread.join().unwrap();
    }
    println!("beside chatter a ping took {:?} at the longest", innocent.slowest());
}

#[test]
fn without_descriptors_the_next_clients_wait_and_then_are_told_503() {
    let process = Process::start(40, &[("max-clients", "10000")]);
    let mut innocent = Peer::open(process.address, "/websocket");
    let cpu = process.cpu();
    let crowd: Vec<Peer> = (0..60).map(|_| Peer::connect(process.address)).collect();
    let mut late = Peer::connect(process.address);
    late.says(opening("/websocket"));
    innocent.says(frame(0x89, b"?"));
    assert_eq!(innocent.hears(), (0x8a, b"?".to_vec()), "who is here is served");
    let answer = late.answer();
    assert_eq!(answer.status, 503, "it has waited, and nobody has left");
    assert!(answer.may_be_tried_again(), "{}", answer.head);
    let mut later = Peer::connect(process.address);
    assert_eq!(later.answer().status, 503);
    let spent = process.cpu() - cpu;
    println!("out of descriptors for a second: {spent:?} of CPU");
    assert!(spent < ms(350), "it must not try without end: {spent:?}");
    drop(crowd);
    // Who comes in the same turn as the last of the crowd is told 503 too, and a pause may be on.
    let end = now() + PATIENCE;
    loop {
        let mut next = Peer::connect(process.address);
        next.says(opening("/websocket"));
        match next.answer().status {
            101 => break,
            status => assert!(status == 503 && now() < end, "and then it is its turn: {status}"),
        }
    }
    innocent.says(frame(0x89, b"!"));
    assert_eq!(innocent.hears(), (0x8a, b"!".to_vec()));
}

/// The program keeps descriptors back, so that it never comes to that.
#[cfg(feature = "daemon")]
#[test]
fn the_program_has_its_clients_wait_before_descriptors_run_out() {
    let program = Process::program(70, &[]);
    let mut innocent = Peer::open(program.address, "/websocket");
    let crowd: Vec<Peer> = (0..30).map(|_| Peer::connect(program.address)).collect();
    let mut late = Peer::connect(program.address);
    late.says(opening("/websocket"));
    assert_eq!(late.reads(ms(200)), None);
    innocent.says(frame(0x89, b"?"));
    assert_eq!(innocent.hears(), (0x8a, b"?".to_vec()));
    drop(crowd);
    assert_eq!(late.answer().status, 101);
}
