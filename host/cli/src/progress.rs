//! The progress of loads, pulls and saves. On a terminal: a bar for each layer and one for all of them. Elsewhere: one
//! line a step. For programs: one JSON object an event.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use larder::ingest::{LayerOutcome, LayerStep, Progress, ProgressEvent};

use crate::console::Console;
use crate::render::size::{rate, size};
use crate::render::{count, plain, short_digest};

/// The number of finished layers that keep their bars. With those in progress, they fit on a small terminal.
const KEPT_BARS: usize = 8;

/// A receiver of progress that shows it.
pub(crate) struct IngestProgress {
    console: Console,
    bars: Option<MultiProgress>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The layers in progress.
    layers: HashMap<String, Layer>,
    /// The bars of finished layers. A bar that is dropped is no longer drawn.
    kept: VecDeque<ProgressBar>,
    total: Option<ProgressBar>,
    converted: usize,
    cached: usize,
    bytes: u64,
    /// The references that are in the index.
    added: Vec<String>,
    closed: bool,
}

struct Layer {
    bar: Option<ProgressBar>,
    begun: Instant,
}

impl IngestProgress {
    pub(crate) fn new(console: &Console) -> Arc<Self> {
        let bars = console.can_draw().then(MultiProgress::new);
        Arc::new(Self { console: console.clone(), bars, state: Mutex::default() })
    }

    /// Returns a summary of the work in one line.
    pub(crate) fn summary(&self, images: usize, time: Duration) -> String {
        let state = self.state();
        let mut text = count(images, "image");
        if state.converted > 0 {
            let rate = rate(state.bytes, time);
            text += &format!(": {}, {} in {rate}", count(state.converted, "new layer"), size(state.bytes));
        }
        if state.cached > 0 {
            let word = if state.converted > 0 { ", " } else { ": " };
            text += &format!("{word}{} already there", count(state.cached, "layer"));
        }
        text
    }

    /// Returns the references that were added since the last time.
    pub(crate) fn take_added(&self) -> Vec<String> {
        std::mem::take(&mut self.state().added)
    }

    /// Removes all bars.
    pub(crate) fn clear(&self) {
        let State { layers, kept, total, .. } = &mut *self.state();
        let layers = layers.drain().filter_map(|(_, layer)| layer.bar);
        for bar in layers.chain(kept.drain(..)).chain(total.take()) {
            bar.finish_and_clear();
        }
    }

    /// Removes all bars and ignores later events, because cancelled work continues for a moment.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn started(&self, state: &mut State, layer: &str, step: LayerStep, bytes: u64) {
        let bar = self.bars.as_ref().map(|bars| {
            let total = state.total.get_or_insert_with(|| {
                let total = bars.add(ProgressBar::new(0));
                total.set_style(style(
                    "{prefix:>12} {bar:32} {binary_bytes}/{binary_total_bytes}, {binary_bytes_per_sec}",
                ));
                total.set_prefix("total");
                total
            });
            total.inc_length(bytes);
            let bar = bars.insert_before(total, ProgressBar::new(bytes));
            bar.set_style(style("{prefix:>12} {bar:32} {binary_bytes}/{binary_total_bytes} {msg}"));
            bar.set_prefix(short_digest(layer));
            bar.set_message(word(step));
            bar
        });
        if bar.is_none() {
            let step = word(step);
            self.console.note(&format!("layer {}: {step} {}", short_digest(layer), size(bytes)));
        }
        let layer = state.layers.insert(layer.to_owned(), Layer { bar, begun: Instant::now() });
        // That of the step before.
        if let Some(bar) = layer.and_then(|layer| layer.bar) {
            bar.finish_and_clear();
        }
    }

    fn advanced(state: &State, layer: &str, done: u64) {
        let Some(bar) = state.layers.get(layer).and_then(|layer| layer.bar.as_ref()) else { return };
        let before = bar.position();
        bar.set_position(done);
        if let Some(total) = &state.total {
            total.inc(done.saturating_sub(before));
        }
    }

    fn done(&self, state: &mut State, layer: &str, outcome: LayerOutcome, bytes: u64) {
        let begun = state.layers.remove(layer);
        let text = match outcome {
            LayerOutcome::Cached => {
                state.cached += 1;
                "already there".to_owned()
            }
            LayerOutcome::Converted | LayerOutcome::Saved => {
                state.converted += 1;
                state.bytes += bytes;
                let time = begun.as_ref().map(|layer| layer.begun.elapsed()).unwrap_or_default();
                format!("done in {}", rate(bytes, time))
            }
        };
        match begun.and_then(|layer| layer.bar) {
            Some(bar) => {
                bar.finish_with_message(text);
                state.kept.push_back(bar);
                if state.kept.len() > KEPT_BARS
                    && let Some(bar) = state.kept.pop_front()
                {
                    bar.finish_and_clear();
                }
                // It is drawn a few times a second only, and this may have been the last time.
                if let Some(total) = &state.total {
                    total.force_draw();
                }
            }
            None if self.bars.is_none() => {
                self.console.note(&format!("layer {}: {text}", short_digest(layer)));
            }
            None => {}
        }
    }

    fn retrying(&self, what: &str, wait: Duration, why: &str) {
        let wait = wait.as_secs_f64();
        self.note(&format!("`{}` is tried again in {wait:.1} s: {}", plain(what), plain(why)));
    }

    fn covered(&self, manifest: &str, links: u64, paths: &[String]) {
        let manifest = short_digest(manifest);
        let mut names: Vec<String> = paths.iter().map(|path| format!("`{}`", plain(path))).collect();
        let more = links.saturating_sub(names.len() as u64);
        if more > 0 {
            names.push(format!("{more} more"));
        }
        let names = names.join(", ");
        self.warn(&format!(
            "image {manifest}: a layer has a directory where a layer below has a link to one, which hides what the link \
             led to: {names}"
        ));
    }

    /// Prints a warning above the bars. Programs have the event.
    fn warn(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| self.console.warn(text)),
            None if self.console.is_json() => {}
            None => self.console.warn(text),
        }
    }

    /// Prints a line above the bars.
    fn note(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.suspend(|| self.console.note(text)),
            None => self.console.note(text),
        }
    }
}

impl Progress for IngestProgress {
    fn event(&self, event: ProgressEvent<'_>) {
        let state = &mut *self.state();
        if state.closed {
            return;
        }
        self.console.event(&event);
        match event {
            ProgressEvent::LayerStarted { layer, step, bytes } => self.started(state, layer, step, bytes),
            ProgressEvent::LayerAdvanced { layer, done, .. } => Self::advanced(state, layer, done),
            ProgressEvent::LayerDone { layer, outcome, bytes } => self.done(state, layer, outcome, bytes),
            ProgressEvent::Waiting { layer } => {
                self.note(&format!(
                    "layer {}: waiting for another process that makes it",
                    short_digest(layer)
                ));
            }
            ProgressEvent::ImageAdded { reference, .. } => state.added.push(reference.to_owned()),
            ProgressEvent::WaitingForIndex => {
                self.note("waiting for another program that changes the index");
            }
            ProgressEvent::ImageSkipped { image, why } => {
                self.warn(&format!("`{}` is left out: {}", plain(image), plain(why)));
            }
            ProgressEvent::EntriesSkipped { layer, count: entries, types } => {
                let (layer, entries) = (short_digest(layer), count(entries as usize, "entry"));
                let types = plain(types);
                self.warn(&format!(
                    "layer {layer}: {entries} left out, since no image has any of the types `{types}`"
                ));
            }
            ProgressEvent::LinksCovered { manifest_digest, count, paths } => {
                self.covered(manifest_digest, count, paths);
            }
            ProgressEvent::Retrying { what, wait_ms, why } => {
                self.retrying(what, Duration::from_millis(wait_ms), why);
            }
            // The library may learn to tell more.
            _ => {}
        }
    }
}

impl Drop for IngestProgress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn word(step: LayerStep) -> &'static str {
    match step {
        LayerStep::Download => "downloading",
        LayerStep::Convert => "converting",
        LayerStep::Save => "saving",
    }
}
