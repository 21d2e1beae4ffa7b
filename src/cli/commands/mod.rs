//! What each command does. A command's result goes to standard output; everything else goes to standard error.

mod bench;
mod client;
mod copy;
mod daemon;
mod doctor;
mod plan;
mod run;

use std::io::Write;
use std::process::ExitCode;

use tracing::Level;

use super::{Args, Command, fail, unsupported};
use crate::error::{Code, Error, Result};
use crate::log::{self, LogOptions};
use crate::session::Key;

/// Reads the command line, carries the command out, and gives the exit status.
#[must_use]
pub fn main() -> ExitCode {
    let Args { command, log } = Args::parse();
    let is_daemon = matches!(&command, Command::Node(node) if !node.launched);
    if is_daemon || log.verbose {
        let options = LogOptions { verbose: log.verbose, json: log.log_json };
        log::install(options, if log.verbose { Level::DEBUG } else { Level::INFO });
    }
    let ready = unsupported(&command).and_then(|()| crate::node::outlive_file_limits());
    let done = ready.and_then(|()| match command {
        Command::Bench(args) => bench::bench(&args),
        Command::Copy(args) => copy::copy(&args),
        Command::Run(args) => run::run(&args),
        Command::Plan(args) => plan::plan(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Node(args) => daemon::node(&args),
        Command::Status(args) => client::status(&args),
        Command::Cancel(args) => client::cancel(&args),
        Command::Keygen(args) => Key::keygen(&args.file).map(|_| ExitCode::SUCCESS),
    });
    // What the log has to say comes before the last word.
    log::flush();
    done.unwrap_or_else(|error| fail(&error))
}

/// Prints a result. A reader that has gone away is not an error of ours.
fn print(result: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{}", result.trim_end());
}

/// Reads a specification file.
fn read_spec(path: &std::path::Path) -> Result<crate::Spec> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::new(Code::Usage, format!("{name}: cannot be read: {error}")).remedy("name a specification file")
    })?;
    let spec = crate::Spec::parse(&name, &text)?;
    spec.validate().map_err(|error| error.at(&name))?;
    Ok(spec)
}
