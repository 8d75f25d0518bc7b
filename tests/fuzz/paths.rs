//! Promise: a path leads to the one file that its names spell, decoded once, beneath the root; or
//! to nothing. Never above the root, never over a link, never to a name that begins with a dot.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::OnceLock;

use pousse::seam::Folder;

use super::input::Input;

/// What may be found, by its names as they stand on disk.
const FILES: &[&str] = &[
    "index.html",
    "a.txt",
    "café.txt",
    "a b+c",
    "%2e",
    "%2e%2e%2fsecret.txt",
    "sub/index.html",
    "sub/b.txt",
    "sub/deep/c",
    "C:",
    "a..b",
];

/// What may not.
const HIDDEN: &[&str] = &[".env", ".git/config", "sub/.env", "...x/d", "..a"];

struct Root {
    folder: Folder,
    known: BTreeMap<String, Vec<u8>>,
}

fn root() -> &'static Root {
    static ROOT: OnceLock<Root> = OnceLock::new();
    ROOT.get_or_init(|| make().expect("a folder for the files"))
}

/// Beside this program, so in the folder that is built into.
fn make() -> std::io::Result<Root> {
    let program = std::env::current_exe()?;
    let outside: PathBuf = program.with_extension(format!("root-{}", std::process::id()));
    let root = outside.join("root");
    fs::create_dir_all(&root)?;
    fs::write(outside.join("secret.txt"), "secret")?;
    let mut known = BTreeMap::new();
    for name in FILES.iter().chain(HIDDEN) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("it is beneath the root"))?;
        fs::write(&path, name.as_bytes())?;
        if !HIDDEN.contains(name) {
            known.insert((*name).to_owned(), name.as_bytes().to_vec());
        }
    }
    let client = include_bytes!("../../src/page/pousse.js");
    known.insert("pousse.js".into(), client.to_vec());
    symlink("../secret.txt", root.join("link.txt"))?;
    symlink("..", root.join("up"))?;
    symlink("/", root.join("sub/top"))?;
    symlink("a.txt", root.join("inner.txt"))?;
    let folder = Folder::open(&root).map_err(std::io::Error::other)?;
    // The descriptor is what is served: the names can go, and with them nothing is left behind.
    Ok(Root { folder, known })
}

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let path = input.text();
    let root = root();
    let found = root.folder.read(&path).expect("there are descriptors");
    let wanted = names(&path).and_then(|names| root.known.get(&names));
    assert_eq!(found.as_ref(), wanted, "{path:?}");
}

/// The names that a path spells, with slashes between them; `None`: it may lead nowhere.
fn names(path: &str) -> Option<String> {
    let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let mut names = Vec::new();
    for (at, segment) in segments.iter().enumerate() {
        let is_last = at + 1 == segments.len();
        let name = match segment.is_empty() && is_last {
            true => "index.html".to_owned(),
            false => decode(segment)?,
        };
        let is_bad = |c: char| c.is_control() || c == '/' || c == '\\';
        if name.is_empty() || name.starts_with('.') || name.chars().any(is_bad) {
            return None;
        }
        names.push(name);
    }
    Some(names.join("/"))
}

/// Percent-decoding by the letter of RFC 3986 §2.1.
pub fn decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|it| it.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}
