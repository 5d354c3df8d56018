//! The cache by repository.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::backend::LocalBackend;
use crate::catalog::blocking;
use crate::error::MicrosandboxResult;
use crate::reference::Reference;
use crate::snapshot::{CacheSnapshot as _, Grouped};
use crate::store::snapshot::HomeSnapshot;

/// The cache by repository. Keys in alphabetical order, sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Overview {
    /// When it was asked.
    pub at: DateTime<Utc>,
    /// Allocated by the files of images that references name. The own bytes of all repositories and `shared_bytes` add
    /// up to it.
    pub image_bytes: u64,
    /// The repositories, in the order of what they would be without each other: the one with the most own bytes first,
    /// and those with the same in the order of their names.
    pub repositories: Vec<RepositoryUsage>,
    /// Of the bytes of images, those of files that several repositories need, each counted once.
    pub shared_bytes: u64,
}

/// The images of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RepositoryUsage {
    /// The number of its references.
    pub images: usize,
    /// Of these, used by a sandbox or a snapshot.
    pub in_use: usize,
    /// Allocated by files that no other repository needs.
    pub own_bytes: u64,
    /// Of its references, pinned.
    pub pinned: usize,
    /// The repository, such as `docker.io/library/python`; of a reference that cannot be read, its text.
    pub repository: String,
    /// Allocated by files that it needs and other repositories, too. Each of them has these bytes.
    pub shared_bytes: u64,
}

impl LocalBackend {
    /// Returns the cache by repository, from one snapshot. Looks at every file of every image, and writes nothing.
    ///
    /// # Errors
    /// Fails if the home or its file system cannot be read.
    pub async fn overview(&self) -> MicrosandboxResult<Overview> {
        let store = Arc::clone(self.store());
        blocking("look at the cache by repository", move || {
            let mut snapshot = HomeSnapshot::open(&store)?;
            let images = snapshot.images()?;
            let mut repositories: Vec<RepositoryUsage> = Vec::new();
            let mut places: HashMap<String, usize> = HashMap::new();
            let mut group_of = Vec::with_capacity(images.len());
            for image in &images {
                let text = image.handle.reference();
                let name = text.parse().map_or_else(
                    |_| text.to_owned(),
                    |reference: Reference| reference.repository().to_owned(),
                );
                let place = *places.entry(name).or_insert_with_key(|name| {
                    repositories.push(RepositoryUsage::of(name));
                    repositories.len() - 1
                });
                group_of.push(place);
                let repository = &mut repositories[place];
                repository.images += 1;
                repository.in_use += usize::from(!image.users.is_empty());
                repository.pinned += usize::from(image.pinned);
            }
            let Grouped { groups, shared } = snapshot.costs()?.grouped(&group_of);
            let mut image_bytes = shared;
            for (repository, bytes) in repositories.iter_mut().zip(groups) {
                (repository.own_bytes, repository.shared_bytes) = (bytes.own, bytes.shared);
                image_bytes = image_bytes.saturating_add(bytes.own);
            }
            repositories
                .sort_by(|a, b| b.own_bytes.cmp(&a.own_bytes).then_with(|| a.repository.cmp(&b.repository)));
            Ok(Overview { at: store.now(), image_bytes, repositories, shared_bytes: shared })
        })
        .await
    }
}

impl RepositoryUsage {
    /// Returns a repository without images.
    fn of(name: &str) -> Self {
        Self { images: 0, in_use: 0, own_bytes: 0, pinned: 0, repository: name.to_owned(), shared_bytes: 0 }
    }
}
