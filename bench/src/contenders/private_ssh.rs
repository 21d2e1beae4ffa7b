//! A private sshd on a loopback port, with keys and configuration of its own, for peers that reach
//! their other ends by ssh: the names `benchsource` and `benchdestination` lead to it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::unistd::User;

use super::contender::program;
use crate::lab::WorkDir;
use crate::process::{self, RunningProcess};

/// It ends with this.
pub(super) struct PrivateSsh {
    home: PathBuf,
    _server: RunningProcess,
}

impl PrivateSsh {
    pub(super) fn start(lab: &WorkDir) -> Result<PrivateSsh> {
        let home = lab.path("ssh");
        let port = process::free_port()?;
        if !home.exists() {
            fs::create_dir(&home)?;
            make_keys(lab, &home)?;
        }
        configure(&home, port)?;
        let server = start_sshd(lab, &home, port)?;
        Ok(PrivateSsh { home, _server: server })
    }

    /// The `ssh` that knows the names.
    pub(super) fn client(&self) -> PathBuf {
        self.home.join("ssh")
    }

    /// The search path with that `ssh` in front.
    pub(super) fn path(&self) -> OsString {
        path_with(&self.home)
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
             PasswordAuthentication no\n\
             Subsystem sftp internal-sftp\n"
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
