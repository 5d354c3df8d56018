//! One state of a home, as a decision sees it: [`CacheSnapshot`] over an open read transaction.
//!
//! The transaction is SQLite's: it neither waits for writers nor makes them wait, and what it reads does not change
//! until it is dropped. Sizes come from the file system, which has no such thing; whoever applies a decision measures
//! what it freed.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, PoisonError};

use rusqlite::Connection;

use super::{Catalog, Reader, pins, read, roots};
use crate::artifacts::{self, Entry, Room, Rooms};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::records::ImageDetail;
use crate::reference::Reference;
use crate::snapshot::{
    CacheSnapshot, CostGraph, CostGraphBuilder, DiskStatus, FileCost, ImageRecord, Origin,
};

/// One state of a home.
pub(crate) struct Snapshot {
    catalog: Arc<Catalog>,
    /// There until it goes back to the others.
    reader: Option<Reader>,
}

impl Snapshot {
    /// Begins to see the state of now.
    pub(crate) fn open(catalog: &Arc<Catalog>) -> MicrosandboxResult<Self> {
        let reader = catalog.take_reader()?;
        let snapshot = Self { catalog: Arc::clone(catalog), reader: Some(reader) };
        let begin = |connection: &Connection| {
            connection.execute_batch("BEGIN")?;
            // The state is that of the first read after it.
            roots::refresh(connection)
        };
        begin(snapshot.connection()?).map_err(catalog.paths().db("look at the index"))?;
        Ok(snapshot)
    }

    pub(crate) fn connection(&self) -> MicrosandboxResult<&Connection> {
        let gone = || MicrosandboxError::Interrupted("look at the index".to_owned());
        self.reader.as_ref().map(Reader::connection).ok_or_else(gone)
    }

    fn query<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> MicrosandboxResult<T> {
        query(self.connection()?).map_err(self.catalog.paths().db("look at the index"))
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take()
            && reader.connection().execute_batch("ROLLBACK").is_ok()
        {
            self.catalog.readers.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        }
    }
}

impl CacheSnapshot for Snapshot {
    fn images(&mut self) -> MicrosandboxResult<Vec<ImageRecord>> {
        self.query(|connection| {
            let mut users = roots::all_users(connection)?;
            let pins = pins::set(connection)?;
            let origins = origins(connection)?;
            let noted = !pins.is_empty() || !origins.is_empty();
            let rows = image_rows(connection)?;
            let mut left: HashMap<i64, usize> = HashMap::new();
            rows.iter().for_each(|(_, manifest)| *left.entry(*manifest).or_default() += 1);
            let images = rows.into_iter().map(|(handle, manifest)| {
                let key = if noted { pins::key(handle.reference()) } else { String::new() };
                let others = left.get_mut(&manifest).map(|left| {
                    *left -= 1;
                    *left
                });
                // Most images are the only ones of their manifest, and take its users as they are.
                let users =
                    if others == Some(0) { users.remove(&manifest) } else { users.get(&manifest).cloned() };
                ImageRecord {
                    users: users.unwrap_or_default(),
                    pinned: pins.contains(&key),
                    origin: origins.get(&key).copied().unwrap_or_default(),
                    handle,
                }
            });
            Ok(images.collect())
        })
    }

    fn detail(&mut self, reference: &str) -> MicrosandboxResult<ImageDetail> {
        read::inspect_in_transaction(self.connection()?, reference)
    }

    fn costs(&mut self) -> MicrosandboxResult<CostGraph> {
        let cache = self.catalog.cache();
        let rooms = cache.rooms().map_err(MicrosandboxError::io("open", cache.root()))?;
        self.query(|connection| cost_graph(connection, &rooms))
    }

    fn disk(&mut self) -> MicrosandboxResult<DiskStatus> {
        disk_status(self.catalog.cache().root())
    }
}

/// Every image in the order of a listing, with the row of its manifest.
fn image_rows(connection: &Connection) -> rusqlite::Result<Vec<(crate::records::ImageHandle, i64)>> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        read::handle_columns!(),
        ", ref.manifest_id FROM image_ref AS ref LEFT JOIN manifest ON manifest.id = ref.manifest_id
           ORDER BY ref.created_at DESC, ref.reference"
    ))?;
    statement.query_map([], |row| Ok((read::handle(row)?, row.get(8)?)))?.collect()
}

fn origins(connection: &Connection) -> rusqlite::Result<HashMap<String, Origin>> {
    let mut statement = connection.prepare_cached("SELECT reference, origin FROM larder_origin")?;
    let rows = statement.query_map([], |row| {
        let origin = match row.get_ref(1)?.as_str()? {
            "registry" => Origin::Registry,
            "archive" => Origin::Archive,
            _ => Origin::Unknown,
        };
        Ok((row.get(0)?, origin))
    })?;
    rows.collect()
}

fn cost_graph(connection: &Connection, rooms: &Rooms) -> rusqlite::Result<CostGraph> {
    // A file that cannot be looked at frees nothing that anyone could promise.
    let cost = |entry: Option<Entry>| -> Option<FileCost> {
        let stat = rooms.stat(&entry?).ok()??;
        (!stat.is_dir).then(|| stat.cost())
    };
    let mut graph = CostGraphBuilder::new();
    let mut layers = HashMap::new();
    for_each(connection, "SELECT id, diff_id FROM main.layer", |id, diff_id| {
        layers.insert(id, graph.layer(cost(Entry::of_digest(Room::Layers, diff_id))));
    })?;

    let mut layers_of: HashMap<i64, Vec<_>> = HashMap::new();
    let mut statement = connection.prepare_cached("SELECT manifest_id, layer_id FROM manifest_layer")?;
    let mut links = statement.query([])?;
    while let Some(link) = links.next()? {
        layers_of.entry(link.get(0)?).or_default().extend(layers.get(&link.get(1)?));
    }

    let held: HashSet<i64> = roots::all_users(connection)?.into_keys().collect();
    let mut manifests = HashMap::new();
    for_each(connection, "SELECT id, digest FROM main.manifest", |id, digest| {
        let [fsmeta, vmdk] = [Room::Fsmeta, Room::Vmdk].map(|room| cost(Entry::of_digest(room, digest)));
        let manifest = graph.manifest(fsmeta, vmdk, layers_of.get(&id).map_or(&[], Vec::as_slice));
        if held.contains(&id) {
            graph.hold(manifest);
        }
        manifests.insert(id, manifest);
    })?;

    for (handle, manifest) in image_rows(connection)? {
        let reference = handle.reference().parse::<Reference>().ok();
        let metadata = reference.as_ref().and_then(|parsed| {
            let file = cost(Some(Entry::metadata(parsed)))?;
            Some((parsed.as_str(), file))
        });
        graph.image(metadata, manifests.get(&manifest).copied());
    }
    Ok(graph.build())
}

/// Runs `visit` for every row of a number and a text.
fn for_each(connection: &Connection, query: &str, mut visit: impl FnMut(i64, &str)) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(query)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        visit(row.get(0)?, row.get_ref(1)?.as_str()?);
    }
    Ok(())
}

/// The disk under a cache directory, which need not exist yet.
fn disk_status(cache: &Path) -> MicrosandboxResult<DiskStatus> {
    let existing = cache.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let fs = rustix::fs::statvfs(existing)
        .map_err(|error| MicrosandboxError::io("measure", existing)(error.into()))?;
    Ok(DiskStatus {
        cache_bytes: artifacts::allocated_bytes(cache).map_err(MicrosandboxError::io("measure", cache))?,
        capacity_bytes: fs.f_frsize.saturating_mul(fs.f_blocks),
        available_bytes: fs.f_frsize.saturating_mul(fs.f_bavail),
    })
}
