//! Runs over caches in memory, by calls on a session.

mod session;
mod staging;

use chrono::{DateTime, TimeDelta, Utc};

use super::Session;
use super::access::Access;
use super::answers::{CallError, GuestError};
use crate::policy::{Grant, GrantDocument, Guard};
use crate::snapshot::{MemoryCache, MemoryImage};

const NOW: DateTime<Utc> = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");

fn days_ago(days: i64) -> Option<DateTime<Utc>> {
    NOW.checked_sub_signed(TimeDelta::days(days))
}

/// An image with one layer of its own and the layer `base`.
fn image(reference: &str, age_days: i64) -> MemoryImage {
    let mut image = MemoryImage::new(reference);
    image.created_at = days_ago(age_days);
    image.last_used_at = days_ago(age_days);
    image.size_bytes = Some(100);
    image.layers = vec!["base".to_owned(), reference.to_owned()];
    image
}

/// Two images of `acme/app`, the older one in use, one of `acme/tool`, pinned, and one of somebody else; each has a
/// layer of 100 bytes of its own, and they share one of 1000 bytes.
fn cache() -> MemoryCache {
    let mut old = image("docker.io/acme/app:1", 20);
    old.sandboxes = vec!["web".to_owned()];
    let mut tool = image("docker.io/acme/tool:1", 5);
    tool.pinned = true;
    let new = image("docker.io/acme/app:2", 10);
    let other = image("docker.io/other/secret:1", 30);
    [old, tool, new, other].into_iter().fold(MemoryCache::new([]).with_layer("base", 1000), |cache, image| {
        let layer = image.reference.clone();
        cache.with_image(image).with_layer(layer, 100)
    })
}

fn grant(text: &str) -> GrantDocument {
    text.parse().expect("a grant")
}

/// May do everything; the guard protects nothing.
fn everything() -> GrantDocument {
    let all = || vec!["**".parse().expect("a pattern")];
    let grant = Grant::default().with_inspect(all()).with_remove(all()).with_force(true).with_prune(true);
    let guard = Guard::default().with_min_age(std::time::Duration::ZERO);
    GrantDocument::default().with_grant(grant).with_guard(guard)
}

fn session(cache: MemoryCache, grant: GrantDocument) -> Session {
    Session::new(Box::new(cache), Access::new(grant, NOW), None).expect("a session")
}

/// What a call came to, in a few words.
fn said<T: std::fmt::Debug>(answer: Result<T, CallError>) -> String {
    match answer {
        Ok(value) => format!("{value:?}"),
        Err(CallError::Guest(GuestError::NotFound(reference))) => format!("not found: {reference}"),
        Err(CallError::Guest(GuestError::InUse(_))) => "in use".to_owned(),
        Err(CallError::Guest(GuestError::Denied { right, message, .. })) => format!("{right:?}: {message}"),
        Err(CallError::Guest(GuestError::Invalid { text, problem })) => format!("{text}: {problem}"),
        Err(CallError::Guest(GuestError::Other(message))) => message.to_owned(),
        Err(CallError::Run(error)) => format!("the end: {error}"),
    }
}

/// The references of these images.
fn names(session: &Session, images: Result<Vec<usize>, CallError>) -> Vec<String> {
    let images = images.expect("a list");
    images.into_iter().map(|index| session.images.get(index).reference().to_owned()).collect()
}
