//! The handles of all images that a run can see, made before it begins.

use std::collections::HashMap;
use std::sync::Arc;

use super::convert::datetime;
use super::types::{Handle, ImageHandle};
use crate::policy::session::images::Images;

/// The handles of the images of a session, by their numbers. Those of hidden images are none.
#[derive(Debug, Default)]
pub(crate) struct Handles(Vec<Option<ImageHandle>>);

impl Handles {
    /// Makes the handles of these images.
    pub(crate) fn new(images: &Images) -> Self {
        let mut shared = Shared::default();
        let mut handles = vec![None; images.len()];
        for (index, image) in images.visible() {
            let handle = &image.record.handle;
            handles[index] = Some(Arc::new(Handle {
                reference: handle.reference.as_str().into(),
                repository: Arc::clone(images.repository(index)),
                tag: images.tag(index).map(|tag| shared.text(tag)),
                size_bytes: handle.size_bytes,
                manifest_digest: handle.manifest_digest.as_deref().map(Arc::from),
                architecture: handle.architecture.as_deref().map(|text| shared.text(text)),
                os: handle.os.as_deref().map(|text| shared.text(text)),
                layer_count: u32::try_from(handle.layer_count).unwrap_or(u32::MAX),
                last_used_at: handle.last_used_at.map(datetime),
                created_at: handle.created_at.map(datetime),
                arrived_at: image.record.arrived_at.map(datetime),
            }));
        }
        Self(handles)
    }

    /// Returns the handle of an image that the run can see.
    pub(super) fn get(&self, index: usize) -> &ImageHandle {
        self.0[index].as_ref().expect("the session answers with images that the run can see")
    }
}

/// Texts that many images have, such as `linux` and `latest`.
#[derive(Default)]
struct Shared(HashMap<Box<str>, Arc<str>>);

impl Shared {
    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(shared) = self.0.get(text) {
            return Arc::clone(shared);
        }
        let shared: Arc<str> = text.into();
        self.0.insert(text.into(), Arc::clone(&shared));
        shared
    }
}
