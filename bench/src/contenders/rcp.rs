//! rcp (crate rcp-tools-rcp) between two ssh names of one private sshd.
//!
//! Two names, because it copies locally where both sides have the same one; no encryption, because
//! that is its fastest. ssh only starts its two halves; the bytes go over connections of its own.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::unistd::User;

use super::contender::{Contender, RunTiming, missing_program, program};
use crate::lab::WorkDir;
use crate::process::{self, RunningProcess};
use crate::scenario::{BenchScenario, WorkItem};

pub(super) struct Rcp {
    /// Folder of `rcp` and `rcpd`.
    pub(super) binaries: PathBuf,
}

impl Contender for Rcp {
    fn name(&self) -> &'static str {
        "rcp"
    }

    fn plays(&self, scenario: BenchScenario) -> bool {
        scenario == BenchScenario::FileToFile
    }

    fn missing(&self) -> Option<String> {
        let absent = ["rcp", "rcpd"].into_iter().find(|name| !self.binaries.join(name).is_file());
        absent
            .map(|name| format!("{name} is not installed (tools/peers)"))
            .or_else(|| missing_program(&["sshd", "ssh", "ssh-keygen"]))
    }

    fn run(&self, lab: &WorkDir, work: &WorkItem) -> Result<RunTiming> {
        let files = work.files.as_ref().context("rcp moves files")?;
        let home = lab.path("ssh");
        let port = process::free_port()?;
        if !home.exists() {
            fs::create_dir(&home)?;
            make_keys(lab, &home)?;
        }
        configure(&home, port)?;
        let _server = start_sshd(lab, &home, port)?;
        let mut client = process::command(self.binaries.join("rcp"));
        client.env("PATH", path_with(&home));
        client
            .arg("--no-encryption")
            .arg("--rcpd-path")
            .arg(fs::canonicalize(self.binaries.join("rcpd"))?);
        client.arg(format!("benchsource:{}", files.source.display()));
        client.arg(format!("benchdestination:{}", files.destination.display()));
        Ok(RunTiming::wall(lab.start("rcp", client)?.finish()?.seconds))
    }
}

/// Creates a key of the host and one of the user, only for this run.
fn make_keys(lab: &WorkDir, home: &Path) -> Result<()> {
    for name in ["host", "user"] {
        let mut keygen = process::command(program("ssh-keygen"));
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(home.join(name));
        lab.start("ssh-keygen", keygen)?.finish()?;
    }
    fs::copy(home.join("user.pub"), home.join("authorized"))?;
    Ok(())
}

/// Writes the configurations of sshd and ssh: the machine's and the user's own settings have no
/// effect.
fn configure(home: &Path, port: u16) -> Result<()> {
    let folder = home.display();
    let user =
        User::from_uid(nix::unistd::Uid::effective())?.context("this user has no name")?.name;
    fs::write(
        home.join("sshd_config"),
        format!(
            "ListenAddress 127.0.0.1:{port}\n\
             HostKey {folder}/host\n\
             AuthorizedKeysFile {folder}/authorized\n\
             PidFile none\n\
             StrictModes no\n\
             UsePAM no\n\
             PermitRootLogin prohibit-password\n\
             PasswordAuthentication no\n"
        ),
    )?;
    fs::write(
        home.join("config"),
        format!(
            "Host benchsource benchdestination\n  HostName 127.0.0.1\n  Port {port}\n  User \
             {user}\n\
             IdentityFile {folder}/user\n  IdentitiesOnly yes\n  StrictHostKeyChecking no\n\
             UserKnownHostsFile /dev/null\n  LogLevel ERROR\n"
        ),
    )?;
    // rcp has no option for a configuration, so this `ssh` is found first.
    let wrapper = home.join("ssh");
    fs::write(
        &wrapper,
        format!("#!/bin/sh\nexec {} -F {folder}/config \"$@\"\n", program("ssh").display()),
    )?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o700))?;
    Ok(())
}

fn start_sshd(lab: &WorkDir, home: &Path, port: u16) -> Result<RunningProcess> {
    // Debian's sshd needs its empty folder, which a service usually creates.
    if nix::unistd::Uid::effective().is_root() {
        fs::create_dir_all("/run/sshd").context("sshd needs /run/sshd")?;
    }
    let mut server = process::command(program("sshd"));
    server.args(["-D", "-e", "-f"]).arg(home.join("sshd_config"));
    let server = lab.start("sshd", server)?;
    server.until_listening(port)?;
    Ok(server)
}

/// Returns the search path with the wrapper in front.
fn path_with(home: &Path) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = home.as_os_str().to_owned();
    folders.push(":");
    folders.push(path);
    folders
}
