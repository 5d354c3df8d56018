//! A real registry, filled by skopeo: what is pulled from it is what was pushed.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use larder::Image;
use larder::ingest::{Credentials, ImagePull, Transport};
use larder_tests::archive::{Packing, TestImage, layout_files, write_directory};
use larder_tests::judge::{has_tools, tool};
use larder_tests::{Home, contents, run};
use tempfile::TempDir;

use crate::into_home;

/// `acme` with the password `secret`, as Apache's `htpasswd` writes it.
const PASSWORDS: &str = "acme:$2b$04$8aACMoNS3/2l09RvIJTbce5x5aYjYiv/hnhQvJoIKjWqvLENOLhO.\n";

/// A registry process on loopback. Dropping it ends it.
struct Registry {
    process: Child,
    address: String,
    _directory: TempDir,
}

impl Registry {
    fn start(auth: &str) -> Self {
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
            rest.split([' ', '"']).next().map(str::to_owned)
        });
        // A full pipe would stop it.
        std::thread::spawn(move || log.for_each(drop));
        Self { process, address: address.expect("an address"), _directory: directory }
    }

    fn push(&self, layout: &Path, name: &str, arguments: &[&str]) {
        let source = format!("oci:{}:{name}", layout.display());
        let target = format!("docker://{}/{name}", self.address);
        let copy = ["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"];
        tool("skopeo", copy.iter().chain(arguments).copied().chain([source.as_str(), target.as_str()]));
    }

    fn pull(&self, name: &str) -> ImagePull {
        ImagePull::new(format!("{}/{name}", self.address)).transport(Transport::PlainHttp)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What skopeo pushed, in Docker's format and in OCI's, is pulled with the artifacts that the layout itself gives.
#[test]
fn what_was_pushed_is_pulled() {
    if !has_tools(&["docker-registry", "skopeo"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let image = TestImage::small(&["acme/app:1"]);
    write_directory(directory.path(), &layout_files(std::slice::from_ref(&image), Packing::Gzip));
    let registry = Registry::start("");
    registry.push(directory.path(), "acme/app:1", &["--format=oci"]);
    let (pulled, loaded) = (Home::made(), Home::made());
    let handle = into_home(&pulled, registry.pull("acme/app:1")).expect("pulled");
    let other = run(async {
        Image::load_local(&loaded.open().await, directory.path(), vec![handle.reference().to_owned()]).await
    });
    assert_eq!(other.expect("loaded")[0].manifest_digest(), handle.manifest_digest());
    let artifacts = |home: &Home| {
        let mut files = contents(home);
        files.retain(|name, _| name.starts_with("layers/") || name.starts_with("fsmeta/"));
        files
    };
    assert_eq!(artifacts(&pulled).len(), 3);
    assert_eq!(artifacts(&pulled), artifacts(&loaded));

    registry.push(directory.path(), "acme/app:1", &["--format=v2s2"]);
    let docker = into_home(&pulled, registry.pull("acme/app:1")).expect("pulled");
    assert_ne!(docker.manifest_digest(), handle.manifest_digest());
    assert_eq!(docker.layer_count(), 2);
    let by_digest = format!("acme/app@{}", docker.manifest_digest().expect("a digest"));
    into_home(&Home::made(), registry.pull(&by_digest)).expect("pulled");
}

/// A registry that wants a user and a password gets them from whoever has them.
#[test]
fn a_closed_registry() {
    if !has_tools(&["docker-registry", "skopeo"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    write_directory(directory.path(), &layout_files(&[TestImage::small(&["acme/app:1"])], Packing::Gzip));
    let registry = Registry::start("auth: { htpasswd: { realm: acme, path: DIR/passwords } }\n");
    registry.push(directory.path(), "acme/app:1", &["--dest-creds=acme:secret"]);
    let acme = Credentials::Password { user: "acme".to_owned(), password: "secret".to_owned() };
    into_home(&Home::made(), registry.pull("acme/app:1").credentials(acme)).expect("pulled");
    let error = into_home(&Home::made(), registry.pull("acme/app:1")).expect_err("closed").to_string();
    assert!(error.contains("the registry refuses it"), "{error}");
}
