//! The same questions to both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::TimeDelta;
use larder::{Image, LocalBackend};
use larder_tests::{FIXTURE_NOW, Home, Peer, Seen, entries, run};
use serde_json::Value;

/// What is said of the images of a home.
#[derive(Debug, PartialEq)]
pub(crate) struct Answers {
    /// In the order in which they are listed.
    pub(crate) list: Vec<Value>,
    /// Of each reference, what `get` and `inspect` say.
    pub(crate) images: BTreeMap<String, (Value, Value)>,
}

impl Answers {
    pub(crate) fn of_larder(home: &Home) -> Self {
        run(async {
            let local = home.open().await;
            let images = Image::list_local(&local).await.expect("the images");
            let list = images.iter().map(record).collect();
            let mut answers = Self { list, images: BTreeMap::new() };
            for image in &images {
                let reference = image.reference();
                let got = Image::get_local(&local, reference).await.expect("the image");
                let detail = Image::inspect_local(&local, reference).await.expect("the image");
                answers.images.insert(reference.to_owned(), (record(&got), record(&detail)));
            }
            answers
        })
    }

    pub(crate) fn of_the_sdk(peer: &Peer, home: &Home) -> Self {
        let Value::Array(list) = peer.ask(&home.path(), ["list"]) else { panic!("a list") };
        let images = list.iter().map(|image| image["reference"].as_str().expect("a reference").to_owned());
        let ask = |reference: String| {
            let got = peer.ask(&home.path(), ["get", &reference]);
            let detail = peer.ask(&home.path(), ["inspect", &reference]);
            (reference, (got, detail))
        };
        Self { images: images.map(ask).collect(), list }
    }

    /// The digests of a reference: of its manifest, and of its layers' contents.
    pub(crate) fn digests(&self, reference: &str) -> (String, Vec<String>) {
        let (_, detail) = &self.images[reference];
        let text = |value: &Value| value.as_str().expect("a digest").to_owned();
        let layers = detail["layers"].as_array().expect("layers").iter();
        let diff_ids = layers.map(|layer| text(&layer["diff_id"])).collect();
        (text(&detail["handle"]["manifest_digest"]), diff_ids)
    }

    /// What a sandbox that is started from a reference sees.
    pub(crate) fn entries(&self, home: &Home, reference: &str) -> BTreeMap<String, Seen> {
        let (manifest, diff_ids) = self.digests(reference);
        entries(home, &manifest, &diff_ids)
    }
}

fn record(record: &impl serde::Serialize) -> Value {
    serde_json::to_value(record).expect("a record")
}

/// A home that Larder made, with these archives in it, each loaded a second after the one before.
pub(crate) fn filled_by_larder(archives: &[PathBuf]) -> Home {
    let home = Home::made();
    for (second, path) in (0..).zip(archives) {
        load_with_larder(&home, path, TimeDelta::seconds(second));
    }
    home
}

/// Lets Larder load an archive, so long after [`FIXTURE_NOW`].
pub(crate) fn load_with_larder(home: &Home, archive: &Path, later: TimeDelta) {
    let now: chrono::DateTime<chrono::Utc> = FIXTURE_NOW.parse().expect("a time");
    run(async {
        let local = LocalBackend::builder().home(home.path()).clock(move || now + later).build().await;
        Image::load_local(&local.expect("the home"), archive, Vec::new()).await.expect("loaded")
    });
}

/// A home that the SDK made, with these archives in it.
pub(crate) fn filled_by_the_sdk(peer: &Peer, archives: &[PathBuf]) -> Home {
    let home = Home::missing();
    archives.iter().for_each(|path| load_with_the_sdk(peer, &home, path));
    home
}

/// Lets the SDK load an archive.
pub(crate) fn load_with_the_sdk(peer: &Peer, home: &Home, archive: &Path) {
    let loaded = peer.ask(&home.path(), ["load".as_ref(), archive.as_os_str()]);
    assert!(loaded.as_array().is_some_and(|images| !images.is_empty()), "{loaded}");
}
