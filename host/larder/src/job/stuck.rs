//! Why the space of files that went did not become free.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

use super::runner::Runner;
use crate::catalog::blocking;
use crate::error::MicrosandboxResult;
use crate::records::FileSystemStatus;
use crate::units::ByteSize;

/// What is less than this is not looked at: a file system rounds, and others write to it.
const LEAST: u64 = 1 << 20;
/// How often it is looked at while it is waited for.
const LOOKS: u32 = 20;

/// The file systems that free space later, or not while a snapshot has it, by the number that the kernel gives them.
const SHARING: [(u64, &str); 4] =
    [(0x9123_683E, "btrfs"), (0x2FC1_2FC1, "ZFS"), (0x5846_5342, "XFS"), (0xCA45_1A4E, "bcachefs")];

impl Runner {
    /// Asks the file system, and waits a little for files that went to become free space. Returns its state, and if the
    /// space of most of them did not become free since `before`, a sentence that says why.
    pub(super) async fn wait_for_space(
        &self,
        before: &FileSystemStatus,
        freed: u64,
    ) -> MicrosandboxResult<(FileSystemStatus, Option<String>)> {
        let mut now = self.status().await?;
        let moved = |now: &FileSystemStatus| now.available_bytes.saturating_sub(before.available_bytes);
        if freed < LEAST {
            return Ok((now, None));
        }
        let deadline = Instant::now() + self.patience;
        while moved(&now) < freed / 2 {
            if Instant::now() >= deadline {
                let (cache, moved) = (self.local.cache_dir().to_owned(), moved(&now));
                let why =
                    blocking("find why space is not free", move || Ok(why(&cache, freed, moved))).await?;
                return Ok((now, Some(why)));
            }
            let pause = self.patience / LOOKS;
            blocking("wait for free space", move || {
                std::thread::sleep(pause);
                Ok(())
            })
            .await?;
            now = self.status().await?;
        }
        Ok((now, None))
    }
}

/// Says in one sentence why files of so many bytes went and only so much became free.
fn why(cache: &Path, freed: u64, moved: u64) -> String {
    let cause = match (open_files(cache), shares(cache)) {
        (Some(open), _) => open,
        (None, Some(name)) => {
            format!("{name} frees space later, and not while a snapshot or a copy shares it")
        }
        (None, None) => "something else writes to the file system as fast as files go".to_owned(),
    };
    let (freed, moved) = (ByteSize::bytes(freed), ByteSize::bytes(moved));
    format!("files of {freed} went, and {moved} more are free: {cause}")
}

/// Finds processes that have deleted files of the cache open, as far as this process may see them.
fn open_files(cache: &Path) -> Option<String> {
    let mut seen = HashSet::new();
    let (mut bytes, mut holders) = (0_u64, Vec::new());
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let number = process.file_name();
        let Some(number) = number.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        else {
            continue;
        };
        let before = seen.len();
        for file in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(file.path()) else { continue };
            if !target.starts_with(cache) || !target.to_string_lossy().ends_with(" (deleted)") {
                continue;
            }
            // The link leads to the file, though no name does any longer.
            if let Ok(metadata) = fs::metadata(file.path())
                && seen.insert((metadata.dev(), metadata.ino()))
            {
                bytes = bytes.saturating_add(metadata.blocks().saturating_mul(512));
            }
        }
        if seen.len() > before {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            holders.push(format!("{number} ({})", name.trim()));
        }
    }
    let more = holders.len().saturating_sub(3);
    holders.truncate(3);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (bytes > 0).then(|| {
        let noun = if holders.len() == 1 { "process" } else { "processes" };
        format!(
            "{noun} {}{more} still have {} of deleted files open",
            holders.join(", "),
            ByteSize::bytes(bytes)
        )
    })
}

/// Returns the name of a file system on which the space of a file that went need not become free at once.
fn shares(cache: &Path) -> Option<&'static str> {
    let kind = rustix::fs::statfs(cache).ok()?.f_type;
    SHARING
        .iter()
        .find(|(number, _)| u64::try_from(kind).is_ok_and(|kind| kind == *number))
        .map(|(_, name)| *name)
}
