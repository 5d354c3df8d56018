//! The platforms of images and of this machine.

use std::fmt;
use std::str::FromStr;

/// An operating system, an architecture and its variant, with the names of the OCI image specification (image index,
/// "platform").
///
/// It parses from `OS/ARCH` and `OS/ARCH/VARIANT`. Other names of the same architecture, such as `x86_64` and `aarch64`, are
/// understood. In a document the operating system or the architecture can be empty: then it is unknown.
///
/// ```
/// # use larder::ingest::Platform;
/// let platform: Platform = "linux/aarch64".parse()?;
/// assert_eq!(platform.to_string(), "linux/arm64");
/// # Ok::<(), larder::ingest::PlatformError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// The error for a text that is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform: expected `OS/ARCH` or `OS/ARCH/VARIANT`, such as `linux/arm64`")]
pub struct PlatformError(String);

impl Platform {
    pub(crate) fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = match os.to_ascii_lowercase() {
            mac if mac == "macos" => "darwin".to_owned(),
            os => os,
        };
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.filter(|variant| !variant.is_empty()).map(str::to_ascii_lowercase);
        let (architecture, implied) = match architecture.as_str() {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            "i386" | "i486" | "i586" | "i686" | "x86" => ("386", None),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", None),
            "powerpc64" => ("ppc64", None),
            "powerpc64le" | "ppc64el" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        let variant = variant.or_else(|| implied.map(str::to_owned));
        Self { os, architecture: architecture.to_owned(), variant }
    }

    /// Returns the platform of this machine: the sandboxes' Linux on the machine's own architecture.
    pub fn of_this_machine() -> Self {
        Self::new("linux", std::env::consts::ARCH, None)
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

    /// Returns whether the operating system and the architecture are known.
    pub(crate) fn is_known(&self) -> bool {
        !self.os.is_empty() && !self.architecture.is_empty()
    }

    /// Returns this platform with what is unknown of it from another one.
    pub(crate) fn or(self, other: &Self) -> Self {
        let keep = |own: String, other: &String| if own.is_empty() { other.clone() } else { own };
        let same = self.architecture.is_empty() || self.architecture == other.architecture;
        let variant = self.variant.or_else(|| other.variant.clone().filter(|_| same));
        Self {
            os: keep(self.os, &other.os),
            architecture: keep(self.architecture, &other.architecture),
            variant,
        }
    }

    /// Returns the rank of an image for `offered` on this platform: a lower rank is better, and `None` means that the
    /// image does not run. What is unknown of `offered` suits.
    ///
    /// A platform without a variant is a machine whose variant is not known: the least demanding image is the best. With a
    /// variant, the best image is the most demanding one that it meets.
    pub(crate) fn rank(&self, offered: &Self) -> Option<u32> {
        let suits = |wanted: &str, offered: &str| offered.is_empty() || wanted == offered;
        if !suits(&self.os, &offered.os) || !suits(&self.architecture, &offered.architecture) {
            return None;
        }
        let base = match self.architecture.as_str() {
            "amd64" => 100,
            "arm64" => 800,
            "arm" => 700,
            _ => 0,
        };
        match (self.variant(), offered.variant()) {
            (None, None) => Some(0),
            (None, Some(offered)) => Some(level(offered).saturating_sub(base)),
            (Some(wanted), offered) => level(wanted).checked_sub(offered.map_or(base, level)),
        }
    }
}

/// Returns what a variant demands: `v8` less than `v8.1`, and a variant of another form more than any.
fn level(variant: &str) -> u32 {
    let (level, minor) = variant.trim_start_matches('v').split_once('.').unwrap_or((variant, "0"));
    let number = |text: &str| text.trim_start_matches('v').parse::<u32>().unwrap_or(1000);
    number(level).saturating_mul(100).saturating_add(number(minor))
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let error = || PlatformError(text.chars().take(80).collect());
        let parts: Vec<&str> = text.split('/').collect();
        let is_word = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        match parts.as_slice() {
            [os, architecture] if parts.iter().all(is_word) => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] if parts.iter().all(is_word) => {
                Ok(Self::new(os, architecture, Some(variant)))
            }
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |part: &'_ str| if part.is_empty() { "unknown".to_owned() } else { part.to_owned() };
        write!(f, "{}/{}", known(&self.os), known(&self.architecture))?;
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
        let rank = |variant| arm.rank(&Platform::new("linux", "arm64", Some(variant)));
        assert_eq!(rank("v8"), Some(0));
        assert!(rank("v8") < rank("v8.1") && rank("v8.1") < rank("v9"));
    }

    /// For a platform with a variant, the most demanding image that it meets is the best.
    #[test]
    fn variants() {
        let wanted = Platform::new("linux", "arm", Some("v7"));
        let rank = |variant| wanted.rank(&Platform::new("linux", "arm", variant));
        assert_eq!((rank(Some("v7")), rank(None), rank(Some("v8"))), (Some(0), Some(0), None));
        assert!(rank(Some("v6")) < rank(Some("v5")));
    }

    /// What is unknown of an image suits every platform, and other names of a platform are the same platform.
    #[test]
    fn names() {
        let machine = Platform::new("linux", "amd64", None);
        for (os, architecture) in
            [("", ""), ("linux", ""), ("", "amd64"), ("Linux", "x86_64"), ("linux", "AMD64")]
        {
            assert_eq!(machine.rank(&Platform::new(os, architecture, None)), Some(0), "{os}/{architecture}");
        }
        assert_eq!(machine.rank(&Platform::new("", "arm64", None)), None);
        let text = |text: &str| text.parse::<Platform>().map(|platform| platform.to_string());
        assert_eq!(text("linux/aarch64"), Ok("linux/arm64".to_owned()));
        assert_eq!(text("linux/armhf"), Ok("linux/arm/v7".to_owned()));
        assert_eq!(text("linux/arm/v6"), Ok("linux/arm/v6".to_owned()));
        for wrong in ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux/a b"] {
            assert!(text(wrong).is_err(), "{wrong}");
        }
    }

    /// What a descriptor does not say of a platform is taken from the config.
    #[test]
    fn completed() {
        let config = Platform::new("linux", "arm64", Some("v8"));
        assert_eq!(Platform::new("", "", None).or(&config), config);
        assert_eq!(Platform::new("linux", "amd64", None).or(&config), Platform::new("linux", "amd64", None));
    }
}
