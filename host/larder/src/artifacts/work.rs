//! Unfinished work, recognized by its name, and the locks of the process that does it.
//!
//! ```text
//! tmp/<blob>.part                      a download              tmp/<blob>.download.lock
//! tmp/<diff ID>.erofs.part, .spool     a layer                 layers/<diff ID>.erofs.lock
//! tmp/<manifest>.work/                 an image's metadata     fsmeta/<manifest>.erofs.lock, vmdk/<manifest>.vmdk.lock
//! tmp/<derivation>.flat.work/          a flat disk             flat/locks/<derivation>.lock
//! tmp/load-*.blob, save-*.layer.tar    a load, a save          none but the file's own
//! tmp/<entry>-<random>.….part          Larder's own            the file itself
//! manifests/<reference>.json.part      metadata                manifests/<reference>.lock
//! layers/<blob>.tar.gz                 a downloaded blob       tmp/<blob>.download.lock
//! ```
//!
//! Nothing else counts as work, so nothing else is deleted.

use std::ffi::OsString;

use super::Room;

/// A file or directory of work that a process may still be doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) is_dir: bool,
    pub(crate) locks: Vec<LockFile>,
}

/// A lock file of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LockFile {
    /// The directory, relative to the cache.
    pub(crate) directory: &'static str,
    pub(crate) name: OsString,
}

fn lock(directory: &'static str, name: String) -> LockFile {
    LockFile { directory, name: name.into() }
}

/// Returns the work that a name in `tmp/` belongs to, if a cache makes such a name.
pub(crate) fn in_temporary(name: &str) -> Option<Work> {
    let file = |locks| Some(Work { is_dir: false, locks });
    let directory = |locks| Some(Work { is_dir: true, locks });
    if is_numbered(name, "load-", ".blob", 2) || is_numbered(name, "save-", ".layer.tar", 1) || is_own(name) {
        return file(Vec::new());
    }
    let (hex, suffix) = after_hex(name.strip_prefix("sha256_")?)?;
    let stem = format!("sha256_{hex}");
    match suffix {
        ".part" => file(vec![download_lock(&stem)]),
        ".erofs.part" | ".spool" => file(vec![lock("layers", format!("{stem}.erofs.lock"))]),
        ".work" => directory(vec![
            lock("fsmeta", format!("{stem}.erofs.lock")),
            lock("vmdk", format!("{stem}.vmdk.lock")),
        ]),
        ".flat.work" => directory(vec![lock("flat/locks", format!("{stem}.lock"))]),
        _ => None,
    }
}

/// Returns the work that a name in a room belongs to, if a cache makes such a name.
pub(crate) fn in_room(room: Room, name: &str) -> Option<Work> {
    let (hex, suffix) = after_hex(name)?;
    let locks = vec![lock("manifests", format!("{hex}.lock"))];
    (room == Room::Manifests && suffix == ".json.part").then_some(Work { is_dir: false, locks })
}

/// Returns the work that a downloaded blob in `layers/` belongs to, if the name is that of a blob.
pub(crate) fn downloaded(name: &str) -> Option<Work> {
    let (hex, suffix) = after_hex(name.strip_prefix("sha256_")?)?;
    let locks = vec![download_lock(&format!("sha256_{hex}"))];
    (suffix == ".tar.gz").then_some(Work { is_dir: false, locks })
}

fn download_lock(stem: &str) -> LockFile {
    lock("tmp", format!("{stem}.download.lock"))
}

/// Splits a text after the 64 hex digits at its beginning.
fn after_hex(text: &str) -> Option<(&str, &str)> {
    let (hex, rest) = text.split_at_checked(64)?;
    hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).then_some((hex, rest))
}

/// Returns whether a name consists of `prefix`, this many numbers and an identifier, with hyphens between them, and
/// `suffix`.
fn is_numbered(name: &str, prefix: &str, suffix: &str, numbers: usize) -> bool {
    let Some(inner) = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix)) else {
        return false;
    };
    let mut parts = inner.splitn(numbers + 1, '-');
    let all_numbers = parts
        .by_ref()
        .take(numbers)
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    let is_id = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    all_numbers && parts.next().is_some_and(is_id)
}

/// Returns whether the name is that of an entry that Larder is making, with random letters and digits in it.
fn is_own(name: &str) -> bool {
    Room::ALL.into_iter().any(|room| {
        let (prefix, suffix) = room.affixes();
        let after =
            name.strip_prefix(prefix).and_then(after_hex).and_then(|(_, rest)| rest.strip_prefix('-'));
        let random =
            after.and_then(|rest| rest.strip_suffix(".part")).and_then(|rest| rest.strip_suffix(suffix));
        random.is_some_and(|random| {
            !random.is_empty() && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only a whole name that a cache makes is recognized, together with the locks of its maker.
    #[test]
    fn work_is_told_by_its_name() {
        let hex = "ab".repeat(32);
        let stem = format!("sha256_{hex}");
        let locks = |name: String| {
            let work = in_temporary(&name).unwrap_or_else(|| panic!("`{name}` is work"));
            let paths = work
                .locks
                .iter()
                .map(|lock| format!("{}/{}", lock.directory, lock.name.to_string_lossy()).replace(&hex, "H"));
            (work.is_dir, paths.collect::<Vec<_>>().join(" "))
        };
        let file = |text: &str| (false, text.to_owned());
        let directory = |text: &str| (true, text.to_owned());
        assert_eq!(locks(format!("{stem}.part")), file("tmp/sha256_H.download.lock"));
        assert_eq!(locks(format!("{stem}.erofs.part")), file("layers/sha256_H.erofs.lock"));
        assert_eq!(locks(format!("{stem}.spool")), file("layers/sha256_H.erofs.lock"));
        let both = "fsmeta/sha256_H.erofs.lock vmdk/sha256_H.vmdk.lock";
        assert_eq!(locks(format!("{stem}.work")), directory(both));
        assert_eq!(locks(format!("{stem}.flat.work")), directory("flat/locks/sha256_H.lock"));
        for own in ["load-0-12-a1b2.blob", "save-12-a1b2.layer.tar"] {
            assert_eq!(locks(own.to_owned()), file(""));
        }
        for own in [format!("{stem}-aB3xYz.erofs.part"), format!("{hex}-aB3xYz.json.part")] {
            assert_eq!(locks(own), file(""));
        }
        for foreign in [
            "thesis",
            "x.part",
            "p",
            "load-x.blob",
            "save-.layer.tar",
            "load-1-2.blob",
            "sha256_ab.part",
            "",
            &format!("{stem}.part.bak"),
            &format!("{stem}-.erofs.part"),
            &format!("{stem}-a/b.erofs.part"),
        ] {
            assert_eq!(in_temporary(foreign), None, "{foreign}");
        }
        assert!(in_room(Room::Manifests, &format!("{hex}.json.part")).is_some());
        assert!(in_room(Room::Layers, &format!("{stem}.erofs.part")).is_none());
        assert!(downloaded(&format!("{stem}.tar.gz")).is_some() && downloaded("backup.tar.gz").is_none());
    }
}
