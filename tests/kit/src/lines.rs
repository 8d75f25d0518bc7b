//! A logger that keeps the lines that a test asks for. A test program has one, as a process has.

#![expect(clippy::unwrap_used, reason = "a test may end where it is wrong")]

use std::sync::Mutex;

use log::{LevelFilter, Metadata, Record};

/// The lines that were logged and are wanted.
pub struct Lines {
    is_wanted: fn(&str) -> bool,
    kept: Mutex<Vec<String>>,
}

impl Lines {
    /// Nothing is kept yet.
    pub const fn of(is_wanted: fn(&str) -> bool) -> Self {
        Self { is_wanted, kept: Mutex::new(Vec::new()) }
    }

    /// From here on it is the process' logger, for lines of this level and above.
    pub fn keep(&'static self, level: LevelFilter) {
        log::set_logger(self).unwrap();
        log::set_max_level(level);
    }

    /// What was kept until now.
    pub fn kept(&self) -> Vec<String> {
        self.kept.lock().unwrap().clone()
    }
}

impl log::Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = record.args().to_string();
        if (self.is_wanted)(&line) {
            self.kept.lock().unwrap().push(line);
        }
    }

    fn flush(&self) {}
}
