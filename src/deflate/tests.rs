//! Unit tests of `deflate.rs`: what it makes is read by an inflater of our own, and what it reads
//! is made by zlib, or by hand to be wrong.

use super::*;

fn inflate(payload: &[u8], max: usize) -> Result<Vec<u8>, Unfit> {
    Deflate::default().inflate(payload, max, &mut Counters::default())
}

/// The payload of the frame, whose header is checked.
fn deflate(lent: &mut Deflate, payload: &[u8], window: Window) -> Option<Vec<u8>> {
    let frame = lent.frame((Kind::Binary, payload), window, &mut Counters::default())?;
    let (head, rest) = match frame[1] {
        127 => frame.split_at(10),
        126 => frame.split_at(4),
        _ => frame.split_at(2),
    };
    assert_eq!(head[0], 0xc2, "FIN, RSV1, binary");
    Some(rest.to_vec())
}

/// Lines of JSON that look alike, as messages do.
fn json(bytes: usize) -> Vec<u8> {
    let line = |n: u32| {
        let price = n.wrapping_mul(2_654_435_761) >> 12;
        format!("{{\"id\":{n},\"price\":{price},\"name\":\"instrument {}\"}},", price % 97)
    };
    (0..).flat_map(|n| line(n).into_bytes()).take(bytes).collect()
}

/// Bytes in which nothing repeats.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u8::try_from(state & 0xff).unwrap()
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// An inflater of our own, which keeps all and tells how far back it had to look. It is after
/// Mark Adler's puff: slow, and a page long.
mod puff {
    /// Bits of a stream, lowest first.
    struct Bits<'a> {
        bytes: &'a [u8],
        at: usize,
    }

    impl Bits<'_> {
        fn one(&mut self) -> usize {
            let byte = self.bytes[self.at / 8];
            let bit = byte >> (self.at % 8) & 1;
            self.at += 1;
            usize::from(bit)
        }

        fn number(&mut self, bits: usize) -> usize {
            (0..bits).map(|bit| self.one() << bit).sum()
        }
    }

    /// Codes by their lengths (RFC 1951 §3.2.2): how many of each length, symbols in order.
    struct Codes {
        counts: [usize; 16],
        symbols: Vec<usize>,
    }

    impl Codes {
        fn new(lengths: &[usize]) -> Self {
            let mut counts = [0; 16];
            let mut symbols = Vec::new();
            for (length, count) in counts.iter_mut().enumerate().skip(1) {
                let before = symbols.len();
                let of_length = lengths.iter().enumerate().filter(|(_, it)| **it == length);
                symbols.extend(of_length.map(|(symbol, _)| symbol));
                *count = symbols.len() - before;
            }
            Self { counts, symbols }
        }

        fn next(&self, bits: &mut Bits<'_>) -> usize {
            let (mut code, mut first, mut index) = (0, 0, 0);
            for count in &self.counts[1..] {
                code |= bits.one();
                if code < first + count {
                    return self.symbols[index + code - first];
                }
                index += count;
                first = (first + count) << 1;
                code <<= 1;
            }
            panic!("no such code");
        }
    }

    /// The message, and the longest distance in it.
    pub(super) fn inflate(bytes: &[u8]) -> (Vec<u8>, usize) {
        let mut bits = Bits { bytes, at: 0 };
        let (mut out, mut farthest) = (Vec::new(), 0);
        while bits.at + 3 <= 8 * bytes.len() {
            let is_last = bits.one() == 1;
            match bits.number(2) {
                0 => {
                    bits.at = bits.at.next_multiple_of(8);
                    let length = bits.number(16);
                    assert_eq!(bits.number(16), length ^ 0xffff);
                    let from = bits.at / 8;
                    out.extend_from_slice(&bytes[from..from + length]);
                    bits.at += 8 * length;
                }
                1 => {
                    let mut lengths = [8; 288];
                    lengths[144..256].fill(9);
                    lengths[256..280].fill(7);
                    let codes = (Codes::new(&lengths), Codes::new(&[5; 30]));
                    block(&mut bits, &codes, &mut out, &mut farthest);
                }
                2 => {
                    let codes = dynamic(&mut bits);
                    block(&mut bits, &codes, &mut out, &mut farthest);
                }
                _ => panic!("no such block"),
            }
            if is_last {
                break;
            }
        }
        (out, farthest)
    }

    fn dynamic(bits: &mut Bits<'_>) -> (Codes, Codes) {
        let (literals, distances) = (bits.number(5) + 257, bits.number(5) + 1);
        let count = bits.number(4) + 4;
        let mut lengths = [0; 19];
        const ORDER: [usize; 19] =
            [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
        for at in &ORDER[..count] {
            lengths[*at] = bits.number(3);
        }
        let codes = Codes::new(&lengths);
        let mut lengths = Vec::new();
        while lengths.len() < literals + distances {
            let (value, times) = match codes.next(bits) {
                16 => (*lengths.last().unwrap(), 3 + bits.number(2)),
                17 => (0, 3 + bits.number(3)),
                18 => (0, 11 + bits.number(7)),
                length => (length, 1),
            };
            lengths.extend(std::iter::repeat_n(value, times));
        }
        let (literals, distances) = lengths.split_at(literals);
        (Codes::new(literals), Codes::new(distances))
    }

    fn block(
        bits: &mut Bits<'_>,
        (literals, distances): &(Codes, Codes),
        out: &mut Vec<u8>,
        farthest: &mut usize,
    ) {
        loop {
            let symbol = literals.next(bits);
            let length = match symbol {
                0..256 => {
                    out.push(u8::try_from(symbol).unwrap());
                    continue;
                }
                256 => return,
                257..265 => symbol - 254,
                285 => 258,
                _ => {
                    let extra = (symbol - 261) / 4;
                    3 + ((4 + (symbol - 261) % 4) << extra) + bits.number(extra)
                }
            };
            let symbol = distances.next(bits);
            let distance = match symbol {
                0..4 => symbol + 1,
                _ => {
                    let extra = symbol / 2 - 1;
                    1 + ((2 + symbol % 2) << extra) + bits.number(extra)
                }
            };
            *farthest = distance.max(*farthest);
            for _ in 0..length {
                out.push(out[out.len() - distance]);
            }
        }
    }
}

/// Messages of many lengths and kinds.
fn messages() -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    messages.push(json(BYTES_MAX));
    for bytes in [1024, 4099, 40_000] {
        messages.push(json(bytes));
        messages.push(vec![b'a'; bytes]);
        // What repeats, repeats at each of these distances and at no other.
        for period in [3, 200, 249, 250, 251, 255, 256, 257, 300, 511, 512, 513, 5000] {
            messages.push(noise(period).into_iter().cycle().take(bytes).collect());
        }
        // Repetitions of all lengths, at all distances.
        let mut mixed = Vec::new();
        for (at, step) in noise(bytes).iter().zip(noise(bytes + 7).iter().skip(7)) {
            let from = usize::from(*at) * 3;
            let length = usize::from(*step);
            let from = mixed.len().saturating_sub(from);
            let piece: Vec<u8> = mixed.iter().skip(from).take(length).copied().collect();
            mixed.extend(piece);
            mixed.push(*at);
            if mixed.len() >= bytes {
                break;
            }
        }
        mixed.truncate(bytes);
        messages.push(mixed);
    }
    messages
}

#[test]
fn what_is_compressed_can_be_taken_out_whatever_was_compressed_before() {
    let mut lent = Deflate::default();
    let mut counters = Counters::default();
    for message in messages() {
        for window in [Window::Fifteen, Window::Nine] {
            let Some(deflated) = deflate(&mut lent, &message, window) else { continue };
            assert!(deflated.len() < message.len());
            let inflated = lent.inflate(&deflated, message.len(), &mut counters);
            assert!(inflated.is_ok_and(|it| it == message));
            let shorter = lent.inflate(&deflated, message.len() - 1, &mut counters);
            assert_eq!(shorter, Err(Unfit::TooBig));
        }
    }
    assert!(lent.scratch.capacity() <= SCRATCH_BYTES);
}

#[test]
fn no_distance_is_above_250_where_a_window_of_256_bytes_was_agreed_on() {
    let mut lent = Deflate::default();
    let (mut farthest, mut count) = (0, 0);
    for message in messages() {
        let Some(mut deflated) = deflate(&mut lent, &message, Window::Nine) else { continue };
        deflated.extend(TAIL);
        let (inflated, distance) = puff::inflate(&deflated);
        assert!(inflated == message);
        farthest = distance.max(farthest);
        count += 1;
    }
    assert!(count > 30, "only {count} were compressed");
    assert_eq!(farthest, 250);
    // The same reader sees what a longer window does.
    let message: Vec<u8> = noise(5000).into_iter().cycle().take(20_000).collect();
    let mut deflated = deflate(&mut lent, &message, Window::Fifteen).unwrap();
    deflated.extend(TAIL);
    let (inflated, distance) = puff::inflate(&deflated);
    assert!(inflated == message && distance >= 5000);
}

#[test]
fn what_does_not_become_shorter_is_not_compressed_and_counted() {
    let mut counters = Counters::default();
    let mut lent = Deflate::default();
    let noise = noise(5000);
    for window in [Window::Nine, Window::Fifteen] {
        assert_eq!(lent.frame((Kind::Binary, &noise), window, &mut counters), None);
    }
    assert_eq!((counters.deflated_9, counters.deflated_15), (1, 1));
    assert_eq!(counters.deflated_in_vain, 2);
    assert_eq!((counters.deflated_from_bytes, counters.deflated_to_bytes), (10_000, 10_000));
    let json = json(5000);
    let frame = lent.frame((Kind::Text, &json), Window::Nine, &mut counters).unwrap();
    assert_eq!((frame[0], frame[1]), (0xc1, 126));
    assert_eq!(counters.deflated_to_bytes, 10_000 + frame.len() as u64 - 4);
}

#[test]
fn only_messages_of_a_length_that_is_worth_it_are_compressed() {
    assert_eq!([1023, 1024, 1 << 20, (1 << 20) + 1].map(is_worth), [false, true, true, false]);
}

#[test]
fn the_examples_of_rfc_7692_section_7_2_3_are_read() {
    for (payload, message) in [
        // 7.2.3.1: one compressed block.
        (&b"\xf2\x48\xcd\xc9\xc9\x07\x00"[..], &b"Hello"[..]),
        // 7.2.3.3: a block that is not compressed.
        (b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", b"Hello"),
        // 7.2.3.4: BFINAL set, and the empty block behind it.
        (b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", b"Hello"),
        // 7.2.3.5: two blocks.
        (b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", b"Hello"),
        // 7.2.3.6: an empty message.
        (b"\x00", b""),
        // A final block with nothing behind it, several of them, and others behind them.
        (b"\xf3\x48\xcd\xc9\xc9\x07\x00", b"Hello"),
        (b"\xf3\x48\xcd\xc9\xc9\x07\x00\xf3\x48\xcd\xc9\xc9\x07\x00", b"HelloHello"),
        (b"\x03\x00\x03\x00\xf2\x48\xcd\xc9\xc9\x07\x00", b"Hello"),
        (b"\x01\x05\x00\xfa\xffHello\x01\x00\x00\xff\xff\x00", b"Hello"),
    ] {
        assert_eq!(inflate(payload, 10).as_deref(), Ok(message), "{payload:x?}");
    }
    // 7.2.3.2 goes on from the message before it: we do not let anyone do that.
    assert_eq!(inflate(b"\xf2\x00\x11\x00\x00", 10), Err(Unfit::Bad));
}

#[test]
fn what_is_no_deflate_is_bad_wherever_it_ends_and_the_next_message_does_not_suffer() {
    let mut lent = Deflate::default();
    let mut counters = Counters::default();
    let whole = deflate(&mut lent, &json(4096), Window::Fifteen).unwrap();
    let mut bad: Vec<Vec<u8>> = vec![
        b"".to_vec(),                                 // an empty message is one byte
        b"\x07".to_vec(),                             // no such block
        b"\xff\xff\xff\xff".to_vec(),                 // the same
        b"\x00\x05\x00\xfb\xffHello".to_vec(),        // a length that its complement denies
        b"\x00\x05\x00\xfa\xffHell".to_vec(),         // an end within a block
        b"\xf2\x48\xcd\xc9\xc9".to_vec(),             // the same
        b"\x02\x06\x00".to_vec(),                     // a distance before the beginning
        b"\xf3\x48\xcd\xc9\xc9\x07\x00\x07".to_vec(), // bytes behind a final block
        b"\x03\x00garbage".to_vec(),
        b"\x04\xc0\xff\xff\xff\xff\xff\xff".to_vec(), // codes that cannot be
    ];
    bad.extend((1..whole.len()).step_by(7).map(|end| whole[..end].to_vec()));
    for payload in bad {
        assert_eq!(lent.inflate(&payload, 1 << 20, &mut counters), Err(Unfit::Bad));
        let next = lent.inflate(b"\xf2\x48\xcd\xc9\xc9\x07\x00", 5, &mut counters);
        assert_eq!(next.as_deref(), Ok(&b"Hello"[..]), "after {payload:x?}");
    }
    assert_eq!(counters.inflated, counters.inflated_bytes / 5);
}

#[test]
fn exactly_the_limit_passes_and_one_byte_more_does_not() {
    let mut lent = Deflate::default();
    for max in [1024, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, 65_536] {
        for (more, passes) in [(0, true), (1, false), (2, false), (100_000, false)] {
            let zeros = vec![0; max + more];
            let deflated = deflate(&mut lent, &zeros, Window::Fifteen).unwrap();
            let inflated = lent.inflate(&deflated, max, &mut Counters::default());
            assert_eq!(inflated.is_ok(), passes, "{max} and {more}");
            assert!(passes || inflated == Err(Unfit::TooBig));
        }
    }
    assert_eq!(inflate(b"\x00", 0).as_deref(), Ok(&b""[..]));
    assert_eq!(inflate(b"\xf2\x48\xcd\xc9\xc9\x07\x00", 0), Err(Unfit::TooBig));
}

#[test]
fn a_bomb_is_given_up_at_the_limit() {
    let mut compress = Compress::new(Compression::new(9), false);
    let mut bomb = Vec::with_capacity(1 << 20);
    let zeros = vec![0; 1 << 24];
    compress.compress_vec(&zeros, &mut bomb, FlushCompress::Sync).unwrap();
    assert_eq!(compress.total_in(), 1 << 24);
    let mut message = Taken { bytes: Vec::new(), max: 65_536 };
    let mut inflater = Decompress::new(false);
    assert_eq!(message.take(&mut inflater, &bomb), Err(Unfit::TooBig));
    assert!(inflater.total_out() <= 65_536 + PIECE_BYTES as u64);
    assert!(message.bytes.capacity() <= 2 * 65_536);
}
