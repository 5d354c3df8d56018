//! What the language of a policy costs: `keep-recent` in each, as one Markdown table on standard output, every figure
//! the median of its runs. `cargo xtask bench languages` runs it and writes the table into `docs/languages.md`.

use std::path::Path;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use larder::policy::{CodeOrigin, GrantDocument, Limits, Policy, PolicyEngine, PolicyRun};
use larder::snapshot::{MemoryCache, MemoryImage};
use larder_kit::Language;
use larder_tests::{component, run};

/// How often each figure is measured.
struct Rounds {
    compile: u32,
    start: u32,
    run: u32,
    images: u32,
}

fn main() {
    // Without `--bench` it is a test that this runs, and not the time to measure.
    let measures = std::env::args().any(|argument| argument == "--bench");
    let rounds = if measures {
        Rounds { compile: 3, start: 9, run: 9, images: 10_000 }
    } else {
        Rounds { compile: 0, start: 1, run: 1, images: 10 }
    };
    println!(
        "| language | component | compile | cached start | instantiate | {} images | memory |",
        grouped(rounds.images)
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let directory = tempfile::tempdir().expect("a directory");
    for language in Language::ALL {
        println!("{}", row(language, &rounds, directory.path()));
    }
}

fn row(language: Language, rounds: &Rounds, code_cache: &Path) -> String {
    let (title, name) = match language {
        Language::Rust => ("Rust", "keep-recent".to_owned()),
        Language::C => ("C", "keep-recent-c".to_owned()),
        Language::JavaScript => ("JavaScript", "keep-recent-javascript".to_owned()),
        Language::Python => ("Python", "keep-recent-python".to_owned()),
        Language::Go => ("Go", "keep-recent-go".to_owned()),
    };
    let bytes = std::fs::read(component(&name)).expect("the component");
    let load = |engine: &PolicyEngine, expected: CodeOrigin| {
        let clock = Instant::now();
        let policy = run(Policy::load(engine, &bytes[..])).expect("a policy");
        let elapsed = clock.elapsed();
        assert_eq!(policy.code_origin(), expected);
        (policy, elapsed)
    };
    let compile =
        (0..rounds.compile).map(|_| load(&PolicyEngine::new().expect("an engine"), CodeOrigin::Compiled).1);
    let compile = median(compile.collect());

    // An engine of its own each time, as a new process has one. Making it is counted, since the process waits for it.
    let cached = || PolicyEngine::builder().code_cache(code_cache).build().expect("an engine");
    load(&cached(), CodeOrigin::Compiled);
    let start = (0..rounds.start).map(|_| {
        let clock = Instant::now();
        let engine = cached();
        load(&engine, CodeOrigin::Cached);
        clock.elapsed()
    });
    let start = median(start.collect());

    let (policy, _) = load(&cached(), CodeOrigin::Cached);
    let grant = GrantDocument::from_toml("[grant]\nremove = [\"**\"]\n", "bench").expect("a grant");
    let limits = Limits::default().with_time(Duration::from_secs(60));
    let policy_run = PolicyRun::new(now()).with_grant(grant.with_limits(limits));
    let stats: Vec<_> = (0..rounds.run)
        .map(|_| run(policy.evaluate(Box::new(cache(rounds.images)), &policy_run)).expect("a plan").stats)
        .collect();
    let instantiate = median(stats.iter().map(|stats| stats.instantiate).collect());
    let evaluate = median(stats.iter().map(|stats| stats.evaluate).collect());
    let memory = stats.iter().map(|stats| stats.memory_bytes).max().unwrap_or_default();
    format!(
        "| {title} | {} | {} | {} | {} | {} | {} |",
        size(bytes.len() as u64),
        time(compile),
        time(start),
        time(instantiate),
        time(evaluate),
        size(memory)
    )
}

/// Eight images to a repository, which share one of their two layers.
fn cache(size: u32) -> MemoryCache {
    let image = |number: u32| {
        let app = number / 8;
        let mut image = MemoryImage::new(format!("docker.io/acme/app{app:05}:v{}", number % 8));
        image.created_at = Some(now() - TimeDelta::days(i64::from(number % 365)));
        image.last_used_at = Some(now() - TimeDelta::days(i64::from(number % 90)));
        image.layers = vec![format!("base{app}"), format!("own{number}")];
        image
    };
    (0..size).fold(MemoryCache::new((0..size).map(image)), |cache, number| {
        cache.with_layer(format!("own{number}"), 4096).with_layer(format!("base{}", number / 8), 8192)
    })
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_795_000_000, 0).expect("a time")
}

fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort();
    times.get(times.len() / 2).copied()
}

/// Three digits, since a run on another machine differs in the second.
fn time(time: Option<Duration>) -> String {
    let Some(time) = time else { return "–".to_owned() };
    let milliseconds = time.as_secs_f64() * 1e3;
    match milliseconds {
        1000.0.. => format!("{:.1} s", milliseconds / 1e3),
        100.0.. => format!("{milliseconds:.0} ms"),
        10.0.. => format!("{milliseconds:.1} ms"),
        1.0.. => format!("{milliseconds:.2} ms"),
        _ => format!("{milliseconds:.3} ms"),
    }
}

fn size(bytes: u64) -> String {
    let kib = bytes as f64 / 1024.0;
    if kib < 1024.0 { format!("{kib:.0} KiB") } else { format!("{:.1} MiB", kib / 1024.0) }
}

fn grouped(number: u32) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", number / 1000, number % 1000) }
}
