//! Promise: whatever stands on the command line, in the environment, in the file of settings or in
//! the token file, nothing panics; what is wrong is told in one sentence on one line, with exit
//! code 64 or 78, and never with a token in it; and what is taken is within its bounds.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use pousse::{LIMITS, Limits};

use super::input::Input;
use crate::flags::{Task, read};
use crate::settings::Settings;
use crate::tokens::Tokens;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.choice() % 4 {
        0 => {
            let words = input.take(usize::MAX).split(|byte| *byte == b'\n');
            settings(words.map(|word| OsString::from_vec(word.to_vec())).collect(), Vec::new());
        }
        1 => {
            let pairs = input.take(usize::MAX).split(|byte| *byte == b'\n').filter_map(|line| {
                let at = line.iter().position(|byte| *byte == b'=')?;
                let name = String::from_utf8(line[..at].to_vec()).ok()?;
                Some((name, OsString::from_vec(line[at + 1..].to_vec())))
            });
            // A file that is named is there or not; whose it is is not ours to try.
            let pairs = pairs.filter(|(name, _)| name != "POUSSE_CONFIG");
            settings(Vec::new(), pairs.collect());
        }
        2 => {
            let path = written(input.take(usize::MAX));
            settings(vec!["--config".into(), path.into()], Vec::new());
        }
        _ => tokens(input.take(usize::MAX)),
    }
}

/// A file with this content.
fn written(content: &[u8]) -> PathBuf {
    let program = std::env::current_exe().expect("a program has a place");
    let path = program.with_extension(format!("settings-{}", std::process::id()));
    fs::write(&path, content).expect("there is room for a file");
    path
}

fn settings(args: Vec<OsString>, env: Vec<(String, OsString)>) {
    let is_file = |word: &OsString| word.to_string_lossy().starts_with("--config");
    if args.len() != 2 && args.iter().any(is_file) {
        return;
    }
    let find = |name: &str| env.iter().find(|(it, _)| it == name).map(|(_, value)| value.clone());
    match read(args, find, &Limits::default()) {
        Ok(Task::Run(settings) | Task::Check(settings)) => check(&settings),
        Ok(_) => {}
        Err(refusal) => {
            assert!(matches!(refusal.code, 64 | 78), "{}", refusal.code);
            let is_line = !refusal.sentence.chars().any(char::is_control);
            assert!(is_line && !refusal.sentence.is_empty(), "{:?}", refusal.sentence);
        }
    }
}

/// What is served by settings holds together.
fn check(settings: &Settings) {
    settings.config.check().expect("it was checked");
    let mut again = settings.config.limits.clone();
    for limit in LIMITS {
        let shown = (limit.show)(&settings.config.limits);
        (limit.set)(&mut again, &shown).expect("what is shown can be set");
        assert_eq!((limit.show)(&again), shown, "{}", limit.name);
    }
    assert!(!settings.publish_token || settings.token_file.is_some());
    assert!(!settings.subscribe_token || settings.token_file.is_some());
    assert_eq!(settings.tls_cert.is_some(), settings.tls_key.is_some());
}

fn tokens(content: &[u8]) {
    let path = written(content);
    let text = String::from_utf8_lossy(content);
    let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let names: Vec<String> =
        text.lines().filter_map(|line| words(line).into_iter().next()).collect();
    for load in [Tokens::load, Tokens::load_again] {
        match load(&path) {
            Ok(tokens) => assert!(tokens.len() <= lines),
            Err(sentence) => {
                assert!(!sentence.chars().any(char::is_control), "{sentence:?}");
                let secrets = text.lines().filter_map(|line| words(line).into_iter().nth(1));
                for secret in secrets.filter(|it| it.len() >= 16 && !names.contains(it)) {
                    let told = sentence.replace(&path.display().to_string(), "");
                    let is_in_a_name = names.iter().any(|name| name.contains(&secret));
                    assert!(is_in_a_name || !told.contains(&secret), "{sentence:?}");
                }
            }
        }
    }
}
