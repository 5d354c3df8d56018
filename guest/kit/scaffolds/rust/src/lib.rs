//! Removes what was not used for a time.

use larder_guest::{Age, Cache, Failure, Image, Policy, Request, Timestamp};
use serde::Deserialize;

/// The policy.
pub struct Forgotten;

/// What the operator configures.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// What was not used for more days than this is removed.
    max_age_days: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_age_days: 30 }
    }
}

impl Policy for Forgotten {
    const NAME: &'static str = "@NAME@";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Removes what was not used for a time.";
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");
    type Config = Config;

    fn evaluate(config: Config, request: Request, cache: &mut impl Cache) -> Result<(), Failure> {
        let limit = config.max_age_days;
        // The oldest first: a run with a goal ends as soon as that is met.
        for image in cache.images()?.iter().rev() {
            let reference = &image.handle.reference;
            if let Some(holder) = held_by(image) {
                cache.explain(reference, holder);
                continue;
            }
            let Some(touched) = image.handle.touched_at() else {
                cache.explain(reference, "neither a last use nor an arrival is recorded");
                continue;
            };
            let days = days_since(touched, request.now);
            if days > u64::from(limit) {
                cache.remove_because(reference, &format!("not used for {days}d, which is longer than {limit}d"))?;
            } else {
                cache.explain(reference, &format!("not used for {days}d, which is within {limit}d"));
            }
        }
        Ok(())
    }
}

larder_guest::export_policy!(Forgotten);

fn held_by(image: &Image) -> Option<&'static str> {
    if image.usage.sandboxes > 0 || image.usage.snapshots > 0 {
        return Some("in use");
    }
    image.usage.pinned.then_some("pinned by the operator")
}

/// Returns whole days: 0 for an instant in the future.
fn days_since(touched: Timestamp, now: Timestamp) -> u64 {
    touched.age(now).unwrap_or(Age::ZERO).as_duration().as_secs() / 86_400
}

#[cfg(test)]
mod tests {
    use larder_guest::testing::check_config_schema;

    use super::*;

    /// The schema is the one of `Config`. `LARDER_WRITE_CONFIG_SCHEMA=1 cargo test` writes it.
    #[test]
    fn config_schema() {
        check_config_schema::<Forgotten>("config.schema.json");
    }
}
