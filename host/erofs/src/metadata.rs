//! The metadata of an inode: permissions, owner, time, device number, extended attributes.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::fmt;

use crate::format::xattr::{MAX_INLINE_XATTRS, entry_size};
use crate::path::shown;

/// The kind of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device. With number 0/0 it is an overlayfs whiteout.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
}

/// The permission bits of an inode, with set-user-ID, set-group-ID and sticky bit: `0o0000` to `0o7777`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Permissions(u16);

impl Permissions {
    /// Makes permissions of the low twelve bits of `mode`. Ignores the bits above them, a file type for instance.
    pub const fn from_mode(mode: u32) -> Self {
        Self((mode & 0o7777) as u16)
    }

    /// Returns the bits.
    pub const fn bits(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06o}", self.0)
    }
}

/// An instant in seconds and nanoseconds since 1970-01-01 UTC. Seconds may be negative; nanoseconds count forward from
/// them. Timestamps are ordered by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp {
    seconds: i64,
    nanoseconds: u32,
}

impl Timestamp {
    /// The instant 1970-01-01 00:00:00 UTC.
    pub const EPOCH: Self = Self { seconds: 0, nanoseconds: 0 };

    /// Makes a timestamp. Returns `None` if `nanoseconds` is a whole second or more.
    pub const fn new(seconds: i64, nanoseconds: u32) -> Option<Self> {
        if nanoseconds < 1_000_000_000 { Some(Self { seconds, nanoseconds }) } else { None }
    }

    /// Returns whole seconds since 1970, rounded down.
    pub const fn seconds(self) -> i64 {
        self.seconds
    }

    /// Returns nanoseconds since [`seconds`](Self::seconds).
    pub const fn nanoseconds(self) -> u32 {
        self.nanoseconds
    }
}

/// The number of a device, within what Linux encodes in 32 bits: 12 bits of major, 20 of minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceNumber {
    major: u32,
    minor: u32,
}

impl DeviceNumber {
    /// The number 0/0 of a whiteout.
    pub const ZERO: Self = Self { major: 0, minor: 0 };

    /// Makes a number. Returns `None` if `major` is above 4095 or `minor` above 1048575.
    pub const fn new(major: u32, minor: u32) -> Option<Self> {
        if major < 1 << 12 && minor < 1 << 20 { Some(Self { major, minor }) } else { None }
    }

    /// Returns the number of the driver.
    pub const fn major(self) -> u32 {
        self.major
    }

    /// Returns the number of the device for its driver.
    pub const fn minor(self) -> u32 {
        self.minor
    }

    /// Returns the number as an inode holds it (`new_encode_dev` in Linux): the low 8 bits of minor, major, the rest
    /// of minor.
    pub(crate) const fn encode(self) -> u32 {
        (self.minor & 0xff) | (self.major << 8) | ((self.minor & !0xff) << 12)
    }

    pub(crate) const fn decode(raw: u32) -> Self {
        Self { major: (raw & 0xfff00) >> 8, minor: (raw & 0xff) | ((raw >> 12) & 0xfff00) }
    }
}

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

/// The metadata of an inode apart from its content, link count and kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The permission bits.
    pub permissions: Permissions,
    /// The user ID of the owner.
    pub uid: u32,
    /// The group ID.
    pub gid: u32,
    /// The time of the content's last change. EROFS keeps no other time.
    pub mtime: Timestamp,
    /// The extended attributes.
    pub xattrs: Xattrs,
}

impl Metadata {
    /// Returns the metadata of a directory that no entry describes: mode 0755, owner 0:0, 1970.
    pub(crate) const fn implied() -> Self {
        Self {
            permissions: Permissions::from_mode(0o755),
            uid: 0,
            gid: 0,
            mtime: Timestamp::EPOCH,
            xattrs: Xattrs::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Device numbers are encoded as in Linux and decode to the same number, up to the limits. Numbers beyond the
    /// limits are refused.
    #[test]
    fn device_numbers_survive() {
        for (major, minor) in [(0, 0), (8, 1), (4095, 1048575), (1, 256), (259, 65536)] {
            let number = DeviceNumber::new(major, minor).unwrap();
            assert_eq!(DeviceNumber::decode(number.encode()), number);
        }
        assert_eq!(DeviceNumber::new(8, 1).unwrap().encode(), 0x801);
        assert_eq!((DeviceNumber::new(4096, 0), DeviceNumber::new(0, 1 << 20)), (None, None));
    }

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
