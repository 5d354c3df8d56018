//! Interrupts: Ctrl-C and `SIGTERM`.
//!
//! The first interrupt cancels work that can be cancelled, and the work cleans up before the program ends. The second
//! interrupt ends the program at once. A thread of its own listens for signals, since the program's own thread waits
//! for the cancelled work.

use std::io;
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::exit::Status;

/// What is said when a removal is asked to end.
pub(crate) const ENDING: &str =
    "interrupted: the images that are being removed still go; Ctrl-C once more ends at once";

/// The state of interrupts of the program.
#[derive(Debug, Clone)]
pub(crate) struct Interrupts {
    told: watch::Receiver<bool>,
}

impl Interrupts {
    /// Listens for interrupts from now on: the first signal no longer ends the program.
    pub(crate) fn listen() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let mut signals = {
            let _entered = runtime.enter();
            [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]
        };
        let (tell, told) = watch::channel(false);
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                next(&mut signals).await;
                tell.send_replace(true);
                next(&mut signals).await;
            });
            end_at_once();
        })?;
        Ok(Self { told })
    }

    /// Waits until the program is interrupted. Returns at once if it was interrupted before.
    pub(crate) async fn asked(&self) {
        // An error means that the listener is gone, and with it the program.
        let _ = self.told.clone().wait_for(|&asked| asked).await;
    }
}

async fn next([interrupt, terminate]: &mut [Signal; 2]) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "whoever asks twice does not want to wait; leases end with the process, and prunes collect files"
)]
fn end_at_once() -> ! {
    std::process::exit(Status::Failed as i32)
}
