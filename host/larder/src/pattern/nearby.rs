//! Guesses which pattern was meant by one that matches no image of a cache, by the images that are there.

use super::ReferencePattern;
use crate::reference::Reference;

impl ReferencePattern {
    /// Returns a pattern that matches some of these references, and that was probably meant by this one, which matches none
    /// of them.
    ///
    /// People take a repository for a directory, forget that `*` stops at `/`, and write tags in the wrong case.
    pub fn likely_among<'a>(&self, references: impl Iterator<Item = &'a Reference> + Clone) -> Option<Self> {
        let matches_any = |pattern: &Self| references.clone().any(|reference| pattern.matches(reference));
        let text = self.as_str();
        let mut candidates = Vec::new();
        candidates.extend(text.strip_suffix("/**").or_else(|| text.strip_suffix("/*")).map(str::to_owned));
        candidates.push(text.split("**").map(|part| part.replace('*', "**")).collect::<Vec<_>>().join("**"));
        let path = text.rfind('/').map_or(0, |slash| slash + 1);
        match text[path..].find([':', '@']) {
            Some(end) => {
                let (repository, tag) = text.split_at(path + end);
                candidates.push(format!("{repository}{}", tag.to_lowercase()));
                candidates.push(format!("{repository}{}", tag.to_uppercase()));
                let spelled = references.clone().find(|there| there.as_str().eq_ignore_ascii_case(text));
                candidates.extend(spelled.map(|there| there.as_str().to_owned()));
            }
            None => candidates.push(format!("{text}/**")),
        }
        let patterns = candidates.into_iter().filter_map(|candidate| candidate.parse::<Self>().ok());
        patterns.filter(|pattern| pattern != self).find(matches_any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What matches nothing is corrected into what matches something that is there, and nothing else is suggested.
    #[test]
    fn suggestions() {
        let references = ["docker.io/acme/app:v1", "docker.io/acme/tool:RC-1", "ghcr.io/acme/deep/app:v1"]
            .map(|text| text.parse::<Reference>().expect("a reference"));
        let table = [
            ("docker.io/acme/app/*", "docker.io/acme/app"),
            ("docker.io/acme/app/**", "docker.io/acme/app"),
            ("docker.io/acme/app:V1", "docker.io/acme/app:v1"),
            ("docker.io/acme/*:V*", "docker.io/acme/*:v*"),
            ("docker.io/acme/tool:rc-1", "docker.io/acme/tool:RC-1"),
            ("docker.io/acme/tool:Rc-1", "docker.io/acme/tool:RC-1"),
            ("docker.io/acme/*:rc*", "docker.io/acme/*:RC*"),
            ("ghcr.io/*", "ghcr.io/**"),
            ("ghcr.io/*/app:v1", "ghcr.io/**/app:v1"),
            ("ghcr.io/acme", "ghcr.io/acme/**"),
            ("quay.io/acme/app", ""),
            ("docker.io/acme/app:v2", ""),
        ];
        for (text, expected) in table {
            let pattern: ReferencePattern = text.parse().expect(text);
            assert!(!references.iter().any(|reference| pattern.matches(reference)), "{text}");
            let meant = pattern.likely_among(references.iter());
            assert_eq!(meant.map(String::from).unwrap_or_default(), expected, "{text}");
        }
    }
}
