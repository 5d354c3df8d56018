//! A terminal in which a program runs.

use std::fs::File;
use std::io::Read as _;
use std::num::NonZero;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

const ROWS: NonZero<u16> = NonZero::new(24).expect("rows");
const COLUMNS: NonZero<u16> = NonZero::new(100).expect("columns");

/// The time without output after which a program counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal in which a program runs. Drop ends the program.
pub struct Terminal {
    output: Receiver<Vec<u8>>,
    screen: vt100::Parser,
    /// Everything that the program has written.
    written: Vec<u8>,
    child: Child,
}

impl Terminal {
    /// Starts a program in a terminal.
    pub fn start(mut command: Command) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a terminal");
        unlockpt(&master).expect("a terminal");
        let size = Winsize { ws_row: ROWS.get(), ws_col: COLUMNS.get(), ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("a size");
        let end = ioctl_tiocgptpeer(&master, flags).expect("its other end");
        let clone = || end.try_clone().expect("its other end");
        let child = command
            .env("TERM", "xterm-256color")
            .stdin(clone())
            .stdout(clone())
            .stderr(clone())
            .spawn()
            .expect("the program started");
        let (send, output) = channel();
        thread::spawn(move || {
            let mut master = File::from(master);
            let mut bytes = [0; 4096];
            // When nobody has the other end any more, that is an error and no end of file.
            while let Ok(count @ 1..) = master.read(&mut bytes) {
                if send.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { output, screen: vt100::Parser::new(ROWS, COLUMNS, 0), written: Vec::new(), child }
    }

    /// Waits until the screen looks as expected, and returns the screen.
    ///
    /// # Panics
    /// Panics if the program ends or hangs before that.
    #[track_caller]
    pub fn wait_for(&mut self, looks_so: impl Fn(&str) -> bool) -> String {
        while !looks_so(&self.contents()) {
            assert!(self.read(), "it ended so:\n{}", self.contents());
        }
        self.contents()
    }

    /// Waits for the end of the program, and returns its exit status and the final screen.
    ///
    /// # Panics
    /// Panics if it hangs.
    #[track_caller]
    pub fn end(mut self) -> (ExitStatus, String) {
        while self.read() {}
        (self.child.wait().expect("its end"), self.contents())
    }

    /// Waits for the end of the program, and returns everything that it has written.
    ///
    /// # Panics
    /// Panics if it hangs.
    #[track_caller]
    pub fn written(mut self) -> Vec<u8> {
        while self.read() {}
        std::mem::take(&mut self.written)
    }

    /// Reads more of the program's output. Returns whether there was more.
    #[track_caller]
    fn read(&mut self) -> bool {
        match self.output.recv_timeout(PATIENCE) {
            Ok(bytes) => {
                self.screen.process(&bytes);
                self.written.extend(bytes);
            }
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => panic!("it hangs so:\n{}", self.contents()),
        }
        true
    }

    fn contents(&self) -> String {
        // Row by row: a bar is as wide as the screen, which is no reason to join it with the next.
        let rows: Vec<String> = self.screen.screen().rows(0, COLUMNS.get()).collect();
        let rows: Vec<&str> = rows.iter().map(|row| row.trim_end()).collect();
        rows.join("\n").trim_end().to_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended already, unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
