//! What lies beside a partial file: the journals of those who write it, and the token of the
//! attempt.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;

use nix::dir::Dir;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;

use super::fault::fault;
use super::partial::{DestinationPath, unlink};
use super::token;
use super::trust::{TrustedName, open_own};
use crate::core::error::Result;

impl DestinationPath {
    /// A member's journal beside the partial file, or that of the node that makes the file, if
    /// there is one.
    ///
    /// # Errors
    /// The reason, where there is something that is not this user's own, or that cannot be opened.
    pub(super) fn open_journal_of(
        &self,
        member: Option<u32>,
    ) -> std::result::Result<Option<File>, String> {
        let name = self.journal_of(member);
        match open_own(&self.directory, &name, OFlag::O_RDONLY) {
            Ok(TrustedName::File(file, _)) => Ok(Some(File::from(file))),
            Ok(TrustedName::Nothing) => Ok(None),
            Ok(TrustedName::Unfit(why)) => {
                Err(format!("{} {why}", self.path.with_file_name(name).display()))
            }
            Err(errno) => Err(format!("its journal cannot be read: {}", errno.desc())),
        }
    }

    /// Whose journals lie beside the partial file: members', and that of the node that makes the
    /// file.
    pub(super) fn journals(&self) -> io::Result<Vec<Option<u32>>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut directory = Dir::openat(&self.directory, ".", flags, Mode::empty())?;
        let mut found = Vec::new();
        for entry in directory.iter() {
            let entry = entry?;
            let behind = entry.file_name().to_bytes().strip_prefix(self.partial.as_bytes());
            match behind.and_then(|behind| str::from_utf8(behind).ok()?.strip_prefix(JOURNAL)) {
                Some("") => found.push(None),
                Some(member) => {
                    found.extend(member.strip_prefix('-').and_then(|it| it.parse().ok()).map(Some))
                }
                None => {}
            }
        }
        Ok(found)
    }

    /// Makes an empty journal, under a name of its own until it is written.
    pub(super) fn write_journal(&self) -> io::Result<File> {
        let name = self.new_journal();
        unlink(&self.directory, &name)?;
        let flags =
            OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(File::from(openat(
            &self.directory,
            name.as_os_str(),
            flags,
            Mode::from_bits_truncate(0o600),
        )?))
    }

    /// Puts the journal that was written in the place of the one before; durably, if it `lasts`.
    pub(super) fn name_journal(&self, lasts: bool) -> io::Result<()> {
        let (from, to) = (self.new_journal(), self.journal_of(self.member));
        renameat(&self.directory, from.as_os_str(), &self.directory, to.as_os_str())?;
        if lasts { Ok(self.sync_directory()?) } else { Ok(()) }
    }

    /// Removes this node's journal, if there is one.
    pub(super) fn remove_journal(&self) -> Result<()> {
        self.remove(&self.journal_of(self.member))?;
        self.remove(&self.new_journal())
    }

    /// Removes a member's journal, or that of the node that makes the file. What cannot be removed
    /// is replaced by the next attempt.
    pub(super) fn remove_journal_of(&self, member: Option<u32>) {
        let _ = self.remove(&self.journal_of(member));
    }

    /// Removes the journals of all other nodes.
    pub(super) fn remove_other_journals(&self) {
        let others =
            self.journals().unwrap_or_default().into_iter().filter(|member| *member != self.member);
        others.for_each(|member| self.remove_journal_of(member));
    }

    /// What this node's journal is called until it is written.
    fn new_journal(&self) -> OsString {
        let mut name = self.journal_of(self.member);
        name.push("~");
        name
    }

    fn journal_of(&self, member: Option<u32>) -> OsString {
        let mut name = self.partial.clone();
        name.push(JOURNAL);
        name.push(member.map_or(String::new(), |member| format!("-{member}")));
        name
    }

    /// Writes the token of `attempt` beside the partial file.
    pub(super) fn write_token(&self, attempt: &token::AttemptToken) -> Result<()> {
        let name = token::name(&self.partial);
        self.remove(&name)?;
        token::write(&self.directory, &name, attempt).map_err(|errno| self.unwritable(errno))
    }

    /// Whether the token beside the partial file is that of `attempt`: then both nodes see the same
    /// directory.
    pub(super) fn has_token(&self, attempt: &token::AttemptToken) -> Result<bool> {
        token::found(&self.directory, &token::name(&self.partial), attempt)
            .map_err(|errno| fault(errno, &self.path, "prepared"))
    }

    /// Removes the token, if there is one.
    pub(super) fn remove_token(&self) -> Result<()> {
        self.remove(&token::name(&self.partial))
    }
}

/// What the journal's name adds to the partial file's: of the node that makes the file, and the
/// beginning of members'.
const JOURNAL: &str = ".journal";
/// The longest of what is added to the partial file's name: a node's number, and what a journal has
/// until it is written.
pub(super) const SUFFIX_BYTES_MAX: usize = JOURNAL.len() + "-4294967295~".len();
const _: () = assert!(SUFFIX_BYTES_MAX >= token::SUFFIX.len());
