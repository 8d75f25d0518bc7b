//! A request head as its bytes arrive: where it ends, and that it ends (RFC 9112 §2.2).
//!
//! As a rule a head comes whole and is parsed where it stands. One that comes in pieces is held
//! here, each byte is looked at once, and it is parsed when its last byte is there.

use std::io::BufRead;

use crate::http::{Peer, Refusal, Request, bad};
use crate::input::take;
use crate::limits::Limits;
use crate::metrics::Reason;
use crate::parse::{parse_head, too_long_target};

/// What has arrived of a head that is not whole.
#[derive(Debug, Default)]
pub(crate) struct Head {
    bytes: Vec<u8>,
    scan: HeadScan,
}

impl Head {
    /// Takes bytes up to the end of the head and parses it; `None`: it has not ended yet.
    ///
    /// # Errors
    /// [`Refusal`]; what follows in the input cannot be told apart from the head then.
    pub(crate) fn receive(
        &mut self,
        input: &mut &mut [u8],
        limits: &Limits,
        peer: Peer,
    ) -> Result<Option<Request>, Refusal> {
        let limit = limits.head_bytes;
        if self.bytes.is_empty()
            && let Scan::Whole(end) = self.scan.scan(input)
            && end <= limit
        {
            let head = take(input, end);
            let head = head.get(self.scan.blank_bytes..).unwrap_or_default();
            return parse_head(head, limits, peer).map(Some);
        }
        let held = self.bytes.len();
        let fresh = input.len().min(limit.saturating_sub(held));
        self.bytes.extend_from_slice(input.get(..fresh).unwrap_or_default());
        if held == 0 {
            // The search above may have gone beyond the limit.
            self.scan = HeadScan::default();
        }
        match self.scan.scan(&self.bytes) {
            Scan::Whole(end) => {
                take(input, end - held);
                let head = self.bytes.get(self.scan.blank_bytes..end).unwrap_or_default();
                parse_head(head, limits, peer).map(Some)
            }
            Scan::Partial if self.bytes.len() < limit => {
                take(input, fresh);
                Ok(None)
            }
            Scan::Partial => Err(self.scan.too_long(&self.bytes).of_head(&self.bytes)),
            Scan::BareLineFeed => Err(bad("a line of the request head has to end in CR LF")),
        }
    }

    /// Bytes of the head that are here.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of memory that it takes.
    pub(crate) fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.bytes.capacity()
    }
}

/// What the search for the end of a head came to.
#[derive(Debug, PartialEq, Eq)]
enum Scan {
    /// No end yet.
    Partial,
    /// The head ends here; it begins behind the blank lines.
    Whole(usize),
    /// A line ends in LF alone (RFC 9112 §2.2 allows to refuse it, and smugglers need it).
    BareLineFeed,
}

/// The search for the end of one head, over bytes that arrive in pieces.
///
/// Each byte is looked at once, however the head is cut.
#[derive(Debug, Default)]
struct HeadScan {
    /// Bytes of empty lines before the head; RFC 9112 §2.2 asks to pass over them.
    blank_bytes: usize,
    scanned: usize,
}

impl HeadScan {
    /// Goes on where the last call ended; `bytes` are the same as then, and more.
    fn scan(&mut self, bytes: &[u8]) -> Scan {
        if self.scanned == self.blank_bytes {
            while bytes.get(self.blank_bytes..).is_some_and(|rest| rest.starts_with(b"\r\n")) {
                self.blank_bytes += 2;
            }
            self.scanned = self.blank_bytes;
            if bytes.get(self.blank_bytes..) == Some(b"\r") {
                return Scan::Partial;
            }
        }
        let mut rest = bytes.get(self.scanned..).unwrap_or_default();
        // To the end of a line, as fast as the machine looks for a byte; of a slice no read fails.
        while let Ok(1..) = rest.skip_until(b'\n') {
            let end = bytes.len() - rest.len();
            match bytes.get(..end).unwrap_or_default() {
                [.., b'\r', b'\n', b'\r', b'\n'] => return Scan::Whole(end),
                [.., b'\r', b'\n'] => {}
                [.., b'\n'] => return Scan::BareLineFeed,
                _ => break,
            }
        }
        self.scanned = bytes.len();
        Scan::Partial
    }

    /// What is wrong with a head whose end has not come within `limits.head_bytes`.
    fn too_long(&self, bytes: &[u8]) -> Refusal {
        match bytes.get(self.blank_bytes..).is_some_and(|head| head.contains(&b'\n')) {
            false if bytes.len() > self.blank_bytes => too_long_target(),
            _ => Refusal::new(
                431,
                Reason::HeadBytes,
                "the request head is too long; send fewer or shorter header fields",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_found_however_it_is_cut_and_each_byte_is_looked_at_once() {
        let head = b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        let mut scan = HeadScan::default();
        for end in 0..31 {
            assert_eq!(scan.scan(&head[..end]), Scan::Partial, "{end}");
        }
        assert_eq!(scan.scan(head), Scan::Whole(31));
        assert_eq!(scan.blank_bytes, 4);
        assert_eq!(HeadScan::default().scan(head), Scan::Whole(31));
        for bare in [&b"GET / HTTP/1.1\nHost"[..], b"\n", b"\r\n\n", b"GET /\r\n\n"] {
            assert_eq!(HeadScan::default().scan(bare), Scan::BareLineFeed, "{bare:?}");
        }
    }

    #[test]
    fn a_head_without_end_is_told_by_what_made_it_long() {
        for (bytes, status) in [("GET /aaaa", 414), ("GET / HTTP/1.1\r\nX: aa", 431), ("\r\n", 431)]
        {
            let mut scan = HeadScan::default();
            assert_eq!(scan.scan(bytes.as_bytes()), Scan::Partial);
            assert_eq!(scan.too_long(bytes.as_bytes()).status, status, "{bytes:?}");
        }
    }
}
