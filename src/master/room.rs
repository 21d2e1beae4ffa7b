//! Room for sockets: a master holds one for every node.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::error::{Code, Error, Result};

/// What a process holds open besides its nodes: standard streams, the event queue, visitors and what the caller has.
const OTHERS: u64 = 256;

/// Raises this process's limit of open files, as far as it has to be and may be, to hold a socket for each of `nodes`.
///
/// # Errors
/// `Code::Internal` where the hard limit is lower, with the way to raise it.
pub(crate) fn make(nodes: usize) -> Result<()> {
    let wanted = nodes as u64 + OTHERS;
    let failed = |errno: Errno| Error::new(Code::Internal, format!("the limit of open files: {}", errno.desc()));
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    if soft >= wanted {
        return Ok(());
    }
    if hard < wanted {
        let what = format!("{nodes} nodes need a socket each, and this process may open {hard} files");
        let remedy = format!("raise the hard limit to {wanted} (LimitNOFILE= of a unit, or nofile in limits.conf)");
        return Err(Error::new(Code::Internal, what).remedy(remedy));
    }
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).map_err(failed)
}
