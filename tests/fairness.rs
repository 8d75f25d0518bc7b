//! The house rules of the loop and the log, seen from outside: what a turn costs, that nobody is
//! passed over, that nobody is taken for somebody else.

#![expect(clippy::unwrap_used, reason = "a test may end where it is wrong")]

use kit::common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use common::{
    PATIENCE, Running, Said, Socket, answer, connect, content, echo, frame, opening, quiet,
    request, status,
};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll};
use pousse::{
    After, CloseCode, Config, ConnId, Context, Counters, Handler, Message, PublishError, Reason,
    RemoteError, SendError, Server, SubscribeError,
};

/// A `turn` of a server on the test's own thread: nothing happens but what the test does.
struct Table<H> {
    server: Server<H>,
    address: std::net::SocketAddr,
}

struct Quiet;

impl Handler for Quiet {
    fn on_message(&mut self, _: ConnId, _: Message<'_>, _: &mut Context<'_>) {}
}

impl<H: Handler> Table<H> {
    fn new(change: impl FnOnce(&mut Config), handler: H) -> Self {
        let mut config = common::config();
        change(&mut config);
        let server = Server::bind(config, handler).unwrap();
        let address = common::address(&server.addresses());
        Self { server, address }
    }

    /// Turns until there is nothing to do at once.
    fn settle(&mut self) {
        let mut turns = 0;
        while self.server.turn(Some(Duration::ZERO)).unwrap() == Some(Duration::ZERO) {
            turns += 1;
            assert!(turns < 100_000, "it does not come to rest");
        }
    }

    /// Turns as a loop around it would, until nothing would wake that for some time.
    fn rest(&mut self) {
        let descriptor = self.server.as_fd().as_raw_fd();
        let mut poll = Poll::new().unwrap();
        let mut source = SourceFd(&descriptor);
        poll.registry().register(&mut source, mio::Token(0), Interest::READABLE).unwrap();
        let mut events = Events::with_capacity(1);
        loop {
            self.settle();
            poll.poll(&mut events, Some(Duration::from_millis(200))).unwrap();
            if events.is_empty() {
                return;
            }
        }
    }

    /// A client that has been answered with 101.
    fn open(&mut self, path: &str) -> TcpStream {
        let mut peer = connect(self.address);
        peer.write_all(opening(path).as_bytes()).unwrap();
        let opened = self.counters().opened;
        while self.counters().opened == opened {
            self.server.turn(Some(PATIENCE)).unwrap();
        }
        assert!(answer(&mut peer).starts_with("HTTP/1.1 101 "));
        peer
    }

    fn counters(&mut self) -> Counters {
        self.server.context().counters().clone()
    }
}

/// The next frame's payload; frames are short and whole.
fn hears(peer: &mut TcpStream) -> String {
    let mut head = [0; 2];
    peer.read_exact(&mut head).unwrap();
    assert_eq!(head[0], 0x81, "whole text");
    let length = match head[1] {
        126 => {
            let mut length = [0; 2];
            peer.read_exact(&mut length).unwrap();
            usize::from(u16::from_be_bytes(length))
        }
        short => usize::from(short),
    };
    let mut text = vec![0; length];
    peer.read_exact(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// A message that tells its number and is of this length.
fn numbered(number: usize, length: usize) -> String {
    format!("{number:0length$}")
}

/// The peer hears all numbers of the range, in order.
fn hears_all(peer: &mut TcpStream, numbers: std::ops::Range<usize>) {
    for number in numbers {
        assert_eq!(hears(peer).parse::<usize>().unwrap(), number);
    }
}

// One call.

#[test]
fn eight_publishes_in_one_turn_make_one_write_for_each_reader() {
    for length in [10, 1024, 8 * 1024] {
        let server = Running::new(quiet);
        let mut readers: Vec<_> = (0..20).map(|_| server.open("/websocket")).collect();
        let before = server.counters();
        server.ask(move |ctx| {
            for number in 0..8 {
                ctx.broadcast(&numbered(number, length)).unwrap();
            }
        });
        for reader in &mut readers {
            for number in 0..8 {
                assert_eq!(reader.hears(), numbered(number, length));
            }
        }
        let after = server.counters();
        assert_eq!(after.writes - before.writes, 20, "messages of {length} bytes");
        assert_eq!(after.delivered - before.delivered, 160);
        assert_eq!(after.joined - before.joined, u64::from(length < 2048), "once for all");
    }
}

#[test]
fn sixteen_messages_that_arrive_together_are_answered_by_one_read_and_one_write() {
    let server = Running::new(echo);
    let mut peer = server.open("/websocket");
    let before = server.counters();
    let together: Vec<u8> = (0..16).flat_map(|number| frame(0x81, &[b'a' + number])).collect();
    peer.0.get_mut().write_all(&together).unwrap();
    for number in 0..16 {
        assert_eq!(peer.hears().as_bytes(), [b'a' + number]);
    }
    let after = server.counters();
    assert_eq!((after.reads - before.reads, after.writes - before.writes), (1, 1));
}

#[test]
fn one_message_costs_one_read_and_one_write() {
    let server = Running::new(echo);
    let mut peer = server.open("/websocket");
    let before = server.counters();
    for _ in 0..100 {
        peer.says("Bonjour");
        peer.hears();
    }
    let after = server.counters();
    assert_eq!((after.reads - before.reads, after.writes - before.writes), (100, 100));
}

// Nobody is passed over.

#[test]
fn a_backlog_longer_than_the_low_water_is_delivered_whole_without_further_events() {
    let server = Running::start(|config| config.limits.history_bytes = 4 << 20, quiet);
    server.ask(|ctx| {
        for number in 0..900 {
            ctx.broadcast(&numbered(number, 2048)).unwrap();
        }
    });
    let mut late = server.open("/websocket?after=earliest");
    for number in 0..900 {
        assert_eq!(late.hears(), numbered(number, 2048));
    }
}

#[test]
fn whoever_joins_or_leaves_during_a_large_fan_out_makes_nobody_miss_anything() {
    let mut table = Table::new(
        |config| {
            config.limits.turn_readers = 1;
            config.limits.turn_time = Duration::from_millis(1);
        },
        Quiet,
    );
    let mut stay: Vec<_> = (0..150).map(|_| table.open("/websocket")).collect();
    let mut leave: Vec<_> = (0..40).map(|_| table.open("/websocket")).collect();
    let mut join: Vec<(usize, TcpStream)> = Vec::new();
    let mut turns_with_more = 0;
    for number in 0..40 {
        table.server.context().broadcast(&numbered(number, 1024)).unwrap();
        let more = table.server.turn(Some(Duration::ZERO)).unwrap() == Some(Duration::ZERO);
        turns_with_more += usize::from(more);
        // While the entry is on its way: one leaves from the beginning or the end of the list, one
        // comes who wants everything, one comes who wants what is new.
        leave.swap_remove(if number % 2 == 0 { 0 } else { leave.len() - 1 });
        join.push((0, table.open("/websocket?after=earliest")));
        join.push((number + 1, table.open("/websocket?after=now")));
    }
    table.settle();
    assert!(turns_with_more > 0, "no fan-out took more than a turn: the test shows nothing");
    stay.iter_mut().for_each(|peer| hears_all(peer, 0..40));
    join.iter_mut().for_each(|(from, peer)| hears_all(peer, *from..40));
}

#[test]
fn trimming_loses_nothing_for_readers_who_keep_up_whatever_the_history() {
    for history in [0, 1, 3] {
        let mut table = Table::new(
            |config| {
                config.limits.history = history;
                config.limits.turn_readers = 1;
                config.limits.turn_time = Duration::from_millis(1);
            },
            Quiet,
        );
        let mut peers: Vec<_> = (0..60).map(|_| table.open("/websocket")).collect();
        for turn in 0..30 {
            for number in 0..10 {
                let text = numbered(turn * 10 + number, 300);
                table.server.context().broadcast(&text).unwrap();
            }
            table.server.turn(Some(Duration::ZERO)).unwrap();
        }
        table.settle();
        assert_eq!(table.counters().gaps, 0);
        peers.iter_mut().for_each(|peer| hears_all(peer, 0..300));
        let mut late = connect(table.address);
        late.write_all(request("GET", "/api/messages?limit=9", "", "").as_bytes()).unwrap();
        while table.counters().requests < 61 {
            table.server.turn(Some(PATIENCE)).unwrap();
        }
        let kept = answer(&mut late).matches("\"data\"").count();
        assert_eq!(kept, history, "and no more is kept than was said");
    }
}

#[test]
fn what_one_turn_cannot_write_is_not_trimmed_away_from_a_reader_whose_socket_takes_it() {
    for history in [0, 1, 100] {
        let small = move |config: &mut Config| {
            config.limits.history = history;
            config.limits.turn_write = 16 * 1024;
        };
        let server = Running::start(small, quiet);
        let mut peer = server.open("/websocket");
        // Many times what is written to one client in one turn, and no more than its socket takes.
        server.ask(|ctx| {
            for number in 0..400 {
                ctx.broadcast(&numbered(number, 1024)).unwrap();
            }
        });
        for number in 0..400 {
            let told = peer.next();
            assert!(told.is_text(), "history {history}, message {number}: {told:?}");
            assert_eq!(told.into_text().unwrap().as_str(), numbered(number, 1024));
        }
    }
}

// Nobody is taken for somebody else.

#[test]
fn a_slot_is_reused_and_an_id_is_not() {
    let server = Running::new(quiet);
    let (mut old, stale) = server.open_with_id("/websocket?topic=old");
    old.closes(1000, "");
    assert!(matches!(server.said(), Said::Close(..)));
    let (mut new, fresh) = server.open_with_id("/websocket?topic=new");
    assert_eq!(stale.index(), fresh.index(), "the slot is used again");
    assert_ne!(stale, fresh);
    server.ask(move |ctx| {
        assert_eq!(ctx.send(stale, "for the old one"), Err(SendError::Gone));
        assert_eq!(ctx.subscribe(stale, "new", After::Earliest), Err(SubscribeError::Gone));
        assert!(!ctx.unsubscribe(stale, "new"));
        assert!(ctx.client(stale).is_none());
        ctx.close(stale, CloseCode::Policy, "for the old one");
        // Left out is whoever had the id, not whoever has the slot.
        ctx.broadcast_except(stale, "general").unwrap();
        ctx.publish("old", "for the old one").unwrap();
    });
    server.remote.send(stale, "for the old one").unwrap();
    server.remote.close(stale, CloseCode::Policy, "for the old one").unwrap();
    server.remote.send(fresh, "for you").unwrap();
    assert_eq!(new.hears(), "for you");
    let (mut third, _) = server.open_with_id("/websocket?after=earliest");
    assert_eq!(third.hears(), "general");
}

#[test]
fn slots_that_are_reused_all_the_time_never_deliver_to_the_wrong_client() {
    let server = Running::new(quiet);
    let mut open: Vec<(Socket, ConnId)> = Vec::new();
    for round in 0..60 {
        let (mut peer, id) = server.open_with_id("/websocket?topic=none");
        peer.says("hello");
        assert!(matches!(server.said(), Said::Text(of, _) if of == id));
        open.push((peer, id));
        if round % 3 == 2 {
            // The one that leaves is sent to while it does.
            let (peer, id) = open.swap_remove(round % open.len());
            server.remote.send(id, &format!("{id}")).unwrap();
            drop(peer);
            while !matches!(server.said(), Said::Close(of, ..) if of == id) {}
            server.remote.send(id, &format!("{id}")).unwrap();
        }
        for (_, id) in &open {
            server.remote.send(*id, &format!("{id}")).unwrap();
        }
        for (peer, id) in &mut open {
            assert_eq!(peer.hears(), id.to_string());
        }
    }
}

// Publishers wait for readers, not readers for publishers.

/// Small bounds, and readers who take many turns to be visited.
fn crowded(config: &mut Config) {
    // Readers here do not read until everything is published: that is what their sockets take.
    config.limits.unsent = 0;
    config.limits.history = 10;
    config.limits.history_bytes = 8 * 1024;
    config.limits.history_total = 256 * 1024;
    config.limits.turn_readers = 1;
    config.limits.turn_time = Duration::from_millis(1);
    config.limits.requests = 1_000_000;
}

#[test]
fn http_publishers_are_held_back_while_readers_have_not_been_offered() {
    let server = Running::start(crowded, quiet);
    let mut readers: Vec<_> = (0..100).map(|_| server.open("/websocket")).collect();
    let publisher = server.connect();
    let mut answers = publisher.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        for number in 0..2000 {
            let ask = request("POST", "/api/messages", "", &numbered(number, 500));
            (&publisher).write_all(ask.as_bytes()).unwrap();
        }
    });
    for _ in 0..2000 {
        let told = answer(&mut answers);
        assert_eq!(status(&told), "201", "{told}");
    }
    writing.join().unwrap();
    for reader in &mut readers {
        (0..2000).for_each(|number| assert_eq!(reader.hears(), numbered(number, 500)));
    }
}

#[test]
fn websocket_publishers_are_held_back_while_readers_have_not_been_offered() {
    let server = Running::start(crowded, |said: &Said, ctx: &mut Context<'_>| {
        if let Said::Text(_, text) = said {
            // Never `Busy`: whoever publishes is not read while the log is over its bounds.
            let taken = ctx.broadcast(text);
            assert_ne!(taken.err(), Some(PublishError::Busy));
        }
    });
    let mut readers: Vec<_> = (0..100).map(|_| server.open("/websocket?topic=general")).collect();
    let mut publisher = server.open("/websocket?topic=none");
    let writing = std::thread::spawn(move || {
        (0..2000).for_each(|number| publisher.says(&numbered(number, 500)));
        publisher
    });
    let mut publisher = writing.join().unwrap();
    for reader in &mut readers {
        (0..2000).for_each(|number| assert_eq!(reader.hears(), numbered(number, 500)));
    }
    assert_eq!(server.counters().panics, 0);
    publisher.closes(1000, "");
}

/// Publishes until readers are behind by more than a turn.
fn fall_behind(table: &mut Table<Quiet>) -> usize {
    for number in 0..60 {
        table.server.context().broadcast(&numbered(number, 500)).unwrap();
    }
    let rest = table.server.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(rest, Some(Duration::ZERO), "it takes more than a turn, or the test shows nothing");
    60
}

#[test]
fn a_remote_is_full_while_readers_have_not_been_offered() {
    let small = |config: &mut Config| {
        crowded(config);
        config.limits.commands = 8;
    };
    let mut table = Table::new(small, Quiet);
    let mut readers: Vec<_> = (0..400).map(|_| table.open("/websocket")).collect();
    let remote = table.server.remote();
    let first = fall_behind(&mut table);
    for number in first..first + 8 {
        remote.broadcast(&numbered(number, 500)).unwrap();
    }
    table.server.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(table.counters().published, first as u64, "nothing more while they are behind");
    assert_eq!(remote.broadcast("one too many"), Err(RemoteError::Full));
    table.settle();
    readers.iter_mut().for_each(|peer| hears_all(peer, 0..first));
}

#[test]
fn what_a_remote_gave_while_readers_were_behind_is_done_before_the_loop_rests() {
    let mut table = Table::new(crowded, Quiet);
    let mut readers: Vec<_> = (0..400).map(|_| table.open("/websocket")).collect();
    let first = fall_behind(&mut table);
    table.server.remote().broadcast(&numbered(first, 500)).unwrap();
    table.rest();
    assert_eq!(table.counters().published, first as u64 + 1, "it is left lying in the queue");
    readers.iter_mut().for_each(|peer| hears_all(peer, 0..first + 1));
}

// Clients who send and do not read; clients who are too many.

/// Writes as much as the other end takes, and then the rest while what comes back is read.
fn floods(mut peer: TcpStream, ask: &[u8], times: usize, answer_bytes: usize) -> Vec<u8> {
    let whole = ask.repeat(times);
    peer.set_nonblocking(true).unwrap();
    let (mut sent, mut refused) = (0, 0);
    while refused < 100 && sent < whole.len() {
        match peer.write(whole.get(sent..).unwrap()) {
            Ok(count) => (sent, refused) = (sent + count, 0),
            Err(_) => refused += 1,
        }
        std::thread::yield_now();
    }
    peer.set_nonblocking(false).unwrap();
    let mut reading = peer.try_clone().unwrap();
    let rest =
        std::thread::spawn(move || peer.write_all(whole.get(sent..).unwrap()).map(|()| peer));
    let mut answers = vec![0; times * answer_bytes];
    reading.read_exact(&mut answers).unwrap();
    drop(rest.join().unwrap().unwrap());
    answers
}

#[test]
fn whoever_sends_and_does_not_read_is_not_read_either_and_loses_nothing() {
    let server = Running::start(|config| config.limits.ping = Duration::from_secs(600), echo);
    let (mut other, _) = server.open_with_id("/websocket");
    let mut peer = server.connect();
    peer.write_all(opening("/websocket").as_bytes()).unwrap();
    assert!(answer(&mut peer).starts_with("HTTP/1.1 101 "));
    let id = server.opened();
    let flood = std::thread::spawn(move || floods(peer, &frame(0x81, &[b'x'; 120]), 100_000, 122));
    let mut most = 0;
    while !flood.is_finished() {
        let told = server.ask(move |ctx| ctx.client(id));
        most = most.max(told.map_or(0, |told| told.waiting_bytes));
        other.says("hello");
        assert_eq!(other.hears(), "hello");
    }
    let answers = flood.join().unwrap();
    assert!(answers.chunks(122).all(|it| it.starts_with(b"\x81\x78xxx")));
    assert!(most <= (256 + 64 + 1) * 1024, "{most} bytes waited");
}

#[test]
fn pipelined_requests_whose_answers_nobody_reads_wait_until_somebody_does() {
    let route = |_: &pousse::Request, _: &mut Context<'_>| {
        let text = "x".repeat(16 * 1024);
        Some(pousse::Answer::Response(pousse::Response::text(200, text)))
    };
    let many = |config: &mut Config| config.limits.requests = 1_000_000;
    let server = Running::start(many, common::Route(route));
    let ask = request("GET", "/", "", "");
    let mut first = server.connect();
    first.write_all(ask.as_bytes()).unwrap();
    let length = answer(&mut first).len();
    let answers = floods(first, ask.as_bytes(), 1000, length);
    assert!(answers.chunks(length).all(|it| it.starts_with(b"HTTP/1.1 200 OK\r\n")));
}

#[test]
fn clients_who_come_together_are_accepted_whatever_one_turn_accepts() {
    let server = Running::start(|config| config.limits.turn_accept = 1, echo);
    let mut peers: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for peer in &mut peers {
        peer.write_all(opening("/websocket").as_bytes()).unwrap();
    }
    for peer in &mut peers {
        assert!(answer(peer).starts_with("HTTP/1.1 101 "));
    }
}

#[test]
fn clients_over_the_limit_wait_until_somebody_leaves() {
    let server = Running::start(|config| config.limits.max_clients = 2, quiet);
    let (one, _) = server.open_with_id("/websocket");
    let (_two, _) = server.open_with_id("/websocket");
    let mut third = server.connect();
    third.write_all(opening("/websocket").as_bytes()).unwrap();
    assert_eq!(server.ask(|ctx| ctx.clients().count()), 2);
    assert_eq!(server.counters().accepted, 2);
    drop(one);
    assert!(answer(&mut third).starts_with("HTTP/1.1 101 "));
    assert_eq!(server.counters().accepted, 3);
}

// Long polls.

#[test]
fn a_waiter_who_leaves_is_forgotten_at_once() {
    let server = Running::new(quiet);
    let wait = request("GET", "/api/messages?after=now&wait=50", "", "");
    let closing: [fn(TcpStream); 3] = [
        drop,
        |peer| {
            // Its kernel has bytes that nobody read: that is a reset, not an end.
            (&peer).write_all(b"GET / HTTP/1.1\r\n").unwrap();
        },
        |peer| {
            peer.shutdown(std::net::Shutdown::Write).unwrap();
            assert!(common::has_ended(&mut &peer), "it is closed in turn");
        },
    ];
    for (at, leave) in closing.into_iter().enumerate() {
        let waiter = server.connect();
        (&waiter).write_all(wait.as_bytes()).unwrap();
        while server.ask(|ctx| ctx.clients().count()) == 0 {}
        let readers = server.http("POST", "/api/messages?topic=other", "x");
        assert!(readers.contains("\"readers\":0"));
        leave(waiter);
        let mut asked = 0;
        while server.ask(|ctx| ctx.clients().count()) > 0 {
            asked += 1;
            assert!(asked < 20_000, "way {at}: a waiter that has left is still in the list");
        }
    }
    assert!(server.http("POST", "/api/messages", "x").contains("\"readers\":0"));
}

#[test]
fn a_thousand_waiters_are_answered_by_one_publish_that_is_encoded_once() {
    let mut table = Table::new(|_| {}, Quiet);
    let wait = request("GET", "/api/messages?after=now&wait=50", "", "");
    let mut waiters: Vec<_> = (0..1000)
        .map(|number| {
            let waiter = connect(table.address);
            (&waiter).write_all(wait.as_bytes()).unwrap();
            while table.server.context().clients().count() <= number {
                table.server.turn(Some(PATIENCE)).unwrap();
            }
            waiter
        })
        .collect();
    let before = table.counters();
    let id = table.server.context().broadcast("Bonjour \u{1f331}").unwrap().unwrap();
    table.settle();
    let after = table.counters();
    assert_eq!(after.encoded - before.encoded, 1);
    assert_eq!(after.writes - before.writes, 1000);
    let whole = format!(
        "{{\"messages\":[{{\"id\":\"{id}\",\"topic\":\"general\",\"data\":\"Bonjour \u{1f331}\"}}],\
         \"last\":\"{id}\",\"gap\":false,\"readers\":1000}}\n"
    );
    for waiter in &mut waiters {
        let told = answer(waiter);
        assert_eq!((status(&told), content(&told)), ("200", whole.as_str()));
    }
    assert_eq!(table.server.context().clients().count(), 0);
}

// One encoding for all of a kind.

/// A reader's request, once it is a reader.
fn reads(table: &mut Table<Quiet>, request: &str) -> TcpStream {
    let peer = connect(table.address);
    (&peer).write_all(request.as_bytes()).unwrap();
    let readers = table.server.context().clients().count();
    while table.server.context().clients().count() == readers {
        table.server.turn(Some(PATIENCE)).unwrap();
    }
    peer
}

/// Reads until this was heard; everything that was.
#[cfg(feature = "v1")]
fn hears_until(peer: &mut TcpStream, wanted: &str) -> String {
    let (mut heard, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&heard).into_owned();
        if text.contains(wanted) {
            return text;
        }
        let count = peer.read(&mut bytes).unwrap();
        assert!(count > 0, "{text:?} and not {wanted:?}");
        heard.extend_from_slice(bytes.get(..count).unwrap());
    }
}

#[test]
#[cfg(feature = "v1")]
fn one_publish_to_a_thousand_readers_of_every_kind_is_encoded_once_for_each_kind() {
    let session = opening("/websocket?topic=general")
        .replace("Upgrade: w", "Sec-WebSocket-Protocol: pousse.v1\r\nUpgrade: w");
    let stream = "Accept: text/event-stream\r\n";
    let requests = [
        session,
        request("GET", "/api/messages", stream, ""),
        request("GET", "/api/messages?format=text", stream, ""),
        request("GET", "/api/messages?after=now&wait=50", "", ""),
        opening("/websocket"),
    ];
    // In one turn, and in as many as there are readers.
    for (readers, time) in [(1024, PATIENCE), (1, Duration::from_millis(1))] {
        let change = move |config: &mut Config| {
            config.limits.turn_readers = readers;
            config.limits.turn_time = time;
        };
        let mut table = Table::new(change, Quiet);
        let mut peers: Vec<_> = (0..1000)
            .map(|number| (number % 5, reads(&mut table, &requests[number % 5])))
            .collect();
        table.settle();
        let before = table.counters();
        let text = "Bonjour\n\u{1f331}";
        let id = table.server.context().broadcast(text).unwrap().unwrap();
        table.settle();
        let after = table.counters();
        assert_eq!(after.encoded - before.encoded, 4, "text mode takes the frame as it is kept");
        assert_eq!(after.delivered - before.delivered, 1000);
        assert_eq!(after.writes - before.writes, 1000);
        let json =
            format!("{{\"id\":\"{id}\",\"topic\":\"general\",\"data\":\"Bonjour\\n\u{1f331}\"}}");
        let wanted = [
            json.clone(),
            format!("id: {id}\ndata: {json}\n\n"),
            format!("id: {id}\ndata: Bonjour\ndata: \u{1f331}\n\n"),
            format!("{{\"messages\":[{json}],\"last\":\"{id}\",\"gap\":false,\"readers\":"),
            text.to_owned(),
        ];
        for (kind, peer) in &mut peers {
            let heard = hears_until(peer, &wanted[*kind]);
            assert_eq!(heard.matches("Bonjour").count(), 1, "{heard}");
        }
    }
}

// One compression for all of a window.

/// An opening handshake that offers to compress, with this behind the offer.
#[cfg(feature = "deflate")]
fn offering(path: &str, parameters: &str) -> String {
    let offer = format!("Sec-WebSocket-Extensions: permessage-deflate{parameters}\r\nUpgrade: w");
    opening(path).replace("Upgrade: w", &offer)
}

/// A message compressed as a client would, in one frame.
#[cfg(feature = "deflate")]
fn deflated(first: u8, message: &[u8]) -> Vec<u8> {
    let mut compress = flate2::Compress::new(flate2::Compression::best(), false);
    let mut payload = Vec::with_capacity(message.len() + 64);
    compress.compress_vec(message, &mut payload, flate2::FlushCompress::Sync).unwrap();
    payload.truncate(payload.len() - 4);
    if payload.len() < 126 {
        return frame(0x40 | first, &payload);
    }
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[0x40 | first, 0x80 | 126][..], &length, &[0; 4], &payload].concat()
}

/// The next message, and whether it came compressed; the head of an answer is passed over.
#[cfg(feature = "deflate")]
fn hears_deflated(peer: &mut TcpStream) -> (bool, String) {
    let mut head = [0; 2];
    peer.read_exact(&mut head).unwrap();
    if head == *b"HT" {
        answer(peer);
        return hears_deflated(peer);
    }
    assert_eq!(head[0] & 0xbf, 0x81, "whole text");
    let mut length = [0; 2];
    let length = match head[1] {
        126 => {
            peer.read_exact(&mut length).unwrap();
            u16::from_be_bytes(length)
        }
        short => short.into(),
    };
    let mut payload = vec![0; length.into()];
    peer.read_exact(&mut payload).unwrap();
    let is_deflated = head[0] & 0x40 != 0;
    if is_deflated {
        let mut inflated = Vec::with_capacity(1 << 16);
        payload.extend([0, 0, 0xff, 0xff]);
        let mut decompress = flate2::Decompress::new(false);
        let flush = flate2::FlushDecompress::Sync;
        decompress.decompress_vec(&payload, &mut inflated, flush).unwrap();
        payload = inflated;
    }
    (is_deflated, String::from_utf8(payload).unwrap())
}

/// So many bytes of JSON.
#[cfg(feature = "deflate")]
fn json(length: usize) -> String {
    let line = |number: usize| format!("{{\"id\":{number},\"price\":{}}},", number * 7919 % 1000);
    let mut json: String = (0..length).map(line).take(length / 16).collect();
    json.truncate(length);
    json
}

#[test]
#[cfg(feature = "deflate")]
fn one_publish_to_a_thousand_readers_who_compress_is_compressed_once_for_each_window() {
    let requests =
        [offering("/websocket", ""), offering("/websocket", "; server_max_window_bits=9")];
    // In one turn, and in as many as there are readers.
    for (windows, readers, time) in
        [(1, 1024, PATIENCE), (2, 1024, PATIENCE), (2, 1, Duration::from_millis(1))]
    {
        let change = move |config: &mut Config| {
            config.limits.turn_readers = readers;
            config.limits.turn_time = time;
        };
        let mut table = Table::new(change, Quiet);
        let mut peers: Vec<_> =
            (0..1000).map(|number| reads(&mut table, &requests[number % windows])).collect();
        table.settle();
        let before = table.counters();
        let text = json(4096);
        table.server.context().broadcast(&text).unwrap();
        table.settle();
        let after = table.counters();
        assert_eq!(after.deflated_15 - before.deflated_15, 1);
        assert_eq!(after.deflated_9 - before.deflated_9, windows as u64 - 1);
        assert_eq!(after.delivered - before.delivered, 1000);
        assert_eq!(after.writes - before.writes, 1000);
        let written = after.written_bytes - before.written_bytes;
        assert!(written < 2_000_000, "{written} bytes in place of 4 MB");
        for peer in &mut peers {
            assert!(hears_deflated(peer) == (true, text.clone()));
        }
        // Who comes later finds it compressed.
        let late = offering("/websocket?after=earliest", "");
        let mut late = reads(&mut table, &late);
        table.settle();
        assert!(hears_deflated(&mut late) == (true, text));
        assert_eq!(table.counters().deflated_15, after.deflated_15);
    }
}

#[test]
#[cfg(all(feature = "deflate", feature = "v1"))]
fn several_messages_are_joined_compressed_as_well_in_text_mode_and_in_pousse_v1() {
    let session = offering("/websocket?topic=general", "")
        .replace("Upgrade: w", "Sec-WebSocket-Protocol: pousse.v1\r\nUpgrade: w");
    let mut table = Table::new(|_| {}, Quiet);
    let requests = [offering("/websocket", ""), session, opening("/websocket")];
    let mut peers: Vec<_> =
        (0..30).map(|number| (number % 3, reads(&mut table, &requests[number % 3]))).collect();
    table.settle();
    let before = table.counters();
    let noise: String = (0..600_u64)
        .flat_map(|it| it.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes())
        .map(|byte| char::from(b'!' + byte % 90))
        .collect();
    let texts = [json(2000), "short".to_owned(), json(3000), noise];
    for text in &texts {
        table.server.context().broadcast(text).unwrap();
    }
    table.settle();
    let after = table.counters();
    assert_eq!(after.deflated_15 - before.deflated_15, 2 * 3, "not what is short");
    assert_eq!(after.writes - before.writes, 30);
    for (kind, peer) in &mut peers {
        if *kind == 1 {
            assert!(hears_deflated(peer).1.contains("hello"));
            assert!(hears_deflated(peer).1.contains("subscribed"));
        }
        for (number, text) in texts.iter().enumerate() {
            let (is_deflated, heard) = hears_deflated(peer);
            assert_eq!(is_deflated, *kind != 2 && number != 1);
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
            let is_it = if *kind == 1 { heard.contains(&escaped) } else { heard == *text };
            assert!(is_it, "{heard}\n{text}");
        }
    }
}

#[test]
#[cfg(feature = "deflate")]
fn what_is_sent_to_one_client_is_compressed_for_it_if_it_is_long_enough() {
    let server = Running::new(echo);
    let mut peer = server.connect();
    peer.write_all(offering("/websocket", "; server_max_window_bits=12").as_bytes()).unwrap();
    peer.write_all(&deflated(0x81, json(1024).as_bytes())).unwrap();
    assert!(hears_deflated(&mut peer) == (true, json(1024)));
    peer.write_all(&deflated(0x81, &[b'a'; 1023])).unwrap();
    assert!(hears_deflated(&mut peer) == (false, "a".repeat(1023)));
    let counters = server.counters();
    assert_eq!((counters.deflated_9, counters.deflated_15), (1, 0));
    assert_eq!((counters.inflated, counters.inflated_bytes), (2, 2047));
    assert_eq!(counters.deflated_from_bytes, 1024);
    assert!(counters.deflated_to_bytes < 1024 && counters.inflated_from_bytes < 1024);
    // Who has not offered it gets it as it is, and so does who may not have it.
    let mut other = server.open("/websocket");
    other.says(&json(2000));
    assert_eq!(other.hears(), json(2000));
    assert_eq!(server.counters().deflated_9, 1);
}

#[test]
#[cfg(feature = "deflate")]
fn a_few_bytes_that_become_many_are_as_many_as_are_read_in_a_turn_and_then_somebody_else_is_heard()
{
    // As many as pass the limit, and shorter ones; so many messages a turn.
    for (length, a_turn) in [(65_536, 1), (32_768, 2), (1024, 52)] {
        let mut table = Table::new(|config| config.limits.turn_time = PATIENCE, Quiet);
        let mut peer = connect(table.address);
        let bombs = deflated(0x82, &vec![0; length]).repeat(300);
        assert!(bombs.len() < 60_000, "they come with one read");
        peer.write_all(&[offering("/websocket", "").into_bytes(), bombs].concat()).unwrap();
        let (mut heard, mut most) = (0, 0);
        while heard < 300 {
            table.server.turn(Some(PATIENCE)).unwrap();
            let counters = table.counters();
            assert!(Reason::ALL.iter().all(|it| counters.refused(*it) == 0), "{counters}");
            most = most.max(counters.received - heard);
            heard = counters.received;
            assert_eq!(counters.inflated_bytes, heard * length as u64);
        }
        assert_eq!(most, a_turn, "messages of {length} bytes");
    }
}
