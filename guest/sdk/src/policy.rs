//! Policies, and running one.

use std::fmt;

use serde::de::DeserializeOwned;

use crate::{Cache, Timestamp, config};

/// A policy over the image cache. [`export_policy!`](crate::export_policy) makes a component of it.
pub trait Policy {
    /// A short name, such as `keep-recent`.
    const NAME: &'static str;
    /// A semantic version; `env!("CARGO_PKG_VERSION")` is one.
    const VERSION: &'static str;
    /// One sentence.
    const SUMMARY: &'static str;

    /// The JSON Schema of [`Config`](Self::Config): `include_str!("../config.schema.json")`.
    ///
    /// A key that the schema does not have is refused, with the keys that it has. The file is generated, and doc
    /// comments become descriptions: [`testing::check_config_schema`](crate::testing) writes it.
    const CONFIG_SCHEMA: &'static str;

    /// The config that the operator writes, with keys in kebab-case.
    ///
    /// It derives `schemars::JsonSchema` for tests: `#[cfg_attr(test, derive(schemars::JsonSchema))]`.
    type Config: DeserializeOwned;

    /// Decides.
    ///
    /// The host applies what is staged through `cache` if this returns ok, and drops it if this returns an error,
    /// which is shown to the operator. A policy explains every image that it looks at, also what it keeps: one plain
    /// sentence with the numbers that decided.
    fn evaluate(config: Self::Config, request: Request, cache: &mut impl Cache) -> Result<(), Failure>;
}

/// The instant of a run and its goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The current time for this run.
    pub now: Timestamp,
    /// Number of bytes that the run should free, if it has a goal.
    ///
    /// The host applies only as many of the staged removals, in their order, as the goal takes. So a policy stages
    /// first what can be spared most, and stages more rather than less.
    pub goal_bytes: Option<u64>,
}

/// The reason why a policy makes no decision: a sentence for the operator.
///
/// Any error becomes one with `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// Makes a failure of a sentence.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }

    /// Makes a failure that is the operator's to mend: the config of the policy of this name is wrong.
    ///
    /// The sentence begins with `config of NAME: `, by which the program knows it from others.
    pub fn of_config(policy: &str, sentence: impl fmt::Display) -> Self {
        Self(format!("config of {policy}: {sentence}"))
    }

    /// Returns the sentence.
    pub fn into_sentence(self) -> String {
        self.0
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// `Failure` is no `Error` itself, so that this can cover every error.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// A policy's description of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// A short name, such as `keep-recent`.
    pub name: &'static str,
    /// A semantic version.
    pub version: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// A JSON Schema for the config.
    pub config_schema: &'static str,
}

/// Returns the description of `P`, as its component's `describe` does.
pub fn describe<P: Policy>() -> Description {
    Description { name: P::NAME, version: P::VERSION, summary: P::SUMMARY, config_schema: P::CONFIG_SCHEMA }
}

/// Runs `P` on a config in JSON, as its component's `evaluate` does.
pub fn evaluate<P: Policy>(config: &str, request: Request, cache: &mut impl Cache) -> Result<(), Failure> {
    let config = config::parse::<P::Config>(P::NAME, P::CONFIG_SCHEMA, config)?;
    P::evaluate(config, request, cache)
}

/// Makes a policy its component's export: `larder_guest::export_policy!(KeepRecent);`, once in a crate.
///
/// In a native build, which is what tests are, it checks the type and exports nothing.
#[macro_export]
macro_rules! export_policy {
    ($policy:ty) => {
        const _: fn() -> $crate::Description = $crate::describe::<$policy>;
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Exported = $crate::component::Component<$policy>;
    $crate::component::bindings::export!(Exported with_types_in $crate::component::bindings);
        };
    };
}
