//! Log lines on standard error, written so that the loop never waits for whoever reads them.
//!
//! Before each line `poll(2)` is asked whether the descriptor takes bytes right now. If so at most
//! 4 KiB are written, for which POSIX promises room in a pipe; if not the line is counted, and the
//! next one that gets through says how many were lost. `O_NONBLOCK` would be simpler, but it
//! belongs to the open file and not to the process: it would change the terminal of the shell too.
//!
//! ```text
//! 2026-11-23T06:18:54Z info event=log_dropped lines=12
//! 2026-11-23T06:18:54Z info event=closed client=3-1 peer=127.0.0.1:4242 reason=stall
//! 2026-11-23T06:18:55Z warn event=log_suppressed of=refused level=info lines=4711
//! ```
//!
//! Of one event at most [`LINES_MAX`] lines of one level leave in a second, so that a flood of one
//! kind hides no other and fills no disk. The rest are counted, and told of before the first line
//! of a later second, or when the log is flushed.
//!
//! Nothing here rotates, colours or buffers: that is the work of what reads standard error.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Sends the log, and the words of a panic, to standard error from here on.
pub(crate) fn install(level: LevelFilter) {
    let logger = Logger::new(io::stderr(), level);
    // There is one logger in a process and this program installs it once, so this cannot fail.
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
    }
    // The default hook would wait for a reader that has stopped reading.
    std::panic::set_hook(Box::new(|panic| {
        log::error!("event=panic text={:?}", panic.to_string());
    }));
}

struct Logger<Out> {
    out: Out,
    level: LevelFilter,
    /// Lines lost since the last one that got through.
    dropped: AtomicU64,
    rates: Mutex<Rates>,
}

/// How many lines of each event there were in this second.
#[derive(Default)]
struct Rates {
    second: u64,
    events: Vec<Rate>,
}

struct Rate {
    event: String,
    level: Level,
    lines: u32,
    suppressed: u64,
}

/// An event, a level, and how many lines of them were suppressed.
type News = (String, Level, u64);

/// Lines of one event and level in one second.
const LINES_MAX: u32 = 100;

/// Events that are counted apart. There are fewer; what is above counts as one.
const EVENTS_MAX: usize = 64;

/// What stands for events that are not counted apart, and for lines of other crates.
const OTHER: &str = "other";

impl Rates {
    /// Whether one more line of this event may leave in this second.
    fn allows(&mut self, event: &str, level: Level) -> bool {
        let is_it = |rate: &Rate| rate.event == event && rate.level == level;
        let at = self.events.iter().position(is_it);
        let at = at.or_else(|| match self.events.len() < EVENTS_MAX {
            true => Some(self.events.len()),
            false => self.events.iter().position(|rate| rate.event == OTHER),
        });
        let at = at.unwrap_or(self.events.len());
        if at == self.events.len() {
            let event = if at < EVENTS_MAX { event } else { OTHER };
            self.events.push(Rate { event: event.to_owned(), level, lines: 0, suppressed: 0 });
        }
        let Some(rate) = self.events.get_mut(at) else { return true };
        let is_allowed = rate.lines < LINES_MAX;
        match is_allowed {
            true => rate.lines += 1,
            false => rate.suppressed += 1,
        }
        is_allowed
    }

    /// In another second than the last time: what was suppressed until then.
    fn begin(&mut self, second: u64) -> Vec<News> {
        if self.second == second {
            return Vec::new();
        }
        self.second = second;
        self.events.iter_mut().for_each(|rate| rate.lines = 0);
        self.news()
    }

    /// What was suppressed since the last time.
    fn news(&mut self) -> Vec<News> {
        let events = self.events.iter_mut().filter(|rate| rate.suppressed > 0);
        events
            .map(|rate| (rate.event.clone(), rate.level, std::mem::take(&mut rate.suppressed)))
            .collect()
    }
}

/// The word of an event; lines of other crates have none.
fn event_of(message: &str) -> &str {
    let word = message.strip_prefix("event=").and_then(|rest| rest.split(' ').next());
    word.filter(|word| word.len() <= 32).unwrap_or(OTHER)
}

impl<Out: AsFd + Send + Sync> Log for Logger<Out> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let own = metadata.target().split("::").next() == Some("pousse");
        metadata.level() <= if own { self.level } else { self.level.min(LevelFilter::Warn) }
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.tell(now(), record.level(), &record.args().to_string());
        }
    }

    fn flush(&self) {
        if let Ok(mut rates) = self.rates.try_lock() {
            self.tell_news(now(), rates.news());
        }
    }
}

impl<Out: AsFd> Logger<Out> {
    fn new(out: Out, level: LevelFilter) -> Self {
        Self { out, level, dropped: AtomicU64::new(0), rates: Mutex::default() }
    }

    fn tell(&self, now: u64, level: Level, message: &str) {
        // Nobody is waited for, another thread that logs neither: then the line just leaves.
        if let Ok(mut rates) = self.rates.try_lock() {
            self.tell_news(now, rates.begin(now));
            if !rates.allows(event_of(message), level) {
                return;
            }
        }
        self.write(&line(now, level, &message));
    }

    fn tell_news(&self, now: u64, news: Vec<News>) {
        for (event, level, lines) in news {
            let level = level.as_str().to_ascii_lowercase();
            let text = format_args!("event=log_suppressed of={event} level={level} lines={lines}");
            self.write(&line(now, Level::Warn, &text));
        }
    }

    fn write(&self, line: &str) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        let mut text = String::new();
        if dropped > 0 {
            text =
                self::line(now(), Level::Warn, &format_args!("event=log_dropped lines={dropped}"));
        }
        text.push_str(line);
        cut(&mut text, BYTES_MAX);
        if !write_if_ready(&self.out, text.as_bytes()) {
            self.dropped.fetch_add(dropped + 1, Ordering::Relaxed);
        }
    }
}

/// Writes if that is possible without waiting; whether it did.
fn write_if_ready(out: impl AsFd, bytes: &[u8]) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(&out, PollFlags::OUT)];
    let ready = poll(&mut fds, Some(&at_once)).is_ok()
        && fds.iter().any(|fd| fd.revents().contains(PollFlags::OUT));
    ready && rustix::io::write(&out, bytes).is_ok_and(|written| written == bytes.len())
}

/// One line of the log. Control characters are escaped, so that a message stays one line and
/// cannot speak to the terminal, whatever it was made of; what looks like a token is not told.
fn line(unix_seconds: u64, level: Level, message: &dyn fmt::Display) -> String {
    let mut line = format!("{} {} ", Utc(unix_seconds), level.as_str().to_ascii_lowercase());
    for character in hide_tokens(&message.to_string()).chars() {
        match character.is_control() {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    line.push('\n');
    line
}

/// Puts stars in place of what stands behind `token=`. No line has that for a reason; a path may,
/// if someone has put there what belongs into a query.
fn hide_tokens(text: &str) -> String {
    let mut parts = text.split("token=");
    let mut hidden = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(['&', ' ', '"', ';', '\\']).unwrap_or(part.len());
        hidden.push_str("token=***");
        hidden.push_str(part.split_at(end).1);
    }
    hidden
}

/// Shortens a text to whole characters and a line end within `bytes_max`.
fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let end = (0..bytes_max).rev().find(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or(0));
        text.push('\n');
    }
}

#[expect(clippy::disallowed_methods, reason = "a log line says when; nothing is decided by it")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// Seconds since 1970, shown as RFC 3339 has it.
pub(crate) struct Utc(pub(crate) u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.0 / 86_400, self.0 % 86_400);
        // Years that begin in March end with the leap day; 400 of them are always 146,097 days.
        // (Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days.)
        let days = days + 719_468; // from 0000-03-01 to 1970-01-01
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153; // 0 is March; five months together have 153 days
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        write!(f, "{:04}-{month:02}-{day:02}T", era * 400 + year + next)?;
        write!(f, "{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
    }
}

/// What a pipe that is ready takes in one piece without waiting, at least on Linux (`PIPE_BUF`).
const BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, PipeWriter, Read, pipe};

    use super::*;

    fn logger(level: LevelFilter) -> (PipeReader, Logger<PipeWriter>) {
        let (reader, out) = pipe().unwrap();
        (reader, Logger::new(out, level))
    }

    #[test]
    fn dates_are_those_of_httpdate_on_every_day_for_two_centuries() {
        for day in 0..73_500_u64 {
            let seconds = day * 86_400 + day % 86_400;
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            let http = httpdate::fmt_http_date(time); // "Sun, 06 Nov 1994 08:49:37 GMT"
            let month = 1 + "JanFebMarAprMayJunJulAugSepOctNovDec".find(&http[8..11]).unwrap() / 3;
            let expected =
                format!("{}-{month:02}-{}T{}Z", &http[12..16], &http[5..7], &http[17..25]);
            assert_eq!(Utc(seconds).to_string(), expected);
        }
    }

    #[test]
    fn a_line_is_one_line_whatever_the_message_holds() {
        let line = line(784_111_777, Level::Info, &"event=x path=\u{1b}[2J\r\nforged é");
        assert_eq!(line, "1994-11-06T08:49:37Z info event=x path=\\u{1b}[2J\\r\\nforged é\n");
    }

    #[test]
    fn a_token_in_a_line_is_not_told() {
        for (text, expected) in [
            ("path=\"/x;token=abc\" status=404", "path=\"/x;token=***\" status=404"),
            ("a?access_token=b&token=c#d", "a?access_token=***&token=***"),
            ("event=token name=alice what=tokens", "event=token name=alice what=tokens"),
        ] {
            assert_eq!(hide_tokens(text), expected);
        }
    }

    #[test]
    fn a_long_line_is_cut_at_a_whole_character() {
        let mut text = "é".repeat(BYTES_MAX);
        cut(&mut text, BYTES_MAX);
        assert_eq!(text.len(), BYTES_MAX - 1, "2047 characters of two bytes, and the line end");
        assert!(text.ends_with("é\n"));
    }

    #[test]
    fn lines_that_find_no_room_are_counted_and_told_of_later() {
        let (mut reader, logger) = logger(LevelFilter::Info);
        while write_if_ready(&logger.out, &[b'.'; BYTES_MAX]) {}
        logger.write("lost\n");
        logger.write("lost too\n");

        let mut held = vec![0; BYTES_MAX * 4];
        reader.read_exact(&mut held).unwrap();
        logger.write("told\n");
        logger.write("and goes on\n");

        drop(logger);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        let (_, told) = rest.trim_start_matches('.').split_once(' ').unwrap();
        assert_eq!(told, "warn event=log_dropped lines=2\ntold\nand goes on\n");
    }

    /// What was written, without times.
    fn written(mut reader: PipeReader, logger: Logger<PipeWriter>) -> Vec<String> {
        drop(logger);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn of_one_event_a_hundred_lines_leave_in_a_second_and_the_rest_is_told_of_in_another() {
        let (reader, logger) = logger(LevelFilter::Info);
        for second in [7, 8] {
            for number in 0..150 {
                logger.tell(second, Level::Info, &format!("event=closed client={number}-1"));
            }
            logger.tell(second, Level::Info, "event=opened client=9-9");
            logger.tell(second, Level::Warn, "event=closed client=9-9");
        }
        logger.flush();
        logger.flush();
        logger.tell(6, Level::Warn, "event=full");
        let lines = written(reader, logger);
        assert_eq!(lines.iter().filter(|line| line.starts_with("info event=closed ")).count(), 200);
        assert_eq!(lines[100], "info event=opened client=9-9", "a flood hides no other event");
        assert_eq!(lines[101], "warn event=closed client=9-9", "nor itself at another level");
        assert_eq!(lines[102], "warn event=log_suppressed of=closed level=info lines=50");
        assert_eq!(
            lines[203..],
            [
                "info event=opened client=9-9",
                "warn event=closed client=9-9",
                "warn event=log_suppressed of=closed level=info lines=50",
                "warn event=full",
            ]
        );
    }

    #[test]
    fn events_that_are_counted_apart_are_bounded_in_number() {
        let mut rates = Rates::default();
        for number in 0..10_000 {
            rates.allows(&format!("made_up_{number}"), Level::Info);
        }
        assert_eq!(rates.events.len(), EVENTS_MAX + 1);
        let kept = u64::from(LINES_MAX) + EVENTS_MAX as u64;
        assert_eq!(rates.news(), [(OTHER.to_owned(), Level::Info, 10_000 - kept)]);
        assert!(rates.allows("made_up_3", Level::Info));
        assert!(!rates.allows("made_up_77", Level::Info));
        assert_eq!(event_of("event=closed client=3-1"), "closed");
        assert_eq!(event_of("event=ended"), "ended");
        assert_eq!(event_of("buffer is full"), OTHER);
        assert_eq!(event_of(&format!("event={}", "x".repeat(33))), OTHER);
    }

    #[test]
    fn a_reader_that_has_gone_is_no_trouble() {
        let (reader, logger) = logger(LevelFilter::Info);
        drop(reader);
        logger.write("lost\n");
        assert_eq!(logger.dropped.into_inner(), 1);
    }

    #[test]
    fn other_crates_are_heard_from_warnings_upward() {
        let (_reader, logger) = logger(LevelFilter::Debug);
        let enabled = |target, level| {
            logger.enabled(&Metadata::builder().target(target).level(level).build())
        };
        assert!(enabled("pousse", Level::Debug) && enabled("pousse::server", Level::Debug));
        assert!(!enabled("mio::poll", Level::Info) && !enabled("pousses", Level::Info));
        assert!(enabled("tungstenite", Level::Warn) && !enabled("pousse", Level::Trace));
    }
}
