//! The page: one HTML file that loads nothing and runs nothing.
//!
//! - `chart.rs`: the file system over the last days; `treemap.rs`: the cache by repository; `jobs.rs`: jobs, runs and
//!   decisions; `svg.rs`: parts of drawings; `style.css`: how it looks, on wide and narrow screens, light and dark
//!
//! Its size is bounded, whatever the cache has. Texts of the cache are escaped by the templates, and lose what could reorder
//! them.

mod chart;
mod jobs;
mod svg;
mod treemap;

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use larder::job::{FileSystemSample, FileSystemStatus, JobRunRecord, Jobs, JobsStatus};
use larder::plan::RunDecisions;
use larder::{LocalBackend, MicrosandboxResult};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use self::chart::minute;
use super::Measured;
use crate::render::{self, plain};

/// The policy by which a browser loads and runs nothing but the style that is in the page.
pub(super) const CONTENT_SECURITY_POLICY: &str = concat!(
    "default-src 'none'; style-src 'sha256-",
    include_str!("style.css.sha256"),
    "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
);
/// The same in the page, for a page in a file. What a frame may do with it cannot be said there.
const IN_PAGE: &str = concat!(
    "default-src 'none'; style-src 'sha256-",
    include_str!("style.css.sha256"),
    "'; base-uri 'none'; form-action 'none'"
);
const STYLE: &str = include_str!("style.css");

/// The days of the file system that are shown.
const DAYS: i64 = 14;
/// The number of runs that are shown.
const RUNS: u32 = 20;
/// The number of decisions that are shown.
const DECISIONS: u32 = 200;

/// What the page shows.
pub(crate) struct Content {
    at: DateTime<Utc>,
    home: String,
    file_system: FileSystemStatus,
    samples: Vec<FileSystemSample>,
    /// Absent without a job file.
    jobs: Option<JobsStatus>,
    /// When each job runs, in a few words, by its name.
    when: HashMap<String, String>,
    runs: Vec<JobRunRecord>,
    decided: Option<Decided>,
    /// What the cache takes, or why that is not known.
    measured: Result<Arc<Measured>, String>,
}

/// What the last run decided.
struct Decided {
    /// The job, or absent if a person ran it.
    job: Option<String>,
    started_at: DateTime<Utc>,
    decisions: RunDecisions,
}

impl Content {
    /// Reads what the page shows, at the time of the measurement if there is one, and of the jobs.
    ///
    /// # Errors
    /// Fails if the home cannot be read.
    pub(crate) async fn read(
        local: &LocalBackend,
        jobs: Option<&Jobs>,
        measured: Result<Arc<Measured>, String>,
    ) -> MicrosandboxResult<Self> {
        let status = match jobs {
            Some(jobs) => Some(jobs.status().await?),
            None => None,
        };
        let measured_at = measured.as_ref().ok().map(|measured| measured.overview.at);
        let at = status.as_ref().map(|status| status.at).or(measured_at).unwrap_or_else(Utc::now);
        let file_system = match &status {
            Some(status) => status.file_system,
            None => FileSystemStatus::of(local.cache_dir())?,
        };
        let samples = local.file_system_samples(at - TimeDelta::days(DAYS)).await?;
        let runs = local.job_runs(None, RUNS).await?;
        let file = jobs.map(|jobs| &jobs.file().jobs[..]).unwrap_or_default();
        let when = file.iter().map(|job| (job.name.to_string(), render::job::when(&job.trigger)));
        Ok(Self {
            at,
            home: local.home().display().to_string(),
            file_system,
            samples: samples.into_iter().filter(|sample| sample.at <= at).collect(),
            when: when.collect(),
            decided: decided(local, &runs).await?,
            jobs: status,
            runs,
            measured,
        })
    }
}

/// Finds the last run that decided about images, of a job or of a person.
async fn decided(local: &LocalBackend, runs: &[JobRunRecord]) -> MicrosandboxResult<Option<Decided>> {
    let of_job = runs.iter().find(|run| !run.report.runs.is_empty());
    let last = local.history(1).await?.pop();
    let (job, started_at, numbers) = match (of_job, last) {
        (Some(run), Some(last)) if run.report.runs.contains(&last.id) => {
            (Some(run.job.to_string()), run.started_at, run.report.runs.clone())
        }
        (_, Some(last)) => (last.job, last.started_at, vec![last.id]),
        (_, None) => return Ok(None),
    };
    let decisions = local.decisions(&numbers, DECISIONS).await?;
    Ok(Some(Decided { job, started_at, decisions }))
}

/// Writes the page.
pub(crate) fn render(content: &Content) -> String {
    let home = plain(&content.home);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(IN_PAGE);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="referrer" content="no-referrer";
                title { "Larder: " (home) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "Larder" }
                    p class="soft" { code { (home) } ", " (minute(content.at)) " UTC, version " (env!("CARGO_PKG_VERSION")) }
                }
                main {
                    h2 { "File system" }
                    (chart::chart(&content.file_system, &content.samples, content.jobs.as_ref()))
                    h2 { "Jobs" }
                    (jobs::jobs(content))
                    h2 { "Cache" }
                    (cache(content))
                    h2 { "Runs of jobs" }
                    (jobs::runs(&content.runs, content.at))
                    h2 { "Decisions of the last run" }
                    (jobs::decisions(content.decided.as_ref(), content.at))
                }
            }
        }
    };
    page.into_string()
}

fn cache(content: &Content) -> Markup {
    match &content.measured {
        Ok(measured) => html! {
            (treemap::treemap(&measured.overview))
            p class="soft" {
                "Counted at " (minute(measured.overview.at)) " UTC. A prune would free "
                (render::size::size(measured.usage.reclaimable_bytes)) ", "
                (render::size::size(measured.usage.unowned_bytes)) " of it what nothing owns."
            }
        },
        Err(error) => html! { p class="critical" { "The cache could not be measured: " (plain(error)) } },
    }
}

/// Writes a table, which scrolls by itself where it is too wide.
fn table(caption: &str, columns: &[(&str, &str)], rows: Markup) -> Markup {
    html! {
        div class="scroll" tabindex="0" role="region" aria-label=(caption) {
            table {
                caption { (caption) }
                thead { tr { @for (name, class) in columns { th scope="col" class=(class) { (name) } } } }
                tbody { (rows) }
            }
        }
    }
}
