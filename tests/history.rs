//! The memory that the log takes, by the allocator, beside what it says that it takes: the bound
//! `history-total` is one of memory. The figures are printed: `cargo test --test history --
//! --nocapture`.

#![expect(clippy::unwrap_used, reason = "a test may end where it is wrong")]

use std::alloc::System;
use std::sync::{Mutex, MutexGuard};

use pousse::seam::{Form, Log, Tick};
use pousse::{Limits, Message};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const TOTAL: usize = 4 << 20;

/// What a topic takes beside its entries (`docs/limits.md`).
const TOPIC_BYTES: usize = 640;

/// What lists keep, however little is in them, and what the harness allocates meanwhile.
const SPARE: usize = 32 * 1024;

/// One test after the other: they count what the whole process does.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A log, and what was allocated since it was made.
struct Account {
    log: Log,
    region: Region<'static, System>,
    /// The most topics that there were at a time: the lists of topics keep their length.
    topics: usize,
    limits: Limits,
}

impl Account {
    fn new(change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        limits.history_total = TOTAL;
        change(&mut limits);
        let log = Log::new(7, limits.clone());
        Self { log, region: Region::new(GLOBAL), topics: 0, limits }
    }

    fn publish(&mut self, topic: &str, text: &str, key: Option<&str>) {
        let message = Message::Text(text);
        match key {
            Some(key) => drop(self.log.append_once(topic, message, key, Tick(0)).unwrap()),
            None => drop(self.log.append(topic, message, None, Tick(0)).unwrap()),
        }
        self.topics = self.topics.max(self.log.topics());
    }

    /// Memory taken: what was asked for, and for each allocation what it costs an allocator.
    fn taken(&self) -> usize {
        let change = self.region.change();
        let count = change.allocations.saturating_sub(change.deallocations);
        change.bytes_allocated.saturating_sub(change.bytes_deallocated) + count * 16
    }

    /// Trims, and compares what is counted with what is taken.
    fn is_true(&mut self, what: &str) {
        self.log.trim(Tick(0));
        let (counted, taken) = (self.log.bytes(), self.taken());
        let (entries, topics) = (self.log.len(), self.topics);
        println!("{what}: {entries} entries of {topics} topics, {counted} counted, {taken} taken");
        assert!(counted <= self.limits.history_total, "{what}");
        assert!(taken <= counted + topics * TOPIC_BYTES + SPARE, "{what}: more than is counted");
        assert!(taken * 2 >= counted, "{what}: much less than is counted");
    }
}

#[test]
fn the_history_takes_no_more_memory_than_it_may_however_its_messages_are_spread_over_topics() {
    let _alone = alone();
    for topics in [1, 3, 100, 10_000] {
        for length in [0, 17, 300, 5000] {
            let mut account = Account::new(|it| (it.history, it.history_bytes) = (1 << 20, TOTAL));
            let text = "x".repeat(length);
            // Wherever in the growth of its lists it is.
            for looked in 0..20 {
                for number in 0..TOTAL / (length + 100) / 15 {
                    account.publish(&format!("topic {}", (looked + number) % topics), &text, None);
                    if number % 64 == 0 {
                        account.log.trim(Tick(0));
                    }
                }
                account.log.trim(Tick(0));
                let (counted, taken) = (account.log.bytes(), account.taken());
                assert!(
                    taken <= counted + account.topics * TOPIC_BYTES + SPARE,
                    "{counted} {taken}"
                );
            }
            account.is_true(&format!("{length} bytes each"));
        }
    }
}

#[test]
fn the_history_takes_no_more_memory_than_it_may_with_keys() {
    let _alone = alone();
    for topics in [1, 7, 900, 10_000] {
        for key in [1, 60, 255] {
            let mut account = Account::new(|it| it.history_bytes = TOTAL);
            for number in 0..40_000 {
                let key = format!("{number:0key$}");
                account.publish(&format!("topic {}", number % topics), "", Some(&key));
                if number % 64 == 0 {
                    account.log.trim(Tick(0));
                }
                if number % 4000 == 3999 {
                    account.is_true(&format!("keys of {key} bytes", key = key.len()));
                }
            }
        }
    }
}

#[test]
fn what_a_burst_took_is_counted_until_it_is_given_back() {
    let _alone = alone();
    let mut account = Account::new(|it| it.history = 10);
    for burst in 0..50 {
        for number in 0..2000 {
            let key = format!("{burst}-{number}");
            account.publish(&format!("topic {}", burst % 20), "x", Some(&key));
        }
        account.is_true("after a burst");
    }
    // Readers hold all of it, and then nothing of it.
    let topic = account.log.join("read").unwrap();
    for _ in 0..10_000 {
        account.publish("read", "x", None);
    }
    account.is_true("a burst that is not read");
    account.log.offered(topic, account.log.newest().seq);
    account.is_true("a burst that is read");
    account.log.leave(topic);
    account.log.trim(Tick(1 << 20));
    assert_eq!((account.log.len(), account.log.bytes()), (0, 0));
    assert!(account.taken() <= account.topics * TOPIC_BYTES + SPARE, "{} bytes", account.taken());
}

#[test]
fn topics_with_the_longest_names_that_are_only_read_take_what_the_owner_was_told() {
    let _alone = alone();
    for count in [1, 100, 7000, 8193, 10_000, 14_400] {
        let mut account = Account::new(|it| it.max_topics = 20_000);
        for number in 0..count {
            account.log.join(&format!("{number:0128}")).unwrap();
        }
        let taken = account.taken();
        println!("{count} topics take {taken} bytes: {} each", taken / count);
        assert!(taken <= count * TOPIC_BYTES + SPARE, "{taken}");
    }
}

#[test]
fn forms_in_which_entries_leave_are_counted_with_what_they_take() {
    let _alone = alone();
    let plain = [Form::Envelope, Form::Session, Form::Event, Form::EventText];
    // None is shorter than its id.
    for length in [64, 200, 4000] {
        let mut account = Account::new(|_| {});
        let text = "x".repeat(length);
        for (number, form) in (0..4000).zip(plain.into_iter().cycle()) {
            account.publish("t", &text, None);
            let topic = account.log.topic(account.log.find("t").unwrap());
            let entry = topic.after(account.log.newest().seq - 1).next().unwrap();
            account.log.form(topic, entry, form, || {
                let mut bytes = Vec::with_capacity(256);
                text.bytes().for_each(|byte| bytes.push(byte));
                bytes
            });
            if number % 8 == 0 {
                account.log.trim(Tick(0));
            }
        }
        account.is_true("plain forms");
        account.log.drop_encoded();
        account.is_true("plain forms, and they are gone");
    }
}
