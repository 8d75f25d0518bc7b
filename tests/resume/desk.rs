//! One reader at a time, written out: what it asks, and what it hears next.

use std::time::Duration;

use pousse::{Config, ConnId};
use serde_json::Value;

use crate::wire::{Block, Heard, Line, get, json, opening};
use crate::world::{Data, World};

/// Turns without a word after which somebody has been forgotten.
const TURNS_MAX: usize = 20_000;

impl World {
    /// A message of bare text.
    pub(crate) fn says(&mut self, topic: &str, text: &str) -> String {
        self.publish(topic, Data::Text(text.into())).expect("there is room").to_string()
    }

    /// An id of this run.
    pub(crate) fn at(&self, seq: u64) -> String {
        format!("{}-{seq}", self.run)
    }

    fn line(&mut self, bytes: impl AsRef<[u8]>) -> Line {
        let mut line = Line::open(&self.path);
        line.writes(bytes);
        self.settle();
        line
    }

    pub(crate) fn event_stream(&mut self, query: &str) -> Line {
        let mut line = self.line(get(query, "Accept: text/event-stream\r\n"));
        line.reads(usize::MAX);
        let head = line.head().unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        line
    }

    pub(crate) fn long_poll(&mut self, query: &str) -> Line {
        self.line(get(&format!("{query}&wait=50"), ""))
    }

    pub(crate) fn text(&mut self, query: &str) -> Line {
        let mut line = self.line(opening(query, false));
        line.reads(usize::MAX);
        assert!(line.head().unwrap().starts_with("HTTP/1.1 101 "));
        line
    }

    /// A client of pousse.v1 that has been greeted.
    pub(crate) fn session(&mut self, query: &str) -> (Line, ConnId) {
        let mut line = self.line(opening(query, true));
        line.reads(1024);
        assert!(line.head().unwrap().starts_with("HTTP/1.1 101 "));
        let hello = self.hears(&mut line);
        let client = hello["hello"]["client"].as_str().unwrap().split_once('-').unwrap();
        let client = ConnId::new(client.0.parse().unwrap(), client.1.parse().unwrap());
        (line, client)
    }

    fn waits_for<T>(&mut self, line: &mut Line, mut take: impl FnMut(&mut Line) -> Option<T>) -> T {
        for _ in 0..TURNS_MAX {
            if let Some(it) = take(line) {
                return it;
            }
            line.reads(64 * 1024);
            if let Some(it) = take(line) {
                return it;
            }
            assert!(!line.has_ended, "it has ended");
            self.turn();
        }
        panic!("nothing comes; there is {:?}", String::from_utf8_lossy(line.waiting()));
    }

    pub(crate) fn frame(&mut self, line: &mut Line) -> Heard {
        self.waits_for(line, Line::frame)
    }

    /// The next frame of pousse.v1.
    pub(crate) fn hears(&mut self, line: &mut Line) -> Value {
        match self.frame(line) {
            Heard::Text(text) => json(&text),
            other => panic!("{other:?} and no text"),
        }
    }

    /// The next block of an event stream that says something.
    pub(crate) fn block(&mut self, line: &mut Line) -> Block {
        loop {
            let block = self.waits_for(line, Line::block);
            if block != Block::default() {
                return block;
            }
        }
    }

    /// The next event of a stream: its id and its JSON; a heartbeat has none.
    pub(crate) fn event(&mut self, line: &mut Line) -> (Option<String>, Option<Value>) {
        let block = self.block(line);
        (block.id, block.data.map(|data| json(&data)))
    }

    pub(crate) fn answer(&mut self, line: &mut Line) -> (u16, Value) {
        let (status, content) = self.waits_for(line, Line::answer);
        (status, json(&content))
    }

    /// Nothing more is on its way.
    pub(crate) fn hears_nothing(&mut self, line: &mut Line) {
        self.settle();
        line.reads(usize::MAX);
        assert_eq!(String::from_utf8_lossy(line.waiting()), "");
    }

    /// Turns as time passes, until this is so.
    pub(crate) fn until(&mut self, mut is_so: impl FnMut(&mut Self) -> bool) {
        for _ in 0..TURNS_MAX {
            if is_so(self) {
                return;
            }
            self.server.turn(Some(Duration::from_millis(50))).unwrap();
        }
        panic!("it does not come to that");
    }

    pub(crate) fn waiting_bytes(&mut self, client: ConnId) -> usize {
        self.server.context().client(client).map_or(0, |told| told.waiting_bytes)
    }
}

/// A server with a history of so many.
pub(crate) fn world(name: &str, change: impl FnOnce(&mut Config)) -> World {
    World::new(name, change)
}

/// The texts of messages.
pub(crate) fn texts(messages: &Value) -> Vec<&str> {
    messages.as_array().unwrap().iter().map(|it| it["data"].as_str().unwrap()).collect()
}
