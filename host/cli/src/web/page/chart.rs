//! The file system over the last days, and the bounds of jobs.

use chrono::{DateTime, TimeDelta, Utc};
use larder::job::{FileSystemSample, FileSystemStatus, JobsStatus, Quantity};
use maud::{Markup, html};

use super::svg::{CANVASES, Canvas, at};
use crate::render::size::size;

/// The number of points of a drawing. Of the states in between, the one with the most used bytes is drawn.
const POINTS: i64 = 200;
/// The room for the labels of the axes.
const LEFT: f64 = 66.0;
const BOTTOM: f64 = 22.0;
const TOP: f64 = 10.0;

/// A bound as used bytes.
struct Bound<'a> {
    job: &'a str,
    begin: u64,
    end: u64,
}

/// Shows the file system.
pub(super) fn chart(
    fs: &FileSystemStatus,
    samples: &[FileSystemSample],
    jobs: Option<&JobsStatus>,
) -> Markup {
    let bounds = bounds(fs, jobs);
    html! {
        p {
            (size(fs.used_bytes())) " of " (size(fs.size_bytes)) " are used, " (size(fs.available_bytes)) " are available."
            @if fs.inodes > 0 { " " (fs.inodes_free) " of " (fs.inodes) " inodes are free." }
        }
        @match (samples.first(), samples.last()) {
            (Some(first), Some(last)) if last.at > first.at => {
                figure {
                    @for canvas in CANVASES { (drawing(fs, samples, &bounds, canvas)) }
                    figcaption { "Used bytes of the file system of the cache, times in UTC. Where nobody looked there is nothing." }
                }
            }
            _ => p class="soft" { "How it was before is not known yet: jobs record it every ten minutes." }
        }
        @if !bounds.is_empty() {
            ul {
                @for bound in &bounds {
                    li {
                        "Job " code { (bound.job) } " begins above " span class="critical" { (size(bound.begin)) }
                        " used (line) and ends at " span class="ok" { (size(bound.end)) } " (dashes)."
                    }
                }
            }
        }
    }
}

/// Returns the bounds of jobs on bytes.
fn bounds<'a>(fs: &FileSystemStatus, jobs: Option<&'a JobsStatus>) -> Vec<Bound<'a>> {
    let jobs = jobs.map_or(&[][..], |jobs| &jobs.jobs);
    let bounds = jobs.iter().flat_map(|job| {
        let on_bytes = job.bounds.iter().filter(|bound| bound.quantity != Quantity::InodesFree);
        on_bytes.map(|bound| Bound {
            job: job.job.as_str(),
            begin: fs.size_bytes.saturating_sub(bound.start_free),
            end: fs.size_bytes.saturating_sub(bound.stop_free),
        })
    });
    bounds.collect()
}

/// Where times and bytes are in a drawing.
struct Scale {
    from: DateTime<Utc>,
    seconds: f64,
    bytes: f64,
    width: f64,
    height: f64,
}

impl Scale {
    fn x(&self, at: DateTime<Utc>) -> f64 {
        LEFT + (at - self.from).num_seconds() as f64 / self.seconds * (self.width - LEFT - 2.0)
    }

    fn y(&self, bytes: u64) -> f64 {
        self.bottom() - (bytes as f64 / self.bytes).min(1.0) * (self.bottom() - TOP)
    }

    fn bottom(&self) -> f64 {
        self.height - BOTTOM
    }
}

fn drawing(
    fs: &FileSystemStatus,
    samples: &[FileSystemSample],
    bounds: &[Bound<'_>],
    canvas: Canvas,
) -> Markup {
    let Canvas { class, width, height } = canvas;
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return html! {} };
    let size_bytes = samples.iter().map(|sample| sample.status.size_bytes).fold(fs.size_bytes, u64::max);
    let span = last.at - first.at;
    let scale = Scale {
        from: first.at,
        seconds: (span.num_seconds() as f64).max(1.0),
        bytes: (size_bytes as f64).max(1.0),
        width,
        height,
    };
    let name = format!("chart-{class}");
    let (left, right, bottom) = (at(LEFT), at(width), scale.bottom());
    html! {
        svg class=(class) viewBox=(format!("0 0 {width} {height}")) role="img" aria-labelledby=(name) {
            title id=(name) {
                "Used bytes from " (minute(first.at)) " to " (minute(last.at)) ": "
                (size(first.status.used_bytes())) " at first, " (size(last.status.used_bytes())) " at last"
            }
            @for quarter in 0..=4 {
                @let bytes = size_bytes / 4 * quarter;
                @let y = scale.y(bytes);
                line class="grid" x1=(left) x2=(right) y1=(at(y)) y2=(at(y)) {}
                text class="axis" x=(at(LEFT - 6.0)) y=(at(y + 4.0)) text-anchor="end" { (size(bytes)) }
            }
            @for stretch in stretches(samples, span) {
                path class="area" d=(outline(&stretch, &scale)) {}
            }
            @for bound in bounds {
                @for (class, bytes) in [("end", bound.end), ("begin", bound.begin)] {
                    @let y = at(scale.y(bytes));
                    path class=(class) d=(format!("M{left} {y}H{right}")) {}
                }
            }
            @for (time, anchor) in [(first.at, "start"), (first.at + span / 2, "middle"), (last.at, "end")] {
                text class="axis" x=(at(scale.x(time))) y=(at(bottom + 16.0)) text-anchor=(anchor) { (day(time, span)) }
            }
        }
    }
}

/// Divides states where nobody looked for long, and leaves out most of those that are close together.
fn stretches(samples: &[FileSystemSample], span: TimeDelta) -> Vec<Vec<FileSystemSample>> {
    let step = (span / POINTS as i32).max(TimeDelta::seconds(1));
    let gap = (step * 3).max(TimeDelta::hours(1));
    let mut stretches: Vec<Vec<FileSystemSample>> = Vec::new();
    let mut before: Option<FileSystemSample> = None;
    for sample in samples {
        if before.is_none_or(|before| sample.at - before.at > gap) {
            stretches.push(Vec::new());
        }
        before = Some(*sample);
        let Some(stretch) = stretches.last_mut() else { continue };
        match stretch.last_mut() {
            // The first and the last of a stretch are where it begins and ends.
            Some(last)
                if sample.at - last.at < step && sample.status.used_bytes() < last.status.used_bytes() => {}
            Some(last) if sample.at - last.at < step => last.status = sample.status,
            _ => stretch.push(*sample),
        }
    }
    if let (Some(stretch), Some(last)) = (stretches.last_mut(), samples.last())
        && stretch.last().is_some_and(|end| end.at < last.at)
    {
        stretch.push(*last);
    }
    stretches
}

/// Returns the outline of what is below a line.
fn outline(stretch: &[FileSystemSample], scale: &Scale) -> String {
    let (Some(first), Some(last)) = (stretch.first(), stretch.last()) else { return String::new() };
    let bottom = at(scale.bottom());
    let mut path = format!("M{} {bottom}", at(scale.x(first.at)));
    for sample in stretch {
        path += &format!("L{} {}", at(scale.x(sample.at)), at(scale.y(sample.status.used_bytes())));
    }
    // A state that is alone is as wide as a line.
    path + &format!("H{}V{bottom}Z", at(scale.x(last.at).max(scale.x(first.at) + 1.0)))
}

/// Writes an instant in UTC to the minute.
pub(super) fn minute(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M").to_string()
}

fn day(at: DateTime<Utc>, span: TimeDelta) -> String {
    at.format(if span > TimeDelta::days(3) { "%b %-d" } else { "%b %-d %H:%M" }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(minutes: i64, used: u64) -> FileSystemSample {
        let status =
            FileSystemStatus { size_bytes: 100, available_bytes: 100 - used, inodes: 0, inodes_free: 0 };
        FileSystemSample { at: DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes), status }
    }

    /// A drawing of two weeks has a bounded number of points, none of its peaks is left out, and it has a gap where nobody
    /// looked.
    #[test]
    fn points_are_bounded() {
        let samples: Vec<FileSystemSample> = (0..2016)
            .filter(|number| !(500..600).contains(number))
            .map(|number| sample(number * 10, if number == 777 { 99 } else { 40 }))
            .collect();
        let drawn = stretches(&samples, samples[samples.len() - 1].at - samples[0].at);
        assert_eq!(drawn.len(), 2);
        let points: Vec<&FileSystemSample> = drawn.iter().flatten().collect();
        assert!(points.len() <= POINTS as usize + 2, "{}", points.len());
        assert!(points.iter().any(|point| point.status.used_bytes() == 99));
        assert_eq!(points.last().map(|point| point.at), samples.last().map(|sample| sample.at));
    }
}
