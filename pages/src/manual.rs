//! Manual pages: one for the program, and one for each command.

use std::io;

use cep_fast::cli::manual::{ENVIRONMENT, EXIT_STATUSES, FILES};
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};

/// Returns the name and the text of every page.
///
/// # Errors
/// None: pages are written to memory.
pub(crate) fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut program = super::command().disable_help_subcommand(true);
    program.build();
    let mut names = vec!["cep-fast".to_owned()];
    names.extend(program.get_subcommands().map(|it| format!("cep-fast-{}", it.get_name())));
    let mut pages = vec![(file_name(&names[0]), page(&program, &names)?)];
    for command in program.get_subcommands() {
        let name = format!("cep-fast-{}", command.get_name());
        pages.push((file_name(&name), page(command, &names)?));
    }
    Ok(pages)
}

fn file_name(page: &str) -> String {
    format!("{page}.1")
}

/// Returns the page of a command, with the names of all pages for its last section.
fn page(command: &Command, names: &[String]) -> io::Result<Vec<u8>> {
    let own_name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let version = concat!("cep-fast ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).source(version).manual("cep-fast");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        commands(command).to_writer(&mut page)?;
    }
    let statuses = EXIT_STATUSES.map(|(status, meaning)| (status.to_string(), meaning));
    section("EXIT STATUS", &statuses).to_writer(&mut page)?;
    section("ENVIRONMENT", &ENVIRONMENT).to_writer(&mut page)?;
    section("FILES", &FILES).to_writer(&mut page)?;
    see_also(&own_name, names).to_writer(&mut page)?;
    Ok(page)
}

/// Returns the commands with what they do, each by the name of its page.
fn commands(program: &Command) -> Roff {
    let rows: Vec<(String, String)> = program
        .get_subcommands()
        .map(|command| {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            (format!("cep-fast-{}(1)", command.get_name()), about)
        })
        .collect();
    section("COMMANDS", &rows)
}

/// Returns a section of rows: a name, and what it means.
fn section<N: AsRef<str>, M: AsRef<str>>(heading: &str, rows: &[(N, M)]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [heading]);
    for (name, meaning) in rows {
        roff.control("TP", []);
        roff.text([bold(name.as_ref())]);
        roff.text([roman(meaning.as_ref())]);
    }
    roff
}

fn see_also(own_name: &str, names: &[String]) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    let others: Vec<&String> = names.iter().filter(|name| *name != own_name).collect();
    for (number, name) in others.iter().enumerate() {
        let end = if number + 1 == others.len() { "(1)" } else { "(1)," };
        roff.text([italic(name.as_str()), roman(end)]);
    }
    roff
}
