//! The unit files of `docs/`: systemd takes them, and the program stays within what they leave it.
//!
//! Nothing is started by systemd here, which would need a machine that was booted by it. What the
//! unit forbids is compared with what the program does, as strace sees it.
#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests are tests")]

use kit::support;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use rustix::process::Signal;
use support::http::Answer;
use support::websocket::{Incoming, Reader, frame, opening_fields};
use support::{PATIENCE, Server, Wire, now, program, skip};

fn docs(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs it; `None`: it is not there, which is said.
fn run(command: &mut Command, package: &str) -> Option<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().ok();
    if output.is_none() {
        skip(&format!("no {name} here (Debian: apt-get install {package})"));
    }
    output
}

fn systemd_analyze(args: &[&str]) -> Option<(bool, String)> {
    let output = run(Command::new("systemd-analyze").args(args), "systemd")?;
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8(said).unwrap()))
}

/// Which systemd it is: `252`.
fn version() -> Option<u32> {
    let (_, said) = systemd_analyze(&["--version"])?;
    Some(said.split_whitespace().nth(1).unwrap().parse().unwrap())
}

/// The units in a folder of their own, with the program that cargo built.
fn units(folder: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(folder);
    fs::create_dir_all(&folder).unwrap();
    for name in ["pousse.service", "pousse.socket"] {
        let text = docs(name);
        let text = text.replace("/usr/local/bin/pousse", env!("CARGO_BIN_EXE_pousse"));
        fs::write(folder.join(name), text).unwrap();
    }
    folder
}

#[test]
fn systemd_has_nothing_to_say_against_the_units() {
    let Some(version) = version() else { return };
    let folder = units("verify");
    let paths = ["pousse.service", "pousse.socket"].map(|name| folder.join(name));
    let [service, socket] = paths.each_ref().map(|path| path.to_str().unwrap());
    let (_, said) = systemd_analyze(&["verify", service, socket]).unwrap();
    // The unit has a line for older ones before it.
    let is_old = |line: &&str| version < 253 && line.ends_with("ignoring: notify-reload");
    let wrong: Vec<&str> = said.lines().filter(|line| line.contains("pousse")).collect();
    let wrong: Vec<&&str> = wrong.iter().filter(|line| !is_old(line)).collect();
    assert!(wrong.is_empty(), "{said}");
}

#[test]
fn the_exposure_of_the_unit_is_below_two_and_as_documented() {
    let Some(version) = version() else { return };
    let service = units("security").join("pousse.service");
    let service = service.to_str().unwrap();
    let args = ["security", "--offline=true", "--no-pager", "--threshold=20", service];
    let (is_below, said) = systemd_analyze(&args).unwrap();
    assert!(is_below, "{said}");
    let (_, level) = said.split_once("Overall exposure level for pousse.service: ").unwrap();
    let level = level.split(' ').next().unwrap();
    // Each version looks at more than the one before.
    if version == 252 {
        let documented = format!("exposure level {level} (systemd 252)");
        assert!(docs("operations.md").contains(&documented), "docs/operations.md: {documented}");
    }
}

/// What the unit's `SystemCallFilter=` leaves.
fn allowed() -> Option<BTreeSet<String>> {
    let mut allowed = group("@default")?;
    for line in docs("pousse.service").lines() {
        let Some(list) = line.strip_prefix("SystemCallFilter=") else { continue };
        for name in list.trim_start_matches('~').split(' ') {
            let group = group(name)?;
            match list.starts_with('~') {
                true => allowed.retain(|call| !group.contains(call)),
                false => allowed.extend(group),
            }
        }
    }
    // These are allowed whatever a filter says (systemd.exec(5)).
    allowed.extend(["execve", "exit", "exit_group", "getrlimit", "rt_sigreturn"].map(String::from));
    Some(allowed)
}

/// The system calls of a group, those of the groups in it too.
fn group(name: &str) -> Option<BTreeSet<String>> {
    let (is_known, said) = systemd_analyze(&["syscall-filter", "--no-pager", name])?;
    assert!(is_known, "{said}");
    let mut calls = BTreeSet::new();
    for word in said.lines().skip(1).map(str::trim).filter(|word| !word.starts_with('#')) {
        match word.starts_with('@') {
            true => calls.extend(group(word)?),
            false => drop(calls.insert(word.to_owned())),
        }
    }
    Some(calls)
}

fn asks(server: &Server, request: &str) -> Answer {
    let mut wire = Wire::connect(&server.doors()[0]);
    wire.send(format!("{request} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
    Answer::read(&mut wire, false, now() + PATIENCE).unwrap()
}

/// All that it does in a day: files, every transport, publishing, signals, the end.
fn lives(server: &mut Server) {
    assert_eq!(asks(server, "GET /a.txt").status, 200);
    assert_eq!(asks(server, "GET /none.txt").status, 404);
    let mut waiter = Wire::connect(&server.doors()[0]);
    waiter.send(b"GET /api/messages?wait=50 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut socket = Wire::connect(&server.doors()[0]);
    let fields = opening_fields().map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    socket
        .send(format!("GET /websocket HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").as_bytes())
        .unwrap();
    assert_eq!(Answer::read(&mut socket, false, now() + PATIENCE).unwrap().status, 101);
    socket.send(&frame(true, 1, b"Bonjour")).unwrap();
    let mut reader = Reader::default();
    let text = reader.read(&mut socket, now() + PATIENCE).unwrap();
    assert_eq!(text, Incoming::Text("Bonjour".into()));
    assert_eq!(Answer::read(&mut waiter, false, now() + PATIENCE).unwrap().status, 200);
    server.signal(Signal::HUP);
    assert!(server.says("event=reload"));
    server.signal(Signal::USR1);
    assert!(server.says("event=counters"));
    server.signal(Signal::TERM);
    let close = reader.read(&mut socket, now() + PATIENCE).unwrap();
    assert_eq!(close, Incoming::Close(Some((1001, "the server is stopping".into()))));
    drop(socket);
    assert_eq!(server.wait().unwrap().code(), Some(0));
}

#[test]
fn what_the_program_asks_of_the_kernel_is_what_the_unit_allows() {
    let Some(allowed) = allowed() else { return };
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("traced");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("a.txt"), "a").unwrap();
    let trace = folder.with_extension("txt");
    if run(Command::new("strace").arg("--version"), "strace").is_none() {
        return;
    }
    if !Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status().unwrap().success()
    {
        return skip("strace may not trace here");
    }
    // -D: the program is our child, and strace is its.
    let mut command = program("/usr/bin/env");
    command.env("PATH", std::env::var_os("PATH").unwrap());
    command.args(["strace", "-D", "-f", "-qq", "-o"]).arg(&trace);
    command.arg(env!("CARGO_BIN_EXE_pousse")).arg("--root").arg(&folder);
    command.args(["--listen", "127.0.0.1:0", "--publish", "anyone"]);
    let mut server = Server::spawn(&mut command, 1).map_err(|it| it.1).unwrap();
    lives(&mut server);

    // strace writes a moment longer.
    let end = now() + PATIENCE;
    let said = loop {
        let said = fs::read_to_string(&trace).unwrap();
        if said.contains(" exit_group(") || now() >= end {
            break said;
        }
    };
    let mut calls = BTreeSet::new();
    for line in said.lines() {
        let line = line.split_once(' ').map_or(line, |(_pid, rest)| rest.trim_start());
        let resumed = line.strip_prefix("<... ").unwrap_or(line);
        let name = resumed.split(['(', ' ']).next().unwrap();
        if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.is_empty() {
            calls.insert(name.to_owned());
        }
    }
    assert!(calls.contains("epoll_wait") && calls.contains("accept4"), "{calls:?}");
    let forbidden: Vec<&String> = calls.difference(&allowed).collect();
    assert!(forbidden.is_empty(), "SystemCallFilter= forbids {forbidden:?}");
    // MemoryDenyWriteExecute=, RestrictAddressFamilies=
    assert!(!said.contains("PROT_WRITE|PROT_EXEC"), "memory that is written and executed");
    let families: BTreeSet<&str> = said
        .lines()
        .filter_map(|line| Some(line.split_once(" socket(")?.1.split(',').next().unwrap()))
        .collect();
    let documented = docs("pousse.service");
    let (_, list) = documented.split_once("\nRestrictAddressFamilies=").unwrap();
    let list: BTreeSet<&str> = list.lines().next().unwrap().split(' ').collect();
    assert!(families.is_subset(&list), "{families:?}");
}
