//! The library's log messages, printed by the console.

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::console::{Console, Verbosity};

/// Sends the library's messages to the console, as many as its verbosity allows.
pub(crate) fn install(console: &Console) {
    let level = match console.verbosity() {
        Verbosity::Quiet => LevelFilter::ERROR,
        Verbosity::Normal => LevelFilter::WARN,
        Verbosity::Verbose => LevelFilter::INFO,
        Verbosity::Debug => LevelFilter::DEBUG,
    };
    let subscriber = tracing_subscriber::registry().with(ToConsole(console.clone()).with_filter(level));
    // There is one call of this in the program, so no other subscriber stands in its way.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

struct ToConsole(Console);

impl<S: Subscriber> Layer<S> for ToConsole {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // The compiler's own messages are for nobody here.
        if !event.metadata().target().starts_with("larder") {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        match *event.metadata().level() {
            Level::ERROR | Level::WARN => self.0.warn(&text.0),
            Level::INFO => self.0.detail(&text.0),
            Level::DEBUG | Level::TRACE => self.0.debug(&text.0),
        }
    }
}

/// The text of an event: its message, then its fields.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        use std::fmt::Write as _;
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
