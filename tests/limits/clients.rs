//! Limits on topics, on clients, and on the bytes that wait for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use kit::lines::Lines;
use pousse::{ConnId, Context, Handler, Limits, Message, Reason, RemoteError, SendError, Server};

use crate::by_hand::ByHand;
use crate::peer::{Innocent, Peer, frame, opening};
use crate::running::{Chat, Does, PATIENCE, Running, bind, ms};

#[test]
pub(crate) fn the_unread_topic_with_the_oldest_message_makes_room_and_if_all_are_read_it_is_503() {
    let running = Running::chat(|limits| limits.max_topics = 3);
    let mut innocent = Innocent::of(&running);
    let mut peer = Peer::connect(running.address);
    assert_eq!(peer.posts("a", "1").status, 201);
    assert_eq!(peer.posts("b", "2").status, 201);
    assert_eq!(peer.posts("a", "3").status, 201, "just to the limit");
    assert!(peer.asks("GET /api/messages?topic=a").content.contains("\"3\""));
    assert_eq!(peer.posts("c", "4").status, 201);
    assert!(!peer.asks("GET /api/messages?topic=a").content.contains("\"3\""), "a made room");
    assert!(peer.asks("GET /api/messages?topic=b").content.contains("\"2\""));

    let _readers =
        ["b", "c"].map(|it| Peer::open(running.address, &format!("/websocket?topic={it}")));
    let answer = peer.posts("d", "5");
    assert_eq!(answer.status, 503);
    assert!(answer.head.contains("\r\nRetry-After: "), "{}", answer.head);
    running.counts("refused.max-topics", |now| now.refused(Reason::MaxTopics) > 0);
    assert_eq!(running.counters().refused(Reason::MaxTopics), 1, "one refusal is counted once");
    assert_eq!(
        peer.asks("GET /api/messages?topic=d&wait=5").status,
        503,
        "a long poll is a reader"
    );
    running.counts("refused.max-topics", |now| now.refused(Reason::MaxTopics) > 1);

    let mut late = Peer::open(running.address, "/websocket?topic=d");
    assert_eq!(late.hears_close(), 1013);
    late.says(frame(0x88, &1013u16.to_be_bytes()));
    late.ends();
    drop(late);
    running.counts("closed.max-topics", |now| now.closed(Reason::MaxTopics) == 1);
    innocent.is_served();
}

#[test]
pub(crate) fn a_client_too_many_waits_in_the_queue_and_is_served_when_one_leaves() {
    let running = Running::chat(|limits| limits.max_clients = 2);
    let mut innocent = Innocent::of(&running);
    let first = Peer::open(running.address, "/websocket");
    let mut waiting = [(); 2].map(|()| Peer::connect(running.address));
    for peer in &mut waiting {
        peer.says(opening("/websocket"));
        assert_eq!(peer.reads(ms(100)), None, "it waits, and nothing is said");
    }
    innocent.is_served();
    assert_eq!(running.counters().accepted, 2);
    drop(first);
    let [mut second, mut third] = waiting;
    assert_eq!(second.answer().status, 101);
    assert_eq!(third.reads(ms(100)), None);
    drop(second);
    assert_eq!(third.answer().status, 101);
    running.counts("closed.gone", |now| now.closed(Reason::Gone) == 2);
    innocent.is_served();
}

#[test]
pub(crate) fn a_control_client_too_many_waits_and_max_clients_is_not_for_them() {
    let mut config = kit::common::config();
    config.control = Some("127.0.0.1:0".parse().unwrap());
    config.limits.max_clients = 1;
    config.limits.control_clients = 2;
    let server = Server::bind(config, Chat).unwrap();
    let at = |address: &str| address.strip_prefix("http://").unwrap().parse().unwrap();
    let control = at(&server.control_address().unwrap());
    let address = at(&server.addresses()[0]);
    let running = Running::of(server, address);

    let _only = Peer::open(running.address, "/websocket");
    let _waiting = Peer::connect(running.address);
    running.counts("refused.max-clients", |now| now.refused(Reason::MaxClients) == 1);
    let healthy = || {
        let mut peer = Peer::connect(control);
        assert_eq!(peer.asks("GET /healthz").status, 200, "though no other client may come");
        peer
    };
    let (mut first, mut second, _third) = (healthy(), healthy(), healthy());
    assert_eq!(first.ends(), b"", "it asks for nothing, and has done so for longest");
    assert_eq!(second.asks("GET /healthz").status, 200);

    let waiting = || {
        let mut peer = Peer::connect(control);
        peer.says("GET /api/messages?after=now&wait=50 HTTP/1.1\r\nHost: localhost\r\n\r\n");
        peer
    };
    let (first, mut second) = (waiting(), waiting());
    let mut third = Peer::connect(control);
    third.says("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    running.counts("refused.control-clients", |now| now.refused(Reason::ControlClients) == 1);
    assert_eq!(third.reads(ms(100)), None, "it waits, and nothing is said");
    assert_eq!(second.reads(ms(100)), None, "nobody is dropped whose answer is to come");
    drop(first);
    assert_eq!(third.answer().status, 200);
    assert_eq!(running.counters().accepted, 1, "the owner is none of them");
}

#[test]
pub(crate) fn a_client_for_whom_much_waits_is_not_read() {
    // Exactly: the last byte makes the difference.
    for (bytes, wants_input) in [(999, true), (1000, false)] {
        let mut by_hand = ByHand::websocket(|limits| limits.outbox_soft = 1000);
        // Four bytes are the head of the frame.
        let message = Message::Binary(&[0; 1000][..bytes - 4]);
        by_hand.connection.send(message, &mut by_hand.turn).unwrap();
        assert_eq!(by_hand.connection.waiting_bytes(), bytes);
        assert_eq!(by_hand.connection.wants_input(&by_hand.turn), wants_input, "{bytes}");
        by_hand.flush();
        assert!(by_hand.connection.wants_input(&by_hand.turn), "and is read again later");
    }

    // One who sends and sends, and takes nothing of what comes back.
    const SOFT: usize = 100_000;
    const MESSAGE: usize = 60_000;
    const MESSAGES: usize = 600;
    let waiting_max = Arc::new(AtomicUsize::new(0));
    let waiting = waiting_max.clone();
    let echo = move |conn: ConnId, message: Message<'_>, ctx: &mut Context<'_>| {
        ctx.send(conn, message).unwrap();
        waiting.fetch_max(ctx.client(conn).unwrap().waiting_bytes, SeqCst);
    };
    let running = Running::with(|limits| limits.outbox_soft = SOFT, Does(echo));
    let mut innocent = Innocent::of(&running);
    let mut peer = Peer::open(running.address, "/websocket");
    let mut pen = peer.shared();
    let writer = std::thread::spawn(move || {
        for number in 0..MESSAGES {
            pen.tries_to_say(&frame(0x82, &[number as u8; MESSAGE])).unwrap();
        }
    });
    running.counts("more than the limit waits", |_| waiting_max.load(SeqCst) >= SOFT);
    innocent.is_served();
    for number in 0..MESSAGES {
        assert_eq!(peer.hears(), (0x82, vec![number as u8; MESSAGE]), "all, in order");
    }
    writer.join().unwrap();
    let most = waiting_max.load(SeqCst);
    // What a read brings is answered, all of it.
    let one_read = Limits::default().turn_read + MESSAGE;
    assert!(most <= SOFT + one_read, "{most} bytes waited");
    innocent.is_served();
}

#[test]
pub(crate) fn a_direct_send_to_a_client_for_whom_too_much_waits_is_refused() {
    let (tell, told) = std::sync::mpsc::channel();
    let flood = move |conn: ConnId, _: Message<'_>, ctx: &mut Context<'_>| {
        let mut sent = 0;
        let refused = loop {
            match ctx.send(conn, &[7; 996][..]) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        tell.send((sent, refused)).unwrap();
    };
    // Ten frames of 1000 bytes are just the limit.
    let running = Running::with(|limits| limits.outbox = 10_000, Does(flood));
    let mut innocent = Innocent::of(&running);
    let mut peer = Peer::open(running.address, "/websocket");
    for round in 1..=2 {
        peer.says(frame(0x81, b"flood"));
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), (10, SendError::Full));
        for _ in 0..10 {
            assert_eq!(peer.hears(), (0x82, vec![7; 996]), "what was taken comes");
        }
        running.counts("refused.outbox", |now| now.refused(Reason::Outbox) == round);
    }
    innocent.is_served();
}

#[test]
pub(crate) fn a_direct_send_to_a_client_for_whom_too_many_messages_wait_is_refused() {
    let (tell, told) = std::sync::mpsc::channel();
    let flood = move |conn: ConnId, _: Message<'_>, ctx: &mut Context<'_>| {
        let sends = std::iter::repeat_with(|| ctx.send(conn, "!"));
        tell.send(sends.take_while(Result::is_ok).count()).unwrap();
    };
    let running = Running::with(|limits| limits.outbox_messages = 100, Does(flood));
    let mut innocent = Innocent::of(&running);
    let mut peer = Peer::open(running.address, "/websocket");
    for round in 1..=2 {
        peer.says(frame(0x81, b"flood"));
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), 100);
        for _ in 0..100 {
            assert_eq!(peer.hears(), (0x81, b"!".to_vec()), "what was taken comes");
        }
        running
            .counts("refused.outbox-messages", |now| now.refused(Reason::OutboxMessages) == round);
    }
    innocent.is_served();

    // From a quarter of them on it is not read, and again when they have left.
    let mut by_hand = ByHand::websocket(|limits| limits.outbox_messages = 8);
    for sent in 1..=8 {
        by_hand.connection.send(Message::Text("!"), &mut by_hand.turn).unwrap();
        assert_eq!(by_hand.connection.wants_input(&by_hand.turn), sent <= 2, "{sent}");
    }
    let full = by_hand.connection.send(Message::Text("!"), &mut by_hand.turn);
    assert_eq!(full, Err(SendError::Full));
    by_hand.flush();
    assert!(by_hand.connection.wants_input(&by_hand.turn));
}

/// Sends to whoever says something until his socket takes no more; `waits` is the sign of it.
pub(crate) struct Filler {
    pub(crate) waits: Arc<AtomicUsize>,
    to: Option<ConnId>,
}

impl Filler {
    pub(crate) const PAYLOAD: [u8; 50_000] = [7; 50_000];

    pub(crate) fn new() -> (Self, Arc<AtomicUsize>) {
        let waits = Arc::new(AtomicUsize::new(0));
        (Self { waits: waits.clone(), to: None }, waits)
    }
}

impl Handler for Filler {
    fn on_message(&mut self, conn: ConnId, _: Message<'_>, ctx: &mut Context<'_>) {
        if self.to.is_none() {
            self.to = Some(conn);
            ctx.wake_after(Duration::ZERO, 0);
        }
    }

    fn on_wake(&mut self, again: u64, ctx: &mut Context<'_>) {
        let Some(client) = self.to.and_then(|to| ctx.client(to)) else {
            return self.waits.store(usize::MAX, SeqCst);
        };
        if client.waiting_bytes > 0 && again > 0 {
            self.waits.store(client.waiting_bytes, SeqCst);
        } else if self.waits.load(SeqCst) == 0 {
            ctx.send(client.id, &Self::PAYLOAD[..]).unwrap();
        }
        // A time for the socket to take what it may; and a look whether the client is still there.
        ctx.wake_after(ms(1), again + 1);
    }
}

#[test]
pub(crate) fn a_client_that_takes_nothing_for_too_long_is_closed_with_1013() {
    let (filler, waits) = Filler::new();
    let running = Running::with(
        |limits| {
            limits.stall = ms(300);
            limits.close_timeout = Duration::from_secs(5);
        },
        filler,
    );
    let mut innocent = Innocent::of(&running);
    let mut peer = Peer::open(running.address, "/websocket");
    peer.says(frame(0x81, b"fill"));
    running.counts("bytes wait for it", |_| waits.load(SeqCst) > 0);
    innocent.is_served();
    running.counts("it is cut", |_| waits.load(SeqCst) == usize::MAX);
    // Now it reads after all: whole frames, and then why.
    let mut frames = 0;
    let code = loop {
        match peer.hears() {
            (0x82, payload) => assert_eq!(payload, Filler::PAYLOAD),
            (0x88, payload) => break u16::from_be_bytes([payload[0], payload[1]]),
            other => panic!("{other:?}"),
        }
        frames += 1;
    };
    assert!(code == 1013 && frames > 0, "{code} after {frames} frames");
    peer.ends();
    drop(peer);
    running.counts("closed.stall", |now| now.closed(Reason::Stall) == 1);
    innocent.is_served();
}

#[test]
pub(crate) fn commands_of_other_threads_that_may_wait_are_so_many() {
    static LINES: Lines = Lines::of(|line| line.ends_with(" reason=commands"));
    LINES.keep(log::LevelFilter::Info);
    let (mut server, address) = bind(|limits| limits.commands = 4, Chat);
    let remote = server.remote();
    for _ in 0..4 {
        assert_eq!(remote.publish("t", "x"), Ok(()));
    }
    assert_eq!(remote.publish("t", "x"), Err(RemoteError::Full));
    assert_eq!(remote.clone().stop(), Err(RemoteError::Full));
    server.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(server.context().counters().published, 4);
    for _ in 0..4 {
        assert_eq!(remote.publish("t", "x"), Ok(()));
    }
    let mut peer = Peer::connect(address);
    peer.says("GET /api/messages?topic=t HTTP/1.1\r\nHost: localhost\r\n\r\n");
    while server.context().counters().requests == 0 {
        server.turn(Some(PATIENCE)).unwrap();
    }
    assert_eq!(peer.answer().content.matches("\"x\"").count(), 8);
    // The queue is the other threads' business, so what did not fit is counted by them.
    let refused = server.context().counters().refused(Reason::Commands);
    assert_eq!(refused, 2, "refused.commands");
    assert_eq!(LINES.kept(), ["event=refused client=- count=2 reason=commands"]);
}
