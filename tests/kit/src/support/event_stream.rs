//! The blocks of an event stream (HTML standard §9.2.5), read by someone who wants them tidy: what
//! the standard lets a reader put up with, comments, names it does not know, CR, is refused here.

use std::time::Instant;

use super::Wire;

/// The lines of a block in their order: name and value.
pub type Block = Vec<(String, String)>;

/// Waits for a block. An error says what came instead.
pub fn read(wire: &mut Wire, deadline: Instant) -> Result<Block, String> {
    let end = loop {
        match wire.unread.windows(2).position(|two| two == b"\n\n") {
            Some(end) => break end + 2,
            None => wire.need(wire.unread.len() + 1, deadline)?,
        }
    };
    let bytes = wire.take(end);
    let wrong = || format!("no block: {}", super::show(&bytes));
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong())?;
    let line = |line: &str| {
        let (name, value) = line.split_once(": ").ok_or_else(wrong)?;
        let is_known = matches!(name, "event" | "data" | "id" | "retry");
        let is_tidy = is_known && !value.contains(['\r', '\0']);
        if is_tidy { Ok((name.to_owned(), value.to_owned())) } else { Err(wrong()) }
    };
    text.trim_end_matches('\n').split('\n').map(line).collect()
}

/// A block on one line.
pub fn show(block: &Block) -> String {
    let lines: Vec<String> = block.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    lines.join(" ⏎ ")
}
