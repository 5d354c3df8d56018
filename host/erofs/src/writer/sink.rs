//! The sink of an image: written forward in large pieces, and once at the beginning at the end.

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::format::BLOCK;

/// The number of bytes that are written at once. A larger buffer than the processor's own cache was slower.
const BUFFER: usize = 1 << 18;

/// The error for file data that could not be copied.
#[derive(Debug)]
pub(crate) enum CopyError {
    /// The data could not be read.
    Read(io::Error),
    /// The data ended after this many bytes.
    Short(u64),
    /// The data could not be written.
    Write(io::Error),
}

/// A buffer of [`BUFFER`] bytes before a sink. Data is read into the buffer itself, so that it is copied once.
pub(crate) struct Sink<W> {
    inner: W,
    buffer: Box<[u8]>,
    used: usize,
    /// The number of bytes that have left the buffer.
    flushed: u64,
}

impl<W: Write + Seek> Sink<W> {
    /// Makes a sink that begins with `header` blocks of zeros, which [`finish`](Self::finish) replaces.
    pub(crate) fn new(inner: W, header: u32) -> io::Result<Self> {
        let mut sink = Self { inner, buffer: vec![0; BUFFER].into(), used: 0, flushed: 0 };
        for _ in 0..header {
            sink.write(&[0; BLOCK as usize])?;
        }
        Ok(sink)
    }

    /// Returns the number of bytes so far.
    pub(crate) fn position(&self) -> u64 {
        self.flushed + self.used as u64
    }

    /// Appends `bytes`.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = self.room()?;
            let taken = room.len().min(bytes.len());
            room[..taken].copy_from_slice(&bytes[..taken]);
            self.used += taken;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Appends `size` bytes of `data`.
    pub(crate) fn copy(&mut self, data: &mut dyn Read, size: u64) -> Result<(), CopyError> {
        let mut left = size;
        while left > 0 {
            let room = self.room().map_err(CopyError::Write)?;
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(room.len());
            match data.read(&mut room[..wanted]) {
                Ok(0) => return Err(CopyError::Short(size - left)),
                Ok(count) => {
                    self.used += count;
                    left -= count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(CopyError::Read(error)),
            }
        }
        Ok(())
    }

    /// Appends zeros up to `position`, which is less than a few blocks ahead.
    pub(crate) fn pad_to(&mut self, position: u64) -> io::Result<()> {
        while self.position() < position {
            let missing = (position - self.position()).min(BLOCK) as usize;
            self.write(&[0; BLOCK as usize][..missing])?;
        }
        Ok(())
    }

    /// Appends zeros up to the next block.
    pub(crate) fn pad_to_block(&mut self) -> io::Result<()> {
        self.pad_to(self.position().next_multiple_of(BLOCK))
    }

    /// Writes everything that is buffered, then `header` over the beginning.
    pub(crate) fn finish(mut self, header: &[u8]) -> io::Result<W> {
        self.flush()?;
        self.inner.seek(SeekFrom::Start(0))?;
        self.inner.write_all(header)?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    /// Returns the free part of the buffer, which is never empty.
    fn room(&mut self) -> io::Result<&mut [u8]> {
        if self.used == self.buffer.len() {
            self.flush()?;
        }
        Ok(&mut self.buffer[self.used..])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.write_all(&self.buffer[..self.used])?;
        self.flushed += self.used as u64;
        self.used = 0;
        Ok(())
    }
}
