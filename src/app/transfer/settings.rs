//! Settings of a transfer.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::core::error::{Code, Error, Result};
use crate::core::launch::method::LaunchMethod;
use crate::core::launch::port_range::PortRange;
use crate::core::launch::slurm_job::SlurmJob;
use crate::core::options::{CheckKind, DataPath, TransferOptions, WireLevel};
use crate::core::spec::NodeAddress;
use crate::io::launch::{HostStarter, NodePlace, current_job};

/// Settings of a transfer: how its master reaches the nodes, and its options.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who starts the nodes. Whatever starts some here requires `program`.
    pub launch: LaunchMethod,
    /// The command of [`LaunchMethod::Ssh`] and [`LaunchMethod::Auto`], with options of its own.
    pub ssh: String,
    /// Send the program to hosts that have none of this version.
    pub deploy: bool,
    /// The `cep-fast` program of launched nodes on this machine.
    pub program: Option<PathBuf>,
    /// Ports at which launched nodes listen, whatever the ports of their rows are; without them,
    /// those of the rows for control, and any free ones for data.
    pub ports: Option<PortRange>,
    /// Root directory of launched nodes; daemons have their own.
    pub root: PathBuf,
    /// The file with the site key that the daemons share, or with the private key of this master.
    /// Without it, only nodes on loopback that run as the same user accept the master.
    pub key_file: Option<PathBuf>,
    /// The file with the public keys of the nodes, and of those who may ask this master; for a
    /// master with a private key.
    pub allow_file: Option<PathBuf>,
    /// Open a socket by which `cep-fast status` and `cancel` of the same user on this machine find
    /// the transfer without an address.
    pub findable: bool,
    /// Options of the transfer itself.
    pub options: TransferOptions,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            launch: LaunchMethod::None,
            ssh: "ssh".into(),
            deploy: true,
            program: None,
            ports: None,
            root: "/".into(),
            key_file: None,
            allow_file: None,
            findable: false,
            options: TransferOptions::default(),
        }
    }
}

impl Settings {
    /// Returns what starts nodes on other hosts.
    ///
    /// # Errors
    /// `Usage` if the command of `ssh` is none.
    pub(super) fn starter(&self) -> Result<HostStarter> {
        match &self.launch {
            LaunchMethod::Command(command) => Ok(HostStarter::Command(command.clone())),
            _ => HostStarter::ssh(&self.ssh),
        }
    }

    /// Returns the Slurm job whose hosts have their nodes started in it, if any.
    ///
    /// # Errors
    /// `Usage` if the environment names a job that is none, and one is needed.
    pub(crate) fn job(&self) -> Result<Option<SlurmJob>> {
        match self.launch {
            LaunchMethod::Slurm => current_job(),
            // What is no job is none.
            LaunchMethod::Auto => Ok(current_job().unwrap_or_default()),
            _ => Ok(None),
        }
    }

    /// Returns where the node of a host is started, in a process that is part of `job`. Whoever is
    /// to log in as a named `user` does so by ssh.
    pub(crate) fn place(
        &self,
        host: &NodeAddress,
        user: Option<&str>,
        job: Option<&SlurmJob>,
    ) -> NodePlace {
        let is_here = || {
            host.host == "localhost" || host.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        };
        match &self.launch {
            LaunchMethod::None | LaunchMethod::Local => NodePlace::Loopback,
            _ if user.is_some() => NodePlace::Host { user: user.map(str::to_owned) },
            LaunchMethod::Auto if is_here() => NodePlace::Here,
            LaunchMethod::Slurm => NodePlace::Job,
            LaunchMethod::Auto if job.is_some_and(|job| job.has(&host.host)) => NodePlace::Job,
            LaunchMethod::Auto | LaunchMethod::Ssh | LaunchMethod::Command(_) => {
                NodePlace::Host { user: None }
            }
        }
    }

    /// Refuses options that contradict each other, whatever the rows are.
    ///
    /// # Errors
    /// `Usage`, with the remedy.
    pub(crate) fn check(&self) -> Result<()> {
        let options = &self.options;
        if options.verify && options.check == CheckKind::None {
            let what = "--verify disk needs a check to compare the bytes on disk with";
            return Err(Error::new(Code::Usage, what).remedy("use --check crc64 or --check blake3"));
        }
        if let (DataPath::Splice, Some(level @ (WireLevel::Signed | WireLevel::Sealed))) =
            (options.path, options.wire)
        {
            let what = format!(
                "--path splice sends files as they lie in the page cache, which --wire {} cannot",
                level.name()
            );
            return Err(Error::new(Code::Usage, what).remedy("use --wire clear, or another --path"));
        }
        Ok(())
    }
}
