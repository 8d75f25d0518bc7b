//! Many who do nothing wrong, with the default limits: who talks all the time and reads what comes
//! back, and many readers of one busy topic. Nobody is cut off, and nobody else waits for them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use crate::peer::{PATIENCE, Peer, posting};
use crate::support::websocket::{Incoming, TEXT, frame};
use crate::support::{event_stream, now};
use crate::target::Target;

/// Speaks in a burst of so many tiny messages, hears each of them, and begins again.
fn chats(target: &Target, topic: impl Fn(usize) -> String + Sync) -> u64 {
    const BURST: usize = 200;
    let (count, next) = (AtomicU64::new(0), AtomicUsize::new(0));
    target.flood(20, |door, flood| {
        let number = next.fetch_add(1, SeqCst);
        let mut peer = Peer::opens(door, &format!("/websocket?topic={}", topic(number)), "");
        let own = format!("{number}");
        let burst = frame(true, TEXT, own.as_bytes()).repeat(BURST);
        while flood.goes_on() {
            peer.says(&burst);
            let mut heard = 0;
            while heard < BURST {
                match peer.hears() {
                    Incoming::Text(text) if text == own => heard += 1,
                    Incoming::Text(_) | Incoming::Ping(_) => {}
                    other => panic!("one who chats is told {other}"),
                }
            }
            count.fetch_add(BURST as u64, SeqCst);
        }
    });
    count.into_inner()
}

#[test]
fn twenty_who_talk_without_end_and_read_what_comes_back_disturb_nobody() {
    let mut target = Target::start(&[]);
    // What stays is the history: 1000 messages of each of 21 topics.
    target.margin = 12 << 20;
    let count = target.withstands("20 who talk to themselves", |target| {
        chats(target, |number| format!("own-{number}"))
    });
    println!("20 who talk to themselves: {count} messages");
    let count =
        target.withstands("20 who talk to each other", |target| chats(target, |_| "all".into()));
    println!("20 who talk to each other: {count} messages, each to 20");
}

#[test]
fn a_busy_topic_of_fifteen_hundred_readers_disturbs_nobody_and_each_hears_everything() {
    const READERS: usize = 1500;
    let mut target = Target::start(&[]);
    target.margin = 8 << 20;
    let count = target.withstands("1500 readers of a busy topic", |target| {
        let mut readers: Vec<Peer> =
            (0..READERS).map(|_| Peer::opens(&target.door, "/websocket?topic=busy", "")).collect();
        let begun = AtomicUsize::new(0);
        target.flood(2, |door, flood| {
            let mut publisher = Peer::connect(door);
            while flood.goes_on() {
                let number = begun.fetch_add(1, SeqCst);
                let text = format!("message {number}");
                publisher.says(posting("/api/messages?topic=busy", "", text.as_bytes()));
                assert_eq!(publisher.answer().status, 201);
            }
        });
        let count = begun.into_inner();
        // Each has everything, once. Of those of two publishers either may have been first.
        for (at, reader) in readers.iter_mut().enumerate() {
            let mut heard = vec![false; count];
            let mut missing = count;
            while missing > 0 {
                match reader.hears() {
                    Incoming::Text(text) => {
                        let number: usize = text.trim_start_matches("message ").parse().unwrap();
                        assert!(!heard[number], "{at} is told {text} twice");
                        heard[number] = true;
                        missing -= 1;
                    }
                    Incoming::Ping(_) => {}
                    other => panic!("reader {at} is told {other}"),
                }
            }
        }
        count
    });
    println!("{count} messages to {READERS} readers");
    assert_eq!(target.counter("closed.gap") + target.counter("closed.stall"), 0);
}

#[test]
fn event_streams_are_told_different_times_to_come_back_after() {
    let mut target = Target::start(&[]);
    target.survives(|target| {
        let mut streams: Vec<Peer> =
            (0..40).map(|_| Peer::streams(&target.door, "/api/messages?topic=herd")).collect();
        let times = streams.iter_mut().map(|stream| {
            let first = event_stream::read(&mut stream.wire, now() + PATIENCE).unwrap();
            assert_eq!(first[0].0, "retry", "{first:?}");
            first[0].1.parse::<u64>().unwrap()
        });
        let times: std::collections::BTreeSet<u64> = times.collect();
        let (first, last) = (*times.first().unwrap(), *times.last().unwrap());
        println!("40 event streams are told to wait {first} to {last} ms");
        // 2 s, give or take a fifth.
        assert!(first >= 1600 && last <= 2400, "{times:?}");
        assert!(last - first > 300 && times.len() > 20, "{times:?}");
    });
}

#[test]
fn a_crowd_who_all_ask_much_at_the_same_moment_disturbs_nobody() {
    const ASK: &str =
        "HEAD /api/messages?topic=long&limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    const CHEAP: &str = "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut target = Target::start(&[]);
    target.margin = 8 << 20;
    // What takes most room as JSON.
    let long = [1; 180];
    for _ in 0..1000 {
        let answer = target.asks(posting("/api/messages?topic=long", "", &long));
        assert_eq!(answer.status, 201);
    }
    target.withstands("120 who ask much at once", |target| {
        let mut peers: Vec<Peer> = (0..120).map(|_| Peer::connect(&target.door)).collect();
        for _ in 0..2 {
            for peer in &mut peers {
                peer.says(CHEAP);
                assert_eq!(peer.answer().status, 204);
            }
            peers.iter_mut().for_each(|peer| peer.says(ASK.repeat(16)));
            for peer in &mut peers {
                for _ in 0..16 {
                    assert_eq!(peer.answer_to(true).status, 200);
                }
            }
        }
    });
}
