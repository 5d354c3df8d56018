//! Programs that keep credentials: `docker-credential-NAME get`, with the registry on standard input and a JSON object on
//! standard output (Docker's credential helper protocol).
//!
//! A helper may ask its user for something, so it can take any time: there is a limit, and it is ended when nobody waits for
//! it any longer. What it writes may be a secret, and is part of no message.

use std::io::{self, Read as _, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde::Deserialize;

use super::secret::Secret;

/// The maximum number of bytes that are read of a helper's answer.
const ANSWER_BYTES: u64 = 64 << 10;

/// The time between two looks at a helper that has answered and is still there.
const LOOK: Duration = Duration::from_millis(5);

/// The user of an answer that has an identity token.
const TOKEN_USER: &str = "<token>";

/// A helper, and what it is asked for.
#[derive(Debug)]
pub(crate) struct Helper {
    program: String,
    server: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

impl Helper {
    /// Names a helper.
    ///
    /// # Errors
    /// A text if the name may not be a part of a program's name.
    pub(super) fn new(name: &str, server: &str) -> Result<Self, String> {
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !name.bytes().all(is_part) {
            return Err("it names a credential helper by more than a name".to_owned());
        }
        Ok(Self { program: format!("docker-credential-{name}"), server: server.to_owned() })
    }

    /// Returns the name of the program.
    pub(super) fn program(&self) -> &str {
        &self.program
    }

    #[cfg(test)]
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// Runs the helper, for at most `limit`. Returns `None` if it knows nobody. Dropping the future ends the helper.
    ///
    /// # Errors
    /// A text that names the program.
    pub(super) async fn run(&self, limit: Duration) -> Result<Option<Secret>, String> {
        let program = &self.program;
        let fail = |how: &str| format!("`{program}`, which it names, {how}");
        let child = Command::new(program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.map(Running).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => fail("is not installed"),
            _ => fail(&format!("cannot be run: {error}")),
        })?;
        let answered = tokio::time::timeout(limit, ask(&mut child.0, self.server.clone())).await;
        let answered =
            answered.unwrap_or_else(|_| Err(format!("has not answered for {} seconds", limit.as_secs())));
        let (status, text) = answered.map_err(|how| fail(&how))?;
        if !status.success() {
            // What helpers say if they know nobody.
            let is_unknown = String::from_utf8_lossy(&text).contains("credentials not found");
            return if is_unknown { Ok(None) } else { Err(fail("failed")) };
        }
        let answer: HelperAnswer =
            serde_json::from_slice(&text).map_err(|_| fail("gave no answer of a credential helper"))?;
        let HelperAnswer { username: user, secret } = answer;
        Ok(match user.as_str() {
            _ if secret.is_empty() => None,
            TOKEN_USER => Some(Secret::Identity(secret)),
            "" => None,
            _ => Some(Secret::Password { user, password: secret }),
        })
    }
}

/// A helper that is ended when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, or is not waited for any longer.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Gives a helper the name of the registry, and waits for its answer and its end.
async fn ask(child: &mut Child, server: String) -> Result<(ExitStatus, Vec<u8>), String> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let exchange = tokio::task::spawn_blocking(move || {
        if let Some(mut stdin) = stdin {
            // A helper that does not read it says so by its status.
            let _ = stdin.write_all(server.as_bytes());
        }
        let mut text = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(ANSWER_BYTES).read_to_end(&mut text)?;
        }
        Ok::<_, io::Error>(text)
    });
    let text = exchange.await.map_err(io::Error::from).and_then(|text| text);
    let text = text.map_err(|error| format!("cannot be read: {error}"))?;
    loop {
        if let Some(status) = child.try_wait().map_err(|error| format!("cannot be waited for: {error}"))? {
            return Ok((status, text));
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use tempfile::TempDir;
    use tokio::runtime::Runtime;

    use super::*;

    /// A script as a helper, in a directory.
    struct Script {
        helper: Helper,
        directory: TempDir,
    }

    impl Script {
        fn new(script: &str) -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            let program = directory.path().join("docker-credential-test");
            fs::write(&program, format!("#!/bin/sh\ncd '{}'\n{script}\n", directory.path().display()))
                .expect("written");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("permissions");
            let program = program.to_str().expect("text").to_owned();
            Self { helper: Helper { program, server: "r:5000".to_owned() }, directory }
        }

        fn run(&self, limit: Duration) -> Result<Option<Secret>, String> {
            let result = runtime().block_on(self.helper.run(limit));
            result.map_err(|why| why.replace(&self.helper.program, "HELPER"))
        }
    }

    fn runtime() -> Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
    }

    fn answer(script: &str) -> Result<Option<Secret>, String> {
        Script::new(script).run(Duration::from_secs(60))
    }

    /// A helper is given the registry, and answers with a user or an identity token, or that it knows nobody.
    #[test]
    fn answers() {
        let user = |user: &str| Secret::Password { user: user.to_owned(), password: "s".to_owned() };
        let script = r#"read server; test "$1" = get; echo "{\"Username\":\"$server\",\"Secret\":\"s\"}""#;
        assert_eq!(answer(script), Ok(Some(user("r:5000"))));
        let token = r#"echo '{"ServerURL":"x","Username":"<token>","Secret":"t"}'"#;
        assert_eq!(answer(token), Ok(Some(Secret::Identity("t".to_owned()))));
        assert_eq!(answer("echo 'credentials not found in native keychain'; exit 1"), Ok(None));
        assert_eq!(answer("echo '{}'"), Ok(None));
    }

    /// What a helper writes is part of no message, whether it fails or not.
    #[test]
    fn nothing_is_told() {
        for script in ["echo '{\"Secret\":\"hunter2\"}'; exit 1", "echo hunter2", "echo hunter2 >&2; exit 1"]
        {
            let why = answer(script).expect_err("a failure");
            assert!(why.starts_with("`HELPER`, which it names, ") && !why.contains("hunter2"), "{why}");
        }
    }

    /// A helper that does not answer is ended after the limit, and when it is not waited for any longer.
    #[test]
    fn ended() {
        let script = Script::new("echo $$ > new; mv new process; exec sleep 600");
        let process = script.directory.path().join("process");
        let is_gone = || {
            let process = fs::read_to_string(&process).expect("the number of a process");
            !Path::new("/proc").join(process.trim()).exists()
        };
        let began = async {
            while !process.exists() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        runtime().block_on(async {
            tokio::select! {
                answered = script.helper.run(Duration::from_secs(600)) => panic!("{answered:?}"),
                () = began => {}
            }
        });
        assert!(is_gone());
        let why = Script::new("exec sleep 600").run(Duration::from_millis(20)).expect_err("a limit");
        assert_eq!(why, "`HELPER`, which it names, has not answered for 0 seconds");
    }
}
