//! What tells this machine from others, for what is to happen at another time on each.

use std::fs;

use sha2::{Digest as _, Sha256};

/// Where a machine has a number of its own, or at least a name.
const MACHINE: [&str; 3] = ["/etc/machine-id", "/var/lib/dbus/machine-id", "/proc/sys/kernel/hostname"];

/// Returns a number between 0 and 1 that does not change, and that differs from machine to machine, from home to home and
/// from name to name.
pub(crate) fn share(home: &str, name: &str) -> f64 {
    let known = MACHINE.iter().filter_map(|path| fs::read_to_string(path).ok());
    let machine = known.map(|id| id.trim().to_owned()).find(|id| !id.is_empty()).unwrap_or_default();
    share_of([&machine, home, name])
}

fn share_of(parts: [&str; 3]) -> f64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0]);
    }
    let first = hash.finalize().iter().take(4).fold(0_u32, |number, &byte| number << 8 | u32::from(byte));
    f64::from(first) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shares are spread over the whole range, differ in each part, and never change.
    #[test]
    fn spread_and_stable() {
        let shares: Vec<f64> = (0..100).map(|home| share_of(["m", &home.to_string(), "nightly"])).collect();
        for tenth in 0..10 {
            let within = shares.iter().filter(|&&share| (share * 10.0) as i32 == tenth).count();
            assert!((2..=22).contains(&within), "{within} of 100 in tenth {tenth}");
        }
        assert_ne!(share_of(["a", "h", "j"]), share_of(["b", "h", "j"]));
        assert_ne!(share_of(["a", "h", "j"]), share_of(["a", "h", "k"]));
        assert_eq!(format!("{:.9}", share_of(["a", "h", "j"])), SHARE);
        assert_eq!(share("h", "j"), share("h", "j"));
    }

    /// As `printf 'a\0h\0j\0' | sha256sum` begins.
    const SHARE: &str = "0.283142305";
}
