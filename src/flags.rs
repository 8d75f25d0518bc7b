//! Command line, environment and file become [`Settings`].
//!
//! A name of the table in `settings.rs` is `--max-clients 100` on the command line,
//! `POUSSE_MAX_CLIENTS=100` in the environment and `max-clients = 100` in a file. The three are
//! applied from the weakest to the strongest, file, environment, command line; so all of them are
//! looked at, and a mistake in the file is told even where a flag would hide it.

use std::ffi::OsString;

use lexopt::Arg;
use pousse::Limits;

use crate::refusal::Refusal;
use crate::settings::{Set, Setting, Settings, nearest, not, table};

/// What the command line asks for.
pub(crate) enum Task {
    /// Serve.
    Run(Settings),
    /// Say what would be served.
    Check(Settings),
    /// Print one of three texts.
    Version,
    Help,
    LimitHelp,
}

/// Reads all three places. `limits` are those in force where nothing else is said.
///
/// # Errors
/// The first mistake, as a sentence that names the setting.
pub(crate) fn read(
    args: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<OsString>,
    limits: &Limits,
) -> Result<Task, Refusal> {
    let mut settings = Settings::default();
    settings.config.limits = limits.clone();
    let table = table();
    let (line, question) = command_line(&table, args)?;
    if let Some(task) = question {
        return Ok(task);
    }
    let environment = environment(&table, env)?;
    let file = line.iter().rev().chain(&environment).find(|given| given.setting.name == "config");
    if let Some(given) = file {
        settings.apply(&self::file(&table, &given.value)?).map_err(Refusal::config)?;
    }
    settings.apply(&environment).map_err(Refusal::config)?;
    // What does not hold together is the flags' fault if it did without them.
    settings.config.control_asks = settings.token_file.is_some();
    let refuse = if settings.check().is_ok() { Refusal::usage } else { Refusal::config };
    settings.apply(&line).map_err(Refusal::usage)?;
    settings.config.control_asks = settings.token_file.is_some();
    settings.check().map_err(refuse)?;
    match line.iter().any(|given| given.setting.name == "check") {
        true => Ok(Task::Check(settings)),
        false => Ok(Task::Run(settings)),
    }
}

/// One value that was given.
struct Given<'a> {
    setting: &'a Setting,
    /// How a sentence names the place: `--ping`, `POUSSE_PING`, `pousse.conf:3: ping`.
    label: String,
    value: String,
}

/// Settings that belong to the surface but not to this build. To say so is kinder than "unknown".
#[rustfmt::skip]
const NOT_YET: [&str; 2] = ["redis", "reuse-port"];

impl Settings {
    fn apply(&mut self, given: &[Given<'_>]) -> Result<(), String> {
        let mut replaced = Vec::new();
        for Given { setting, label, value } in given {
            if let Some(clear) = setting.clear
                && !replaced.contains(&setting.name)
            {
                clear(self);
                replaced.push(setting.name);
            }
            match setting.set {
                Set::Own(set) => set(self, value),
                Set::Limit(limit) => {
                    // Who gives it means it, whoever connects.
                    self.config.limit_loopback |= limit.name == "max-per-ip";
                    (limit.set)(&mut self.config.limits, value).map_err(|form| not(&form, value))
                }
                Set::Nothing => Ok(()),
            }
            .map_err(|wrong| format!("{label} {wrong}"))?;
        }
        Ok(())
    }
}

/// What was given, up to a flag that asks for words instead of service.
fn command_line(
    table: &[Setting],
    args: impl IntoIterator<Item = OsString>,
) -> Result<(Vec<Given<'_>>, Option<Task>), Refusal> {
    let usage = Refusal::usage;
    let mut parser = lexopt::Parser::from_args(args);
    let mut given = Vec::new();
    loop {
        let name = match parser.next().map_err(|error| usage(on_one_line(&error)))? {
            None => return Ok((given, None)),
            Some(Arg::Long(name)) => name.to_owned(),
            Some(Arg::Short('h')) => "help".to_owned(),
            Some(other) => {
                let what = on_one_line(&other.unexpected());
                return Err(usage(format!("{what}; pousse --help lists the flags")));
            }
        };
        let setting = find(table, "--", &name).map_err(usage)?;
        let label = format!("--{name}");
        let value = match setting.value {
            "" => match parser.optional_value() {
                Some(value) => return Err(usage(format!("{label} takes no value, not {value:?}"))),
                None => OsString::new(),
            },
            wanted => parser.value().map_err(|_| usage(format!("{label} wants {wanted}")))?,
        };
        let value = into_text(&label, value).map_err(usage)?;
        match (setting.name, value.as_str()) {
            ("help", _) => return Ok((given, Some(Task::Help))),
            ("version", _) => return Ok((given, Some(Task::Version))),
            ("limit", "help") => return Ok((given, Some(Task::LimitHelp))),
            _ => given.push(Given { setting, label, value }),
        }
    }
}

/// What is wrong, in the words of a parser that has what was given in them as it was given.
fn on_one_line(wrong: &lexopt::Error) -> String {
    let shown = |c: char| match c.is_control() {
        true => c.escape_debug().to_string(),
        false => c.to_string(),
    };
    wrong.to_string().chars().map(shown).collect()
}

fn environment(
    table: &[Setting],
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<Given<'_>>, Refusal> {
    let mut given = Vec::new();
    let names = table.iter().filter(|setting| !setting.value.is_empty()).map(|s| s.name);
    for name in names.chain(NOT_YET) {
        let label = format!("POUSSE_{}", name.replace('-', "_").to_ascii_uppercase());
        // Set to nothing is how compose files and unit files say "not set".
        let Some(value) = env(&label).filter(|value| !value.is_empty()) else { continue };
        let setting =
            find(table, "", name).map_err(|why| Refusal::config(format!("{label}: {why}")))?;
        let value = into_text(&label, value).map_err(Refusal::config)?;
        given.extend(pieces(setting, &label, &value));
    }
    Ok(given)
}

/// A file of settings is not longer.
const FILE_BYTES_MAX: u64 = 1 << 20;

fn file<'a>(table: &'a [Setting], path: &str) -> Result<Vec<Given<'a>>, Refusal> {
    let config = Refusal::config;
    // HUP reads it again, and must find the same and not wait.
    let text = match std::fs::metadata(path).map(|it| it.is_file() && it.len() <= FILE_BYTES_MAX) {
        Ok(true) => std::fs::read_to_string(path),
        Ok(false) => Err(std::io::Error::other("it is no regular file of at most 1 MiB")),
        Err(error) => Err(error),
    };
    let text =
        text.map_err(|error| config(format!("cannot read the settings in {path:?}: {error}")))?;
    let mut given = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let place = format!("{}:{number}:", path.escape_debug());
        let line = without_comment(line).trim();
        if line.is_empty() {
            continue;
        }
        let (name, value) = line
            .split_once('=')
            .map(|(name, value)| (name.trim().replace('_', "-"), value.trim()))
            .filter(|(name, value)| !name.is_empty() && !value.is_empty())
            .ok_or_else(|| config(format!("{place} a line is NAME = VALUE, not {line:?}")))?;
        let setting = find(table, "", &name).map_err(|why| config(format!("{place} {why}")))?;
        if setting.value.is_empty() || setting.name == "config" {
            return Err(config(format!("{place} {name} cannot stand in a file")));
        }
        given.extend(pieces(setting, &format!("{place} {name}"), value));
    }
    Ok(given)
}

/// A comment begins with `#` at the start of a line or after a space: `#` may be part of a value.
fn without_comment(line: &str) -> &str {
    let mut before = ' ';
    let starts = |now| std::mem::replace(&mut before, now).is_whitespace() && now == '#';
    line.split(starts).next().unwrap_or(line)
}

/// The values in one text: a list has commas between them.
fn pieces<'a>(setting: &'a Setting, label: &str, text: &str) -> Vec<Given<'a>> {
    let given = |value: &str| Given { setting, label: label.into(), value: value.trim().into() };
    match setting.clear {
        Some(_) => text.split(',').filter(|piece| !piece.trim().is_empty()).map(given).collect(),
        None => vec![given(text)],
    }
}

fn into_text(label: &str, value: OsString) -> Result<String, String> {
    value.into_string().map_err(|value| format!("{label} is UTF-8, not {value:?}"))
}

/// The line of the table with this name, or a sentence; `dashes` stand before names in it.
fn find<'a>(table: &'a [Setting], dashes: &str, name: &str) -> Result<&'a Setting, String> {
    if let Some(setting) = table.iter().find(|setting| setting.name == name) {
        return Ok(setting);
    }
    let shown = format!("{dashes}{}", name.escape_debug());
    if NOT_YET.contains(&name) {
        return Err(format!("{shown} is not in this build yet"));
    }
    if Limits::find(name).is_some() {
        let between = if dashes.is_empty() { " = " } else { " " };
        return Err(format!("{shown} is set by {dashes}limit{between}{name}=VALUE"));
    }
    match nearest(name, table.iter().map(|setting| setting.name)) {
        Some(near) => Err(format!("there is no setting {shown}; did you mean {dashes}{near}?")),
        None => Err(format!("there is no setting {shown}; pousse --help lists them")),
    }
}
