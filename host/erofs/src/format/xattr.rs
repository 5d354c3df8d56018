//! Extended attributes: beside an inode, a header of 12 bytes, the numbers of shared entries, then entries of its own.
//!
//! An entry is 4 bytes, the name without its namespace, the value, and zeros up to a multiple of 4. The number of a
//! shared entry is its distance from the superblock's `xattr_start` in units of 4 bytes.

use super::{FormatError, u16_at, u32_at};
use crate::metadata::XattrName;

/// The header of the attributes of an inode (`struct erofs_xattr_ibody_header`).
pub(crate) const XATTR_HEADER_SIZE: usize = 12;

/// The header of an entry (`struct erofs_xattr_entry`).
pub(crate) const XATTR_ENTRY_SIZE: usize = 4;

/// The most room that attributes can take beside an inode, their header left out.
pub(crate) const MAX_INLINE_XATTRS: usize = (u16::MAX as usize - 1) * 4;

/// The most shared entries an inode can refer to.
pub(crate) const MAX_SHARED_XATTRS: usize = u8::MAX as usize;

/// Bit of an entry's name index: the rest of it is the number of a long prefix.
pub(crate) const LONG_PREFIX: u8 = 0x80;

/// The size of the attributes of an inode in bytes, from the count in its record.
pub(crate) fn body_size(count: u16) -> u64 {
    if count == 0 { 0 } else { XATTR_HEADER_SIZE as u64 + 4 * (u64::from(count) - 1) }
}

/// The count for a body of `size` bytes, which is none or a header and a multiple of 4.
pub(crate) fn body_count(size: usize) -> u16 {
    if size == 0 { 0 } else { ((size - XATTR_HEADER_SIZE) / 4 + 1) as u16 }
}

/// What an entry takes in an image.
pub(crate) fn entry_size(name: &XattrName, value: &[u8]) -> usize {
    (XATTR_ENTRY_SIZE + name.suffix().len() + value.len()).next_multiple_of(4)
}

/// Appends an entry to `out`, whose length is a multiple of 4.
pub(crate) fn encode_entry(name: &XattrName, value: &[u8], out: &mut Vec<u8>) {
    out.extend([name.suffix().len() as u8, name.namespace() as u8]);
    out.extend((value.len() as u16).to_le_bytes());
    out.extend_from_slice(name.suffix());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Appends the header and the numbers of shared entries to `out`.
pub(crate) fn encode_header(shared: &[u32], out: &mut Vec<u8>) {
    out.extend([0; 4]);
    out.extend([shared.len() as u8, 0, 0, 0, 0, 0, 0, 0]);
    for id in shared {
        out.extend(id.to_le_bytes());
    }
}

/// An entry, its name still in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XattrEntry<'a> {
    /// The number of the namespace, or of a long prefix with bit 7 set.
    pub index: u8,
    /// The name behind that.
    pub suffix: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

impl<'a> XattrEntry<'a> {
    /// Parses the entry at the beginning of `bytes`, and says how long it is.
    ///
    /// # Errors
    ///
    /// [`FormatError::Truncated`] if `bytes` end within it.
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, usize), FormatError> {
        const CUT: FormatError = FormatError::Truncated("an extended attribute");
        let size = Self::size(bytes.get(..XATTR_ENTRY_SIZE).ok_or(CUT)?);
        let names = XATTR_ENTRY_SIZE + usize::from(bytes[0]);
        let end = names + usize::from(u16_at(bytes, 2));
        if bytes.len() < end {
            return Err(CUT);
        }
        let (suffix, value) = (&bytes[XATTR_ENTRY_SIZE..names], &bytes[names..end]);
        Ok((Self { index: bytes[1], suffix, value }, size))
    }

    /// The size of the entry with this header, of 4 bytes.
    pub(crate) fn size(header: &[u8]) -> usize {
        let content = usize::from(header[0]) + usize::from(u16_at(header, 2));
        (XATTR_ENTRY_SIZE + content).next_multiple_of(4)
    }
}

/// The attributes beside an inode.
#[derive(Debug, Clone, Copy)]
pub struct XattrBody<'a> {
    shared: &'a [u8],
    entries: &'a [u8],
}

impl<'a> XattrBody<'a> {
    /// Parses what stands beside an inode: `bytes` are as long as its record says.
    ///
    /// # Errors
    ///
    /// [`FormatError::Truncated`] if the header or the numbers of shared entries are not all there.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        const CUT: FormatError = FormatError::Truncated("the extended attributes of an inode");
        let (header, rest) = bytes.split_at_checked(XATTR_HEADER_SIZE).ok_or(CUT)?;
        let (shared, entries) = rest.split_at_checked(usize::from(header[4]) * 4).ok_or(CUT)?;
        Ok(Self { shared, entries })
    }

    /// The numbers of the shared entries.
    pub fn shared(&self) -> impl Iterator<Item = u32> {
        self.shared.chunks_exact(4).map(|id| u32_at(id, 0))
    }

    /// The inode's own entries. Ends with the first error.
    pub fn entries(&self) -> impl Iterator<Item = Result<XattrEntry<'a>, FormatError>> {
        let mut rest = self.entries;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let parsed = XattrEntry::parse(rest);
            rest = parsed.as_ref().map_or(&[], |(_, size)| rest.get(*size..).unwrap_or_default());
            Some(parsed.map(|(entry, _)| entry))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shared numbers and entries of a body survive; one that is cut anywhere is an error or gives fewer entries.
    #[test]
    fn bodies_survive() {
        let names = [&b"user.a"[..], b"security.capability", b"system.posix_acl_default"];
        let names = names.map(|name| XattrName::parse(name).unwrap());
        let mut bytes = Vec::new();
        encode_header(&[1, 0x0203_0405], &mut bytes);
        for (name, value) in names.iter().zip([&b""[..], b"12345", &[7; 300]]) {
            let before = bytes.len();
            encode_entry(name, value, &mut bytes);
            assert_eq!(bytes.len() - before, entry_size(name, value));
        }
        assert_eq!(body_size(body_count(bytes.len())), bytes.len() as u64);
        let body = XattrBody::parse(&bytes).unwrap();
        assert_eq!(body.shared().collect::<Vec<_>>(), [1, 0x0203_0405]);
        let entries: Vec<_> = body.entries().map(Result::unwrap).collect();
        assert_eq!(
            entries.iter().map(|entry| (entry.index, entry.suffix, entry.value.len())).collect::<Vec<_>>(),
            [(1, &b"a"[..], 0), (6, b"capability", 5), (3, b"", 300)]
        );
        for cut in 0..bytes.len() {
            if let Ok(body) = XattrBody::parse(&bytes[..cut]) {
                assert!(body.entries().filter(Result::is_ok).count() < 3 || cut + 4 > bytes.len());
            }
        }
    }
}
