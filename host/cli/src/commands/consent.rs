//! What is shown before something is deleted, and who agrees to it.

use larder::LocalBackend;
use larder::backend::CacheOwner;
use larder::plan::Plan;

use crate::cli::Context;
use crate::exit::Failure;
use crate::render::{self, plain};

/// Whether something may be deleted without asking.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Consent {
    /// Delete what is shown without asking
    #[arg(long, short)]
    pub(crate) yes: bool,
}

impl Consent {
    /// Shows what is about to be done, and asks. Where there is no terminal to ask at, refuses after that: programs that
    /// read JSON are spared the text, which is no line for them.
    pub(crate) fn obtain_for(self, context: &Context, what: &str, question: &str) -> Result<(), Failure> {
        let console = &context.console;
        if self.yes {
            console.note_table(what);
            return Ok(());
        }
        let can_ask = console.can_ask();
        if can_ask || !console.is_json() {
            console.show(&format!("{what}\n"));
        }
        if !can_ask {
            let message = "nothing was changed: there is no terminal to ask at".to_owned();
            return Err(Failure::usage(message).with_hint("`--yes` does this without asking"));
        }
        if console.ask(question)? { Ok(()) } else { Err(Failure::declined()) }
    }

    /// Shows what a plan deletes, and asks. Programs that agreed beforehand are spared the table: they get it as data.
    pub(crate) fn obtain(self, context: &Context, plan: &Plan) -> Result<(), Failure> {
        let removals = render::plan::removals(plan, &context.console);
        self.obtain_for(context, removals.trim_end(), "Delete this?")
    }
}

/// Warns that other homes use the cache, where images go with a plan: no home knows which files another one needs.
pub(crate) async fn warn_of_other_homes(
    local: &LocalBackend,
    plan: &Plan,
    context: &Context,
) -> Result<(), Failure> {
    if plan.removals().next().is_none() && plan.unreached.is_empty() {
        return Ok(());
    }
    let owner = match local.cache_owner().await? {
        CacheOwner::Several => "is used by several homes".to_owned(),
        CacheOwner::Home(home) if home != local.identity().await? => {
            format!("is marked as that of the home `{}`", plain(&home.path))
        }
        _ => return Ok(()),
    };
    let cache = local.cache_dir().display();
    context.console.warn(&format!(
        "the cache `{cache}` {owner}: files that go with these images go for other homes, too, even if images there need \
         them"
    ));
    Ok(())
}
