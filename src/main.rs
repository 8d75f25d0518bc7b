//! The daemon: settings, descriptors, signals and the log around the library's server.
//!
//! Everything that serves is in the library; what is here could be written by any embedder. The
//! signals come through the same readiness loop as the sockets, so there is no second thread and
//! nothing to lock. What is done with them and with clients is in `daemon.rs`; if there is a
//! service manager, `systemd.rs` speaks to it.

#![forbid(unsafe_code)]

mod bearer;
mod daemon;
mod flags;
mod logger;
mod refusal;
mod reload;
mod settings;
mod systemd;
mod tokens;
mod words;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::rc::Rc;

use pousse::{Limits, Publish, Server, Tls};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook_mio::v1_0::Signals;

use crate::bearer::Bearers;
use crate::daemon::{Daemon, HEARTBEAT, SIGNALS};
use crate::flags::Task;
use crate::refusal::{INTERNAL, Refusal};
use crate::reload::{Sources, load};
use crate::settings::Settings;
use crate::tokens::{Names, Tokens, warn_if_public};

const VERSION: &str = env!("CARGO_PKG_VERSION");

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
    limits.memory = limits.memory.min(memory_bytes() / 4);

    let text =
        match flags::read(std::env::args_os().skip(1), |name| std::env::var_os(name), &limits)? {
            Task::Run(settings) => {
                fits(&settings, descriptors, room)?;
                return serve(settings, limits);
            }
            Task::Check(settings) => {
                fits(&settings, descriptors, room)?;
                words::looks_good(&settings)?;
                words::summary(&settings)
            }
            Task::Version => format!("pousse {VERSION}\n"),
            Task::Help => words::help(&settings::table(), &limits),
            Task::LimitHelp => words::limit_help(),
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

/// The memory of this machine, as far as it can be told.
fn memory_bytes() -> usize {
    #[cfg(target_os = "linux")]
    {
        let info = rustix::system::sysinfo();
        let units = usize::try_from(info.totalram).unwrap_or(usize::MAX);
        units.saturating_mul(usize::try_from(info.mem_unit).unwrap_or(1))
    }
    #[cfg(not(target_os = "linux"))]
    usize::MAX
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

/// `defaults` are the limits where no setting says otherwise.
fn serve(mut settings: Settings, defaults: Limits) -> Result<ExitCode, Refusal> {
    let signals = Signals::new([SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGHUP])
        .map_err(|error| Refusal::internal("signals cannot be received", &error))?;
    // Shared because two need it: this function to hand it to the loop, the handler to read it.
    let signals = Rc::new(RefCell::new(signals));
    let certificate = settings.tls_cert.clone().zip(settings.tls_key.clone());
    settings.config.tls = load(certificate.as_ref())?;
    let not_after = settings.config.tls.as_ref().and_then(Tls::not_after);
    let certificate_until = settings.tls_cert.clone().zip(not_after);
    let mib = words::memory_bytes_max(&settings.config.limits, certificate.is_some()) >> 20;
    let root = settings.config.root.clone();
    let tokens = settings.token_file.as_deref().map(Tokens::load).transpose();
    let names = tokens.map_err(Refusal::config)?.map(Names::new);
    let is_public = names.as_ref().is_some_and(Names::is_public);
    let (by_token, reads_by_token) = (settings.publish_token, settings.subscribe_token);
    let daemon = Daemon {
        signals: Rc::clone(&signals),
        is_draining: false,
        bearers: Bearers { publish: by_token, subscribe: reads_by_token, names },
        sources: Sources {
            token_file: settings.token_file.clone(),
            certificate,
            defaults,
            summary: words::summary(&settings),
        },
        drain: settings.config.limits.drain,
        heartbeat: systemd::heartbeat(),
    };
    let max_clients = settings.config.limits.max_clients;
    let inherited = systemd::sockets()?;
    if !inherited.is_empty() && !settings.has_address {
        settings.config.listen.clear();
    }
    let mut server = Server::bind_with(settings.config, inherited, daemon)?;
    server
        .watch(&mut *signals.borrow_mut(), SIGNALS)
        .map_err(|error| Refusal::internal("signals cannot be watched", &error))?;

    say_addresses(&server);
    // From here on nothing but the logger writes to standard error.
    logger::install(settings.log);
    say_rules(
        server.publishing(),
        by_token,
        settings.token_file.is_some().then_some(reads_by_token),
    );
    warn_if_public(is_public);
    if let Some((file, until)) = certificate_until {
        log::info!("event=tls certificate={file:?} not-after={}", logger::Utc(until));
    }
    log::info!(
        "event=limits max-clients={max_clients} memory-at-worst={mib}MiB hint=\"{}\"",
        "were every client at every limit; docs/limits.md says how it adds up"
    );

    if let Some(url) = server.control_address() {
        log::info!("event=control url={url} hint=\"metrics, health, topics and clients\"");
    }
    words::advise(&server.addresses(), root.as_deref());
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

/// The first lines, whatever is logged.
fn say_addresses(server: &Server<Daemon>) {
    let mut lines = String::new();
    for address in server.addresses() {
        let _ = writeln!(lines, "pousse {VERSION} listening on {address}");
    }
    // The control listener comes last.
    if let Some(address) = server.control_address() {
        let _ = writeln!(lines, "pousse {VERSION} listening on {address}");
    }
    let _ = io::stderr().write_all(lines.as_bytes());
}

/// Who may do what, and how to change it. `reads_by_token`: there are tokens.
fn say_rules(publish: Publish, by_token: bool, reads_by_token: Option<bool>) {
    let (rule, hint) = match publish {
        Publish::Anyone if by_token => ("token", "who has a token can publish; see --token-file"),
        Publish::Anyone => ("anyone", "who can connect can publish; --publish nobody forbids it"),
        Publish::Nobody => ("nobody", "to let everyone publish who can connect: --publish anyone"),
    };
    log::info!("event=publish rule={rule} hint={hint:?}");
    if let Some(by_token) = reads_by_token {
        log::info!("event=subscribe rule={}", if by_token { "token" } else { "anyone" });
    }
}
