//! Limits on what is kept.

use std::time::Duration;

use pousse::seam::{Log, Tick};
use pousse::{After, Limits};

use crate::by_hand::LATE_MAX;
use crate::peer::{Innocent, Peer};
use crate::running::Running;

/// What a poll from the first message's id on gives: how many messages, and whether with a gap.
fn poll_after(peer: &mut Peer, first: &str) -> (usize, bool) {
    let answer = peer.asks(&format!("GET /api/messages?topic=t&after={first}"));
    let content = answer.content;
    (content.matches("\"topic\":").count(), content.contains("\"gap\":true"))
}

fn id_of(content: &str) -> String {
    content.split('"').nth(3).unwrap().to_owned()
}

/// Publishes `fits` messages that just fit and one that does not.
fn drops_the_oldest(running: &Running, fits: usize, message: &str) {
    let mut innocent = Innocent::of(running);
    let mut peer = Peer::connect(running.address);
    let before = id_of(&peer.posts("other", "").content);
    for _ in 0..fits {
        assert_eq!(peer.posts("t", message).status, 201);
    }
    assert_eq!(poll_after(&mut peer, &before), (fits, false), "just the limit is kept");
    let gaps = running.counters().gaps;
    assert_eq!(peer.posts("t", message).status, 201, "publishing is not refused");
    assert_eq!(poll_after(&mut peer, &before), (fits, true), "the oldest has gone");
    running.counts("gaps", |now| now.gaps == gaps + 1);
    innocent.is_served();
}

#[test]
pub(crate) fn of_each_topic_so_many_messages_are_kept() {
    drops_the_oldest(&Running::chat(|limits| limits.history = 3), 3, "x");
    drops_the_oldest(&Running::chat(|limits| limits.history = 0), 0, "x");
}

#[test]
pub(crate) fn of_each_topic_so_many_bytes_are_kept() {
    // As a frame with its head of two bytes each of these has a hundred.
    let message = "x".repeat(98);
    drops_the_oldest(&Running::chat(|limits| limits.history_bytes = 300), 3, &message);
    drops_the_oldest(&Running::chat(|limits| limits.history_bytes = 399), 3, &message);
    drops_the_oldest(&Running::chat(|limits| limits.history_bytes = 0), 0, &message);
}

#[test]
pub(crate) fn a_message_is_kept_for_its_age_and_then_no_longer() {
    const AGE: Duration = Duration::from_secs(3600);
    let mut limits = Limits::default();
    limits.history_age = AGE;
    let mut log = Log::new(7, limits);
    let start = Tick::at(Duration::from_secs(100));
    let (topic, old) = log.append("t", "old".into(), None, start).unwrap();
    let later = Tick::at(Duration::from_secs(200));
    log.append("t", "young".into(), None, later).unwrap();
    log.trim(Tick::at(Duration::from_secs(100) + AGE));
    assert_eq!(log.len(), 2, "just its age");
    assert!(log.deadline() <= Tick::at(Duration::from_secs(100) + AGE + LATE_MAX));
    log.trim(Tick::at(Duration::from_secs(100) + AGE + LATE_MAX));
    assert_eq!(log.len(), 1);
    assert!(!log.place(Some(topic), After::Id(old)).is_gap, "who has it has missed nothing");
    let start = pousse::EntryId { run: 7, seq: 0 };
    assert!(log.place(Some(topic), After::Id(start)).is_gap);
    log.trim(Tick::at(Duration::from_secs(200) + AGE + LATE_MAX));
    assert_eq!((log.len(), log.topics(), log.bytes()), (0, 0, 0), "an empty topic is forgotten");
}

#[test]
pub(crate) fn of_all_topics_together_so_many_bytes_are_kept() {
    let message = "x".repeat(1000);
    let mut log = Log::new(7, Limits::default());
    for topic in ["a", "b", "c"] {
        log.append(topic, message.as_str().into(), None, Tick(0)).unwrap();
    }
    let three = log.bytes();
    assert!(three > 3 * 1002, "bookkeeping counts");

    for (total, kept) in [(three, 3), (three - 1, 2), (1, 0)] {
        let mut limits = Limits::default();
        limits.history_total = total;
        let mut log = Log::new(7, limits);
        for topic in ["a", "b", "c"] {
            log.append(topic, message.as_str().into(), None, Tick(0)).unwrap();
        }
        log.trim(Tick(0));
        assert_eq!(log.len(), kept, "{total}");
        assert!(log.bytes() <= total);
        assert_eq!(log.find("a").is_some(), kept == 3, "the oldest goes first");
    }

    let running = Running::chat(|limits| limits.history_total = three);
    let mut innocent = Innocent::of(&running);
    let mut peer = Peer::connect(running.address);
    for topic in ["a", "b", "c", "d"] {
        assert_eq!(peer.posts(topic, &message).status, 201);
    }
    let kept = ["a", "b", "c", "d"].map(|topic| {
        peer.asks(&format!("GET /api/messages?topic={topic}")).content.contains(&message)
    });
    assert_eq!(kept, [false, true, true, true]);
    innocent.is_served();
}
