//! A private sshd with keys and configuration of its own, and the `ssh` that knows it: the settings
//! of the machine and of the user have no effect.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::unistd::User;

use crate::contenders::program;
use crate::lab::WorkDir;
use crate::process::{self, RunningProcess};

/// Keys, configurations and servers. The servers end with this.
pub(crate) struct PrivateSsh {
    home: PathBuf,
    port: u16,
    servers: Vec<RunningProcess>,
}

impl PrivateSsh {
    /// Starts an sshd on loopback to which the names `benchsource` and `benchdestination` lead.
    pub(crate) fn start(lab: &WorkDir) -> Result<PrivateSsh> {
        let hosts = ["benchsource", "benchdestination"].map(|name| (name, "127.0.0.1"));
        let mut ssh = PrivateSsh::new(lab, &hosts, &[])?;
        ssh.serve(lab, "sshd", process::command)?;
        ssh.servers[0].until_listening(ssh.port)?;
        Ok(ssh)
    }

    /// Makes keys and configurations. Each of `hosts` is a name and the address that it leads to;
    /// sessions have `environment`.
    pub(crate) fn new(
        lab: &WorkDir,
        hosts: &[(impl AsRef<str>, impl AsRef<str>)],
        environment: &[(&str, &str)],
    ) -> Result<PrivateSsh> {
        let (home, port) = (lab.path("ssh"), process::free_port()?);
        if !home.exists() {
            fs::create_dir(&home)?;
            make_keys(lab, &home)?;
        }
        configure_server(&home, port, environment)?;
        configure_client(&home, port, hosts)?;
        // Debian's sshd needs its empty folder, which a service usually creates.
        if nix::unistd::Uid::effective().is_root() {
            fs::create_dir_all("/run/sshd").context("sshd needs /run/sshd")?;
        }
        Ok(PrivateSsh { home, port, servers: Vec::new() })
    }

    /// Starts an sshd on every address, by the command that `run` makes of a program.
    pub(crate) fn serve(
        &mut self,
        lab: &WorkDir,
        name: &str,
        run: impl FnOnce(PathBuf) -> Command,
    ) -> Result<()> {
        let mut server = run(program("sshd"));
        server.args(["-D", "-e", "-f"]).arg(self.home.join("sshd_config"));
        let server = lab.start(name, server)?;
        server.until_listening_inside(self.port)?;
        self.servers.push(server);
        Ok(())
    }

    /// The `ssh` that knows the names.
    pub(crate) fn client(&self) -> PathBuf {
        self.home.join("ssh")
    }

    /// The port of the servers.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The search path with that `ssh` in front.
    pub(crate) fn path(&self) -> OsString {
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

fn configure_server(home: &Path, port: u16, environment: &[(&str, &str)]) -> Result<()> {
    let folder = home.display();
    let set: String =
        environment.iter().map(|(name, value)| format!(" \"{name}={value}\"")).collect();
    let set = if set.is_empty() { set } else { format!("SetEnv{set}\n") };
    let text = format!(
        "ListenAddress 0.0.0.0:{port}\n\
         HostKey {folder}/host\n\
         AuthorizedKeysFile {folder}/authorized\n\
         PidFile none\n\
         StrictModes no\n\
         UsePAM no\n\
         PermitRootLogin prohibit-password\n\
         PasswordAuthentication no\n\
         Subsystem sftp internal-sftp\n\
         {set}"
    );
    Ok(fs::write(home.join("sshd_config"), text)?)
}

fn configure_client(
    home: &Path,
    port: u16,
    hosts: &[(impl AsRef<str>, impl AsRef<str>)],
) -> Result<()> {
    let folder = home.display();
    let user =
        User::from_uid(nix::unistd::Uid::effective())?.context("this user has no name")?.name;
    let mut text: String = hosts
        .iter()
        .map(|(name, address)| format!("Host {}\n  HostName {}\n", name.as_ref(), address.as_ref()))
        .collect();
    text += &format!(
        "Host *\n  Port {port}\n  User {user}\n  IdentityFile {folder}/user\n  IdentitiesOnly \
         yes\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n"
    );
    fs::write(home.join("config"), text)?;
    let wrapper = home.join("ssh");
    let ssh = program("ssh");
    fs::write(&wrapper, format!("#!/bin/sh\nexec {} -F {folder}/config \"$@\"\n", ssh.display()))?;
    Ok(fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o700))?)
}

/// Returns the search path with the wrapper in front.
fn path_with(home: &Path) -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = home.as_os_str().to_owned();
    folders.push(":");
    folders.push(path);
    folders
}
