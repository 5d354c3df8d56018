//! What is shown before something is deleted, and who agrees to it.

use larder::plan::Plan;

use crate::cli::Context;
use crate::exit::Failure;
use crate::render;

/// Whether something may be deleted without asking.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Consent {
    /// Delete what is shown without asking
    #[arg(long, short)]
    pub(crate) yes: bool,
}

impl Consent {
    /// Refuses at once where nobody could be asked later.
    pub(crate) fn require(self, context: &Context) -> Result<(), Failure> {
        if self.yes || context.console.can_ask() {
            return Ok(());
        }
        let message = "this deletes, and there is no terminal to ask at: add `--yes`";
        Err(Failure::usage(message.to_owned()))
    }

    /// Shows what is about to be done, and asks.
    pub(crate) fn obtain_for(self, context: &Context, what: &str, question: &str) -> Result<(), Failure> {
        let console = &context.console;
        if self.yes {
            console.note(what);
            return Ok(());
        }
        self.require(context)?;
        console.show(&format!("{what}\n"));
        if console.ask(question)? { Ok(()) } else { Err(Failure::declined()) }
    }

    /// Shows what a plan deletes, and asks. Programs that agreed beforehand are spared the table: they get it as data.
    pub(crate) fn obtain(self, context: &Context, plan: &Plan) -> Result<(), Failure> {
        let removals = render::plan::removals(plan, &context.console);
        self.obtain_for(context, removals.trim_end(), "Delete this?")
    }
}
