//! Permissions and owner of a destination, and whether it can have its name, before any byte moves.
//!
//! A new file has the permissions of its sources, as far as the umask, or the default ACL of the
//! directory, grants them. Until it has its name nobody but its owner can open it. A file that
//! replaces another one gets its owner, where this is allowed; but never an owner who could have
//! put a file there for this purpose.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{Gid, Uid, fchown, fsync, geteuid};
use rustix::fs::{AtFlags as StatxAt, StatxAttributes, StatxFlags, statx};

use super::destination_path::{DestinationPath, exists, is_kind};
use super::fault::fault;
use super::open::{identity, retried};
use super::partial_file::PartialFile;
use super::root::DIRECTORY;
use crate::core::error::{Code, Error, Result};

impl DestinationPath {
    /// Refuses to replace what has the name, where that was not asked for or cannot be done.
    ///
    /// # Errors
    /// `Data`, with what is in the way.
    pub(super) fn check_replaceable(&self, existing: &FileStat, overwrite: bool) -> Result<()> {
        let shown = self.path.display();
        if is_kind(existing, SFlag::S_IFDIR) {
            return Err(fault(Errno::EISDIR, &self.path, "written"));
        }
        if !is_kind(existing, SFlag::S_IFREG) && !is_kind(existing, SFlag::S_IFLNK) {
            let error =
                Error::new(Code::Data, format!("{shown} is {}, not a file", kind_name(existing)));
            return Err(error.remedy("name a file, or null: to discard"));
        }
        if !overwrite {
            return Err(exists(&self.path));
        }
        let attributes = attributes(&self.directory, self.name.as_os_str());
        let (why, remedy) = if attributes.contains(StatxAttributes::MOUNT_ROOT) {
            ("something is mounted on it", "unmount it, or write to another path")
        } else if attributes.contains(StatxAttributes::IMMUTABLE) {
            ("it is immutable", "allow changes (chattr -i), or write to another path")
        } else if attributes.contains(StatxAttributes::APPEND) {
            ("it can only be appended to", "allow changes (chattr -a), or write to another path")
        } else if self.is_stuck(existing) {
            (
                "it is another user's, in a directory with the sticky bit",
                "have its owner remove it, or write to another path",
            )
        } else {
            return Ok(());
        };
        Err(Error::new(Code::Data, format!("{shown} cannot be replaced: {why}")).remedy(remedy))
    }

    /// Finds out the permissions that a new file may have here, and with them whether one can be
    /// made.
    ///
    /// # Errors
    /// `Data`, with what is in the way.
    pub(super) fn check_grants(&self) -> Result<()> {
        let attributes = attributes(&self.directory, ".".as_ref());
        let (why, remedy) = if attributes.contains(StatxAttributes::IMMUTABLE) {
            ("it is immutable", "allow changes (chattr -i), or choose another directory")
        } else if attributes.contains(StatxAttributes::APPEND) {
            (
                "it can only be appended to, so that no file in it can get another name",
                "allow changes (chattr -a), or choose another directory",
            )
        } else {
            return self.granted().map(drop);
        };
        let directory = self.path.parent().unwrap_or(&self.path).display();
        Err(Error::new(Code::Data, format!("{directory} cannot be written to: {why}"))
            .remedy(remedy))
    }

    /// Permissions that the system leaves to a new file that asks for all of them. The umask alone
    /// does not tell, because of default ACLs: a file without a name, or one that has it for a
    /// moment, does.
    pub(super) fn granted(&self) -> Result<Mode> {
        if let Some(granted) = self.granted.get() {
            return Ok(*granted);
        }
        let flags = OFlag::O_WRONLY | OFlag::O_TMPFILE | OFlag::O_CLOEXEC;
        let granted = match retried(|| openat(&self.directory, ".", flags, ALL)) {
            Ok(unnamed) => self.permissions_of(&unnamed)?,
            Err(_) => self.granted_by_name()?,
        };
        Ok(*self.granted.get_or_init(|| granted))
    }

    /// Like [`Self::granted`], for file systems where every file has a name.
    pub(super) fn granted_by_name(&self) -> Result<Mode> {
        let mut name = self.partial.clone();
        name.push(PROBE);
        self.remove(&name)?;
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let named = retried(|| openat(&self.directory, name.as_os_str(), flags, ALL));
        let named = named.map_err(|errno| self.unwritable(errno))?;
        self.remove(&name)?;
        self.permissions_of(&named)
    }

    fn permissions_of(&self, file: &OwnedFd) -> Result<Mode> {
        let about = fstat(file).map_err(|errno| self.unwritable(errno))?;
        Ok(Mode::from_bits_truncate(about.st_mode) & ALL)
    }

    /// The sticky bit of the directory keeps this user from replacing `existing`.
    fn is_stuck(&self, existing: &FileStat) -> bool {
        let Ok(directory) = fstat(&self.directory) else { return false };
        let ours = geteuid().as_raw();
        directory.st_mode & libc::S_ISVTX != 0
            && existing.st_uid != ours
            && directory.st_uid != ours
            && !has_capability(CAP_FOWNER)
    }

    /// Refuses a directory that the path no longer leads to: nobody would find the file.
    ///
    /// # Errors
    /// `Data`.
    pub(super) fn check_found_again(&self) -> Result<()> {
        let parent = self.path.parent().unwrap_or(&self.path);
        let now = self.root.open()?.try_open(parent, DIRECTORY, Mode::empty())?.and_then(fstat);
        let now = now.map_err(|errno| fault(errno, parent, "found again"))?;
        let held = fstat(&self.directory).map_err(|errno| fault(errno, parent, "examined"))?;
        if identity(&now) == identity(&held) {
            return Ok(());
        }
        let what = format!(
            "{} is another directory than when the transfer began: it was replaced, or something \
             was mounted there",
            parent.display()
        );
        Err(Error::new(Code::Data, what).remedy("run again when nobody changes it"))
    }

    /// Owner and group of the file that will be replaced, for the new one. `None` where everybody
    /// can put a file of their own in its place.
    fn replaced_owner(&self, ours: &FileStat) -> Option<(Uid, Gid)> {
        let replaced =
            fstatat(&self.directory, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
        let directory = fstat(&self.directory).ok()?;
        let planted = directory.st_mode & libc::S_IWOTH != 0 && replaced.st_uid != directory.st_uid;
        let same = (replaced.st_uid, replaced.st_gid) == (ours.st_uid, ours.st_gid);
        let kept = is_kind(&replaced, SFlag::S_IFREG) && !planted && !same;
        kept.then(|| (Uid::from_raw(replaced.st_uid), Gid::from_raw(replaced.st_gid)))
    }
}

impl PartialFile {
    /// Gives the complete file the permissions of its sources, and the owner of the file that it
    /// replaces.
    pub(super) fn take_permissions(&self, overwrite: bool, durably: bool) -> Result<()> {
        let (file, place) = (self.file.buffered(), &self.place);
        let failed = |errno| fault(errno, &place.path, "given its permissions");
        let ours = fstat(file).map_err(failed)?;
        if let Some((owner, group)) = place.replaced_owner(&ours).filter(|_| overwrite) {
            // A user who may not give files away may still share one with a group. Otherwise the
            // file stays this user's.
            if fchown(file, Some(owner), Some(group)).is_err() {
                let _ = fchown(file, None, Some(group));
            }
        }
        let wanted = Mode::from_bits_truncate(self.mode.load(Ordering::Relaxed)) & ALL;
        let mode = wanted & place.granted()?;
        if let Err(errno) = fchmod(file, mode) {
            // The file system has no permissions, or a filter hides the call. Nobody may do more
            // than before.
            tracing::warn!(
                "{} keeps the permissions that it was made with: {errno}",
                place.path.display()
            );
        }
        if durably {
            retried(|| fsync(file)).map_err(|errno| fault(errno, &place.path, "written"))?;
        }
        Ok(())
    }
}

/// Attributes of a name besides its permissions; none where the system cannot tell.
fn attributes<D: AsFd>(directory: D, name: &OsStr) -> StatxAttributes {
    match statx(
        directory,
        name,
        StatxAt::SYMLINK_NOFOLLOW | StatxAt::NO_AUTOMOUNT,
        StatxFlags::BASIC_STATS,
    ) {
        Ok(about) => about.stx_attributes & about.stx_attributes_mask,
        Err(_) => StatxAttributes::empty(),
    }
}

fn kind_name(about: &FileStat) -> &'static str {
    match SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFIFO => "a pipe",
        SFlag::S_IFSOCK => "a socket",
        SFlag::S_IFCHR => "a character device",
        SFlag::S_IFBLK => "a block device",
        _ => "something else",
    }
}

/// This process has the capability of that number.
fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    // Without /proc: root usually has them all.
    effective.map_or(geteuid().is_root(), |set| set >> number & 1 == 1)
}

/// Acting on files of other owners (capabilities(7)).
const CAP_FOWNER: u32 = 3;

const ALL: Mode = Mode::from_bits_truncate(0o777);

/// Suffix of a file that is made only to see the permissions it gets.
const PROBE: &str = ".probe";
