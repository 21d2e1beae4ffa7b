//! Launch methods: who starts the nodes of a transfer.

use std::fmt;
use std::str::FromStr;

/// Launch method: who starts the nodes of a transfer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum LaunchMethod {
    /// Nobody: daemons are running, and are dialled at each row's host and port.
    #[default]
    None,
    /// This process: every node is a child on this machine with a loopback address of its own.
    Local,
    /// This process for nodes on this machine, a step for those in the Slurm job that it is part
    /// of, ssh for all others.
    Auto,
    /// ssh, on each host.
    Ssh,
    /// A step of the Slurm job that this process is part of.
    Slurm,
    /// Another command, on each host.
    Command(LaunchCommand),
}

impl LaunchMethod {
    /// Returns true if it logs in to hosts, as a named user if need be.
    pub(crate) fn logs_in(&self) -> bool {
        matches!(self, LaunchMethod::Auto | LaunchMethod::Ssh)
    }
}

/// A command that starts a program on another host, with its standard input and output: `docker
/// exec -i {host} {command}`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaunchCommand {
    /// As given.
    text: String,
    words: Vec<String>,
}

/// Stands for the host.
const HOST: &str = "{host}";
/// Stands for the command there, as words of its own.
const COMMAND: &str = "{command}";
/// Stands for the command there, as one word for a shell.
const COMMAND_LINE: &str = "{command_line}";

impl LaunchCommand {
    /// Returns the words that start `command` on `host`. No shell reads them here.
    pub(crate) fn words(&self, host: &str, command: &[&str]) -> Vec<String> {
        let line = command_line(command);
        let mut words = Vec::with_capacity(self.words.len() + command.len());
        for word in &self.words {
            if word == COMMAND {
                words.extend(command.iter().map(ToString::to_string));
            } else {
                words.push(word.replace(HOST, host).replace(COMMAND_LINE, &line));
            }
        }
        words
    }
}

/// Returns words as one that the shells of users read as these words. They have no single quote.
pub(crate) fn command_line(words: &[&str]) -> String {
    let is_plain = |word: &&str| {
        word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.=".contains(&byte))
    };
    let quoted = words.iter().map(|word| match is_plain(word) {
        true => (*word).to_owned(),
        false => format!("'{word}'"),
    });
    quoted.collect::<Vec<String>>().join(" ")
}

impl FromStr for LaunchCommand {
    type Err = String;

    fn from_str(text: &str) -> Result<LaunchCommand, String> {
        let words = shlex::split(text).ok_or("a command whose quotes are closed")?;
        let has = |name: &str| words.iter().any(|word| word.contains(name));
        if words.first().is_none_or(|word| word.contains('{')) || !has(HOST) {
            return Err(format!("a command with {HOST} and {COMMAND} in it"));
        }
        if !words.iter().any(|word| word == COMMAND) && !has(COMMAND_LINE) {
            return Err(format!("{COMMAND} as a word, or {COMMAND_LINE} for a shell, in it"));
        }
        Ok(LaunchCommand { text: text.to_owned(), words })
    }
}

impl FromStr for LaunchMethod {
    type Err = String;

    fn from_str(text: &str) -> Result<LaunchMethod, String> {
        Ok(match text {
            "none" => LaunchMethod::None,
            "local" => LaunchMethod::Local,
            "auto" => LaunchMethod::Auto,
            "ssh" => LaunchMethod::Ssh,
            "slurm" => LaunchMethod::Slurm,
            _ if text.contains(char::is_whitespace) || text.contains('{') => {
                LaunchMethod::Command(text.parse()?)
            }
            _ => {
                return Err(format!(
                    "none, local, auto, ssh, slurm, or 'COMMAND {HOST} {COMMAND}'"
                ));
            }
        })
    }
}

impl fmt::Display for LaunchMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LaunchMethod::None => "none",
            LaunchMethod::Local => "local",
            LaunchMethod::Auto => "auto",
            LaunchMethod::Ssh => "ssh",
            LaunchMethod::Slurm => "slurm",
            LaunchMethod::Command(command) => &command.text,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const THERE: [&str; 3] = ["/bin/sh", "-c", "echo \"$HOME\""];

    fn words(template: &str) -> Vec<String> {
        template.parse::<LaunchCommand>().unwrap().words("web", &THERE)
    }

    #[test]
    fn a_command_gets_the_host_and_the_words_of_what_runs_there() {
        assert_eq!(
            words("docker exec -i {host} {command}"),
            ["docker", "exec", "-i", "web", "/bin/sh", "-c", "echo \"$HOME\""]
        );
        assert_eq!(
            words("su 'the user' -c {command_line} x{host}"),
            ["su", "the user", "-c", "/bin/sh -c 'echo \"$HOME\"'", "xweb"]
        );
    }

    #[test]
    fn what_is_no_method_is_refused() {
        for text in [
            "",
            "shh",
            "docker exec",
            "a {host}",
            "a {command}",
            "a '{host} {command}",
            "{host} {command}",
        ] {
            assert!(text.parse::<LaunchMethod>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_method_is_printed_as_it_is_typed() {
        for text in ["none", "local", "auto", "ssh", "slurm", "ip netns exec {host} {command}"] {
            assert_eq!(text.parse::<LaunchMethod>().unwrap().to_string(), text);
        }
    }
}
