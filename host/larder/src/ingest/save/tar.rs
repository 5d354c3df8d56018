//! The members of tar archives, byte for byte.
//!
//! Headers of a layer's members are POSIX ustar. A value that does not fit into one is in a pax extended header before
//! it (POSIX.1-2001, pax interchange format): names of more than 100 bytes, owners from 2²¹ on, files from 8 GiB on,
//! times that are not whole seconds since 1970, and extended attributes as `SCHILY.xattr.NAME`, as in image layers.
//! Names are bytes and are written unchanged. The same member produces the same bytes.
//!
//! Headers of the archive around the layers have GNU's form, in which a length of 8 GiB and more fits into the header.

use std::io::{self, Write};
use std::ops::Range;

use larder_erofs::{Metadata, Timestamp};

/// The size of a block in bytes. Every member begins at a multiple of it.
const BLOCK: usize = 512;
/// The largest number in a field of 8 bytes, and in one of 12.
const MAX_SHORT: u64 = 0o777_7777;
const MAX_LONG: u64 = 0o777_7777_7777;

/// The kind of a member, as its byte in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    File = b'0',
    HardLink = b'1',
    Symlink = b'2',
    CharDevice = b'3',
    BlockDevice = b'4',
    Directory = b'5',
    Fifo = b'6',
    Pax = b'x',
}

/// A header: the fields of POSIX ustar, of which GNU's form has the first.
struct Header([u8; BLOCK]);

impl Header {
    const NAME: Range<usize> = 0..100;
    const MODE: Range<usize> = 100..108;
    const UID: Range<usize> = 108..116;
    const GID: Range<usize> = 116..124;
    const SIZE: Range<usize> = 124..136;
    const MTIME: Range<usize> = 136..148;
    const CHECKSUM: Range<usize> = 148..156;
    const KIND: usize = 156;
    const TARGET: Range<usize> = 157..257;
    const MAGIC: Range<usize> = 257..265;
    const DEVICE_MAJOR: Range<usize> = 329..337;
    const DEVICE_MINOR: Range<usize> = 337..345;

    /// Makes a header of root's, with the time 0.
    fn new(magic: &[u8; 8], kind: Kind, mode: u32, size: u64) -> Self {
        let mut header = Self([0; BLOCK]);
        header.0[Self::MAGIC].copy_from_slice(magic);
        header.0[Self::KIND] = kind as u8;
        header.number(Self::MODE, mode.into());
        header.number(Self::UID, 0);
        header.number(Self::GID, 0);
        header.number(Self::SIZE, size);
        header.number(Self::MTIME, 0);
        header
    }

    /// Writes a number that fits into its field: octal digits and a NUL.
    fn number(&mut self, field: Range<usize>, number: u64) {
        let Some((_, digits)) = self.0[field].split_last_mut() else { return };
        for (place, digit) in digits.iter_mut().rev().enumerate() {
            *digit = b'0' + (number >> (3 * place) & 7) as u8;
        }
    }

    /// Writes as much of a text as fits into its field. Returns whether that is all of it.
    fn text(&mut self, field: Range<usize>, text: &[u8]) -> bool {
        let field = &mut self.0[field];
        let fits = text.len().min(field.len());
        field[..fits].copy_from_slice(&text[..fits]);
        fits == text.len()
    }

    /// Returns the bytes with their checksum: the sum of all, in which those of the checksum count as spaces.
    fn finish(mut self) -> [u8; BLOCK] {
        self.0[Self::CHECKSUM].fill(b' ');
        let sum = self.0.iter().map(|&byte| u64::from(byte)).sum();
        self.0[Self::CHECKSUM][7] = 0;
        self.number(Self::CHECKSUM, sum);
        self.0
    }
}

const USTAR: &[u8; 8] = b"ustar\x0000";
const GNU: &[u8; 8] = b"ustar  \0";

/// Returns the header of a file or directory of the archive around the layers.
///
/// # Errors
/// The name is longer than 100 bytes.
pub(super) fn outer_header(name: &str, kind: Kind, size: u64) -> io::Result<[u8; BLOCK]> {
    let mode = if kind == Kind::Directory { 0o755 } else { 0o644 };
    let mut header = Header::new(GNU, kind, mode, size);
    if size > MAX_LONG {
        // In binary, as a first byte of 0x80 says.
        let field = &mut header.0[Header::SIZE];
        field[..4].copy_from_slice(&[0x80, 0, 0, 0]);
        field[4..].copy_from_slice(&size.to_be_bytes());
    }
    match header.text(Header::NAME, name.as_bytes()) {
        true => Ok(header.finish()),
        false => Err(io::ErrorKind::InvalidFilename.into()),
    }
}

/// A member without its content.
pub(super) struct Member<'a> {
    /// The relative name. The name of a directory ends with `/`.
    pub(super) name: &'a [u8],
    pub(super) kind: Kind,
    /// The target of a hard or symbolic link, or empty.
    pub(super) target: &'a [u8],
    pub(super) metadata: &'a Metadata,
    /// The length of the content in bytes.
    pub(super) size: u64,
    /// The major and minor number of a device.
    pub(super) device: (u32, u32),
    /// The extended attributes without the marks of removal.
    pub(super) xattrs: &'a [(Vec<u8>, &'a [u8])],
}

/// Writes everything before the content of a member.
pub(super) fn write_header(member: &Member<'_>, out: &mut dyn Write) -> io::Result<()> {
    let Metadata { permissions, uid, gid, mtime, .. } = member.metadata;
    let mut pax = Vec::new();
    let mut header = Header::new(USTAR, member.kind, permissions.bits().into(), member.size.min(MAX_LONG));
    header.number(Header::UID, short(&mut pax, "uid", (*uid).into()));
    header.number(Header::GID, short(&mut pax, "gid", (*gid).into()));
    if member.size > MAX_LONG {
        record(&mut pax, b"size", member.size.to_string().as_bytes());
    }
    header.number(Header::MTIME, u64::try_from(mtime.seconds()).unwrap_or(0).min(MAX_LONG));
    let whole = mtime.nanoseconds() == 0 && u64::try_from(mtime.seconds()).is_ok_and(|s| s <= MAX_LONG);
    if !whole {
        record(&mut pax, b"mtime", decimal(*mtime).as_bytes());
    }
    header.number(Header::DEVICE_MAJOR, member.device.0.into());
    header.number(Header::DEVICE_MINOR, member.device.1.into());
    if !header.text(Header::NAME, member.name) {
        record(&mut pax, b"path", member.name);
    }
    if !header.text(Header::TARGET, member.target) {
        record(&mut pax, b"linkpath", member.target);
    }
    for (name, value) in member.xattrs {
        record(&mut pax, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    if !pax.is_empty() {
        write_pax(&pax, out)?;
    }
    out.write_all(&header.finish())
}

/// Writes the padding after a content of this length.
pub(super) fn write_padding(size: u64, out: &mut dyn Write) -> io::Result<()> {
    let over = (size % BLOCK as u64) as usize;
    out.write_all(&[0; BLOCK][..(BLOCK - over) % BLOCK])
}

/// Writes the end of an archive.
pub(super) fn write_end(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

fn write_pax(records: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let mut header = Header::new(USTAR, Kind::Pax, 0o644, records.len() as u64);
    header.text(Header::NAME, b"PaxHeader");
    out.write_all(&header.finish())?;
    out.write_all(records)?;
    write_padding(records.len() as u64, out)
}

/// Returns the number for its field. Adds a pax record if the field is too small for it.
fn short(pax: &mut Vec<u8>, key: &str, number: u64) -> u64 {
    if number > MAX_SHORT {
        record(pax, key.as_bytes(), number.to_string().as_bytes());
    }
    number.min(MAX_SHORT)
}

/// Writes the record `LENGTH KEY=VALUE\n`. The length is that of the whole record in bytes.
fn record(pax: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    // The length counts its own digits: one more digit at most makes one more digit.
    while length != rest + digits(length) {
        length = rest + digits(length);
    }
    pax.extend_from_slice(length.to_string().as_bytes());
    pax.push(b' ');
    pax.extend_from_slice(key);
    pax.push(b'=');
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// Formats seconds since 1970 as a decimal number, with as many digits as it needs.
fn decimal(time: Timestamp) -> String {
    let (seconds, nanoseconds) = (time.seconds(), time.nanoseconds());
    if nanoseconds == 0 {
        return seconds.to_string();
    }
    // The fraction counts away from zero in the text, and forward in the type.
    let (sign, whole, fraction) = if seconds < 0 {
        ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds)
    } else {
        ("", seconds.unsigned_abs(), nanoseconds)
    };
    let text = format!("{sign}{whole}.{fraction:09}");
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use larder_erofs::{Permissions, Xattrs};

    use super::*;

    /// Headers are those that the `tar` crate writes, which other programs read, up to the largest numbers.
    #[test]
    fn headers_are_those_of_another_writer() {
        let max = (MAX_SHORT, MAX_LONG);
        for (id, time) in [(0, 0), (0o17, 1_700_000_000), max] {
            let metadata = Metadata {
                permissions: Permissions::from_mode(0o7755),
                uid: id as u32,
                gid: id as u32,
                mtime: Timestamp::new(time as i64, 0).expect("a time"),
                xattrs: Xattrs::new(),
            };
            let (name, target, device) = ([b'n'; 100], [b't'; 100], (4095, 1_048_575));
            let kind = Kind::HardLink;
            let member = Member {
                name: &name,
                kind,
                target: &target,
                metadata: &metadata,
                size: time,
                device,
                xattrs: &[],
            };
            let mut written = Vec::new();
            write_header(&member, &mut written).expect("written");
            let mut expected = tar::Header::new_ustar();
            expected.set_entry_type(tar::EntryType::Link);
            expected.set_mode(0o7755);
            expected.set_uid(id);
            expected.set_gid(id);
            expected.set_size(time);
            expected.set_mtime(time);
            expected.set_device_major(4095).expect("a number");
            expected.set_device_minor(1_048_575).expect("a number");
            expected.as_old_mut().name = name;
            expected.as_old_mut().linkname = target;
            expected.set_cksum();
            assert!(written == expected.as_bytes(), "{id}");
        }
        for size in [0, 0o777, MAX_LONG, MAX_LONG + 1, u64::MAX >> 1] {
            let mut expected = tar::Header::new_gnu();
            expected.set_path("blobs/sha256/x").expect("a name");
            expected.set_entry_type(tar::EntryType::Regular);
            expected.set_mode(0o644);
            expected.set_uid(0);
            expected.set_gid(0);
            expected.set_size(size);
            expected.set_cksum();
            let written = outer_header("blobs/sha256/x", Kind::File, size).expect("a header");
            assert!(written == *expected.as_bytes(), "{size}");
        }
        outer_header(&"n".repeat(101), Kind::File, 0).expect_err("too long a name");
    }

    /// The length of a record includes itself, even if that takes one digit more.
    #[test]
    fn records_count_themselves() {
        for length in (0..=1100).chain([9_990, 99_980, 99_990, 100_000]) {
            let mut pax = Vec::new();
            record(&mut pax, b"k", &vec![b'v'; length]);
            let digits = pax.iter().position(|&byte| byte == b' ').expect("a space");
            let counted: usize = String::from_utf8_lossy(&pax[..digits]).parse().expect("a number");
            assert_eq!(counted, pax.len());
        }
    }

    /// Times before 1970 are negative numbers, as pax readers expect.
    #[test]
    fn times_are_decimal_numbers() {
        let table = [
            (0, 1, "0.000000001"),
            (1_700_000_000, 500_000_000, "1700000000.5"),
            (-1, 0, "-1"),
            (-1, 500_000_000, "-0.5"),
            (-2, 250_000_000, "-1.75"),
            (i64::MIN, 999_999_999, "-9223372036854775807.000000001"),
        ];
        for (seconds, nanoseconds, expected) in table {
            assert_eq!(decimal(Timestamp::new(seconds, nanoseconds).expect("a time")), expected);
        }
    }
}
