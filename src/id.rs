//! Names: of a client ([`ConnId`]), of who stands behind it ([`Grant`]), and of an entry of the log
//! ([`EntryId`], [`After`]).
//!
//! Pure values. Nothing here knows what is behind a name or whether it still exists.

use std::fmt;
use std::str::FromStr;

/// Names a connection for as long as anyone remembers it: a slot is reused, an id is not.
///
/// ```
/// let id = pousse::ConnId::new(7, 2);
/// assert_eq!(id.to_string(), "7-2");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    index: u32,
    generation: u32,
}

impl ConnId {
    /// The id of the client in slot `index` who was the `generation`th to connect.
    pub const fn new(index: u32, generation: u32) -> Self {
        Self { index, generation }
    }

    /// The slot.
    pub const fn index(self) -> u32 {
        self.index
    }

    /// Counts the clients of a server, whatever their slots.
    pub const fn generation(self) -> u32 {
        self.generation
    }

    /// Some number that differs from client to client; spreads timers, decides nothing else.
    pub(crate) const fn scatter(self) -> u64 {
        // The finishing step of SplitMix64: every bit of the input moves half of the output.
        let mut x = (self.generation as u64) << 32 | self.index as u64;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.index, self.generation)
    }
}

/// Names who a client is, or by what right it acts: a number of the handler's, which the server
/// keeps with the connection and hands back whenever something more is asked for on it.
///
/// Whoever has the same grant is the same publisher: they share their idempotency keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant(pub u64);

/// Names an entry: the run of the server that wrote it, then its place in that run.
///
/// `run` is the Unix millisecond at which the server started, `seq` counts the entries of all
/// topics from 1; `RUN-0` is the start itself. So one id is a place in every topic at once.
///
/// ```
/// use pousse::EntryId;
/// let id: EntryId = "1763856000000-17".parse()?;
/// assert_eq!((id.run, id.seq), (1_763_856_000_000, 17));
/// assert!("1763856000000-9".parse::<EntryId>()? < id, "ids are compared as numbers");
/// assert!("17".parse::<EntryId>().is_err());
/// # Ok::<(), pousse::BadEntryId>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Unix milliseconds of the start of the server.
    pub run: u64,
    /// 1 for the first entry of the run.
    pub seq: u64,
}

impl EntryId {
    /// The place of someone who has one and cannot say which: a gap wherever it is looked up.
    pub(crate) const UNKNOWN: Self = Self { run: 0, seq: u64::MAX };
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.run, self.seq)
    }
}

/// The text is not `RUN-SEQ`, two decimal numbers below 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadEntryId;

impl fmt::Display for BadEntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id is two decimal numbers with a hyphen between them, RUN-SEQ")
    }
}

impl std::error::Error for BadEntryId {}

impl FromStr for EntryId {
    type Err = BadEntryId;

    fn from_str(text: &str) -> Result<Self, BadEntryId> {
        // `u64::from_str` takes a plus sign; an id has none.
        let number = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
            true => digits.parse().map_err(|_| BadEntryId),
            false => Err(BadEntryId),
        };
        let (run, seq) = text.split_once('-').ok_or(BadEntryId)?;
        Ok(Self { run: number(run)?, seq: number(seq)? })
    }
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// At the oldest entry that is kept.
    Earliest,
    /// Behind the newest entry: only what comes from here on.
    Now,
    /// Behind the entry named.
    Id(EntryId),
}

impl After {
    /// The entry named, if one is.
    pub(crate) fn id(self) -> Option<EntryId> {
        match self {
            After::Id(id) if id != EntryId::UNKNOWN => Some(id),
            _ => None,
        }
    }
}

impl FromStr for After {
    type Err = BadEntryId;

    fn from_str(text: &str) -> Result<Self, BadEntryId> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "now" => Ok(Self::Now),
            id => id.parse().map(Self::Id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_id_is_two_plain_decimal_numbers() {
        for (text, id) in [
            ("0-0", Some((0, 0))),
            ("1-18446744073709551615", Some((1, u64::MAX))),
            ("1-18446744073709551616", None),
            ("-1", None),
            ("1-", None),
            ("+1-2", None),
            ("1-2-3", None),
            (" 1-2", None),
            ("", None),
        ] {
            let parsed = text.parse::<EntryId>().ok().map(|id| (id.run, id.seq));
            assert_eq!(parsed, id, "{text:?}");
        }
    }

    #[test]
    fn after_is_an_id_or_one_of_two_words() {
        assert_eq!("now".parse(), Ok(After::Now));
        assert_eq!("earliest".parse(), Ok(After::Earliest));
        assert_eq!("3-4".parse(), Ok(After::Id(EntryId { run: 3, seq: 4 })));
        assert_eq!("Now".parse::<After>(), Err(BadEntryId));
    }
}
