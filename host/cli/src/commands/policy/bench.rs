use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use larder::policy::{
    ByteSize, Grant, GrantDocument, Guard, Limits, Policy, PolicyEngine, PolicyRun, RunStats,
};
use larder::snapshot::{DiskStatus, MemoryCache, MemoryImage};
use serde::Serialize;

use super::milliseconds;
use crate::cli::Context;
use crate::commands::deciding::config_argument;
use crate::exit::{Failure, Status};
use crate::input::{self, ConfigArgument};
use crate::render::table::{Align, Table};
use crate::render::{count, plain, size};
use crate::source::PolicySource;

/// Measure the time and the memory that a policy takes
///
/// The policy runs over a cache in memory that is made for it, the same for the same number: repositories of eight tags
/// that share a layer, of all ages up to a year. Without `--grant`, everything is granted, and the limits are wide.
/// Times are medians. No home is touched.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder policy bench keep-recent
  larder policy bench demo.wasm --config max-bytes=1MiB --images 100000")]
pub(crate) struct Bench {
    /// The policy: one of `larder policy list`, or a path
    #[arg(value_name = "P", value_hint = clap::ValueHint::FilePath)]
    policy: PolicySource,
    /// The number of images in the cache
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    images: u32,
    /// The number of measurements of each thing, unless that takes longer than ten seconds
    #[arg(long, value_name = "K", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// The policy's config: a value, JSON or text, or a file of JSON or TOML; later ones win
    #[arg(long, value_name = "FILE|KEY=VALUE", value_parser = config_argument)]
    config: Vec<ConfigArgument>,
    /// The grant, guard and limits to run under, a file of TOML
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    grant: Option<PathBuf>,
}

/// What was measured. Times are medians in microseconds, sizes in bytes.
#[derive(Debug, Serialize)]
struct Measurements {
    /// Loading it from its compiled code, in an engine of its own.
    cached_start_us: u64,
    /// Loading it without any compiled code.
    compile_us: u64,
    /// Its `evaluate`, its calls to the host included.
    evaluate_us: u64,
    /// What `evaluate` takes for an image, in nanoseconds.
    evaluate_ns_per_image: u64,
    /// Instructions, about, of a run that counts them.
    fuel: Option<u64>,
    host_calls: u64,
    images: u32,
    /// Making a fresh instance of it.
    instantiate_us: u64,
    memory_bytes: u64,
    name: String,
    /// Images that it removes.
    removals: usize,
    /// A whole run, reading the cache and making the plan included.
    run_us: u64,
    /// How often the run was measured.
    runs: usize,
    size_bytes: u64,
    version: String,
}

/// A measurement is not repeated any more once this has gone by.
const PATIENCE: Duration = Duration::from_secs(10);

impl Bench {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let bytes = self.policy.bytes()?;
        let grant = match &self.grant {
            Some(path) => input::grant(path)?,
            None => everything(),
        };
        let now = context.now();
        let run = PolicyRun::new(now).with_config(input::config(&self.config)?).with_grant(grant);
        let step = context.console.step("measuring the policy");
        let measurements = self.measure(&bytes, &run, &cache(self.images, now)).await?;
        drop(step);
        if context.console.is_json() {
            context.console.json(&measurements)?;
        } else {
            context.console.data(&measurements.describe(context))?;
        }
        Ok(Status::Done)
    }

    async fn measure(
        &self,
        bytes: &[u8],
        run: &PolicyRun,
        cache: &MemoryCache,
    ) -> Result<Measurements, Failure> {
        let refused = |error| Failure::from(error).of_policy("measure", &self.policy);
        let load = async |engine: &PolicyEngine| Policy::load(engine, bytes).await.map_err(refused);
        let uncached = PolicyEngine::new()?;
        let compile = self.repeat(async || timed(load(&uncached)).await).await?;

        let directory = tempfile::tempdir().map_err(|error| {
            Failure::failed("unwritable", "could not make a directory for compiled code", error)
        })?;
        let start = async || -> Result<Policy, Failure> {
            // The temporary directory may be readable for others: the code cache makes its own below.
            load(&PolicyEngine::builder().code_cache(directory.path().join("code")).build()?).await
        };
        let policy = start().await?;
        let cached = self.repeat(async || timed(start()).await).await?;

        let description = policy.description().await.map_err(refused)?.clone();
        let evaluate =
            async |run: &PolicyRun| policy.evaluate(Box::new(cache.clone()), run).await.map_err(refused);
        let evaluations = self.repeat(async || evaluate(run).await).await?;
        let stats: Vec<RunStats> = evaluations.iter().map(|evaluation| evaluation.stats).collect();
        let counting = run.grant().cloned().unwrap_or_default();
        let limits = counting.limits.clone();
        let fuel = limits.fuel.unwrap_or(u64::MAX);
        let counting = counting.with_limits(limits.with_fuel(fuel));
        let fuel = evaluate(&run.clone().with_grant(counting)).await?.stats.fuel;
        let evaluate = median(stats.iter().map(|stats| stats.evaluate));
        let per_image = evaluate.as_nanos() / u128::from(self.images.max(1));
        let first = evaluations.first();
        Ok(Measurements {
            cached_start_us: micros(median(cached)),
            compile_us: micros(median(compile)),
            evaluate_us: micros(evaluate),
            evaluate_ns_per_image: u64::try_from(per_image).unwrap_or(u64::MAX),
            fuel,
            host_calls: first.map_or(0, |first| first.stats.host_calls),
            images: self.images,
            instantiate_us: micros(median(stats.iter().map(|stats| stats.instantiate))),
            memory_bytes: first.map_or(0, |first| first.stats.memory_bytes),
            name: description.name,
            removals: first.map_or(0, |first| first.plan.removals().count()),
            run_us: micros(median(stats.iter().map(|stats| stats.duration))),
            runs: evaluations.len(),
            size_bytes: bytes.len() as u64,
            version: description.version,
        })
    }

    /// Does something as often as was asked for, or until it has taken long enough; at least once.
    async fn repeat<T>(&self, once: impl AsyncFn() -> Result<T, Failure>) -> Result<Vec<T>, Failure> {
        let clock = Instant::now();
        let mut results = Vec::new();
        for _ in 0..self.runs {
            results.push(once().await?);
            if clock.elapsed() > PATIENCE {
                break;
            }
        }
        Ok(results)
    }
}

impl Measurements {
    fn describe(&self, context: &Context) -> String {
        let time = |micros: u64| milliseconds(Duration::from_micros(micros));
        let mut table =
            Table::new([("WHAT", Align::Left), ("MEDIAN", Align::Right)], context.console.width());
        let mut row = |what: &str, value: String| table.row([what.to_owned(), value]);
        row("compile", time(self.compile_us));
        row("cached start", time(self.cached_start_us));
        row("instantiate", time(self.instantiate_us));
        row("evaluate", time(self.evaluate_us));
        row("evaluate, an image", format!("{:.3} µs", self.evaluate_ns_per_image as f64 / 1e3));
        row("whole run", time(self.run_us));
        row("memory", size::size(self.memory_bytes));
        row("fuel", self.fuel.map(grouped).unwrap_or_default());
        row("host calls", grouped(self.host_calls));
        format!(
            "{} {}, {}, over {} images of which it removes {}; {}\n{}",
            plain(&self.name),
            plain(&self.version),
            size::size(self.size_bytes),
            grouped(self.images.into()),
            grouped(self.removals as u64),
            count(self.runs, "run"),
            table.render(),
        )
    }
}

/// A grant under which a policy may do what it likes, and limits that a policy in any language keeps.
fn everything() -> GrantDocument {
    let all = || vec!["**".parse().expect("a pattern")];
    let grant = Grant::default().with_inspect(all()).with_remove(all()).with_prune(true);
    let limits = Limits::default()
        .with_time(Duration::from_secs(600))
        .with_memory(ByteSize::gib(2))
        .with_host_calls(u64::MAX);
    GrantDocument::default()
        .with_grant(grant)
        .with_guard(Guard::default().with_min_age(Duration::ZERO))
        .with_limits(limits)
}

/// Eight images to a repository, which share one of their two layers.
fn cache(images: u32, now: DateTime<Utc>) -> MemoryCache {
    const OWN: u64 = 4 << 20;
    const SHARED: u64 = 64 << 20;
    let mut layers = Vec::new();
    let made = (0..images).map(|number| {
        let repository = number / 8;
        let [shared, own] = [format!("base {repository}"), format!("own {number}")];
        if number % 8 == 0 {
            layers.push((shared.clone(), SHARED));
        }
        layers.push((own.clone(), OWN));
        let ago = |days: u32| now.checked_sub_signed(TimeDelta::days(days.into()));
        let mut image = MemoryImage::new(format!("docker.io/acme/app{repository:05}:v{}", number % 8));
        image.created_at = ago(number % 365);
        image.last_used_at = ago(number % 90);
        image.size_bytes = Some(30 << 20);
        image.layers = vec![shared, own];
        image
    });
    let cache = MemoryCache::new(made.collect::<Vec<_>>());
    let cache_bytes = layers.iter().map(|(_, bytes)| bytes).sum::<u64>();
    let disk = DiskStatus { cache_bytes, capacity_bytes: cache_bytes * 2, available_bytes: cache_bytes };
    layers.into_iter().fold(cache.with_disk(disk), |cache, (name, bytes)| cache.with_layer(name, bytes))
}

async fn timed<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<Duration, Failure> {
    let clock = Instant::now();
    let result = work.await?;
    let elapsed = clock.elapsed();
    drop(result);
    Ok(elapsed)
}

fn median(times: impl IntoIterator<Item = Duration>) -> Duration {
    let mut times: Vec<_> = times.into_iter().collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A number with its thousands apart, such as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thousands stand apart, and of several times the middle one counts.
    #[test]
    fn numbers() {
        assert_eq!([0, 12, 123, 1234, 1_234_567].map(grouped), ["0", "12", "123", "1,234", "1,234,567"]);
        let times = [5, 1, 9].map(Duration::from_secs);
        assert_eq!((median(times), median([])), (Duration::from_secs(5), Duration::ZERO));
    }

    /// The cache has as many images as was asked for, eight to a repository, and is the same every time.
    #[test]
    fn caches() {
        let now = DateTime::UNIX_EPOCH;
        let states = cache(20, now).states();
        assert_eq!(states, cache(20, now).states());
        let of = |repository: &str| {
            states.iter().filter(|state| state.handle.reference().contains(repository)).count()
        };
        assert_eq!((states.len(), of("app00000"), of("app00002")), (20, 8, 4));
    }
}
