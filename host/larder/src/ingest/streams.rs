//! Streams that may keep whoever reads or writes them waiting for ever, such as pipes. A thread of its own does that for
//! each, so that the work ends soon after it is cancelled. The thread ends with the stream.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use super::error::IngestProblem;

/// The number of bytes that are handed over at a time.
const PIECE: usize = 256 << 10;

/// The number of pieces on their way.
const PIECES: usize = 2;

/// The time after which a wait looks whether the work is cancelled.
const TICK: Duration = Duration::from_millis(50);

/// Receives from a thread, as long as the work is not cancelled. Returns `None` when the thread has ended.
fn receive<T>(from: &Receiver<T>, cancelled: &AtomicBool) -> io::Result<Option<T>> {
    loop {
        match from.recv_timeout(TICK) {
            Ok(value) => return Ok(Some(value)),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) if cancelled.load(Ordering::Relaxed) => {
                return Err(IngestProblem::Cancelled.into_io());
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// A reader of a stream.
pub(super) struct Incoming {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: io::Cursor<Vec<u8>>,
    cancelled: Arc<AtomicBool>,
}

impl Incoming {
    /// Begins to read.
    pub(super) fn start(stream: impl Read + Send + 'static, cancelled: Arc<AtomicBool>) -> io::Result<Self> {
        let (send, pieces) = sync_channel(PIECES);
        thread::Builder::new().name("read".to_owned()).spawn(move || read_all(stream, &send))?;
        Ok(Self { pieces, piece: io::Cursor::default(), cancelled })
    }
}

/// Sends what a stream has, until it ends or nobody receives any more.
fn read_all(mut stream: impl Read, send: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut piece = vec![0; PIECE];
        let read = match stream.read(&mut piece) {
            Ok(0) => return,
            Ok(count) => {
                piece.truncate(count);
                Ok(piece)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let is_last = read.is_err();
        if send.send(read).is_err() || is_last {
            return;
        }
    }
}

impl Read for Incoming {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.piece.read(into)?;
            if count > 0 || into.is_empty() {
                return Ok(count);
            }
            match receive(&self.pieces, &self.cancelled)? {
                Some(piece) => self.piece = io::Cursor::new(piece?),
                None => return Ok(0),
            }
        }
    }
}

/// A writer to a stream. A flush waits until everything is written. Dropping it writes nothing more.
pub(super) struct Outgoing {
    pieces: Sender<Option<Vec<u8>>>,
    written: Receiver<io::Result<()>>,
    /// The number of pieces that are not known to be written.
    on_their_way: usize,
    piece: Vec<u8>,
    cancelled: Arc<AtomicBool>,
}

impl Outgoing {
    /// Makes a writer that writes nothing yet.
    pub(super) fn start(
        mut stream: impl Write + Send + 'static,
        cancelled: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let (pieces, receive) = channel::<Option<Vec<u8>>>();
        let (send, written) = channel();
        let work = move || {
            for piece in receive {
                let result = match piece {
                    Some(piece) => stream.write_all(&piece),
                    None => stream.flush(),
                };
                if send.send(result).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("write".to_owned()).spawn(work)?;
        let (on_their_way, piece) = (0, Vec::with_capacity(PIECE));
        Ok(Self { pieces, written, on_their_way, piece, cancelled })
    }

    /// Hands a piece over, or the wish to flush, once there is room for it.
    fn hand_over(&mut self, piece: Option<Vec<u8>>) -> io::Result<()> {
        while self.on_their_way >= PIECES {
            self.wait()?;
        }
        // A thread that has ended says so where it is waited for.
        let _ = self.pieces.send(piece);
        self.on_their_way += 1;
        Ok(())
    }

    /// Waits until one more piece is written.
    fn wait(&mut self) -> io::Result<()> {
        let ended = || io::Error::other("the thread that writes has ended");
        receive(&self.written, &self.cancelled)?.ok_or_else(ended)??;
        self.on_their_way -= 1;
        Ok(())
    }
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        if self.piece.len() == PIECE {
            let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
            self.hand_over(Some(piece))?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        self.hand_over(Some(piece))?;
        self.hand_over(None)?;
        while self.on_their_way > 0 {
            self.wait()?;
        }
        Ok(())
    }
}
