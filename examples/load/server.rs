//! The server's process, seen from outside: its processor time and its memory.

use std::fs;

#[derive(Debug)]
pub(crate) struct Server {
    pid: u32,
}

/// Processor time since its start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// To the nanosecond, as the scheduler counts it.
    pub(crate) total_ns: u64,
    /// Ticks of the clock that met it in the program, and in the system.
    pub(crate) user: u64,
    pub(crate) system: u64,
    /// Pages that it touched and that the system had to give it first.
    pub(crate) faults: u64,
}

impl Server {
    pub(crate) fn new(pid: u32) -> Self {
        Self { pid }
    }

    /// The process that listens on this port.
    pub(crate) fn of_port(port: u16) -> Option<Self> {
        let wanted = format!(":{port:04X}");
        let sockets = ["tcp", "tcp6"].map(|it| fs::read_to_string(format!("/proc/net/{it}")));
        let sockets = sockets.into_iter().flatten().collect::<String>();
        let inode = sockets.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_it = fields.get(1)?.ends_with(&wanted) && *fields.get(3)? == "0A";
            is_it.then(|| format!("socket:[{}]", fields[9]))
        })?;
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let mut numbers = processes.filter_map(|it| it.file_name().to_str()?.parse::<u32>().ok());
        let holds = |pid: &u32| {
            let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            open.filter_map(|it| fs::read_link(it.path()).ok())
                .any(|it| it.as_os_str().to_str() == Some(&inode))
        };
        numbers.find(holds).map(Self::new)
    }

    pub(crate) fn usage(&self) -> Usage {
        let mut total_ns = 0;
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten();
        for task in tasks.flatten() {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            total_ns += text.split(' ').next().and_then(|it| it.parse::<u64>().ok()).unwrap_or(0);
        }
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // The name before them is in brackets and may have anything in it.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let fields: Vec<u64> = fields.map(|it| it.parse().unwrap_or(0)).collect();
        // proc(5), from the third field on: minflt is the tenth, utime and stime follow later.
        let [faults, user, system] = [7, 11, 12].map(|at| fields.get(at).copied().unwrap_or(0));
        Usage { total_ns, user, system, faults }
    }

    /// Bytes of it that are in memory.
    pub(crate) fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|it| it.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }
}

impl Usage {
    /// What was used since, as nanoseconds of the program and of the system.
    pub(crate) fn since(self, before: Usage) -> (f64, f64) {
        let (user, system) = (self.user - before.user, self.system - before.system);
        let total = (self.total_ns - before.total_ns) as f64;
        let share = user as f64 / (user + system).max(1) as f64;
        (total * share, total * (1.0 - share))
    }
}
