//! Taking back what a call that fails has published.

use std::collections::HashSet;

use super::super::kept;
use super::{Publication, State, Turn};
use crate::artifacts::lease::{Claim, Claims};
use crate::artifacts::unlink::unlink_now;
use crate::artifacts::{Entry, Room};
use crate::catalog::owners::LiveOwners;
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
        if let Err(error) = self.take_back(&fresh) {
            tracing::warn!("files that nothing owns are left for the next prune: {error}");
        }
    }
}

impl Publication {
    /// Takes back what this call published, unless another process uses it or a row owns it now. A failure does not stop the
    /// others.
    fn take_back(&self, fresh: &[Entry]) -> MicrosandboxResult<()> {
        let reader = self.reader()?;
        let mut owners = LiveOwners::new(&reader);
        for entry in fresh {
            let first = self.take_back_one(entry, &mut owners);
            // What was short for a moment, such as files that can be open, may be there again.
            if let Err(error) = first.or_else(|_| self.take_back_one(entry, &mut owners)) {
                tracing::warn!("a file that nothing owns is left for the next prune: {error}");
            }
        }
        Ok(())
    }

    fn take_back_one(&self, entry: &Entry, owners: &mut LiveOwners<'_>) -> MicrosandboxResult<()> {
        let path = self.cache().path_of(entry);
        let failed = || MicrosandboxError::io("delete", &path);
        let mut claims = Claims::default();
        // Somebody else uses it, and answers for it.
        if claims.claim(&self.rooms, entry).map_err(failed())? == Claim::Busy {
            return Ok(());
        }
        let owned = owners.own(entry);
        if owned.map_err(MicrosandboxError::db("find out what owns a file"))? {
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
