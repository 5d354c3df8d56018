//! Writing the archive: a tar file of blobs and documents, whose names are known only after they are written.
//!
//! The archive grows as a temporary file beside its final name. A member begins with an empty header, which gets its
//! length and name when the content is complete. A member that the archive already has is removed again. In the end the
//! file is synced and renamed, so the final name always has a complete archive or the earlier file. A process that is
//! killed leaves the temporary file behind, `.larder-save-…`.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};
use tempfile::NamedTempFile;

use super::tar::{write_end, write_padding};
use crate::artifacts::plain::without_temporary_name;
use crate::reference::Digest;

const BUFFER: usize = 256 << 10;
const HEADER: u64 = 512;

/// An archive that is being written. Dropping it deletes the file.
#[derive(Debug)]
pub(super) struct Archive {
    file: BufWriter<NamedTempFile>,
    output: PathBuf,
    /// The offset of the next member.
    end: u64,
    names: HashSet<String>,
}

impl Archive {
    /// Begins an archive whose final path is `output`.
    ///
    /// An existing file will be replaced. A symbolic link is followed. Anything else of that name is an error.
    pub(super) fn create(output: &Path) -> io::Result<Self> {
        let output = match fs::metadata(output) {
            Ok(metadata) if metadata.is_file() => fs::canonicalize(output)?,
            Ok(metadata) if metadata.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(_) => return Err(io::Error::other("it is neither a file nor a free name")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => output.to_owned(),
            Err(error) => return Err(error),
        };
        // Said of the directory, and not of a temporary name in it.
        let directory = directory_of(&output);
        File::open(directory)?;
        let file = tempfile::Builder::new()
            .prefix(".larder-save-")
            .tempfile_in(directory)
            .map_err(without_temporary_name)?;
        let file = BufWriter::with_capacity(BUFFER, file);
        Ok(Self { file, output, end: 0, names: HashSet::new() })
    }

    /// Adds a member with the content that `write` writes, and the name that is derived from it.
    pub(super) fn add<T, E: From<io::Error>>(
        &mut self,
        write: impl FnOnce(&mut Member<'_>) -> Result<(String, T), E>,
    ) -> Result<T, E> {
        self.file.write_all(&[0; HEADER as usize])?;
        let mut member = Member { archive: self, written: 0 };
        let (name, value) = write(&mut member)?;
        let size = member.written;
        if !self.names.insert(name.clone()) {
            self.file.seek(SeekFrom::Start(self.end))?;
            return Ok(value);
        }
        write_padding(size, &mut self.file)?;
        let end = self.file.stream_position()?;
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(header(&name, EntryType::Regular, size)?.as_bytes())?;
        self.file.seek(SeekFrom::Start(end))?;
        self.end = end;
        Ok(value)
    }

    /// Adds a small member.
    pub(super) fn add_bytes(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.add(|member| {
            member.write_all(content)?;
            Ok((name.to_owned(), ()))
        })
    }

    /// Adds a directory.
    pub(super) fn add_directory(&mut self, name: &str) -> io::Result<()> {
        self.file.write_all(header(name, EntryType::Directory, 0)?.as_bytes())?;
        self.end += HEADER;
        Ok(())
    }

    /// Ends the archive and renames it to its final name. Returns its length.
    pub(super) fn publish(mut self) -> io::Result<u64> {
        write_end(&mut self.file)?;
        let length = self.file.stream_position()?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        // What was taken back at the end may have been longer than what followed.
        file.as_file().set_len(length)?;
        file.as_file().sync_all()?;
        file.persist(&self.output).map_err(|error| error.error)?;
        File::open(directory_of(&self.output))?.sync_all()?;
        Ok(length)
    }
}

/// The content of a member.
#[derive(Debug)]
pub(super) struct Member<'a> {
    archive: &'a mut Archive,
    written: u64,
}

impl Write for Member<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.archive.file.write(buffer)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.archive.file.flush()
    }
}

fn directory_of(output: &Path) -> &Path {
    output.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a header in GNU's form, in which a length of more than 8 GiB fits into the header itself.
fn header(name: &str, kind: EntryType, size: u64) -> io::Result<Header> {
    let mut header = Header::new_gnu();
    header.set_path(name)?;
    header.set_entry_type(kind);
    header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    Ok(header)
}

/// A writer that passes bytes on, and computes their digest and length.
#[derive(Debug)]
pub(super) struct Hashing<W> {
    inner: W,
    hash: Sha256,
    length: u64,
}

impl<W: Write> Hashing<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), length: 0 }
    }

    /// Returns the inner writer, and the digest and length of what was written.
    pub(super) fn finish(self) -> (W, Digest, u64) {
        (self.inner, Digest::from_hash(self.hash), self.length)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hash.update(&buffer[..count]);
        self.length += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file is in an archive only once, even if it is added again later, with any length.
    #[test]
    fn nothing_is_twice() {
        let directory = tempfile::tempdir().expect("a directory");
        let output = directory.path().join("a.tar");
        let mut archive = Archive::create(&output).expect("an archive");
        archive.add_directory("d/").expect("added");
        for (name, length) in [("x", 70_000), ("y", 1), ("x", 70_000), ("z", 0), ("x", 300_000)] {
            archive.add_bytes(name, &vec![b'-'; length]).expect("added");
        }
        assert!(!output.exists(), "not before it is whole");
        let length = archive.publish().expect("an archive");
        let bytes = fs::read(&output).expect("the archive");
        assert_eq!(bytes.len() as u64, length);
        let mut read = tar::Archive::new(bytes.as_slice());
        let members: Vec<(String, u64)> = read
            .entries()
            .expect("members")
            .map(|entry| entry.expect("a member"))
            .map(|entry| (entry.path().expect("a name").display().to_string(), entry.size()))
            .collect();
        let expected = [("d/", 0), ("x", 70_000), ("y", 1), ("z", 0)];
        assert_eq!(members, expected.map(|(name, size)| (name.to_owned(), size)));
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
    }

    /// Only a regular file is replaced, and a cancelled archive leaves no file.
    #[test]
    fn only_files_are_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        fs::write(at("old"), "old").expect("a file");
        std::os::unix::fs::symlink("old", at("link")).expect("a link");
        assert!(Archive::create(directory.path()).is_err());
        assert!(Archive::create(Path::new("/dev/null")).is_err());
        assert!(Archive::create(&at("missing/x")).is_err());
        drop(Archive::create(&at("old")).expect("an archive"));
        assert_eq!(fs::read(at("old")).expect("a file"), b"old");
        Archive::create(&at("link")).and_then(Archive::publish).expect("an archive");
        assert_eq!(fs::read(at("old")).expect("a file"), [0; 1024]);
        assert!(at("link").is_symlink());
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 2);
    }
}
