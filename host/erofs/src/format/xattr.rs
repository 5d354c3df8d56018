//! Extended attributes. An inode has a header of 12 bytes, the numbers of shared entries, then its own entries.
//!
//! An entry is 4 bytes, the name without its namespace, the value, and zeros up to a multiple of 4. A shared entry has
//! as its number the distance from the superblock's `xattr_start` in units of 4 bytes.

use super::{FormatError, u16_at, u32_at};
use crate::xattr::{XATTR_ENTRY_SIZE, XattrName};

/// The size in bytes of the header of an inode's attributes (`struct erofs_xattr_ibody_header`).
pub(crate) const XATTR_HEADER_SIZE: usize = 12;

/// The maximum number of shared entries that an inode can refer to.
pub(crate) const MAX_SHARED_XATTRS: usize = u8::MAX as usize;

/// The bit of a name index that marks the other bits as the number of a long prefix.
pub(crate) const LONG_PREFIX: u8 = 0x80;

/// Returns the size of the attributes of an inode in bytes, from the count in its record.
pub(crate) fn body_size(count: u16) -> u64 {
    if count == 0 { 0 } else { XATTR_HEADER_SIZE as u64 + 4 * (u64::from(count) - 1) }
}

/// Returns the count for a body of `size` bytes. A body is empty, or a header and a multiple of 4.
pub(crate) fn body_count(size: usize) -> u16 {
    if size == 0 { 0 } else { ((size - XATTR_HEADER_SIZE) / 4 + 1) as u16 }
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

/// An entry, with its name in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XattrEntry<'a> {
    /// The number of the namespace, or of a long prefix with bit 7 set.
    pub index: u8,
    /// The part of the name behind the namespace or prefix.
    pub suffix: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

impl<'a> XattrEntry<'a> {
    /// Parses the entry at the beginning of `bytes`, and returns it with its length in bytes.
    ///
    /// # Errors
    ///
    /// [`FormatError::Truncated`] if `bytes` end within the entry.
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

    /// Returns the size in bytes of the entry that has this header of 4 bytes.
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
    /// Parses the attributes beside an inode. `bytes` are as long as the inode's record says.
    ///
    /// # Errors
    ///
    /// [`FormatError::Truncated`] if the header or the numbers of shared entries are incomplete.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        const CUT: FormatError = FormatError::Truncated("the extended attributes of an inode");
        let (header, rest) = bytes.split_at_checked(XATTR_HEADER_SIZE).ok_or(CUT)?;
        let (shared, entries) = rest.split_at_checked(usize::from(header[4]) * 4).ok_or(CUT)?;
        Ok(Self { shared, entries })
    }

    /// Returns the numbers of the shared entries.
    pub fn shared(&self) -> impl Iterator<Item = u32> {
        self.shared.chunks_exact(4).map(|id| u32_at(id, 0))
    }

    /// Returns the inode's own entries. The iterator ends with the first error.
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

    /// Shared numbers and entries of a body decode to what was encoded. A body that is cut off anywhere is an error or
    /// has fewer entries.
    #[test]
    fn bodies_survive() {
        let names = [&b"user.a"[..], b"security.capability", b"system.posix_acl_default"];
        let names = names.map(|name| XattrName::parse(name).unwrap());
        let mut bytes = Vec::new();
        encode_header(&[1, 0x0203_0405], &mut bytes);
        for (name, value) in names.iter().zip([&b""[..], b"12345", &[7; 300]]) {
            let before = bytes.len();
            encode_entry(name, value, &mut bytes);
            assert_eq!(bytes.len() - before, crate::xattr::entry_size(name, value));
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
