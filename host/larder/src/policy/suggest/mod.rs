//! The smallest grant under which a policy decides as it does with every right.
//!
//! The policy runs once with every right, under the guard and the limits of the operator: what it decides then is what
//! it wants. That run records the rights, images and caps that the policy makes use of ([`Uses`]). A second run, over the
//! same state, confirms that the policy decides the same under the grant made of that record. So whatever is suggested
//! has been tried, and nothing depends on what this module believes about a policy.
//!
//! The first grant to be tried is the smallest that the record allows: the policy sees no image that it neither removes
//! nor inspects, and no environment variable. A policy that decides otherwise then is tried with what it was shown in
//! addition, step by step ([`Uses::grants`]).
//!
//! Two plans are the same if they remove the same images in the same way, and have the same reason for every image that
//! is in both. An image that a grant hides is kept, so hiding what is kept anyway changes nothing.
//!
//! The unit of the lists is the repository: a grant that names the tags of today is of no use tomorrow. No pattern
//! reaches into a repository in which the policy made no use of the right (`patterns.rs`), and the caps are what it
//! staged.

mod patterns;
mod replay;

use std::sync::Arc;

use self::patterns::cover;
use self::replay::Replay;
use crate::backend::LocalBackend;
use crate::error::MicrosandboxResult;
use crate::pattern::ReferencePattern;
use crate::plan::{Decision, Plan};
use crate::policy::engine::component::Policy;
use crate::policy::engine::local::open;
use crate::policy::engine::run::{Evaluation, Ready};
use crate::policy::engine::thread::on_own_thread;
use crate::policy::error::PolicyError;
use crate::policy::grant::Total;
use crate::policy::grant::{Grant, GrantDocument, everything};
use crate::policy::session::Session;
use crate::policy::session::answers::CallError;
use crate::policy::session::parameters::PolicyRun;
use crate::snapshot::CacheSnapshot;
use crate::units::ByteSize;

/// The smallest grant that was found for a policy. See [`Policy::suggest_grant`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GrantSuggestion {
    /// The grant, with the guard and the limits of the run.
    pub document: GrantDocument,
    /// The decisions of the policy under it. The plan has the images that the policy can see.
    pub evaluation: Evaluation,
    /// The decisions of the policy with every right. The plan has every image.
    pub unrestricted: Evaluation,
    /// Number of runs of the policy that it took: two, unless the policy decides by more than it removes and inspects.
    pub runs: u32,
}

impl Policy {
    /// Finds the smallest grant under which the policy decides over this state as it does with every right.
    ///
    /// Guard and limits of `run` hold throughout, for a preview the default ones; its `[grant]` is not looked at. The
    /// lists of the suggestion name repositories of which the policy makes use, `force` and `prune` are set if it makes
    /// use of them, and the caps are what it stages. The policy runs twice. It runs up to four times more if it decides
    /// otherwise without environment variables, or where it sees nothing but what it removes and inspects.
    ///
    /// The suggestion suits this state and this config: a policy may need more elsewhere. All runs have one thread of
    /// their own. Dropping the future ends the guest with the next tick of the clock.
    ///
    /// ```
    /// use larder::policy::{GrantSuggestion, Policy, PolicyError, PolicyRun};
    /// use larder::snapshot::MemoryCache;
    ///
    /// async fn review(policy: &Policy, cache: MemoryCache) -> Result<GrantSuggestion, PolicyError> {
    ///     policy.suggest_grant(Box::new(cache), &PolicyRun::new(chrono::Utc::now())).await
    /// }
    /// ```
    ///
    /// # Errors
    /// Those of [`evaluate`](Self::evaluate), if the run with every right ends without a plan or the state cannot be
    /// read.
    pub async fn suggest_grant(
        &self,
        source: Box<dyn CacheSnapshot>,
        run: &PolicyRun,
    ) -> Result<GrantSuggestion, PolicyError> {
        let (policy, run) = (self.clone(), run.clone());
        on_own_thread(move |cancellation| suggest(&policy.ready(&run, cancellation)?, source, &run)).await
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
        let (store, policy, run) = (Arc::clone(self.store()), policy.clone(), run.clone());
        on_own_thread(move |cancellation| {
            let ready = policy.ready(&run, cancellation)?;
            let (snapshot, guard) = open(&store)?;
            Ok(suggest(&ready, Box::new(snapshot), &run.with_guard(&guard))?)
        })
        .await
    }
}

/// Finds the smallest grant for a policy over a state.
fn suggest(
    ready: &Ready<'_>,
    source: Box<dyn CacheSnapshot>,
    run: &PolicyRun,
) -> Result<GrantSuggestion, PolicyError> {
    let mut source = Replay::new(source);
    let every_right = run.grant().cloned().unwrap_or_default().with_grant(Grant::every_right());
    let unrestricted_run = run.clone().with_grant(every_right.clone());
    let (unrestricted, uses) =
        ready.evaluate_and(Box::new(source.clone()), &unrestricted_run, |mut session| session.uses())?;
    let images = source.images().map_err(|error| PolicyError::Source(Box::new(error)))?;
    let images: Vec<String> = images.into_iter().map(|image| image.handle.reference).collect();
    let mut runs = 1;
    for grant in uses.grants(&unrestricted.plan, &images) {
        let document = every_right.clone().with_grant(grant);
        runs += 1;
        match ready.evaluate(Box::new(source.clone()), &run.clone().with_grant(document.clone())) {
            Ok(evaluation) if decides_the_same(&unrestricted.plan, &evaluation.plan) => {
                return Ok(GrantSuggestion { document, evaluation, unrestricted, runs });
            }
            // The cache, or this machine: no grant is to blame.
            Err(error @ (PolicyError::Source(_) | PolicyError::Host(_))) => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    // Nothing less is known to suffice.
    Ok(GrantSuggestion { document: every_right, evaluation: unrestricted.clone(), unrestricted, runs })
}

/// The rights, images and caps of which a run with every right made use. Images are references as they stand in the
/// index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Uses {
    /// Images that the policy was shown.
    shown: Vec<String>,
    /// Images whose config and layers it read.
    inspected: Vec<String>,
    /// Images that it staged for removal, or whose removal nothing but the guard or their users kept it from.
    asked: Vec<String>,
    /// True if it read environment variables.
    secrets: bool,
    /// True if it staged an image that is in use.
    force: bool,
    /// True if it pruned.
    prune: bool,
    /// The images that it staged, those that it took back too, and the bytes that they free together.
    staged: Total,
}

impl Session {
    /// Returns what the run has made use of.
    ///
    /// # Errors
    /// [`PolicyError::Source`] if the bytes that the staged images free cannot be read.
    pub(super) fn uses(&mut self) -> Result<Uses, PolicyError> {
        let staged = self.ever_staged();
        if !staged.is_empty()
            && let Err(CallError::Run(error)) = self.read_costs()
        {
            return Err(error);
        }
        let staged = Total { references: staged.len() as u64, bytes: self.bytes_of(staged.iter().copied()) };
        let those = |used: fn(&crate::policy::session::images::Image) -> bool| {
            let used = self.images.visible().filter(|(_, image)| used(image));
            used.map(|(_, image)| image.reference().to_owned()).collect()
        };
        Ok(Uses {
            shown: those(|image| image.is_shown),
            inspected: those(|image| image.is_inspected),
            asked: those(|image| image.is_asked_for),
            secrets: self.has_shown_secrets,
            force: self.staging.has_forced,
            prune: self.staging.has_pruned,
            staged,
        })
    }
}

impl Uses {
    /// Returns the grants to try, the smallest first, for a policy that decided on these images as this plan says.
    ///
    /// The policy sees and removes what goes, and sees and inspects what it inspected; with environment variables if it
    /// read any. Then it also sees what it was shown, and may remove what it asked for. Finally it has no caps, since it
    /// may have decided by what remains of them.
    fn grants(&self, plan: &Plan, images: &[String]) -> Vec<Grant> {
        let removed: Vec<String> = plan.removals().map(|entry| entry.reference.clone()).collect();
        let Total { references, bytes } = self.staged;
        let is_capped = references > 0;
        let smallest = Grant::default()
            .with_read(cover(images, &[&removed[..], &self.inspected].concat()))
            .with_inspect(cover(images, &self.inspected))
            .with_remove(cover(images, &removed))
            .with_force(self.force)
            .with_prune(self.prune)
            .with_max_removals(u32::try_from(references).ok().filter(|_| is_capped))
            .with_max_bytes(is_capped.then_some(ByteSize::bytes(bytes)));
        let shown = smallest.clone().with_read(self.seen(images)).with_remove(cover(images, &self.asked));
        let uncapped = shown.clone().with_max_removals(None).with_max_bytes(None);
        let secrets = self.secrets;
        let mut grants = vec![
            smallest.clone(),
            smallest.with_secrets(secrets),
            shown.clone(),
            shown.with_secrets(secrets),
            uncapped.with_secrets(secrets),
        ];
        grants.dedup();
        grants
    }

    /// Returns the patterns of the images that the policy was shown: one that matches everything if it saw them all.
    fn seen(&self, images: &[String]) -> Vec<ReferencePattern> {
        if self.shown.len() == images.len() { vec![everything()] } else { cover(images, &self.shown) }
    }
}

/// Returns whether a plan over fewer images decides as one over all of them: the same removals, and nothing else said of any
/// image that it has. Whether a removal may be forced only matters where it has to be, and there it would be missing.
fn decides_the_same(all: &Plan, fewer: &Plan) -> bool {
    let mut seen = fewer.entries.iter().peekable();
    let agree =
        all.entries.iter().all(|wanted| match seen.next_if(|entry| entry.reference == wanted.reference) {
            Some(entry) => {
                let what = |entry: &crate::plan::PlanEntry| (entry.decision, entry.bytes);
                what(entry) == what(wanted) && entry.reason == wanted.reason
            }
            None => wanted.decision == Decision::Keep,
        });
    agree && seen.next().is_none()
}
