//! What one busy entry spares.

use std::collections::BTreeSet;

use larder::Image;
use larder_tests::archive::digest;
use larder_tests::{FIXTURE_NOW, Home, ImageSpec, layer_digest, manifest_digest, populate, run};
use proptest::prelude::*;

use crate::{case, needed};

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// What one busy entry spares is what would have taken it along: the image whose metadata it is, the images of the
    /// manifest that would have gone with it. A layer that several manifests have stays alone, and spares nobody.
    #[test]
    fn a_busy_entry_spares_what_would_have_taken_it(case in case(), image in 0..8_usize, entry in 0..6_usize) {
        let home = Home::made();
        populate(&home.path(), FIXTURE_NOW.parse().expect("a time"), &case.images);
        let image = &case.images[image % case.images.len()];
        let busy = Busy::of(image, entry);
        run(async {
            let local = home.open().await;
            local.unpin("docker.io/acme/none:1").await.expect_err("no image");
            let needed = needed(&home);
            let free: BTreeSet<String> =
                case.images.iter().map(|image| image.reference.clone()).filter(|name| !needed.contains(name)).collect();
            let expected = busy.spares(&case.images, &free);
            let (room, name) = busy.file();
            let lease = home.lease(room, &name);
            let report = local.apply(&local.plan_prune().await.expect("a plan")).await.expect("a report");
            let spared: BTreeSet<String> = report.spared.iter().map(|image| image.reference.clone()).collect();
            assert_eq!(spared, expected, "{busy:?}");
            assert!(home.cache().join(room).join(&name).exists(), "{busy:?}");
            assert_eq!(home.texts("SELECT reference FROM image_ref"), &needed | &expected);
            let stays = |image: &&ImageSpec| needed.contains(&image.reference) || expected.contains(&image.reference);
            let mut layers: BTreeSet<u32> =
                case.images.iter().filter(stays).flat_map(|image| image.layers.iter().copied()).collect();
            if let Busy::Layer(layer) = busy {
                layers.insert(layer);
            }
            assert_eq!(home.files("layers").len(), layers.len(), "{busy:?}");
            drop(lease);
            Image::prune_local(&local).await.expect("a report");
            assert_eq!(home.texts("SELECT reference FROM image_ref"), needed);
        });
    }
}

/// An entry that an operation holds.
#[derive(Debug, Clone)]
enum Busy {
    Metadata(String),
    Fsmeta(u32),
    Vmdk(u32),
    Layer(u32),
}

impl Busy {
    /// An entry of an image.
    fn of(image: &ImageSpec, entry: usize) -> Self {
        match entry {
            0 => Self::Metadata(image.reference.clone()),
            1 => Self::Fsmeta(image.manifest),
            2 => Self::Vmdk(image.manifest),
            layer => Self::Layer(image.layers[layer % image.layers.len()]),
        }
    }

    /// The room and the name of its file.
    fn file(&self) -> (&'static str, String) {
        let named = |digest: String, suffix: &str| digest.replace(':', "_") + suffix;
        match self {
            Self::Metadata(reference) => {
                ("manifests", digest(reference.as_bytes()).replace("sha256:", "") + ".json")
            }
            Self::Fsmeta(manifest) => ("fsmeta", named(manifest_digest(*manifest), ".erofs")),
            Self::Vmdk(manifest) => ("vmdk", named(manifest_digest(*manifest), ".vmdk")),
            Self::Layer(layer) => ("layers", named(layer_digest(*layer), ".erofs")),
        }
    }

    /// The images that it spares, of those that nothing else protects.
    fn spares(&self, images: &[ImageSpec], free: &BTreeSet<String>) -> BTreeSet<String> {
        let manifest = match self {
            Self::Metadata(reference) => {
                return free.iter().filter(|name| *name == reference).cloned().collect();
            }
            Self::Fsmeta(manifest) | Self::Vmdk(manifest) => *manifest,
            Self::Layer(layer) => {
                let having: BTreeSet<u32> = images
                    .iter()
                    .filter(|image| image.layers.contains(layer))
                    .map(|image| image.manifest)
                    .collect();
                match having.iter().collect::<Vec<_>>().as_slice() {
                    [only] => **only,
                    _ => return BTreeSet::new(),
                }
            }
        };
        let named: BTreeSet<String> = images
            .iter()
            .filter(|image| image.manifest == manifest)
            .map(|image| image.reference.clone())
            .collect();
        // A manifest that stays anyway takes nothing along.
        if named.is_subset(free) { named } else { BTreeSet::new() }
    }
}
