//! A source: the data that a sender's row reads.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::sys::uio::pread;
use nix::unistd::{Whence, lseek};

use super::fault::fault;
use super::memory_object::{object_name, object_path};
use super::open::{OpenFile, identity, let_wait, retried};
use super::{StoreRoot, StoreRoots, holes};
use crate::core::error::{Code, Error, Result};
use crate::core::spec::DataUri;
use crate::core::units::Span;

/// An open source: a file, a shared memory object, or a pattern.
#[derive(Debug)]
pub(crate) enum Source {
    /// Bytes behind a descriptor.
    File(FileSource),
    /// `pattern:SEED`: made in the slot, see [`super::pattern`].
    Pattern(u64),
}

/// A file or a shared memory object, open for reading.
#[derive(Debug)]
pub(crate) struct FileSource {
    file: OpenFile,
    /// As the user names it, for errors.
    name: PathBuf,
    /// Bytes that the row offers, as offsets of the file.
    offered: Span,
    fingerprint: FileFingerprint,
    /// Its type and permissions, as in `st_mode`.
    mode: u32,
}

/// Size, times and identity of a file. Two equal ones mean that nobody wrote in between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct FileFingerprint {
    size_bytes: u64,
    /// `st_mtime`: anybody who may write to the file can set it to what it was.
    modified: (i64, i64),
    /// `st_ctime`: nobody can set it. New permissions, links and names change it too.
    changed: (i64, i64),
    identity: (u64, u64),
}

impl Source {
    /// Opens what `uri` names and checks that it has the `bytes` bytes at `offset_bytes`.
    ///
    /// # Errors
    /// `Data` where it is missing, unreadable, short, or no file; `Refused` where it lies out of
    /// the roots or may not be read; `Usage` for a URI that only a receiver can have.
    pub(crate) fn open(
        roots: &StoreRoots,
        uri: &DataUri,
        offset_bytes: u64,
        bytes: u64,
    ) -> Result<Source> {
        match uri {
            DataUri::File(path) => {
                let root = roots.to_read(path)?;
                FileSource::open(root, path, path.clone(), offset_bytes, bytes).map(Source::File)
            }
            DataUri::Mem(name) => {
                FileSource::open_object(roots, name, offset_bytes, bytes).map(Source::File)
            }
            DataUri::Pattern(seed) => Ok(Source::Pattern(*seed)),
            DataUri::Null => {
                Err(Error::new(Code::Usage, "null: has no bytes to send")
                    .remedy("use pattern:SEED"))
            }
        }
    }

    /// Files to read from, indexed as the extents of this source's layout say; none for a pattern.
    pub(crate) fn files(&self) -> &[OpenFile] {
        match self {
            Source::File(source) => std::slice::from_ref(&source.file),
            Source::Pattern(_) => &[],
        }
    }

    /// Holes in the bytes that the row offers, at most `count_max`, relative to its first byte, in
    /// order.
    ///
    /// # Errors
    /// `Data` where the file cannot be examined.
    pub(crate) fn holes(&self, count_max: usize) -> Result<Vec<Span>> {
        match self {
            Source::File(source) => source.holes(count_max),
            Source::Pattern(_) => Ok(Vec::new()),
        }
    }

    /// Reads bytes that the row offers, from `at` behind its first byte on; `position` is their
    /// place in the data space.
    ///
    /// # Errors
    /// Those of the system, and `UnexpectedEof` where the file has become shorter.
    pub(crate) fn read_at(&self, at: u64, position: u64, bytes: &mut [u8]) -> io::Result<()> {
        match self {
            Source::File(source) => {
                read_exact(source.file.buffered(), source.offered.start + at, bytes)
            }
            Source::Pattern(seed) => {
                super::pattern::fill(*seed, position, bytes);
                Ok(())
            }
        }
    }

    /// Checks that the source is as it was when it was opened. To be called when a read comes up
    /// short, and at the end.
    ///
    /// # Errors
    /// `Data` where it shrank or was written to.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        match self {
            Source::File(source) => source.check_unchanged(),
            Source::Pattern(_) => Ok(()),
        }
    }

    /// Fingerprint of the source as bytes; they differ if anything of it has changed.
    pub(crate) fn looks(&self) -> Vec<u8> {
        match self {
            Source::File(source) => {
                let FileFingerprint { size_bytes, modified, changed, identity } =
                    source.fingerprint;
                let times = [modified.0, modified.1, changed.0, changed.1].map(i64::cast_unsigned);
                let numbers = [size_bytes, identity.0, identity.1].into_iter().chain(times);
                numbers.flat_map(u64::to_le_bytes).collect()
            }
            Source::Pattern(seed) => seed.to_le_bytes().into(),
        }
    }

    /// Type and permissions of the file, as in `st_mode`; 0 for a pattern, which has none.
    pub(crate) fn mode(&self) -> u32 {
        match self {
            Source::File(source) => source.mode,
            Source::Pattern(_) => 0,
        }
    }

    /// Device and inode of the file.
    pub(crate) fn identity(&self) -> Option<(u64, u64)> {
        match self {
            Source::File(source) => Some(source.fingerprint.identity),
            Source::Pattern(_) => None,
        }
    }

    /// Error for a read that the system refused with `errno`.
    #[cfg_attr(
        not(test),
        allow(dead_code, reason = "a refusal carries a code, not yet the reason of the system")
    )]
    pub(crate) fn read_failed(&self, errno: Errno) -> Error {
        match self {
            Source::File(source) => fault(errno, &source.name, "read"),
            Source::Pattern(seed) => {
                Error::new(Code::Internal, format!("pattern:{seed} was read from a file"))
            }
        }
    }
}

impl FileSource {
    /// Opens `path` below `root`; `name` is the user's name for it.
    fn open(
        root: &StoreRoot,
        path: &Path,
        name: PathBuf,
        offset_bytes: u64,
        bytes: u64,
    ) -> Result<FileSource> {
        let open = |flags| -> Result<OwnedFd> {
            root.try_open(path, flags, Mode::empty())?.map_err(|errno| fault(errno, &name, "read"))
        };
        let check = |about: &FileStat| match check_kind(about, &name)? {
            SFlag::S_IFBLK => root.check_device(&name),
            _ => Ok(()),
        };
        // Looks before opening: opening a device may do anything.
        let seen = stat(open(OFlag::O_PATH)?, &name)?;
        check(&seen)?;
        // Opens without waiting: a pipe that has taken the name since would wait for its writer.
        let buffered = open(READING)?;
        let about = stat(&buffered, &name)?;
        check(&about)?;
        if identity(&about) != identity(&seen) {
            return Err(changed(&name, "was replaced while it was opened"));
        }
        if bytes == 0 {
            check_empty(&buffered, &about, &name)?;
        }
        let_wait(&buffered).map_err(|errno| fault(errno, &name, "read"))?;
        let direct = || {
            let direct = open(READING | OFlag::O_DIRECT).ok()?;
            let_wait(&direct).ok().map(|()| direct)
        };
        FileSource::checked(OpenFile::new(buffered, direct), name, offset_bytes, bytes)
    }

    fn open_object(
        roots: &StoreRoots,
        name: &OsStr,
        offset_bytes: u64,
        bytes: u64,
    ) -> Result<FileSource> {
        let path = object_path(name)?;
        let root = roots.memory_to_read(&object_name(name))?;
        FileSource::open(&root, &path, object_name(name), offset_bytes, bytes)
    }

    fn checked(file: OpenFile, name: PathBuf, offset_bytes: u64, bytes: u64) -> Result<FileSource> {
        let about = stat(file.buffered(), &name)?;
        let fingerprint = FileFingerprint::of(file.buffered(), &about, &name)?;
        let has = fingerprint.size_bytes;
        match offset_bytes.checked_add(bytes) {
            Some(end) if end <= has => {
                fingerprint.ripen();
                let offered = Span::new(offset_bytes, end);
                let mode = about.st_mode & (SFlag::S_IFMT.bits() | PERMISSIONS);
                Ok(FileSource { file, name, offered, fingerprint, mode })
            }
            end => Err(too_short(&name, offset_bytes, bytes, end, has)),
        }
    }

    fn holes(&self, count_max: usize) -> Result<Vec<Span>> {
        let found = holes::find(self.file.buffered(), self.offered, count_max);
        let found = found.map_err(|errno| fault(errno, &self.name, "examined for holes"))?;
        let start = self.offered.start;
        Ok(found.into_iter().map(|hole| Span::new(hole.start - start, hole.end - start)).collect())
    }

    fn check_unchanged(&self) -> Result<()> {
        let about = stat(self.file.buffered(), &self.name)?;
        let now = FileFingerprint::of(self.file.buffered(), &about, &self.name)?;
        if now.size_bytes < self.fingerprint.size_bytes {
            let (had, has) = (self.fingerprint.size_bytes, now.size_bytes);
            return Err(changed(
                &self.name,
                &format!("shrank from {had} to {has} bytes while it was read"),
            ));
        }
        if now == self.fingerprint {
            return Ok(());
        }
        // Setting the time of a file back after writing to it leaves this trace, and no other.
        let only_status =
            FileFingerprint { changed: self.fingerprint.changed, ..now } == self.fingerprint;
        let how = if only_status {
            "was changed while it was read: its time of change (ctime) is another, so it may have \
             been written to"
        } else {
            "was written to while it was read"
        };
        Err(changed(&self.name, how))
    }
}

impl FileFingerprint {
    /// Waits until a write from now on is sure to change the fingerprint. Kernels stamp files with
    /// a clock that stands still for some milliseconds, so a file that was written to just now
    /// could be written to again and look the same.
    fn ripen(&self) {
        // File systems that count whole seconds, or two of them, stamp no fractions.
        let tick = if self.changed.1 == 0 { TICK_OF_SECONDS } else { TICK };
        // Writes stamp both times. Without a time of change the other one says nothing.
        let (seconds, nanoseconds) = self.changed.max(self.modified);
        let (Ok(seconds), Ok(nanoseconds)) = (seconds.try_into(), nanoseconds.try_into()) else {
            return;
        };
        let stamp = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        // A time in the future is from another machine's clock, and says nothing about this one's
        // ticks.
        if let Ok(age) = SystemTime::now().duration_since(stamp) {
            std::thread::sleep(tick.saturating_sub(age));
        }
    }

    fn of(file: BorrowedFd<'_>, about: &FileStat, name: &Path) -> Result<FileFingerprint> {
        let size_bytes = match kind(about) {
            // A device has no size in its entry, but an end that can be sought.
            SFlag::S_IFBLK => {
                lseek(file, 0, Whence::SeekEnd).map_err(|errno| fault(errno, name, "measured"))?
            }
            _ => about.st_size,
        };
        let (modified, changed) =
            ((about.st_mtime, about.st_mtime_nsec), (about.st_ctime, about.st_ctime_nsec));
        Ok(FileFingerprint {
            size_bytes: size_bytes.unsigned_abs(),
            modified,
            changed,
            identity: identity(about),
        })
    }
}

/// Longest time that the clock of file stamps stands still: a tick of a kernel with a hundred ticks
/// a second.
const TICK: Duration = Duration::from_millis(10);
/// Longest time where stamps count seconds: FAT counts every other one.
const TICK_OF_SECONDS: Duration = Duration::from_secs(2);

const PERMISSIONS: u32 = 0o777;

/// Opening must neither wait for another process nor take a terminal.
const READING: OFlag = OFlag::O_NOCTTY.union(OFlag::O_NONBLOCK);

fn read_exact(file: BorrowedFd<'_>, offset_bytes: u64, mut bytes: &mut [u8]) -> io::Result<()> {
    let mut at = i64::try_from(offset_bytes).map_err(|_| io::Error::from(Errno::EFBIG))?;
    while !bytes.is_empty() {
        match pread(file, bytes, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                bytes = &mut bytes[count..];
                at = at.saturating_add_unsigned(count as u64);
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn stat<F: AsFd>(file: F, name: &Path) -> Result<FileStat> {
    fstat(file).map_err(|errno| fault(errno, name, "examined"))
}

fn kind(about: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT
}

/// Refuses everything that cannot be read at positions: all but regular files and block devices.
fn check_kind(about: &FileStat, name: &Path) -> Result<SFlag> {
    let what = match kind(about) {
        found @ (SFlag::S_IFREG | SFlag::S_IFBLK) => return Ok(found),
        SFlag::S_IFDIR => "is a directory",
        SFlag::S_IFIFO => "is a pipe",
        _ => "is neither a file nor a block device",
    };
    Err(Error::new(Code::Data, format!("{} {what}", name.display())).remedy("name a file"))
}

/// Reads a file that claims to have no bytes before that is believed: files of /proc and /sys are
/// made while they are read.
fn check_empty(file: &OwnedFd, about: &FileStat, name: &Path) -> Result<()> {
    if about.st_size == 0 && kind(about) == SFlag::S_IFREG {
        match retried(|| pread(file, &mut [0; 1], 0)) {
            Ok(0) => {}
            Ok(_) => {
                let what = format!(
                    "{} has bytes, but no size: it is made while it is read",
                    name.display()
                );
                return Err(
                    Error::new(Code::Data, what).remedy("read it into a file, and name that")
                );
            }
            Err(errno) => return Err(fault(errno, name, "read")),
        }
    }
    Ok(())
}

fn too_short(name: &Path, offset_bytes: u64, bytes: u64, end: Option<u64>, has: u64) -> Error {
    let name = name.display();
    let message = match end {
        Some(end) => {
            format!("the range ends at byte {end} of {name}, but the file has {has} bytes")
        }
        None => format!("offset {offset_bytes} and {bytes} bytes of {name} do not fit 64 bits"),
    };
    Error::new(Code::Data, message).remedy("check the row's offset and range")
}

fn changed(name: &Path, how: &str) -> Error {
    Error::new(Code::Data, format!("{} {how}", name.display()))
        .remedy("run again when nobody writes to it")
}
