//! Grouping of operands: replicas of one file, and different files.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::core::error::{Code, Error, Result};

/// One operand: the hosts of the path, each once, and the operand as typed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct CopyOperand {
    /// Names of its nodes: of the operand's hosts, or of the node for local paths.
    pub(super) hosts: Vec<String>,
    /// Path as the hosts are asked for it: a relative one lies below a home, or a root.
    pub(super) path: PathBuf,
    pub(super) typed: String,
    /// User to log in as.
    pub(super) user: Option<String>,
    /// True for a path of this machine.
    pub(super) is_local: bool,
}

/// One file and its locations: every host of every operand holds a replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct CopyFile {
    /// Its base name, which it keeps in a directory.
    pub(super) name: OsString,
    pub(super) places: Vec<CopyOperand>,
}

impl CopyOperand {
    /// Returns the operand as one of its hosts has it.
    pub(super) fn at(&self, host: &str) -> String {
        match self.hosts.len() {
            1 => self.typed.clone(),
            _ => format!("{host}:{}", self.path.display()),
        }
    }

    /// Returns true for a path that can only be a directory: it ends with a slash, or with `.` or
    /// `..`.
    pub(super) fn names_directory(&self) -> bool {
        let bytes = self.path.as_os_str().as_bytes();
        // A path without a name is the home.
        let ends = [&b"/"[..], b"/.", b"/.."].iter().any(|end| bytes.ends_with(end));
        ends || [&b""[..], b".", b".."].contains(&bytes)
    }
}

/// Groups operands into files, in the order of their first mention.
///
/// Operands with the same base name on different hosts are replicas of one file.
///
/// # Errors
/// `Usage` if two operands of one host have the same base name: they would be one file at the
/// destination.
pub(super) fn group(places: Vec<CopyOperand>) -> Result<Vec<CopyFile>> {
    let mut files: Vec<CopyFile> = Vec::new();
    for place in places {
        let name = place.path.file_name().unwrap_or_else(|| OsStr::new("/")).to_os_string();
        let Some(file) = files.iter_mut().find(|file| file.name == name) else {
            files.push(CopyFile { name, places: vec![place] });
            continue;
        };
        let shares_host =
            |other: &&CopyOperand| other.hosts.iter().any(|host| place.hosts.contains(host));
        if let Some(other) = file.places.iter().find(shares_host) {
            let what = format!(
                "{} and {} would both become {}",
                other.typed,
                place.typed,
                Path::new(&name).display()
            );
            return Err(Error::new(Code::Usage, what)
                .remedy("copy them one by one, each to a name of its own"));
        }
        file.places.push(place);
    }
    Ok(files)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn place(host: &str, path: &str) -> CopyOperand {
        CopyOperand {
            hosts: host.split(',').map(String::from).collect(),
            path: path.into(),
            typed: format!("{host}:{path}"),
            user: None,
            is_local: false,
        }
    }

    #[test]
    fn one_name_on_different_hosts_is_one_file_and_another_name_is_another() {
        let places =
            vec![place("a,b", "/d/x"), place("c", "/e/x"), place("a", "/d/y"), place("a", "/d/x2")];
        let files = group(places).unwrap();
        let facts: Vec<(String, usize)> =
            files.iter().map(|file| (file.name.display().to_string(), file.places.len())).collect();
        assert_eq!(facts, [("x".into(), 2), ("y".into(), 1), ("x2".into(), 1)]);
    }

    #[test]
    fn one_name_twice_on_a_host_would_be_one_file_at_the_destination() {
        for places in [
            vec![place("a", "/d/x"), place("a", "/e/x")],
            vec![place("a", "/d/x"), place("a", "/d/x")],
            vec![place("a,b", "/x"), place("c", "/x"), place("d,b", "/y/x")],
        ] {
            let error = group(places).unwrap_err();
            assert_eq!(error.code, Code::Usage);
            assert!(error.message.contains("would both become x"), "{error}");
        }
    }

    #[test]
    fn a_slash_or_dots_at_the_end_name_a_directory() {
        for (path, is_directory) in
            [("/d/", true), ("/d/.", true), ("/d/..", true), ("/d", false), ("/d/.x", false)]
                .into_iter()
                .chain([("", true), (".", true), ("..", true), ("x", false), ("x/", true)])
        {
            assert_eq!(place("a", path).names_directory(), is_directory, "{path}");
        }
    }
}
