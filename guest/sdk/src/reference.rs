//! Image references: how their spellings compare.

/// The normalized form of a reference: `python` is `docker.io/library/python:latest`.
///
/// The index keeps each reference as it was pulled. Whoever compares or groups references compares this.
///
/// ```
/// # use larder_guest::normalize;
/// assert_eq!(normalize("python"), "docker.io/library/python:latest");
/// assert_eq!(normalize("localhost:5000/app:1"), "localhost:5000/app:1");
/// ```
pub fn normalize(reference: &str) -> String {
    let name = repository(reference);
    let (_, suffix) = split_name(reference);
    if suffix.is_empty() { format!("{name}:latest") } else { format!("{name}{suffix}") }
}

/// The normalized repository of a reference: what is left without tag and digest.
///
/// ```
/// # use larder_guest::repository;
/// assert_eq!(repository("docker.io/acme/app:v7"), "docker.io/acme/app");
/// assert_eq!(repository("python:3.12"), "docker.io/library/python");
/// ```
pub fn repository(reference: &str) -> String {
    let (name, _) = split_name(reference);
    let (registry, path) = match name.split_once('/') {
        Some((first, rest)) if first == "localhost" || first.contains(['.', ':']) => (first, rest),
        _ => ("docker.io", name),
    };
    let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
    if registry == "docker.io" && !path.contains('/') {
        format!("docker.io/library/{path}")
    } else {
        format!("{registry}/{path}")
    }
}

/// Splits a reference where its tag or digest begins. A colon before the last slash is a registry's port.
fn split_name(reference: &str) -> (&str, &str) {
    let tagged = reference.split_once('@').map_or(reference, |(tagged, _)| tagged);
    let last_segment = tagged.rsplit_once('/').map_or(tagged, |(_, last)| last);
    let tag = last_segment.find(':').map_or(0, |colon| last_segment.len() - colon);
    // Never none: both lie where a character begins.
    reference.split_at_checked(tagged.len() - tag).unwrap_or((reference, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository is what is left of a reference without tag and digest, whichever way it was spelled.
    #[test]
    fn repositories() {
        let table = [
            ("docker.io/acme/app:v7", "docker.io/acme/app", "docker.io/acme/app:v7"),
            ("acme/app:v7", "docker.io/acme/app", "docker.io/acme/app:v7"),
            ("index.docker.io/python", "docker.io/library/python", "docker.io/library/python:latest"),
            ("docker.io/python:3", "docker.io/library/python", "docker.io/library/python:3"),
            ("python", "docker.io/library/python", "docker.io/library/python:latest"),
            ("localhost/app", "localhost/app", "localhost/app:latest"),
            ("localhost:5000/app:1", "localhost:5000/app", "localhost:5000/app:1"),
            ("quay.io/a/b/c@sha256:00ff", "quay.io/a/b/c", "quay.io/a/b/c@sha256:00ff"),
            ("quay.io/a/b:1@sha256:00ff", "quay.io/a/b", "quay.io/a/b:1@sha256:00ff"),
        ];
        for (reference, name, normal) in table {
            assert_eq!(repository(reference), name, "{reference}");
            assert_eq!(normalize(reference), normal, "{reference}");
        }
    }

    /// A text that is no reference at all still has a repository of its own, and nothing panics.
    #[test]
    fn odd_texts() {
        for text in ["", ":", "/", "@", "a@", "é:1", "//::@@"] {
            let _ = (repository(text), normalize(text));
        }
    }
}
