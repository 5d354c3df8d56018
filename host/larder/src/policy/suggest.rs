//! The smallest grant under which a policy decides as it does with every right.
//!
//! The policy runs once with every right, under the guard and the limits of the operator: what it decides then is
//! what it wants. Rights are then taken away one after the other, and after each the policy runs again over the same
//! state. A right that is not missed stays away. So whatever is suggested has been tried, and nothing depends on what
//! this module believes about a policy.
//!
//! Two plans are the same where they remove the same images in the same way, and give every image that both show the
//! same reason. An image that a grant hides is kept, so hiding what is kept anyway changes nothing.
//!
//! The unit of the lists is the repository: a grant that names the tags of today is of no use tomorrow. No pattern
//! reaches into a repository in which the policy did not need the right (`patterns.rs`), and the caps say how much of
//! them it may take.

mod patterns;
mod replay;

use self::patterns::cover;
use self::replay::Replay;
use super::component::Policy;
use super::error::PolicyError;
use super::grant::{Grant, GrantDocument};
use super::run::{Evaluation, PolicyRun};
use super::session::Session;
use crate::backend::LocalBackend;
use crate::error::MicrosandboxResult;
use crate::pattern::ReferencePattern;
use crate::plan::{Decision, Plan};
use crate::snapshot::CacheSnapshot;
use crate::units::ByteSize;

/// How often a policy is run at most to find out which repositories it has to see.
const RUNS_FOR_READ: u32 = 64;

/// The smallest grant that was found for a policy. See [`Policy::suggest_grant`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GrantSuggestion {
    /// The grant, with the guard and the limits of the run.
    pub document: GrantDocument,
    /// What the policy decides under it. Its plan has the images that it can see.
    pub evaluation: Evaluation,
    /// What the policy decides with every right. Its plan has every image.
    pub unrestricted: Evaluation,
    /// How often the policy ran to find out.
    pub runs: u32,
}

/// What of its rights a run made use of, by references as they stand in the index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Needs {
    /// Images whose config and layers it read.
    inspected: Vec<String>,
    /// Images whose removal it asked for, and that only a guard or their users kept, or nothing.
    asked: Vec<String>,
}

impl Session {
    /// What the run has made use of so far.
    pub(super) fn needs(&self) -> Needs {
        let those = |used: fn(&super::images::Image) -> bool| {
            let used = self.images.visible().filter(|(_, image)| used(image));
            used.map(|(_, image)| image.reference().to_owned()).collect()
        };
        Needs { inspected: those(|image| image.is_inspected), asked: those(|image| image.is_asked_for) }
    }
}

impl Policy {
    /// Finds the smallest grant under which the policy decides over this state as it does with every right.
    ///
    /// Guard and limits of `run` hold throughout, for a preview the default ones; its `[grant]` is not looked at. The lists of the suggestion name
    /// repositories, `secrets`, `force` and `prune` are there where the decisions change without them, and the caps
    /// are what was used. The policy runs about ten times, and at most 64 times more where it has to see images of
    /// repositories of which it removes nothing.
    ///
    /// The suggestion suits this state and this config: a policy may need more elsewhere.
    ///
    /// ```
    /// use larder::policy::{GrantSuggestion, Policy, PolicyError, PolicyRun};
    /// use larder::snapshot::MemoryCache;
    ///
    /// fn review(policy: &Policy, cache: MemoryCache) -> Result<GrantSuggestion, PolicyError> {
    ///     policy.suggest_grant(Box::new(cache), &PolicyRun::new(chrono::Utc::now()))
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate), where the run with every right ends without a plan, or where the state cannot
    /// be read.
    pub fn suggest_grant(
        &self,
        source: Box<dyn CacheSnapshot>,
        run: &PolicyRun,
    ) -> Result<GrantSuggestion, PolicyError> {
        let mut search = Search::begin(self, Replay::new(source), run)?;
        search.drop_switches()?;
        search.narrow_inspect()?;
        search.narrow_read()?;
        search.narrow_remove()?;
        search.cap()?;
        let Search { best, evaluation, unrestricted, runs, .. } = search;
        Ok(GrantSuggestion { document: best, evaluation, unrestricted, runs })
    }
}

impl LocalBackend {
    /// Finds the smallest grant under which the policy decides over this home as it does with every right, as
    /// [`Policy::suggest_grant`] does. Writes nothing.
    ///
    /// # Errors
    /// [`MicrosandboxError::Policy`](crate::MicrosandboxError::Policy) where the run with every right ended without a
    /// plan, or where the home cannot be read.
    pub async fn suggest_grant(
        &self,
        policy: &Policy,
        run: &PolicyRun,
    ) -> MicrosandboxResult<GrantSuggestion> {
        let source = self.snapshot().await?;
        let (policy, run) = (policy.clone(), run.clone().with_guard(&self.guard().await?));
        crate::catalog::blocking("try grants", move || Ok(policy.suggest_grant(source, &run)?)).await
    }
}

/// A grant that is known to suffice, on its way to a smaller one.
struct Search<'a> {
    policy: &'a Policy,
    run: &'a PolicyRun,
    source: Replay,
    /// Every image of the state.
    images: Vec<String>,
    unrestricted: Evaluation,
    best: GrantDocument,
    /// Under `best`.
    evaluation: Evaluation,
    runs: u32,
}

impl<'a> Search<'a> {
    fn begin(policy: &'a Policy, mut source: Replay, run: &'a PolicyRun) -> Result<Self, PolicyError> {
        let best = run.grant().cloned().unwrap_or_default().with_grant(Grant::every_right());
        let unrestricted =
            policy.evaluate(Box::new(source.clone()), &run.clone().with_grant(best.clone()))?;
        let images = source.images().map_err(|error| PolicyError::Source(Box::new(error)))?;
        let images = images.into_iter().map(|image| image.handle.reference).collect();
        let evaluation = unrestricted.clone();
        Ok(Self { policy, run, source, images, unrestricted, best, evaluation, runs: 1 })
    }

    /// Takes this grant where the policy decides the same under it, and says whether it does.
    fn try_grant(&mut self, grant: Grant) -> Result<bool, PolicyError> {
        if grant == self.best.grant {
            return Ok(true);
        }
        let document = self.best.clone().with_grant(grant);
        let run = self.run.clone().with_grant(document.clone());
        self.runs += 1;
        match self.policy.evaluate(Box::new(self.source.clone()), &run) {
            Ok(evaluation) if decides_the_same(&self.unrestricted.plan, &evaluation.plan) => {
                (self.best, self.evaluation) = (document, evaluation);
                Ok(true)
            }
            // The cache, or this machine: no grant is to blame.
            Err(error @ (PolicyError::Source(_) | PolicyError::Host(_))) => Err(error),
            Ok(_) | Err(_) => Ok(false),
        }
    }

    fn grant(&self) -> Grant {
        self.best.grant.clone()
    }

    fn drop_switches(&mut self) -> Result<(), PolicyError> {
        self.try_grant(self.grant().with_secrets(false))?;
        self.try_grant(self.grant().with_force(false))?;
        self.try_grant(self.grant().with_prune(false))?;
        Ok(())
    }

    fn narrow_inspect(&mut self) -> Result<(), PolicyError> {
        if self.try_grant(self.grant().with_inspect(Vec::new()))? {
            return Ok(());
        }
        let inspected = self.cover(&self.evaluation.needs.inspected);
        self.try_grant(self.grant().with_inspect(inspected))?;
        Ok(())
    }

    /// What it removes and inspects; or else as few of the other repositories besides as can be found. A policy that
    /// misses whichever of them it does not see sees everything.
    fn narrow_read(&mut self) -> Result<(), PolicyError> {
        let mut seen = self.removed();
        if !self.best.grant.inspect.is_empty() {
            seen.extend(self.evaluation.needs.inspected.iter().cloned());
        }
        if self.try_grant(self.grant().with_read(self.cover(&seen)))? {
            return Ok(());
        }
        let mut others = patterns::repositories(&self.images, &seen);
        let last = self.runs + RUNS_FOR_READ;
        let mut chunk = others.len().div_ceil(2);
        while chunk > 0 {
            let mut start = 0;
            while start < others.len() && self.runs < last {
                let mut fewer = others.clone();
                fewer.drain(start..others.len().min(start + chunk));
                let shown: Vec<String> = fewer.iter().flatten().chain(&seen).cloned().collect();
                if self.try_grant(self.grant().with_read(self.cover(&shown)))? {
                    others = fewer;
                } else {
                    start += chunk;
                }
            }
            chunk /= 2;
        }
        Ok(())
    }

    /// What it removes; or else what it asks to remove besides, where it says of an image why that stays.
    fn narrow_remove(&mut self) -> Result<(), PolicyError> {
        if self.try_grant(self.grant().with_remove(self.cover(&self.removed())))? {
            return Ok(());
        }
        let asked = self.cover(&[self.removed(), self.evaluation.needs.asked.clone()].concat());
        self.try_grant(self.grant().with_remove(asked))?;
        Ok(())
    }

    fn cap(&mut self) -> Result<(), PolicyError> {
        let plan = &self.evaluation.plan;
        let removals = u32::try_from(plan.removals().count()).ok().filter(|&removals| removals > 0);
        let bytes = removals.map(|_| ByteSize::bytes(plan.bytes));
        self.try_grant(self.grant().with_max_removals(removals).with_max_bytes(bytes))?;
        Ok(())
    }

    fn removed(&self) -> Vec<String> {
        self.unrestricted.plan.removals().map(|entry| entry.reference.clone()).collect()
    }

    fn cover(&self, needed: &[String]) -> Vec<ReferencePattern> {
        cover(&self.images, needed)
    }
}

/// Whether a plan over fewer images decides as one over all of them: the same removals, and nothing else said of any
/// image that it has. Whether a removal may be forced only matters where it has to be, and there it would be missing.
fn decides_the_same(all: &Plan, fewer: &Plan) -> bool {
    let mut seen = fewer.entries.iter().peekable();
    let agree =
        all.entries.iter().all(|wanted| match seen.next_if(|entry| entry.reference == wanted.reference) {
            Some(entry) => {
                let what = |entry: &super::PlanEntry| (entry.decision, entry.bytes);
                what(entry) == what(wanted) && entry.reason == wanted.reason
            }
            None => wanted.decision == Decision::Keep,
        });
    agree && seen.next().is_none()
}
