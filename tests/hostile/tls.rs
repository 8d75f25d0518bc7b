//! Over TLS: handshakes that are cut, garbage, plain HTTP, a flood of handshakes, half a record.
//! The innocent who are asked after each attack speak TLS too. What rustls refuses and how that is
//! told is `tests/tls.rs`.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::endings::grows_no_more;
use crate::peer::{PATIENCE, Peer, ms, opening};
use crate::support::certificate::{Pair, connection};
use crate::support::{Came, Door, now};
use crate::target::Target;

/// Where a handshake is cut: every few bytes, and at each of the first and last ones.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    (0..=length).filter(move |at| at % 5 == 0 || *at < 16 || length - at < 8)
}

/// How a peer leaves.
#[derive(Clone, Copy)]
enum Leaves {
    /// Says no more, and waits for the other's end.
    WithFin,
    WithReset,
}

const BOTH: [Leaves; 2] = [Leaves::WithFin, Leaves::WithReset];

impl Target {
    /// The same door for those who do not speak TLS.
    fn plain(&self) -> Door {
        match &self.door {
            Door::Tls(address, _) => Door::Tcp(*address),
            _ => panic!("it has a certificate"),
        }
    }
}

impl Peer {
    fn leaves(mut self, how: Leaves) {
        match how {
            Leaves::WithReset => self.wire.reset(),
            Leaves::WithFin => {
                let _ = self.wire.finish();
                // It does not end by itself: the server has to.
                self.ends();
            }
        }
    }

    /// Takes what has come, once something has.
    fn takes(&mut self) -> Vec<u8> {
        assert_eq!(self.wire.fill(now() + PATIENCE), Came::More);
        std::mem::take(&mut self.wire.unread)
    }
}

#[test]
fn a_hello_that_is_cut_at_any_byte_by_an_end_or_a_reset_leaves_nothing_behind() {
    let pair = Pair::new("hostile-hello");
    let mut target = Target::start_secure(&pair, &[]);
    target.survives(|target| {
        let (door, hello) = (target.plain(), pair.hello());
        for at in cuts(hello.len()) {
            for how in BOTH {
                let mut peer = Peer::connect(&door);
                peer.says(&hello[..at]);
                peer.leaves(how);
            }
        }
    });
    assert_eq!(target.counter("closed.head-timeout"), 0, "nobody was waited for");
}

#[test]
fn a_handshake_that_is_cut_in_its_second_flight_or_behind_it_leaves_nothing_behind() {
    let pair = Pair::new("hostile-flight");
    let mut target = Target::start_secure(&pair, &[]);
    target.survives(|target| {
        let door = target.plain();
        // The second flight, and a request behind it: the length of both is always the same.
        let mut length = 1;
        let mut at = 0;
        while at <= length {
            for how in BOTH {
                let mut client = connection(&pair.trust);
                let mut peer = Peer::connect(&door);
                let mut said = Vec::new();
                client.write_tls(&mut said).unwrap();
                peer.says(&said);
                said.clear();
                while client.is_handshaking() {
                    let came = peer.takes();
                    client.read_tls(&mut came.as_slice()).unwrap();
                    client.process_new_packets().unwrap();
                }
                let ask = opening("/websocket?topic=cut", "");
                client.writer().write_all(ask.as_bytes()).unwrap();
                while client.wants_write() {
                    client.write_tls(&mut said).unwrap();
                }
                length = said.len();
                peer.says(&said[..at.min(length)]);
                peer.leaves(how);
            }
            at += 7;
        }
        assert!(length > 100, "{length} bytes");
    });
}

/// Bytes that follow no rule, always the same ones.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let next = |state: &mut u32| {
        // Numerical Recipes' linear congruential generator.
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some((*state >> 24) as u8)
    };
    std::iter::repeat_n((), length).scan(seed, |state, ()| next(state)).collect()
}

/// What is no TLS, or not at this place.
fn garbage(hello: &[u8]) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..40).map(|seed| noise(seed, 3000)).collect();
    // Records of each type and of lengths that are too long, empty, or not those of what follows.
    for kind in [0x00, 0x14, 0x15, 0x16, 0x17, 0x18, 0x80, 0xff] {
        for length in [[0x00, 0x00], [0x00, 0x01], [0x40, 0x00], [0x48, 0x01], [0xff, 0xff]] {
            all.push([&[kind, 3, 3, length[0], length[1]], &noise(7, 2000)[..]].concat());
        }
    }
    // Empty records without end; a hello twice; a hello with one byte of another value.
    all.push([0x16, 3, 1, 0, 0].repeat(2000));
    all.push(hello.repeat(3));
    for at in (0..hello.len()).step_by(4) {
        let mut changed = hello.to_vec();
        changed[at] ^= 0x41;
        all.push(changed);
    }
    all
}

#[test]
fn garbage_in_place_of_a_handshake_leaves_nothing_behind() {
    let pair = Pair::new("hostile-garbage");
    let mut target = Target::start_secure(&pair, &[]);
    target.survives(|target| {
        let door = target.plain();
        for (at, bytes) in garbage(&pair.hello()).iter().enumerate() {
            let mut peer = Peer::connect(&door);
            peer.says(bytes);
            peer.leaves(BOTH[at % 2]);
        }
    });
    assert!(target.counter("tls_failures") > 20);
}

#[test]
fn garbage_without_end_in_place_of_a_handshake_disturbs_nobody() {
    let pair = Pair::new("hostile-garbage-flood");
    let mut target = Target::start_secure(&pair, &[]);
    target.withstands("garbage for TLS", |target| {
        let (door, all) = (target.plain(), garbage(&pair.hello()));
        target.flood(4, |_, flood| {
            let mut next = all.iter().cycle();
            while flood.goes_on() {
                let mut peers: Vec<Peer> = (0..25).map(|_| Peer::connect(&door)).collect();
                for peer in &mut peers {
                    // It is over for most before all of it is said.
                    let _ = peer.wire.send_some(&next.next().unwrap().repeat(20));
                }
                peers[0].wire.fill(now() + ms(100));
                peers.into_iter().for_each(|peer| peer.wire.reset());
            }
        });
    });
    assert!(target.counter("tls_failures") > 20);
}

#[test]
fn plain_http_where_tls_is_spoken_is_answered_and_disturbs_nobody() {
    let pair = Pair::new("hostile-plain");
    let mut target = Target::start_secure(&pair, &[]);
    target.withstands("plain HTTP for TLS", |target| {
        let door = target.plain();
        target.flood(4, |_, flood| {
            while flood.goes_on() {
                let mut peer = Peer::connect(&door);
                peer.says(opening("/websocket", ""));
                let told = peer.ends();
                assert!(told.starts_with(b"HTTP/1.1 400 "), "{:?}", String::from_utf8_lossy(&told));
            }
        });
    });
    assert!(target.counter("refused.tls") > 10);
}

#[test]
fn a_flood_of_handshakes_begun_or_done_disturbs_nobody() {
    let pair = Pair::new("hostile-handshakes");
    let mut target = Target::start_secure(&pair, &[]);
    let hello = pair.hello();
    target.withstands("handshakes", |target| {
        let plain = target.plain();
        target.flood(4, |door, flood| {
            while flood.goes_on() {
                // Whoever has said hello has made the server work, and can go: twenty at once.
                let mut peers: Vec<Peer> = (0..20).map(|_| Peer::connect(&plain)).collect();
                peers.iter_mut().for_each(|peer| peer.says(&hello));
                for (at, mut peer) in peers.into_iter().enumerate() {
                    let _ = peer.wire.fill(now() + ms(100));
                    if at % 2 == 0 {
                        peer.wire.reset();
                    }
                }
                // And one who goes to the end of it.
                let mut peer = Peer::connect(door);
                peer.says("GET /api/messages?limit=0 HTTP/1.1\r\nHost: localhost\r\n\r\n");
                assert_eq!(peer.answer().status, 200);
            }
        });
    });
    let done = target.counter("tls_handshakes");
    println!("{} connections, {done} handshakes done", target.counter("accepted"));
}

/// Hellos as fast as one process can say them, to a server whose signatures take milliseconds.
fn hellos_without_end(pair: &Pair, what: &str) {
    let mut target = Target::start_secure(pair, &[]);
    // What the allocator keeps of as many handshakes as `openings` allows.
    target.margin = 48 << 20;
    let hello = pair.hello();
    let said = target.withstands(what, |target| {
        let (plain, said, before) = (target.plain(), AtomicUsize::new(0), target.descriptors());
        target.flood(1, |_, flood| {
            let mut peers = VecDeque::new();
            while flood.goes_on() {
                let mut peer = Peer::connect(&plain);
                peer.says(&hello);
                peers.push_back(peer);
                if peers.len() > 200 {
                    peers.pop_front();
                }
                said.fetch_add(1, SeqCst);
            }
            peers.into_iter().for_each(|peer| peer.wire.reset());
        });
        // As long as some of them are there, `openings` may drop a newcomer for another.
        target.until("who said hello is gone", |target| target.descriptors() <= before);
        said.into_inner()
    });
    println!("{what}: {said} hellos");
}

#[test]
fn a_flood_of_hellos_to_a_key_of_rsa_disturbs_nobody() {
    hellos_without_end(&Pair::rsa_2048("hostile-rsa-2048"), "hellos to RSA-2048");
    hellos_without_end(&Pair::rsa_4096("hostile-rsa-4096"), "hellos to RSA-4096");
}

#[test]
fn half_a_record_and_silence_are_dropped_in_time() {
    let pair = Pair::new("hostile-half");
    let flags = ["--head-timeout", "1s", "--ping", "300ms", "--pong-timeout", "300ms"];
    let mut target = Target::start_secure_without_witness(&pair, &flags);
    target.survives(|target| {
        let Door::Tls(address, trust) = &target.door else { panic!("it has a certificate") };
        let mut sockets = Vec::new();
        for at in 0..60 {
            let mut socket = std::net::TcpStream::connect(address).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut client = connection(trust);
            client.complete_io(&mut socket).unwrap();
            // Half of a request, or of what a WebSocket says.
            let mut said = Vec::new();
            if at % 2 == 0 {
                let mut stream = rustls::Stream::new(&mut client, &mut socket);
                let ask = opening("/websocket?topic=half", "");
                stream.write_all(ask.as_bytes()).unwrap();
                assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
            }
            client.writer().write_all(&[b'G'; 2000]).unwrap();
            client.write_tls(&mut said).unwrap();
            socket.write_all(&said[..said.len() / 2]).unwrap();
            sockets.push(socket);
        }
        // None of them ends by itself, and none is waited for.
        for socket in &mut sockets {
            let _ = socket.read_to_end(&mut Vec::new());
            let _ = socket.shutdown(Shutdown::Both);
        }
    });
    assert_eq!(target.counter("closed.head-timeout"), 30);
    assert_eq!(target.counter("closed.pong-timeout"), 30);
}

#[test]
fn once_it_has_seen_many_who_come_and_go_over_tls_it_grows_no_more() {
    let pair = Pair::new("hostile-churn");
    grows_no_more(&mut Target::start_secure(&pair, &[]), 1000);
}
