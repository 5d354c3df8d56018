//! Images in and out of a cache.

mod save;

pub(crate) use save::save;
pub use save::{
    ConfigOrigin, LayerStart, NoProgress, SaveError, SaveProgress, SaveReport, SavedImage, SavedLayer,
    SavedManifest,
};
