//! The platforms of images and of this machine.

use std::fmt;

/// An operating system, an architecture and its variant, with the names of the OCI image specification (image index,
/// "platform").
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    pub(crate) fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let variant = variant.filter(|variant| !variant.is_empty()).map(str::to_owned);
        Self { os: os.to_owned(), architecture: architecture.to_owned(), variant }
    }

    /// Returns the platform of this machine: the sandboxes' Linux on the machine's own architecture.
    pub fn of_this_machine() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self::new("linux", architecture, None)
    }

    /// Returns the operating system, such as `linux`.
    pub fn os(&self) -> &str {
        &self.os
    }

    /// Returns the architecture, such as `amd64`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Returns the variant of the architecture, such as `v8`.
    pub fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// Returns the rank of an image for `offered` on this platform: a lower rank is better, and `None` means that the
    /// image does not run.
    ///
    /// Variants are ordered by their requirements, the least demanding first. The variant of this machine is not
    /// known, and an image without a variant runs everywhere.
    pub(crate) fn rank(&self, offered: &Self) -> Option<u32> {
        if (&self.os, &self.architecture) != (&offered.os, &offered.architecture) {
            return None;
        }
        let base = match self.architecture.as_str() {
            "amd64" => 1,
            "arm64" => 8,
            _ => 0,
        };
        let Some(variant) = offered.variant() else { return Some(0) };
        // Newer variants of ARM have a dot in them, and ask for more than all without.
        let (level, minor) = variant.trim_start_matches('v').split_once('.').unwrap_or((variant, "0"));
        let number = |text: &str| text.trim_start_matches('v').parse::<u32>().unwrap_or(1000);
        Some(number(level).saturating_sub(base).saturating_mul(100).saturating_add(number(minor)))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least demanding image of the same system and architecture is the best; others do not run.
    #[test]
    fn ranks() {
        let machine = Platform::new("linux", "amd64", None);
        let rank = |os, architecture, variant| machine.rank(&Platform::new(os, architecture, variant));
        assert_eq!((rank("linux", "amd64", None), rank("linux", "amd64", Some("v1"))), (Some(0), Some(0)));
        assert!(rank("linux", "amd64", Some("v2")) < rank("linux", "amd64", Some("v3")));
        assert_eq!((rank("linux", "arm64", None), rank("windows", "amd64", None)), (None, None));
        let arm = Platform::new("linux", "arm64", None);
        assert_eq!(arm.rank(&Platform::new("linux", "arm64", Some("v8"))), Some(0));
        assert!(
            arm.rank(&Platform::new("linux", "arm64", Some("v8.2")))
                < arm.rank(&Platform::new("linux", "arm64", Some("v9")))
        );
    }
}
