//! The fields of a header, which is one block (POSIX, `pax`: "ustar Interchange Format").

use super::field::{Block, number, size};
use super::sparse::{self, Region};
use crate::ingest::error::IngestProblem;

/// The position of the checksum.
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// A header whose checksum is right.
pub(super) struct Header<'b>(&'b Block);

impl<'b> Header<'b> {
    /// Makes a header of a block.
    ///
    /// # Errors
    /// Fails if its checksum is wrong, whether of its bytes with or without a sign: old programs do either.
    pub(super) fn new(block: &'b Block) -> Result<Self, IngestProblem> {
        let header = Self(block);
        let expected = header.number(CHECKSUM, "checksum")?;
        let others = || block[..CHECKSUM.start].iter().chain(&block[CHECKSUM.end..]);
        let spaces = CHECKSUM.len() as i64 * i64::from(b' ');
        let unsigned: i64 = others().map(|&byte| i64::from(byte)).sum();
        let signed: i64 = others().map(|&byte| i64::from(byte.cast_signed())).sum();
        if [unsigned, signed].contains(&(expected - spaces)) {
            return Ok(header);
        }
        Err(IngestProblem::Tar("the checksum of a header is wrong".to_owned()))
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// Returns whether the header is of a format that has long names and extended headers.
    pub(super) fn has_extensions(&self) -> bool {
        self.0[257..].starts_with(b"ustar")
    }

    /// Returns the name with its prefix.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = match &self.0[508..] {
            // The format of `star` has times behind a shorter prefix.
            b"tar\0" => &self.0[345..476],
            _ => &self.0[345..500],
        };
        match text(prefix) {
            // GNU has other fields there.
            prefix if !prefix.is_empty() && self.0[257..].starts_with(b"ustar\0") => {
                [prefix, b"/", name].concat()
            }
            _ => name.to_vec(),
        }
    }

    pub(super) fn link_name(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    /// Returns the mode, of which the permissions are the low twelve bits.
    pub(super) fn mode(&self) -> Result<u32, IngestProblem> {
        self.number(100..108, "mode").map(|mode| mode as u32)
    }

    pub(super) fn uid(&self) -> Result<i64, IngestProblem> {
        self.number(108..116, "owner")
    }

    pub(super) fn gid(&self) -> Result<i64, IngestProblem> {
        self.number(116..124, "group")
    }

    pub(super) fn size(&self) -> Result<u64, IngestProblem> {
        size(self.number(124..136, "size")?)
    }

    pub(super) fn mtime(&self) -> Result<i64, IngestProblem> {
        self.number(136..148, "time")
    }

    pub(super) fn device_major(&self) -> Result<i64, IngestProblem> {
        self.number(329..337, "device")
    }

    pub(super) fn device_minor(&self) -> Result<i64, IngestProblem> {
        self.number(337..345, "device")
    }

    /// Returns the size of a sparse file of GNU with its holes.
    pub(super) fn real_size(&self) -> Result<u64, IngestProblem> {
        size(self.number(483..495, "size")?)
    }

    /// Adds the regions of a sparse file of GNU. Returns whether a block with more of them follows.
    pub(super) fn sparse_regions(&self, regions: &mut Vec<Region>) -> Result<bool, IngestProblem> {
        sparse::add(&self.0[386..482], regions)?;
        Ok(self.0[482] == 1)
    }

    fn number(&self, field: std::ops::Range<usize>, what: &str) -> Result<i64, IngestProblem> {
        let bytes = &self.0[field];
        number(bytes).ok_or_else(|| {
            let bytes = bytes.escape_ascii();
            IngestProblem::Tar(format!("the {what} `{bytes}` in a header is not a number"))
        })
    }
}

/// Returns the bytes before the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::field::BLOCK;
    use super::*;

    /// Makes a block with these fields and the checksum that belongs to it.
    pub(in super::super) fn block(fields: impl FnOnce(&mut Block)) -> Vec<u8> {
        let mut block = [0; BLOCK];
        block[257..265].copy_from_slice(b"ustar\x0000");
        fields(&mut block);
        block[CHECKSUM].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block.to_vec()
    }

    /// Checksums are of bytes with or without a sign.
    #[test]
    fn checksums() {
        let good: Block = block(|fields| fields[0] = 0xe9).try_into().expect("a block");
        assert!(Header::new(&good).is_ok());
        let mut signed = good;
        let sum = 8 * i64::from(b' ')
            + good[..148].iter().chain(&good[156..]).map(|&byte| i64::from(byte.cast_signed())).sum::<i64>();
        signed[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert!(Header::new(&signed).is_ok());
        let mut wrong = good;
        wrong[1] = 1;
        assert!(Header::new(&wrong).is_err());
    }

    /// A prefix belongs to the name in the formats of POSIX and star, and not in that of GNU.
    #[test]
    fn prefixes() {
        let path = |magic: &[u8], end: &[u8]| {
            let bytes = block(|fields| {
                fields[..4].copy_from_slice(b"name");
                fields[257..257 + magic.len()].copy_from_slice(magic);
                fields[345..350].copy_from_slice(b"above");
                fields[476..480].copy_from_slice(b"time");
                fields[512 - end.len()..].copy_from_slice(end);
            });
            let block: Block = bytes.try_into().expect("a block");
            String::from_utf8(Header::new(&block).expect("a header").path()).expect("text")
        };
        assert_eq!(path(b"ustar\x0000", b""), "above/name");
        assert_eq!(path(b"ustar\0  ", b"tar\0"), "above/name");
        assert_eq!(path(b"ustar  \0", b""), "name");
    }
}
