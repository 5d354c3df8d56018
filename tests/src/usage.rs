//! What a process has used of its machine, as the kernel counts it for that process itself.
//!
//! A process that reads this of itself gets the peak of its own memory. What its parent could learn of it is not that:
//! a process inherits the peak of whoever made it.

use std::fs;
use std::time::Duration;

/// Processor time and memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Processor time of this process and of those that it has waited for.
    pub cpu: Duration,
    /// The most memory that it had at any time.
    pub peak_memory_kib: u64,
}

impl Usage {
    /// Of this process, up to now (proc_pid_stat and proc_pid_status of the kernel's manual).
    ///
    /// # Panics
    /// Where `/proc` does not have it: there is nothing to measure with.
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
