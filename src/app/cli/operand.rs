//! Operands of `copy`: `[user@]host[,host…]:path`, or a local path.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::core::spec::hostlist;

/// Location of a file: source or destination.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operand {
    /// User to log in as, if given.
    pub user: Option<String>,
    /// Hosts in the order of their list; empty for a local path, and for hosts in a file. Every
    /// host of a job is `*`.
    pub hosts: Vec<String>,
    /// File that lists the hosts, if they are not listed here.
    pub hosts_file: Option<PathBuf>,
    /// Path as typed: any bytes but NUL. Without hosts it has at least one; with hosts, a path of
    /// none is the home.
    pub path: PathBuf,
}

/// Stands for every host of the Slurm job that the command is part of.
pub(crate) const EVERY_HOST: &str = "*";

impl Operand {
    /// Returns true for a local path.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.hosts.is_empty() && self.hosts_file.is_none()
    }
}

impl FromStr for Operand {
    type Err = String;

    fn from_str(text: &str) -> Result<Operand, String> {
        Operand::try_from(OsString::from(text))
    }
}

impl TryFrom<OsString> for Operand {
    type Error = String;

    /// Parses an operand. As in scp, a colon before the first slash makes it remote; `./a:b` is
    /// local. Colons in brackets (IPv6, hostlists) do not count. Behind `@` stands the name of a
    /// file, up to the first colon.
    ///
    /// # Errors
    /// The expected form, as text.
    fn try_from(text: OsString) -> Result<Operand, String> {
        let bytes = text.as_bytes();
        if bytes.is_empty() || bytes.contains(&0) {
            return Err("a path, or [user@]host[,host…]:path".into());
        }
        if let Some((user, file, path)) = in_file(bytes) {
            if file.is_empty() {
                return Err("the name of a file with hosts between @ and the colon".into());
            }
            let user = user.map(user_of).transpose()?;
            let hosts_file = Some(path_of(file));
            return Ok(Operand { user, hosts: Vec::new(), hosts_file, path: path_of(path) });
        }
        let Some(at) = colon(bytes) else {
            let (hosts, hosts_file, path) = (Vec::new(), None, path_of(bytes));
            return Ok(Operand { user: None, hosts, hosts_file, path });
        };
        let (remote, path) = (&bytes[..at], path_of(&bytes[at + 1..]));
        let (user, hosts) = match remote.iter().position(|byte| *byte == b'@') {
            Some(at) => (Some(user_of(&remote[..at])?), &remote[at + 1..]),
            None => (None, remote),
        };
        let hosts = str::from_utf8(hosts).map_err(|_| "a host name before the colon")?;
        let hosts = match hosts {
            EVERY_HOST => vec![hosts.to_owned()],
            _ => hosts_of(hosts)?,
        };
        Ok(Operand { user, hosts, hosts_file: None, path })
    }
}

/// Returns the hosts of a hostlist. A name with a leading dash would be an option of the login
/// program.
///
/// # Errors
/// The expected form, as text.
pub(crate) fn hosts_of(text: &str) -> Result<Vec<String>, String> {
    let hosts = hostlist::expand(text)?;
    if hosts.iter().any(|host| host.starts_with('-')) {
        return Err("a host name that does not start with '-'".into());
    }
    Ok(hosts)
}

fn user_of(user: &[u8]) -> Result<String, String> {
    let odd = |letter: char| letter.is_whitespace() || letter.is_control();
    let user = str::from_utf8(user).ok();
    let user = user.filter(|user| !user.is_empty() && !user.starts_with('-'));
    user.filter(|user| !user.contains(odd))
        .map(str::to_owned)
        .ok_or_else(|| "a user's name before @".into())
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// Returns the user, the file and the path of `[user@]@file:path`.
fn in_file(text: &[u8]) -> Option<FileOperand<'_>> {
    let (user, rest) = match text.strip_prefix(b"@") {
        Some(rest) => (None, rest),
        None => {
            let at = text.windows(2).position(|pair| pair == b"@@")?;
            let user = &text[..at];
            (!user.contains(&b'/') && !user.contains(&b':'))
                .then_some((Some(user), &text[at + 2..]))?
        }
    };
    let colon = rest.iter().position(|byte| *byte == b':')?;
    Some((user, &rest[..colon], &rest[colon + 1..]))
}

/// User, file and path.
type FileOperand<'a> = (Option<&'a [u8]>, &'a [u8], &'a [u8]);

impl fmt::Display for Operand {
    /// Writes the operand with its hosts expanded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        for (i, host) in self.hosts.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            if host.contains(':') {
                write!(f, "{comma}[{host}]")
            } else {
                write!(f, "{comma}{host}")
            }?;
        }
        if let Some(file) = &self.hosts_file {
            write!(f, "@{}", file.display())?;
        }
        let colon = if self.is_local() { "" } else { ":" };
        write!(f, "{colon}{}", self.path.display())
    }
}

/// Returns the position of the colon between host and path, if there is a host.
fn colon(text: &[u8]) -> Option<usize> {
    let mut depth = 0u32;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' => depth = depth.saturating_sub(1),
            b':' if depth == 0 => return Some(at),
            b'/' => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn remote_and_local() {
        let cases: [(&str, Option<&str>, &[&str], &str); 15] = [
            ("*:/x", None, &["*"], "/x"),
            ("/data/x", None, &[], "/data/x"),
            ("x", None, &[], "x"),
            ("./a:b", None, &[], "./a:b"),
            ("/a:b", None, &[], "/a:b"),
            ("h:x", None, &["h"], "x"),
            ("h:", None, &["h"], ""),
            ("@x", None, &[], "@x"),
            ("C:\\x y", None, &["C"], "\\x y"),
            ("o'b$(r)@h:~/x", Some("o'b$(r)"), &["h"], "~/x"),
            ("h:/x:y@z", None, &["h"], "/x:y@z"),
            ("me@h:/x", Some("me"), &["h"], "/x"),
            ("dtn[01-02],b:/x", None, &["dtn01", "dtn02", "b"], "/x"),
            ("me@[::1]:/x", Some("me"), &["::1"], "/x"),
            ("a[1,3]:[x]:y", None, &["a1", "a3"], "[x]:y"),
        ];
        for (text, user, hosts, path) in cases {
            let operand: Operand = text.parse().unwrap();
            assert_eq!(
                (operand.user.as_deref(), operand.path.to_str()),
                (user, Some(path)),
                "{text}"
            );
            assert_eq!(operand.hosts, hosts, "{text}");
        }
    }

    #[test]
    fn a_path_may_be_any_bytes_and_a_host_may_not() {
        let operand = |bytes: &[u8]| Operand::try_from(OsStr::from_bytes(bytes).to_os_string());
        for (typed, path) in
            [(&b"/a\xff"[..], &b"/a\xff"[..]), (b"h:\xfe/x", b"\xfe/x"), (b"\xff", b"\xff")]
        {
            assert_eq!(operand(typed).unwrap().path.as_os_str().as_bytes(), path);
        }
        operand(b"h\xff:/x").unwrap_err();
        operand(b"/a\0b").unwrap_err();
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            ":/x",
            "@:/x",
            " @h:/x",
            "a\n@h:/x",
            "-l@h:/x",
            "-oProxyCommand=x:/y",
            "-h:/x",
            "a,:/x",
            "a[2-1]:/x",
            "a b:/x",
            "a,*:/x",
            "n*:/x",
            "[::g]:x",
        ] {
            assert!(text.parse::<Operand>().is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_may_stand_in_a_file() {
        for (text, user, file, path) in [
            ("@hosts.txt:/data/x", None, "hosts.txt", "/data/x"),
            ("@/etc/a b:", None, "/etc/a b", ""),
            ("me@@h:x:y", Some("me"), "h", "x:y"),
        ] {
            let operand: Operand = text.parse().unwrap();
            assert!(!operand.is_local() && operand.hosts.is_empty(), "{text}");
            assert_eq!(operand.user.as_deref(), user, "{text}");
            assert_eq!(operand.hosts_file.as_deref(), Some(file.as_ref()), "{text}");
            assert_eq!(operand.path.to_str(), Some(path), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_itself(text in "([a-z]{1,3}@)?[a-c0-9,\\[\\]:/.-]{1,20}|.*") {
            if let Ok(operand) = text.parse::<Operand>() {
                prop_assert_eq!(operand.to_string().parse(), Ok(operand));
            }
        }
    }
}
