//! Extended attributes: their names, and those of an inode.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::fmt;

use crate::path::shown;

/// The size in bytes of the header of an entry (`struct erofs_xattr_entry`).
pub(crate) const XATTR_ENTRY_SIZE: usize = 4;

/// The maximum size in bytes of the attributes beside an inode, without their header.
pub(crate) const MAX_INLINE_XATTRS: usize = (u16::MAX as usize - 1) * 4;

/// The error for an extended attribute that EROFS cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XattrError {
    /// The name is in none of the namespaces that EROFS knows.
    #[error(
        "the extended attribute `{0}` is in none of the namespaces user, trusted and security, and is no POSIX ACL"
    )]
    Namespace(String),

    /// The name is empty after its namespace, longer than 255 bytes, or contains a NUL.
    #[error("`{0}` is not the name of an extended attribute")]
    Name(String),

    /// One value is longer than 65,535 bytes, or all attributes of the inode together do not fit.
    #[error(
        "the extended attribute `{0}` is too large: all of an inode have room in {MAX_INLINE_XATTRS} bytes"
    )]
    TooLarge(String),
}

/// The namespace of an extended attribute, by its number in EROFS (`EROFS_XATTR_INDEX_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Namespace {
    User = 1,
    AclAccess = 2,
    AclDefault = 3,
    Trusted = 4,
    Security = 6,
}

impl Namespace {
    pub(crate) const ALL: [Self; 5] =
        [Self::User, Self::AclAccess, Self::AclDefault, Self::Trusted, Self::Security];

    pub(crate) fn from_index(index: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|namespace| *namespace as u8 == index)
    }

    pub(crate) fn prefix(self) -> &'static [u8] {
        match self {
            Self::User => b"user.",
            Self::AclAccess => b"system.posix_acl_access",
            Self::AclDefault => b"system.posix_acl_default",
            Self::Trusted => b"trusted.",
            Self::Security => b"security.",
        }
    }

    /// Returns whether the prefix is the whole name.
    fn is_whole_name(self) -> bool {
        matches!(self, Self::AclAccess | Self::AclDefault)
    }
}

/// The name of an extended attribute in a namespace that EROFS knows: `user.`, `trusted.`, `security.`, and the two
/// POSIX ACLs `system.posix_acl_access` and `system.posix_acl_default`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct XattrName {
    namespace: Namespace,
    suffix: Box<[u8]>,
}

impl XattrName {
    /// Parses a whole name, namespace included.
    ///
    /// # Errors
    ///
    /// [`XattrError::Namespace`] for another namespace, [`XattrError::Name`] for an invalid name.
    pub fn parse(name: &[u8]) -> Result<Self, XattrError> {
        let (namespace, suffix) = Namespace::ALL
            .into_iter()
            .find_map(|namespace| Some((namespace, name.strip_prefix(namespace.prefix())?)))
            .ok_or_else(|| XattrError::Namespace(shown(name)))?;
        Self::from_parts(namespace, suffix)
    }

    pub(crate) fn from_parts(namespace: Namespace, suffix: &[u8]) -> Result<Self, XattrError> {
        let length = namespace.prefix().len() + suffix.len();
        if namespace.is_whole_name() != suffix.is_empty() || length > 255 || suffix.contains(&0) {
            return Err(XattrError::Name(shown(&[namespace.prefix(), suffix].concat())));
        }
        Ok(Self { namespace, suffix: suffix.into() })
    }

    /// Returns the whole name.
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.namespace.prefix(), &self.suffix].concat()
    }

    pub(crate) fn namespace(&self) -> Namespace {
        self.namespace
    }

    /// Returns the name without its namespace, as it is in an image.
    pub(crate) fn suffix(&self) -> &[u8] {
        &self.suffix
    }
}

impl fmt::Display for XattrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.to_bytes()))
    }
}

impl fmt::Debug for XattrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "XattrName({self})")
    }
}

/// The extended attributes of an inode, ordered by name. They always fit beside the inode.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Xattrs {
    entries: BTreeMap<XattrName, Box<[u8]>>,
    /// The size of the entries in an image, in bytes.
    size: usize,
}

impl Xattrs {
    /// Makes an empty set of attributes.
    pub const fn new() -> Self {
        Self { entries: BTreeMap::new(), size: 0 }
    }

    /// Sets `name` to `value`, and replaces an earlier value.
    ///
    /// # Errors
    ///
    /// [`XattrError::TooLarge`] if the attribute does not fit. The attributes then stay unchanged.
    pub fn set(&mut self, name: XattrName, value: &[u8]) -> Result<(), XattrError> {
        let freed = self.entries.get(&name).map_or(0, |old| entry_size(&name, old));
        let size = self.size - freed + entry_size(&name, value);
        if value.len() > usize::from(u16::MAX) || size > MAX_INLINE_XATTRS {
            return Err(XattrError::TooLarge(name.to_string()));
        }
        self.size = size;
        self.entries.insert(name, value.into());
        Ok(())
    }

    /// Removes `name`, if it is set.
    pub fn remove(&mut self, name: &XattrName) {
        if let Some(old) = self.entries.remove(name) {
            self.size -= entry_size(name, &old);
        }
    }

    /// Returns the value of `name`.
    pub fn get(&self, name: &XattrName) -> Option<&[u8]> {
        self.entries.get(name).map(|value| &**value)
    }

    /// Returns the number of attributes.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there are no attributes.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the size of the attributes in an image, in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Returns the attributes, ordered by namespace and name.
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.entries.iter())
    }

    /// Returns whether the attributes mark a directory as opaque: `trusted.overlay.opaque` is `y`, which hides what
    /// lower layers have in that directory.
    pub fn is_opaque(&self) -> bool {
        self.get(&opaque_name()) == Some(b"y")
    }
}

/// An iterator over [`Xattrs`].
#[derive(Debug, Clone)]
pub struct Iter<'a>(btree_map::Iter<'a, XattrName, Box<[u8]>>);

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a XattrName, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (name, &**value))
    }
}

impl<'a> IntoIterator for &'a Xattrs {
    type Item = (&'a XattrName, &'a [u8]);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Returns the name of the attribute that marks an opaque directory for overlayfs.
pub(crate) fn opaque_name() -> XattrName {
    XattrName { namespace: Namespace::Trusted, suffix: (*b"overlay.opaque").into() }
}

/// Returns the size of an entry in an image, in bytes.
pub(crate) fn entry_size(name: &XattrName, value: &[u8]) -> usize {
    (XATTR_ENTRY_SIZE + name.suffix().len() + value.len()).next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only names in a namespace that EROFS has a number for are accepted.
    #[test]
    fn xattr_names() {
        for name in
            [&b"user.a"[..], b"trusted.overlay.opaque", b"security.capability", b"system.posix_acl_access"]
        {
            assert_eq!(XattrName::parse(name).unwrap().to_bytes(), name);
        }
        for name in [
            &b"user."[..],
            b"btrfs.compression",
            b"system.nfs4_acl",
            b"user.a\0",
            &[b"user.".as_slice(), &[b'x'; 251]].concat(),
        ] {
            assert!(XattrName::parse(name).is_err(), "{}", shown(name));
        }
    }

    /// Attributes that do not fit beside an inode are refused, and the earlier ones stay.
    #[test]
    fn xattrs_have_limits() {
        let name = |index: usize| XattrName::parse(format!("user.{index}").as_bytes()).unwrap();
        let mut xattrs = Xattrs::new();
        assert!(matches!(xattrs.set(name(0), &[0; 65536]), Err(XattrError::TooLarge(_))));
        for index in 0..3 {
            xattrs.set(name(index), &[0; 65535]).unwrap();
        }
        assert!(matches!(xattrs.set(name(3), &[0; 65535]), Err(XattrError::TooLarge(_))));
        assert_eq!(xattrs.len(), 3);
        xattrs.remove(&name(0));
        xattrs.set(name(3), &[0; 65535]).unwrap();
        xattrs.set(name(3), b"").unwrap();
        xattrs.set(name(0), &[0; 65535]).unwrap();
    }
}
