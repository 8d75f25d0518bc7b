//! What a path may not lead to, and files that are none, change while they are sent, or never end.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::peer::{Peer, ms};
use crate::support::now;
use crate::target::Target;

const SECRET: &str = "this is nobody's business";

/// A folder `root` with a page in it, and a secret beside it; gone when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("pousse-hostile-{}-{number}", std::process::id());
        let folder = Self(std::env::temp_dir().join(name));
        fs::create_dir_all(folder.path("sub")).unwrap();
        fs::create_dir_all(folder.path(".git")).unwrap();
        fs::write(folder.path("index.html"), "a page").unwrap();
        fs::write(folder.path("sub/page.txt"), "a page").unwrap();
        fs::write(folder.path(".env"), SECRET).unwrap();
        fs::write(folder.path(".git/config"), SECRET).unwrap();
        fs::write(folder.0.join("secret.txt"), SECRET).unwrap();
        folder
    }

    /// A path beneath the root.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join("root").join(name)
    }

    fn target(&self) -> Target {
        Target::start(&["--root", self.path("").to_str().unwrap()])
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is in a folder for what may be left.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Ways up to a file and around what is looked for, by every spelling.
fn ways_up() -> Vec<String> {
    let dots = [
        "..",
        "%2e%2e",
        "%2E%2E",
        ".%2e",
        "%2e.",
        "%252e%252e",
        "%25252e%25252e",
        "%c0%ae%c0%ae",
        "%e0%80%ae%e0%80%ae",
        "%f0%80%80%ae%f0%80%80%ae",
        "%uff0e%uff0e",
        "%u002e%u002e",
        "..%00",
        "..%0d",
        "..;",
        "...",
        "....",
        "..%20",
        ".%00.",
        "%EF%BC%8E%EF%BC%8E",
        "%2e%2e%09",
        "..%ff",
    ];
    let slashes = [
        "/",
        "//",
        "%2f",
        "%2F",
        "%5c",
        "%5C",
        "%252f",
        "%255c",
        "%c0%af",
        "%e0%80%af",
        "%c1%9c",
        "%u2215",
        "%EF%BC%8F",
        "/./",
        "/%2e/",
        "%00/",
        "/%00",
        "%2f%2f",
    ];
    let mut ways = Vec::new();
    for dot in dots {
        for slash in slashes {
            ways.push(format!("/{dot}{slash}secret.txt"));
            ways.push(format!("/sub/{dot}{slash}{dot}{slash}secret.txt"));
            ways.push(format!("/{dot}{slash}root{slash}index.html"));
        }
    }
    ways
}

/// Other names for what is there and for what is not to be had.
const OTHER_WAYS: &[&str] = &[
    "/etc/passwd",
    "//etc/passwd",
    "/%2fetc/passwd",
    "/%2f%2fetc%2fpasswd",
    "/%5cetc%5cpasswd",
    "/file:///etc/passwd",
    "/file%3a%2f%2f%2fetc%2fpasswd",
    "/C:/Windows/win.ini",
    "/c:%5cboot.ini",
    "/C:",
    "/C%3a/",
    "/%5c%5c.%5cC:%5c",
    "/%5c%5c%3f%5cC:%5cx",
    "//localhost/c$/x",
    "/sub/page.txt::$DATA",
    "/sub/page.txt%3a%3a$DATA",
    "/AUX",
    "/con.txt",
    "/sub%5cpage.txt",
    "/.env",
    "/%2eenv",
    "/.%65nv",
    "/.git/config",
    "/%2egit/config",
    "/sub/../.env",
    "/.git/",
    "/.git",
    "/.",
    "/..",
    "/./",
    "/../",
    "/%2e",
    "/%2e%2e",
    "/sub/.",
    "/sub/..",
    "/sub/./page.txt",
    "/sub",
    "/sub/",
    "/sub//page.txt",
    "//sub/page.txt",
    "/sub/page.txt/",
    "/sub/page.txt//",
    "/sub/page.txt/.",
    "/index.html/",
    "/index.html/sub/page.txt",
    "/index.html%00",
    "/index.html%00.txt",
    "/%00index.html",
    "/index.html%20",
    "/index.html.",
    "/INDEX.HTML",
    "/index.html;x",
    "/index%2ehtml%2f",
    "/proc/self/environ",
    "/dev/stdin",
    "/~root/",
    "/~",
    "/*",
    "/?",
    "/%",
    "/%2",
    "/%zz",
    "/%80",
    "/~/secret.txt",
    "/root/secret.txt",
    "/$HOME",
    "/`id`",
    "/;id",
    "/|id",
];

/// Those of them that lead to the page after all, in a way that is none around anything.
const HARMLESS: &[&str] = &["/?"];

#[test]
fn no_spelling_of_a_path_leads_out_of_the_root_or_to_what_begins_with_a_dot() {
    let folder = Folder::new();
    let mut target = folder.target();
    target.survives(|target| walk(target));
}

#[test]
fn no_spelling_of_a_path_leads_anywhere_from_the_built_in_page() {
    let mut target = Target::start(&[]);
    target.survives(|target| walk(target));
}

fn walk(target: &Target) {
    let mut peer = Peer::connect(&target.door);
    let ways = ways_up().into_iter().chain(OTHER_WAYS.iter().map(|way| (*way).to_owned()));
    let mut count = 0;
    for way in ways {
        count += 1;
        peer.says(format!("GET {way} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let answer = peer.answer();
        let text = String::from_utf8_lossy(&answer.content).into_owned();
        assert!(!text.contains(SECRET) && !text.contains("root:"), "{way}: {answer}");
        let expected = if HARMLESS.contains(&&*way) { 200 } else { 404 };
        assert!(matches!(answer.status, 400 | 404) || answer.status == expected, "{way}: {answer}");
        if answer.is_last() {
            peer = Peer::connect(&target.door);
        }
        if count % 900 == 0 {
            peer = Peer::connect(&target.door);
        }
    }
    println!("{count} paths");
}

#[test]
fn what_is_no_regular_file_is_not_there_and_nobody_waits_for_it() {
    let folder = Folder::new();
    let secret = folder.0.join("secret.txt");
    symlink(&secret, folder.path("link.txt")).unwrap();
    symlink("../secret.txt", folder.path("relative.txt")).unwrap();
    symlink("index.html", folder.path("inside.txt")).unwrap();
    symlink("loop", folder.path("loop")).unwrap();
    symlink(&folder.0, folder.path("out")).unwrap();
    symlink("sub", folder.path("in")).unwrap();
    symlink("/", folder.path("top")).unwrap();
    symlink("/dev/zero", folder.path("zero")).unwrap();
    symlink("/dev/tty", folder.path("tty")).unwrap();
    symlink("/proc/self/environ", folder.path("environment")).unwrap();
    let made = Command::new("mkfifo").arg(folder.path("fifo")).status();
    let has_fifo = made.is_ok_and(|status| status.success());
    assert!(has_fifo, "mkfifo is part of every Unix");
    // Only root can make one, so it is one more if it can be made.
    let _ = Command::new("mknod").arg(folder.path("device")).args(["c", "1", "5"]).output();
    let _socket = UnixListener::bind(folder.path("socket")).unwrap();
    fs::create_dir(folder.path("folder.txt")).unwrap();
    fs::create_dir(folder.path("sub/index.html")).unwrap();
    let mut target = folder.target();
    target.withstands("what is no file", |target| {
        for _ in 0..40 {
            for name in [
                "link.txt",
                "relative.txt",
                "inside.txt",
                "loop",
                "out/secret.txt",
                "in/page.txt",
                "out/",
                "in/",
                "top/etc/passwd",
                "zero",
                "tty",
                "environment",
                "fifo",
                "device",
                "socket",
                "folder.txt",
                "folder.txt/",
                "sub/",
                "fifo/",
                "fifo/x",
                "device/",
            ] {
                for method in ["GET", "HEAD"] {
                    let mut peer = Peer::connect(&target.door);
                    peer.says(format!("{method} /{name} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
                    assert_eq!(peer.answer_to(method == "HEAD").status, 404, "{name}");
                }
            }
        }
    });
}

#[test]
fn a_file_larger_than_memory_is_sent_in_pieces_and_costs_none() {
    let folder = Folder::new();
    let sparse = fs::File::create(folder.path("huge.bin")).unwrap();
    sparse.set_len(8 << 40).unwrap_or_else(|_| sparse.set_len(8 << 30).unwrap());
    let length = sparse.metadata().unwrap().len();
    let mut target = folder.target();
    target.withstands("a huge file", |target| {
        let mut most = 0;
        let mut peers: Vec<Peer> = (0..10).map(|_| Peer::connect(&target.door)).collect();
        for peer in &mut peers {
            peer.says("GET /huge.bin HTTP/1.1\r\nHost: localhost\r\n\r\n");
        }
        let until = now() + ms(500);
        while now() < until {
            for peer in &mut peers {
                assert!(peer.wire.fill_or_has());
                if peer.wire.unread.starts_with(b"HTTP/1.1") {
                    let head = String::from_utf8_lossy(&peer.wire.unread).into_owned();
                    assert!(head.contains(&format!("Content-Length: {length}\r\n")), "{head}");
                }
                peer.wire.unread.clear();
            }
            most = most.max(target.heap_grown());
        }
        println!("10 who fetch {} GiB: {} KiB of heap more at the most", length >> 30, most >> 10);
        assert!(most < 10 * 320 * 1024, "{most} bytes");
    });
}

#[test]
fn a_file_that_is_cut_short_or_grows_while_it_is_sent_is_never_padded_nor_longer() {
    let folder = Folder::new();
    const LENGTH: u64 = 16 << 20;
    let mut target = folder.target();
    target.survives(|target| {
        for (what, new_length) in [("cut", 0), ("cut in half", LENGTH / 2), ("grown", 2 * LENGTH)] {
            let file = fs::File::create(folder.path("changes.bin")).unwrap();
            file.set_len(LENGTH).unwrap();
            let mut peer = Peer::connect(&target.door);
            peer.says("GET /changes.bin HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            assert!(peer.wire.fill_or_has());
            file.set_len(new_length).unwrap();
            let bytes = peer.ends();
            let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            let content = (bytes.len() - head) as u64;
            println!("{what}: {content} bytes of {LENGTH}");
            match new_length > LENGTH {
                true => assert_eq!(content, LENGTH, "{what}"),
                false => assert!(content < LENGTH, "{what}: {content} bytes"),
            }
        }
    });
    assert!(target.log().contains("event=file_failed"));
}

#[test]
fn a_range_is_not_looked_at_however_it_is_written() {
    let folder = Folder::new();
    let mut target = folder.target();
    target.survives(|target| {
        let many = vec!["0-"; 1300].join(",");
        for range in [
            "bytes=0-1",
            "bytes=-1",
            "bytes=5-",
            "bytes=99-",
            "bytes=0-18446744073709551616",
            "bytes=-9223372036854775808",
            "bytes=0-,0-,0-,0-",
            "bytes=",
            "bytes=x",
            "lines=1",
            &format!("bytes={many}"),
        ] {
            for condition in ["", "If-Range: \"x\"\r\n"] {
                let answer = target.asks(format!(
                    "GET /sub/page.txt HTTP/1.1\r\nHost: localhost\r\nRange: {range}\r\n\
                     {condition}\r\n"
                ));
                assert_eq!((answer.status, &answer.content[..]), (200, &b"a page"[..]), "{range}");
            }
        }
    });
}
