//! Measuring processes side by side, for benches: each from its start to its end, all in turns, so that what else the
//! machine does meets all alike.

use std::ffi::OsStr;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::timing::middle;
use crate::usage::Usage;

/// The measurement of one process.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    wall: Duration,
    used: Usage,
}

impl Run {
    /// Measures work that is done in a process of its own, and that returns what the process used.
    pub fn measure(work: impl FnOnce() -> Usage) -> Self {
        // What an earlier process left to be written is not this one's.
        rustix::fs::sync();
        let clock = Instant::now();
        let used = work();
        Self { wall: clock.elapsed(), used }
    }
}

/// The medians of some runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Medians {
    /// The time from the start to the end, in seconds.
    pub wall: f64,
    /// The processor time, in seconds.
    pub cpu: f64,
    /// The peak memory, in MiB.
    pub memory: f64,
}

/// Runs all contenders in turns, so many times, and prints a table of them by their names. Returns the medians in the
/// order of the contenders. A first round, which fills the kernel's cache, is not counted.
pub fn contest<C>(
    contenders: &[C],
    rounds: usize,
    name: impl Fn(&C) -> String,
    run: impl Fn(&C) -> Run,
) -> Vec<Medians> {
    let mut runs: Vec<Vec<Run>> = contenders.iter().map(|_| Vec::new()).collect();
    for round in 0..=rounds {
        for (contender, runs) in contenders.iter().zip(&mut runs) {
            let run = run(contender);
            runs.extend((round > 0).then_some(run));
        }
    }
    println!("{:<30} {:>8} {:>15} {:>8} {:>12}", "what", "wall s", "least and most", "cpu s", "memory MiB");
    contenders.iter().zip(&runs).map(|(contender, runs)| row(&name(contender), runs)).collect()
}

/// Prints the row of a contender.
fn row(name: &str, runs: &[Run]) -> Medians {
    let mut walls: Vec<Duration> = runs.iter().map(|run| run.wall).collect();
    walls.sort();
    let spread = match walls.as_slice() {
        [least, .., most] => format!("{:.2} … {:.2}", least.as_secs_f64(), most.as_secs_f64()),
        _ => String::new(),
    };
    let mut memories: Vec<u64> = runs.iter().map(|run| run.used.peak_memory_kib).collect();
    memories.sort_unstable();
    let medians = Medians {
        wall: middle(walls).as_secs_f64(),
        cpu: middle(runs.iter().map(|run| run.used.cpu).collect()).as_secs_f64(),
        memory: memories[memories.len() / 2] as f64 / 1024.0,
    };
    let Medians { wall, cpu, memory } = medians;
    println!("{name:<30} {wall:>8.2} {spread:>15} {cpu:>8.2} {memory:>12.0}");
    medians
}

/// Runs this program as a child, with `child` before its arguments, and returns what the child reports that it used.
///
/// # Panics
/// Panics if the child fails, or does not end with [`child`].
pub fn of_child(arguments: &[&OsStr]) -> Usage {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let output = command.arg("child").args(arguments).output().expect("a child");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).expect("what it used");
    let number = |key: &str| said[key].as_u64().expect("a number");
    Usage { cpu: Duration::from_millis(number("cpu_ms")), peak_memory_kib: number("peak_memory_kib") }
}

/// Does the work of a child, and reports what it used to [`of_child`].
pub fn child(work: impl FnOnce()) {
    work();
    let Usage { cpu, peak_memory_kib } = Usage::of_this_process();
    println!("{}", json!({ "cpu_ms": cpu.as_millis() as u64, "peak_memory_kib": peak_memory_kib }));
}
