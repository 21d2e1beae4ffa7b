//! Root directory of a node: it reads and writes below it and nowhere else.
//!
//! The kernel enforces it (`openat2` with `RESOLVE_BENEATH`), so a link that is swapped in during
//! the look-up cannot lead out. Where a filter of system calls hides `openat2`, `walk` enforces it,
//! a component at a time.
//!
//! A root is opened for each transfer, so the next one sees what was mounted on it, or made anew
//! under its name.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

use super::fault::{fault, refused, unserved};
use super::walk;
use super::walk::PathRules;
use crate::core::error::Result;

/// A directory below which every path of a node lies.
#[derive(Debug)]
pub(crate) struct StoreRoot {
    directory: OwnedFd,
    /// Path as it was given; it may go through links.
    given: PathBuf,
    path: PathBuf,
    rules: PathRules,
    allowed: AllowedKinds,
}

/// Kinds of data that a node serves only where its owner allows it: they reach beyond the files
/// below its root.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct AllowedKinds {
    /// `mem:` objects, which belong to the whole machine.
    pub(crate) memory: bool,
    /// Block devices, which hold file systems of their own.
    pub(crate) devices: bool,
}

#[cfg(test)]
impl AllowedKinds {
    pub(crate) const ALL: AllowedKinds = AllowedKinds { memory: true, devices: true };
}

impl StoreRoot {
    /// Opens the root directory `path`, which the node's owner chose and which may itself go
    /// through links.
    ///
    /// # Errors
    /// `Data` where it is missing, no directory, or not to be entered.
    pub(crate) fn open(path: &Path) -> Result<StoreRoot> {
        let blame = |errno| {
            fault(errno, path, "used as the root").remedy("name an existing directory with --root")
        };
        let whole = path.canonicalize().map_err(|error| blame(errno_of(&error)))?;
        let directory = open(&whole, DIRECTORY, Mode::empty()).map_err(blame)?;
        // Nothing leads out of `/`. There, absolute links are how machines lay out their disks
        // (/home, /scratch).
        let rules = PathRules { beneath: whole != Path::new("/"), links: true };
        Ok(StoreRoot {
            directory,
            given: path.to_path_buf(),
            path: whole,
            rules,
            allowed: AllowedKinds::default(),
        })
    }

    /// The same root for a node that serves more than regular files.
    pub(crate) fn allowing(self, allowed: AllowedKinds) -> StoreRoot {
        StoreRoot { allowed, ..self }
    }

    /// Path that it was opened by. By now the path may mean another directory: one that was mounted
    /// on it, or has taken its name.
    pub(super) fn given(&self) -> &Path {
        &self.given
    }

    /// Directory of POSIX shared memory. No link is followed there, because everybody may make
    /// some.
    ///
    /// # Errors
    /// `Data` where the system has none.
    pub(super) fn shared_memory() -> Result<StoreRoot> {
        let root = StoreRoot::open(Path::new("/dev/shm"))
            .map_err(|error| error.remedy("mount a tmpfs at /dev/shm"))?;
        Ok(StoreRoot { rules: PathRules { links: false, ..root.rules }, ..root })
    }

    /// Refuses shared memory where the node's owner has not allowed it.
    pub(super) fn check_memory(&self, name: &Path) -> Result<()> {
        if self.allowed.memory { Ok(()) } else { Err(unserved(name, "shared memory", "mem")) }
    }

    /// Refuses block devices where the node's owner has not allowed them.
    pub(super) fn check_device(&self, path: &Path) -> Result<()> {
        if self.allowed.devices { Ok(()) } else { Err(unserved(path, "block devices", "devices")) }
    }

    /// Path of the root.
    #[cfg(test)]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens `path`, absolute as in a data URI, below the root. The mode counts where `flags`
    /// create.
    ///
    /// # Errors
    /// `Refused` where the path has `..` or leads out through a link, `Data` for everything else
    /// that fails.
    #[cfg(test)]
    pub(crate) fn open_beneath(&self, path: &Path, flags: OFlag, mode: Mode) -> Result<OwnedFd> {
        self.try_open(path, flags, mode)?.map_err(|errno| fault(errno, path, "opened"))
    }

    /// Opens `path`, absolute as in a data URI, below the root. The inner result is the system's;
    /// only a path that leads out (`..`, or a link) is an outer error, `Refused`.
    pub(super) fn try_open(
        &self,
        path: &Path,
        flags: OFlag,
        mode: Mode,
    ) -> Result<nix::Result<OwnedFd>> {
        let relative = self.relative(path)?;
        // The kernel refuses a mode where nothing is created.
        let mode = if flags.contains(OFlag::O_CREAT) { mode } else { Mode::empty() };
        self.judged(
            path,
            match self.resolved_by_kernel(&relative, flags, mode) {
                // A filter hides the call (containers, service managers), or the file itself may
                // not be opened; then the walk is refused too.
                Err(Errno::ENOSYS | Errno::EPERM) => {
                    walk::open(&self.directory, &relative, flags, mode, self.rules)
                }
                done => done,
            },
        )
    }

    /// Like [`Self::try_open`], by `walk` alone.
    #[cfg(test)]
    pub(super) fn walk_beneath(
        &self,
        path: &Path,
        flags: OFlag,
        mode: Mode,
    ) -> Result<nix::Result<OwnedFd>> {
        let relative = self.relative(path)?;
        self.judged(path, walk::open(&self.directory, &relative, flags, mode, self.rules))
    }

    fn resolved_by_kernel(
        &self,
        relative: &Path,
        flags: OFlag,
        mode: Mode,
    ) -> nix::Result<OwnedFd> {
        let mut resolve = ResolveFlag::RESOLVE_NO_MAGICLINKS;
        resolve.set(ResolveFlag::RESOLVE_BENEATH, self.rules.beneath);
        resolve.set(ResolveFlag::RESOLVE_NO_SYMLINKS, !self.rules.links);
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(resolve);
        // EAGAIN: something was renamed while the kernel resolved the path. By accident that does
        // not happen many times in a row.
        let mut attempts_left = RESOLVE_ATTEMPTS_MAX;
        loop {
            attempts_left -= 1;
            match openat2(&self.directory, relative, how) {
                Err(Errno::EAGAIN | Errno::EINTR) if attempts_left > 0 => {}
                done => return done,
            }
        }
    }

    fn judged(&self, path: &Path, opened: nix::Result<OwnedFd>) -> Result<nix::Result<OwnedFd>> {
        match opened {
            Err(Errno::EXDEV) => {
                Err(refused(path, &self.path, "a link in it leads out of the root"))
            }
            Err(Errno::ELOOP) => Err(refused(path, &self.path, "a link in it may not be followed")),
            done => Ok(done),
        }
    }

    /// `path` relative to the root: without its leading `/`, and without any `..`.
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

impl AsFd for StoreRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Error number of the system in an error of the standard library.
pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw)
}

/// Flags for a directory to start from: it needs no permission to list.
pub(super) const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

const RESOLVE_ATTEMPTS_MAX: u32 = 64;
