//! The source of an image.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

/// A source of bytes that can be read from any offset. Reading has no position, so several threads may read at once.
pub trait ReadAt {
    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    ///
    /// The errors of the source, and [`io::ErrorKind::UnexpectedEof`] if it ends too early.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Returns the length in bytes.
    ///
    /// # Errors
    ///
    /// The errors of the source.
    fn length(&self) -> io::Result<u64>;
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl ReadAt for Vec<u8> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.as_slice().read_exact_at(buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.as_slice().length()
    }
}

/// A regular file.
impl ReadAt for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        (**self).length()
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Box<T> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        (**self).length()
    }
}

/// The number of bytes of metadata that are read at once.
const WINDOW: u64 = 32 << 10;

/// A cache of the parts of an image's metadata that were read last. An inode is 64 bytes, and the next one is often
/// beside it.
#[derive(Default)]
pub(super) struct Cache {
    windows: Mutex<[Window; 8]>,
}

#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Cache {
    /// Fills `buffer` from `offset` on. The source has `length` bytes, and the range is within them.
    pub(super) fn read<S: ReadAt>(
        &self,
        source: &S,
        length: u64,
        buffer: &mut [u8],
        offset: u64,
    ) -> io::Result<()> {
        let mut windows = self.windows.lock().unwrap_or_else(|poisoned| {
            let mut windows = poisoned.into_inner();
            *windows = Default::default();
            windows
        });
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let start = at - at % WINDOW;
            let window = &mut windows[(start / WINDOW % 8) as usize];
            if window.start != start || window.bytes.is_empty() {
                window.bytes.clear();
                let mut bytes = vec![0; WINDOW.min(length.saturating_sub(start)) as usize];
                source.read_exact_at(&mut bytes, start)?;
                *window = Window { start, bytes };
            }
            let found = window.bytes.get((at - start) as usize..).unwrap_or_default();
            if found.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let count = found.len().min(buffer.len() - done);
            buffer[done..done + count].copy_from_slice(&found[..count]);
            done += count;
        }
        Ok(())
    }
}
