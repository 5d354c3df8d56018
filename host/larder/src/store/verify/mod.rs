//! Comparing the index with the files.
//!
//! Every file that a row owns is examined ([`examine`]), and every file that no row owns is named. The rows' files
//! are read in one transaction, which ends before the first file is opened: a verification may take hours.
//!
//! # Locking
//! Nothing is changed, and no lock is held. Other processes publish and delete files meanwhile, so a file that is
//! missing or damaged is only suspect at first. After all files, each suspect is checked again. A file with a lease
//! that a process holds is skipped, and reported as skipped. A file that no row owns any longer is not reported. The
//! others are examined again, and reported if they are still missing or damaged.
//!
//! The one repair is a plan: [`plan_repair`](crate::LocalBackend::plan_repair).

mod examine;
mod image;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;
use serde::{Serialize, Serializer};

use super::Store;
use crate::artifacts::lease::is_held;
use crate::artifacts::unowned::{UnownedFile, UnownedKind, find_unowned};
use crate::artifacts::{Entry, Rooms};
use crate::catalog::graph;
use crate::catalog::owners::{self, LiveOwners};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::failpoint::failpoint;
use crate::reference::{Digest, RowDigest};
use examine::{Examiner, Fault};

/// The depth of the examination of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VerifyDepth {
    /// Only the parts that identify a file: superblock, root directory, device table, descriptor.
    #[default]
    Shallow,
    /// Every inode and every byte is read, and known digests are compared.
    Deep,
}

/// The kind of a problem with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FindingKind {
    /// The index names the file, and it does not exist.
    Missing,
    /// The file is not a regular file: a link, a pipe, a directory.
    NotAFile,
    /// The length of the file is not the one that it states.
    WrongSize,
    /// The file does not begin as a file of its kind does.
    WrongMagic,
    /// A part of the file is invalid.
    Damaged,
    /// The file does not match the layers of its image: their number, order, sizes or positions.
    WrongLayers,
    /// The content does not have the expected digest.
    WrongDigest,
    /// The file could not be read.
    Unreadable,
    /// No row owns the file.
    Orphan,
    /// No row owns the file, and no cache makes such a file: it is never deleted.
    Foreign,
}

/// The result of a repair of a file that no row owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RepairOutcome {
    /// The file was deleted.
    Removed,
    /// A process holds the file, it is too young, or it could not be deleted.
    Left,
}

/// A problem that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The allocated bytes.
    pub bytes: u64,
    /// One sentence for people.
    pub detail: String,
    /// The kind of the problem.
    pub kind: FindingKind,
    /// The digest or reference that needs the file, if there is one.
    pub owner: Option<String>,
    /// The file, relative to the cache directory. In a document, bytes of its name that are not Unicode are replaced.
    #[serde(serialize_with = "displayed")]
    pub path: PathBuf,
    /// The result of the repair, if one was requested.
    pub repair: Option<RepairOutcome>,
}

fn displayed<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

impl Finding {
    /// Returns whether this is damage, and not only wasted space.
    pub fn is_damage(&self) -> bool {
        !matches!(self.kind, FindingKind::Orphan | FindingKind::Foreign)
    }
}

/// The results of a verification.
#[derive(Debug, Clone, Default, Serialize)]
pub struct VerifyReport {
    /// The number of files that the index names.
    pub checked: u64,
    /// The problems, ordered by path.
    pub findings: Vec<Finding>,
    /// The files that could not be examined or deleted: one sentence each.
    pub problems: Vec<String>,
    /// The files that could not be judged while a process read, published or deleted them, relative to the cache
    /// directory and in order.
    pub skipped: Vec<PathBuf>,
}

/// A file that the index names.
struct Named {
    entry: Entry,
    /// The digest or reference of the row.
    owner: String,
    /// For a file that a manifest owns: the composition of the image.
    image: Option<Arc<Composition>>,
}

/// A manifest and its layers.
struct Composition {
    manifest: Digest,
    /// The layers, bottom to top.
    layers: Vec<RowDigest>,
}

/// A verification of a home.
pub(crate) struct Verification<'a> {
    pub(crate) store: &'a Arc<Store>,
    pub(crate) depth: VerifyDepth,
    /// Set if the caller cancelled the verification.
    pub(crate) cancelled: &'a AtomicBool,
}

impl Verification<'_> {
    /// Compares the index with the files.
    pub(crate) fn run(&self) -> MicrosandboxResult<VerifyReport> {
        let cache = self.store.cache();
        let named = self.named()?;
        failpoint!("verify.read");
        let rooms = cache.rooms().map_err(MicrosandboxError::io("open", cache.root()))?;
        let owned: HashSet<Entry> = named.iter().map(|file| file.entry.clone()).collect();
        let mut examiner = Examiner::new(cache, &rooms, self.depth, self.cancelled);
        let mut suspects = Vec::new();
        for file in &named {
            self.check_cancelled()?;
            if examiner.examine(file).is_err() {
                suspects.push(file);
            }
        }
        let reader = self.store.catalog().reader()?;
        let lost = self.store.check_cache(&reader).err();
        let custody = self.store.keeper(&reader)?.custody();
        drop(reader);
        let unowned = custody.judge(find_unowned(cache, &owned, &HashSet::new(), self.store.now()));
        let mut report = VerifyReport { checked: named.len() as u64, ..VerifyReport::default() };
        report.problems.extend(lost.map(|lost| lost.to_string()));
        self.judge(&rooms, &suspects, unowned.old.into_iter().chain(unowned.left), &mut report)?;
        report.problems.extend(unowned.problems);
        report.findings.sort_by(|a, b| a.path.cmp(&b.path));
        report.skipped.sort();
        Ok(report)
    }

    /// Reads the files that rows own, from one state of the index. Layers are first.
    fn named(&self) -> MicrosandboxResult<Vec<Named>> {
        let reader = self.store.catalog().reader()?;
        let read = || {
            // It ends with the reader.
            reader.execute_batch("BEGIN")?;
            read_named(&reader)
        };
        read().map_err(self.store.catalog().db("find out what the index names"))
    }

    /// Returns the findings for the suspects, as they are now.
    fn judge(
        &self,
        rooms: &Rooms,
        suspects: &[&Named],
        unowned: impl Iterator<Item = UnownedFile>,
        report: &mut VerifyReport,
    ) -> MicrosandboxResult<()> {
        let cache = self.store.cache();
        let reader = self.store.catalog().reader()?;
        let mut owners = LiveOwners::new(&reader);
        let catalog = self.store.catalog();
        let mut owned_now =
            |entry: &Entry| owners.own(entry).map_err(catalog.db("find out what owns a file"));
        let held =
            |entry: &Entry| rooms.get(entry.room).is_some_and(|room| is_held(&room.directory, &entry.name));
        let mut examiner = Examiner::new(cache, rooms, self.depth, self.cancelled);
        for file in suspects {
            self.check_cancelled()?;
            let was_held = held(&file.entry);
            if !owned_now(&file.entry)? {
                continue;
            }
            let Err(fault) = examiner.examine(file) else { continue };
            // Whoever began meanwhile changes it, too.
            if was_held || held(&file.entry) {
                report.skipped.push(file.entry.path());
            } else {
                report.findings.push(finding(rooms, file, fault));
            }
        }
        for file in unowned {
            // It may have been published since the index was read.
            let published = match file.entry() {
                Some(entry) => owned_now(&entry)?,
                None => false,
            };
            if !published {
                report.findings.push(orphan(file));
            }
        }
        Ok(())
    }

    fn check_cancelled(&self) -> MicrosandboxResult<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(MicrosandboxError::Interrupted("verify the cache".to_owned()));
        }
        Ok(())
    }
}

fn read_named(connection: &Connection) -> rusqlite::Result<Vec<Named>> {
    let mut compositions = graph::compositions(connection)?;
    let mut images: HashMap<Digest, Arc<Composition>> = HashMap::new();
    let mut named = Vec::new();
    let mut seen = HashSet::new();
    owners::for_each(connection, |row| {
        let image = match &row.owner {
            owners::Owner::Manifest(manifest) => {
                let composition = || {
                    let layers = compositions.remove(&RowDigest::Known(manifest.clone())).unwrap_or_default();
                    Arc::new(Composition { manifest: manifest.clone(), layers })
                };
                Some(Arc::clone(images.entry(manifest.clone()).or_insert_with(composition)))
            }
            _ => None,
        };
        // Spellings of one reference share a file.
        for entry in row.owner.entries().filter(|entry| seen.insert(entry.clone())) {
            named.push(Named { entry, owner: row.text.clone(), image: image.clone() });
        }
    })?;
    Ok(named)
}

fn finding(rooms: &Rooms, file: &Named, fault: Fault) -> Finding {
    let Fault { kind, detail } = fault;
    let bytes = rooms.stat(&file.entry).ok().flatten().map_or(0, |stat| stat.allocated);
    let (owner, path) = (Some(file.owner.clone()), file.entry.path());
    Finding { bytes, detail, kind, owner, path, repair: None }
}

fn orphan(file: UnownedFile) -> Finding {
    let (kind, detail) = match file.kind {
        UnownedKind::Artifact => (FindingKind::Orphan, "no row of the index owns it"),
        UnownedKind::Blob => (FindingKind::Orphan, "a downloaded blob that no pull is using"),
        UnownedKind::FlatRef => (FindingKind::Orphan, "the record of a flat disk whose manifest is gone"),
        UnownedKind::FlatBlob => (FindingKind::Orphan, "a flat disk that no record names"),
        UnownedKind::Temporary => (FindingKind::Orphan, "work that was begun and not finished"),
        UnownedKind::NotOurs => {
            (FindingKind::Foreign, "no row of this home owns it, and the cache may be another home's as well")
        }
        UnownedKind::Foreign => {
            (FindingKind::Foreign, "nothing that a cache makes: look at it, and delete it by hand")
        }
    };
    Finding { bytes: file.bytes, detail: detail.to_owned(), kind, owner: None, path: file.path, repair: None }
}
