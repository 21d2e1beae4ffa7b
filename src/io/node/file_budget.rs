//! Descriptors for the files of transfers: judged before any of them is opened.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::core::error::{Code, Error, Result};
use crate::core::spec::{DataUri, RowRole};
use crate::core::wire::control::Prepare;
use crate::io::session::descriptors;

/// Descriptors of this process that transfers being prepared were promised, and have not opened
/// yet.
#[derive(Clone, Debug, Default)]
pub(super) struct FileBudget(Arc<Mutex<u64>>);

/// A promise of descriptors. It ends when it is dropped: when they are open, and counted as such,
/// or not needed.
#[derive(Debug)]
pub(super) struct FileClaim {
    budget: FileBudget,
    count: u64,
}

impl FileBudget {
    /// Promises the descriptors that a transfer needs here; `rails` is the number of this node's
    /// rails.
    ///
    /// # Errors
    /// `Code::Data` where they are not left, with the number that is needed.
    pub(super) fn claim(&self, prepare: &Prepare, rails: usize) -> Result<FileClaim> {
        let need = FileNeed::of(prepare);
        let (allowed, _) = descriptors::limits().unwrap_or((u64::MAX, u64::MAX));
        let mut promised = self.promised();
        // Counted while no promise can end: descriptors of one that ends now are open, or still
        // promised.
        let in_use = descriptors::in_use();
        need.judge(allowed, in_use + *promised, KEPT_FREE + KEPT_FREE_EACH * rails as u64)?;
        *promised += need.descriptors;
        Ok(FileClaim { budget: self.clone(), count: need.descriptors })
    }

    fn promised(&self) -> MutexGuard<'_, u64> {
        // A panic elsewhere leaves the number as it was, or changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FileClaim {
    fn drop(&mut self) {
        *self.budget.promised() -= self.count;
    }
}

/// The descriptors that the files of a transfer need at a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct FileNeed {
    files: u64,
    descriptors: u64,
}

impl FileNeed {
    fn of(prepare: &Prepare) -> FileNeed {
        let mut need = FileNeed::default();
        let mut written = BTreeSet::new();
        for row in &prepare.rows {
            let descriptors = match (row.role, row.uri.parse()) {
                (RowRole::Sender, Ok(DataUri::File(_) | DataUri::Mem(_))) => SOURCE,
                (RowRole::Receiver, Ok(DataUri::File(_))) if written.insert(&row.uri) => {
                    DESTINATION + u64::from(!row.claimant.is_empty())
                }
                (RowRole::Receiver, Ok(DataUri::Mem(_))) if written.insert(&row.uri) => REGION,
                // Patterns and null: have no file; a destination of several rows is open once;
                // others are refused.
                _ => continue,
            };
            need.files += 1;
            need.descriptors += descriptors;
        }
        need
    }

    fn judge(self, allowed: u64, in_use: u64, kept_free: u64) -> Result<()> {
        let wanted = in_use + kept_free + self.descriptors;
        if self.files == 0 || wanted <= allowed {
            return Ok(());
        }
        let left = allowed.saturating_sub(in_use + kept_free);
        let FileNeed { files, descriptors } = self;
        let what = format!(
            "{files} files need {descriptors} open files here, and {left} are left of {allowed}"
        );
        let remedy = format!(
            "raise the node's limit of open files to {wanted} (ulimit -n, LimitNOFILE= of a unit), \
             or split the transfer"
        );
        Err(Error::new(Code::Data, what).remedy(remedy))
    }
}

/// Descriptors of a source: one through the page cache, one past it.
const SOURCE: u64 = 2;
/// Descriptors of a destination: the same, its directory and its journal. One whose place is
/// claimed has its directory open twice until bytes move.
const DESTINATION: u64 = 4;
const REGION: u64 = 1;

/// Descriptors that files leave for everything else: files that are read in between, connections of
/// masters, and, of each rail, its ring, its waker and two flows. Strangers give way by themselves.
const KEPT_FREE: u64 = 8;
const KEPT_FREE_EACH: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_the_number_that_does() {
        let need = FileNeed { files: 4096, descriptors: 4096 * DESTINATION };
        let error = need.judge(1024, 20, 12).expect_err("too many");
        assert_eq!(error.code, Code::Data);
        assert_eq!(
            error.message,
            "4096 files need 16384 open files here, and 992 are left of 1024"
        );
        assert!(error.remedy.as_ref().is_some_and(|remedy| remedy.contains("16416")), "{error}");
        assert!(need.judge(16_415, 20, 12).is_err());
        assert!(need.judge(16_416, 20, 12).is_ok());
        assert!(FileNeed::default().judge(10, 20, 12).is_ok(), "no files, no descriptors");
    }
}
