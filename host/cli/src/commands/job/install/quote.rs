//! Texts as units of systemd have them (systemd.syntax(7), systemd.service(5), "Command lines").

use std::path::Path;

use crate::exit::Failure;

/// Returns a path as a word of a setting: in quotes, without specifiers.
///
/// # Errors
/// Fails if a unit cannot have the path: with control characters, or not in UTF-8.
pub(super) fn path(path: &Path) -> Result<String, Failure> {
    match path.to_str().filter(|text| !text.chars().any(char::is_control)) {
        Some(text) => Ok(word(text)),
        None => Err(Failure::usage(format!(
            "`{}` cannot be in a unit of systemd: it has control characters, or is not in UTF-8",
            crate::render::plain(&path.to_string_lossy())
        ))),
    }
}

/// Returns a path as an argument of a command: without variables, too.
///
/// # Errors
/// As [`path`].
pub(super) fn argument(argument: &Path) -> Result<String, Failure> {
    Ok(path(argument)?.replace('$', "$$"))
}

fn word(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    /// Nothing in a path has a meaning for systemd; a path that no quotes can hold is refused.
    #[test]
    fn quoted() {
        let quoted = |text: &str| path(Path::new(text)).expect("a word");
        assert_eq!(quoted("/var/lib/x"), r#""/var/lib/x""#);
        assert_eq!(quoted(r#"/a b/%h/$x/"q"\n"#), r#""/a b/%%h/$x/\"q\"\\n""#);
        assert_eq!(argument(Path::new("/a $b")).expect("a word"), r#""/a $$b""#);
        path(Path::new("/a\nUser=root")).expect_err("a line of its own");
        path(Path::new(OsStr::from_bytes(b"/\xff"))).expect_err("no text");
    }
}
