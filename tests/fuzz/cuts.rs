//! Promise: however the bytes of a peer are cut, the same comes of them: the same calls of the
//! handler, the same answers, the same ending. What a WebSocket is given from the log is left out:
//! that waits for the end of a turn, and answers do not.

use pousse::seam::{Ending, Rehearsal, Tick};
use pousse::{ConnId, Peer};

use super::answers;
use super::connection::{config, rehearsal, stream};
use super::input::Input;
use super::policy::Policy;
use super::reference;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut cuts: Vec<usize> = (0..input.choice() % 32).map(|_| input.choice().into()).collect();
    cuts.retain(|size| *size > 0);
    let bytes = input.take(usize::MAX);
    let whole = play(bytes, &mut std::iter::empty());
    assert_eq!(play(bytes, &mut cuts.iter().copied().cycle()), whole, "cut into {cuts:?}");
    assert_eq!(play(bytes, &mut std::iter::repeat(1)), whole, "byte by byte");
}

type Outcome = (Vec<String>, Vec<String>, Option<Ending>);

/// What it was answered, in its order.
fn answered(heard: &[u8], bytes: &[u8]) -> Vec<String> {
    let read = answers::read(heard, &reference::read(bytes), true).expect("answers and frames");
    if !read.statuses.contains(&101) {
        return vec![heard.escape_ascii().to_string()];
    }
    let mut answers: Vec<String> = read.statuses.iter().map(u16::to_string).collect();
    let is_answer = |text: &&str| {
        let words = ["{\"error\"", "{\"published\"", "{\"unsubscribed\""];
        text.starts_with(ECHO) || words.iter().any(|word| text.starts_with(word))
    };
    let texts = read.messages.iter().filter_map(|(_, text)| std::str::from_utf8(text).ok());
    answers.extend(texts.filter(is_answer).map(str::to_owned));
    answers.push(format!("over: {}", read.is_over));
    answers
}

/// Stands before what comes back.
const ECHO: char = '\u{1}';

/// Plays the bytes in pieces of these sizes, the rest in one.
fn play(bytes: &[u8], sizes: &mut dyn Iterator<Item = usize>) -> Outcome {
    let mut config = config();
    // Budgets of a turn are seen by who is cut, and change nothing of what comes.
    config.limits.turn_read = 1 << 16;
    let mut rehearsal = rehearsal(&config);
    rehearsal.handler().echo = Some(ECHO);
    let id = rehearsal.joins(stream(), Peer::Unix);
    let mut heard = Vec::new();
    rehearsal.begin(Tick(1));
    let mut rest = bytes;
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(rest.len()).min(rest.len());
        let (mut piece, later) = rest.split_at(size);
        rest = later;
        feed(&mut rehearsal, id, &mut piece, &mut heard);
        // What is not wanted now is not wanted later either: nothing else happens here.
        if !piece.is_empty() {
            break;
        }
    }
    let ending = rehearsal.ending(id);
    let calls = std::mem::take(&mut rehearsal.handler().calls);
    (calls, answered(&heard, bytes), ending)
}

fn feed(rehearsal: &mut Rehearsal<Policy>, id: ConnId, piece: &mut &[u8], heard: &mut Vec<u8>) {
    loop {
        let has_read = rehearsal.reads(id, piece);
        while !rehearsal.writes(id, heard).unwrap_or(true) {
            rehearsal.begin(Tick(1));
        }
        // Nobody is forgotten here, so what is done stays to be looked at.
        rehearsal.end(&[]);
        if !has_read {
            return;
        }
    }
}
