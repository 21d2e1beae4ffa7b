//! A file that is not complete yet: `.NAME.cep-TAG` beside the name it will have.
//!
//! It gets its name in one step, and only when it is complete. From then on nobody opens it for
//! writing again.
//!
//! Whoever writes a partial file has it locked. Another attempt of the same transfer resumes it
//! only once its lock is released. The kernel releases it when the last operation on the file
//! completes, which may be after the process has died: rings hold the locked descriptor as long as
//! they have anything in flight. Where the lock is not released the new attempt makes a new file of
//! the same name, and the old attempt writes on to a file without a name. For the same reason
//! nothing here renames or removes a partial file without a look whether the name still means it.
//!
//! Nodes that write one file share its lock, and each keeps a journal of its own. Some file systems
//! have locks that reach no further than one machine; a node that does not see the leader's lock
//! knows that it is on one of them.

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};

use super::destination_path::{DestinationPath, REMOVE, exists};
use super::fault::fault;
use super::journal_file::is_led_to;
use super::open::{OpenFile, identity};
use super::trust::{TrustedName, is_own, open_at_once, open_if, open_own};
use crate::core::error::{Code, Error, Result};

/// A partial file, open for writing; or the complete one of an earlier attempt, open for reading.
#[derive(Debug)]
pub(super) struct PartialFile {
    pub(super) file: OpenFile,
    pub(super) place: DestinationPath,
    /// No other process can have it open for writing and go unnoticed.
    pub(super) is_locked: bool,
    /// This attempt has made it.
    pub(super) is_new: bool,
    /// An earlier attempt has given it its final name.
    is_complete: bool,
    /// Permissions that it gets with its final name, as far as they are granted there.
    pub(super) mode: AtomicU32,
}

/// Leftover of an earlier attempt at a destination.
pub(super) enum Leftover {
    /// A partial file that nobody writes to.
    File(PartialFile),
    /// Nothing that can be continued, and why if something is there.
    Nothing(Option<String>),
}

impl PartialFile {
    /// Makes a new partial file, in the place of any that an earlier attempt has left. Other nodes
    /// may write it too if it is `shared`.
    ///
    /// # Errors
    /// `Data`, with what is in the way.
    pub(super) fn create(place: &DestinationPath, shared: bool) -> Result<PartialFile> {
        place.remove_journal()?;
        // Finding other nodes' journals costs a look at the whole directory.
        if shared || place.open_partial(OFlag::O_PATH, Mode::empty()).is_ok() {
            place.remove_other_journals();
        }
        PartialFile::create_beside(place)
    }

    /// Like [`PartialFile::create`], but leaves existing journals: they describe the complete file.
    ///
    /// # Errors
    /// `Data`, with what is in the way.
    pub(super) fn create_beside(place: &DestinationPath) -> Result<PartialFile> {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        for _ in 0..ATTEMPTS_MAX {
            place.remove(&place.partial)?;
            match place.open_partial(OFlag::O_CREAT | OFlag::O_EXCL, mode).map(lock) {
                Ok(Ok((file, is_locked))) => {
                    return Ok(PartialFile::opened(place, file, is_locked, true));
                }
                // Another attempt was quicker to lock it, and continues it.
                Ok(Err(_)) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(place.unwritable(errno)),
            }
        }
        Err(being_written(&place.path))
    }

    /// Opens the partial file that an earlier attempt has left, as soon as nobody writes to it.
    ///
    /// # Errors
    /// `Data` where the system refuses to open it.
    pub(super) fn reopen(place: &DestinationPath) -> Result<Leftover> {
        let nothing = |why: &str| Ok(Leftover::Nothing(Some(why.into())));
        let deadline = Instant::now() + LOCKED_MAX;
        loop {
            let file = match open_own(&place.directory, &place.partial, OFlag::O_RDWR) {
                Ok(TrustedName::File(file, _)) => file,
                Ok(TrustedName::Nothing) => return Ok(Leftover::Nothing(None)),
                Ok(TrustedName::Unfit(why)) => return nothing(&place.about_partial(why)),
                Err(errno) => return Err(fault(errno, &place.path, "written")),
            };
            match lock_soon(file, deadline) {
                Ok((file, true)) => {
                    let partial = PartialFile::opened(place, file, true, false);
                    if partial.is_ours() {
                        return Ok(Leftover::File(partial));
                    }
                    // It was renamed or replaced between the opening and the lock. Try again with
                    // the file that has the name now.
                }
                Ok((_, false)) => return nothing("its file system has no locks"),
                Err(_) => return nothing("an earlier attempt still writes to it"),
            }
        }
    }

    /// Opens the complete file that has the final name, if it is still the one that looked like
    /// `existing`. It is only read.
    pub(super) fn open_complete(
        place: &DestinationPath,
        existing: &FileStat,
    ) -> Option<PartialFile> {
        let (directory, name) = (&place.directory, &place.name);
        // A complete file has the permissions of its sources.
        match open_if(directory, name, OFlag::O_RDONLY, is_own) {
            Ok(TrustedName::File(file, about)) if identity(&about) == identity(existing) => {
                let direct =
                    || open_at_once(directory, name, OFlag::O_RDONLY | OFlag::O_DIRECT).ok();
                let file = OpenFile::new(file, direct);
                let mode = UNTOLD.into();
                let place = place.clone();
                let (is_locked, is_new, is_complete) = (true, false, true);
                Some(PartialFile { file, place, is_locked, is_new, is_complete, mode })
            }
            _ => None,
        }
    }

    /// Opens the file that the leader of this attempt has made, or found complete, for the follower
    /// of that number.
    ///
    /// # Errors
    /// `Data` where the leader has given the file up, and where it is not this user's own.
    pub(super) fn join(place: &DestinationPath, follower: u32) -> Result<PartialFile> {
        let place = &DestinationPath { follower: Some(follower), ..place.clone() };
        let file = match open_own(&place.directory, &place.partial, OFlag::O_RDWR) {
            Ok(TrustedName::File(file, _)) => file,
            Ok(TrustedName::Nothing) => return PartialFile::join_complete(place),
            Ok(TrustedName::Unfit(why)) => {
                return Err(Error::new(Code::Data, place.about_partial(why)).remedy(REMOVE));
            }
            Err(errno) => return Err(fault(errno, &place.path, "written")),
        };
        match lock(file) {
            // The leader has a lock on it, which is not seen from here, or there are no locks.
            Ok((file, _)) => {
                let file = File::from(file);
                let _ = file.unlock();
                Ok(PartialFile::opened(place, file.into(), false, false))
            }
            Err(file) => {
                let partial = PartialFile::opened(place, file, true, false);
                if partial.share_lock() { Ok(partial) } else { Err(given_up(&place.path)) }
            }
        }
    }

    fn join_complete(place: &DestinationPath) -> Result<PartialFile> {
        let complete = place.look_again().ok().filter(|named| is_led_to(place, named.st_ino));
        complete
            .and_then(|complete| PartialFile::open_complete(place, &complete))
            .ok_or_else(|| given_up(&place.path))
    }

    fn opened(
        place: &DestinationPath,
        file: OwnedFd,
        is_locked: bool,
        is_new: bool,
    ) -> PartialFile {
        let file = OpenFile::new(file, || place.open_partial(OFlag::O_DIRECT, Mode::empty()).ok());
        let (place, mode) = (place.clone(), UNTOLD.into());
        PartialFile { file, place, is_locked, is_new, is_complete: false, mode }
    }

    /// Gives the complete file its name, durably if `fsync`.
    ///
    /// # Errors
    /// `Data` where another attempt has replaced the file, where something has its name, and where
    /// the system refuses.
    pub(super) fn finish(&self, overwrite: bool, fsync: bool) -> Result<()> {
        let place = &self.place;
        self.check_ours()?;
        place.check_found_again()?;
        self.take_permissions(overwrite, fsync)?;
        place.rename(overwrite).map_err(|errno| match errno {
            Errno::EEXIST => exists(&place.path),
            other => fault(other, &place.path, "given its name"),
        })?;
        if fsync {
            place.sync_directory().map_err(|errno| place.unwritable(errno))?;
        }
        Ok(())
    }

    /// Refuses a file that has lost its name to another attempt.
    ///
    /// # Errors
    /// `Data`.
    pub(super) fn check_ours(&self) -> Result<()> {
        if self.is_ours() {
            return Ok(());
        }
        let path = self.place.path.display();
        let what = format!("another attempt has replaced the partial file of {path}");
        Err(Error::new(Code::Data, what).remedy("let that attempt end"))
    }

    /// An earlier attempt has given it its final name.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Shares the lock with other nodes that write this file; false where another attempt has it.
    pub(super) fn share_lock(&self) -> bool {
        !self.is_locked || self.descriptor().is_ok_and(|file| file.try_lock_shared().is_ok())
    }

    /// No other node writes this file. The shared lock on it may be lost otherwise.
    pub(super) fn is_last(&self) -> bool {
        self.is_locked && self.descriptor().is_ok_and(|file| file.try_lock().is_ok())
    }

    /// The descriptor that has the lock.
    fn descriptor(&self) -> io::Result<File> {
        self.file.buffered().try_clone_to_owned().map(File::from)
    }

    /// Removes the partial file, unless the name means another one by now.
    ///
    /// # Errors
    /// `Data`, with what is in the way.
    pub(super) fn remove(&self) -> Result<()> {
        assert!(!self.is_complete, "a complete file is never removed");
        if self.is_ours() { self.place.remove(&self.place.partial) } else { Ok(()) }
    }

    /// Its name still means the file that is open here.
    pub(super) fn is_ours(&self) -> bool {
        let name = if self.is_complete { &self.place.name } else { &self.place.partial };
        let named = fstatat(&self.place.directory, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
        match (named, fstat(self.file.buffered())) {
            (Ok(named), Ok(open)) => identity(&named) == identity(&open),
            _ => false,
        }
    }

    /// Size, times and inode.
    ///
    /// # Errors
    /// `Data` where the system does not tell.
    pub(super) fn examine(&self) -> Result<FileStat> {
        fstat(self.file.buffered()).map_err(|errno| fault(errno, &self.place.path, "examined"))
    }
}

/// Locks a file for as long as it is open anywhere in this process. Returns the file, and false
/// where its file system has no locks; an error where another process has the lock.
fn lock(file: OwnedFd) -> std::result::Result<(OwnedFd, bool), OwnedFd> {
    let file = File::from(file);
    match file.try_lock() {
        Ok(()) => Ok((file.into(), true)),
        Err(TryLockError::Error(_)) => Ok((file.into(), false)),
        Err(TryLockError::WouldBlock) => Err(file.into()),
    }
}

/// Like [`lock`], but waits for another process until `deadline`.
fn lock_soon(
    mut file: OwnedFd,
    deadline: Instant,
) -> std::result::Result<(OwnedFd, bool), OwnedFd> {
    loop {
        file = match lock(file) {
            Err(taken) if Instant::now() < deadline => taken,
            done => return done,
        };
        std::thread::sleep(LOCKED_AGAIN);
    }
}

fn given_up(path: &Path) -> Error {
    Error::new(Code::Data, format!("the node that makes {} has given it up", path.display()))
}

pub(super) fn being_written(path: &Path) -> Error {
    Error::new(Code::Data, format!("another transfer writes {} at the same time", path.display()))
        .remedy("wait for it to end")
}

/// Permissions of a file of whose sources nobody has told any.
const UNTOLD: u32 = 0o666;

/// Time in which an earlier attempt has to release its partial file: a process that was killed has
/// writes in flight.
const LOCKED_MAX: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 5000 });
const LOCKED_AGAIN: Duration = Duration::from_millis(5);

/// Times that a name may be taken between our removing it and our taking it.
const ATTEMPTS_MAX: u32 = 8;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::super::StoreRoot;
    use super::*;

    #[test]
    fn file_systems_without_the_flag_do_not_replace_either() {
        let home = tempfile::tempdir().unwrap();
        let root = StoreRoot::open(home.path()).unwrap();
        let create = || {
            let (place, _) = DestinationPath::look(&root, Path::new("/x"), "ab12").unwrap();
            PartialFile::create(&place, false).unwrap()
        };
        create().place.rename_by_link().unwrap();
        assert!(home.path().join("x").exists() && !home.path().join(".x.cep-ab12").exists());
        let taken = create();
        assert_eq!(taken.place.rename_by_link(), Err(Errno::EEXIST));
        assert!(taken.is_ours());
    }
}
