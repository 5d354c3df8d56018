//! What must hold of a home after a run that a fault hit, and after the change that follows it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use larder_tests::Home;

use crate::Operation;
use crate::strace::{Ended, Fault, path_of};
use crate::template::{Template, allocated, files_of, is_outside_untouched};

/// A run that a fault hit, on a home of its own.
pub(crate) struct Hit<'a> {
    pub(crate) template: &'a Template,
    pub(crate) operation: &'a Operation,
    pub(crate) home: &'a Home,
    pub(crate) fault: Fault,
    pub(crate) ended: &'a Ended,
    /// The allocated bytes of the cache before the run.
    pub(crate) before: u64,
}

/// What the faults of a run hit.
#[derive(Debug, Default)]
struct Targets {
    /// Files and directories of the cache, relative to it.
    cache: BTreeSet<PathBuf>,
    /// The index, its lock, the home itself, or nothing of the home.
    others: usize,
}

impl Hit<'_> {
    /// Checks the home as the run left it. Returns what is wrong.
    pub(crate) fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let (template, home) = (self.template, self.home);
        self.check_end(&mut wrong);
        for (pragma, well) in [("integrity_check", "ok"), ("foreign_key_check", "")] {
            let said = home.texts(&format!("SELECT * FROM pragma_{pragma}"));
            let said = said.into_iter().collect::<Vec<_>>().join(" ");
            if said != well {
                wrong.push(format!("{pragma}: {said}"));
            }
        }
        if !is_outside_untouched(home) {
            wrong.push("something outside the cache was touched".to_owned());
        }
        let files = files_of(&home.cache());
        for path in owned(home).iter().filter(|path| !files.contains_key(*path)) {
            wrong.push(format!("the index names `{}`, which is gone", path.display()));
        }
        for (path, content) in &files {
            if template.files.get(path).is_some_and(|before| before != content) {
                wrong.push(format!("`{}` has other content", path.display()));
            }
        }
        for path in template.kept.iter().filter(|path| !files.contains_key(*path)) {
            wrong.push(format!("`{}` was protected and is gone", path.display()));
        }
        let references = home.texts("SELECT reference FROM image_ref");
        for reference in template.protected.difference(&references) {
            wrong.push(format!("`{reference}` was protected and is gone"));
        }
        self.check_strays(&files, &mut wrong);
        self.check_record(&references, &mut wrong);
        if let Fault::Error(_) = self.fault {
            self.check_rest(&references, &files, &mut wrong);
        }
        self.check_bytes(&mut wrong);
        wrong
    }

    /// The run ended by itself, with a message where it failed.
    fn check_end(&self, wrong: &mut Vec<String>) {
        let Ended { status, stderr, .. } = self.ended;
        if stderr.contains("panicked") {
            wrong.push(format!("it panicked: {stderr}"));
        }
        match status {
            // The loader's.
            None | Some(0 | 7 | 127) => {}
            Some(1 | 2 | 4) if stderr.contains("error") => {}
            Some(1) if self.operation.is_verification && !self.ended.stdout.is_empty() => {}
            status => wrong.push(format!("it ended with {status:?}: {stderr}")),
        }
    }

    /// A file that no row owns was there before, is to be deleted by a record, was being published by a process that was
    /// killed, or could not be deleted or read.
    fn check_strays(&self, files: &BTreeMap<PathBuf, Vec<u8>>, wrong: &mut Vec<String>) {
        let (owned, recorded) = (owned(self.home), recorded(self.home));
        let strays: Vec<&PathBuf> = files
            .keys()
            .filter(|path| !owned.contains(*path) && !recorded.contains(*path))
            .filter(|path| !self.template.orphans.contains(*path) && !self.template.kept.contains(*path))
            .filter(|path| self.fault != Fault::Kill || self.template.files.contains_key(*path))
            .collect();
        let (Targets { cache, .. }, deleted) = self.targets();
        let unread = strays.iter().filter(|path| cache.contains(**path)).count();
        let undeleted = if deleted { cache.len() } else { cache.len().saturating_sub(1) };
        if strays.len() > unread + undeleted {
            wrong.push(format!("nothing owns {strays:?}, and no record names them"));
        }
    }

    /// What went is on record.
    fn check_record(&self, references: &BTreeSet<String>, wrong: &mut Vec<String>) {
        let has_record =
            !self.home.texts("SELECT name FROM sqlite_master WHERE name = 'larder_decision'").is_empty();
        let removed = if has_record {
            self.home.texts("SELECT reference FROM larder_decision WHERE decision = 'removed'")
        } else {
            BTreeSet::new()
        };
        for reference in self.template.free.difference(references) {
            if !removed.contains(reference) {
                wrong.push(format!("`{reference}` went without a record"));
            }
        }
    }

    /// One fault in the cache stops no other image, nor the files of another directory. A run that ends well has done
    /// all of it, whatever it hit elsewhere.
    fn check_rest(
        &self,
        references: &BTreeSet<String>,
        files: &BTreeMap<PathBuf, Vec<u8>>,
        wrong: &mut Vec<String>,
    ) {
        let (Targets { cache, others }, _) = self.targets();
        let is_done = matches!(self.ended.status, Some(0 | 7));
        // A room that cannot be opened stands in the way of all images, which all have a file in it.
        let hit_room = cache.iter().any(|path| path.components().count() < 2 || path == Path::new("tmp"));
        if !is_done && (others > 0 || hit_room) {
            return;
        }
        let hits = cache.len();
        let left: Vec<&String> = self.operation.goes.intersection(references).collect();
        if left.len() > hits && self.operation.is_removal {
            wrong.push(format!("{hits} faults and status {:?}, and {left:?} stayed", self.ended.status));
        }
        // Where the marker cannot be read, nobody knows whose the cache is: what nothing owns stays, and that is said of
        // all of it, or of each file.
        let Ended { stdout, stderr, .. } = self.ended;
        let is_ours = ![stdout, stderr].iter().any(|said| said.contains("of this home owns"));
        if is_ours && !self.operation.collects.is_empty() {
            let left = self.operation.collects.iter().filter(|path| files.contains_key(*path));
            let rooms: BTreeSet<_> = left.map(|path| path.components().next()).collect();
            if rooms.len() > hits + usize::from(hits > 0) {
                wrong.push(format!(
                    "{hits} faults and status {:?}, and files of {rooms:?} stayed",
                    self.ended.status
                ));
            }
        }
        if is_done {
            for reference in self.operation.comes.difference(references) {
                wrong.push(format!("`{reference}` was loaded and is not there"));
            }
        }
    }

    /// What is said to be freed is freed.
    fn check_bytes(&self, wrong: &mut Vec<String>) {
        let Some(report) = self.ended.json().and_then(|json| json.get("report").cloned()) else { return };
        let said = report["bytes_reclaimed"].as_u64().unwrap_or(0);
        let freed = self.before.saturating_sub(allocated(&self.home.cache()));
        if said != freed {
            wrong.push(format!("it says that {said} bytes were freed, and {freed} were"));
        }
    }

    /// What the faults hit, and whether one of them was a deletion.
    fn targets(&self) -> (Targets, bool) {
        let (cache, mut targets, mut deleted) = (self.home.cache(), Targets::default(), false);
        for line in &self.ended.hits {
            let call = line.split_once('(');
            deleted |= call.is_some_and(|(call, _)| call.contains("unlink"));
            let path = call.and_then(|(_, arguments)| path_of(arguments)).map(Path::new);
            match path.and_then(|path| path.strip_prefix(&cache).ok()) {
                Some(path) => drop(targets.cache.insert(path.join(named_in(line)))),
                None => targets.others += 1,
            }
        }
        (targets, deleted)
    }
}

/// The name that a call gives beside a directory's descriptor.
fn named_in(line: &str) -> &str {
    let name = line.split_once(">, \"").and_then(|(_, rest)| rest.split_once('"')).map(|(name, _)| name);
    name.filter(|name| !name.starts_with('/')).unwrap_or_default()
}

/// Checks the home after changes that nothing hit. Returns what is wrong.
pub(crate) fn check_finished(template: &Template, home: &Home) -> Vec<String> {
    let mut wrong = Vec::new();
    let files: BTreeSet<PathBuf> = files_of(&home.cache()).into_keys().collect();
    for path in files.difference(&template.kept) {
        wrong.push(format!("`{}` is left after a prune", path.display()));
    }
    for path in template.kept.difference(&files) {
        wrong.push(format!("`{}` was protected, and a prune took it", path.display()));
    }
    let references = home.texts("SELECT reference FROM image_ref");
    if references != template.protected {
        wrong.push(format!("{references:?} are left after a prune"));
    }
    let records = recorded(home);
    if !records.is_empty() {
        wrong.push(format!("records are left after a prune: {records:?}"));
    }
    wrong
}

/// The files that rows own.
fn owned(home: &Home) -> BTreeSet<PathBuf> {
    let named = |room: &str, suffix: &str, query: &str| -> Vec<PathBuf> {
        let digests = home.texts(query);
        digests.iter().map(|digest| Path::new(room).join(digest.replace(':', "_") + suffix)).collect()
    };
    let mut owned = named("layers", ".erofs", "SELECT diff_id FROM layer");
    owned.extend(named("fsmeta", ".erofs", "SELECT digest FROM manifest"));
    owned.extend(named("vmdk", ".vmdk", "SELECT digest FROM manifest"));
    let references = home.texts("SELECT reference FROM image_ref");
    owned.extend(references.iter().map(|reference| crate::template::metadata_of(reference)));
    owned.into_iter().collect()
}

/// The files that records name.
fn recorded(home: &Home) -> BTreeSet<PathBuf> {
    if home.texts("SELECT name FROM sqlite_master WHERE name = 'larder_deletion'").is_empty() {
        return BTreeSet::new();
    }
    home.texts("SELECT room || '/' || name FROM larder_deletion").into_iter().map(PathBuf::from).collect()
}
