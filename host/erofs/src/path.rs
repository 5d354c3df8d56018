//! Names and paths, checked once: a value of these types can be written to an image and created in a file system.
//!
//! Names are bytes. Linux asks only that a name is 1 to 255 bytes without `/` and NUL, and is neither `.` nor `..`;
//! UTF-8 is a habit, not a rule.

use std::borrow::Borrow;
use std::fmt;

/// The maximum length of a name in bytes.
pub const MAX_NAME: usize = 255;

/// The maximum length of a path in bytes: what Linux accepts in one call (`PATH_MAX`, without its NUL).
pub const MAX_PATH: usize = 4095;

/// The error for bytes that are not a path within an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// The path begins with `/`.
    #[error("`{0}` is an absolute path")]
    Absolute(String),

    /// A component of the path is `..`.
    #[error("`{0}` has a component `..`")]
    Parent(String),

    /// The path contains a NUL byte.
    #[error("`{0}` contains a NUL byte")]
    Nul(String),

    /// A component of the path has more than [`MAX_NAME`] bytes.
    #[error("`{0}` has a component of more than {MAX_NAME} bytes")]
    NameTooLong(String),

    /// The path has more than [`MAX_PATH`] bytes.
    #[error("`{0}…` has more than {MAX_PATH} bytes")]
    TooLong(String),

    /// The bytes are not a single name: they are empty, `.`, or contain `/`.
    #[error("`{0}` is not the name of an entry")]
    NotAName(String),
}

/// The name of an entry in a directory: 1 to 255 bytes without `/` and NUL, neither `.` nor `..`.
///
/// Names are ordered by their bytes, which is the order in which EROFS keeps a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Parses `bytes`.
    ///
    /// # Errors
    ///
    /// A [`PathError`] if they are not a name.
    pub fn parse(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.is_empty() || bytes == b"." || bytes.contains(&b'/') {
            return Err(PathError::NotAName(shown(bytes)));
        }
        check_component(bytes, bytes)?;
        Ok(Self(bytes.into()))
    }

    /// Makes a name of a component of an [`EntryPath`], which was checked when the path was parsed.
    pub(crate) fn of_component(bytes: &[u8]) -> Self {
        debug_assert!(Self::parse(bytes).is_ok());
        Self(bytes.into())
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// The path of an entry from the root of an image, in checked components.
///
/// The empty path is the root itself. Paths are ordered by their components, so that a directory is directly before
/// its content.
///
/// ```
/// use larder_erofs::EntryPath;
///
/// let path = EntryPath::parse(b"./usr//bin/env")?;
/// assert_eq!(path.as_bytes(), b"usr/bin/env");
/// assert!(EntryPath::parse(b"../etc/passwd").is_err());
/// assert!(EntryPath::parse(b"./")?.is_root());
/// # Ok::<(), larder_erofs::PathError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct EntryPath(Vec<u8>);

impl EntryPath {
    /// Returns the root of the image.
    pub fn root() -> Self {
        Self::default()
    }

    /// Parses a relative path with `/` between its components. Empty components and `.` are left out, as the kernel
    /// does. [`parse_from_root`](Self::parse_from_root) accepts absolute paths too.
    ///
    /// # Errors
    ///
    /// A [`PathError`] if the path is absolute, contains `..` or a NUL, or is longer than Linux allows.
    pub fn parse(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.first() == Some(&b'/') {
            return Err(PathError::Absolute(shown(bytes)));
        }
        let mut path = Self::root();
        for component in bytes.split(|&byte| byte == b'/') {
            if component.is_empty() || component == b"." {
                continue;
            }
            check_component(component, bytes)?;
            path.push_bytes(component)?;
        }
        Ok(path)
    }

    /// Parses a path from the root of the image, with or without `/` at its beginning.
    ///
    /// # Errors
    ///
    /// The same as those of [`parse`](Self::parse), but for [`PathError::Absolute`].
    pub fn parse_from_root(bytes: &[u8]) -> Result<Self, PathError> {
        let begin = bytes.iter().position(|&byte| byte != b'/').unwrap_or(bytes.len());
        Self::parse(&bytes[begin..])
    }

    /// Returns the components joined with `/`, without one at the beginning. Empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the components from the root on. None for the root.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> + Clone {
        self.0.split(|&byte| byte == b'/').filter(|component| !component.is_empty())
    }

    /// Returns the last component, or `None` for the root.
    pub fn file_name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// Returns the directory that holds this entry, or `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let name = self.file_name()?;
        let end = self.0.len() - name.len();
        Some(Self(self.0[..end.saturating_sub(1)].to_vec()))
    }

    /// Returns this path with `name` appended.
    ///
    /// # Errors
    ///
    /// [`PathError::TooLong`] if the result has more than [`MAX_PATH`] bytes.
    pub fn join(&self, name: &Name) -> Result<Self, PathError> {
        let mut path = self.clone();
        path.push(name)?;
        Ok(path)
    }

    /// Appends `name`.
    pub(crate) fn push(&mut self, name: &Name) -> Result<(), PathError> {
        self.push_bytes(name.as_bytes())
    }

    /// Removes the last component, if there is one.
    pub(crate) fn pop(&mut self) {
        let end = self.0.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        self.0.truncate(end);
    }

    fn push_bytes(&mut self, component: &[u8]) -> Result<(), PathError> {
        if self.0.len() + component.len() + 1 > MAX_PATH + 1 {
            return Err(PathError::TooLong(shown(&self.0[..self.0.len().min(64)])));
        }
        if !self.0.is_empty() {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(component);
        Ok(())
    }
}

impl PartialOrd for EntryPath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for EntryPath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.components().cmp(other.components())
    }
}

fn check_component(component: &[u8], whole: &[u8]) -> Result<(), PathError> {
    match component {
        b".." => Err(PathError::Parent(shown(whole))),
        _ if component.contains(&0) => Err(PathError::Nul(shown(whole))),
        _ if component.len() > MAX_NAME => Err(PathError::NameTooLong(shown(whole))),
        _ => Ok(()),
    }
}

/// Returns bytes as text for a message: valid UTF-8 unchanged, and everything that would not show as an escape.
pub(crate) fn shown(bytes: &[u8]) -> String {
    use fmt::Write as _;

    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if char.is_control() {
                text.extend(char.escape_default());
            } else {
                text.push(char);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_root() { "/" } else { "" })?;
        f.write_str(&shown(&self.0))
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryPath({self})")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path that leaves the image, is absolute or cannot be created in Linux is refused, and the message names it.
    #[test]
    fn dangerous_paths_are_refused() {
        let message = |bytes: &[u8]| EntryPath::parse(bytes).unwrap_err().to_string();
        assert_eq!(message(b"/etc/passwd"), "`/etc/passwd` is an absolute path");
        assert_eq!(message(b"a/../../b"), "`a/../../b` has a component `..`");
        assert_eq!(message(b"a\0b"), "`a\\u{0}b` contains a NUL byte");
        assert_eq!(
            message(&[b'x'; 256]),
            format!("`{}` has a component of more than 255 bytes", "x".repeat(256))
        );
        assert!(matches!(EntryPath::parse(&[b'x', b'/'].repeat(2049)), Err(PathError::TooLong(_))));
        assert!(EntryPath::parse(&[b'x', b'/'].repeat(2048)).is_ok());
    }

    /// Slashes at the beginning of a path from the root count for nothing, and `..` is refused behind them as well.
    #[test]
    fn leading_slashes_count_for_nothing() {
        for name in [&b"etc/x"[..], b"/etc/x", b"//etc//x", b"/./etc/x"] {
            assert_eq!(EntryPath::parse_from_root(name).unwrap().as_bytes(), b"etc/x");
        }
        assert!(EntryPath::parse_from_root(b"//").unwrap().is_root());
        let error = EntryPath::parse_from_root(b"/../x").unwrap_err();
        assert_eq!(error, PathError::Parent("../x".to_owned()));
    }

    /// A name of 255 bytes that are not UTF-8 is a name, and shows as escapes.
    #[test]
    fn names_are_bytes() {
        assert_eq!(Name::parse(&[0xff; 255]).unwrap().as_bytes(), [0xff; 255]);
        assert_eq!(EntryPath::parse(b"caf\xc3\xa9/\xe9\n").unwrap().to_string(), "café/\\xe9\\n");
        for refused in [&b""[..], b".", b"..", b"a/b", b"a\0", &[1; 256]] {
            assert!(Name::parse(refused).is_err(), "{refused:?}");
        }
    }

    /// Parent, file name and join agree with each other.
    #[test]
    fn paths_come_apart_and_together() {
        let path = EntryPath::parse(b"a/b/c").unwrap();
        assert_eq!(path.file_name(), Some(&b"c"[..]));
        assert_eq!(path.parent().unwrap().as_bytes(), b"a/b");
        assert_eq!(path.parent().unwrap().join(&Name::parse(b"c").unwrap()).unwrap(), path);
        assert_eq!(EntryPath::parse(b"a").unwrap().parent(), Some(EntryPath::root()));
        assert_eq!(EntryPath::root().parent(), None);
    }

    /// A directory is directly before its content, even if a sibling's name sorts before `/`.
    #[test]
    fn order_is_that_of_a_walk() {
        let [dir, inside, sibling] = [&b"a"[..], b"a/z", b"a-b"].map(|path| EntryPath::parse(path).unwrap());
        assert!(dir < inside && inside < sibling);
    }
}
