//! The profile that a policy is compiled with: what its manifest says, and nothing that Cargo's configuration files say.
//!
//! Such a file stands above a manifest, and sets single keys: `[profile.release] debug = true` on one machine would make
//! another component than on the next. So every key is given to Cargo on its command line, which stands above both, with
//! the value of the manifest or of Cargo. What a file sets for single packages stays: Cargo would compile macros and build
//! scripts with what is set for all packages.

use std::path::Path;

use toml::{Table, Value};

use crate::KitError;

/// The keys of a profile that change what is compiled, and their values in Cargo's profile `release`.
const RELEASE: [(&str, &str); 11] = [
    ("codegen-units", "16"),
    ("debug", "false"),
    ("debug-assertions", "false"),
    ("incremental", "false"),
    ("lto", "false"),
    ("opt-level", "3"),
    ("overflow-checks", "false"),
    ("panic", "\"unwind\""),
    ("rpath", "false"),
    ("split-debuginfo", "\"off\""),
    ("strip", "\"none\""),
];

/// Returns the arguments for `--config` that set the profile `policy` of a workspace's manifest.
///
/// # Errors
/// [`KitError::Io`] if the manifest cannot be read. Of one that is not TOML, Cargo says more.
pub(super) fn settings(manifest: &Path) -> Result<Vec<String>, KitError> {
    let text = super::super::read(manifest)?;
    Ok(of_manifest(&String::from_utf8_lossy(&text).parse().unwrap_or_default()))
}

fn of_manifest(manifest: &Table) -> Vec<String> {
    let profile = |name: &str| manifest.get("profile")?.get(name)?.as_table();
    let own = [profile("policy"), profile("release")];
    let mut settings = Vec::new();
    for (key, default) in RELEASE {
        let set = own.iter().flatten().find_map(|profile| profile.get(key));
        let value = set.map_or_else(|| default.to_owned(), Value::to_string);
        settings.push(format!("profile.policy.{key}={value}"));
    }
    // What comes later counts.
    let packages =
        own.iter().rev().flatten().filter_map(|profile| profile.get("package")?.as_table()).flatten();
    for (package, keys) in packages {
        let package = Value::from(package.as_str());
        for (key, value) in keys.as_table().into_iter().flatten() {
            settings.push(format!("profile.policy.package.{package}.{key}={value}"));
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key has the value of the policy's own profile, else of the manifest's `release`, else of Cargo. A package that the
    /// manifest names has its own.
    #[test]
    fn where_values_come_from() {
        let manifest = r#"
            [profile.release]
            debug = 1
            panic = "unwind"
            [profile.policy]
            inherits = "release"
            panic = "abort"
            [profile.policy.package.larder-guest]
            opt-level = "z"
        "#;
        let settings = of_manifest(&manifest.parse().unwrap());
        for expected in [
            "profile.policy.panic=\"abort\"",
            "profile.policy.debug=1",
            "profile.policy.lto=false",
            "profile.policy.opt-level=3",
            "profile.policy.package.\"larder-guest\".opt-level=\"z\"",
        ] {
            assert!(settings.iter().any(|setting| setting == expected), "{expected}: {settings:?}");
        }
        assert_eq!(settings.len(), RELEASE.len() + 1);
        for setting in settings {
            assert!(setting.parse::<Table>().is_ok(), "{setting}");
        }
    }
}
