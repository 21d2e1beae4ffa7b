//! Destinations whose name other nodes write, too: whether two URIs name one file. Runs in a worker
//! thread, before the node is prepared.

use std::collections::BTreeMap;

use crate::core::error::{Code, Error, Result};
use crate::core::spec::DataUri;
use crate::core::wire::control::Prepare;
use crate::io::store::{DestinationClaim, StoreRoots};

/// Claims the places of all rows that have to.
///
/// # Errors
/// `Usage` where another row of the attempt names the same file by another URI; `Data` where the
/// system refuses.
pub(crate) fn take(roots: &StoreRoots, prepare: &Prepare) -> Result<Vec<DestinationClaim>> {
    let claimed = prepare.rows.iter().filter(|row| !row.claimant.is_empty());
    let claimed: BTreeMap<&str, &str> =
        claimed.map(|row| (row.uri.as_str(), row.claimant.as_str())).collect();
    let mut claims = Vec::new();
    for (uri, scheduler) in claimed {
        let uri: DataUri =
            uri.parse().map_err(|error| Error::new(Code::Usage, format!("{uri}: {error}")))?;
        claims.extend(DestinationClaim::take(
            roots,
            &uri,
            &prepare.id,
            &prepare.attempt,
            scheduler,
        )?);
    }
    Ok(claims)
}
