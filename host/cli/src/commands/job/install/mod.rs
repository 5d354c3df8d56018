//! Installing the service: units of systemd.
//!
//! - `unit.rs`: the texts of the units
//! - `quote.rs`: paths as units have them
//! - `place.rs`: where units are written, and what is never overwritten

mod place;
mod quote;
mod unit;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use larder::LocalBackend;
use larder::job::PolicyName;

use self::place::Written;
use self::unit::{Facts, Unit};
use super::{FileArgument, Read};
use crate::cli::Context;
use crate::exit::{Failure, Status};
use crate::web::http::ListenAddress;

/// Write a unit of systemd that runs the jobs by themselves
///
/// The unit may write to the home and to nothing else, has no network unless something needs it, and runs as the owner of
/// the home. It is for systemd 252 and newer.
///
/// A unit that is there is replaced if this command wrote it and nobody has changed it since.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder job install --print
  larder job install
  larder job install --timer
  larder job install --print --listen 127.0.0.1:9464 > larder.service")]
pub(crate) struct Install {
    #[command(flatten)]
    file: FileArgument,
    /// Print the units, and write nothing
    #[arg(long)]
    print: bool,
    /// Look every five minutes whether a job is due, instead of a service that stays
    #[arg(long, conflicts_with = "listen")]
    timer: bool,
    /// Run as this user [default: the owner of the home]
    #[arg(long, value_name = "NAME", conflicts_with = "root")]
    user: Option<String>,
    /// Run as root
    #[arg(long)]
    root: bool,
    /// Serve a page, metrics and probes on this address: a port of this machine, or an IP address with a port
    #[arg(long, value_name = "ADDR")]
    listen: Option<ListenAddress>,
    /// Replace units that somebody else wrote or changed
    #[arg(long)]
    force: bool,
    /// The directory of units
    #[arg(long, value_name = "DIR", default_value = "/etc/systemd/system", value_hint = clap::ValueHint::DirPath)]
    directory: PathBuf,
}

impl Install {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let local = context.open().await?;
        let read = self.file.read(&local)?;
        let facts = self.facts(&local, &read)?;
        let units = if self.timer { facts.timer() } else { facts.service() }?;
        let console = &context.console;
        if self.print {
            if console.is_json() {
                let texts: BTreeMap<&str, &str> =
                    units.iter().map(|unit| (unit.name, unit.text.as_str())).collect();
                console.json(&texts)?;
            } else {
                console.data(&printed(&units))?;
            }
            return Ok(Status::Done);
        }
        place::check(&self.directory, &units, self.force)?;
        for unit in &units {
            let path = self.directory.join(unit.name);
            match place::write(&path, &unit.text)? {
                Written::Same => console.note(&format!("`{}` is there already", path.display())),
                Written::New => {
                    console.note(&format!("wrote `{}`:", path.display()));
                    console.data(&unit.text)?;
                }
            }
        }
        let enabled = units.last().map_or("", |unit| unit.name);
        console.note(&format!("to start it: `systemctl daemon-reload && systemctl enable --now {enabled}`"));
        Ok(Status::Done)
    }

    /// Finds out what the units are made of.
    fn facts(&self, local: &LocalBackend, Read { path: file, file: jobs }: &Read) -> Result<Facts, Failure> {
        let real = |path: &Path| path.canonicalize().map_err(|error| Failure::unreadable(path, error));
        let program = env::current_exe()
            .map_err(|error| Failure::failed("program", "could not find the path of this program", error))?;
        let home = real(local.home())?;
        // The last part stays as it is: it may be a link that is swapped.
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = real(directory.unwrap_or(Path::new(".")))?;
        let steps = jobs.jobs.iter().flat_map(|job| &job.steps);
        let policies = steps.filter_map(|step| match &step.policy {
            PolicyName::File { path, .. } => directory.join(path).parent()?.canonicalize().ok(),
            PolicyName::Bundled(_) => None,
        });
        let directories: BTreeSet<PathBuf> = policies.chain([directory.clone()]).collect();
        let owner = fs::metadata(&home).map_err(|error| Failure::unreadable(&home, error))?.uid();
        let user = match (&self.user, self.root) {
            (_, true) => None,
            (Some(name), false) => Some(name.clone()),
            (None, false) => (owner != 0).then(|| user_name(owner)),
        };
        Ok(Facts {
            program: real(&program)?,
            // One that is not there yet is made in the home, or is a mistake that a run names.
            cache: local.cache_dir().canonicalize().unwrap_or_else(|_| local.cache_dir().to_owned()),
            home,
            file: directory.join(file.file_name().unwrap_or_default()),
            directories: directories.into_iter().collect(),
            user,
            listen: self.listen.map(ListenAddress::address),
        })
    }
}

/// Returns units as one text, each with its name if there are several.
fn printed(units: &[Unit]) -> String {
    match units {
        [unit] => unit.text.clone(),
        units => units
            .iter()
            .map(|unit| format!("# ---- {} ----\n{}", unit.name, unit.text))
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

/// Returns the name of a user, or its number if it has none here.
fn user_name(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = fields.find(|fields| fields.get(2).and_then(|id| id.parse().ok()) == Some(uid));
    found.map_or_else(|| uid.to_string(), |fields| fields[0].to_owned())
}
