//! A stream of a blob that resumes where a broken connection ended.
//!
//! A task reads from the registry and passes pieces to the reader of the blob, a few ahead. It keeps only the number of
//! bytes that arrived: after a fault it requests the rest (`Range`). If a registry starts from the beginning instead,
//! the task skips the bytes that it already has. The reader checks the content by its digest.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::StreamExt as _;
use oci_client::client::BlobResponse;
use tokio::sync::mpsc;

use super::fault::Fault;
use super::registry::Link;
use crate::ingest::error::IngestProblem;
use crate::reference::Digest;

/// The maximum number of pieces on the way to the reader. A piece is the result of one read from a connection: some
/// kilobytes.
const AHEAD: usize = 32;

type Piece = Result<Bytes, IngestProblem>;

/// A transfer of a blob to its reader.
pub(super) struct Transfer {
    link: Arc<Link>,
    digest: Digest,
    size: u64,
    /// The number of bytes that the reader has.
    offset: u64,
    pieces: mpsc::Sender<Piece>,
}

impl Transfer {
    /// Makes a transfer, which the caller [runs](Self::run), and its reader.
    pub(super) fn new(link: Arc<Link>, digest: Digest, size: u64) -> (Self, BlobReader) {
        let (pieces, receiver) = mpsc::channel(AHEAD);
        let reader = BlobReader { pieces: receiver, piece: Bytes::new() };
        (Self { link, digest, size, offset: 0, pieces }, reader)
    }

    /// Passes all bytes of the blob to the reader, or an error.
    pub(super) async fn run(mut self) {
        if let Err(problem) = self.bring().await {
            let problem = match problem {
                IngestProblem::NotInRegistry => IngestProblem::Missing(self.digest.to_string()),
                problem => problem,
            };
            // A reader that is gone does not want to know.
            let _ = self.pieces.send(Err(problem)).await;
        }
    }

    async fn bring(&mut self) -> Result<(), IngestProblem> {
        let link = Arc::clone(&self.link);
        let mut waits = link.backoff.waits();
        while self.offset < self.size {
            let before = self.offset;
            let Err(fault) = link.unless_cancelled(self.connection()).await? else { continue };
            if self.offset > before {
                waits = link.backoff.waits();
            }
            link.wait(self.digest.as_str(), fault, &mut waits).await?;
        }
        Ok(())
    }

    /// Passes the bytes of one connection to the reader.
    async fn connection(&mut self) -> Result<(), Fault> {
        let link = Arc::clone(&self.link);
        let Link { client, reference, received, .. } = &*link;
        let digest = self.digest.as_str();
        let answer = client.pull_blob_stream_partial(reference, digest, self.offset, None).await?;
        let (stream, mut skip) = match answer {
            BlobResponse::Partial(stream) => (stream, 0),
            BlobResponse::Full(stream) => (stream, self.offset),
        };
        let mut stream = stream.stream;
        while self.offset < self.size {
            let Some(piece) = stream.next().await else {
                let text = format!("the connection ended after {} of {} bytes", self.offset, self.size);
                return Err(Fault::passing(IngestProblem::Unreachable(text)));
            };
            let mut piece = piece.map_err(|error| Fault::of_stream(&error))?;
            received.fetch_add(piece.len() as u64, Ordering::Relaxed);
            let skipped = piece.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
            skip -= skipped as u64;
            self.hand_over(piece.split_off(skipped)).await?;
        }
        Ok(())
    }

    async fn hand_over(&mut self, piece: Bytes) -> Result<(), Fault> {
        let found = self.offset + piece.len() as u64;
        if found > self.size {
            let (what, expected) = (self.digest.to_string(), self.size);
            return Err(Fault::lasting(IngestProblem::WrongSize { what, expected, found }));
        }
        if !piece.is_empty() && self.pieces.send(Ok(piece)).await.is_err() {
            return Err(Fault::lasting(IngestProblem::Cancelled));
        }
        self.offset = found;
        Ok(())
    }
}

impl Link {
    /// Requests a part of a blob, once: what it is for can do without it.
    pub(super) async fn part(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<Vec<u8>, IngestProblem> {
        let request =
            self.client.pull_blob_stream_partial(&self.reference, digest.as_str(), offset, Some(length));
        let answer = self.unless_cancelled(request).await?.map_err(|error| Fault::from(error).problem)?;
        let not_served = || IngestProblem::Registry("it sent no part of a blob".to_owned());
        let BlobResponse::Partial(stream) = answer else { return Err(not_served()) };
        let (mut stream, mut part) = (stream.stream, Vec::new());
        while (part.len() as u64) < length
            && let Some(piece) = self.unless_cancelled(stream.next()).await?
        {
            let piece = piece.map_err(|error| Fault::of_stream(&error).problem)?;
            self.received.fetch_add(piece.len() as u64, Ordering::Relaxed);
            part.extend_from_slice(&piece);
        }
        // Clients and registries disagree by a byte about where a part ends.
        part.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        if part.len() as u64 == length { Ok(part) } else { Err(not_served()) }
    }
}

/// A reader of a blob during its transfer. For threads that may block.
pub(super) struct BlobReader {
    pieces: mpsc::Receiver<Piece>,
    piece: Bytes,
}

impl Read for BlobReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = piece.map_err(IngestProblem::into_io)?,
                None => return Ok(0),
            }
        }
        let count = self.piece.len().min(into.len());
        into[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}
