//! From the operator's JSON to a policy's typed config.

mod json;
mod value;

use serde::de::DeserializeOwned;

use self::json::Value;
use crate::Failure;
use crate::error::listed;

/// Reads a config; every error names the policy and the key.
///
/// Where the schema allows no other keys than its own, one that it does not have is refused with those that it has.
pub(crate) fn parse<C: DeserializeOwned>(policy: &str, schema: &str, text: &str) -> Result<C, Failure> {
    let read = || {
        let config = Value::read(text).filter(|config| config.entries().is_some());
        let config = config.ok_or("expected a JSON object")?;
        let schema = Value::read(schema).ok_or("the schema of the policy is not JSON")?;
        match unknown_key(&config, &schema) {
            Some(message) => Err(message),
            None => value::deserialize(&config).map_err(|error| error.to_string()),
        }
    };
    read().map_err(|message: String| Failure::of_config(policy, message))
}

/// What to say about the first key that the schema does not have.
fn unknown_key(config: &Value<'_>, schema: &Value<'_>) -> Option<String> {
    let Some(Value::Bool(false)) = schema.get("additionalProperties") else { return None };
    let known = schema.get("properties").and_then(Value::entries).unwrap_or_default();
    let (key, _) = config.entries()?.iter().find(|(key, _)| !known.iter().any(|(name, _)| name == key))?;
    let known = known.iter().map(|(key, _)| format!("`{key}`")).collect();
    Some(match listed(known) {
        (0, _) => format!("unknown key `{key}`: this policy takes no config"),
        (1, only) => format!("unknown key `{key}`: the only key is {only}"),
        (_, keys) => format!("unknown key `{key}`: the keys are {keys}"),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use schemars::JsonSchema;
    use serde::Deserialize;

    use super::*;
    use crate::testing::schema;
    use crate::{Age, Size};

    #[derive(Debug, Default, PartialEq, Deserialize, JsonSchema)]
    #[serde(rename_all = "kebab-case", default)]
    struct Config {
        max_age: Option<Age>,
        max_bytes: Size,
        keep: u32,
    }

    fn read<C: DeserializeOwned + JsonSchema>(text: &str) -> Result<C, String> {
        parse("sample", &schema::<C>().to_string(), text).map_err(Failure::into_sentence)
    }

    fn error(text: &str) -> String {
        read::<Config>(text).unwrap_err()
    }

    /// A config that conforms is read; what is not given has its default.
    #[test]
    fn conforming() {
        let config: Config = read(r#"{"max-age": "1w", "max-bytes": 7}"#).unwrap();
        assert_eq!(
            config,
            Config { max_age: Some(Age::from_days(7)), max_bytes: Size::from_bytes(7), keep: 0 }
        );
        assert_eq!(read::<Config>("{}").unwrap(), Config::default());
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
            ("[]", "expected a JSON object"),
            ("", "expected a JSON object"),
        ];
        for (text, message) in table {
            assert_eq!(error(text), format!("config of sample: {message}"), "{text}");
        }
    }

    /// The schema refuses the same keys, and describes quantities where they are used.
    #[test]
    fn schema_says_the_same() {
        let schema = schema::<Config>();
        assert_eq!(schema.get("additionalProperties"), Some(&false.into()));
        let examples = schema.pointer("/properties/max-bytes/examples/0");
        assert_eq!(examples, Some(&"20GiB".into()));
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    #[expect(dead_code, reason = "what is read is shown by `Debug`")]
    struct Shapes {
        flag: bool,
        #[serde(default)]
        ratio: f64,
        #[serde(default)]
        letter: Option<char>,
        #[serde(default)]
        pair: Option<(i8, String)>,
        #[serde(default)]
        rules: Vec<Rule>,
        #[serde(default)]
        ranks: BTreeMap<u8, Wrapped>,
        #[serde(default)]
        nothing: (),
        #[serde(default)]
        any: Option<serde_json::Value>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    #[expect(dead_code, reason = "what is read is shown by `Debug`")]
    enum Rule {
        All,
        Older(Age),
        Between(u8, u8),
        Named { name: String },
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "what is read is shown by `Debug`")]
    struct Wrapped(u32);

    /// Every shape of a config is read, or refused, as `serde_json` does with `serde_path_to_error`.
    #[test]
    fn shapes_are_those_of_serde_json() {
        let table = [
            r#"{"flag": true}"#,
            r#"{"flag": true, "ratio": 1, "letter": "é", "pair": [-3, "x"], "nothing": null}"#,
            r#"{"flag": true, "ratio": -1.5e+20, "any": {"a": [1, -1, 0.5, null, "x", true]}}"#,
            r#"{"flag": true, "rules": ["all", {"older": "3d"}, {"between": [1, 2]}, {"named": {"name": "x"}}]}"#,
            r#"{"flag": true, "ranks": {"1": 5, "200": 6}}"#,
            "{}",
            r#"{"flag": null}"#,
            r#"{"flag": 1e+300}"#,
            r#"{"flag": -0.0}"#,
            r#"{"flag": true, "ratio": "x"}"#,
            r#"{"flag": true, "letter": "xy"}"#,
            r#"{"flag": true, "letter": false}"#,
            r#"{"flag": true, "pair": [1]}"#,
            r#"{"flag": true, "pair": [1, "x", 2]}"#,
            r#"{"flag": true, "pair": [1, 2]}"#,
            r#"{"flag": true, "pair": [300, "x"]}"#,
            r#"{"flag": true, "pair": {"a": 1}}"#,
            r#"{"flag": true, "nothing": 0}"#,
            r#"{"flag": true, "rules": {"all": 1}}"#,
            r#"{"flag": true, "rules": ["all", "none"]}"#,
            r#"{"flag": true, "rules": ["older"]}"#,
            r#"{"flag": true, "rules": ["between"]}"#,
            r#"{"flag": true, "rules": ["named"]}"#,
            r#"{"flag": true, "rules": [7]}"#,
            r#"{"flag": true, "rules": [{}]}"#,
            r#"{"flag": true, "rules": [{"all": null}]}"#,
            r#"{"flag": true, "rules": [{"all": 1}]}"#,
            r#"{"flag": true, "rules": [{"older": "3d", "all": 1}]}"#,
            r#"{"flag": true, "rules": [{"older": "3 days"}]}"#,
            r#"{"flag": true, "rules": [{"older": 3}]}"#,
            r#"{"flag": true, "rules": [{"between": 1}]}"#,
            r#"{"flag": true, "rules": [{"between": [1, "x"]}]}"#,
            r#"{"flag": true, "rules": [{"named": []}]}"#,
            r#"{"flag": true, "rules": [{"named": {}}]}"#,
            r#"{"flag": true, "rules": [{"named": {"name": 1}}]}"#,
            r#"{"flag": true, "rules": [{"named": {"nom": "x"}}]}"#,
            r#"{"flag": true, "ranks": {"1": -5}}"#,
        ];
        for text in table {
            let ours = value::deserialize::<Shapes>(&Value::read(text).unwrap());
            let theirs: serde_json::Value = serde_json::from_str(text).unwrap();
            let theirs = serde_path_to_error::deserialize::<_, Shapes>(theirs).map_err(|error| {
                let path = error.path().to_string();
                let inner = error.into_inner();
                // The path of the whole config is a dot.
                if path == "." { inner.to_string() } else { format!("`{path}`: {inner}") }
            });
            let words = |result: Result<Shapes, String>| result.map(|shapes| format!("{shapes:?}"));
            assert_eq!(words(ours.map_err(|error| error.to_string())), words(theirs), "{text}");
        }
    }
}
