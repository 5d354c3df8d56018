//! What runs did to a home, and what is known about an image.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::guard::Candidate;
use crate::backend::LocalBackend;
use crate::catalog::decisions::{self, RunDecisions};
use crate::catalog::history::{self, DecisionRecord, RunRecord, RunState};
use crate::catalog::journal::{self, UseRecord};
use crate::catalog::{pins, read, remove, roots};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::home::RunLock;
use crate::records::{Guard, ImageHandle, ImageUsers};

/// What is known about an image and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// What runs decided about it, newest first.
    pub decisions: Vec<DecisionRecord>,
    /// The image as it is now; absent where it is not in the cache.
    pub image: Option<ImageHandle>,
    /// Why the guard of the home keeps it now, in a clause; absent where it would let it go, and where it cannot be read.
    pub kept_by_guard: Option<String>,
    /// Whether it is pinned.
    pub pinned: bool,
    /// The normalized reference, or the text as it was given where it is none.
    pub reference: String,
    /// What needs it now.
    pub users: ImageUsers,
    /// How its manifest was used: that which it names now, or named last. Absent where nothing is on record.
    pub uses: Option<UseRecord>,
}

impl LocalBackend {
    /// Returns the last runs that changed the cache, newest first, at most `limit`. Of those that have not ended it finds
    /// out whether a process can be at work on them ([`RunState`]).
    ///
    /// # Errors
    /// Fails if the home cannot be read.
    pub async fn history(&self, limit: u32) -> MicrosandboxResult<Vec<RunRecord>> {
        let paths = self.store().catalog().paths().clone();
        let list = move |connection: &rusqlite::Connection| {
            let runs = history::runs(connection, limit)?;
            let open = |run: &RunRecord| run.state == RunState::UnderWay;
            // A lock that cannot be looked at may be held.
            if !runs.iter().any(open) || RunLock::is_held(&paths).unwrap_or(true) {
                return Ok(runs);
            }
            // What had not ended before nobody held the lock has ended by now, or its process is gone.
            let before: HashSet<i64> = runs.iter().filter(|run| open(run)).map(|run| run.id).collect();
            let runs = history::runs(connection, limit)?.into_iter().map(|run| {
                if open(&run) && before.contains(&run.id) { run.in_state(RunState::Killed) } else { run }
            });
            Ok(runs.collect())
        };
        self.store().read("list past runs", list).await
    }

    /// Returns what runs decided, by their [numbers](RunRecord::id): what they removed, then what they left alone, then
    /// what they kept, the largest first, at most `limit` in all.
    ///
    /// # Errors
    /// Fails if the home cannot be read.
    pub async fn decisions(&self, runs: &[i64], limit: u32) -> MicrosandboxResult<RunDecisions> {
        let runs = runs.to_vec();
        let list = move |connection: &rusqlite::Connection| decisions::of_runs(connection, &runs, limit);
        self.store().read("list what runs decided", list).await
    }

    /// What is known about an image, in the cache or gone, and what runs decided about it and why.
    ///
    /// # Errors
    /// [`ImageNotFound`](MicrosandboxError::ImageNotFound) where it is neither in the cache nor on record,
    /// [`InvalidReference`](MicrosandboxError::InvalidReference), or where the home cannot be read.
    pub async fn explain(&self, reference: &str) -> MicrosandboxResult<Explanation> {
        let (reference, now) = (reference.to_owned(), self.now());
        // Reading goes on without a guard that cannot be understood.
        let guard = self.guard().await.unwrap_or_default();
        self.store()
            .read("explain an image", move |connection| explain(connection, &reference, &guard, now))
            .await
    }
}

fn explain(
    connection: &rusqlite::Connection,
    reference: &str,
    guard: &Guard,
    now: DateTime<Utc>,
) -> MicrosandboxResult<Explanation> {
    let decisions = history::decisions(connection, reference)?;
    let db = MicrosandboxError::db;
    let named = journal::name_of(connection, reference).map_err(db("look up how an image was used"))?;
    let image = match read::get(connection, reference) {
        Ok(image) => Some(image),
        Err(MicrosandboxError::ImageNotFound(_)) if !decisions.is_empty() || named.is_some() => None,
        Err(error) => return Err(error),
    };
    let users = match image.as_ref().and_then(ImageHandle::manifest_digest) {
        Some(digest) => roots::refresh(connection)
            .and_then(|()| roots::users_of_digest(connection, digest))
            .map_err(db("find out what uses an image"))?,
        None => ImageUsers::default(),
    };
    let kept_by_guard = match &image {
        Some(image) => kept_by(connection, image, guard, now)?,
        None => None,
    };
    let decided = || decisions.iter().find_map(|decision| decision.manifest_digest.clone());
    let manifest = match &image {
        Some(image) => image.manifest_digest().map(str::to_owned),
        None => named.or_else(decided),
    };
    let uses = manifest.map(|manifest| journal::past_of(connection, &manifest, now)).transpose();
    let uses = uses.map_err(db("look up how an image was used"))?.flatten();
    let reference = pins::key(reference);
    let pinned = pins::list(connection)?.contains(&reference);
    Ok(Explanation { decisions, image, kept_by_guard, pinned, reference, users, uses })
}

/// Returns why a guard keeps an image. Its users are known ([`roots::refresh`]).
fn kept_by(
    connection: &rusqlite::Connection,
    image: &ImageHandle,
    guard: &Guard,
    now: DateTime<Utc>,
) -> MicrosandboxResult<Option<String>> {
    if guard.is_empty() {
        return Ok(None);
    }
    let db = || MicrosandboxError::db("find out what keeps an image");
    let row = remove::find_ref(connection, image.reference()).map_err(db())?;
    let live = remove::live_refs(connection, row.iter()).map_err(db())?;
    let Some((row, live)) = row.as_ref().and_then(|row| Some((row, live.get(&row.id)?))) else {
        return Ok(None);
    };
    let enough = guard.keep.saturating_add(1);
    let left = row.parsed.as_ref().map(|parsed| remove::count_repository(connection, parsed, enough));
    let candidate = Candidate {
        text: image.reference(),
        reference: row.parsed.as_ref(),
        arrived_at: live.arrived_at,
        last_used_at: live.expected.last_used_at,
        left_in_repository: left.transpose().map_err(db())?,
    };
    Ok(guard.protection(&candidate, now).map(|protection| protection.to_string()))
}
