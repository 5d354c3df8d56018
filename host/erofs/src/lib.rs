//! EROFS images as bytes, written and read. Knows no OCI and no cache.

mod metadata;
mod path;

pub mod format;
pub mod layer;
pub mod writer;

pub use metadata::{
    DeviceNumber, FileKind, Iter, Metadata, Permissions, Timestamp, XattrError, XattrName, Xattrs,
};
pub use path::{EntryPath, MAX_NAME, MAX_PATH, Name, PathError};
