//! The log against a model: a plain list of everything ever published.
//!
//! Topics come and go, bounds are small, the clock runs, readers join, keep up or fall behind. For
//! every place that a reader may come back with, the log either gives just what the list has after
//! it, or says that there is a gap.

#![expect(clippy::unwrap_used, reason = "a test may end where it is wrong")]

use pousse::seam::{Log, Tick, TopicNumber};
use pousse::{After, EntryId, Limits, Message, PublishError};

const RUN: u64 = 7;

fn log(change: impl FnOnce(&mut Limits)) -> Log {
    let mut limits = Limits::default();
    change(&mut limits);
    Log::new(RUN, limits)
}

fn publish(log: &mut Log, topic: &str, text: &str) -> u64 {
    log.append(topic, text.into(), None, Tick(0)).unwrap().1.seq
}

fn at(seq: u64) -> After {
    After::Id(EntryId { run: RUN, seq })
}

/// What a reader at this place is given, and whether it is told of a gap.
fn read(log: &Log, topic: &str, after: After) -> (Vec<String>, bool) {
    let number = log.find(topic);
    let place = log.place(number, after);
    let entries = number.map(|number| log.topic(number).after(place.seen));
    let texts = entries.into_iter().flatten().map(|it| String::from_utf8_lossy(it.payload()));
    (texts.map(|text| text.into_owned()).collect(), place.is_gap)
}

#[test]
fn one_growing_sequence_counts_the_entries_of_all_topics() {
    let mut log = log(|_| {});
    assert_eq!(log.newest().to_string(), "7-0", "the start itself");
    assert_eq!(publish(&mut log, "a", "un"), 1);
    assert_eq!(publish(&mut log, "b", "deux"), 2);
    assert_eq!(publish(&mut log, "a", "trois"), 3);
    assert_eq!(read(&log, "a", at(1)), (vec!["trois".into()], false));
    assert_eq!(read(&log, "a", at(2)), (vec!["trois".into()], false), "a place of another topic");
    assert_eq!(read(&log, "a", After::Earliest), (vec!["un".into(), "trois".into()], false));
    assert_eq!(read(&log, "a", After::Now), (vec![], false));
}

#[test]
fn a_place_of_another_run_or_above_the_newest_is_a_gap_and_reading_begins_at_the_oldest() {
    let mut log = log(|_| {});
    publish(&mut log, "a", "un");
    for after in [After::Id(EntryId { run: RUN + 1, seq: 1 }), at(2)] {
        assert_eq!(read(&log, "a", after), (vec!["un".into()], true));
    }
}

#[test]
fn what_was_dropped_is_a_gap_to_those_who_had_not_seen_it_and_to_nobody_else() {
    let mut log = log(|limits| limits.history = 2);
    for text in ["1", "2", "3", "4"] {
        publish(&mut log, "a", text);
    }
    log.trim(Tick(0));
    let kept = vec!["3".to_owned(), "4".into()];
    assert_eq!(read(&log, "a", at(1)), (kept.clone(), true));
    assert_eq!(read(&log, "a", at(2)), (kept.clone(), false), "the floor itself was seen");
    assert_eq!(read(&log, "a", After::Earliest), (kept, false));
}

#[test]
fn bytes_and_age_bound_a_topic_too() {
    let mut log = log(|limits| {
        limits.history_bytes = 25;
        limits.history_age = std::time::Duration::from_secs(10);
    });
    for text in ["12345678", "abcdefgh", "ABCDEFGH"] {
        publish(&mut log, "a", text);
    }
    log.trim(Tick(0));
    assert_eq!(read(&log, "a", After::Earliest).0, ["abcdefgh", "ABCDEFGH"], "10 bytes a frame");
    assert_eq!(log.deadline(), Tick(101));
    log.trim(Tick(100));
    assert_eq!(log.len(), 2);
    log.trim(log.deadline());
    assert_eq!((log.len(), log.topics(), log.bytes()), (0, 0, 0), "nothing of it is left");
    assert_eq!(read(&log, "a", at(2)), (vec![], true), "absent, and something was dropped above");
    assert_eq!(read(&log, "a", at(3)), (vec![], false));
}

#[test]
fn the_bound_of_all_topics_drops_the_oldest_entry_of_any() {
    let mut log = log(|limits| limits.history_total = 4000);
    for number in 0..40 {
        publish(&mut log, &format!("topic {}", number % 4), &number.to_string());
    }
    log.trim(Tick(0));
    assert!(log.bytes() <= 4000 && log.len() >= 3, "{} bytes, {}", log.bytes(), log.len());
    assert_eq!(read(&log, "topic 3", After::Earliest).0.last().unwrap(), "39");
}

#[test]
fn nothing_is_dropped_that_a_reader_was_not_offered() {
    let mut log = log(|limits| limits.history = 1);
    let number = log.join("a").unwrap();
    for text in ["1", "2", "3"] {
        publish(&mut log, "a", text);
    }
    log.trim(Tick(0));
    assert_eq!(log.topic(number).len(), 3);
    log.offered(number, 2);
    log.trim(Tick(0));
    assert_eq!(read(&log, "a", After::Earliest).0, ["3"]);
    log.leave(number);
    publish(&mut log, "a", "4");
    log.trim(Tick(0));
    assert_eq!(read(&log, "a", After::Earliest).0, ["4"], "nobody reads: the bound holds at once");
}

#[test]
fn publishers_are_told_to_wait_when_too_much_was_not_offered() {
    let mut log = log(|limits| {
        limits.history_bytes = 100;
        limits.history_total = 1000;
    });
    let number = log.join("a").unwrap();
    let text = "x".repeat(98);
    for _ in 0..2 {
        publish(&mut log, "a", &text);
        log.trim(Tick(0));
    }
    assert!(!log.is_behind(), "one bound more than the bound is allowed");
    publish(&mut log, "a", &text);
    log.trim(Tick(0));
    assert!(log.is_behind());
    for _ in 0..20 {
        let _ = log.append("a", (&text).into(), None, Tick(0));
        log.trim(Tick(0));
    }
    let refused = log.append("a", (&text).into(), None, Tick(0));
    assert_eq!(refused.map(|_| ()), Err(PublishError::Busy));
    log.offered(number, log.newest().seq);
    log.trim(Tick(0));
    assert!(!log.is_behind());
    publish(&mut log, "a", &text);
}

#[test]
fn a_topic_too_many_takes_the_place_of_the_unread_one_with_the_oldest_entry() {
    let mut log = log(|limits| limits.max_topics = 2);
    publish(&mut log, "old", "1");
    publish(&mut log, "young", "2");
    let old = log.join("old").unwrap();
    publish(&mut log, "third", "3");
    assert_eq!((log.find("old"), log.find("young")), (Some(old), None));
    log.join("third").unwrap();
    let refused = log.append("fourth", "4".into(), None, Tick(0));
    assert_eq!(refused.map(|_| ()), Err(PublishError::TopicsFull));
    assert_eq!(read(&log, "young", at(1)), (vec![], true), "what it held cannot be told");
}

#[test]
fn whoever_comes_and_goes_the_topic_that_makes_room_is_the_unread_one_with_the_oldest_entry() {
    let (mut made_room, mut full) = (0, 0);
    for seed in 0..50 {
        let mut chance = Chance(seed);
        let mut log = log(|limits| (limits.max_topics, limits.history) = (8, 3));
        let mut joined: Vec<TopicNumber> = Vec::new();
        for _ in 0..500 {
            let name = format!("t{}", chance.below(12));
            let unread = log.topics_from(0).filter(|(_, topic)| topic.readers() == 0);
            let oldest = unread.min_by_key(|(_, topic)| topic.oldest());
            let oldest = oldest.map(|(_, topic)| topic.name().to_string());
            let is_one_too_many = log.find(&name).is_none() && log.topics() == 8;
            let names: Vec<_> = log.topics_from(0).map(|(_, it)| it.name().to_string()).collect();
            let opened = match chance.below(6) {
                0..=2 => log.append(&name, "x".into(), None, Tick(0)).map(|(number, _)| number),
                3 => log.join(&name).inspect(|&number| joined.push(number)),
                4 if !joined.is_empty() => {
                    let at = usize::try_from(chance.below(joined.len() as u64)).unwrap();
                    log.leave(joined.swap_remove(at));
                    continue;
                }
                _ => {
                    log.trim(Tick(0));
                    continue;
                }
            };
            if is_one_too_many {
                let gone = names.iter().find(|name| log.find(name).is_none());
                assert_eq!((opened.is_ok(), gone), (oldest.is_some(), oldest.as_ref()), "{seed}");
                made_room += usize::from(opened.is_ok());
                full += usize::from(opened.is_err());
            }
        }
    }
    assert!(made_room > 1000 && full > 10, "{made_room} and {full}");
}

#[test]
fn a_topic_name_is_1_to_128_bytes_without_control_characters() {
    let mut log = log(|_| {});
    for name in ["", "a\nb", "\u{85}", &"é".repeat(65)] {
        let refused = log.append(name, "x".into(), None, Tick(0)).map(|_| ());
        assert_eq!(refused, Err(PublishError::BadTopic), "{name:?}");
    }
    publish(&mut log, &"é".repeat(64), "x");
}

/// Numbers that look random and come again with the same seed (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Everything that was ever published, and what of it may be gone.
#[derive(Default)]
struct Model {
    all: Vec<(String, String)>,
}

impl Model {
    fn after(&self, topic: &str, seq: u64) -> Vec<String> {
        let numbered = self.all.iter().zip(1..);
        let due = numbered.filter(|((name, _), number)| name == topic && *number > seq);
        due.map(|((_, text), _)| text.clone()).collect()
    }
}

#[test]
fn whatever_happens_a_reader_gets_just_what_it_has_not_seen_or_is_told_of_a_gap() {
    for seed in 0..200 {
        let mut chance = Chance(seed);
        let mut log = log(|limits| {
            limits.history = 4;
            limits.history_bytes = 60;
            limits.history_total = 1500;
            limits.max_topics = 5;
            limits.history_age = std::time::Duration::from_secs(2);
        });
        let mut model = Model::default();
        let mut joined: Vec<TopicNumber> = Vec::new();
        let mut now = 0;
        for step in 0..300 {
            let topic = format!("t{}", chance.below(7));
            match chance.below(12) {
                0..=5 => {
                    let text = "x".repeat(usize::try_from(chance.below(20)).unwrap());
                    let text = format!("{step}{text}");
                    let message = Message::Text(&text);
                    if log.append(&topic, message, None, Tick(now)).is_ok() {
                        model.all.push((topic.clone(), text));
                    }
                }
                6 => joined.extend(log.join(&topic)),
                7 if !joined.is_empty() => {
                    let at = usize::try_from(chance.below(joined.len() as u64)).unwrap();
                    log.leave(joined.swap_remove(at));
                }
                8 => {
                    for number in &joined {
                        log.offered(*number, log.newest().seq);
                    }
                }
                9 => now += u32::try_from(chance.below(15)).unwrap(),
                _ => log.trim(Tick(now)),
            }
            let seen = chance.below(model.all.len() as u64 + 1);
            let (given, is_gap) = read(&log, &topic, at(seen));
            let due = model.after(&topic, seen);
            match is_gap {
                false => assert_eq!(given, due, "seed {seed} step {step} {topic} after {seen}"),
                true => assert!(due.ends_with(&given), "seed {seed} step {step} {topic}"),
            }
        }
        for number in joined.drain(..) {
            log.leave(number);
        }
        log.trim(Tick(now + 1000));
        assert_eq!((log.len(), log.topics(), log.bytes()), (0, 0, 0), "seed {seed}");
    }
}
