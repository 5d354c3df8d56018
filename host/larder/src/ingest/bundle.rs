//! The container of images: a directory, or a tar archive in a file, compressed or not.
//!
//! Files are read from any position. In a plain tar archive, one scan finds the beginning of each file. A compressed
//! archive, or one from a pipe, is first decompressed to a file without a name in `tmp/`, which the kernel always
//! deletes.
//!
//! Names count from the root of the container, with or without a slash at their beginning. Symbolic links are followed
//! within an archive, and within a directory. Of a directory, a blob of a layout may be a link that leads out of it, since
//! Bazel writes layouts so: the content has to match the digest that is the name. No other file outside of a directory is
//! read. The links of an archive count from their directory, or from the root where there is nothing, as old versions of
//! `docker save` count.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use larder_erofs::EntryPath;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::account::check_limit;
use super::cancel::Cancellable;
use super::compression::{self, Compression};
use super::error::{IngestError, IngestProblem};
use super::limits::{IngestLimits, LimitKey};
use super::tar::{TarKind, scan};
use crate::artifacts::open_dir;
use crate::artifacts::plain::without_temporary_name;
use crate::reference::Digest;

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
        let is_inside = offset.checked_add(length).is_some_and(|end| end <= self.length);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        match is_inside {
            true => self.file.read_exact_at(&mut bytes, self.offset + offset).map(|()| bytes),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
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
    document_bytes: u64,
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
    /// Opens the directory or archive at `path`. `temporary` is a directory for decompressed data. Decompression ends
    /// if it is `cancelled`.
    pub(crate) fn open(
        path: &Path,
        temporary: &Path,
        limits: &IngestLimits,
        cancelled: Arc<AtomicBool>,
    ) -> Result<Self, IngestError> {
        let name = path.display().to_string();
        let fail = |problem: IngestProblem| problem.of(&name);
        let metadata = path.metadata().map_err(|error| fail(IngestProblem::Read(error)))?;
        let files = if metadata.is_dir() {
            let directory = open_dir(path).map_err(|error| fail(IngestProblem::Read(error)))?;
            Files::Directory(directory.ok_or_else(|| fail(IngestProblem::NotAnArchive))?)
        } else {
            let file = File::open(path).map_err(|error| fail(IngestProblem::Read(error)))?;
            let file = if metadata.is_file() && !is_compressed(&file).map_err(fail)? {
                file
            } else {
                let source = Cancellable { source: file, cancelled: &cancelled };
                decompress(source, temporary, limits, &cancelled).map_err(fail)?
            };
            let members = members_of(&file, &name, limits)?;
            Files::Archive { file: Arc::new(file), members }
        };
        Ok(Self { name, files, document_bytes: limits.document_bytes, cancelled })
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
        self.get(&format!("blobs/sha256/{}", digest.hex()))
    }

    /// Reads a whole file and returns its digest.
    pub(crate) fn digest(&self, section: &Section) -> io::Result<Digest> {
        let mut hasher = Sha256::new();
        let mut reader = Cancellable { source: section.reader(), cancelled: &self.cancelled };
        let mut buffer = vec![0; BUFFER];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(Digest::of_hash(&hasher.finalize())),
                count => hasher.update(&buffer[..count]),
            }
        }
    }

    /// Returns the whole content of a file, which is not large.
    pub(crate) fn document(&self, section: &Section, name: &str) -> Result<Vec<u8>, IngestError> {
        let fail = |problem: IngestProblem| problem.of(&self.name).at_entry(name.as_bytes());
        if section.len() > self.document_bytes {
            let limit = self.document_bytes;
            return Err(fail(IngestProblem::Limit { limit, key: LimitKey::DocumentBytes }));
        }
        let mut text = Vec::new();
        section.reader().read_to_end(&mut text).map_err(|error| fail(IngestProblem::reading(error)))?;
        Ok(text)
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

fn open_beneath(directory: &OwnedFd, name: &str) -> Result<Option<Section>, IngestProblem> {
    // Opening a pipe would wait for somebody to write to it.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let opened = match openat2(directory.as_fd(), name, flags, Mode::empty(), resolve) {
        Err(Errno::XDEV) if is_blob(name) => openat(directory, name, flags, Mode::empty()),
        // Filters of system calls may not know it.
        Err(Errno::NOSYS | Errno::PERM) => open_without_links(directory, name, flags),
        opened => opened,
    };
    let file = match opened {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(Errno::XDEV | Errno::LOOP) => {
            return Err(IngestProblem::Entry("it leads out of the directory".to_owned()));
        }
        Err(error) => return Err(IngestProblem::Read(error.into())),
    };
    if !file.metadata().map_err(IngestProblem::Read)?.is_file() {
        return Err(IngestProblem::Entry("it is not a regular file".to_owned()));
    }
    Section::whole(file).map(Some).map_err(IngestProblem::Read)
}

/// Returns whether a file of a layout is named by the digest of its content.
fn is_blob(name: &str) -> bool {
    name.strip_prefix("blobs/sha256/").is_some_and(|hex| format!("sha256:{hex}").parse::<Digest>().is_ok())
}

/// Opens a file by its components, none of which may be a symbolic link but that of a blob.
fn open_without_links(directory: &OwnedFd, name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = normal(name.as_bytes()).map_err(|_| Errno::XDEV)?.ok_or(Errno::NOENT)?;
    let mut parent: Option<OwnedFd> = None;
    let (above, last) = path.rsplit_once('/').unwrap_or(("", &path));
    for component in above.split('/').filter(|component| !component.is_empty()) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        parent = Some(openat(parent.as_ref().unwrap_or(directory), component, flags, Mode::empty())?);
    }
    let flags = if is_blob(&path) { flags } else { flags | OFlags::NOFOLLOW };
    openat(parent.as_ref().unwrap_or(directory), last, flags, Mode::empty())
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

fn is_compressed(file: &File) -> Result<bool, IngestProblem> {
    let mut head = [0; compression::HEAD as usize];
    let length = file.read_at(&mut head, 0).map_err(IngestProblem::Read)?;
    Ok(Compression::detect(&head[..length]) != Compression::None)
}

/// Decompresses an archive to a file without a name.
fn decompress(
    mut archive: impl Read,
    temporary: &Path,
    limits: &IngestLimits,
    cancelled: &AtomicBool,
) -> Result<File, IngestProblem> {
    let mut head = Vec::new();
    (&mut archive).take(compression::HEAD).read_to_end(&mut head).map_err(IngestProblem::reading)?;
    let compression = Compression::detect(&head);
    let archive = BufReader::with_capacity(BUFFER, io::Cursor::new(head).chain(archive));
    let mut reader = compression.reader(archive, cancelled)?;
    let mut file =
        tempfile::tempfile_in(temporary).map_err(without_temporary_name).map_err(IngestProblem::writing)?;
    let mut buffer = vec![0; BUFFER];
    let mut bytes = 0;
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(file),
            Ok(count) => {
                bytes += count as u64;
                check_limit(bytes, limits, LimitKey::ArchiveBytes)?;
                file.write_all(&buffer[..count]).map_err(IngestProblem::writing)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(IngestProblem::reading(error)),
        }
    }
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

    /// Where the kernel cannot be told to stay in a directory, no links are followed, but those of blobs.
    #[test]
    fn without_openat2() {
        let root = tempfile::tempdir().expect("a directory");
        let blob = format!("blobs/sha256/{}", "a".repeat(64));
        std::fs::create_dir_all(root.path().join("blobs/sha256")).expect("directories");
        std::fs::write(root.path().join("index.json"), "x").expect("a file");
        for link in ["link.json", &blob] {
            std::os::unix::fs::symlink(root.path().join("index.json"), root.path().join(link))
                .expect("a link");
        }
        std::os::unix::fs::symlink("blobs", root.path().join("other")).expect("a link");
        let directory = open_dir(root.path()).expect("opened").expect("a directory");
        let open = |name: &str| open_without_links(&directory, name, OFlags::RDONLY).map(drop);
        assert_eq!(open("index.json"), Ok(()));
        assert_eq!(open(&blob), Ok(()));
        assert_eq!(open("link.json"), Err(Errno::LOOP));
        assert_eq!(open("../index.json"), Err(Errno::XDEV));
        assert_eq!(open("missing/x"), Err(Errno::NOENT));
        assert!(open("other/sha256").is_err());
    }
}
