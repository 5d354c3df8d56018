//! What running policies takes: compiling them, deciding over caches in memory of 1,000 to 100,000 images and over homes
//! of up to 10,000, and one call to the host. `cargo xtask bench` runs it; every line is the median of its runs.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use larder::policy::{GrantDocument, Limits, Policy, PolicyEngine, PolicyRun, RunStats};
use larder::snapshot::{MemoryCache, MemoryImage};
use larder_tests::{Home, ImageSpec, component, guest, populate, run};

fn main() {
    // `cargo test` runs benches as well, to see that they run; it is not the time to measure.
    let measures = std::env::args().any(|argument| argument == "--bench");
    let sizes: &[u32] = if measures { &[0, 1_000, 10_000, 100_000] } else { &[10] };
    let homes: &[u32] = if measures { &[1_000, 10_000] } else { &[10] };
    println!(
        "{:<34} {:>8} {:>12} {:>12} {:>12} {:>12} {:>10}",
        "what", "images", "whole run", "evaluate", "of it reads", "host calls", "memory"
    );
    let engine = PolicyEngine::new().expect("an engine");
    let mut policies = Vec::new();
    for name in ["keep-recent", "max-age", "disk-budget"] {
        let bytes = std::fs::read(component(name)).expect("the component");
        let clock = Instant::now();
        let policy = run(Policy::load(&engine, bytes)).expect("a policy");
        println!("{:<34} {:>8} {:>12}", format!("compile {name}"), "", show(clock.elapsed()));
        run(policy.description()).expect("a description");
        for &size in sizes {
            let cache = cache(size);
            let policy_run = policy_run(name);
            evaluate(&format!("evaluate {name}"), size, || {
                run(policy.evaluate(Box::new(cache.clone()), &policy_run)).expect("a plan").stats
            });
        }
        policies.push((name, policy));
    }
    for &size in homes {
        let home = home(size);
        for (name, policy) in &policies {
            let policy_run = policy_run(name);
            evaluate(&format!("evaluate {name} on a home"), size, || {
                run(async { home.open().await.plan_policy(policy, &policy_run).await.expect("a plan").stats })
            });
        }
    }
    calls(&engine, if measures { 300_000 } else { 10 });
}

fn policy_run(name: &str) -> PolicyRun {
    let config = if name == "disk-budget" { r#"{"max-bytes": "1MiB"}"# } else { "{}" };
    let grant = GrantDocument::from_toml("[grant]\nremove = [\"**\"]\n", "bench").expect("a grant");
    PolicyRun::new(now())
        .with_config(serde_json::from_str(config).expect("a config"))
        .with_grant(grant.with_limits(Limits::default().with_time(Duration::from_secs(60))))
}

fn evaluate(what: &str, size: u32, mut once: impl FnMut() -> RunStats) {
    let mut stats: Vec<_> = (0..if size > 10_000 { 3 } else { 9 }).map(|_| once()).collect();
    stats.sort_by_key(|stats| stats.duration);
    let middle = stats[stats.len() / 2];
    println!(
        "{what:<34} {size:>8} {:>12} {:>12} {:>12} {:>12} {:>10}",
        show(middle.duration),
        show(middle.evaluate),
        show(middle.reading),
        middle.host_calls,
        format!("{} KiB", middle.memory_bytes / 1024)
    );
}

/// What one call to the host takes: one without texts, and a `get`, each many times in a loop.
fn calls(engine: &PolicyEngine, number: u32) {
    let budget = "(call $budget (i32.const 8192))";
    let get = "(call $get (i32.const 4096) (i32.const 29) (i32.const 8192))";
    let mut before = Duration::ZERO;
    for (what, call) in [("nothing", ""), ("a call without texts", budget), ("get", get)] {
        let component = guest(&format!(
            r#"(import "larder:image/usage@0.2.0" "get-budget" (func $budget (param i32)))
            (import "larder:image/images@0.2.0" "get" (func $get (param i32 i32 i32)))
            (data (i32.const 4096) "docker.io/acme/app00003:v1234")
            (func $on_evaluate (local $left i32)
                (local.set $left (i32.const {number}))
                (loop $more
                    {call}
                    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
                    (br_if $more (local.get $left))))"#
        ));
        let policy = run(Policy::load(engine, component)).expect("a policy");
        let cache = MemoryCache::new([MemoryImage::new("docker.io/acme/app00003:v1234")]);
        let policy_run = policy_run("none");
        let mut times: Vec<_> = (0..9)
            .map(|_| {
                run(policy.evaluate(Box::new(cache.clone()), &policy_run)).expect("a plan").stats.evaluate
            })
            .collect();
        times.sort_unstable();
        let time = times[times.len() / 2];
        if !call.is_empty() {
            let each = time.saturating_sub(before).as_nanos() / u128::from(number);
            println!("{what:<34} {:>8} {:>12}", "", format!("{each} ns"));
        } else {
            before = time;
        }
    }
}

/// A home like [`cache`], without the files of its layers.
fn home(size: u32) -> Home {
    let home = Home::made();
    let images: Vec<ImageSpec> = (0..size)
        .map(|number| ImageSpec {
            reference: format!("docker.io/acme/app{:05}:v{}", number / 8, number % 8),
            manifest: number,
            layers: vec![1_000_000 + number / 8, number],
            age_days: i64::from(number % 365),
            unused_days: i64::from(number % 90),
            ..ImageSpec::default()
        })
        .collect();
    populate(&home.path(), now(), &images);
    home
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
