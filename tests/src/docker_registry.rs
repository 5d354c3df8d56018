//! A real registry, Debian's `docker-registry`, as a process on loopback.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::judge::tool;

/// `acme` with the password `secret`, as Apache's `htpasswd` writes it.
const PASSWORDS: &str = "acme:$2b$04$8aACMoNS3/2l09RvIJTbce5x5aYjYiv/hnhQvJoIKjWqvLENOLhO.\n";

/// A registry process. Drop ends it.
#[derive(Debug)]
pub struct DockerRegistry {
    process: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl DockerRegistry {
    /// Starts a registry without images. `auth` is that part of its configuration, in which `DIR/passwords` has the user `acme`
    /// with the password `secret`.
    pub fn start(auth: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().display();
        fs::write(directory.path().join("passwords"), PASSWORDS).expect("written");
        let config = format!(
            "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {path}/data }} }}\nhttp: {{ addr: '127.0.0.1:0' }}\n{}",
            auth.replace("DIR", &path.to_string())
        );
        fs::write(directory.path().join("config.yml"), config).expect("written");
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(directory.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the registry");
        let mut log = BufReader::new(process.stderr.take().expect("its log")).lines();
        let address = log.by_ref().find_map(|line| {
            let line = line.expect("a line");
            let (_, rest) = line.split_once("listening on ")?;
            rest.split([' ', '"']).next()?.parse().ok()
        });
        // A full pipe would stop it.
        std::thread::spawn(move || log.for_each(drop));
        Self { process, address: address.expect("an address"), _directory: directory }
    }

    /// Returns its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Pushes the image of this name in a layout, by skopeo with these further arguments, to a repository and tag.
    pub fn push(&self, layout: &Path, name: &str, target: &str, arguments: &[&str]) {
        let source = format!("oci:{}:{name}", layout.display());
        let target = format!("docker://{}/{target}", self.address);
        let copy = ["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"];
        tool("skopeo", copy.iter().chain(arguments).copied().chain([source.as_str(), target.as_str()]));
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
