//! Confinement of this process by the kernel: what it may open (Landlock), and which system calls
//! it may make (seccomp).
//!
//! Both bind the calling thread and the threads that it makes from then on. A process is confined
//! once, while it has one thread, and never freed again.

mod calls;
mod files;

use std::fmt;

pub(crate) use calls::obstacle as calls_obstacle;
pub(crate) use files::{
    ConfinedPath, PathAccess, obstacle as files_obstacle, weakness as files_weakness,
};

use crate::core::error::{Code, Error, Result};

/// Whether a process is confined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ConfineMode {
    /// As far as the kernel can.
    Auto,
    Off,
    /// Wholly, or the process does not start.
    Required,
}

/// What binds this process.
#[derive(Debug)]
pub(crate) struct Confinement {
    /// Reason why the files that it may open are not bound, if so.
    files: std::result::Result<(), String>,
    /// What an old kernel leaves it all the same, if so.
    weakness: Option<String>,
    /// Reason why its system calls are not bound, if so.
    calls: std::result::Result<(), String>,
    /// Held open: some file systems forget the directories that rules are bound to.
    _held: Vec<files::HeldPath>,
}

impl Confinement {
    /// Confines the calling thread, and those that it makes from now on, to `paths` and to the
    /// calls that a node needs. Paths that are not there are left out.
    ///
    /// # Errors
    /// `Refused` where it is required and the kernel cannot.
    pub(crate) fn begin(mode: ConfineMode, paths: &[ConfinedPath]) -> Result<Confinement> {
        if mode == ConfineMode::Off {
            let off = || Err("--confine off".to_owned());
            return Ok(Confinement {
                files: off(),
                weakness: None,
                calls: off(),
                _held: Vec::new(),
            });
        }
        // A refusal changes nothing.
        if mode == ConfineMode::Required {
            let cannot = files_obstacle().or_else(files_weakness).or_else(calls_obstacle);
            cannot.map_or(Ok(()), |why| Err(refused(&why)))?;
        }
        let weakness = files_weakness();
        let (files, held) = match files::confine(paths) {
            Ok(held) => (Ok(()), held),
            Err(why) => (Err(why), Vec::new()),
        };
        // Last: the calls above are not among those that are left.
        let calls = calls::confine();
        let confinement = Confinement { files, weakness, calls, _held: held };
        match confinement.obstacle() {
            Some(why) if mode == ConfineMode::Required => Err(refused(why)),
            _ => Ok(confinement),
        }
    }

    /// The kernel lets this process open nothing but its paths.
    pub(crate) fn binds_files(&self) -> bool {
        self.files.is_ok()
    }

    /// Reason why it is not wholly confined, if so.
    pub(crate) fn obstacle(&self) -> Option<&str> {
        let files = self.files.as_ref().err().or(self.weakness.as_ref());
        files.or(self.calls.as_ref().err()).map(String::as_str)
    }
}

impl fmt::Display for Confinement {
    /// Writes what is bound: `files,calls`, one of them, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (&self.files, &self.calls) {
            (Ok(()), Ok(())) => "files,calls",
            (Ok(()), Err(_)) => "files",
            (Err(_), Ok(())) => "calls",
            (Err(_), Err(_)) => "none",
        })
    }
}

fn refused(why: &str) -> Error {
    Error::new(Code::Refused, format!("--confine required: {why}"))
        .remedy("cep-fast doctor says what is missing; --confine auto does without it")
}

#[cfg(test)]
mod tests;
