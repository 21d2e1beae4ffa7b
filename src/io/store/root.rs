//! One root directory of a node: it reads and writes below its roots and nowhere else.
//!
//! The kernel enforces it (`openat2` with `RESOLVE_BENEATH`), so a link that is swapped in during
//! the look-up cannot lead out. Where a filter of system calls hides `openat2`, `walk` enforces it,
//! a component at a time.
//!
//! A root is opened for each transfer, so the next one sees what was mounted on it, or made anew
//! under its name. A node that the kernel confines may not open that, and says so.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{Mode, fstat};

use super::fault::{fault, refused, unserved};
use super::open::identity;
use super::walk;
use super::walk::PathRules;
use crate::core::error::{Code, Error, Result};
use crate::core::spec::RootName;

/// A directory below which paths of a node lie.
#[derive(Debug)]
pub(crate) struct StoreRoot {
    directory: OwnedFd,
    place: RootPlace,
    path: PathBuf,
    rules: PathRules,
    serves_devices: bool,
}

/// Place of a root: enough to open it again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RootPlace {
    pub(crate) name: RootName,
    /// Path as the node's owner gave it; it may go through links.
    pub(crate) directory: PathBuf,
    /// Device and inode of the directory that a confined node may open, and no other one.
    pub(crate) confined_to: Option<(u64, u64)>,
}

impl RootPlace {
    /// The root of all paths.
    pub(crate) fn whole(directory: &Path) -> RootPlace {
        RootPlace { name: RootName::Whole, directory: directory.to_path_buf(), confined_to: None }
    }

    /// Opens the directory, which may itself go through links.
    ///
    /// # Errors
    /// `Data` where it is missing, no directory, or not to be entered; `Refused` where another
    /// directory has taken the name since the node was confined.
    pub(crate) fn open(&self) -> Result<StoreRoot> {
        let (path, directory) = self.resolve()?;
        if let Some(confined_to) = self.confined_to {
            self.check_not_replaced(&directory, confined_to)?;
        }
        // Nothing leads out of `/`. There, absolute links are how machines lay out their disks
        // (/home, /scratch).
        let rules = PathRules { beneath: path != Path::new("/"), links: true };
        Ok(StoreRoot { directory, place: self.clone(), path, rules, serves_devices: false })
    }

    /// The path without links, and the directory there.
    ///
    /// # Errors
    /// `Data` where it is missing, no directory, or not to be entered.
    pub(super) fn resolve(&self) -> Result<(PathBuf, OwnedFd)> {
        let blame = |errno| {
            fault(errno, &self.directory, "used as the root")
                .remedy("name an existing directory with --root")
        };
        let path = self.directory.canonicalize().map_err(|error| blame(errno_of(&error)))?;
        let directory = open(&path, DIRECTORY, Mode::empty()).map_err(blame)?;
        Ok((path, directory))
    }

    /// The kernel opens nothing in a directory that the node was not confined to, also not in one
    /// that was mounted on its root.
    fn check_not_replaced(&self, directory: &OwnedFd, confined_to: (u64, u64)) -> Result<()> {
        let is_same = fstat(directory).is_ok_and(|now| identity(&now) == confined_to);
        let listed = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = || openat(directory, ".", listed, Mode::empty());
        if is_same || opened().err() != Some(Errno::EACCES) {
            return Ok(());
        }
        let RootPlace { name, directory, .. } = self;
        let what = format!(
            "root {name} was replaced since the node started: {} is another directory now, made \
             anew or mounted",
            directory.display()
        );
        Err(Error::new(Code::Refused, what).remedy("restart the node"))
    }
}

impl StoreRoot {
    /// Opens the root of all paths at `path`.
    ///
    /// # Errors
    /// Those of [`RootPlace::open`].
    pub(crate) fn open(path: &Path) -> Result<StoreRoot> {
        RootPlace::whole(path).open()
    }

    /// The same root for a node that serves block devices.
    pub(super) fn with_devices(self, serves_devices: bool) -> StoreRoot {
        StoreRoot { serves_devices, ..self }
    }

    /// Its place. By now another directory may be there: one that was mounted on it, or has taken
    /// its name.
    pub(super) fn place(&self) -> &RootPlace {
        &self.place
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

    /// Refuses block devices where the node's owner has not allowed them.
    pub(super) fn check_device(&self, path: &Path) -> Result<()> {
        if self.serves_devices { Ok(()) } else { Err(unserved(path, "block devices", "devices")) }
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

    /// `path` is the root itself.
    pub(super) fn is_top(&self, path: &Path) -> Result<bool> {
        Ok(self.relative(path)? == Path::new("."))
    }

    /// `path` relative to the root: without its leading `/` and the root's name, and without any
    /// `..`.
    pub(super) fn relative(&self, path: &Path) -> Result<PathBuf> {
        let mut relative = PathBuf::from(".");
        let mut components = path.components().peekable();
        components.next_if_eq(&Component::RootDir);
        if let Some(name) = self.place.name.component() {
            let is_below = components.next() == Some(Component::Normal(name.as_ref()));
            assert!(is_below, "the root {name} was found for {}", path.display());
        }
        for component in components {
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
