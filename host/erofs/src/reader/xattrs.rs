//! Extended attributes of inodes, with shared entries and long prefixes.

use super::{Image, Inode, ReadAt, ReadError};
use crate::format::xattr::LONG_PREFIX;
use crate::format::{FormatError, XattrBody, XattrEntry, feature_incompat};
use crate::xattr::{Namespace, XATTR_ENTRY_SIZE, XattrName, Xattrs};

/// A prefix that several names of extended attributes share.
pub(super) struct Prefix {
    namespace: u8,
    infix: Vec<u8>,
}

impl<S: ReadAt> Image<S> {
    /// Returns the extended attributes of an inode.
    ///
    /// # Errors
    ///
    /// A [`ReadError`] if the attributes are damaged.
    pub fn xattrs(&self, inode: &Inode) -> Result<Xattrs, ReadError> {
        let mut xattrs = Xattrs::new();
        if inode.xattr_size() == 0 {
            return Ok(xattrs);
        }
        let wrong = |problem| ReadError::Inode { nid: inode.nid, problem };
        let mut body = vec![0; inode.xattr_size() as usize];
        self.read_metadata(&mut body, inode.offset + inode.record.form.size())?;
        let body = XattrBody::parse(&body).map_err(wrong)?;
        for entry in body.entries() {
            self.put(&mut xattrs, entry.map_err(wrong)?).map_err(wrong)?;
        }
        for id in body.shared() {
            let bytes = self.read_shared(id).map_err(|error| match error {
                ReadError::Truncated { .. } => wrong(FormatError::Truncated("a shared extended attribute")),
                other => other,
            })?;
            let (entry, _) = XattrEntry::parse(&bytes).map_err(wrong)?;
            self.put(&mut xattrs, entry).map_err(wrong)?;
        }
        Ok(xattrs)
    }

    fn read_shared(&self, id: u32) -> Result<Vec<u8>, ReadError> {
        let offset = self.superblock.xattr_start.offset() + u64::from(id) * 4;
        let mut header = [0; XATTR_ENTRY_SIZE];
        self.read_metadata(&mut header, offset)?;
        let mut entry = vec![0; XattrEntry::size(&header)];
        self.read_metadata(&mut entry, offset)?;
        Ok(entry)
    }

    fn put(&self, xattrs: &mut Xattrs, entry: XattrEntry<'_>) -> Result<(), FormatError> {
        let (namespace, infix) = if entry.index & LONG_PREFIX == 0 {
            (entry.index, &[][..])
        } else {
            let prefix = self
                .prefixes
                .get(usize::from(entry.index & !LONG_PREFIX))
                .ok_or(FormatError::Invalid("an extended attribute has an unknown prefix"))?;
            (prefix.namespace, prefix.infix.as_slice())
        };
        let namespace = Namespace::from_index(namespace)
            .ok_or(FormatError::Invalid("an extended attribute is in an unknown namespace"))?;
        let name = XattrName::from_parts(namespace, &[infix, entry.suffix].concat())
            .map_err(|_| FormatError::Invalid("an extended attribute has a name that cannot be one"))?;
        if xattrs.get(&name).is_some() {
            return Err(FormatError::Invalid("an extended attribute is there twice"));
        }
        xattrs
            .set(name, entry.value)
            .map_err(|_| FormatError::Invalid("its extended attributes are too large"))
    }

    /// Reads the long prefixes: each has a length of 2 bytes, a namespace and the rest of the prefix, aligned to 4.
    pub(super) fn read_prefixes(&self) -> Result<Vec<Prefix>, ReadError> {
        let mut prefixes = Vec::new();
        if self.superblock.feature_incompat & feature_incompat::XATTR_PREFIXES == 0 {
            return Ok(prefixes);
        }
        let mut offset = u64::from(self.superblock.xattr_prefix_start) * 4;
        for _ in 0..self.superblock.xattr_prefix_count {
            let mut length = [0; 2];
            self.read_metadata(&mut length, offset)?;
            let mut prefix = vec![0; u16::from_le_bytes(length).into()];
            self.read_metadata(&mut prefix, offset + 2)?;
            let (&namespace, infix) = prefix
                .split_first()
                .ok_or(ReadError::Superblock(FormatError::Truncated("a prefix of extended attributes")))?;
            prefixes.push(Prefix { namespace, infix: infix.to_vec() });
            offset = (offset + 2 + prefix.len() as u64).next_multiple_of(4);
        }
        Ok(prefixes)
    }
}
