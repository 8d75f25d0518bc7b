//! The parts of pousse, one at a time, so that their instructions can be counted.
//!
//! Run: `parts NAME TIMES` does one so often; without a name, lists them. `make bench-check` runs
//!      them under callgrind (`parts_check.rs`). No sockets, no clock, no system calls.

#![expect(clippy::unwrap_used, reason = "a measurement that stops is one that tells")]

use std::hint::black_box;

use pousse::seam::{
    Connection, Cursor, Deadlines, Event, Form, Log, Outbox, Rules, Sink, Spare, Tick, Turn,
    WebSocket, Window, handshake,
};
use pousse::{Config, ConnId, Limits, Message, Peer, Publish};

/// Does it so often.
type Part = fn(usize);

/// Names, how often at first, and the parts. Where one needs several at once, that many are one.
const PARTS: &[(&str, usize, Part)] = &[
    ("head_of_a_browser", 500, |times| head(BROWSER, times)),
    ("head_of_a_poll", 500, |times| head(POLL, times)),
    ("opening_handshake", 200, opening_handshake),
    ("frame_20_bytes", 10_000, |times| frames(20, times)),
    ("frame_1_kib", 2000, |times| frames(1024, times)),
    ("frame_16_kib", 200, |times| frames(16 * 1024, times)),
    ("frame_1_kib_binary", 2000, binary_frames),
    ("echo_20_bytes", 5000, echo),
    ("v1_publish_command", 2000, command),
    ("log_append_64_bytes", 10_000, append),
    ("log_append_to_a_topic_too_many", 2000, topic_too_many),
    ("cursor_one_entry", 10_000, |times| cursor(Form::Frame, 1, 1, times)),
    ("cursor_16_entries_joined", 2000, |times| cursor(Form::Frame, 16, 2, times)),
    ("delivery_to_one_reader", 10_000, |times| delivery(1, times)),
    ("delivery_of_16_to_one_reader", 2000, |times| delivery(16, times)),
    ("made_and_taken_as_v1", 2000, |times| cursor(Form::Session, 1, 1, times)),
    ("made_and_taken_as_event", 2000, |times| cursor(Form::Event, 1, 1, times)),
    ("made_and_taken_as_event_text", 2000, |times| cursor(Form::EventText, 1, 1, times)),
    ("made_and_taken_as_envelope", 2000, |times| cursor(Form::Envelope, 1, 1, times)),
    ("deflate_4_kib", 50, deflate),
    ("sweep_at_a_million_per_tick", 50, sweep),
    ("sweep_with_nothing_due", 1000, empty_sweep),
];

const BROWSER: &str = "GET /websocket?topic=general HTTP/1.1\r\nHost: localhost:8080\r\n\
    Connection: Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/140.0.0.0 Safari/537.36\r\nUpgrade: websocket\r\nOrigin: http://localhost:8080\r\n\
    Sec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-US,en;q=0.9\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
const POLL: &str = "GET /api/messages?after=1764000000000-17 HTTP/1.1\r\nHost: localhost\r\n\r\n";
const OPENING: &str = "GET /websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const TOPIC: &str = "general";
const ID: ConnId = ConnId::new(0, 1);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, times] = words.as_slice() else {
        PARTS.iter().for_each(|(name, times, _)| println!("{name} {times}"));
        return;
    };
    let (_, _, part) = PARTS.iter().find(|(it, ..)| it == name).expect("a part of this name");
    part(times.parse().unwrap());
}

/// Where bytes go, and are forgotten.
#[derive(Debug, Default)]
struct Nowhere;

impl std::io::Write for Nowhere {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        black_box(bytes);
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, pieces: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
        black_box(pieces);
        Ok(pieces.iter().map(|piece| piece.len()).sum())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink for Nowhere {}

fn turn() -> Turn {
    let mut config = Config::default();
    config.limits.history = 100;
    Turn::new(&config)
}

fn log(turn: &Turn) -> Log {
    Log::new(1_764_000_000_000, turn.limits.clone())
}

fn text(size: usize) -> String {
    "abcdefghijklmnopqrstuvwxyz".chars().cycle().take(size).collect()
}

/// A masked frame, as a client writes it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let length = u16::try_from(payload.len()).unwrap();
    let mut frame = vec![first];
    if length < 126 {
        frame.push(0x80 | length.to_be_bytes()[1]);
    } else {
        frame.push(0xfe);
        frame.extend_from_slice(&length.to_be_bytes());
    }
    frame.extend_from_slice(&key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// From the bytes of a head to the request, on a fresh connection.
fn head(head: &str, times: usize) {
    let mut turn = turn();
    for _ in 0..times {
        let mut connection = Connection::new(ID, Peer::Unix, &turn);
        let mut bytes = head.as_bytes().to_vec();
        let request = connection.receive(&mut bytes.as_mut_slice(), &mut turn);
        assert!(matches!(black_box(request), Some(Event::Request(_))));
    }
}

/// From the bytes of a head to an open WebSocket.
fn open(fields: &str, turn: &mut Turn) -> Connection {
    let mut connection = Connection::new(ID, Peer::Unix, turn);
    let mut bytes = format!("{OPENING}{fields}\r\n").into_bytes();
    let Some(Event::Request(request)) = connection.receive(&mut bytes.as_mut_slice(), turn) else {
        panic!("no request");
    };
    let rules = Rules::new(&Config::default(), Publish::Anyone);
    connection.upgrade(handshake(&request, &rules, false).unwrap(), turn);
    connection.write_to(&mut Nowhere, turn).unwrap();
    connection
}

fn opening_handshake(times: usize) {
    let mut turn = turn();
    for _ in 0..times {
        black_box(open("", &mut turn));
    }
}

/// Header, unmasking and UTF-8 of so many texts that came together.
fn frames(size: usize, times: usize) {
    let (turn, mut spare) = (turn(), Spare::default());
    let mut bytes = frame(0x81, text(size).as_bytes()).repeat(times);
    let mut input = bytes.as_mut_slice();
    let mut frames = WebSocket::default();
    for _ in 0..times {
        let text = frames.receive(&mut input, &turn.limits, turn.now, &mut spare).unwrap();
        assert!(black_box(text).is_some());
    }
}

fn binary_frames(times: usize) {
    let (turn, mut spare) = (turn(), Spare::default());
    let mut bytes = frame(0x82, &[0xc3; 1024]).repeat(times);
    let mut input = bytes.as_mut_slice();
    let mut frames = WebSocket::default();
    for _ in 0..times {
        let message = frames.receive(&mut input, &turn.limits, turn.now, &mut spare).unwrap();
        assert!(black_box(message).is_some());
    }
}

/// What a connection does with a message that goes back: received, put, written.
fn echo(times: usize) {
    let mut turn = turn();
    let mut connection = open("", &mut turn);
    let mut bytes = frame(0x81, text(20).as_bytes()).repeat(times);
    let mut input = bytes.as_mut_slice();
    for _ in 0..times {
        connection.begin_turn(&turn.limits);
        let Some(Event::Text(text)) = connection.receive(&mut input, &mut turn) else {
            panic!("no text");
        };
        connection.send(Message::Text(&text), &mut turn).unwrap();
        connection.write_to(&mut Nowhere, &mut turn).unwrap();
    }
}

/// A command of pousse.v1 from its frame.
fn command(times: usize) {
    let mut turn = turn();
    let mut connection = open("Sec-WebSocket-Protocol: pousse.v1\r\n", &mut turn);
    let text = format!(r#"{{"publish":"general","data":"{}"}}"#, text(64));
    let mut bytes = frame(0x81, text.as_bytes()).repeat(times);
    let mut input = bytes.as_mut_slice();
    for _ in 0..times {
        connection.begin_turn(&turn.limits);
        let command = connection.receive(&mut input, &mut turn);
        assert!(matches!(black_box(command), Some(Event::Command(_))));
    }
}

/// With a history that is full, so that each one more has one dropped.
fn append(times: usize) {
    let turn = turn();
    let mut log = log(&turn);
    let text = text(64);
    for _ in 0..times {
        let (topic, id) = log.append(TOPIC, Message::Text(&text), None, turn.now).unwrap();
        log.offered(topic, id.seq);
        log.trim(turn.now);
    }
}

/// Each to a topic of its own, which another one makes room for. Beside them is a long history of
/// topics that are read.
fn topic_too_many(times: usize) {
    let turn = turn();
    let mut limits = Limits::default();
    limits.max_topics = 80;
    let mut log = Log::new(7, limits);
    for number in 0..40 {
        log.join(&format!("read {number}")).unwrap();
    }
    for number in 0..10_000 {
        log.append(&format!("read {}", number % 40), "".into(), None, turn.now).unwrap();
    }
    for number in 0..times {
        log.append(&format!("new {number}"), "".into(), None, turn.now).unwrap();
        log.trim(turn.now);
    }
}

/// So many entries appended, and taken in this form by so many readers at the same place.
fn cursor(form: Form, entries: usize, readers: usize, times: usize) {
    let mut turn = turn();
    let mut log = log(&turn);
    let text = text(64);
    let topic = log.join(TOPIC).unwrap();
    let mut cursors: Vec<Cursor> = (0..readers).map(|_| Cursor::default()).collect();
    for cursor in &mut cursors {
        log.join(TOPIC).unwrap();
        cursor.read(topic, 0, 0);
    }
    let mut outbox = Outbox::default();
    for _ in 0..times {
        let mut last = 0;
        for _ in 0..entries {
            last = log.append(TOPIC, Message::Text(&text), None, turn.now).unwrap().1.seq;
        }
        for cursor in &mut cursors {
            while cursor.take(ID, (form, u64::MAX), &log, &mut outbox, &mut turn) {}
            outbox.write_to(&mut Nowhere, usize::MAX).unwrap();
        }
        log.offered(topic, last);
        log.drop_encoded();
        log.trim(turn.now);
    }
}

/// What one more reader costs: many take the same entries in the same turn.
fn delivery(entries: usize, times: usize) {
    let mut turn = turn();
    let mut log = log(&turn);
    let topic = log.join(TOPIC).unwrap();
    let text = text(64);
    for _ in 0..entries {
        log.append(TOPIC, Message::Text(&text), None, turn.now).unwrap();
    }
    log.join(TOPIC).unwrap();
    let mut connection = open("", &mut turn);
    for _ in 0..times {
        connection.cursor = Cursor::default();
        connection.cursor.read(topic, 0, 0);
        assert!(!connection.fill(&log, &mut turn));
        connection.write_to(&mut Nowhere, &mut turn).unwrap();
    }
}

/// So much JSON as a price feed sends; another for each number.
fn json(number: u32) -> String {
    let mut json = String::from("[");
    let mut state = number;
    while json.len() < 4000 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (price, volume) = (state >> 16, state >> 24);
        let quote =
            format!(r#"{{"symbol":"S{volume}","price":{price},"volume":{volume},"side":"buy"}},"#);
        json.push_str(&quote);
    }
    json + "null]"
}

/// Appended, compressed, and taken by a reader.
fn deflate(times: usize) {
    let mut turn = turn();
    let mut log = log(&turn);
    let topic = log.join(TOPIC).unwrap();
    let mut cursor = Cursor::default();
    cursor.read(topic, 0, 0);
    let mut outbox = Outbox::default();
    let texts: Vec<String> = (0..8).map(json).collect();
    let form = Form::FrameDeflated(Window::Fifteen);
    for (tick, text) in (1..).zip(texts.iter().cycle()).take(times) {
        // A turn compresses so much and no more.
        turn.begin(Tick(tick), 0);
        let (_, id) = log.append(TOPIC, Message::Text(text), None, turn.now).unwrap();
        while cursor.take(ID, (form, u64::MAX), &log, &mut outbox, &mut turn) {}
        outbox.write_to(&mut Nowhere, usize::MAX).unwrap();
        log.offered(topic, id.seq);
        log.drop_encoded();
        log.trim(turn.now);
    }
    assert_eq!(usize::try_from(turn.counters.deflated_15), Ok(times));
}

/// A million clients, spread over a round; each tick, those who are due are armed anew.
fn sweep(times: usize) {
    let mut deadlines = Deadlines::default();
    for index in 0..1_000_000 {
        deadlines.arm(Tick(1 + index % 1000), index);
    }
    let mut due = Vec::new();
    for tick in 1..=u32::try_from(times).unwrap() {
        deadlines.take(Tick(tick), &mut due);
        for index in due.drain(..) {
            deadlines.arm(Tick(tick + 1000), index);
        }
    }
}

/// The same million, and a moment at which none of them is due.
fn empty_sweep(times: usize) {
    let mut deadlines = Deadlines::default();
    for index in 0..1_000_000 {
        deadlines.arm(Tick(500 + index % 500), index);
    }
    let mut due = Vec::new();
    for _ in 0..times {
        deadlines.take(Tick(1), &mut due);
    }
    assert!(due.is_empty());
}
