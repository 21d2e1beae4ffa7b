//! Hosts of these benchmarks: names that lead to an sshd, and the home of who logs in there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::options::SshOptions;
use crate::cluster::LabTools;
use crate::lab::WorkDir;
use crate::private_ssh::PrivateSsh;
use crate::process;

/// Resources of every case.
#[derive(Clone, Copy)]
pub(super) struct SshFixture<'a> {
    pub(super) options: &'a SshOptions,
    pub(super) lab: &'a WorkDir,
    pub(super) tools: &'a LabTools,
}

/// Hosts that are addresses of this machine, with one sshd and one home.
pub(super) struct LoopbackHosts {
    pub(super) remote: RemoteHome,
    pub(super) ssh: PrivateSsh,
}

impl SshFixture<'_> {
    /// Copies the program for hosts.
    pub(super) fn remote(&self) -> Result<RemoteHome> {
        RemoteHome::new(self.lab, &self.tools.cep_fast)
    }

    /// Starts hosts, each a name and an address, that find the program or do not.
    pub(super) fn loopback(
        &self,
        hosts: &[(String, String)],
        finds_program: bool,
    ) -> Result<LoopbackHosts> {
        let remote = self.remote()?;
        let mut ssh = remote.ssh(self.lab, hosts, finds_program)?;
        ssh.serve(self.lab, "sshd", process::command)?;
        Ok(LoopbackHosts { remote, ssh })
    }
}

/// The program under test in a folder of its own, which is the search path of the hosts, and the
/// home there.
pub(super) struct RemoteHome {
    pub(super) program: PathBuf,
    pub(super) home: PathBuf,
}

impl RemoteHome {
    /// Copies the program, so that its processes are told from all others by their path. Where it
    /// is not to be found on hosts, their search path is the system's alone.
    fn new(lab: &WorkDir, program: &Path) -> Result<RemoteHome> {
        let (folder, home) = (lab.path("bin"), lab.path("home"));
        fs::create_dir_all(&folder)?;
        fs::create_dir_all(&home)?;
        let copy = folder.join("cep-fast");
        fs::copy(program, &copy).with_context(|| format!("cannot copy {}", program.display()))?;
        Ok(RemoteHome { program: copy, home })
    }

    /// Makes the configuration of an ssh that knows these hosts.
    pub(super) fn ssh(
        &self,
        lab: &WorkDir,
        hosts: &[(String, String)],
        finds_program: bool,
    ) -> Result<PrivateSsh> {
        let folder = self.program.parent().context("the program lies in a folder")?;
        let path = match finds_program {
            true => format!("{}:/usr/bin:/bin", folder.display()),
            false => "/usr/bin:/bin".to_owned(),
        };
        let home = self.home.display().to_string();
        PrivateSsh::new(lab, hosts, &[("PATH", &path), ("HOME", &home)])
    }
}
