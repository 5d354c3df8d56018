//! Hashing a stream, on the thread that reads it or on one beside it.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use sha2::{Digest as _, Sha256};

use crate::reference::Digest;

/// The number of bytes that are handed over at once.
const CHUNK: usize = 256 << 10;

/// The number of chunks that wait to be hashed.
const WAITING: usize = 2;

/// A hasher of the bytes of a stream.
pub(super) enum Hasher {
    Here(Sha256),
    Beside(Beside),
}

/// A hasher on a thread of its own, which ends when this is dropped.
pub(super) struct Beside {
    chunk: Vec<u8>,
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    thread: JoinHandle<Sha256>,
}

impl Hasher {
    pub(super) fn here() -> Self {
        Self::Here(Sha256::new())
    }

    /// Makes a hasher on a thread of its own, or on this one if there can be no other.
    pub(super) fn beside() -> Self {
        let (full, to_hash) = sync_channel::<Vec<u8>>(WAITING);
        let (hashed, empty) = sync_channel(WAITING + 2);
        let hash = move || {
            let mut hasher = Sha256::new();
            while let Ok(mut chunk) = to_hash.recv() {
                hasher.update(&chunk);
                chunk.clear();
                // At the end there is no use for it.
                let _ = hashed.try_send(chunk);
            }
            hasher
        };
        match thread::Builder::new().name("larder-hash".to_owned()).spawn(hash) {
            Ok(thread) => Self::Beside(Beside { chunk: Vec::with_capacity(CHUNK), full, empty, thread }),
            Err(_) => Self::here(),
        }
    }

    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        match self {
            Self::Here(hasher) => hasher.update(bytes),
            Self::Beside(beside) => {
                while !bytes.is_empty() {
                    let (now, later) = bytes.split_at(bytes.len().min(CHUNK - beside.chunk.len()));
                    beside.chunk.extend_from_slice(now);
                    bytes = later;
                    if beside.chunk.len() == CHUNK {
                        let next = beside.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(CHUNK));
                        // The thread ends when this is dropped, not before.
                        let _ = beside.full.send(std::mem::replace(&mut beside.chunk, next));
                    }
                }
            }
        }
    }

    pub(super) fn finish(self) -> Digest {
        let hasher = match self {
            Self::Here(hasher) => hasher,
            Self::Beside(Beside { chunk, full, thread, .. }) => {
                let _ = full.send(chunk);
                drop(full);
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            }
        };
        Digest::from_hash(hasher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream has the same digest on both threads, in pieces of any size.
    #[test]
    fn the_digest_is_the_same() {
        let bytes: Vec<u8> = (0..3 * CHUNK as u32 + 5).map(|number| (number % 251) as u8).collect();
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, bytes.len()] {
            for piece in [1000, CHUNK, 2 * CHUNK + 7] {
                for mut hasher in [Hasher::here(), Hasher::beside()] {
                    bytes[..length].chunks(piece).for_each(|piece| hasher.update(piece));
                    assert_eq!(hasher.finish(), Digest::of(&bytes[..length]), "{length} by {piece}");
                }
            }
        }
    }
}
