//! The metrics as Prometheus reads them: its text format, version 0.0.4.
//!
//! ```text
//! # HELP pousse_clients Clients that are connected, …
//! # TYPE pousse_clients gauge
//! pousse_clients{transport="websocket"} 2
//! ```
//!
//! Pure: from numbers to text. Names, labels and meanings stand in `docs/metrics.md` too, which a
//! test compares. Every label's value is one of our own words, so there is nothing to escape, and
//! none is a topic or a client: the number of lines does not depend on what others do.

use std::fmt::{Display, Write as _};

use crate::metrics::{Counters, Held, Histogram, Reason, Way};
use crate::process::Process;

/// The type of such a text.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How things stand, beside what was counted.
pub(crate) struct State {
    /// Clients by transport.
    pub(crate) clients: Vec<(&'static str, usize)>,
    pub(crate) clients_max: usize,
    pub(crate) control_clients: usize,
    pub(crate) waiting_bytes: usize,
    pub(crate) history_entries: usize,
    pub(crate) history_bytes: usize,
    pub(crate) history_dropped: u64,
    pub(crate) topics: usize,
    pub(crate) is_draining: bool,
    pub(crate) uptime_s: f64,
    /// When the certificate ends, in Unix time; `None`: there is none.
    pub(crate) certificate_until_s: Option<u64>,
    pub(crate) process: Process,
}

/// The whole text.
pub(crate) fn text(counters: &Counters, state: &State) -> String {
    let mut text = Text { out: String::with_capacity(16 * 1024), name: "" };
    put_state(&mut text, state);
    put_connections(&mut text, counters);
    put_messages(&mut text, counters);
    put_compression(&mut text, counters);
    put_loop(&mut text, counters);
    put_tls(&mut text, counters, state.certificate_until_s);
    put_process(&mut text, &state.process);
    text.out
}

fn put_state(text: &mut Text, state: &State) {
    text.family("pousse_build_info", "gauge", "Always 1; its label is the version that runs.");
    text.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.gauge("pousse_uptime_seconds", "Time since the start.", state.uptime_s);
    let help = "1 while the server is ending, else 0.";
    text.gauge("pousse_draining", help, u8::from(state.is_draining));
    let help = "Clients that are connected, without those of the control listener.";
    text.family("pousse_clients", "gauge", help);
    for (transport, count) in &state.clients {
        text.sample(&[("transport", transport)], count);
    }
    let help = "Clients that there may be: the limit max-clients.";
    text.gauge("pousse_clients_max", help, state.clients_max);
    let help = "Clients of the control listener.";
    text.gauge("pousse_control_clients", help, state.control_clients);
    let help = "Bytes that wait for clients to take them.";
    text.gauge("pousse_waiting_bytes", help, state.waiting_bytes);
    text.gauge("pousse_history_messages", "Messages that are kept.", state.history_entries);
    let help = "Bytes that are kept, bookkeeping and encoded forms included.";
    text.gauge("pousse_history_bytes", help, state.history_bytes);
    let help = "Messages dropped from the history, by age, by a bound, or by command.";
    text.counter("pousse_history_dropped_messages_total", help, state.history_dropped);
    text.gauge("pousse_history_topics", "Topics that exist.", state.topics);
}

fn put_connections(text: &mut Text, counters: &Counters) {
    let help = "Connections accepted, without those of the control listener.";
    text.counter("pousse_accepted_total", help, counters.accepted);
    let help = "Times that the system could not hand over a connection (descriptors, memory).";
    text.counter("pousse_accept_failures_total", help, counters.accept_failures);
    let help = "Connections ended, by reason, without those of the control listener.";
    text.family("pousse_closed_total", "counter", help);
    for reason in Reason::ALL {
        text.sample(&[("reason", reason.word())], counters.closed(*reason));
    }
    let help = "Requests, messages and commands refused, by reason.";
    text.family("pousse_refused_total", "counter", help);
    for reason in Reason::ALL {
        text.sample(&[("reason", reason.word())], counters.refused(*reason));
    }
    let help =
        "Times that a limit which refuses nothing made somebody wait, cut, or dropped the oldest.";
    text.family("pousse_limit_held_total", "counter", help);
    for limit in Held::ALL {
        text.sample(&[("limit", limit.word())], counters.held(*limit));
    }
    text.counter("pousse_requests_total", "Requests answered.", counters.requests);
    text.family("pousse_opened_total", "counter", "Connections that went on from HTTP.");
    text.sample(&[("transport", Way::EventStream.word())], counters.streams);
    text.sample(&[("transport", Way::WebSocket.word())], counters.opened);
    text.counter("pousse_read_bytes_total", "Bytes read from sockets.", counters.read_bytes);
    let help = "Bytes written to sockets.";
    text.counter("pousse_written_bytes_total", help, counters.written_bytes);
    text.counter("pousse_reads_total", "Read calls on sockets.", counters.reads);
    text.counter("pousse_writes_total", "Write calls on sockets.", counters.writes);
    let help = "Readiness told of clients that had left meanwhile.";
    text.counter("pousse_stale_events_total", help, counters.stale_events);
}

fn put_messages(text: &mut Text, counters: &Counters) {
    let help = "Messages received over WebSockets, commands of pousse.v1 included.";
    text.counter("pousse_received_messages_total", help, counters.received);
    text.counter("pousse_published_messages_total", "Messages published.", counters.published);
    let help = "Messages given to readers, by the way they went.";
    text.family("pousse_delivered_messages_total", "counter", help);
    for way in Way::ALL {
        text.sample(&[("transport", way.word())], counters.delivered_by(*way));
    }
    let help = "Topics read on from a place that was named, and whether it was still held whole.";
    text.family("pousse_resumes_total", "counter", help);
    text.sample(&[("result", "ok")], counters.resumed);
    text.sample(&[("result", "gap")], counters.resumed_with_gap);
    let help = "Readers told that messages were lost to them.";
    text.counter("pousse_gaps_total", help, counters.gaps);
    let help = "Encodings of messages for a way to leave, each made once for all readers.";
    text.counter("pousse_encodings_total", help, counters.encoded);
    let help = "Times that several messages were joined into one piece for readers at one place.";
    text.counter("pousse_joins_total", help, counters.joined);
}

fn put_compression(text: &mut Text, counters: &Counters) {
    let help = "Messages compressed, by the window in bits; entries once for all readers.";
    text.family("pousse_compressions_total", "counter", help);
    text.sample(&[("window", "9")], counters.deflated_9);
    text.sample(&[("window", "15")], counters.deflated_15);
    let help = "Compressions that gained nothing: those messages left as they were.";
    text.counter("pousse_compressions_in_vain_total", help, counters.deflated_in_vain);
    let help = "Bytes of the messages compressed, before, and as they left.";
    text.family("pousse_compressed_bytes_total", "counter", help);
    text.sample(&[("state", "before")], counters.deflated_from_bytes);
    text.sample(&[("state", "after")], counters.deflated_to_bytes);
    let help = "Compressed messages received.";
    text.counter("pousse_inflated_messages_total", help, counters.inflated);
    let help = "Bytes of the compressed messages received, before they were taken out, and after.";
    text.family("pousse_inflated_bytes_total", "counter", help);
    text.sample(&[("state", "before")], counters.inflated_from_bytes);
    text.sample(&[("state", "after")], counters.inflated_bytes);
}

fn put_loop(text: &mut Text, counters: &Counters) {
    let help = "Turns of the loop, without the time they waited.";
    text.histogram("pousse_loop_turn_seconds", help, &counters.turn_time);
    let help =
        "From the turn in which something was published until all who read it were offered it.";
    text.histogram("pousse_fanout_seconds", help, &counters.fanout_time);
    let help = "Calls of the handler, or steps for one client, over the limit slow-handler.";
    text.counter("pousse_slow_handlers_total", help, counters.slow_handlers);
    text.counter("pousse_panics_total", "Handlers that panicked.", counters.panics);
}

fn put_tls(text: &mut Text, counters: &Counters, until_s: Option<u64>) {
    text.counter("pousse_tls_handshakes_total", "TLS handshakes done.", counters.tls_handshakes);
    let help = "TLS connections that failed, in the handshake or later.";
    text.counter("pousse_tls_failures_total", help, counters.tls_failures);
    let help = "When the certificate ends, in Unix time; 0 if there is none.";
    text.gauge("pousse_tls_certificate_not_after_seconds", help, until_s.unwrap_or(0));
}

/// Under the names that every Prometheus client library gives them.
fn put_process(text: &mut Text, process: &Process) {
    let help = "Memory in use.";
    text.known("process_resident_memory_bytes", "gauge", help, process.resident_bytes);
    let help = "Time on a processor.";
    text.known("process_cpu_seconds_total", "counter", help, process.cpu_s);
    let help = "When the process started, in Unix time.";
    text.known("process_start_time_seconds", "gauge", help, process.start_s);
    text.known("process_open_fds", "gauge", "Descriptors in use.", process.open_descriptors);
    let help = "Descriptors that there may be.";
    text.known("process_max_fds", "gauge", help, process.max_descriptors);
}

/// The text, and the family that is being written at its end.
struct Text {
    out: String,
    name: &'static str,
}

impl Text {
    #[inline(never)] // fifty copies of it are a hundredth of the program
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// One line of the family.
    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line("", labels, &value);
    }

    fn gauge(&mut self, name: &'static str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(&[], value);
    }

    #[inline(never)]
    fn counter(&mut self, name: &'static str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(&[], value);
    }

    /// A family of one line, if its value is known.
    fn known(&mut self, name: &'static str, kind: &str, help: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.family(name, kind, help);
            self.sample(&[], value);
        }
    }

    fn histogram(&mut self, name: &'static str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        for (bound_us, count) in histogram.cumulative() {
            let bound_s = f64::from(bound_us) / 1e6;
            self.line("_bucket", &[("le", &bound_s.to_string())], &count);
        }
        self.line("_bucket", &[("le", "+Inf")], &histogram.count());
        self.line("_sum", &[], &histogram.sum().as_secs_f64());
        self.line("_count", &[], &histogram.count());
    }

    #[inline(never)]
    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: &dyn Display) {
        let name = self.name;
        self.put(format_args!("{name}{suffix}"));
        for (at, (label, word)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            self.put(format_args!("{before}{label}=\"{word}\""));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        self.put(format_args!("{after} {value}\n"));
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // A `String` takes everything.
        let _ = self.out.write_fmt(text);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_histogram_counts_up_to_each_bound_and_ends_in_all_of_them() {
        let mut histogram = Histogram::default();
        for us in [0, 100, 101, 999_999, 1_000_000, 1_000_001] {
            histogram.observe(Duration::from_micros(us));
        }
        let mut text = Text { out: String::new(), name: "" };
        text.histogram("t_seconds", "Time.", &histogram);
        let lines: Vec<&str> = text.out.lines().collect();
        assert_eq!(lines[0], "# HELP t_seconds Time.");
        assert_eq!(lines[1], "# TYPE t_seconds histogram");
        assert_eq!(lines[2], "t_seconds_bucket{le=\"0.0001\"} 2");
        assert_eq!(lines[3], "t_seconds_bucket{le=\"0.00025\"} 3");
        assert_eq!(lines[14], "t_seconds_bucket{le=\"1\"} 5");
        assert_eq!(lines[15], "t_seconds_bucket{le=\"+Inf\"} 6");
        assert_eq!(lines[16..], ["t_seconds_sum 3.000201", "t_seconds_count 6"]);
    }
}
