//! The container of images: a directory, or a tar archive in a file, compressed or not.
//!
//! Files are read from any position. In a plain tar archive, one scan finds the beginning of each file. A compressed
//! archive, or one that is not in a file, is first decompressed to a file without a name in `tmp/`, which the kernel always
//! deletes.
//!
//! Names count from the root of the container, with or without a slash at their beginning. Symbolic links are followed
//! within an archive, and within a directory. Of a directory, a blob of a layout may be a link that leads out of it, since
//! Bazel writes layouts so: the content has to match the digest that is the name. No other file outside of a directory is
//! read. The links of an archive count from their directory, or from the root where there is nothing, as old versions of
//! `docker save` count.

mod decompress;
mod directory;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use larder_erofs::EntryPath;
use sha2::{Digest as _, Sha256};

use super::account::check_limit;
use super::cancel::Cancellable;
use super::document::blob_name;
use super::error::{IngestError, IngestProblem};
use super::input::Input;
use super::limits::{IngestLimits, LimitKey};
use super::streams::Incoming;
use super::tar::{TarKind, scan};
use crate::artifacts::open_dir;
use crate::reference::Digest;
use decompress::{decompress, is_compressed};
use directory::open_beneath;

/// The number of bytes of a file that are held in memory.
const BUFFER: usize = 256 << 10;

/// The maximum number of links to links that are followed for an archive member.
const MAX_LINKS: usize = 8;

/// A part of a file.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    file: Arc<File>,
    offset: u64,
    length: u64,
}

impl Section {
    /// Returns a whole file.
    pub(crate) fn whole(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), offset: 0, length })
    }

    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// Returns the position of the section. Sections with the same position have the same content.
    pub(crate) fn id(&self) -> io::Result<SectionId> {
        let metadata = self.file.metadata()?;
        Ok((metadata.dev(), metadata.ino(), self.offset, self.length))
    }

    /// Returns a part of it.
    pub(crate) fn part(&self, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        if offset.checked_add(length).is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        self.file.read_exact_at(&mut bytes, self.offset + offset).map(|()| bytes)
    }

    pub(crate) fn reader(&self) -> SectionReader {
        SectionReader { section: self.clone(), position: 0 }
    }
}

/// The position of a [`Section`]: device and inode of the file, offset and length in it.
pub(crate) type SectionId = (u64, u64, u64, u64);

/// A reader of a [`Section`] from its beginning.
#[derive(Debug)]
pub(crate) struct SectionReader {
    section: Section,
    position: u64,
}

impl Read for SectionReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.section.length - self.position;
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
        if wanted == 0 {
            return Ok(0);
        }
        match self.section.file.read_at(&mut into[..wanted], self.section.offset + self.position)? {
            // Somebody has cut the file off since it was scanned.
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.position += count as u64;
                Ok(count)
            }
        }
    }
}

/// The files of a bundle by name.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// The name of the bundle, as the caller gave it.
    name: String,
    files: Files,
    limits: IngestLimits,
    cancelled: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Files {
    Directory(OwnedFd),
    Archive { file: Arc<File>, members: HashMap<String, Member> },
}

#[derive(Debug)]
enum Member {
    File {
        offset: u64,
        length: u64,
    },
    /// The same file as the first of these other members that is there.
    Link(Vec<String>),
}

impl Bundle {
    /// Opens a directory or archive. `temporary` is a directory for decompressed data. Decompression ends if it is
    /// `cancelled`.
    pub(crate) fn open(
        input: Input,
        temporary: &Path,
        limits: &IngestLimits,
        cancelled: Arc<AtomicBool>,
    ) -> Result<Self, IngestError> {
        let name = input.name();
        let fail = |problem: IngestProblem| problem.of(&name);
        let unreadable = |error| fail(IngestProblem::Read(error));
        let spooled = |source: &mut dyn Read| {
            decompress(Cancellable { source, cancelled: &cancelled }, temporary, limits, &cancelled)
                .map_err(fail)
        };
        let file = match input {
            Input::Path(path) if path.is_dir() => {
                let directory = open_dir(&path).map_err(unreadable)?;
                let files = Files::Directory(directory.ok_or_else(|| fail(IngestProblem::NotAnArchive))?);
                return Ok(Self { name, files, limits: *limits, cancelled });
            }
            Input::Path(path) => Ok(File::open(path).map_err(unreadable)?),
            Input::File { file, .. } => Ok(file),
            Input::Reader { reader, .. } => Err(reader),
        };
        let file = match file {
            Ok(file) if is_plain(&file).map_err(fail)? => file,
            Ok(mut file) if file.metadata().map_err(unreadable)?.is_file() => spooled(&mut file)?,
            Ok(file) => spooled(&mut Incoming::start(file, Arc::clone(&cancelled)).map_err(unreadable)?)?,
            Err(reader) => {
                spooled(&mut Incoming::start(reader, Arc::clone(&cancelled)).map_err(unreadable)?)?
            }
        };
        if file.metadata().map_err(unreadable)?.len() == 0 {
            return Err(fail(IngestProblem::Empty));
        }
        let members = members_of(&file, &name, limits)?;
        let files = Files::Archive { file: Arc::new(file), members };
        Ok(Self { name, files, limits: *limits, cancelled })
    }

    /// Returns the name of the bundle, as the caller gave it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the file of this name, if there is one.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Section>, IngestError> {
        self.look_up(name).map_err(|problem| problem.of(&self.name).at_entry(name.as_bytes()))
    }

    /// Returns the file of this name.
    pub(crate) fn get(&self, name: &str) -> Result<Section, IngestError> {
        self.find(name)?.ok_or_else(|| IngestProblem::Missing(name.to_owned()).of(&self.name))
    }

    /// Returns the blob of a digest, if it is where an OCI image layout has it.
    pub(crate) fn blob(&self, digest: &Digest) -> Result<Section, IngestError> {
        self.get(&blob_name(digest))
    }

    /// Returns a blob if it has the size that is stated of it.
    pub(crate) fn sized(&self, blob: Section, digest: &Digest, size: u64) -> Result<Section, IngestError> {
        if blob.len() == size {
            return Ok(blob);
        }
        let (what, found) = (digest.to_string(), blob.len());
        Err(IngestProblem::WrongSize { what, expected: size, found }.of(&self.name))
    }

    /// Reads a whole file and returns its digest.
    pub(crate) fn digest(&self, section: &Section) -> io::Result<Digest> {
        let mut hasher = Sha256::new();
        let mut reader = Cancellable { source: section.reader(), cancelled: &self.cancelled };
        let mut buffer = vec![0; BUFFER];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(Digest::from_hash(hasher)),
                count => hasher.update(&buffer[..count]),
            }
        }
    }

    /// Returns the whole content of a file, which is not large.
    pub(crate) fn document(&self, section: &Section, name: &str) -> Result<Vec<u8>, IngestError> {
        let fail = |problem: IngestProblem| problem.of(&self.name).at_entry(name.as_bytes());
        check_limit(section.len(), &self.limits, LimitKey::DocumentBytes).map_err(fail)?;
        section.part(0, section.len()).map_err(|error| fail(IngestProblem::reading(error)))
    }

    fn look_up(&self, name: &str) -> Result<Option<Section>, IngestProblem> {
        match &self.files {
            Files::Directory(directory) => open_beneath(directory, name),
            Files::Archive { file, members } => {
                let Some(mut name) = normal(name.as_bytes())? else { return Ok(None) };
                for _ in 0..MAX_LINKS {
                    match members.get(&name) {
                        Some(&Member::File { offset, length }) => {
                            return Ok(Some(Section { file: Arc::clone(file), offset, length }));
                        }
                        Some(Member::Link(targets)) => {
                            let there = targets.iter().find(|target| members.contains_key(*target));
                            let Some(target) = there else { return Ok(None) };
                            name.clone_from(target);
                        }
                        None => return Ok(None),
                    }
                }
                Err(IngestProblem::Tar("it is a link to a link without end".to_owned()))
            }
        }
    }
}

/// Returns the normal form of a member's name: components with `/` between them, or `None` for the root.
fn normal(name: &[u8]) -> Result<Option<String>, IngestProblem> {
    let path = EntryPath::parse_from_root(name).map_err(|error| IngestProblem::Entry(error.to_string()))?;
    Ok(String::from_utf8(path.as_bytes().to_vec()).ok().filter(|name| !name.is_empty()))
}

fn members_of(
    file: &File,
    archive: &str,
    limits: &IngestLimits,
) -> Result<HashMap<String, Member>, IngestError> {
    let mut members = HashMap::new();
    let mut failed_at = None;
    let mut entries = 0;
    let scanned = scan(file, |entry, offset| {
        let mut add = || -> Result<(), IngestProblem> {
            entries += 1;
            check_limit(entries, limits, LimitKey::ArchiveEntries)?;
            let Some(name) = normal(&entry.path)? else { return Ok(()) };
            let member = match &entry.kind {
                TarKind::File if entry.sparse.is_none() => Member::File { offset, length: entry.stored },
                TarKind::HardLink(target) => match normal(target)? {
                    Some(target) => Member::Link(vec![target]),
                    None => return Ok(()),
                },
                // Old versions of `docker save` write a layer once, and link to it.
                TarKind::Symlink(target) => Member::Link(targets(&name, target)),
                _ => return Ok(()),
            };
            members.insert(name, member);
            Ok(())
        };
        add().inspect_err(|_| failed_at = Some(entry.path.clone()))
    });
    match (scanned, failed_at) {
        (Ok(()), _) => Ok(members),
        (Err(problem), Some(entry)) => Err(problem.of(archive).at_entry(&entry)),
        (Err(IngestProblem::Tar(_)), None) if members.is_empty() => {
            Err(IngestProblem::NotAnArchive.of(archive))
        }
        (Err(problem), None) => Err(problem.of(archive)),
    }
}

/// Returns the members that a symbolic link may lead to: that counted from its directory, and that from the root. None
/// leads out of the archive.
fn targets(link: &str, target: &[u8]) -> Vec<String> {
    let Ok(target) = std::str::from_utf8(target) else { return Vec::new() };
    let directory = link.rsplit_once('/').map_or("", |(directory, _)| directory);
    let from = if target.starts_with('/') { &[""][..] } else { &[directory, ""] };
    from.iter().filter_map(|directory| resolve(directory, target)).collect()
}

fn resolve(directory: &str, target: &str) -> Option<String> {
    let mut path = Vec::new();
    for part in directory.split('/').chain(target.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                path.pop()?;
            }
            part => path.push(part),
        }
    }
    Some(path.join("/"))
}

/// Returns whether a file can be read where it is: it is a regular file, at its beginning, and not compressed.
fn is_plain(mut file: &File) -> Result<bool, IngestProblem> {
    Ok(file.metadata().map_err(IngestProblem::Read)?.is_file()
        && file.stream_position().map_err(IngestProblem::Read)? == 0
        && !is_compressed(file)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Links of an archive are followed within the archive and not out of it, from their directory or from the root.
    #[test]
    fn links() {
        assert_eq!(targets("b/layer.tar", b"../a/layer.tar"), ["a/layer.tar"]);
        assert_eq!(targets("layer.tar", b"./a//layer.tar"), ["a/layer.tar", "a/layer.tar"]);
        assert_eq!(targets("b/layer.tar", b"a/layer.tar"), ["b/a/layer.tar", "a/layer.tar"]);
        assert_eq!(targets("b/layer.tar", b"/a/layer.tar"), ["a/layer.tar"]);
        assert_eq!(targets("b/layer.tar", b"../../layer.tar"), Vec::<String>::new());
    }
}
