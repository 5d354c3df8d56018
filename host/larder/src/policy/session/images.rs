//! The images of a snapshot as a run sees them: what is known of each, what is staged, and which one a name means.
//!
//! All that a name or a right is needed for is worked out before the run begins, and not on the guest's clock: names
//! are parsed, repositories are numbered, and each image is judged once by [`Access`]. A call looks up by one hash, and
//! answers from [`Facts`]. Hidden images stay in here, because the guard counts them, and are never returned.

use std::cell::{Cell, OnceCell};
use std::collections::HashMap;
use std::sync::Arc;

use super::access::{Access, Name, NotRemovable, Subject};
use super::names::Names;
use crate::plan::Right;
use crate::reference::{Reference, ReferenceError};
use crate::snapshot::ImageRecord;

/// An image of the snapshot.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) record: ImageRecord,
    pub(crate) facts: Facts,
    pub(crate) staged: Option<Staged>,
    /// The last reason that the policy gave.
    pub(crate) reason: Option<String>,
    /// The reason for which the policy's last attempt to remove it did nothing.
    pub(crate) refused: Option<NotRemovable>,
    /// True once an answer had it.
    pub(crate) is_shown: bool,
    /// True once the run has read its config and layers.
    pub(crate) is_inspected: bool,
    /// True once the run has staged it, or has asked for its removal and the grant had nothing against it.
    pub(crate) is_asked_for: bool,
    /// The rights that the run lacked for it and that are on record, as bits.
    denied: u8,
    name: OnceCell<Option<Reference>>,
}

/// The facts about an image that are known before the run begins. They do not change during the run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// The number of its repository.
    repository: u32,
    /// True if the grant lets the run see it.
    pub(crate) is_visible: bool,
    /// True if a sandbox or snapshot uses it.
    pub(crate) is_in_use: bool,
    /// The right that its removal lacks. Users, the rest of its repository, and caps are not counted.
    pub(crate) lacks: Option<Right>,
}

/// A staged removal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Staged {
    pub(crate) force: bool,
    pub(crate) by_prune: bool,
    /// Its place among all that the run has staged.
    pub(crate) position: u32,
}

/// The references of one repository.
#[derive(Debug)]
struct Repository {
    name: Arc<str>,
    /// The number of those that are not staged, hidden ones counted. Absent for a text that is no reference.
    left: Option<u32>,
}

impl Image {
    /// Returns its reference as the index has it.
    pub(crate) fn reference(&self) -> &str {
        &self.record.handle.reference
    }

    pub(crate) fn name(&self) -> Name<'_> {
        Name::new(self.reference(), &self.name)
    }

    /// Returns true if the run sees it now.
    pub(crate) fn is_there(&self) -> bool {
        self.facts.is_visible && self.staged.is_none()
    }

    /// Notes that the run lacked a right for it. Returns true the first time.
    pub(crate) fn note_denied(&mut self, right: Right) -> bool {
        let bit = 1 << right as u8;
        let is_new = self.denied & bit == 0;
        self.denied |= bit;
        is_new
    }
}

/// The image that a name means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// One that the run sees.
    Image(usize),
    /// One that the grant hides. The policy gets the answer that it gets for an absent one.
    Hidden(usize),
    /// None.
    Absent,
    /// The name is not a reference.
    Invalid(ReferenceError),
}

/// The images of a snapshot.
#[derive(Debug)]
pub(crate) struct Images {
    all: Vec<Image>,
    /// By their references as the index has them.
    texts: Names,
    /// By what these normalize to.
    normalized: Names,
    repositories: Vec<Repository>,
    walk: Cell<Walk>,
}

/// The way of a run through the list. Most policies speak of its images in their order, or against it, and of one image
/// several times: those are found without a look into a table.
#[derive(Debug, Clone, Copy, Default)]
struct Walk {
    /// The image that was found last.
    last: usize,
    /// The one that comes next, if the run goes on as before. Another `last`, if it goes no way.
    next: usize,
}

impl Walk {
    /// Returns the walk after this image was found.
    fn to(self, index: usize) -> Self {
        let next = match index.wrapping_sub(self.last) as isize {
            0 => self.next,
            step @ (1 | -1) => index.wrapping_add_signed(step),
            _ => index,
        };
        Self { last: index, next }
    }
}

impl Images {
    pub(crate) fn new(records: Vec<ImageRecord>, access: &Access) -> Self {
        let none = || Names::new(0, |_| "");
        let all = Vec::with_capacity(records.len());
        let (repositories, walk) = (Vec::new(), Cell::default());
        let mut images = Self { all, texts: none(), normalized: none(), repositories, walk };
        let mut numbers = HashMap::new();
        for record in records {
            let image = images.read(record, access, &mut numbers);
            images.all.push(image);
        }
        images.texts = Names::new(images.len(), |index| images.get(index).reference());
        images.normalized = Names::new(images.len(), |index| images.get(index).name().normalized());
        images
    }

    /// Returns every image, those that the run cannot see too, in the order of the list.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Image> {
        self.all.iter()
    }

    /// Works out what is known of an image.
    fn read(&mut self, record: ImageRecord, access: &Access, numbers: &mut HashMap<Arc<str>, u32>) -> Image {
        let reference = record.handle.reference.parse::<Reference>().ok();
        let repository = reference.as_ref().map_or(&*record.handle.reference, Reference::repository);
        let number = match numbers.get(repository) {
            Some(&number) => number,
            None => {
                let name: Arc<str> = repository.into();
                let number = self.repositories.len() as u32;
                let left = reference.is_some().then_some(0);
                self.repositories.push(Repository { name: Arc::clone(&name), left });
                numbers.insert(name, number);
                number
            }
        };
        if let Some(left) = &mut self.repositories[number as usize].left {
            *left += 1;
        }
        let facts =
            Facts { repository: number, is_visible: true, is_in_use: !record.users.is_empty(), lacks: None };
        let mut image = Image {
            record,
            facts,
            staged: None,
            reason: None,
            refused: None,
            is_shown: false,
            is_inspected: false,
            is_asked_for: false,
            denied: 0,
            name: OnceCell::from(reference),
        };
        image.facts.is_visible = access.may_read(image.name());
        image.facts.lacks = lacks(&image, access);
        image
    }

    /// Returns the number of references in the cache, hidden and staged ones counted.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn get(&self, index: usize) -> &Image {
        &self.all[index]
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> &mut Image {
        &mut self.all[index]
    }

    /// Returns the name of an image's repository: the reference itself if that is not well formed.
    pub(crate) fn repository(&self, index: usize) -> &Arc<str> {
        &self.repositories[self.all[index].facts.repository as usize].name
    }

    /// Returns the tag of an image.
    pub(crate) fn tag(&self, index: usize) -> Option<&str> {
        self.all[index].name().reference()?.tag()
    }

    /// Returns the visible images, staged ones too, in the order of the list.
    pub(crate) fn visible(&self) -> impl Iterator<Item = (usize, &Image)> {
        self.all.iter().enumerate().filter(|(_, image)| image.facts.is_visible)
    }

    /// Returns those that the run sees now, in the order of the list.
    pub(crate) fn present(&self) -> impl Iterator<Item = (usize, &Image)> {
        self.visible().filter(|(_, image)| image.staged.is_none())
    }

    /// Finds an image that the run sees now: by the text itself, then by what it normalizes to.
    pub(crate) fn find(&self, text: &str) -> Found {
        self.find_where(text, Image::is_there)
    }

    /// Finds the same as [`find`](Self::find), and also what the run has staged: its place in an order is still known.
    pub(crate) fn find_place(&self, text: &str) -> Found {
        self.find_where(text, |image| image.facts.is_visible)
    }

    /// Finds what the run has staged, in the way of [`find`](Self::find).
    pub(crate) fn find_staged(&self, text: &str) -> Found {
        self.find_where(text, |image| image.facts.is_visible && image.staged.is_some())
    }

    fn find_where(&self, text: &str, is_meant: impl Fn(&Image) -> bool) -> Found {
        let meant = |index: &usize| is_meant(&self.all[*index]);
        if let Some(index) = self.exact(text).filter(meant) {
            return Found::Image(index);
        }
        let name = match text.parse::<Reference>() {
            Ok(name) => name,
            Err(error) => return Found::Invalid(error),
        };
        // The normalized spelling comes before the others, as it does in the index.
        if let Some(index) = self.exact(name.as_str()).filter(meant) {
            return Found::Image(index);
        }
        let spellings = || self.normalized.find(name.as_str(), |index| self.all[index].name().normalized());
        let hidden = || spellings().filter(|&index| !self.all[index].facts.is_visible).min();
        let seen = spellings().filter(meant).min().map(Found::Image);
        seen.or_else(|| hidden().map(Found::Hidden)).unwrap_or(Found::Absent)
    }

    /// Finds the image with this text as its reference.
    fn exact(&self, text: &str) -> Option<usize> {
        let walk = self.walk.get();
        let is_it = |&index: &usize| self.all.get(index).is_some_and(|image| image.reference() == text);
        let in_a_table = || self.texts.find(text, |index| self.all[index].reference()).min();
        let index = [walk.next, walk.last].into_iter().find(is_it).or_else(in_a_table)?;
        self.walk.set(walk.to(index));
        Some(index)
    }

    /// Returns the image as [`Access`] judges it.
    pub(crate) fn subject(&self, index: usize) -> Subject<'_> {
        let image = &self.all[index];
        let left_in_repository = self.repositories[image.facts.repository as usize].left;
        Subject { in_use: image.facts.is_in_use, left_in_repository, ..subject(image) }
    }

    /// Takes an image out of what the run sees.
    pub(crate) fn stage(&mut self, index: usize, staged: Staged) {
        self.all[index].staged = Some(staged);
        self.all[index].is_asked_for = true;
        if let Some(left) = self.left_mut(index) {
            *left = left.saturating_sub(1);
        }
    }

    /// Puts a staged image back into what the run sees.
    pub(crate) fn unstage(&mut self, index: usize) {
        self.all[index].staged = None;
        if let Some(left) = self.left_mut(index) {
            *left += 1;
        }
    }

    fn left_mut(&mut self, index: usize) -> Option<&mut u32> {
        self.repositories[self.all[index].facts.repository as usize].left.as_mut()
    }
}

/// Returns the image as [`Access`] judges it while nothing uses it and its repository does not count.
fn subject(image: &Image) -> Subject<'_> {
    let record = &image.record;
    Subject {
        name: image.name(),
        pinned: record.pinned,
        arrived_at: record.arrived_at,
        last_used_at: record.handle.last_used_at,
        in_use: false,
        left_in_repository: None,
    }
}

/// Returns the right that the removal of an image lacks, whatever the run does.
fn lacks(image: &Image, access: &Access) -> Option<Right> {
    match access.may_remove(&subject(image), false) {
        Err(NotRemovable::Refused(refusal)) => Some(refusal.right()),
        Err(NotRemovable::InUse) | Ok(()) => None,
    }
}
