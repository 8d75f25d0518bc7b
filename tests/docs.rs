//! The documentation says what is there: the events of the log, and the tests that it names.
//!
//! Only text is read here: code is what stands before a file's tests and is no comment.

#![expect(clippy::unwrap_used, reason = "a test that stops is a test that tells")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The code of a file, comments and its tests left out, in one line.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("\n#[cfg(test)]").next().unwrap();
    code.lines().map(str::trim).filter(|line| !line.starts_with("//")).collect::<Vec<_>>().join(" ")
}

/// What is known of an event from the places where it is written.
#[derive(Debug, Default, PartialEq)]
struct Event {
    levels: BTreeSet<String>,
    fields: BTreeSet<String>,
}

/// The names before `=` in a text of the log.
fn fields(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(' ').filter_map(|word| word.split_once('='));
    let is_name = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    words.map(|(name, _)| name.to_owned()).filter(move |name| is_name(name))
}

/// Every event that the sources write.
fn written() -> BTreeMap<String, Event> {
    let mut events: BTreeMap<String, Event> = BTreeMap::new();
    for entry in fs::read_dir(root("src")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "rs") {
            continue;
        }
        let code = code(&path);
        for (at, mark) in code.match_indices("\"event=") {
            let (before, after) = code.split_at(at);
            let text = after.split_at(mark.len()).1.replace("\\ ", "").replace("\\\"", "'");
            let text = text.split('"').next().unwrap();
            let name = text.split(' ').next().unwrap();
            if name.is_empty() || name.contains('{') {
                continue;
            }
            let event = events.entry(name.to_owned()).or_default();
            // The words within a hint are no fields.
            event.fields.extend(fields(text.split("='").next().unwrap()));
            event.fields.extend(fields(text).filter(|name| name == "hint" || name == "text"));
            let (_, call) = before.rsplit_once("log::").unwrap_or_default();
            // The logger's own lines are no calls of it.
            let level = call.split_once("!(").filter(|(_, between)| !between.contains(';'));
            event.levels.insert(level.map_or("warn", |(level, _)| level).to_owned());
        }
    }
    events
}

#[test]
fn every_event_of_the_log_has_its_line_in_operations_md() {
    let text = fs::read_to_string(root("docs/operations.md")).unwrap();
    let mut broken = Vec::new();
    let mut named = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("| `event=")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let name = cells.first().unwrap().trim_matches('`').strip_prefix("event=").unwrap();
        named.insert(name.to_owned());
        let written = written();
        let Some(event) = written.get(name) else {
            broken.push(format!("event={name} is never written"));
            continue;
        };
        let [_, levels, fields, ..] = cells.as_slice() else {
            broken.push(format!("event={name}: event, level, fields, when"));
            continue;
        };
        // One that has its level from its case says log::log!.
        for level in event.levels.iter().filter(|level| *level != "log") {
            if !levels.contains(level.as_str()) {
                broken.push(format!("event={name} is written at {level}"));
            }
        }
        for field in event.fields.iter().filter(|field| !fields.contains(&format!("`{field}`"))) {
            broken.push(format!("event={name} has a field {field}"));
        }
    }
    let missing = written().into_keys().filter(|name| !named.contains(name));
    broken.extend(missing.map(|name| format!("event={name} has no line")));
    assert!(broken.is_empty(), "docs/operations.md:\n{}", broken.join("\n"));
}

/// The text of a test file and of those in the folder of its name.
fn tests_of(file: &str) -> Option<String> {
    let path = root(file);
    let mut text = fs::read_to_string(&path).ok()?;
    if let Ok(folder) = fs::read_dir(path.with_extension("")) {
        let files = folder.map(|entry| entry.unwrap().path());
        let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "rs"));
        files.for_each(|path| text += &fs::read_to_string(path).unwrap());
    }
    Some(text)
}

/// Whether `tests/proxy.rs::name`, `src/drain.rs::name` or `tests/scripts/name.txt` is there.
fn exists(reference: &str) -> bool {
    match reference.split_once("::") {
        None => root(reference).is_file(),
        Some((file, name)) => {
            let name = name.rsplit("::").next().unwrap();
            tests_of(file).is_some_and(|text| text.contains(&format!("fn {name}(")))
        }
    }
}

#[test]
fn every_test_that_the_documentation_names_is_there() {
    let mut broken = Vec::new();
    for file in ["docs/operations.md", "docs/security.md", "docs/control.md", "docs/metrics.md"] {
        // Those that are written elsewhere may not be here yet.
        let Ok(text) = fs::read_to_string(root(file)) else { continue };
        let quoted = text.split('`').skip(1).step_by(2);
        let names = quoted.filter(|word| {
            let is_test = word.starts_with("tests/") || word.starts_with("src/");
            is_test && (word.contains("::") || word.ends_with(".txt"))
        });
        let missing = names.filter(|name| !exists(name));
        broken.extend(missing.map(|name| format!("{file}: there is no {name}")));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
