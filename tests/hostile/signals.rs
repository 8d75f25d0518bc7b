//! Signals in any number and order, while clients publish and read in every way there is.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use rustix::process::Signal;

use crate::peer::{PATIENCE, Peer, posting};
use crate::support::websocket::Incoming;
use crate::support::{Door, event_stream, now};
use crate::target::Target;

const SIGNALS: usize = 1000;

/// Those that it has something to do for, and those that are nothing to it. None of them ends it.
const HARMLESS: [Signal; 8] = [
    Signal::HUP,
    Signal::HUP,
    Signal::USR1,
    Signal::USR1,
    Signal::PIPE,
    Signal::CHILD,
    Signal::CONT,
    Signal::WINCH,
];

/// What is published last.
const END: &str = "end";

/// Numbers that depend on nothing but where they begin (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        all[(self.0 % all.len() as u64) as usize]
    }
}

/// What a reader was told: how many messages of each publisher, all of them in their order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard([usize; 2]);

impl Heard {
    /// One more; false if it is the end.
    fn hears(&mut self, text: &str) -> bool {
        let Some((publisher, number)) = text.split_once(' ') else {
            assert_eq!(text, END);
            return false;
        };
        let count = &mut self.0[publisher.parse::<usize>().unwrap()];
        assert_eq!(number.parse(), Ok(*count), "a message is lost, or comes twice");
        *count += 1;
        true
    }
}

/// Publishes until it is told to end: how many.
fn publishes(
    door: &Door,
    publisher: usize,
    is_over: &AtomicBool,
    published: &AtomicUsize,
) -> usize {
    let mut number = 0;
    let mut peer = Peer::connect(door);
    while !is_over.load(SeqCst) {
        let text = format!("{publisher} {number}");
        peer.says(posting("/api/messages?topic=signals", "", text.as_bytes()));
        let answer = peer.answer();
        assert_eq!(answer.status, 201, "{answer}");
        if answer.is_last() {
            peer = Peer::connect(door);
        }
        number += 1;
        published.fetch_add(1, SeqCst);
    }
    number
}

fn reads_frames(mut peer: Peer) -> Heard {
    let mut heard = Heard::default();
    loop {
        match peer.hears() {
            Incoming::Text(text) if heard.hears(&text) => {}
            Incoming::Text(_) => return heard,
            Incoming::Ping(_) => {}
            other => panic!("a reader is told {other}"),
        }
    }
}

fn reads_blocks(mut peer: Peer) -> Heard {
    let mut heard = Heard::default();
    loop {
        let block = event_stream::read(&mut peer.wire, now() + PATIENCE).unwrap();
        let data = block.iter().find(|(name, _)| name == "data");
        assert!(block.iter().all(|(name, _)| name != "event"), "{block:?}");
        if data.is_some_and(|(_, text)| !heard.hears(text)) {
            return heard;
        }
    }
}

/// Polls on and on; `wait` is what a long poll says of it.
fn polls(door: &Door, wait: &str) -> Heard {
    let mut heard = Heard::default();
    let mut after = "earliest".to_owned();
    let mut peer = Peer::connect(door);
    loop {
        peer.says(format!(
            "GET /api/messages?topic=signals&limit=1000&after={after}{wait} HTTP/1.1\r\n\
             Host: localhost\r\n\r\n"
        ));
        let answer = peer.answer();
        let told = answer.json().unwrap();
        assert_eq!(told["gap"], false, "{told}");
        for message in told["messages"].as_array().unwrap() {
            if !heard.hears(message["data"].as_str().unwrap()) {
                return heard;
            }
        }
        told["last"].as_str().unwrap().clone_into(&mut after);
        if answer.is_last() {
            peer = Peer::connect(door);
        }
    }
}

#[test]
fn a_thousand_signals_at_random_lose_nothing_of_what_is_said_meanwhile_and_term_drains() {
    let seed = 0x2026_1124;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    // Who is slow here has no processor, which is no reason for a gap.
    let history = ["--history", "1000000", "--history-bytes", "64MiB"];
    let mut target = Target::start(&history);
    // What stays is the history.
    target.margin = 16 << 20;
    let door = target.door.clone();
    let opens = |_: usize| Peer::opens(&door, "/websocket?topic=signals", "");
    let (sockets, stream) = ([0, 1].map(opens), Peer::streams(&door, STREAM));
    target.withstands("1000 signals", |target| {
        let (is_over, published) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let mut readers = Vec::from(sockets.map(|peer| scope.spawn(|| reads_frames(peer))));
            readers.push(scope.spawn(|| reads_blocks(stream)));
            readers.extend(["", "&wait=9"].map(|wait| scope.spawn(|| polls(&target.door, wait))));
            let publishers = [0, 1].map(|number| {
                let (is_over, published) = (&is_over, &published);
                scope.spawn(move || publishes(&target.door, number, is_over, published))
            });
            let end = now() + 6 * PATIENCE;
            for _ in 0..SIGNALS {
                target.signals(random.one_of(&HARMLESS));
                // The next one comes when something has been said behind this.
                let before = published.load(SeqCst);
                while published.load(SeqCst) == before && now() < end {
                    std::thread::yield_now();
                }
            }
            is_over.store(true, SeqCst);
            let said =
                Heard(publishers.map(|it| it.join().expect("it could publish all the time")));
            let answer = target.asks(posting("/api/messages?topic=signals", "", END.as_bytes()));
            assert_eq!(answer.status, 201);
            for (at, reader) in readers.into_iter().enumerate() {
                let heard = reader.join().unwrap_or_else(|_| panic!("reader {at} went wrong"));
                assert_eq!(heard, said, "reader {at}");
            }
            println!("{SIGNALS} signals among {} messages to 5 readers", said.0[0] + said.0[1]);
            assert!(said.0[0] + said.0[1] >= SIGNALS, "it went on all the time");
        });
    });
    let log = target.log();
    for event in [" event=counters ", " event=reload "] {
        assert!(log.contains(event), "no signal came to anything: {event}");
    }
    target.drains();
}

/// An event stream of bare text.
const STREAM: &str = "/api/messages?topic=signals&format=text";
