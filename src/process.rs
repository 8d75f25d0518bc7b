//! What the system knows of this process: memory, time, descriptors. Linux tells it in `/proc/self`
//! (proc(5)); elsewhere, or where that cannot be read, a number is left out.
//!
//! Read only when somebody asks: it is a handful of small files that are made of memory.

use std::fs;

/// See the head of this file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Process {
    /// Memory that is in use and not swapped out.
    pub(crate) resident_bytes: Option<u64>,
    /// Time on a processor, in the program and in the system for it.
    pub(crate) cpu_s: Option<f64>,
    /// When it started, in Unix seconds.
    pub(crate) start_s: Option<f64>,
    pub(crate) open_descriptors: Option<u64>,
    pub(crate) max_descriptors: Option<u64>,
}

/// The unit of `/proc/self/stat`, whatever the kernel's own (`USER_HZ`).
const TICKS_PER_S: f64 = 100.0;

impl Process {
    /// As it is now.
    pub(crate) fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (cpu_s, start_s) = times(&text("/proc/self/stat"), &text("/proc/stat"));
        Self {
            resident_bytes: resident(&text("/proc/self/status")),
            cpu_s,
            start_s,
            open_descriptors: open_descriptors(),
            max_descriptors: max_descriptors(&text("/proc/self/limits")),
        }
    }
}

/// Since Linux 6.2 the size of the folder is their number; before, they have to be counted.
fn open_descriptors() -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    match fs::metadata(FOLDER).ok()?.len() {
        // One of them is what the folder is read by.
        0 => Some((fs::read_dir(FOLDER).ok()?.count() as u64).saturating_sub(1)),
        size => Some(size),
    }
}

/// `VmRSS:      1234 kB`
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// `Max open files            1024                 524288               files`
fn max_descriptors(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Time used, and the start: fields 14, 15 and 22 of the one file, `btime` of the other.
fn times(stat: &str, machine: &str) -> (Option<f64>, Option<f64>) {
    // The second field is the program's name in parentheses, which may hold anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    // Read as whole numbers, which they are: a reader of others would be 20 KB of tables and code.
    let number = |text: &str| text.parse::<u64>().ok().map(|number| number as f64);
    let seconds = |at: usize| Some(number(fields.split_whitespace().nth(at - 3)?)? / TICKS_PER_S);
    let used = seconds(14).zip(seconds(15)).map(|(own, system)| own + system);
    let booted = machine.lines().find_map(|line| line.strip_prefix("btime "));
    let booted = booted.and_then(|seconds| number(seconds.trim()));
    (used, booted.zip(seconds(22)).map(|(booted, after)| booted + after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_where_proc_has_them() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    1234 kB\nVmSize: 1 kB\n"), Some(1234 * 1024));
        let limits =
            "Limit    Soft  Hard Units\nMax open files            1024    524288   files\n";
        assert_eq!(max_descriptors(limits), Some(1024));
        let stat = "1 (a) 3 (b) S 1 1 1 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 6000 1 2 3";
        let machine = "cpu 1 2 3\nbtime 1700000000\n";
        assert_eq!(times(stat, machine), (Some(3.0), Some(1_700_000_060.0)));
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        assert_eq!(times("", ""), (None, None));
        assert_eq!((resident(""), resident("VmRSS: many kB")), (None, None));
        assert_eq!(max_descriptors("Max open files  unlimited"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_memory_time_and_descriptors() {
        let process = Process::read();
        assert!(process.resident_bytes > Some(1 << 16), "{process:?}");
        assert!(process.open_descriptors >= Some(3), "{process:?}");
        assert!(process.max_descriptors >= process.open_descriptors, "{process:?}");
        assert!(process.start_s > Some(1.7e9) && process.cpu_s.is_some(), "{process:?}");
    }
}
