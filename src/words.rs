//! What the program says of itself: `--help`, `--limit help`, and with `--check` its settings.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

use pousse::{Address, Config, Error, LIMITS, Limits, Tls};

use crate::VERSION;
use crate::refusal::Refusal;
use crate::reload::load;
use crate::settings::{Set, Setting, Settings};
use crate::tokens::Tokens;

/// Looks at all that can be looked at without listening.
///
/// # Errors
/// The first thing that would keep the program from serving.
pub(crate) fn looks_good(settings: &Settings) -> Result<(), Refusal> {
    let Settings { config, tls_cert, tls_key, .. } = settings;
    if let Some(path) = &config.root {
        std::fs::read_dir(path).map_err(|source| Error::Root { path: path.clone(), source })?;
    }
    load(tls_cert.clone().zip(tls_key.clone()).as_ref())?;
    config.check_control()?;
    config.listen.iter().chain(&config.control).try_for_each(can_be)?;
    match settings.token_file.as_deref().map(Tokens::load) {
        Some(Err(error)) => Err(Refusal::config(error)),
        _ => Ok(()),
    }
}

/// What `--check` prints.
pub(crate) fn summary(settings: &Settings) -> String {
    let Settings { config, tls_cert, tls_key, log, .. } = settings;
    let files = tls_cert.as_ref().zip(tls_key.as_ref());
    let mut text = format!("pousse {VERSION} would start with these settings:\n");
    let mut say = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "  {name:<16} {value}");
    };
    for address in &config.listen {
        say("listen", address);
    }
    if let Some(address) = &config.control {
        say("control", address);
    }
    match &config.root {
        Some(path) => {
            say("root", &path.display());
            if !path.join(INDEX).is_file() {
                say("note", &format_args!("there is no {INDEX} in the root: / is a 404"));
            }
        }
        None => say("root", &"(the built-in page)"),
    }
    if let Some((certificate, key)) = &files {
        say("tls-cert", certificate);
        say("tls-key", key);
    }
    match config.publish {
        Some(_) if settings.publish_token => say("publish", &"token"),
        Some(publish) => say("publish", &publish),
        None if is_for_this_machine(config) => {
            say("publish", &"anyone (as only this machine can connect)");
        }
        None => say(
            "publish",
            &"nobody (as not every address is a loopback one, or host or trust-proxy is given)",
        ),
    }
    if let Some(path) = &settings.token_file {
        say("subscribe", &if settings.subscribe_token { "token" } else { "anyone" });
        say("token-file", &path.display());
    }
    config.origins.iter().for_each(|origin| say("origin", origin));
    config.hosts.iter().for_each(|host| say("host", host));
    config.deny.iter().for_each(|network| say("deny", network));
    config.trusted_proxies.iter().for_each(|network| say("trust-proxy", network));
    say("deflate", if config.deflate { &"on" } else { &"off" });
    let default = Limits::default();
    for limit in LIMITS {
        let value = (limit.show)(&config.limits);
        if limit.name == "max-clients" || value != (limit.show)(&default) {
            say(limit.name, &value);
        }
    }
    say("log", &log.as_str().to_ascii_lowercase());
    let mib = memory_bytes_max(&config.limits, tls_cert.is_some()) >> 20;
    say("memory-at-worst", &format_args!("{mib}MiB were every client at every limit"));
    text
}

/// What the limits allow to be held, with TLS or without.
pub(crate) fn memory_bytes_max(limits: &Limits, has_tls: bool) -> usize {
    let client = if has_tls { Tls::CLIENT_BYTES_MAX } else { 0 };
    limits.memory_bytes_max().saturating_add(limits.max_clients.saturating_mul(client))
}

/// Whether nobody else can connect, as the server will judge it by the sockets.
fn is_for_this_machine(config: &Config) -> bool {
    let is_loopback = |address: &Address| match address {
        Address::Tcp { host, .. } => {
            let ip = host.parse::<IpAddr>();
            host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
        }
        Address::Unix(_) => false,
    };
    let is_behind_proxy = !config.hosts.is_empty() || !config.trusted_proxies.is_empty();
    !is_behind_proxy && config.listen.iter().all(is_loopback)
}

/// Whether an address can be one to listen on, as far as can be told without doing so.
fn can_be(address: &Address) -> Result<(), Error> {
    let found = match address {
        Address::Tcp { host, .. } if host.is_empty() => Ok(()),
        Address::Tcp { host, port } => {
            (host.as_str(), *port).to_socket_addrs().and_then(|mut addresses| {
                addresses.next().map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
            })
        }
        Address::Unix(path) => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            std::fs::read_dir(folder.unwrap_or(Path::new("."))).map(drop)
        }
    };
    found.map_err(|source| Error::Bind { address: address.to_string(), source })
}

/// What `/` is in a folder that is served.
const INDEX: &str = "index.html";

/// Logs what somebody who starts it for the first time may wonder about.
pub(crate) fn advise(addresses: &[String], root: Option<&Path>) {
    for address in addresses {
        let Some((scheme, rest)) = address.split_once("://") else { continue };
        // Every address of the machine is none that a browser opens.
        let port = ["[::]:", "0.0.0.0:"].iter().find_map(|every| rest.strip_prefix(every));
        if let Some(port) = port {
            log::info!(
                "event=open url={scheme}://localhost:{port} hint=\"{}\"",
                "from another machine: this one's name or address in place of localhost"
            );
        }
    }
    if let Some(root) = root.filter(|root| !root.join(INDEX).is_file()) {
        log::warn!("event=no_index root={root:?} hint=\"there is no {INDEX} in it: / is a 404\"");
    }
}

pub(crate) fn help(table: &[Setting], limits: &Limits) -> String {
    let mut text = format!("pousse {VERSION}: pushes messages to browsers.\n{USE}");
    let mut group = "";
    for setting in table {
        if group != setting.group {
            group = setting.group;
            let _ = writeln!(text, "\n{group}");
        }
        let mut help = setting.help.trim().to_owned();
        if let Set::Limit(limit) = setting.set {
            let _ = write!(help, " Default: {}.", (limit.show)(limits));
        }
        if setting.clear.is_some() {
            help.push_str(" Repeatable.");
        }
        let flag = format!("  --{} {}", setting.name, setting.value);
        entry(&mut text, &flag, 24, &help);
    }
    text + NOTES
}

pub(crate) fn limit_help() -> String {
    let mut text = String::from("--limit NAME=VALUE sets, beside the flags of --help:\n\n");
    let limits = Limits::default();
    for limit in LIMITS.iter().filter(|limit| !limit.has_flag) {
        let name = format!("  {}={}", limit.name, (limit.show)(&limits));
        entry(&mut text, &name, 26, limit.meaning);
    }
    text
}

/// A word, and beside it from `column` on a text, in lines of at most 96 columns.
fn entry(out: &mut String, word: &str, column: usize, text: &str) {
    let mut line = format!("{word:column$}");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > 96 {
            let _ = writeln!(out, "{}", line.trim_end());
            line = " ".repeat(column);
        }
        if !line.ends_with(' ') {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
}

const USE: &str = "
Polling, long polling, event stream and WebSocket, all on one log of messages.
Without any flag it serves a page to try them on http://127.0.0.1:8080.

Usage: pousse [FLAG]...
";

const NOTES: &str = "
A setting is also read from the environment (POUSSE_MAX_CLIENTS=100) and from the file (a line
max-clients = 100; # begins a comment), lists with commas between the values. Flags win over the
environment, the environment over the file; a list replaces the weaker one whole.

Examples:
  pousse                                    a page, a chat and the API, for this machine
  pousse --root site --origin null          your own page, or one opened from a file
  pousse --listen :8080 --publish anyone    a chat for the whole network
  pousse --listen :443 --tls-cert fullchain.pem --tls-key privkey.pem    https and wss
  pousse --host chat.example.org --publish anyone      behind a proxy that sends this Host
  pousse --listen :8080 --publish token --token-file tokens     who has a token may publish
  curl -d Bonjour http://127.0.0.1:8080/api/messages   publish
  curl 'http://127.0.0.1:8080/api/messages?after=now&wait=30'      wait for what comes
  curl -N -H 'Accept: text/event-stream' http://127.0.0.1:8080/api/messages     and go on

Signals:
  TERM, INT   close every client with 1001 and end when they have gone; again: end at once
  USR2        the same with 1012, which tells clients that a restart follows
  USR1        log the counters (at level info), and how often each name of the token file came
  HUP         read the certificate, the token file and the origins again; whoever is connected stays

Exit codes: 0 ended as asked, 64 wrong flag, 69 cannot listen, 70 internal failure,
78 wrong configuration (file, environment, folder, certificate, token file, more clients than
descriptors)
";
