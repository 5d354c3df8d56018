//! Keeps the newest images of each repository and what was used of late, and removes the rest.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt::{self, Write as _};

use larder_guest::{Age, Cache, Failure, Image, Policy, Request, Timestamp};
use serde::Deserialize;

/// The policy.
pub struct KeepRecent;

/// What the operator configures.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// How many images of each repository are kept, those that arrived last.
    keep: u32,
    /// What was used or arrived within this time is kept, too.
    used_within: Option<Age>,
}

impl Default for Config {
    fn default() -> Self {
        Self { keep: 3, used_within: None }
    }
}

impl Policy for KeepRecent {
    const NAME: &'static str = "keep-recent";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str =
        "Keeps the newest images of each repository and what was used of late, and removes the rest.";
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");
    type Config = Config;

    fn evaluate(config: Config, request: Request, cache: &mut impl Cache) -> Result<(), Failure> {
        if config.keep == 0 && config.used_within.is_none() {
            return Err(Failure::of_config(
                Self::NAME,
                "`keep` is 0 and `used-within` is not set, which would remove every image that nothing uses: \
                 set `keep` to at least 1, or set `used-within`",
            ));
        }
        let images = cache.images()?;
        let images = newest_first(&images);
        let ranks = ranks(&images);
        // One text for all reasons: there are as many as images.
        let mut reason = String::new();
        // The oldest first: a run with a goal ends as soon as that is met.
        for (image, rank) in images.into_iter().zip(ranks).rev() {
            reason.clear();
            if decide(&config, request.now, image, rank, &mut reason) {
                cache.remove_because(&image.handle.reference, &reason)?;
            } else {
                cache.explain(&image.handle.reference, &reason);
            }
        }
        Ok(())
    }
}

larder_guest::export_policy!(KeepRecent);

/// Returns the images sorted by arrival, the newest first; those of one instant by reference.
fn newest_first(images: &[Image]) -> Vec<&Image> {
    /// Inlined, it would stand in the sorting network some thirty times.
    #[inline(never)]
    fn compare(a: &&Image, b: &&Image) -> Ordering {
        let by_arrival = b.handle.arrived_at.cmp(&a.handle.arrived_at);
        by_arrival.then_with(|| a.handle.reference.cmp(&b.handle.reference))
    }

    let mut sorted: Vec<&Image> = images.iter().collect();
    sorted.sort_unstable_by(compare);
    sorted
}

/// Returns the place of each image among those of its repository, counted from 1. An image without an arrival has none.
fn ranks<'a>(newest_first: &[&'a Image]) -> Vec<Option<u32>> {
    let mut counts: HashMap<&str, u32> = HashMap::new();
    let rank = |image: &&'a Image| {
        image.handle.arrived_at?;
        let count = counts.entry(&image.handle.repository).or_default();
        *count += 1;
        Some(*count)
    };
    newest_first.iter().map(rank).collect()
}

/// Tells whether the image is removed that is the `rank`th newest of its repository, and adds why.
fn decide(config: &Config, now: Timestamp, image: &Image, rank: Option<u32>, reason: &mut String) -> bool {
    let repository = &image.handle.repository;
    let keep = config.keep;
    if let Some(holder) = image.held_by() {
        return add(reason, false, format_args!("{holder}"));
    }
    let Some(rank) = rank else {
        let text = "its arrival is not recorded, so its place in";
        return add(reason, false, format_args!("{text} {repository} is unknown"));
    };
    if rank <= keep && keep == 1 {
        return add(reason, false, format_args!("the newest of {repository}"));
    }
    if rank <= keep {
        return add(reason, false, format_args!("one of the {keep} newest of {repository}"));
    }
    let suffix = ordinal_suffix(rank);
    let Some(within) = config.used_within else {
        let are = if keep == 1 { "is" } else { "are" };
        let place = format_args!("{rank}{suffix} newest of {repository}, of which {keep} {are} kept");
        return add(reason, true, place);
    };
    let touched = image.handle.touched(now);
    // An instant in the future has no age: it counts as just now.
    let age = image.handle.touched_at().and_then(|touched| touched.age(now)).unwrap_or_default();
    let outcome = if age <= within { "within" } else { "longer than" };
    let place = format_args!("{rank}{suffix} newest of {repository}, {touched}, which is {outcome} {within}");
    add(reason, age > within, place)
}

/// Adds a text to a reason, and returns a decision.
fn add(reason: &mut String, is_removed: bool, text: fmt::Arguments<'_>) -> bool {
    // Writing to a string cannot fail.
    let _ = reason.write_fmt(text);
    is_removed
}

/// Returns what follows a number in `1st`, `2nd`, `3rd`, `4th`, …
fn ordinal_suffix(number: u32) -> &'static str {
    match (number % 10, number % 100) {
        (1, n) if n != 11 => "st",
        (2, n) if n != 12 => "nd",
        (3, n) if n != 13 => "rd",
        _ => "th",
    }
}

#[cfg(test)]
mod tests {
    use larder_guest::testing::check_config_schema;

    use super::*;

    /// Ordinals are written as people write them, those between 11 and 13 too.
    #[test]
    fn ordinals() {
        let table = [
            (1, "1st"),
            (2, "2nd"),
            (3, "3rd"),
            (4, "4th"),
            (11, "11th"),
            (12, "12th"),
            (113, "113th"),
            (121, "121st"),
        ];
        for (number, text) in table {
            assert_eq!(format!("{number}{}", ordinal_suffix(number)), text);
        }
    }

    /// The schema in `config.schema.json` is the one of the config.
    #[test]
    fn config_schema() {
        check_config_schema::<KeepRecent>("config.schema.json");
    }
}
