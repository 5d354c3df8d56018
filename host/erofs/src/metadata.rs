//! The metadata of an inode: permissions, owner, time, device number, extended attributes.

use std::fmt;

use crate::xattr::Xattrs;

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
}
