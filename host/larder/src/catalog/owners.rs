//! The files that each row owns.
//!
//! No other code answers this question. A layer owns its EROFS image, a manifest owns its fsmeta image and VMDK
//! descriptor, and a reference owns the metadata that all of its spellings share. A row whose digest or reference does
//! not parse owns nothing: no file is named after it.

use std::collections::HashSet;
use std::ops::ControlFlow;

use rusqlite::{Connection, OptionalExtension as _};

use super::data_version;
use super::lenient::any_text;
use crate::artifacts::{Entry, Room};
use crate::reference::{Digest, Reference};

/// A row that owns files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// A layer, by its diff ID.
    Layer(Digest),
    /// A manifest.
    Manifest(Digest),
    /// A reference, in any spelling.
    Reference(Reference),
}

impl Owner {
    /// Returns the entries that it owns.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> + use<> {
        let [first, second] = match self {
            Self::Layer(diff_id) => [Some(Entry::named(Room::Layers, diff_id)), None],
            Self::Manifest(digest) => Entry::joined(digest).map(Some),
            Self::Reference(reference) => [Some(Entry::metadata(reference)), None],
        };
        first.into_iter().chain(second)
    }
}

/// An owner from the index.
pub(crate) struct OwnerRow {
    pub(crate) owner: Owner,
    /// The text of its digest or reference, in the spelling of the index.
    pub(crate) text: String,
}

/// A query for texts of the index, and the owner that such a text names.
type OwnerQuery = (&'static str, fn(&str) -> Option<Owner>);

/// The queries for all owners.
const OWNERS: [OwnerQuery; 3] = [
    ("SELECT diff_id FROM main.layer ORDER BY id", |text| text.parse().ok().map(Owner::Layer)),
    ("SELECT digest FROM main.manifest ORDER BY id", |text| text.parse().ok().map(Owner::Manifest)),
    ("SELECT reference FROM image_ref ORDER BY id", |text| text.parse().ok().map(Owner::Reference)),
];

/// Visits every owner: layers, manifests, references, each in row order.
pub(crate) fn for_each(connection: &Connection, mut visit: impl FnMut(OwnerRow)) -> rusqlite::Result<()> {
    let visit = |row| {
        visit(row);
        ControlFlow::Continue(())
    };
    for_each_until(connection, visit)
}

/// Visits owners in the order of [`for_each`], until it is told to stop.
fn for_each_until(
    connection: &Connection,
    mut visit: impl FnMut(OwnerRow) -> ControlFlow<()>,
) -> rusqlite::Result<()> {
    for (query, owner_of) in OWNERS {
        let mut statement = connection.prepare_cached(query)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let text = any_text(row, 0)?;
            if let Some(owner) = owner_of(&text)
                && visit(OwnerRow { owner, text }).is_break()
            {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Asks about the images of layers and the fsmeta images of manifests until one is there. Returns whether one is, or
/// `None` if no row owns any.
pub(crate) fn any_there(
    connection: &Connection,
    mut is_there: impl FnMut(&Entry) -> bool,
) -> rusqlite::Result<Option<bool>> {
    let mut found = None;
    for_each_until(connection, |row| {
        let entry = match &row.owner {
            Owner::Layer(diff_id) => Entry::named(Room::Layers, diff_id),
            Owner::Manifest(digest) => Entry::named(Room::Fsmeta, digest),
            // They come last.
            Owner::Reference(_) => return ControlFlow::Break(()),
        };
        found = Some(is_there(&entry));
        if found == Some(true) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(found)
}

/// Returns every entry that a row owns.
pub(crate) fn entries(connection: &Connection) -> rusqlite::Result<HashSet<Entry>> {
    let mut entries = HashSet::new();
    for_each(connection, |row| entries.extend(row.owner.entries()))?;
    Ok(entries)
}

/// A query for the current owner of an entry, which asks the index each time.
pub(crate) struct LiveOwners<'a> {
    connection: &'a Connection,
    /// The state of the index from which `metadata` was read. It differs after a change by another connection.
    seen_at: Option<i64>,
    /// The metadata entries of all references, which take long to compute.
    metadata: Option<HashSet<Entry>>,
}

impl<'a> LiveOwners<'a> {
    /// Makes a query on this connection, which makes no change meanwhile.
    pub(crate) fn new(connection: &'a Connection) -> Self {
        Self { connection, seen_at: None, metadata: None }
    }

    /// Returns whether a row owns an entry.
    pub(crate) fn own(&mut self, entry: &Entry) -> rusqlite::Result<bool> {
        let Some(key) = entry.room.key_of(&entry.name) else { return Ok(false) };
        let query = match entry.room {
            Room::Layers => "SELECT 1 FROM main.layer WHERE diff_id = ?1",
            Room::Fsmeta | Room::Vmdk => "SELECT 1 FROM main.manifest WHERE digest = ?1",
            Room::Manifests => return self.own_metadata(entry),
        };
        let mut statement = self.connection.prepare_cached(query)?;
        let row = statement.query_row([format!("sha256:{key}")], |_| Ok(())).optional()?;
        Ok(row.is_some())
    }

    fn own_metadata(&mut self, entry: &Entry) -> rusqlite::Result<bool> {
        let now = data_version(self.connection)?;
        if self.seen_at.replace(now) != Some(now) {
            self.metadata = None;
        }
        let metadata = match &mut self.metadata {
            Some(metadata) => metadata,
            None => self.metadata.insert(metadata_entries(self.connection)?),
        };
        Ok(metadata.contains(entry))
    }
}

fn metadata_entries(connection: &Connection) -> rusqlite::Result<HashSet<Entry>> {
    let mut statement = connection.prepare_cached("SELECT reference FROM image_ref")?;
    let mut rows = statement.query([])?;
    let mut entries = HashSet::new();
    while let Some(row) = rows.next()? {
        if let Ok(reference) = any_text(row, 0)?.parse::<Reference>() {
            entries.extend(Owner::Reference(reference).entries());
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::schema;

    /// Metadata that got an owner from another connection after the owners were read is owned.
    #[test]
    fn owners_are_asked_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        let mut other = Connection::open(&path).unwrap();
        schema::create(&mut other, chrono::DateTime::UNIX_EPOCH).unwrap();
        let connection = Connection::open(&path).unwrap();
        let mut owners = LiveOwners::new(&connection);
        let entry = Entry::metadata(&"docker.io/acme/app:1".parse().unwrap());
        assert!(!owners.own(&entry).unwrap());
        let insert = "INSERT INTO manifest (id, digest) VALUES (1, 'sha256:x');
                      INSERT INTO image_ref (reference, manifest_id) VALUES ('acme/app:1', 1);";
        other.execute_batch(insert).unwrap();
        assert!(owners.own(&entry).unwrap());
    }
}
