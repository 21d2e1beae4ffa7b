//! Files beside a partial file: the journals of the nodes that write it, and the attempt's token.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;

use nix::dir::Dir;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;

use super::destination_path::{DestinationPath, JOURNAL_SUFFIX, unlink};
use super::fault::fault;
use super::token;
use super::trust::{TrustedName, open_own};
use crate::core::error::Result;

impl DestinationPath {
    /// Opens a follower's journal, or the leader's where `follower` is `None`, if it is there.
    ///
    /// # Errors
    /// The reason, where something is there that is not this user's own, or cannot be opened.
    pub(super) fn open_journal_of(
        &self,
        follower: Option<u32>,
    ) -> std::result::Result<Option<File>, String> {
        let name = self.journal_of(follower);
        match open_own(&self.directory, &name, OFlag::O_RDONLY) {
            Ok(TrustedName::File(file, _)) => Ok(Some(File::from(file))),
            Ok(TrustedName::Nothing) => Ok(None),
            Ok(TrustedName::Unfit(why)) => {
                Err(format!("{} {why}", self.path.with_file_name(name).display()))
            }
            Err(errno) => Err(format!("its journal cannot be read: {}", errno.desc())),
        }
    }

    /// Lists the journals that are there, by follower; `None` is the leader.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(super) fn journals(&self) -> io::Result<Vec<Option<u32>>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut directory = Dir::openat(&self.directory, ".", flags, Mode::empty())?;
        let mut found = Vec::new();
        for entry in directory.iter() {
            let entry = entry?;
            let suffix = entry.file_name().to_bytes().strip_prefix(self.partial.as_bytes());
            let of = suffix.and_then(|it| str::from_utf8(it).ok()?.strip_prefix(JOURNAL_SUFFIX));
            match of {
                Some("") => found.push(None),
                Some(follower) => {
                    let number = follower.strip_prefix('-').and_then(|it| it.parse().ok());
                    found.extend(number.map(Some));
                }
                None => {}
            }
        }
        Ok(found)
    }

    /// Makes an empty journal, under a name of its own until it is written.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn write_journal(&self) -> io::Result<File> {
        let name = self.new_journal();
        unlink(&self.directory, &name)?;
        let flags =
            OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o600);
        Ok(File::from(openat(&self.directory, name.as_os_str(), flags, mode)?))
    }

    /// Puts the new journal in the place of the one before, durably if it `lasts`.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn name_journal(&self, lasts: bool) -> io::Result<()> {
        let (from, to) = (self.new_journal(), self.journal_of(self.follower));
        renameat(&self.directory, from.as_os_str(), &self.directory, to.as_os_str())?;
        if lasts { Ok(self.sync_directory()?) } else { Ok(()) }
    }

    /// Removes this node's journal, if it is there.
    ///
    /// # Errors
    /// `Data`, with what is in the way.
    pub(super) fn remove_journal(&self) -> Result<()> {
        self.remove(&self.journal_of(self.follower))?;
        self.remove(&self.new_journal())
    }

    /// Removes a follower's journal, or the leader's. One that cannot be removed is replaced by the
    /// next attempt.
    pub(super) fn remove_journal_of(&self, follower: Option<u32>) {
        let _ = self.remove(&self.journal_of(follower));
    }

    /// Removes the journals of all other nodes.
    pub(super) fn remove_other_journals(&self) {
        let all = self.journals().unwrap_or_default().into_iter();
        all.filter(|of| *of != self.follower).for_each(|of| self.remove_journal_of(of));
    }

    /// Name of this node's journal until it is written.
    fn new_journal(&self) -> OsString {
        let mut name = self.journal_of(self.follower);
        name.push("~");
        name
    }

    fn journal_of(&self, follower: Option<u32>) -> OsString {
        let mut name = self.partial.clone();
        name.push(JOURNAL_SUFFIX);
        name.push(follower.map_or(String::new(), |number| format!("-{number}")));
        name
    }

    /// Writes the token of `attempt` beside the partial file.
    ///
    /// # Errors
    /// `Data`, with what is in the way.
    pub(super) fn write_token(&self, attempt: &token::AttemptToken) -> Result<()> {
        let name = token::name(&self.partial);
        self.remove(&name)?;
        token::write(&self.directory, &name, attempt).map_err(|errno| self.unwritable(errno))
    }

    /// The token beside the partial file is that of `attempt`: its leader sees the same directory.
    ///
    /// # Errors
    /// `Data` where the system does not tell.
    pub(super) fn has_token(&self, attempt: &token::AttemptToken) -> Result<bool> {
        token::found(&self.directory, &token::name(&self.partial), attempt)
            .map_err(|errno| fault(errno, &self.path, "prepared"))
    }

    /// Removes the token, if it is there.
    ///
    /// # Errors
    /// `Data`, with what is in the way.
    pub(super) fn remove_token(&self) -> Result<()> {
        self.remove(&token::name(&self.partial))
    }
}
