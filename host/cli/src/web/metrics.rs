//! Metrics: what a home and its jobs add up to.
//!
//! No reference, digest or message is a label: the number of series depends on the number of jobs alone. Their vocabulary is
//! that of the kubelet's image collection: attempts, triggers and results.

use std::fmt::Display;
use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use larder::job::{Bucket, Histogram, JobCounters, Jobs, JobsStatus, Mode};
use larder::{LocalBackend, MicrosandboxResult};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::source::{Measured, Measurements, Reload, ReloadOutcome};
use crate::exit::Failure;
use crate::input;

/// A format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus's text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// Chooses the format by the header `Accept`.
    pub(super) fn accepted(accept: &str) -> Self {
        let takes = |range: &str| {
            let mut parts = range.split(';').map(str::trim);
            parts.next() == Some("application/openmetrics-text")
                && !parts.any(|part| part.trim_end_matches(['0', '.']) == "q=")
        };
        if accept.split(',').any(takes) { Self::OpenMetrics } else { Self::Text }
    }

    /// Returns the header `Content-Type`.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Text => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Figures of a home, read at one time.
#[derive(Debug)]
pub(super) struct Figures {
    jobs: JobsStatus,
    counters: Vec<JobCounters>,
    /// What the cache takes; absent if it could not be measured.
    measured: Option<Arc<Measured>>,
    /// Absent where no service reloads a file.
    reload: Option<Reload>,
}

impl Figures {
    /// Reads what is not measured.
    pub(super) async fn read(
        local: &LocalBackend,
        jobs: &Jobs,
        measured: Option<Arc<Measured>>,
        reload: Option<Reload>,
    ) -> MicrosandboxResult<Self> {
        Ok(Self { jobs: jobs.status().await?, counters: local.job_counters().await?, measured, reload })
    }

    /// Returns them as text.
    pub(super) fn in_format(self, format: Format) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::with_prefix("larder");
        registry.register_collector(Box::new(self));
        let mut written = String::new();
        match format {
            Format::Text => prometheus_text::encode(&mut written, &registry)?,
            Format::OpenMetrics => text::encode(&mut written, &registry)?,
        }
        Ok(written)
    }
}

/// A file with the metrics of a home in the text format 0.0.4, for the textfile collector of Prometheus's node exporter.
#[derive(Debug)]
pub(crate) struct Textfile {
    path: PathBuf,
    local: LocalBackend,
    measurements: Arc<Measurements>,
}

impl Textfile {
    /// Makes one at a path. Nothing is written yet.
    ///
    /// # Errors
    /// Fails if the collector would not read a file of this name, if something else than a file is there, or if the file
    /// that is there has no metrics of this program.
    pub(crate) fn new(path: PathBuf, local: LocalBackend) -> Result<Self, Failure> {
        if path.extension().is_none_or(|extension| extension != "prom") {
            let text =
                format!("`{}` does not end in `.prom`: the collector reads no other files", path.display());
            return Err(Failure::usage(text));
        }
        let is_other = match path.symlink_metadata() {
            Ok(metadata) if !metadata.is_file() => true,
            Ok(metadata) => {
                metadata.len() > 0 && !input::read(&path).is_ok_and(|text| text.contains("larder_build_info"))
            }
            Err(_) => false,
        };
        if is_other {
            let text =
                format!("`{}` is there, and has no metrics of larder: it is not replaced", path.display());
            return Err(Failure::usage(text));
        }
        Ok(Self { path, measurements: Measurements::new(local.clone()), local })
    }

    /// Writes the file completely, or not at all, and so that everybody can read it. A file that is there is replaced. The
    /// cache is measured with the first call, and with later ones if that was some minutes ago.
    pub(crate) async fn write(&self, jobs: &Jobs, reload: Option<Reload>) -> Result<(), Failure> {
        let measured = self.measurements.complete().await?;
        let figures = Figures::read(&self.local, jobs, Some(measured), reload).await?;
        let text = figures
            .in_format(Format::Text)
            .map_err(|error| Failure::failed("output", "could not write the metrics", error))?;
        self.replace(&text).map_err(|error| Failure::unwritable(&self.path, error))
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        // The collector reads files named `*.prom`: not this one, as long as it is not complete.
        let mut file = tempfile::Builder::new()
            .prefix(".larder-")
            .suffix(".tmp")
            .tempfile_in(directory.unwrap_or(Path::new(".")))?;
        file.write_all(text.as_bytes())?;
        // Whatever the umask is.
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
        file.persist(&self.path).map_err(|error| error.error).map(drop)
    }
}

/// The labels of a sample.
type Labels = Vec<(&'static str, String)>;

/// A value of a sample.
enum Value {
    Counter(u64),
    Gauge(f64),
    Histogram { histogram: Histogram, unit: f64 },
}

impl EncodeMetric for Value {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::Counter(value) => encoder.encode_counter::<NoLabelSet, _, f64>(value, None),
            Self::Gauge(value) => encoder.encode_gauge(value),
            Self::Histogram { histogram, unit } => {
                let limit = |at_most: Option<u64>| at_most.map_or(f64::INFINITY, |limit| limit as f64 / unit);
                let buckets: Vec<(f64, u64)> = histogram
                    .buckets
                    .iter()
                    .map(|&Bucket { at_most, count }| (limit(at_most), count))
                    .collect();
                let sum = histogram.sum as f64 / unit;
                encoder.encode_histogram::<NoLabelSet>(sum, histogram.count(), &buckets, None)
            }
        }
    }

    fn metric_type(&self) -> MetricType {
        match self {
            Self::Counter(_) => MetricType::Counter,
            Self::Gauge(_) => MetricType::Gauge,
            Self::Histogram { .. } => MetricType::Histogram,
        }
    }
}

/// Writes families of samples.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    /// Writes a family. One without samples is left out.
    fn family(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, Value)>,
    ) -> Result<(), std::fmt::Error> {
        let mut samples = samples.into_iter().peekable();
        let Some((_, first)) = samples.peek() else { return Ok(()) };
        let mut family = self.0.encode_descriptor(name, help, None, first.metric_type())?;
        for (labels, value) in samples {
            value.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// Writes a family of one number, if there is one.
    fn one(&mut self, name: &str, help: &str, value: Option<f64>) -> Result<(), std::fmt::Error> {
        self.family(name, help, value.map(|value| (Labels::new(), Value::Gauge(value))))
    }
}

impl Collector for Figures {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut families = Families(encoder);
        let version = ("version", env!("CARGO_PKG_VERSION").to_owned());
        families.family(
            "build_info",
            "The version of the program; the value is always 1",
            [(vec![version], Value::Gauge(1.0))],
        )?;
        self.encode_cache(&mut families)?;
        self.encode_counters(&mut families)?;
        self.encode_jobs(&mut families)?;
        let succeeded = self.reload.map(|reload| truth(reload.outcome == ReloadOutcome::Succeeded));
        families.one(
            "config_last_reload_successful",
            "Whether the last reading of the job file succeeded",
            succeeded,
        )?;
        families.one(
            "config_last_reload_success_timestamp_seconds",
            "When the job file was last read successfully",
            self.reload.map(|reload| seconds(reload.succeeded_at)),
        )
    }
}

impl Figures {
    fn encode_cache(&self, families: &mut Families<'_>) -> Result<(), std::fmt::Error> {
        let fs = &self.jobs.file_system;
        let mut file_system = |name, help, value: u64| families.one(name, help, Some(value as f64));
        file_system("filesystem_size_bytes", "Size of the file system of the cache", fs.size_bytes)?;
        file_system("filesystem_avail_bytes", "Available bytes of that file system", fs.available_bytes)?;
        file_system("filesystem_files_free", "Available inodes of that file system", fs.inodes_free)?;
        let Some(measured) = &self.measured else { return Ok(()) };
        let Measured { usage, overview } = &**measured;
        families.family(
            "images",
            "References in the cache; one may be used and pinned",
            [("unused", usage.unused), ("used", usage.in_use), ("pinned", usage.pinned)]
                .map(|(state, count)| (vec![("state", state.to_owned())], Value::Gauge(count as f64))),
        )?;
        families.family(
            "bytes",
            "Allocated bytes of the cache: live (of images), shared (of these, by several repositories), orphan (of no \
             image), reclaimable (by a prune)",
            [
                ("live", overview.image_bytes),
                ("shared", overview.shared_bytes),
                ("orphan", usage.unowned_bytes),
                ("reclaimable", usage.reclaimable_bytes),
            ]
            .map(|(kind, bytes)| (vec![("kind", kind.to_owned())], Value::Gauge(bytes as f64))),
        )?;
        families.one(
            "cache_measured_timestamp_seconds",
            "When the images and bytes of the cache were counted, which is not done for each scrape",
            Some(seconds(overview.at)),
        )
    }

    /// Writes what is counted for as long as the home exists.
    fn encode_counters(&self, families: &mut Families<'_>) -> Result<(), std::fmt::Error> {
        let attempts = self.counters.iter().flat_map(|counters| {
            counters.attempts.iter().map(|attempts| {
                let mut labels = job(&counters.job);
                labels.push(("trigger", attempts.cause.to_string()));
                labels.push(("result", attempts.outcome.to_string()));
                (labels, Value::Counter(attempts.count))
            })
        });
        families.family(
            "job_attempts",
            "Runs of a job, by what made them run and what became of them",
            attempts,
        )?;
        type Of = fn(&JobCounters) -> &Histogram;
        let histograms: [(&str, &str, Of, f64); 3] = [
            ("job_target_bytes", "Bytes that were to become free", |job| &job.target_bytes, 1.0),
            ("job_freed_bytes", "Bytes that became free", |job| &job.freed_bytes, 1.0),
            ("job_duration_seconds", "How long runs took", |job| &job.duration_ms, 1000.0),
        ];
        for (name, help, of, unit) in histograms {
            let samples = self.counters.iter().map(|counters| {
                (job(&counters.job), Value::Histogram { histogram: of(counters).clone(), unit })
            });
            families.family(name, help, samples)?;
        }
        let removed =
            self.counters.iter().map(|counters| (job(&counters.job), Value::Counter(counters.removed)));
        families.family("job_removed_images", "Images that a job removed", removed)?;
        let spared = self.counters.iter().flat_map(|counters| {
            counters.spared.iter().map(|spared| {
                let mut labels = job(&counters.job);
                labels.push(("cause", spared.cause.to_string()));
                (labels, Value::Counter(spared.count))
            })
        });
        families.family("job_spared_images", "Images that a job was to remove and left alone", spared)
    }

    /// Writes what the jobs of the file are up to.
    fn encode_jobs(&self, families: &mut Families<'_>) -> Result<(), std::fmt::Error> {
        let jobs = &self.jobs.jobs;
        let gauge = |name: &dyn Display, value| (job(name), Value::Gauge(value));
        families.family(
            "job_last_run_timestamp_seconds",
            "When the last run of a job began",
            jobs.iter().filter_map(|job| Some(gauge(&job.job, seconds(job.last.as_ref()?.started_at)))),
        )?;
        families.family(
            "job_last_success_timestamp_seconds",
            "When a run of a job last ended without a failure",
            jobs.iter().filter_map(|job| Some(gauge(&job.job, seconds(job.succeeded_at?)))),
        )?;
        families.family(
            "job_next_run_timestamp_seconds",
            "When a job with a schedule is due next",
            jobs.iter().filter_map(|job| Some(gauge(&job.job, seconds(job.next_at?)))),
        )?;
        families.family(
            "job_goal_unmet",
            "Whether the last run of a job did not reach its goal",
            jobs.iter().map(|job| {
                let is_unmet = job.last.as_ref().is_some_and(|last| last.report.unmet_bytes > 0);
                gauge(&job.job, truth(is_unmet))
            }),
        )?;
        let modes = jobs.iter().flat_map(|status| {
            [Mode::Apply, Mode::Observe].map(|mode| {
                let mut labels = job(&status.job);
                labels.push(("mode", mode.to_string()));
                (labels, Value::Gauge(truth(status.mode == mode)))
            })
        });
        families.family(
            "job_mode",
            "Whether a job removes or only plans: 1 for its mode, 0 for the other",
            modes,
        )
    }
}

fn job(name: &(impl Display + ?Sized)) -> Labels {
    vec![("job", name.to_string())]
}

fn truth(is: bool) -> f64 {
    f64::from(u8::from(is))
}

fn seconds(at: DateTime<Utc>) -> f64 {
    at.timestamp_millis() as f64 / 1000.0
}
