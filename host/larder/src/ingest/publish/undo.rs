//! Taking back what a call that fails has published.

use std::collections::HashSet;

use super::super::kept;
use super::{Publication, State, Turn};
use crate::artifacts::lease::{Claim, Claims};
use crate::artifacts::unlink::unlink_now;
use crate::artifacts::{Entry, Room};
use crate::catalog::publish::NewImage;
use crate::error::{MicrosandboxError, MicrosandboxResult};

/// The fate of complete layers of a call that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnFailure {
    /// They are deleted.
    TakeBack,
    /// They are kept in `tmp/` for the next call, and collected after a day as other work.
    #[cfg(feature = "registry")]
    Keep,
}

/// What is undone if a call fails before the rows are in the index: each published entry is deleted under its exclusive lease if no
/// row owns it, and metadata is as it was, under the lock that it was replaced under.
#[derive(Default)]
pub(super) struct Undo {
    /// The entries that did not exist before.
    pub(super) fresh: Vec<Entry>,
    /// The metadata as it was before.
    pub(super) replaced: Vec<(Entry, Vec<u8>)>,
    /// The locks of the metadata.
    pub(super) turns: Vec<Turn>,
}

impl Undo {
    fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.replaced.is_empty() && self.turns.is_empty()
    }

    /// Leaves what the rows of an image own now. Metadata is written for one image at a time.
    pub(super) fn settle(&mut self, image: &NewImage) {
        let own: HashSet<Entry> = image.entries().collect();
        self.fresh.retain(|entry| entry.room != Room::Manifests && !own.contains(entry));
        self.replaced.clear();
        self.turns.clear();
    }
}

impl Drop for Publication {
    fn drop(&mut self) {
        let State { held, undo, .. } = std::mem::take(&mut *self.state());
        if undo.is_empty() {
            return;
        }
        let Undo { fresh, replaced, turns } = undo;
        for (entry, before) in replaced {
            if let Err(error) = self.write_small(&entry, &before) {
                let path = self.cache().path_of(&entry);
                tracing::warn!("could not restore `{}`: {error}", path.display());
            }
        }
        if let Err(error) = self.sync() {
            tracing::warn!("{error}");
        }
        // Who waits for the lock of a reference finds its metadata as it was before.
        drop(turns);
        self.state().held.clear();
        // An exclusive lease is not to be had while we hold a shared one.
        drop(held);
        for entry in &fresh {
            let first = self.take_back(entry);
            // What was short for a moment, such as files that can be open, may be there again.
            if let Err(error) = first.or_else(|_| self.take_back(entry)) {
                tracing::warn!("a file that nothing owns is left for the next prune: {error}");
            }
        }
    }
}

impl Publication {
    /// Takes back an entry that this call published, unless another process uses it or a row owns it now.
    fn take_back(&self, entry: &Entry) -> MicrosandboxResult<()> {
        let path = self.cache().path_of(entry);
        let failed = || MicrosandboxError::io("delete", &path);
        let mut claims = Claims::default();
        // Somebody else uses it, and answers for it.
        if claims.claim(&self.rooms, entry).map_err(failed())? == Claim::Busy {
            return Ok(());
        }
        if self.is_owned(entry)? {
            return Ok(());
        }
        if self.on_failure != OnFailure::TakeBack
            && entry.room == Room::Layers
            && let Some(room) = self.rooms.get(entry.room)
            && kept::keep(self.cache(), room, entry).is_ok()
        {
            return Ok(());
        }
        unlink_now(&self.rooms, entry).map_err(failed())?;
        Ok(())
    }
}
