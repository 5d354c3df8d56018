//! The policies that jobs name: those of the program by name, files by their digest.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use larder::job::{Finding, Job, Policies, PolicyName, Step, Trigger};
use larder::policy::{ByteSize, Policy, PolicyEngine, PolicyRun};
use larder::reference::Digest;
use larder::snapshot::MemoryCache;
use larder::{MicrosandboxError, MicrosandboxResult};

use crate::builtin::{self, BUILTINS};
use crate::exit::Failure;
use crate::input;

/// The policies that the jobs of a file name.
pub(crate) struct NamedPolicies {
    engine: PolicyEngine,
    /// The job file.
    file: PathBuf,
}

impl NamedPolicies {
    pub(crate) fn new(engine: PolicyEngine, file: PathBuf) -> Arc<Self> {
        Arc::new(Self { engine, file })
    }
}

impl Policies for NamedPolicies {
    fn load<'a>(
        &'a self,
        name: &'a PolicyName,
    ) -> Pin<Box<dyn Future<Output = MicrosandboxResult<Policy>> + Send + 'a>> {
        Box::pin(async move {
            let problem = |problem: Problem| {
                let Problem { what, suggestion } = problem;
                let suggestion = suggestion.map(|suggestion| format!("; {suggestion}"));
                MicrosandboxError::InvalidConfig(format!(
                    "`{name}`: {what}{}",
                    suggestion.unwrap_or_default()
                ))
            };
            let bytes = bytes(&self.file, name).map_err(problem)?;
            Ok(Policy::load(&self.engine, bytes).await?)
        })
    }
}

/// Why there is no such policy, and what to do.
struct Problem {
    what: String,
    suggestion: Option<String>,
}

/// Reads the policy of this name, which a job file at this path names.
fn bytes(file: &Path, name: &PolicyName) -> Result<Vec<u8>, Problem> {
    match name {
        PolicyName::Bundled(name) => match builtin::find(name) {
            Ok(builtin) => Ok(builtin.bytes.to_vec()),
            Err(error) => Err(Problem { what: error.to_string(), suggestion: Some(bundled()) }),
        },
        PolicyName::File { path, digest } => from_file(file, path, digest.as_ref()),
    }
}

/// Loads the policy of a step of a job file at this path.
pub(super) async fn load(engine: &PolicyEngine, file: &Path, step: &Step) -> Result<Policy, Finding> {
    let bytes = bytes(file, &step.policy)
        .map_err(|Problem { what, suggestion }| step.policy_finding(what, suggestion))?;
    Policy::load(engine, bytes).await.map_err(|error| step.policy_finding(sentence(error.into()), None))
}

/// Finds out whether a policy takes the config of a step, by a run over an empty cache: with a goal where the job has one.
pub(super) async fn try_config(
    policy: &Policy,
    job: &Job,
    step: &Step,
    now: DateTime<Utc>,
) -> Result<(), Finding> {
    let mut run = PolicyRun::new(now).with_config(step.config.clone()).with_grant(step.grant.clone());
    if matches!(job.trigger, Trigger::Pressure(_)) {
        run = run.with_goal(ByteSize::bytes(1));
    }
    match policy.evaluate(Box::new(MemoryCache::new([])), &run).await {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(step.config_finding(format!("the policy refuses it: {}", sentence(error.into())), None))
        }
    }
}

/// Reads a policy whose path is relative to the job file, and compares its digest.
fn from_file(file: &Path, path: &Path, digest: Option<&Digest>) -> Result<Vec<u8>, Problem> {
    let from = file.parent().unwrap_or(Path::new("")).join(path);
    let bytes =
        input::policy(&from).map_err(|failure| Problem { what: sentence(failure), suggestion: None })?;
    let found = Digest::of(&bytes);
    let write = || Some(format!("write `{}@{found}`", path.display()));
    match digest {
        Some(digest) if *digest == found => Ok(bytes),
        Some(_) => {
            let what = format!("`{}` is another file than the one with this digest", from.display());
            Err(Problem { what, suggestion: write() })
        }
        None => {
            let what = "a policy in a file is named with its digest".to_owned();
            Err(Problem { what, suggestion: write() })
        }
    }
}

fn bundled() -> String {
    let names: Vec<String> = BUILTINS.iter().map(|builtin| format!("`{}`", builtin.name)).collect();
    format!("there are {}; a file is named by a path, such as `./mine.wasm`", names.join(", "))
}

fn sentence(failure: Failure) -> String {
    failure.messages().collect::<Vec<_>>().join(": ")
}
