//! Unit tests of `files.rs` that need no disk: paths, names, kinds, tags.

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
