//! What the server calls: an application that does what its clients tell it to, and notes whether
//! it is told of each of them once.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use pousse::seam::machine;
use pousse::{CloseCode, ConnId, Context, Handler, Message, Request};

use crate::oracle::Oracle;

pub struct Application {
    pub oracle: Rc<RefCell<Oracle>>,
    /// Messages that a thread is to publish.
    pub remote: Rc<RefCell<Vec<usize>>>,
    /// What is to be woken for, and when.
    pub wakes: Vec<(Instant, Duration)>,
}

impl Application {
    fn publish(&mut self, number: usize, except: Option<ConnId>, ctx: &mut Context<'_>) {
        let (name, payload, is_binary) = {
            let oracle = self.oracle.borrow();
            let name = oracle.topics[oracle.topic_of(number)].clone();
            (name, oracle.payload(number), oracle.is_binary(number))
        };
        let text = String::from_utf8_lossy(&payload);
        let message = if is_binary { Message::Binary(&payload) } else { Message::Text(&text) };
        let published = match except {
            Some(conn) => ctx.publish_except(conn, &name, message),
            None => ctx.publish(&name, message),
        };
        if let Ok(Some(id)) = published {
            self.oracle.borrow_mut().learn(id.seq, number, Some(except));
        }
    }

    fn send(&mut self, to: u32, ctx: &mut Context<'_>) {
        let (conn, number) = {
            let mut oracle = self.oracle.borrow_mut();
            let open = oracle.opened.iter().filter(|((who, _), _)| *who == to);
            let Some(conn) = open.max_by_key(|((_, nth), _)| *nth).map(|(_, conn)| *conn) else {
                return;
            };
            let number = oracle.direct.entry(to).or_insert(0);
            *number += 1;
            (conn, *number)
        };
        // It may be gone, or have enough.
        let _ = ctx.send(conn, format!("D {to} {number}").as_str());
    }
}

impl Handler for Application {
    fn on_open(&mut self, conn: ConnId, request: &Request, _: &mut Context<'_>) {
        let number = |name: &str| {
            let mut query = request.query().flatten();
            query.find(|(it, _)| it == name).and_then(|(_, value)| value.parse::<u32>().ok())
        };
        let mut oracle = self.oracle.borrow_mut();
        if let (Some(who), Some(nth)) = (number("who"), number("nth")) {
            oracle.opened.insert((who, nth), conn);
        }
        if oracle.open.insert(conn, true).is_some() {
            oracle.wrong(format!("{conn} was opened twice"));
        }
    }

    fn on_message(&mut self, conn: ConnId, message: Message<'_>, ctx: &mut Context<'_>) {
        if self.oracle.borrow().open.get(&conn) != Some(&true) {
            self.oracle.borrow_mut().wrong(format!("a message of {conn}, who is not there"));
        }
        let text = String::from_utf8_lossy(message.as_bytes()).into_owned();
        let Some((verb, rest)) = text.split_at_checked(1) else { return };
        let number = rest.trim().parse::<u32>().unwrap_or(u32::MAX);
        let made = (number as usize) < self.oracle.borrow().len();
        match verb {
            "P" if made => self.publish(number as usize, None, ctx),
            "X" if made => self.publish(number as usize, Some(conn), ctx),
            "R" if made => self.remote.borrow_mut().push(number as usize),
            "S" => self.send(number, ctx),
            "W" if number < 10_000 => {
                let wait = Duration::from_millis(u64::from(number));
                self.wakes.push((ctx.now() + wait, machine::disturbed_before()));
                ctx.wake_after(wait, self.wakes.len() as u64 - 1);
            }
            "C" => ctx.close(conn, CloseCode::Normal, "as you wish"),
            "Z" => machine::advance(Duration::from_millis(150)),
            _ => {}
        }
    }

    fn on_close(&mut self, conn: ConnId, _: CloseCode, _: &str, _: &mut Context<'_>) {
        let mut oracle = self.oracle.borrow_mut();
        match oracle.open.insert(conn, false) {
            Some(true) => {}
            Some(false) => oracle.wrong(format!("{conn} was closed twice")),
            None => oracle.wrong(format!("{conn} was closed and had not been opened")),
        }
    }

    fn on_wake(&mut self, token: u64, ctx: &mut Context<'_>) {
        let (due, disturbed) = self.wakes[token as usize];
        let jumped = machine::disturbed() - disturbed;
        if ctx.now() < due || ctx.now() > due + jumped + Duration::from_millis(1) {
            let late = ctx.now().checked_duration_since(due);
            self.oracle.borrow_mut().wrong(format!("woken at a wrong time, late by {late:?}"));
        }
        let (topic, count) = {
            let oracle = self.oracle.borrow();
            (token as usize % oracle.topics.len(), 1 + token as usize % 3)
        };
        for _ in 0..count {
            let number = self.oracle.borrow_mut().make(topic, 300, false);
            self.publish(number, None, ctx);
        }
    }
}
