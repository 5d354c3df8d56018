use std::io::Read as _;

use larder::ingest::{Credentials, ImagePull, Transport};

use super::intake::{LimitArguments, take_in};
use super::room::RoomArguments;
use crate::cli::Context;
use crate::exit::{Failure, Status, UNREACHABLE};
use crate::registry::{docker_config, proxies};

/// Pull images from their registries
///
/// Of an image for several platforms, the one for this machine is pulled. Every digest is verified. Layers that are in the
/// cache are not downloaded, and a download that breaks off continues where it ended. Credentials are those of
/// `docker login`, unless others are given. If an image cannot be pulled, the cache is unchanged.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  larder pull python:3.12 ghcr.io/acme/app@sha256:…
  larder pull localhost:5000/acme/app:1 --plain-http
  pass show registry | larder pull registry.acme.example/app:1 --user ci --password-stdin")]
pub(crate) struct Pull {
    /// The images
    #[arg(required = true, value_name = "REF")]
    references: Vec<String>,
    /// Reach the registry without encryption
    #[arg(long)]
    plain_http: bool,
    /// The user to log in as, instead of that of `docker login`
    #[arg(long, value_name = "NAME", requires = "password_stdin")]
    user: Option<String>,
    /// Read the user's password, or a token, from standard input
    #[arg(long, requires = "user")]
    password_stdin: bool,
    /// Use no credentials, even after `docker login`
    #[arg(long, conflicts_with = "user")]
    anonymous: bool,
    #[command(flatten)]
    limits: LimitArguments,
    #[command(flatten)]
    room: RoomArguments,
}

impl Pull {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let credentials = self.credentials()?;
        let transport = if self.plain_http { Transport::PlainHttp } else { Transport::Https };
        let proxies = proxies();
        let limits = self.limits.limits();
        let local = context.open_or_make().await?;
        let room = self.room.find(&local, context)?;
        let status = take_in(context, self.references, async |reference, progress| {
            let pull = ImagePull::new(reference)
                .credentials(credentials.clone())
                .transport(transport)
                .proxies(proxies.clone())
                .limits(limits)
                .progress(progress);
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

    fn credentials(&self) -> Result<Credentials, Failure> {
        if let Some(user) = &self.user {
            let mut password = String::new();
            std::io::stdin()
                .lock()
                .read_to_string(&mut password)
                .map_err(|error| Failure::failed("input", "could not read the password", error))?;
            let password = password.trim_end_matches(['\r', '\n']).to_owned();
            return Ok(Credentials::Password { user: user.clone(), password });
        }
        Ok(match docker_config() {
            Some(config) if !self.anonymous => Credentials::Docker(config),
            _ => Credentials::Anonymous,
        })
    }
}
