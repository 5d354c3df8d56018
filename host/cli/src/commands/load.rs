use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use larder::ingest::ImageLoad;

use super::intake::{LimitArguments, PlatformArgument, take_in};
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
  docker save acme/app:1 | larder load
  larder load layout/ --tag acme/app:1
  larder load layout/ --tag acme/app --select v1 --select v2")]
pub(crate) struct Load {
    /// Archives or directories; without one, or for `-`, an archive is read from standard input
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::AnyPath)]
    files: Vec<PathBuf>,
    /// Name the image REF instead of as in the archive; a repository alone keeps the tags of the archive; can be given several
    /// times
    #[arg(long = "tag", short, value_name = "REF")]
    tags: Vec<String>,
    /// Load only the images with this name, tag, or digest of a manifest or config; can be given several times
    #[arg(long = "select", value_name = "IMAGE")]
    selections: Vec<String>,
    #[command(flatten)]
    platform: PlatformArgument,
    #[command(flatten)]
    limits: LimitArguments,
    #[command(flatten)]
    room: RoomArguments,
}

impl Load {
    pub(crate) async fn run(self, context: &Context) -> Result<Status, Failure> {
        let files = self.files(context)?;
        for (option, is_given) in
            [("--tag", !self.tags.is_empty()), ("--select", !self.selections.is_empty())]
        {
            if is_given && files.len() > 1 {
                let message = format!("`{option}` is for the images of one archive, and several are given");
                return Err(Failure::usage(message));
            }
        }
        let local = context.open_or_make().await?;
        let (limits, room) = (self.limits.limits(), self.room.find(&local, context)?);
        let load = async |file: PathBuf, progress| {
            let load = if is_stdin(&file) { from_stdin()? } else { ImageLoad::new(file) };
            let load = self.tags.iter().fold(load, ImageLoad::tag).progress(progress).limits(limits);
            let load = self.selections.iter().fold(load, ImageLoad::select);
            let load = self.platform.get().into_iter().fold(load, ImageLoad::platform);
            let load = room.maker().into_iter().fold(load, ImageLoad::make_room);
            Ok(load.run(&local).await?)
        };
        let status = take_in(context, &local, files, load).await;
        room.settle().await;
        status
    }
    /// Returns the inputs: standard input if none is given.
    fn files(&self, context: &Context) -> Result<Vec<PathBuf>, Failure> {
        let mut files = self.files.clone();
        if files.is_empty() {
            files.push(STDIN.into());
        }
        match files.iter().filter(|file| is_stdin(file)).count() {
            0 => Ok(files),
            1 if context.console.reads_terminal() => Err(Failure::usage(
                "standard input is a terminal: name an archive, or pipe one into this".to_owned(),
            )),
            1 => Ok(files),
            _ => Err(Failure::usage("standard input has one archive, and `-` is given twice".to_owned())),
        }
    }
}

const STDIN: &str = "-";

fn is_stdin(file: &Path) -> bool {
    file == Path::new(STDIN)
}

fn from_stdin() -> Result<ImageLoad, Failure> {
    let stdin = io::stdin().as_fd().try_clone_to_owned();
    let stdin = stdin.map_err(|error| Failure::failed("input", "could not read standard input", error))?;
    Ok(ImageLoad::from_file("standard input", File::from(stdin)))
}
