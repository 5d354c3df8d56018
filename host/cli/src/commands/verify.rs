use larder::LocalBackend;
use larder::backend::CacheOwner;
use larder::maintenance::{Finding, FindingKind, RepairOutcome, VerifyDepth, VerifyReport};

use super::apply::show_ask_apply;
use super::consent::Consent;
use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::render::size::size;
use crate::render::table::{Align, Table};
use crate::render::{self, NOTHING, count, plain, short_digest};

/// Compare the index with the files
///
/// Lists the files that are missing, that are damaged, and that nothing owns. Ends with status 1 if files are missing or
/// damaged: remove their images with `larder rm`, and pull them again. What other processes publish or delete meanwhile is
/// no damage.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder verify --deep
  larder verify --repair")]
pub(crate) struct Verify {
    /// Read every inode and every byte, and compare digests where they are known
    #[arg(long)]
    deep: bool,
    /// Delete the files that nothing owns, except those that a process holds or that are younger than an hour
    #[arg(long)]
    repair: bool,
    /// Record that no other home uses the cache, so that files that nothing in this home owns can be deleted
    ///
    /// Needed if the cache is outside of the home, was another home's, or is lost. Asks first if the cache is marked as that
    /// of other homes, or has none of the files of this one.
    #[arg(long)]
    claim_cache: bool,
    #[command(flatten)]
    consent: Consent,
}

impl Verify {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let local = context.open().await?;
        if self.claim_cache {
            self.claim(&local, context).await?;
        }
        let step = context.console.step("looking at every file");
        let depth = if self.deep { VerifyDepth::Deep } else { VerifyDepth::Shallow };
        let mut report = local.verify(depth).await?;
        drop(step);
        if self.repair {
            report = self.repair(&local, report, context).await?;
        }
        if context.console.is_json() {
            context.console.json(&report)?;
        } else {
            for problem in &report.problems {
                context.console.warn(&plain(problem));
            }
            for path in &report.skipped {
                let text =
                    format!("`{}` was skipped: somebody reads, publishes or deletes it", path.display());
                context.console.note(&text);
            }
            context.console.data(&table(&report, context))?;
        }
        let damaged = report.findings.iter().any(Finding::is_damage) || !report.problems.is_empty();
        Ok(if damaged { Status::Failed } else { Status::Done })
    }

    /// Makes the cache this home's, and asks first where it is marked as another's or is not there.
    async fn claim(&self, local: &LocalBackend, context: &Context) -> Result<(), Failure> {
        let owner = local.cache_owner().await?;
        let cache = local.cache_dir().display();
        let marked = match &owner {
            CacheOwner::Home(home) if *home == local.identity().await? => None,
            CacheOwner::Home(home) => Some(format!("marked as that of the home `{}`", plain(&home.path))),
            CacheOwner::Missing => {
                let text = format!(
                    "none of the files that the index names is in `{cache}`: a prune will forget all images"
                );
                self.consent.obtain_for(context, &text, "Begin it anew?")?;
                None
            }
            CacheOwner::Several => Some("marked as used by several homes".to_owned()),
            CacheOwner::Unreadable(error) => {
                Some(format!("marked, and its marker cannot be read: {}", plain(error)))
            }
            _ => None,
        };
        if let Some(marked) = marked {
            let text =
                format!("`{cache}` is {marked}: a prune of this home will delete what only others use");
            self.consent.obtain_for(context, &text, "Claim it?")?;
        }
        local.claim_cache(&owner).await?;
        context.console.note(&format!("`{cache}` is this home's cache now"));
        Ok(())
    }

    /// Deletes the orphans of a report, and records in it which were deleted.
    async fn repair(
        &self,
        local: &LocalBackend,
        mut report: VerifyReport,
        context: &Context,
    ) -> Result<VerifyReport, Failure> {
        let plan = local.plan_repair(&report).await?;
        render::plan::uncollected(&plan, &context.console);
        if !plan.is_empty() {
            report.problems.extend(show_ask_apply(local, &plan, None, self.consent, context).await?.problems);
        }
        Ok(local.note_repairs(report).await?)
    }
}

fn table(report: &VerifyReport, context: &Context) -> String {
    let columns = [
        ("FINDING", Align::Left),
        ("SIZE", Align::Right),
        ("FILE", Align::Left),
        ("NEEDED BY", Align::Left),
        ("WHAT", Align::Left),
    ];
    let mut table = Table::new(columns, context.console.width());
    for finding in &report.findings {
        let kind = match (finding.kind, finding.repair) {
            (_, Some(RepairOutcome::Removed)) => "removed",
            (FindingKind::Missing, _) => "missing",
            (FindingKind::NotAFile, _) => "not a file",
            (FindingKind::WrongSize, _) => "wrong size",
            (FindingKind::WrongMagic, _) => "wrong magic",
            (FindingKind::WrongLayers, _) => "wrong layers",
            (FindingKind::WrongDigest, _) => "wrong digest",
            (FindingKind::Unreadable, _) => "unreadable",
            (FindingKind::Orphan, _) => "orphan",
            (FindingKind::Foreign, _) => "foreign",
            _ => "damaged",
        };
        table.row([
            kind.to_owned(),
            size(finding.bytes),
            finding.path.display().to_string(),
            finding.owner.as_deref().map_or(NOTHING.to_owned(), owner),
            finding.detail.clone(),
        ]);
    }
    let damaged = report.findings.iter().filter(|finding| finding.is_damage()).count();
    let others = report.findings.len() - damaged;
    let checked = usize::try_from(report.checked).unwrap_or(usize::MAX);
    format!(
        "{}{} checked: {damaged} missing or damaged, {others} that nothing owns\n",
        table.render(),
        count(checked, "file")
    )
}

/// Shortens a digest to its first digits. A reference stays whole.
fn owner(owner: &str) -> String {
    if owner.starts_with("sha256:") { short_digest(owner) } else { owner.to_owned() }
}
