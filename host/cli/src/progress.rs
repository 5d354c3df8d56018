//! Images on their way into the cache or out of it: a bar for each layer and one for all of them on a terminal, one line a step
//! elsewhere, one JSON object an event for programs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use larder::ingest::{LayerOutcome, LayerStep, Progress, ProgressEvent};

use crate::console::Console;
use crate::render::size::size;
use crate::render::{count, plain, short_digest};

/// Shows what it is told. Bars are gone when it is dropped.
pub(crate) struct IngestProgress {
    console: Console,
    bars: Option<MultiProgress>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    layers: HashMap<String, Layer>,
    total: Option<ProgressBar>,
    converted: usize,
    cached: usize,
    bytes: u64,
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

    /// What was done in all that time, in one line.
    pub(crate) fn summary(&self, images: usize, time: Duration) -> String {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
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
        if let Some(before) = state.layers.insert(layer.to_owned(), Layer { bar, begun: Instant::now() })
            && let Some(bar) = before.bar
        {
            bar.finish_and_clear();
        }
    }

    fn done(&self, state: &mut State, layer: &str, outcome: LayerOutcome, bytes: u64) {
        let begun = state.layers.remove(layer);
        let text = match outcome {
            LayerOutcome::Cached => {
                state.cached += 1;
                "already there".to_owned()
            }
            _ => {
                state.converted += 1;
                state.bytes += bytes;
                let time = begun.as_ref().map(|layer| layer.begun.elapsed()).unwrap_or_default();
                format!("done in {}", rate(bytes, time))
            }
        };
        if let Some(bar) = begun.and_then(|layer| layer.bar) {
            bar.finish_with_message(text);
        } else if self.bars.is_none() {
            self.console.note(&format!("layer {}: {text}", short_digest(layer)));
        }
    }
}

impl Progress for IngestProgress {
    fn event(&self, event: ProgressEvent<'_>) {
        self.console.event(&event);
        let state = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            ProgressEvent::LayerStarted { layer, step, bytes } => self.started(state, layer, step, bytes),
            ProgressEvent::LayerAdvanced { layer, done, .. } => {
                if let Some(bar) = state.layers.get(layer).and_then(|layer| layer.bar.as_ref()) {
                    let before = bar.position();
                    bar.set_position(done);
                    if let Some(total) = &state.total {
                        total.inc(done.saturating_sub(before));
                    }
                }
            }
            ProgressEvent::LayerDone { layer, outcome, bytes } => self.done(state, layer, outcome, bytes),
            ProgressEvent::Retrying { what, wait_ms, why } => {
                let wait = Duration::from_millis(wait_ms).as_secs_f64();
                let text = format!("`{}` is tried again in {wait:.1} s: {}", plain(what), plain(why));
                match &self.bars {
                    Some(bars) => bars.suspend(|| self.console.note(&text)),
                    None => self.console.note(&text),
                }
            }
            // The library may learn to tell more.
            _ => {}
        }
    }
}

impl Drop for IngestProgress {
    fn drop(&mut self) {
        if let Some(bars) = &self.bars {
            // Without a terminal there is nothing left to clear.
            let _ = bars.clear();
        }
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

/// Such as `1.5 s (20.0 MiB/s)`.
fn rate(bytes: u64, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let per_second = if seconds > 0.0 { (bytes as f64 / seconds) as u64 } else { bytes };
    format!("{seconds:.1} s ({}/s)", size(per_second))
}
