//! The keys of a job file as they are written, before they are looked at together.
//!
//! A key whose value is a table of its own is ignored here, and read by itself.

use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::file::Mode;
use super::watermark::Amount;
use crate::units::{Share, human_duration};

/// The tables of the file.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct FileKeys {
    #[serde(rename = "guard")]
    _guard: IgnoredAny,
    #[serde(rename = "defaults")]
    _defaults: IgnoredAny,
    #[serde(rename = "jobs")]
    _jobs: IgnoredAny,
}

/// `[defaults]`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct DefaultKeys {
    pub(super) time_zone: Option<String>,
    #[serde(with = "human_duration::option")]
    pub(super) jitter: Option<Duration>,
    pub(super) mode: Option<Mode>,
}

/// `[jobs.NAME]`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct JobKeys {
    pub(super) schedule: Option<String>,
    pub(super) time_zone: Option<String>,
    #[serde(with = "human_duration::option")]
    pub(super) jitter: Option<Duration>,
    pub(super) when_free_below: Option<Amount>,
    pub(super) until_free: Option<Amount>,
    pub(super) when_used_above: Option<Amount>,
    pub(super) until_used: Option<Amount>,
    pub(super) when_inodes_free_below: Option<Share>,
    pub(super) until_inodes_free: Option<Share>,
    #[serde(with = "human_duration::option")]
    pub(super) check_every: Option<Duration>,
    #[serde(with = "human_duration::option")]
    pub(super) settle: Option<Duration>,
    pub(super) make_room: Option<bool>,
    pub(super) mode: Option<Mode>,
    pub(super) policy: Option<String>,
    #[serde(rename = "config")]
    _config: IgnoredAny,
    #[serde(rename = "grant")]
    _grant: IgnoredAny,
    #[serde(rename = "limits")]
    _limits: IgnoredAny,
    #[serde(rename = "step")]
    _step: IgnoredAny,
}

/// One of `step`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct StepKeys {
    pub(super) policy: Option<String>,
    #[serde(rename = "config")]
    _config: IgnoredAny,
    #[serde(rename = "grant")]
    _grant: IgnoredAny,
    #[serde(rename = "limits")]
    _limits: IgnoredAny,
}
