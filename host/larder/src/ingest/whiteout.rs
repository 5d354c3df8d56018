//! The names in a layer's archive that stand for something else (OCI image specification, "Whiteouts").
//!
//! - `.wh.NAME` removes `NAME` from the layers below.
//! - `.wh..wh..opq` removes everything that the layers below have in its directory.
//! - `.wh..wh.plnk/NUMBER` is a file of AUFS, and the target of hard links that are its names.
//! - other names that begin with `.wh..wh.` are bookkeeping of AUFS.

use larder_erofs::{EntryPath, Name};

use super::error::IngestProblem;

/// The beginning of a removal's name.
pub(crate) const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// The name that makes a directory opaque.
pub(crate) const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";

/// The beginning of the names of AUFS' own files.
const AUFS_PREFIX: &[u8] = b".wh..wh.";

/// The directory in which AUFS keeps files that have several names.
const AUFS_LINKS: &[u8] = b".wh..wh.plnk";

/// The meaning of an entry's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The entry itself.
    Entry,
    /// This path is removed from the layers below.
    Whiteout(EntryPath),
    /// Everything in this directory is removed from the layers below.
    Opaque(EntryPath),
    /// The file that AUFS knows by this name, without a name in the layer.
    AufsLink(Vec<u8>),
    /// Nothing.
    Ignored,
}

impl Meaning {
    /// Returns the meaning of a path.
    ///
    /// # Errors
    /// Fails if the path removes something that cannot be removed, or is inside of a removal.
    pub(crate) fn of(path: &EntryPath) -> Result<Self, IngestProblem> {
        let no_whiteout = || IngestProblem::Entry(format!("`{path}` is not a valid whiteout"));
        let mut above = path.components();
        let Some(name) = above.next_back() else { return Ok(Self::Entry) };
        if above.clone().eq([AUFS_LINKS]) {
            return Ok(Self::AufsLink(name.to_vec()));
        }
        if above.clone().any(|component| component.starts_with(AUFS_PREFIX)) {
            return Ok(Self::Ignored);
        }
        if above.any(|component| component.starts_with(WHITEOUT_PREFIX)) {
            return Err(no_whiteout());
        }
        let Some(removed) = name.strip_prefix(WHITEOUT_PREFIX) else { return Ok(Self::Entry) };
        let parent = path.parent().unwrap_or_default();
        if name == OPAQUE_MARKER {
            return Ok(Self::Opaque(parent));
        }
        if name.starts_with(AUFS_PREFIX) {
            return Ok(Self::Ignored);
        }
        let removed = Name::parse(removed).and_then(|removed| parent.join(&removed));
        removed.map(Self::Whiteout).map_err(|_| no_whiteout())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of removals and of AUFS have a meaning, and removals that remove nothing or hold something are named.
    #[test]
    fn meanings() {
        let path = |text: &str| EntryPath::parse(text.as_bytes()).expect("a path");
        let table = [
            ("", Meaning::Entry),
            ("etc/wh.motd", Meaning::Entry),
            ("etc/.wh.motd", Meaning::Whiteout(path("etc/motd"))),
            (".wh.etc", Meaning::Whiteout(path("etc"))),
            ("etc/.wh..wh..opq", Meaning::Opaque(path("etc"))),
            (".wh..wh..opq", Meaning::Opaque(EntryPath::root())),
            (".wh..wh.plnk", Meaning::Ignored),
            (".wh..wh.plnk/1.2", Meaning::AufsLink(b"1.2".to_vec())),
            (".wh..wh.plnk/a/b", Meaning::Ignored),
            ("a/.wh..wh.orph", Meaning::Ignored),
            (".wh..wh.aufs", Meaning::Ignored),
        ];
        for (text, expected) in table {
            assert_eq!(Meaning::of(&path(text)).expect(text), expected, "{text}");
        }
        for bad in ["a/.wh.", ".wh...", ".wh.a/b"] {
            let problem = Meaning::of(&path(bad)).expect_err(bad);
            assert_eq!(problem.to_string(), format!("`{bad}` is not a valid whiteout"));
        }
    }
}
