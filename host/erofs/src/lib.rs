//! EROFS images as bytes, written and read. The crate knows nothing of OCI and of caches.
//!
//! | module | purpose |
//! | --- | --- |
//! | [`layer`] | makes the EROFS image of a layer from the layer's entries |
//! | [`merge`] | merges the images of several layers into one image |
//! | [`vmdk`] | writes and reads the text that joins that image and its layers to one disk |
//! | [`writer`] | writes the image of any tree; `layer` and `merge` build on it |
//! | [`reader`] | reads an image, and trusts nothing in it |
//! | [`format`](mod@format) | the structures in an image, byte for byte |
//!
//! Images are uncompressed and have blocks of 4096 bytes. Linux reads them since 5.4, and merged images with
//! several devices since 5.16. The same input produces the same bytes.
//!
//! The crate opens no files and prints nothing: it writes to a sink that is `Write + Seek` and reads from a
//! source that is [`ReadAt`](reader::ReadAt). The caller syncs, renames and cleans up.

mod metadata;
mod path;
mod xattr;

pub mod format;
pub mod layer;
pub mod merge;
pub mod reader;
pub mod vmdk;
pub mod writer;

pub use metadata::{DeviceNumber, FileKind, Metadata, Permissions, Timestamp};
pub use path::{EntryPath, MAX_NAME, MAX_PATH, Name, PathError};
pub use xattr::{Iter, XattrError, XattrName, Xattrs};
