//! The config of a policy, as its JSON Schema describes it, for people.

use serde_json::{Map, Value};

use crate::console::Console;
use crate::render::table::{Align, Table};
use crate::render::{NOTHING, plain};

/// The keys of a config with their types, defaults and meanings; or the schema as it stands, where it has no keys.
pub(super) fn describe(schema: &Value, console: &Console) -> String {
    let Some(properties) = properties(schema).filter(|keys| !keys.is_empty()) else {
        return match schema {
            Value::Object(schema) if lists_no_keys(schema) => "  config   it has no keys\n".to_owned(),
            schema => format!("  config   {}\n", plain(&schema.to_string())),
        };
    };
    let columns = [
        ("  CONFIG", Align::Left),
        ("TYPE", Align::Left),
        ("DEFAULT", Align::Left),
        ("MEANING", Align::Left),
    ];
    let mut table = Table::new(columns, console.width());
    for (key, property) in properties {
        let resolved = resolve(schema, property);
        let default = property.get("default").or(resolved.get("default"));
        let default =
            default.filter(|default| !default.is_null()).map_or(NOTHING.to_owned(), Value::to_string);
        let text = |name| property.get(name).or(resolved.get(name)).and_then(Value::as_str);
        let meaning = text("description").or(text("title")).unwrap_or_default().replace('\n', " ");
        table.row([format!("  {key}"), kind(schema, property), default, meaning]);
    }
    table.render()
}

/// Returns the keys that a schema lists.
pub(super) fn keys(schema: &Value) -> Vec<&str> {
    properties(schema).into_iter().flatten().map(|(key, _)| key.as_str()).collect()
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties").and_then(Value::as_object)
}

/// Whether a schema says of an object no more than that, so that any key, or none, is allowed.
fn lists_no_keys(schema: &Map<String, Value>) -> bool {
    let says = |key: &str| {
        !matches!(key, "$schema" | "title" | "description" | "type" | "properties" | "additionalProperties")
    };
    !schema.keys().any(|key| says(key))
}

/// What a property refers to, or itself.
fn resolve<'a>(schema: &'a Value, property: &'a Value) -> &'a Value {
    let target = property.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#'));
    target.and_then(|target| schema.pointer(target)).unwrap_or(property)
}

/// The types that a value may have.
fn kind(schema: &Value, property: &Value) -> String {
    let property = resolve(schema, property);
    let names = match (property.get("type"), property.get("anyOf").or(property.get("oneOf"))) {
        (Some(Value::String(name)), _) => vec![name.clone()],
        (Some(Value::Array(names)), _) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        // A choice of choices is not followed: a schema may go round in circles.
        (None, Some(Value::Array(choices))) => choices
            .iter()
            .filter_map(|choice| resolve(schema, choice).get("type")?.as_str())
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    };
    let names: Vec<String> = names.into_iter().filter(|name| name != "null").collect();
    if names.is_empty() { "any".to_owned() } else { names.join(" or ") }
}
