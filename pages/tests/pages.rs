//! Completions and manual pages have what `--help` shows and nothing of what it hides; shells and
//! groff read them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use cep_fast::cli::Args;
use clap::CommandFactory;
use tempfile::TempDir;

const COMPLETIONS: [&str; 3] = [
    "bash-completion/completions/cep-fast",
    "zsh/vendor-completions/_cep-fast",
    "fish/vendor_completions.d/cep-fast.fish",
];

/// The files in a directory of their own.
struct Share {
    folder: TempDir,
}

impl Share {
    fn written() -> Share {
        let share = Share { folder: tempfile::tempdir().unwrap() };
        pages::write(share.folder.path()).unwrap();
        share
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Returns a page without fonts and the backslashes of its dashes.
    fn page(&self, name: &str) -> String {
        let text = self.text(&format!("man/man1/{name}.1"));
        let plain = ["\\fB", "\\fI", "\\fR"].iter().fold(text, |text, font| text.replace(font, ""));
        plain.replace('\\', "")
    }
}

/// Returns the visible commands with the options that the help of each shows.
fn shown() -> Vec<(String, BTreeSet<String>)> {
    let mut program = Args::command();
    program.build();
    let visible = program.get_subcommands_mut().filter(|it| !it.is_hide_set());
    let visible = visible.filter(|it| it.get_name() != "help");
    visible
        .map(|command| {
            let help = command.render_long_help().to_string();
            let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
            let words = lines.flat_map(|line| line.split([' ', ',']));
            let options = words.filter(|word| word.starts_with("--")).map(str::to_owned);
            (command.get_name().to_owned(), options.collect())
        })
        .collect()
}

/// Returns the names of hidden commands and options.
fn hidden() -> (BTreeSet<String>, BTreeSet<String>) {
    let program = Args::command();
    let commands = program.get_subcommands().filter(|it| it.is_hide_set());
    let commands = commands.map(|it| it.get_name().to_owned()).collect();
    let arguments = program.get_subcommands().filter(|it| !it.is_hide_set());
    let arguments = arguments.flat_map(clap::Command::get_arguments).filter(|it| it.is_hide_set());
    (commands, arguments.filter_map(|it| it.get_long()).map(|long| format!("--{long}")).collect())
}

/// Returns true if a text has the option, and not only one that begins like it.
fn has_option(text: &str, option: &str) -> bool {
    text.match_indices(option).any(|(at, _)| {
        let next = text[at + option.len()..].chars().next();
        !next.is_some_and(|letter| letter.is_ascii_alphanumeric() || letter == '-')
    })
}

/// Returns what a program prints, or nothing where it is not installed.
fn output(command: &mut Command) -> Option<Output> {
    match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: no {}", command.get_program().display());
            None
        }
        output => Some(output.unwrap()),
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn every_command_and_option_of_the_help_is_in_completions_and_pages() {
    let share = Share::written();
    let commands = shown();
    assert!(commands.len() >= 9, "the commands were not found");
    let program = share.page("cep-fast");
    for (command, options) in &commands {
        assert!(options.len() >= 4, "{command}: the options were not found: {options:?}");
        assert!(program.contains(&format!("cep-fast-{command}(1)")), "{command} is in no list");
        let page = share.page(&format!("cep-fast-{command}"));
        for option in options {
            assert!(has_option(&page, option), "cep-fast-{command}.1 has no {option}");
        }
        for completion in COMPLETIONS {
            let text = share.text(completion);
            assert!(text.contains(command.as_str()), "{completion} has no {command}");
            // fish names an option without its dashes.
            let fish = |option: &str| format!("-l {}", option.trim_start_matches('-'));
            for option in options {
                let found = has_option(&text, option) || has_option(&text, &fish(option));
                assert!(found, "{completion} has no {option}");
            }
        }
    }
    let pages = fs::read_dir(share.path("man/man1")).unwrap().count();
    assert_eq!(pages, commands.len() + 1);
}

#[test]
fn what_the_help_hides_is_in_none() {
    let share = Share::written();
    let (commands, options) = hidden();
    assert!(commands.contains("launched") && options.contains("--beats"), "nothing is hidden");
    for completion in COMPLETIONS {
        let text = share.text(completion);
        for name in &commands {
            let forms = [format!("'{name}:"), format!("__{name}"), format!("-a \"{name}\"")];
            let found = forms.iter().find(|form| text.contains(form.as_str()));
            assert_eq!(found, None, "{completion}");
        }
        for option in &options {
            let fish = format!("-l {}", option.trim_start_matches('-'));
            let found = has_option(&text, option) || has_option(&text, &fish);
            assert!(!found, "{completion} has {option}");
        }
    }
    for option in &options {
        assert!(!has_option(&share.page("cep-fast-node"), option), "cep-fast-node.1: {option}");
    }
}

#[test]
fn pages_have_exit_statuses_variables_and_files() {
    let share = Share::written();
    for name in ["cep-fast", "cep-fast-copy", "cep-fast-node"] {
        let page = share.page(name);
        let sections =
            ["NAME", "SYNOPSIS", "OPTIONS", "EXIT STATUS", "ENVIRONMENT", "FILES", "SEE ALSO"];
        for section in sections {
            let plain = format!(".SH {section}\n");
            let quoted = format!(".SH \"{section}\"\n");
            assert!(page.contains(&plain) || page.contains(&quoted), "{name}.1 has no {section}");
        }
        for word in ["130", "CEP_FAST_SSH", "CEP_FAST_IO", "/usr/lib/cep-fast"] {
            assert!(page.contains(word), "{name}.1 has no {word}");
        }
    }
}

#[test]
fn groff_has_nothing_to_say_about_the_pages() {
    let share = Share::written();
    for entry in fs::read_dir(share.path("man/man1")).unwrap() {
        let path = entry.unwrap().path();
        let mut groff = Command::new("groff");
        groff.args(["-man", "-ww", "-Kutf8", "-Tutf8", "-rLL=100n"]).arg(&path);
        let Some(read) = output(&mut groff) else { return };
        let said = String::from_utf8_lossy(&read.stderr);
        assert!(read.status.success() && said.is_empty(), "{}: {said}", path.display());
        assert!(stdout(&read).contains("cep-fast"), "{} is empty", path.display());
    }
}

#[test]
fn bash_completes_commands_options_and_values() {
    let share = Share::written();
    let completed = |words: &[&str]| {
        let script = r#"
            source "$0"
            COMP_WORDS=("$@")
            COMP_CWORD=$(($# - 1))
            COMPREPLY=()
            function=$(complete -p cep-fast | sed 's/.*-F \([^ ]*\) .*/\1/')
            "$function" cep-fast "${@: -1}" "${@: -2:1}"
            printf '%s\n' "${COMPREPLY[@]}""#;
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", script]).arg(share.path(COMPLETIONS[0])).args(words);
        let read = bash.output().unwrap();
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        stdout(&read).lines().map(str::to_owned).collect::<Vec<String>>()
    };
    assert_eq!(completed(&["cep-fast", "co"]), ["copy"]);
    assert_eq!(completed(&["cep-fast", "copy", "--lau"]), ["--launch"]);
    assert_eq!(completed(&["cep-fast", "copy", "--check", "bl"]), ["blake3"]);
    assert_eq!(completed(&["cep-fast", "node", "--bea"]), [""]);
}

#[test]
fn fish_completes_commands_and_options() {
    let share = Share::written();
    let file = share.path(COMPLETIONS[2]);
    for (line, expected) in [("cep-fast co", "copy"), ("cep-fast copy --lau", "--launch")] {
        let script = format!("source {}; complete -C '{line}'", file.display());
        let mut fish = Command::new("fish");
        fish.args(["--no-config", "-c", &script]).env("HOME", share.folder.path());
        let Some(read) = output(&mut fish) else { return };
        let first: Vec<String> =
            stdout(&read).lines().filter_map(|it| it.split('\t').next()).map(Into::into).collect();
        assert_eq!(first, [expected], "{}", String::from_utf8_lossy(&read.stderr));
    }
}

#[test]
fn zsh_reads_its_completions() {
    let share = Share::written();
    let file = share.path(COMPLETIONS[1]);
    assert!(share.text(COMPLETIONS[1]).starts_with("#compdef cep-fast\n"));
    let mut zsh = Command::new("zsh");
    zsh.args(["-f", "-n"]).arg(&file);
    let Some(read) = output(&mut zsh) else { return };
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
}
