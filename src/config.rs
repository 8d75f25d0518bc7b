//! Every setting, and which of them cannot hold together.
//!
//! [`Config`] is what an embedder fills in and what the daemon's flags fill in. The numbers are in
//! `limits.rs`.

use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::str::FromStr;
use std::{fmt, net};

use crate::error::Error;
use crate::limits::Limits;
use crate::network::{Network, is_loopback};
use crate::origin;
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
        self.limits.check().map_err(Error::Config)
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
        Some((scheme, host)) => !scheme.is_empty() && origin::is_authority(host),
    }
}

/// The subprotocol of `session.rs`, in builds that speak it.
pub(crate) const PROTOCOL_V1: Option<&str> =
    if cfg!(feature = "v1") { Some("pousse.v1") } else { None };

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_hold_is_refused_with_its_name() {
        let mut config = Config::default();
        config.check().unwrap();
        config.limits.ping = std::time::Duration::ZERO;
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
    fn addresses_of_all_four_forms_and_nothing_else() {
        for text in ["127.0.0.1:0", "localhost:80", "[::1]:8080", ":8080", "unix:/run/p.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "8080", "::1:8080", "[::1", "host:", "host:+1", "host:70000", "unix:"] {
            assert!(text.parse::<Address>().is_err(), "{text:?}");
        }
    }
}
