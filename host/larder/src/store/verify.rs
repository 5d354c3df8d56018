//! Comparing the index with the files.
//!
//! Every entry that a row owns is looked at, and every file that no row owns is named. Nothing is changed, and no lease
//! is taken: what others do meanwhile can show as a finding.

use std::collections::HashSet;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use rusqlite::Connection;
use serde::Serialize;

use crate::artifacts::plain::{MAX_METADATA, open_file_at, read_at};
use crate::artifacts::unowned::{UnownedFile, UnownedKind, find_unowned};
use crate::artifacts::{CacheDir, Entry, FileStat, Room, Rooms};
use crate::catalog::owners;
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::reference::Digest;

/// How closely files are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VerifyDepth {
    /// Size and first bytes.
    #[default]
    Shallow,
    /// Every byte is read, and digests are compared where they are known.
    Deep,
}

/// What is done about files that nothing owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Repair {
    /// Nothing.
    #[default]
    ReportOnly,
    /// They are deleted, unless they are held by somebody, younger than an hour, or nothing that a cache makes.
    RemoveOrphans,
}

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FindingKind {
    /// The index names it, and it is not there.
    Missing,
    /// Its size cannot be right.
    WrongSize,
    /// It does not begin as a file of its kind does.
    WrongMagic,
    /// Its content does not have the digest that it should have.
    WrongDigest,
    /// It could not be read.
    Unreadable,
    /// Nothing owns it.
    Orphan,
    /// Nothing owns it, and it is nothing that a cache makes: it is never deleted.
    Foreign,
}

/// What became of a file that nothing owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RepairOutcome {
    /// It was deleted.
    Removed,
    /// Somebody holds it, it is too young, or it could not be deleted.
    Left,
}

/// Something that is wrong.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Allocated bytes.
    pub bytes: u64,
    /// One sentence for people.
    pub detail: String,
    /// What is wrong.
    pub kind: FindingKind,
    /// The digest or reference that needs the file, where one does.
    pub owner: Option<String>,
    /// The file, relative to the cache directory. What is not Unicode in its name is replaced in a document.
    #[serde(serialize_with = "displayed")]
    pub path: PathBuf,
    /// What was done about it, where a repair was asked for.
    pub repair: Option<RepairOutcome>,
}

fn displayed<S: serde::Serializer>(path: &std::path::Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

impl Finding {
    /// Whether this is damage, and not a mere waste of space.
    pub fn is_damage(&self) -> bool {
        !matches!(self.kind, FindingKind::Orphan | FindingKind::Foreign)
    }
}

/// What a verification found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct VerifyReport {
    /// Files that the index names.
    pub checked: u64,
    /// What is wrong, in the order of the paths.
    pub findings: Vec<Finding>,
    /// What could not be looked at, or not be deleted: one sentence each.
    pub problems: Vec<String>,
}

/// A file that the index names.
struct Named {
    entry: Entry,
    owner: String,
    /// Its size, where the index knows it.
    size: Option<u64>,
}

/// Compares the index with the files.
pub(crate) fn verify(
    connection: &Connection,
    cache: &CacheDir,
    depth: VerifyDepth,
    now: DateTime<Utc>,
) -> MicrosandboxResult<VerifyReport> {
    let rooms = cache.rooms().map_err(MicrosandboxError::io("open", cache.root()))?;
    let mut named = Vec::new();
    owners::for_each(connection, |row| {
        let files =
            row.owner.entries().map(|entry| Named { entry, owner: row.text.clone(), size: row.file_bytes });
        named.extend(files);
    })
    .map_err(MicrosandboxError::db("find out what the index names"))?;
    let owned: HashSet<Entry> = named.iter().map(|file| file.entry.clone()).collect();
    let mut report = VerifyReport { checked: named.len() as u64, ..VerifyReport::default() };
    for file in named {
        let stat = rooms.stat(&file.entry);
        let bytes = stat.as_ref().ok().copied().flatten().map_or(0, |stat| stat.allocated);
        if let Some((kind, detail)) = examine(&rooms, &file, stat, depth) {
            let path = file.entry.path();
            report.findings.push(Finding {
                bytes,
                detail,
                kind,
                owner: Some(file.owner),
                path,
                repair: None,
            });
        }
    }
    let keeper = super::keeper(connection, cache)?;
    let unowned = keeper.judge(find_unowned(cache, &owned, &HashSet::new(), now));
    report.findings.extend(unowned.old.into_iter().chain(unowned.left).map(orphan));
    report.problems = unowned.problems;
    report.findings.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(report)
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

/// What is wrong with a file, if something is.
fn examine(
    rooms: &Rooms,
    file: &Named,
    stat: io::Result<Option<FileStat>>,
    depth: VerifyDepth,
) -> Option<(FindingKind, String)> {
    let stat = match stat {
        Ok(Some(stat)) => stat,
        Ok(None) => return Some((FindingKind::Missing, format!("`{}` needs it", file.owner))),
        Err(error) => return Some((FindingKind::Unreadable, error.to_string())),
    };
    if !stat.is_file {
        return Some((FindingKind::WrongMagic, "it is not a regular file".to_owned()));
    }
    let size = stat.identity.size;
    if let Some(expected) = file.size.filter(|&expected| expected != size) {
        return Some((FindingKind::WrongSize, format!("{size} bytes instead of {expected}")));
    }
    let room = rooms.get(file.entry.room)?;
    let (directory, name) = (&room.directory, file.entry.name.as_str());
    let checked = match file.entry.room {
        Room::Layers | Room::Fsmeta => check_erofs(directory, name, size, depth),
        Room::Vmdk => check_vmdk(directory, name),
        Room::Manifests => check_metadata(directory, name, depth),
    };
    match checked {
        Ok(finding) => finding,
        Err(error) => Some((FindingKind::Unreadable, error.to_string())),
    }
}

/// The superblock of an EROFS image lies at 1024 and begins with this number, little-endian.
const EROFS_MAGIC: u32 = 0xE0F5_E1E2;
const EROFS_SUPERBLOCK: usize = 1024;
/// The block size of every image that microsandbox or Larder makes.
const EROFS_BLOCK: u64 = 4096;

fn check_erofs(
    directory: &OwnedFd,
    name: &str,
    size: u64,
    depth: VerifyDepth,
) -> io::Result<Option<(FindingKind, String)>> {
    if size == 0 || !size.is_multiple_of(EROFS_BLOCK) {
        return Ok(Some((
            FindingKind::WrongSize,
            format!("{size} bytes, which are not whole blocks of {EROFS_BLOCK}"),
        )));
    }
    let mut file = open_file_at(directory, name.as_ref())?;
    let mut head = [0; EROFS_SUPERBLOCK + 4];
    file.read_exact(&mut head)?;
    let magic = head.last_chunk::<4>().map_or(0, |magic| u32::from_le_bytes(*magic));
    if magic != EROFS_MAGIC {
        return Ok(Some((FindingKind::WrongMagic, "it has no EROFS superblock".to_owned())));
    }
    if depth == VerifyDepth::Deep {
        io::copy(&mut file, &mut io::sink())?;
    }
    Ok(None)
}

fn check_vmdk(directory: &OwnedFd, name: &str) -> io::Result<Option<(FindingKind, String)>> {
    const HEADER: &[u8] = b"# Disk DescriptorFile";
    let mut head = Vec::new();
    open_file_at(directory, name.as_ref())?.take(HEADER.len() as u64).read_to_end(&mut head)?;
    let wrong = || (FindingKind::WrongMagic, "it is no VMDK descriptor".to_owned());
    Ok((head != HEADER).then(wrong))
}

fn check_metadata(
    directory: &OwnedFd,
    name: &str,
    depth: VerifyDepth,
) -> io::Result<Option<(FindingKind, String)>> {
    #[derive(serde::Deserialize)]
    struct Metadata {
        manifest_digest: String,
        config_digest: String,
        raw_manifest_json: String,
        raw_config_json: String,
    }
    let text = read_at(directory, name.as_ref(), MAX_METADATA)?;
    let Ok(metadata) = serde_json::from_slice::<Metadata>(&text) else {
        return Ok(Some((FindingKind::WrongMagic, "it is not the metadata of an image".to_owned())));
    };
    if depth == VerifyDepth::Shallow {
        return Ok(None);
    }
    let parts = [
        ("manifest", metadata.raw_manifest_json, metadata.manifest_digest),
        ("config", metadata.raw_config_json, metadata.config_digest),
    ];
    let wrong = parts.into_iter().find(|(_, text, digest)| Digest::of(text.as_bytes()).as_str() != digest);
    Ok(wrong
        .map(|(part, _, digest)| (FindingKind::WrongDigest, format!("its {part} is not that of `{digest}`"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file is told by its size and its first bytes.
    #[test]
    fn files_are_examined() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("x");
        let opened = crate::artifacts::open_dir(directory.path()).unwrap().unwrap();
        let mut image = vec![0; 4096];
        image[1024..1028].copy_from_slice(&EROFS_MAGIC.to_le_bytes());
        let kind = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("a file");
            check_erofs(&opened, "x", bytes.len() as u64, VerifyDepth::Deep)
                .expect("an answer")
                .map(|(kind, _)| kind)
        };
        assert_eq!(kind(&image), None);
        assert_eq!(kind(&image[..4000]), Some(FindingKind::WrongSize));
        assert_eq!(kind(&[]), Some(FindingKind::WrongSize));
        assert_eq!(kind(&[0; 4096]), Some(FindingKind::WrongMagic));
    }
}
