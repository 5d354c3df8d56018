//! The operator's budget, and by how much the cache is above it.

use larder_guest::{DiskStatus, Failure, Share, Size};
use serde::Deserialize;

/// What the operator configures: at least one of the three; of several, the strictest holds.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// The cache takes at most this much on disk.
    max_bytes: Option<Size>,
    /// The cache takes at most this share of the file system that holds it.
    max_share: Option<Share>,
    /// At least this much of the file system stays free.
    min_free: Option<Size>,
}

impl Config {
    /// Refuses a config that gives no budget.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.max_bytes.is_none() && self.max_share.is_none() && self.min_free.is_none() {
            return Err(Failure::new(
                "no budget is set: set at least one of `max-bytes` (such as `50GiB`), `max-share` (such as `25%`) \
                 and `min-free` (such as `20GiB`)",
            ));
        }
        Ok(())
    }

    /// How many bytes have to go until every budget holds.
    pub(crate) fn excess(&self, disk: DiskStatus) -> u64 {
        let shared = self.max_share.map(|share| share.of(Size::from_bytes(disk.capacity_bytes)));
        let most = [self.max_bytes, shared].into_iter().flatten().min();
        let above = most.map_or(0, |most| disk.cache_bytes.saturating_sub(most.bytes()));
        let missing = self.min_free.map_or(0, |free| free.bytes().saturating_sub(disk.available_bytes));
        above.max(missing)
    }
}

#[cfg(test)]
mod tests {
    use larder_guest::testing::check_config_schema;

    use super::*;
    use crate::DiskBudget;

    /// Each budget alone says how much is too much, and of several the strictest.
    #[test]
    fn the_strictest_holds() {
        let disk = DiskStatus { cache_bytes: 600, capacity_bytes: 1_000, available_bytes: 100 };
        let size = |bytes| Some(Size::from_bytes(bytes));
        let share = |text: &str| text.parse().ok();
        let table = [
            (size(600), None, None, 0),
            (size(500), None, None, 100),
            (None, share("60%"), None, 0),
            (None, share("25%"), None, 350),
            (None, None, size(100), 0),
            (None, None, size(250), 150),
            (size(500), share("25%"), size(250), 350),
            (size(590), share("59%"), size(250), 150),
        ];
        for (max_bytes, max_share, min_free, excess) in table {
            let config = Config { max_bytes, max_share, min_free };
            assert_eq!(config.excess(disk), excess, "{config:?}");
        }
    }

    /// The schema in `config.schema.json` is the one of the config.
    #[test]
    fn config_schema() {
        check_config_schema::<DiskBudget>("config.schema.json");
    }
}
