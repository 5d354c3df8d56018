//! Ctrl-C, and a polite request to end (`SIGTERM`).
//!
//! The first one is told to whoever asks: work that can be cancelled is, and cleans up after itself before the program
//! ends. The second one ends the program at once. A thread of its own listens, since that of the program waits for what
//! was cancelled and hears nothing then.

use std::io;
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::exit::Status;

/// Whether the program was asked to end.
#[derive(Debug)]
pub(crate) struct Interrupts {
    told: watch::Receiver<bool>,
}

impl Interrupts {
    /// Listens from now on: the program is not ended by the first signal any more.
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

    /// Ends when the program is asked to end, also where it was before.
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
