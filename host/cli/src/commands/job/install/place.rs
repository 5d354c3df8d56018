//! Writing units. One that somebody else wrote, or changed, is not overwritten.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use larder::reference::Digest;

use super::unit::Unit;
use crate::exit::Failure;
use crate::input;

/// The beginning of the first line of a unit, before the digest of the other lines.
const MARK: &str = "# Written by `larder job install`, which replaces it unless it was changed: ";

/// What writing a unit came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    New,
    /// It was there.
    Same,
}

/// Returns a text with a first line by which it is known again.
pub(super) fn marked(text: &str) -> String {
    format!("{MARK}{}\n{text}", Digest::of(text.as_bytes()))
}

/// Returns whether a text is one that was marked, and unchanged since.
fn is_ours(text: &str) -> bool {
    let parts = text.split_once('\n').and_then(|(first, rest)| Some((first.strip_prefix(MARK)?, rest)));
    parts.is_some_and(|(digest, rest)| Digest::of(rest.as_bytes()).to_string() == digest)
}

/// Returns the paths that a unit needs: those of its home.
fn places_of(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("RequiresMountsFor="))
}

/// Refuses to write units, all of them, if one would replace what is not ours, or is for another home.
pub(super) fn check(directory: &Path, units: &[Unit], force: bool) -> Result<(), Failure> {
    for unit in units.iter().filter(|_| !force) {
        let path = directory.join(unit.name);
        // A link, to `/dev/null` for example, is somebody's decision as well.
        let there = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => input::read(&path).unwrap_or_default(),
            Ok(_) => String::new(),
            Err(_) => continue,
        };
        if is_ours(&there) && places_of(&there) != places_of(&unit.text) {
            let text = format!("`{}` is there, and is for another home", path.display());
            return Err(Failure::usage(text).with_hint(
                "`--print` prints the units, to be written under a name of their own; `--force` replaces it",
            ));
        }
        if !is_ours(&there) {
            let text = format!("`{}` is there, and somebody else wrote or changed it", path.display());
            return Err(Failure::usage(text).with_hint(
                "put changes into a drop-in (`systemctl edit`), which stays; `--force` replaces the unit",
            ));
        }
    }
    Ok(())
}

/// Writes a unit completely, or leaves it as it was.
pub(super) fn write(path: &Path, text: &str) -> Result<Written, Failure> {
    let is_link = path.is_symlink();
    if !is_link && fs::read(path).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(Written::Same);
    }
    let write = || -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".larder-")
            .permissions(Permissions::from_mode(0o644))
            .tempfile_in(path.parent().unwrap_or(Path::new("/")))
            .map_err(|error| io::Error::from(error.kind()))?;
        file.write_all(text.as_bytes())?;
        // Without what the file mode creation mask takes away: everybody may read a unit.
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().map(|()| Written::New).map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::PermissionDenied => "only root can install units; `--print` prints them",
            ErrorKind::NotFound => "is this a system with systemd? `--print` prints the units",
            _ => return Failure::unwritable(path, error),
        };
        Failure::unwritable(path, error).with_hint(hint)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A unit that was written is replaced, and everybody may read it. One that was changed, another's or a link is not,
    /// unless that is asked for.
    #[test]
    fn what_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("larder.service");
        let unit = |text: &str| Unit { name: "larder.service", text: marked(text) };
        let install = |text: &str, force: bool| {
            let units = [unit(text)];
            check(directory.path(), &units, force)?;
            write(&path, &units[0].text)
        };
        assert_eq!(install("a\n", false).expect("written"), Written::New);
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o644);
        assert_eq!(install("a\n", false).expect("there"), Written::Same);
        assert_eq!(install("b\n", false).expect("replaced"), Written::New);
        for other in [unit("b\n").text + "Nice=19\n", "[Service]\n".to_owned(), String::new()] {
            fs::write(&path, &other).expect("a file");
            install("b\n", false).expect_err("another's");
            assert_eq!(fs::read_to_string(&path).expect("the file"), other);
        }
        install("RequiresMountsFor=/a\n", true).expect("forced");
        install("RequiresMountsFor=/a\nb\n", false).expect("replaced");
        let other = install("RequiresMountsFor=/b\n", false).expect_err("another home's");
        assert!(other.messages().any(|message| message.ends_with("is for another home")));
        install("b\n", true).expect("forced");
        fs::remove_file(&path).and_then(|()| symlink("/dev/null", &path)).expect("a link");
        install("b\n", false).expect_err("it is masked");
        assert_eq!(install("b\n", true).expect("forced"), Written::New);
        assert_eq!(fs::read_to_string(&path).expect("the file"), unit("b\n").text);
        assert_eq!(fs::read_dir(directory.path()).expect("the directory").count(), 1);
    }
}
