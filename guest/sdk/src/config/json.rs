//! A reader of JSON (RFC 8259).
//!
//! A third of a component would be `serde_json`. A number is kept as it is written, for messages: the standard library
//! takes as much to write a float as this takes for everything.

use std::str::Chars;

/// How deep arrays and objects may be nested, as in `serde_json`.
const DEPTH: usize = 127;

/// A value, with numbers in the text that it was read from.
#[derive(Debug)]
pub(super) enum Value<'t> {
    Null,
    Bool(bool),
    Number(&'t str),
    String(String),
    Array(Vec<Value<'t>>),
    /// By key, each once: of equal keys the last.
    Object(Vec<(String, Value<'t>)>),
}

/// The value of a number, in the first of these that it fits.
#[derive(Debug)]
pub(super) enum Number {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
}

impl Number {
    pub(super) fn read(text: &str) -> Self {
        let integer = match text.strip_prefix('-') {
            None => text.parse().ok().map(Self::Unsigned),
            // Not as an `i64`, which would be one more parser.
            Some(digits) => {
                let magnitude = digits.parse().ok();
                magnitude.and_then(|magnitude| 0_i64.checked_sub_unsigned(magnitude)).map(Self::Signed)
            }
        };
        integer.unwrap_or_else(|| Self::Float(float(text)))
    }
}

impl<'t> Value<'t> {
    /// Reads a text that is one value. None where it is not.
    pub(super) fn read(text: &'t str) -> Option<Self> {
        let mut reader = Reader { rest: text };
        let value = reader.value(DEPTH)?;
        reader.skip_space();
        reader.rest.is_empty().then_some(value)
    }

    /// The entries of an object, by key; none of another value.
    pub(super) fn entries(&self) -> Option<&[(String, Value<'t>)]> {
        match self {
            Self::Object(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of this key in an object.
    pub(super) fn get(&self, key: &str) -> Option<&Value<'t>> {
        self.entries()?.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }
}

struct Reader<'t> {
    rest: &'t str,
}

impl<'t> Reader<'t> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// Reads what is expected, after white space, if it is there.
    fn token(&mut self, token: &str) -> Option<()> {
        self.skip_space();
        self.rest = self.rest.strip_prefix(token)?;
        Some(())
    }

    fn value(&mut self, depth: usize) -> Option<Value<'t>> {
        self.skip_space();
        match self.rest.bytes().next()? {
            b'n' => self.token("null").map(|()| Value::Null),
            b't' => self.token("true").map(|()| Value::Bool(true)),
            b'f' => self.token("false").map(|()| Value::Bool(false)),
            b'"' => self.string().map(Value::String),
            b'[' => {
                let mut items = Vec::new();
                self.list("[", "]", |reader| {
                    items.push(reader.value(depth.checked_sub(1)?)?);
                    Some(())
                })?;
                Some(Value::Array(items))
            }
            b'{' => {
                let mut entries = Vec::new();
                self.list("{", "}", |reader| {
                    reader.skip_space();
                    let key = reader.string()?;
                    reader.token(":")?;
                    let value = reader.value(depth.checked_sub(1)?)?;
                    // Kept in order: an object of a config has few keys.
                    match entries.binary_search_by(|(name, _): &(String, _)| name.cmp(&key)) {
                        Ok(index) => entries[index] = (key, value),
                        Err(index) => entries.insert(index, (key, value)),
                    }
                    Some(())
                })?;
                Some(Value::Object(entries))
            }
            _ => self.number().map(Value::Number),
        }
    }

    /// Reads what stands between two brackets, separated by commas.
    fn list(&mut self, open: &str, close: &str, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.token(open)?;
        if self.token(close).is_some() {
            return Some(());
        }
        loop {
            item(self)?;
            if self.token(close).is_some() {
                return Some(());
            }
            self.token(",")?;
        }
    }

    fn number(&mut self) -> Option<&'t str> {
        let text = self.rest;
        let digits = |text: &'t str| {
            let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
            (rest.len() < text.len()).then_some(rest)
        };
        let whole = text.strip_prefix('-').unwrap_or(text);
        let mut rest = match whole.strip_prefix('0') {
            Some(rest) => rest,
            None => digits(whole)?,
        };
        if let Some(fraction) = rest.strip_prefix('.') {
            rest = digits(fraction)?;
        }
        if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
            rest = digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))?;
        }
        self.rest = rest;
        text.strip_suffix(rest)
    }

    fn string(&mut self) -> Option<String> {
        let mut chars = self.rest.strip_prefix('"')?.chars();
        let mut text = String::new();
        loop {
            match chars.next()? {
                '"' => {
                    self.rest = chars.as_str();
                    return Some(text);
                }
                '\\' => text.push(match chars.next()? {
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'u' => match hex(&mut chars)? {
                        high @ 0xd800..0xdc00 => {
                            let escaped = (chars.next()?, chars.next()?) == ('\\', 'u');
                            let low =
                                hex(&mut chars).filter(|low| escaped && (0xdc00..0xe000).contains(low))?;
                            char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00))?
                        }
                        unit => char::from_u32(unit)?,
                    },
                    other @ ('"' | '\\' | '/') => other,
                    _ => return None,
                }),
                control if control < ' ' => return None,
                other => text.push(other),
            }
        }
    }
}

/// Returns the value of a number: the nearest float for up to 15 digits and a power of ten up to 22, and one close to it
/// for others. The standard library reads all of them exactly, in a sixth of a component.
fn float(number: &str) -> f64 {
    let (decimal, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (mut value, mut scale, mut after_point) = (0.0, 0_i32, false);
    for byte in decimal.bytes() {
        if byte.is_ascii_digit() {
            value = value * 10.0 + f64::from(byte - b'0');
            scale -= i32::from(after_point);
        }
        after_point |= byte == b'.';
    }
    // An exponent that does not fit is as good as infinite.
    let largest = if exponent.starts_with('-') { i32::MIN } else { i32::MAX };
    let scale = scale.saturating_add(exponent.parse().unwrap_or(largest)).clamp(-999, 999);
    if value != 0.0 {
        value = if scale < 0 { value / 10_f64.powi(-scale) } else { value * 10_f64.powi(scale) };
    }
    if number.starts_with('-') { -value } else { value }
}

/// Reads four hexadecimal digits.
fn hex(chars: &mut Chars<'_>) -> Option<u32> {
    (0..4).try_fold(0, |unit, _| Some((unit << 4) | chars.next()?.to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value as `serde_json` has it.
    fn theirs(value: Value<'_>) -> serde_json::Value {
        match value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => value.into(),
            Value::Number(text) => serde_json::from_str(text).unwrap(),
            Value::String(text) => text.into(),
            Value::Array(items) => items.into_iter().map(theirs).collect(),
            Value::Object(entries) => entries.into_iter().map(|(key, value)| (key, theirs(value))).collect(),
        }
    }

    /// Numbers as people write them are the floats of the standard library, and others are close to them.
    #[test]
    fn floats() {
        for text in [
            "0",
            "-0.0",
            "0.1",
            "-2.50",
            "123456.789e3",
            "1e22",
            "5E-1",
            "0.30000000000000004",
            "1e+15",
            "-1.5e+20",
        ] {
            assert_eq!(float(text).to_bits(), text.parse::<f64>().unwrap().to_bits(), "{text}");
        }
        let long = format!("0.{}123", "0".repeat(30));
        for text in
            ["1.7976931348623157e300", "-2.2250738585072014e-290", "123456789012345678901234567890", &long]
        {
            let (ours, exact) = (float(text), text.parse::<f64>().unwrap());
            assert!((ours / exact - 1.0).abs() < 1e-14, "{text}: {ours}");
        }
        for (text, expected) in
            [("1e99999999999", f64::INFINITY), ("1e-99999999999", 0.0), ("0e99999999999", 0.0)]
        {
            assert_eq!(float(text).to_bits(), expected.to_bits(), "{text}");
        }
    }

    /// What is JSON is read, and what is not is refused, as `serde_json` does.
    #[test]
    fn the_same_texts_as_serde_json() {
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let (deepest, too_deep) = (deep(127), deep(200));
        let table = [
            "null",
            " true\n",
            "false ",
            "\t0\r",
            "-0.5e+3",
            "10E-2",
            "18446744073709551615",
            "-9223372036854775808",
            r#""""#,
            r#""a\"\\\/\b\f\n\r\té\u00e9\u0000\ud83d\udce6📦""#,
            r#""\ud83d\ud83d""#,
            r#""\ud83dxxdce6""#,
            r#""\udce6""#,
            r#""\ud83d""#,
            r#""\u12""#,
            r#""\x""#,
            r#""\"#,
            r#"""#,
            "\"\n\"",
            "[]",
            "[ ]",
            "[1 , [2],{}]",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[",
            "{}",
            r#"{"b": 1, "a" :{"c":[null]}, "b": 2}"#,
            r#"{"a": 1,}"#,
            r#"{"a"}"#,
            r#"{a: 1}"#,
            r#"{1: 1}"#,
            r#"{"a": }"#,
            "",
            " ",
            "nul",
            "nulll",
            "01",
            "1.",
            ".5",
            "-",
            "+1",
            "1e",
            "1e+",
            "--1",
            "NaN",
            "null null",
            "\u{feff}null",
            "\u{a0}null",
            &deepest,
            &too_deep,
        ];
        for text in table {
            let expected: Option<serde_json::Value> = serde_json::from_str(text).ok();
            assert_eq!(Value::read(text).map(theirs), expected, "{text}");
        }
    }
}
