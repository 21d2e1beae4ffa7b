//! rcp (crate rcp-tools-rcp) between two ssh names of one private sshd.
//!
//! Two names, because it copies locally where both sides have the same one. ssh only starts its two
//! halves; the bytes go over connections of its own, with TLS or, at its fastest, without.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::contender::{Contender, RunTiming, missing_program};
use crate::lab::WorkDir;
use crate::private_ssh::PrivateSsh;
use crate::process;
use crate::scenario::{BenchScenario, WorkItem};

pub(super) struct Rcp {
    /// Folder of `rcp` and `rcpd`.
    pub(super) binaries: PathBuf,
    /// True if it encrypts, as by default.
    pub(super) encrypts: bool,
}

impl Contender for Rcp {
    fn name(&self) -> &'static str {
        if self.encrypts { "rcp-tls" } else { "rcp" }
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
        let ssh = PrivateSsh::start(lab)?;
        let mut client = process::command(self.binaries.join("rcp"));
        // rcp has no option for a configuration, so this `ssh` is found first.
        client.env("PATH", ssh.path());
        if !self.encrypts {
            client.arg("--no-encryption");
        }
        client.arg("--rcpd-path").arg(fs::canonicalize(self.binaries.join("rcpd"))?);
        client.arg(format!("benchsource:{}", files.source.display()));
        client.arg(format!("benchdestination:{}", files.destination.display()));
        Ok(RunTiming::wall(lab.start("rcp", client)?.finish()?.seconds))
    }
}
