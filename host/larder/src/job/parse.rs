//! Reading a job file: its keys, looked at together.

use std::str::FromStr as _;
use std::time::Duration;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::{Job, JobFile, JobName, Mode, Pressure, Step, Trigger};
use super::finding::{Findings, Severity};
use super::keys::{DefaultKeys, FileKeys, JobKeys, StepKeys};
use super::reading::{Place, Reader, Table, join};
use super::schedule::{Schedule, ScheduleError};
use super::watermark::{Amount, Quantity, Watermark};
use crate::policy::{Grant, GrantDocument, Guard, Limits};
use crate::units::format_duration;

/// The shortest interval between two looks at a file system.
const SHORTEST_CHECK: Duration = Duration::from_secs(5);
const CHECK_EVERY: Duration = Duration::from_secs(60);
const SETTLE: Duration = Duration::from_secs(600);

/// The keys of a job that begin with a bound, and those that end with it.
const BOUNDS: [(&str, &str); 3] = [
    ("when-free-below", "until-free"),
    ("when-used-above", "until-used"),
    ("when-inodes-free-below", "until-inodes-free"),
];

impl JobFile {
    /// Parses a file. One without jobs is right: it may be there for its guard.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the file, with warnings.
    pub fn parse(text: &str) -> Result<Self, Findings> {
        let mut reader = Reader::new(text);
        let document = reader.document();
        reader.table::<FileKeys>("", &document, 0..0);
        let guard = table_at::<Guard>(&mut reader, &document, "", "guard");
        let guard = guard.map(|table| table.keys).unwrap_or_default();
        let defaults = table_at::<DefaultKeys>(&mut reader, &document, "", "defaults");
        let defaults = defaults.map(|table| table.keys).unwrap_or_default();
        let mut jobs = Vec::new();
        if let Some(value) = document.get("jobs")
            && let Some(tables) = reader.table_of("jobs", value)
        {
            for (name, value) in tables {
                let path = join("jobs", name.get_ref());
                let name_is = JobName::from_str(name.get_ref());
                if let Err(problem) = &name_is {
                    reader.error(&name.span(), &path, problem.clone(), None);
                }
                let Some(table) = reader.table_of(&path, value) else { continue };
                let mark = reader.mark(&name.span(), path.clone());
                let job = JobReader { reader: &mut reader, path, table, at: name.span() }.read(&defaults);
                jobs.extend(name_is.ok().zip(job).map(|(name, (trigger, steps, mode))| Job {
                    name,
                    trigger,
                    steps,
                    mode,
                    mark,
                }));
            }
        }
        let findings = reader.finish();
        if findings.0.iter().any(|finding| finding.severity == Severity::Error) {
            return Err(findings);
        }
        jobs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { guard, jobs, warnings: findings.0 })
    }
}

/// Reads the table under a key, if there is one.
fn table_at<'t, T: DeserializeOwned + Default>(
    reader: &mut Reader<'t>,
    parent: &DeTable<'t>,
    path: &str,
    key: &str,
) -> Option<Table<T>> {
    let value = parent.get(key)?;
    let path = join(path, key);
    let table = reader.table_of(&path, value)?;
    Some(reader.table(&path, table, value.span()))
}

/// Reads one job.
struct JobReader<'r, 't, 'v> {
    reader: &'r mut Reader<'t>,
    path: String,
    table: &'v DeTable<'t>,
    /// The place of its name.
    at: Place,
}

impl<'t> JobReader<'_, 't, '_> {
    fn read(mut self, defaults: &DefaultKeys) -> Option<(Trigger, Vec<Step>, Mode)> {
        let job: Table<JobKeys> = self.reader.table(&self.path, self.table, self.at.clone());
        let has_bound = BOUNDS.iter().any(|(when, until)| job.has(when) || job.has(until));
        let trigger = match (job.has("schedule"), has_bound) {
            (true, true) => {
                let problem = "it has a schedule and a bound, which are two jobs";
                let suggestion = "give the bound a table of its own under another name".to_owned();
                self.reader.error(
                    &job.place("schedule"),
                    &join(&self.path, "schedule"),
                    problem,
                    Some(suggestion),
                );
                None
            }
            (true, false) => self.schedule(&job, defaults),
            (false, true) => self.pressure(&job),
            // What is wrong with it may be the name of that key.
            (false, false) if job.is_wrong => None,
            (false, false) => {
                let suggestion = "add a `schedule` such as `\"30 3 * * *\"`, or a bound: `when-free-below` and `until-free`";
                self.reader.error(
                    &self.at,
                    &self.path,
                    "nothing says when it runs",
                    Some(suggestion.to_owned()),
                );
                None
            }
        };
        self.refuse_what_has_no_use(&job, has_bound);
        let steps = self.steps(&job);
        let mode = job.keys.mode.or(defaults.mode).unwrap_or_default();
        trigger.zip(steps).map(|(trigger, steps)| (trigger, steps, mode))
    }

    fn error(&mut self, place: &Place, key: &str, problem: impl Into<String>, suggestion: Option<String>) {
        self.reader.error(place, &join(&self.path, key), problem, suggestion);
    }

    fn schedule(&mut self, job: &Table<JobKeys>, defaults: &DefaultKeys) -> Option<Trigger> {
        let keys = &job.keys;
        let zone = keys.time_zone.as_deref().or(defaults.time_zone.as_deref()).unwrap_or_default();
        let jitter = keys.jitter.or(defaults.jitter).unwrap_or_default();
        match Schedule::parse(keys.schedule.as_deref()?, zone) {
            Ok(schedule) => Some(Trigger::Schedule { schedule, jitter }),
            Err(ScheduleError::Zone { zone, suggestion }) => {
                let key = if job.has("time-zone") { "time-zone" } else { "schedule" };
                let problem = format!("there is no time zone `{zone}` in the data of this system");
                self.error(&job.place(key), key, problem, suggestion);
                None
            }
            Err(error) => {
                self.error(&job.place("schedule"), "schedule", error.to_string(), None);
                None
            }
        }
    }

    fn pressure(&mut self, job: &Table<JobKeys>) -> Option<Trigger> {
        let keys = &job.keys;
        let share = |share: Option<_>| share.map(Amount::Share);
        let bounds = [
            (Quantity::Free, keys.when_free_below, keys.until_free),
            (Quantity::Used, keys.when_used_above, keys.until_used),
            (Quantity::InodesFree, share(keys.when_inodes_free_below), share(keys.until_inodes_free)),
        ];
        let mut watermarks = Vec::new();
        for ((when, until), (quantity, start, stop)) in BOUNDS.into_iter().zip(bounds) {
            match (job.has(when), job.has(until)) {
                (true, false) => {
                    let problem = "it says when to begin, and not when to end";
                    self.error(&job.place(when), when, problem, Some(format!("add `{until}`")));
                }
                (false, true) => {
                    let problem = "it says when to end, and not when to begin";
                    self.error(&job.place(until), until, problem, Some(format!("add `{when}`")));
                }
                (true, true) | (false, false) => {}
            }
            let (Some(start), Some(stop)) = (start, stop) else { continue };
            let watermark = Watermark { quantity, start, stop };
            if watermark.is_inside_out() {
                let beyond = if quantity == Quantity::Used { "less" } else { "more" };
                let problem = format!(
                    "`{stop}` is not {beyond} than `{when} = \"{start}\"`: the job would begin again at once"
                );
                self.error(&job.place(until), until, problem, Some(format!("write {beyond} than `{start}`")));
            } else {
                watermarks.push(watermark);
            }
        }
        let check_every = keys.check_every.unwrap_or(CHECK_EVERY);
        if check_every < SHORTEST_CHECK {
            let shortest = format_duration(SHORTEST_CHECK);
            let problem = format!("`{}` is shorter than `{shortest}`", format_duration(check_every));
            self.error(&job.place("check-every"), "check-every", problem, None);
        }
        let settle = keys.settle.unwrap_or(SETTLE);
        let make_room = keys.make_room.unwrap_or_default();
        (!watermarks.is_empty()).then_some(Trigger::Pressure(Pressure {
            watermarks,
            check_every,
            settle,
            make_room,
        }))
    }

    /// Finds keys that the job's other keys make useless.
    fn refuse_what_has_no_use(&mut self, job: &Table<JobKeys>, has_bound: bool) {
        if !has_bound {
            for key in ["check-every", "settle", "make-room"] {
                if job.has(key) {
                    let suggestion = "remove it, or add a bound such as `when-free-below` and `until-free`";
                    self.error(
                        &job.place(key),
                        key,
                        "it has no use without a bound",
                        Some(suggestion.to_owned()),
                    );
                }
            }
        }
        if !job.has("schedule") {
            for key in ["time-zone", "jitter"] {
                if job.has(key) {
                    self.error(
                        &job.place(key),
                        key,
                        "it has no use without a `schedule`",
                        Some("remove it".to_owned()),
                    );
                }
            }
        }
    }

    fn steps(&mut self, job: &Table<JobKeys>) -> Option<Vec<Step>> {
        let path = self.path.clone();
        let Some(value) = self.table.get("step") else {
            if !job.has("policy") {
                // What is wrong with it may be the name of that key.
                if !job.is_wrong {
                    let suggestion =
                        "add `policy`, such as `policy = \"keep-recent\"`, or a list `step` of policies";
                    self.reader.error(
                        &self.at,
                        &path,
                        "nothing says what it does",
                        Some(suggestion.to_owned()),
                    );
                }
                return None;
            }
            return self
                .step(&path, self.table, &job.place("policy"), job.keys.policy.as_deref())
                .map(|step| vec![step]);
        };
        for key in ["policy", "config", "grant", "limits"] {
            if job.has(key) {
                let suggestion = "move it into an entry of `step`";
                self.error(&job.place(key), key, "it has no use beside `step`", Some(suggestion.to_owned()));
            }
        }
        let Some(entries) = value.get_ref().as_array().filter(|entries| !entries.is_empty()) else {
            let suggestion = "write `step = [{ policy = \"max-age\", … }]`, or `policy` alone";
            self.error(&value.span(), "step", "it is no list of steps", Some(suggestion.to_owned()));
            return None;
        };
        let mut steps = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let path = format!("{path}.step[{index}]");
            let Some(table) = self.reader.table_of(&path, entry) else { continue };
            let keys: Table<StepKeys> = self.reader.table(&path, table, entry.span());
            if !keys.has("policy") {
                if !keys.is_wrong {
                    self.reader.error(&entry.span(), &path, "the step has no `policy`", None);
                }
                continue;
            }
            steps.extend(self.step(&path, table, &keys.place("policy"), keys.keys.policy.as_deref()));
        }
        (steps.len() == entries.len()).then_some(steps)
    }

    fn step(&mut self, path: &str, table: &DeTable<'t>, at: &Place, policy: Option<&str>) -> Option<Step> {
        let mark = |reader: &Reader<'_>, place: &Place, key: &str| reader.mark(place, join(path, key));
        let policy_mark = mark(self.reader, at, "policy");
        let config_mark = table
            .get("config")
            .map_or_else(|| policy_mark.clone(), |config| mark(self.reader, &config.span(), "config"));
        let config = self.config(path, table.get("config"))?;
        let grant: Table<Grant> = self.part(path, table, "grant", at);
        let limits: Limits = self.part(path, table, "limits", at).keys;
        let (is_wrong, grant) = (grant.is_wrong, grant.keys);
        if is_wrong {
            // It is said what is wrong; what it allows is not known.
        } else if grant.remove.is_empty() {
            let problem = "its grant lets it remove nothing, so it never will";
            let suggestion = "add what it may remove, such as `grant = { remove = [\"docker.io/acme/**\"] }`";
            self.reader.warning(at, path, problem, Some(suggestion.to_owned()));
        } else if grant.max_removals.is_none() && grant.max_bytes.is_none() && grant.max_share.is_none() {
            let problem = "its grant has no cap: a config that is wrong could remove all that it matches";
            let suggestion = "add `max-share`, `max-removals` or `max-bytes`, such as `max-share = \"25%\"`";
            self.reader.warning(at, path, problem, Some(suggestion.to_owned()));
        }
        let grant = GrantDocument::default().with_grant(grant).with_limits(limits);
        if let Err(error) = grant.check() {
            self.reader.error(at, &join(path, "limits"), error.to_string(), None);
        }
        let policy = match policy?.parse() {
            Ok(policy) => policy,
            Err(problem) => {
                self.reader.error(at, &join(path, "policy"), problem, None);
                return None;
            }
        };
        Some(Step { policy, config, grant, policy_mark, config_mark })
    }

    /// Reads a table of the grant's file. One that is not there has its defaults.
    fn part<T: DeserializeOwned + Default>(
        &mut self,
        path: &str,
        table: &DeTable<'t>,
        key: &str,
        at: &Place,
    ) -> Table<T> {
        table_at(self.reader, table, path, key)
            .unwrap_or_else(|| self.reader.table(path, &DeTable::new(), at.clone()))
    }

    /// Reads the config of a policy, which is any table that is also JSON.
    fn config(&mut self, path: &str, value: Option<&Spanned<DeValue<'t>>>) -> Option<serde_json::Value> {
        let Some(value) = value else { return Some(serde_json::Value::Object(serde_json::Map::new())) };
        let path = join(path, "config");
        self.reader.table_of(&path, value)?;
        match to_json(value.get_ref()) {
            Some(json) => Some(json),
            None => {
                let problem =
                    "the config of a policy is JSON, which has no times and no numbers beyond its range";
                self.reader.error(&value.span(), &path, problem, Some("write it in quotes".to_owned()));
                None
            }
        }
    }
}

/// Returns a value as JSON. None if it has a time, or a number that JSON does not have.
fn to_json(value: &DeValue<'_>) -> Option<serde_json::Value> {
    Some(match value {
        DeValue::String(text) => serde_json::Value::from(text.as_ref()),
        DeValue::Integer(number) => {
            i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok()?.into()
        }
        DeValue::Float(number) => {
            serde_json::Number::from_f64(number.as_str().replace('_', "").parse().ok()?)?.into()
        }
        DeValue::Boolean(value) => (*value).into(),
        DeValue::Datetime(_) => return None,
        DeValue::Array(items) => {
            items.iter().map(|item| to_json(item.get_ref())).collect::<Option<Vec<_>>>()?.into()
        }
        DeValue::Table(table) => {
            let entries =
                table.iter().map(|(key, value)| Some((key.get_ref().to_string(), to_json(value.get_ref())?)));
            serde_json::Value::Object(entries.collect::<Option<_>>()?)
        }
    })
}
