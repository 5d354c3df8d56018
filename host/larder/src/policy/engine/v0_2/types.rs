//! The records of the interface `types`, as `wit/types.wit` has them; the host only hands them out, but for instants.

use std::sync::Arc;

use wasmtime::component::{ComponentType, HasData, Lift, Linker, Lower};

/// An instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lift, Lower)]
#[component(record)]
pub struct Datetime {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// A handle, shared by all answers that have it.
pub type ImageHandle = Arc<Handle>;

/// `image-handle`. See `lowering.rs` for its bytes.
#[derive(Debug, PartialEq, Eq, ComponentType)]
#[component(record)]
pub struct Handle {
    pub reference: Arc<str>,
    pub repository: Arc<str>,
    pub tag: Option<Arc<str>>,
    #[component(name = "size-bytes")]
    pub size_bytes: Option<i64>,
    #[component(name = "manifest-digest")]
    pub manifest_digest: Option<Arc<str>>,
    pub architecture: Option<Arc<str>>,
    pub os: Option<Arc<str>>,
    #[component(name = "layer-count")]
    pub layer_count: u32,
    #[component(name = "last-used-at")]
    pub last_used_at: Option<Datetime>,
    #[component(name = "created-at")]
    pub created_at: Option<Datetime>,
    #[component(name = "arrived-at")]
    pub arrived_at: Option<Datetime>,
}

/// `image-config-detail`.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lower)]
#[component(record)]
pub struct ImageConfigDetail {
    pub digest: String,
    pub env: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    #[component(name = "working-dir")]
    pub working_dir: Option<String>,
    pub user: Option<String>,
    pub labels: Vec<(String, String)>,
    #[component(name = "stop-signal")]
    pub stop_signal: Option<String>,
}

/// `image-layer-detail`.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lower)]
#[component(record)]
pub struct ImageLayerDetail {
    #[component(name = "diff-id")]
    pub diff_id: String,
    #[component(name = "blob-digest")]
    pub blob_digest: String,
    #[component(name = "media-type")]
    pub media_type: Option<String>,
    #[component(name = "compressed-size-bytes")]
    pub compressed_size_bytes: Option<i64>,
    #[component(name = "erofs-size-bytes")]
    pub erofs_size_bytes: Option<i64>,
    pub position: i32,
}

/// `image-detail`.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lower)]
#[component(record)]
pub struct ImageDetail {
    pub handle: ImageHandle,
    pub config: Option<ImageConfigDetail>,
    pub layers: Vec<ImageLayerDetail>,
}

/// `image-prune-report`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lower)]
#[component(record)]
pub struct ImagePruneReport {
    #[component(name = "image-refs-removed")]
    pub image_refs_removed: u32,
    #[component(name = "manifests-removed")]
    pub manifests_removed: u32,
    #[component(name = "layers-removed")]
    pub layers_removed: u32,
    #[component(name = "fsmeta-removed")]
    pub fsmeta_removed: u32,
    #[component(name = "vmdk-removed")]
    pub vmdk_removed: u32,
    #[component(name = "bytes-reclaimed")]
    pub bytes_reclaimed: Option<u64>,
}

/// `image-users`.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lower)]
#[component(record)]
pub struct ImageUsers {
    pub reference: Arc<str>,
    pub sandboxes: Vec<String>,
    pub snapshots: Vec<String>,
}

/// `right`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
pub enum Right {
    #[component(name = "read")]
    Read,
    #[component(name = "inspect")]
    Inspect,
    #[component(name = "remove")]
    Remove,
    #[component(name = "force")]
    Force,
    #[component(name = "prune")]
    Prune,
    #[component(name = "budget")]
    Budget,
    #[component(name = "protected")]
    Protected,
}

/// `denial`.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lower)]
#[component(record)]
pub struct Denial {
    pub right: Right,
    pub reference: Option<Arc<str>>,
    pub message: String,
}

/// `error`.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lower)]
#[component(variant)]
pub enum Error {
    #[component(name = "image-not-found")]
    ImageNotFound(String),
    #[component(name = "image-in-use")]
    ImageInUse(ImageUsers),
    #[component(name = "unsupported")]
    Unsupported(String),
    #[component(name = "denied")]
    Denied(Denial),
    #[component(name = "invalid-reference")]
    InvalidReference((String, String)),
    #[component(name = "other")]
    Other(String),
}

/// The functions of the interface: none. The generated code asks for it.
pub trait Host {}

impl<T: ?Sized> Host for T {}

/// The same as [`Host`].
pub trait HostWithStore<T>: HasData {}

impl<T, D: HasData + ?Sized> HostWithStore<T> for D {}

/// Adds the interface, which has types only.
///
/// # Errors
/// Fails if the linker has something else of its name.
pub fn add_to_linker<T: 'static, D: HasData>(
    linker: &mut Linker<T>,
    _: fn(&mut T) -> D::Data<'_>,
) -> wasmtime::Result<()> {
    linker.instance("larder:image/types@0.2.0").map(drop)
}
