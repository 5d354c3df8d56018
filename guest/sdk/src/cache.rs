//! The cache as a policy sees it.

use crate::error::Right;
use crate::{DiskStatus, Error, ImageDetail, ImageFilter, ImageHandle, ImagePruneReport, ImageUsage, Level};

/// How many images [`Cache::images`] reads at a time: enough that calls are few, and few enough to stay small.
const PAGE: u32 = 1024;

/// The image cache, as far as the grant of this run reaches, and the run's report.
///
/// A run sees one consistent state: the cache as it was when the run began, less what the run has itself removed.
/// What is removed here is staged: the host applies all of it after the policy has returned ok, and nothing else.
pub trait Cache {
    /// Every visible image, newest created first.
    fn list(&self) -> Result<Vec<ImageHandle>, Error>;

    /// One image by its reference.
    fn get(&self, reference: &str) -> Result<ImageHandle, Error>;

    /// One image with its config and layers.
    fn inspect(&self, reference: &str) -> Result<ImageDetail, Error>;

    /// The visible images that meet a filter. An empty list is the end.
    fn select(&self, filter: &ImageFilter) -> Result<Vec<ImageHandle>, Error>;

    /// Stage the removal of one reference, and of the manifest and layers that nothing else needs.
    ///
    /// With `force`, an image in use loses its reference; its data stays for as long as it is used.
    fn remove(&mut self, reference: &str, force: bool) -> Result<(), Error>;

    /// Stage the removal of everything unused that the grant allows this run to remove.
    ///
    /// The report says what is staged by this call; its bytes are projected, not yet measured.
    fn prune(&mut self) -> Result<ImagePruneReport, Error>;

    /// The usage of every visible image, in the order of [`list`](Self::list).
    fn list_usage(&self) -> Result<Vec<ImageUsage>, Error>;

    /// The usage of one image.
    fn get_usage(&self, reference: &str) -> Result<ImageUsage, Error>;

    /// Bytes on disk that removing all of these together would free, beyond what is staged already.
    ///
    /// More than the sum of their unique bytes where they share layers with each other alone.
    fn reclaimable_bytes(&self, references: &[&str]) -> Result<u64, Error>;

    /// The disk under the cache.
    fn disk(&self) -> Result<DiskStatus, Error>;

    /// One line for the operator's log.
    fn log(&mut self, level: Level, message: &str);

    /// Why the policy keeps or removes this image. The last reason given for an image stands.
    fn explain(&mut self, reference: &str, reason: &str);

    /// Every visible image with its usage, newest created first, read in pages.
    fn images(&self) -> Result<Vec<Image>, Error> {
        // The two lists have the same order.
        let mut usages = self.list_usage()?.into_iter();
        let mut images = Vec::with_capacity(usages.len());
        let mut filter = ImageFilter { limit: Some(PAGE), ..ImageFilter::default() };
        loop {
            let page = self.select(&filter)?;
            let Some(last) = page.last() else { return Ok(images) };
            filter.after = Some(last.reference.clone());
            for handle in page {
                match usages.next() {
                    Some(usage) if usage.reference == handle.reference => {
                        images.push(Image { handle, usage })
                    }
                    _ => {
                        let reference = handle.reference;
                        return Err(Error::Other(format!("the host lists `{reference}` and not its usage")));
                    }
                }
            }
        }
    }

    /// Stage the removal of an image that nothing uses, and explain it with `reason`.
    ///
    /// Where it is in use after all, or is not this run's to remove, it is kept and that is explained: false is
    /// returned. Only a call that makes the whole run pointless is an error, as is going past a cap of the grant,
    /// which refuses all of the plan.
    fn remove_because(&mut self, reference: &str, reason: &str) -> Result<bool, Error> {
        match self.remove(reference, false) {
            Ok(()) => {
                self.explain(reference, reason);
                Ok(true)
            }
            Err(Error::Denied(denial)) if denial.right == Right::Budget => Err(Error::Denied(denial)),
            Err(error @ (Error::ImageInUse(_) | Error::Denied(_))) => {
                self.explain(reference, &format!("{reason}; kept because {error}"));
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// An image, what it costs and who needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// Its metadata.
    pub handle: ImageHandle,
    /// Its users and its bytes.
    pub usage: ImageUsage,
}

impl Image {
    /// Why no policy should even try to remove this image, as a reason to explain: it is in use, or pinned.
    pub fn held_by(&self) -> Option<String> {
        let count = |count: u32, one: &str, many: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            count => Some(format!("{count} {many}")),
        };
        let sandboxes = count(self.usage.sandboxes, "sandbox", "sandboxes");
        let snapshots = count(self.usage.snapshots, "snapshot", "snapshots");
        match (sandboxes, snapshots) {
            (Some(sandboxes), Some(snapshots)) => Some(format!("in use by {sandboxes} and {snapshots}")),
            (Some(users), None) | (None, Some(users)) => Some(format!("in use by {users}")),
            (None, None) => self.usage.pinned.then(|| String::from("pinned by the operator")),
        }
    }
}
