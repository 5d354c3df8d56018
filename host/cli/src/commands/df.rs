use larder::plan::Usage;

use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::render::size::size;
use crate::render::table::{Align, Table};

/// Show how much space the cache takes, and how much of it a prune would free
///
/// Sizes are allocated blocks. Layers that images share count once.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder df
  larder df --format json")]
pub(crate) struct Df {}

impl Df {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let local = context.open().await?;
        let step = context.console.step("measuring the cache");
        let usage = local.usage().await?;
        drop(step);
        if context.console.is_json() {
            context.console.json(&usage)?;
        } else {
            context.console.data(&table(&usage, context))?;
        }
        Ok(Status::Done)
    }
}

fn table(usage: &Usage, context: &Context) -> String {
    let columns = [
        ("WHAT", Align::Left),
        ("NUMBER", Align::Right),
        ("SIZE", Align::Right),
        ("RECLAIMABLE", Align::Right),
    ];
    let mut table = Table::new(columns, context.console.width());
    let mut row = |what: &str, number: usize, all: u64, reclaimable: u64| {
        table.row([what.to_owned(), number.to_string(), size(all), size(reclaimable)]);
    };
    let left = usage.uncollected.as_ref();
    let (left_files, left_bytes) = left.map_or((0, 0), |left| (left.files, left.bytes));
    let needed = usage.cache_bytes.saturating_sub(usage.reclaimable_bytes).saturating_sub(left_bytes);
    row("images in use or pinned", usage.images - usage.unused, needed, 0);
    row("unused images", usage.unused, usage.unused_bytes, usage.unused_bytes);
    row("files that nothing owns", usage.unowned_files, usage.unowned_bytes, usage.unowned_bytes);
    if left_files > 0 {
        let files = usize::try_from(left_files).unwrap_or(usize::MAX);
        row("files that may be another home's", files, left_bytes, 0);
    }
    format!(
        "{}{} in all, {} of {} on the disk are available\n",
        table.render(),
        size(usage.cache_bytes),
        size(usage.available_bytes),
        size(usage.capacity_bytes)
    )
}
