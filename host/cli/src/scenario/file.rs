//! What can stand in a file of scenarios.
//!
//! Nothing is guessed: an unknown key, a layer that has no size, an image that is there twice are errors that name file,
//! line and key. A slip in a scenario must not make it pass.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use larder::policy::{ByteSize, Grant, GrantDocument, Guard, Limits, PolicyError, parse_duration};
use larder::reference::Reference;
use larder::snapshot::{DiskStatus, ImageHistory, MemoryCache, MemoryImage, Origin};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use toml::Spanned;

use super::decisions::{Expected, Failed, FailureKind, Outcome};
use super::{Scenario, Suite, diagnose};
use crate::exit::Failure;
use crate::input;

/// What counts as now where a file does not say.
const NOW: DateTime<Utc> = DateTime::from_timestamp(1_795_521_600, 0).expect("a time");

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    policy: Option<PathBuf>,
    now: Option<Spanned<Moment>>,
    #[serde(default)]
    scenario: Vec<Table>,
}

/// A `[[scenario]]`. `grant`, `guard` and `limits` are the tables of a grant, and mean what they mean there.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Table {
    name: Spanned<String>,
    #[serde(default)]
    config: toml::Table,
    grant: Option<Grant>,
    guard: Option<Guard>,
    limits: Option<Limits>,
    /// The bytes that the run should free.
    goal: Option<ByteSize>,
    #[serde(default)]
    disk: Disk,
    #[serde(default)]
    layers: BTreeMap<String, ByteSize>,
    #[serde(default)]
    image: Vec<Spanned<Image>>,
    expect: Option<Vec<Spanned<Expected>>>,
    fails: Option<Spanned<FailureKind>>,
    /// The sentence of the failure.
    says: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Disk {
    capacity: Option<ByteSize>,
    available: Option<ByteSize>,
    /// What the layers of all images take, unless it is given.
    cache: Option<ByteSize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Image {
    reference: Name,
    created: Option<Moment>,
    /// When its manifest came in, where that was later.
    arrived: Option<Moment>,
    used: Option<Moment>,
    size: Option<ByteSize>,
    #[serde(default)]
    layers: Vec<String>,
    manifest: Option<String>,
    #[serde(default)]
    sandboxes: Vec<String>,
    #[serde(default)]
    snapshots: Vec<String>,
    #[serde(default)]
    pinned: bool,
    #[serde(default)]
    origin: Origin,
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    history: History,
}

/// What is recorded of an image's past.
#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct History {
    first_seen: Option<Moment>,
    /// The last boots, newest first.
    #[serde(default)]
    boots: Vec<Moment>,
    /// The number of `boots`, unless it is given.
    boot_count: Option<u64>,
    #[serde(default)]
    arrivals: u32,
}

/// A reference, in the spelling in which it stands in the index.
struct Name(String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse::<Reference>().map_err(D::Error::custom)?;
        Ok(Self(text))
    }
}

/// An instant, or how long before now it was.
#[derive(Clone, Copy)]
enum Moment {
    Ago(Duration),
    At(DateTime<Utc>),
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = match toml::Value::deserialize(from)? {
            toml::Value::String(text) => text,
            other => other.to_string(),
        };
        if let Ok(age) = parse_duration(&text) {
            return Ok(Self::Ago(age));
        }
        text.parse().map(Self::At).map_err(|_| {
            D::Error::custom(format!(
                "`{text}` is neither an age such as `7d` or `1h30m` nor an instant such as `2026-11-24T12:00:00Z`"
            ))
        })
    }
}

impl Moment {
    fn before(self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Ago(age) => now.checked_sub_signed(TimeDelta::from_std(age).ok()?),
            Self::At(instant) => Some(instant),
        }
    }
}

/// Reads a file that has this text.
pub(super) fn read(path: &Path, text: String) -> Result<Suite, Failure> {
    let file = parse(&text).map_err(|error| diagnose::parser(path, &text, &error))?;
    let invalid = |span, key: &str, problem: &str| diagnose::at(path, &text, span, key, problem);
    if file.scenario.is_empty() {
        return Err(invalid(0..0, "scenario", "there is no `[[scenario]]` in this file"));
    }
    let now = match file.now.map(|now| (now.span(), now.into_inner())) {
        None => NOW,
        Some((_, Moment::At(now))) => now,
        Some((span, Moment::Ago(_))) => {
            return Err(invalid(span, "now", "expected an instant such as `2026-11-24T12:00:00Z`"));
        }
    };
    let mut names = HashSet::new();
    let mut scenarios = Vec::new();
    for table in file.scenario {
        let span = table.name.span();
        if !names.insert(table.name.get_ref().clone()) {
            return Err(invalid(span, "name", "another scenario in this file has this name"));
        }
        let line = diagnose::line(&text, span.start);
        scenarios.push(
            scenario(table, line, now).map_err(|Slip { span, key, problem }| invalid(span, key, &problem))?,
        );
    }
    let beside = path.parent().unwrap_or(Path::new(""));
    let policy = file.policy.map(|policy| beside.join(policy));
    Ok(Suite { path: path.to_owned(), policy, scenarios, text })
}

fn parse(text: &str) -> Result<File, serde_path_to_error::Error<toml::de::Error>> {
    let mut track = serde_path_to_error::Track::new();
    let error =
        |track: serde_path_to_error::Track, error| serde_path_to_error::Error::new(track.path(), error);
    let from = match toml::Deserializer::parse(text) {
        Ok(from) => from,
        Err(problem) => return Err(error(track, problem)),
    };
    File::deserialize(serde_path_to_error::Deserializer::new(from, &mut track))
        .map_err(|problem| error(track, problem))
}

/// What is wrong with a scenario that can be parsed, and where.
struct Slip {
    span: std::ops::Range<usize>,
    key: &'static str,
    problem: String,
}

impl Slip {
    fn new(span: std::ops::Range<usize>, key: &'static str, problem: impl Into<String>) -> Self {
        Self { span, key, problem: problem.into() }
    }
}

fn scenario(table: Table, line: usize, now: DateTime<Utc>) -> Result<Scenario, Slip> {
    let span = table.name.span();
    let config = input::json(toml::Value::Table(table.config))
        .map_err(|problem| Slip::new(span.clone(), "config", problem))?;
    let grant = GrantDocument {
        grant: table.grant.unwrap_or_else(everything),
        guard: table.guard.unwrap_or_else(|| Guard::default().with_min_age(Duration::ZERO)),
        limits: table.limits.unwrap_or_default(),
    };
    grant.check().map_err(|error| match error {
        PolicyError::InvalidGrant { problem, .. } => Slip::new(span.clone(), "limits", problem),
        error => Slip::new(span.clone(), "limits", error.to_string()),
    })?;
    let expected = match (table.expect, table.fails) {
        (Some(_), Some(fails)) => {
            return Err(Slip::new(
                fails.span(),
                "fails",
                "this scenario has `expect` as well: a run fails or makes a plan",
            ));
        }
        (Some(expect), None) => Some(Outcome::Decisions(decisions(expect, &table.image)?)),
        (None, Some(fails)) => {
            let says = table.says.as_ref().map(|says| says.get_ref().clone());
            Some(Outcome::Fails(Failed { kind: fails.into_inner(), says }))
        }
        (None, None) => None,
    };
    if let (Some(says), None | Some(Outcome::Decisions(_))) = (&table.says, &expected) {
        let problem = "it is the sentence of a failure: add the kind, such as `fails = \"policy-failed\"`";
        return Err(Slip::new(says.span(), "says", problem));
    }
    let cache = cache(table.image, table.layers, table.disk, now)?;
    let goal = table.goal;
    Ok(Scenario { name: table.name.into_inner(), line, cache, config, grant, goal, now, expected })
}

/// The grant of a scenario that has none: it may remove whatever nothing protects.
fn everything() -> Grant {
    let all = || vec!["**".parse().expect("a pattern")];
    Grant::default().with_inspect(all()).with_remove(all())
}

/// What is expected, of images that there are, each once.
fn decisions(expect: Vec<Spanned<Expected>>, images: &[Spanned<Image>]) -> Result<Vec<Expected>, Slip> {
    let mut there: HashSet<&str> = images.iter().map(|image| image.get_ref().reference.0.as_str()).collect();
    for expected in &expect {
        let reference = expected.get_ref().reference.as_str();
        if !there.remove(reference) {
            let problem = if images.iter().any(|image| image.get_ref().reference.0 == reference) {
                format!("`{reference}` is expected twice")
            } else {
                format!("there is no image `{reference}` in this scenario")
            };
            return Err(Slip::new(expected.span(), "reference", problem));
        }
    }
    Ok(expect.into_iter().map(Spanned::into_inner).collect())
}

fn cache(
    images: Vec<Spanned<Image>>,
    layers: BTreeMap<String, ByteSize>,
    disk: Disk,
    now: DateTime<Utc>,
) -> Result<MemoryCache, Slip> {
    let mut references = HashSet::new();
    let mut manifests: HashMap<String, Vec<String>> = HashMap::new();
    let mut made = Vec::new();
    let mut used_layers = HashSet::new();
    for image in images {
        let span = image.span();
        let image = image.into_inner();
        if !references.insert(image.reference.0.clone()) {
            return Err(Slip::new(span, "reference", format!("`{}` is there twice", image.reference.0)));
        }
        for layer in &image.layers {
            if !layers.contains_key(layer) {
                let close = diagnose::close(layer, layers.keys().map(String::as_str));
                let close = close.map(|close| format!("; did you mean `{close}`?")).unwrap_or_default();
                return Err(Slip::new(
                    span,
                    "layers",
                    format!("`{layer}` has no size in `[scenario.layers]`{close}"),
                ));
            }
            used_layers.insert(layer.clone());
        }
        let made_of = image.manifest.clone().unwrap_or_else(|| image.reference.0.clone());
        if manifests.entry(made_of).or_insert_with(|| image.layers.clone()) != &image.layers {
            let problem =
                "another image of this manifest has other layers: tags of one manifest have the same";
            return Err(Slip::new(span, "layers", problem));
        }
        made.push(memory_image(image, now).map_err(|(key, problem)| Slip::new(span, key, problem))?);
    }
    let cache_bytes = layers.iter().filter(|(name, _)| used_layers.contains(*name));
    let cache_bytes = cache_bytes.map(|(_, size)| size.as_bytes()).fold(0, u64::saturating_add);
    let disk = DiskStatus {
        cache_bytes: disk.cache.map_or(cache_bytes, ByteSize::as_bytes),
        capacity_bytes: disk.capacity.unwrap_or(ByteSize::gib(100)).as_bytes(),
        available_bytes: disk.available.unwrap_or(ByteSize::gib(50)).as_bytes(),
    };
    let cache = MemoryCache::new(made).with_disk(disk);
    Ok(layers.into_iter().fold(cache, |cache, (name, size)| cache.with_layer(name, size.as_bytes())))
}

fn memory_image(image: Image, now: DateTime<Utc>) -> Result<MemoryImage, (&'static str, String)> {
    let moment = |key, moment: Option<Moment>| {
        moment.map(|moment| moment.before(now).ok_or((key, "that is too long ago".to_owned()))).transpose()
    };
    let size = image.size.map(|size| i64::try_from(size.as_bytes()));
    let mut made = MemoryImage::new(image.reference.0);
    if let Some(manifest) = image.manifest {
        made.manifest = manifest;
    }
    made.created_at = moment("created", image.created)?;
    made.arrived_at = moment("arrived", image.arrived)?;
    made.last_used_at = moment("used", image.used)?;
    made.size_bytes = size.transpose().map_err(|_| ("size", "that is too large".to_owned()))?;
    made.layers = image.layers;
    made.sandboxes = image.sandboxes;
    made.snapshots = image.snapshots;
    made.pinned = image.pinned;
    made.origin = image.origin;
    made.env = image.env;
    let boots = image.history.boots.into_iter().map(|boot| moment("boots", Some(boot)));
    let boots: Vec<_> = boots.filter_map(Result::transpose).collect::<Result<_, _>>()?;
    made.history = ImageHistory {
        first_seen_at: moment("first-seen", image.history.first_seen)?,
        boot_count: image.history.boot_count.unwrap_or(boots.len() as u64),
        boots,
        arrivals: image.history.arrivals,
        last_pull: None,
    };
    made.labels = (!image.labels.is_empty()).then(|| serde_json::json!(image.labels));
    Ok(made)
}
