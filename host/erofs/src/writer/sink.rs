//! The sink of an image: written forward in large pieces, and once at the beginning at the end.

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::format::BLOCK;

/// The number of bytes that are written at once. A larger buffer than the processor's own cache was slower.
const BUFFER: usize = 1 << 18;

/// The number of bytes of zeros that are left out at least, as a hole of the file. A shorter hole saves less than its
/// bookkeeping costs.
const MIN_HOLE: usize = 4 * BLOCK as usize;

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

/// A buffer of [`BUFFER`] bytes before a sink. Data is read into the buffer itself, so that it is copied once. Blocks of
/// zeros are skipped, since the sink is empty; the last block is written, so that the sink is as long as the image.
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
        let end = self.used;
        self.flush(end.saturating_sub(BLOCK as usize))?;
        self.inner.seek(SeekFrom::Start(0))?;
        self.inner.write_all(header)?;
        self.inner.flush()?;
        Ok(self.inner)
    }

    /// Returns the free part of the buffer, which is never empty.
    fn room(&mut self) -> io::Result<&mut [u8]> {
        if self.used == self.buffer.len() {
            self.flush(self.used)?;
        }
        Ok(&mut self.buffer[self.used..])
    }

    /// Writes what is buffered, but for blocks of zeros among the first `sparse` bytes.
    fn flush(&mut self, sparse: usize) -> io::Result<()> {
        let bytes = &self.buffer[..self.used];
        let (mut written, mut at) = (0, 0);
        while at < sparse {
            let zeros = zeros_at_beginning(&bytes[at..sparse]);
            if zeros >= MIN_HOLE {
                self.inner.write_all(&bytes[written..at])?;
                self.inner.seek_relative(zeros as i64)?;
                written = at + zeros;
            }
            at += zeros.max(BLOCK as usize);
        }
        self.inner.write_all(&bytes[written..])?;
        self.flushed += self.used as u64;
        self.used = 0;
        Ok(())
    }
}

/// Returns the number of bytes of the blocks of zeros at the beginning.
fn zeros_at_beginning(bytes: &[u8]) -> usize {
    const ZEROS: [u8; BLOCK as usize] = [0; BLOCK as usize];
    bytes.chunks_exact(ZEROS.len()).take_while(|block| *block == ZEROS).count() * ZEROS.len()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A sink that counts the bytes that are written to it.
    struct Counted(Cursor<Vec<u8>>, usize);

    impl Write for Counted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 += bytes.len();
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Counted {
        fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
            self.0.seek(position)
        }
    }

    /// Blocks of zeros are not written, wherever they are, and the sink is as long and has the same bytes as with them.
    #[test]
    fn zeros_are_holes() {
        const B: usize = BLOCK as usize;
        // Besides the header, which is written at first as zeros, and once at the end.
        for (pieces, written) in [
            (&[(7, B), (0, 10 * B), (7, B)][..], 2 * B),
            // All but the last block, which is as long as the first that is left out.
            (&[(0, 2 * BUFFER)], 0),
            (&[(7, B), (0, 3 * B), (7, B)], 5 * B),
            (&[(7, BUFFER - B), (0, 4 * B), (7, 10)], BUFFER),
            (&[(7, 100), (0, 20 * B), (7, 100)], 2 * B),
        ] {
            let mut sink = Sink::new(Counted(Cursor::new(Vec::new()), 0), 1).expect("a sink");
            let mut expected = vec![1; B];
            for &(byte, count) in pieces {
                sink.write(&vec![byte; count]).expect("written");
                expected.resize(expected.len() + count, byte);
            }
            sink.pad_to_block().expect("padded");
            expected.resize(expected.len().next_multiple_of(B), 0);
            let Counted(bytes, count) = sink.finish(&[1; B]).expect("finished");
            assert!(bytes.into_inner() == expected, "{pieces:?}");
            assert_eq!(count, written + 2 * B, "{pieces:?}");
        }
    }
}
