//! EROFS images as bytes, written and read. Knows no OCI and no cache.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`layer`] | the entries of an image layer in, its EROFS image out |
//! | [`merge`] | the images of several layers in, the one image of what they make together out |
//! | [`vmdk`] | the text that joins that image and its layers to one disk |
//! | [`writer`] | any tree in, its image out: what the two above build on |
//! | [`reader`] | an image in, what it holds out; nothing in it is believed |
//! | [`format`](mod@format) | the structures in an image, byte for byte |
//!
//! Images are uncompressed and have blocks of 4096 bytes. What is written is read by Linux since 5.4, merged images with
//! several devices since 5.16. The same input gives the same bytes.
//!
//! The crate opens no files and prints nothing: it writes to what is `Write + Seek` and reads from what is
//! [`ReadAt`](reader::ReadAt). Syncing, renaming and cleaning up are the caller's.

mod metadata;
mod path;

pub mod format;
pub mod layer;
pub mod merge;
pub mod reader;
pub mod vmdk;
pub mod writer;

pub use metadata::{
    DeviceNumber, FileKind, Iter, Metadata, Permissions, Timestamp, XattrError, XattrName, Xattrs,
};
pub use path::{EntryPath, MAX_NAME, MAX_PATH, Name, PathError};
