//! From the path of a request to a file: the built-in page, or a folder (`Config::root`).
//!
//! It neither speaks HTTP nor waits for anybody: it finds a file, says what it is, and hands out
//! its bytes in pieces. Methods, conditions and fields of the answer are the caller's.
//!
//! What holds:
//! - A path is percent-decoded once, all its names are checked before the disk is touched, and what
//!   was checked is what is opened. How it is opened is `folder.rs`' business.
//! - An answer has the length that was promised, or its reader is told that it has not.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;

use bytes::Bytes;

use crate::error::Error;
use crate::folder::{DiskFile, Folder, OnDisk};
use crate::percent;

/// What can be had by a path that is no route.
pub(crate) struct Files {
    folder: Option<Folder>,
    /// All of the page; beside a folder, what remains of it.
    built_in: Vec<BuiltIn>,
}

impl Files {
    /// Opens the root folder, which may be reached through links. `None`: only the built-in page.
    ///
    /// # Errors
    /// [`Error::Root`] if it cannot be opened or is no folder.
    pub(crate) fn open(root: Option<&Path>) -> Result<Self, Error> {
        let open =
            |path| Folder::open(path).map_err(|source| Error::Root { path: path.into(), source });
        let folder = root.map(open).transpose()?;
        let built_in = PAGE
            .iter()
            .filter(|(name, _)| folder.is_none() || *name == CLIENT)
            .map(|(name, content)| BuiltIn { name, content, etag: etag(content.len(), content) })
            .collect();
        Ok(Self { folder, built_in })
    }

    /// The file at `path`: a request target up to its `?`, still percent-encoded.
    ///
    /// `None`, whatever the reason: answer 404, and nobody learns what is there.
    ///
    /// # Errors
    /// The system has no descriptor left, which says nothing of the file.
    pub(crate) fn find(&self, path: &str) -> io::Result<Option<Found>> {
        let Some(names) = names(path) else { return Ok(None) };
        if let Some(folder) = &self.folder
            && let Some(on_disk) = folder.find(&names)?
        {
            return Ok(Some(Found::on_disk(on_disk, names.last().map_or("", String::as_str))));
        }
        let [name] = names.as_slice() else { return Ok(None) };
        Ok(self.built_in.iter().find(|file| file.name == name).map(BuiltIn::found))
    }
}

/// A file, and what the head of an answer says of it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) content_type: &'static str,
    /// Strong, with its quotes.
    pub(crate) etag: Box<str>,
    /// Bytes.
    pub(crate) length: u64,
    pub(crate) body: FileBody,
}

impl Found {
    fn on_disk(OnDisk { file, version }: OnDisk, name: &str) -> Self {
        let length = file.remaining();
        Self {
            content_type: content_type(name),
            etag: etag(length, version),
            length,
            body: FileBody::Disk(file),
        }
    }
}

/// Where the `length` bytes come from.
#[derive(Debug)]
pub(crate) enum FileBody {
    Memory(Bytes),
    Disk(DiskFile),
}

struct BuiltIn {
    name: &'static str,
    content: &'static [u8],
    etag: Box<str>,
}

impl BuiltIn {
    fn found(&self) -> Found {
        Found {
            content_type: content_type(self.name),
            etag: self.etag.clone(),
            length: self.content.len() as u64,
            body: FileBody::Memory(Bytes::from_static(self.content)),
        }
    }
}

/// The names of a path, decoded: `/sub/caf%C3%A9.txt` is `sub`, `café.txt`. At least one.
///
/// ```text
/// path = 1*( "/" segment ), the last one may be empty and then means INDEX
/// ```
fn names(path: &str) -> Option<Vec<String>> {
    // Cut first, then decode: a `%2F` is no separator to anyone before us, so it is none here.
    let mut segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    if let Some(last) = segments.last_mut().filter(|last| last.is_empty()) {
        *last = INDEX;
    }
    let name = |segment| percent::decode(segment, false).filter(|name| is_servable(name));
    segments.into_iter().map(|segment| name(segment).map(Cow::into_owned)).collect()
}

/// Whether a name may be looked for at all. The dot keeps `.`, `..`, `.git` and `.env` from anyone.
fn is_servable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && !name.contains(|c: char| c.is_control() || c == '/' || c == '\\')
}

/// A strong validator: the length, and a hash of the rest, which must change with the content.
///
/// A hash, because inode numbers are nobody's business (CVE-2003-1418). Another compiler's hash may
/// differ; then a browser fetches once more. A file that is changed twice within one tick of its
/// file system's clock and keeps its length keeps its tag: replace files by renaming.
fn etag(length: impl std::fmt::LowerHex, version: impl Hash) -> Box<str> {
    let mut hasher = DefaultHasher::new();
    version.hash(&mut hasher);
    format!("\"{length:x}-{:016x}\"", hasher.finish()).into()
}

/// By extension. The `text` kinds say their charset; JSON has none to say and XML says its own.
#[rustfmt::skip]
fn content_type(name: &str) -> &'static str {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    match extension.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css"          => "text/css; charset=utf-8",
        "js" | "mjs"   => "text/javascript; charset=utf-8",
        "txt" | "ts"   => "text/plain; charset=utf-8",
        "md"           => "text/markdown; charset=utf-8",
        "csv"          => "text/csv; charset=utf-8",
        "vtt"          => "text/vtt; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest"  => "application/manifest+json",
        "xml"          => "application/xml",
        "svg"          => "image/svg+xml",
        "png"          => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif"          => "image/gif",
        "webp"         => "image/webp",
        "avif"         => "image/avif",
        "ico"          => "image/x-icon",
        "woff"         => "font/woff",
        "woff2"        => "font/woff2",
        "ttf"          => "font/ttf",
        "mp3"          => "audio/mpeg",
        "ogg"          => "audio/ogg",
        "mp4"          => "video/mp4",
        "webm"         => "video/webm",
        "wasm"         => "application/wasm",
        "pdf"          => "application/pdf",
        _              => "application/octet-stream",
    }
}

/// What a path that ends in a slash stands for.
const INDEX: &str = "index.html";

/// The client library: every page wants it, so it is there even beside a folder without it.
const CLIENT: &str = "pousse.js";

const PAGE: [(&str, &[u8]); 9] = [
    (INDEX, include_bytes!("page/index.html")),
    ("favicon.svg", include_bytes!("page/favicon.svg")),
    ("style.css", include_bytes!("page/style.css")),
    ("texts.js", include_bytes!("page/texts.js")),
    ("chat.js", include_bytes!("page/chat.js")),
    ("lab.js", include_bytes!("page/lab.js")),
    ("diagram.js", include_bytes!("page/diagram.js")),
    ("pousse.d.ts", include_bytes!("page/pousse.d.ts")),
    (CLIENT, include_bytes!("page/pousse.js")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_once_and_cut_at_its_slashes() {
        for (path, wanted) in [
            ("/", "index.html"),
            ("/a.txt", "a.txt"),
            ("/sub/", "sub|index.html"),
            ("/sub/a/b", "sub|a|b"),
            ("/%61%2Etxt", "a.txt"),
            ("/caf%C3%A9.txt", "café.txt"),
            ("/caf%c3%a9.txt", "café.txt"),
            ("/café.txt", "café.txt"),
            ("/a%20b+c", "a b+c"),
            ("/a%3Fb%23c", "a?b#c"),
            ("/%252e", "%2e"),
            ("/%252e%252e%252f", "%2e%2e%2f"),
            ("/a..b/c.", "a..b|c."),
            ("/C:/boot.ini", "C:|boot.ini"),
            ("/index.html/", "index.html|index.html"),
        ] {
            assert_eq!(names(path).unwrap_or_default().join("|"), wanted, "{path}");
        }
    }

    #[rustfmt::skip]
    pub(super) const REFUSED: &[&str] = &[
        // No path, and no name between slashes.
        "", "a.txt", "*", "http://host/a.txt", "//", "//a.txt", "/sub//a.txt", "/sub//", "///",
        // Up, by every spelling; and what begins with a dot.
        "/..", "/../", "/../a.txt", "/sub/../a.txt", "/sub/..", "/.", "/./a.txt", "/sub/./a.txt",
        "/%2e%2e/a.txt", "/%2E%2E/a.txt", "/.%2e/a.txt", "/%2e./a.txt", "/%2e", "/%2e/a.txt",
        "/..%2f", "/..%2fa.txt", "/..%2Fa.txt", "/%2e%2e%2fa.txt", "/sub%2fa.txt", "/%2fetc/passwd",
        "/sub/..%2f..%2fa.txt", "/%2f", "/%2f%2f", "/...", "/....//a.txt", "/..;/a.txt",
        "/.git/config", "/%2egit/config", "/sub/.env", "/.well-known/x", "/.htaccess",
        "/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/sub/../../secret.txt",
        "/sub/..%2f..%2fsecret.txt", "/%c0%ae%c0%ae/secret.txt", "/sub/%2e%2e/a.txt", "/sub%2fb",
        // Backslashes and control characters, C1 and DEL among them.
        "/a\\b", "/a%5cb", "/a%5Cb", "/..\\a.txt", "/..%5ca.txt", "/%5c%5chost%5cshare", "/sub%5c",
        "/a%00b", "/a.txt%00", "/%00", "/a.txt%00.html", "/a%0ab", "/a%0d%0ab", "/a%09b", "/a%1fb",
        "/a%7fb", "/a%C2%85b", "/a\tb", "/a\u{7f}b",
        // Bad percent encoding.
        "/%", "/a%", "/a%4", "/%zz", "/%4g", "/%g4", "/%+1", "/% 1", "/%-1", "/%u002e", "/%%61",
        "/%\u{e9}1", "/a%/b", "/a%2/e",
        // Not UTF-8: alone, overlong (`.`, `/`, NUL), a surrogate, beyond U+10FFFF, cut off.
        "/%ff", "/%80", "/%c0%ae%c0%ae/a.txt", "/%c0%af", "/%e0%80%af", "/%f0%80%80%af", "/%c0%80",
        "/%ed%a0%80", "/%f4%90%80%80", "/caf%C3", "/%C3/%A9", "/%fe%ff",
    ];

    #[test]
    fn a_path_that_means_no_single_file_is_refused_before_the_disk_is_touched() {
        for path in REFUSED {
            assert_eq!(names(path), None, "{path:?}");
        }
    }

    #[test]
    fn without_a_folder_there_is_the_page_and_nothing_else() {
        fn is_send<T: Send>() {}
        is_send::<(Files, Found)>();
        let files = Files::open(None).unwrap();
        for (path, name, kind) in [
            ("/", "index.html", "text/html; charset=utf-8"),
            ("/index.html", "index.html", "text/html; charset=utf-8"),
            ("/style.css", "style.css", "text/css; charset=utf-8"),
            ("/chat.js", "chat.js", "text/javascript; charset=utf-8"),
            ("/%70ousse.js", "pousse.js", "text/javascript; charset=utf-8"),
        ] {
            let found = files.find(path).unwrap().unwrap();
            let (_, content) = PAGE.iter().find(|(known, _)| *known == name).unwrap();
            assert_eq!(found.content_type, kind, "{path}");
            assert_eq!(found.length, content.len() as u64, "{path}");
            assert!(matches!(found.body, FileBody::Memory(bytes) if bytes == content), "{path}");
            assert_eq!(found.etag, files.find(path).unwrap().unwrap().etag, "{path}");
        }
        assert_ne!(
            files.find("/chat.js").unwrap().unwrap().etag,
            files.find("/pousse.js").unwrap().unwrap().etag
        );
        for path in ["/index.html/", "/sub/", "/sub/pousse.js", "/INDEX.HTML", "/Cargo.toml"] {
            assert!(files.find(path).unwrap().is_none(), "{path}");
        }
    }

    #[test]
    fn a_kind_is_known_by_the_last_extension_in_any_case() {
        for (name, kind) in [
            ("a.HTML", "text/html; charset=utf-8"),
            ("a.html.txt", "text/plain; charset=utf-8"),
            ("a.min.js", "text/javascript; charset=utf-8"),
            ("a.json", "application/json"),
            ("a.svg", "image/svg+xml"),
            ("a.exe", "application/octet-stream"),
            ("a.", "application/octet-stream"),
            ("html", "application/octet-stream"),
        ] {
            assert_eq!(content_type(name), kind, "{name}");
        }
    }

    #[test]
    fn a_tag_is_strong_and_quoted() {
        let etag = etag(26, "abc");
        let inside = etag.strip_prefix("\"1a-").and_then(|rest| rest.strip_suffix('"')).unwrap();
        assert!(inside.len() == 16 && inside.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }

    #[cfg(not(feature = "files"))]
    #[test]
    fn a_build_without_folders_says_so() {
        let error = Files::open(Some(Path::new("/"))).err().unwrap();
        assert!(matches!(error, Error::Root { .. }), "{error}");
    }
}

#[cfg(test)]
#[cfg(feature = "files")] // Apart: clippy knows only a bare `cfg(test)` as a test.
mod tests_on_disk {
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
}
