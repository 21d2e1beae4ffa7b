//! Token beside a partial file: nodes that write one path find out by it whether it is one file.
//!
//! Two nodes may mean different files by the same path (a local disk each) or the same (a network
//! file system). The leader writes the attempt's random bytes beside its partial file, and a node
//! that finds them sees the same directory. Only this user may read them, so that nobody else can
//! put them beside another file.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::root::errno_of;
use super::trust::{TrustedName, open_own};

/// Random bytes of one attempt.
pub(super) type AttemptToken = [u8; 16];

/// Suffix of the partial file's name.
pub(super) const SUFFIX: &str = ".token";

/// Name of the token beside the partial file `partial`.
pub(super) fn name(partial: &OsStr) -> OsString {
    let mut name = partial.to_owned();
    name.push(SUFFIX);
    name
}

/// Writes a token that does not exist yet.
pub(super) fn write(directory: &OwnedFd, name: &OsStr, attempt: &AttemptToken) -> nix::Result<()> {
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(directory, name, flags, Mode::from_bits_truncate(0o600))?);
    // Other nodes of a network file system see the bytes only after they are written back.
    file.write_all(attempt).and_then(|()| file.sync_all()).map_err(|error| errno_of(&error))
}

/// The token is there and is that of `attempt`.
pub(super) fn found(
    directory: &OwnedFd,
    name: &OsStr,
    attempt: &AttemptToken,
) -> nix::Result<bool> {
    let file = match open_own(directory, name, OFlag::O_RDONLY)? {
        TrustedName::File(file, _) => File::from(file),
        // Another user's leftovers are not this attempt's token.
        TrustedName::Nothing | TrustedName::Unfit(_) => return Ok(false),
    };
    let mut bytes = Vec::with_capacity(attempt.len() + 1);
    file.take(attempt.len() as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| errno_of(&error))?;
    Ok(bytes == attempt)
}
