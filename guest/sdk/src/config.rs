//! From the operator's JSON to a policy's typed config.

use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::Failure;

/// The schema of a config. It says what [`parse`] does: no other keys.
pub(crate) fn schema<C: JsonSchema>() -> Schema {
    let mut schema = schemars::schema_for!(C);
    if schema.get("properties").is_some() && schema.get("additionalProperties").is_none() {
        schema.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    schema
}

/// Reads a config; every error names the policy and the key.
pub(crate) fn parse<C: DeserializeOwned + JsonSchema>(policy: &str, text: &str) -> Result<C, Failure> {
    let failure = |message: String| Failure::new(format!("config of {policy}: {message}"));
    let config: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| failure(format!("expected a JSON object: {error}")))?;
    if let Some(message) = unknown_key(&config, &schema::<C>()) {
        return Err(failure(message));
    }
    serde_path_to_error::deserialize(Value::Object(config)).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        // The path of the whole config is a dot.
        failure(if path == "." { inner.to_string() } else { format!("`{path}`: {inner}") })
    })
}

/// What to say about the first key that the schema does not have.
fn unknown_key(config: &Map<String, Value>, schema: &Schema) -> Option<String> {
    if schema.get("additionalProperties") != Some(&Value::Bool(false)) {
        return None;
    }
    let nothing = Map::new();
    let known = schema.get("properties").and_then(Value::as_object).unwrap_or(&nothing);
    let key = config.keys().find(|key| !known.contains_key(*key))?;
    let known: Vec<String> = known.keys().map(|key| format!("`{key}`")).collect();
    Some(match known.split_last() {
        None => format!("unknown key `{key}`: this policy takes no config"),
        Some((only, [])) => format!("unknown key `{key}`: the only key is {only}"),
        Some((last, others)) => format!("unknown key `{key}`: the keys are {} and {last}", others.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::{Age, Size};

    #[derive(Debug, Default, PartialEq, Deserialize, JsonSchema)]
    #[serde(rename_all = "kebab-case", default)]
    struct Config {
        max_age: Option<Age>,
        max_bytes: Size,
        keep: u32,
    }

    fn error(text: &str) -> String {
        parse::<Config>("sample", text).unwrap_err().into_sentence()
    }

    /// A config that conforms is read; what is not given has its default.
    #[test]
    fn conforming() {
        let config: Config = parse("sample", r#"{"max-age": "1w", "max-bytes": 7}"#).unwrap();
        assert_eq!(
            config,
            Config { max_age: Some(Age::from_days(7)), max_bytes: Size::from_bytes(7), keep: 0 }
        );
        assert_eq!(parse::<Config>("sample", "{}").unwrap(), Config::default());
    }

    /// What does not conform is refused with the policy's name, the key, and what was expected.
    #[test]
    fn refused() {
        let table = [
            (r#"{"max_age": "1w"}"#, "unknown key `max_age`: the keys are `keep`, `max-age` and `max-bytes`"),
            (
                r#"{"max-age": "7"}"#,
                "`max-age`: `7` is not a length of time: expected a number and a unit, such as `30d`, `12h`, `90m` or `1w2d`",
            ),
            (r#"{"keep": "two"}"#, "`keep`: invalid type: string \"two\", expected u32"),
            ("[]", "expected a JSON object: invalid type: sequence, expected a map at line 1 column 0"),
            ("", "expected a JSON object: EOF while parsing a value at line 1 column 0"),
        ];
        for (text, message) in table {
            assert_eq!(error(text), format!("config of sample: {message}"), "{text}");
        }
    }

    /// The schema refuses the same keys, and describes quantities where they are used.
    #[test]
    fn schema_says_the_same() {
        let schema = schema::<Config>();
        assert_eq!(schema.get("additionalProperties"), Some(&Value::Bool(false)));
        let examples = schema.pointer("/properties/max-bytes/examples/0");
        assert_eq!(examples, Some(&Value::from("20GiB")));
    }
}
