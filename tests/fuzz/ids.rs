//! Promise: an id is two decimal numbers and comes back as it was written; and whoever asks the log
//! for what came after one gets every entry of its topics in order, or is told of a gap.

use std::time::Duration;

use pousse::seam::{Log, Tick, TopicNumber};
use pousse::{After, EntryId, Limits};

use super::input::Input;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.choice() % 4 {
        0 => texts(&input.text()),
        _ => log(&mut input),
    }
}

fn texts(text: &str) {
    let is_number = |digits: &str| {
        let is_decimal = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let digits = digits.trim_start_matches('0');
        let is_small = digits.len() < 20 || digits.len() == 20 && digits <= "18446744073709551615";
        is_decimal && is_small
    };
    let is_id = text.split_once('-').is_some_and(|(run, seq)| is_number(run) && is_number(seq));
    let id = text.parse::<EntryId>();
    assert_eq!(id.is_ok(), is_id, "{text:?}");
    if let Ok(id) = id {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    let after = text.parse::<After>();
    assert_eq!(after.is_ok(), is_id || text == "now" || text == "earliest", "{text:?}");
}

const NAMES: [&str; 5] = ["general", "a", "b", "c", "d"];

/// All that was ever published: its place and which topic it was in.
type Published = Vec<(u64, &'static str)>;

fn log(input: &mut Input<'_>) {
    let mut limits = Limits::default();
    limits.history = usize::from(input.choice() % 6);
    limits.history_bytes = 200;
    limits.history_total = 3000;
    limits.history_age = Duration::from_secs(5);
    limits.max_topics = 3;
    let mut log = Log::new(7, limits.clone());
    let mut published = Published::new();
    let mut held: Vec<TopicNumber> = Vec::new();
    let mut now = 0;
    while !input.is_empty() {
        let choice = input.choice();
        let name = NAMES[usize::from(choice / 8) % NAMES.len()];
        match choice % 8 {
            0..=3 => {
                let payload = input.take(usize::from(choice / 4));
                if let Ok((_, id)) = log.append(name, payload.into(), None, Tick(now)) {
                    let before = published.last().map_or(0, |(seq, _)| *seq);
                    assert!(id.run == 7 && id.seq > before);
                    published.push((id.seq, name));
                }
            }
            4 => held.extend(log.join(name)),
            5 if !held.is_empty() => {
                log.leave(held.swap_remove(usize::from(choice / 8) % held.len()));
            }
            6 => now += u32::from(choice / 8),
            _ => {
                // What was not offered to a reader yet may be over the bounds.
                let newest = log.newest().seq;
                held.iter().for_each(|number| log.offered(*number, newest));
                log.drop_encoded();
                log.trim(Tick(now));
                assert!(log.bytes() <= limits.history_total, "{} bytes", log.bytes());
            }
        }
        if choice % 8 >= 3 {
            reads(&log, &published, usize::from(choice));
        }
    }
    // Who holds a topic lets it go.
    held.into_iter().for_each(|number| log.leave(number));
}

/// Everyone who names a place is given what came after it, or told of a gap.
fn reads(log: &Log, published: &Published, choice: usize) {
    let newest = log.newest().seq;
    for seen in [0, newest / 2, newest.saturating_sub(choice as u64 % 4), newest] {
        let mut places = Vec::new();
        let mut wanted = Vec::new();
        for name in NAMES {
            let number = log.find(name);
            let place = log.place(number, After::Id(log.id(seen)));
            let due: Vec<u64> = published
                .iter()
                .filter(|(seq, topic)| *seq > seen && *topic == name)
                .map(|(seq, _)| *seq)
                .collect();
            match (number, place.is_gap) {
                (Some(number), false) => {
                    places.push((number, place.seen));
                    wanted.extend(due);
                }
                (None, false) => assert!(due.is_empty(), "lost without a word: {name} {due:?}"),
                (_, true) => {}
            }
        }
        wanted.sort_unstable();
        let got: Vec<u64> = log.merge(places.into_iter()).map(|(_, entry)| entry.seq).collect();
        assert_eq!(got, wanted, "after {seen}");
    }
}
