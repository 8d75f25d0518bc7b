//! Peers who ask for much and take little. What it costs inside, and what they find when they read
//! again, is `tests/slow_reader.rs`.

use std::collections::HashMap;

use crate::peer::{PATIENCE, Peer, ms, posting};
use crate::support::now;
use crate::support::websocket::{BINARY, Incoming};
use crate::target::Target;

/// A message that tells its number and is of this length.
fn numbered(number: usize, length: usize) -> String {
    let number = number.to_string();
    "0".repeat(length - number.len()) + &number
}

/// Publishes so many messages of this many bytes, on one connection, each acknowledged.
fn publishes(target: &Target, topic: &str, count: usize, length: usize) {
    let mut publisher = Peer::connect(&target.door);
    for number in 0..count {
        let content = numbered(number, length);
        let request = posting(&format!("/api/messages?topic={topic}"), "", content.as_bytes());
        publisher.says(request);
        assert_eq!(publisher.answer().status, 201);
    }
}

#[test]
fn readers_who_never_read_are_cut_while_others_hear_everything_and_memory_is_bounded() {
    const COUNT: usize = 400;
    const LENGTH: usize = 32 * 1024;
    let mut target = Target::start(&["--limit", "stall=600ms", "--history", "10"]);
    let grown = target.withstands("readers who never read", |target| {
        let door = &target.door;
        let topic = "topic=much";
        let mut slow: Vec<Peer> =
            (0..5).map(|_| Peer::opens(door, &format!("/websocket?{topic}"), "")).collect();
        slow.extend((0..5).map(|_| Peer::opens_v1(door, &format!("/websocket?{topic}"))));
        slow.extend((0..5).map(|_| Peer::streams(door, &format!("/api/messages?{topic}"))));
        let mut good = Peer::opens(door, &format!("/websocket?{topic}"), "");
        let mut publisher = Peer::connect(door);
        for number in 0..COUNT {
            let content = numbered(number, LENGTH);
            publisher.says(posting(&format!("/api/messages?{topic}"), "", content.as_bytes()));
            assert_eq!(publisher.answer().status, 201);
            let heard = good.hears();
            let is_next = matches!(&heard, Incoming::Text(text) if *text == content);
            assert!(is_next, "message {number} is {heard}");
        }
        let grown = target.heap_grown();
        target.logs("code=1013 reason=");
        target.until("all fifteen are cut", |target| {
            target.counter("closed.stall") + target.counter("closed.gap") >= 10
        });
        grown
    });
    println!("15 who read nothing of 12 MiB: {} KiB of heap more", grown >> 10);
    // For each: 64 KiB and one message, in up to three forms.
    assert!(grown < 15 * 4 * 64 * 1024, "{grown} bytes");
}

#[test]
fn polls_and_files_that_nobody_fetches_take_little_memory_and_are_cut() {
    let mut target = Target::start(&["--limit", "stall=600ms", "--max-message", "256KiB"]);
    target.margin = 3 << 20;
    publishes(&target, "much", 4, 200_000);
    target.withstands("answers that nobody fetches", |target| {
        let ask = "GET /api/messages?topic=much HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(200);
        let peers: Vec<Peer> = (0..30)
            .map(|_| {
                let mut peer = Peer::connect(&target.door);
                peer.says(&ask);
                peer
            })
            .collect();
        assert_eq!(target.gets("/api/messages?limit=0").status, 200);
        let grown = target.heap_grown();
        println!("30 who fetch nothing: {} KiB of heap more", grown >> 10);
        assert!(grown < 30 * 3 * 256 * 1024, "{grown} bytes");
        target.until("all are cut", |target| target.counter("closed.stall") >= 30);
        drop(peers);
    });
}

#[test]
fn a_reader_who_takes_a_byte_now_and_then_costs_no_more_than_one_who_takes_none() {
    let mut target = Target::start(&["--history", "10"]);
    target.withstands("a byte now and then", |target| {
        let mut slow: Vec<Peer> =
            (0..20).map(|_| Peer::opens(&target.door, "/websocket?topic=much", "")).collect();
        let until = now() + ms(500);
        while now() < until {
            publishes(target, "much", 20, 32 * 1024);
            slow.iter_mut().for_each(Peer::reads_a_little);
        }
        let grown = target.heap_grown();
        println!("20 who read a little: {} KiB of heap more", grown >> 10);
        assert!(grown < 20 * 4 * 64 * 1024, "{grown} bytes");
    });
}

#[test]
fn answers_to_pipelined_requests_come_in_order_even_if_they_are_fetched_late() {
    let mut target = Target::start(&[]);
    target.survives(|target| {
        let mut peer = Peer::connect(&target.door);
        let paths = ["/style.css", "/nothing", "/api/messages?limit=0", "/pousse.js", "/lab.js"];
        let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let asked: String = paths.iter().cycle().take(150).map(|path| ask(path)).collect();
        peer.says(asked);
        let mut lengths: HashMap<&str, usize> = HashMap::new();
        for path in paths.iter().cycle().take(150) {
            let answer = peer.answer();
            let is_nothing = *path == "/nothing";
            assert_eq!(answer.status, if is_nothing { 404 } else { 200 }, "{path}");
            let length = *lengths.entry(path).or_insert(answer.content.len());
            assert_eq!(answer.content.len(), length, "{path}");
        }
    });
}

#[test]
fn long_polls_without_number_wait_without_memory_and_are_all_answered() {
    let mut target = Target::start(&[]);
    target.margin = 4 << 20;
    target.withstands("1000 long polls", |target| {
        let before = target.counter("read_bytes");
        let ask =
            "GET /api/messages?topic=one&after=now&wait=50 HTTP/1.1\r\nHost: localhost\r\n\r\n";
        // And what one who waits may say meanwhile: at most one head of it is kept.
        let said = format!("{ask}{}", "GET / HTTP/1.1\r\n".repeat(5));
        let length = said.len() as u64;
        let mut peers: Vec<Peer> = (0..1000)
            .map(|_| {
                let mut peer = Peer::connect(&target.door);
                peer.says(&said);
                peer
            })
            .collect();
        target.until("all wait", |target| target.counter("read_bytes") >= before + 1000 * length);
        let end = now() + PATIENCE;
        while target.asks(posting("/api/messages?topic=one", "", b"at last")).json().unwrap()
            ["readers"]
            .as_u64()
            .unwrap()
            > 0
        {
            assert!(now() < end, "some wait for ever");
        }
        for peer in &mut peers {
            let told = peer.answer().json().unwrap();
            assert_eq!(told["messages"][0]["data"], "at last", "{told}");
        }
    });
}

#[test]
fn a_publisher_cannot_make_the_server_keep_more_than_its_history() {
    let mut target = Target::start(&["--limit", "history-total=4MiB"]);
    target.margin = 10 << 20;
    target.withstands("publishing", |target| {
        target.flood(3, |door, flood| {
            // Another topic with every connection, each with a history of its own. What is said
            // there is heard by who said it alone, so nobody falls behind.
            let opens = |number: u32| {
                let topic = format!("topic-{number}-{:?}", std::thread::current().id());
                let topic = topic.replace(['(', ')'], "");
                Peer::opens(door, &format!("/websocket?topic={topic}"), "")
            };
            let mut number = 0;
            let mut peer = opens(number);
            while flood.goes_on() {
                number += 1;
                if number % 20 == 0 {
                    peer = opens(number);
                }
                peer.says(crate::support::websocket::frame(true, BINARY, &[7; 60_000]));
                peer.hears();
            }
        });
    });
}

impl Peer {
    /// Takes one byte of what has come.
    fn reads_a_little(&mut self) {
        if self.wire.fill_one() {
            self.wire.unread.clear();
        }
    }
}
