//! What HUP reads again while clients are connected: the certificate and its key, the tokens, and
//! of the settings the origins.
//!
//! Each is read and looked at whole before anything is changed by it; what is wrong is told in the
//! log and changes nothing. Whoever is connected stays. All other settings need a restart, and the
//! log says which of them have changed.

use std::env;
use std::path::PathBuf;

use pousse::{Context, Error, Limits, Tls};

use crate::bearer::Bearers;
use crate::flags::{self, Task};
use crate::logger::Utc;
use crate::systemd;
use crate::tokens::{Tokens, warn_if_public};
use crate::words;

/// Where all of it comes from.
pub(crate) struct Sources {
    pub(crate) token_file: Option<PathBuf>,
    /// The files of the certificate and of its key.
    pub(crate) certificate: Option<(String, String)>,
    /// The limits in force where no setting says otherwise.
    pub(crate) defaults: Limits,
    /// All settings that this server runs with.
    pub(crate) summary: String,
}

impl Sources {
    /// Reads everything again. A service manager that has been told of the end is told no more.
    pub(crate) fn reload(&self, bearers: &mut Bearers, is_draining: bool, ctx: &mut Context<'_>) {
        if !is_draining {
            systemd::reloading();
        }
        if let Err(error) = self.settings(ctx) {
            log::error!("event=reload_failed what=settings error={error:?}");
        }
        if let Err(error) = self.tokens(bearers) {
            log::error!("event=reload_failed what=tokens error={error:?}");
        }
        if let Err(error) = self.certificate(ctx) {
            log::error!("event=reload_failed what=certificate error={:?}", error.to_string());
        }
        if !is_draining {
            systemd::ready("serving, after a reload");
        }
    }

    fn certificate(&self, ctx: &mut Context<'_>) -> Result<(), Error> {
        if let Some(tls) = load(self.certificate.as_ref())? {
            let until = tls.not_after().map_or("unknown".into(), |it| Utc(it).to_string());
            ctx.set_tls(tls);
            log::info!("event=reload what=certificate not-after={until}");
        }
        Ok(())
    }

    fn tokens(&self, bearers: &mut Bearers) -> Result<(), String> {
        let (Some(path), Some(names)) = (&self.token_file, &mut bearers.names) else {
            return Ok(());
        };
        let tokens = Tokens::load_again(path)?;
        log::info!("event=reload what=tokens names={}", tokens.len());
        names.replace(tokens);
        warn_if_public(names.is_public());
        Ok(())
    }

    fn settings(&self, ctx: &mut Context<'_>) -> Result<(), String> {
        let (args, env) = (env::args_os().skip(1), |name: &str| env::var_os(name));
        let read = flags::read(args, env, &self.defaults).map_err(|refusal| refusal.sentence)?;
        let Task::Run(settings) = read else { return Ok(()) };
        let summary = words::summary(&settings);
        let origins = settings.config.origins.len();
        ctx.set_origins(settings.config.origins).map_err(|error| error.to_string())?;
        log::info!("event=reload what=origins origins={origins}");
        let changed = changed(&self.summary, &summary);
        if !changed.is_empty() {
            let hint = "these settings have changed and need a restart";
            log::warn!("event=reload what={} hint={hint:?}", changed.join(","));
        }
        Ok(())
    }
}

/// The files of a certificate and of its key, read.
pub(crate) fn load(files: Option<&(String, String)>) -> Result<Option<Tls>, Error> {
    files.map(|(certificate, key)| Tls::load(certificate, key)).transpose()
}

/// The settings in which two summaries differ, but for those that a reload takes.
fn changed<'a>(before: &'a str, after: &'a str) -> Vec<&'a str> {
    let lines = |text: &'a str| text.lines().skip(1).collect::<Vec<&'a str>>();
    let (before, after) = (lines(before), lines(after));
    let only_before = before.iter().filter(|line| !after.contains(line));
    let only_after = after.iter().filter(|line| !before.contains(line));
    let mut names: Vec<&str> = only_before
        .chain(only_after)
        .filter_map(|line| line.split_whitespace().next())
        // The last is told of others.
        .filter(|name| !["origin", "note", "memory-at-worst"].contains(name))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::changed;

    #[test]
    fn what_needs_a_restart_is_told_once_by_its_name() {
        let before = "first\n  listen  :1\n  ping    25s\n  origin  https://a\n";
        let after = "other\n  listen  :1\n  listen  :2\n  ping    26s\n  origin  https://b\n";
        assert_eq!(changed(before, after), ["listen", "ping"]);
        assert_eq!(changed(before, before), [""; 0]);
    }
}
