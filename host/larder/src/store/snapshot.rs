//! A snapshot of a home for a decision: [`CacheSnapshot`] over an open read transaction.
//!
//! The transaction is SQLite's: it neither waits for writers nor blocks them, and its data does not change until
//! drop. Sizes come from the file system, which has no transactions. An apply measures what it freed.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::Store;
use crate::artifacts::{self, Entry, FileStat, Rooms};
use crate::catalog::owners::Owner;
use crate::catalog::{PooledReader, graph, journal, pins, read, roots};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::home::HomeIdentity;
use crate::records::{ImageDetail, UnreachedKind};
use crate::reference::{Reference, RowDigest};
use crate::snapshot::{
    CacheSnapshot, CostGraph, CostGraphBuilder, DiskStatus, FileCost, HardLinks, ImageHistory, ImageRecord,
    ManifestId, Origin, Pull,
};

/// A snapshot of one home.
pub(crate) struct HomeSnapshot {
    store: Arc<Store>,
    reader: PooledReader,
}

/// The costs of a home, with their rows.
pub(crate) struct HomeCosts {
    pub(crate) graph: CostGraph,
    /// The manifests and layers that nothing reaches, ordered by row, manifests first.
    pub(crate) unreached: Vec<Unreached>,
    /// All manifests.
    pub(crate) manifests: Vec<ManifestNode>,
}

/// A manifest, and its place in the graph.
pub(crate) struct ManifestNode {
    pub(crate) digest: RowDigest,
    pub(crate) node: ManifestId,
}

/// A row that nothing reaches. Rows that only it needs are removed with it.
pub(crate) struct Unreached {
    pub(crate) kind: UnreachedKind,
    pub(crate) digest: RowDigest,
    /// The number that stands for it in the graph, as for an image.
    pub(crate) index: usize,
}

impl HomeSnapshot {
    /// Begins a read transaction on the current state.
    pub(crate) fn open(store: &Arc<Store>) -> MicrosandboxResult<Self> {
        let reader = store.catalog().reader()?;
        let snapshot = Self { store: Arc::clone(store), reader };
        snapshot.query(|connection| {
            connection.execute_batch("BEGIN")?;
            // The state is that of the first read after it.
            roots::refresh(connection)
        })?;
        Ok(snapshot)
    }

    /// Returns the connection, which is in the transaction.
    pub(crate) fn connection(&self) -> &Connection {
        &self.reader
    }

    /// Returns the same as [`costs`](CacheSnapshot::costs), with the rows.
    pub(crate) fn home_costs(&self) -> MicrosandboxResult<HomeCosts> {
        let cache = self.store.cache();
        let rooms = cache.rooms().map_err(MicrosandboxError::io("open", cache.root()))?;
        self.query(|connection| home_costs(connection, &rooms))
    }

    fn query<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> MicrosandboxResult<T> {
        query(&self.reader).map_err(self.store.catalog().db("look at the index"))
    }
}

impl CacheSnapshot for HomeSnapshot {
    fn images(&mut self) -> MicrosandboxResult<Vec<ImageRecord>> {
        self.query(|connection| {
            let mut users = roots::all_users(connection)?;
            let pins = pins::set(connection)?;
            let origins = graph::origins(connection)?;
            let noted = !pins.is_empty() || !origins.is_empty();
            let rows = graph::images(connection)?.rows;
            let mut left: HashMap<i64, usize> = HashMap::new();
            rows.iter().for_each(|row| *left.entry(row.manifest).or_default() += 1);
            let images = rows.into_iter().map(|row| {
                let graph::ImageRow { handle, manifest, manifest_created_at } = row;
                let key = if noted { pins::key(handle.reference()) } else { String::new() };
                let others = left.get_mut(&manifest).map(|left| {
                    *left -= 1;
                    *left
                });
                // Most images are the only ones of their manifest, and take its users as they are.
                let users =
                    if others == Some(0) { users.remove(&manifest) } else { users.get(&manifest).cloned() };
                let recorded = origins.get(&key);
                ImageRecord {
                    users: users.unwrap_or_default(),
                    pinned: pins.contains(&key),
                    origin: recorded.map_or(Origin::Unknown, |origin| origin.of(handle.manifest_digest())),
                    // A time that is not known is earlier than every time.
                    arrived_at: handle
                        .created_at
                        .max(manifest_created_at)
                        .max(recorded.and_then(|origin| origin.recorded_at)),
                    handle,
                }
            });
            Ok(images.collect())
        })
    }

    fn detail(&mut self, reference: &str) -> MicrosandboxResult<ImageDetail> {
        read::inspect_in_transaction(&self.reader, reference)
    }

    fn costs(&mut self) -> MicrosandboxResult<CostGraph> {
        Ok(self.home_costs()?.graph)
    }

    fn history(&mut self) -> MicrosandboxResult<Vec<ImageHistory>> {
        self.query(|connection| {
            let pasts = journal::pasts(connection, self.store.now())?;
            let history = |row: graph::ImageRow| {
                let created_at = row.manifest_created_at;
                let past = row.handle.manifest_digest().and_then(|digest| pasts.get(digest));
                past.map_or(ImageHistory { first_seen_at: created_at, ..ImageHistory::default() }, |past| {
                    ImageHistory {
                        first_seen_at: past.first_seen_at.into_iter().chain(created_at).min(),
                        boots: past.boots(),
                        boot_count: past.boot_count(),
                        arrivals: past.arrivals(),
                        last_pull: past.last_pull.map(|cost| Pull {
                            duration: Duration::from_millis(cost.duration_ms),
                            bytes: cost.bytes,
                        }),
                    }
                })
            };
            Ok(graph::images(connection)?.rows.into_iter().map(history).collect())
        })
    }

    fn disk(&mut self) -> MicrosandboxResult<DiskStatus> {
        disk_status(self.store.cache().root())
    }

    fn home(&mut self) -> MicrosandboxResult<Option<HomeIdentity>> {
        self.store.check_cache(self.connection())?;
        self.store.identity(self.connection()).map(Some)
    }
}

/// Returns the disk space of a file.
fn cost(stat: &FileStat) -> FileCost {
    let links = HardLinks { device: stat.device, inode: stat.identity.inode, links: stat.links };
    FileCost { bytes: stat.allocated, hard_links: (stat.links > 1).then_some(links) }
}

/// Returns the disk space of an entry. Returns `None` for an entry that cannot be read: deleting it may free nothing.
pub(crate) fn cost_of(rooms: &Rooms, entry: &Entry) -> Option<FileCost> {
    let stat = rooms.stat(entry).ok()??;
    (!stat.is_dir).then(|| cost(&stat))
}

fn home_costs(connection: &Connection, rooms: &Rooms) -> rusqlite::Result<HomeCosts> {
    let mut graph = CostGraphBuilder::new();
    let graph::Images { rows: images, nameless } = graph::images(connection)?;
    let layer_rows = graph::layers(connection)?;
    let links = graph::links(connection)?;
    let mut layers = HashMap::with_capacity(layer_rows.len());
    for row in &layer_rows {
        let file = row.digest.known().and_then(|diff_id| {
            let entry = Owner::Layer(diff_id.clone()).entries().next();
            cost_of(rooms, &entry?)
        });
        layers.insert(row.id, graph.layer(file));
    }
    let mut layers_of: HashMap<i64, Vec<_>> = HashMap::new();
    for link in &links {
        layers_of.entry(link.manifest).or_default().extend(layers.get(&link.layer));
    }

    let held: HashSet<i64> = roots::all_users(connection)?.into_keys().chain(nameless).collect();
    let named: HashSet<i64> = images.iter().map(|row| row.manifest).collect();
    let (mut manifests, mut by_digest, mut lost) = (HashMap::new(), Vec::new(), Vec::new());
    for row in graph::manifests(connection)? {
        let files = row.digest.known().map(|digest| Owner::Manifest(digest.clone()));
        let mut files = files.iter().flat_map(Owner::entries).map(|entry| cost_of(rooms, &entry));
        let (fsmeta, vmdk) = (files.next().flatten(), files.next().flatten());
        let manifest = graph.manifest(fsmeta, vmdk, layers_of.get(&row.id).map_or(&[], Vec::as_slice));
        if held.contains(&row.id) {
            graph.hold(manifest);
        } else if !named.contains(&row.id) {
            lost.push(ManifestNode { digest: row.digest.clone(), node: manifest });
        }
        manifests.insert(row.id, manifest);
        by_digest.push(ManifestNode { digest: row.digest, node: manifest });
    }

    for row in &images {
        let reference = row.handle.reference().parse::<Reference>().ok();
        let metadata = reference.as_ref().and_then(|parsed| {
            let file = cost_of(rooms, &Entry::metadata(parsed))?;
            Some((parsed.as_str(), file))
        });
        graph.image(metadata, manifests.get(&row.manifest).copied());
    }

    let mut unreached = Vec::new();
    for ManifestNode { digest, node } in lost {
        let index = graph.unreached_manifest(node);
        unreached.push(Unreached { kind: UnreachedKind::Manifest, digest, index });
    }
    let linked: HashSet<i64> = links.iter().map(|link| link.layer).collect();
    for row in layer_rows.into_iter().filter(|row| !linked.contains(&row.id)) {
        let index = graph.unreached_layer(layers[&row.id]);
        unreached.push(Unreached { kind: UnreachedKind::Layer, digest: row.digest, index });
    }
    Ok(HomeCosts { graph: graph.build(), unreached, manifests: by_digest })
}

/// Measures the file system of a cache directory, which need not exist yet.
pub(crate) fn disk_status(cache: &Path) -> MicrosandboxResult<DiskStatus> {
    let fs = artifacts::file_system(cache).map_err(MicrosandboxError::io("measure", cache))?;
    Ok(DiskStatus {
        cache_bytes: artifacts::allocated_bytes(cache).map_err(MicrosandboxError::io("measure", cache))?,
        capacity_bytes: fs.f_frsize.saturating_mul(fs.f_blocks),
        available_bytes: fs.f_frsize.saturating_mul(fs.f_bavail),
    })
}
