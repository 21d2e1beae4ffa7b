//! A file that is not complete yet: `.NAME.cep-TAG` beside the place it will have.
//!
//! It gets its name in one step, and only when it is complete. Another attempt of the same transfer replaces a partial
//! file by a new one of the same name, never writes into it: what a node of the old attempt still writes goes to a file
//! without a name. For the same reason nothing here renames or removes a partial file before it has looked whether that is
//! still ours.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{LinkatFlags, UnlinkatFlags, fsync, linkat, unlinkat};

use super::Root;
use super::fault::fault;
use super::open::{OpenFile, identity, retried};
use super::root::DIRECTORY;
use super::token;
use crate::error::{Code, Error, Result};

/// The place of a destination: its directory, its name, and the names beside it.
#[derive(Debug)]
pub(super) struct Place {
    directory: OwnedFd,
    /// The destination as the user wrote it.
    pub(super) path: PathBuf,
    name: OsString,
    partial: OsString,
    /// The permissions of the file that will be replaced; the new one gets the same.
    replaced_mode: Option<Mode>,
}

/// A partial file, open for writing.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) file: OpenFile,
    pub(super) place: Place,
}

impl Place {
    /// Finds the directory of `path` and looks at what is there.
    ///
    /// # Errors
    /// `Data` where the directory is missing or the destination exists (and is not to be overwritten) or is no file;
    /// `Refused` where the path leads out of the root.
    pub(super) fn find(root: &Root, path: &Path, tag: &str, overwrite: bool) -> Result<Place> {
        root.relative(path)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(fault(Errno::EISDIR, path, "written"));
        };
        let directory = root.try_open(parent, DIRECTORY, Mode::empty())?.map_err(|errno| match errno {
            Errno::ENOENT => no_directory(parent),
            other => fault(other, parent, "entered"),
        })?;
        let mut place = Place {
            directory,
            path: path.to_path_buf(),
            name: name.to_owned(),
            partial: partial_name(name, tag),
            replaced_mode: None,
        };
        if let Some(existing) = place.existing(root)? {
            place.check_replaceable(&existing, overwrite)?;
            place.replaced_mode = Some(Mode::from_bits_truncate(existing.st_mode) & PERMISSIONS);
        }
        Ok(place)
    }

    /// Makes a new partial file, in the place of any that an earlier attempt has left.
    pub(super) fn create(self) -> Result<Partial> {
        let mode = self.replaced_mode.unwrap_or(Mode::from_bits_truncate(0o666)) | Mode::S_IRUSR | Mode::S_IWUSR;
        for _ in 0..ATTEMPTS_MAX {
            self.remove(&self.partial)?;
            match self.open_partial(OFlag::O_CREAT | OFlag::O_EXCL, mode) {
                Ok(file) => return Ok(self.opened(file)),
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(self.unwritable(errno)),
            }
        }
        Err(Error::new(Code::Data, format!("another transfer writes {} at the same time", self.path.display()))
            .remedy("wait for it to end"))
    }

    /// Opens the partial file that another node of this attempt has made.
    pub(super) fn join(self) -> Result<Partial> {
        match self.open_partial(OFlag::empty(), Mode::empty()) {
            Ok(file) => Ok(self.opened(file)),
            Err(Errno::ENOENT) => Err(given_up(&self.path)),
            Err(errno) => Err(fault(errno, &self.path, "written")),
        }
    }

    /// Writes the token of `attempt` beside the partial file.
    pub(super) fn write_token(&self, attempt: &token::Attempt) -> Result<()> {
        let name = token::name(&self.partial);
        self.remove(&name)?;
        token::write(&self.directory, &name, attempt).map_err(|errno| self.unwritable(errno))
    }

    /// Whether the token beside the partial file is that of `attempt`: then both nodes see the same directory.
    pub(super) fn has_token(&self, attempt: &token::Attempt) -> Result<bool> {
        token::found(&self.directory, &token::name(&self.partial), attempt)
            .map_err(|errno| fault(errno, &self.path, "prepared"))
    }

    /// Removes the token, if there is one.
    pub(super) fn remove_token(&self) -> Result<()> {
        self.remove(&token::name(&self.partial))
    }

    fn opened(self, file: OwnedFd) -> Partial {
        let file = OpenFile::new(file, || self.open_partial(OFlag::O_DIRECT, Mode::empty()).ok());
        Partial { file, place: self }
    }

    fn open_partial(&self, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
        let flags = flags | OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        retried(|| openat(&self.directory, self.partial.as_os_str(), flags, mode))
    }

    /// What has the destination's name now, links not followed.
    fn existing(&self, root: &Root) -> Result<Option<FileStat>> {
        match fstatat(&self.directory, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(about) if is_kind(&about, SFlag::S_IFLNK) => {
                // The link itself would be replaced, not what it leads to. One that leads out is refused all the same:
                // whoever named it meant what it leads to.
                let _ = root.try_open(&self.path, OFlag::O_PATH, Mode::empty())?;
                Ok(Some(about))
            }
            Ok(about) => Ok(Some(about)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(fault(errno, &self.path, "written")),
        }
    }

    fn check_replaceable(&self, existing: &FileStat, overwrite: bool) -> Result<()> {
        let shown = self.path.display();
        if is_kind(existing, SFlag::S_IFDIR) {
            return Err(fault(Errno::EISDIR, &self.path, "written"));
        }
        if !is_kind(existing, SFlag::S_IFREG) && !is_kind(existing, SFlag::S_IFLNK) {
            let error = Error::new(Code::Data, format!("{shown} is a device, a pipe or a socket, not a file"));
            return Err(error.remedy("name a file, or null: to discard"));
        }
        if overwrite { Ok(()) } else { Err(exists(&self.path)) }
    }

    /// Gives the partial file the destination's name.
    fn rename(&self, overwrite: bool) -> nix::Result<()> {
        let (from, to) = (self.partial.as_os_str(), self.name.as_os_str());
        let directory = &self.directory;
        if overwrite {
            return renameat(directory, from, directory, to);
        }
        match renameat2(directory, from, directory, to, RenameFlags::RENAME_NOREPLACE) {
            // Network file systems often do not know this flag.
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => self.rename_by_link(),
            done => done,
        }
    }

    /// As [`Place::rename`] without overwriting, for file systems that cannot do it in one step: a second name is refused
    /// where something has it, too.
    fn rename_by_link(&self) -> nix::Result<()> {
        let (from, to) = (self.partial.as_os_str(), self.name.as_os_str());
        let directory = &self.directory;
        match linkat(directory, from, directory, to, LinkatFlags::empty()) {
            Ok(()) => unlinkat(directory, from, UnlinkatFlags::NoRemoveDir),
            // No second names either: looking first is the best that is left, and a name taken just then is lost.
            Err(Errno::EPERM | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
                match fstatat(directory, to, AtFlags::AT_SYMLINK_NOFOLLOW) {
                    Err(Errno::ENOENT) => renameat(directory, from, directory, to),
                    found => Err(found.err().unwrap_or(Errno::EEXIST)),
                }
            }
            Err(errno) => Err(errno),
        }
    }

    fn remove(&self, name: &OsStr) -> Result<()> {
        match unlinkat(&self.directory, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(self.unwritable(errno)),
        }
    }

    fn sync_directory(&self) -> nix::Result<()> {
        let listed = openat(&self.directory, ".", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        retried(|| fsync(&listed))
    }

    /// The directory did not take a new file: what the user has to change is the directory.
    fn unwritable(&self, errno: Errno) -> Error {
        let directory = self.path.parent().unwrap_or(&self.path);
        fault(errno, directory, "written to")
    }
}

impl Partial {
    /// Gives the complete file its name, durably if `fsync`.
    pub(super) fn finish(&self, overwrite: bool, fsync: bool) -> Result<()> {
        let place = &self.place;
        if !self.is_ours() {
            let error = Error::new(
                Code::Data,
                format!("another attempt has replaced the partial file of {}", place.path.display()),
            );
            return Err(error.remedy("let that attempt end"));
        }
        if let Some(mode) = place.replaced_mode {
            fchmod(self.file.buffered(), mode).map_err(|errno| fault(errno, &place.path, "given its permissions"))?;
        }
        place.rename(overwrite).map_err(|errno| match errno {
            Errno::EEXIST => exists(&place.path),
            other => fault(other, &place.path, "given its name"),
        })?;
        if fsync {
            place.sync_directory().map_err(|errno| place.unwritable(errno))?;
        }
        Ok(())
    }

    /// Removes the partial file. Failing to is no error: the transfer has one already, and the next attempt tries again.
    pub(super) fn discard(&self) {
        if self.is_ours() {
            let _ = self.place.remove(&self.place.partial);
        }
    }

    /// Whether the partial file's name still means the file that is open here.
    pub(super) fn is_ours(&self) -> bool {
        let named = fstatat(&self.place.directory, self.place.partial.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
        match (named, fstat(self.file.buffered())) {
            (Ok(named), Ok(open)) => identity(&named) == identity(&open),
            _ => false,
        }
    }
}

/// `.NAME.cep-TAG`, with NAME shortened where that would be longer than file systems allow.
fn partial_name(name: &OsStr, tag: &str) -> OsString {
    let name = name.as_bytes();
    let room = NAME_BYTES_MAX - ".".len() - ".cep-".len() - tag.len() - token::SUFFIX.len();
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

fn is_kind(about: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT == kind
}

fn no_directory(directory: &Path) -> Error {
    Error::new(Code::Data, format!("the directory {} is missing", directory.display()))
        .remedy("create it; paths are taken below the node's --root")
}

fn given_up(path: &Path) -> Error {
    Error::new(Code::Data, format!("the node that makes {} has given it up", path.display()))
}

fn exists(path: &Path) -> Error {
    Error::new(Code::Data, format!("{} exists", path.display())).remedy("use --overwrite to replace it")
}

const PERMISSIONS: Mode = Mode::from_bits_truncate(0o777);

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
        let root = Root::open(home.path()).unwrap();
        let create = || Place::find(&root, Path::new("/x"), "ab12", true).unwrap().create().unwrap();
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
        let (one, other) = (partial_name(OsStr::new(&one), "ab12"), partial_name(OsStr::new(&other), "ab12"));
        assert_ne!(one, other);
        assert_eq!(token::name(&one).len(), NAME_BYTES_MAX);
    }
}
