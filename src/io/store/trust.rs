//! Files of an earlier attempt, opened only where nobody else can have chosen their content.
//!
//! Anybody who can write to a destination's directory can put anything under the names that this
//! program uses: files of their own, links, pipes. Only a regular file of this user's, with one
//! name, that nobody else may write to is continued.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::geteuid;

use super::open::{identity, retried};

/// A name in a directory, opened.
pub(super) enum TrustedName {
    File(OwnedFd, FileStat),
    Nothing,
    /// Something that is not continued, and the reason in words that follow its name.
    Unfit(&'static str),
}

/// Opens `name` for `access` if it is a file of this user's own that nobody else may write to.
///
/// # Errors
/// If the system cannot tell, or cannot open a file that this user owns.
pub(super) fn open_own(
    directory: &OwnedFd,
    name: &OsStr,
    access: OFlag,
) -> nix::Result<TrustedName> {
    open_if(directory, name, access, |about| match is_own(about) {
        Ok(()) if may_others_write(about) => Err("may be written by others"),
        done => done,
    })
}

/// Opens `name` for `access` if it `is_fit`. Nothing else is opened, because opening a pipe would
/// wait, and opening a device may do anything.
///
/// # Errors
/// If the system cannot tell, or cannot open a file that is fit.
pub(super) fn open_if(
    directory: &OwnedFd,
    name: &OsStr,
    access: OFlag,
    is_fit: impl Fn(&FileStat) -> Result<(), &'static str>,
) -> nix::Result<TrustedName> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let seen = match retried(|| openat(directory, name, flags | OFlag::O_PATH, Mode::empty())) {
        Ok(seen) => fstat(&seen)?,
        Err(Errno::ENOENT) => return Ok(TrustedName::Nothing),
        Err(errno) => return Err(errno),
    };
    if let Err(why) = is_fit(&seen) {
        return Ok(TrustedName::Unfit(why));
    }
    match open_at_once(directory, name, access) {
        // It may have been replaced since the look.
        Ok(file) => {
            let about = fstat(&file)?;
            Ok(match is_fit(&about) {
                Ok(()) if identity(&about) == identity(&seen) => TrustedName::File(file, about),
                Ok(()) => TrustedName::Unfit("was replaced while it was opened"),
                Err(why) => TrustedName::Unfit(why),
            })
        }
        Err(Errno::ENOENT) => Ok(TrustedName::Nothing),
        Err(Errno::EACCES | Errno::EPERM | Errno::ELOOP | Errno::ENXIO) => {
            Ok(TrustedName::Unfit("may not be opened"))
        }
        Err(errno) => Err(errno),
    }
}

/// Opens `name`, whatever it is, without waiting for anything, and never through a link.
pub(super) fn open_at_once(
    directory: &OwnedFd,
    name: &OsStr,
    access: OFlag,
) -> nix::Result<OwnedFd> {
    let flags = access | OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let file = retried(|| openat(directory, name, flags, Mode::empty()))?;
    // Rings would fail reads and writes that have to wait.
    fcntl(&file, FcntlArg::F_SETFL(access & OFlag::O_DIRECT))?;
    Ok(file)
}

/// Checks that a file is this user's own and has no other name. The error is the reason, in words
/// that follow its name.
pub(super) fn is_own(about: &FileStat) -> Result<(), &'static str> {
    if !is_regular(about) {
        Err("is no regular file")
    } else if about.st_uid != geteuid().as_raw() {
        Err("belongs to another user")
    } else if about.st_nlink > 1 {
        Err("has a second name")
    } else {
        Ok(())
    }
}

/// Writing by group and others; an access list shows in the group's.
pub(super) fn may_others_write(about: &FileStat) -> bool {
    about.st_mode & 0o022 != 0
}

pub(super) fn is_regular(about: &FileStat) -> bool {
    SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
}
