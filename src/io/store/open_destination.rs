//! Opens the file of a destination: makes the calls of [`opening`].

use std::path::Path;

use nix::sys::stat::FileStat;

use super::StoreRoot;
use super::destination_file::DestinationFile;
use super::destination_path::DestinationPath;
use super::journal::FileState;
use super::journal_file::{self, FoundJournal, JournalFile, JournalIdentity, NewJournal, state_of};
use super::partial_file::{Leftover, PartialFile};
use super::trust::may_others_write;
use crate::core::error::Result;
use crate::core::options::TransferOptions;
use crate::core::store::destination::DestinationState;
use crate::core::store::opening::{self, OpeningAction, OpeningEvent, OpeningState};
use crate::core::store::writer::{WriterRole, WriterTerms};

/// Conditions for the preparation of a destination.
#[derive(Clone, Debug)]
pub(crate) struct SinkOptions {
    /// Options of the transfer: of these, `overwrite` and `fsync` are the store's.
    pub(crate) transfer: TransferOptions,
    /// Hash of the transfer and the row, in letters and digits: the end of the partial file's name.
    pub(crate) tag: String,
    /// Random bytes of the attempt.
    pub(crate) attempt: [u8; 16],
    /// Part of this node where others write the same path.
    pub(crate) role: WriterRole,
    /// End of the rows of all nodes that name the path, if that is beyond the own ones. Which of
    /// them write to this very file is not known yet: each of those makes it long enough.
    pub(crate) others_end: u64,
    /// Identity of the journal that the file is continued from and kept by; `None` where it starts
    /// from nothing and leaves nothing. Of files alone.
    pub(crate) keep: Option<JournalIdentity>,
}

impl SinkOptions {
    fn new_journal(&self) -> Option<NewJournal> {
        let SinkOptions { transfer, attempt: salt, role, .. } = *self;
        let is_of_several = role != WriterRole::Sole;
        self.keep.map(|identity| NewJournal { identity, salt, transfer, is_of_several })
    }
}

/// An open file, and its part and first state in the machine of destinations.
pub(super) struct OpenDestination {
    pub(super) file: DestinationFile,
    pub(super) role: WriterRole,
    pub(super) state: DestinationState,
    /// Header of another journal of this attempt, for a file beside this one.
    pub(super) new_journal: Option<NewJournal>,
}

/// Opens the file at `path`, in which the own rows end at byte `file_bytes`, and its journal where
/// it has one.
///
/// # Errors
/// `Data`, with what is in the way.
///
/// # Panics
/// If the tag is not 1 to 64 letters and digits.
pub(super) fn open_destination(
    root: &StoreRoot,
    path: &Path,
    file_bytes: u64,
    options: &SinkOptions,
) -> Result<OpenDestination> {
    let tag = &options.tag;
    assert!((1..=TAG_BYTES_MAX).contains(&tag.len()), "a tag has 1 to {TAG_BYTES_MAX} bytes");
    assert!(
        tag.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        "a tag is made of letters and digits"
    );
    let (place, existing) = DestinationPath::look(root, path, tag)?;
    let is_follower = matches!(options.role, WriterRole::Follower(_));
    let sees_token = is_follower && place.has_token(&options.attempt)?;
    let terms = WriterTerms {
        role: options.role.seeing_token(sees_token),
        resumes: options.keep.is_some(),
        overwrite: options.transfer.overwrite,
    };
    let new_journal = options.new_journal();
    let search = Search {
        options,
        terms,
        place,
        existing,
        file_bytes,
        new_journal,
        complete: None,
        refused: None,
        file: None,
    };
    search.run()
}

/// Search for the file of one destination.
struct Search<'a> {
    options: &'a SinkOptions,
    terms: WriterTerms,
    place: DestinationPath,
    /// Entry that has the final name.
    existing: Option<FileStat>,
    file_bytes: u64,
    new_journal: Option<NewJournal>,
    /// Journal of the complete file that was found.
    complete: Option<JournalFile>,
    /// Reason why what an earlier attempt has left is not continued.
    refused: Option<String>,
    file: Option<DestinationFile>,
}

impl Search<'_> {
    fn run(mut self) -> Result<OpenDestination> {
        let (mut state, mut event) = (OpeningState::Closed, OpeningEvent::Open);
        loop {
            let step = opening::step(self.terms, state, event)
                .unwrap_or_else(|| panic!("{event:?} cannot come in {state:?}"));
            let mut answer = None;
            for action in step.actions {
                answer = self.carry_out(*action)?;
            }
            state = step.next;
            if let OpeningState::Open(state) = state {
                let file = self.file.expect("the last action has opened it");
                let (role, new_journal) = (self.terms.role, self.new_journal);
                return Ok(OpenDestination { file, role, state, new_journal });
            }
            event = answer.expect("an action that opens nothing answers");
        }
    }

    fn carry_out(&mut self, action: OpeningAction) -> Result<Option<OpeningEvent>> {
        let existing = self.existing.as_ref();
        match action {
            OpeningAction::Join => return self.join().map(Some),
            OpeningAction::FindComplete => return Ok(Some(self.find_complete())),
            OpeningAction::OpenComplete => return Ok(Some(self.open_complete())),
            OpeningAction::FindLeftover => return self.find_leftover().map(Some),
            OpeningAction::CheckReplaceable => {
                self.place.accept(existing, self.options.transfer.overwrite)?;
            }
            OpeningAction::CheckContinuable => {
                let journal = self.file.as_ref().and_then(|file| file.journal.as_ref());
                let overwrite = journal.is_some_and(JournalFile::overwrites);
                self.place.accept(existing, overwrite)?;
            }
            OpeningAction::RemoveOtherJournals => self.place.remove_other_journals(),
            OpeningAction::Create => {
                let is_shared = self.terms.role == WriterRole::Leader;
                let partial = PartialFile::create(&self.place, is_shared)?;
                let found = FoundJournal::nothing(self.refused.take());
                self.file = Some(with_new_journal(partial, found, self.new_journal.as_ref())?);
            }
            OpeningAction::CreateBeside => {
                let partial = PartialFile::create_beside(&self.place)?;
                let complete = self.complete.take().and_then(|journal| journal.found.complete);
                let found = FoundJournal { complete, ..FoundJournal::default() };
                self.file = Some(with_new_journal(partial, found, self.new_journal.as_ref())?);
            }
        }
        Ok(None)
    }

    /// Returns true if a file of this size can be what an earlier attempt has made.
    fn has_size(&self, about: &FileStat) -> bool {
        let most = self.file_bytes.max(self.options.others_end);
        (self.file_bytes..=most).contains(&about.st_size.unsigned_abs())
    }

    /// Opens the leader's file, and finds what this node has left in it.
    fn join(&mut self) -> Result<OpeningEvent> {
        let WriterRole::Follower(number) = self.terms.role else { panic!("only followers join") };
        let partial = PartialFile::join(&self.place, number)?;
        let about = partial.examine()?;
        let new_journal = self.new_journal.filter(|_| partial.is_locked);
        let journal = new_journal.map(|header| {
            let salt = journal_file::salt_of(&self.options.attempt, number);
            let header = NewJournal { salt, ..header };
            if journal_file::is_led_to(&partial.place, about.st_ino) {
                JournalFile::find(&partial.place, &about, &header)
            } else {
                // A new file, which may have the inode number of a file that is gone.
                JournalFile::new(about.st_ino, &header, FoundJournal::default())
            }
        });
        let is_complete = partial.is_complete();
        self.file = Some(DestinationFile { partial, journal });
        Ok(OpeningEvent::Joined { is_complete })
    }

    fn find_complete(&mut self) -> OpeningEvent {
        let (Some(existing), Some(header)) = (&self.existing, &self.new_journal) else {
            return OpeningEvent::NoComplete;
        };
        let journal = JournalFile::find(&self.place, existing, header);
        // Rows of other nodes, which the journal does not know, may ask for another size.
        let has_size = self.has_size(existing);
        let is_like_recorded = journal.found.complete.is_some_and(|it| is_like(&it, existing));
        if !has_size || !is_like_recorded {
            return OpeningEvent::NoComplete;
        }
        let is_trusted = journal.found.doubt.is_none() || !may_others_write(existing);
        // A look at the whole directory: only a leader has to know.
        let is_recorded = self.terms.role != WriterRole::Leader
            || journal_file::is_kept(&self.place, existing.st_ino);
        self.complete = Some(journal);
        OpeningEvent::CompleteFound { is_trusted, is_recorded }
    }

    fn open_complete(&mut self) -> OpeningEvent {
        let existing = self.existing.as_ref().expect("a complete file was found");
        let Some(partial) = PartialFile::open_complete(&self.place, existing) else {
            return OpeningEvent::CompleteUnfit;
        };
        self.file = Some(DestinationFile { partial, journal: self.complete.take() });
        OpeningEvent::CompleteOpened
    }

    /// Opens the partial file of an earlier attempt. One that cannot be continued is closed again.
    fn find_leftover(&mut self) -> Result<OpeningEvent> {
        let header = self.new_journal.as_ref().expect("only what is kept is continued");
        let partial = match PartialFile::reopen(&self.place)? {
            Leftover::File(partial) => partial,
            Leftover::Nothing(why) => {
                self.refused = why;
                return Ok(OpeningEvent::NoLeftover);
            }
        };
        let about = partial.examine()?;
        let journal = JournalFile::find(&self.place, &about, header);
        let is_kept = match self.terms.role {
            WriterRole::Leader => {
                journal.found.refused.is_none() && journal_file::is_kept(&self.place, about.st_ino)
            }
            WriterRole::Sole | WriterRole::Follower(_) => !journal.found.records.is_empty(),
        };
        let has_size = self.has_size(&about);
        if is_kept && has_size {
            self.file = Some(DestinationFile { partial, journal: Some(journal) });
        } else {
            let resized = is_kept.then(|| "the partial file has another size".into());
            self.refused = resized.or(journal.found.refused);
        }
        Ok(OpeningEvent::LeftoverFound { is_continuable: self.file.is_some() })
    }
}

/// A new file with its journal. Where it cannot be locked there is none, because other nodes could
/// write to the file unnoticed.
pub(super) fn with_new_journal(
    partial: PartialFile,
    found: FoundJournal,
    header: Option<&NewJournal>,
) -> Result<DestinationFile> {
    let inode = partial.examine()?.st_ino;
    let header = header.filter(|_| partial.is_locked);
    let journal = header.map(|header| JournalFile::new(inode, header, found));
    Ok(DestinationFile { partial, journal })
}

/// A file that has its final name can be the one that was recorded as complete: getting a name
/// changes no more of it than the time of its last change.
fn is_like(complete: &FileState, existing: &FileStat) -> bool {
    let now = state_of(existing);
    (now.size_bytes, now.modified) == (complete.size_bytes, complete.modified)
}

/// Leaves most of a name of 255 bytes to the user's.
const TAG_BYTES_MAX: usize = 64;
