//! The five versions, and what they agree on.

use std::sync::OnceLock;

use chrono::{DateTime, TimeDelta, Utc};
use larder::policy::{Evaluation, GrantDocument, Plan, Policy, PolicyError, PolicyRun};
use larder::snapshot::{MemoryCache, MemoryImage};
use larder_kit::Language;
use larder_tests::{ENGINE, find_component, has_all_languages, run};

pub(crate) const REMOVE_ALL: &str = "[grant]\nremove = [\"**\"]\n[guard]\nmin-age = \"0s\"\n";

/// Tells whether a component in this language brings an interpreter, which takes the better part of a minute to compile.
fn is_interpreted(language: Language) -> bool {
    matches!(language, Language::JavaScript | Language::Python)
}

/// The versions of the languages that can be built here, Rust first, each by its name.
pub(crate) fn policies() -> &'static [(String, Policy)] {
    static POLICIES: OnceLock<Vec<(String, Policy)>> = OnceLock::new();
    POLICIES.get_or_init(|| {
        let name = |language: Language| match language {
            Language::Rust => "keep-recent".to_owned(),
            other => format!("keep-recent-{other}"),
        };
        let load = |name: String| {
            let bytes = std::fs::read(find_component(&name)?).expect("the component can be read");
            let policy = run(Policy::load(&ENGINE, bytes)).unwrap_or_else(|error| panic!("{name}: {error}"));
            Some((name, policy))
        };
        let wanted =
            Language::ALL.into_iter().filter(|&language| has_all_languages() || !is_interpreted(language));
        wanted.map(name).filter_map(load).collect()
    })
}

pub(crate) fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 500).expect("a time")
}

pub(crate) fn ago(seconds: i64) -> DateTime<Utc> {
    now() - TimeDelta::seconds(seconds)
}

pub(crate) fn grant(text: &str) -> GrantDocument {
    GrantDocument::from_toml(text, "grant.toml").expect("a grant")
}

/// What a run came to, less what tells the versions apart.
fn outcome(name: &str, result: Result<Evaluation, PolicyError>) -> Result<String, String> {
    let plan =
        result.map(|evaluation| evaluation.plan).map_err(|error| error.to_string().replace(name, "NAME"))?;
    Ok(document(name, plan))
}

pub(crate) fn document(name: &str, mut plan: Plan) -> String {
    let policy = plan.policy.as_mut().expect("a policy");
    assert_eq!((policy.name.as_str(), policy.version.as_str()), (name, "0.1.0"));
    policy.name = "NAME".to_owned();
    policy.hash = "HASH".to_owned();
    serde_json::to_string_pretty(&plan).expect("a document")
}

/// Runs all of them on a cache, and gives what they agree on.
pub(crate) fn agreed(cache: &MemoryCache, policy_run: &PolicyRun) -> Result<String, String> {
    let mut outcomes = policies().iter().map(|(name, policy)| {
        let result = run(policy.evaluate(Box::new(cache.clone()), policy_run));
        (name, outcome(name, result))
    });
    let (_, first) = outcomes.next().expect("the one in Rust");
    for (name, other) in outcomes {
        assert!(other == first, "`{name}` with {}: {}", policy_run.config(), difference(&other, &first));
    }
    first
}

/// Where two outcomes part: plans are too long to be shown whole.
pub(crate) fn difference(one: &Result<String, String>, other: &Result<String, String>) -> String {
    let text = |outcome: &Result<String, String>| {
        outcome.as_ref().map_or_else(|error| format!("error: {error}"), String::clone)
    };
    let (one, other) = (text(one), text(other));
    let parted = one.lines().zip(other.lines()).find(|(a, b)| a != b);
    parted.map_or_else(|| "one ends before the other".to_owned(), |(a, b)| format!("{a}\n instead of {b}"))
}

pub(crate) fn image(reference: &str, created_days: i64, used_days: Option<i64>) -> MemoryImage {
    let mut image = MemoryImage::new(reference);
    image.created_at = Some(ago(created_days * 86_400));
    image.last_used_at = used_days.map(|days| ago(days * 86_400));
    image
}
