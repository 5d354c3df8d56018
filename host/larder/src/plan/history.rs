//! What runs did to a home, and what is known about an image.

use serde::Serialize;

use crate::backend::LocalBackend;
use crate::catalog::history::{self, DecisionRecord, RunRecord};
use crate::catalog::{pins, read, roots};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::records::ImageHandle;
use crate::records::ImageUsers;

/// What is known about an image and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// What runs decided about it, newest first.
    pub decisions: Vec<DecisionRecord>,
    /// The image as it is now; absent where it is not in the cache.
    pub image: Option<ImageHandle>,
    /// Whether it is pinned.
    pub pinned: bool,
    /// The normalized reference, or the text as it was given where it is none.
    pub reference: String,
    /// What needs it now.
    pub users: ImageUsers,
}

impl LocalBackend {
    /// The last runs that changed the cache, newest first, at most `limit`.
    ///
    /// # Errors
    /// Where the home cannot be read.
    pub async fn history(&self, limit: u32) -> MicrosandboxResult<Vec<RunRecord>> {
        self.store().read("list past runs", move |connection| history::runs(connection, limit)).await
    }

    /// What is known about an image, in the cache or gone, and what runs decided about it and why.
    ///
    /// # Errors
    /// [`ImageNotFound`](MicrosandboxError::ImageNotFound) where it is neither in the cache nor on record,
    /// [`InvalidReference`](MicrosandboxError::InvalidReference), or where the home cannot be read.
    pub async fn explain(&self, reference: &str) -> MicrosandboxResult<Explanation> {
        let reference = reference.to_owned();
        self.store().read("explain an image", move |connection| explain(connection, &reference)).await
    }
}

fn explain(connection: &rusqlite::Connection, reference: &str) -> MicrosandboxResult<Explanation> {
    let decisions = history::decisions(connection, reference)?;
    let image = match read::get(connection, reference) {
        Ok(image) => Some(image),
        Err(MicrosandboxError::ImageNotFound(_)) if !decisions.is_empty() => None,
        Err(error) => return Err(error),
    };
    let db = MicrosandboxError::db;
    let users = match image.as_ref().and_then(ImageHandle::manifest_digest) {
        Some(digest) => roots::refresh(connection)
            .and_then(|()| roots::users_of_digest(connection, digest))
            .map_err(db("find out what uses an image"))?,
        None => ImageUsers::default(),
    };
    let reference = pins::key(reference);
    let pinned = pins::list(connection)?.contains(&reference);
    Ok(Explanation { decisions, image, pinned, reference, users })
}
