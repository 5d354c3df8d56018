//! A grant as the file that a person would write.

use larder::policy::{Grant, GrantDocument, Guard, Limits};
use serde::Serialize;
use toml_edit::{DocumentMut, Item, Value};

use crate::exit::Failure;

/// The lines of a grant's file: what it lets a policy see, and every other key that is not at its default.
pub(crate) fn lines(document: &GrantDocument) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    table("grant", &document.grant, &Grant::default(), &["read"], &mut lines)?;
    table("guard", &document.guard, &Guard::default(), &[], &mut lines)?;
    table("limits", &document.limits, &Limits::default(), &[], &mut lines)?;
    Ok(lines)
}

fn table<T: Serialize>(
    name: &str,
    table: &T,
    default: &T,
    always: &[&str],
    lines: &mut Vec<String>,
) -> Result<(), Failure> {
    let (table, default) = (document(table)?, document(default)?);
    let text = |item: &Item| item.to_string().trim().to_owned();
    let said = table.iter().filter(|(key, item)| {
        always.contains(key) || default.get(key).map(text).as_deref() != Some(text(item).as_str())
    });
    let mut said = said.peekable();
    if said.peek().is_some() {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.push(format!("[{name}]"));
    }
    for (key, item) in said {
        match item.as_value() {
            // One entry a line, so that a difference is a line.
            Some(Value::Array(array)) if !array.is_empty() => {
                lines.push(format!("{key} = ["));
                lines.extend(array.iter().map(|entry| format!("    {},", entry.to_string().trim())));
                lines.push("]".to_owned());
            }
            _ => lines.push(format!("{key} = {}", text(item))),
        }
    }
    Ok(())
}

fn document(table: &impl Serialize) -> Result<DocumentMut, Failure> {
    toml_edit::ser::to_document(table)
        .map_err(|error| Failure::failed("output", "could not write the grant as TOML", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written reads back as the same grant, in whichever keys it differs from the default.
    #[test]
    fn grants_read_back() {
        let texts = [
            "",
            "[grant]\nread = []",
            "[grant]\nread = [\"docker.io/a/**\", \"docker.io/b/**\"]\nremove = [\"docker.io/a/**\"]\nsecrets = true\nmax-bytes = \"1234567B\"",
            "[grant]\nmax-share = \"12.5%\"\n[guard]\nmin-age = \"0s\"\nkeep = 2\n[limits]\nfuel = 12\ntime = \"1m30s\"",
        ];
        for text in texts {
            let document: GrantDocument = text.parse().expect("a grant");
            let written = lines(&document).expect("lines").join("\n");
            assert_eq!(written.parse::<GrantDocument>().expect("a grant"), document, "{written}");
        }
        let default = lines(&GrantDocument::default()).expect("lines");
        assert_eq!(default, ["[grant]", "read = [", "    \"**\",", "]"]);
    }
}
