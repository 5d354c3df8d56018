//! Removes images that were not used for a time.

use std::cmp::Ordering;

use larder_guest::{Age, Cache, Failure, Image, Origin, Policy, Request, Timestamp};
use serde::Deserialize;

/// The policy.
pub struct MaxAge;

/// What the operator configures.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// What was not used for longer than this is removed. An arrival in the cache counts as a use.
    max_age: Age,
    /// The same for images loaded from an archive, which may be lost for good: at least `max-age`, and three times
    /// as long where it is not set.
    archive_max_age: Option<Age>,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_age: Age::from_days(30), archive_max_age: None }
    }
}

/// The factor by which an image from an archive waits longer than others, unless the operator sets a time.
const ARCHIVE_FACTOR: u32 = 3;

impl Policy for MaxAge {
    const NAME: &'static str = "max-age";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str =
        "Removes images that were not used for a time, those loaded from an archive only after a longer one.";
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");
    type Config = Config;

    fn evaluate(config: Config, request: Request, cache: &mut impl Cache) -> Result<(), Failure> {
        let now = request.now;
        let archive_max_age = archive_max_age(&config)?;
        let images = cache.images()?;
        for image in longest_unused_first(&images) {
            let (limit, source) = match image.usage.origin {
                Origin::Archive => (archive_max_age, "loaded from an archive and "),
                Origin::Registry | Origin::Unknown => (config.max_age, ""),
            };
            let reference = &image.handle.reference;
            let touched = image.handle.touched(now);
            let reason = match Verdict::of(image, now, limit) {
                Verdict::Held(holder) => holder,
                Verdict::Undated => format!("{touched}, so its age is unknown"),
                Verdict::Young => format!("{source}{touched}, which is within {limit}"),
                Verdict::Old => {
                    let reason = format!("{source}{touched}, which is longer than {limit}");
                    cache.remove_because(reference, &reason)?;
                    continue;
                }
            };
            cache.explain(reference, &reason);
        }
        Ok(())
    }
}

/// Returns the images sorted by their last use or arrival, the oldest first: a run with a goal ends as soon as that is
/// met. Those of one instant are sorted by reference.
fn longest_unused_first(images: &[Image]) -> Vec<&Image> {
    /// Inlined, it would stand in the sorting network some thirty times.
    #[inline(never)]
    fn compare(a: &(Option<Timestamp>, &Image), b: &(Option<Timestamp>, &Image)) -> Ordering {
        a.0.cmp(&b.0).then_with(|| a.1.handle.reference.cmp(&b.1.handle.reference))
    }

    let mut sorted: Vec<_> = images.iter().map(|image| (image.handle.touched_at(), image)).collect();
    sorted.sort_unstable_by(compare);
    sorted.into_iter().map(|(_, image)| image).collect()
}

larder_guest::export_policy!(MaxAge);

/// Returns the time after which images from an archive are removed.
///
/// # Errors
///
/// A failure if the two times of the config contradict each other.
fn archive_max_age(config: &Config) -> Result<Age, Failure> {
    let max_age = config.max_age;
    if max_age == Age::ZERO {
        return Err(Failure::of_config(
            MaxAge::NAME,
            "`max-age` is 0s, which would remove every image that nothing uses: set it to a time such as `30d`",
        ));
    }
    match config.archive_max_age {
        Some(archive) if archive < max_age => Err(Failure::of_config(
            MaxAge::NAME,
            format_args!(
                "`archive-max-age` is {archive} and `max-age` is {max_age}: an image from an archive may be lost for \
                 good, so set `archive-max-age` to at least {max_age}"
            ),
        )),
        Some(archive) => Ok(archive),
        None => max_age.checked_mul(ARCHIVE_FACTOR).ok_or_else(|| {
            let sentence = format_args!("`max-age` is {max_age}, which is too long: set a shorter time");
            Failure::of_config(MaxAge::NAME, sentence)
        }),
    }
}

enum Verdict {
    Held(String),
    Undated,
    Young,
    Old,
}

impl Verdict {
    fn of(image: &Image, now: Timestamp, limit: Age) -> Self {
        if let Some(holder) = image.held_by() {
            return Self::Held(holder);
        }
        match image.handle.touched_at().map(|touched| touched.age(now)) {
            None => Self::Undated,
            // An instant in the future has no age: clocks differ, and just now is the safe reading.
            Some(Some(age)) if age > limit => Self::Old,
            Some(_) => Self::Young,
        }
    }
}

#[cfg(test)]
mod tests {
    use larder_guest::testing::check_config_schema;

    use super::*;

    /// The schema in `config.schema.json` is the one of the config.
    #[test]
    fn config_schema() {
        check_config_schema::<MaxAge>("config.schema.json");
    }
}
