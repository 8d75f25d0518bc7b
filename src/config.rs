//! Every setting and every limit, with its unit, its default and its reason.
//!
//! [`Config`] is what an embedder fills in and what the daemon's flags fill in. [`Limits`] is one
//! table: a line of it is the field, the default, the name under which flags, environment, file,
//! counters and log lines know it, and the sentence that `--limit help` prints.

use std::net::{IpAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use std::{fmt, net};

use crate::error::Error;
use crate::network::Network;
use crate::tls::Tls;

/// What a server is to do.
///
/// ```
/// use pousse::Config;
/// let mut config = Config::default();
/// config.listen = vec!["127.0.0.1:0".parse()?];
/// config.limits.max_message = 1024;
/// # Ok::<(), pousse::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where to listen. Default: `127.0.0.1:8080`.
    pub listen: Vec<Address>,
    /// Where the owner of the server asks and acts (`docs/control.md`): metrics, topics, clients.
    /// `None`: nowhere. Whoever reaches it may do everything, so it has to be of this machine.
    pub control: Option<Address>,
    /// Whether the handler's `authorize` says who may use it from other machines
    /// (`Access::Operate`). Else it has to be a loopback address or a unix socket.
    pub control_asks: bool,
    /// A folder to serve in place of the built-in page (feature `files`).
    pub root: Option<PathBuf>,
    /// Who may publish by `POST` or over pousse.v1: nobody, or anyone whom the handler's
    /// `authorize` does not refuse. `None`: anyone if every address is a loopback one of TCP and
    /// neither `hosts` nor `trusted_proxies` are given (behind a reverse proxy it would be the
    /// world), else nobody.
    pub publish: Option<Publish>,
    /// Origins whose pages may connect, beside the server's own: `https://example.org`, `null`.
    pub origins: Vec<String>,
    /// Names, beside the loopback ones, by which a loopback listener may be called.
    pub hosts: Vec<String>,
    /// Networks from which nobody may connect.
    pub deny: Vec<Network>,
    /// Networks of reverse proxies: for whom they forward is taken from their requests.
    pub trusted_proxies: Vec<Network>,
    /// Whether the limits of one address hold for loopback addresses too.
    pub limit_loopback: bool,
    /// WebSocket subprotocols that the handler speaks. pousse.v1 is built in (feature `v1`) and
    /// goes before them.
    pub subprotocols: Vec<String>,
    /// The certificate with which the TCP listeners speak TLS, https and wss, and nothing else
    /// (feature `tls`). Unix sockets stay plain.
    pub tls: Option<Tls>,
    /// Whether messages are compressed for WebSockets that offer it, and taken from them so:
    /// permessage-deflate (feature `deflate`), from 1 KiB on. Default: yes, with the feature.
    ///
    /// What is compressed tells by its length what it repeats. So where a message holds both a
    /// secret and something that a stranger chose, turn it off (`docs/security.md`).
    pub deflate: bool,
    /// Every number.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![Address::Tcp { host: "127.0.0.1".into(), port: 8080 }],
            control: None,
            control_asks: false,
            root: None,
            publish: None,
            origins: Vec::new(),
            hosts: Vec::new(),
            deny: Vec::new(),
            trusted_proxies: Vec::new(),
            limit_loopback: false,
            subprotocols: Vec::new(),
            tls: None,
            deflate: cfg!(feature = "deflate"),
            limits: Limits::default(),
        }
    }
}

impl Config {
    /// Whether the control listener is where only this machine can reach it.
    ///
    /// # Errors
    /// [`Error::Config`] says what to change.
    pub fn check_control(&self) -> Result<(), Error> {
        let Some(address) = &self.control else { return Ok(()) };
        match control_is_safe(address, self.control_asks) {
            true => Ok(()),
            false => Err(Error::Config(format!(
                "control {address} can be reached from other machines, and whoever reaches it may \
                 do everything: give a loopback address such as 127.0.0.1:9090, or unix:PATH, or \
                 have tokens asked for (token-file)"
            ))),
        }
    }

    /// Looks for settings that cannot hold together.
    ///
    /// # Errors
    /// [`Error::Config`] names the setting and what to change.
    pub fn check(&self) -> Result<(), Error> {
        match self.listen.is_empty() {
            true => Err(Error::Config("nothing to listen on: give at least one address".into())),
            false => self.check_but_addresses(),
        }
    }

    /// The same for a server that may have its listeners from elsewhere.
    pub(crate) fn check_but_addresses(&self) -> Result<(), Error> {
        let wrong = |what: &str| Err(Error::Config(what.into()));
        check_origins(&self.origins)?;
        if self.subprotocols.iter().any(|name| PROTOCOL_V1 == Some(name)) {
            return wrong("subprotocol pousse.v1 is built in: handlers do not speak it");
        }
        for name in &self.subprotocols {
            if name.is_empty() || !name.bytes().all(is_token_byte) {
                return wrong(&format!("subprotocol {name:?} is not a token of RFC 9110 §5.6.2"));
            }
        }
        if cfg!(not(feature = "files")) && self.root.is_some() {
            return wrong("this build serves no folders: it lacks the feature `files`");
        }
        if cfg!(not(feature = "deflate")) && self.deflate {
            return wrong("this build does not compress: it lacks the feature `deflate`");
        }
        for limit in LIMITS {
            if (limit.is_zero)(&self.limits) && !limit.zero_allowed {
                return wrong(&format!("limit {} cannot be 0", limit.name));
            }
            if !(limit.is_sane)(&self.limits) {
                return wrong(&format!("limit {} cannot be over 100 years", limit.name));
            }
        }
        if self.limits.max_clients > u32::MAX as usize {
            return wrong("limit max-clients is above 4294967295");
        }
        if self.limits.headers > FIELDS_MAX {
            return wrong(&format!("limit headers is above {FIELDS_MAX}"));
        }
        Ok(())
    }
}

/// Looks for origins that no page can have.
pub(crate) fn check_origins(origins: &[String]) -> Result<(), Error> {
    match origins.iter().find(|origin| !is_origin(origin)) {
        None => Ok(()),
        Some(origin) => Err(Error::Config(format!(
            "origin {origin:?} is not of the form https://HOST or http://HOST:PORT, without a \
             path (or null)"
        ))),
    }
}

/// Whether the control listener may be there: anyone who reaches it may do everything, unless
/// `is_asked` who it is.
///
/// A name is looked up. One that is not found passes: it cannot be listened on, which is told then.
fn control_is_safe(address: &Address, is_asked: bool) -> bool {
    match address {
        Address::Unix(_) => true,
        Address::Tcp { .. } if is_asked => true,
        Address::Tcp { host, .. } if host.is_empty() => false,
        Address::Tcp { host, port } => (host.as_str(), *port)
            .to_socket_addrs()
            .map_or(true, |mut found| found.all(|address| is_loopback(address.ip()))),
    }
}

/// Whether a byte may stand in a token (RFC 9110 §5.6.2): a method, a field name, a subprotocol.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_origin(text: &str) -> bool {
    match text.split_once("://") {
        None => text == "null",
        Some((scheme, host)) => {
            !scheme.is_empty()
                && !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@".contains(&byte))
        }
    }
}

/// The subprotocol of `session.rs`, in builds that speak it.
pub(crate) const PROTOCOL_V1: Option<&str> =
    if cfg!(feature = "v1") { Some("pousse.v1") } else { None };

/// Fields that a request head can have at all; the limit `headers` is at most this.
pub(crate) const FIELDS_MAX: usize = 128;

/// Who may publish over HTTP and in the daemon's text mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publish {
    /// Everyone who can connect, unless the handler refuses.
    Anyone,
    /// Only the program itself.
    Nobody,
}

impl FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "anyone" => Ok(Self::Anyone),
            "nobody" => Ok(Self::Nobody),
            _ => Err("is anyone or nobody".into()),
        }
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anyone => "anyone",
            Self::Nobody => "nobody",
        })
    }
}

/// Where to listen: `HOST:PORT`, `[V6]:PORT`, `:PORT` (every address), `unix:PATH`.
///
/// ```
/// use pousse::Address;
/// let address: Address = "[::1]:8080".parse().unwrap();
/// assert_eq!(address.to_string(), "[::1]:8080");
/// assert!("8080".parse::<Address>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP. An empty host means every address of the machine.
    Tcp {
        /// A name or an address, without brackets.
        host: String,
        /// 0: any free one.
        port: u16,
    },
    /// A unix socket, made with mode 0660 and removed at the end.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::Config(format!(
                "{text:?} is no address: give HOST:PORT, [V6]:PORT, :PORT or unix:PATH"
            ))
        };
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.is_empty() {
                true => Err(wrong()),
                false => Ok(Self::Unix(path.into())),
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let port = port.parse().map_err(|_| wrong())?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(v6) => v6.parse::<net::Ipv6Addr>().map_err(|_| wrong())?.to_string(),
            None if host.contains([':', '[', ']', '/', ' ']) => return Err(wrong()),
            None => host.to_owned(),
        };
        Ok(Self::Tcp { host, port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.parse::<net::Ipv6Addr>().is_ok() => {
                write!(f, "[{host}]:{port}")
            }
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whether only this machine can reach the address.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

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
    /// Clients of the control listener at a time. The next ones wait as well.
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
    /// How long bytes may wait for a client that takes none of them. Close code 1013.
    stall: time = s(10), limit "stall", zero false;
    /// How long the peer's system may leave bytes unacknowledged (`TCP_USER_TIMEOUT`, on Linux).
    /// Closed without a word.
    ack_timeout: time = s(30), limit "ack-timeout", zero false;

    /// Bytes read from one client in one turn.
    turn_read: bytes = 64 * KIB, limit "turn-read", zero false;
    /// Messages of one client handed to the handler in one turn.
    turn_messages: count = 1024, limit "turn-messages", zero false;
    /// Bytes written to one client in one turn.
    turn_write: bytes = 256 * KIB, limit "turn-write", zero false;
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

impl Limits {
    /// The most memory that clients and history can take, should every client be at every limit.
    ///
    /// A client is 512 bytes, and at most: an unfinished message, with up to twice its length
    /// reserved; what waits for it, which may pass `outbox_soft`, or 64 KiB should that be less, by
    /// one answer or 64 KiB from the log, or `outbox` by one message. All of them together hold at
    /// most `memory`, which what one client gets in one turn may pass.
    pub fn memory_bytes_max(&self) -> usize {
        let answer = self.poll_bytes.max(TAKE_BYTES).saturating_add(self.max_message);
        let waiting = self.outbox_soft.max(TAKE_BYTES).saturating_add(answer);
        let waiting = waiting.max(self.outbox.saturating_add(self.max_message));
        let client = [self.head_bytes, self.max_message.saturating_mul(2), self.turn_read, waiting];
        let client = client.into_iter().fold(0, usize::saturating_add);
        let all = self.max_clients.saturating_mul(client).min(self.memory.saturating_add(client));
        let slots = self.max_clients.saturating_add(self.control_clients).saturating_mul(512);
        all.saturating_add(slots).saturating_add(self.history_total)
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
    fn what_cannot_hold_is_refused_with_its_name() {
        let mut config = Config::default();
        config.check().unwrap();
        config.limits.ping = Duration::ZERO;
        assert_eq!(config.check().unwrap_err().to_string(), "limit ping cannot be 0");
        let config = Config { origins: vec!["example.org".into()], ..Config::default() };
        assert!(config.check().unwrap_err().to_string().contains("https://HOST"));
    }

    #[test]
    fn a_control_listener_is_for_this_machine_alone_unless_there_are_tokens() {
        for (address, safe) in [
            ("127.0.0.1:9090", true),
            ("127.8.8.8:9090", true),
            ("[::1]:9090", true),
            ("localhost:9090", true),
            ("unix:/run/p.sock", true),
            (":9090", false),
            ("0.0.0.0:9090", false),
            ("[::]:9090", false),
            ("192.0.2.1:9090", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(control_is_safe(&address, false), safe, "{address}");
            assert!(control_is_safe(&address, true), "{address}");
        }
    }

    #[test]
    fn the_largest_limits_have_a_sum() {
        let limits = Limits { max_message: usize::MAX, ..Limits::default() };
        assert!(limits.memory_bytes_max() > 0);
    }

    #[test]
    fn addresses_of_all_four_forms_and_nothing_else() {
        for text in ["127.0.0.1:0", "localhost:80", "[::1]:8080", ":8080", "unix:/run/p.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "8080", "::1:8080", "[::1", "host:", "host:+1", "host:70000", "unix:"] {
            assert!(text.parse::<Address>().is_err(), "{text:?}");
        }
    }
}
