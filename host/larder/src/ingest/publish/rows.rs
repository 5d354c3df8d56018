//! The metadata and the rows of an image, which make its artifacts known.

use super::super::error::IngestProblem;
use super::super::metadata;
use super::super::source::NamedImage;
use super::Publication;
use crate::artifacts::Entry;
use crate::catalog::Writer;
use crate::catalog::journal::PullCost;
use crate::catalog::publish::{NewImage, NewOrigin, insert};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::failpoint::failpoint;
use crate::records::ImageHandle;
use crate::reference::Reference;

use std::io;

impl Publication {
    /// Writes the metadata of every reference of an image, each under its lock, which is held until the rows are in the index.
    pub(crate) fn describe(&self, image: &NamedImage) -> MicrosandboxResult<()> {
        let text = metadata::encode(&image.image);
        let mut wanted: Vec<(Entry, &Reference)> =
            image.references.iter().map(|reference| (Entry::metadata(reference), reference)).collect();
        // Whoever takes several locks takes them in one order.
        wanted.sort_by(|a, b| a.0.cmp(&b.0));
        for (entry, reference) in wanted {
            let turn = self.hold(&entry, || {})?;
            self.state().undo.turns.push(turn);
            self.write_metadata(&entry, &text).map_err(|error| {
                MicrosandboxError::from(IngestProblem::writing(error).of(reference.as_str()))
            })?;
            failpoint!("ingest.described");
        }
        self.sync()
    }

    fn write_metadata(&self, entry: &Entry, text: &str) -> io::Result<()> {
        match self.read_small(entry) {
            Ok(before) if before == text.as_bytes() => return self.reuse(entry),
            Ok(before) => self.state().undo.replaced.push((entry.clone(), before)),
            // Nothing of that length is metadata.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge) => {}
            Err(error) => return Err(error),
        }
        self.write_small(entry, text.as_bytes())
    }

    /// Adds an image to the index in one transaction, with the cost of a pull. It cannot be taken back any longer.
    pub(crate) fn commit(
        &self,
        writer: &mut Writer,
        image: &NewImage,
        origin: NewOrigin,
        cost: Option<PullCost>,
        now: chrono::DateTime<chrono::Utc>,
    ) -> MicrosandboxResult<Vec<ImageHandle>> {
        let action = "add images";
        let handles = writer.change(action, |connection| {
            let handles = insert(connection, image, origin, cost, now);
            let handles = handles.map_err(MicrosandboxError::db(action))?;
            failpoint!("ingest.inserted");
            Ok(handles)
        })?;
        failpoint!("ingest.committed");
        self.state().undo.settle(image);
        Ok(handles)
    }
}
