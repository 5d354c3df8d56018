//! The common part of commands that load or pull images: one after the other, with output for each and a summary.

use std::sync::Arc;
use std::time::Instant;

use larder::ingest::{IngestLimits, LimitKey, LimitUnit, Platform, Progress};
use larder::policy::ByteSize;
use larder::{Image, ImageHandle, LocalBackend};

use super::Failures;
use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::progress::IngestProgress;
use crate::render::size::known;
use crate::render::table::{Align, Table};
use crate::render::{NOTHING, plain, short_digest};

/// The platform of the images.
#[derive(Debug, clap::Args)]
pub(super) struct PlatformArgument {
    /// Take the images for this platform, instead of those for this machine
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
}

impl PlatformArgument {
    pub(super) fn get(&self) -> Option<Platform> {
        self.platform.clone()
    }
}

/// Limits on what an image may use.
#[derive(Debug, clap::Args)]
pub(super) struct LimitArguments {
    /// Change a limit on what an image may use, such as `layer-bytes=100GiB`; can be given several times
    #[arg(long = "limit", value_name = "KEY=VALUE", value_parser = limit, long_help = limit_help())]
    limits: Vec<(LimitKey, u64)>,
}

impl LimitArguments {
    /// Returns the limits, those that were not given as they are by default.
    pub(super) fn limits(&self) -> IngestLimits {
        let mut limits = IngestLimits::default();
        self.limits.iter().for_each(|&(key, limit)| limits.set(key, limit));
        limits
    }
}

fn limit(text: &str) -> Result<(LimitKey, u64), String> {
    let (key, value) = text.split_once('=').ok_or("a limit is written `KEY=VALUE`")?;
    let key: LimitKey = key.parse().map_err(|unknown| format!("{unknown}"))?;
    let value = match key.unit() {
        LimitUnit::Bytes => value.parse::<ByteSize>().map_err(|error| error.to_string())?.as_bytes(),
        _ => value.parse().map_err(|_| format!("`{value}` is not a number"))?,
    };
    Ok((key, value))
}

fn limit_help() -> String {
    let defaults = IngestLimits::default();
    let mut text =
        "Change a limit on what an image may use; can be given several times. The keys, with what they are by default:\n"
            .to_owned();
    for key in LimitKey::ALL {
        let limit = defaults.get(key);
        let limit = match key.unit() {
            LimitUnit::Bytes => ByteSize::bytes(limit).to_string(),
            _ => limit.to_string(),
        };
        text += &format!("\n  {key}={limit}  {}", key.what());
    }
    text
}

/// Runs `work` for each of the sources. Continues after a failure, and stops at an interrupt. What was added before a failure is
/// shown as well.
pub(super) async fn take_in<S>(
    context: &Context,
    local: &LocalBackend,
    sources: Vec<S>,
    mut work: impl AsyncFnMut(S, Arc<dyn Progress>) -> Result<Vec<ImageHandle>, Failure>,
) -> Result<Status, Failure> {
    let mut failures = Failures::new(context);
    let mut images = Vec::new();
    let begun = Instant::now();
    let progress = IngestProgress::new(&context.console);
    for source in sources {
        let taken = context.interruptible(work(source, progress.clone())).await;
        let interrupted = taken.as_ref().is_err_and(Failure::is_interrupted);
        if interrupted {
            progress.close();
        } else {
            progress.clear();
        }
        let added = progress.take_added();
        match failures.catch(taken) {
            Some(taken) => images.extend(taken),
            None => {
                for reference in &added {
                    images.extend(Image::get_local(local, reference).await);
                }
            }
        }
        if interrupted {
            break;
        }
    }
    let summary = progress.summary(images.len(), begun.elapsed());
    show(&images, context)?;
    if !images.is_empty() {
        context.console.note(&summary);
    }
    Ok(failures.status())
}

/// Shows images that were added to the cache.
fn show(images: &[ImageHandle], context: &Context) -> Result<(), Failure> {
    if context.console.is_json() {
        return context.console.json(&images);
    }
    let columns = [
        ("REFERENCE", Align::Left),
        ("MANIFEST", Align::Left),
        ("PLATFORM", Align::Left),
        ("LAYERS", Align::Right),
        ("SIZE", Align::Right),
    ];
    let mut table = Table::new(columns, context.console.width());
    for image in images {
        let platform = [image.os(), image.architecture()].map(|part| part.unwrap_or(NOTHING));
        table.row([
            plain(image.reference()),
            image.manifest_digest().map_or(NOTHING.to_owned(), short_digest),
            plain(&platform.join("/")),
            image.layer_count().to_string(),
            known(image.size_bytes()),
        ]);
    }
    if images.is_empty() { Ok(()) } else { context.console.data(&table.render()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A limit is a size or a number, by its key, and the last one given counts.
    #[test]
    fn limits() {
        assert_eq!(limit("layer-bytes=4GiB"), Ok((LimitKey::LayerBytes, 4 << 30)));
        assert_eq!(limit("ratio=500"), Ok((LimitKey::Ratio, 500)));
        for (bad, part) in [
            ("layer-bytes", "`KEY=VALUE`"),
            ("layer=1", "`layer` is not a limit"),
            ("ratio=4GiB", "`4GiB` is not a number"),
            ("layer-bytes=many", "`many` is not a size"),
        ] {
            let error = limit(bad).expect_err(bad);
            assert!(error.contains(part), "{error}");
        }
        let given = ["ratio=1", "ratio=2"].map(|text| limit(text).expect("a limit")).to_vec();
        assert_eq!(LimitArguments { limits: given }.limits().ratio, 2);
    }
}
