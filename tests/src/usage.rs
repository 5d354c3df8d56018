//! The resources that a process has used, as the kernel counts them for the process itself.
//!
//! A process that reads these numbers itself gets its own peak memory. Its parent cannot get that number, because a
//! process inherits the peak of its parent.

use std::fs;
use std::time::Duration;

/// The processor time and memory of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The processor time of this process and of the processes that it has waited for.
    pub cpu: Duration,
    /// The peak memory, in KiB.
    pub peak_memory_kib: u64,
}

impl Usage {
    /// Returns the usage of this process up to now (proc_pid_stat and proc_pid_status of the kernel's manual).
    ///
    /// # Panics
    /// Panics if `/proc` does not have the numbers, because nothing else has them.
    pub fn of_this_process() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").expect("`/proc/self/stat`");
        // Behind the name, which may hold spaces: utime, stime, cutime and cstime, in hundredths of a second.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 = fields.skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
        let status = fs::read_to_string("/proc/self/status").expect("`/proc/self/status`");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|line| line.split_whitespace().next()?.parse().ok());
        Self {
            cpu: Duration::from_millis(10 * ticks),
            peak_memory_kib: peak.expect("`VmHWM` in `/proc/self/status`"),
        }
    }
}
