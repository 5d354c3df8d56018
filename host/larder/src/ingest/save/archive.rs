//! Writing the archive: a tar file of blobs and documents, some of whose names are known only after they are written.
//!
//! An archive in a file grows as a temporary file beside its final name. A member begins with an empty header, which
//! gets its length and name when the content is complete. A member that the archive already has is removed again. In the
//! end the file is synced and renamed, so the final name always has a complete archive or the earlier file. A process
//! that is killed leaves the temporary file behind, `.larder-save-…`.
//!
//! An archive in a stream, which cannot be changed afterwards, gets each member when it is complete. A member whose name
//! or length is not known before is written to a file without a name first, which the kernel always deletes. The list of
//! images is last in any archive, so a stream that breaks off is no archive of images.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::tar::{Kind, outer_header, write_end, write_padding};
use crate::artifacts::plain::without_temporary_name;
use crate::reference::Digest;

const BUFFER: usize = 256 << 10;
const HEADER: u64 = 512;

/// An archive that is being written. Dropping it deletes the file.
pub(super) struct Archive {
    target: Target,
    /// The offset of the next member.
    end: u64,
    names: HashSet<String>,
}

enum Target {
    File {
        file: BufWriter<NamedTempFile>,
        output: PathBuf,
    },
    Stream {
        stream: Box<dyn Write + Send>,
        /// The directory for files without names.
        temporary: PathBuf,
    },
}

impl Archive {
    /// Begins an archive whose final path is `output`.
    ///
    /// An existing file will be replaced. A symbolic link is followed. Anything else of that name is an error.
    pub(super) fn create(output: &Path) -> io::Result<Self> {
        let output = match fs::metadata(output) {
            Ok(metadata) if metadata.is_file() => fs::canonicalize(output)?,
            Ok(metadata) if metadata.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(_) => return Err(io::Error::other("it is something else than a regular file")),
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
        Ok(Self { target: Target::File { file, output }, end: 0, names: HashSet::new() })
    }

    /// Begins an archive that is written to a stream, which has a buffer. `temporary` is a directory for files without names.
    pub(super) fn stream(stream: Box<dyn Write + Send>, temporary: PathBuf) -> Self {
        Self { target: Target::Stream { stream, temporary }, end: 0, names: HashSet::new() }
    }

    /// Returns whether the archive is written to a stream.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self.target, Target::Stream { .. })
    }

    /// Adds a member with the content that `write` writes, and the name that is derived from it.
    pub(super) fn add<T, E: From<io::Error>>(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> Result<(String, T), E>,
    ) -> Result<T, E> {
        match &mut self.target {
            Target::File { file, .. } => {
                file.write_all(&[0; HEADER as usize])?;
                let (name, value) = write(file)?;
                let end = file.stream_position()?;
                let size = end - self.end - HEADER;
                file.seek(SeekFrom::Start(self.end))?;
                if self.names.insert(name.clone()) {
                    file.write_all(&outer_header(&name, Kind::File, size)?)?;
                    file.seek(SeekFrom::Start(end))?;
                    write_padding(size, file)?;
                    self.end = file.stream_position()?;
                }
                Ok(value)
            }
            Target::Stream { temporary, .. } => {
                let mut spool = BufWriter::with_capacity(BUFFER, Spool::new(temporary)?);
                let (name, value) = write(&mut spool)?;
                let mut spool = spool.into_inner().map_err(io::IntoInnerError::into_error)?;
                let size = spool.rewind()?;
                self.add_known(&name, size, |out| io::copy(&mut spool.file, out).map(drop))?;
                Ok(value)
            }
        }
    }

    /// Adds a member of this name with the `size` bytes that `write` writes, unless the archive has it.
    pub(super) fn add_known<E: From<io::Error>>(
        &mut self,
        name: &str,
        size: u64,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.names.insert(name.to_owned()) {
            return Ok(());
        }
        let mut out = Counting { inner: self.target.out(), written: 0 };
        out.write_all(&outer_header(name, Kind::File, size)?)?;
        write(&mut out)?;
        if out.written != HEADER + size {
            return Err(io::Error::other("a layer changed while it was read").into());
        }
        write_padding(size, &mut out)?;
        self.end += out.written;
        Ok(())
    }

    /// Adds a small member.
    pub(super) fn add_bytes(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        self.add_known(name, content.len() as u64, |out| out.write_all(content))
    }

    /// Adds a directory.
    pub(super) fn add_directory(&mut self, name: &str) -> io::Result<()> {
        self.target.out().write_all(&outer_header(name, Kind::Directory, 0)?)?;
        self.end += HEADER;
        Ok(())
    }

    /// Ends the archive, and renames a file to its final name. Returns the length of the archive.
    pub(super) fn publish(mut self) -> io::Result<u64> {
        let mut out = Counting { inner: self.target.out(), written: 0 };
        write_end(&mut out)?;
        let length = self.end + out.written;
        match self.target {
            Target::File { file, output } => {
                let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                // What was taken back at the end may have been longer than what followed.
                file.as_file().set_len(length)?;
                file.as_file().sync_all()?;
                file.persist(&output).map_err(|error| error.error)?;
                File::open(directory_of(&output))?.sync_all()?;
            }
            Target::Stream { mut stream, .. } => stream.flush()?,
        }
        Ok(length)
    }
}

impl Target {
    fn out(&mut self) -> &mut dyn Write {
        match self {
            Self::File { file, .. } => file,
            Self::Stream { stream, .. } => stream,
        }
    }
}

/// A file without a name. Its errors say that it is not the archive that cannot be written.
struct Spool {
    file: File,
    directory: PathBuf,
}

impl Spool {
    fn new(directory: &Path) -> io::Result<Self> {
        let directory = directory.to_owned();
        let file = fs::create_dir_all(&directory).and_then(|()| tempfile::tempfile_in(&directory));
        let file = file.map_err(|error| in_directory(&directory, without_temporary_name(error)))?;
        Ok(Self { file, directory })
    }

    /// Goes back to the beginning. Returns the length.
    fn rewind(&mut self) -> io::Result<u64> {
        let length = self.file.stream_position()?;
        self.file.rewind()?;
        Ok(length)
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|error| in_directory(&self.directory, error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn in_directory(directory: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("a temporary file in `{}`: {error}", directory.display()))
}

/// A writer that counts bytes.
struct Counting<'a> {
    inner: &'a mut dyn Write,
    written: u64,
}

impl Write for Counting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn directory_of(output: &Path) -> &Path {
    output.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
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
    use std::sync::{Arc, Mutex};

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

    /// A stream gets the bytes that a file gets, with nothing twice, and nothing is left in the directory for files
    /// without names.
    #[test]
    fn streams_are_like_files() {
        struct Shared(Arc<Mutex<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().expect("no panic").write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let directory = tempfile::tempdir().expect("a directory");
        let (output, temporary) = (directory.path().join("a.tar"), directory.path().join("tmp"));
        let streamed = Arc::default();
        for mut archive in [
            Archive::create(&output).expect("an archive"),
            Archive::stream(Box::new(Shared(Arc::clone(&streamed))), temporary.clone()),
        ] {
            for (name, length) in [("x", 70_000), ("y", 0), ("x", 300_000), ("z", 512)] {
                let write = |out: &mut dyn Write| -> io::Result<_> {
                    out.write_all(&vec![b'-'; length])?;
                    Ok((name.to_owned(), ()))
                };
                archive.add(write).expect("added");
            }
            archive.add_bytes("y", b"twice").expect("passed over");
            archive.add_bytes("last", b"once").expect("added");
            archive.publish().expect("an archive");
        }
        assert!(*streamed.lock().expect("no panic") == fs::read(&output).expect("the archive"));
        assert_eq!(fs::read_dir(temporary).expect("a directory").count(), 0);
    }

    /// What cannot be written beside a stream is not said of the stream.
    #[test]
    fn spools_have_errors_of_their_own() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut archive = Archive::stream(Box::new(io::sink()), file.path().to_owned());
        let added = archive.add(|_| Ok::<_, io::Error>(("a".to_owned(), ())));
        let said = added.expect_err("no directory").to_string();
        assert!(said.starts_with(&format!("a temporary file in `{}`: ", file.path().display())), "{said}");
    }

    /// Content of another length than its header says ends the archive.
    #[test]
    fn lengths_are_kept() {
        let mut archive = Archive::stream(Box::new(io::sink()), PathBuf::new());
        for content in [&b"too long"[..], b"short"] {
            archive.add_known("a", 7, |out| out.write_all(content)).expect_err("another length");
            archive.names.clear();
        }
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
