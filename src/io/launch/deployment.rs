//! Deployment: the program is sent to hosts that have none of this version.
//!
//! Homes are often shared: the first host is sent it, and all others look again before they are.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::core::error::{Code, Error, Result};
use crate::core::launch::host_script::{LOOK_AGAIN, dialect, sends};
use crate::core::units::printable;

/// Where a package puts static builds.
const INSTALLED: &str = "/usr/lib/cep-fast";
/// Bytes that are sent at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Longest wait of a host for the first one that is sent the program.
const FIRST_WITHIN: Duration = Duration::from_secs(300);

/// The program as it is sent to hosts.
pub(super) struct ProgramDeployment {
    allowed: bool,
    /// The own program, if it is known.
    program: Option<PathBuf>,
    turn: Mutex<DeploymentTurn>,
    changed: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum DeploymentTurn {
    /// No host was sent it.
    Nobody,
    /// The first one is.
    First,
    /// The first one has it, or failed.
    All,
}

impl ProgramDeployment {
    pub(super) fn new(allowed: bool, program: Option<&Path>) -> ProgramDeployment {
        ProgramDeployment {
            allowed,
            program: program.map(Path::to_path_buf),
            turn: Mutex::new(DeploymentTurn::Nobody),
            changed: Condvar::new(),
        }
    }

    /// Answers a host that has no program; returns true if one was sent, false if it looks again.
    /// `is_again` says that it has looked twice; `progress` is
    /// called while bytes go out, and while the host waits for its turn.
    ///
    /// # Errors
    /// `Code::Unreachable` if none may be sent, or there is none for that machine; `Code::Data` if
    /// the own one cannot be read.
    pub(super) fn answer(
        &self,
        (system, machine): (&str, &str),
        is_again: bool,
        stdin: &mut impl Write,
        mut progress: impl FnMut(),
    ) -> Result<bool> {
        if !self.allowed {
            let what = format!(
                "there is no cep-fast of this version ({} {}), and --deploy never sends none",
                env!("CARGO_PKG_VERSION"),
                dialect()
            );
            return Err(Error::new(Code::Unreachable, what)
                .remedy("install it there, in the search path of sessions without a terminal"));
        }
        if !is_again && !self.is_first(&mut progress) {
            // A host that has gone says so by its end.
            let _ = stdin.write_all(LOOK_AGAIN.as_bytes()).and_then(|()| stdin.flush());
            return Ok(false);
        }
        let path = self.program_for(system, machine)?;
        let unreadable = |error: io::Error| {
            Error::new(Code::Data, format!("{}: cannot be read: {error}", path.display()))
                .remedy("it is the program that is sent to hosts: allow yourself to read it")
        };
        let mut file = File::open(&path).map_err(unreadable)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&mut file).map_err(unreadable)?;
        let (bytes, hash) = (hasher.count(), hasher.finalize().to_hex());
        let mut file = File::open(&path).map_err(unreadable)?.take(bytes);
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut sent = stdin.write_all(sends(bytes, &hash).as_bytes());
        while sent.is_ok() {
            let filled = file.read(&mut chunk).map_err(unreadable)?;
            if filled == 0 {
                break;
            }
            sent = stdin.write_all(&chunk[..filled]);
            progress();
        }
        Ok(true)
    }

    /// The first host that was sent it has it, or has failed.
    pub(super) fn first_is_done(&self) {
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = DeploymentTurn::All;
        self.changed.notify_all();
    }

    /// Returns true for the first host. Others wait until that has it.
    fn is_first(&self, progress: &mut impl FnMut()) -> bool {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if *turn == DeploymentTurn::Nobody {
            *turn = DeploymentTurn::First;
            return true;
        }
        let step = Duration::from_secs(1);
        let mut waited = Duration::ZERO;
        while *turn == DeploymentTurn::First && waited < FIRST_WITHIN {
            let (next, timeout) =
                self.changed.wait_timeout(turn, step).unwrap_or_else(PoisonError::into_inner);
            turn = next;
            if timeout.timed_out() {
                waited += step;
                progress();
            }
        }
        false
    }

    /// Returns the program for a machine: a static build, or this very program.
    fn program_for(&self, system: &str, machine: &str) -> Result<PathBuf> {
        let (system, machine) = (printable(system), printable(machine));
        let name = format!("cep-fast-static-{machine}");
        let own_folder = self.program.as_deref().and_then(Path::parent);
        let folders = own_folder.into_iter().chain([Path::new(INSTALLED)]);
        let is_name = !machine.contains('/');
        let found = folders.map(|folder| folder.join(&name)).find(|path| path.is_file());
        if let (Some(path), true, "Linux") = (found, is_name, system.as_ref()) {
            return Ok(path);
        }
        let is_own = machine == std::env::consts::ARCH && system == "Linux";
        self.program.clone().filter(|_| is_own).ok_or_else(|| {
            let what = format!(
                "there is no cep-fast of this version, and none for {system} on {machine} to send"
            );
            Error::new(Code::Unreachable, what).remedy(format!(
                "install it there, or build {name} with tools/release and put it beside this \
                 program or into {INSTALLED}"
            ))
        })
    }
}
