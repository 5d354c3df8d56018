use std::cmp::Ordering;
use std::str::FromStr;

use larder::LocalBackend;
use larder::pattern::{PatternError, ReferencePattern};
use larder::reference::{Reference, ReferenceError};
use larder::snapshot::ImageRecord;

use super::look;
use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::render::table::{Align, Table};
use crate::render::{NOTHING, age, short_digest, size};

/// List images
///
/// PATTERN is a repository, such as `python`, or a reference, such as `python:3.12`, or a pattern as in a grant: `*`
/// stands for any text within one path segment or tag, `**` for any text, and the whole normalized reference has to
/// match. CREATED is the time when the reference was first added, ARRIVED the time when the image that it names now was:
/// `max-age`, and `min-age` of a guard, count from that.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder ls --unused --sort size
  larder ls python
  larder ls 'docker.io/acme/**'")]
pub(crate) struct Ls {
    /// Only images that match
    pattern: Option<Selection>,
    /// Only images that nothing uses and that are not pinned
    #[arg(long)]
    unused: bool,
    /// The order: newest, most recently used or largest first, or alphabetically
    #[arg(long, value_name = "KEY", default_value = "created")]
    sort: Key,
    /// Reverse the order
    #[arg(long, short)]
    reverse: bool,
}

/// The sort key of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Key {
    Created,
    Used,
    Size,
    Reference,
}

/// A selection of the images to list.
#[derive(Debug, Clone)]
enum Selection {
    Pattern(ReferencePattern),
    /// One reference, or every reference of a repository. For references that do not parse, the text itself.
    Name {
        text: String,
        reference: Reference,
        names_repository: bool,
    },
}

/// The error for text that is not a selection.
#[derive(Debug)]
enum SelectionError {
    Pattern(PatternError),
    Reference(ReferenceError),
}

impl std::fmt::Display for SelectionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pattern(error) => error.fmt(f),
            Self::Reference(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SelectionError {}

impl FromStr for Selection {
    type Err = SelectionError;

    fn from_str(text: &str) -> Result<Self, SelectionError> {
        if text.contains('*') {
            return text.parse().map(Self::Pattern).map_err(SelectionError::Pattern);
        }
        let reference: Reference = text.parse().map_err(SelectionError::Reference)?;
        // Normalizing adds `latest` to a name without a tag.
        let tag = &reference.as_str()[reference.repository().len()..];
        let names_repository = !text.ends_with(tag);
        Ok(Self::Name { text: text.to_owned(), reference, names_repository })
    }
}

impl Selection {
    /// Returns the pattern that selects the same images.
    fn to_pattern(&self) -> Option<ReferencePattern> {
        match self {
            Self::Pattern(pattern) => Some(pattern.clone()),
            Self::Name { reference, names_repository: true, .. } => reference.repository().parse().ok(),
            Self::Name { reference, .. } => reference.as_str().parse().ok(),
        }
    }

    fn matches(&self, reference: &str) -> bool {
        let parsed = reference.parse::<Reference>();
        match (self, parsed) {
            (Self::Pattern(pattern), Ok(parsed)) => pattern.matches(&parsed),
            (Self::Pattern(pattern), Err(_)) => pattern.as_str() == "**",
            (Self::Name { reference, names_repository: true, .. }, Ok(parsed)) => {
                parsed.repository() == reference.repository()
            }
            (Self::Name { reference, .. }, Ok(parsed)) => parsed == *reference,
            (Self::Name { text, .. }, Err(_)) => text == reference,
        }
    }
}

impl Key {
    /// Compares two images by this key. Unknown values are last.
    fn compare(self, a: &ImageRecord, b: &ImageRecord) -> Ordering {
        let (a, b) = (&a.handle, &b.handle);
        match self {
            Self::Created => b.created_at().cmp(&a.created_at()),
            Self::Used => b.last_used_at().cmp(&a.last_used_at()),
            Self::Size => b.size_bytes().cmp(&a.size_bytes()),
            Self::Reference => a.reference().cmp(b.reference()),
        }
    }
}

impl Ls {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let local = context.open().await?;
        let mut images = look(&local, |source| source.images()).await?;
        let all = images.len();
        images.retain(|image| {
            (!self.unused || image.users.is_empty() && !image.pinned)
                && self.pattern.as_ref().is_none_or(|pattern| pattern.matches(image.handle.reference()))
        });
        // The library lists the newest first, and a stable sort keeps that among equals.
        if self.sort != Key::Created {
            images.sort_by(|a, b| self.sort.compare(a, b));
        }
        if self.reverse {
            images.reverse();
        }
        if context.console.is_json() {
            // As the SDK has them, and no more.
            let handles: Vec<_> = images.iter().map(|image| &image.handle).collect();
            context.console.json(&handles)?;
            return Ok(Status::Done);
        }
        context.console.data(&table(&images, context))?;
        if images.is_empty() {
            context.console.note(&match self.meant(&local).await? {
                _ if all == 0 => "the cache is empty".to_owned(),
                Some(meant) => format!("no image matches; did you mean `{meant}`?"),
                None => "no image matches".to_owned(),
            });
        }
        Ok(Status::Done)
    }

    /// Returns the pattern that was probably meant, if none of all images matches the one that was given.
    async fn meant(&self, local: &LocalBackend) -> Result<Option<ReferencePattern>, Failure> {
        let Some(pattern) = self.pattern.as_ref().and_then(Selection::to_pattern) else { return Ok(None) };
        let images = look(local, |source| source.images()).await?;
        let references = images.iter().filter_map(|image| image.handle.reference().parse().ok());
        let references: Vec<Reference> = references.collect();
        let is_there = references.iter().any(|reference| pattern.matches(reference));
        Ok(if is_there { None } else { pattern.likely_among(references.iter()) })
    }
}

fn table(images: &[ImageRecord], context: &Context) -> String {
    let columns = [
        ("REFERENCE", Align::Left),
        ("MANIFEST", Align::Left),
        ("LAYERS", Align::Right),
        ("SIZE", Align::Right),
        ("CREATED", Align::Left),
        ("ARRIVED", Align::Left),
        ("USED", Align::Left),
        ("NEEDED BY", Align::Left),
    ];
    let mut table = Table::new(columns, context.console.width());
    let now = context.now();
    for ImageRecord { handle, users, pinned, arrived_at, .. } in images {
        let pin = pinned.then(|| "a pin".to_owned());
        let users = (!users.is_empty()).then(|| users.to_string());
        let needs: Vec<String> = users.into_iter().chain(pin).collect();
        table.row([
            handle.reference().to_owned(),
            handle.manifest_digest().map_or(NOTHING.to_owned(), short_digest),
            handle.layer_count().to_string(),
            size::known(handle.size_bytes()),
            age::known(handle.created_at(), now),
            age::known(*arrived_at, now),
            age::known(handle.last_used_at(), now),
            needs.join(" and "),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name selects its repository, a name with a tag one reference, a pattern what it matches.
    #[test]
    fn selections() {
        let table = [
            ("python", "docker.io/library/python:3.12", true),
            ("python", "docker.io/library/python2:3.12", false),
            ("python:3.12", "docker.io/library/python:3.12", true),
            ("python:3.12", "docker.io/library/python:3.13", false),
            ("python:latest", "docker.io/library/python:3.12", false),
            ("localhost:5000/a", "localhost:5000/a:1", true),
            ("docker.io/library/python:3.*", "python:3.12", true),
            ("docker.io/*/python:*", "docker.io/library/python:3.12", true),
            ("**", "Not A Reference", true),
            ("**:latest", "Not A Reference", false),
        ];
        for (pattern, reference, expected) in table {
            let selection: Selection = pattern.parse().expect("a selection");
            assert_eq!(selection.matches(reference), expected, "{pattern} against {reference}");
        }
        let refused = "python:*".parse::<Selection>().expect_err("a pattern that matches nothing");
        assert!(refused.to_string().contains("docker.io/library/python:*"), "{refused}");
    }
}
