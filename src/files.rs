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
mod tests;

#[cfg(test)]
#[cfg(feature = "files")] // Apart: clippy knows only a bare `cfg(test)` as a test.
mod tests_on_disk;
