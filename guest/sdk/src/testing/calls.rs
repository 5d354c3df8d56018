//! The calls that a policy makes, answered as the host answers them.

use super::FakeCache;
use super::pattern::Pattern;
use super::select;
use crate::{
    Budget, Cache, DiskStatus, Error, ImageCost, ImageDetail, ImageFilter, ImageHandle, ImageHistory,
    ImageLayerDetail, ImagePruneReport, ImageUsage, ImageUsers, InvalidReference, Level, Right,
};

impl Cache for FakeCache {
    fn list(&self) -> Result<Vec<ImageHandle>, Error> {
        self.count_call();
        Ok(self.visible().into_iter().map(|index| self.images[index].handle.clone()).collect())
    }

    fn get(&self, reference: &str) -> Result<ImageHandle, Error> {
        self.count_call();
        Ok(self.images[self.find(reference)?].handle.clone())
    }

    fn inspect(&self, reference: &str) -> Result<ImageDetail, Error> {
        self.count_call();
        let index = self.find(reference)?;
        let image = &self.images[index];
        if image.refused == Some(Right::Inspect) {
            return Err(self.deny(Right::Inspect, Some(index)));
        }
        let layer = |(position, name): (usize, &String)| {
            let bytes = i64::try_from(self.ledger.layer_bytes(name)).ok();
            ImageLayerDetail {
                diff_id: format!("diff of {name}"),
                blob_digest: format!("blob of {name}"),
                media_type: None,
                compressed_size_bytes: bytes,
                erofs_size_bytes: bytes,
                position: i32::try_from(position).unwrap_or(i32::MAX),
            }
        };
        let layers = self.ledger.manifest(image).layers.iter().enumerate().map(layer).collect();
        Ok(ImageDetail { handle: image.handle.clone(), config: image.config.clone(), layers })
    }

    fn select(&self, filter: &ImageFilter) -> Result<Vec<ImageHandle>, Error> {
        self.count_call();
        let pattern = filter.reference.as_deref().map(|text| {
            let invalid =
                |problem: &str| InvalidReference { text: text.to_owned(), problem: problem.to_owned() };
            Pattern::parse(text).map_err(|problem| Error::InvalidReference(invalid(problem)))
        });
        let pattern = pattern.transpose()?;
        // A page starts behind any image, also behind one that the run has removed or that does not meet the filter.
        let after = filter.after.as_deref().map(|after| self.find_place(after)).transpose()?;
        let mut indexes = self.visible();
        let compare = |a: usize, b: usize| select::compare(filter.order, &self.images[a], &self.images[b]);
        indexes.sort_by(|&a, &b| compare(a, b));
        let limit = filter.limit.map_or(self.page, |limit| (limit as usize).clamp(1, self.page));
        let page = indexes
            .into_iter()
            .filter(|&index| after.is_none_or(|after| compare(after, index).is_lt()))
            .filter(|&index| {
                select::meets(&self.images[index], self.is_in_use(index), filter, pattern.as_ref())
            })
            .take(limit);
        Ok(page.map(|index| self.images[index].handle.clone()).collect())
    }

    fn remove(&mut self, reference: &str, force: bool) -> Result<(), Error> {
        self.count_call();
        let index = self.find(reference)?;
        match self.lacks(index, force) {
            // That is the caps' to say.
            None | Some(Right::Budget) => self.stage_all(&[index]),
            Some(Right::Force) if !force => {
                let manifest = self.ledger.manifest(&self.images[index]);
                Err(Error::ImageInUse(ImageUsers {
                    reference: self.images[index].handle.reference.clone(),
                    sandboxes: manifest.sandboxes.clone(),
                    snapshots: manifest.snapshots.clone(),
                }))
            }
            Some(right) => Err(self.deny(right, Some(index))),
        }
    }

    fn restore(&mut self, reference: &str) -> Result<(), Error> {
        self.count_call();
        self.unstage(reference)
    }

    fn prune(&mut self) -> Result<ImagePruneReport, Error> {
        self.count_call();
        let is_free = |&index: &usize| self.lacks(index, false).is_none_or(|right| right == Right::Budget);
        // The first arrival first.
        let mut unused: Vec<usize> = self.visible().into_iter().rev().filter(is_free).collect();
        unused.sort_by_key(|&index| self.images[index].handle.arrived_at);
        let freed = self.ledger.freed(unused.iter().map(|&index| &self.images[index]));
        self.stage_all(&unused)?;
        Ok(ImagePruneReport {
            image_refs_removed: u32::try_from(unused.len()).unwrap_or(u32::MAX),
            manifests_removed: freed.manifests,
            layers_removed: freed.layers,
            fsmeta_removed: freed.manifests,
            vmdk_removed: freed.manifests,
            bytes_reclaimed: Some(freed.bytes),
        })
    }

    fn get_usage(&self, references: Option<&[&str]>) -> Result<Vec<ImageUsage>, Error> {
        self.answers(references, |index| {
            let image = &self.images[index];
            let manifest = self.ledger.manifest(image);
            let count = |names: &[String]| u32::try_from(names.len()).unwrap_or(u32::MAX);
            ImageUsage {
                reference: image.handle.reference.clone(),
                sandboxes: count(&manifest.sandboxes),
                snapshots: count(&manifest.snapshots),
                pinned: image.pinned,
                origin: image.origin,
                lacks: self.lacks(index, false),
            }
        })
    }

    fn get_costs(&self, references: Option<&[&str]>) -> Result<Vec<ImageCost>, Error> {
        self.answers(references, |index| {
            let image = &self.images[index];
            ImageCost {
                reference: image.handle.reference.clone(),
                unique_bytes: self.ledger.freed([image]).bytes,
                shared_bytes: self.ledger.shared_bytes(image),
            }
        })
    }

    fn get_history(&self, references: Option<&[&str]>) -> Result<Vec<ImageHistory>, Error> {
        self.answers(references, |index| self.images[index].history.clone())
    }

    fn reclaimable_bytes(&self, references: &[&str]) -> Result<u64, Error> {
        self.count_call();
        let mut indexes: Vec<usize> =
            references.iter().map(|reference| self.find(reference)).collect::<Result<_, _>>()?;
        indexes.sort_unstable();
        indexes.dedup();
        Ok(self.ledger.freed(indexes.into_iter().map(|index| &self.images[index])).bytes)
    }

    fn disk(&self) -> Result<DiskStatus, Error> {
        self.count_call();
        Ok(self.disk)
    }

    fn get_budget(&self) -> Budget {
        self.count_call();
        self.budget()
    }

    fn log(&mut self, level: Level, message: &str) {
        self.count_call();
        self.record_log(level, message);
    }

    fn explain(&mut self, reference: &str, reason: &str) -> bool {
        self.count_call();
        let Ok(index) = self.find_place(reference) else { return false };
        self.record_reason(index, reason);
        true
    }
}

impl FakeCache {
    /// Answers for these images, or for every visible one.
    fn answers<T>(&self, references: Option<&[&str]>, answer: impl Fn(usize) -> T) -> Result<Vec<T>, Error> {
        self.count_call();
        let indexes: Vec<usize> = match references {
            None => self.visible(),
            Some(references) => {
                references.iter().map(|reference| self.find(reference)).collect::<Result<_, _>>()?
            }
        };
        Ok(indexes.into_iter().map(answer).collect())
    }
}
