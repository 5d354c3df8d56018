//! The images of a state as a run sees them: what is visible, what is staged, and where a name leads.
//!
//! Everything that a call asks for is found by index or by one hash; names are parsed only where a pattern, a
//! repository or an unusual spelling asks for it, and once. Hidden images stay in here, because the guard counts
//! them, and are never returned.

use std::cell::OnceCell;
use std::collections::HashMap;

use super::access::{Access, Name, Subject};
use crate::reference::{Reference, ReferenceError};
use crate::snapshot::ImageRecord;

/// One image of the state.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) state: ImageRecord,
    pub(super) visible: bool,
    pub(super) staged: Option<Staged>,
    /// The last reason that the policy gave.
    pub(super) reason: Option<String>,
    /// Why the policy's last attempt to remove it came to nothing.
    pub(super) refused: Option<String>,
    /// Whether the run has read its config and layers.
    pub(super) inspected: bool,
    /// Whether the run asked for its removal and the grant had nothing against it.
    pub(super) asked: bool,
    name: OnceCell<Option<Reference>>,
}

/// What was staged for one image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Staged {
    pub(super) force: bool,
    /// Allocated bytes that go with it, on top of what was staged before.
    pub(super) bytes: u64,
    pub(super) by_prune: bool,
}

impl Image {
    /// Its reference as it stands in the index.
    pub(super) fn reference(&self) -> &str {
        &self.state.handle.reference
    }

    pub(super) fn name(&self) -> Name<'_> {
        Name::new(self.reference(), &self.name)
    }

    fn repository(&self) -> Option<&str> {
        self.name().reference().map(Reference::repository)
    }

    /// Whether the run can see it now.
    pub(super) fn is_there(&self) -> bool {
        self.visible && self.staged.is_none()
    }
}

/// Where a name leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// To an image that the run sees.
    Image(usize),
    /// To an image that the grant hides. The policy is told what it is told of an absent one.
    Hidden(usize),
    /// Nowhere.
    Absent,
    /// It is not a reference.
    Invalid(ReferenceError),
}

/// The images of a state.
#[derive(Debug)]
pub(super) struct Images {
    all: Vec<Image>,
    by_text: HashMap<String, u32>,
    by_name: OnceCell<HashMap<String, Vec<u32>>>,
    /// References that each repository has left; only where the guard counts them.
    left: Option<HashMap<String, u32>>,
}

impl Images {
    pub(super) fn new(states: Vec<ImageRecord>, access: &Access) -> Self {
        let everything = access.reads_everything();
        let image = |state: ImageRecord| {
            let mut image = Image {
                state,
                visible: true,
                staged: None,
                reason: None,
                refused: None,
                inspected: false,
                asked: false,
                name: OnceCell::new(),
            };
            image.visible = everything || access.may_read(image.name());
            image
        };
        let all: Vec<Image> = states.into_iter().map(image).collect();
        let by_text =
            all.iter().zip(0..).map(|(image, index)| (image.reference().to_owned(), index)).collect();
        let mut images = Self { all, by_text, by_name: OnceCell::new(), left: None };
        if access.counts_repositories() {
            let mut left = HashMap::new();
            for repository in images.all.iter().filter_map(Image::repository) {
                match left.get_mut(repository) {
                    Some(count) => *count += 1,
                    None => _ = left.insert(repository.to_owned(), 1),
                }
            }
            images.left = Some(left);
        }
        images
    }

    /// Every image, those that the run cannot see too, in the order of the list.
    pub(super) fn all(&self) -> impl Iterator<Item = &Image> {
        self.all.iter()
    }

    /// How many references the cache has, hidden and staged ones counted.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, index: usize) -> &Image {
        &self.all[index]
    }

    pub(super) fn get_mut(&mut self, index: usize) -> &mut Image {
        &mut self.all[index]
    }

    /// The visible images, staged ones too, in the order of the list.
    pub(super) fn visible(&self) -> impl Iterator<Item = (usize, &Image)> {
        self.all.iter().enumerate().filter(|(_, image)| image.visible)
    }

    /// Those that the run can see now, in the order of the list.
    pub(super) fn present(&self) -> impl Iterator<Item = (usize, &Image)> {
        self.visible().filter(|(_, image)| image.staged.is_none())
    }

    /// Finds an image that the run can see now: as the text stands, then by what it normalizes to.
    pub(super) fn find(&self, text: &str) -> Found {
        self.find_where(text, Image::is_there)
    }

    /// As [`find`](Self::find), and also what the run has staged: its place in an order is still known.
    pub(super) fn find_place(&self, text: &str) -> Found {
        self.find_where(text, |image| image.visible)
    }

    fn find_where(&self, text: &str, seen: impl Fn(&Image) -> bool) -> Found {
        if let Some(&index) = self.by_text.get(text)
            && seen(&self.all[index as usize])
        {
            return Found::Image(index as usize);
        }
        let name = match text.parse::<Reference>() {
            Ok(name) => name,
            Err(error) => return Found::Invalid(error),
        };
        let by_name = self.by_name.get_or_init(|| {
            let mut by_name: HashMap<String, Vec<u32>> = HashMap::new();
            for (image, index) in self.all.iter().zip(0..) {
                if let Some(name) = image.name().reference() {
                    by_name.entry(name.as_str().to_owned()).or_default().push(index);
                }
            }
            by_name
        });
        // The normalized spelling comes before the others, as it does in the index.
        let normalized = self.by_text.get(name.as_str());
        let spellings =
            || by_name.get(name.as_str()).into_iter().flatten().chain(normalized).map(|&i| i as usize);
        if let Some(&index) = normalized
            && seen(&self.all[index as usize])
        {
            return Found::Image(index as usize);
        }
        let seen = spellings().find(|&index| seen(&self.all[index]));
        let hidden = || spellings().find(|&index| !self.all[index].visible);
        seen.map(Found::Image).or_else(|| hidden().map(Found::Hidden)).unwrap_or(Found::Absent)
    }

    /// The image as [`Access`] judges it.
    pub(super) fn subject(&self, index: usize) -> Subject<'_> {
        let image = &self.all[index];
        let left = self.left.as_ref();
        Subject {
            name: image.name(),
            pinned: image.state.pinned,
            arrived_at: image.state.arrived_at,
            last_used_at: image.state.handle.last_used_at,
            in_use: !image.state.users.is_empty(),
            left_in_repository: left.and_then(|left| left.get(image.repository()?).copied()),
        }
    }

    /// Takes an image out of what the run sees.
    pub(super) fn stage(&mut self, index: usize, staged: Staged) {
        self.all[index].staged = Some(staged);
        let repository = self.all[index].repository();
        if let Some((left, repository)) = self.left.as_mut().zip(repository)
            && let Some(count) = left.get_mut(repository)
        {
            *count = count.saturating_sub(1);
        }
    }
}
