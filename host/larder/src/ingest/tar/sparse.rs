//! Files with holes: the positions of their data, and reading them with zeros in between.

use std::io::{self, Read};

use super::field::{Block, number, size};
use crate::ingest::error::IngestProblem;

/// The maximum number of regions of a file: 4 MiB of memory.
const MAX_REGIONS: usize = 1 << 18;

/// The number of bytes of a region in a header of GNU.
const DESCRIPTOR: usize = 24;

/// A part of a file that has data in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Adds a region to a map.
pub(super) fn push(regions: &mut Vec<Region>, region: Region) -> Result<(), IngestProblem> {
    if regions.len() == MAX_REGIONS {
        return Err(IngestProblem::Tar(format!("a sparse file has more than {MAX_REGIONS} regions")));
    }
    regions.push(region);
    Ok(())
}

/// Adds the regions in a part of a header, up to the first that is empty in the archive.
pub(super) fn add(descriptors: &[u8], regions: &mut Vec<Region>) -> Result<(), IngestProblem> {
    for descriptor in descriptors.chunks_exact(DESCRIPTOR) {
        let (offset, length) = descriptor.split_at(DESCRIPTOR / 2);
        if offset[0] == 0 || length[0] == 0 {
            break;
        }
        let read = |field| number(field).and_then(|number| size(number).ok()).ok_or_else(no_map);
        push(regions, Region { offset: read(offset)?, length: read(length)? })?;
    }
    Ok(())
}

/// Adds the regions in a block behind a header. Returns whether another such block follows.
pub(super) fn extend(block: &Block, regions: &mut Vec<Region>) -> Result<bool, IngestProblem> {
    add(&block[..504], regions)?;
    Ok(block[504] == 1)
}

pub(super) fn no_map() -> IngestProblem {
    IngestProblem::Tar("the map of a sparse file is damaged".to_owned())
}

/// A reader of a file with holes, made from its data without them.
pub(crate) struct SparseReader<R> {
    data: R,
    regions: std::vec::IntoIter<Region>,
    region: Option<Region>,
    position: u64,
    size: u64,
}

impl<R: Read> SparseReader<R> {
    pub(crate) fn new(data: R, size: u64, regions: Vec<Region>) -> Self {
        let mut regions = regions.into_iter();
        let region = regions.next();
        Self { data, regions, region, position: 0, size }
    }
}

impl<R: Read> Read for SparseReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bounded = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX).min(into.len());
        let disorder = || IngestProblem::Tar("the regions of a sparse file are out of order".to_owned());
        loop {
            let end = self.region.map_or(self.size, |region| region.offset);
            if self.position < end {
                let count = bounded(end.min(self.size) - self.position);
                if count == 0 && !into.is_empty() {
                    return Err(disorder().into_io());
                }
                into[..count].fill(0);
                self.position += count as u64;
                return Ok(count);
            }
            let Some(region) = self.region else { return Ok(0) };
            let end = region.offset.checked_add(region.length).filter(|&end| end <= self.size);
            let end = end.ok_or_else(|| disorder().into_io())?;
            if region.offset > self.position {
                return Err(disorder().into_io());
            }
            let count = bounded(end.saturating_sub(self.position));
            if end > self.position {
                let count = self.data.read(&mut into[..count])?;
                if count == 0 && !into.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.position += count as u64;
                return Ok(count);
            }
            self.region = self.regions.next();
            if self.region.is_some_and(|next| next.offset < end) {
                return Err(disorder().into_io());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with holes reads with zeros in them. Regions that overlap or are behind the end of the file are refused.
    #[test]
    fn holes() {
        let read = |size, regions: &[(u64, u64)]| {
            let regions = regions.iter().map(|&(offset, length)| Region { offset, length }).collect();
            let mut bytes = Vec::new();
            SparseReader::new(&b"abcdef"[..], size, regions).read_to_end(&mut bytes).map(|_| bytes)
        };
        assert_eq!(read(8, &[(1, 2), (5, 1), (8, 0)]).expect("a file"), b"\0ab\0\0c\0\0");
        assert_eq!(read(3, &[]).expect("a file"), b"\0\0\0");
        for bad in [&[(0, 4), (2, 2)][..], &[(6, 4)], &[(4, 2), (0, 2)], &[(u64::MAX, 2)], &[(0, 8)]] {
            assert!(read(8, bad).is_err(), "{bad:?}");
        }
    }
}
