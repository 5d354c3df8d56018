//! Running programs: what they write is kept, and shown only where they fail.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::KitError;

/// How many lines of what a failed program wrote are told.
const TAIL: usize = 40;

/// A program that the kit does not install, and what to do without it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    /// What it is for, as the end of a sentence.
    pub(crate) purpose: &'static str,
    /// What to install.
    pub(crate) remedy: &'static str,
}

/// What a program wrote.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a program to its end, with nothing to read.
///
/// # Errors
/// [`KitError::MissingProgram`] where there is no such program, [`KitError::Command`] where it fails.
pub(crate) fn run(command: &mut Command, need: Need) -> Result<Output, KitError> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => KitError::MissingProgram {
            program: command.get_program().to_string_lossy().into_owned(),
            purpose: need.purpose,
            remedy: need.remedy,
        },
        _ => KitError::Io { action: "run", path: Path::new(command.get_program()).to_owned(), source: error },
    })?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    if !output.status.success() {
        return Err(KitError::Command {
            command: typed(command),
            status: output.status.to_string(),
            output: tail(&format!("{stdout}{stderr}")),
        });
    }
    Ok(Output { stdout, stderr })
}

/// Whether a program runs and succeeds.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// A command as one would type it.
fn typed(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted = |word: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./,:@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.to_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEED: Need = Need { purpose: "nothing works", remedy: "install it" };

    /// A program that fails is told as one would type it, with the end of what it wrote on both streams.
    #[test]
    fn failures_show_the_end_of_what_was_written() {
        let script = "seq 100; echo 'at last' >&2; exit 3";
        let error = run(Command::new("sh").args(["-c", script]), NEED).unwrap_err().to_string();
        let expected: Vec<String> = (62..=100).map(|line| line.to_string()).collect();
        assert_eq!(
            error,
            format!(
                "`sh -c 'seq 100; echo '\\''at last'\\'' >&2; exit 3'` failed: exit status: 3\n{}\nat last",
                expected.join("\n")
            )
        );
    }

    /// A program that is not there is told with what to install.
    #[test]
    fn missing_programs_are_told_with_a_remedy() {
        let error = run(&mut Command::new("larder-no-such-program"), NEED).unwrap_err().to_string();
        assert_eq!(error, "`larder-no-such-program` is missing, without which nothing works: install it");
    }
}
