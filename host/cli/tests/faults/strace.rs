//! The built program under `strace`: which calls it makes on a home, and what it does when one of them fails.
//!
//! A counter of `strace` belongs to one thread and one call. Where the number of a call is also that of one of another thread
//! with another path, such as the loader's, the call is picked among those with its path.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// The calls that are counted and fail, each with the errors that it fails with. All of them are ended by a kill, too.
const CALLS: [(&str, &[&str]); 16] = [
    ("openat", &["EACCES", "EMFILE", "EIO", "ENOSPC"]),
    ("flock", &["EIO", "ENOLCK"]),
    ("fcntl", &["EIO"]),
    ("write", &["ENOSPC", "EIO"]),
    ("pwrite64", &["ENOSPC", "EIO"]),
    ("ftruncate", &["EIO"]),
    ("fsync", &["EIO", "ENOSPC"]),
    ("fdatasync", &["EIO", "ENOSPC"]),
    ("rename", &["EIO", "ENOSPC"]),
    ("renameat", &["EIO", "ENOSPC"]),
    ("renameat2", &["EIO", "ENOSPC"]),
    ("linkat", &["EIO", "ENOSPC"]),
    ("unlink", &["EIO", "EACCES"]),
    ("unlinkat", &["EIO", "EACCES"]),
    ("mkdir", &["EACCES", "ENOSPC"]),
    ("mkdirat", &["EACCES", "ENOSPC"]),
];

/// After this, a program hangs: the index is waited for up to forty seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// It fails with this error.
    Error(&'static str),
    /// The process is killed when it makes the call.
    Kill,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error(name) => name,
            Self::Kill => "killed",
        })
    }
}

/// A call that a program makes on a home.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Site {
    pub(crate) call: &'static str,
    /// The number of the call, from 1, among those of its thread.
    number: usize,
    /// The path by which it is picked, relative to the home; its number is one among those with that path.
    path: Option<PathBuf>,
}

impl Site {
    /// The first call of this name with a path, which is relative to the home.
    pub(crate) fn first(call: &'static str, path: &str) -> Self {
        Self { call, number: 1, path: Some(path.into()) }
    }

    /// What can become of it.
    pub(crate) fn faults(&self) -> impl Iterator<Item = Fault> {
        let errors = CALLS.iter().find(|(call, _)| *call == self.call).map_or(&[][..], |(_, errors)| errors);
        errors.iter().map(|error| Fault::Error(error)).chain([Fault::Kill])
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.call, self.number)?;
        self.path.as_ref().map_or(Ok(()), |path| write!(f, " of `{}`", path.display()))
    }
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Absent where it was killed.
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// What the faults hit: the lines of the trace.
    pub(crate) hits: Vec<String>,
}

impl Ended {
    /// Standard output as JSON, where it is that.
    pub(crate) fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_str(&self.stdout).ok()
    }
}

/// Runs a program to its end.
///
/// # Errors
/// Where it hangs: it is killed then.
pub(crate) fn run(mut command: Command, said: &Path) -> Result<Ended, String> {
    let file = |name: &str| fs::File::create(said.join(name)).expect("a file");
    command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr")).process_group(0);
    let mut child = command.spawn().expect("the program started");
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("its end") {
            break status;
        }
        if Instant::now() > deadline {
            // With strace alone, the program that it runs would go on to hang.
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            let _ = child.wait();
            return Err(format!("it hung for {PATIENCE:?}"));
        }
        thread::sleep(Duration::from_millis(1));
    };
    let read = |name: &str| fs::read_to_string(said.join(name)).expect("text");
    match (status.code(), status.signal()) {
        (None, Some(9)) | (Some(_), _) => {}
        (_, signal) => return Err(format!("it ended by signal {signal:?}: {}", read("stderr"))),
    }
    Ok(Ended { status: status.code(), stdout: read("stdout"), stderr: read("stderr"), hits: Vec::new() })
}

/// Runs a program with a fault. Returns nothing where it hangs since the fault hit a call outside of the home, too: threads
/// wake each other by writes to an eventfd, which no disk makes fail, and which thread makes a call of which number is not
/// the same in each run.
///
/// # Errors
/// Where it hangs otherwise, or ends by itself as no program should.
pub(crate) fn run_with(
    command: &Command,
    site: &Site,
    fault: Fault,
    home: &Path,
    said: &Path,
) -> Result<Option<Ended>, String> {
    let trace = said.join("trace");
    let inject = match fault {
        Fault::Error(error) => format!("{}:error={error}:when={}", site.call, site.number),
        Fault::Kill => format!("{}:signal=KILL:when={}", site.call, site.number),
    };
    let mut options = vec!["-e".to_owned(), format!("inject={inject}")];
    if let Some(path) = &site.path {
        options.extend(["-P".to_owned(), home.join(path).display().to_string()]);
    } else if fault != Fault::Kill {
        // Quicker; with it, strace 6.1 neither kills nor looks at paths.
        options.push("--seccomp-bpf".to_owned());
    }
    let ended = run(traced(command, &trace, &[site.call], &options), said);
    let text = fs::read_to_string(&trace).unwrap_or_default();
    let injected = || text.lines().filter(|line| line.contains("(INJECTED)"));
    let is_of_home = |line: &str| {
        let (_, arguments) = line.split_once('(').unwrap_or_default();
        path_of(arguments).is_some_and(|path| Path::new(path).starts_with(home))
    };
    let mut ended = match ended {
        Err(_) if fault != Fault::Kill && !injected().all(is_of_home) => return Ok(None),
        ended => ended?,
    };
    ended.hits = match fault {
        Fault::Error(_) => injected().map(str::to_owned).collect(),
        Fault::Kill if ended.status.is_none() => text.lines().last().map(str::to_owned).into_iter().collect(),
        Fault::Kill => Vec::new(),
    };
    Ok(Some(ended))
}

fn traced(command: &Command, trace: &Path, calls: &[&str], options: &[String]) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-y", "-s", "4096", "-o"]).arg(trace);
    strace.arg("-e").arg(format!("trace={}", calls.join(","))).args(["-e", "signal=none"]).args(options);
    strace.arg(command.get_program()).args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        strace.current_dir(directory);
    }
    for (name, value) in command.get_envs() {
        strace.env(name, value.expect("a value"));
    }
    strace
}

/// Runs a program without any fault, and returns each call that it makes on a home.
pub(crate) fn sites(command: &Command, home: &Path, said: &Path) -> BTreeSet<Site> {
    let trace = said.join("trace");
    let calls: Vec<&str> = CALLS.iter().map(|(call, _)| *call).collect();
    let ended = run(traced(command, &trace, &calls, &["--seccomp-bpf".to_owned()]), said).expect("it ended");
    assert!(ended.status.is_some_and(|status| [0, 7].contains(&status)), "{ended:?}");
    let text = fs::read_to_string(&trace).expect("a trace");
    let mut counted: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut of_home: BTreeMap<(&str, usize), BTreeSet<(&str, usize)>> = BTreeMap::new();
    let mut of_others: BTreeSet<(&str, usize)> = BTreeSet::new();
    let mut with_path: BTreeMap<(&str, &str, &str), usize> = BTreeMap::new();
    for line in text.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let Some((name, arguments)) = call.trim_start().split_once('(') else { continue };
        let Some(name) = calls.iter().find(|call| **call == name) else { continue };
        let number = counted.entry((thread, name)).or_default();
        *number += 1;
        match path_of(arguments).filter(|path| Path::new(path).starts_with(home)) {
            Some(path) => {
                let among = with_path.entry((thread, name, path)).or_default();
                *among += 1;
                of_home.entry((name, *number)).or_default().insert((path, *among));
            }
            None => drop(of_others.insert((name, *number))),
        }
    }
    of_home
        .into_iter()
        .flat_map(|((name, number), paths)| {
            let call = calls.iter().copied().find(|call| *call == name).expect("a call");
            if paths.len() == 1 && !of_others.contains(&(name, number)) {
                return vec![Site { call, number, path: None }];
            }
            let with_path = |(path, number): (&str, usize)| {
                let path = Path::new(path).strip_prefix(home).expect("a path of the home").to_owned();
                Site { call, number, path: Some(path) }
            };
            paths.into_iter().map(with_path).collect()
        })
        .collect()
}

/// The path of a call's first argument that has one: of a descriptor, or as it stands.
pub(crate) fn path_of(arguments: &str) -> Option<&str> {
    let after = arguments.find(['<', '"'])?;
    let (open, rest) = arguments.split_at_checked(after + 1)?;
    // `AT_FDCWD</directory>, "/path"`: what stands behind it counts where it is absolute.
    if open == "AT_FDCWD<" {
        let (directory, rest) = rest.split_once('>')?;
        return Some(match path_of(rest) {
            Some(path) if path.starts_with('/') => path,
            _ => directory,
        });
    }
    rest.split_once(if open.ends_with('<') { '>' } else { '"' }).map(|(path, _)| path)
}

/// A program that was stopped at a call. It is killed when this is dropped.
pub(crate) struct Stopped {
    strace: Child,
    /// Its thread, once that has stopped.
    thread: Option<Pid>,
}

/// Starts a program that stops at the first call with a path, which is relative to the home. Returns when it has.
pub(crate) fn stopped(command: &Command, call: &str, path: &str, home: &Path, said: &Path) -> Stopped {
    let trace = said.join("trace");
    let inject = format!("inject={call}:signal=STOP:when=1");
    let options = ["-e".to_owned(), inject, "-P".to_owned(), home.join(path).display().to_string()];
    let mut strace = traced(command, &trace, &[call], &options);
    let strace = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut stopped = Stopped { strace: strace.spawn().expect("the program started"), thread: None };
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "it does not stop");
        let text = fs::read_to_string(&trace).unwrap_or_default();
        // The call is in the trace a moment before the process stops at it.
        let thread = text.lines().find(|line| line.contains(call)).and_then(|line| line.split_once(' '));
        let thread = thread.and_then(|(thread, _)| thread.parse().ok()).and_then(Pid::from_raw);
        if let Some(thread) = thread.filter(|thread| is_stopped(*thread)) {
            stopped.thread = Some(thread);
            return stopped;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn is_stopped(thread: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", thread.as_raw_nonzero())).unwrap_or_default();
    status.lines().any(|line| {
        line.starts_with("State:") && (line.contains("T (stopped)") || line.contains("t (tracing"))
    })
}

impl Stopped {
    /// Lets it go on to its end.
    pub(crate) fn go_on(&mut self) {
        let thread = self.thread.expect("a program that is stopped");
        kill_process(thread, Signal::CONT).expect("a program that is stopped");
        assert!(self.strace.wait().expect("its end").success());
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It has ended already, unless the test has failed.
        let _ = self.thread.map(|thread| kill_process(thread, Signal::KILL));
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}
