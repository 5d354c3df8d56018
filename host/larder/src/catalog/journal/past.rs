//! Reading the journal. What microsandbox did since the last sweep is read from its own tables, so that the answer is
//! the same in a home that Larder has never changed.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde::Serialize;

use super::lenient::{integer, text};
use super::{DAY, HOUR, KEPT_DAYS, KINDS, NewUse, Place, PullCost, UseKind, sweep};
use crate::catalog::pins;

/// The number of boots that are told one by one.
const BOOTS: usize = 32;

/// The recorded uses of an image, by its manifest. Uses of one kind are at least an hour apart, and kept for 400 days.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UseRecord {
    /// Number of recorded arrivals: pulls and loads, by whichever program.
    pub arrivals: u32,
    /// Number of recorded boots of sandboxes from it.
    pub boots: u64,
    /// Hour of the first recorded boot.
    pub first_booted_at: Option<DateTime<Utc>>,
    /// The first record of its manifest.
    pub first_seen_at: Option<DateTime<Utc>>,
    /// Its last arrival.
    pub last_arrived_at: Option<DateTime<Utc>>,
    /// The last boot of a sandbox from it.
    pub last_booted_at: Option<DateTime<Utc>>,
    /// The name of that sandbox, which need not exist any longer.
    pub last_booted_by: Option<String>,
    /// The last time that Larder loaded it from an archive.
    pub last_loaded_at: Option<DateTime<Utc>>,
    /// Bytes over the network of the last pull by Larder that transferred a layer.
    pub last_pull_bytes: Option<u64>,
    /// Duration of that pull in milliseconds.
    pub last_pull_ms: Option<u64>,
    /// The last time that Larder pulled it.
    pub last_pulled_at: Option<DateTime<Utc>>,
    /// The last time that Larder saved it.
    pub last_saved_at: Option<DateTime<Utc>>,
    /// The last time that microsandbox pulled or loaded it or took it for a sandbox, or Larder pulled or loaded it.
    pub last_touched_at: Option<DateTime<Utc>>,
    /// The digest of its manifest.
    pub manifest_digest: String,
}

/// The past of an image.
#[derive(Debug, Default)]
pub(crate) struct Past {
    pub(crate) first_seen_at: Option<DateTime<Utc>>,
    pub(crate) last_pull: Option<PullCost>,
    booted_by: Option<String>,
    uses: [Times; KINDS],
}

/// The times of one kind of use.
#[derive(Debug, Clone, Default)]
struct Times {
    /// The hours of each day.
    days: BTreeMap<i64, u32>,
    /// The last one, in seconds since 1970.
    latest: Option<i64>,
}

impl Times {
    fn add(&mut self, place: Place) {
        *self.days.entry(place.day).or_default() |= place.hours;
        self.latest = self.latest.max(Some(place.day * DAY + place.second));
    }

    fn count(&self) -> u64 {
        self.days.values().map(|hours| u64::from(hours.count_ones())).sum()
    }

    /// Returns the begins of its hours, newest first.
    fn hours(&self) -> impl Iterator<Item = i64> {
        self.days.iter().rev().flat_map(|(day, &hours)| {
            let used = (0..DAY / HOUR).rev().filter(move |hour| (hours >> hour) & 1 == 1);
            used.map(move |hour| day * DAY + hour * HOUR)
        })
    }

    fn last(&self) -> Option<DateTime<Utc>> {
        self.latest.and_then(instant)
    }
}

fn instant(seconds: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(seconds, 0)
}

impl Past {
    fn times(&self, kind: UseKind) -> &Times {
        &self.uses[kind as usize]
    }

    fn add(&mut self, new: &NewUse<'_>) {
        self.uses[new.kind as usize].add(Place::of(new.at));
        // To the second, as the journal has it.
        self.first_seen_at = self.first_seen_at.into_iter().chain(instant(new.at.timestamp())).min();
        if let Some(sandbox) = new.sandbox {
            self.booted_by = Some(sandbox.to_owned());
        }
    }

    /// Returns the last boots, newest first: that one to the second, the others by their hour.
    pub(crate) fn boots(&self) -> Vec<DateTime<Utc>> {
        let times = self.times(UseKind::Boot);
        times.latest.into_iter().chain(times.hours().skip(1)).take(BOOTS).filter_map(instant).collect()
    }

    pub(crate) fn boot_count(&self) -> u64 {
        self.times(UseKind::Boot).count()
    }

    fn all_arrivals(&self) -> Times {
        let mut all = self.times(UseKind::Arrival).clone();
        for times in [UseKind::Pull, UseKind::Load].map(|kind| self.times(kind)) {
            times.days.iter().for_each(|(day, hours)| *all.days.entry(*day).or_default() |= hours);
            all.latest = all.latest.max(times.latest);
        }
        all
    }

    /// Returns the number of pulls and loads.
    pub(crate) fn arrivals(&self) -> u32 {
        u32::try_from(self.all_arrivals().count()).unwrap_or(u32::MAX)
    }

    fn into_record(self, manifest_digest: String) -> UseRecord {
        let last = |kind| self.times(kind).last();
        UseRecord {
            arrivals: self.arrivals(),
            boots: self.boot_count(),
            first_booted_at: self.times(UseKind::Boot).hours().last().and_then(instant),
            first_seen_at: self.first_seen_at,
            last_arrived_at: self.all_arrivals().last(),
            last_booted_at: last(UseKind::Boot),
            last_loaded_at: last(UseKind::Load),
            last_pull_bytes: self.last_pull.map(|cost| cost.bytes),
            last_pull_ms: self.last_pull.map(|cost| cost.duration_ms),
            last_pulled_at: last(UseKind::Pull),
            last_saved_at: last(UseKind::Save),
            last_touched_at: last(UseKind::Touch),
            last_booted_by: self.booted_by,
            manifest_digest,
        }
    }
}

/// Returns the past of every image that has any, by the digest of its manifest.
pub(crate) fn pasts(connection: &Connection, now: DateTime<Utc>) -> rusqlite::Result<HashMap<String, Past>> {
    let mut digests: HashMap<i64, String> = HashMap::new();
    let mut pasts: HashMap<String, Past> = HashMap::new();
    let mut images = connection.prepare_cached(&format!("{IMAGES} FROM larder_image"))?;
    let mut rows = images.query([])?;
    while let Some(row) = rows.next()? {
        let (id, digest, past) = image(row)?;
        digests.insert(id, digest.clone());
        pasts.insert(digest, past);
    }
    let mut uses = connection.prepare_cached(&format!("{USES} FROM larder_use AS used"))?;
    let mut rows = uses.query([])?;
    while let Some(row) = rows.next()? {
        let past = digests.get(&row.get(0)?).and_then(|digest| pasts.get_mut(digest));
        past.map_or(Ok(()), |past| add_use(past, row))?;
    }
    sweep::unswept(connection, now, &mut |new| {
        // Most images are known: their digest is not copied.
        match pasts.get_mut(new.manifest) {
            Some(past) => past.add(new),
            None => pasts.entry(new.manifest.to_owned()).or_default().add(new),
        }
        Ok(())
    })?;
    Ok(pasts)
}

/// Returns the past of the image with this digest, if anything is recorded.
pub(crate) fn past_of(
    connection: &Connection,
    manifest: &str,
    now: DateTime<Utc>,
) -> rusqlite::Result<Option<UseRecord>> {
    let known = connection
        .prepare_cached(&format!("{IMAGES} FROM larder_image WHERE manifest_digest = ?1"))?
        .query_row([manifest], image)
        .optional()?;
    let mut found = None;
    if let Some((id, _, mut past)) = known {
        // The rows are in the order of days: a search for each day.
        let mut uses = connection.prepare_cached(&format!(
            "WITH RECURSIVE days (day) AS (SELECT ?2 UNION ALL SELECT day + 1 FROM days WHERE day < ?3)
             {USES} FROM days CROSS JOIN larder_use AS used ON used.day = days.day AND used.image_id = ?1"
        ))?;
        let today = Place::of(now).day;
        let mut rows = uses.query(params![id, today - KEPT_DAYS, today + 1])?;
        while let Some(row) = rows.next()? {
            add_use(&mut past, row)?;
        }
        found = Some(past);
    }
    sweep::unswept(connection, now, &mut |new| {
        if new.manifest == manifest {
            found.get_or_insert_default().add(new);
        }
        Ok(())
    })?;
    Ok(found.map(|past| past.into_record(manifest.to_owned())))
}

/// Returns the digest of the manifest that a reference, in any spelling, was last seen to name.
pub(crate) fn name_of(connection: &Connection, reference: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached(
            "SELECT image.manifest_digest FROM larder_name AS name JOIN larder_image AS image ON image.id = name.image_id
              WHERE name.reference = ?1 ORDER BY name.named_at DESC LIMIT 1",
        )?
        .query_row([pins::key(reference)], |row| row.get(0))
        .optional()
}

const IMAGES: &str = "SELECT id, manifest_digest, first_seen_at, booted_by, pull_ms, pull_bytes";

fn image(row: &rusqlite::Row<'_>) -> rusqlite::Result<(i64, String, Past)> {
    let number = |column| Ok::<_, rusqlite::Error>(integer(row, column)?.and_then(|n| u64::try_from(n).ok()));
    let cost = number(4)?.zip(number(5)?);
    let past = Past {
        first_seen_at: integer(row, 2)?.and_then(instant),
        last_pull: cost.map(|(duration_ms, bytes)| PullCost { duration_ms, bytes }),
        booted_by: text(row, 3)?,
        uses: Default::default(),
    };
    Ok((row.get(0)?, row.get(1)?, past))
}

const USES: &str = "SELECT used.image_id, used.kind, used.day, used.hours, used.latest";

fn add_use(past: &mut Past, row: &rusqlite::Row<'_>) -> rusqlite::Result<()> {
    let kind: i64 = row.get(1)?;
    // A kind of a later version is none of these.
    if let Some(times) = usize::try_from(kind).ok().and_then(|kind| past.uses.get_mut(kind)) {
        times.add(Place { day: row.get(2)?, hours: row.get(3)?, second: row.get(4)? });
    }
    Ok(())
}
