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
    /// Hosts in the order of their list; empty for a local path.
    pub hosts: Vec<String>,
    /// Path as typed: any bytes but NUL.
    pub path: PathBuf,
}

impl Operand {
    /// Returns true for a local path.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.hosts.is_empty()
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
    /// local. Colons in brackets (IPv6, hostlists) do not count.
    ///
    /// # Errors
    /// The expected form, as text.
    fn try_from(text: OsString) -> Result<Operand, String> {
        let bytes = text.as_bytes();
        let (remote, path) = match colon(bytes) {
            Some(at) => (Some(&bytes[..at]), &bytes[at + 1..]),
            None => (None, bytes),
        };
        if path.is_empty() || path.contains(&0) {
            return Err("a path, or [user@]host[,host…]:path".into());
        }
        let path = PathBuf::from(OsStr::from_bytes(path));
        let Some(remote) = remote else {
            return Ok(Operand { user: None, hosts: Vec::new(), path });
        };
        let remote = str::from_utf8(remote).map_err(|_| "a host name before the colon")?;
        let (user, hosts) = match remote.split_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, remote),
        };
        if user.is_some_and(|user| {
            user.is_empty() || user.starts_with('-') || user.contains(char::is_whitespace)
        }) {
            return Err("a user's name before @".into());
        }
        // A name with a leading dash would be an option of the login program.
        let hosts = hostlist::expand(hosts)?;
        if hosts.iter().any(|host| host.starts_with('-')) {
            return Err("a host name that does not start with '-'".into());
        }
        Ok(Operand { user: user.map(Into::into), hosts, path })
    }
}

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
        let cases: [(&str, Option<&str>, &[&str], &str); 10] = [
            ("/data/x", None, &[], "/data/x"),
            ("x", None, &[], "x"),
            ("./a:b", None, &[], "./a:b"),
            ("/a:b", None, &[], "/a:b"),
            ("h:x", None, &["h"], "x"),
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
            "h:",
            ":/x",
            "@h:/x",
            "-l@h:/x",
            "-oProxyCommand=x:/y",
            "-h:/x",
            "a,:/x",
            "a[2-1]:/x",
            "a b:/x",
            "[::g]:x",
        ] {
            assert!(text.parse::<Operand>().is_err(), "{text}");
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
