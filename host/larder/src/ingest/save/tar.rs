//! The members of a layer's tar archive, byte for byte.
//!
//! Headers are POSIX ustar. A value that does not fit into one is in a pax extended header before it (POSIX.1-2001, pax
//! interchange format): names of more than 100 bytes, owners from 2²¹ on, files from 8 GiB on, times that are not whole
//! seconds since 1970, and extended attributes as `SCHILY.xattr.NAME`, as in image layers. Names are bytes and are
//! written unchanged. The same member produces the same bytes.

use std::io::{self, Write};

use larder_erofs::{Metadata, Timestamp};
use tar::{EntryType, Header};

/// The size of a block in bytes. Every member begins at a multiple of it.
const BLOCK: usize = 512;
/// The largest number in a field of 8 bytes, and in one of 12.
const MAX_SHORT: u64 = 0o777_7777;
const MAX_LONG: u64 = 0o777_7777_7777;

/// A member without its content.
pub(super) struct Member<'a> {
    /// The relative name. The name of a directory ends with `/`.
    pub(super) name: &'a [u8],
    pub(super) kind: EntryType,
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
pub(super) fn write_header(member: &Member<'_>, out: &mut impl Write) -> io::Result<()> {
    let Metadata { permissions, uid, gid, mtime, .. } = member.metadata;
    let mut pax = Vec::new();
    let mut header = Header::new_ustar();
    header.set_entry_type(member.kind);
    header.set_mode(permissions.bits().into());
    header.set_uid(short(&mut pax, "uid", (*uid).into()));
    header.set_gid(short(&mut pax, "gid", (*gid).into()));
    header.set_size(member.size.min(MAX_LONG));
    if member.size > MAX_LONG {
        record(&mut pax, b"size", member.size.to_string().as_bytes());
    }
    header.set_mtime(u64::try_from(mtime.seconds()).unwrap_or(0).min(MAX_LONG));
    let whole = mtime.nanoseconds() == 0 && u64::try_from(mtime.seconds()).is_ok_and(|s| s <= MAX_LONG);
    if !whole {
        record(&mut pax, b"mtime", decimal(*mtime).as_bytes());
    }
    header.set_device_major(member.device.0)?;
    header.set_device_minor(member.device.1)?;
    let fields = header.as_old_mut();
    text(&mut pax, "path", member.name, &mut fields.name);
    text(&mut pax, "linkpath", member.target, &mut fields.linkname);
    header.set_cksum();
    for (name, value) in member.xattrs {
        record(&mut pax, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    if !pax.is_empty() {
        write_pax(&pax, out)?;
    }
    out.write_all(header.as_bytes())
}

/// Writes the padding after a content of this length.
pub(super) fn write_padding(size: u64, out: &mut impl Write) -> io::Result<()> {
    let over = (size % BLOCK as u64) as usize;
    out.write_all(&[0; BLOCK][..(BLOCK - over) % BLOCK])
}

/// Writes the end of an archive.
pub(super) fn write_end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

fn write_pax(records: &[u8], out: &mut impl Write) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.as_old_mut().name[..9].copy_from_slice(b"PaxHeader");
    header.set_entry_type(EntryType::XHeader);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(records.len() as u64);
    header.set_cksum();
    out.write_all(header.as_bytes())?;
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

/// Writes a text to its field as far as it fits. Adds a pax record if it does not fit.
fn text(pax: &mut Vec<u8>, key: &str, text: &[u8], field: &mut [u8]) {
    if text.len() > field.len() {
        record(pax, key.as_bytes(), text);
    }
    let fits = text.len().min(field.len());
    field[..fits].copy_from_slice(&text[..fits]);
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
    use super::*;

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
