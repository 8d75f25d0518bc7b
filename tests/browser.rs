//! The client from outside: `pousse.js` in Node, and the page in a real browser, both against the
//! real program.
//!
//! The tests themselves are JavaScript, in `tests/browser/`; here is only who runs them, and what
//! is said where they cannot run. Screenshots and what the tests print stay in `tests/out/`.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests are tests")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use kit::support::skip;
use rustix::process::{Pid, Signal, kill_process};

/// The oldest Node whose test runner does what is wanted here.
const NODE_MIN: u32 = 20;

/// From here on a WebSocket needs no asking for.
const NODE_WITH_WEBSOCKET: u32 = 22;

/// How long a suite may take. Each test in it has a bound of its own, far below.
const SUITE_MAX: Duration = Duration::from_secs(600);

/// How long a suite that took too long may go on, to end its browser and its servers.
const LEAVE_MAX: Duration = Duration::from_secs(10);

#[test]
fn the_client_module_holds_in_node() {
    match node() {
        Ok(node) => node.run("client", &[]),
        Err(missing) => skip(&missing),
    }
}

#[test]
fn the_page_holds_in_chromium() {
    match node().and_then(|node| Ok((node, playwright()?, chromium()?))) {
        Ok((node, (), chromium)) => node.run("page", &[("POUSSE_CHROMIUM", &chromium)]),
        Err(missing) => skip(&missing),
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser")
}

/// A program by its name, as a shell finds it.
fn in_path(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn chromium() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("POUSSE_CHROMIUM").map(PathBuf::from) {
        let missing = || format!("POUSSE_CHROMIUM is {}, and no file is there", path.display());
        return if path.is_file() { Ok(path) } else { Err(missing()) };
    }
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    names.iter().find_map(|name| in_path(name)).ok_or_else(|| {
        "no Chromium here (Debian: apt-get install chromium; \
         or POUSSE_CHROMIUM=/where/it/is)"
            .into()
    })
}

fn playwright() -> Result<(), String> {
    let package = folder().join("node_modules/playwright-core/package.json");
    let missing = "no playwright-core here (npm ci --prefix tests/browser)";
    if package.is_file() { Ok(()) } else { Err(missing.into()) }
}

struct Node {
    path: PathBuf,
    major: u32,
}

fn node() -> Result<Node, String> {
    let how = format!("(https://nodejs.org has {NODE_MIN} and newer; Debian 13: nodejs npm)");
    let path = in_path("node").ok_or_else(|| format!("no Node here {how}"))?;
    let version = Command::new(&path).arg("--version").output().unwrap().stdout;
    let version = String::from_utf8_lossy(&version);
    let major = version.trim().trim_start_matches('v').split('.').next();
    match major.and_then(|major| major.parse().ok()) {
        Some(major) if major >= NODE_MIN => Ok(Node { path, major }),
        _ => Err(format!("Node is {} here, too old {how}", version.trim())),
    }
}

impl Node {
    /// Runs the suite: all files of that name, `page.test.mjs` and `page-shared.test.mjs` for
    /// `page`. What it prints goes to a file, so that a browser left behind holds up nobody.
    #[track_caller]
    fn run(&self, suite: &str, settings: &[(&str, &Path)]) {
        let files = files(suite);
        let count = files.len();
        assert!(count > 0, "tests/browser has no {suite}*.test.mjs");
        let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/out");
        fs::create_dir_all(&out).unwrap();
        if suite == "page" {
            forget_failures(&out);
        }
        let log = out.join(format!("{suite}.log"));
        let file = File::create(&log).unwrap();

        let mut command = Command::new(&self.path);
        if self.major < NODE_WITH_WEBSOCKET {
            command.args(["--experimental-websocket", "--no-warnings"]);
        }
        // Two files at a time: each has a browser, which wants a core, but mostly they wait.
        command.args(["--test", "--test-reporter=spec", "--test-concurrency=2"]).args(files);
        command.current_dir(folder()).env("POUSSE_BIN", env!("CARGO_BIN_EXE_pousse"));
        command.envs(settings.iter().copied()).env_remove("NODE_OPTIONS").stdin(Stdio::null());
        command.stdout(file.try_clone().unwrap()).stderr(file);

        // And one suite after the other.
        static ALONE: Mutex<()> = Mutex::new(());
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let is_good = finish(&mut command);
        let said = String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
        println!("{said}");
        assert!(is_good, "the suite {suite} failed; above is what it said");
        // The runner takes a file without tests for one.
        assert!(passed(&said) > count, "the suite {suite} ran no test");
        // Some do not apply to every transport and are left out without a word; these say why.
        said.lines().filter(|line| line.contains("SKIPPED: ")).for_each(skip);
    }
}

/// Removes the pictures of tests that failed some other time.
fn forget_failures(out: &Path) {
    let files = fs::read_dir(out).unwrap().map(|entry| entry.unwrap());
    for file in files.filter(|file| file.file_name().to_string_lossy().starts_with("failed-")) {
        fs::remove_file(file.path()).unwrap();
    }
}

/// The files of a suite.
fn files(suite: &str) -> Vec<String> {
    let names = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.filter_map(|name| name.into_string().ok());
    let mut files: Vec<String> =
        names.filter(|it| it.starts_with(suite) && it.ends_with(".test.mjs")).collect();
    files.sort();
    files
}

/// How many tests have passed, as the runner says in its closing lines: `ℹ pass 12`.
fn passed(said: &str) -> usize {
    let lines = said.lines().rev().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let count = |words: Vec<&str>| match words[..] {
        [_, "pass", count] => count.parse().ok(),
        _ => None,
    };
    lines.filter_map(count).next().unwrap_or(0)
}

/// Runs it to its end, or ends it. Whether it went well.
fn finish(command: &mut Command) -> bool {
    let mut child = command.spawn().unwrap();
    let pid = Pid::from_child(&child);
    let (sender, ended) = channel();
    thread::spawn(move || sender.send(child.wait().unwrap()));
    if let Ok(status) = ended.recv_timeout(SUITE_MAX) {
        return status.success();
    }
    // Politely first: the tests then end what they have started.
    for signal in [Signal::TERM, Signal::KILL] {
        kill_process(pid, signal).unwrap();
        if ended.recv_timeout(LEAVE_MAX).is_ok() {
            break;
        }
    }
    false
}
