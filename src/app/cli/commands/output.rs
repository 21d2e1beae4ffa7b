//! Output: results go to standard output, everything else to standard error.

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use serde::Serialize;

use crate::app::cli::fail;
use crate::core::error::{Code, Error, Result};
use crate::core::report::{Report, ReportError, TransferState};
use crate::core::units::printable_json;

/// Prints a result.
///
/// # Errors
/// `Data` if it cannot be written. A closed reader (`| head`) is not an error.
pub(super) fn print(result: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{}", result.trim_end()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::new(
            Code::Data,
            format!("the result cannot be written to standard output: {error}"),
        )
        .remedy("look at what standard output leads to")),
        _ => Ok(()),
    }
}

/// Prints a result on standard error, where standard output has lines for a program.
pub(super) fn print_apart(result: &str) {
    // With nobody to read it, the exit status still tells.
    let _ = io::stderr().write_all(format!("{}\n", result.trim_end()).as_bytes());
}

/// Prints one JSON object on one line.
///
/// # Errors
/// See [`print()`].
pub(super) fn print_json(json: &str) -> Result<()> {
    print(&printable_json(json))
}

/// Prints a warning on standard error.
pub(super) fn warn(warning: &str) {
    crate::io::log::print_error_line(&format!("warning: {warning}"));
}

/// JSON object of a command that failed without a report.
#[derive(Serialize)]
struct FailureJson {
    state: TransferState,
    error: ReportError,
}

/// Prints an error, also as JSON if requested, and returns its exit status.
pub(super) fn failed(json: bool, error: &Error) -> ExitCode {
    let failure = || FailureJson { state: TransferState::of(error), error: error.into() };
    failed_with(json.then(|| to_json(&failure())).as_deref(), error)
}

/// Like [`failed`], for a transfer that did not begin.
pub(super) fn transfer_failed(json: bool, report: &Report, error: &Error) -> ExitCode {
    failed_with(json.then(|| report.json()).as_deref(), error)
}

fn failed_with(json: Option<&str>, error: &Error) -> ExitCode {
    // The first error decides the exit status.
    if let Some(Err(unwritten)) = json.map(print_json) {
        warn(&unwritten.to_string());
    }
    fail(error)
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("numbers, strings and lists have a form in JSON")
}
