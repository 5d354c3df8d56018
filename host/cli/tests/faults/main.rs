//! A fault at any call that the program makes on a home loses nothing: each call under which it opens, locks, writes, syncs,
//! renames or unlinks something fails with each of some errors, and the process is killed at it. After each: the index
//! names nothing that is gone, what is protected is whole, what went is on record, one fault stops no other image, and
//! the next change finishes what was begun.
//!
//! An evenly drawn sample is run; with `LARDER_FAULTS=all`, as `cargo xtask faults` has it, everything is, and with
//! `LARDER_FAULTS="rm load:fcntl"` all of an operation or of a call in it. The table at the end counts them by call and
//! operation.

mod rules;
mod strace;
mod template;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{env, fs, thread};

use larder_tests::Home;
use larder_tests::judge::has_tools;

use rules::{Hit, check_finished};
use strace::{Ended, Fault, Site};
use template::{NEW, Template, allocated, reference};

/// So many faults are drawn, unless all are wanted.
const SAMPLE: usize = 60;

/// Something that the program does to a home.
pub(crate) struct Operation {
    name: &'static str,
    arguments: String,
    /// What is done before it, and ends in a kill: the records of that are there then.
    after_killed: Option<String>,
    pub(crate) is_removal: bool,
    pub(crate) is_verification: bool,
    /// The references that go.
    pub(crate) goes: BTreeSet<String>,
    /// The files that nothing owns and that go.
    pub(crate) collects: BTreeSet<PathBuf>,
    /// The references that come.
    pub(crate) comes: BTreeSet<String>,
}

impl Operation {
    fn new(name: &'static str, arguments: impl Into<String>) -> Self {
        Self {
            name,
            arguments: arguments.into(),
            after_killed: None,
            is_removal: false,
            is_verification: false,
            goes: BTreeSet::new(),
            collects: BTreeSet::new(),
            comes: BTreeSet::new(),
        }
    }

    fn all(template: &Template) -> Vec<Self> {
        let free: Vec<&str> = template.free.iter().map(String::as_str).take(4).collect();
        let rm = format!("rm {} --yes", free.join(" "));
        let goes: BTreeSet<String> = free.iter().map(|&reference| reference.to_owned()).collect();
        let prune = |name, arguments| Self {
            is_removal: true,
            goes: template.free.clone(),
            collects: template.orphans.clone(),
            ..Self::new(name, arguments)
        };
        let repaired =
            template.orphans.iter().filter(|path| !path.starts_with("manifests")).cloned().collect();
        vec![
            prune("prune", "prune --yes"),
            prune("apply", "apply plan.json --yes"),
            Self { is_removal: true, goes, ..Self::new("rm", rm.clone()) },
            Self { comes: NEW.into_iter().map(reference).collect(), ..Self::new("load", "load new.tar") },
            Self {
                is_verification: true,
                collects: repaired,
                ..Self::new("repair", "verify --repair --yes")
            },
            Self { after_killed: Some(rm), ..Self::new("recovery", format!("unpin {}", reference(0))) },
        ]
    }

    /// The program on a home.
    fn command(&self, template: &Template, home: &Home) -> Command {
        larder(template, home, &self.arguments)
    }

    /// Does to a copy of the home what comes before.
    fn prepare(&self, template: &Template, home: &Home, said: &Path) {
        let Some(arguments) = &self.after_killed else { return };
        let command = larder(template, home, arguments);
        let site = Site::first("unlinkat", "cache/fsmeta");
        let ended = strace::run_with(&command, &site, Fault::Kill, &home.path(), said).expect("its end");
        let ended = ended.expect("a kill");
        assert_eq!((ended.status, ended.hits.len()), (None, 1), "{ended:?}");
    }
}

fn larder(template: &Template, home: &Home, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command
        .env_clear()
        .arg("--home")
        .arg(home.path())
        .args(["--now", &template.now.to_rfc3339()])
        .args(arguments.split_whitespace())
        .args(["--format", "json"])
        .current_dir(template.beside.path());
    command
}

/// A fault that is to be injected.
struct Case<'a> {
    operation: &'a Operation,
    site: Site,
    fault: Fault,
}

/// What came of the cases: by call, operation and fault, how many hit, and how many did not; and what was wrong.
#[derive(Default)]
struct Results {
    hit: BTreeMap<(&'static str, &'static str, Fault), usize>,
    missed: usize,
    wrong: usize,
}

impl Case<'_> {
    fn run(&self, template: &Template) -> (bool, Vec<String>) {
        let said = tempfile::tempdir().expect("a directory");
        let (home, _lease) = template.copy();
        self.operation.prepare(template, &home, said.path());
        let before = allocated(&home.cache());
        let command = self.operation.command(template, &home);
        let ended = match strace::run_with(&command, &self.site, self.fault, &home.path(), said.path()) {
            Ok(Some(ended)) => ended,
            Ok(None) => return (false, Vec::new()),
            Err(wrong) => return (true, vec![wrong]),
        };
        let (operation, fault) = (self.operation, self.fault);
        let hit = Hit { template, operation, home: &home, fault, ended: &ended, before };
        let mut wrong = hit.check();
        let is_hit = !ended.hits.is_empty();
        // One image is held all along: a prune spares it, and says so.
        for (arguments, expected) in [("verify", 0), ("ls", 0), ("prune --yes", 7)] {
            match strace::run(larder(template, &home, arguments), said.path()) {
                Ok(Ended { status: Some(status), .. }) if status == expected => {}
                Ok(after) => wrong.push(format!("then `{arguments}`: {after:?}")),
                Err(error) => wrong.push(format!("then `{arguments}`: {error}")),
            }
        }
        wrong.extend(check_finished(template, &home));
        if !wrong.is_empty() {
            wrong.push(format!("it said: {}", ended.stderr));
            wrong.extend(ended.hits);
        }
        (is_hit, wrong)
    }
}

impl Results {
    fn note(&mut self, case: &Case<'_>, (hit, wrong): (bool, Vec<String>)) {
        let Case { operation, site, fault } = case;
        if hit {
            *self.hit.entry((site.call, operation.name, *fault)).or_default() += 1;
        } else {
            self.missed += 1;
        }
        if !wrong.is_empty() {
            self.wrong += 1;
            println!("violation: {} with {site}: {fault}\n  {}", operation.name, wrong.join("\n  "));
        }
    }

    /// The faults by call and operation: how many were errors, and how many kills.
    fn table(&self, operations: &[Operation]) -> String {
        let mut table = format!("{:10}", "call");
        for operation in operations {
            let _ = write!(table, "{:>14}", operation.name);
        }
        let calls: BTreeSet<&str> = self.hit.keys().map(|(call, ..)| *call).collect();
        for call in calls {
            let _ = write!(table, "\n{call:10}");
            for operation in operations {
                let count = |kill: bool| -> usize {
                    let of = |key: &(&str, &str, Fault)| {
                        key.0 == call && key.1 == operation.name && (key.2 == Fault::Kill) == kill
                    };
                    self.hit.iter().filter(|(key, _)| of(key)).map(|(_, count)| count).sum()
                };
                let _ = write!(table, "{:>14}", format!("{} + {}", count(false), count(true)));
            }
        }
        let errors: usize =
            self.hit.iter().filter(|((.., fault), _)| *fault != Fault::Kill).map(|(_, n)| n).sum();
        let kills: usize = self.hit.values().sum::<usize>() - errors;
        let _ = write!(
            table,
            "\n{errors} errors and {kills} kills injected, {} not reached, violations {}",
            self.missed, self.wrong
        );
        table
    }
}

/// Returns whether the faults of a call are wanted: `all`, or operations, each of which may name a call, as in `load:fcntl`.
fn is_wanted(wanted: &str, operation: &Operation, site: &Site) -> bool {
    let is_meant = |word: &str| match word.split_once(':') {
        Some((name, call)) => (name, call) == (operation.name, site.call),
        None => word == "all" || word == operation.name,
    };
    wanted.is_empty() || wanted.split_whitespace().any(is_meant)
}

/// Takes so many of the cases of each operation, spread evenly over them.
fn sample(cases: Vec<Case<'_>>, count: usize) -> Vec<Case<'_>> {
    // A step that shares nothing with the number of faults of a call comes by all of them.
    let step = cases.len() as f64 / count as f64;
    let wanted: BTreeSet<usize> = (0..count).map(|number| (number as f64 * step) as usize).collect();
    cases.into_iter().enumerate().filter(|(index, _)| wanted.contains(index)).map(|(_, case)| case).collect()
}

/// After any fault nothing is lost, and the next change finishes what was begun.
#[test]
fn every_fault() {
    if !has_tools(&["strace"]) {
        return;
    }
    let template = Template::make();
    let (home, _lease) = template.copy();
    let said = tempfile::tempdir().expect("a directory");
    let plan = strace::run(larder(&template, &home, "prune --plan plan.json"), said.path()).expect("its end");
    assert_eq!(plan.status, Some(0), "{plan:?}");
    let operations = Operation::all(&template);
    let wanted = env::var("LARDER_FAULTS").unwrap_or_default();
    let mut cases = Vec::new();
    for operation in &operations {
        let (home, lease) = template.copy();
        operation.prepare(&template, &home, said.path());
        let sites = strace::sites(&operation.command(&template, &home), &home.path(), said.path());
        drop(lease);
        let of_operation: Vec<Case<'_>> = sites
            .into_iter()
            .filter(|site| is_wanted(&wanted, operation, site))
            .flat_map(|site| {
                let faults: Vec<Fault> = site.faults().collect();
                faults.into_iter().map(move |fault| Case { operation, site: site.clone(), fault })
            })
            .collect();
        assert!(!wanted.is_empty() || of_operation.len() > 50, "{}: {}", operation.name, of_operation.len());
        cases.extend(if wanted.is_empty() {
            sample(of_operation, SAMPLE / operations.len())
        } else {
            of_operation
        });
    }
    println!("{} faults", cases.len());
    let results = run_all(&template, &cases);
    println!("{}", results.table(&operations));
    if let Ok(path) = env::var("LARDER_FAULTS_TABLE") {
        fs::write(path, results.table(&operations) + "\n").expect("the table");
    }
    assert_eq!(results.wrong, 0, "violations, which are above");
    assert!(results.missed * 5 < cases.len(), "{} of {} were not reached", results.missed, cases.len());
}

/// A removal that ends after another one was killed forgets its own records alone: those of the other are finished by the
/// next change.
#[test]
fn records_of_two_processes() {
    if !has_tools(&["strace"]) {
        return;
    }
    let template = Template::make();
    let (home, _lease) = template.copy();
    let [said, first_said] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let free: Vec<&String> = template.free.iter().collect();
    let records = || home.count("SELECT count(*) FROM larder_deletion");
    let remove = |image: usize| larder(&template, &home, &format!("rm {} --yes", free[image]));
    // It has deleted its files when it stops.
    let mut first = strace::stopped(&remove(0), "fsync", "cache/layers", &home.path(), first_said.path());
    assert!(records() > 0);
    let site = Site::first("unlinkat", "cache/fsmeta");
    let second =
        strace::run_with(&remove(1), &site, Fault::Kill, &home.path(), said.path()).expect("its end");
    let second = second.expect("a kill");
    assert_eq!((second.status, second.hits.len()), (None, 1), "{second:?}");
    let of_second = records();
    assert!(of_second > 0);
    first.go_on();
    assert!(records() <= of_second);
    let next =
        strace::run(larder(&template, &home, "unpin docker.io/acme/app:0"), said.path()).expect("its end");
    assert_eq!((next.status, records()), (Some(0), 0), "{next:?}");
    let verified = strace::run(larder(&template, &home, "verify"), said.path()).expect("its end");
    let report = verified.json().expect("a report");
    let orphans =
        report["findings"].as_array().expect("findings").iter().filter(|finding| finding["kind"] == "orphan");
    let orphans: Vec<PathBuf> =
        orphans.map(|finding| finding["path"].as_str().expect("a path").into()).collect();
    for path in &orphans {
        assert!(template.orphans.iter().any(|orphan| orphan.starts_with(path)), "{path:?} was left");
    }
}

/// Runs cases on as many threads as there are processors.
fn run_all(template: &Template, cases: &[Case<'_>]) -> Results {
    let (results, next) = (Mutex::new(Results::default()), AtomicUsize::new(0));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // Which thread makes a call is not the same each time.
                    let mut result = case.run(template);
                    for _ in 0..2 {
                        if !result.0 && result.1.is_empty() {
                            result = case.run(template);
                        }
                    }
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    results.note(case, result);
                }
            });
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}
