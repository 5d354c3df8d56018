//! The operator's budget, and the bytes that a run has to free.

use larder_guest::{DiskStatus, Failure, Policy as _, Share, Size};
use serde::Deserialize;

use crate::DiskBudget;

/// What the operator configures: at least one of the three, unless the run has a goal; of several, the strictest holds.
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

/// The bytes that a run has to free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) bytes: u64,
    /// What the bytes are, for people.
    pub(crate) name: &'static str,
}

impl Config {
    /// Returns the bytes that have to be freed until the goal is met and every budget holds.
    ///
    /// # Errors
    ///
    /// A failure if there is neither a budget nor a goal.
    pub(crate) fn need(&self, disk: DiskStatus, goal_bytes: Option<u64>) -> Result<Need, Failure> {
        let goal = goal_bytes.map(|bytes| Need { bytes, name: "to free" });
        let excess = self.excess(disk).map(|bytes| Need { bytes, name: "above the budget" });
        goal.into_iter().chain(excess).max_by_key(|need| need.bytes).ok_or_else(|| {
            Failure::of_config(
                DiskBudget::NAME,
                "no budget is set: set at least one of `max-bytes` (such as `50GiB`), `max-share` (such as `25%`) \
                 and `min-free` (such as `20GiB`)",
            )
        })
    }

    /// Returns the bytes by which the cache is above its budget, if there is one.
    fn excess(&self, disk: DiskStatus) -> Option<u64> {
        let shared = self.max_share.map(|share| share.of(Size::from_bytes(disk.capacity_bytes)));
        let most = [self.max_bytes, shared].into_iter().flatten().min();
        let above = most.map(|most| disk.cache_bytes.saturating_sub(most.bytes()));
        let missing = self.min_free.map(|free| free.bytes().saturating_sub(disk.available_bytes));
        above.max(missing)
    }
}

#[cfg(test)]
mod tests {
    use larder_guest::testing::check_config_schema;

    use super::*;

    /// Each budget alone says how many bytes are too many, and of several the strictest counts.
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
            assert_eq!(config.excess(disk), Some(excess), "{config:?}");
        }
    }

    /// Of a budget and a goal the larger one counts, and one of them is enough.
    #[test]
    fn goals() {
        let disk = DiskStatus { cache_bytes: 600, capacity_bytes: 1_000, available_bytes: 100 };
        let budget = Config { max_bytes: Some(Size::from_bytes(500)), ..Config::default() };
        let need = |config: &Config, goal| config.need(disk, goal).map(|need| (need.bytes, need.name));
        assert_eq!(need(&budget, None), Ok((100, "above the budget")));
        assert_eq!(need(&budget, Some(99)), Ok((100, "above the budget")));
        assert_eq!(need(&budget, Some(101)), Ok((101, "to free")));
        assert_eq!(need(&Config::default(), Some(1)), Ok((1, "to free")));
        assert!(need(&Config::default(), None).is_err());
    }

    /// The schema in `config.schema.json` is the one of the config.
    #[test]
    fn config_schema() {
        check_config_schema::<DiskBudget>("config.schema.json");
    }
}
