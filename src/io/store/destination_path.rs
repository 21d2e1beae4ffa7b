//! Path of a destination: its directory, held open, its name there, and the names beside it.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use nix::unistd::{LinkatFlags, UnlinkatFlags, fsync, linkat, unlinkat};
use rustix::fs::{RenameFlags, renameat_with};

use super::fault::fault;
use super::open::retried;
use super::root::DIRECTORY;
use super::space;
use super::token;
use super::{RootPlace, StoreRoot};
use crate::core::error::{Code, Error, Result};

/// A destination, and the partial file `.NAME.cep-TAG` that it is until it is complete.
#[derive(Clone, Debug)]
pub(super) struct DestinationPath {
    pub(super) directory: Arc<OwnedFd>,
    /// The destination as the user wrote it.
    pub(super) path: PathBuf,
    pub(super) name: OsString,
    pub(super) partial: OsString,
    /// Number of this node among the followers that write the file.
    pub(super) follower: Option<u32>,
    /// Permissions that a new file may have here, once they are known.
    pub(super) granted: OnceLock<Mode>,
    /// Root that the destination lies below.
    pub(super) root: RootPlace,
}

impl DestinationPath {
    /// Opens the directory of `path` and looks at what has its name there.
    ///
    /// # Errors
    /// `Data` where the directory is missing; `Refused` where the path leads out of the root.
    pub(super) fn look(
        root: &StoreRoot,
        path: &Path,
        tag: &str,
    ) -> Result<(DestinationPath, Option<FileStat>)> {
        let is_top = root.is_top(path)?;
        let (Some(parent), Some(name), false) = (path.parent(), path.file_name(), is_top) else {
            return Err(fault(Errno::EISDIR, path, "written"));
        };
        let directory =
            root.try_open(parent, DIRECTORY, Mode::empty())?.map_err(|errno| match errno {
                Errno::ENOENT => no_directory(parent),
                other => fault(other, parent, "entered"),
            })?;
        let place = DestinationPath {
            directory: Arc::new(directory),
            path: path.to_path_buf(),
            name: name.to_owned(),
            partial: partial_name(name, tag),
            follower: None,
            granted: OnceLock::new(),
            root: root.place().clone(),
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

    /// Entry that has the destination's name now; links are not followed.
    fn existing(&self, root: &StoreRoot) -> Result<Option<FileStat>> {
        match self.look_again() {
            Ok(about) if is_kind(&about, SFlag::S_IFLNK) => {
                // The link itself is replaced, not its target. A link that leads out of the root is
                // refused all the same: whoever named it meant its target.
                let _ = root.try_open(&self.path, OFlag::O_PATH, Mode::empty())?;
                Ok(Some(about))
            }
            Ok(about) => Ok(Some(about)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(fault(errno, &self.path, "written")),
        }
    }

    /// Entry that has the destination's name now; links are not followed.
    pub(super) fn look_again(&self) -> nix::Result<FileStat> {
        fstatat(&self.directory, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    pub(super) fn open_partial(&self, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
        let flags = flags | OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        retried(|| openat(&self.directory, self.partial.as_os_str(), flags, mode))
    }

    /// Gives the partial file the destination's name.
    pub(super) fn rename(&self, overwrite: bool) -> nix::Result<()> {
        let (from, to) = (self.partial.as_os_str(), self.name.as_os_str());
        let directory = &self.directory;
        if overwrite {
            return renameat(directory, from, directory, to);
        }
        let renamed = renameat_with(directory, from, directory, to, RenameFlags::NOREPLACE);
        match renamed.map_err(|error| Errno::from_raw(error.raw_os_error())) {
            // Network file systems often do not know this flag, and filters of system calls hide
            // the call.
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EPERM) => {
                self.rename_by_link()
            }
            done => done,
        }
    }

    /// As [`DestinationPath::rename`] without overwriting, for file systems that cannot do it in
    /// one step: a second name is refused where something has it already.
    pub(super) fn rename_by_link(&self) -> nix::Result<()> {
        let (from, to) = (self.partial.as_os_str(), self.name.as_os_str());
        let directory = &self.directory;
        match linkat(directory, from, directory, to, LinkatFlags::empty()) {
            Ok(()) => unlinkat(directory, from, UnlinkatFlags::NoRemoveDir),
            // No second names either. Looking first is the best that is left: a name that is taken
            // between the look and the rename is lost.
            Err(Errno::EPERM | Errno::ENOSYS | Errno::EOPNOTSUPP) => match self.look_again() {
                Err(Errno::ENOENT) => renameat(directory, from, directory, to),
                found => Err(found.err().unwrap_or(Errno::EEXIST)),
            },
            Err(errno) => Err(errno),
        }
    }

    /// Removes a name of this program's beside the destination, if it is there.
    ///
    /// # Errors
    /// `Data`, with what is in the way.
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

    /// Error for a directory that did not take a new file: the remedy concerns the directory.
    pub(super) fn unwritable(&self, errno: Errno) -> Error {
        let directory = self.path.parent().unwrap_or(&self.path);
        space::fault_at(&self.directory, errno, directory, "written to")
    }

    /// Sentence about the partial file, from words that follow its name.
    pub(super) fn about_partial(&self, why: &str) -> String {
        format!("{} {why}", self.path.with_file_name(&self.partial).display())
    }
}

/// `.NAME.cep-TAG`, with NAME shortened where that would be longer than file systems allow.
fn partial_name(name: &OsStr, tag: &str) -> OsString {
    let name = name.as_bytes();
    let room = NAME_BYTES_MAX - ".".len() - MARK.len() - tag.len() - SUFFIX_BYTES_MAX;
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
    partial.extend_from_slice(MARK.as_bytes());
    partial.extend_from_slice(tag.as_bytes());
    OsStr::from_bytes(&partial).to_owned()
}

/// Part of a partial file's name that follows from its destination's; `None` for other names, also
/// of this program's.
pub(super) fn split_partial(name: &OsStr) -> Option<&[u8]> {
    let bytes = name.as_bytes().strip_prefix(b".")?;
    let mark = bytes.windows(MARK.len()).rposition(|window| window == MARK.as_bytes())?;
    let (stem, tag) = (&bytes[..mark], &bytes[mark + MARK.len()..]);
    let is_tag = tag.len() == TAG_DIGITS && tag.iter().all(u8::is_ascii_hexdigit);
    is_tag.then_some(stem)
}

/// Removes a name, if it is there: of a file or a link, or of an empty directory.
pub(super) fn unlink(directory: &OwnedFd, name: &OsStr) -> nix::Result<()> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(Errno::EISDIR) => unlinkat(directory, name, UnlinkatFlags::RemoveDir),
        Err(errno) => Err(errno),
    }
}

pub(super) fn is_kind(about: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT == kind
}

pub(super) fn no_directory(directory: &Path) -> Error {
    Error::new(Code::Data, format!("the directory {} is missing", directory.display()))
        .remedy("create it; paths are taken below the node's --root")
}

pub(super) fn exists(path: &Path) -> Error {
    Error::new(Code::Data, format!("{} exists", path.display()))
        .remedy("use --overwrite to replace it")
}

/// The file is complete, and what is wanted of it now is not all what was wanted then.
pub(super) fn is_otherwise(path: &Path) -> Error {
    let shown = path.display();
    let what = "it was completed by an earlier attempt, and not all of it is still good";
    Error::new(Code::Data, format!("{shown} exists: {what}"))
        .remedy("use --overwrite to replace it")
}

/// Remedy for something that this program does not touch, or cannot.
pub(super) const REMOVE: &str = "remove it, or name another directory";

/// Stands between the destination's name and the tag.
const MARK: &str = ".cep-";
/// Digits of the tags that nodes make.
const TAG_DIGITS: usize = 16;
/// Limit of Linux file systems for one name.
const NAME_BYTES_MAX: usize = 255;
/// Suffix of the partial file's name for journals: the leader's, and the beginning of followers'.
pub(super) const JOURNAL_SUFFIX: &str = ".journal";
/// Longest suffix of the partial file's name: a follower's number, and the mark of a journal that
/// is being written.
const SUFFIX_BYTES_MAX: usize = JOURNAL_SUFFIX.len() + "-4294967295~".len();
const _: () = assert!(SUFFIX_BYTES_MAX >= token::SUFFIX.len());

#[cfg(test)]
mod tests {
    use super::*;

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
