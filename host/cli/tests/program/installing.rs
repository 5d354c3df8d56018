//! Units of systemd, judged by systemd's own tools.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use larder::LocalBackend;
use larder_tests::judge::{has_tools, tool};
use larder_tests::run;
use tempfile::TempDir;

use crate::harness::TestEnvironment;

const JOBS: &str = "[jobs.nightly]\nschedule = \"@daily\"\npolicy = \"max-age\"\nconfig = { max-age = \"30d\" }\n\
                    grant = { remove = [\"**\"], max-removals = 10 }\n";

/// The highest exposure that `systemd-analyze security` may find, in tenths: 10 is what a service has that gives nothing up.
const EXPOSURE: &str = "--threshold=20";

/// A directory with units, and one with a home.
struct Installed {
    units: PathBuf,
    home: PathBuf,
    _above: TempDir,
}

/// Makes a home of this name in a new directory there, and installs with these options. Returns `None` where this user may
/// not write.
fn install(above: &str, name: &str, options: &[&str]) -> Option<Installed> {
    let above = match tempfile::Builder::new().prefix("larder-test-").tempdir_in(above) {
        Ok(above) => above,
        Err(error) => {
            eprintln!("skipped: no directory in `{above}`: {error}");
            return None;
        }
    };
    let (units, home) = (above.path().join("units"), above.path().join(name));
    fs::create_dir(&units).expect("a directory");
    run(async { LocalBackend::builder().home(&home).build().await.map(drop) }).expect("a home");
    fs::write(home.join("larder.toml"), JOBS).expect("a job file");
    let units_text = units.to_str().expect("text");
    let arguments = [&["job", "install", "--directory", units_text], options].concat();
    let output = larder(&home, &arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(Installed { units, home, _above: above })
}

fn larder(home: &Path, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.env_clear().arg("--home").arg(home).args(arguments).output().expect("the program started")
}

impl Installed {
    fn paths(&self) -> Vec<PathBuf> {
        let entries =
            fs::read_dir(&self.units).expect("the units").map(|entry| entry.expect("an entry").path());
        let mut paths: Vec<PathBuf> = entries.collect();
        paths.sort();
        paths
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.units.join(name)).expect("the unit")
    }

    /// Has systemd read the units, and judge how much they may do.
    fn judge(&self) {
        let verified =
            Command::new("systemd-analyze").arg("verify").args(self.paths()).output().expect("it ran");
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        assert!(verified.status.success() && !said.contains("larder"), "{said}");
        for path in self.paths().iter().filter(|path| path.extension().is_some_and(|kind| kind == "service"))
        {
            tool(
                "systemd-analyze",
                [Path::new("security"), Path::new("--offline=yes"), Path::new(EXPOSURE), path],
            );
        }
    }

    /// What systemd makes of the settings of this name: the paths of binds, without quotes and specifiers.
    fn setting(&self, unit: &str, name: &str) -> Vec<String> {
        let text = self.text(unit);
        text.lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
            .collect()
    }
}

/// Wherever the home is, systemd takes the units as they are, and finds that they may do little. The home is what they may
/// write to: by a bind where systemd hides what is around it.
#[test]
fn judged_by_systemd() {
    if !has_tools(&["systemd-analyze"]) {
        eprintln!("skipped: `systemd-analyze` is in the package `systemd`");
        return;
    }
    let options: [&[&str]; 4] =
        [&[], &["--timer"], &["--listen", "127.0.0.1:9464"], &["--listen", "[::]:9464", "--user", "daemon"]];
    for (above, name, setting) in [
        ("/var/lib", "home", "ReadWritePaths"),
        ("/home", "x", "BindPaths"),
        ("/root", "x", "BindPaths"),
        ("/var/lib", "a b 100%h $x \"q\"", "ReadWritePaths"),
        ("/tmp", "a b%%", "BindPaths"),
    ] {
        for options in options {
            let Some(installed) = install(above, name, options) else { continue };
            installed.judge();
            let unit = if options == ["--timer"] { "larder-due.service" } else { "larder.service" };
            let home = installed.home.to_str().expect("text").replace('"', "\\\"").replace('%', "%%");
            assert_eq!(installed.setting(unit, setting), [format!("\"{home}\"")]);
            let [command] = &installed.setting(unit, "ExecStart")[..] else { panic!("one command") };
            assert!(command.contains(&format!(" --home \"{}\" job ", home.replace('$', "$$"))), "{command}");
        }
    }
}

/// A unit has no network unless it is to be asked for metrics, and then no more than that needs. Compiled policies need
/// memory that was written to be executed, so that is not forbidden, and the unit says why.
#[test]
fn no_more_than_needed() {
    let test = TestEnvironment::made();
    fs::write(test.home.path().join("larder.toml"), JOBS).expect("a job file");
    let printed = |arguments: &str| {
        let output = test.larder(&format!("job install --print {arguments}"));
        assert_eq!((output.status, output.stderr.as_str()), (0, ""), "{output}");
        output.stdout
    };
    let has = |text: &str, line: &str| text.lines().any(|found| found == line);
    let plain = printed("");
    for line in ["PrivateNetwork=yes", "RestrictAddressFamilies=AF_UNIX", "IPAddressDeny=any", "Type=notify"]
    {
        assert!(has(&plain, line), "{plain}");
    }
    assert!(
        !plain.contains("\nMemoryDenyWriteExecute=")
            && plain.contains("`MemoryDenyWriteExecute=` would stop"),
        "{plain}"
    );
    let loopback = printed("--listen 127.0.0.1:9464");
    for line in [
        "RestrictAddressFamilies=AF_UNIX AF_INET",
        "IPAddressDeny=any",
        "IPAddressAllow=localhost",
        "SocketBindAllow=tcp:9464",
    ] {
        assert!(has(&loopback, line), "{loopback}");
    }
    assert!(
        !loopback.contains("PrivateNetwork=") && loopback.contains("--listen 127.0.0.1:9464\n"),
        "{loopback}"
    );
    let anywhere = printed("--listen [::]:9464");
    assert!(
        has(&anywhere, "RestrictAddressFamilies=AF_UNIX AF_INET6") && !anywhere.contains("\nIPAddressDeny="),
        "{anywhere}"
    );
    assert!(has(&printed("--user builder"), "User=builder"));
    assert!(!printed("--root").contains("\nUser="));
    let refused = test.larder("job install --print --user a%h");
    assert_eq!(refused.status, 2, "{refused}");
    let timer = printed("--timer");
    for line in ["OnCalendar=*:0/5", "Persistent=true", "FixedRandomDelay=yes", "Type=oneshot"] {
        assert!(has(&timer, line), "{timer}");
    }
    // Printing writes nothing.
    assert_eq!(test.larder("job install --print --directory nowhere").status, 0);
    assert!(!test.directory().join("nowhere").exists());
}

/// What is installed is said, with what to type next. It is replaced while nobody has changed it, and not otherwise, unless
/// that is asked for. A job file that cannot be used installs nothing.
#[test]
fn installed() {
    let test = TestEnvironment::made();
    let jobs = test.home.path().join("larder.toml");
    fs::write(&jobs, JOBS).expect("a job file");
    fs::create_dir(test.directory().join("units")).expect("a directory");
    let install = |options: &str| test.larder(&format!("job install --directory units {options}"));
    let first = install("");
    assert_eq!(first.status, 0, "{first}");
    assert!(first.stderr.contains("wrote `units/larder.service`:\n"), "{first}");
    assert!(
        first.stderr.ends_with("`systemctl daemon-reload && systemctl enable --now larder.service`\n"),
        "{first}"
    );
    assert_eq!(first.stdout, test.read_as_said("units/larder.service"));
    let mode =
        fs::metadata(test.directory().join("units/larder.service")).expect("the unit").permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
    assert!(install("").stderr.starts_with("`units/larder.service` is there already\n"));
    assert_eq!(install("--listen 127.0.0.1:9464").status, 0);
    let changed = test.read("units/larder.service").replace("Nice=10", "Nice=19");
    test.write("units/larder.service", &changed);
    let refused = install("");
    assert_eq!(refused.status, 2, "{refused}");
    assert!(refused.stderr.contains("somebody else wrote or changed it\nhint: "), "{refused}");
    assert_eq!(test.read("units/larder.service"), changed);
    assert_eq!(install("--force").status, 0);
    assert!(!test.read("units/larder.service").contains("Nice=19"));
    let timer = install("--timer");
    assert!(timer.stderr.ends_with("systemctl enable --now larder-due.timer`\n"), "{timer}");
    fs::write(&jobs, "[jobs.a]\n").expect("a job file");
    assert_eq!(install("--force").status, 2);
    fs::write(&jobs, JOBS).expect("a job file");
    let missing = test.larder("job install --directory nowhere");
    assert_eq!(missing.status, 1, "{missing}");
}
