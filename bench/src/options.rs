//! What several benchmarks are told alike, how they begin, and how they end.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use crate::cluster::{LabTools, SKIPPED};

/// What is measured, and what becomes of what was found.
#[derive(Args)]
pub(crate) struct CommonOptions {
    /// Writes everything that was measured to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The program to measure; by default the one beside this one.
    #[arg(long, value_name = "PROGRAM")]
    cep_fast: Option<PathBuf>,
    /// Ends with status 1 where a bar is missed.
    #[arg(long)]
    strict: bool,
}

impl CommonOptions {
    pub(crate) fn program(&self) -> Result<PathBuf> {
        program_beside(self.cep_fast.as_deref())
    }

    /// Writes down what was found, where that was asked for.
    pub(crate) fn keep(&self, found: &impl Serialize) -> Result<()> {
        self.json.as_deref().map_or(Ok(()), |file| crate::report::write(file, found))
    }

    /// Ends this process with status 1 where bars are missed and that counts. Whatever has to go
    /// before it does is gone.
    pub(crate) fn judge(&self, misses: bool) {
        if self.strict && misses {
            std::process::exit(1);
        }
    }
}

/// The same for what runs in labs of shaped NICs.
#[derive(Args)]
pub(crate) struct LabOptions {
    #[command(flatten)]
    pub(crate) common: CommonOptions,
    /// The script that makes the lab.
    #[arg(long, default_value = "tools/netlab")]
    netlab: PathBuf,
}

impl LabOptions {
    /// The programs that labs are made with, once this process can look after them. Where labs are
    /// not allowed it ends.
    #[allow(clippy::print_stderr, reason = "why nothing is measured goes there")]
    pub(crate) fn tools(&self) -> Result<LabTools> {
        let tools = LabTools { netlab: self.netlab.clone(), cep_fast: self.common.program()? };
        if let Some(reason) = tools.forbidden()? {
            eprintln!("skipped: {reason}");
            std::process::exit(SKIPPED);
        }
        adopt_orphans()?;
        Ok(tools)
    }
}

/// Has processes whose parents ended become children of this one, so that it can end them.
pub(crate) fn adopt_orphans() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).context("cannot adopt orphans")
}

/// The program to measure: the one named, or the one beside this one.
pub(crate) fn program_beside(named: Option<&Path>) -> Result<PathBuf> {
    Ok(match named {
        Some(program) => program.to_owned(),
        None => std::env::current_exe()?.with_file_name("cep-fast"),
    })
}
