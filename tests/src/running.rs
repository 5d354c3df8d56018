//! Running programs: their output, and their reaction to signals.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// A running program, with its output on standard error. Drop ends it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stderr: BufReader<ChildStderr>,
    said: String,
}

impl Running {
    /// Starts a program.
    pub fn start(mut command: Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program started");
        let stderr = BufReader::new(child.stderr.take().expect("standard error"));
        Self { child, stderr, said: String::new() }
    }

    /// Waits for a line with this text on standard error, and returns it.
    ///
    /// # Panics
    /// Panics if the program ends before it prints the line.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            if self.stderr.read_line(&mut line).expect("text") == 0 {
                panic!("it ended without `{text}`: {}", self.said);
            }
            self.said += &line;
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a program that runs");
    }

    /// Waits for its end, and returns its exit status, its standard output, and all of its standard error.
    pub fn end(mut self) -> (ExitStatus, String, String) {
        let mut stdout = String::new();
        self.child.stdout.take().expect("standard output").read_to_string(&mut stdout).expect("text");
        self.stderr.read_to_string(&mut self.said).expect("text");
        let status = self.child.wait().expect("its end");
        (status, stdout, std::mem::take(&mut self.said))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, unless the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
