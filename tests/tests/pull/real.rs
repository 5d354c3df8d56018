//! A real registry, filled by skopeo: what is pulled from it is what was pushed.

use larder::Image;
use larder::ingest::{Credentials, ImagePull, Transport};
use larder_tests::archive::{Packing, TestImage, layout_files, write_directory};
use larder_tests::docker_registry::DockerRegistry;
use larder_tests::judge::has_tools;
use larder_tests::{Home, contents, run};

use crate::into_home;

/// A pull from a registry.
fn pull(registry: &DockerRegistry, name: &str) -> ImagePull {
    ImagePull::new(format!("{}/{name}", registry.address())).transport(Transport::PlainHttp)
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
    let registry = DockerRegistry::start("");
    registry.push(directory.path(), "acme/app:1", "acme/app:1", &["--format=oci"]);
    let (pulled, loaded) = (Home::made(), Home::made());
    let handle = into_home(&pulled, pull(&registry, "acme/app:1")).expect("pulled");
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

    registry.push(directory.path(), "acme/app:1", "acme/app:1", &["--format=v2s2"]);
    let docker = into_home(&pulled, pull(&registry, "acme/app:1")).expect("pulled");
    assert_ne!(docker.manifest_digest(), handle.manifest_digest());
    assert_eq!(docker.layer_count(), 2);
    let by_digest = format!("acme/app@{}", docker.manifest_digest().expect("a digest"));
    into_home(&Home::made(), pull(&registry, &by_digest)).expect("pulled");
}

/// A registry that wants a user and a password gets them from whoever has them.
#[test]
fn a_closed_registry() {
    if !has_tools(&["docker-registry", "skopeo"]) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    write_directory(directory.path(), &layout_files(&[TestImage::small(&["acme/app:1"])], Packing::Gzip));
    let registry = DockerRegistry::start("auth: { htpasswd: { realm: acme, path: DIR/passwords } }\n");
    registry.push(directory.path(), "acme/app:1", "acme/app:1", &["--dest-creds=acme:secret"]);
    let acme = Credentials::Password { user: "acme".to_owned(), password: "secret".to_owned() };
    into_home(&Home::made(), pull(&registry, "acme/app:1").credentials(acme)).expect("pulled");
    let error = into_home(&Home::made(), pull(&registry, "acme/app:1")).expect_err("closed").to_string();
    assert!(error.contains("the registry refuses it"), "{error}");
}
