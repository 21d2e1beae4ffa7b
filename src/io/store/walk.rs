//! Opening of a path below a directory without `openat2`, where a filter of system calls hides it.
//!
//! Each component is opened by its name alone, from the descriptor of the directory before it. The
//! kernel follows no link: links are read and walked here. `..` of a link goes back to the
//! descriptor that the walk came from. Even if names are swapped meanwhile, every component is
//! taken from a directory that the walk has reached.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::open::retried;

/// Rules for resolving paths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PathRules {
    /// Absolute links, and `..` above the start, are refused. Otherwise `..` stays at the start.
    pub(super) beneath: bool,
    /// Links are followed. Those of the kernel, which lead where no name does, never are.
    pub(super) links: bool,
}

/// Opens `path` below `start`, as `openat2` does with the same rules: `EXDEV` for what leads out,
/// `ELOOP` for links that are not followed.
pub(super) fn open(
    start: &OwnedFd,
    path: &Path,
    flags: OFlag,
    mode: Mode,
    rules: PathRules,
) -> nix::Result<OwnedFd> {
    let mut walk =
        PathWalk { start, below: Vec::new(), ahead: steps(path), links_left: LINKS_MAX, rules };
    while let Some(step) = walk.ahead.pop() {
        let is_last = walk.ahead.is_empty();
        match step {
            PathStep::Start if rules.beneath => return Err(Errno::EXDEV),
            PathStep::Start => walk.below.clear(),
            PathStep::Up if walk.below.pop().is_none() && rules.beneath => {
                return Err(Errno::EXDEV);
            }
            PathStep::Up => {}
            PathStep::Into(name) => {
                if let Some(opened) = walk.enter(&name, is_last.then_some((flags, mode)))? {
                    return Ok(opened);
                }
            }
        }
    }
    // The path ended at a directory that has been reached: the start, or where a link led.
    walk.open_at(OsStr::new("."), flags, mode)
}

/// One step of a path.
enum PathStep {
    /// To the root of all names.
    Start,
    Up,
    Into(OsString),
}

struct PathWalk<'a> {
    start: &'a OwnedFd,
    /// The directories from the start to where the walk is.
    below: Vec<OwnedFd>,
    /// The steps to come, the next one last.
    ahead: Vec<PathStep>,
    links_left: u32,
    rules: PathRules,
}

impl PathWalk<'_> {
    fn here(&self) -> BorrowedFd<'_> {
        self.below.last().map_or(self.start.as_fd(), AsFd::as_fd)
    }

    /// Takes the step to `name`: into a directory, along a link, or, at the end of the path, by
    /// opening it.
    fn enter(&mut self, name: &OsStr, last: Option<(OFlag, Mode)>) -> nix::Result<Option<OwnedFd>> {
        let found = match self.open_at(name, OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty()) {
            Ok(found) => found,
            Err(Errno::ENOENT) => {
                let Some((flags, mode)) = last.filter(|(flags, _)| flags.contains(OFlag::O_CREAT))
                else {
                    return Err(Errno::ENOENT);
                };
                return self.open_at(name, flags | OFlag::O_NOFOLLOW, mode).map(Some);
            }
            Err(errno) => return Err(errno),
        };
        let about = fstat(&found)?;
        let kind = SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT;
        match (kind, last) {
            // As openat2: an exclusive creation fails for any file of that name.
            (_, Some((flags, _))) if flags.contains(OFlag::O_CREAT | OFlag::O_EXCL) => {
                Err(Errno::EEXIST)
            }
            (SFlag::S_IFLNK, Some((flags, mode))) if flags.contains(OFlag::O_NOFOLLOW) => {
                self.open_at(name, flags, mode).map(Some)
            }
            (SFlag::S_IFLNK, _) => self.follow(&found, &about).map(|()| None),
            (_, Some((flags, mode))) => match self.open_at(name, flags | OFlag::O_NOFOLLOW, mode) {
                // A link has taken the name since.
                Err(Errno::ELOOP) => self.again(name),
                opened if flags.contains(OFlag::O_PATH) && is_link(&opened) => self.again(name),
                opened => opened.map(Some),
            },
            (SFlag::S_IFDIR, None) => {
                self.below.push(found);
                Ok(None)
            }
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn again(&mut self, name: &OsStr) -> nix::Result<Option<OwnedFd>> {
        self.links_left = self.links_left.checked_sub(1).ok_or(Errno::ELOOP)?;
        self.ahead.push(PathStep::Into(name.to_owned()));
        Ok(None)
    }

    /// Puts the steps of a link before those to come.
    fn follow(&mut self, link: &OwnedFd, about: &FileStat) -> nix::Result<()> {
        if !self.rules.links || self.is_of_the_kernel(about)? {
            return Err(Errno::ELOOP);
        }
        self.links_left = self.links_left.checked_sub(1).ok_or(Errno::ELOOP)?;
        let target = retried(|| readlinkat(link, ""))?;
        self.ahead.extend(steps(Path::new(&target)));
        Ok(())
    }

    /// A link may lead where no name does. Those at the top of a /proc are plain ones (`self`,
    /// `mounts`).
    fn is_of_the_kernel(&self, about: &FileStat) -> nix::Result<bool> {
        let here = self.here();
        let is_proc = match fstatfs(here) {
            Ok(system) => system.filesystem_type() == PROC_SUPER_MAGIC,
            // Unknown: a link of /proc has no size.
            Err(_) => about.st_size == 0,
        };
        Ok(is_proc && fstat(here)?.st_ino != PROC_TOP)
    }

    fn open_at(&self, name: &OsStr, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
        retried(|| openat(self.here(), name, flags | OFlag::O_CLOEXEC, mode))
    }
}

fn is_link(opened: &nix::Result<OwnedFd>) -> bool {
    let about = opened.as_ref().ok().and_then(|opened| fstat(opened).ok());
    about.is_some_and(|about| {
        SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK
    })
}

/// The steps of a path, the first one last.
fn steps(path: &Path) -> Vec<PathStep> {
    let step = |component| match component {
        Component::RootDir => Some(PathStep::Start),
        Component::ParentDir => Some(PathStep::Up),
        Component::Normal(name) => Some(PathStep::Into(name.to_owned())),
        Component::CurDir | Component::Prefix(_) => None,
    };
    let mut steps: Vec<PathStep> = path.components().filter_map(step).collect();
    steps.reverse();
    steps
}

/// As many links as the kernel follows in one path.
const LINKS_MAX: u32 = 40;
/// Inode of the top directory of a /proc.
const PROC_TOP: u64 = 1;
