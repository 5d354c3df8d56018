//! Log messages: those of the library on the console, and the log of a service.
//!
//! A service has one line for each event, in a form that suits who reads it: a person, the journal of systemd, which has
//! its own times and takes levels as prefixes (sd-daemon(3)), or a program.

use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd;

use anstyle::{AnsiColor, Style};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::console::{Console, Verbosity, escaped};
use crate::render::plain;

/// The form of a service's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people, with times; without times and with levels as prefixes in the journal of systemd
    Human,
    /// One JSON object a line
    Json,
    /// For people on a terminal and in the journal of systemd, JSON elsewhere
    Auto,
}

/// Sends the library's messages to the console, as many as its verbosity allows.
pub(crate) fn install(console: &Console) {
    let level = match console.verbosity() {
        Verbosity::Quiet => LevelFilter::ERROR,
        Verbosity::Normal => LevelFilter::WARN,
        Verbosity::Verbose => LevelFilter::INFO,
        Verbosity::Debug => LevelFilter::DEBUG,
    };
    subscribe(ToConsole(console.clone()), level);
}

/// Writes the log of a service to standard error, as much as the verbosity allows.
pub(crate) fn install_service(format: LogFormat, verbosity: Verbosity) {
    let level = match verbosity {
        Verbosity::Quiet => LevelFilter::ERROR,
        Verbosity::Normal => LevelFilter::INFO,
        Verbosity::Verbose | Verbosity::Debug => LevelFilter::DEBUG,
    };
    subscribe(ToLog(Form::of(format)), level);
}

fn subscribe(layer: impl Layer<tracing_subscriber::Registry> + Send + Sync, level: LevelFilter) {
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(level));
    // There is one call of this in the program, so no other subscriber stands in its way.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Returns whether an event is Larder's own. The compiler's messages are for nobody here.
fn is_ours(event: &Event<'_>) -> bool {
    event.metadata().target().starts_with("larder")
}

struct ToConsole(Console);

impl<S: Subscriber> Layer<S> for ToConsole {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if !is_ours(event) {
            return;
        }
        let text = Fields::of(event).message;
        match *event.metadata().level() {
            Level::ERROR | Level::WARN => self.0.warn(&text),
            Level::INFO => self.0.detail(&text),
            Level::DEBUG | Level::TRACE => self.0.debug(&text),
        }
    }
}

/// A form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Person,
    Journal,
    Json,
}

impl Form {
    fn of(format: LogFormat) -> Self {
        let is_journal = is_journal(std::env::var("JOURNAL_STREAM").ok().as_deref(), io::stderr());
        match format {
            LogFormat::Json => Self::Json,
            _ if is_journal => Self::Journal,
            LogFormat::Auto if !io::stderr().is_terminal() => Self::Json,
            LogFormat::Human | LogFormat::Auto => Self::Person,
        }
    }

    /// Returns the line of an event, whose texts cannot move a terminal's cursor or begin another line.
    fn line(self, level: Level, at: DateTime<Utc>, fields: Fields) -> String {
        let Fields { message, mut values } = fields;
        match self {
            Self::Journal => {
                // Of syslog(3): error, warning, informational, debug.
                let priority = match level {
                    Level::ERROR => 3,
                    Level::WARN => 4,
                    Level::INFO => 6,
                    Level::DEBUG | Level::TRACE => 7,
                };
                format!("<{priority}>{}", plain(&message))
            }
            Self::Person => {
                let (style, word) = match level {
                    Level::ERROR => (AnsiColor::Red.on_default().bold(), "error: "),
                    Level::WARN => (AnsiColor::Yellow.on_default().bold(), "warning: "),
                    _ => (Style::new(), ""),
                };
                let at = at.to_rfc3339_opts(SecondsFormat::Secs, true);
                format!("{at} {style}{word}{style:#}{}", plain(&message))
            }
            Self::Json => {
                let level = level.as_str().to_ascii_lowercase();
                values.insert("time".to_owned(), at.to_rfc3339_opts(SecondsFormat::Millis, true).into());
                values.insert("level".to_owned(), level.into());
                values.insert("message".to_owned(), message.into());
                escaped(Value::Object(values).to_string())
            }
        }
    }
}

/// Returns whether a descriptor is the stream to the journal that `JOURNAL_STREAM` names by device and inode.
fn is_journal(stream: Option<&str>, descriptor: impl AsFd) -> bool {
    let named = stream.and_then(|stream| stream.split_once(':'));
    let named = named.and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    let found = rustix::fs::fstat(descriptor).ok().map(|stat| (stat.st_dev, stat.st_ino));
    named.is_some() && named == found
}

struct ToLog(Form);

impl<S: Subscriber> Layer<S> for ToLog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if is_ours(event) {
            let line = self.0.line(*event.metadata().level(), Utc::now(), Fields::of(event));
            // Without standard error there is nobody left to tell.
            let _ = anstream::stderr().lock().write_all(format!("{line}\n").as_bytes());
        }
    }
}

/// An event: its message, which is for people, and its values, which are for programs.
#[derive(Default)]
struct Fields {
    message: String,
    values: Map<String, Value>,
}

impl Fields {
    fn of(event: &Event<'_>) -> Self {
        let mut fields = Self::default();
        event.record(&mut fields);
        fields
    }

    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        self.values.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.add(field, format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn line(form: Form, level: Level) -> String {
        let values = [("job".to_owned(), "a\u{202e}b".into()), ("removed".to_owned(), 3.into())];
        let fields = Fields { message: "a\nb\u{1b}[2J".to_owned(), values: values.into_iter().collect() };
        form.line(level, DateTime::UNIX_EPOCH, fields)
    }

    /// Each form has one line for an event: with the time and a word for a person, with a prefix for the journal, with
    /// everything for a program. Nothing in it can begin another line or move a cursor.
    #[test]
    fn forms() {
        assert_eq!(line(Form::Journal, Level::WARN), "<4>a\u{fffd}b\u{fffd}[2J");
        assert_eq!(line(Form::Journal, Level::INFO), "<6>a\u{fffd}b\u{fffd}[2J");
        let person = anstream::adapter::strip_str(&line(Form::Person, Level::ERROR)).to_string();
        assert_eq!(person, "1970-01-01T00:00:00Z error: a\u{fffd}b\u{fffd}[2J");
        assert_eq!(
            line(Form::Json, Level::INFO),
            r#"{"job":"a\u202eb","level":"info","message":"a\nb\u001b[2J","removed":3,"time":"1970-01-01T00:00:00.000Z"}"#
        );
    }

    /// Standard error is the journal if it is the file that the variable names, and not if that is another.
    #[test]
    fn journal_streams() {
        let file = File::open("/dev/null").expect("a file");
        let metadata = file.metadata().expect("its metadata");
        let named = format!("{}:{}", metadata.dev(), metadata.ino());
        assert!(is_journal(Some(&named), &file));
        for other in [None, Some("1:2"), Some(""), Some("a:b"), Some(":")] {
            assert!(!is_journal(other, &file), "{other:?}");
        }
    }
}
