//! `poll` and `publish`: requests on persistent connections, each when the one before is answered.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::args::Args;
use crate::frame::Messages;
use crate::http;
use crate::meter::Meter;
use crate::net::Net;

pub(crate) fn run(args: &Args) -> Value {
    let mut messages = Messages::new(args.size, false);
    let text = messages.text(0).to_vec();
    let post = http::request("POST", publish_target(args), "", &text);
    let is_poll = args.work == "poll";
    let requests: Vec<Vec<u8>> = match is_poll {
        true => vec![poll_request(args, &post)],
        false if args.topics == 1 => vec![post],
        false => (0..args.topics)
            .map(|at| http::request("POST", &format!("/api/messages?topic=t{at}"), "", &text))
            .collect(),
    };
    let status = if is_poll { args.status } else { 201 };
    let mut net = Net::new(args);
    let mut sent = vec![Instant::now(); args.connections];
    let mut meter = Meter::new(args);
    let (mut next, mut under_way) = (0, 0);
    let mut request = || {
        next = (next + 1) % requests.len();
        requests[next].as_slice()
    };
    let now = Instant::now();
    for at in &mut sent {
        if meter.allow(1, now) == 1 {
            net.open(request(), None);
            *at = now;
            under_way += 1;
        }
    }
    while under_way > 0 {
        net.wait(Some(Duration::from_secs(20)));
        assert!(!net.ready.is_empty(), "{under_way} requests were not answered");
        for &at in &net.ready {
            let conn = &mut net.conns[at];
            conn.flush();
            let (now, mut came) = (Instant::now(), 0);
            conn.receive(&mut net.scratch, |bytes| {
                let Some((answer, used)) = http::take(bytes) else { return 0 };
                let is_well = answer.status == status || (!is_poll && answer.status == 202);
                assert!(is_well, "{answer:?}");
                if is_poll && status == 200 {
                    let has = answer.content.windows(text.len()).any(|it| it == text);
                    assert!(has, "{answer:?}");
                }
                meter.count(1, now - sent[at]);
                came += 1;
                used
            });
            if came > 0 {
                under_way -= 1;
                if meter.allow(1, now) == 1 {
                    conn.send(request());
                    sent[at] = now;
                    under_way += 1;
                }
            }
        }
    }
    meter.report(args, json!({ "status": status, "topics": args.topics }))
}

fn publish_target(args: &Args) -> &str {
    if args.is_nchan { "/pub" } else { "/api/messages" }
}

/// Publishes one message and makes the request for it, or for nothing newer.
fn poll_request(args: &Args, post: &[u8]) -> Vec<u8> {
    let target = if args.is_nchan { "/poll" } else { "/api/messages" };
    let mut net = Net::new(args);
    let mut validators = String::new();
    net.open_all(1, None, |_| post.to_vec(), |_, _| {});
    net.open_all(
        1,
        None,
        |_| http::request("GET", target, "", &[]),
        |_, answer| {
            let names = [("etag", "If-None-Match"), ("last-modified", "If-Modified-Since")];
            for (field, name) in names {
                if let Some(value) = answer.field(field) {
                    validators.push_str(&format!("{name}: {value}\r\n"));
                }
            }
        },
    );
    let fields = if args.status == 304 { validators.as_str() } else { "" };
    http::request("GET", target, fields, &[])
}
