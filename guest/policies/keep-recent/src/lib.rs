//! Keeps the newest images of each repository and what was used of late, and removes the rest.

use std::cmp::Reverse;
use std::collections::HashMap;

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
            return Err(Failure::new(
                "`keep` is 0 and `used-within` is not set, which would remove every image that nothing uses: \
                 set `keep` to at least 1, or set `used-within`",
            ));
        }
        let images = newest_first(cache.images()?);
        let ranks = ranks(&images);
        // The oldest first: a run with a goal ends as soon as that is met.
        for (image, rank) in images.iter().zip(ranks).rev() {
            match decide(&config, request.now, image, rank) {
                Decision::Keep(reason) => _ = cache.explain(&image.handle.reference, &reason),
                Decision::Remove(reason) => _ = cache.remove_because(&image.handle.reference, &reason)?,
            }
        }
        Ok(())
    }
}

larder_guest::export_policy!(KeepRecent);

enum Decision {
    Keep(String),
    Remove(String),
}

/// Sorts images by arrival, the newest first; those of one instant by reference.
fn newest_first(mut images: Vec<Image>) -> Vec<Image> {
    images.sort_unstable_by(|a, b| {
        let key = |image: &Image| Reverse(image.handle.arrived_at);
        key(a).cmp(&key(b)).then_with(|| a.handle.reference.cmp(&b.handle.reference))
    });
    images
}

/// Returns the place of each image among those of its repository, counted from 1. An image without an arrival has none.
fn ranks(newest_first: &[Image]) -> Vec<Option<u32>> {
    let mut counts: HashMap<&str, u32> = HashMap::new();
    newest_first
        .iter()
        .map(|image| {
            image.handle.arrived_at?;
            let count = counts.entry(&image.handle.repository).or_default();
            *count += 1;
            Some(*count)
        })
        .collect()
}

/// Decides about the image that is the `rank`th newest of its repository.
fn decide(config: &Config, now: Timestamp, image: &Image, rank: Option<u32>) -> Decision {
    let repository = &image.handle.repository;
    if let Some(holder) = image.held_by() {
        return Decision::Keep(holder);
    }
    let Some(rank) = rank else {
        return Decision::Keep(format!(
            "its arrival is not recorded, so its place in {repository} is unknown"
        ));
    };
    if rank <= config.keep {
        return Decision::Keep(match config.keep {
            1 => format!("the newest of {repository}"),
            keep => format!("one of the {keep} newest of {repository}"),
        });
    }
    let place = format!("{} newest of {repository}", ordinal(rank));
    let Some(within) = config.used_within else {
        let are = if config.keep == 1 { "is" } else { "are" };
        return Decision::Remove(format!("{place}, of which {} {are} kept", config.keep));
    };
    let touched = image.handle.touched(now);
    // An instant in the future has no age: it counts as just now.
    let age = image.handle.touched_at().and_then(|touched| touched.age(now)).unwrap_or_default();
    if age <= within {
        Decision::Keep(format!("{place}, {touched}, which is within {within}"))
    } else {
        Decision::Remove(format!("{place}, {touched}, which is longer than {within}"))
    }
}

/// Returns `1st`, `2nd`, `3rd`, `4th`, …
fn ordinal(number: u32) -> String {
    let suffix = match (number % 10, number % 100) {
        (1, n) if n != 11 => "st",
        (2, n) if n != 12 => "nd",
        (3, n) if n != 13 => "rd",
        _ => "th",
    };
    format!("{number}{suffix}")
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
            assert_eq!(ordinal(number), text);
        }
    }

    /// The schema in `config.schema.json` is the one of the config.
    #[test]
    fn config_schema() {
        check_config_schema::<KeepRecent>("config.schema.json");
    }
}
