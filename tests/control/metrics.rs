//! The metrics: their form, their names, and whether they are true.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;

use kit::lines::Lines;
use pousse::{ConnId, Context, Handler, Message, Server};

use crate::common::{Said, answer, config, connect, content, http, quiet, request, status};
use crate::prometheus::Exposition;
use crate::{Running, ask, block, hears, publish, session, start, stream, until};

#[track_caller]
fn scrape(running: &Running) -> Exposition {
    let answer = ask(running, "GET", "/metrics", "");
    let kind = "\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n";
    assert!(answer.contains(kind) && answer.contains("\r\nCache-Control: no-store\r\n"));
    Exposition::read(content(&answer))
}

#[test]
fn every_name_has_its_unit_and_its_type_and_nothing_goes_down_that_counts() {
    let running = start(|_| {}, quiet);
    let before = scrape(&running);
    for (name, kind) in &before.types {
        assert!(name.starts_with("pousse_") || name.starts_with("process_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        assert!(!name.contains("_ms") && !name.contains("milli"), "{name}: seconds and bytes");
        for label in before.labels(name) {
            let known = ["reason", "limit", "transport", "result", "version", "window", "state"];
            assert!(known.contains(&label), "{label}");
        }
    }
    let (mut socket, _) = running.open_with_id("/websocket?topic=some%22topic");
    publish(&running, "some%22topic", "x");
    socket.hears();
    running.http("GET", "/nothing", "");
    let after = scrape(&running);
    assert_eq!(before.types, after.types);
    assert_eq!(
        before.values.keys().collect::<Vec<_>>(),
        after.values.keys().collect::<Vec<_>>(),
        "whatever happens, there are as many lines, and none names a topic"
    );
    for (series, value) in &before.values {
        let family = series.0.trim_end_matches("_bucket").trim_end_matches("_count");
        let kind = after.types.get(family.trim_end_matches("_sum"));
        if kind.is_none_or(|kind| kind != "gauge") {
            assert!(after.values[series] >= *value, "{series:?}");
        }
    }
}

/// Publishes `1`, `2` and `3`, each of them to two long polls that wait for it.
fn three_by_long_poll(running: &Running, after: &str) -> [TcpStream; 2] {
    let mut waits = [(); 2].map(|()| connect(running.address()));
    let mut after = after.to_owned();
    for text in ["1", "2", "3"] {
        for poll in &mut waits {
            let target = format!("/api/messages?topic=t&after={after}&wait=50");
            poll.write_all(request("GET", &target, "", "").as_bytes()).unwrap();
        }
        until(running, "both wait", || {
            let waiting = scrape(running).with("pousse_clients", &[("transport", "long-poll")]);
            waiting == 2.0
        });
        after = publish(running, "t", text);
        for poll in &mut waits {
            assert!(answer(poll).contains(&format!("\"data\":\"{text}\"")));
        }
    }
    waits
}

/// Three messages to two readers of each of the four transports, and what else was done.
#[test]
fn the_numbers_are_what_was_done() {
    let running = start(|_| {}, quiet);
    let before = scrape(&running);
    let mut texts = [running.open("/websocket?topic=t"), running.open("/websocket?topic=t")];
    let mut sessions = [(); 2].map(|()| session(running.address(), "topic=t").0);
    for session in &mut sessions {
        assert_eq!(hears(session)["subscribed"], "t");
    }
    let mut events = [(); 2].map(|()| stream(running.address(), "topic=t").unwrap());
    let start_id = before_id(&running);
    let mut polls = [(); 2].map(|()| connect(running.address()));
    let _waits = three_by_long_poll(&running, &start_id);
    for poll in &mut polls {
        let target = format!("/api/messages?topic=t&after={start_id}");
        poll.write_all(request("GET", &target, "", "").as_bytes()).unwrap();
        assert!(answer(poll).contains("\"data\":\"3\""));
    }
    texts
        .iter_mut()
        .for_each(|it| assert_eq!([it.hears(), it.hears(), it.hears()].concat(), "123"));
    sessions.iter_mut().for_each(|it| (0..3).for_each(|_| drop(hears(it))));
    events.iter_mut().for_each(|it| drop(block(it, "\"3\"")));
    // A place that nobody can have.
    running.http("GET", "/api/messages?topic=t&after=1-1", "");
    texts[0].says("received");
    until(&running, "received", || running.counters().received == 1);

    let now = scrape(&running);
    let grown =
        |name: &str, labels: &[(&str, &str)]| now.with(name, labels) - before.with(name, labels);
    let by = |way| grown("pousse_delivered_messages_total", &[("transport", way)]);
    let clients = |way| now.with("pousse_clients", &[("transport", way)]);
    assert_eq!(grown("pousse_published_messages_total", &[]), 3.0);
    assert_eq!(["event-stream", "long-poll"].map(by), [6.0, 6.0]);
    assert_eq!(by("websocket"), 12.0, "two in text mode, two in pousse.v1");
    assert_eq!(by("poll"), 9.0, "and one who had a gap");
    assert_eq!(clients("websocket"), 4.0);
    assert_eq!([clients("event-stream"), clients("long-poll")], [2.0, 0.0]);
    until(&running, "they rest", || {
        scrape(&running).with("pousse_clients", &[("transport", "http")]) == 4.0
    });
    assert_eq!(now.one("pousse_control_clients"), 1.0, "the one that asks");
    assert_eq!(grown("pousse_accepted_total", &[]), 12.0);
    assert_eq!(grown("pousse_resumes_total", &[("result", "ok")]), 8.0, "2 × 3 and 2 polls");
    assert_eq!(grown("pousse_resumes_total", &[("result", "gap")]), 1.0);
    assert_eq!(grown("pousse_gaps_total", &[]), 1.0);
    assert_eq!(grown("pousse_opened_total", &[("transport", "websocket")]), 4.0);
    assert_eq!(grown("pousse_opened_total", &[("transport", "event-stream")]), 2.0);
    assert_eq!(grown("pousse_received_messages_total", &[]), 1.0);
    assert_eq!(grown("pousse_fanout_seconds_count", &[]), 3.0, "each of the three went round once");
    assert!(grown("pousse_loop_turn_seconds_count", &[]) > 10.0);
    assert_eq!([now.one("pousse_history_messages"), now.one("pousse_history_topics")], [3.0, 1.0]);
    assert!(now.one("pousse_history_bytes") > 9.0);
    assert_eq!(now.one("pousse_history_dropped_messages_total"), 0.0);
    assert_eq!(now.one("pousse_waiting_bytes"), 0.0);
    assert_eq!(now.one("pousse_clients_max"), 10_000.0);
    assert_eq!(now.one("pousse_draining"), 0.0);
    let counters = running.counters();
    assert_eq!(counters.delivered, 33, "the sum of the four");
    assert!(now.one("pousse_read_bytes_total") <= counters.read_bytes as f64);
    assert!(now.one("pousse_requests_total") > 20.0);
    assert_eq!(now.with("pousse_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
}

/// Where the log is.
fn before_id(running: &Running) -> String {
    let answer = running.http("GET", "/api/messages?topic=t&after=now", "");
    let json: serde_json::Value = serde_json::from_str(content(&answer)).unwrap();
    json["last"].as_str().unwrap().to_owned()
}

#[test]
fn refusals_and_ends_are_counted_by_their_reason() {
    let running = start(|_| {}, quiet);
    assert_eq!(status(&running.http("POST", "/api/messages", "x")), "403");
    let (mut socket, id) = running.open_with_id("/websocket");
    ask(&running, "DELETE", &format!("/api/clients/{id}"), "");
    assert_eq!(socket.hears_close().0, 1008);
    drop(socket);
    until(&running, "it has left", || running.counters().closed(pousse::Reason::Control) == 1);
    let now = scrape(&running);
    assert_eq!(now.with("pousse_refused_total", &[("reason", "publish")]), 1.0);
    assert_eq!(now.with("pousse_closed_total", &[("reason", "control")]), 1.0);
    assert_eq!(now.with("pousse_closed_total", &[("reason", "stall")]), 0.0, "all are there");
    let ended: f64 = now
        .values
        .iter()
        .filter(|((name, _), _)| name == "pousse_closed_total")
        .map(|(_, count)| count)
        .sum();
    assert_eq!(ended, now.one("pousse_accepted_total"), "the owner's own are none of them");
}

#[test]
fn what_waits_is_seen_while_it_waits() {
    let running = start(|config| config.limits.outbox = 32 << 20, quiet);
    let mut blocked = connect(running.address());
    blocked.write_all(crate::common::opening("/websocket").as_bytes()).unwrap();
    answer(&mut blocked);
    let id = running.opened();
    running.ask(move |ctx| {
        let long = "a".repeat(16 << 20);
        ctx.send(id, &long).unwrap();
    });
    until(&running, "it waits", || scrape(&running).one("pousse_waiting_bytes") > 0.0);
    let path = format!("/api/clients/{id}");
    let held = || crate::get(&running, &path)["bytes"].as_f64().unwrap();
    until(&running, "the same", || held() == scrape(&running).one("pousse_waiting_bytes"));
    drop(blocked);
    until(&running, "nothing waits", || scrape(&running).one("pousse_waiting_bytes") == 0.0);
}

#[test]
#[cfg(target_os = "linux")]
fn the_process_is_this_one() {
    let running = start(|_| {}, quiet);
    let before = scrape(&running);
    let _more = [(); 40].map(|()| connect(running.address()));
    until(&running, "they are in", || running.counters().accepted == 40);
    let now = scrape(&running);
    assert!(now.one("process_open_fds") >= before.one("process_open_fds").min(40.0));
    assert!(now.one("process_open_fds") <= now.one("process_max_fds"));
    assert!(now.one("process_resident_memory_bytes") > 1e6);
    assert!(now.one("process_cpu_seconds_total") >= before.one("process_cpu_seconds_total"));
    let start = now.one("process_start_time_seconds");
    assert_eq!(start, before.one("process_start_time_seconds"));
    assert!(start > 1.7e9);
}

#[test]
fn a_slow_handler_is_logged_with_its_client_and_counted() {
    static LINES: Lines = Lines::of(|line| line.starts_with("event=slow_handler "));
    LINES.keep(log::LevelFilter::Warn);
    let slow = |said: &Said, ctx: &mut Context<'_>| match said {
        Said::Text(..) => work(),
        Said::Open(_) => ctx.wake_after(std::time::Duration::ZERO, 1),
        Said::Wake(..) => work(),
        _ => {}
    };
    let limit = std::time::Duration::from_millis(1);
    let running = start(|config| config.limits.slow_handler = limit, slow);
    // Another client's number, so that no line of another test is this one's.
    let others: Vec<_> = (0..30).map(|_| connect(running.address())).collect();
    let (mut socket, id) = running.open_with_id("/websocket?topic=a");
    drop(others);
    let slow = || scrape(&running).one("pousse_slow_handlers_total");
    let before = slow();
    socket.says("work");
    until(&running, "it is counted", || slow() > before);
    let has = |text: &str| LINES.kept().iter().any(|line| line.starts_with(text));
    // At most one line a second: it comes in time if more is slow.
    until(&running, "it is logged", || {
        socket.says("work");
        has(&format!("event=slow_handler client={id} ms="))
    });
    assert!(LINES.kept().iter().all(|line| line.contains(" suppressed=")));
}

/// Takes more than a millisecond.
#[expect(clippy::disallowed_methods, reason = "a handler that is slow is slow in real time")]
fn work() {
    let begun = std::time::Instant::now();
    while begun.elapsed() < std::time::Duration::from_millis(2) {}
}

/// A handler with metrics of its own, and one that fails at it.
struct Own(bool);

impl Handler for Own {
    fn on_message(&mut self, _: ConnId, _: Message<'_>, _: &mut Context<'_>) {}

    fn on_metrics(&self, out: &mut String) {
        out.push_str("# HELP own_rooms Rooms.\n# TYPE own_rooms gauge\n");
        assert!(self.0, "no rooms today");
        out.push_str("own_rooms{name=\"a \\\"b\\\"\"} 3");
    }
}

#[test]
fn the_embedder_adds_lines_of_its_own_and_spoils_nothing_if_it_fails() {
    for works in [true, false] {
        let mut config = config();
        config.control = Some("127.0.0.1:0".parse().unwrap());
        let mut server = Server::bind(config, Own(works)).unwrap();
        let address = server.control_address().unwrap();
        let address = address.strip_prefix("http://").unwrap().parse().unwrap();
        let remote = server.remote();
        let thread = std::thread::spawn(move || server.run().unwrap());
        let answers = [(); 2].map(|()| http(connect(address), "GET", "/metrics", ""));
        remote.stop().unwrap();
        thread.join().unwrap();
        let [first, second] = answers.map(|answer| Exposition::read(content(&answer)));
        match works {
            true => assert_eq!(first.with("own_rooms", &[("name", "a \"b\"")]), 3.0),
            false => assert!(!first.types.contains_key("own_rooms")),
        }
        assert_eq!(second.one("pousse_panics_total"), f64::from(u8::from(!works)));
    }
}

/// The rows of the tables of `docs/metrics.md`: name, type, labels.
fn documented() -> BTreeMap<String, (String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `p")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{line}");
        let plain = |cell: &str| cell.replace('`', "");
        let row = (plain(cells[1]), plain(cells[2]));
        assert!(rows.insert(plain(cells[0]), row).is_none(), "{line}");
        assert!(cells[3].len() > 5, "{line}");
    }
    rows
}

#[test]
#[cfg(target_os = "linux")]
fn the_documentation_has_every_name_with_its_type_and_labels_and_no_other() {
    let running = start(|_| {}, quiet);
    let now = scrape(&running);
    let said: BTreeMap<String, (String, String)> = now
        .types
        .iter()
        .map(|(name, kind)| {
            let labels = now.labels(name).into_iter().collect::<Vec<_>>().join(", ");
            (name.clone(), (kind.clone(), labels))
        })
        .collect();
    assert_eq!(documented(), said);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    for word in text.split(|c| !is_name(c)).filter(|word| word.starts_with("pousse_")) {
        let family =
            ["_bucket", "_count", "_sum"].iter().fold(word, |it, end| it.trim_end_matches(end));
        assert!(said.contains_key(family) || said.contains_key(word), "{word} is no metric");
    }
}
