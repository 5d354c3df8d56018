//! The files that commands read besides the home: plans, policies, their configs and grants.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use larder::policy::{ByteSize, GrantDocument};
use serde_json::{Map, Value};

use crate::exit::Failure;

/// Reads a file of text that the arguments name.
pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    let not_text =
        |_| Failure::unreadable(path, io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"));
    String::from_utf8(bytes(path, "plan, grant or config")?).map_err(not_text)
}

/// Reads the bytes of a policy.
pub(crate) fn policy(path: &Path) -> Result<Vec<u8>, Failure> {
    bytes(path, "policy")
}

/// Reads the bytes of a file of certificates.
#[cfg(feature = "registry")]
pub(crate) fn certificates(path: &Path) -> Result<Vec<u8>, Failure> {
    bytes(path, "file of certificates")
}

/// Reads the bytes of a file. Refuses a file of more than [`MAX_BYTES`] without reading it to its end.
fn bytes(path: &Path, kind: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES.as_bytes() + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::unreadable(path, error))?;
    if bytes.len() as u64 > MAX_BYTES.as_bytes() {
        let message = format!("`{}` has more than {MAX_BYTES:#}: no {kind} is that large", path.display());
        return Err(Failure::usage(message));
    }
    Ok(bytes)
}

/// The maximum size of a file: more than any engine compiles, and more than the plan of a million images.
const MAX_BYTES: ByteSize = ByteSize::mib(256);

/// Reads a grant.
pub(crate) fn grant(path: &Path) -> Result<GrantDocument, Failure> {
    Ok(GrantDocument::from_toml(&read(path)?, &path.display().to_string())?)
}

/// A part of a policy's config.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ConfigArgument {
    /// A key and its value.
    Value(String, Value),
    /// A file with an object in it.
    File(PathBuf),
}

impl FromStr for ConfigArgument {
    type Err = std::convert::Infallible;

    /// Parses an argument. A text that begins with a key and `=` is a value: JSON if it parses as JSON, and
    /// otherwise a text. Any other text is the path of a file.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_key = |key: &str| {
            !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        Ok(match text.split_once('=') {
            Some((key, value)) if is_key(key) => {
                let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
                Self::Value(key.to_owned(), value)
            }
            _ => Self::File(text.into()),
        })
    }
}

/// Writes the argument as it can be typed: the text parses to the same argument.
impl fmt::Display for ConfigArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(key, Value::String(text)) if serde_json::from_str::<Value>(text).is_err() => {
                write!(f, "{key}={text}")
            }
            Self::Value(key, value) => write!(f, "{key}={value}"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// Merges these arguments into one config. A later value of a key replaces an earlier one.
pub(crate) fn config(arguments: &[ConfigArgument]) -> Result<Value, Failure> {
    let mut config = Map::new();
    for argument in arguments {
        match argument {
            ConfigArgument::Value(key, value) => {
                config.insert(key.clone(), value.clone());
            }
            ConfigArgument::File(path) => config.extend(object(path)?),
        }
    }
    Ok(Value::Object(config))
}

/// Reads the object in a file of JSON or TOML.
fn object(path: &Path) -> Result<Map<String, Value>, Failure> {
    let text = read(path)?;
    let invalid =
        |problem: String| Failure::usage(format!("`{}` is not a config: {problem}", path.display()));
    if path.extension().is_some_and(|extension| extension == "toml") {
        let table: toml::Table =
            text.parse().map_err(|error: toml::de::Error| invalid(error.message().to_owned()))?;
        let values = table.into_iter().map(|(key, value)| Ok((key, json(value)?)));
        return values.collect::<Result<_, String>>().map_err(invalid);
    }
    match serde_json::from_str(&text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(invalid("expected a JSON object, or TOML in a file that ends in `.toml`".to_owned())),
        Err(error) => Err(invalid(format!("{error}; TOML is read from files that end in `.toml`"))),
    }
}

/// Converts a TOML value to JSON. Dates are converted to texts.
pub(crate) fn json(value: toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Float(number) => {
            let number = serde_json::Number::from_f64(number);
            number.ok_or("JSON has neither infinity nor `nan`")?.into()
        }
        toml::Value::Boolean(value) => value.into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(values) => values.into_iter().map(json).collect::<Result<Vec<_>, _>>()?.into(),
        toml::Value::Table(table) => {
            let values = table.into_iter().map(|(key, value)| Ok((key, json(value)?)));
            Value::Object(values.collect::<Result<_, String>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A file without an end is refused, for every kind of file.
    #[test]
    fn what_is_read_has_a_bound() {
        for refused in [read(Path::new("/dev/zero")).map(drop), policy(Path::new("/dev/zero")).map(drop)] {
            let message = refused.expect_err("a refusal").messages().collect::<String>();
            assert!(message.contains("`/dev/zero` has more than 256.0 MiB"), "{message}");
        }
    }

    fn parse(text: &str) -> ConfigArgument {
        let Ok(argument) = text.parse();
        argument
    }

    /// A value is JSON if it parses as JSON, and otherwise a text. Every other argument is a file.
    #[test]
    fn arguments() {
        let value = |key: &str, value: Value| ConfigArgument::Value(key.to_owned(), value);
        let table = [
            ("keep=2", value("keep", 2.into())),
            ("used-within=30d", value("used-within", "30d".into())),
            ("only=[\"a\",\"b\"]", value("only", vec!["a", "b"].into())),
            ("dry=true", value("dry", true.into())),
            ("name=\"2\"", value("name", "2".into())),
            ("empty=", value("empty", "".into())),
            ("a=b=c", value("a", "b=c".into())),
            ("config.json", ConfigArgument::File("config.json".into())),
            ("./keep=2.json", ConfigArgument::File("./keep=2.json".into())),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text), expected, "{text}");
            assert_eq!(parse(&parse(text).to_string()), expected, "{text}");
        }
    }

    /// Files of both kinds contain an object, and a later value of a key replaces an earlier one.
    #[test]
    fn later_pieces_win() {
        let directory = tempfile::tempdir().expect("a directory");
        let [toml, json] = ["a.toml", "a.json"].map(|name| directory.path().join(name));
        fs::write(&toml, "keep = 1\nsince = 2026-01-01\n[nested]\nratio = 0.5").expect("a file");
        fs::write(&json, "{\"keep\": 2}").expect("a file");
        let pieces = [ConfigArgument::File(toml), ConfigArgument::File(json), parse("keep=3")];
        let expected = serde_json::json!({ "keep": 3, "since": "2026-01-01", "nested": { "ratio": 0.5 } });
        assert_eq!(config(&pieces).expect("a config"), expected);
        assert_eq!(config(&pieces[..2]).expect("a config")["keep"], 2);
    }
}
