//! Deserialization of a config from a JSON value, with errors that name the key.
//!
//! `serde_json` with `serde_path_to_error` does the same, and would be half of a component.

use std::fmt;
use std::marker::PhantomData;
use std::slice::Iter;

use super::json::{Number, Value};
use serde::Deserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, Expected, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

/// Deserializes a config from its JSON object.
pub(super) fn deserialize<C: DeserializeOwned>(config: &Value<'_>) -> Result<C, Mismatch> {
    C::deserialize(Part(config))
}

/// An error of deserialization. As text, the path of keys to what does not fit, and why it does not.
#[derive(Debug)]
pub(super) struct Mismatch {
    /// Empty for the whole config.
    path: String,
    message: String,
    /// Where in the message the text of the float is missing that was not expected.
    float: Option<usize>,
}

impl Mismatch {
    fn new(kind: &str, unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let mut message = format!("invalid {kind}: {}", Words(unexpected));
        let float = matches!(unexpected, Unexpected::Float(_)).then(|| message.len() - 1);
        message += &format!(", expected {expected}");
        Self { path: String::new(), message, float }
    }

    /// This error with the text of the float that was not expected, if one was not.
    fn with_float(mut self, text: &str) -> Self {
        if let Some(place) = self.float.take() {
            self.message.insert_str(place, text);
        }
        self
    }

    /// This error as one of the value that contains the erroneous one at `key`.
    fn below(mut self, key: &str) -> Self {
        let separator = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{key}{separator}{}", self.path);
        self
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.message),
            path => write!(f, "`{path}`: {}", self.message),
        }
    }
}

impl std::error::Error for Mismatch {}

impl serde::de::Error for Mismatch {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { path: String::new(), message: message.to_string(), float: None }
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new("type", unexpected, expected)
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new("value", unexpected, expected)
    }
}

/// A value that was not expected, in the words of `serde_json`.
struct Words<'a>(Unexpected<'a>);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Unexpected::Bool(value) => write!(f, "boolean `{value}`"),
            Unexpected::Unsigned(value) => write!(f, "integer `{value}`"),
            Unexpected::Signed(value) => write!(f, "integer `{value}`"),
            // As it is written in the config, which is inserted where that is at hand.
            Unexpected::Float(_) => f.write_str("floating point ``"),
            Unexpected::Char(value) => write!(f, "character `{value}`"),
            Unexpected::Str(value) => write!(f, "string {value:?}"),
            Unexpected::Unit => f.write_str("null"),
            Unexpected::Seq => f.write_str("sequence"),
            Unexpected::Map => f.write_str("map"),
            Unexpected::UnitVariant => f.write_str("unit variant"),
            Unexpected::NewtypeVariant => f.write_str("newtype variant"),
            Unexpected::TupleVariant => f.write_str("tuple variant"),
            Unexpected::StructVariant => f.write_str("struct variant"),
            Unexpected::Other(what) => f.write_str(what),
            // No value in JSON.
            Unexpected::Bytes(_) | Unexpected::Option | Unexpected::NewtypeStruct | Unexpected::Enum => {
                f.write_str("another value")
            }
        }
    }
}

/// A value of the config.
#[derive(Clone, Copy)]
struct Part<'de>(&'de Value<'de>);

impl<'de> Deserializer<'de> for Part<'de> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            Value::Array(items) => visit_items(items, visitor),
            Value::Object(entries) => visit_entries(entries, visitor),
            scalar => visit_scalar(scalar, visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        if matches!(self.0, Value::Null) { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        let (variant, content) = match self.0 {
            Value::String(variant) => (variant, None),
            Value::Object(entries) => {
                let [(variant, content)] = entries.as_slice() else {
                    return Err(Mismatch::new("value", Unexpected::Map, &"map with a single key"));
                };
                (variant, Some(Part(content)))
            }
            _ => return self.deserialize_any(Refused { expected: "string or map", value: PhantomData }),
        };
        visitor.visit_enum(Variant { variant, content })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match self.0 {
            Value::Object(entries) => visit_entries(entries, visitor),
            // Fields without their names are no config, although serde would take them.
            Value::Array(_) => Err(Mismatch::new("type", Unexpected::Seq, &visitor)),
            scalar => visit_scalar(scalar, visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier
    }
}

/// Visits a value that is neither an array nor an object.
fn visit_scalar<'de, V: Visitor<'de>>(value: &'de Value<'de>, visitor: V) -> Result<V::Value, Mismatch> {
    match value {
        Value::Bool(value) => visitor.visit_bool(*value),
        Value::String(value) => visitor.visit_borrowed_str(value),
        Value::Number(text) => match Number::read(text) {
            Number::Unsigned(value) => visitor.visit_u64(value),
            Number::Signed(value) => visitor.visit_i64(value),
            Number::Float(value) => {
                visitor.visit_f64(value).map_err(|error: Mismatch| error.with_float(text))
            }
        },
        Value::Null | Value::Array(_) | Value::Object(_) => visitor.visit_unit(),
    }
}

fn visit_items<'de, V: Visitor<'de>>(items: &'de [Value<'de>], visitor: V) -> Result<V::Value, Mismatch> {
    let mut rest = Items { items: items.iter(), index: 0 };
    let value = visitor.visit_seq(&mut rest)?;
    if rest.items.len() > 0 {
        return Err(Mismatch::invalid_length(items.len(), &"fewer elements in array"));
    }
    Ok(value)
}

fn visit_entries<'de, V: Visitor<'de>>(
    entries: &'de [(String, Value<'de>)],
    visitor: V,
) -> Result<V::Value, Mismatch> {
    let mut rest = Entries { entries: entries.iter(), entry: None };
    let value = visitor.visit_map(&mut rest)?;
    if rest.entries.len() > 0 {
        return Err(Mismatch::invalid_length(entries.len(), &"fewer elements in map"));
    }
    Ok(value)
}

/// Refuses every value: for the error that says which it is.
struct Refused<T> {
    expected: &'static str,
    value: PhantomData<T>,
}

impl<T> Visitor<'_> for Refused<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }
}

/// The items of an array that are not read yet.
struct Items<'de> {
    items: Iter<'de, Value<'de>>,
    /// Of the next one.
    index: usize,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Mismatch;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mismatch> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        seed.deserialize(Part(item)).map(Some).map_err(|error| error.below(&format!("[{index}]")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// The entries of an object that are not read yet.
struct Entries<'de> {
    entries: Iter<'de, (String, Value<'de>)>,
    /// The entry whose key was read last.
    entry: Option<&'de (String, Value<'de>)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Mismatch;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mismatch> {
        self.entry = self.entries.next();
        let Some((key, _)) = self.entry else { return Ok(None) };
        seed.deserialize(Key(key)).map(Some).map_err(|error| error.below(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mismatch> {
        let (key, value) = self.entry.take().ok_or_else(|| Mismatch::custom("a value without its key"))?;
        seed.deserialize(Part(value)).map_err(|error| error.below(key))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}

/// The key of an entry. Where an integer is expected, as in a map from integers, the text of one is read as one.
struct Key<'de>(&'de str);

/// Methods that read a key as this type where it is the text of one.
macro_rules! parse_key {
    ($($method:ident $number:ty: $visit:ident,)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
            match self.0.parse::<$number>() {
                Ok(number) => visitor.$visit(number),
                Err(_) => self.deserialize_any(visitor),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Key<'de> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_borrowed_str(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_enum(Variant { variant: self.0, content: None })
    }

    parse_key! {
        deserialize_bool bool: visit_bool,
        deserialize_i8 i64: visit_i64,
        deserialize_i16 i64: visit_i64,
        deserialize_i32 i64: visit_i64,
        deserialize_i64 i64: visit_i64,
        deserialize_u8 u64: visit_u64,
        deserialize_u16 u64: visit_u64,
        deserialize_u32 u64: visit_u64,
        deserialize_u64 u64: visit_u64,
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
        ignored_any
    }
}

/// A variant of an enum, by its name, with its content where it has some.
struct Variant<'de> {
    variant: &'de str,
    content: Option<Part<'de>>,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Mismatch;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Mismatch> {
        Ok((seed.deserialize(Key(self.variant))?, self))
    }
}

impl<'de> Variant<'de> {
    /// Deserializes the content of a variant that has some.
    fn read<T>(
        self,
        missing: &str,
        read: impl FnOnce(Part<'de>) -> Result<T, Mismatch>,
    ) -> Result<T, Mismatch> {
        let content = self.content.ok_or_else(|| Mismatch::new("type", Unexpected::UnitVariant, &missing));
        content.and_then(read).map_err(|error| error.below(self.variant))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Mismatch;

    fn unit_variant(self) -> Result<(), Mismatch> {
        let Some(content) = self.content else { return Ok(()) };
        serde::Deserialize::deserialize(content).map_err(|error: Mismatch| error.below(self.variant))
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Mismatch> {
        self.read("newtype variant", |content| seed.deserialize(content))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Mismatch> {
        self.read("tuple variant", |content| match content.0 {
            Value::Array(items) => visit_items(items, visitor),
            _ => content.deserialize_any(Refused { expected: "tuple variant", value: PhantomData }),
        })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.read("struct variant", |content| match content.0 {
            Value::Object(entries) => visit_entries(entries, visitor),
            _ => content.deserialize_any(Refused { expected: "struct variant", value: PhantomData }),
        })
    }
}
