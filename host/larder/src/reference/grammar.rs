//! The grammar of references: `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`, as Docker's distribution project defines it.
//!
//! A decision needs the parts of ten thousand references within milliseconds, so the parser reads the text once,
//! from left to right, and copies nothing. It accepts only ASCII, as the grammar does. The tests compare it with
//! `oci-spec`, which differs only in accepting letters of any script in a tag, and no IPv6 addresses.

use std::net::Ipv6Addr;

/// The registry of a name without one, and its earlier name.
const DEFAULT_REGISTRY: &str = "docker.io";
const LEGACY_REGISTRY: &str = "index.docker.io";
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";

/// The maximum length of a repository, in characters.
pub(super) const MAX_REPOSITORY: usize = 255;

/// The parts of a reference, normalized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    pub(super) registry: &'a str,
    /// The prefix of the repository: `library/` if it is one of Docker's own, or empty.
    pub(super) namespace: &'static str,
    pub(super) repository: &'a str,
    pub(super) tag: Option<&'a str>,
    pub(super) digest: Option<&'a str>,
}

/// The error for text that is not a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Empty,
    TooLong,
    Digest,
    Other,
}

/// Parses a reference.
pub(super) fn parse(text: &str) -> Result<Parts<'_>, Fault> {
    if text.is_empty() {
        return Err(Fault::Empty);
    }
    let (tagged, digest) = match text.split_once('@') {
        Some((tagged, digest)) => (tagged, Some(digest)),
        None => (text, None),
    };
    let (name, tag) = match tagged.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (tagged, None),
    };
    if !is_name(name) || tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(Fault::Other);
    }
    let (registry, namespace, repository) = split(name);
    if namespace.len() + repository.len() > MAX_REPOSITORY {
        return Err(Fault::TooLong);
    }
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err(Fault::Digest);
    }
    let tag = tag.or(digest.is_none().then_some(DEFAULT_TAG));
    Ok(Parts { registry, namespace, repository, tag, digest })
}

/// Returns whether a text is a name: a path of lowercase components, the first of which may be a host instead. For a
/// normalized name whose first component has capitals, such as `docker.io/Acme/app`, the short form is a name.
fn is_name(name: &str) -> bool {
    let Some((first, rest)) = name.split_once('/') else { return is_component(name) };
    let has_path = rest.split('/').all(is_component);
    (has_path && (is_host(first) || is_component(first)))
        || (is_docker(first) && is_short_with_capitals(rest))
}

fn is_short_with_capitals(name: &str) -> bool {
    name.split_once('/').is_some_and(|(first, rest)| {
        !is_registry(first) && is_host(first) && rest.split('/').all(is_component)
    })
}

/// Splits a name into registry, Docker's own namespace if it is implied, and repository.
fn split(name: &str) -> (&str, &'static str, &str) {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if is_docker(first) => (DEFAULT_REGISTRY, rest),
        Some((first, rest)) if is_registry(first) => (first, rest),
        _ => (DEFAULT_REGISTRY, name),
    };
    let is_official = registry == DEFAULT_REGISTRY && !repository.contains('/');
    (registry, if is_official { OFFICIAL } else { "" }, repository)
}

fn is_docker(host: &str) -> bool {
    host == DEFAULT_REGISTRY || host == LEGACY_REGISTRY
}

/// Returns whether the first component of a path is a registry.
fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

/// Returns whether a text is a component: letters and digits, with single `.` or `_`, `__`, or any number of `-`
/// between them.
fn is_component(text: &str) -> bool {
    let mut bytes = text.bytes().peekable();
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    loop {
        // A run of letters and digits, which is never empty.
        if bytes.next_if(|&byte| is_plain(byte)).is_none() {
            return false;
        }
        while bytes.next_if(|&byte| is_plain(byte)).is_some() {}
        match bytes.next() {
            None => return true,
            Some(b'.') => {}
            Some(b'_') => drop(bytes.next_if_eq(&b'_')),
            Some(b'-') => while bytes.next_if_eq(&b'-').is_some() {},
            Some(_) => return false,
        }
    }
}

/// Returns whether a text is a host name or an IPv6 address in brackets, with an optional port.
fn is_host(text: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((address, rest)) = bracketed(text) {
        return address.parse::<Ipv6Addr>().is_ok()
            && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

/// Returns the text in the brackets that a text begins with, and the text after them.
pub(super) fn bracketed(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('[')?.split_once(']')
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = text.bytes();
    text.len() <= 128
        && bytes.next().is_some_and(is_word)
        && bytes.all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

/// Returns whether a text is a digest of one of the algorithms that the OCI image specification registers.
fn is_digest(text: &str) -> bool {
    let length = |algorithm| match algorithm {
        "sha256" => Some(64),
        "sha384" => Some(96),
        "sha512" => Some(128),
        _ => None,
    };
    text.split_once(':').is_some_and(|(algorithm, digits)| {
        length(algorithm) == Some(digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use oci_spec::distribution::Reference as OciReference;
    use proptest::prelude::*;

    use super::*;

    fn text(parts: Parts<'_>) -> String {
        let Parts { registry, namespace, repository, tag, digest } = parts;
        let tag = tag.map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = digest.map(|digest| format!("@{digest}")).unwrap_or_default();
        format!("{registry}/{namespace}{repository}{tag}{digest}")
    }

    /// Returns the result of `oci-spec` for a text, and for the short form of a normalized name with capitals.
    fn judged(text: &str) -> Option<String> {
        let short =
            || ["docker.io/", "index.docker.io/"].iter().find_map(|registry| text.strip_prefix(registry));
        let parsed = OciReference::try_from(text).ok();
        let parsed = parsed.or_else(|| {
            OciReference::try_from(short()?).ok().filter(|parsed| parsed.registry() == "docker.io")
        });
        parsed.map(|parsed| parsed.to_string())
    }

    fn agrees(reference: &str) {
        assert_eq!(parse(reference).ok().map(text), judged(reference), "{reference:?}");
    }

    /// Hosts, paths, tags and digests at their limits are parsed as `oci-spec` parses them.
    #[test]
    fn edges() {
        let digest = format!("sha256:{}", "0aF".repeat(21) + "0");
        let names = [
            "a",
            "A",
            "a/b",
            "A/b",
            "a/B",
            "a.b/c",
            "a:1/b",
            "a:/b",
            "a:b/c",
            "localhost/a",
            "localhost",
            "LOCALHOST/a",
            "docker.io/a",
            "docker.io/A/b",
            "docker.io/A",
            "index.docker.io/a/b",
            "index.docker.io/A/b",
            "docker.io/localhost/a",
            "docker.io/a.b/c",
            "docker.io/A.b/c",
            "docker.io/a:1/b",
            "docker.io/docker.io/a",
            "a..b",
            "a._b",
            "a__b",
            "a___b",
            "a---b",
            "a-_b",
            "-a",
            "a-",
            "_a",
            "a_",
            "a//b",
            "/a",
            "a/",
            "-a.b/c",
            "a-.b/c",
            "a.-b/c",
            "a-b.c/d",
            ".a/b",
            "a./b",
            "",
            "é",
            "aé/b",
        ];
        let ends =
            ["", ":", ":1", ":T_.-", ":.", ":-", ":a:b", ":a/b", "@", "@x", "@sha256:00", "@sha1:00", "::"];
        for name in names {
            for end in ends {
                agrees(&format!("{name}{end}"));
            }
            agrees(&format!("{name}@{digest}"));
            agrees(&format!("{name}:1@{digest}"));
            agrees(&format!("{name}@{digest}0"));
            agrees(&format!("{name}@sha512:{}", "0".repeat(128)));
            agrees(&format!("{name}@sha999:{}", "0".repeat(64)));
        }
        for length in [127, 128, 129] {
            agrees(&format!("a:{}", "t".repeat(length)));
        }
        for length in [247, 248, 255, 256] {
            agrees(&"a".repeat(length));
            agrees(&format!("a.b/{}", "a".repeat(length)));
        }
    }

    /// A registry may be an IPv6 address in brackets, with a port or without.
    #[test]
    fn addresses() {
        for (reference, registry) in [
            ("[::1]:5000/a:1", "[::1]:5000"),
            ("[fe80::1]/a/b@sha256:0", ""),
            ("[2001:DB8::7]/a", "[2001:DB8::7]"),
        ] {
            let parsed = parse(reference).map(|parts| (parts.registry, parts.namespace));
            assert_eq!(parsed.ok(), (!registry.is_empty()).then_some((registry, "")), "{reference}");
        }
        let parts = parse("[::1]:5000/a/b:1").expect("a reference");
        assert_eq!((parts.repository, parts.tag), ("a/b", Some("1")));
        for odd in [
            "[::1]",
            "[::1]:5000",
            "[::1]:/a",
            "[::1]x/a",
            "[::1/a",
            "[]/a",
            "[a]/b",
            "[::g]/a",
            "[1.2.3.4]/a",
            "a/[::1]/b",
        ] {
            assert!(parse(odd).is_err(), "{odd}");
        }
    }

    proptest! {
        /// Any text made of the characters of references is parsed as `oci-spec` parses it.
        #[test]
        fn as_the_specification_has_it(text in "[a-cA-B0-1._:/@-]{0,14}") {
            agrees(&text);
        }

        /// Any text made of the words of references is parsed as `oci-spec` parses it.
        #[test]
        fn words_of_references(words in prop::collection::vec(prop::sample::select(vec![
            "docker.io", "index.docker.io", "localhost", "library", "acme", "Acme", "app", "a.b", "/", "/", ":", "@", "-", "_",
            "5000", "latest", "sha256:0000000000000000000000000000000000000000000000000000000000000000",
        ]), 0..8)) {
            agrees(&words.concat());
        }
    }
}
