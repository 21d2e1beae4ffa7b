//! The root that a node serves below, and writes below, and nowhere else.
//!
//! The kernel keeps the promise (`openat2` with `RESOLVE_BENEATH`), so a link that is swapped in while we look cannot
//! lead us out.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

use super::fault::{fault, refused};
use crate::error::{Code, Error, Result};

/// A directory below which every path of a node lies.
#[derive(Debug)]
pub(crate) struct Root {
    directory: OwnedFd,
    path: PathBuf,
    resolve: ResolveFlag,
}

impl Root {
    /// Opens the root directory `path`, which the node's owner chose and which may itself go through links.
    ///
    /// # Errors
    /// `Data` where it is missing, no directory, or not to be entered.
    pub(crate) fn open(path: &Path) -> Result<Root> {
        let blame = |errno| fault(errno, path, "used as the root").remedy("name an existing directory with --root");
        let whole = path.canonicalize().map_err(|error| blame(errno_of(&error)))?;
        let directory = open(&whole, DIRECTORY, Mode::empty()).map_err(blame)?;
        // Nothing leads out of `/`. There, absolute links are how machines lay out their disks (/home, /scratch).
        let bound = if whole == Path::new("/") { ResolveFlag::empty() } else { ResolveFlag::RESOLVE_BENEATH };
        Ok(Root { directory, path: whole, resolve: bound | ResolveFlag::RESOLVE_NO_MAGICLINKS })
    }

    /// The directory of POSIX shared memory, where no link is followed at all: everybody may make links there.
    ///
    /// # Errors
    /// `Data` where the system has none.
    pub(super) fn shared_memory() -> Result<Root> {
        let root = Root::open(Path::new("/dev/shm")).map_err(|error| error.remedy("mount a tmpfs at /dev/shm"))?;
        Ok(Root { resolve: root.resolve | ResolveFlag::RESOLVE_NO_SYMLINKS, ..root })
    }

    /// Where the root is.
    #[cfg(test)]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens `path`, absolute as in a data URI, below the root. The mode counts where `flags` create.
    ///
    /// # Errors
    /// `Refused` where the path has `..` or leads out through a link, `Data` for everything else that fails.
    #[cfg(test)]
    pub(crate) fn open_beneath(&self, path: &Path, flags: OFlag, mode: Mode) -> Result<OwnedFd> {
        self.try_open(path, flags, mode)?.map_err(|errno| fault(errno, path, "opened"))
    }

    /// Opens `path`, absolute as in a data URI, below the root. The system's refusals are left for the caller to judge:
    /// only paths that lead out (`..`, or a link) are errors of the outer kind, `Refused`.
    pub(super) fn try_open(&self, path: &Path, flags: OFlag, mode: Mode) -> Result<nix::Result<OwnedFd>> {
        let relative = self.relative(path)?;
        // The kernel refuses a mode where nothing is created.
        let mode = if flags.contains(OFlag::O_CREAT) { mode } else { Mode::empty() };
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(self.resolve);
        // EAGAIN says that something was renamed while the kernel resolved; that cannot go on for long by accident.
        let mut attempts_left = RESOLVE_ATTEMPTS_MAX;
        loop {
            attempts_left -= 1;
            match openat2(&self.directory, &relative, how) {
                Err(Errno::EAGAIN) if attempts_left > 0 => {}
                Err(Errno::EXDEV) => return Err(refused(path, &self.path, "a link in it leads out of the root")),
                Err(Errno::ELOOP) => return Err(refused(path, &self.path, "a link in it may not be followed")),
                Err(Errno::ENOSYS) => return Err(too_old()),
                done => return Ok(done),
            }
        }
    }

    /// `path` as it is seen from the root: without its leading `/`, and without any `..`.
    pub(super) fn relative(&self, path: &Path) -> Result<PathBuf> {
        let mut relative = PathBuf::from(".");
        for component in path.components() {
            match component {
                Component::Normal(name) => relative.push(name),
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(refused(path, &self.path, "it contains `..`"));
                }
            }
        }
        Ok(relative)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// The system's error number behind one of the standard library's errors.
pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw)
}

fn too_old() -> Error {
    Error::new(Code::Data, "this kernel cannot open files below a root (openat2)").remedy("use Linux 6.1 or newer")
}

/// Only a place to start from: it needs no permission to list.
pub(super) const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

const RESOLVE_ATTEMPTS_MAX: u32 = 64;
