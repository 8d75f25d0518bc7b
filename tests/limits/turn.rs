//! Limits on one turn of the loop, which is turned here by hand.

use std::net::SocketAddr;
use std::time::Duration;

use pousse::{ConnId, Context, Counters, Handler, Held, Message, Server, Tls};

use crate::peer::{Peer, frame, opening};
use crate::running::{Chat, Does, PATIENCE, bind, now};

/// Turns until it is so, and tells what each turn added to a count.
fn turns_until<H: Handler>(
    server: &mut Server<H>,
    is_so: impl Fn(&Counters) -> bool,
    count: impl Fn(&Counters) -> u64,
) -> Vec<u64> {
    let mut added = Vec::new();
    while !is_so(server.context().counters()) {
        let before = count(server.context().counters());
        server.turn(Some(PATIENCE)).unwrap();
        added.push(count(server.context().counters()) - before);
        assert!(added.len() < 10_000, "it never comes to an end");
    }
    added
}

fn open<H: Handler>(server: &mut Server<H>, address: SocketAddr, clients: u64) -> Vec<Peer> {
    let before = server.context().counters().opened;
    let mut peers: Vec<Peer> = (0..clients).map(|_| Peer::connect(address)).collect();
    peers.iter_mut().for_each(|peer| peer.says(opening("/websocket?topic=t")));
    turns_until(server, |now| now.opened == before + clients, |now| now.opened);
    // Where turns are short, the last answers are written in the next ones.
    while server.turn(Some(Duration::ZERO)).unwrap() == Some(Duration::ZERO) {}
    for peer in &mut peers {
        assert_eq!(peer.answer().status, 101);
    }
    peers
}

#[test]
pub(crate) fn in_one_turn_so_many_bytes_are_read_of_one_client() {
    let (mut server, address) = bind(|limits| limits.turn_read = 1000, Chat);
    let mut peer = open(&mut server, address, 1).remove(0);
    let before = server.context().counters().read_bytes;
    // 8 bytes of head and 992 of payload; then ten times as much.
    peer.says(frame(0x82, &[7; 992]));
    let reads = turns_until(&mut server, |now| now.received == 1, |now| now.read_bytes);
    assert_eq!(reads.iter().sum::<u64>(), 1000);
    assert_eq!(reads.iter().max(), Some(&1000), "just the limit is one read");
    peer.says(frame(0x82, &[7; 992]).repeat(10));
    let reads = turns_until(&mut server, |now| now.received == 11, |now| now.read_bytes);
    assert!(reads.iter().all(|bytes| *bytes <= 1000), "{reads:?}");
    assert_eq!(server.context().counters().read_bytes - before, 11_000);
    assert_eq!(peer.hears(), (0x82, vec![7; 992]));
}

#[test]
pub(crate) fn in_one_turn_so_many_messages_of_one_client_are_handed_on() {
    let (mut server, address) = bind(|limits| limits.turn_messages = 10, Chat);
    let mut peer = open(&mut server, address, 1).remove(0);
    // Behind the last comes a part of another, and then the rest of it.
    let one = frame(0x81, b"one");
    peer.says([&one.repeat(35)[..], &one[..4]].concat());
    let received = turns_until(&mut server, |now| now.received == 35, |now| now.received);
    assert_eq!(received.iter().sum::<u64>(), 35);
    assert_eq!(received.iter().max(), Some(&10), "{received:?}");
    peer.says(&one[4..]);
    turns_until(&mut server, |now| now.received == 36, |now| now.received);
    for _ in 0..36 {
        assert_eq!(peer.hears(), (0x81, b"one".to_vec()));
    }
}

#[test]
pub(crate) fn in_one_turn_so_many_bytes_are_written_to_one_client() {
    const WRITE: u64 = 100_000;
    const MESSAGE: usize = 996;
    const MESSAGES: usize = 1000;
    let (mut server, address) = bind(|limits| limits.turn_write = WRITE as usize, Chat);
    let mut peer = open(&mut server, address, 1).remove(0);
    let reader = std::thread::spawn(move || {
        for _ in 0..MESSAGES + 50 {
            assert_eq!(peer.hears(), (0x82, vec![7; MESSAGE]));
        }
    });
    // Less than the limit leaves in one turn.
    for _ in 0..50 {
        server.context().publish("t", &vec![7; MESSAGE]).unwrap();
    }
    let before = server.context().counters().written_bytes;
    server.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(server.context().counters().written_bytes - before, 50_000);
    for _ in 0..MESSAGES {
        server.context().publish("t", &vec![7; MESSAGE]).unwrap();
    }
    let total = before + 50_000 + 1_000_000;
    let written =
        turns_until(&mut server, |now| now.written_bytes == total, |now| now.written_bytes);
    // What was taken from the log in one go may go over it.
    let most = WRITE + 64 * 1024 + MESSAGE as u64;
    assert!(written.iter().all(|bytes| *bytes <= most), "{written:?}");
    assert!(written.len() >= 7, "{written:?}");
    reader.join().unwrap();
}

#[test]
pub(crate) fn in_one_turn_so_many_clients_are_accepted() {
    let (mut server, address) = bind(|limits| limits.turn_accept = 3, Chat);
    let _peers: Vec<Peer> = (0..10).map(|_| Peer::connect(address)).collect();
    let accepted = turns_until(&mut server, |now| now.accepted == 10, |now| now.accepted);
    assert_eq!(accepted, [3, 3, 3, 1]);
    assert_eq!(open(&mut server, address, 3).len(), 3, "and more who come later");
}

#[test]
pub(crate) fn in_one_turn_so_many_steps_of_handshakes_are_taken() {
    let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let tls = Tls::from_pem(certificate.as_bytes(), key.as_bytes());
    if cfg!(not(feature = "tls")) {
        return assert!(tls.is_err(), "a build that speaks no TLS says so");
    }
    let mut config = kit::common::config();
    config.tls = Some(tls.unwrap());
    config.limits.turn_handshakes = 3;
    let mut server = Server::bind(config, Chat).unwrap();
    let address = server.addresses()[0].strip_prefix("https://").unwrap().parse().unwrap();
    let mut peers: Vec<Peer> = (0..10).map(|_| Peer::connect(address)).collect();
    turns_until(&mut server, |now| now.accepted == 10, |now| now.accepted);
    peers[..3].iter_mut().for_each(|peer| peer.says([22]));
    turns_until(&mut server, |now| now.reads == 3, |now| now.reads);
    let held = |server: &mut Server<Chat>| server.context().counters().held(Held::TurnHandshakes);
    assert_eq!(held(&mut server), 0, "just the limit");
    // Each is the beginning of a record, so each is looked at.
    for step in 1..=2 {
        peers.iter_mut().for_each(|peer| peer.says([22]));
        let steps = turns_until(&mut server, |now| now.reads == 10 * step + 3, |now| now.reads);
        assert!(steps.iter().all(|steps| *steps <= 3), "{steps:?}");
        assert!(steps.len() >= 4, "{steps:?}");
        // Those who were put off: 7, 4, and 1.
        assert_eq!(held(&mut server), 12 * step, "{steps:?}");
    }
}

/// Long polls that wait for one long message, so that giving it to one of them takes longer than
/// the millisecond that a step has: how many are given it in each turn.
fn given(readers: u64, limit: usize, time: Duration) -> Vec<u64> {
    const MESSAGE: usize = 8 << 20;
    let (mut server, address) = bind(
        |limits| {
            limits.turn_readers = limit;
            limits.turn_time = time;
            limits.max_message = MESSAGE;
            limits.history_bytes = 2 * MESSAGE;
        },
        Chat,
    );
    let _peers: Vec<Peer> = (0..readers)
        .map(|_| {
            let mut peer = Peer::connect(address);
            peer.says("GET /api/messages?topic=t&wait=50 HTTP/1.1\r\nHost: localhost\r\n\r\n");
            peer
        })
        .collect();
    while (server.context().clients().count() as u64) < readers {
        server.turn(Some(PATIENCE)).unwrap();
    }
    server.context().publish("t", &"a".repeat(MESSAGE)).unwrap();
    turns_until(&mut server, |now| now.delivered == readers, |now| now.delivered)
}

#[test]
pub(crate) fn in_one_slice_so_many_readers_are_given_a_message() {
    // Over after any slice, however fast the machine.
    let short = Duration::from_nanos(1);
    assert_eq!(given(3, 3, short), [3], "just the limit");
    assert_eq!(given(5, 2, short), [2, 2, 1]);
    assert_eq!(given(3, 1, short), [1, 1, 1]);
}

#[test]
pub(crate) fn a_step_of_a_turn_goes_on_for_its_time_and_those_not_reached_go_first() {
    assert_eq!(given(5, 2, Duration::from_secs(60)), [5], "slice after slice while there is time");

    const CLIENTS: u64 = 40;
    for (time, turns) in [(Duration::from_secs(60), 1), (Duration::from_millis(1), 4)] {
        // Each message takes a tenth of the shorter time, and after each it is looked at.
        let work = |_: ConnId, _: Message<'_>, _: &mut Context<'_>| {
            let before = now();
            while now() - before < Duration::from_micros(100) {}
        };
        let (mut server, address) = bind(|limits| limits.turn_time = time, Does(work));
        let mut peers = open(&mut server, address, CLIENTS);
        let reads = server.context().counters().reads;
        peers.iter_mut().for_each(|peer| peer.says(frame(0x81, b"x")));
        let received = turns_until(&mut server, |now| now.received == CLIENTS, |now| now.received);
        assert!(received.len() == turns || turns > 1 && received.len() > turns, "{received:?}");
        // And one of those whose opening took an eighth of the time, should there be such.
        assert!(turns == 1 || received.iter().all(|count| *count <= 11), "{received:?}");
        let reads = server.context().counters().reads - reads;
        assert_eq!(reads, CLIENTS, "nobody was read twice before all had their turn");
    }
}

#[test]
pub(crate) fn a_handler_that_takes_longer_is_counted() {
    for (limit, slow) in [(Duration::from_millis(1), true), (Duration::from_secs(600), false)] {
        let work = |_: ConnId, _: Message<'_>, _: &mut Context<'_>| {
            let before = now();
            while now() - before <= Duration::from_millis(1) {}
        };
        let (mut server, address) = bind(|limits| limits.slow_handler = limit, Does(work));
        let mut peers = open(&mut server, address, 1);
        let before = server.context().counters().slow_handlers;
        peers.iter_mut().for_each(|peer| peer.says(frame(0x81, b"x")));
        turns_until(&mut server, |now| now.received == 1, |now| now.received);
        let counted = server.context().counters().slow_handlers - before;
        assert_eq!(counted, u64::from(slow), "over {limit:?}");
    }
}
