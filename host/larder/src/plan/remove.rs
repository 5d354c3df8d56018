//! The plan of a removal: images by their names.
//!
//! It is made of the rows of those images alone, so it takes as long in a large home as in a small one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rusqlite::Connection;

use super::count;
use super::document::{Plan, PlanEntry};
use crate::artifacts::{Entry, Room, Rooms};
use crate::backend::LocalBackend;
use crate::catalog::blocking;
use crate::catalog::removal_set::{RemovalSet, SetRow, Wanted};
use crate::catalog::remove::{self, LiveRef, RefRow};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::records::{ImagePruneReport, Maker};
use crate::snapshot::{CostGraphBuilder, Removal};
use crate::store::Store;
use crate::store::snapshot::{HomeSnapshot, cost_of};

/// The plan of a removal, and what is not in it.
#[derive(Debug)]
pub struct PlannedRemoval {
    /// What goes, in the order in which it was named.
    pub plan: Plan,
    /// Why the others don't, in the order in which they were named:
    /// [`ImageNotFound`](MicrosandboxError::ImageNotFound), [`InvalidReference`](MicrosandboxError::InvalidReference),
    /// or [`ImageInUse`](MicrosandboxError::ImageInUse).
    pub refused: Vec<MicrosandboxError>,
}

impl LocalBackend {
    /// Returns what removing these images would do now, as a plan to show and [apply](Self::apply). Writes nothing.
    ///
    /// An image that is in use or pinned is refused; with `force` it is in the plan, and loses its reference and its
    /// pin, and its data stays for as long as it is used.
    ///
    /// # Errors
    /// Fails if the home cannot be read. [`CacheMissing`](crate::backend::HomeProblem::CacheMissing) if its cache is not
    /// there.
    pub async fn plan_remove(
        &self,
        references: &[String],
        force: bool,
    ) -> MicrosandboxResult<PlannedRemoval> {
        let (store, references) = (Arc::clone(self.store()), references.to_vec());
        blocking("plan a removal", move || plan(&store, &references, force)).await
    }
}

fn plan(store: &Arc<Store>, references: &[String], force: bool) -> MicrosandboxResult<PlannedRemoval> {
    let db = MicrosandboxError::db;
    let snapshot = HomeSnapshot::open(store)?;
    let connection = snapshot.connection();
    let (mut rows, mut refused, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for reference in references {
        let row = match remove::find_spelled(connection, reference) {
            Ok(row) => row,
            Err(error @ (MicrosandboxError::ImageNotFound(_) | MicrosandboxError::InvalidReference(_))) => {
                refused.push(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        if !seen.insert(row.id) {
            continue;
        }
        match obstacle(connection, &row).map_err(db("find out what uses an image"))? {
            Some(obstacle) if !force => {
                let text = format!("`{}` is {obstacle}", row.handle.reference);
                refused.push(MicrosandboxError::ImageInUse(text));
            }
            obstacle => rows.push(Chosen { row, obstacle }),
        }
    }
    store.check_cache(connection)?;
    let cache = store.cache();
    let rooms = cache.rooms().map_err(MicrosandboxError::io("open", cache.root()))?;
    let mut removal = removal_of(connection, &rooms, &rows).map_err(db("find out what goes"))?;
    let entries: Vec<PlanEntry> = rows
        .iter()
        .enumerate()
        .map(|(index, Chosen { row, obstacle })| {
            let reason = match obstacle {
                Some(obstacle) => format!("asked for by name, although {obstacle}"),
                None => "asked for by name".to_owned(),
            };
            PlanEntry::remove(&row.handle, reason, removal.remove(index).bytes, force)
        })
        .collect();
    let freed = removal.freed();
    let report = ImagePruneReport {
        image_refs_removed: count(entries.len()),
        manifests_removed: freed.manifests,
        layers_removed: freed.layers,
        fsmeta_removed: freed.fsmeta,
        vmdk_removed: freed.vmdk,
        ..ImagePruneReport::default()
    };
    let home = store.identity(connection)?;
    let plan = Plan::new(Maker::Removal, store.now(), entries, Vec::new(), report).for_home(home);
    Ok(PlannedRemoval { plan, refused })
}

/// An image that is to go.
struct Chosen {
    row: RefRow,
    /// What stands in the way, where it is removed nevertheless.
    obstacle: Option<String>,
}

/// Returns what stands in the way of removing an image.
fn obstacle(connection: &Connection, row: &RefRow) -> rusqlite::Result<Option<String>> {
    let live = remove::live_refs(connection, std::iter::once(row))?;
    let Some(LiveRef { in_use, pinned, .. }) = live.get(&row.id) else { return Ok(None) };
    let users = if *in_use { Some(format!("used by {}", remove::users(connection, row)?)) } else { None };
    let obstacles: Vec<String> = users.into_iter().chain(pinned.then(|| "pinned".to_owned())).collect();
    Ok((!obstacles.is_empty()).then(|| obstacles.join(" and ")))
}

/// The costs of the rows that go with these images, and of no others.
fn removal_of(connection: &Connection, rooms: &Rooms, rows: &[Chosen]) -> rusqlite::Result<Removal> {
    let refs: Vec<&RefRow> = rows.iter().map(|chosen| &chosen.row).collect();
    let live = remove::live_refs(connection, refs.iter().copied())?;
    let in_use: HashSet<i64> = live.values().filter(|live| live.in_use).map(|live| live.manifest).collect();
    let wanted = Wanted { refs: &refs, ..Wanted::default() };
    let set = RemovalSet::read(connection, wanted, &in_use)?;

    let mut graph = CostGraphBuilder::new();
    let mut going: HashMap<SetRow, Vec<&Entry>> = HashMap::new();
    for file in set.files.iter().filter(|file| file.goes) {
        going.entry(file.row).or_default().push(&file.entry);
    }
    let cost = |row: SetRow, room: Room| {
        let entry = going.get(&row)?.iter().find(|entry| entry.room == room)?;
        cost_of(rooms, entry)
    };
    let layers: HashMap<i64, _> =
        set.layers.iter().map(|&id| (id, graph.layer(cost(SetRow::Layer(id), Room::Layers)))).collect();
    let going_manifests: HashSet<i64> = set.manifests.iter().copied().collect();
    let mut manifests = HashMap::new();
    for row in refs.iter().filter(|row| going_manifests.contains(&row.manifest)) {
        if manifests.contains_key(&row.manifest) {
            continue;
        }
        let mut needs = Vec::new();
        for layer in remove::layers_of(connection, row.manifest)? {
            needs.extend(layers.get(&layer));
        }
        let [fsmeta, vmdk] = [Room::Fsmeta, Room::Vmdk].map(|room| cost(SetRow::Reference(row.id), room));
        manifests.insert(row.manifest, graph.manifest(fsmeta, vmdk, &needs));
    }
    for row in &refs {
        let metadata = row
            .parsed
            .as_ref()
            .and_then(|parsed| Some((parsed.as_str(), cost(SetRow::Reference(row.id), Room::Manifests)?)));
        graph.image(metadata, manifests.get(&row.manifest).copied());
    }
    Ok(Removal::new(Arc::new(graph.build())))
}
