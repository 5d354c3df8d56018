//! What running policies takes: compiling them, and deciding over caches in memory of 1,000 to 100,000 images.
//! `cargo xtask bench` runs it; every line is the median of its runs.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use larder::policy::{GrantDocument, Limits, Policy, PolicyEngine, PolicyRun};
use larder::snapshot::{MemoryCache, MemoryImage};
use larder_tests::component;

fn main() {
    // `cargo test` runs benches as well, to see that they run; it is not the time to measure.
    let measures = std::env::args().any(|argument| argument == "--bench");
    let sizes: &[u32] = if measures { &[0, 1_000, 10_000, 100_000] } else { &[10] };
    println!("{:<28} {:>8} {:>12} {:>12} {:>10}", "what", "images", "time", "host calls", "memory");
    let engine = PolicyEngine::new().expect("an engine");
    for name in ["keep-recent", "max-age", "disk-budget"] {
        let bytes = std::fs::read(component(name)).expect("the component");
        let clock = Instant::now();
        let policy = Policy::load(&engine, &bytes).expect("a policy");
        println!("{:<28} {:>8} {:>12}", format!("compile {name}"), "", show(clock.elapsed()));
        policy.description().expect("a description");
        sizes.iter().for_each(|&size| evaluate(name, &policy, size));
    }
}

fn evaluate(name: &str, policy: &Policy, size: u32) {
    let config = if name == "disk-budget" { r#"{"max-bytes": "1MiB"}"# } else { "{}" };
    let grant = GrantDocument::from_toml("[grant]\nremove = [\"**\"]\n", "bench").expect("a grant");
    let run = PolicyRun::new(now())
        .with_config(serde_json::from_str(config).expect("a config"))
        .with_grant(grant.with_limits(Limits::default().with_time(Duration::from_secs(60))));
    let mut stats: Vec<_> = (0..if size > 10_000 { 3 } else { 9 })
        .map(|_| policy.evaluate(Box::new(cache(size)), &run).expect("a plan").stats)
        .collect();
    stats.sort_by_key(|stats| stats.duration);
    let middle = stats[stats.len() / 2];
    let memory = format!("{} KiB", middle.memory_bytes / 1024);
    let what = format!("evaluate {name}");
    println!("{what:<28} {size:>8} {:>12} {:>12} {memory:>10}", show(middle.duration), middle.host_calls);
}

/// Eight images to a repository, which share one of their two layers.
fn cache(size: u32) -> MemoryCache {
    let mut cache = MemoryCache::new((0..size).map(|number| {
        let app = number / 8;
        let mut image = MemoryImage::new(format!("docker.io/acme/app{app:05}:v{}", number % 8));
        image.created_at = Some(now() - TimeDelta::days(i64::from(number % 365)));
        image.last_used_at = Some(now() - TimeDelta::days(i64::from(number % 90)));
        image.layers = vec![format!("base{app}"), format!("own{number}")];
        image
    }));
    for number in 0..size {
        cache =
            cache.with_layer(format!("own{number}"), 4096).with_layer(format!("base{}", number / 8), 8192);
    }
    cache
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_795_000_000, 0).expect("a time")
}

fn show(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}
