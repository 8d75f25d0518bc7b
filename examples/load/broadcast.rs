//! `broadcast`, `longpoll`, `slow`, `mixed`: one publishes so many messages at once; when every
//! reader has them all, the next.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::args::{Args, Transport};
use crate::frame::Messages;
use crate::http;
use crate::meter::{Histogram, Meter};
use crate::net::Net;
use crate::transport::Reader;

/// A reader that stalls has room for little, so that it does at once.
const STALLED_BUFFER: usize = 4096;

pub(crate) fn run(args: &Args) -> Value {
    let mut room = Room::open(args);
    let mut meter = Meter::new(args);
    let mut rounds = Histogram::default();
    loop {
        let now = Instant::now();
        let count = meter.allow(args.in_flight as u64, now);
        if count == 0 {
            break;
        }
        room.publish(count as u32);
        room.hear_all(now, &mut meter);
        rounds.record(now.elapsed(), 1);
    }
    let transports: Vec<String> = args.transports.iter().map(|it| format!("{it:?}")).collect();
    let more = json!({
        "transports": transports.join(" "), "stalled": args.stalled, "all_us": rounds.report(),
    });
    meter.report(args, more)
}

/// Everyone who reads, and whoever publishes, who is the last in the list.
pub(crate) struct Room<'a> {
    args: &'a Args,
    pub(crate) net: Net,
    pub(crate) readers: Vec<Reader>,
    messages: Messages,
    published: u32,
    publisher: usize,
    reply: Vec<u8>,
}

impl<'a> Room<'a> {
    pub(crate) fn open(args: &'a Args) -> Self {
        let mut net = Net::new(args);
        let mut messages = match args.deflate {
            true => Messages::of_json(args.size),
            false => Messages::new(args.size, args.is_raw),
        };
        let in_turn = |at: usize| args.transports[at % args.transports.len()];
        // A publisher that is given what it publishes is one of the readers.
        let is_one = args.publisher_reads && args.transports == [Transport::Websocket];
        let count = args.connections - usize::from(is_one);
        let mut readers: Vec<Reader> =
            (0..count).map(|at| Reader::new(in_turn(at), args)).collect();
        if args.is_nchan && args.transports.contains(&Transport::LongPoll) {
            // Nchan tells a place with a message only: there has to be one.
            let post = http::request("POST", "/pub", "", messages.text(0));
            net.open_all(1, None, |_| post.clone(), |_, _| {});
            net.conns.clear();
        }
        let first = |at: usize| Reader::first(in_turn(at), args);
        net.open_all(count, None, first, |at, answer| readers[at].begin(answer));
        let stalled = |_| Reader::first(Transport::Websocket, args);
        net.open_all(args.stalled, Some(STALLED_BUFFER), stalled, |_, _| {});
        (count..count + args.stalled).for_each(|at| net.stall(at));
        let publisher = count + args.stalled;
        net.open_all(1, None, |_| http::opening(&args.publish_path, ""), |_, _| {});
        for (reader, conn) in readers.iter().zip(&mut net.conns) {
            if let Some(request) = reader.ask(&args.path) {
                conn.send(&request);
            }
        }
        readers.resize_with(publisher + 1, || Reader::new(Transport::Websocket, args));
        readers[publisher].is_deaf = !args.publisher_reads;
        Self { args, net, readers, messages, published: 0, publisher, reply: Vec::new() }
    }

    pub(crate) fn publish(&mut self, count: u32) {
        let mut batch = Vec::new();
        for number in self.published..self.published + count {
            self.messages.put(number, &mut batch);
        }
        self.published += count;
        self.net.conns[self.publisher].send(&batch);
    }

    /// Who has to hear, by place in the list.
    fn is_awaited(&self, at: usize) -> bool {
        let is_stalled = at >= self.publisher - self.args.stalled && at < self.publisher;
        let is_deaf = at == self.publisher && self.readers[at].is_deaf;
        !is_stalled && !is_deaf
    }

    /// Until everyone has what was published up to now.
    pub(crate) fn hear_all(&mut self, since: Instant, meter: &mut Meter) {
        let mut missing = (0..self.readers.len()).filter(|&at| self.is_awaited(at)).count();
        while missing > 0 {
            self.net.wait(Some(Duration::from_secs(60)));
            assert!(!self.net.ready.is_empty(), "{missing} have not been given everything");
            missing -= self.hear(since, meter);
        }
    }

    /// What there is; how many have everything now.
    pub(crate) fn hear(&mut self, since: Instant, meter: &mut Meter) -> usize {
        let mut all = 0;
        for &at in &self.net.ready {
            let (reader, conn) = (&mut self.readers[at], &mut self.net.conns[at]);
            conn.flush();
            let before = reader.heard;
            let (messages, reply) = (&self.messages, &mut self.reply);
            reply.clear();
            let path = &self.args.path;
            conn.receive(&mut self.net.scratch, |it| reader.take(it, messages, reply, path));
            if !reply.is_empty() {
                conn.send(reply);
            }
            let heard = reader.heard - before;
            if heard > 0 {
                meter.count(u64::from(heard), since.elapsed());
                all += usize::from(reader.heard == self.published);
            }
        }
        all
    }
}
