//! The token file: by which token a client shows who it is.
//!
//! ```text
//! # NAME TOKEN, one a line
//! alice  ptok_3f0c9a2b71d84e6f
//! backup iX2c5sMkr0Gq7Tz1VbNw  # the nightly job
//! ```
//!
//! Tokens are kept as SHA-256 and looked for by comparing with all of them, to the last byte: how
//! long it takes says nothing of what is there. No token is ever printed, not even a wrong line of
//! the file. What a request says of itself is `bearer.rs`' business.
//!
//! Invariant: a name has one grant for as long as the program runs, however often the file is read
//! again; so whoever is connected stays who they are, and may go on while the name is in the file.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pousse::Grant;
use sha2::{Digest, Sha256};

/// The shortest token, in characters: 16 of base64 are 96 bits.
const TOKEN_CHARS_MIN: usize = 16;

/// The longest name, in characters. It stands in log lines.
const NAME_CHARS_MAX: usize = 64;

/// The longest file, about two thousand names: the loop waits while it is read, and every token
/// that comes is compared with all of it.
const FILE_BYTES_MAX: usize = 64 << 10;

/// A token as it is kept.
type Hash = [u8; 32];

/// A file that was read.
pub(crate) struct Tokens {
    lines: Vec<Line>,
    is_public: bool,
}

struct Line {
    name: String,
    hash: Hash,
}

impl Tokens {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong, with file and line, and never with a token.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        Self::read(path, false)
    }

    /// Reads it while the server runs: then a file of no names is one that takes back all of them.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub(crate) fn load_again(path: &Path) -> Result<Self, String> {
        Self::read(path, true)
    }

    fn read(path: &Path, may_be_empty: bool) -> Result<Self, String> {
        let shown = path.display().to_string().escape_debug().to_string();
        let cannot = |error| format!("cannot read the token file {shown}: {error}");
        let metadata = fs::metadata(path).map_err(|error| cannot(error.to_string()))?;
        if !metadata.is_file() {
            // To open a pipe would wait for whoever writes to it.
            return Err(cannot("it is no regular file".into()));
        }
        let mut text = String::new();
        let file = File::open(path).map_err(|error| cannot(error.to_string()))?;
        file.take(FILE_BYTES_MAX as u64 + 1)
            .read_to_string(&mut text)
            .map_err(|error| cannot(error.to_string()))?;
        if text.len() > FILE_BYTES_MAX {
            return Err(cannot(format!("it has over {FILE_BYTES_MAX} bytes")));
        }
        let is_nobody = text.lines().all(|line| line.trim().is_empty() || is_comment(line));
        let lines = match may_be_empty && is_nobody {
            true => Vec::new(),
            false => parse(&shown, &text)?,
        };
        Ok(Self { lines, is_public: metadata.permissions().mode() & 0o004 != 0 })
    }

    /// How many names it has.
    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// What the log says of a file that everyone can read.
pub(crate) fn warn_if_public(is_public: bool) {
    if is_public {
        let hint = "everyone on this machine can read the token file: chmod 600 it";
        log::warn!("event=token_file hint={hint:?}");
    }
}

fn parse(file: &str, text: &str) -> Result<Vec<Line>, String> {
    let mut lines: Vec<(usize, Line)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let mut words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
        let Some(name) = words.next() else { continue };
        let wrong = |what: &str| Err(format!("{file}:{number}: {what}"));
        let (Some(token), None) = (words.next(), words.next()) else {
            return wrong("a line is NAME TOKEN, with a space between them");
        };
        if !is_name(name) {
            return wrong("a name has 1 to 64 letters, digits and the characters . _ - @");
        }
        if !is_token(token) {
            return wrong("a token has letters, digits and - . _ ~ + /, and = at its end");
        }
        if token.len() < TOKEN_CHARS_MIN {
            return wrong("a token has at least 16 characters: openssl rand -hex 16 makes one");
        }
        let fresh = Line { name: name.into(), hash: hash(token) };
        for (before, other) in &lines {
            if other.name == fresh.name {
                return wrong(&format!("the name {name} stands in line {before} already"));
            }
            if other.hash == fresh.hash {
                return wrong(&format!("this token stands in line {before} already"));
            }
        }
        lines.push((number, fresh));
    }
    match lines.is_empty() {
        true => Err(format!("{file}: nobody is named; a line is NAME TOKEN")),
        false => Ok(lines.into_iter().map(|(_, line)| line).collect()),
    }
}

fn is_name(text: &str) -> bool {
    let is_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    text.len() <= NAME_CHARS_MAX && text.bytes().all(is_byte)
}

/// Whether it can stand behind `Bearer`: the token68 of RFC 9110 §11.2.
pub(crate) fn is_token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let is_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    !body.is_empty() && body.bytes().all(is_byte)
}

fn hash(token: &str) -> Hash {
    Sha256::digest(token.as_bytes()).into()
}

/// Which of these it is. Every one is compared, and each to its end.
fn find<'a>(hash: &Hash, all: impl Iterator<Item = &'a Hash>) -> Option<usize> {
    // One more than its place; a place is found once at most, as no two are the same.
    let mut found = 0;
    for (at, other) in all.enumerate() {
        let differs = hash.iter().zip(other).fold(0, |differs, (a, b)| black_box(differs | a ^ b));
        found |= (at + 1) * usize::from(black_box(differs) == 0);
    }
    found.checked_sub(1)
}

/// Everyone who is or ever was in the file, by their grant.
pub(crate) struct Names {
    tokens: Tokens,
    all: Vec<Name>,
}

struct Name {
    name: String,
    /// It is in the file.
    is_listed: bool,
    subscribes: u64,
    publishes: u64,
}

impl Names {
    pub(crate) fn new(tokens: Tokens) -> Self {
        let mut names =
            Self { tokens: Tokens { lines: Vec::new(), is_public: false }, all: vec![] };
        names.replace(tokens);
        names
    }

    /// Puts a file that was read again in place of the one before.
    pub(crate) fn replace(&mut self, tokens: Tokens) {
        self.all.iter_mut().for_each(|it| it.is_listed = false);
        for Line { name, .. } in &tokens.lines {
            match self.all.iter_mut().find(|it| it.name == *name) {
                Some(known) => known.is_listed = true,
                None => self.all.push(Name {
                    name: name.clone(),
                    is_listed: true,
                    subscribes: 0,
                    publishes: 0,
                }),
            }
        }
        self.tokens = tokens;
    }

    /// Whether everyone on this machine can read the file.
    pub(crate) fn is_public(&self) -> bool {
        self.tokens.is_public
    }

    /// Whose token it is.
    pub(crate) fn find(&self, token: &str) -> Option<Grant> {
        let at = find(&hash(token), self.tokens.lines.iter().map(|line| &line.hash))?;
        let name = &self.tokens.lines.get(at)?.name;
        let grant = self.all.iter().position(|it| it.name == *name)?;
        Some(Grant(grant as u64))
    }

    /// Whether the name is in the file still.
    pub(crate) fn is_listed(&self, grant: Grant) -> bool {
        self.get(grant).is_some_and(|it| it.is_listed)
    }

    pub(crate) fn name(&self, grant: Grant) -> Option<&str> {
        self.get(grant).map(|it| it.name.as_str())
    }

    pub(crate) fn count_subscribe(&mut self, grant: Grant) {
        self.at(grant).into_iter().for_each(|name| name.subscribes += 1);
    }

    pub(crate) fn count_publish(&mut self, grant: Grant) {
        self.at(grant).into_iter().for_each(|name| name.publishes += 1);
    }

    /// How often each name was allowed to read and to publish.
    pub(crate) fn uses(&self) -> impl Iterator<Item = (&str, u64, u64)> {
        self.all.iter().map(|it| (it.name.as_str(), it.subscribes, it.publishes))
    }

    fn get(&self, grant: Grant) -> Option<&Name> {
        self.all.get(usize::try_from(grant.0).ok()?)
    }

    fn at(&mut self, grant: Grant) -> Option<&mut Name> {
        self.all.get_mut(usize::try_from(grant.0).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbb";

    fn read(text: &str) -> Tokens {
        Tokens { lines: parse("f", text).unwrap(), is_public: false }
    }

    #[test]
    fn a_line_is_a_name_and_a_token() {
        let text = format!("# all\r\n\r\n alice\t{A} # her\r\nbob.b_b-b@b {B}==\n");
        let lines = parse("f", &text).unwrap();
        let names: Vec<&str> = lines.iter().map(|line| line.name.as_str()).collect();
        assert_eq!(names, ["alice", "bob.b_b-b@b"]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_without_the_token() {
        for (text, expected) in [
            ("", "f: nobody is named"),
            ("# none\n\n", "f: nobody is named"),
            ("alice", "f:1: a line is NAME TOKEN"),
            ("\nalice one two", "f:2: a line is NAME TOKEN"),
            ("alice # aaaaaaaaaaaaaaaaaaaa", "f:1: a line is NAME TOKEN"),
            ("a\"b aaaaaaaaaaaaaaaa", "f:1: a name has 1 to 64"),
            ("alice aaaaaaaaaaaaaaa", "f:1: a token has at least 16"),
            ("alice aaaaaaaaaaaaaaa\u{e9}", "f:1: a token has letters"),
            ("alice aaaaaaaa=aaaaaaaa", "f:1: a token has letters"),
            ("alice ================", "f:1: a token has letters"),
            ("alice aaaaaaaa\"aaaaaaaa", "f:1: a token has letters"),
            ("a aaaaaaaaaaaaaaaa\na bbbbbbbbbbbbbbbb", "f:2: the name a stands in line 1"),
            ("a aaaaaaaaaaaaaaaa\n\nb aaaaaaaaaaaaaaaa", "f:3: this token stands in line 1"),
        ] {
            let Err(told) = parse("f", text) else { panic!("{text:?} is taken") };
            assert!(told.starts_with(expected), "{text:?}: {told}");
            assert!(!told.contains("aaaa") && !told.contains("bbbb"), "{told}");
        }
    }

    #[test]
    fn a_token_is_compared_with_all_whichever_it_is() {
        let all: Vec<Hash> = (0..50).map(|n| hash(&n.to_string())).collect();
        for (token, expected) in [("0", Some(0)), ("17", Some(17)), ("49", Some(49)), ("x", None)] {
            let mut compared = 0;
            let found = find(&hash(token), all.iter().inspect(|_| compared += 1));
            assert_eq!((found, compared), (expected, 50), "{token}");
        }
        let mut near = hash("17");
        near[31] ^= 1;
        assert_eq!(find(&near, all.iter()), None, "the last byte counts as well");
    }

    #[test]
    fn a_name_keeps_its_grant_however_the_file_changes() {
        let mut names = Names::new(read(&format!("alice {A}\nbob {B}")));
        let (alice, bob) = (names.find(A).unwrap(), names.find(B).unwrap());
        assert_eq!((names.name(alice), names.name(bob)), (Some("alice"), Some("bob")));
        names.count_publish(bob);
        names.replace(read(&format!("carol {A}\nbob cccccccccccccccc")));
        assert_eq!(names.find(B), None);
        assert_eq!(names.find("cccccccccccccccc"), Some(bob), "a new token, the same bob");
        assert_eq!(names.name(names.find(A).unwrap()), Some("carol"));
        assert!(!names.is_listed(alice) && names.is_listed(bob));
        assert!(!names.is_listed(Grant(99)));
        names.replace(read(&format!("alice {A}")));
        assert_eq!((names.find(A), names.is_listed(bob)), (Some(alice), false));
        let uses: Vec<_> = names.uses().collect();
        assert_eq!(uses, [("alice", 0, 0), ("bob", 0, 1), ("carol", 0, 0)]);
    }
}
