//! `connect`: opening handshakes, so many at a time; whoever is open is dropped for the next.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::args::Args;
use crate::http;
use crate::meter::Meter;
use crate::net::Net;

pub(crate) fn run(args: &Args) -> Value {
    let mut net = Net::new(args);
    let opening = http::opening(&args.path, "");
    let mut meter = Meter::new(args);
    let mut begun = vec![Instant::now(); args.connections];
    let mut is_open = vec![false; args.connections];
    let mut under_way = 0;
    for begun in &mut begun {
        if meter.allow(1, *begun) == 1 {
            net.open(&opening, None);
            *begun = Instant::now();
            under_way += 1;
        }
    }
    while under_way > 0 {
        net.wait(Some(Duration::from_secs(20)));
        assert!(!net.ready.is_empty(), "{under_way} are not open");
        for index in 0..net.ready.len() {
            let at = net.ready[index];
            let conn = &mut net.conns[at];
            conn.flush();
            conn.receive(&mut net.scratch, |bytes| {
                let Some((answer, used)) = http::take(bytes) else { return 0 };
                assert_eq!(answer.status, 101, "{answer:?}");
                is_open[at] = true;
                used
            });
            if !is_open[at] {
                continue;
            }
            is_open[at] = false;
            let now = Instant::now();
            meter.count(1, now - begun[at]);
            if meter.allow(1, now) == 1 {
                net.replace(at, &opening);
                begun[at] = now;
            } else {
                net.stall(at);
                under_way -= 1;
            }
        }
    }
    meter.report(args, json!({ "tls": args.tls.is_some() }))
}
