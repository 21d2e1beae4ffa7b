//! Completions of shells and manual pages, from the definitions of `cep-fast --help`. The program
//! itself has none of this: who packs it runs `cep-pages DIR`.

mod manual;

use std::fs;
use std::io;
use std::path::Path;

use cep_fast::cli::Args;
use clap::{Command, CommandFactory};
use clap_complete::Shell;

/// Where each shell looks for completions below `/usr/share`, and so below `DIR`.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "bash-completion/completions/cep-fast"),
    (Shell::Zsh, "zsh/vendor-completions/_cep-fast"),
    (Shell::Fish, "fish/vendor_completions.d/cep-fast.fish"),
];

/// Where manual pages of programs are, below `/usr/share` and below `DIR`.
const MANUAL: &str = "man/man1";

/// Writes completions and manual pages below a directory, in the places that they have below
/// `/usr/share`.
///
/// # Errors
/// A file or directory that cannot be written.
pub fn write(directory: &Path) -> io::Result<()> {
    for (shell, place) in COMPLETIONS {
        let place = directory.join(place);
        fs::create_dir_all(place.parent().unwrap_or(directory))?;
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command(), "cep-fast", &mut text);
        let text = String::from_utf8(text).map_err(io::Error::other)?;
        // The generator takes the dash in the name of the program for one between commands.
        fs::write(place, text.replace("cep__subcmd__fast", "cep__fast"))?;
    }
    let manual = directory.join(MANUAL);
    fs::create_dir_all(&manual)?;
    for (name, page) in manual::pages()? {
        fs::write(manual.join(name), page)?;
    }
    Ok(())
}

/// Returns the program's command line without what `--help` hides.
#[must_use]
pub fn command() -> Command {
    visible(&Args::command())
}

/// Returns a copy of a command without its hidden commands and options: generators of completions
/// do not leave them out.
fn visible(command: &Command) -> Command {
    let mut copy = Command::new(lasting(command.get_name()))
        .subcommand_required(command.is_subcommand_required_set())
        .arg_required_else_help(command.is_arg_required_else_help_set())
        .args(command.get_arguments().filter(|argument| !argument.is_hide_set()))
        .subcommands(command.get_subcommands().filter(|it| !it.is_hide_set()).map(visible));
    if let Some(version) = command.get_version() {
        copy = copy.version(lasting(version));
    }
    if let Some(about) = command.get_about() {
        copy = copy.about(about.clone());
    }
    if let Some(about) = command.get_long_about() {
        copy = copy.long_about(about.clone());
    }
    if let Some(usage) = command.get_overridden_usage() {
        copy = copy.override_usage(usage.clone());
    }
    copy
}

/// Returns a name that is never freed, as clap takes names of programs that run once.
fn lasting(name: &str) -> &'static str {
    name.to_owned().leak()
}
