//! The exit status, the kind and the hint of each error of the library.

use larder::MicrosandboxError;
use larder::backend::HomeProblem;
use larder::ingest::{IngestProblem, LimitUnit};
use larder::policy::{ByteSize, PolicyError};

use super::status::{INTERRUPTED, Status, TRAPPED, UNREACHABLE};

pub(super) type Class = (Status, &'static str, Option<&'static str>);

pub(super) fn classify(error: &MicrosandboxError) -> Class {
    use MicrosandboxError as E;
    match error {
        E::ImageNotFound(_) => (Status::NotFound, "image-not-found", Some("`larder ls` shows what there is")),
        E::ImageInUse(_) => (Status::InUse, "image-in-use", None),
        E::InvalidReference(_) => (Status::Usage, "invalid-reference", None),
        E::InvalidDigest(_) => (Status::Usage, "invalid-digest", None),
        E::InvalidConfig(_) => (Status::Usage, "invalid-config", None),
        E::Unsupported { .. } => (Status::Failed, "unsupported", None),
        E::Home(error) => (Status::Failed, home_kind(&error.problem), home_hint(&error.problem)),
        E::Io { .. } => (Status::Failed, "io", None),
        E::Database { .. } => (Status::Failed, "database", None),
        E::InvalidPlan(_) => (
            Status::Usage,
            "invalid-plan",
            Some("make a plan with `larder prune --plan FILE`, and apply it as it was written"),
        ),
        E::PlanForAnotherHome { .. } => (
            Status::Failed,
            "other-home",
            Some("name the home that it is for with `--home`, or make a plan for this one"),
        ),
        E::Ingest(error) => classify_ingest(error.problem()),
        E::Save(error) if error.is_damage() => (
            Status::Failed,
            "damaged",
            Some("`larder verify` lists what is missing or damaged; pull such images again"),
        ),
        E::Save(_) => (Status::Failed, "save", None),
        E::Policy(error) => classify_policy(error),
        E::Incomplete { source, .. } => classify(source),
        E::Stopped => (
            Status::Failed,
            INTERRUPTED,
            Some(
                "what is gone stays gone, and is on record: `larder history`; the rest goes with the same command",
            ),
        ),
        E::Interrupted(_) => (Status::Failed, INTERRUPTED, None),
        // The library may learn to fail in ways that this program does not know yet.
        _ => (Status::Failed, "failed", None),
    }
}

/// Returns what a problem of a home needs beside what its message says.
fn home_hint(problem: &HomeProblem) -> Option<&'static str> {
    match problem {
        HomeProblem::CacheMissing { .. } => {
            Some("where it is gone for good, `larder verify --claim-cache` begins it anew")
        }
        _ => None,
    }
}

fn home_kind(problem: &HomeProblem) -> &'static str {
    use HomeProblem as P;
    match problem {
        P::Missing => "home-missing",
        P::NotADirectory | P::NoIndex => "home-invalid",
        P::Unreadable(_) => "home-unreadable",
        P::ReadOnly => "home-read-only",
        P::Full { .. } => "home-full",
        P::Locked => "home-locked",
        P::NotOurs { .. } => "home-not-ours",
        P::CacheMissing { .. } => "cache-missing",
        P::CacheOwnerChanged { .. } => "home-busy",
        P::Corrupt(_) => "home-corrupt",
        P::Newer(_) | P::NewerLarder { .. } => "home-newer",
        P::Older { .. } => "home-older",
        P::Downgrading(_) | P::Installing(_) | P::Replaced => "home-busy",
        _ => "home-unknown",
    }
}

fn classify_ingest(problem: &IngestProblem) -> Class {
    use IngestProblem as P;
    match problem {
        P::Unnamed(_) => (
            Status::Usage,
            "image-unnamed",
            Some("`--tag NAME` names an image, `--tag REPOSITORY` keeps the tags that images have"),
        ),
        P::Ambiguous(_) => (
            Status::Usage,
            "image-ambiguous",
            Some(
                "`--select` chooses one, and `--tag REPOSITORY` without a tag keeps the tags that they have",
            ),
        ),
        P::Name(_) => (Status::Usage, "invalid-reference", Some("`--tag` gives the image another name")),
        P::OtherDigest { .. } => {
            (Status::Usage, "invalid-reference", Some("`--tag` without a digest names it"))
        }
        P::NotInArchive { .. } => (Status::NotFound, "image-not-found", None),
        P::NoImage(_) => (Status::Failed, "image-invalid", None),
        P::Held { .. } => (Status::InUse, "image-in-use", None),
        P::NotInRegistry => (
            Status::NotFound,
            "image-not-found",
            Some("some registries answer this to whoever is not logged in: `docker login`, or `--user`"),
        ),
        P::Refused(_) => (
            Status::Failed,
            "registry-refused",
            Some("`docker login`, or `--user` and `--password-stdin`, give the registry other credentials"),
        ),
        P::Unreachable(why) => (Status::Failed, UNREACHABLE, hint_at_connection(why)),
        P::NoAuthorities => (
            Status::Failed,
            UNREACHABLE,
            Some("install `ca-certificates`, or name a file of certificates with `--ca`"),
        ),
        P::Registry(_) => (Status::Failed, "registry-failed", None),
        P::Credentials { .. } => {
            (Status::Failed, "credentials", Some("`--user` and `--password-stdin` give others"))
        }
        P::Platform { .. } => {
            (Status::Failed, "wrong-platform", Some("`--platform` chooses another of these"))
        }
        P::Limit { .. } | P::Files { .. } => (Status::Failed, "image-limit", None),
        P::WrongDigest { .. } | P::WrongSize { .. } => (Status::Failed, "image-digest", None),
        P::DiskFull => {
            (Status::Failed, "disk-full", Some("make room with `larder prune`; nothing was changed"))
        }
        P::NoRoom { .. } => (
            Status::Failed,
            "no-room",
            Some(
                "`larder df` says what takes the space, and a job with `make-room` makes room; `--no-room` begins all the same",
            ),
        ),
        P::Read(_) | P::Write(_) => (Status::Failed, "io", None),
        P::Cancelled => (Status::Failed, INTERRUPTED, None),
        _ => (Status::Failed, "image-invalid", None),
    }
}

/// Returns the option that raises the limit that an image exceeds.
pub(super) fn hint_at_limit(error: &MicrosandboxError) -> Option<String> {
    let MicrosandboxError::Ingest(error) = error else { return None };
    let &IngestProblem::Limit { limit, key } = error.problem() else { return None };
    let twice = limit.saturating_mul(2).max(1);
    let value = match key.unit() {
        LimitUnit::Bytes => ByteSize::bytes(twice).to_string(),
        _ => twice.to_string(),
    };
    Some(format!("`--limit {key}={value}` doubles the limit, for an image that you trust"))
}

/// Returns what may make a registry reachable.
fn hint_at_connection(why: &str) -> Option<&'static str> {
    if why.contains("certificate") {
        return Some("`--ca FILE` trusts the authorities in a file of certificates");
    }
    (!why.contains("no such host")).then_some("a registry without encryption is reached with `--plain-http`")
}

/// The hint at how policies are built, in a program that builds them.
const WITHOUT_WASI: Option<&str> = if cfg!(feature = "kit") {
    Some("`larder policy languages` says how each language builds a policy that imports nothing else")
} else {
    None
};

/// Returns what a policy says is wrong with its config, without its name. The SDK and the policies say that as
/// `config of NAME: PROBLEM`; any other failure is none of the config.
pub(crate) fn refused_config(message: &str) -> Option<&str> {
    let rest = message.strip_prefix("config of ")?;
    Some(rest.split_once(": ").map_or(message, |(_, problem)| problem))
}

/// Returns in a sentence what a policy says is wrong with its config. Nothing is wrong with the policy then.
pub(super) fn invalid_config(error: &MicrosandboxError) -> Option<String> {
    let MicrosandboxError::Policy(PolicyError::Failed(message)) = error else { return None };
    let (policy, problem) = message.strip_prefix("config of ")?.split_once(": ")?;
    Some(format!("the config of `{policy}` is not valid: {problem}"))
}

fn classify_policy(error: &PolicyError) -> Class {
    use PolicyError as P;
    match error {
        P::NotAComponent { .. } => (Status::Policy, "not-a-policy", None),
        P::ForeignImport { .. } => (Status::Policy, "foreign-import", WITHOUT_WASI),
        P::WrongVersion { .. } => (Status::Policy, "wrong-version", None),
        P::TooLarge { .. } => (Status::Policy, "policy-too-large", None),
        P::InvalidDescription { .. } => (Status::Policy, "invalid-description", None),
        P::InvalidConfig(_) => (Status::Usage, "invalid-config", None),
        P::InvalidGrant { .. } => (Status::Usage, "invalid-grant", None),
        P::Trapped { .. } => (Status::Policy, TRAPPED, None),
        P::Limit { .. } => (Status::Policy, "policy-limit", None),
        P::Failed(message) if refused_config(message).is_some() => (Status::Usage, "invalid-config", None),
        P::Failed(_) => (Status::Policy, "policy-failed", None),
        P::OverBudget(_) => (
            Status::Denied,
            "over-budget",
            Some("raise the cap in `[grant]`, or configure the policy to remove less; nothing was changed"),
        ),
        P::CodeCache { .. } => (Status::Failed, "code-cache", None),
        P::NoCodeCache => {
            (Status::Usage, "no-code-cache", Some("`--code-cache DIR` or `LARDER_CODE_CACHE` say where"))
        }
        P::Source(source) => classify(source),
        P::Host(_) => (Status::Failed, "host", None),
        _ => (Status::Policy, "policy-failed", None),
    }
}
