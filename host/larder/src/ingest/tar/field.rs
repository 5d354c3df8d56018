//! The blocks of an archive, and the numbers in their fields.

use crate::ingest::error::IngestProblem;

/// The number of bytes of a block.
pub(super) const BLOCK: usize = 512;

/// A block of an archive.
pub(super) type Block = [u8; BLOCK];

/// Returns a number that is a size.
pub(super) fn size(number: i64) -> Result<u64, IngestProblem> {
    u64::try_from(number).map_err(|_| IngestProblem::Tar("a size is below zero".to_owned()))
}

/// Parses a number: octal digits between spaces and NULs, or two's complement if the first bit is set, which does not
/// count (GNU).
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let [first, rest @ ..] = field else { return None };
    if first & 0x80 != 0 {
        let begin = i64::from(((first << 1).cast_signed()) >> 1);
        return rest.iter().try_fold(begin, |number, &byte| Some(number.checked_mul(256)? | i64::from(byte)));
    }
    let begin = field.iter().position(|byte| !b" \0".contains(byte)).unwrap_or(field.len());
    let digits = field[begin..].split(|byte| b" \0".contains(byte)).next().unwrap_or_default();
    digits.iter().try_fold(0_i64, |number, &byte| match byte {
        b'0'..=b'7' => number.checked_mul(8).map(|number| number | i64::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers are octal, or binary with a sign.
    #[test]
    fn numbers() {
        let table: [(&[u8], Option<i64>); 11] = [
            (b"0000644\0", Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"777", Some(0o777)),
            (b"12a", None),
            (b"8", None),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN)),
        ];
        for (field, expected) in table {
            assert_eq!(number(field), expected, "{}", field.escape_ascii());
        }
    }
}
