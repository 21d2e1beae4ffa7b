//! Common options of benchmarks, their start and their end.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cep_fast::units::{MIB, parse_size};
use clap::Args;
use netlab::LabScript;
use serde::Serialize;

use crate::cluster::LabTools;

/// Program under test, and output of results.
#[derive(Args)]
pub(crate) struct CommonOptions {
    /// Writes all results to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Program to measure; by default the one beside this one.
    #[arg(long, value_name = "PROGRAM")]
    cep_fast: Option<PathBuf>,
    /// Ends with status 1 if a threshold is missed.
    #[arg(long)]
    strict: bool,
}

impl CommonOptions {
    pub(crate) fn program(&self) -> Result<PathBuf> {
        program_beside(self.cep_fast.as_deref())
    }

    /// Writes the results to the file, if requested.
    pub(crate) fn keep(&self, found: &impl Serialize) -> Result<()> {
        self.json.as_deref().map_or(Ok(()), |file| crate::report::write(file, found))
    }

    /// Ends this process with status 1 if thresholds are missed and that is requested. The caller
    /// has dropped all resources.
    pub(crate) fn judge(&self, misses: bool) {
        if self.strict && misses {
            std::process::exit(1);
        }
    }
}

/// Common options of benchmarks in labs of shaped NICs.
#[derive(Args)]
pub(crate) struct LabOptions {
    #[command(flatten)]
    pub(crate) common: CommonOptions,
    /// Script that creates the lab.
    #[arg(long, default_value = "tools/netlab")]
    netlab: PathBuf,
}

impl LabOptions {
    /// Returns the programs for labs, and makes this process the subreaper. Ends the process if
    /// labs are not permitted.
    #[allow(clippy::print_stderr, reason = "why nothing is measured goes there")]
    pub(crate) fn tools(&self) -> Result<LabTools> {
        let tools =
            LabTools { netlab: LabScript::at(&self.netlab), cep_fast: self.common.program()? };
        if let Some(reason) = tools.forbidden()? {
            eprintln!("skipped: {reason}");
            std::process::exit(netlab::SKIPPED);
        }
        adopt_orphans()?;
        Ok(tools)
    }
}

/// Makes this process the parent of orphans, so that it can end them.
pub(crate) fn adopt_orphans() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).context("cannot adopt orphans")
}

/// Returns the program to measure: the given one, or the one beside this one.
pub(crate) fn program_beside(named: Option<&Path>) -> Result<PathBuf> {
    Ok(match named {
        Some(program) => program.to_owned(),
        None => std::env::current_exe()?.with_file_name("cep-fast"),
    })
}

/// Parses a number of bytes that is whole MiB: `4G`, `512M`.
pub(crate) fn whole_mebibytes(text: &str) -> Result<u64, &'static str> {
    let bytes = parse_size(text)?;
    let is_whole = bytes > 0 && bytes.is_multiple_of(MIB);
    if is_whole { Ok(bytes) } else { Err("whole MiB, such as 512M") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_counts_are_whole_mebibytes() {
        assert_eq!(whole_mebibytes("4G"), Ok(4 << 30));
        assert_eq!(whole_mebibytes("2048K"), Ok(2 << 20));
        assert_eq!(whole_mebibytes("1048576"), Ok(1 << 20));
        for wrong in ["", "G", "0", "1K", "-1M", "99999999999G"] {
            assert!(whole_mebibytes(wrong).is_err(), "{wrong}");
        }
    }
}
