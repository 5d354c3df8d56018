//! The schema of a config, generated from its type.

use std::path::Path;

use schemars::JsonSchema;
use serde_json::Value;

use crate::Policy;

/// The environment variable that makes [`check_config_schema`] write the file.
const WRITE: &str = "LARDER_WRITE_CONFIG_SCHEMA";

/// Checks that [`Policy::CONFIG_SCHEMA`] is the schema of [`Policy::Config`], however it is spaced.
///
/// With `LARDER_WRITE_CONFIG_SCHEMA=1` in the environment, this writes the schema to `file` instead, which is relative
/// to the directory of the crate. A policy has one such test beside its config:
///
/// ```ignore
/// /// The config schema is the one of `Config`.
/// #[test]
/// fn config_schema() {
///     larder_guest::testing::check_config_schema::<Forgotten>("config.schema.json");
/// }
/// ```
///
/// # Panics
///
/// Panics where the schema is another one, and where the file cannot be written.
#[track_caller]
pub fn check_config_schema<P: Policy<Config: JsonSchema>>(file: impl AsRef<Path>) {
    let file = file.as_ref();
    let schema = schema::<P::Config>();
    if std::env::var_os(WRITE).is_some() {
        let text = format!("{schema:#}\n");
        std::fs::write(file, text)
            .unwrap_or_else(|error| panic!("cannot write `{}`: {error}", file.display()));
        return;
    }
    let current: Option<Value> = serde_json::from_str(P::CONFIG_SCHEMA).ok();
    assert!(
        current.as_ref() == Some(&schema),
        "the config schema of `{}` is not the one of its `Config`: `{WRITE}=1 cargo test` writes `{}`, with\n{schema:#}",
        P::NAME,
        file.display()
    );
}

/// The schema of a config. It refuses the keys that it does not have.
pub(crate) fn schema<C: JsonSchema>() -> Value {
    let mut schema = schemars::schema_for!(C);
    if schema.get("properties").is_some() && schema.get("additionalProperties").is_none() {
        schema.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    schema.to_value()
}
