//! A policy that makes the calls of its config and logs the answers.
//!
//! Tests run it on a host and on the SDK's cache in memory, and compare what it logs. An answer has everything that both
//! are to agree on: no digest, no sentence for people.

use std::fmt::Write as _;

use larder_guest::{
    Cache, Error, Failure, ImageCost, ImageFilter, ImageHandle, ImageHistory, ImageUsage, Level, Order,
    Policy, Request, Timestamp,
};
use serde::Deserialize;

/// The policy.
pub struct Probe;

/// The calls: words with tabs between them, the name of a call first.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    calls: Vec<String>,
}

impl Policy for Probe {
    const NAME: &'static str = "probe";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Makes the calls of its config and logs the answers.";
    const CONFIG_SCHEMA: &'static str = "{}";
    type Config = Config;

    fn evaluate(config: Config, request: Request, cache: &mut impl Cache) -> Result<(), Failure> {
        cache.log(Level::Info, &format!("goal {:?}", request.goal_bytes));
        for call in &config.calls {
            let words: Vec<&str> = call.split('\t').collect();
            let answer = answer(&words, cache).unwrap_or_else(|error| failed(&error));
            cache.log(Level::Info, &format!("{}: {answer}", words.join(" ")));
        }
        Ok(())
    }
}

larder_guest::export_policy!(Probe);

/// Makes a call.
fn answer(words: &[&str], cache: &mut impl Cache) -> Result<String, Error> {
    Ok(match *words {
        ["list"] => each(cache.list()?, handle),
        ["get", reference] => handle(&cache.get(reference)?),
        ["inspect", reference] => {
            let detail = cache.inspect(reference)?;
            let config = detail.config.unwrap_or_default();
            format!("{} env {:?} labels {:?}", handle(&detail.handle), config.env, config.labels)
        }
        ["select", order, limit, after, pattern, unused, seconds] => {
            let given = |word: &str| (word != "-").then(|| word.to_owned());
            let filter = ImageFilter {
                reference: given(pattern),
                unused_since: None,
                arrived_before: seconds.parse().ok().and_then(|seconds| Timestamp::new(seconds, 0)),
                min_size_bytes: None,
                unused: unused.parse().ok(),
                order: order_of(order),
                after: given(after),
                limit: limit.parse().ok(),
            };
            each(cache.select(&filter)?, handle)
        }
        ["remove", reference] => done(cache.remove(reference, false))?,
        ["force", reference] => done(cache.remove(reference, true))?,
        ["restore", reference] => done(cache.restore(reference))?,
        ["prune"] => {
            let report = cache.prune()?;
            let layers = report.layers_removed;
            format!(
                "{} {} {layers} {:?}",
                report.image_refs_removed, report.manifests_removed, report.bytes_reclaimed
            )
        }
        ["usage", ref references @ ..] => each(cache.get_usage(asked(references))?, usage),
        ["costs", ref references @ ..] => each(cache.get_costs(asked(references))?, cost),
        ["history", ref references @ ..] => each(cache.get_history(asked(references))?, history),
        ["reclaimable", ref references @ ..] => cache.reclaimable_bytes(references)?.to_string(),
        ["disk"] => format!("{:?}", cache.disk()?),
        ["budget"] => format!("{:?}", cache.get_budget()),
        ["explain", reference, reason] => cache.explain(reference, reason).to_string(),
        _ => "no such call".to_owned(),
    })
}

/// Returns the references that are asked for: none are every one.
fn asked<'a, 'b>(references: &'a [&'b str]) -> Option<&'a [&'b str]> {
    (!references.is_empty()).then_some(references)
}

fn order_of(word: &str) -> Order {
    match word {
        "created-oldest" => Order::CreatedOldestFirst,
        "arrived-newest" => Order::ArrivedNewestFirst,
        "arrived-oldest" => Order::ArrivedOldestFirst,
        "used-newest" => Order::UsedNewestFirst,
        "used-oldest" => Order::UsedOldestFirst,
        "largest" => Order::LargestFirst,
        "smallest" => Order::SmallestFirst,
        _ => Order::CreatedNewestFirst,
    }
}

fn done(result: Result<(), Error>) -> Result<String, Error> {
    result.map(|()| "done".to_owned())
}

fn each<T>(records: Vec<T>, one: fn(&T) -> String) -> String {
    if records.is_empty() {
        return "none".to_owned();
    }
    records.iter().fold(String::new(), |mut text, record| {
        // Writing to a string cannot fail.
        let _ = write!(text, "[{}]", one(record));
        text
    })
}

fn handle(handle: &ImageHandle) -> String {
    let ImageHandle { reference, repository, tag, size_bytes, layer_count, .. } = handle;
    let instants = [handle.last_used_at, handle.created_at, handle.arrived_at].map(seconds);
    format!("{reference} {repository} {tag:?} {size_bytes:?} {layer_count} {instants:?}")
}

fn usage(usage: &ImageUsage) -> String {
    let ImageUsage { reference, sandboxes, snapshots, pinned, origin, lacks } = usage;
    format!("{reference} {sandboxes} {snapshots} {pinned} {origin:?} {lacks:?}")
}

fn cost(cost: &ImageCost) -> String {
    format!("{} {} {}", cost.reference, cost.unique_bytes, cost.shared_bytes)
}

fn history(history: &ImageHistory) -> String {
    let ImageHistory { reference, boot_count, arrivals, pull_millis, pull_bytes, .. } = history;
    let boots: Vec<_> = history.boots.iter().map(|&boot| seconds(Some(boot))).collect();
    let first = seconds(history.first_seen_at);
    format!("{reference} {first:?} {boots:?} {boot_count} {arrivals} {pull_millis:?} {pull_bytes:?}")
}

fn seconds(instant: Option<Timestamp>) -> Option<i64> {
    instant.map(Timestamp::seconds)
}

/// Returns an error without its sentences.
fn failed(error: &Error) -> String {
    match error {
        Error::ImageNotFound(reference) => format!("not found {reference:?}"),
        Error::ImageInUse(users) => format!("in use {users:?}"),
        Error::Unsupported(_) => "unsupported".to_owned(),
        Error::Denied(denial) => format!("denied {:?} {:?}", denial.right, denial.reference),
        Error::InvalidReference(invalid) => format!("invalid {:?}", invalid.text),
        Error::Other(_) => "other".to_owned(),
    }
}
