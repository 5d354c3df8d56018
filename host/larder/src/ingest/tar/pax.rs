//! The records of an extended header (POSIX, `pax`: "pax Extended Header").

use super::field::size;
use super::sparse::{self, Region};
use crate::ingest::error::IngestProblem;

/// The prefix of the keys of extended attributes.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// The records of an extended header about its entry. An empty value counts as none, but for extended attributes.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: PaxSparse,
}

/// The records of an extended header about a file with holes, in the formats 0.0, 0.1 and 1.0 of GNU.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    pub(super) version: Option<(u64, u64)>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) regions: Option<Vec<Region>>,
}

impl Pax {
    /// Parses the content of an extended header.
    ///
    /// # Errors
    /// Fails if the records do not fill it, or the value of one is invalid.
    pub(super) fn parse(mut content: &[u8]) -> Result<Self, IngestProblem> {
        let mut pax = Self::default();
        while !content.is_empty() {
            let (key, value, rest) = record(content)
                .ok_or_else(|| IngestProblem::Tar("an extended header has a damaged record".to_owned()))?;
            pax.take(key, value).ok_or_else(|| {
                let (key, value) = (key.escape_ascii(), value.get(..80).unwrap_or(value).escape_ascii());
                IngestProblem::Tar(format!("`{value}` is no value for `{key}`"))
            })?;
            content = rest;
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        if let Some(name) = key.strip_prefix(XATTR) {
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Some(());
        }
        let bytes = (!value.is_empty()).then_some(value);
        let text = || bytes.map(std::str::from_utf8).transpose().ok();
        let number = || text()?.map(str::parse::<i64>).transpose().ok();
        let length = || number()?.map(size).transpose().ok();
        let sparse = &mut self.sparse;
        match key {
            b"path" => self.path = bytes.map(<[u8]>::to_vec),
            b"linkpath" => self.link_path = bytes.map(<[u8]>::to_vec),
            b"size" => self.size = length()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" => self.mtime = text()?.map(|text| parse_time(text).ok_or(())).transpose().ok()?,
            b"GNU.sparse.name" => sparse.name = bytes.map(<[u8]>::to_vec),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => sparse.size = length()?,
            b"GNU.sparse.major" => sparse.version = Some((length()??, sparse.version.unwrap_or_default().1)),
            b"GNU.sparse.minor" => sparse.version = Some((sparse.version.unwrap_or_default().0, length()??)),
            b"GNU.sparse.offset" => {
                sparse::push(
                    sparse.regions.get_or_insert_default(),
                    Region { offset: length()??, length: 0 },
                )
                .ok()?;
            }
            b"GNU.sparse.numbytes" => sparse.regions.as_mut()?.last_mut()?.length = length()??,
            b"GNU.sparse.map" => sparse.regions = Some(map(text()?.unwrap_or_default())?),
            _ => {}
        }
        Some(())
    }
}

/// Splits off the first record, `LENGTH KEY=VALUE` and a line feed, of which the length is the whole.
fn record(content: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = content.iter().take(20).position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&content[..space]).ok()?.parse().ok()?;
    let (record, rest) = content.split_at_checked(length)?;
    let pair = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = pair.iter().position(|&byte| byte == b'=')?;
    Some((&pair[..equals], &pair[equals + 1..], rest))
}

/// Parses a map such as `0,512,4096,100`.
fn map(text: &str) -> Option<Vec<Region>> {
    let mut regions = Vec::new();
    let mut numbers = text.split(',').filter(|number| !number.is_empty());
    while let Some(offset) = numbers.next() {
        let (offset, length) = (offset.parse().ok()?, numbers.next()?.parse().ok()?);
        sparse::push(&mut regions, Region { offset, length }).ok()?;
    }
    Some(regions)
}

/// Parses decimal seconds with a fraction, such as `-1.5`.
fn parse_time(text: &str) -> Option<(i64, u32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let (seconds, nanoseconds) = (seconds.parse::<i64>().ok()?, digits.parse::<u32>().ok()?);
    Some(match (text.starts_with('-'), nanoseconds) {
        (true, 1..) => (seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds),
        _ => (seconds, nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record_of(pair: &str) -> String {
        let mut length = pair.len() + 2;
        while length != pair.len() + 2 + length.to_string().len() {
            length = pair.len() + 2 + length.to_string().len();
        }
        format!("{length} {pair}\n")
    }

    fn parse(pairs: &[&str]) -> Result<Pax, String> {
        let records: String = pairs.iter().map(|pair| record_of(pair)).collect();
        Pax::parse(records.as_bytes()).map_err(|problem| problem.to_string())
    }

    /// An empty value means that there is none, also after another one; an extended attribute may be empty.
    #[test]
    fn empty_values() {
        let keys = ["path=", "linkpath=", "size=", "uid=", "gid=", "mtime=", "SCHILY.xattr.user.a="];
        let pax = parse(&[&["path=a", "uid=5"][..], &keys].concat()).expect("records");
        assert_eq!((pax.path, pax.link_path, pax.size), (None, None, None));
        assert_eq!((pax.uid, pax.gid, pax.mtime), (None, None, None));
        assert_eq!(pax.xattrs, [(b"user.a".to_vec(), Vec::new())]);
    }

    /// Owners may be below zero. What is no number is refused, and so is a size below zero.
    #[test]
    fn values() {
        let pax = parse(&["uid=-2", "gid=4294967294", "size=9", "mtime=-1.5", "other=x=y"]).expect("records");
        assert_eq!((pax.uid, pax.gid, pax.size), (Some(-2), Some(4_294_967_294), Some(9)));
        assert_eq!(pax.mtime, Some((-2, 500_000_000)));
        for bad in ["uid=x", "size=-1", "mtime=1.x", "GNU.sparse.map=1", "GNU.sparse.numbytes=1"] {
            let error = parse(&[bad]).expect_err(bad);
            assert!(error.contains("is no value for"), "{error}");
        }
    }

    /// Records fill their header. A length that is wrong in any way is refused, since what follows would be lost.
    #[test]
    fn lengths_of_records() {
        for bad in [
            &b"10 path=abc\n"[..],
            b"11 path=a\n",
            b"x path=a\n",
            b"10path=a\n",
            b"9 path=a",
            b"9 patha\n",
            b"9 path=a\n\0\0",
            b"99999999999999999999999 a=b\n",
            b"0 path=a\n",
        ] {
            assert!(Pax::parse(bad).is_err(), "{}", bad.escape_ascii());
        }
        assert!(Pax::parse(b"10 path=a\n").is_ok());
        assert!(Pax::parse(b"").is_ok());
    }

    /// Times have nanoseconds, and may be before 1970.
    #[test]
    fn times() {
        let table = [
            ("1.5", Some((1, 500_000_000))),
            ("1", Some((1, 0))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-0.5", Some((-1, 500_000_000))),
            ("0.1234567891", Some((0, 123_456_789))),
            ("x", None),
            ("1.-5", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_time(text), expected, "{text}");
        }
    }
}
