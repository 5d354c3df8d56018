//! Steps of a task: each prints its purpose before it begins, and the task ends with a summary.
//!
//! On a terminal a step's programs write to it directly, so that Cargo's own progress shows. Elsewhere a step is one
//! line: its programs' output is written to a log, and the end of the log is shown if the step fails.

use std::fs::{self, File};
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::shell::{target, words};

/// The number of lines of a log that are shown if a step fails.
const TAIL: usize = 200;

/// A task in progress: the steps that were done so far.
pub(crate) struct Steps {
    task: &'static str,
    begun: Instant,
    done: Vec<(&'static str, Duration)>,
    skipped: Vec<String>,
    output: Output,
}

/// The destination of the output of a step's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    Terminal,
    Log,
}

/// The announcement of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Announcement {
    /// The name: one word or two.
    pub(crate) name: &'static str,
    /// The action of the step, as the rest of a sentence.
    pub(crate) does: &'static str,
    /// The usual duration on two cores, if nothing of it was done before.
    pub(crate) usually: &'static str,
}

/// A step in progress, through which its work runs programs.
pub(crate) struct Step<'a> {
    log: Option<Log>,
    skipped: &'a mut Vec<String>,
    notes: Vec<String>,
}

struct Log {
    path: PathBuf,
    file: File,
}

impl Steps {
    /// Begins a task of this name.
    pub(crate) fn begin(task: &'static str) -> Self {
        let output = if std::io::stderr().is_terminal() { Output::Terminal } else { Output::Log };
        Self { task, begun: Instant::now(), done: Vec::new(), skipped: Vec::new(), output }
    }

    /// Announces a step, does its work, and prints how long it took.
    pub(crate) fn run<T>(
        &mut self,
        announcement: Announcement,
        work: impl FnOnce(&mut Step<'_>) -> Result<T>,
    ) -> Result<T> {
        let Announcement { name, does, usually } = announcement;
        let headline = format!("==> {name}: {does} (usually {usually})");
        let log = match self.output {
            Output::Terminal => {
                eprintln!("{headline}");
                None
            }
            Output::Log => {
                eprint!("{headline} ... ");
                Some(Log::create(self.task, name)?)
            }
        };
        let clock = Instant::now();
        let mut step = Step { log, skipped: &mut self.skipped, notes: Vec::new() };
        let result = work(&mut step);
        let Step { log, notes, .. } = step;
        let took = clock.elapsed();
        match (&result, self.output) {
            (Ok(_), Output::Terminal) => eprintln!("==> {name}: {}", duration(took)),
            (Ok(_), Output::Log) => eprintln!("{}", duration(took)),
            (Err(_), _) => {
                eprintln!("failed after {}", duration(took));
                log.as_ref().map(Log::show_end).transpose()?;
            }
        }
        notes.iter().for_each(|note| eprintln!("{note}"));
        self.done.push((name, took));
        result.with_context(|| format!("step `{name}`"))
    }

    /// Prints what the task did, what it skipped, and the total duration.
    pub(crate) fn finish(self) {
        eprintln!("\n{}: {} in {}", self.task, count(self.done.len()), duration(self.begun.elapsed()));
        let width = self.done.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, took) in &self.done {
            eprintln!("  {name:width$}  {:>11}", duration(*took));
        }
        self.skipped.iter().for_each(|what| eprintln!("  skipped: {what}"));
    }
}

impl Step<'_> {
    /// Runs a program to its end.
    pub(crate) fn run(&mut self, command: &mut Command) -> Result<()> {
        if let Some(Log { file, .. }) = &mut self.log {
            writeln!(file, "$ {}", words(command))?;
            command.stdout(file.try_clone()?).stderr(file.try_clone()?);
        }
        let words = words(command);
        let status = command.status().with_context(|| format!("could not run `{words}`"))?;
        if !status.success() {
            bail!("`{words}` failed: {status}");
        }
        Ok(())
    }

    /// Notes something that this step skips, and the reason. It is printed with the step and again at the end.
    pub(crate) fn skip(&mut self, what: String) {
        self.notes.push(format!("skipped: {what}"));
        self.skipped.push(what);
    }

    /// Prints a line after the step.
    pub(crate) fn note(&mut self, line: String) {
        self.notes.push(line);
    }

    /// Returns the output of the step's programs so far, if it is written to a log.
    pub(crate) fn written(&self) -> Result<Option<String>> {
        self.log.as_ref().map(Log::read).transpose()
    }
}

impl Log {
    fn create(task: &str, step: &str) -> Result<Self> {
        let directory = target().join("xtask").join(task);
        fs::create_dir_all(&directory)
            .with_context(|| format!("could not make `{}`", directory.display()))?;
        let path = directory.join(format!("{}.log", step.replace(' ', "-")));
        let file = File::create(&path).with_context(|| format!("could not make `{}`", path.display()))?;
        Ok(Self { path, file })
    }

    fn read(&self) -> Result<String> {
        let bytes =
            fs::read(&self.path).with_context(|| format!("could not read `{}`", self.path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn show_end(&self) -> Result<()> {
        let text = self.read()?;
        let lines: Vec<&str> = text.lines().collect();
        for line in &lines[lines.len().saturating_sub(TAIL)..] {
            eprintln!("{line}");
        }
        eprintln!("`{}` has all of it", self.path.display());
        Ok(())
    }
}

fn count(steps: usize) -> String {
    if steps == 1 { "1 step".to_owned() } else { format!("{steps} steps") }
}

/// Formats a duration for people, such as `3 min 7 s`.
pub(crate) fn duration(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        seconds @ 1..60 => format!("{seconds} s"),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A duration is in the unit that fits its length.
    #[test]
    fn durations() {
        let table =
            [(40, "40 ms"), (1_000, "1 s"), (59_999, "59 s"), (60_000, "1 min 0 s"), (605_000, "10 min 5 s")];
        for (milliseconds, expected) in table {
            assert_eq!(duration(Duration::from_millis(milliseconds)), expected);
        }
    }
}
