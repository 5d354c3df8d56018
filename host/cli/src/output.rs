//! The files that commands write.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use larder::LocalBackend;

use crate::exit::Failure;
use crate::input;

/// Refuses a file in the home or its cache: it would take the place of the index, of the settings or of an artifact.
pub(crate) fn refuse_in_home(path: &Path, local: &LocalBackend) -> Result<(), Failure> {
    // What cannot be found is not written either, and that is said then.
    let place = target_of(path).and_then(|target| directory_of(&target).canonicalize());
    let Ok(parent) = place else { return Ok(()) };
    for directory in [local.home(), local.cache_dir()] {
        if directory.canonicalize().is_ok_and(|directory| parent.starts_with(directory)) {
            let text = format!("`{}` is in `{}`: write it elsewhere", path.display(), directory.display());
            return Err(Failure::usage(text));
        }
    }
    Ok(())
}

/// Refuses to replace a file that is not `what`. An empty file is replaced, and a device or a pipe is not a file.
pub(crate) fn refuse_to_replace(path: &Path, what: &str, is_one: fn(&str) -> bool) -> Result<(), Failure> {
    if !fs::metadata(path).is_ok_and(|before| before.is_file() && before.len() > 0) {
        return Ok(());
    }
    // What cannot be read as a text is none.
    if input::read(path).is_ok_and(|text| is_one(&text)) {
        return Ok(());
    }
    let text = format!("`{}` is there and is not {what}: remove it, or write elsewhere", path.display());
    Err(Failure::usage(text))
}

/// Returns the file that a path leads to.
fn target_of(path: &Path) -> io::Result<PathBuf> {
    if path.is_symlink() { path.canonicalize() } else { Ok(path.to_owned()) }
}

/// Returns the directory that a file is in.
fn directory_of(target: &Path) -> &Path {
    target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a file completely, or leaves it unchanged after a failure. An existing file keeps its permissions, and a link
/// to it stays a link. Anything that is not a regular file, such as a device or a pipe, is written to directly.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let write = || -> io::Result<()> {
        let target = target_of(path)?;
        let before = fs::metadata(&target).ok();
        if before.as_ref().is_some_and(|before| !before.is_file()) {
            return fs::OpenOptions::new().write(true).open(&target)?.write_all(text.as_bytes());
        }
        let mut file = tempfile::NamedTempFile::new_in(directory_of(&target)).map_err(unnamed)?;
        file.write_all(text.as_bytes())?;
        if let Some(before) = before {
            file.as_file().set_permissions(before.permissions())?;
        }
        file.as_file().sync_all()?;
        file.persist(&target)?;
        Ok(())
    };
    write().map_err(|error| Failure::unwritable(path, error))
}

/// Returns the error of the operating system in an error that also has the name of a temporary file, which nobody knows.
fn unnamed(error: io::Error) -> io::Error {
    // The error says `… (os error 2) at path "…"`, and has no source.
    let text = error.to_string();
    let Some((cause, _)) = text.split_once(" at path ") else { return error };
    let code = cause.rsplit_once("(os error ").and_then(|(_, code)| code.strip_suffix(')')?.parse().ok());
    code.map_or_else(|| io::Error::new(error.kind(), cause), io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// A device is written to, and stays a device.
    #[test]
    fn devices_stay() {
        let full = Path::new("/dev/full");
        write(full, "x").expect_err("it is full");
        write(Path::new("/dev/null"), "x").expect("written");
        assert!(
            [full, Path::new("/dev/null")]
                .iter()
                .all(|path| !fs::metadata(path).expect("a device").is_file())
        );
    }

    /// An overwritten file keeps its permissions, even through a link. A failed write leaves no file behind.
    #[test]
    fn permissions_and_links_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let [file, link, missing] = ["file", "link", "missing/file"].map(|name| directory.path().join(name));
        fs::write(&file, "before").expect("a file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("its permissions");
        symlink("file", &link).expect("a link");
        write(&link, "after").expect("written");
        assert_eq!(fs::read_to_string(&file).expect("the file"), "after");
        assert_eq!(fs::metadata(&file).expect("the file").permissions().mode() & 0o777, 0o640);
        assert!(link.is_symlink());
        write(&missing, "x").expect_err("no such directory");
        assert_eq!(fs::read_dir(directory.path()).expect("the directory").count(), 2);
    }
}
