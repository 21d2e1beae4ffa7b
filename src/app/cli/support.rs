//! Features of the command line that are not implemented: refused in one place, never ignored.

use super::args::{BenchArgs, CliCommand};
use crate::core::error::{Code, Error, Result};
use crate::core::launch::method::LaunchMethod;

/// Refuses a command with features that this version does not implement.
///
/// # Errors
/// [`Code::Usage`] with the option or operand, and an alternative.
pub fn unsupported(command: &CliCommand) -> Result<()> {
    let asked: Vec<UnsupportedFeature> = match command {
        CliCommand::Bench(bench) => bench_asks(bench).into(),
        CliCommand::Copy(_)
        | CliCommand::Run(_)
        | CliCommand::Plan(_)
        | CliCommand::Node(_)
        | CliCommand::Doctor(_)
        | CliCommand::Status(_)
        | CliCommand::Cancel(_)
        | CliCommand::Keygen(_)
        | CliCommand::Launched(_) => Vec::new(),
    };
    match asked.into_iter().find(|asked| asked.is_asked) {
        None => Ok(()),
        Some(UnsupportedFeature { what, instead, .. }) => {
            Err(Error::new(Code::Usage, format!("{what} is not available in this version"))
                .remedy(instead))
        }
    }
}

/// A feature that this version does not implement.
struct UnsupportedFeature {
    is_asked: bool,
    what: &'static str,
    instead: &'static str,
}

fn asked(is_asked: bool, what: &'static str, instead: &'static str) -> UnsupportedFeature {
    UnsupportedFeature { is_asked, what, instead }
}

fn bench_asks(bench: &BenchArgs) -> [UnsupportedFeature; 1] {
    let is_there = matches!(bench.launch, LaunchMethod::None | LaunchMethod::Local);
    let has_sides = bench.from.is_some() || bench.to.is_some() || bench.threads;
    [asked(
        has_sides && !is_there,
        "bench --from and --to with nodes on other hosts",
        "name the hosts without them, or start daemons there: --launch none",
    )]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::app::cli::Args;

    fn judged(line: &str) -> Result<()> {
        let args =
            Args::try_parse_from(["cep-fast"].into_iter().chain(line.split_whitespace())).unwrap();
        unsupported(&args.command)
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        let cases = [(
            "bench --launch ssh --from a:1 --to b:1",
            "bench --from and --to with nodes on other hosts",
        )];
        for (line, what) in cases {
            let error = judged(line).unwrap_err();
            assert_eq!(error.code, Code::Usage);
            assert_eq!(error.message, format!("{what} is not available in this version"), "{line}");
            assert!(error.remedy.is_some());
        }
    }

    #[test]
    fn what_is_there_passes() {
        let lines = [
            "run s",
            "run s --launch local --scheduler greedy --check blake3 --path auto --json --progress \
             never --slots 4 --fsync",
            "run s --limit 1G",
            "run s --launch ssh",
            "copy --launch slurm n1:/x *:/y",
            "run s --launch auto --ssh /opt/ssh --deploy never",
            "copy me@h:/a b",
            "copy h:/a b --overwrite --no-resume --timeout 1h --stall-timeout 30s",
            "run s --scheduler lp",
            "copy h:/a b --scheduler uniform",
            "plan s --scheduler lp --json",
            "run s --path direct",
            "run s --path splice",
            "run s --path zerocopy",
            "run s --path copy",
            "bench --from a:1,b[1-2]:2 --to c,d:3 --seconds 2 --line-rate 10G --json --svg x.svg",
            "node --listen a:1 --nic eth0 --nic eth1 --pin none --threads-per-nic 2",
            "status m:1",
            "cancel m:1",
            "keygen k",
            "doctor --json",
            "doctor h:1 --key-file k",
        ];
        for line in lines {
            judged(line).unwrap();
        }
    }
}
