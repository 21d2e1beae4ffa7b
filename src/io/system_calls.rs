//! Errors of system calls, in words.

use std::io;

use nix::libc;

use crate::core::error::Error;

/// `error` with another remedy where the system answered `cause` as filters of system calls do;
/// `calls` names the system calls that were tried.
#[must_use]
pub(crate) fn perhaps_filtered(error: Error, cause: &io::Error, calls: &str) -> Error {
    match cause.raw_os_error() {
        Some(libc::EPERM | libc::ENOSYS) => error.remedy(format!(
            "a filter of system calls may forbid {calls}: allow it in the container's seccomp \
             profile, or in SystemCallFilter= of systemd"
        )),
        _ => error,
    }
}
