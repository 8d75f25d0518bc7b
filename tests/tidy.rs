//! The house rules that a program can check, after TigerBeetle's `tidy.zig`.
//!
//! Each rule is a test; what breaks it is printed as `file:line`. Only text is read here: code is
//! what stands before a file's tests and is no comment.

#![expect(clippy::unwrap_used, reason = "a test that stops is a test that tells")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Who stands where (`docs/architecture.md`). A file imports from lower floors only.
const FLOORS: &[&[&str]] = &[
    &[
        "counters", "error", "folder", "id", "input", "json", "limits", "message", "metrics",
        "net", "network", "percent", "process", "tick",
    ],
    &[
        "bucket",
        "busy",
        "config",
        "deadlines",
        "deflate",
        "drain",
        "exposition",
        "files",
        "frame",
        "origin",
        "outbox",
        "response",
        "spare",
        "tls",
        "told",
    ],
    &["extensions", "http", "long", "partial", "tls_session", "topic", "websocket"],
    &["encodings", "log", "parse", "remote", "rules", "turn"],
    &["access", "forms", "forwarded", "handshake", "head", "outgoing", "readers", "stream"],
    &["cursor", "gate", "poll", "session"],
    &["event", "event_stream", "exchange", "listeners"],
    &["live", "long_poll", "routes"],
    &["control", "rare", "stage"],
    &["connection"],
    &["client", "clients"],
    &["hub"],
    &["handler", "operate", "perform"],
    &["app"],
    &["seams", "server"],
    &["door", "embedder"],
];

/// Imports on one floor: the left may know the right, never the other way round.
const NEIGHBOURS: &[(&str, &str, &str)] = &[
    ("clients", "client", "they are a slab of these"),
    ("config", "origin", "the origins that are listed are a setting"),
    ("config", "tls", "a certificate is a setting"),
    ("counters", "metrics", "its words are what is counted; it stands in metrics' folder"),
    ("log", "encodings", "the forms of its entries are counted apart"),
    ("partial", "long", "a long message has memory of its own"),
    ("websocket", "partial", "what is not whole is put together apart"),
];

/// The program's own files: the library knows none of them.
const PROGRAM: &[&str] = &[
    "main", "bearer", "daemon", "flags", "logger", "refusal", "reload", "settings", "systemd",
    "tokens", "words",
];

/// Where mio and the clock are: what the loop has of the machine.
const KNOW_MIO: &[&str] = &["net"];
/// Who asks for sockets, or for a name of theirs (`lib` hands the simulated ones on). Everyone else
/// is told.
const KNOW_NET: &[&str] =
    &["lib", "clients", "door", "embedder", "listeners", "remote", "server", "stream"];
/// They are handed over by the service manager as descriptors, and go on to the library.
const KNOW_LISTENERS: &[&str] = &["systemd"];
const KNOW_THE_CLOCK: &[&str] = &["net", "logger"];

/// Lines of code in one file: over the first it is told, over the second it is a failure.
const LINES_WISHED: usize = 400;
const LINES_MAX: usize = 500;

const COLUMNS_MAX: usize = 100;

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// The file's name without folder and ending.
    fn name(&self) -> &str {
        self.path.file_stem().unwrap().to_str().unwrap()
    }

    /// `file:line`, from the top of the project.
    fn at(&self, line: usize) -> String {
        let root = env!("CARGO_MANIFEST_DIR");
        format!("{}:{line}", self.path.strip_prefix(root).unwrap().display())
    }

    /// All lines with their numbers.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(at, line)| (at + 1, line))
    }

    /// Whether it is unit tests: those too long for the end of a file are in its folder.
    fn is_tests(&self) -> bool {
        self.name().starts_with("tests")
    }

    /// Lines of code: neither empty nor a comment, and before the tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines()
            .take_while(|(_, line)| *line != "#[cfg(test)]" && !self.is_tests())
            .filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with("//"))
    }

    /// Where one of these texts stands in the code.
    fn finds(&self, texts: &[&str]) -> Vec<String> {
        let has = |line: &&str| texts.iter().any(|text| line.contains(text));
        let found = self.code().filter(|(_, line)| has(line));
        found.map(|(number, line)| format!("{}: {}", self.at(number), line.trim())).collect()
    }

    /// The files that the code imports from, with the line of each.
    fn imports(&self) -> Vec<(usize, String)> {
        let mut imports = Vec::new();
        let code: Vec<(usize, &str)> = self.code().collect();
        for (at, (number, line)) in code.iter().enumerate() {
            for (start, _) in line.match_indices("crate::") {
                // A list in braces may go on over some lines.
                let rest = line.split_at(start + "crate::".len()).1.to_owned();
                let rest = code.iter().skip(at + 1).fold(rest, |text, (_, line)| text + line);
                let names: Vec<String> = match rest.strip_prefix('{') {
                    Some(list) => first_words(list.split(['}', ';']).next().unwrap()),
                    None => first_words(rest.split([';', ',', ' ']).next().unwrap()),
                };
                imports.extend(names.into_iter().map(|name| (*number, name)));
            }
        }
        imports
    }
}

/// The first word of each member of a list.
fn first_words(list: &str) -> Vec<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    list.split(',')
        .map(|member| member.trim().chars().take_while(|c| is_word(*c)).collect::<String>())
        .filter(|word| !word.is_empty())
        .collect()
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// All Rust files beneath a folder.
fn sources(folder: &str) -> Vec<Source> {
    let mut folders = vec![root(folder)];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                sources.push(Source { path, text });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!sources.is_empty(), "{folder} has no Rust files");
    sources
}

/// The library's files: those with a floor.
fn library() -> Vec<Source> {
    let is_outside =
        |it: &Source| it.is_tests() || it.name() == "lib" || PROGRAM.contains(&it.name());
    sources("src").into_iter().filter(|source| !is_outside(source)).collect()
}

/// Everything that is Rust.
fn everything() -> impl Iterator<Item = Source> {
    ["src", "tests", "examples"].into_iter().flat_map(sources)
}

fn floor_of(name: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&name))
}

#[track_caller]
fn none(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    let broken: Vec<String> = everything()
        .filter(|source| !source.text.lines().next().is_some_and(|line| line.starts_with("//! ")))
        .map(|source| format!("{}: a file begins with //! and a sentence", source.at(1)))
        .collect();
    none(&broken);
}

#[test]
fn every_file_of_the_library_stands_on_one_floor() {
    let files: Vec<Source> = library();
    let mut broken: Vec<String> = files
        .iter()
        .filter(|source| FLOORS.concat().iter().filter(|name| **name == source.name()).count() != 1)
        .map(|source| format!("{}: it has no floor, or two, in FLOORS", source.at(1)))
        .collect();
    let names: BTreeSet<&str> = files.iter().map(Source::name).collect();
    for name in FLOORS.concat().into_iter().filter(|name| !names.contains(name)) {
        broken.push(format!("src/{name}.rs: it stands in FLOORS and is not there"));
    }
    none(&broken);
}

#[test]
fn a_file_imports_from_lower_floors_only() {
    let mut broken = Vec::new();
    for source in library() {
        let name = source.name();
        for (line, import) in source.imports() {
            let is_neighbour =
                NEIGHBOURS.iter().any(|(from, to, _)| (*from, *to) == (name, &import));
            let is_lower = match (floor_of(name), floor_of(&import)) {
                (Some(own), Some(other)) => other < own || (other == own && is_neighbour),
                // What is no file is a name of lib.rs, the face that nothing imports from.
                _ => false,
            };
            if !is_lower && import != name {
                broken.push(format!("{}: {name} imports from {import}", source.at(line)));
            }
        }
        for (line, text) in source.code().filter(|(_, text)| text.starts_with("use super::")) {
            broken.push(format!("{}: {text}", source.at(line)));
        }
    }
    none(&broken);
}

#[test]
fn neighbours_on_a_floor_are_needed_and_go_one_way() {
    let files = library();
    let mut broken = Vec::new();
    for (from, to, why) in NEIGHBOURS {
        let source = files.iter().find(|source| source.name() == *from);
        let is_used = source.is_some_and(|it| it.imports().iter().any(|(_, name)| name == to));
        if !is_used || floor_of(from) != floor_of(to) {
            broken.push(format!("src/{from}.rs: needs no leave to import {to} ({why})"));
        }
        // A way back, over however many others.
        let mut reached = vec![*to];
        let mut at = 0;
        while let Some(&here) = reached.get(at) {
            let next = NEIGHBOURS.iter().filter(|(left, ..)| *left == here).map(|(_, to, _)| *to);
            let fresh: Vec<&str> = next.filter(|it| !reached.contains(it)).collect();
            reached.extend(fresh);
            at += 1;
        }
        if reached.contains(from) {
            broken.push(format!("src/{from}.rs: {from} and {to} know each other"));
        }
    }
    none(&broken);
}

#[test]
fn the_library_knows_nothing_of_the_program() {
    let mut broken = Vec::new();
    for source in sources("src") {
        let is_program = PROGRAM.contains(&source.name());
        for (line, import) in source.imports() {
            // Among the program's files what is no file is an item of main.rs.
            let is_item = is_program && import.starts_with(char::is_uppercase);
            let is_programs = is_item || PROGRAM.contains(&import.as_str());
            if is_program != is_programs {
                broken.push(format!("{}: {} imports {import}", source.at(line), source.name()));
            }
        }
    }
    none(&broken);
}

#[test]
fn only_the_loop_and_what_it_turns_know_sockets() {
    let mut broken = Vec::new();
    for source in sources("src") {
        let name = source.name();
        if !KNOW_MIO.contains(&name) {
            broken.extend(source.finds(&[" mio::", "(mio::", "<mio::", "&mio::", "socket2::"]));
        }
        if !KNOW_NET.contains(&name) && !KNOW_LISTENERS.contains(&name) {
            broken.extend(source.finds(&["crate::net::", "std::net::Tcp", "os::unix::net"]));
        }
    }
    none(&broken);
}

#[test]
fn only_the_loop_reads_the_clock() {
    let clocks = ["Instant::now", "SystemTime::now", ".elapsed()", "thread::sleep"];
    let others = sources("src").into_iter();
    let others = others.filter(|source| !KNOW_THE_CLOCK.contains(&source.name()));
    let mut broken: Vec<String> = others.flat_map(|source| source.finds(&clocks)).collect();
    // Through the machine's clock, that is.
    let others = library().into_iter().filter(|source| !["net", "server"].contains(&source.name()));
    broken.extend(others.flat_map(|source| source.finds(&["net::now", "net::unix_time"])));
    none(&broken);
}

/// What a build without the simulation has of the seam: names of mio's, and calls that leave none.
#[test]
fn the_seam_of_the_simulation_is_names_and_calls_that_are_inlined() {
    let text = fs::read_to_string(root("src/net.rs")).unwrap();
    let (_, real) = text.split_once("mod real {").unwrap();
    let lines: Vec<&str> = real.lines().map(str::trim).collect();
    let is_fn = |line: &str| line.starts_with("pub(crate) fn ") || line.starts_with("fn ");
    let calls = lines.windows(2).filter(|pair| pair.last().is_some_and(|line| is_fn(line)));
    let (inlined, others): (Vec<&[&str]>, Vec<&[&str]>) =
        calls.partition(|pair| pair.first() == Some(&"#[inline(always)]"));
    let broken: Vec<String> = others.iter().map(|it| format!("src/net.rs: {it:?}")).collect();
    none(&broken);
    assert!(inlined.len() >= 4 && !real.contains("dyn "), "{}", inlined.len());
}

#[test]
fn no_line_is_wider_than_a_hundred_columns() {
    let mut broken = Vec::new();
    for source in everything() {
        for (number, line) in source.lines() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                broken.push(format!("{}: {columns} columns", source.at(number)));
            }
        }
    }
    none(&broken);
}

#[test]
fn a_file_is_not_much_longer_than_four_hundred_lines_of_code() {
    let mut broken = Vec::new();
    for source in sources("src") {
        let lines = source.code().count();
        if lines > LINES_WISHED {
            println!("{}: {lines} lines of code", source.at(1));
        }
        if lines > LINES_MAX {
            broken.push(format!("{}: {lines} lines of code", source.at(1)));
        }
    }
    none(&broken);
}

#[test]
fn nothing_is_left_undone_or_passed_over() {
    // In two parts, so that this file does not find itself.
    let undone = ["todo", "unimplemented", "dbg"].map(|name| format!("{name}!"));
    let ignored = ["ign", "ore"].concat();
    let ignored = [format!("#[{ignored}"), format!(", {ignored} =")];
    let mut broken = Vec::new();
    for source in everything() {
        for (number, line) in source.lines() {
            if undone.iter().chain(&ignored).any(|text| line.contains(text.as_str())) {
                broken.push(format!("{}: {}", source.at(number), line.trim()));
            }
        }
    }
    // What may stay unused is `expect`ed, with a reason, or is in tests/kit.
    let allowed = ["dead_code", "unused", "warnings"].map(|lint| format!("allow({lint}"));
    for source in everything() {
        // In its tests too.
        for (number, line) in source.lines() {
            if allowed.iter().any(|text| line.contains(text.as_str())) {
                broken.push(format!("{}: {}", source.at(number), line.trim()));
            }
        }
    }
    none(&broken);
}

#[test]
fn the_server_does_not_panic_but_says_what_cannot_be() {
    let mut broken = Vec::new();
    for source in sources("src") {
        broken.extend(source.finds(&[".unwrap()", ".unwrap_err()", "panic!(", ".expect_err("]));
        // `expect` has its reason beside it, as a text, perhaps on the next line.
        let code: Vec<(usize, &str)> = source.code().collect();
        for (at, (number, line)) in code.iter().enumerate() {
            let Some((_, after)) = line.split_once(".expect(") else { continue };
            let next = code.get(at + 1).map_or("", |(_, line)| line.trim_start());
            let reason = if after.is_empty() { next } else { after };
            if !reason.starts_with('"') || reason.starts_with("\"\"") {
                broken.push(format!("{}: {}", source.at(*number), line.trim()));
            }
        }
    }
    none(&broken);
}

#[test]
fn every_line_of_the_log_begins_with_its_event() {
    let is_word = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut broken = Vec::new();
    for source in sources("src") {
        let code: Vec<(usize, &str)> = source.code().collect();
        for (at, (number, line)) in code.iter().enumerate() {
            for (start, _) in line.match_indices("log::") {
                let rest = line.split_at(start + "log::".len()).1;
                let after = rest.trim_start_matches(|c: char| c.is_ascii_lowercase());
                let Some(after) = after.strip_prefix("!(") else { continue };
                // The text may stand behind a level, on another line.
                let after =
                    code.iter().skip(at + 1).fold(after.to_owned(), |all, (_, it)| all + it);
                let event = after.split_once('"').and_then(|(_, text)| text.strip_prefix("event="));
                let word = event.and_then(|text| text.split([' ', '"']).next());
                if !word.is_some_and(|word| !word.is_empty() && word.chars().all(is_word)) {
                    broken.push(format!("{}: {}", source.at(*number), line.trim()));
                }
            }
        }
    }
    none(&broken);
}

#[test]
fn every_limit_says_what_it_bounds() {
    let broken: Vec<String> = pousse::LIMITS
        .iter()
        .filter(|limit| {
            let meaning = limit.meaning.trim();
            meaning.len() < 7 || !meaning.ends_with('.') || !meaning.starts_with(char::is_uppercase)
        })
        .map(|limit| format!("src/limits.rs: {}: {:?}", limit.name, limit.meaning))
        .collect();
    none(&broken);
}

#[test]
fn the_documentation_of_limits_has_every_limit_and_its_default() {
    // Until it is written there is nothing to check.
    let Ok(text) = fs::read_to_string(root("docs/limits.md")) else { return };
    let defaults = pousse::Limits::default();
    let mut broken = Vec::new();
    for limit in pousse::LIMITS {
        let name = format!("`{}`", limit.name);
        let flag = format!("`--{}", limit.name);
        let default = (limit.show)(&defaults);
        let mut lines = text.lines().filter(|line| line.contains(&name) || line.contains(&flag));
        if !lines.any(|line| line.contains(&default)) {
            broken.push(format!("docs/limits.md: no line has {name} and its default {default}"));
        }
    }
    none(&broken);
}

#[test]
fn there_is_no_async_runtime_not_even_of_a_dependency() {
    let is_runtime = |name: &str| {
        let runtimes = ["tokio", "async-std", "futures", "smol", "async-executor", "glommio"];
        runtimes.iter().any(|it| name == *it || name.starts_with(&format!("{it}-")))
    };
    let mut broken = Vec::new();
    for file in ["Cargo.toml", "Cargo.lock"] {
        let text = fs::read_to_string(root(file)).unwrap();
        for (at, line) in text.lines().enumerate() {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            let name = if file == "Cargo.lock" { value } else { key };
            if is_runtime(name.trim().trim_matches('"')) {
                broken.push(format!("{file}:{}: {line}", at + 1));
            }
        }
    }
    none(&broken);
}

#[test]
fn the_top_of_the_project_is_as_its_owner_wants_it() {
    let wanted = ["Cargo.toml", "src", "tests", "examples", "docs", "Makefile", "README.md"];
    let entries: BTreeSet<String> = fs::read_dir(root(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "target")
        .collect();
    let may_be =
        |name: &str| name.starts_with('.') || name == "Cargo.lock" || name.starts_with("LICENSE");
    let mut broken: Vec<String> = entries
        .iter()
        .filter(|name| !wanted.contains(&name.as_str()) && !may_be(name))
        .map(|name| format!("{name}: it does not belong here"))
        .collect();
    for name in wanted.iter().filter(|name| !entries.contains(**name)) {
        broken.push(format!("{name}: it is missing"));
    }
    none(&broken);
}

#[test]
fn the_library_alone_needs_seven_crates_and_base64() {
    let manifest = fs::read_to_string(root("Cargo.toml")).unwrap();
    let (_, rest) = manifest.split_once("[dependencies]\n").unwrap();
    let needed: Vec<&str> = rest
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.contains("optional = true"))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name)
        .collect();
    // data-encoding comes with tungstenite in any case.
    let allowed = [
        "bytes",
        "data-encoding",
        "httparse",
        "log",
        "mio",
        "simdutf8",
        "slab",
        "socket2",
        "tungstenite",
    ];
    assert_eq!(needed, allowed);
}

#[test]
fn unsafe_code_is_forbidden_and_a_number_that_overflows_is_a_panic_in_a_release_too() {
    let manifest = fs::read_to_string(root("Cargo.toml")).unwrap();
    let section = |name: &str| {
        let (_, rest) = manifest.split_once(&format!("\n[{name}]\n")).unwrap();
        rest.split("\n[").next().unwrap().to_owned()
    };
    let has = |text: &str, setting: &str| {
        text.lines().any(|line| line.split(" #").next().unwrap().trim() == setting)
    };
    assert!(has(&section("lints.rust"), "unsafe_code = \"forbid\""));
    assert!(has(&section("profile.release"), "overflow-checks = true"));
    // That of `make small` has it from there.
    assert!(has(&section("profile.small"), "inherits = \"release\""));
    assert!(!section("profile.small").contains("overflow-checks"));
    // Caught it can only be if it unwinds.
    assert!(has(&section("profile.release"), "panic = \"unwind\""));
}

#[test]
fn every_bug_that_is_put_in_on_purpose_has_its_place_in_the_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in fs::read_dir(root.join("tests/simulation/mutants")).unwrap() {
        let path = entry.unwrap().path();
        let patch = fs::read_to_string(&path).unwrap();
        let mut source = String::new();
        for hunk in patch.split("\n@@ ") {
            if let Some(name) = hunk.lines().find_map(|line| line.strip_prefix("+++ b/")) {
                source = fs::read_to_string(root.join(name)).unwrap();
                continue;
            }
            let lines = hunk.lines().skip(1).filter(|line| !line.starts_with('+'));
            let before: String =
                lines.map(|line| format!("{}\n", line.get(1..).unwrap_or_default())).collect();
            assert!(source.contains(&before), "{} does not apply", path.display());
        }
    }
}
