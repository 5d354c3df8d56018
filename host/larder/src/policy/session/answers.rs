//! What a run is told: the results of its calls, and what there is instead of one.

use std::borrow::Cow;

use crate::plan::Right;
use crate::policy::error::PolicyError;
use crate::records::ImageDetail;

/// The reason for which a call has no result.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The policy is told, and goes on.
    Guest(GuestError),
    /// The run ends.
    Run(PolicyError),
}

/// The answer to a policy whose call has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GuestError {
    /// The cache has no such image, or the grant hides it: the reference that was asked for.
    NotFound(String),
    /// Something uses this image, and `force` was not asked for.
    InUse(usize),
    /// A right is lacking, for an image or for all of them.
    Denied { right: Right, image: Option<usize>, message: String },
    /// A text is not a reference or pattern: the text and the problem.
    Invalid { text: String, problem: String },
    /// Anything else, in words.
    Other(&'static str),
}

/// The result of a call.
pub(crate) type Answer<T> = Result<T, CallError>;

/// An image with its config and layers.
#[derive(Debug)]
pub(crate) struct Inspected {
    pub(crate) image: usize,
    pub(crate) detail: ImageDetail,
    /// False if the grant withholds environment variables. There are none in `detail` then.
    pub(crate) shows_env: bool,
}

/// The usage of an image: whether it can be removed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) image: usize,
    /// The right that a removal without force would lack.
    pub(crate) lacks: Option<Right>,
}

/// The cost of an image, in allocated bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) image: usize,
    pub(crate) unique_bytes: u64,
    pub(crate) shared_bytes: u64,
}

impl From<GuestError> for CallError {
    fn from(error: GuestError) -> Self {
        Self::Guest(error)
    }
}

/// Returns the text of a label. In an image's config it may be anything.
pub(crate) fn label(value: &serde_json::Value) -> Cow<'_, str> {
    value.as_str().map_or_else(|| value.to_string().into(), Cow::from)
}

/// Returns what a policy is told of a failure of the cache. What failed, with its paths, is for the operator.
pub(super) fn unreadable(error: &dyn std::error::Error) -> CallError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    tracing::warn!("the cache could not be read for a policy: {text}");
    GuestError::Other("the cache could not be read").into()
}
