//! Unit tests of `files.rs` and `folder.rs` on a folder: what is served of it, and what never is.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use super::tests::REFUSED;
use super::*;

/// A folder `root`, and beside it `secret.txt`, which nobody may see.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pousse-files-{}-{number}", std::process::id());
        let place = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(place.root("sub")).unwrap();
        place.write("../secret.txt", "secret");
        place
    }
    fn root(&self, name: &str) -> PathBuf {
        self.0.join("root").join(name)
    }
    fn write(&self, name: &str, content: &str) {
        fs::write(self.root(name), content).unwrap();
    }
    fn files(&self) -> Files {
        Files::open(Some(&self.root(""))).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn read(files: &Files, path: &str) -> Option<String> {
    let found = files.find(path).unwrap()?;
    let FileBody::Disk(mut file) = found.body else { return Some("built in".into()) };
    assert_eq!(file.remaining(), found.length);
    let mut content = Vec::new();
    loop {
        // Pieces smaller than the content, so that there is more than one.
        let piece = file.next_piece(3).unwrap();
        assert!(piece.len() <= 3);
        content.extend_from_slice(&piece);
        assert_eq!(file.remaining() + content.len() as u64, found.length);
        if piece.is_empty() {
            return Some(String::from_utf8(content).unwrap());
        }
    }
}

#[test]
fn a_folder_is_served_by_its_names_and_in_place_of_the_page() {
    let place = Place::new();
    for name in ["a.txt", "sub/index.html", "sub/b", "café.txt", "a b", "%2e", "C:", "a?b"] {
        place.write(name, name);
    }
    place.write("empty", "");
    place.write("sub/.hidden", "secret");
    fs::create_dir(place.root("bare")).unwrap();
    let files = place.files();
    for (path, wanted) in [
        ("/a.txt", "a.txt"),
        ("/sub/", "sub/index.html"),
        ("/sub/index.html", "sub/index.html"),
        ("/sub/b", "sub/b"),
        ("/caf%C3%A9%2Etxt", "café.txt"),
        ("/a%20b", "a b"),
        ("/%252e", "%2e"),
        ("/C:", "C:"),
        ("/a%3Fb", "a?b"),
        ("/empty", ""),
        ("/pousse.js", "built in"),
    ] {
        assert_eq!(read(&files, path).as_deref(), Some(wanted), "{path}");
    }
    let long = [format!("/{}", "a".repeat(4096)), "/a".repeat(2048), "/sub".repeat(1024)];
    #[rustfmt::skip]
    let absent = [
        "/", "/index.html", "/style.css", "/chat.js", "/pousse.js/", "/sub", "/bare",
        "/bare/", "/a.txt/", "/a.txt/b", "/sub/.hidden", "/secret.txt", "/C:/boot.ini", 
        "/%252e%252e/secret.txt",
    ];
    for path in absent.iter().chain(REFUSED).copied().chain(long.iter().map(String::as_str)) {
        assert!(files.find(path).unwrap().is_none(), "{path}");
    }
    place.write("pousse.js", "mine");
    place.write("index.html", "mine");
    assert_eq!(read(&files, "/pousse.js").as_deref(), Some("mine"));
    assert_eq!(read(&files, "/").as_deref(), Some("mine"));
}

#[test]
fn nothing_but_regular_files_and_no_link_at_any_level() {
    let place = Place::new();
    place.write("sub/a.txt", "a");
    symlink("../secret.txt", place.root("out.txt")).unwrap();
    symlink("/etc", place.root("etc")).unwrap();
    symlink("..", place.root("up")).unwrap();
    symlink("sub/a.txt", place.root("in.txt")).unwrap();
    symlink("sub", place.root("in")).unwrap();
    symlink("loop", place.root("loop")).unwrap();
    symlink("/dev/null", place.root("null")).unwrap();
    symlink("a.txt", place.root("sub/index.html")).unwrap();
    fs::create_dir_all(place.root("folder/index.html")).unwrap();
    let made = Command::new("mkfifo").arg(place.root("fifo")).status().unwrap();
    assert!(made.success());
    let _socket = UnixListener::bind(place.root("socket")).unwrap();
    let files = place.files();
    assert_eq!(read(&files, "/sub/a.txt").as_deref(), Some("a"));
    #[rustfmt::skip]
    let not_served = [
        "/out.txt", "/etc/passwd", "/etc/", "/up/secret.txt", "/up/root/sub/a.txt", "/in.txt",
        "/in/a.txt", "/in/", "/in", "/loop", "/loop/", "/null", "/sub/", "/folder/",
        "/folder/index.html", "/fifo", "/fifo/", "/socket",
    ];
    for path in not_served {
        assert!(files.find(path).unwrap().is_none(), "{path}");
    }
}

#[test]
fn what_may_not_be_read_is_not_found() {
    let place = Place::new();
    place.write("a.txt", "a");
    let closed = fs::Permissions::from_mode(0o000);
    fs::set_permissions(place.root("a.txt"), closed).unwrap();
    // Root reads everything, and then so may the server.
    let readable = File::open(place.root("a.txt")).is_ok();
    assert_eq!(place.files().find("/a.txt").unwrap().is_some(), readable);
}

#[test]
fn the_root_is_a_folder_or_a_link_to_one() {
    let place = Place::new();
    place.write("sub/a.txt", "a");
    symlink("root", place.0.join("link")).unwrap();
    let files = Files::open(Some(&place.0.join("link"))).unwrap();
    assert_eq!(read(&files, "/sub/a.txt").as_deref(), Some("a"));
    // It is opened once: what is called so later is something else.
    fs::rename(place.root(""), place.0.join("moved")).unwrap();
    assert_eq!(read(&files, "/sub/a.txt").as_deref(), Some("a"));
    let made = Command::new("mkfifo").arg(place.0.join("fifo")).status().unwrap();
    assert!(made.success());
    for name in ["secret.txt", "nothing", "link", "fifo", "secret.txt/"] {
        let path = place.0.join(name);
        match Files::open(Some(&path)).err().unwrap() {
            Error::Root { path: told, .. } => assert_eq!(told, path),
            error => panic!("{error}"),
        }
    }
}

#[test]
fn a_file_that_loses_its_end_is_an_error_and_one_that_grows_keeps_its_length() {
    let place = Place::new();
    place.write("a.txt", "0123456789");
    let found = place.files().find("/a.txt").unwrap().unwrap();
    let FileBody::Disk(mut file) = found.body else { panic!() };
    assert_eq!(file.next_piece(4).unwrap(), "0123");
    assert_eq!(file.next_piece(0).unwrap(), "");
    let mut writer = File::options().write(true).open(place.root("a.txt")).unwrap();
    writer.set_len(6).unwrap();
    assert_eq!(file.next_piece(4).unwrap(), "45");
    assert_eq!(file.next_piece(4).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(file.remaining(), 4);
    writer.write_all(b"0123456789ABCDEF").unwrap();
    assert_eq!(file.next_piece(100).unwrap(), "6789");
    assert_eq!(file.next_piece(100).unwrap(), "");
}

#[test]
fn a_file_larger_than_memory_is_read_in_pieces() {
    let place = Place::new();
    let length = 1 << 40;
    File::create(place.root("large")).unwrap().set_len(length).unwrap();
    let found = place.files().find("/large").unwrap().unwrap();
    let FileBody::Disk(mut file) = found.body else { panic!() };
    assert_eq!(found.length, length);
    assert_eq!(file.next_piece(65_536).unwrap().len(), 65_536);
    assert_eq!(file.remaining(), length - 65_536);
}

#[test]
fn a_tag_changes_with_length_time_and_inode_and_with_nothing_else() {
    let place = Place::new();
    let files = place.files();
    let write = |name: &str, content: &str, nanos: u64| {
        place.write(name, content);
        let time = UNIX_EPOCH + Duration::from_secs(1 << 30) + Duration::from_nanos(nanos);
        let file = File::options().write(true).open(place.root(name)).unwrap();
        file.set_modified(time).unwrap();
    };
    let mut tags = Vec::new();
    for (content, nanos) in [("a", 0), ("ab", 0), ("ab", 1000), ("ab", 1_000_000_000)] {
        write("a.txt", content, nanos);
        tags.push(files.find("/a.txt").unwrap().unwrap().etag);
        assert_eq!(files.find("/a.txt").unwrap().unwrap().etag, *tags.last().unwrap());
    }
    write("b.txt", "xy", 1_000_000_000);
    fs::rename(place.root("b.txt"), place.root("a.txt")).unwrap();
    tags.push(files.find("/a.txt").unwrap().unwrap().etag);
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 5);
}

/// One thread swaps a folder for a link to the outside, again and again, while the other
/// asks for what has the same path in both.
#[test]
fn a_folder_that_becomes_a_link_is_no_way_out() {
    let place = Place::new();
    place.write("sub/secret.txt", "inside");
    symlink("..", place.root("link")).unwrap();
    let files = place.files();
    let swap = |from: &str, to: &str| fs::rename(place.root(from), place.root(to)).unwrap();
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            for _ in 0..1000 {
                swap("sub", "kept");
                swap("link", "sub");
                swap("sub", "link");
                swap("kept", "sub");
            }
        });
        while !swapper.is_finished() {
            assert_ne!(read(&files, "/sub/secret.txt").as_deref(), Some("secret"));
        }
    });
}
