//! Limits on what masters may have a node hold at once. Each holder of a key is trusted with files,
//! and none with the node itself: one that prepares without end leaves room for others.

use std::collections::BTreeMap;
use std::time::Duration;

use super::events::{MasterOrigin, SessionIx};
use crate::core::error::{Code, Error, Result};
use crate::core::piece::TransferIx;
use crate::core::units::Moment;
use crate::core::wire::control::Prepare;
use crate::core::wire::limits::share_of_one;

/// Transfers of a node at once, unless its owner says otherwise: each may hold some megabytes of
/// rows and plan.
pub(crate) const TRANSFERS_DEFAULT: usize = 256;
/// Rows of all transfers of a node at once: sixteen full ones, each row with a path of its own.
pub(crate) const ROWS_AT_ONCE_MAX: usize = 1 << 16;
/// Bytes of the data URIs of all of them: what is told of rows stays until their transfer ends.
pub(crate) const URI_BYTES_AT_ONCE_MAX: usize = 64 << 20;
/// Surveys under way at once: each has a thread, which a dead file system keeps.
pub(crate) const SURVEYS_MAX: usize = 64;
/// Time that a session may be without a transfer. A master prepares once it has met all nodes,
/// which takes it ten seconds at most.
pub(crate) const PREPARE_WITHIN: Duration = Duration::from_secs(60);

/// A session of a master.
#[derive(Clone, Copy, Debug)]
pub(super) struct MasterSession {
    /// Its transfer, once it has said so.
    pub(super) transfer: Option<TransferIx>,
    pub(super) origin: MasterOrigin,
    /// Moment from which it has been without a transfer, and without a survey.
    pub(super) since: Moment,
    /// It has asked about paths.
    pub(super) surveys: bool,
}

/// Load of a transfer: what its node holds for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct TransferWeight {
    origin: MasterOrigin,
    rows: usize,
    uri_bytes: usize,
}

impl TransferWeight {
    pub(super) fn of(prepare: &Prepare, origin: MasterOrigin) -> TransferWeight {
        let uri_bytes = prepare.rows.iter().map(|row| row.uri.len()).sum();
        TransferWeight { origin, rows: prepare.rows.len(), uri_bytes }
    }
}

/// Sum over transfers.
#[derive(Clone, Copy, Debug, Default)]
struct WeightSum {
    transfers: usize,
    rows: usize,
    uri_bytes: usize,
}

impl WeightSum {
    fn add(self, weight: &TransferWeight) -> WeightSum {
        WeightSum {
            transfers: self.transfers + 1,
            rows: self.rows.saturating_add(weight.rows),
            uri_bytes: self.uri_bytes.saturating_add(weight.uri_bytes),
        }
    }

    /// The limit that is passed, in words.
    fn passes(self, most: WeightSum) -> Option<String> {
        let limits = [
            (self.transfers, most.transfers, "transfers"),
            (self.rows, most.rows, "rows"),
            (self.uri_bytes, most.uri_bytes, "bytes of data URIs"),
        ];
        let passed = limits.into_iter().find(|(has, most, _)| has > most);
        passed.map(|(_, most, what)| format!("{most} {what}"))
    }
}

/// Refuses a transfer that a node has no room for beside those that it has: of one origin three
/// quarters of each limit at most, so that it leaves the others some.
///
/// # Errors
/// `Refused`, with the limit.
pub(super) fn check_room<'a>(
    held: impl Iterator<Item = &'a TransferWeight> + Clone,
    weight: &TransferWeight,
    transfers_max: usize,
) -> Result<()> {
    let all = WeightSum {
        transfers: transfers_max,
        rows: ROWS_AT_ONCE_MAX,
        uri_bytes: URI_BYTES_AT_ONCE_MAX,
    };
    let of_one = WeightSum {
        transfers: share_of_one(all.transfers),
        rows: share_of_one(all.rows),
        uri_bytes: share_of_one(all.uri_bytes),
    };
    let own = held.clone().filter(|other| other.origin == weight.origin);
    let by_one = own.fold(WeightSum::default(), WeightSum::add).add(weight).passes(of_one);
    let by_one = by_one.map(|limit| format!("{limit} at once, which masters of one address"));
    let by_all = held.fold(WeightSum::default(), WeightSum::add).add(weight).passes(all);
    let by_all = by_all.map(|limit| format!("{limit} at once, which all"));
    let Some(limit) = by_one.or(by_all) else { return Ok(()) };
    let what = format!("this node is at its limit of {limit} together may have");
    Err(Error::new(Code::Refused, what)
        .remedy("run it again when others have ended, or start the node with more --transfers"))
}

/// Sessions of masters.
pub(super) type MasterSessions = BTreeMap<SessionIx, MasterSession>;
