//! The only code that prints, prompts, or checks for a terminal.
//!
//! Data goes to standard output, everything else to standard error. With `--format json`, standard error is for
//! programs, too: one JSON object a line, such as `{"error": …}` or `{"warning": …}`, without texts that are only for
//! people.
//!
//! No message reaches a terminal as anything but text, whatever archive, registry, policy or file its parts are of: what
//! moves the cursor or reorders text is replaced here, and line feeds where the message is not the program's own lines.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use crate::exit::Failure;
use crate::render::{plain, plain_lines};

/// The format of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Tables, with sizes and ages that one can read
    Human,
    /// The library's records, documented and stable
    Json,
}

/// The amount of output besides data and errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// Nothing else.
    Quiet,
    /// The messages that a person needs.
    Normal,
    /// A message for each step.
    Verbose,
    /// Messages that help to find a fault.
    Debug,
}

impl Verbosity {
    /// Returns the verbosity for this number of `-v`.
    pub(crate) fn from_count(count: u8) -> Self {
        match count {
            0 => Self::Normal,
            1 => Self::Verbose,
            _ => Self::Debug,
        }
    }
}

/// The output of the program. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Console {
    format: Format,
    verbosity: Verbosity,
}

const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();

impl Console {
    pub(crate) fn new(format: Format, verbosity: Verbosity) -> Self {
        Self { format, verbosity }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    pub(crate) fn verbosity(&self) -> Verbosity {
        self.verbosity
    }

    /// Prints data: the text unchanged, but without colours if standard output does not show them.
    pub(crate) fn data(&self, text: &str) -> Result<(), Failure> {
        let mut out = anstream::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result.map_err(|error| Failure::failed("output", "could not write the output", error)),
        }
    }

    /// Prints data as an indented JSON document, whose texts cannot move a terminal's cursor or reorder what it shows.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::failed("output", "could not write the output as JSON", error))?;
        self.data(&(escaped(text) + "\n"))
    }

    /// Prints a message that a person needs, and no program.
    pub(crate) fn note(&self, text: &str) {
        if self.verbosity >= Verbosity::Normal && !self.is_json() {
            self.say(&plain_lines(text));
        }
    }

    /// Prints a table that a person needs, and no program, with its colours.
    pub(crate) fn note_table(&self, table: &str) {
        if self.verbosity >= Verbosity::Normal && !self.is_json() {
            self.say(table);
        }
    }

    /// Prints a message about a step.
    pub(crate) fn detail(&self, text: &str) {
        if self.verbosity >= Verbosity::Verbose && !self.is_json() {
            self.say(&plain_lines(text));
        }
    }

    /// Prints a message that helps to find a fault.
    pub(crate) fn debug(&self, text: &str) {
        if self.verbosity >= Verbosity::Debug && !self.is_json() {
            self.say(&plain_lines(text));
        }
    }

    /// Prints a warning about a problem that did not stop the rest.
    pub(crate) fn warn(&self, text: &str) {
        if self.verbosity < Verbosity::Normal {
            return;
        }
        if self.is_json() {
            self.say(&escaped(json!({ "warning": text }).to_string()));
        } else {
            self.say(&format!("{WARNING}warning:{WARNING:#} {}", plain(text)));
        }
    }

    /// Prints an event, for programs.
    pub(crate) fn event(&self, event: &impl Serialize) {
        self.record("progress", event);
    }

    /// Prints a record on standard error, for programs, as an object with this key.
    pub(crate) fn record(&self, key: &str, record: &impl Serialize) {
        if self.is_json() && self.verbosity >= Verbosity::Normal {
            self.say(&escaped(json!({ key: record }).to_string()));
        }
    }

    /// Returns whether progress can be drawn and is visible.
    pub(crate) fn can_draw(&self) -> bool {
        self.verbosity >= Verbosity::Normal && !self.is_json() && io::stderr().is_terminal()
    }

    /// Prints a failure, its causes, and a hint.
    pub(crate) fn failure(&self, failure: &Failure) {
        let mut messages = failure.messages();
        let error = messages.next().unwrap_or_default();
        if self.is_json() {
            let causes: Vec<String> = messages.collect();
            let mut object = json!({ "error": error, "kind": failure.kind() });
            if !causes.is_empty() {
                object["caused_by"] = json!(causes);
            }
            if let Some(hint) = failure.hint() {
                object["hint"] = json!(hint);
            }
            return self.say(&escaped(object.to_string()));
        }
        let text = if failure.has_lines() { plain_lines } else { plain };
        self.say(&format!("{ERROR}error:{ERROR:#} {}", text(&error)));
        for cause in messages {
            self.say(&format!("  caused by: {}", text(&cause)));
        }
        if let Some(hint) = failure.hint() {
            self.say(&format!("{HINT}hint:{HINT:#} {}", plain(hint)));
        }
    }

    /// Prints the text that a question is about, even if the question is not asked.
    pub(crate) fn show(&self, text: &str) {
        let mut error = anstream::stderr().lock();
        // Without standard error there is nobody left to tell.
        let _ = error.write_all(text.as_bytes());
    }

    fn say(&self, text: &str) {
        self.show(&format!("{text}\n"));
    }

    /// Returns the maximum width of tables: that of the terminal, or `None` without a terminal.
    pub(crate) fn width(&self) -> Option<u16> {
        let out = io::stdout();
        out.is_terminal().then(|| terminal_size::terminal_size_of(out)).flatten().map(|(width, _)| width.0)
    }

    /// Returns whether standard input is a terminal.
    pub(crate) fn reads_terminal(&self) -> bool {
        io::stdin().is_terminal()
    }

    /// Returns whether standard output is a terminal.
    pub(crate) fn writes_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Returns whether the program can ask a question.
    pub(crate) fn can_ask(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks a question. Returns whether the answer was yes.
    pub(crate) fn ask(&self, question: &str) -> Result<bool, Failure> {
        self.show(&format!("{} [y/N] ", plain(question)));
        let mut answer = String::new();
        io::stdin()
            .lock()
            .read_line(&mut answer)
            .map_err(|error| Failure::failed("input", "could not read the answer", error))?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// Shows a step in progress, until the result is dropped.
    pub(crate) fn step(&self, what: &'static str) -> Step {
        let people = self.verbosity >= Verbosity::Normal && !self.is_json();
        if !people || !io::stderr().is_terminal() {
            self.detail(what);
            return Step(None);
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(100));
        Step(Some(bar))
    }
}

/// Returns a JSON document with escapes for the characters that a terminal could obey. JSON has them in its texts only, and
/// its own rules leave out those above U+001F.
pub(crate) fn escaped(json: String) -> String {
    use std::fmt::Write as _;
    let is_plain = |character| matches!(character, '\n') || crate::render::is_harmless(character);
    if json.chars().all(is_plain) {
        return json;
    }
    json.chars().fold(String::with_capacity(json.len()), |mut text, character| {
        if is_plain(character) {
            text.push(character);
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\u{:04x}", u32::from(character));
        }
        text
    })
}

/// A step in progress that is shown.
pub(crate) struct Step(Option<ProgressBar>);

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
