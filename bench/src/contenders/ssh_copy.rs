//! scp and rsync over ssh, as installed, to a private sshd: one encrypted connection.

use anyhow::{Context, Result};

use super::contender::{Contender, RunTiming, missing_program, program};
use crate::lab::WorkDir;
use crate::private_ssh::PrivateSsh;
use crate::process;
use crate::scenario::{BenchScenario, WorkItem};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SshCopy {
    Scp,
    Rsync,
}

impl Contender for SshCopy {
    fn name(&self) -> &'static str {
        match self {
            SshCopy::Scp => "scp",
            SshCopy::Rsync => "rsync-ssh",
        }
    }

    fn plays(&self, scenario: BenchScenario) -> bool {
        scenario == BenchScenario::FileToFile
    }

    fn missing(&self) -> Option<String> {
        let name = if *self == SshCopy::Scp { "scp" } else { "rsync" };
        missing_program(&[name, "sshd", "ssh", "ssh-keygen"])
    }

    fn run(&self, lab: &WorkDir, work: &WorkItem) -> Result<RunTiming> {
        let files = work.files.as_ref().context("scp and rsync move files")?;
        let ssh = PrivateSsh::start(lab)?;
        let mut client = match self {
            SshCopy::Scp => {
                let mut client = process::command(program("scp"));
                client.arg("-q").arg("-S").arg(ssh.client());
                client
            }
            SshCopy::Rsync => {
                let mut client = process::command(program("rsync"));
                client.args(["--whole-file", "--inplace", "-e"]).arg(ssh.client());
                client
            }
        };
        client.arg(&files.source);
        client.arg(format!("benchdestination:{}", files.destination.display()));
        Ok(RunTiming::wall(lab.start(self.name(), client)?.finish()?.seconds))
    }
}
