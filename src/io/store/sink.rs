//! A destination: what a receiver's rows write.
//!
//! All rows of one node that name the same data share one sink. The order of calls:
//! [`Sink::prepare`], then [`Sink::begin`], [`Sink::zero`] for holes and [`Sink::preallocate`] for
//! the rest, then the rails write, then [`Sink::sync`] and [`Sink::commit`], and at the very end
//! [`Sink::confirm`]. A sink that is dropped before its commit leaves behind what another attempt
//! can continue with, or nothing.
//!
//! Where several nodes write one path, the elected one prepares first and commits last, when all
//! others have synced. Each keeps a journal of what it has written, and the last one that leaves
//! removes what nobody can continue with.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::unistd::fsync;

use super::fault::fault;
use super::finding::{find_file, replaces_own};
use super::journal::JournalRecord;
use super::keep;
use super::keep::{JournalDoubt, JournalFile, JournalIdentity};
use super::open::{OpenFile, retried};
use super::partial::{PartialFile, being_written, is_otherwise};
use super::region::SharedRegion;
use super::root::errno_of;
use super::{StoreRoot, space};
use crate::core::error::{Code, Error, Result};
use crate::core::spec::DataUri;
use crate::core::units::{Span, covers};

/// What this node is to the others that write the same path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SharedRole {
    /// No other node names this path.
    Alone,
    /// Others do, and this one makes the file, sizes it and gives it its name.
    Elected,
    /// Others do, and this is a number that none of them has. Where this node sees the elected
    /// one's file it writes into that, else into one of its own.
    Member(u32),
}

/// How a destination is to be prepared.
#[derive(Clone, Debug)]
pub(crate) struct SinkOptions {
    /// Whether an existing file may be replaced.
    pub(crate) overwrite: bool,
    /// Whether the file and its name are to survive a crash.
    pub(crate) fsync: bool,
    /// What names the partial file: the hash of the transfer and the row, in letters and digits.
    pub(crate) tag: String,
    /// The attempt's random bytes.
    pub(crate) attempt: [u8; 16],
    /// Whether other nodes write the same path.
    pub(crate) shared: SharedRole,
    /// How it is kept for an attempt that continues this one, and goes on with what an earlier one
    /// left; `None` where it starts from nothing and leaves nothing. Of files alone.
    pub(crate) keep: Option<JournalIdentity>,
}

/// An open destination.
#[derive(Debug)]
pub(crate) struct Sink {
    target: SinkTarget,
    overwrite: bool,
    fsync: bool,
    shared: SharedRole,
    journal: Option<JournalFile>,
    /// Set once the destination is complete, or given up: then dropping has nothing to do.
    settled: AtomicBool,
}

/// What is written to.
#[derive(Debug)]
pub(super) enum SinkTarget {
    /// A partial file that this node renames or removes.
    Owned(PartialFile),
    /// A partial file that the elected node renames or removes.
    Joined(PartialFile),
    /// A shared memory object.
    Region(SharedRegion),
    /// `null:`.
    Nothing,
}

impl Sink {
    /// Opens what `uri` names for rows that together end at byte `file_bytes` of it.
    ///
    /// # Errors
    /// `Data` where the destination cannot be made, exists (without `overwrite`), or is too small;
    /// `Refused` where it lies out of the root; `Usage` for a URI that only a sender can have.
    /// Nothing is left behind then.
    ///
    /// # Panics
    /// If the tag is not 1 to 64 letters and digits: it is made of a hash.
    pub(crate) fn prepare(
        root: &StoreRoot,
        uri: &DataUri,
        file_bytes: u64,
        options: &SinkOptions,
    ) -> Result<Sink> {
        let (target, journal) = match uri {
            DataUri::File(path) => find_file(root, path, file_bytes, options)?,
            DataUri::Mem(name) => {
                let region = SharedRegion::prepare(
                    root,
                    name,
                    file_bytes,
                    options.overwrite,
                    options.shared,
                )?;
                (SinkTarget::Region(region), None)
            }
            DataUri::Null => (SinkTarget::Nothing, None),
            DataUri::Pattern(_) => {
                return Err(Error::new(Code::Usage, format!("{uri} cannot be written"))
                    .remedy("use null: to discard"));
            }
        };
        let SinkOptions { fsync, shared, .. } = *options;
        let overwrite = options.overwrite || journal.as_ref().is_some_and(JournalFile::overwrites);
        // From here on an error drops the sink, and that removes what was made.
        let sink =
            Sink { target, overwrite, fsync, shared, journal, settled: AtomicBool::new(false) };
        sink.make_room(file_bytes)?;
        if let (SinkTarget::Owned(partial), SharedRole::Elected) = (&sink.target, shared) {
            if !partial.let_others_write() {
                return Err(being_written(&partial.place.path));
            }
            // Last: who sees the token may rely on the file.
            partial.place.write_token(&options.attempt)?;
        }
        Ok(sink)
    }

    /// The files to write to, indexed as the extents of this sink's layouts say; none for `null:`.
    pub(crate) fn files(&self) -> &[OpenFile] {
        self.file().map_or(&[], std::slice::from_ref)
    }

    /// Whether the file is another node's, who will rename it.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.target, SinkTarget::Joined(_))
    }

    /// Whether what nobody writes reads as zeros already.
    pub(crate) fn is_fresh(&self) -> bool {
        match &self.target {
            SinkTarget::Region(region) => region.fresh,
            SinkTarget::Owned(partial) => partial.is_new,
            // Who has made it may have gone on with an earlier one.
            SinkTarget::Joined(_) => false,
            SinkTarget::Nothing => true,
        }
    }

    /// Whether what lands here is recorded for an attempt that continues this one.
    pub(crate) fn keeps(&self) -> bool {
        self.journal.is_some()
    }

    /// What an earlier attempt has left here: ascending, apart from each other.
    pub(crate) fn found(&self) -> &[JournalRecord] {
        self.journal.as_ref().map_or(&[], |journal| &journal.found.records)
    }

    /// Why what was found is to be held against the file before it is believed; `None` where it is
    /// there for certain.
    pub(crate) fn doubt(&self) -> Option<JournalDoubt> {
        self.journal.as_ref().and_then(|journal| journal.found.doubt)
    }

    /// Whether nobody else can have written what was found.
    pub(crate) fn is_sealed(&self) -> bool {
        self.journal.as_ref().is_some_and(JournalFile::is_sealed)
    }

    /// Why what was there of an earlier attempt is not continued, in a sentence.
    pub(crate) fn refused(&self) -> Option<String> {
        let reason = self.journal.as_ref()?.found.refused.as_ref()?;
        Some(format!(
            "what an earlier attempt left of {} starts again: {reason}",
            self.name().display()
        ))
    }

    /// Begins this attempt: of what was found only `kept` counts from now on, and the rest may be
    /// written over. `is_whole` says that nothing more will be written.
    ///
    /// # Errors
    /// `Data` where the journal cannot be written, and where the file is complete already and not
    /// whole any more.
    pub(crate) fn begin(&self, kept: &[Span], is_whole: bool) -> Result<()> {
        let (Some(journal), Some(partial)) = (&self.journal, self.partial()) else { return Ok(()) };
        if partial.is_named() {
            return if is_whole { Ok(()) } else { Err(is_otherwise(&partial.place.path)) };
        }
        let begun =
            journal.begin(&partial.place, &partial.file, |record| covers(kept, record.span));
        begun.map_err(|error| {
            fault(errno_of(&error), self.name(), "recorded in a journal beside it")
        })
    }

    /// Whether there is something to read back from.
    pub(crate) fn is_file(&self) -> bool {
        matches!(&self.target, SinkTarget::Owned(_) | SinkTarget::Joined(_))
    }

    /// Whether other nodes may write to this file.
    pub(crate) fn is_of_several(&self) -> bool {
        self.shared == SharedRole::Elected || self.is_shared()
    }

    /// Keeps nothing of this attempt, and nothing longer of an earlier one.
    ///
    /// # Errors
    /// `Data` where the journal cannot be removed.
    pub(crate) fn forget(&self) -> Result<()> {
        let (Some(journal), Some(partial)) = (&self.journal, self.partial()) else { return Ok(()) };
        journal.forget();
        if replaces_own(&self.target, Some(journal)) {
            Ok(())
        } else {
            partial.place.remove_journal()
        }
    }

    /// Whether an earlier attempt has completed it: it has its final name, and nothing is written
    /// to it.
    pub(crate) fn is_named(&self) -> bool {
        self.partial().is_some_and(PartialFile::is_named)
    }

    /// Takes in what has landed here, to be recorded by the next [`Sink::flush`].
    pub(crate) fn keep(&self, records: impl Iterator<Item = JournalRecord>) {
        if let Some(journal) = &self.journal {
            journal.add(records);
        }
    }

    /// Records what has landed.
    pub(crate) fn flush(&self) {
        let (Some(journal), Some(partial)) = (&self.journal, self.partial()) else { return };
        if let Err(error) = journal.flush(&partial.file) {
            // The transfer can do without; what is not recorded is only fetched again if it is
            // interrupted.
            tracing::warn!(
                "what lands in {} is not recorded any more: {error}",
                self.name().display()
            );
        }
    }

    /// Says which permissions the file shall have, as far as they are granted where it lies. Memory
    /// objects keep theirs.
    pub(crate) fn set_mode(&self, mode: u32) {
        if let Some(partial) = self.partial() {
            partial.mode.store(mode, Ordering::Relaxed);
        }
    }

    /// Reserves room for the data to come: `spans` are offsets of the file, without the holes.
    ///
    /// # Errors
    /// `Data` where the disk has not that much left.
    pub(crate) fn preallocate(&self, spans: &[Span]) -> Result<()> {
        let only_here =
            matches!(self.target, SinkTarget::Owned(_)) && self.shared == SharedRole::Alone;
        self.file()
            .map_or(Ok(()), |file| space::reserve(file.buffered(), self.name(), spans, only_here))
    }

    /// Makes the holes read as zeros: `spans` are offsets of the file. Does nothing for a fresh
    /// file.
    ///
    /// # Errors
    /// `Data` where the system refuses to.
    pub(crate) fn zero(&self, spans: &[Span]) -> Result<()> {
        match self.file() {
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
        match self.partial().filter(|_| self.fsync) {
            Some(partial) => {
                retried(|| fsync(partial.file.buffered())).map_err(|errno| self.write_failed(errno))
            }
            None => Ok(()),
        }
    }

    /// Gives the complete file its name; for a shared file that is the elected node's part, after
    /// everybody's sync.
    ///
    /// # Errors
    /// `Data` where the name was taken meanwhile, where another attempt has replaced the file, or
    /// where the system refuses. The file is then discarded.
    pub(crate) fn commit(&self) -> Result<()> {
        self.flush();
        self.sync()?;
        if let SinkTarget::Owned(partial) = &self.target {
            self.record_completion(partial);
            // The token goes first: while the file has its final name nothing of ours lies beside
            // it.
            self.remove_token(partial)?;
            let finished = partial.finish(self.overwrite, self.fsync);
            if let Err(error) = finished {
                self.discard();
                return Err(error);
            }
            self.record_leaving(partial);
        }
        if let SinkTarget::Region(region) = &self.target {
            region.check_named()?;
        }
        // What becomes of another's file is not settled yet.
        self.settled.store(!self.is_shared(), Ordering::Relaxed);
        Ok(())
    }

    /// Everybody has all they want: nothing needs to be remembered of how this file came to be.
    pub(crate) fn confirm(&self) {
        let is_settled = self.settled.load(Ordering::Relaxed) || self.is_shared();
        if let (Some(journal), Some(partial), true) = (&self.journal, self.partial(), is_settled)
            && journal.is_ours(&partial.place)
        {
            // What cannot be removed is replaced by the next attempt.
            let _ = partial.place.remove_journal();
            if self.shared == SharedRole::Elected {
                // Others may not hear that everybody is done.
                partial.place.remove_other_journals();
            }
        }
    }

    /// Gives up what is not complete: removes it, unless another attempt can continue with it.
    /// Where several nodes write it, that is for the last one to do.
    pub(crate) fn discard(&self) {
        if self.settled.swap(true, Ordering::Relaxed) {
            return;
        }
        self.flush();
        if let Some(partial) = self.partial() {
            self.record_leaving(partial);
        }
        match &self.target {
            SinkTarget::Owned(partial) if self.shared == SharedRole::Elected => self.leave(partial),
            SinkTarget::Joined(partial) => self.leave(partial),
            SinkTarget::Owned(partial) => {
                let replaces_own = replaces_own(&self.target, self.journal.as_ref());
                if self.is_worth_keeping() && !replaces_own {
                    return;
                }
                if self.keeps() && partial.is_ours() && !replaces_own {
                    let _ = partial.place.remove_journal();
                }
                // A removal that fails has no one to tell; the next attempt replaces what is left.
                partial.discard();
            }
            SinkTarget::Region(region) => region.discard(),
            SinkTarget::Nothing => {}
        }
    }

    /// Leaves a file that several nodes write. Only the last one knows that nobody writes to it any
    /// more.
    fn leave(&self, partial: &PartialFile) {
        // It speaks of this attempt alone. A removal that fails has no one to tell.
        let _ = self.remove_token(partial);
        if partial.is_named() || !partial.is_ours() {
            return;
        }
        if let Some(journal) =
            self.journal.as_ref().filter(|_| self.is_shared() && !self.is_worth_keeping())
            && journal.is_ours(&partial.place)
        {
            let _ = partial.place.remove_journal();
        }
        let is_last = if partial.is_locked { partial.is_last() } else { !self.is_shared() };
        let Some(about) = fstat(partial.file.buffered()).ok().filter(|_| is_last) else { return };
        if !keep::is_kept(&partial.place, about.st_ino) {
            keep::remove_all(&partial.place, about.st_ino);
            partial.discard();
        }
    }

    /// Whether another attempt can continue with what this node knows of.
    fn is_worth_keeping(&self) -> bool {
        self.journal.as_ref().is_some_and(JournalFile::is_worth_keeping)
    }

    /// The process is gone: what lies there stays as it is.
    #[cfg(test)]
    pub(crate) fn crash(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    /// The error for a write that the system refused with `errno`.
    pub(crate) fn write_failed(&self, errno: Errno) -> Error {
        fault(errno, self.name(), "written")
    }

    /// Leaves a record of the file that is complete, for an attempt that has to find out which
    /// files are.
    fn record_completion(&self, partial: &PartialFile) {
        self.record(partial, "the completion", JournalFile::complete);
    }

    /// Leaves a record of what the file looks like, now that this node does not write to it any
    /// more: whoever finds it like that need not read it.
    fn record_leaving(&self, partial: &PartialFile) {
        self.record(partial, "the state", JournalFile::leave);
    }

    fn record(
        &self,
        partial: &PartialFile,
        what: &str,
        record: fn(&JournalFile, &OpenFile) -> std::io::Result<()>,
    ) {
        if let Some(journal) = self.journal.as_ref().filter(|_| !partial.is_named())
            && let Err(error) = record(journal, &partial.file)
        {
            tracing::warn!("{what} of {} is not recorded: {error}", self.name().display());
        }
    }

    /// New partial files are empty; one that is gone on with has its size, and a region has fitted
    /// itself.
    fn make_room(&self, bytes: u64) -> Result<()> {
        match &self.target {
            SinkTarget::Owned(partial) if partial.is_new => {
                space::size(partial.file.buffered(), self.name(), bytes)
            }
            SinkTarget::Joined(partial) => space::grow(partial.file.buffered(), self.name(), bytes),
            SinkTarget::Owned(_) | SinkTarget::Region(_) | SinkTarget::Nothing => Ok(()),
        }
    }

    /// The file, where it is one.
    fn partial(&self) -> Option<&PartialFile> {
        match &self.target {
            SinkTarget::Owned(partial) | SinkTarget::Joined(partial) => Some(partial),
            SinkTarget::Region(_) | SinkTarget::Nothing => None,
        }
    }

    /// Removes the token that this node has left, unless a newer attempt's lies there now.
    fn remove_token(&self, partial: &PartialFile) -> Result<()> {
        let left_one = self.shared == SharedRole::Elected && partial.is_ours();
        if left_one { partial.place.remove_token() } else { Ok(()) }
    }

    fn file(&self) -> Option<&OpenFile> {
        match &self.target {
            SinkTarget::Owned(partial) | SinkTarget::Joined(partial) => Some(&partial.file),
            SinkTarget::Region(region) => Some(&region.file),
            SinkTarget::Nothing => None,
        }
    }

    /// As the user names it.
    pub(crate) fn name(&self) -> &Path {
        match &self.target {
            SinkTarget::Owned(partial) | SinkTarget::Joined(partial) => &partial.place.path,
            SinkTarget::Region(region) => &region.name,
            SinkTarget::Nothing => Path::new("null:"),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.discard();
    }
}
