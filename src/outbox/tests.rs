//! Unit tests of `outbox.rs`: what waits, what leaves, and what a slow socket makes of it.

use super::*;

/// A socket that takes `take` bytes a call, and `room` in all.
struct Socket {
    take: usize,
    room: usize,
    got: Vec<u8>,
    calls: usize,
}

impl Sink for Socket {}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.calls += 1;
        let taken = bytes.len().min(self.take).min(self.room);
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.room -= taken;
        self.got.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write(&pieces.iter().flat_map(|piece| piece.to_vec()).collect::<Vec<_>>())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn socket(take: usize, room: usize) -> Socket {
    Socket { take, room, got: Vec::new(), calls: 0 }
}

fn long(byte: u8) -> Bytes {
    vec![byte; COPY_BYTES_MAX + 1].into()
}

#[test]
fn everything_leaves_in_order_and_in_one_call() {
    let mut outbox = Outbox::default();
    outbox.extend(b"head");
    outbox.push(long(1));
    outbox.push(Bytes::from_static(b"short"));
    outbox.push(long(2));
    outbox.extend(b"tail");
    let all = [b"head", &long(1)[..], b"short", &long(2)[..], b"tail"].concat();
    assert_eq!(outbox.bytes(), all.len());
    let mut socket = socket(usize::MAX, usize::MAX);
    assert_eq!(outbox.write_to(&mut socket, usize::MAX).unwrap(), Flush::Drained);
    assert_eq!((socket.calls, socket.got), (1, all));
    assert_eq!((outbox.bytes(), outbox.sent), (0, 0));
}

#[test]
fn a_short_write_ends_the_attempt_and_nothing_is_lost_at_any_cut() {
    for room in 0..=1040 {
        let mut outbox = Outbox::default();
        outbox.extend(b"head");
        outbox.push(long(1));
        outbox.push(long(2));
        outbox.extend(b"tail!");
        let all = [b"head", &long(1)[..], &long(2)[..], b"tail!"].concat();
        let mut first = socket(usize::MAX, room);
        let flush = outbox.write_to(&mut first, usize::MAX).unwrap();
        assert_eq!(flush == Flush::Drained, room >= all.len(), "{room}");
        outbox.extend(b"more");
        let mut rest = socket(usize::MAX, usize::MAX);
        outbox.write_to(&mut rest, usize::MAX).unwrap();
        assert_eq!([first.got, rest.got].concat(), [&all[..], b"more"].concat(), "{room}");
    }
}

#[test]
fn what_is_sent_is_freed_although_something_always_waits() {
    let mut outbox = Outbox::default();
    for _ in 0..10_000 {
        outbox.extend(&[7; 100]);
        outbox.write_to(&mut socket(usize::MAX, outbox.bytes() - 1), usize::MAX).unwrap();
        let held: usize = outbox.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        assert!(outbox.bytes() == 1 && held + outbox.tail.len() <= 101);
    }
}

#[test]
fn the_messages_that_wait_are_counted_however_they_leave() {
    for step in [1, 7, 8, 100, 1000] {
        let mut outbox = Outbox::default();
        let mut appended = 0;
        let mut ends = Vec::new();
        for _ in 0..50 {
            // Two messages of 8 bytes, then what is none.
            for _ in 0..2 {
                outbox.extend(b"\x81\x06single");
                outbox.add_message();
                appended += 8;
                ends.push(appended);
            }
            outbox.push(long(1));
            appended += COPY_BYTES_MAX + 1;
            outbox.write_to(&mut socket(usize::MAX, step), usize::MAX).unwrap();
            let written = appended - outbox.bytes();
            let waiting = ends.iter().filter(|end| **end > written).count();
            assert_eq!(outbox.messages(), waiting, "{written} bytes are written");
        }
        outbox.write_to(&mut socket(usize::MAX, usize::MAX), usize::MAX).unwrap();
        assert_eq!((outbox.messages(), outbox.messages, outbox.tail_messages), (0, 0, 0));
    }
}

#[test]
fn a_message_in_a_piece_of_its_own_is_counted_no_longer_than_it_waits() {
    let mut outbox = Outbox::default();
    for _ in 0..50 {
        outbox.push(long(1));
        outbox.add_message();
        let all_but_one = outbox.bytes() - 1;
        outbox.write_to(&mut socket(usize::MAX, all_but_one), usize::MAX).unwrap();
        assert_eq!((outbox.bytes(), outbox.messages()), (1, 1));
    }
}

#[test]
fn a_budget_stops_a_socket_that_takes_everything() {
    let mut outbox = Outbox::default();
    for _ in 0..2 * PIECES_MAX {
        outbox.push(long(1));
    }
    let mut socket = socket(usize::MAX, usize::MAX);
    assert_eq!(outbox.write_to(&mut socket, 1000).unwrap(), Flush::Budget);
    assert_eq!(socket.calls, 1);
    assert_eq!(outbox.write_to(&mut socket, usize::MAX).unwrap(), Flush::Drained);
}

#[test]
fn what_is_no_frame_is_not_cut_and_its_length_is_not_believed() {
    for length in [None, Some(0), Some(usize::MAX), Some(usize::MAX - 2)] {
        let mut outbox = Outbox::default();
        outbox.extend(b"\x81\x05HelloHTTP");
        outbox.write_to(&mut socket(usize::MAX, 9), usize::MAX).unwrap();
        let frame_bytes = |bytes: &[u8]| if bytes[0] == 0x81 { Some(7) } else { length };
        let is_cut = outbox.cut(frame_bytes);
        assert_eq!(is_cut, length.is_some_and(|length| length > 0));
        assert_eq!(outbox.bytes(), if is_cut { 2 } else { 0 });
    }
}

#[test]
fn what_has_not_begun_to_leave_is_not_cut_either_if_it_is_no_frame() {
    let mut outbox = Outbox::default();
    outbox.extend(b"HTTP");
    assert!(!outbox.cut(|_| None));
    assert!(Outbox::default().cut(|_| None), "a frame may follow nothing");
}

#[test]
fn a_cut_keeps_the_frame_that_has_begun_and_no_other() {
    let frame_bytes = |bytes: &[u8]| Some(2 + usize::from(*bytes.get(1)?));
    for (room, kept) in [(0, 0), (1, 6), (6, 1), (7, 0), (8, 6), (14, 0)] {
        let mut outbox = Outbox::default();
        for _ in 0..3 {
            outbox.extend(b"\x81\x05Hello");
        }
        let mut socket = socket(usize::MAX, room);
        outbox.write_to(&mut socket, usize::MAX).unwrap();
        assert!(outbox.cut(frame_bytes));
        assert_eq!(outbox.bytes(), kept, "after {room} bytes");
        let mut rest = self::socket(usize::MAX, usize::MAX);
        outbox.extend(b"END");
        outbox.write_to(&mut rest, usize::MAX).unwrap();
        let all = [socket.got, rest.got].concat();
        assert_eq!((all.len() - 3) % 7, 0, "whole frames, then the end");
        assert!(all.ends_with(b"END"));
    }
}
