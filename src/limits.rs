//! Every limit, with its unit, its default and what happens there.
//!
//! One table: a line of it is the field, the default, the name under which flags, environment,
//! file, counters and log lines know it, and the sentence that `--limit help` prints. Who keeps a
//! limit is not said here: that is where the bytes are.

use std::time::Duration;

/// Fields that a request head can have at all; the limit `headers` is at most this.
pub(crate) const FIELDS_MAX: usize = 128;

/// One line of the table of limits.
pub struct Limit {
    /// The word for it everywhere: `--max-message`, `--limit outbox=…`, counters, log lines.
    pub name: &'static str,
    /// Whether the daemon has a flag `--NAME` for it; the others go through `--limit NAME=VALUE`.
    pub has_flag: bool,
    /// What it bounds and what happens there.
    pub meaning: &'static str,
    /// Whether 0 makes sense.
    zero_allowed: bool,
    is_zero: fn(&Limits) -> bool,
    is_sane: fn(&Limits) -> bool,
    /// The value as a person writes it: `64KiB`, `25s`, `1000`.
    pub show: fn(&Limits) -> String,
    /// Sets it from such a text; the error says what form is wanted.
    pub set: fn(&mut Limits, &str) -> Result<(), String>,
}

/// What a limit is counted in: parses and shows it.
mod unit {
    use std::time::Duration;

    /// Things, by number.
    pub(super) mod count {
        pub(in super::super) type Value = usize;
        pub(in super::super) fn is_sane(_: &Value) -> bool {
            true
        }
        pub(in super::super) fn show(value: &Value) -> String {
            value.to_string()
        }
        pub(in super::super) fn parse(text: &str) -> Result<Value, String> {
            match text.bytes().all(|byte| byte.is_ascii_digit()) {
                true => text.parse().map_err(|_| "is a number".into()),
                false => Err("is a number".into()),
            }
        }
    }

    /// Bytes: `64KiB`, `1MiB`, `4096`.
    pub(super) mod bytes {
        pub(in super::super) use super::count::{Value, is_sane};
        const UNITS: [(&str, usize); 7] = [
            ("GiB", 1 << 30),
            ("MiB", 1 << 20),
            ("KiB", 1 << 10),
            ("GB", 1_000_000_000),
            ("MB", 1_000_000),
            ("kB", 1000),
            ("B", 1),
        ];
        pub(in super::super) fn show(value: &Value) -> String {
            match UNITS[..3].iter().find(|(_, unit)| *value > 0 && value.is_multiple_of(*unit)) {
                Some((name, unit)) => format!("{}{name}", value / unit),
                None => value.to_string(),
            }
        }
        pub(in super::super) fn parse(text: &str) -> Result<Value, String> {
            let (digits, unit) = UNITS
                .iter()
                .find_map(|(name, unit)| text.strip_suffix(name).map(|digits| (digits, *unit)))
                .unwrap_or((text, 1));
            super::count::parse(digits.trim_end())
                .ok()
                .and_then(|number| number.checked_mul(unit))
                .ok_or_else(|| "is a size such as 4096, 64KiB or 1MiB".into())
        }
    }

    /// Time: `25s`, `500ms`, `10m`, `1h`.
    pub(super) mod time {
        use super::Duration;
        pub(in super::super) type Value = Duration;
        /// Past a hundred years the arithmetic of deadlines would have to be defended.
        pub(in super::super) fn is_sane(value: &Value) -> bool {
            *value <= Duration::from_secs(36_525 * 86_400)
        }
        const UNITS: [(&str, u64); 5] =
            [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
        pub(in super::super) fn show(value: &Value) -> String {
            let ms = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
            match UNITS[1..4].iter().rev().find(|(_, unit)| ms > 0 && ms.is_multiple_of(*unit)) {
                Some((name, unit)) => format!("{}{name}", ms / unit),
                None if ms == 0 => "0s".into(),
                None => format!("{ms}ms"),
            }
        }
        pub(in super::super) fn parse(text: &str) -> Result<Value, String> {
            UNITS
                .iter()
                .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))
                .and_then(|(digits, unit)| {
                    super::count::parse(digits.trim_end())
                        .ok()?
                        .checked_mul(usize::try_from(unit).ok()?)
                })
                .map(|ms| Duration::from_millis(ms as u64))
                .filter(is_sane)
                .ok_or_else(|| "is a time such as 500ms, 25s, 10m or 1h".into())
        }
    }
}

/// A name, whether it has a flag of its own, and whether 0 is allowed.
macro_rules! place {
    (flag) => {
        true
    };
    (limit) => {
        false
    };
}

macro_rules! limits {
    ($( $(#[doc = $doc:literal])+ $field:ident: $unit:ident = $default:expr,
        $place:ident $name:literal, zero $zero:literal; )+) => {
        /// Every number that bounds something. Public fields, sensible defaults.
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub struct Limits {
            $( $(#[doc = $doc])+ pub $field: unit::$unit::Value, )+
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $( $field: $default, )+ }
            }
        }

        /// The table behind [`Limits`], in its order.
        pub const LIMITS: &[Limit] = &[
            $( Limit {
                name: $name,
                has_flag: place!($place),
                meaning: concat!($($doc),+),
                zero_allowed: $zero,
                is_zero: |limits| limits.$field == unit::$unit::Value::default(),
                is_sane: |limits| unit::$unit::is_sane(&limits.$field),
                show: |limits| unit::$unit::show(&limits.$field),
                set: |limits, text| {
                    limits.$field = unit::$unit::parse(text)?;
                    Ok(())
                },
            }, )+
        ];
    };
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// So many bytes are taken from the log, or from a file, before they are offered to the socket.
pub(crate) const TAKE_BYTES: usize = 64 * KIB;

/// So many bytes of answers leave while the client is still read: each write has its price, and
/// what waits for long goes out of the processor's cache.
pub(crate) const WRITE_BYTES: usize = 128 * KIB;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

limits! {
    /// Messages kept of each topic.
    history: count = 1000, flag "history", zero true;
    /// Bytes kept of each topic, counted as frames.
    history_bytes: bytes = MIB, flag "history-bytes", zero true;
    /// How long a message is kept.
    history_age: time = s(3600), flag "history-age", zero false;
    /// Bytes kept of all topics together, encoded forms and the log's bookkeeping included.
    history_total: bytes = 64 * MIB, limit "history-total", zero false;
    /// Topics. The unread one with the oldest message makes room; if all are read: 503.
    max_topics: count = 10_000, flag "max-topics", zero false;
    /// Clients at a time. The next ones wait in the system's queue until someone leaves.
    max_clients: count = 10_000, flag "max-clients", zero false;
    /// Clients of one address, or of one /64 of IPv6, at a time. 429 for the next, then the end.
    max_per_ip: count = 256, flag "max-per-ip", zero false;
    /// New clients of one address at once; as many are free again after 5 s. 429, then the end.
    max_new_per_ip: count = 100, limit "max-new-per-ip", zero false;
    /// Wrong credentials of one address at once; as many are free again after 5 s. 429.
    auth_failures: count = 20, limit "auth-failures", zero false;
    /// Clients who have not made a request yet, but at most a tenth of `max-clients` (or 64, if
    /// that is more). The oldest of them is dropped for the next when it has had a second for it.
    openings: count = 1000, limit "openings", zero false;
    /// Bytes that all clients hold together: what waits for them, and what came of unfinished
    /// requests and messages. The one who holds most is dropped, with close code 1013.
    memory: bytes = 512 * MIB, limit "memory", zero false;
    /// Clients of the control listener at a time. Who asks for nothing there is dropped for the
    /// next one; where all are being answered, the next ones wait as well.
    control_clients: count = 64, limit "control-clients", zero false;
    /// Bytes of one message, in a frame or a request. 413 and close code 1009.
    max_message: bytes = 64 * KIB, flag "max-message", zero false;

    /// Bytes of a request head, blank lines before it included. 431.
    head_bytes: bytes = 8 * KIB, limit "head-bytes", zero false;
    /// Fields of a request head. 431.
    headers: count = 64, limit "headers", zero false;
    /// Bytes of a request target. 414.
    target_bytes: bytes = 4 * KIB, limit "target-bytes", zero false;
    /// From the connection, or the first byte of a later request, to the end of its head. 408.
    head_timeout: time = s(10), flag "head-timeout", zero false;
    /// From the head of a request to the end of its content. 408.
    body_timeout: time = s(10), limit "body-timeout", zero false;
    /// How long a persistent connection may rest between two requests. Closed without a word.
    idle_timeout: time = s(30), limit "idle-timeout", zero false;
    /// Requests on one connection; the last one's answer says `Connection: close`.
    requests: count = 1000, limit "requests", zero false;
    /// The longest `wait` of a long poll; a longer one asked for is shortened to it.
    wait_max: time = s(55), flag "wait-max", zero true;
    /// Bytes of messages in one poll's answer (at least one message); the rest comes with the next.
    poll_bytes: bytes = 256 * KIB, limit "poll-bytes", zero false;
    /// Topics that one client may read, and subscriptions that may wait for their backlog. 400.
    subscriptions: count = 128, limit "subscriptions", zero false;

    /// Time between pings to a WebSocket, and between heartbeats of an event stream, ±20 %.
    ping: time = s(25), flag "ping", zero false;
    /// How long a pong may take. Close code 1008.
    pong_timeout: time = s(20), flag "pong-timeout", zero false;
    /// Fragments of one message, empty ones too. Close code 1008.
    fragments: count = 256, limit "fragments", zero false;
    /// From the first byte of a message to its last. Close code 1008.
    message_timeout: time = s(30), limit "message-timeout", zero false;
    /// Wrong commands of pousse.v1 at once; as many are free again after 5 s. Close code 1008.
    wrong_commands: count = 50, limit "wrong-commands", zero false;
    /// Control frames at once; as many are free again after 5 seconds. Close code 1008.
    controls: count = 250, limit "controls", zero false;
    /// How long the peer's close frame, or the end of its bytes, is waited for.
    close_timeout: time = s(3), limit "close-timeout", zero false;

    /// Bytes waiting for one client from which on no more is read from it.
    outbox_soft: bytes = 256 * KIB, limit "outbox-soft", zero false;
    /// Bytes waiting for one client from which on a direct send to it is refused (`Full`).
    outbox: bytes = MIB, limit "outbox", zero false;
    /// Messages sent to one client alone that wait, from which on another is refused (`Full`); from
    /// a quarter of them on no more is read from it.
    outbox_messages: count = 4096, limit "outbox-messages", zero false;
    /// Bytes for one client that the system takes before it can send them (`TCP_NOTSENT_LOWAT`, on
    /// Linux); what is more waits where it is counted. 0: the system's own measure.
    unsent: bytes = 256 * KIB, limit "unsent", zero true;
    /// How long bytes may wait for a client that takes none of them. Close code 1013.
    stall: time = s(10), limit "stall", zero false;
    /// How long the peer's system may leave bytes unacknowledged (`TCP_USER_TIMEOUT`, on Linux).
    /// Closed without a word.
    ack_timeout: time = s(30), limit "ack-timeout", zero false;

    /// Bytes read from one client in one turn.
    turn_read: bytes = 320 * KIB, limit "turn-read", zero false;
    /// Messages of one client handed to the handler in one turn.
    turn_messages: count = 256, limit "turn-messages", zero false;
    /// Bytes written to one client in one turn, and as many while it is read.
    turn_write: bytes = 320 * KIB, limit "turn-write", zero false;
    /// Connections accepted by one listener in one turn.
    turn_accept: count = 64, limit "turn-accept", zero false;
    /// Steps of TLS handshakes in one turn, all clients together.
    turn_handshakes: count = 16, limit "turn-handshakes", zero false;
    /// Readers of one topic offered its new messages in one slice of a turn.
    turn_readers: count = 1024, limit "turn-readers", zero false;
    /// How long one step of a turn goes on before everyone else has theirs.
    turn_time: time = Duration::from_millis(10), limit "turn-time", zero false;
    /// A call of the handler, or a step for one client, that takes longer is logged and counted.
    slow_handler: time = Duration::from_millis(100), limit "slow-handler", zero false;
    /// Commands from other threads that may wait. `RemoteError::Full`.
    commands: count = 1024, limit "commands", zero false;
    /// How long an ending server waits for its clients.
    drain: time = s(10), flag "drain", zero true;
}

/// What an idle client takes (`tests/memory.rs`), and a little for lists that grow.
const CLIENT_BYTES: usize = 320;

/// A line feed of a message is `data: ` and a line feed on an event stream, and nothing in any
/// form takes more; around it stand ids, and a topic in JSON.
const FORM_TIMES: usize = 7;
const FORM_BYTES: usize = 1024;

/// A header field's place in its request.
const FIELD_BYTES: usize = 16;

/// What a subscription takes: its place in what the client reads and in its topic's readers, and
/// while it waits for its backlog one more and its `ref`.
const SUBSCRIPTION_BYTES: usize = 256;

/// What a client's boxes take that few clients have, and the room at the end of its outbox.
const BOXES_BYTES: usize = 1024 + 256 * 1024;

/// What a topic takes beside its entries, with the longest of names (`tests/history.rs`); and its
/// list of readers before it has any, with places that it does not give back.
const TOPIC_BYTES: usize = 640 + 256;

/// The program itself: its stack and lists, what compression needs, memory of long messages.
const PROGRAM_BYTES: usize = 20 * MIB;

impl Limits {
    /// The most memory that the server can take, should every client be at every limit.
    ///
    /// A client is 320 bytes, and at most: a head and its fields; an unfinished message, with up to
    /// twice its length reserved; its subscriptions; what waits for it, which may pass
    /// `outbox_soft`, or 64 KiB should that be less, by one answer or 64 KiB from the log and a
    /// message more, or `outbox` by one message, in the longest of its forms; and one such piece
    /// that is partly written. All of them together hold at most `memory`, and for the moment until
    /// somebody is dropped what one client may hold more.
    pub fn memory_bytes_max(&self) -> usize {
        let form = self.max_message.saturating_mul(FORM_TIMES).saturating_add(FORM_BYTES);
        let answer = self.poll_bytes.max(TAKE_BYTES).saturating_add(form);
        let waiting = self.outbox_soft.max(TAKE_BYTES).saturating_add(answer);
        let waiting = waiting.max(self.outbox.saturating_add(form)).saturating_add(answer);
        let head = self.head_bytes.saturating_add(self.headers.saturating_mul(FIELD_BYTES));
        let message = self.max_message.saturating_mul(2);
        let subscriptions = self.subscriptions.saturating_mul(SUBSCRIPTION_BYTES);
        let client = [head, message, self.turn_read, subscriptions, waiting, BOXES_BYTES];
        let client = client.into_iter().fold(0, usize::saturating_add);
        let all = self.max_clients.saturating_mul(client).min(self.memory.saturating_add(client));
        let slots =
            self.max_clients.saturating_add(self.control_clients).saturating_mul(CLIENT_BYTES);
        let topics = self.max_topics.saturating_mul(TOPIC_BYTES);
        let others = [slots, topics, self.history_total, self.turn_read, PROGRAM_BYTES];
        others.into_iter().fold(all, usize::saturating_add)
    }

    /// Looks for values that cannot hold.
    ///
    /// # Errors
    /// The sentence that says which, and why.
    pub(crate) fn check(&self) -> Result<(), String> {
        for limit in LIMITS {
            if (limit.is_zero)(self) && !limit.zero_allowed {
                return Err(format!("limit {} cannot be 0", limit.name));
            }
            if !(limit.is_sane)(self) {
                return Err(format!("limit {} cannot be over 100 years", limit.name));
            }
        }
        if self.max_clients > u32::MAX as usize {
            return Err("limit max-clients is above 4294967295".into());
        }
        if self.headers > FIELDS_MAX {
            return Err(format!("limit headers is above {FIELDS_MAX}"));
        }
        Ok(())
    }

    /// The line of the table with this name.
    pub fn find(name: &str) -> Option<&'static Limit> {
        LIMITS.iter().find(|limit| limit.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_written_as_people_write_them() {
        let mut limits = Limits::default();
        for (name, text, shown) in [
            ("max-message", "64KiB", Ok("64KiB")),
            ("max-message", "65536", Ok("64KiB")),
            ("max-message", "1MB", Ok("1000000")),
            ("max-message", "1 GiB", Ok("1GiB")),
            ("max-message", "99999999999GiB", Err(())),
            ("max-message", "-1", Err(())),
            ("max-message", "", Err(())),
            ("ping", "25s", Ok("25s")),
            ("ping", "90s", Ok("90s")),
            ("ping", "120s", Ok("2m")),
            ("ping", "1h", Ok("1h")),
            ("ping", "1500ms", Ok("1500ms")),
            ("ping", "25", Err(())),
            ("ping", "9999999999h", Err(())),
            ("history", "0", Ok("0")),
            ("history", "+5", Err(())),
        ] {
            let limit = Limits::find(name).unwrap();
            let got = (limit.set)(&mut limits, text).map(|()| (limit.show)(&limits));
            assert_eq!(got.map_err(|_| ()), shown.map(String::from), "{name}={text}");
        }
    }

    #[test]
    fn a_limit_shows_its_default_in_a_form_it_accepts() {
        let limits = Limits::default();
        for limit in LIMITS {
            let mut again = limits.clone();
            let shown = (limit.show)(&limits);
            assert_eq!((limit.set)(&mut again, &shown), Ok(()), "{}", limit.name);
            assert_eq!((limit.show)(&again), shown, "{}", limit.name);
            assert!(limit.meaning.trim().ends_with('.'), "{}", limit.name);
        }
    }

    #[test]
    fn the_largest_limits_have_a_sum() {
        let limits = Limits { max_message: usize::MAX, ..Limits::default() };
        assert!(limits.memory_bytes_max() > 0);
    }
}
