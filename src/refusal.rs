//! Why the program ends before it serves, or instead: a sentence, and an exit code.

use std::io;

use pousse::Error;

// Exit codes, those of `sysexits.h`.
/// The command line is wrong.
const USAGE: u8 = 64;
/// An address cannot be listened on.
const UNAVAILABLE: u8 = 69;
/// Something failed that no setting can mend.
pub(crate) const INTERNAL: u8 = 70;
/// The file, the environment, or what a setting names is wrong.
const CONFIG: u8 = 78;

/// Why the program ends before it serves.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The exit code.
    pub(crate) code: u8,
    /// Which setting, what was given, what is wanted.
    pub(crate) sentence: String,
}

impl Refusal {
    pub(crate) fn usage(sentence: String) -> Self {
        Self { code: USAGE, sentence }
    }

    pub(crate) fn config(sentence: String) -> Self {
        Self { code: CONFIG, sentence }
    }

    pub(crate) fn internal(what: &str, error: &io::Error) -> Self {
        Self { code: INTERNAL, sentence: format!("{what}: {error}") }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::Bind { .. } => UNAVAILABLE,
            Error::Config(_) | Error::Root { .. } | Error::Tls(_) => CONFIG,
            _ => INTERNAL,
        };
        Self { code, sentence: error.to_string() }
    }
}
