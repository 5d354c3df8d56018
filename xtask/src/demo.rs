//! `cargo xtask demo`: shows the main use. A disk is almost full of images. The demo compares what a prune would
//! remove with what a policy removes.
//!
//! It builds only what it runs: the policy `keep-recent`, the program with it inside and without the parts that pull
//! images and build policies, and the maker of images. All files are in `target/demo/`, a copy of the program too: other
//! tasks replace the one in `target/debug`. The disk is a file system in memory if that can be mounted, and is unmounted
//! when the demo ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::guests::{self, Along};
use crate::shell::{command, is_root, root, succeeds, target, words};
use crate::steps::{Announcement, Steps};

const GRANT: &str = r#"[grant]
remove    = ["docker.io/acme/**"]  # what the policy may remove
max-share = "75%"                  # and how many of all images at most
"#;

/// The size of the disk: a little more than the size of the images.
const DISK: &str = "268m";

/// The date of the demo.
const TODAY: &str = "2026-06-01T12:00:00Z";

/// The lines of an output that are shown.
#[derive(Debug, Clone, Copy)]
enum Shown {
    All,
    /// This many of the first lines, and the last line.
    Cut(usize),
    Last,
}

/// Runs the demo, and prints how long it took.
pub(crate) fn run_demo() -> Result<()> {
    let mut steps = Steps::begin("demo");
    run_in(&mut steps)?;
    steps.finish();
    Ok(())
}

/// Runs the demo as steps of a task.
pub(crate) fn run_in(steps: &mut Steps) -> Result<()> {
    guests::build_kit(steps, Along::Program)?;
    let policies = guests::build_builtin(steps, &["keep-recent"])?;
    let announcement = Announcement {
        name: "policy inside",
        does: "compiles the program once more, with the policy inside",
        usually: "10 s",
    };
    steps.run(announcement, |step| guests::embed(step, Along::Program, &policies))?;
    let announcement = Announcement {
        name: "images",
        does: "makes 12 images of 244 MiB, as a team builds them over four months, and loads them",
        usually: "10 s",
    };
    let demo = steps.run(announcement, |step| {
        let demo = Demo::set_up()?;
        if let Disk::Plain { reason } = &demo.disk {
            step.note(format!("the home lies on this disk, and not on a full one: {reason}"));
        }
        Ok(demo)
    })?;
    demo.show()
}

struct Demo {
    directory: PathBuf,
    disk: Disk,
}

/// The disk of the home.
enum Disk {
    /// A file system in memory. Drop unmounts it.
    Mounted(PathBuf),
    /// The disk of the repository.
    Plain { reason: &'static str },
}

impl Disk {
    fn mount(path: PathBuf) -> Result<Self> {
        make_directory(&path)?;
        if !is_root() {
            return Ok(Self::Plain { reason: "only root can mount one" });
        }
        let options = format!("size={DISK},mode=0700");
        if succeeds(command("mount").args(["-t", "tmpfs", "-o", &options, "larder-demo"]).arg(&path)) {
            Ok(Self::Mounted(path))
        } else {
            Ok(Self::Plain { reason: "a file system in memory could not be mounted" })
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Self::Mounted(path) = self {
            succeeds(command("umount").arg(path));
        }
    }
}

impl Demo {
    /// Makes the disk, the images and the home. Replaces those of an earlier demo.
    fn set_up() -> Result<Self> {
        let directory = target().join("demo");
        let disk = directory.join("disk");
        // One that was killed leaves its disk mounted.
        while succeeds(command("mountpoint").arg("-q").arg(&disk)) {
            ensure!(succeeds(command("umount").arg(&disk)), "could not unmount `{}`", disk.display());
        }
        if directory.exists() {
            fs::remove_dir_all(&directory)
                .with_context(|| format!("could not remove `{}`", directory.display()))?;
        }
        let archives = directory.join("archives");
        make_directory(&archives)?;
        let demo = Self { disk: Disk::mount(disk)?, directory };
        let program = demo.program();
        fs::copy(built("larder")?, &program)
            .with_context(|| format!("could not write `{}`", program.display()))?;
        let made = output(Command::new(built("larder-images")?).arg("make").arg(&archives))?;
        for line in made.lines() {
            let (archive, age) = line.split_once(' ').context("a line for each archive")?;
            let path = archives.join(archive);
            demo.quietly(age.parse()?, &["load", path_text(&path)?])?;
            fs::remove_file(&path).with_context(|| format!("could not remove `{}`", path.display()))?;
        }
        let mut sandbox = Command::new(built("larder-images")?);
        output(sandbox.arg("use").arg(demo.home()).args(["docker.io/acme/shop:2", "shop-staging"]))?;
        fs::write(demo.directory.join("grant.toml"), GRANT).context("could not write `grant.toml`")?;
        Ok(demo)
    }

    /// The demo's own copy of the program.
    fn program(&self) -> PathBuf {
        self.directory.join("larder")
    }

    fn home(&self) -> PathBuf {
        self.directory.join("disk/home")
    }

    fn show(&self) -> Result<()> {
        say("The disk of a host that runs sandboxes is nearly full of images:");
        self.larder(Shown::All, &["df"])?;
        say(
            "microsandbox's prune removes all that no sandbox uses. The image that came in a minute ago goes, too:",
        );
        self.larder(Shown::Cut(4), &["prune", "--dry-run"])?;
        say(
            "A policy keeps the two newest of each repository, and what is in use. Under a grant it makes a plan:",
        );
        println!("$ cat grant.toml\n{}", GRANT.trim_end());
        self.larder(
            Shown::All,
            &[
                "prune",
                "--policy",
                "keep-recent",
                "--config",
                "keep=2",
                "--grant",
                "grant.toml",
                "--plan",
                "plan.json",
            ],
        )?;
        say("Nothing has changed so far. Applied, each image is checked again before it goes:");
        self.larder(Shown::Last, &["apply", "plan.json", "--yes"])?;
        self.larder(Shown::Last, &["df"])?;
        say("Later somebody asks why one went and another stayed:");
        self.larder(Shown::All, &["explain", "acme/worker:2"])?;
        self.larder(Shown::All, &["explain", "acme/shop:2"])?;
        let program = self.program();
        let larder = program.strip_prefix(root()).unwrap_or(&program).display();
        say("Next, on a home of your own, with the program of this demo. These three only read:");
        println!(
            "$ {larder} --home ~/.microsandbox ls\n\
             $ {larder} --home ~/.microsandbox df\n\
             $ {larder} --home ~/.microsandbox prune --policy keep-recent --config keep=3 --dry-run"
        );
        Ok(())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut larder = Command::new(self.program());
        larder.current_dir(&self.directory).env("MSB_HOME", self.home()).args(arguments);
        larder
    }

    /// Runs the program some days before today, and prints nothing.
    fn quietly(&self, days_ago: u32, arguments: &[&str]) -> Result<()> {
        let seconds = u64::from(days_ago) * 86_400;
        let date =
            output(command("date").args(["-u", "-d", &format!("{TODAY} - {seconds} seconds"), "+%FT%TZ"]))?;
        let mut larder = self.command(arguments);
        output(larder.args(["--now", date.trim()])).map(drop)
    }

    /// Runs the program. Prints the command as a user would type it, and the relevant part of its output.
    fn larder(&self, shown: Shown, arguments: &[&str]) -> Result<()> {
        println!("$ larder {}", arguments.join(" "));
        let mut larder = self.command(arguments);
        let text = output(larder.args(["--now", TODAY]))?;
        let lines: Vec<&str> = text.lines().collect();
        let (first, last) = match shown {
            Shown::All => (lines.len(), 0),
            Shown::Cut(first) => (first.min(lines.len()), 1),
            Shown::Last => (0, 1),
        };
        let left_out = lines.len().saturating_sub(first + last);
        lines[..first].iter().for_each(|line| println!("{line}"));
        if first > 0 && left_out > 0 {
            println!("… {left_out} more");
        }
        lines[first + left_out..].iter().for_each(|line| println!("{line}"));
        Ok(())
    }
}

/// Runs a program, and returns its standard output. If it fails, the error contains its standard error.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("could not run `{}`", words(command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}\n{}", words(command), output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns the path of a program of this repository.
fn built(name: &str) -> Result<PathBuf> {
    let program = target().join("debug").join(name);
    ensure!(program.exists(), "`{}` was not built", program.display());
    Ok(program)
}

fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("could not make `{}`", path.display()))
}

fn say(text: &str) {
    println!("\n# {text}");
}

fn path_text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("`{}` is not Unicode", path.display()))
}
