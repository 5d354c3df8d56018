use std::collections::BTreeSet;
use std::env;
use std::io::Read as _;
use std::path::PathBuf;

use larder::ingest::{Authorities, Credentials, HomeRegistries, ImagePull, Proxies, Transport, is_loopback};
use larder::reference::Reference;

use super::intake::{LimitArguments, PlatformArgument, take_in};
use super::room::RoomArguments;
use crate::cli::Context;
use crate::exit::{Failure, Status, UNREACHABLE};
use crate::input;
use crate::registry::{kept_credentials, proxies};
use crate::render::plain;

/// Pull images from their registries
///
/// Pulls the image for this machine where there are several, and verifies every digest. What is in the cache is not downloaded. A
/// connection that breaks is replaced, and the download goes on where it ended. If a pull fails, its complete layers are kept for a
/// day, for the next one. A reference names one image: the one that it named before goes with the next clean-up.
///
/// Uses the credentials of microsandbox for this home (`registries.hosts.HOST.auth` in its `config.json`), of `docker login` or of
/// `podman login`, unless others are given; `-v` says which. Honours that file's registries without encryption and its
/// certificates of authorities, too. Uses the proxies of `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, except for this machine
/// itself, and does not read `ALL_PROXY`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder pull python:3.12 ghcr.io/acme/app@sha256:…
  larder pull localhost:5000/acme/app:1 --plain-http
  larder pull registry.acme.example/app:1 --ca acme.pem
  pass show registry | larder pull registry.acme.example/app:1 --user ci --password-stdin")]
pub(crate) struct Pull {
    /// The references of the images
    #[arg(required = true, value_name = "REF")]
    references: Vec<String>,
    /// Reach registries on this machine, or the one at HOST, without encryption
    #[arg(long, value_name = "HOST[:PORT]", num_args = 0..=1, require_equals = true, default_missing_value = THIS_MACHINE)]
    plain_http: Vec<String>,
    /// Trust the authorities in this file of certificates (PEM), too
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    ca: Option<PathBuf>,
    /// Log in as this user, with `--password-stdin`; all images must be on one registry
    #[arg(long, value_name = "NAME", requires = "password_stdin")]
    user: Option<String>,
    /// Read the password of the user, or a token, from standard input
    #[arg(long, requires = "user")]
    password_stdin: bool,
    /// Use no credentials, even after `docker login`
    #[arg(long, conflicts_with = "user")]
    anonymous: bool,
    #[command(flatten)]
    platform: PlatformArgument,
    #[command(flatten)]
    limits: LimitArguments,
    #[command(flatten)]
    room: RoomArguments,
}

/// The value of `--plain-http` without one.
const THIS_MACHINE: &str = "";

/// Returns whether a registry is the one at a host, at any port if none is given.
fn is_at(registry: &str, host: &str) -> bool {
    registry.strip_prefix(host).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

/// The settings for all registries.
struct Access {
    credentials: Credentials,
    home: HomeRegistries,
    /// The registries that are reached without encryption, beside those of the home.
    plain: Vec<String>,
    authorities: Authorities,
    proxies: Proxies,
}

impl Pull {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        self.check()?;
        let limits = self.limits.limits();
        let local = context.open_or_make().await?;
        let access = self.access(HomeRegistries::read(local.home(), |name| env::var(name).ok())?)?;
        let room = self.room.find(&local, context)?;
        let status = take_in(context, &local, self.references, async |reference, progress| {
            let transport = access.transport(&reference);
            let pull = ImagePull::new(reference)
                .credentials(access.credentials.clone())
                .transport(transport)
                .authorities(access.authorities.clone())
                .proxies(access.proxies.clone())
                .limits(limits)
                .progress(progress);
            let pull = self.platform.get().into_iter().fold(pull, ImagePull::platform);
            let pull = room.maker().into_iter().fold(pull, ImagePull::make_room);
            let pulled = pull.run(&local).await.map(|image| vec![image]);
            // The hint is to do what was done.
            let is_plain =
                |failure: &Failure| transport == Transport::PlainHttp && failure.kind() == UNREACHABLE;
            pulled
                .map_err(Failure::from)
                .map_err(|failure| if is_plain(&failure) { failure.without_hint() } else { failure })
        })
        .await;
        room.settle().await;
        status
    }

    /// Refuses options that would be for other registries than they are meant for.
    fn check(&self) -> Result<(), Failure> {
        // What is no reference is said when it is pulled.
        let references: Vec<Reference> =
            self.references.iter().filter_map(|reference| reference.parse().ok()).collect();
        let registries: BTreeSet<&str> = references.iter().map(Reference::registry).collect();
        if self.user.is_some() && registries.len() > 1 {
            let names: Vec<String> = registries.iter().map(|name| format!("`{}`", plain(name))).collect();
            return Err(Failure::usage(format!(
                "`--user` is a user of one registry, and the images are of {}: pull them one registry at a time",
                names.join(" and ")
            )));
        }
        for host in self.plain_http.iter().filter(|_| !registries.is_empty()) {
            if host == THIS_MACHINE && !registries.iter().any(|registry| is_loopback(registry)) {
                let registry = plain(registries.first().copied().unwrap_or_default());
                return Err(Failure::usage(format!(
                    "`--plain-http` alone is for registries on this machine, and no image is of one: \
                     `--plain-http={registry}` names another"
                )));
            }
            if host != THIS_MACHINE && !registries.iter().any(|registry| is_at(registry, host)) {
                return Err(Failure::usage(format!("no image is of the registry `{}`", plain(host))));
            }
        }
        Ok(())
    }

    fn access(&self, home: HomeRegistries) -> Result<Access, Failure> {
        let mut authorities = home.authorities();
        if let Some(path) = &self.ca {
            let given = Authorities::from_pem(&input::certificates(path)?);
            let invalid = |error| Failure::usage(format!("`{}`: {error}", path.display()));
            authorities.extend(given.map_err(invalid)?);
        }
        Ok(Access {
            credentials: self.credentials(home.clone())?,
            home,
            plain: self.plain_http.clone(),
            authorities,
            proxies: proxies(),
        })
    }

    fn credentials(&self, home: HomeRegistries) -> Result<Credentials, Failure> {
        if let Some(user) = &self.user {
            let mut password = String::new();
            std::io::stdin()
                .lock()
                .read_to_string(&mut password)
                .map_err(|error| Failure::failed("input", "could not read the password", error))?;
            let password = password.trim_end_matches(['\r', '\n']).to_owned();
            return Ok(Credentials::Password { user: user.clone(), password });
        }
        Ok(if self.anonymous { Credentials::Anonymous } else { kept_credentials(home) })
    }
}

impl Access {
    /// Returns the transport to the registry of a reference.
    fn transport(&self, reference: &str) -> Transport {
        let Ok(reference) = reference.parse::<Reference>() else { return Transport::Https };
        let registry = reference.registry();
        let is_meant = |host: &String| match host.as_str() {
            THIS_MACHINE => is_loopback(registry),
            host => is_at(registry, host),
        };
        match self.plain.iter().any(is_meant) {
            true => Transport::PlainHttp,
            false => self.home.transport(registry),
        }
    }
}
