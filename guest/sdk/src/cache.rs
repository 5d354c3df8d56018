//! The cache as a policy sees it.

use crate::error::Right;
use crate::{
    Budget, DiskStatus, Error, ImageCost, ImageDetail, ImageFilter, ImageHandle, ImageHistory,
    ImagePruneReport, ImageUsage, Level,
};

/// The number of images that [`Cache::images`] asks for at a time: enough that calls are few, and few enough that an
/// answer stays small.
const PAGE: u32 = 1024;

/// The image cache, as far as the grant of this run reaches, and the run's report.
///
/// A run sees one consistent snapshot: the cache as it was when the run began, without the images that the run has
/// removed. Removals are staged. When the policy returns ok, the host applies what was staged: all of it, or, if the
/// run has a goal, the first staged removals that meet the goal together. After an error it applies nothing.
///
/// A function that takes `references` answers in their order. Without references it answers for every visible image,
/// in the order of [`list`](Self::list).
pub trait Cache {
    /// Returns every visible image, newest created first, equal times in the order of their references.
    fn list(&self) -> Result<Vec<ImageHandle>, Error>;

    /// Returns one image.
    fn get(&self, reference: &str) -> Result<ImageHandle, Error>;

    /// Returns one image with its config and layers.
    fn inspect(&self, reference: &str) -> Result<ImageDetail, Error>;

    /// Returns a page of the visible images that meet a filter. An empty list is the end.
    fn select(&self, filter: &ImageFilter) -> Result<Vec<ImageHandle>, Error>;

    /// Stages the removal of one reference, and of the manifest and layers that nothing else needs.
    ///
    /// With `force`, an image in use loses its reference; its data stays while it is in use.
    fn remove(&mut self, reference: &str, force: bool) -> Result<(), Error>;

    /// Takes back a removal that this run has staged. The image is visible again.
    fn restore(&mut self, reference: &str) -> Result<(), Error>;

    /// Stages the removal of every unused image that the grant allows this run to remove.
    ///
    /// The report counts what this call has staged; its bytes are projected, not measured.
    fn prune(&mut self) -> Result<ImagePruneReport, Error>;

    /// Returns who uses images, and what keeps this run from removing them.
    fn get_usage(&self, references: Option<&[&str]>) -> Result<Vec<ImageUsage>, Error>;

    /// Returns what images cost. The first call is expensive: the host reads the size of every file in the cache.
    fn get_costs(&self, references: Option<&[&str]>) -> Result<Vec<ImageCost>, Error>;

    /// Returns how images were used.
    fn get_history(&self, references: Option<&[&str]>) -> Result<Vec<ImageHistory>, Error>;

    /// Returns the bytes on disk that removing all of these images together would free, beyond what is staged.
    ///
    /// That is more than the sum of their unique bytes if they share layers only with each other.
    fn reclaimable_bytes(&self, references: &[&str]) -> Result<u64, Error>;

    /// Returns the status of the cache's disk when the run began.
    fn disk(&self) -> Result<DiskStatus, Error>;

    /// Returns what remains of the grant's caps after the removals staged so far.
    fn get_budget(&self) -> Budget;

    /// Adds one line to the operator's log.
    fn log(&mut self, level: Level, message: &str);

    /// Records why the policy keeps or removes an image. Returns false if there is no such image.
    ///
    /// The last reason for an image counts; it becomes part of the plan and of the history, cut to 512 bytes.
    fn explain(&mut self, reference: &str, reason: &str) -> bool;

    /// Returns every visible image with its usage, newest created first, read in pages.
    fn images(&self) -> Result<Vec<Image>, Error> {
        let mut images = Vec::new();
        let mut filter = ImageFilter { limit: Some(PAGE), ..ImageFilter::default() };
        loop {
            let handles = self.select(&filter)?;
            let Some(last) = handles.last() else { return Ok(images) };
            filter.after = Some(last.reference.clone());
            let references: Vec<&str> = handles.iter().map(|handle| handle.reference.as_str()).collect();
            // Answers come in the order of the references.
            let usages = self.get_usage(Some(&references))?;
            images.extend(handles.into_iter().zip(usages).map(|(handle, usage)| Image { handle, usage }));
        }
    }

    /// Stages the removal of an image that nothing uses, and explains it with `reason`. Returns true if it is staged.
    ///
    /// If the image is in use after all, or if the run lacks the right to remove it, the image is kept, which is
    /// explained, too.
    ///
    /// # Errors
    ///
    /// Any other error of [`remove`](Self::remove), and a denial for [`Right::Budget`], which refuses the whole plan.
    fn remove_because(&mut self, reference: &str, reason: &str) -> Result<bool, Error> {
        let obstacle = match self.remove(reference, false) {
            Ok(()) => {
                self.explain(reference, reason);
                return Ok(true);
            }
            Err(Error::ImageInUse(_)) => Right::Force.obstacle(),
            Err(Error::Denied(denial)) if denial.right != Right::Budget => denial.right.obstacle(),
            Err(error) => return Err(error),
        };
        self.explain(reference, &format!("{reason}; kept because {obstacle}"));
        Ok(false)
    }
}

/// An image and its users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// Its metadata.
    pub handle: ImageHandle,
    /// Its users.
    pub usage: ImageUsage,
}

impl Image {
    /// Returns why no policy should remove this image, as a reason to explain: it is in use, or pinned.
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
