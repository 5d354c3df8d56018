use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anstyle::{AnsiColor, Style};
use larder::policy::Policy;
use serde::Serialize;

use crate::cli::Context;
use crate::commands::Failures;
use crate::engine::{self, CodeCache};
use crate::exit::{Failure, Status};
use crate::output;
use crate::render::{diff, plain};
use crate::scenario::{self, Outcome, Scenario, Suite};
use crate::source::PolicySource;

/// Run a policy on scenarios, and compare what it decides
///
/// A scenario describes a cache in TOML, with the decision that is expected about each of its images, and its reason. The
/// component itself runs on it in memory, without a home.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder policy test
  larder policy test scenarios/ties.toml --policy target/policies/keep-recent.wasm
  larder policy test --update")]
pub(crate) struct Test {
    /// Files of scenarios, or directories: of those, `DIR/scenarios/*.toml`, or else `DIR/*.toml`
    #[arg(value_name = "DIR|FILE", default_value = ".", value_hint = clap::ValueHint::AnyPath)]
    paths: Vec<PathBuf>,
    /// The policy, one of `larder policy list` or a path, instead of the one that each file names with `policy`
    #[arg(long, value_name = "P", value_hint = clap::ValueHint::FilePath)]
    policy: Option<PolicySource>,
    /// Write the decisions of the policy into the files, as the expected ones
    #[arg(long)]
    update: bool,
    #[command(flatten)]
    code_cache: CodeCache,
}

/// What became of all scenarios.
#[derive(Debug, Serialize)]
struct Results {
    /// Scenarios that came out otherwise than expected.
    failed: usize,
    /// Scenarios that came out as expected.
    passed: usize,
    scenarios: Vec<ScenarioResult>,
    /// Scenarios whose expectations were written.
    updated: usize,
}

#[derive(Debug, Serialize)]
struct ScenarioResult {
    decided: Outcome,
    expected: Option<Outcome>,
    file: PathBuf,
    line: usize,
    name: String,
    policy: PolicySource,
    result: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Failed,
    Passed,
    Updated,
}

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

impl Test {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let mut failures = Failures::new(context);
        let files: Vec<_> =
            self.paths.iter().filter_map(|path| failures.catch(files(path))).flatten().collect();
        let suites: Vec<_> = files.iter().filter_map(|file| failures.catch(self.suite(file))).collect();
        if failures.any() {
            // A run of some of the scenarios would look like one of all.
            return Ok(failures.status());
        }
        let mut policies = Policies { engine: self.code_cache.engine()?, loaded: HashMap::new() };
        let mut results = Results { failed: 0, passed: 0, scenarios: Vec::new(), updated: 0 };
        for (suite, policy) in suites {
            self.run_suite(&suite, &policy, &mut policies, &mut results, context).await?;
        }
        if context.console.is_json() {
            context.console.json(&results)?;
        } else {
            context.console.data(&results.sum())?;
        }
        Ok(if results.failed == 0 { Status::Done } else { Status::Failed })
    }

    /// A file of scenarios, and the policy to run on them.
    fn suite(&self, path: &Path) -> Result<(Suite, PolicySource), Failure> {
        let suite = Suite::read(path)?;
        let place = |line: usize, problem: String| {
            Failure::usage(format!("{}, line {line}: {problem}", suite.path.display()))
        };
        if let Some(scenario) = suite.scenarios.iter().find(|scenario| scenario.expected.is_none())
            && !self.update
        {
            let problem = format!(
                "`{}` expects nothing: add `[[scenario.expect]]` or `fails`, or let `--update` write what is seen",
                scenario.name
            );
            return Err(place(scenario.line, problem));
        }
        match self.policy.clone().or_else(|| suite.policy.clone().map(PolicySource::File)) {
            Some(policy) => Ok((suite, policy)),
            None => Err(place(
                1,
                "no policy is named: add `policy = \"../NAME.wasm\"` at the top, or give `--policy P`"
                    .to_owned(),
            )),
        }
    }

    async fn run_suite(
        &self,
        suite: &Suite,
        source: &PolicySource,
        policies: &mut Policies,
        results: &mut Results,
        context: &Context,
    ) -> Result<(), Failure> {
        let console = &context.console;
        let policy = policies.get(source, context).await?;
        let mut seen = Vec::new();
        for scenario in &suite.scenarios {
            seen.push(scenario.run(policy).await?);
        }
        if self.update
            && let Some(text) = scenario::update(suite, &seen)?
        {
            output::write(&suite.path, &text)?;
        }
        let mut text = format!("{}\n", suite.path.display());
        for (scenario, decided) in suite.scenarios.iter().zip(seen) {
            let verdict = match scenario.is_met_by(&decided) {
                true => Verdict::Passed,
                false if self.update => Verdict::Updated,
                false => Verdict::Failed,
            };
            text += &describe(scenario, &decided, verdict);
            results.add(suite, scenario, source, decided, verdict);
        }
        if console.is_json() { Ok(()) } else { console.data(&text) }
    }
}

/// Each policy is loaded once, however many files name it.
struct Policies {
    engine: larder::policy::PolicyEngine,
    loaded: HashMap<PolicySource, Policy>,
}

impl Policies {
    async fn get(&mut self, source: &PolicySource, context: &Context) -> Result<&Policy, Failure> {
        if !self.loaded.contains_key(source) {
            let policy = engine::load(&self.engine, source, &context.console).await;
            let policy = policy.map_err(|failure| match source.path() {
                Some(path) if cfg!(feature = "kit") && !path.exists() => {
                    failure.with_hint("`larder policy build` makes the component of a policy")
                }
                _ => failure,
            })?;
            self.loaded.insert(source.clone(), policy);
        }
        Ok(&self.loaded[source])
    }
}

impl Results {
    fn add(
        &mut self,
        suite: &Suite,
        scenario: &Scenario,
        policy: &PolicySource,
        decided: Outcome,
        result: Verdict,
    ) {
        *match result {
            Verdict::Failed => &mut self.failed,
            Verdict::Passed => &mut self.passed,
            Verdict::Updated => &mut self.updated,
        } += 1;
        self.scenarios.push(ScenarioResult {
            decided,
            expected: scenario.expected.clone(),
            file: suite.path.clone(),
            line: scenario.line,
            name: scenario.name.clone(),
            policy: policy.clone(),
            result,
        });
    }

    fn sum(&self) -> String {
        let updated = if self.updated > 0 { format!(", {} updated", self.updated) } else { String::new() };
        format!("{} passed, {} failed{updated}\n", self.passed, self.failed)
    }
}

fn describe(scenario: &Scenario, decided: &Outcome, verdict: Verdict) -> String {
    let name = plain(&scenario.name);
    let (word, style) = match verdict {
        Verdict::Passed => return format!("  {GOOD}ok{GOOD:#}       {name}\n"),
        Verdict::Failed => ("FAILED ", BAD),
        Verdict::Updated => ("updated", GOOD),
    };
    let expected = scenario.expected.as_ref().map(Outcome::lines).unwrap_or_default();
    let title = format!("  {style}{word}{style:#}  {name} (line {})\n", scenario.line);
    title + &diff::render(("expected", &expected), ("decided", &decided.lines()), 4)
}

/// The files of scenarios that a path stands for, sorted.
fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let inner = path.join("scenarios");
    let directory = if inner.is_dir() { &inner } else { path };
    let entries = fs::read_dir(directory).map_err(|error| Failure::unreadable(directory, error))?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(|error| Failure::unreadable(directory, error))?.path();
        if file.extension().is_some_and(|extension| extension == "toml") {
            // Paths are shown as somebody would type them.
            files.push(file.strip_prefix(".").map(Path::to_owned).unwrap_or(file));
        }
    }
    files.sort();
    if files.is_empty() {
        let message = format!(
            "there are no scenarios in `{}`: they are files `*.toml` in it, or in a directory `scenarios` in it",
            path.display()
        );
        return Err(Failure::usage(message));
    }
    Ok(files)
}
