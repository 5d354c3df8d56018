//! The parameters of a run.

use chrono::{DateTime, Utc};

use crate::policy::grant::{GrantDocument, Guard};
use crate::units::ByteSize;

/// The parameters of a run.
///
/// A run has a grant, or it is a preview. A preview shows what the policy would remove if everything was granted: the policy has every
/// right except `force`, and the guards of home and run, the default limits and pins hold. No [`Plan`](crate::plan::Plan) of a preview can be
/// applied, since nobody allowed any of it.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyRun {
    config: serde_json::Value,
    /// Absent for a preview.
    grant: Option<GrantDocument>,
    goal: Option<ByteSize>,
    /// The guard that holds in addition to the grant's own.
    guard: Guard,
    now: DateTime<Utc>,
}

impl PolicyRun {
    /// Returns a run at this instant, without config and with the grant that changes nothing.
    pub fn new(now: DateTime<Utc>) -> Self {
        Self::preview(now).with_grant(GrantDocument::default())
    }

    /// Returns a preview at this instant, without config: see [`PolicyRun`].
    pub fn preview(now: DateTime<Utc>) -> Self {
        let config = serde_json::Value::Object(serde_json::Map::new());
        Self { config, grant: None, goal: None, guard: Guard::default(), now }
    }

    /// Returns the same run with this config, which has to be a JSON object. Whether it suits the policy, the policy says.
    #[must_use]
    pub fn with_config(mut self, config: serde_json::Value) -> Self {
        self.config = config;
        self
    }

    /// Returns the same run under this grant, and so no preview.
    #[must_use]
    pub fn with_grant(mut self, grant: GrantDocument) -> Self {
        self.grant = Some(grant);
        self
    }

    /// Returns the same run with a goal: so many allocated bytes are to be freed. The plan removes the first of what the policy
    /// stages that free so much together, and keeps the rest.
    #[must_use]
    pub fn with_goal(mut self, goal: ByteSize) -> Self {
        self.goal = Some(goal);
        self
    }

    /// Returns the same run, with what this guard keeps, in addition to what was kept so far. That of a home is added by
    /// [`LocalBackend::plan_policy`](crate::LocalBackend::plan_policy).
    #[must_use]
    pub fn with_guard(mut self, guard: &Guard) -> Self {
        self.guard = self.guard.and(guard);
        self
    }

    /// Returns the rights, limits and guard of the run: the grant, or what a preview may, with everything that stays.
    pub(crate) fn rights(&self) -> GrantDocument {
        let mut rights = self.grant.clone().unwrap_or_else(GrantDocument::preview);
        rights.guard = rights.guard.and(&self.guard);
        rights
    }

    /// Returns the config.
    pub fn config(&self) -> &serde_json::Value {
        &self.config
    }

    /// Returns the grant; absent for a preview.
    pub fn grant(&self) -> Option<&GrantDocument> {
        self.grant.as_ref()
    }

    /// Returns the goal.
    pub fn goal(&self) -> Option<ByteSize> {
        self.goal
    }

    /// Returns the instant that counts as now.
    pub fn now(&self) -> DateTime<Utc> {
        self.now
    }
}
