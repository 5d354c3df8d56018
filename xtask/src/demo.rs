//! `cargo xtask demo`: images come in, are cleaned up, and go out, on a copy of a home that microsandbox 0.7.13 made.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::guests;
use crate::shell::{cargo, command, root, run, succeeds, target, words};

const GRANT: &str = r#"# What the policy may do on this host.
[grant]
read   = ["**"]                  # see every image
remove = ["docker.io/acme/**"]   # and remove those of acme
max-removals = 40

[guard]
protect = ["**:latest"]          # whatever a policy decides, this tag stays
"#;

/// Runs the demo.
pub(crate) fn run_demo() -> Result<()> {
    run(cargo().args(["build", "--quiet", "--workspace", "--bins"]))?;
    guests::run(&["keep-recent"])?;
    let demo = Demo::set_up()?;
    let policy = target().join("policies/keep-recent.wasm");
    let prune = ["prune", "--policy", path(&policy)?, "--config", "keep=2", "--grant", path(&demo.grant)?];

    say(
        "Images come into a home that microsandbox made: as `docker save` writes them, as an OCI archive, as a directory:",
    );
    let [shop, worker, tools] = ["shop.tar", "worker.tar", "tools"].map(|name| demo.directory.join(name));
    demo.larder(&["load", path(&shop)?, path(&worker)?, path(&tools)?])?;
    say("One of them:");
    demo.larder(&["inspect", "acme/shop:2"])?;
    say("And all that are there:");
    demo.larder(&["ls"])?;
    say("A policy says what it would remove, and why. Nothing changes:");
    demo.larder(&[&prune[..], &["--dry-run"]].concat())?;
    say("The same as a plan that a person can read:");
    demo.larder(&[&prune[..], &["--plan", path(&demo.plan)?]].concat())?;
    say("Applied: every image is checked again first, and nothing goes that is not in the plan:");
    demo.larder(&["apply", path(&demo.plan)?, "--yes"])?;
    say("What is left:");
    demo.larder(&["ls"])?;
    demo.larder(&["history"])?;
    say("Why one image went:");
    demo.larder(&["explain", "acme/app00003:v1"])?;
    say("Why one image stayed:");
    demo.larder(&["explain", "acme/app00000:v0"])?;
    say("An image goes out, for other tools to read:");
    let saved = demo.directory.join("saved.tar");
    demo.larder(&["save", "acme/shop:2", "-o", path(&saved)?])?;
    if succeeds(command("skopeo").arg("--version")) {
        show(command("skopeo").args(["inspect", &format!("docker-archive:{}", path(&saved)?)]))?;
    }
    Ok(())
}

struct Demo {
    directory: PathBuf,
    home: PathBuf,
    grant: PathBuf,
    plan: PathBuf,
}

impl Demo {
    /// A fresh copy of the home, in place of that of an earlier demo.
    fn set_up() -> Result<Self> {
        let directory = target().join("demo");
        if directory.exists() {
            fs::remove_dir_all(&directory)
                .with_context(|| format!("could not remove `{}`", directory.display()))?;
        }
        let demo = Self {
            home: directory.join("home"),
            grant: directory.join("grant.toml"),
            plan: directory.join("plan.json"),
            directory,
        };
        fs::create_dir_all(&demo.home)
            .with_context(|| format!("could not make `{}`", demo.home.display()))?;
        // The owner of the files is whoever unpacks them, which a home insists on.
        let archive = root().join("tests/fixtures/msb-0.7.13-41.tar.gz");
        run(command("tar").args(["--no-same-owner", "-xzf"]).arg(archive).arg("-C").arg(&demo.home))?;
        fs::write(&demo.grant, GRANT)
            .with_context(|| format!("could not write `{}`", demo.grant.display()))?;
        run(Command::new(built("larder-images")?).arg(&demo.directory))?;
        Ok(demo)
    }

    /// Runs the program on the home, showing the command as one would type it.
    fn larder(&self, arguments: &[&str]) -> Result<()> {
        let mut larder = Command::new(built("larder")?);
        larder.current_dir(root()).arg("--home").arg(&self.home).args(arguments);
        show(&mut larder)
    }
}

/// A program of this repository.
fn built(name: &str) -> Result<PathBuf> {
    let program = target().join("debug").join(name);
    ensure!(program.exists(), "`{}` was not built", program.display());
    Ok(program)
}

/// Runs a command, and shows it as one would type it.
fn show(command: &mut Command) -> Result<()> {
    let typed = words(command).replace(&format!("{}/", root().display()), "");
    println!("\n$ {}", typed.replacen("target/debug/larder", "larder", 1));
    run(command)
}

fn say(text: &str) {
    println!("\n# {text}");
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("`{}` is not Unicode", path.display()))
}
