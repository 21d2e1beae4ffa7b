//! Errors of system calls, in words.

use std::io;

use nix::libc;

use crate::core::error::Error;

/// Returns `error` with another remedy if `cause` is an answer of system call filters. `calls`
/// names the tried system calls.
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
