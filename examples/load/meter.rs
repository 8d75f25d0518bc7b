//! When it is enough, how much was done by then, and how long each took.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::args::{Args, Goal};
use crate::server::{Server, Usage};

/// Values from a nanosecond to centuries, each within 1.6 % (as HdrHistogram has them): 64 classes
/// for each power of two.
#[derive(Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    most: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; 64 * 60], total: 0, most: 0 }
    }
}

impl Histogram {
    pub(crate) fn record(&mut self, value: Duration, times: u64) {
        let value = value.as_nanos() as u64;
        let shift = 57_u32.saturating_sub(value.leading_zeros());
        self.counts[(shift as usize) * 64 + (value >> shift) as usize] += times;
        self.total += times;
        self.most = self.most.max(value);
    }

    /// The value that this share of all does not exceed, in microseconds.
    pub(crate) fn at(&self, share: f64) -> f64 {
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (class, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && *count > 0 {
                let shift = (class / 64).saturating_sub(1);
                return ((class - shift * 64) << shift) as f64 / 1000.0;
            }
        }
        0.0
    }

    pub(crate) fn report(&self) -> Value {
        let round = |value: f64| (value * 10.0).round() / 10.0;
        json!({
            "p50": round(self.at(0.5)), "p90": round(self.at(0.9)), "p99": round(self.at(0.99)),
            "p999": round(self.at(0.999)), "max": round(self.most as f64 / 1000.0),
        })
    }
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Meter {
    server: Server,
    goal: Goal,
    started: Instant,
    begun: Option<(Instant, Usage)>,
    ended: Option<(Instant, Usage)>,
    allowed: u64,
    /// Messages that have come back, or been delivered, while it was measured.
    pub(crate) done: u64,
    /// From sending to having.
    pub(crate) latency: Histogram,
}

impl Meter {
    pub(crate) fn new(args: &Args) -> Self {
        let server = match args.pid {
            Some(pid) => Server::new(pid),
            None => Server::of_port(args.address.port()).expect("nobody listens there"),
        };
        let started = Instant::now();
        let mut meter = Self {
            server,
            goal: args.goal,
            started,
            begun: None,
            ended: None,
            allowed: 0,
            done: 0,
            latency: Histogram::default(),
        };
        if let Goal::Messages(_) = args.goal {
            meter.begin(started);
        }
        meter
    }

    fn begin(&mut self, now: Instant) {
        self.begun = Some((now, self.server.usage()));
    }

    fn end(&mut self, now: Instant) {
        if self.ended.is_none() {
            self.ended = Some((now, self.server.usage()));
        }
    }

    /// How many of these may be sent now; none when it is enough.
    pub(crate) fn allow(&mut self, wished: u64, now: Instant) -> u64 {
        match self.goal {
            Goal::Messages(all) => {
                let allowed = wished.min(all - self.allowed);
                self.allowed += allowed;
                allowed
            }
            Goal::Time { warm, measured } => {
                if self.begun.is_none() && now >= self.started + warm {
                    self.begin(now);
                }
                if now >= self.started + warm + measured {
                    self.end(now);
                    return 0;
                }
                wished
            }
        }
    }

    /// So many have come, which took so long.
    pub(crate) fn count(&mut self, number: u64, took: Duration) {
        if self.begun.is_some() && self.ended.is_none() {
            self.done += number;
            self.latency.record(took, number);
        }
    }

    /// What came of it.
    pub(crate) fn report(mut self, args: &Args, more: Value) -> Value {
        self.end(Instant::now());
        let (Some((begun, before)), Some((ended, after))) = (self.begun, self.ended) else {
            panic!("it was over before it began");
        };
        assert!(self.done > 0, "nothing was done in the time that is measured");
        let (user, system) = after.since(before);
        let seconds = (ended - begun).as_secs_f64();
        let done = self.done as f64;
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        let mut report = json!({
            "work": args.work,
            "connections": args.connections,
            "size": args.size,
            "in_flight": args.in_flight,
            "messages": self.done,
            "seconds": round(seconds),
            "per_second": (done / seconds).round(),
            "server_cpu_us": round((user + system) / done / 1000.0),
            "server_user_us": round(user / done / 1000.0),
            "server_system_us": round(system / done / 1000.0),
            "server_busy": round((user + system) / 1e9 / seconds),
            "server_faults": round((after.faults - before.faults) as f64 / done),
            "server_resident": self.server.resident(),
            "latency_us": self.latency.report(),
        });
        let parts = report.as_object_mut().unwrap();
        parts.extend(more.as_object().cloned().unwrap_or_default());
        report
    }
}
