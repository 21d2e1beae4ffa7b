//! A source: what a sender's row reads.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::sys::uio::pread;
use nix::unistd::{Whence, lseek};

use super::fault::fault;
use super::open::{OpenFile, identity};
use super::region::{object_name, object_path};
use super::{Root, holes};
use crate::error::{Code, Error, Result};
use crate::spec::DataUri;
use crate::units::Span;

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
    /// The bytes that the row offers, as offsets of the file.
    offered: Span,
    fingerprint: Fingerprint,
}

/// What a file looks like from outside. Two equal ones mean that nobody wrote in between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Fingerprint {
    size_bytes: u64,
    modified: (i64, i64),
    identity: (u64, u64),
}

impl Source {
    /// Opens what `uri` names and checks that it has the `bytes` bytes at `offset_bytes`.
    ///
    /// # Errors
    /// `Data` where it is missing, unreadable, short, or no file; `Refused` where it lies out of the root; `Usage` for a
    /// URI that only a receiver can have.
    pub(crate) fn open(root: &Root, uri: &DataUri, offset_bytes: u64, bytes: u64) -> Result<Source> {
        match uri {
            DataUri::File(path) => FileSource::open(root, path, path.clone(), offset_bytes, bytes).map(Source::File),
            DataUri::Mem(name) => FileSource::open_object(name, offset_bytes, bytes).map(Source::File),
            DataUri::Pattern(seed) => Ok(Source::Pattern(*seed)),
            DataUri::Null => Err(Error::new(Code::Usage, "null: has no bytes to send").remedy("use pattern:SEED")),
        }
    }

    /// The files to read from, indexed as the extents of this source's layout say; none for a pattern.
    pub(crate) fn files(&self) -> &[OpenFile] {
        match self {
            Source::File(source) => std::slice::from_ref(&source.file),
            Source::Pattern(_) => &[],
        }
    }

    /// The holes in what the row offers, at most `count_max`, relative to its first byte, in order.
    ///
    /// # Errors
    /// `Data` where the file cannot be examined.
    pub(crate) fn holes(&self, count_max: usize) -> Result<Vec<Span>> {
        match self {
            Source::File(source) => source.holes(count_max),
            Source::Pattern(_) => Ok(Vec::new()),
        }
    }

    /// Reads bytes of what the row offers, from `at` behind its first byte on; `position` is where they lie in the data
    /// space.
    ///
    /// # Errors
    /// What the system says, and `UnexpectedEof` where the file has become shorter.
    pub(crate) fn read_at(&self, at: u64, position: u64, bytes: &mut [u8]) -> io::Result<()> {
        match self {
            Source::File(source) => read_exact(source.file.buffered(), source.offered.start + at, bytes),
            Source::Pattern(seed) => {
                super::pattern::fill(*seed, position, bytes);
                Ok(())
            }
        }
    }

    /// Whether the source is still what it was when it was opened. Ask when a read comes up short, and at the end.
    ///
    /// # Errors
    /// `Data` where it shrank or was written to.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        match self {
            Source::File(source) => source.check_unchanged(),
            Source::Pattern(_) => Ok(()),
        }
    }

    /// What the source looks like, as bytes that differ for one that looks otherwise.
    pub(crate) fn looks(&self) -> Vec<u8> {
        match self {
            Source::File(source) => {
                let Fingerprint { size_bytes, modified, identity } = source.fingerprint;
                let times = [modified.0, modified.1].map(i64::cast_unsigned);
                [size_bytes, times[0], times[1], identity.0, identity.1]
                    .into_iter()
                    .flat_map(u64::to_le_bytes)
                    .collect()
            }
            Source::Pattern(seed) => seed.to_le_bytes().into(),
        }
    }

    /// The error for a read that the system refused with `errno`.
    #[cfg_attr(not(test), allow(dead_code, reason = "a refusal carries a code, not yet the reason of the system"))]
    pub(crate) fn read_failed(&self, errno: Errno) -> Error {
        match self {
            Source::File(source) => fault(errno, &source.name, "read"),
            Source::Pattern(seed) => Error::new(Code::Internal, format!("pattern:{seed} was read from a file")),
        }
    }
}

impl FileSource {
    /// Opens `path` below `root`; `name` is what the user calls it.
    fn open(root: &Root, path: &Path, name: PathBuf, offset_bytes: u64, bytes: u64) -> Result<FileSource> {
        let open = |flags| root.try_open(path, flags, Mode::empty())?.map_err(|errno| fault(errno, &name, "read"));
        // Looking before opening: opening a pipe would wait for its writer, and opening a device may do anything.
        let seen = stat(open(OFlag::O_PATH)?, &name)?;
        check_kind(&seen, &name)?;
        let buffered = open(OFlag::O_RDONLY | OFlag::O_NOCTTY)?;
        if identity(&stat(&buffered, &name)?) != identity(&seen) {
            return Err(changed(&name, "was replaced while it was opened"));
        }
        let direct = || open(OFlag::O_RDONLY | OFlag::O_NOCTTY | OFlag::O_DIRECT).ok();
        FileSource::checked(OpenFile::new(buffered, direct), name, offset_bytes, bytes)
    }

    fn open_object(name: &str, offset_bytes: u64, bytes: u64) -> Result<FileSource> {
        let path = object_path(name)?;
        FileSource::open(&Root::shared_memory()?, &path, object_name(name), offset_bytes, bytes)
    }

    fn checked(file: OpenFile, name: PathBuf, offset_bytes: u64, bytes: u64) -> Result<FileSource> {
        let fingerprint = Fingerprint::of(file.buffered(), &name)?;
        let has = fingerprint.size_bytes;
        match offset_bytes.checked_add(bytes) {
            Some(end) if end <= has => {
                fingerprint.ripen();
                let offered = Span::new(offset_bytes, end);
                Ok(FileSource { file, name, offered, fingerprint })
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
        let now = Fingerprint::of(self.file.buffered(), &self.name)?;
        if now.size_bytes < self.fingerprint.size_bytes {
            let (had, has) = (self.fingerprint.size_bytes, now.size_bytes);
            return Err(changed(&self.name, &format!("shrank from {had} to {has} bytes while it was read")));
        }
        if now != self.fingerprint {
            return Err(changed(&self.name, "was written to while it was read"));
        }
        Ok(())
    }
}

impl Fingerprint {
    /// Waits until a write from now on is sure to change it: kernels stamp files with a clock that stands still for some
    /// milliseconds, so that a file which was written to just now could be written to again and look the same.
    fn ripen(&self) {
        let (seconds, nanoseconds) = (self.modified.0.try_into(), self.modified.1.try_into());
        let (Ok(seconds), Ok(nanoseconds)) = (seconds, nanoseconds) else { return };
        let modified = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        // A stamp of the future is of another machine's clock, and says nothing about this one's ticks.
        if let Ok(age) = SystemTime::now().duration_since(modified) {
            std::thread::sleep(TICK.saturating_sub(age));
        }
    }

    fn of(file: BorrowedFd<'_>, name: &Path) -> Result<Fingerprint> {
        let about = stat(file, name)?;
        let size_bytes = match kind(&about) {
            // A device has no size of its own in its entry, but an end that can be sought.
            SFlag::S_IFBLK => lseek(file, 0, Whence::SeekEnd).map_err(|errno| fault(errno, name, "measured"))?,
            _ => about.st_size,
        };
        let modified = (about.st_mtime, about.st_mtime_nsec);
        Ok(Fingerprint { size_bytes: size_bytes.unsigned_abs(), modified, identity: identity(&about) })
    }
}

/// The longest that the clock of file stamps stands still, on a kernel that ticks a hundred times a second.
const TICK: Duration = Duration::from_millis(10);

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

/// Only what has positions can be read at them.
fn check_kind(about: &FileStat, name: &Path) -> Result<()> {
    let what = match kind(about) {
        SFlag::S_IFREG | SFlag::S_IFBLK => return Ok(()),
        SFlag::S_IFDIR => "is a directory",
        SFlag::S_IFIFO => "is a pipe",
        _ => "is neither a file nor a block device",
    };
    Err(Error::new(Code::Data, format!("{} {what}", name.display())).remedy("name a file"))
}

fn too_short(name: &Path, offset_bytes: u64, bytes: u64, end: Option<u64>, has: u64) -> Error {
    let name = name.display();
    let message = match end {
        Some(end) => format!("the range ends at byte {end} of {name}, but the file has {has} bytes"),
        None => format!("offset {offset_bytes} and {bytes} bytes of {name} do not fit 64 bits"),
    };
    Error::new(Code::Data, message).remedy("check the row's offset and range")
}

fn changed(name: &Path, how: &str) -> Error {
    Error::new(Code::Data, format!("{} {how}", name.display())).remedy("run again when nobody writes to it")
}
