//! Promise: never two requests where a strict reader of RFC 9112 sees one, never another method,
//! target or content than it sees, and never a request whose length can be read in two ways.

use pousse::seam::{Connection, Event, Tick, Turn};
use pousse::{Config, ConnId, Peer, Response};

use super::input::Input;
use super::reference::{self, Seen, Stop};

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let size = input.one_of(&[usize::MAX, usize::MAX, 1, 7, 64]);
    let bytes = input.take(usize::MAX);
    let (taken, is_over) = taken(bytes, size);
    let (seen, stop) = reference::read(bytes);
    let mut seen = seen.iter();
    for (at, request) in taken.iter().enumerate() {
        let Some(strict) = seen.next() else {
            panic!("request {at} is none for a strict reader: {request:?}, which stopped: {stop:?}")
        };
        compare(request, strict, is_over && at + 1 == taken.len());
    }
    if !is_over && stop == Stop::End {
        assert_eq!(seen.next(), None, "a request was not heard and nothing said of it");
    }
    assert!(is_over || stop != Stop::Bad, "what is no request was borne");
}

/// A request as it was taken.
#[derive(Debug)]
struct Taken {
    method: String,
    target: String,
    content: Vec<u8>,
    lengths: usize,
    codings: usize,
    is_whole: bool,
}

fn compare(taken: &Taken, strict: &Seen, is_last: bool) {
    assert_eq!(taken.method, strict.method);
    let is_absolute = !strict.target.starts_with('/') && strict.target != "*";
    match is_absolute {
        false => assert_eq!(taken.target, strict.target),
        true => assert!(strict.target.ends_with(&taken.target), "{taken:?} {strict:?}"),
    }
    assert!(taken.codings == 0 && taken.lengths <= 1, "{taken:?}");
    // What is too long is refused by its head, and the connection ends.
    if taken.is_whole && (taken.content.len() as u128) < strict.content_length {
        assert!(is_last, "a content was left out, and more was read behind it: {taken:?}");
    } else if taken.is_whole {
        assert_eq!(taken.content, strict.content);
    }
}

/// The requests that a connection takes, and whether it ends.
fn taken(bytes: &[u8], size: usize) -> (Vec<Taken>, bool) {
    let mut config = Config::default();
    config.limits.max_message = 100;
    config.limits.head_bytes = 1000;
    let mut turn = Turn::new(&config);
    let mut connection = Connection::new(ConnId::new(0, 1), Peer::Unix, &turn);
    let mut taken: Vec<Taken> = Vec::new();
    let mut heard = Vec::new();
    let mut bytes = bytes.to_vec();
    let mut rest = bytes.as_mut_slice();
    turn.begin(Tick(1), 0);
    loop {
        connection.begin_turn(&turn.limits);
        let mut kept = connection.take_kept(&turn);
        let mut input = match &mut kept {
            Some(kept) => kept,
            None if rest.is_empty() || !connection.wants_input(&turn) => break,
            None => {
                let most = connection.input_bytes_max(&turn).min(size).min(rest.len());
                let (now, later) = rest.split_at_mut(most);
                rest = later;
                now
            }
        };
        while let Some(event) = connection.receive(&mut input, &mut turn) {
            let Event::Request(request) = event else { panic!("nobody upgrades here") };
            let is_second = !request.content().is_empty();
            if is_second {
                taken.pop();
            }
            taken.push(Taken {
                method: request.method().into(),
                target: request.target().into(),
                content: request.content().to_vec(),
                lengths: request.raw_fields("content-length").count(),
                codings: request.raw_fields("transfer-encoding").count(),
                is_whole: request.is_whole(),
            });
            match request.is_whole() {
                true => connection.respond(&Response::text(200, "ok"), &mut turn),
                false => connection.read_content(request, &mut turn),
            }
        }
        connection.write_to(&mut heard, &mut turn).expect("a vector takes all");
    }
    let is_over = connection.is_done() || connection.wants_shutdown();
    (taken, is_over)
}
