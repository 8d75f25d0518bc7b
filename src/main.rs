//! The daemon: settings, descriptors, signals and the log around the library's server.
//!
//! Everything that serves is in the library; what is here could be written by any embedder. The
//! signals come through the same readiness loop as the sockets, so there is no second thread and
//! nothing to lock. In text mode what a client sends is published to the topic it reads. If there
//! is a service manager, `systemd.rs` speaks to it.

#![forbid(unsafe_code)]

mod flags;
mod logger;
mod systemd;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::ToSocketAddrs;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use pousse::{
    Address, CloseCode, ConnId, Context, Error, Handler, LIMITS, Limits, Message, Publish, Server,
    Tls,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::low_level::signal_name;
use signal_hook_mio::v1_0::Signals;

use crate::flags::{Set, Setting, Settings, Task};

// Exit codes, those of `sysexits.h`.
/// The command line is wrong.
const USAGE: u8 = 64;
/// An address cannot be listened on.
const UNAVAILABLE: u8 = 69;
/// Something failed that no setting can mend.
const INTERNAL: u8 = 70;
/// The file, the environment, or what a setting names is wrong.
const CONFIG: u8 = 78;

/// Why the program ends before it serves.
#[derive(Debug)]
struct Refusal {
    /// The exit code.
    code: u8,
    /// Which setting, what was given, what is wanted.
    sentence: String,
}

impl Refusal {
    fn usage(sentence: String) -> Self {
        Self { code: USAGE, sentence }
    }

    fn config(sentence: String) -> Self {
        Self { code: CONFIG, sentence }
    }

    fn internal(what: &str, error: &io::Error) -> Self {
        Self { code: INTERNAL, sentence: format!("{what}: {error}") }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::Bind { .. } => UNAVAILABLE,
            Error::Config(_) | Error::Root { .. } | Error::Tls(_) => CONFIG,
            _ => INTERNAL,
        };
        Self { code, sentence: error.to_string() }
    }
}

fn main() -> ExitCode {
    start().unwrap_or_else(|Refusal { code, sentence }| {
        // `eprintln!` would panic if nobody reads any more.
        let _ = writeln!(io::stderr(), "pousse: {sentence}");
        ExitCode::from(code)
    })
}

fn start() -> Result<ExitCode, Refusal> {
    let descriptors = raise_descriptors();
    let room = descriptors.saturating_sub(DESCRIPTORS_KEPT);
    let mut limits = Limits::default();
    limits.max_clients = limits.max_clients.min(room).max(1);

    let text =
        match flags::read(std::env::args_os().skip(1), |name| std::env::var_os(name), &limits)? {
            Task::Run(settings) => {
                fits(&settings, descriptors, room)?;
                return serve(settings);
            }
            Task::Check(settings) => {
                fits(&settings, descriptors, room)?;
                summary(&settings)?
            }
            Task::Version => format!("pousse {VERSION}\n"),
            Task::Help => help(&flags::table(), &limits),
            Task::LimitHelp => limit_help(),
        };
    // Whoever has read enough (`--help | head`) may close the pipe.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}

/// Lets the process open as many descriptors as it may; how many that are.
fn raise_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // macOS refuses its own "no limit" here; then what was allowed before stays.
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    current.map_or(usize::MAX, |number| usize::try_from(number).unwrap_or(usize::MAX))
}

/// Descriptors for everything that is not a client: listeners, the readiness queue, files, the log.
const DESCRIPTORS_KEPT: usize = 64;

fn fits(settings: &Settings, descriptors: usize, room: usize) -> Result<(), Refusal> {
    let clients = settings.config.limits.max_clients;
    if clients <= room {
        return Ok(());
    }
    if room == 0 {
        return Err(Refusal::config(format!(
            "this process may open {descriptors} descriptors, of which {DESCRIPTORS_KEPT} are kept \
             back: none is left for clients; allow more (ulimit -n, LimitNOFILE=)"
        )));
    }
    Err(Refusal::config(format!(
        "max-clients is {clients}, but of the {descriptors} descriptors that this process may \
         open {DESCRIPTORS_KEPT} are kept back, which leaves {room} clients: allow more \
         (ulimit -n, LimitNOFILE=) or lower max-clients"
    )))
}

fn serve(mut settings: Settings) -> Result<ExitCode, Refusal> {
    let signals = Signals::new([SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGHUP])
        .map_err(|error| Refusal::internal("signals cannot be received", &error))?;
    // Shared because two need it: this function to hand it to the loop, the handler to read it.
    let signals = Rc::new(RefCell::new(signals));
    let certificate = settings.tls_cert.clone().zip(settings.tls_key.clone());
    settings.config.tls = load(certificate.as_ref())?;
    let tls_bytes = settings.config.tls.as_ref().map_or(0, |_| Tls::CLIENT_BYTES_MAX);
    let limits = settings.config.limits.clone();
    let root = settings.config.root.clone();
    let daemon = Daemon {
        signals: Rc::clone(&signals),
        is_draining: false,
        drain: limits.drain,
        heartbeat: systemd::heartbeat(),
        certificate,
    };
    let inherited = systemd::sockets()?;
    if !inherited.is_empty() && !settings.has_address {
        settings.config.listen.clear();
    }
    let mut server = Server::bind_with(settings.config, inherited, daemon)?;
    server
        .watch(&mut *signals.borrow_mut(), SIGNALS)
        .map_err(|error| Refusal::internal("signals cannot be watched", &error))?;

    let mut lines = String::new();
    for address in server.addresses() {
        let _ = writeln!(lines, "pousse {VERSION} listening on {address}");
    }
    let _ = io::stderr().write_all(lines.as_bytes());
    // From here on nothing but the logger writes to standard error.
    logger::install(settings.log);
    let (rule, hint) = match server.publishing() {
        Publish::Anyone => ("anyone", "who can connect can publish; --publish nobody forbids it"),
        Publish::Nobody => ("nobody", "to let everyone publish who can connect: --publish anyone"),
    };
    log::info!("event=publish rule={rule} hint={hint:?}");
    let tls_bytes = limits.max_clients.saturating_mul(tls_bytes);
    let mib = limits.memory_bytes_max().saturating_add(tls_bytes) >> 20;
    log::info!(
        "event=limits max-clients={} memory-at-worst={mib}MiB hint=\"{}\"",
        limits.max_clients,
        "were every client at every limit; docs/limits.md says how it adds up"
    );

    advise(&server.addresses(), root.as_deref());

    if let Some(pause) = systemd::heartbeat() {
        server.context().wake_after(pause, HEARTBEAT);
    }
    systemd::ready(&format!("listening on {}", server.addresses().join(", ")));
    let code = match server.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("event=failed error={:?}", error.to_string());
            ExitCode::from(INTERNAL)
        }
    };
    log::logger().flush();
    Ok(code)
}

/// What somebody who starts it for the first time may wonder about.
fn advise(addresses: &[String], root: Option<&Path>) {
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

/// What `/` is in a folder that is served.
const INDEX: &str = "index.html";

/// The token of the wakes in which the service manager is told that the loop goes round.
const HEARTBEAT: u64 = 0;

/// The files of a certificate and of its key, read.
fn load(files: Option<&(String, String)>) -> Result<Option<Tls>, Error> {
    files.map(|(certificate, key)| Tls::load(certificate, key)).transpose()
}

/// The token of the signals' pipe.
const SIGNALS: u16 = 0;

struct Daemon {
    signals: Rc<RefCell<Signals>>,
    is_draining: bool,
    /// The limit of that name.
    drain: Duration,
    heartbeat: Option<Duration>,
    /// The files of the certificate and of its key.
    certificate: Option<(String, String)>,
}

impl Daemon {
    /// Reads again what may change while it serves. What cannot be used any more leaves in force
    /// what was read before.
    fn reload(&self, ctx: &mut Context<'_>) {
        match load(self.certificate.as_ref()) {
            Ok(Some(tls)) => {
                let until = tls.not_after().unwrap_or(0);
                ctx.set_tls(tls);
                log::info!("event=reload what=certificate not-after={until}");
            }
            Ok(None) => log::info!(
                "event=reload hint=\"only --tls-cert and --tls-key are read again; other settings \
                 change with a restart\""
            ),
            Err(error) => {
                log::error!("event=reload_failed what=certificate error={:?}", error.to_string());
            }
        }
    }
}

impl Handler for Daemon {
    fn on_message(&mut self, conn: ConnId, message: Message<'_>, ctx: &mut Context<'_>) {
        if !ctx.may_publish() {
            ctx.close(conn, CloseCode::Policy, "publishing is not allowed here; see --publish");
            return;
        }
        let Some(topic) = ctx.topic(conn) else { return };
        // Length and topic were looked at before, so what is left passes: no room right now.
        if let Err(error) = ctx.publish(&topic, message) {
            ctx.close(conn, CloseCode::Again, &error.to_string());
        }
    }

    fn on_ready(&mut self, token: usize, ctx: &mut Context<'_>) {
        debug_assert_eq!(token, usize::from(SIGNALS), "nothing else is watched");
        for signal in self.signals.borrow_mut().pending() {
            log::info!("event=signal name={}", signal_name(signal).unwrap_or("?"));
            match signal {
                SIGTERM | SIGINT if self.is_draining => ctx.stop(),
                SIGTERM | SIGINT | SIGUSR2 if !self.is_draining => {
                    self.is_draining = true;
                    systemd::stopping(self.drain);
                    ctx.drain(if signal == SIGUSR2 { CloseCode::Restart } else { CloseCode::Away });
                }
                SIGUSR1 => log::info!("event=counters {}", ctx.counters()),
                SIGHUP => {
                    systemd::reloading();
                    self.reload(ctx);
                    systemd::ready("serving, after a reload");
                }
                _ => {}
            }
        }
    }

    fn on_wake(&mut self, token: u64, ctx: &mut Context<'_>) {
        debug_assert_eq!(token, HEARTBEAT, "nothing else is asked for");
        // Lines that were suppressed are told of even if no other follows.
        log::logger().flush();
        systemd::alive();
        if let Some(pause) = self.heartbeat {
            ctx.wake_after(pause, HEARTBEAT);
        }
    }
}

/// What `--check` prints.
fn summary(settings: &Settings) -> Result<String, Refusal> {
    let Settings { config, tls_cert, tls_key, log, .. } = settings;
    if let Some(path) = &config.root {
        std::fs::read_dir(path).map_err(|source| Error::Root { path: path.clone(), source })?;
    }
    let files = tls_cert.clone().zip(tls_key.clone());
    load(files.as_ref())?;
    config.listen.iter().try_for_each(can_be)?;
    let mut text = format!("pousse {VERSION} would start with these settings:\n");
    let mut say = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "  {name:<16} {value}");
    };
    for address in &config.listen {
        say("listen", address);
    }
    match &config.root {
        Some(path) if path.join(INDEX).is_file() => say("root", &path.display()),
        Some(path) => {
            say("root", &format_args!("{} (without {INDEX}: / is a 404)", path.display()))
        }
        None => say("root", &"(the built-in page)"),
    }
    if let Some((certificate, key)) = &files {
        say("tls-cert", certificate);
        say("tls-key", key);
    }
    match config.publish {
        Some(publish) => say("publish", &publish),
        None => say(
            "publish",
            &"(anyone if every address is a loopback one and neither host nor trust-proxy is \
               given, else nobody)",
        ),
    }
    config.origins.iter().for_each(|origin| say("origin", origin));
    config.hosts.iter().for_each(|host| say("host", host));
    config.deny.iter().for_each(|network| say("deny", network));
    config.trusted_proxies.iter().for_each(|network| say("trust-proxy", network));
    let default = Limits::default();
    for limit in LIMITS {
        let value = (limit.show)(&config.limits);
        if limit.name == "max-clients" || value != (limit.show)(&default) {
            say(limit.name, &value);
        }
    }
    say("log", &log.as_str().to_ascii_lowercase());
    let mib = config.limits.memory_bytes_max() >> 20;
    say("memory", &format_args!("{mib}MiB were every client at every limit"));
    Ok(text)
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

fn help(table: &[Setting], limits: &Limits) -> String {
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

fn limit_help() -> String {
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

const VERSION: &str = env!("CARGO_PKG_VERSION");

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
  curl -d Bonjour http://127.0.0.1:8080/api/messages   publish
  curl 'http://127.0.0.1:8080/api/messages?after=now&wait=30'      wait for what comes
  curl -N -H 'Accept: text/event-stream' http://127.0.0.1:8080/api/messages     and go on

Signals:
  TERM, INT   close every client with 1001 and end when they have gone; again: end at once
  USR2        the same with 1012, which tells clients that a restart follows
  USR1        log the counters (at level info)
  HUP         read the certificate and its key again; whoever is connected stays connected

Exit codes: 0 ended as asked, 64 wrong flag, 69 cannot listen, 70 internal failure,
78 wrong configuration (file, environment, folder, certificate, more clients than descriptors)
";
