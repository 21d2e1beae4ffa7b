//! A file that is not complete yet: `.NAME.cep-TAG` beside the place it will have.
//!
//! It gets its name in one step, and only when it is complete; from then on nobody opens it for
//! writing again. Whoever writes one has it locked. Another attempt of the same transfer goes on
//! with a partial file only when that lock is gone, and it goes with the last operation on the
//! file, not only with its process: rings hold the locked descriptor as long as they have anything
//! in flight. Otherwise the new attempt replaces the partial file by a new one of the same name:
//! what a node of the old attempt still writes goes to a file without a name. For the same reason
//! nothing here renames or removes a partial file before it has looked whether that is still ours.
//!
//! Where several nodes write one file, each has a lock that it shares with the others, and a
//! journal of its own. There are file systems whose locks reach no further than one machine; a node
//! that does not see the lock of the one that made the file knows.

use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{LinkatFlags, UnlinkatFlags, fsync, linkat, unlinkat};

use super::StoreRoot;
use super::beside::SUFFIX_BYTES_MAX;
use super::fault::fault;
use super::keep::is_gone_on_with;
use super::open::{OpenFile, identity, retried};
use super::root::DIRECTORY;
use super::space;
use super::trust::{TrustedName, is_own, open_at_once, open_if, open_own};
use crate::core::error::{Code, Error, Result};

/// The place of a destination: its directory, its name, and the names beside it.
#[derive(Debug)]
pub(super) struct DestinationPath {
    pub(super) directory: OwnedFd,
    /// The destination as the user wrote it.
    pub(super) path: PathBuf,
    pub(super) name: OsString,
    pub(super) partial: OsString,
    /// The number that this node has among those that write a file which another one makes.
    pub(super) member: Option<u32>,
    /// The permissions that a new file may have here, once that is known.
    pub(super) granted: OnceLock<Mode>,
    /// The path of the root that the destination lies below.
    pub(super) root: PathBuf,
}

/// A partial file, open for writing.
#[derive(Debug)]
pub(super) struct PartialFile {
    pub(super) file: OpenFile,
    pub(super) place: DestinationPath,
    /// Whether no other process can have it open for writing, and go unnoticed.
    pub(super) is_locked: bool,
    /// Whether this attempt has made it.
    pub(super) is_new: bool,
    /// Whether an earlier attempt has given it its final name already.
    named: bool,
    /// The permissions that it will have with its final name, as far as they are granted here.
    /// Until then it has others.
    pub(super) mode: AtomicU32,
}

/// What an earlier attempt has left at a place.
pub(super) enum Leftover {
    /// A partial file that nobody writes any more.
    Partial(PartialFile),
    /// Nothing that can be gone on with; or why not.
    Nothing(DestinationPath, Option<String>),
}

impl DestinationPath {
    /// Finds the directory of `path`, and what has its name there.
    ///
    /// # Errors
    /// `Data` where the directory is missing; `Refused` where the path leads out of the root.
    pub(super) fn look(
        root: &StoreRoot,
        path: &Path,
        tag: &str,
    ) -> Result<(DestinationPath, Option<FileStat>)> {
        root.relative(path)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(fault(Errno::EISDIR, path, "written"));
        };
        let directory =
            root.try_open(parent, DIRECTORY, Mode::empty())?.map_err(|errno| match errno {
                Errno::ENOENT => no_directory(parent),
                other => fault(other, parent, "entered"),
            })?;
        let place = DestinationPath {
            directory,
            path: path.to_path_buf(),
            name: name.to_owned(),
            partial: partial_name(name, tag),
            member: None,
            granted: OnceLock::new(),
            root: root.given().to_path_buf(),
        };
        let existing = place.existing(root)?;
        Ok((place, existing))
    }

    /// Refuses to replace what is there, unless that was asked for.
    ///
    /// # Errors
    /// `Data` where it is not to be overwritten, is no file, or cannot be replaced, and where
    /// nothing can be made there.
    pub(super) fn accept(&self, existing: Option<&FileStat>, overwrite: bool) -> Result<()> {
        if let Some(existing) = existing {
            self.check_replaceable(existing, overwrite)?;
        }
        self.check_grants()
    }

    /// Makes a new partial file, in the place of any that an earlier attempt has left. Other nodes
    /// may write it, too, if it is `shared`.
    pub(super) fn create(self, shared: bool) -> Result<PartialFile> {
        self.remove_journal()?;
        // Whose journals lie there costs a look at the whole directory.
        if shared || self.open_partial(OFlag::O_PATH, Mode::empty()).is_ok() {
            self.remove_other_journals();
        }
        self.create_beside()
    }

    /// The same, but for journals: they speak of what has the final name.
    pub(super) fn create_beside(self) -> Result<PartialFile> {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        for _ in 0..ATTEMPTS_MAX {
            self.remove(&self.partial)?;
            match self.open_partial(OFlag::O_CREAT | OFlag::O_EXCL, mode).map(lock) {
                Ok(Ok((file, is_locked))) => return Ok(self.opened(file, is_locked, true)),
                // Another attempt was quicker to lock it, and goes on with it.
                Ok(Err(_)) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(self.unwritable(errno)),
            }
        }
        Err(being_written(&self.path))
    }

    /// Opens the partial file that an earlier attempt has left, as soon as nobody writes to it any
    /// more.
    ///
    /// # Errors
    /// `Data` where the system refuses to open it.
    pub(super) fn reopen(mut self) -> Result<Leftover> {
        let deadline = Instant::now() + LOCKED_MAX;
        loop {
            let file = match open_own(&self.directory, &self.partial, OFlag::O_RDWR) {
                Ok(TrustedName::File(file, _)) => file,
                Ok(TrustedName::Nothing) => return Ok(Leftover::Nothing(self, None)),
                Ok(TrustedName::Unfit(why)) => {
                    let why = self.about_partial(why);
                    return Ok(Leftover::Nothing(self, Some(why)));
                }
                Err(errno) => return Err(fault(errno, &self.path, "written")),
            };
            match lock_soon(file, deadline) {
                Ok((file, true)) => {
                    let partial = self.opened(file, true, false);
                    if partial.is_ours() {
                        return Ok(Leftover::Partial(partial));
                    }
                    // It was renamed or replaced between the opening and the lock: once more, with
                    // what has the name now.
                    self = partial.place;
                }
                Ok((_, false)) => {
                    return Ok(Leftover::Nothing(
                        self,
                        Some("its file system has no locks".into()),
                    ));
                }
                Err(_) => {
                    return Ok(Leftover::Nothing(
                        self,
                        Some("an earlier attempt still writes to it".into()),
                    ));
                }
            }
        }
    }

    /// Opens the complete file that has the final name already, which was `existing` when it was
    /// looked at. It is only read.
    pub(super) fn reopen_named(
        self,
        existing: &FileStat,
    ) -> std::result::Result<PartialFile, DestinationPath> {
        // A complete file has the permissions of its sources.
        match open_if(&self.directory, &self.name, OFlag::O_RDONLY, is_own) {
            Ok(TrustedName::File(file, about)) if identity(&about) == identity(existing) => {
                let direct = || {
                    open_at_once(&self.directory, &self.name, OFlag::O_RDONLY | OFlag::O_DIRECT)
                        .ok()
                };
                let file = OpenFile::new(file, direct);
                Ok(PartialFile {
                    file,
                    place: self,
                    is_locked: true,
                    is_new: false,
                    named: true,
                    mode: UNTOLD.into(),
                })
            }
            _ => Err(self),
        }
    }

    /// Opens the file that another node of this attempt has made, or found complete; this one is
    /// its `member` of that number.
    pub(super) fn join(mut self, member: u32) -> Result<PartialFile> {
        self.member = Some(member);
        let file = match open_own(&self.directory, &self.partial, OFlag::O_RDWR) {
            Ok(TrustedName::File(file, _)) => file,
            Ok(TrustedName::Nothing) => return self.join_named(),
            Ok(TrustedName::Unfit(why)) => {
                return Err(Error::new(Code::Data, self.about_partial(why)).remedy(REMOVE));
            }
            Err(errno) => return Err(fault(errno, &self.path, "written")),
        };
        match lock(file) {
            // Who has made it has a lock on it, which is not seen from here. Or there are none.
            Ok((file, _)) => {
                let file = File::from(file);
                let _ = file.unlock();
                Ok(self.opened(file.into(), false, false))
            }
            Err(file) => {
                let partial = self.opened(file, true, false);
                if partial.let_others_write() {
                    Ok(partial)
                } else {
                    Err(given_up(&partial.place.path))
                }
            }
        }
    }

    /// As [`Place::join`], where the node that makes the file has found it complete.
    fn join_named(self) -> Result<PartialFile> {
        let named =
            fstatat(&self.directory, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).ok();
        let complete = named.filter(|named| is_gone_on_with(&self, named.st_ino));
        let Some(complete) = complete else { return Err(given_up(&self.path)) };
        self.reopen_named(&complete).map_err(|place| given_up(&place.path))
    }

    /// Why the partial file is not gone on with.
    fn about_partial(&self, why: &str) -> String {
        format!("{} {why}", self.path.with_file_name(&self.partial).display())
    }

    fn opened(self, file: OwnedFd, is_locked: bool, is_new: bool) -> PartialFile {
        let file = OpenFile::new(file, || self.open_partial(OFlag::O_DIRECT, Mode::empty()).ok());
        PartialFile { file, place: self, is_locked, is_new, named: false, mode: UNTOLD.into() }
    }

    pub(super) fn open_partial(&self, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
        let flags = flags | OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        retried(|| openat(&self.directory, self.partial.as_os_str(), flags, mode))
    }

    /// What has the destination's name now, links not followed.
    pub(super) fn existing(&self, root: &StoreRoot) -> Result<Option<FileStat>> {
        match fstatat(&self.directory, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(about) if is_kind(&about, SFlag::S_IFLNK) => {
                // The link itself would be replaced, not what it leads to. One that leads out is
                // refused all the same: whoever named it meant what it leads to.
                let _ = root.try_open(&self.path, OFlag::O_PATH, Mode::empty())?;
                Ok(Some(about))
            }
            Ok(about) => Ok(Some(about)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(fault(errno, &self.path, "written")),
        }
    }

    /// Gives the partial file the destination's name.
    fn rename(&self, overwrite: bool) -> nix::Result<()> {
        let (from, to) = (self.partial.as_os_str(), self.name.as_os_str());
        let directory = &self.directory;
        if overwrite {
            return renameat(directory, from, directory, to);
        }
        match renameat2(directory, from, directory, to, RenameFlags::RENAME_NOREPLACE) {
            // Network file systems often do not know this flag, and filters of system calls hide
            // the call.
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EPERM) => {
                self.rename_by_link()
            }
            done => done,
        }
    }

    /// As [`Place::rename`] without overwriting, for file systems that cannot do it in one step: a
    /// second name is refused where something has it, too.
    fn rename_by_link(&self) -> nix::Result<()> {
        let (from, to) = (self.partial.as_os_str(), self.name.as_os_str());
        let directory = &self.directory;
        match linkat(directory, from, directory, to, LinkatFlags::empty()) {
            Ok(()) => unlinkat(directory, from, UnlinkatFlags::NoRemoveDir),
            // No second names either: looking first is the best that is left, and a name taken just
            // then is lost.
            Err(Errno::EPERM | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
                match fstatat(directory, to, AtFlags::AT_SYMLINK_NOFOLLOW) {
                    Err(Errno::ENOENT) => renameat(directory, from, directory, to),
                    found => Err(found.err().unwrap_or(Errno::EEXIST)),
                }
            }
            Err(errno) => Err(errno),
        }
    }

    /// Removes what lies beside the destination under a name of this program's.
    pub(super) fn remove(&self, name: &OsStr) -> Result<()> {
        unlink(&self.directory, name).map_err(|errno| match errno {
            Errno::EPERM | Errno::EBUSY | Errno::ENOTEMPTY | Errno::EEXIST => {
                fault(errno, &self.path.with_file_name(name), "removed").remedy(REMOVE)
            }
            other => self.unwritable(other),
        })
    }

    pub(super) fn sync_directory(&self) -> nix::Result<()> {
        let listed =
            openat(&self.directory, ".", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        retried(|| fsync(&listed))
    }

    /// The directory did not take a new file: what the user has to change is the directory.
    pub(super) fn unwritable(&self, errno: Errno) -> Error {
        let directory = self.path.parent().unwrap_or(&self.path);
        space::fault_at(&self.directory, errno, directory, "written to")
    }
}

impl PartialFile {
    /// Gives the complete file its name, durably if `fsync`.
    pub(super) fn finish(&self, overwrite: bool, fsync: bool) -> Result<()> {
        let place = &self.place;
        if !self.is_ours() {
            let error = Error::new(
                Code::Data,
                format!(
                    "another attempt has replaced the partial file of {}",
                    place.path.display()
                ),
            );
            return Err(error.remedy("let that attempt end"));
        }
        if self.is_named() {
            return Ok(());
        }
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

    /// Whether it has its final name already.
    pub(super) fn is_named(&self) -> bool {
        self.named
    }

    /// Shares the lock with other nodes that write this file; false where somebody else has it.
    pub(super) fn let_others_write(&self) -> bool {
        !self.is_locked
            || self.named
            || self.descriptor().is_ok_and(|file| file.try_lock_shared().is_ok())
    }

    /// Whether no other node writes this file; the lock on it may be gone otherwise.
    pub(super) fn is_last(&self) -> bool {
        self.is_locked && self.descriptor().is_ok_and(|file| file.try_lock().is_ok())
    }

    /// The one that has the lock.
    fn descriptor(&self) -> io::Result<File> {
        self.file.buffered().try_clone_to_owned().map(File::from)
    }

    /// Removes the partial file. Failing to is no error: the transfer has one already, and the next
    /// attempt tries again.
    pub(super) fn discard(&self) {
        if !self.is_named() && self.is_ours() {
            let _ = self.place.remove(&self.place.partial);
        }
    }

    /// Whether the partial file's name still means the file that is open here.
    pub(super) fn is_ours(&self) -> bool {
        let name = if self.is_named() { &self.place.name } else { &self.place.partial };
        let named = fstatat(&self.place.directory, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
        match (named, fstat(self.file.buffered())) {
            (Ok(named), Ok(open)) => identity(&named) == identity(&open),
            _ => false,
        }
    }
}

/// `.NAME.cep-TAG`, with NAME shortened where that would be longer than file systems allow.
fn partial_name(name: &OsStr, tag: &str) -> OsString {
    let name = name.as_bytes();
    let room = NAME_BYTES_MAX - ".".len() - ".cep-".len() - tag.len() - SUFFIX_BYTES_MAX;
    let mut partial = Vec::with_capacity(NAME_BYTES_MAX);
    partial.push(b'.');
    if name.len() <= room {
        partial.extend_from_slice(name);
    } else {
        // Two long names that start alike differ in their hash; a rerun finds the same name again.
        let hash = &blake3::hash(name).to_hex()[..16];
        partial.extend_from_slice(&name[..room - hash.len() - 1]);
        partial.push(b'~');
        partial.extend_from_slice(hash.as_bytes());
    }
    partial.extend_from_slice(b".cep-");
    partial.extend_from_slice(tag.as_bytes());
    OsStr::from_bytes(&partial).to_owned()
}

/// Removes a name, if there is one: of a file or a link, or of a directory in which there is
/// nothing.
pub(super) fn unlink(directory: &OwnedFd, name: &OsStr) -> nix::Result<()> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(Errno::EISDIR) => unlinkat(directory, name, UnlinkatFlags::RemoveDir),
        Err(errno) => Err(errno),
    }
}

/// Locks a file for as long as it is open anywhere in this process: the file, and whether it is; an
/// error where another process has it. There are file systems without locks.
fn lock(file: OwnedFd) -> std::result::Result<(OwnedFd, bool), OwnedFd> {
    let file = File::from(file);
    match file.try_lock() {
        Ok(()) => Ok((file.into(), true)),
        Err(TryLockError::Error(_)) => Ok((file.into(), false)),
        Err(TryLockError::WouldBlock) => Err(file.into()),
    }
}

/// Locks a file as soon as nobody else has it, or not at all.
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

pub(super) fn is_kind(about: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT == kind
}

fn no_directory(directory: &Path) -> Error {
    Error::new(Code::Data, format!("the directory {} is missing", directory.display()))
        .remedy("create it; paths are taken below the node's --root")
}

fn given_up(path: &Path) -> Error {
    Error::new(Code::Data, format!("the node that makes {} has given it up", path.display()))
}

/// The file is complete, and what is wanted of it now is not all what was wanted then.
pub(super) fn is_otherwise(path: &Path) -> Error {
    let shown = path.display();
    Error::new(
        Code::Data,
        format!("{shown} exists: it was completed by an earlier attempt, and not all of it is still good"),
    )
    .remedy("use --overwrite to replace it")
}

pub(super) fn being_written(path: &Path) -> Error {
    Error::new(Code::Data, format!("another transfer writes {} at the same time", path.display()))
        .remedy("wait for it to end")
}

pub(super) fn exists(path: &Path) -> Error {
    Error::new(Code::Data, format!("{} exists", path.display()))
        .remedy("use --overwrite to replace it")
}

/// The permissions of a file of whose sources nobody has told any.
const UNTOLD: u32 = 0o666;

/// What to do about something that this program does not touch, or cannot.
const REMOVE: &str = "remove it, or name another directory";

/// How long an earlier attempt may take to let go of its partial file: a process that was killed
/// has writes in flight.
const LOCKED_MAX: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 5000 });
const LOCKED_AGAIN: Duration = Duration::from_millis(5);

/// What Linux file systems allow for one name.
const NAME_BYTES_MAX: usize = 255;

/// How often a name may be taken between our removing it and our taking it.
const ATTEMPTS_MAX: u32 = 8;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use super::*;

    #[test]
    fn file_systems_without_the_flag_do_not_replace_either() {
        let home = tempfile::tempdir().unwrap();
        let root = StoreRoot::open(home.path()).unwrap();
        let create = || {
            DestinationPath::look(&root, Path::new("/x"), "ab12").unwrap().0.create(false).unwrap()
        };
        create().place.rename_by_link().unwrap();
        assert!(home.path().join("x").exists() && !home.path().join(".x.cep-ab12").exists());
        let taken = create();
        assert_eq!(taken.place.rename_by_link(), Err(Errno::EEXIST));
        assert!(taken.is_ours());
    }

    #[test]
    fn partial_names_fit_and_tell_long_names_apart() {
        assert_eq!(partial_name(OsStr::new("copy2"), "ab12"), OsStr::new(".copy2.cep-ab12"));
        let (one, other) = ("x".repeat(254) + "1", "x".repeat(254) + "2");
        let (one, other) =
            (partial_name(OsStr::new(&one), "ab12"), partial_name(OsStr::new(&other), "ab12"));
        assert_ne!(one, other);
        assert_eq!(one.len() + SUFFIX_BYTES_MAX, NAME_BYTES_MAX);
    }
}
