//! The texts of the units.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::place::marked;
use super::quote::{argument, path};
use crate::exit::Failure;

/// A unit of systemd.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) name: &'static str,
    pub(super) text: String,
}

/// What units are made of. Paths are absolute, and without links but for the last part of `file`.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) program: PathBuf,
    pub(super) home: PathBuf,
    pub(super) cache: PathBuf,
    /// The job file.
    pub(super) file: PathBuf,
    /// The directories of the job file and of the policies that it names.
    pub(super) directories: Vec<PathBuf>,
    /// The user; absent for root.
    pub(super) user: Option<String>,
    pub(super) listen: Option<SocketAddr>,
}

/// What is hidden from the unit: the users' directories, and those for temporary files.
const USERS: [&str; 3] = ["/home", "/root", "/run/user"];
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// What the unit may do, besides files and network. Each line with a reason where it is not the obvious one.
const HARDENING: &str = "\
# Compiled policies are made writable first and executable then: `MemoryDenyWriteExecute=` would stop every one of them.
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
PrivateDevices=yes
PrivateTmp=yes
PrivateIPC=yes
ProtectSystem=strict
ProtectProc=invisible
ProcSubset=pid
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
RemoveIPC=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
KeyringMode=private
UMask=0077
";

/// What keeps the unit out of the way of others.
const NEIGHBOURS: &str = "\
Slice=background.slice
Nice=10
CPUWeight=20
IOSchedulingClass=idle
MemoryMax=256M
OOMScoreAdjust=200
";

impl Facts {
    /// Returns the unit of a service that stays.
    pub(super) fn service(&self) -> Result<Vec<Unit>, Failure> {
        let listen = self.listen.map_or_else(String::new, |address| format!(" --listen {address}"));
        let text = format!(
            "\
[Unit]
Description=Clean-up jobs of the image cache
RequiresMountsFor={mounts}
StartLimitIntervalSec=0

[Service]
# Reloads are announced in the form of `Type=notify-reload`, which systemd 252 does not know.
Type=notify
NotifyAccess=main
ExecStart={command} job start --file {file}{listen}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=30
# What is asked to stop finishes the images that it is removing.
TimeoutStopSec=20
WatchdogSec=60
{common}
[Install]
WantedBy=multi-user.target
",
            mounts = self.mounts()?,
            command = self.command()?,
            file = argument(&self.file)?,
            common = self.common()?,
        );
        Ok(vec![Unit { name: "larder.service", text: marked(&text) }])
    }

    /// Returns the unit that runs what is due, and the timer that starts it.
    pub(super) fn timer(&self) -> Result<Vec<Unit>, Failure> {
        let service = format!(
            "\
[Unit]
Description=Clean-up jobs of the image cache that are due
RequiresMountsFor={mounts}

[Service]
Type=oneshot
ExecStart={command} job run --due --file {file}
# That a guard or a live operation spared an image is no failure.
SuccessExitStatus=7
{common}",
            mounts = self.mounts()?,
            command = self.command()?,
            file = argument(&self.file)?,
            common = self.common()?,
        );
        // Not the schedules of the jobs: those are in the job file, with what was missed on record in the home.
        let timer = "\
[Unit]
Description=Looks whether clean-up jobs of the image cache are due

[Timer]
OnCalendar=*:0/5
Persistent=true
RandomizedDelaySec=60
FixedRandomDelay=yes

[Install]
WantedBy=timers.target
";
        Ok(vec![
            Unit { name: "larder-due.service", text: marked(&service) },
            Unit { name: "larder-due.timer", text: marked(timer) },
        ])
    }

    fn command(&self) -> Result<String, Failure> {
        // Variables are not looked for in the path of a program.
        Ok(format!("{} --home {}", path(&self.program)?, argument(&self.home)?))
    }

    /// Returns what both services have.
    fn common(&self) -> Result<String, Failure> {
        let mut text = String::new();
        if let Some(user) = &self.user {
            // A name that systemd takes has nothing that it would take for something else.
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if user.is_empty() || !user.chars().all(is_name) {
                let text = format!("`{}` is no name of a user", crate::render::plain(user));
                return Err(Failure::usage(text));
            }
            text += &format!("User={user}\n");
        }
        text += "\n# For compiled policies, which are there again with the next run if they are deleted.\n";
        text +=
            "CacheDirectory=larder\nCacheDirectoryMode=0700\nEnvironment=LARDER_CODE_CACHE=%C/larder/code\n";
        text += &format!("\n{NEIGHBOURS}\n{}\n{}\n{HARDENING}", self.files()?, self.network());
        Ok(text)
    }

    /// Returns the directories that the unit may write to.
    fn writable(&self) -> Vec<&Path> {
        let mut writable = vec![self.home.as_path()];
        writable.extend((!self.cache.starts_with(&self.home)).then_some(self.cache.as_path()));
        writable
    }

    fn mounts(&self) -> Result<String, Failure> {
        Ok(self.writable().into_iter().map(path).collect::<Result<Vec<_>, _>>()?.join(" "))
    }

    /// Returns the files that the unit may write, and those of the users that it may see.
    fn files(&self) -> Result<String, Failure> {
        let is_hidden = |path: &Path| USERS.iter().chain(&TEMPORARY).any(|hidden| path.starts_with(hidden));
        let writable = self.writable();
        // Directories and not files, since an editor puts another file in the place of one.
        let readable =
            self.directories.iter().chain([&self.program]).filter(|path| {
                is_hidden(path) && !writable.iter().any(|directory| path.starts_with(directory))
            });
        let mut text = "# It writes to the home".to_owned();
        text += if writable.len() > 1 {
            " and to its cache, and nowhere else.\n"
        } else {
            ", and nowhere else.\n"
        };
        // Nothing of users is seen but for what is named here.
        text += "ProtectHome=tmpfs\n";
        for directory in &writable {
            let setting = if is_hidden(directory) { "BindPaths" } else { "ReadWritePaths" };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{setting}={}", path(directory)?);
        }
        for place in readable {
            let _ = writeln!(text, "BindReadOnlyPaths={}", path(place)?);
        }
        Ok(text)
    }

    /// Returns what the unit may reach. Jobs need no network: only `--listen` does.
    fn network(&self) -> String {
        let Some(address) = self.listen else {
            return "\
# No job of the file needs the network. Sockets of `AF_UNIX` are for the service manager and the journal.
PrivateNetwork=yes
RestrictAddressFamilies=AF_UNIX
IPAddressDeny=any
"
            .to_owned();
        };
        let family = if address.is_ipv4() { "AF_INET" } else { "AF_INET6" };
        let mut text = format!(
            "\
# The network is for `--listen` alone: no job of the file needs it. Sockets of `AF_UNIX` are for the service manager and
# the journal.
RestrictAddressFamilies=AF_UNIX {family}
SocketBindDeny=any
SocketBindAllow=tcp:{}
",
            address.port()
        );
        text += if address.ip().is_loopback() {
            "IPAddressDeny=any\nIPAddressAllow=localhost\n"
        } else {
            "# Whoever may ask is named here, such as `IPAddressAllow=10.0.0.0/8` after `IPAddressDeny=any`.\n"
        };
        text
    }
}
