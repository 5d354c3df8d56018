//! Image references, as the host reads them: normalized, with repository and tag.
//!
//! The grammar is that of the distribution specification's `reference` package. Only the cache in memory needs it: a
//! policy finds repository and tag in the handle.

/// A reference in normalized form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// The whole of it, such as `docker.io/library/python:3.12`.
    pub(super) normalized: String,
    /// Without tag and digest, such as `docker.io/library/python`.
    pub(super) repository: String,
    /// The tag; absent if there is only a digest.
    pub(super) tag: Option<String>,
}

impl Reference {
    /// Reads a reference in any spelling. None if the text is not one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (tagged, digest) = match text.split_once('@') {
            Some((tagged, digest)) => (tagged, Some(digest)),
            None => (text, None),
        };
        let segment = tagged.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match tagged[segment..].find(':') {
            Some(colon) => (&tagged[..segment + colon], Some(&tagged[segment + colon + 1..])),
            None => (tagged, None),
        };
        let (registry, path) = match name.split_once('/') {
            Some((first, rest)) if first == "localhost" || first.contains(['.', ':']) => (first, rest),
            _ => ("docker.io", name),
        };
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        let is_official = registry == "docker.io" && !path.contains('/');
        let repository = format!("{registry}/{}{path}", if is_official { "library/" } else { "" });
        let is_valid = is_registry(registry)
            && path.split('/').all(is_path_segment)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_digest)
            && repository.len() <= 255;
        if !is_valid {
            return None;
        }
        let tag = tag.or(digest.is_none().then_some("latest")).map(str::to_owned);
        let mut normalized = repository.clone();
        if let Some(tag) = &tag {
            normalized = format!("{normalized}:{tag}");
        }
        if let Some(digest) = digest {
            normalized = format!("{normalized}@{digest}");
        }
        Some(Self { normalized, repository, tag })
    }
}

/// Returns the normalized form of a reference, or the text itself if it is not one.
pub(super) fn normalize(text: &str) -> String {
    Reference::parse(text).map_or_else(|| text.to_owned(), |reference| reference.normalized)
}

fn is_registry(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let is_label = |label: &str| {
        let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '-';
        !label.is_empty() && label.chars().all(is_inside) && !label.starts_with('-') && !label.ends_with('-')
    };
    host.split('.').all(is_label)
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Tells whether a text is lower-case letters and digits with separators between them: `.`, `_`, `__` or dashes.
fn is_path_segment(text: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator =
        |part: &str| matches!(part, "." | "_" | "__") || (!part.is_empty() && part.chars().all(|c| c == '-'));
    let mut rest = text;
    loop {
        let word = rest.find(|c| !is_alphanumeric(c)).unwrap_or(rest.len());
        if word == 0 {
            return false;
        }
        rest = &rest[word..];
        if rest.is_empty() {
            return true;
        }
        let separator = rest.find(is_alphanumeric).unwrap_or(rest.len());
        if !is_separator(&rest[..separator]) {
            return false;
        }
        rest = &rest[separator..];
    }
}

fn is_tag(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= 128 && text.starts_with(is_word) && text.chars().all(|c| is_word(c) || c == '.' || c == '-')
}

/// Tells whether a text is an algorithm and at least 32 hexadecimal digits; of the known algorithms, exactly as many as
/// they have.
fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    let is_component = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic()) && part.chars().all(|c| c.is_ascii_alphanumeric())
    };
    let length = match algorithm {
        "sha256" => hex.len() == 64,
        "sha384" => hex.len() == 96,
        "sha512" => hex.len() == 128,
        _ => hex.len() >= 32,
    };
    length
        && algorithm.split(['+', '.', '-', '_']).all(is_component)
        && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:00000000000000000000000000000000000000000000000000000000000000ff";

    /// A reference is normalized whichever way it is spelled, and its repository is what is left without tag and digest.
    #[test]
    fn spellings() {
        let table = [
            ("docker.io/acme/app:v7", "docker.io/acme/app", Some("v7"), ":v7"),
            ("acme/app:v7", "docker.io/acme/app", Some("v7"), ":v7"),
            ("index.docker.io/python", "docker.io/library/python", Some("latest"), ":latest"),
            ("python:3", "docker.io/library/python", Some("3"), ":3"),
            ("localhost/app", "localhost/app", Some("latest"), ":latest"),
            ("localhost:5000/app:1", "localhost:5000/app", Some("1"), ":1"),
            ("quay.io/a/b/c@DIGEST", "quay.io/a/b/c", None, "@DIGEST"),
            ("quay.io/a/b:1@DIGEST", "quay.io/a/b", Some("1"), ":1@DIGEST"),
        ];
        for (text, repository, tag, rest) in table {
            let reference = Reference::parse(&text.replace("DIGEST", DIGEST)).unwrap();
            let normalized = format!("{repository}{rest}").replace("DIGEST", DIGEST);
            assert_eq!(reference.normalized, normalized, "{text}");
            assert_eq!((&*reference.repository, reference.tag.as_deref()), (repository, tag), "{text}");
        }
    }

    /// A text that is no reference is told from one, and nothing panics.
    #[test]
    fn odd_texts() {
        for text in
            ["", ":", "/", "@", "a@", "é:1", "//::@@", "A/b", "a/b:", "a:é", "a__.b", "a@sha256:00", "a/-b"]
        {
            assert_eq!(Reference::parse(text), None, "{text}");
            assert_eq!(normalize(text), text);
        }
    }
}
