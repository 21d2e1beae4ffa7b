//! `status` and `cancel` of one's own transfers on this machine, which need no address.

use std::process::ExitCode;

use serde_json::Value;

use super::output::{print, print_json, warn};
use super::status_text::in_words;
use crate::app::cli::exit_code;
use crate::core::error::{Code, Error, Result};
use crate::core::units::printable;
use crate::core::wire::control::MasterQuery;
use crate::io::log::print_error_line;
use crate::io::master::local_client::{LocalAnswer, LocalMaster, ask, masters};

/// What is said where no transfer is found.
const NONE: &str = "no transfer of yours is running on this machine";

/// Choice of transfers to cancel.
#[derive(Clone, Copy, Debug)]
pub(super) enum OwnTransfers<'a> {
    /// The only one.
    Only,
    /// All.
    All,
    /// The one with an id, or of a process.
    Named(&'a str),
}

/// Prints the state of all transfers of this user on this machine.
pub(super) fn status(json: bool) -> Result<ExitCode> {
    let found = find()?;
    let lines: Vec<String> = found
        .running
        .iter()
        .map(|it| if json { it.state.to_string() } else { in_words(&it.state) })
        .collect();
    if lines.is_empty() && found.silent.is_empty() {
        // A script that reads lines of JSON reads none.
        if json { print_error_line(NONE) } else { print(NONE)? }
    } else if !lines.is_empty() {
        let text = lines.join("\n");
        if json { print_json(&text) } else { print(&text) }?;
    }
    found.silent.iter().for_each(|error| warn(&error.to_string()));
    let code = found.silent.first().map(|error| error.code);
    Ok(code.map_or(ExitCode::SUCCESS, exit_code))
}

/// Cancels one transfer of this user on this machine, or all of them.
pub(super) fn cancel(choice: OwnTransfers<'_>) -> Result<ExitCode> {
    let found = find()?;
    let chosen = choose(choice, &found.running)?;
    let chosen: Vec<&LocalMaster> = chosen.into_iter().map(|it| &it.master).collect();
    if chosen.is_empty() {
        return Err(found.silent.into_iter().next().unwrap_or_else(none_running));
    }
    let mut failed = if matches!(choice, OwnTransfers::All) { found.silent } else { Vec::new() };
    let mut words = Vec::new();
    for (master, answer) in chosen.iter().zip(ask(&chosen, MasterQuery::Cancel)?) {
        match answer {
            LocalAnswer::Json(state) => {
                words.push(format!("cancelling: {}", in_words(&state_of(master, &state))));
            }
            LocalAnswer::Ended => {
                let what = format!("the transfer of process {} has just ended", master.pid);
                failed.push(Error::new(Code::Unreachable, what));
            }
            LocalAnswer::Failed(error) => failed.push(error),
        }
    }
    if !words.is_empty() {
        print(&words.join("\n"))?;
    }
    let mut failed = failed.into_iter();
    let first = failed.next();
    failed.for_each(|error| warn(&error.to_string()));
    first.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// The transfers of this user on this machine.
struct FoundTransfers {
    running: Vec<OwnTransfer>,
    /// Errors of those that do not answer.
    silent: Vec<Error>,
}

/// A transfer that has answered.
struct OwnTransfer {
    master: LocalMaster,
    state: Value,
}

fn find() -> Result<FoundTransfers> {
    let masters = masters();
    let answers = ask(&masters.iter().collect::<Vec<_>>(), MasterQuery::Status)?;
    let mut found = FoundTransfers { running: Vec::new(), silent: Vec::new() };
    for (master, answer) in masters.into_iter().zip(answers) {
        match answer {
            LocalAnswer::Json(json) => {
                let state = state_of(&master, &json);
                found.running.push(OwnTransfer { master, state });
            }
            LocalAnswer::Ended => {}
            LocalAnswer::Failed(error) => found.silent.push(error),
        }
    }
    found.running.sort_by_key(|it| it.master.pid);
    Ok(found)
}

/// Returns the state that a master has answered, with its process.
fn state_of(master: &LocalMaster, json: &str) -> Value {
    let mut state: Value = serde_json::from_str(json).unwrap_or_default();
    if let Some(fields) = state.as_object_mut() {
        fields.insert("pid".into(), master.pid.into());
    }
    state
}

/// Returns the transfers that are meant.
fn choose<'a>(
    choice: OwnTransfers<'_>,
    running: &'a [OwnTransfer],
) -> Result<Vec<&'a OwnTransfer>> {
    let is_meant = |it: &&OwnTransfer| match choice {
        OwnTransfers::Only | OwnTransfers::All => true,
        OwnTransfers::Named(name) => {
            it.state["transfer"].as_str() == Some(name) || name.parse() == Ok(it.master.pid)
        }
    };
    let meant: Vec<&OwnTransfer> = running.iter().filter(is_meant).collect();
    match (choice, meant.len()) {
        (OwnTransfers::Named(name), 0) if !running.is_empty() => {
            list(running.iter());
            let what =
                format!("no transfer of yours here has the id or process {}", printable(name));
            Err(Error::new(Code::Unreachable, what).remedy("choose one of those above"))
        }
        (OwnTransfers::Only | OwnTransfers::Named(_), 2..) => {
            list(meant.iter().copied());
            let what = format!("{} transfers are meant", meant.len());
            Err(Error::new(Code::Usage, what)
                .remedy("choose one with --transfer ID or --transfer PID, or --all"))
        }
        _ => Ok(meant),
    }
}

fn list<'a>(transfers: impl Iterator<Item = &'a OwnTransfer>) {
    transfers.for_each(|it| print_error_line(&in_words(&it.state)));
}

fn none_running() -> Error {
    Error::new(Code::Unreachable, NONE)
        .remedy("a transfer of another machine is cancelled by its master's address")
}
