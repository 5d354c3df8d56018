//! The policies that jobs name: those of the program by name, files by their digest.

use std::path::Path;

use larder::job::{Finding, Job, PolicyName, Step, Trigger};
use larder::policy::{ByteSize, Policy, PolicyEngine, PolicyRun};
use larder::reference::Digest;
use larder::snapshot::MemoryCache;

use crate::builtin::{self, BUILTINS};
use crate::cli::Context;
use crate::exit::Failure;
use crate::input;

/// Loads the policy of a step of a job file at this path.
pub(super) async fn load(engine: &PolicyEngine, file: &Path, step: &Step) -> Result<Policy, Finding> {
    let bytes = match &step.policy {
        PolicyName::Bundled(name) => match builtin::find(name) {
            Ok(builtin) => builtin.bytes.to_vec(),
            Err(error) => return Err(step.policy_finding(error.to_string(), Some(bundled()))),
        },
        PolicyName::File { path, digest } => from_file(file, path, digest.as_ref(), step)?,
    };
    Policy::load(engine, bytes).await.map_err(|error| step.policy_finding(sentence(error.into()), None))
}

/// Finds out whether a policy takes the config of a step, by a run over an empty cache: with a goal where the job has one.
pub(super) async fn try_config(
    policy: &Policy,
    job: &Job,
    step: &Step,
    context: &Context,
) -> Result<(), Finding> {
    let mut run =
        PolicyRun::new(context.now()).with_config(step.config.clone()).with_grant(step.grant.clone());
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
fn from_file(file: &Path, path: &Path, digest: Option<&Digest>, step: &Step) -> Result<Vec<u8>, Finding> {
    let from = file.parent().unwrap_or(Path::new("")).join(path);
    let bytes = input::policy(&from).map_err(|failure| step.policy_finding(sentence(failure), None))?;
    let found = Digest::of(&bytes);
    let write = || Some(format!("write `{}@{found}`", path.display()));
    match digest {
        Some(digest) if *digest == found => Ok(bytes),
        Some(_) => {
            let problem = format!("`{}` is another file than the one with this digest", from.display());
            Err(step.policy_finding(problem, write()))
        }
        None => Err(step.policy_finding("a policy in a file is named with its digest", write())),
    }
}

fn bundled() -> String {
    let names: Vec<String> = BUILTINS.iter().map(|builtin| format!("`{}`", builtin.name)).collect();
    format!("there are {}; a file is named by a path, such as `./mine.wasm`", names.join(", "))
}

fn sentence(failure: Failure) -> String {
    failure.messages().collect::<Vec<_>>().join(": ")
}
