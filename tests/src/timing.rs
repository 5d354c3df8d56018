//! Measuring the time of work, for benches.

use std::time::{Duration, Instant};

/// Returns the median of some times, of which there is at least one.
pub fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Returns the median of the times that some work takes.
pub fn median(runs: usize, mut work: impl FnMut()) -> Duration {
    let time = |work: &mut dyn FnMut()| {
        let clock = Instant::now();
        work();
        clock.elapsed()
    };
    middle((0..runs).map(|_| time(&mut work)).collect())
}

/// Returns the median of the times that some asynchronous work takes.
pub async fn median_of(runs: usize, mut work: impl AsyncFnMut()) -> Duration {
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let clock = Instant::now();
        work().await;
        times.push(clock.elapsed());
    }
    middle(times)
}
