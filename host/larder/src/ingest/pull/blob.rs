//! A stream of a blob that resumes where a broken connection ended.
//!
//! A task reads from the registry and passes pieces to the reader of the blob, some ahead. It keeps only the number of
//! bytes that arrived: after a fault it requests the rest (`Range`). If a registry starts from the beginning instead,
//! the task skips the bytes that it already has. The reader checks the content by its digest.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::ingest::error::IngestProblem;
use crate::reference::Digest;
use crate::registry::{Client, Fault, Part, Problem};

/// The maximum number of bytes on the way to the reader, but for one piece that may be larger. A piece is the result of
/// one read from a connection: up to some hundred kilobytes.
const AHEAD: usize = 1 << 20;

/// The minimum number of bytes that a piece counts as, because each has a cost.
const SMALLEST_PIECE: usize = 1 << 10;

/// Some bytes, with the room that they take until they are read.
struct Piece {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// A transfer of a blob to its reader.
pub(super) struct Transfer {
    client: Arc<Client>,
    digest: Digest,
    size: u64,
    /// The number of bytes that the reader has.
    offset: u64,
    /// The trust in the registry's parts of blobs.
    ranges: Ranges,
    room: Arc<Semaphore>,
    pieces: mpsc::UnboundedSender<Result<Piece, IngestProblem>>,
}

/// Trust in a registry to send the parts of blobs that are requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ranges {
    /// It sends them, as far as is known.
    Trusted,
    /// It sends other parts than are requested.
    Wrong,
}

impl Transfer {
    /// Makes a transfer, which the caller [runs](Self::run), and its reader.
    pub(super) fn new(client: Arc<Client>, digest: Digest, size: u64) -> (Self, BlobReader) {
        let (pieces, receiver) = mpsc::unbounded_channel();
        let reader = BlobReader { pieces: receiver, piece: None };
        let room = Arc::new(Semaphore::new(AHEAD));
        (Self { client, digest, size, offset: 0, ranges: Ranges::Trusted, room, pieces }, reader)
    }

    /// Passes all bytes of the blob to the reader, or an error.
    pub(super) async fn run(mut self) {
        if let Err(problem) = self.bring().await {
            let problem = match problem {
                Problem::Missing => IngestProblem::Missing(self.digest.to_string()),
                problem => problem.into(),
            };
            self.end(problem);
        }
    }

    /// Passes an error to the reader.
    fn end(&self, problem: IngestProblem) {
        // A reader that is gone does not want to know.
        let _ = self.pieces.send(Err(problem));
    }

    async fn bring(&mut self) -> Result<(), Problem> {
        let client = Arc::clone(&self.client);
        let mut waits = client.waits();
        while self.offset < self.size {
            let before = self.offset;
            let Err(fault) = client.unless_stopped(self.connection()).await? else { continue };
            if self.offset > before {
                waits = client.waits();
            }
            client.wait(self.digest.as_str(), fault, &mut waits).await?;
        }
        Ok(())
    }

    /// Passes the bytes of one connection to the reader.
    async fn connection(&mut self) -> Result<(), Fault> {
        let client = Arc::clone(&self.client);
        let part = match (self.offset, self.ranges) {
            (0, _) | (_, Ranges::Wrong) => Part::Whole,
            (offset, Ranges::Trusted) => Part::From(offset),
        };
        let Some(mut blob) = client.blob(&self.digest, self.size, part).await? else {
            self.ranges = Ranges::Wrong;
            let why = "it sent another part of a blob than was requested";
            return Err(Fault::passing(Problem::Failed(why.to_owned())));
        };
        let mut skip = self.offset - blob.begins;
        while self.offset < self.size {
            let Some(mut piece) = blob.piece().await? else {
                let text = format!("the connection ended after {} of {} bytes", self.offset, self.size);
                return Err(Fault::passing(Problem::Unreachable(text)));
            };
            client.count(piece.len());
            let skipped = piece.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
            skip -= skipped as u64;
            self.hand_over(piece.split_off(skipped)).await?;
        }
        Ok(())
    }

    async fn hand_over(&mut self, bytes: Bytes) -> Result<(), Fault> {
        let found = self.offset + bytes.len() as u64;
        if found > self.size {
            let (what, expected) = (self.digest.to_string(), self.size);
            // The reader knows by this that it has all that it gets.
            self.end(IngestProblem::WrongSize { what, expected, found });
            return Err(Fault::lasting(Problem::Cancelled));
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let needed = u32::try_from(bytes.len().clamp(SMALLEST_PIECE, AHEAD)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(needed).await;
        let sent = room.ok().and_then(|room| self.pieces.send(Ok(Piece { bytes, _room: room })).ok());
        if sent.is_none() {
            return Err(Fault::lasting(Problem::Cancelled));
        }
        self.offset = found;
        Ok(())
    }
}

/// Requests a part of a blob, once: what it is for can do without it.
pub(super) async fn part(
    client: &Client,
    digest: &Digest,
    size: u64,
    offset: u64,
    length: u64,
) -> Option<Vec<u8>> {
    let request = client.blob(digest, size, Part::Of(offset, length));
    let mut blob = client.unless_stopped(request).await.ok()?.ok()??;
    let mut part = Vec::new();
    while (part.len() as u64) < length && blob.begins == offset {
        let piece = client.unless_stopped(blob.piece()).await.ok()?.ok()??;
        client.count(piece.len());
        part.extend_from_slice(&piece);
    }
    (part.len() as u64 == length).then_some(part)
}

/// A reader of a blob during its transfer. For threads that may block.
pub(super) struct BlobReader {
    pieces: mpsc::UnboundedReceiver<Result<Piece, IngestProblem>>,
    piece: Option<Piece>,
}

impl Read for BlobReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(Piece { bytes, .. }) = self.piece.as_mut().filter(|piece| !piece.bytes.is_empty()) {
                let count = bytes.len().min(into.len());
                into[..count].copy_from_slice(&bytes.split_to(count));
                return Ok(count);
            }
            // Its room is free before the next piece is waited for.
            self.piece = None;
            match self.pieces.blocking_recv() {
                Some(piece) => self.piece = Some(piece.map_err(IngestProblem::into_io)?),
                None => return Ok(0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A piece that takes all the room is passed on while the reader waits for it: what the reader has read takes none.
    #[tokio::test]
    async fn what_was_read_takes_no_room() {
        let room = Arc::new(Semaphore::new(AHEAD));
        let (sender, pieces) = mpsc::unbounded_channel();
        let mut reader = BlobReader { pieces, piece: None };
        let send = async |bytes: &'static [u8], needed: usize| {
            let room = Arc::clone(&room).acquire_many_owned(u32::try_from(needed).expect("a number"));
            let room =
                tokio::time::timeout(Duration::from_secs(60), room).await.expect("room").expect("open");
            let piece = Piece { bytes: Bytes::from_static(bytes), _room: room };
            assert!(sender.send(Ok(piece)).is_ok());
        };
        send(b"small", SMALLEST_PIECE).await;
        let reading = tokio::task::spawn_blocking(move || {
            let mut read = [0; 10];
            reader.read_exact(&mut read).map(|()| read)
        });
        send(b"large", AHEAD).await;
        assert_eq!(&reading.await.expect("a thread").expect("read"), b"smalllarge");
    }
}
