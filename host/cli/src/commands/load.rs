use std::path::PathBuf;

use larder::ingest::ImageLoad;

use super::intake::{LimitArguments, take_in};
use super::room::RoomArguments;
use crate::cli::Context;
use crate::exit::{Failure, Status};

/// Load images from archives: those of `docker save`, or OCI image layouts
///
/// An archive is a directory or a tar file, plain or compressed with gzip or zstd, and may have several images. Every
/// digest is verified. Layers that are in the cache are not converted again. If an archive cannot be loaded, the cache is
/// unchanged.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  docker save acme/app:1 -o app.tar && larder load app.tar
  larder load layout/ --tag acme/app:1")]
pub(crate) struct Load {
    /// Archives or directories
    #[arg(required = true, value_name = "FILE", value_hint = clap::ValueHint::AnyPath)]
    files: Vec<PathBuf>,
    /// The name of the image, instead of those in the archive; can be given several times
    #[arg(long = "tag", short, value_name = "REF")]
    tags: Vec<String>,
    #[command(flatten)]
    limits: LimitArguments,
    #[command(flatten)]
    room: RoomArguments,
}

impl Load {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        if self.files.len() > 1 && !self.tags.is_empty() {
            return Err(Failure::usage(
                "`--tag` names the image of one archive, and several are given".to_owned(),
            ));
        }
        let local = context.open_or_make().await?;
        let (tags, room) = (self.tags, self.room.find(&local, context)?);
        let limits = self.limits.limits();
        let load = async |file, progress| {
            let load =
                tags.iter().fold(ImageLoad::new(file), ImageLoad::tag).progress(progress).limits(limits);
            let load = room.maker().into_iter().fold(load, ImageLoad::make_room);
            Ok(load.run(&local).await?)
        };
        let status = take_in(context, self.files, load).await;
        room.settle().await;
        status
    }
}
