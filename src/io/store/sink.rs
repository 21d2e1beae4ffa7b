//! A destination: makes the system calls of its state machine.
//!
//! All rows of one node that name the same data share one sink. The order of calls:
//! [`Sink::prepare`], then [`Sink::begin`], [`Sink::zero`] for holes and [`Sink::preallocate`] for
//! the rest, then the rails write, then [`Sink::sync`] and [`Sink::commit`], and at the end
//! [`Sink::confirm`]. A sink that is discarded or dropped before its commit leaves what another
//! attempt can continue from, or nothing.
//!
//! Several nodes may write one path. The leader prepares first and commits last, when all others
//! have synced. Each keeps a journal of its own part, and the last one that leaves removes what
//! nobody can continue from.
//!
//! [`destination::step`] decides all of that.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use nix::errno::Errno;

use super::destination_file::DestinationFile;
use super::destination_path::{DestinationPath, is_otherwise};
use super::fault::fault;
use super::journal::JournalRecord;
use super::journal_file::{FoundJournal, JournalDoubt, JournalFile, NewJournal};
use super::open::OpenFile;
use super::open_destination::{SinkOptions, open_destination, with_new_journal};
use super::partial_file::PartialFile;
use super::region::SharedRegion;
use super::{StoreRoots, space};
use crate::core::error::{Code, Error, Result};
use crate::core::options::TransferOptions;
use crate::core::spec::DataUri;
use crate::core::store::destination::{
    self, DestinationAction, DestinationEvent, DestinationState, Remains,
};
use crate::core::store::writer::{WriterRole, WriterTerms};
use crate::core::units::{Span, covers};

/// An open destination.
#[derive(Debug)]
pub(crate) struct Sink {
    target: SinkTarget,
    terms: WriterTerms,
    transfer: TransferOptions,
    attempt: [u8; 16],
    /// Size of the file as far as this node knows.
    bytes: u64,
    /// Held while the calls of a transition are made, so that no other one comes in between.
    state: Mutex<DestinationState>,
}

/// Kind of an open destination.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are files")]
enum SinkTarget {
    File {
        /// The file as it was opened.
        first: DestinationFile,
        /// The file that is written in its place, where that was a complete one.
        beside: OnceLock<DestinationFile>,
        new_journal: Option<NewJournal>,
    },
    Region(SharedRegion),
    Null,
}

/// Ranges of an earlier attempt that are still good.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReusedRanges<'a> {
    /// Ranges of the data space.
    pub(crate) spans: &'a [Span],
    /// The same as offsets of the file.
    pub(crate) in_file: &'a [Span],
}

impl Sink {
    /// Opens what `uri` names for rows that together end at byte `file_bytes` of it.
    ///
    /// # Errors
    /// `Data` where the destination cannot be made, exists (without `overwrite`), or is too small;
    /// `Refused` where it lies out of the roots or may not be written; `Usage` for a URI that only
    /// a sender can have. Nothing is left behind then.
    ///
    /// # Panics
    /// If the tag is not 1 to 64 letters and digits: it is made of a hash.
    pub(crate) fn prepare(
        roots: &StoreRoots,
        uri: &DataUri,
        file_bytes: u64,
        options: &SinkOptions,
    ) -> Result<Sink> {
        let SinkOptions { transfer, attempt, .. } = *options;
        let (target, role, state) = match uri {
            DataUri::File(path) => {
                let open = open_destination(roots.to_write(path)?, path, file_bytes, options)?;
                let (first, new_journal) = (open.file, open.new_journal);
                let target = SinkTarget::File { first, beside: OnceLock::new(), new_journal };
                (target, open.role, open.state)
            }
            DataUri::Mem(name) => {
                let region = SharedRegion::prepare(
                    roots,
                    name,
                    file_bytes,
                    transfer.overwrite,
                    options.role,
                )?;
                let state = match region.fresh {
                    true => DestinationState::RegionMade,
                    false => DestinationState::RegionFound,
                };
                (SinkTarget::Region(region), WriterRole::Sole, state)
            }
            DataUri::Null => (SinkTarget::Null, WriterRole::Sole, DestinationState::Null),
            DataUri::Pattern(_) => {
                return Err(Error::new(Code::Usage, format!("{uri} cannot be written"))
                    .remedy("use null: to discard"));
            }
        };
        let terms =
            WriterTerms { role, resumes: options.keep.is_some(), overwrite: transfer.overwrite };
        let state = Mutex::new(state);
        let sink = Sink { target, terms, transfer, attempt, bytes: file_bytes, state };
        let made = sink.handle(DestinationEvent::MakeRoom, ReusedRanges::default());
        made.inspect_err(|_| sink.discard(false))?;
        Ok(sink)
    }

    /// The files to write to, indexed as the extents of this sink's layouts say; none for `null:`.
    pub(crate) fn files(&self) -> &[OpenFile] {
        self.open_file().map_or(&[], std::slice::from_ref)
    }

    /// The file is made and named by another node.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.terms.role, WriterRole::Follower(_))
    }

    /// Ranges that nobody writes read as zeros already.
    pub(crate) fn is_fresh(&self) -> bool {
        match &self.target {
            SinkTarget::Region(region) => region.fresh,
            // A leader may have resumed the file of an earlier attempt.
            SinkTarget::File { .. } => {
                !self.is_shared() && self.file().is_some_and(|it| it.partial.is_new)
            }
            SinkTarget::Null => true,
        }
    }

    /// Pieces that land here are recorded for an attempt that continues this one.
    pub(crate) fn keeps(&self) -> bool {
        self.journal().is_some()
    }

    /// Records of an earlier attempt: ascending, apart from each other.
    pub(crate) fn found(&self) -> &[JournalRecord] {
        self.found_journal().map_or(&[], |found| &found.records)
    }

    /// Reason to hold the records that were found against the file; `None` where they are certain.
    pub(crate) fn doubt(&self) -> Option<JournalDoubt> {
        self.found_journal().and_then(|found| found.doubt)
    }

    /// Nobody else can have written the records that were found.
    pub(crate) fn is_sealed(&self) -> bool {
        self.journal().is_some_and(JournalFile::is_sealed)
    }

    /// Reason why what an earlier attempt left is not continued, in a sentence.
    pub(crate) fn refused(&self) -> Option<String> {
        let reason = self.found_journal()?.refused.as_ref()?;
        let name = self.name().display();
        Some(format!("what an earlier attempt left of {name} starts again: {reason}"))
    }

    /// Begins this attempt: of the records that were found only `kept` count from now on, and the
    /// other ranges may be written over. `is_whole` says that nothing more will be written.
    ///
    /// # Errors
    /// `Data` where the journal cannot be written, and where the file is complete already, not
    /// whole any more, and not to be overwritten.
    pub(crate) fn begin(&self, kept: ReusedRanges<'_>, is_whole: bool) -> Result<()> {
        self.handle(DestinationEvent::Begin { is_whole }, kept)
    }

    /// [`Sink::begin`] has made another file, which [`Sink::files`] are since.
    pub(crate) fn is_replaced(&self) -> bool {
        matches!(&self.target, SinkTarget::File { beside, .. } if beside.get().is_some())
    }

    /// It has something to read back from.
    pub(crate) fn is_file(&self) -> bool {
        self.file().is_some()
    }

    /// Other nodes may write to this file.
    pub(crate) fn is_of_several(&self) -> bool {
        self.terms.role != WriterRole::Sole
    }

    /// Keeps nothing of this attempt, and nothing more of an earlier one.
    ///
    /// # Errors
    /// `Data` where the journal cannot be removed.
    pub(crate) fn forget(&self) -> Result<()> {
        self.handle(DestinationEvent::Forget, ReusedRanges::default())
    }

    /// An earlier attempt has completed it: it has its final name, and nothing is written to it.
    pub(crate) fn is_named(&self) -> bool {
        self.state().is_complete()
    }

    /// Takes in what has landed here, to be recorded by the next [`Sink::flush`].
    pub(crate) fn keep(&self, records: impl Iterator<Item = JournalRecord>) {
        if let Some(journal) = self.journal() {
            journal.add(records);
        }
    }

    /// Records what has landed.
    pub(crate) fn flush(&self) {
        self.file().into_iter().for_each(DestinationFile::flush);
    }

    /// Sets the permissions that the file gets with its name, as far as they are granted there.
    /// Memory objects keep theirs.
    pub(crate) fn set_mode(&self, mode: u32) {
        if let Some(file) = self.file() {
            file.partial.mode.store(mode, Ordering::Relaxed);
        }
    }

    /// Reserves room for the data to come: `spans` are offsets of the file, without the holes.
    ///
    /// # Errors
    /// `Data` where the disk has not that much left.
    pub(crate) fn preallocate(&self, spans: &[Span]) -> Result<()> {
        let only_here = self.is_file() && self.terms.role == WriterRole::Sole;
        self.open_file()
            .map_or(Ok(()), |file| space::reserve(file.buffered(), self.name(), spans, only_here))
    }

    /// Makes the holes read as zeros: `spans` are offsets of the file. Does nothing for a fresh
    /// file.
    ///
    /// # Errors
    /// `Data` where the system refuses to.
    pub(crate) fn zero(&self, spans: &[Span]) -> Result<()> {
        match self.open_file() {
            Some(file) if !self.is_fresh() => space::zero(file.buffered(), self.name(), spans),
            _ => Ok(()),
        }
    }

    /// Makes what was written durable, if that was asked for. Each node does it for itself, before
    /// the commit.
    ///
    /// # Errors
    /// `Data` where the device could not write.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file().filter(|_| self.transfer.fsync).map_or(Ok(()), DestinationFile::sync)
    }

    /// Gives the complete file its name; for a shared file that is the leader's part, after
    /// everybody's sync.
    ///
    /// # Errors
    /// `Data` where the name was taken meanwhile, where another attempt has replaced the file, or
    /// where the system refuses. A file that cannot have its name is discarded.
    pub(crate) fn commit(&self) -> Result<()> {
        self.handle(DestinationEvent::Commit, ReusedRanges::default())
    }

    /// Everybody has all they want: the journal is no longer needed.
    pub(crate) fn confirm(&self) {
        // A journal that cannot be removed is replaced by the next attempt.
        let _ = self.handle(DestinationEvent::Confirm, ReusedRanges::default());
    }

    /// Gives up what is not complete: removes it, unless another attempt can continue from it. The
    /// last of several nodes does it for all.
    ///
    /// A node that `departs` leaves a transfer that its master has not ended: other nodes may still
    /// find out whether they share the file.
    pub(crate) fn discard(&self, departs: bool) {
        let event = if departs { DestinationEvent::Depart } else { DestinationEvent::Discard };
        // A panic between two calls leaves the destination in no state that could be trusted.
        if !self.state.is_poisoned() {
            // A removal that fails has no one to tell; the next attempt replaces what is left.
            let _ = self.handle(event, ReusedRanges::default());
        }
    }

    /// The process is gone: what lies there stays as it is.
    #[cfg(test)]
    pub(crate) fn crash(&self) {
        *self.state() = DestinationState::Kept;
    }

    /// The error for a write that the system refused with `errno`.
    pub(crate) fn write_failed(&self, errno: Errno) -> Error {
        fault(errno, self.name(), "written")
    }

    /// As the user names it.
    pub(crate) fn name(&self) -> &Path {
        match &self.target {
            SinkTarget::File { first, .. } => &first.partial.place.path,
            SinkTarget::Region(region) => &region.name,
            SinkTarget::Null => Path::new("null:"),
        }
    }

    /// Path of the file, where this node makes it.
    pub(super) fn own_path(&self) -> Option<&DestinationPath> {
        self.file().filter(|_| !self.is_shared()).map(|file| &file.partial.place)
    }

    /// The file that is written, where it is one.
    fn file(&self) -> Option<&DestinationFile> {
        match &self.target {
            SinkTarget::File { first, beside, .. } => Some(beside.get().unwrap_or(first)),
            SinkTarget::Region(_) | SinkTarget::Null => None,
        }
    }

    fn open_file(&self) -> Option<&OpenFile> {
        match &self.target {
            SinkTarget::Region(region) => Some(&region.file),
            SinkTarget::File { .. } | SinkTarget::Null => self.file().map(|it| &it.partial.file),
        }
    }

    fn journal(&self) -> Option<&JournalFile> {
        self.file()?.journal.as_ref()
    }

    /// Journal of an earlier attempt, of the file that was opened first.
    fn found_journal(&self) -> Option<&FoundJournal> {
        match &self.target {
            SinkTarget::File { first, .. } => first.journal.as_ref().map(|it| &it.found),
            SinkTarget::Region(_) | SinkTarget::Null => None,
        }
    }

    /// Error for work on a destination that the end of its transfer has given up.
    fn given_up(&self) -> Error {
        let what = format!("{} was given up: its transfer has ended", self.name().display());
        Error::new(Code::Cancelled, what)
    }

    fn state(&self) -> MutexGuard<'_, DestinationState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Execution of the state machine.
impl Sink {
    /// Takes the destination through an event: makes the calls of each step, and is in its next
    /// state once they have succeeded.
    fn handle(&self, event: DestinationEvent, kept: ReusedRanges<'_>) -> Result<()> {
        let mut state = self.state();
        let (mut event, mut refusal) = (Some(event), None);
        while let Some(now) = event.take() {
            let from = *state;
            let step = match destination::step(self.terms, from, now) {
                Some(step) => step,
                // A worker that was to prepare or name it may come after the cancel.
                None if from.is_given_up() && now.is_of_a_worker() => return Err(self.given_up()),
                None => panic!("{now:?} cannot come in {from:?} of {:?}", self.terms),
            };
            for action in step.actions {
                match self.carry_out(*action, kept) {
                    Ok(remains) => event = remains.map(DestinationEvent::Weighed),
                    Err(_) if now.is_last_word() => {}
                    Err(error) if action.gives_name() => {
                        refusal = Some(error);
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            if refusal.is_some() && !now.is_last_word() {
                event = Some(DestinationEvent::NameRefused);
            } else {
                *state = step.next;
                event = event.or(step.then);
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    fn carry_out(
        &self,
        action: DestinationAction,
        kept: ReusedRanges<'_>,
    ) -> Result<Option<Remains>> {
        match &self.target {
            SinkTarget::Region(region) => match action {
                DestinationAction::CheckName => region.check_named()?,
                DestinationAction::RemoveRegion => region.discard(),
                other => panic!("{other:?} is nothing to do with memory"),
            },
            SinkTarget::Null => panic!("{action:?} is nothing to do with null:"),
            SinkTarget::File { first, .. } => {
                let file = self.file().unwrap_or(first);
                return self.carry_out_on(file, action, kept);
            }
        }
        Ok(None)
    }

    fn carry_out_on(
        &self,
        file: &DestinationFile,
        action: DestinationAction,
        kept: ReusedRanges<'_>,
    ) -> Result<Option<Remains>> {
        let (partial, place) = (&file.partial, &file.partial.place);
        match action {
            DestinationAction::Size => file.size(self.bytes)?,
            DestinationAction::Grow => file.grow(self.bytes)?,
            DestinationAction::ShareLock => file.share_lock()?,
            DestinationAction::WriteToken => place.write_token(&self.attempt)?,
            DestinationAction::RemoveToken => file.remove_token()?,
            DestinationAction::CreateBeside => self.create_beside(file)?,
            DestinationAction::CopyKept => self.copy_kept(file, kept.in_file)?,
            DestinationAction::BeginJournal => {
                file.begin_journal(|record| covers(kept.spans, record.span))?;
            }
            DestinationAction::RefuseComplete => return Err(is_otherwise(&place.path)),
            DestinationAction::StopRecording => file.stop_recording(),
            DestinationAction::ForgetJournal => file.forget_journal()?,
            DestinationAction::Flush => file.flush(),
            DestinationAction::Sync => self.sync()?,
            DestinationAction::RecordCompletion => file.record_completion(),
            DestinationAction::RecordLeaving => file.record_leaving(),
            DestinationAction::Name => {
                partial.finish(self.overwrites(file), self.transfer.fsync)?;
            }
            DestinationAction::CheckName => partial.check_ours()?,
            DestinationAction::RemoveJournal => file.remove_journal()?,
            DestinationAction::RemoveStaleJournal => place.remove_journal()?,
            DestinationAction::RemoveConfirmedJournals => file.remove_confirmed_journals()?,
            DestinationAction::RemoveAllJournals => file.remove_all_journals()?,
            DestinationAction::RemovePartial => partial.remove()?,
            DestinationAction::Weigh => return Ok(Some(file.weigh(self.terms.role))),
            DestinationAction::RemoveRegion => panic!("a file is no shared memory"),
        }
        Ok(None)
    }

    /// This attempt, or the one that it continues, may replace a file that has the final name.
    fn overwrites(&self, file: &DestinationFile) -> bool {
        self.terms.overwrite || file.journal.as_ref().is_some_and(JournalFile::overwrites)
    }

    /// Makes a new file beside a complete one, which is read from then on and not written.
    fn create_beside(&self, complete: &DestinationFile) -> Result<()> {
        let SinkTarget::File { beside, new_journal, .. } = &self.target else {
            panic!("only files lie beside others")
        };
        complete.partial.place.check_grants()?;
        let partial = PartialFile::create_beside(&complete.partial.place)?;
        partial.mode.store(complete.partial.mode.load(Ordering::Relaxed), Ordering::Relaxed);
        let found = complete.journal.as_ref().map(|it| &it.found);
        let records = found.map_or(Vec::new(), |found| found.records.clone());
        let complete = found.and_then(|found| found.complete);
        let found = FoundJournal { records, complete, ..FoundJournal::default() };
        let file = with_new_journal(partial, found, new_journal.as_ref())?;
        beside.set(file).expect("a complete file is replaced once");
        Ok(())
    }

    /// Copies what is kept of the complete file to the new one. Where nothing was open before the
    /// new one, nothing is kept.
    fn copy_kept(&self, file: &DestinationFile, in_file: &[Span]) -> Result<()> {
        match &self.target {
            SinkTarget::File { first, .. } if first.partial.is_complete() => {
                file.copy_from(&first.partial, in_file)
            }
            SinkTarget::File { .. } | SinkTarget::Region(_) | SinkTarget::Null => Ok(()),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // The process ends, or the node that opened it.
        self.discard(true);
    }
}
