//! VMDK descriptors: text that joins files to one virtual disk.
//!
//! A descriptor of the type `twoGbMaxExtentFlat` lists extents: pieces of raw files, in whole sectors. The disk is
//! these pieces in their order (VMware, "Virtual Disk Format 1.1"). [`descriptor`] writes one, [`files`] reads it.
//! Neither compares the descriptor with the files.
//!
//! The same extents produce the same text, which is also the text that microsandbox 0.7 writes for them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The size of a sector in bytes.
pub const SECTOR: u64 = 512;

/// The maximum number of sectors in one extent: 2 GiB, as the name of the disk type says.
const MAX_EXTENT: u64 = 2 * 1024 * 1024 * 2;

/// The number of heads and of sectors in the geometry. Nothing in the disk depends on it except the number of
/// cylinders.
const HEADS: u64 = 16;
const SECTORS_PER_TRACK: u64 = 63;

/// The content ID of a disk that no other disk was made from.
const CONTENT_ID: u32 = NO_PARENT - 1;

/// The content ID that means that a disk has no parent. No disk has this ID itself.
const NO_PARENT: u32 = u32::MAX;

/// A file that the disk contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent<'a> {
    /// The path of the file: an absolute path in UTF-8 without quotes and control characters.
    pub path: &'a Path,
    /// The length in bytes: a multiple of 512.
    pub length: u64,
}

/// The error for extents that cannot be described.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VmdkError {
    /// A path is relative, not UTF-8, or contains a character that a descriptor cannot hold.
    #[error(
        "`{0}` cannot stand in a VMDK descriptor: it takes absolute paths in UTF-8 without quotes and control characters"
    )]
    Path(String),

    /// A length is zero or not a multiple of the sector size.
    #[error("`{path}` has {length} bytes, which is no whole number of sectors of {SECTOR} bytes")]
    Length {
        /// The file.
        path: String,
        /// The length of the file in bytes.
        length: u64,
    },

    /// There are no extents.
    #[error("a disk needs at least one extent")]
    Empty,

    /// The total length in bytes does not fit in 64 bits.
    #[error("the disk is too large")]
    TooLarge,
}

/// Returns the descriptor of the disk that consists of `extents` in their order. A file of more than 2 GiB has several
/// lines, each with its offset in the file in sectors.
///
/// ```
/// use std::path::Path;
/// use larder_erofs::vmdk::{Extent, descriptor};
///
/// let extents = [
///     Extent { path: Path::new("/cache/fsmeta.erofs"), length: 8192 },
///     Extent { path: Path::new("/cache/layer.erofs"), length: 4096 },
/// ];
/// let text = descriptor(&extents)?;
/// assert!(text.contains("RW 16 FLAT \"/cache/fsmeta.erofs\" 0\nRW 8 FLAT \"/cache/layer.erofs\" 0\n"));
/// # Ok::<(), larder_erofs::vmdk::VmdkError>(())
/// ```
///
/// # Errors
///
/// A [`VmdkError`] for a path or length that a descriptor cannot hold.
pub fn descriptor(extents: &[Extent<'_>]) -> Result<String, VmdkError> {
    if extents.is_empty() {
        return Err(VmdkError::Empty);
    }
    let mut lines = String::new();
    let mut total = 0u64;
    for extent in extents {
        let path = checked_path(extent.path)?;
        let sectors = extent.length / SECTOR;
        if sectors == 0 || extent.length % SECTOR != 0 {
            return Err(VmdkError::Length { path: path.to_owned(), length: extent.length });
        }
        total = total.checked_add(sectors).ok_or(VmdkError::TooLarge)?;
        let mut done = 0;
        while done < sectors {
            let count = (sectors - done).min(MAX_EXTENT);
            let _ = writeln!(lines, "RW {count} FLAT \"{path}\" {done}");
            done += count;
        }
    }
    let cylinders = total.div_ceil(HEADS * SECTORS_PER_TRACK);
    Ok(format!(
        "{HEADER}\n\
         version=1\n\
         CID={CONTENT_ID:08x}\n\
         parentCID={NO_PARENT:08x}\n\
         createType=\"twoGbMaxExtentFlat\"\n\
         \n\
         # Extent description\n\
         {lines}\n\
         # The Disk Data Base\n\
         #DDB\n\
         ddb.virtualHWVersion = \"4\"\n\
         ddb.geometry.cylinders = \"{cylinders}\"\n\
         ddb.geometry.heads = \"{HEADS}\"\n\
         ddb.geometry.sectors = \"{SECTORS_PER_TRACK}\"\n\
         ddb.adapterType = \"ide\"\n"
    ))
}

/// A file that a descriptor joins to the disk, as [`files`] reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedFile {
    /// The path of the file, as the descriptor states it.
    pub path: PathBuf,
    /// The number of bytes of the file that belong to the disk, from the file's beginning.
    pub length: u64,
}

/// The error for a text that is not the descriptor of whole files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The text does not begin as a descriptor does.
    #[error("it does not begin with `{HEADER}`")]
    Header,

    /// A line is not an extent of a raw file.
    #[error("line {0} is no extent of a raw file")]
    Line(usize),

    /// An extent neither begins a file nor continues the one before it.
    #[error("line {0} neither begins a file nor continues the one before it")]
    Gap(usize),
}

/// The first line of a descriptor.
const HEADER: &str = "# Disk DescriptorFile";

/// Reads the files of a descriptor in their order. Several extents of one file are joined to one entry.
///
/// ```
/// use std::path::Path;
/// use larder_erofs::vmdk::{Extent, descriptor, files};
///
/// let text = descriptor(&[Extent { path: Path::new("/cache/layer.erofs"), length: 5 << 30 }])?;
/// let files = files(&text)?;
/// assert_eq!((files.len(), files[0].length), (1, 5 << 30));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// A [`ParseError`] for a text that [`descriptor`] could not have written.
pub fn files(text: &str) -> Result<Vec<JoinedFile>, ParseError> {
    if text.lines().next() != Some(HEADER) {
        return Err(ParseError::Header);
    }
    let mut files: Vec<JoinedFile> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if !["RW ", "RDONLY ", "NOACCESS "].iter().any(|access| line.starts_with(access)) {
            continue;
        }
        let number = index + 1;
        let (path, length, offset) = extent(line).ok_or(ParseError::Line(number))?;
        match files.last_mut() {
            _ if offset == 0 => files.push(JoinedFile { path: path.into(), length }),
            Some(last) if last.length == offset && last.path == Path::new(path) => {
                last.length = last.length.checked_add(length).ok_or(ParseError::Line(number))?;
            }
            _ => return Err(ParseError::Gap(number)),
        }
    }
    Ok(files)
}

/// Parses an extent, and returns its path, length and offset in bytes.
fn extent(line: &str) -> Option<(&str, u64, u64)> {
    let (count, rest) = line.strip_prefix("RW ")?.split_once(" FLAT \"")?;
    let (path, offset) = rest.split_once("\" ")?;
    let bytes = |sectors: &str| sectors.parse::<u64>().ok()?.checked_mul(SECTOR);
    Some((path, bytes(count)?, bytes(offset)?))
}

fn checked_path(path: &Path) -> Result<&str, VmdkError> {
    path.to_str()
        .filter(|text| path.is_absolute() && !text.contains(|char: char| char == '"' || char.is_control()))
        .ok_or_else(|| VmdkError::Path(crate::path::shown(path.as_os_str().as_encoded_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(path: &str, length: u64) -> Result<String, VmdkError> {
        descriptor(&[Extent { path: Path::new(path), length }])
    }

    /// A descriptor has the form that VMware specifies, and lists the extents of each file in their order.
    #[test]
    fn a_descriptor() {
        let extents = [
            Extent { path: Path::new("/home/a/.microsandbox/cache/fsmeta/sha256_1.erofs"), length: 12288 },
            Extent { path: Path::new("/home/a/.microsandbox/cache/layers/sha256_2.erofs"), length: 5 << 30 },
        ];
        insta::assert_snapshot!(descriptor(&extents).unwrap(), @r#"
        # Disk DescriptorFile
        version=1
        CID=fffffffe
        parentCID=ffffffff
        createType="twoGbMaxExtentFlat"

        # Extent description
        RW 24 FLAT "/home/a/.microsandbox/cache/fsmeta/sha256_1.erofs" 0
        RW 4194304 FLAT "/home/a/.microsandbox/cache/layers/sha256_2.erofs" 0
        RW 4194304 FLAT "/home/a/.microsandbox/cache/layers/sha256_2.erofs" 4194304
        RW 2097152 FLAT "/home/a/.microsandbox/cache/layers/sha256_2.erofs" 8388608

        # The Disk Data Base
        #DDB
        ddb.virtualHWVersion = "4"
        ddb.geometry.cylinders = "10403"
        ddb.geometry.heads = "16"
        ddb.geometry.sectors = "63"
        ddb.adapterType = "ide"
        "#);
    }

    /// A large file is split into extents that follow each other, without a gap or an overlap.
    #[test]
    fn large_files_are_split() {
        let text = one("/a b", 7 << 30).unwrap();
        let mut next = 0;
        for line in text.lines().filter_map(|line| line.strip_prefix("RW ")) {
            let (count, offset) = line.split_once(" FLAT \"/a b\" ").unwrap();
            let (count, offset): (u64, u64) = (count.parse().unwrap(), offset.parse().unwrap());
            assert_eq!(offset, next);
            assert!(count * SECTOR <= 2 << 30);
            next += count;
        }
        assert_eq!(next, (7 << 30) / SECTOR);
    }

    /// Files are read back as they were written: a large file as one, and a file that is listed twice, twice.
    #[test]
    fn descriptors_are_read() {
        let extents = [("/a b", 4096), ("/c", 7 << 30), ("/c", 7 << 30)]
            .map(|(path, length)| Extent { path: Path::new(path), length });
        let expected =
            extents.map(|extent| JoinedFile { path: extent.path.to_owned(), length: extent.length });
        let text = descriptor(&extents).unwrap();
        assert_eq!(files(&text).unwrap(), expected);
        assert_eq!(files(&"#".repeat(320)), Err(ParseError::Header));
        let line = |line: &str| files(&format!("{HEADER}\n{line}\n"));
        for broken in ["RW 8 SPARSE \"/a\"", "RDONLY 8 FLAT \"/a\" 0", "RW x FLAT \"/a\" 0", "RW 8 FLAT \"/a"]
        {
            assert_eq!(line(broken), Err(ParseError::Line(2)), "{broken}");
        }
        let huge = u64::MAX / SECTOR;
        assert_eq!(line(&format!("RW {} FLAT \"/a\" 0", u64::MAX)), Err(ParseError::Line(2)));
        assert_eq!(
            line(&format!("RW {huge} FLAT \"/a\" 0\nRW 8 FLAT \"/a\" {huge}")),
            Err(ParseError::Line(3))
        );
        for gap in ["RW 8 FLAT \"/a\" 8", "RW 8 FLAT \"/a\" 0\nRW 8 FLAT \"/b\" 8"] {
            assert!(matches!(line(gap), Err(ParseError::Gap(_))), "{gap}");
        }
    }

    /// A path that a line cannot hold, or that would change the meaning of the line, is refused.
    #[test]
    fn what_cannot_be_written_is_refused() {
        for path in ["relative", "", "/a\"b", "/a\nRW 1 FLAT \"/etc/shadow\" 0", "/a\tb"] {
            assert!(matches!(one(path, 512), Err(VmdkError::Path(_))), "{path}");
        }
        for length in [0, 511, 513] {
            assert!(matches!(one("/a", length), Err(VmdkError::Length { .. })), "{length}");
        }
        assert_eq!(descriptor(&[]), Err(VmdkError::Empty));
    }
}
