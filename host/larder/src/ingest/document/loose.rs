//! Values in documents that are written in more than one way: what Go's decoder takes is taken.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// Deserializes a value that may be `null`, which means an absent value.
pub(super) fn nullable<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Deserializes a list of texts in which `null` means an empty text.
pub(super) fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let list = Option::<Vec<Option<String>>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(list.into_iter().map(Option::unwrap_or_default).collect())
}

/// Deserializes a map of texts in which `null` means an empty text.
pub(super) fn map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let map = Option::<BTreeMap<String, Option<String>>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(map.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect())
}

/// Deserializes the command of a config. Old versions of Docker wrote a single word as a text.
pub(super) fn command<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Command {
        Word(String),
        Words(Vec<Option<String>>),
    }
    let command = Option::<Command>::deserialize(deserializer)?;
    Ok(command.map(|command| match command {
        Command::Word(word) => vec![word],
        Command::Words(words) => words.into_iter().map(Option::unwrap_or_default).collect(),
    }))
}

/// Deserializes the annotations of a descriptor. Those that are no texts are ignored.
pub(super) fn annotations<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Text(String),
        Other(serde::de::IgnoredAny),
    }
    let map = Option::<BTreeMap<String, Value>>::deserialize(deserializer)?.unwrap_or_default();
    let text = |(key, value)| match value {
        Value::Text(text) => Some((key, text)),
        Value::Other(_) => None,
    };
    Ok(map.into_iter().filter_map(text).collect())
}

/// Deserializes a text. An empty one means an absent value.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::<String>::deserialize(deserializer).map(|text| text.filter(|text| !text.is_empty()))
}
