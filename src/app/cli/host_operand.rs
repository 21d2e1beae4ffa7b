//! Operands that are hosts: `[user@]host[,host…]` with hostlists, `[user@]@FILE`.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::operand::{Operand, hosts_of};
use crate::core::error::{Code, Error, Result};
use crate::core::spec::hostlist;

/// Limit on a file of hosts: all the hosts that there may be, with long names.
const HOSTS_FILE_BYTES_MAX: u64 = hostlist::HOSTS_MAX * 256;

/// Hosts on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostOperand {
    /// User to log in as, if given.
    pub user: Option<String>,
    /// Hosts in the order of their list; empty for hosts in a file.
    pub hosts: Vec<String>,
    /// File that lists the hosts, if they are not listed here.
    pub hosts_file: Option<PathBuf>,
}

impl FromStr for HostOperand {
    type Err = String;

    /// Parses hosts as those before the colon of an operand of `copy`.
    ///
    /// # Errors
    /// The expected form, as text.
    fn from_str(text: &str) -> std::result::Result<HostOperand, String> {
        let Operand { user, hosts, hosts_file, path } = format!("{text}:").parse()?;
        if !path.as_os_str().is_empty() || (hosts.is_empty() && hosts_file.is_none()) {
            return Err("[user@]host[,host…] with hostlists such as n[01-04], or @FILE".into());
        }
        Ok(HostOperand { user, hosts, hosts_file })
    }
}

impl HostOperand {
    /// Returns the hosts, also where they are listed in a file.
    ///
    /// # Errors
    /// `Usage` for a file that cannot be read, or lists something else.
    pub(crate) fn all_hosts(&self) -> Result<Vec<String>> {
        match &self.hosts_file {
            Some(file) => hosts_in_file(file, "@FILE"),
            None => Ok(self.hosts.clone()),
        }
    }
}

impl fmt::Display for HostOperand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match &self.hosts_file {
            Some(file) => write!(f, "@{}", file.display()),
            None => f.write_str(&self.hosts.join(",")),
        }
    }
}

/// Returns the hosts that a file lists. `form` is how the file is named.
///
/// # Errors
/// `Usage` for a file that cannot be read, or lists something else.
pub(crate) fn hosts_in_file(file: &Path, form: &str) -> Result<Vec<String>> {
    let cannot = |error: std::io::Error| {
        Error::new(Code::Usage, format!("{}: cannot be read: {error}", file.display()))
            .remedy(format!("name a file with a host or a hostlist a line: {form}"))
    };
    let mut text = String::new();
    let opened = File::open(file).map_err(cannot)?;
    opened.take(HOSTS_FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(cannot)?;
    hosts_in(&text).map_err(|(line, expected)| {
        let what = match line {
            Some(line) => format!("{}:{line}: expected {expected}", file.display()),
            None => format!("{}: expected {expected}", file.display()),
        };
        Error::new(Code::Usage, what).remedy("a line is a host or a hostlist, or a # and a comment")
    })
}

/// Fault of a file of hosts: its line, if it has one, and what is expected there.
type HostsFault = (Option<usize>, String);

/// Returns the hosts that a text lists, or the line that lists none and what is expected there.
fn hosts_in(text: &str) -> std::result::Result<Vec<String>, HostsFault> {
    if text.len() as u64 > HOSTS_FILE_BYTES_MAX {
        return Err((None, format!("at most {HOSTS_FILE_BYTES_MAX} bytes")));
    }
    let mut hosts = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if !line.is_empty() {
            hosts.append(&mut hosts_of(line).map_err(|expected| (Some(at + 1), expected))?);
        }
        if hosts.len() as u64 > hostlist::HOSTS_MAX {
            return Err((Some(at + 1), format!("at most {} hosts", hostlist::HOSTS_MAX)));
        }
    }
    if hosts.is_empty() {
        return Err((None, "at least one host".into()));
    }
    Ok(hosts)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_hosts_has_hostlists_and_comments() {
        let text = "# the cluster\n\nn[01-02],m # two and one\n  [::1]\n";
        assert_eq!(hosts_in(text).unwrap(), ["n01", "n02", "m", "::1"]);
        for (text, line, said) in [
            ("", None, "at least one"),
            ("# a\n\n", None, "at least one"),
            ("a\nb c\n", Some(2), "host"),
            ("a\n\n-x", Some(3), "'-'"),
            ("a[1-65536]\nb", Some(2), "65536"),
            ("a[2-1]", Some(1), ""),
        ] {
            let (at, expected) = hosts_in(text).unwrap_err();
            assert!(at == line && expected.contains(said), "{text:?}: {at:?} {expected}");
        }
    }

    #[test]
    fn hosts_are_named_as_before_the_colon_of_a_copy() {
        for (text, user, hosts) in [
            ("a", None, &["a"][..]),
            ("n[1-2],b", None, &["n1", "n2", "b"]),
            ("me@a", Some("me"), &["a"]),
            ("[::1]", None, &["::1"]),
        ] {
            let operand: HostOperand = text.parse().unwrap();
            assert_eq!(operand.user.as_deref(), user, "{text}");
            assert_eq!(operand.hosts, hosts, "{text}");
        }
        let operand: HostOperand = "me@@f".parse().unwrap();
        assert_eq!(operand.hosts_file, Some("f".into()));
        assert_eq!(operand.to_string(), "me@@f");
        for text in ["", "a:5000", "/x", "a/b", "-oProxyCommand=x", "a,", "@"] {
            assert!(text.parse::<HostOperand>().is_err(), "{text}");
        }
    }
}
