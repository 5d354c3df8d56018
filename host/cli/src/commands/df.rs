use larder::snapshot::{DiskStatus, ImageRecord};
use serde::Serialize;

use super::look;
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

/// Keys in alphabetical order, sizes in bytes.
#[derive(Debug, Serialize)]
struct Usage {
    /// Available on the file system.
    available_bytes: u64,
    /// Allocated by all files of the cache.
    cache_bytes: u64,
    /// Size of the file system.
    capacity_bytes: u64,
    /// References in the index.
    images: usize,
    /// Of these, used by a sandbox or a snapshot.
    in_use: usize,
    /// Of these, pinned.
    pinned: usize,
    /// What a prune would free: that of unused images and that of files that nothing owns.
    reclaimable_bytes: u64,
    /// What files free that nothing owns.
    unowned_bytes: u64,
    /// Files that nothing owns and that are old enough to go.
    unowned_files: usize,
    /// References that nothing uses and nobody pinned.
    unused: usize,
    /// What a prune would free of unused images.
    unused_bytes: u64,
}

impl Df {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let local = context.open().await?;
        let step = context.console.step("measuring the cache");
        let (images, disk) = look(&local, |source| Ok((source.images()?, source.disk()?))).await?;
        let plan = local.plan_prune().await?;
        drop(step);
        let unowned_bytes = plan.collect.iter().map(|file| file.bytes).sum();
        let usage = usage(&images, disk, plan.bytes, plan.collect.len(), unowned_bytes);
        if context.console.is_json() {
            context.console.json(&usage)?;
        } else {
            context.console.data(&table(&usage, context))?;
        }
        Ok(Status::Done)
    }
}

fn usage(images: &[ImageRecord], disk: DiskStatus, reclaimable: u64, files: usize, unowned: u64) -> Usage {
    let count = |is: fn(&ImageRecord) -> bool| images.iter().filter(|image| is(image)).count();
    Usage {
        available_bytes: disk.available_bytes,
        cache_bytes: disk.cache_bytes,
        capacity_bytes: disk.capacity_bytes,
        images: images.len(),
        in_use: count(|image| !image.users.is_empty()),
        pinned: count(|image| image.pinned),
        reclaimable_bytes: reclaimable,
        unowned_bytes: unowned,
        unowned_files: files,
        unused: count(|image| image.users.is_empty() && !image.pinned),
        unused_bytes: reclaimable.saturating_sub(unowned),
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
    let needed = usage.cache_bytes.saturating_sub(usage.reclaimable_bytes);
    row("images in use or pinned", usage.images - usage.unused, needed, 0);
    row("unused images", usage.unused, usage.unused_bytes, usage.unused_bytes);
    row("files that nothing owns", usage.unowned_files, usage.unowned_bytes, usage.unowned_bytes);
    format!(
        "{}{} in all, {} of {} on the disk are available\n",
        table.render(),
        size(usage.cache_bytes),
        size(usage.available_bytes),
        size(usage.capacity_bytes)
    )
}
