//! What can be set from outside: one table, a line for each setting.
//!
//! A line says everything about a setting: its name, what it takes, whether it is a list, its
//! sentence in `--help`, and how a value gets into [`Settings`]. Where values come from is
//! `flags.rs`' business; what they mean, and whether they hold together, is `Config`'s.

use std::path::PathBuf;

use log::LevelFilter;
use pousse::{Config, LIMITS, Limit, Limits};

/// All that can be set from outside.
pub(crate) struct Settings {
    pub(crate) config: Config,
    /// Files of a certificate and of its key: both or neither.
    pub(crate) tls_cert: Option<String>,
    pub(crate) tls_key: Option<String>,
    /// `--publish token`, which to the library is anyone whom the program does not refuse.
    pub(crate) publish_token: bool,
    /// `--subscribe token`.
    pub(crate) subscribe_token: bool,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) log: LevelFilter,
    /// An address was given, so it is not the default that stands in `listen`.
    pub(crate) has_address: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            config: Config::default(),
            publish_token: false,
            subscribe_token: false,
            token_file: None,
            tls_cert: None,
            tls_key: None,
            log: LevelFilter::Info,
            has_address: false,
        }
    }
}

impl Settings {
    /// Looks for settings that cannot hold together.
    pub(crate) fn check(&self) -> Result<(), String> {
        let missing = match (&self.tls_cert, &self.tls_key) {
            (Some(_), None) => "tls-cert is given and tls-key is not",
            (None, Some(_)) => "tls-key is given and tls-cert is not",
            _ => "",
        };
        if !missing.is_empty() {
            return Err(format!("{missing}: TLS needs both, a certificate and its key"));
        }
        let needs_file = |flag| format!("{flag} token needs the tokens: give --token-file FILE");
        match self.token_file {
            None if self.publish_token => Err(needs_file("--publish")),
            None if self.subscribe_token => Err(needs_file("--subscribe")),
            _ => self.config.check().map_err(|error| error.to_string()),
        }
    }
}

/// One line of the table.
pub(crate) struct Setting {
    /// The headline above it in `--help`.
    pub(crate) group: Text,
    pub(crate) name: Text,
    /// What stands for its value in `--help`; empty if it takes none.
    pub(crate) value: Text,
    pub(crate) help: Text,
    /// A list: may be given again and again, and this empties it.
    pub(crate) clear: Option<fn(&mut Settings)>,
    pub(crate) set: Set,
}

/// How a value gets where it belongs.
#[derive(Clone, Copy)]
pub(crate) enum Set {
    /// The error goes on after the name of the setting.
    Own(fn(&mut Settings, &str) -> Result<(), String>),
    Limit(&'static Limit),
    /// Looked at by [`read`] itself.
    Nothing,
}

type Text = &'static str;

const SERVE: &str = "What is served, and to whom:";
const BOUNDS: &str = "Limits (N: a number; SIZE: 4096, 64KiB, 1MiB; TIME: 500ms, 25s, 10m, 1h):";
const PROGRAM: &str = "The program:";

const fn row(group: Text, name: Text, value: Text, help: Text, set: Set) -> Setting {
    Setting { group, name, value, help, clear: None, set }
}

/// Every setting, in the order of `--help`.
#[rustfmt::skip]
pub(crate) fn table() -> Vec<Setting> {
    let list = |setting: Setting, clear| Setting { clear: Some(clear), ..setting };
    let mut table = vec![
        list(row(SERVE, "listen", "ADDR",
            "Listen on HOST:PORT, [V6]:PORT, :PORT (every address) or unix:PATH. \
             Default: 127.0.0.1:8080.", Set::Own(listen)), |s| s.config.listen.clear()),
        row(SERVE, "control", "ADDR",
            "Listen here for the owner of the server, with metrics, health, topics and clients: \
             127.0.0.1:9090 or unix:PATH. Default: nowhere.", Set::Own(control)),
        row(SERVE, "root", "DIR",
            "Serve the files of this folder. Default: the built-in page.", Set::Own(root)),
        row(SERVE, "tls-cert", "FILE",
            "Speak TLS (https, wss) on every TCP address, with this certificate: PEM, those that \
             lead to a root behind it. Needs --tls-key.", Set::Own(tls_cert)),
        row(SERVE, "tls-key", "FILE", "The key of that certificate: PEM.", Set::Own(tls_key)),
        row(SERVE, "publish", "WHO",
            "Who may publish: anyone, token (whoever has a token) or nobody. Default: anyone if \
             every address is a loopback one and neither --host nor --trust-proxy is given, else \
             nobody.",
            Set::Own(publish)),
        row(SERVE, "subscribe", "WHO",
            "Who may read: anyone or token. Default: anyone.", Set::Own(subscribe)),
        row(SERVE, "token-file", "FILE",
            "Who has a token: one NAME TOKEN a line, # comments. Read again on HUP.",
            Set::Own(token_file)),
        list(row(SERVE, "origin", "URL",
            "Let pages of this origin connect, beside the server's own: https://example.org; \
             null for pages opened from files.", Set::Own(origin)), |s| s.config.origins.clear()),
        list(row(SERVE, "host", "NAME",
            "Answer to this name on a loopback address, for a reverse proxy in front.",
            Set::Own(host)), |s| s.config.hosts.clear()),
        list(row(SERVE, "deny", "CIDR",
            "Let nobody of this network connect: 192.0.2.0/24, 2001:db8::/32, or one address.",
            Set::Own(deny)), |s| s.config.deny.clear()),
        list(row(SERVE, "trust-proxy", "CIDR",
            "Believe reverse proxies of this network for whom they forward, in X-Forwarded-For or \
             Forwarded; --max-per-ip and --deny then hold for these. Proxies that come \
             through a unix socket are believed too.",
            Set::Own(trust_proxy)), |s| s.config.trusted_proxies.clear()),
        row(SERVE, "deflate", "on|off", DEFLATE, Set::Own(deflate)),
    ];
    table.extend(LIMITS.iter().filter(|limit| limit.has_flag).map(|limit| {
        row(BOUNDS, limit.name, unit(limit), limit.meaning, Set::Limit(limit))
    }));
    table.extend([
        list(row(BOUNDS, "limit", "NAME=VALUE",
            "Set any other limit; --limit help lists them.", Set::Own(limit)), forget_limits),
        row(PROGRAM, "log", "LEVEL",
            "How much to log: error, warn, info or debug. Default: info.", Set::Own(log)),
        row(PROGRAM, "config", "FILE", "Read settings from this file.", Set::Nothing),
        row(PROGRAM, "check", "", "Say what would be served, and end.", Set::Nothing),
        row(PROGRAM, "help", "", "Print this text.", Set::Nothing),
        row(PROGRAM, "version", "", "Print the version.", Set::Nothing),
    ]);
    table
}

const DEFLATE: &str = match cfg!(feature = "deflate") {
    true => {
        "Compress messages of 1 KiB and more for WebSockets that offer it (permessage-deflate), \
         and take compressed ones from them. Default: on."
    }
    false => "This build cannot compress; off.",
};

fn listen(settings: &mut Settings, text: &str) -> Result<(), String> {
    let wrong = |_| not("is HOST:PORT, [V6]:PORT, :PORT or unix:PATH", text);
    settings.config.listen.push(text.parse().map_err(wrong)?);
    settings.has_address = true;
    Ok(())
}

fn control(settings: &mut Settings, text: &str) -> Result<(), String> {
    let wrong = |_| not("is HOST:PORT, [V6]:PORT or unix:PATH", text);
    text.parse().map(|address| settings.config.control = Some(address)).map_err(wrong)
}

fn root(settings: &mut Settings, text: &str) -> Result<(), String> {
    settings.config.root = Some(text.into());
    Ok(())
}

fn tls_cert(settings: &mut Settings, text: &str) -> Result<(), String> {
    settings.tls_cert = Some(text.into());
    Ok(())
}

fn tls_key(settings: &mut Settings, text: &str) -> Result<(), String> {
    settings.tls_key = Some(text.into());
    Ok(())
}

fn publish(settings: &mut Settings, text: &str) -> Result<(), String> {
    settings.publish_token = text == "token";
    let who = if settings.publish_token { "anyone" } else { text };
    let who = who.parse().map_err(|_| not("is anyone, token or nobody", text))?;
    settings.config.publish = Some(who);
    Ok(())
}

fn subscribe(settings: &mut Settings, text: &str) -> Result<(), String> {
    settings.subscribe_token = text == "token";
    match text {
        "anyone" | "token" => Ok(()),
        _ => Err(not("is anyone or token", text)),
    }
}

fn token_file(settings: &mut Settings, text: &str) -> Result<(), String> {
    settings.token_file = Some(text.into());
    Ok(())
}

fn origin(settings: &mut Settings, text: &str) -> Result<(), String> {
    let mut alone = Config::default();
    alone.origins.push(text.into());
    let form = "is https://HOST, https://HOST:PORT or null";
    alone.check().map_err(|_| not(form, text))?;
    settings.config.origins.push(text.into());
    Ok(())
}

fn host(settings: &mut Settings, text: &str) -> Result<(), String> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_name) {
        return Err(not("is a name such as chat.example.org, without https:// and port", text));
    }
    settings.config.hosts.push(text.into());
    Ok(())
}

fn deny(settings: &mut Settings, text: &str) -> Result<(), String> {
    settings.config.deny.push(text.parse().map_err(|form: String| not(&form, text))?);
    Ok(())
}

fn trust_proxy(settings: &mut Settings, text: &str) -> Result<(), String> {
    settings.config.trusted_proxies.push(text.parse().map_err(|form: String| not(&form, text))?);
    Ok(())
}

fn deflate(settings: &mut Settings, text: &str) -> Result<(), String> {
    settings.config.deflate = match text {
        "on" if cfg!(not(feature = "deflate")) => {
            return Err("cannot be on: this build lacks the feature `deflate`".into());
        }
        "on" => true,
        "off" => false,
        _ => return Err(not("is on or off", text)),
    };
    Ok(())
}

fn log(settings: &mut Settings, text: &str) -> Result<(), String> {
    let form = "is error, warn, info or debug";
    let level = Some(text).filter(|level| ["error", "warn", "info", "debug"].contains(level));
    settings.log = level.and_then(|level| level.parse().ok()).ok_or_else(|| not(form, text))?;
    Ok(())
}

fn limit(settings: &mut Settings, text: &str) -> Result<(), String> {
    let (name, value) = text
        .split_once('=')
        .map(|(name, value)| (name.trim(), value.trim()))
        .ok_or_else(|| not("is NAME=VALUE (--limit help lists the names)", text))?;
    match Limits::find(name) {
        Some(limit) if limit.has_flag => {
            Err(format!("{name} has a setting of its own: use --{name} {}", value.escape_debug()))
        }
        Some(limit) => (limit.set)(&mut settings.config.limits, value)
            .map_err(|form| format!("{name} {}", not(&form, value))),
        None => Err(match nearest(name, LIMITS.iter().map(|limit| limit.name)) {
            Some(near) => format!("has no {name:?}; did you mean {near}?"),
            None => format!("has no {name:?}; --limit help lists the names"),
        }),
    }
}

/// A list that is given replaces the weaker one, here too.
fn forget_limits(settings: &mut Settings) {
    let default = Limits::default();
    for limit in LIMITS.iter().filter(|limit| !limit.has_flag) {
        // A default is shown in a form that is accepted: `limits.rs` tests that.
        let _ = (limit.set)(&mut settings.config.limits, &(limit.show)(&default));
    }
}

pub(crate) fn not(form: &str, given: &str) -> String {
    format!("{form}, not {given:?}")
}

/// What a limit is written in, seen from how its default is written.
fn unit(limit: &Limit) -> Text {
    match (limit.show)(&Limits::default()).chars().last() {
        Some('B') => "SIZE",
        Some('s' | 'm' | 'h') => "TIME",
        _ => "N",
    }
}

/// The name that was probably meant.
pub(crate) fn nearest<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (if name.starts_with(given) { 0 } else { distance(given, name) }, name))
        .filter(|(distance, name)| *distance <= 2.max(name.len() / 3))
        .min()
        .map(|(_, name)| name)
}

/// How many letters to insert, delete or replace on the way from one to the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (deleted, letter) in from.bytes().enumerate() {
        let (mut above_left, mut left) = (deleted, deleted + 1);
        for (cell, other) in row.iter_mut().skip(1).zip(to.bytes()) {
            let replaced = above_left + usize::from(letter != other);
            above_left = *cell;
            left = replaced.min(left + 1).min(above_left + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(0)
}
