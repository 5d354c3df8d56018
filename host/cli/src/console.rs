//! The only place that prints, asks, or knows whether there is a terminal.
//!
//! Data goes to standard output, everything else to standard error. With `--format json` standard error, too, is for
//! programs: one JSON object a line, `{"error": …}` or `{"warning": …}`, and nothing that is for people only.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use crate::exit::Failure;

/// For whom output is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Tables, with sizes and ages that one can read
    Human,
    /// The library's records, documented and stable
    Json,
}

/// How much is said besides data and errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    /// Nothing.
    Quiet,
    /// What a person has to know.
    Normal,
    /// What is being done.
    Verbose,
    /// What helps to find a fault.
    Debug,
}

impl Verbosity {
    /// So many `-v`.
    pub(crate) fn from_count(count: u8) -> Self {
        match count {
            0 => Self::Normal,
            1 => Self::Verbose,
            _ => Self::Debug,
        }
    }
}

/// Where everything is printed. Cheap to clone.
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

    /// Data: the text as it is, but without colours where nobody sees them.
    pub(crate) fn data(&self, text: &str) -> Result<(), Failure> {
        let mut out = anstream::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result.map_err(|error| Failure::failed("output", "could not write the output", error)),
        }
    }

    /// Data as an indented JSON document, whose texts cannot move a terminal's cursor or reorder what it shows.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::failed("output", "could not write the output as JSON", error))?;
        self.data(&(escaped(text) + "\n"))
    }

    /// Something that a person has to know, and no program needs.
    pub(crate) fn note(&self, text: &str) {
        if self.verbosity >= Verbosity::Normal && !self.is_json() {
            self.say(text);
        }
    }

    /// What is being done.
    pub(crate) fn detail(&self, text: &str) {
        if self.verbosity >= Verbosity::Verbose && !self.is_json() {
            self.say(text);
        }
    }

    /// What helps to find a fault.
    pub(crate) fn debug(&self, text: &str) {
        if self.verbosity >= Verbosity::Debug && !self.is_json() {
            self.say(text);
        }
    }

    /// Something that went wrong without stopping the rest.
    pub(crate) fn warn(&self, text: &str) {
        if self.verbosity < Verbosity::Normal {
            return;
        }
        if self.is_json() {
            self.say(&json!({ "warning": text }).to_string());
        } else {
            self.say(&format!("{WARNING}warning:{WARNING:#} {text}"));
        }
    }

    /// Something that happened, for programs.
    pub(crate) fn event(&self, event: &impl Serialize) {
        if self.is_json() && self.verbosity >= Verbosity::Normal {
            self.say(&json!({ "progress": event }).to_string());
        }
    }

    /// Whether progress can be drawn, and whether anybody would see it.
    pub(crate) fn can_draw(&self) -> bool {
        self.verbosity >= Verbosity::Normal && !self.is_json() && io::stderr().is_terminal()
    }

    /// Something that went wrong, what caused it, and what can be done about it.
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
            return self.say(&object.to_string());
        }
        self.say(&format!("{ERROR}error:{ERROR:#} {error}"));
        for cause in messages {
            self.say(&format!("  caused by: {cause}"));
        }
        if let Some(hint) = failure.hint() {
            self.say(&format!("{HINT}hint:{HINT:#} {hint}"));
        }
    }

    /// What a person is about to be asked about, or is told although nobody asks.
    pub(crate) fn show(&self, text: &str) {
        let mut error = anstream::stderr().lock();
        // Without standard error there is nobody left to tell.
        let _ = error.write_all(text.as_bytes());
    }

    fn say(&self, text: &str) {
        self.show(&format!("{text}\n"));
    }

    /// How wide tables may be: as wide as the terminal, or as they like where there is none.
    pub(crate) fn width(&self) -> Option<u16> {
        let out = io::stdout();
        out.is_terminal().then(|| terminal_size::terminal_size_of(out)).flatten().map(|(width, _)| width.0)
    }

    /// Whether there is somebody to ask.
    pub(crate) fn can_ask(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks, and gives whether the answer was yes.
    pub(crate) fn ask(&self, question: &str) -> Result<bool, Failure> {
        self.show(&format!("{question} [y/N] "));
        let mut answer = String::new();
        io::stdin()
            .lock()
            .read_line(&mut answer)
            .map_err(|error| Failure::failed("input", "could not read the answer", error))?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    /// Shows that something long goes on, until the result is dropped.
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

/// Writes the characters of a JSON document as escapes that a terminal could obey. JSON has them in its texts only, and
/// its own rules leave out those above U+001F.
fn escaped(json: String) -> String {
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

/// Something long that goes on.
pub(crate) struct Step(Option<ProgressBar>);

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
