//! Commands. A command's result goes to standard output; everything else goes to standard error.
//!
//! With `--json` every outcome prints one object, also of a command that could not begin.

mod bench;
mod client;
mod copy;
mod daemon;
mod doctor;
mod output;
mod plan;
mod run;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use tracing::Level;

use super::args::UsageError;
use super::{Args, CliCommand, signals, unsupported};
use crate::Spec;
use crate::core::error::{Code, Error, Result};
use crate::io::log;
use crate::io::log::LogOptions;
use crate::io::session::Key;

use output::failed;

/// Parses the command line, carries out the command, and returns the exit status.
#[must_use]
pub fn main() -> ExitCode {
    let ended = carry_out();
    log::flush();
    ended
}

fn carry_out() -> ExitCode {
    let (command, log) = match Args::read(std::env::args_os()) {
        Ok(Args { command, log }) => (command, log),
        Err(UsageError::Help(text)) => {
            return ended(false, output::print(&text).map(|()| ExitCode::SUCCESS));
        }
        Err(UsageError::Usage { json: false, text, .. }) => return usage(&text),
        Err(UsageError::Usage { json: true, transfer, error, .. }) if transfer => {
            return run::mistyped(&error);
        }
        Err(UsageError::Usage { error, .. }) => return failed(true, &error),
    };
    let is_daemon = matches!(&command, CliCommand::Node(node) if !node.launched);
    if is_daemon || log.verbose {
        let options = LogOptions { verbose: log.verbose, json: log.log_json };
        log::install(options, if log.verbose { Level::DEBUG } else { Level::INFO });
    }
    let json = command.json();
    match (unsupported(&command).and_then(|()| signals::outlive_file_limits()), command) {
        (Err(error), CliCommand::Copy(args)) => run::failed("", &args.transfer, &error),
        (Err(error), CliCommand::Run(args)) => run::failed("", &args.transfer, &error),
        (Err(error), _) => failed(json, &error),
        (Ok(()), CliCommand::Copy(args)) => copy::copy(&args),
        (Ok(()), CliCommand::Run(args)) => run::run(&args),
        (Ok(()), CliCommand::Bench(args)) => ended(json, bench::bench(&args)),
        (Ok(()), CliCommand::Plan(args)) => ended(json, plan::plan(&args)),
        (Ok(()), CliCommand::Doctor(args)) => ended(json, doctor::doctor(&args)),
        (Ok(()), CliCommand::Node(args)) => ended(json, daemon::node(&args)),
        (Ok(()), CliCommand::Status(args)) => ended(json, client::status(&args)),
        (Ok(()), CliCommand::Cancel(args)) => ended(json, client::cancel(&args)),
        (Ok(()), CliCommand::Keygen(args)) => {
            ended(json, Key::keygen(&args.file).map(|_| ExitCode::SUCCESS))
        }
    }
}

fn ended(json: bool, done: Result<ExitCode>) -> ExitCode {
    done.unwrap_or_else(|error| failed(json, &error))
}

/// Reads a specification file. [`Spec::validate`] checks its rows against each other.
fn read_spec(path: &Path) -> Result<Spec> {
    let name = path.display().to_string();
    let cannot = |error: std::io::Error| {
        Error::new(Code::Usage, format!("{name}: cannot be read: {error}"))
            .remedy("name a specification file")
    };
    let mut bytes = Vec::new();
    // One byte beyond the limit proves that a file is too long.
    let most = Spec::TEXT_BYTES_MAX as u64 + 1;
    File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)).map_err(cannot)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        Error::new(Code::Usage, format!("{name}:{line}: found a byte that is not UTF-8"))
            .remedy("write such a byte of a name as % and two hex digits, such as %FF")
    })?;
    Spec::parse(&name, &text)
}

/// Reads and validates a specification file.
fn valid_spec(path: &Path) -> Result<Spec> {
    let spec = read_spec(path)?;
    spec.validate().map_err(|error| error.at(path.display()))?;
    Ok(spec)
}

/// Prints a message of clap on standard error.
fn usage(text: &str) -> ExitCode {
    use std::io::Write;
    // If standard error is closed, the exit status still shows the error.
    let _ = write!(std::io::stderr().lock(), "{text}");
    super::exit_code(Code::Usage)
}
