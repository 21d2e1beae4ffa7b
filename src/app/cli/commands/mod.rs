//! Commands. A command's result goes to standard output; everything else goes to standard error.
//!
//! With `--json` every outcome prints one object, also of a command that could not begin.

mod bench;
mod client;
mod copy;
mod daemon;
mod doctor;
mod examined_hosts;
mod hosts;
mod launched;
mod output;
mod own_transfers;
mod plan;
mod run;
mod spec_file;
mod status_text;
mod stop_signal;
mod tournament;

use std::ffi::OsString;
use std::process::ExitCode;

use tracing::Level;

use super::args::{KeygenArgs, UsageError};
use super::{Args, CliCommand, signals, unsupported};
use crate::core::error::{Code, Result};
use crate::io::launch::channel_end;
use crate::io::log;
use crate::io::log::LogOptions;
use crate::io::session::{make_key_file, make_pair_files};

use launched::LaunchedTask;
use output::failed;

/// Parses the command line, carries out the command, and returns the exit status.
#[must_use]
pub fn main() -> ExitCode {
    let ended = carry_out();
    log::flush();
    ended
}

fn carry_out() -> ExitCode {
    carry_out_words(std::env::args_os())
}

/// Carries out the command of these words, of which the first is the program's name.
fn carry_out_words(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let (command, log) = match Args::read(words) {
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
    // A node is confined before it has a second thread.
    if !matches!(command, CliCommand::Node(_) | CliCommand::Launched(_)) {
        log::write_apart();
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
        (Ok(()), CliCommand::Keygen(args)) => ended(json, keygen(&args)),
        (Ok(()), CliCommand::Launched(args)) => match launched::launched(&args) {
            Ok(LaunchedTask::Answer(true)) => ExitCode::SUCCESS,
            Ok(LaunchedTask::Answer(false)) => ExitCode::FAILURE,
            Ok(LaunchedTask::Node(words)) => carry_out_words(words),
            Ok(LaunchedTask::Channel(node)) => {
                ended(json, channel_end::run(node).map(|()| ExitCode::SUCCESS))
            }
            Err(error) => failed(json, &error),
        },
    }
}

/// `keygen`: a site key, or a key pair whose public key is printed.
fn keygen(args: &KeygenArgs) -> Result<ExitCode> {
    if args.pair {
        output::print(&format!("{}\n", make_pair_files(&args.file)?))?;
    } else {
        make_key_file(&args.file)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn ended(json: bool, done: Result<ExitCode>) -> ExitCode {
    done.unwrap_or_else(|error| failed(json, &error))
}

/// Prints a message of clap on standard error.
fn usage(text: &str) -> ExitCode {
    use std::io::Write;
    // If standard error is closed, the exit status still shows the error.
    let _ = write!(std::io::stderr().lock(), "{text}");
    super::exit_code(Code::Usage)
}
