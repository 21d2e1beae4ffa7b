//! Limit on open files for sockets: a master holds one for every node.

use crate::core::error::{Code, Error, Result};
use crate::io::session::descriptors;

/// Descriptors that a master needs besides those of its nodes: an event queue, a reserved
/// descriptor, a few clients, and files that it reads.
const OTHERS: u64 = 12;

/// Raises this process's limit of open files, if necessary and possible, so that `each` more can be
/// open for each of `nodes`.
///
/// # Errors
/// `Code::Internal` if the hard limit is lower, with the required number.
pub(crate) fn make(nodes: usize, each: u64) -> Result<()> {
    let in_use = descriptors::in_use();
    let wanted = in_use + nodes as u64 * each + OTHERS;
    let allowed = descriptors::raise(wanted);
    if allowed >= wanted {
        return Ok(());
    }
    let what = format!(
        "{nodes} nodes need {wanted} open files, {in_use} of them open now, and {allowed} are \
         allowed"
    );
    let remedy = format!(
        "raise the limit to {wanted}: ulimit -n, LimitNOFILE= of a unit, or nofile in limits.conf"
    );
    Err(Error::new(Code::Internal, what).remedy(remedy))
}
