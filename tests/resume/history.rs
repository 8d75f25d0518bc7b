//! A random history: publishes, disconnects, pauses, switches from one transport to another, and
//! restarts, against a plain list of all that was published.

use pousse::EntryId;

use crate::person::{Person, TRANSPORTS, Transport};
use crate::world::{Chance, QUIET, World};

const TOPICS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Says which seed it was, should it come to that.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {}: POUSSE_SEED={0} cargo test --test resume history", self.0);
        }
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|it| it.parse().expect("a number"))
}

/// Everyone reads who reads, until nothing more comes.
pub(crate) fn settle(world: &mut World, people: &mut [Person], chance: &mut Chance) {
    let (mut turns, mut quiet) = (0, 0);
    while quiet < QUIET {
        let mut goes_on = world.turn();
        for person in people.iter_mut().filter(|it| !it.is_paused) {
            goes_on |= person.reads(world, usize::MAX, chance);
        }
        quiet = if goes_on { 0 } else { quiet + 1 };
        turns += 1;
        assert!(turns < 100_000, "it does not come to rest");
    }
    people.iter().for_each(|it| it.has_everything(world));
}

/// What a history came to, to see that it was one.
#[derive(Debug, Default)]
struct Sum {
    given: usize,
    gaps: usize,
    published: u64,
    restarts: usize,
}

fn world(seed: u64, chance: &mut Chance) -> World {
    let has_churn = chance.one_in(3);
    let keeps_last = chance.one_in(2);
    let (history, bytes) = (2 + chance.below(7), 100 + chance.below(4000));
    let (write, readers, poll) = (chance.below(5), 1 + chance.below(4), chance.below(3));
    let mut world = World::new(&format!("history-{seed}"), |config| {
        let limits = &mut config.limits;
        limits.history = history;
        limits.history_bytes = if keeps_last { 1 << 20 } else { bytes };
        limits.turn_write = [1, 1000, 10_000, 100_000, 256 * 1024][write];
        limits.turn_readers = readers;
        limits.poll_bytes = [1, 200, 256 * 1024][poll];
        if has_churn {
            limits.max_topics = 4;
        }
    });
    (world.has_churn, world.keeps_last) = (has_churn, keeps_last);
    world
}

fn people(chance: &mut Chance) -> Vec<Person> {
    let count = 3 + chance.below(5);
    let new = |name| {
        let first = chance.below(TOPICS.len());
        let topics: Vec<_> = TOPICS.iter().cycle().skip(first).take(1 + chance.below(3)).collect();
        Person::new(name, &topics.into_iter().copied().collect::<Vec<_>>(), chance.one_in(2))
    };
    (0..count).map(new).collect()
}

/// One of them does something.
fn acts(person: &mut Person, world: &mut World, chance: &mut Chance) {
    if !person.is_connected() || chance.one_in(12) {
        return person.connects(*chance.of(&TRANSPORTS), world, chance);
    }
    let topic = *chance.of(&TOPICS);
    match chance.below(12) {
        0 => person.leaves(),
        1 | 2 => person.pauses(),
        3 | 4 => person.is_paused = false,
        5 if !person.is_paused => person.publishes(topic, world, chance),
        6 | 7 if !person.is_paused => person.commands(topic, chance),
        8 | 9 => person.polls(chance),
        _ => {
            // A part of what has come: a frame, a block, an answer can be left in the middle.
            let most = 1 + chance.below(600);
            person.reads(world, most, chance);
        }
    }
}

fn play(seed: u64, told: &mut Sum) {
    let _told = Told(seed);
    let mut chance = Chance(seed);
    let chance = &mut chance;
    let mut world = world(seed, chance);
    let mut people = people(chance);
    for step in 0..150 {
        match chance.below(100) {
            0 => {
                world.restart();
                told.restarts += 1;
            }
            1..=3 => {
                // More than a socket takes: whoever does not read now is overrun.
                let topic = *chance.of(&TOPICS);
                people.iter_mut().for_each(Person::is_slow);
                for _ in 0..10 {
                    let data = world.data_of(&"y".repeat(24_000));
                    world.publish(topic, data);
                }
            }
            4..=45 => {
                for _ in 0..=chance.below(3) {
                    let (topic, data) = (*chance.of(&TOPICS), world.data(chance));
                    world.publish(topic, data);
                }
            }
            46..=50 => {
                let (topic, data) = (*chance.of(&TOPICS), world.data(chance));
                let key = format!("key {step}");
                let once = world.post(topic, &key, &data);
                if once.is_some() && world.keeps_last {
                    assert_eq!(world.post(topic, &key, &data), once);
                }
            }
            _ => {
                let person = chance.below(people.len());
                acts(&mut people[person], &mut world, chance);
            }
        }
        match chance.below(6) {
            0 => settle(&mut world, &mut people, chance),
            1 | 2 => {}
            3 => world.settle(),
            _ => {
                world.turn();
            }
        }
    }
    comes_to_rest(&mut world, &mut people, chance);
    told.published += world.server.context().counters().published;
    told.given += people.iter().map(|it| it.given).sum::<usize>();
    told.gaps += people.iter().map(|it| it.gaps).sum::<usize>();
}

/// Everyone comes back and reads: then everyone has everything.
fn comes_to_rest(world: &mut World, people: &mut [Person], chance: &mut Chance) {
    for person in people.iter_mut() {
        person.is_paused = false;
        if !person.is_connected() || person.transport() == Some(Transport::Poll) {
            person.connects(Transport::LongPoll, world, chance);
        }
    }
    settle(world, people, chance);
    for topic in TOPICS {
        let data = world.data(chance);
        world.publish(topic, data);
        settle(world, people, chance);
    }
    world.check_whole();
}

#[test]
fn whatever_happens_everyone_gets_everything_in_order_or_is_told_of_a_gap() {
    let seeds = match setting("POUSSE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("POUSSE_SEEDS").unwrap_or(200),
    };
    let mut told = Sum::default();
    for seed in seeds {
        play(seed, &mut told);
    }
    println!("{told:?}");
}

#[test]
fn a_thousand_switches_under_a_stream_of_publishes_lose_nothing_and_repeat_nothing() {
    let mut chance = Chance(1);
    let chance = &mut chance;
    let mut world = World::new("switches", |config| config.limits.history = 10_000);
    let mut people: Vec<_> =
        (0..3).map(|name| Person::new(name, &["a", "b"][..1 + name % 2], true)).collect();
    people.iter_mut().for_each(|it| it.is_strict = true);
    for number in 0..1000 {
        for (at, person) in people.iter_mut().enumerate() {
            person.connects(TRANSPORTS[(number * (at + 1) + at) % 5], &world, chance);
        }
        for _ in 0..2 {
            let (topic, data) = (*chance.of(&["a", "b"]), world.data(chance));
            world.publish(topic, data);
            world.turn();
            for person in &mut people {
                let most = if chance.one_in(2) { usize::MAX } else { chance.below(400) };
                person.reads(&world, most, chance);
            }
        }
    }
    for person in &mut people {
        person.connects(Transport::Session, &world, chance);
    }
    settle(&mut world, &mut people, chance);
    people.iter_mut().for_each(Person::gathers);
    settle(&mut world, &mut people, chance);
    world.check_whole();
    let newest = world.newest();
    for person in &people {
        assert_eq!((person.place, person.gaps), (Some(newest), 0));
        let start = EntryId { seq: 0, ..newest };
        let end = EntryId { seq: newest.seq + 1, ..newest };
        let all: usize =
            person.covered.keys().map(|it| world.model.between(it, start, end).len()).sum();
        assert_eq!(person.given, all, "each once");
    }
}
