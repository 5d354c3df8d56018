use std::path::PathBuf;

use larder::ingest::ImageLoad;

use super::intake::{PlatformArgument, take_in};
use super::room::RoomArguments;
use crate::cli::Context;
use crate::exit::{Failure, Status};

/// Load images from archives: those of `docker save`, or OCI image layouts
///
/// An archive is a directory or a tar file, plain or compressed with gzip or zstd, and may have several images. Every
/// digest is verified. Layers that are in the cache are not converted again. Images are added one by one: if one cannot
/// be loaded, those before it stay. What has no name is left out, and reported.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  docker save acme/app:1 -o app.tar && larder load app.tar
  larder load layout/ --tag acme/app:1
  larder load layout/ --tag acme/app --select v1 --select v2")]
pub(crate) struct Load {
    /// Archives or directories
    #[arg(required = true, value_name = "FILE", value_hint = clap::ValueHint::AnyPath)]
    files: Vec<PathBuf>,
    /// The name of the image, instead of those in the archive; without a tag, images keep those that they have; can be given
    /// several times
    #[arg(long = "tag", short, value_name = "REF")]
    tags: Vec<String>,
    /// Load only this image of the archive: a name or a tag in it, or the digest of a manifest or config; can be given several
    /// times
    #[arg(long = "select", value_name = "IMAGE")]
    selections: Vec<String>,
    #[command(flatten)]
    platform: PlatformArgument,
    #[command(flatten)]
    room: RoomArguments,
}

impl Load {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        for (option, is_given) in
            [("--tag", !self.tags.is_empty()), ("--select", !self.selections.is_empty())]
        {
            if is_given && self.files.len() > 1 {
                let message = format!("`{option}` is for the images of one archive, and several are given");
                return Err(Failure::usage(message));
            }
        }
        let local = context.open_or_make().await?;
        let room = self.room.find(&local, context)?;
        let load = async |file, progress| {
            let load = self.tags.iter().fold(ImageLoad::new(file), ImageLoad::tag).progress(progress);
            let load = self.selections.iter().fold(load, ImageLoad::select);
            let load = self.platform.get().into_iter().fold(load, ImageLoad::platform);
            let load = room.maker().into_iter().fold(load, ImageLoad::make_room);
            Ok(load.run(&local).await?)
        };
        let status = take_in(context, self.files, load).await;
        room.settle().await;
        status
    }
}
