//! CPUs that the processes of a machine have taken for threads that are pinned.
//!
//! Each process chooses its CPUs alone, and would choose as its neighbours do. So a pinned thread
//! holds a lock on a byte of one file that all processes share: a byte for each CPU and each thread
//! that it has. The kernel releases the locks of a process that ends. Where the file cannot be had,
//! nobody knows of anybody else, and the first CPU of each list is taken.
//!
//! The locks are `F_OFD_SETLK` of fcntl(2).

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;

/// The shared file of a machine. It stays empty.
pub const CLAIMS_FILE: &str = "/dev/shm/cep-fast.cpus";
/// Pinned threads of a CPU that are told apart.
const THREADS_MAX: usize = 8;
/// CPUs that are told apart.
const CPUS_MAX: usize = 8192;

/// The CPUs taken on this machine.
#[derive(Clone, Debug)]
pub struct CpuClaims {
    path: PathBuf,
}

/// A CPU taken for one thread, until it is dropped.
#[derive(Debug)]
pub struct CpuClaim {
    cpu: usize,
    /// The lock goes with it.
    _lock: Option<File>,
}

impl CpuClaim {
    /// Returns the CPU.
    #[must_use]
    pub fn cpu(&self) -> usize {
        self.cpu
    }
}

impl Default for CpuClaims {
    /// Returns the claims of all processes of this machine.
    fn default() -> CpuClaims {
        CpuClaims::at(Path::new(CLAIMS_FILE))
    }
}

impl CpuClaims {
    /// Returns the claims in another shared file.
    #[must_use]
    pub fn at(path: &Path) -> CpuClaims {
        CpuClaims { path: path.to_owned() }
    }

    /// Makes the shared file, if it is missing: a process that is confined later can make none.
    /// Processes that cannot make or open it choose CPUs alone.
    pub fn make(&self) {
        let _ = self.open();
    }

    /// Takes the first of these CPUs that nobody has; where each is somebody's, the first of those
    /// that the fewest have. Returns `None` if the list is empty.
    #[must_use]
    pub fn claim(&self, cpus: &[usize]) -> Option<CpuClaim> {
        let first = *cpus.first()?;
        let unshared = CpuClaim { cpu: first, _lock: None };
        let Ok(file) = self.open() else { return Some(unshared) };
        for thread in 0..THREADS_MAX {
            for &cpu in cpus.iter().filter(|&&cpu| cpu < CPUS_MAX) {
                match lock(&file, cpu * THREADS_MAX + thread) {
                    Ok(true) => return Some(CpuClaim { cpu, _lock: Some(file) }),
                    Ok(false) => {}
                    // A file system without locks.
                    Err(_) => return Some(unshared),
                }
            }
        }
        Some(unshared)
    }

    /// Opens the shared file; each open file has locks of its own.
    fn open(&self) -> std::io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
        match options.open(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let file = options.create_new(true).open(&self.path);
                // Another process was faster.
                let Ok(file) = file else { return options.create_new(false).open(&self.path) };
                // Processes of other users lock it, too.
                file.set_permissions(Permissions::from_mode(0o666))?;
                Ok(file)
            }
            opened => opened,
        }
    }
}

/// Locks one byte. Returns false if another open file has it.
fn lock(file: &File, byte: usize) -> nix::Result<bool> {
    let wanted = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte as libc::off_t,
        l_len: 1,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&wanted)) {
        Ok(_) => Ok(true),
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_take_other_cpus_while_there_are_free_ones() {
        let folder = tempfile::tempdir().expect("a folder");
        let claims = || CpuClaims::at(&folder.path().join("cpus"));
        let cpus = |held: &[CpuClaim]| held.iter().map(CpuClaim::cpu).collect::<Vec<_>>();
        let mut held: Vec<_> = (0..3).filter_map(|_| claims().claim(&[0, 1, 2])).collect();
        assert_eq!(cpus(&held), [0, 1, 2]);
        held.extend((0..3).filter_map(|_| claims().claim(&[2, 1])));
        assert_eq!(cpus(&held[3..]), [2, 1, 2], "evenly, where all are taken");
        held.remove(1);
        assert_eq!(
            claims().claim(&[2, 1]).map(|it| it.cpu()),
            Some(1),
            "it has one thread, CPU 2 three"
        );
    }

    #[test]
    fn a_cpu_that_is_given_back_is_free() {
        let folder = tempfile::tempdir().expect("a folder");
        let claims = CpuClaims::at(&folder.path().join("cpus"));
        let first = claims.claim(&[5, 7]).expect("one");
        assert_eq!(claims.claim(&[5, 7]).map(|it| it.cpu()), Some(7));
        drop(first);
        assert_eq!(claims.claim(&[5, 7]).map(|it| it.cpu()), Some(5));
    }

    #[test]
    fn without_the_file_the_first_cpu_is_taken() {
        let claims = CpuClaims::at(Path::new("/nowhere/cpus"));
        assert_eq!(claims.claim(&[3, 1]).map(|it| it.cpu()), Some(3));
        assert!(claims.claim(&[]).is_none());
        // A link that somebody else has laid is not followed.
        let folder = tempfile::tempdir().expect("a folder");
        let (link, target) = (folder.path().join("cpus"), folder.path().join("target"));
        std::os::unix::fs::symlink(&target, &link).expect("a link");
        assert_eq!(CpuClaims::at(&link).claim(&[3, 1]).map(|it| it.cpu()), Some(3));
        assert!(!target.exists());
    }
}
