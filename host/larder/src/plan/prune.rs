//! A plain prune as a plan: everything that nothing uses, and every file that nothing owns.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rusqlite::Connection;

use super::plan::{Plan, PlanEntry};
use crate::artifacts::collect::{self, Owners, UnownedFile, UnownedKind};
use crate::artifacts::{CacheDir, Entry, Room};
use crate::backend::LocalBackend;
use crate::catalog::change::{self, Closure, Doomed};
use crate::catalog::snapshot::Snapshot;
use crate::catalog::{Catalog, blocking};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::records::ImagePruneReport;
use crate::snapshot::{CacheSnapshot as _, ImageRecord, Removal};

impl LocalBackend {
    /// What [`Image::prune_local`](crate::Image::prune_local) would do now, as a plan to show and
    /// [apply](Self::apply). Writes nothing.
    ///
    /// # Errors
    /// Where the home cannot be read.
    pub async fn plan_prune(&self) -> MicrosandboxResult<Plan> {
        let (catalog, now) = (Arc::clone(self.catalog()), self.now());
        blocking("plan a prune", move || plan(&catalog, now)).await
    }
}

fn plan(catalog: &Arc<Catalog>, now: DateTime<Utc>) -> MicrosandboxResult<Plan> {
    let mut snapshot = Snapshot::open(catalog)?;
    let images = snapshot.images()?;
    let mut removal = Removal::new(Arc::new(snapshot.costs()?));
    let entries: Vec<PlanEntry> = images
        .iter()
        .enumerate()
        .map(|(index, image)| match reason_to_keep(image) {
            Some(reason) => PlanEntry::keep(&image.handle, reason),
            None => PlanEntry::remove(&image.handle, "nothing uses it", removal.remove(index).bytes, false),
        })
        .collect();

    let rows = Rows::read(snapshot.connection()?).map_err(MicrosandboxError::db("find out what goes"))?;
    let mut owners =
        Owners::read(snapshot.connection()?).map_err(MicrosandboxError::db("find out what owns files"))?;
    for manifest in &rows.all.manifests {
        owners.flat.remove(manifest.digest.trim_start_matches("sha256:"));
    }
    let mut collect = rows.unreached_files(catalog.cache())?;
    let unreached = |room: Room| {
        collect.iter().filter(|file| file.bytes > 0 && file.path.starts_with(room.name())).count()
    };
    let report = ImagePruneReport {
        image_refs_removed: count(
            entries.iter().filter(|entry| entry.decision == super::Decision::Remove).count(),
        ),
        manifests_removed: count(rows.all.manifests.len()),
        layers_removed: count(rows.all.layers.len()),
        fsmeta_removed: removal.freed().fsmeta + count(unreached(Room::Fsmeta)),
        vmdk_removed: removal.freed().vmdk + count(unreached(Room::Vmdk)),
        bytes_reclaimed: None,
        skipped_in_use: 0,
    };
    collect.extend(collect::find_unowned(catalog.cache(), &owners, now).old);
    Ok(Plan::new(now, entries, collect, report))
}

fn reason_to_keep(image: &ImageRecord) -> Option<String> {
    if image.users.is_empty() {
        image.pinned.then(|| "pinned".to_owned())
    } else {
        Some(format!("used by {}", image.users))
    }
}

fn count(rows: usize) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX)
}

/// The rows that a prune removes.
struct Rows {
    /// Those that go with the references.
    with_refs: Closure,
    /// Those, and what no reference reaches as it is.
    all: Closure,
}

impl Rows {
    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let refs = Doomed { refs: change::unused_refs(connection)?, ..Doomed::default() };
        let with_refs = change::closure(connection, &refs)?;
        let manifests = change::unreached_manifests(connection)?;
        let layers = change::unreached_layers(connection)?;
        let all = change::closure(connection, &Doomed { manifests, layers, ..refs })?;
        Ok(Self { with_refs, all })
    }

    /// The files of rows that no reference reaches, missing ones too: with them, their rows are in the plan.
    fn unreached_files(&self, cache: &CacheDir) -> MicrosandboxResult<Vec<UnownedFile>> {
        let rooms = cache.rooms().map_err(MicrosandboxError::io("open", cache.root()))?;
        let counted: HashSet<Entry> = entries_of(&self.with_refs).collect();
        let mut files = Vec::new();
        for entry in entries_of(&self.all).filter(|entry| !counted.contains(entry)) {
            let stat =
                rooms.stat(&entry).map_err(MicrosandboxError::io("look at", &cache.path_of(&entry)))?;
            let bytes = stat.filter(|stat| stat.links == 1).map_or(0, |stat| stat.allocated);
            files.push(UnownedFile { bytes, kind: UnownedKind::Artifact, path: entry.path() });
        }
        Ok(files)
    }
}

fn entries_of(closure: &Closure) -> impl Iterator<Item = Entry> + '_ {
    let manifests = closure.manifests.iter().flat_map(|row| Entry::of_manifest(&row.digest));
    let layers = closure.layers.iter().filter_map(|(row, _)| Entry::of_digest(Room::Layers, &row.digest));
    manifests.chain(layers)
}
