//! `mem:NAME` as a destination: a POSIX shared memory object, written in place.
//!
//! Programs have it mapped under its name, so there is no partial object and no renaming. An object
//! that was made here and did not become complete is unlinked again.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::destination_path::exists;
use super::fault::fault;
use super::memory_object::{object_name, object_path};
use super::open::{OpenFile, identity, let_wait};
use super::{StoreRoot, StoreRoots, space};
use crate::core::error::{Code, Error, Result};
use crate::core::store::writer::WriterRole;

/// A shared memory object that is being written.
#[derive(Debug)]
pub(super) struct SharedRegion {
    pub(super) file: OpenFile,
    /// As the user names it.
    pub(super) name: PathBuf,
    /// This sink made it, so that all of it is zero until written, and may remove it.
    pub(super) fresh: bool,
    directory: StoreRoot,
    path: PathBuf,
}

impl SharedRegion {
    /// Opens or makes the object `name` with room for `bytes`. An existing one needs `overwrite`.
    pub(super) fn prepare(
        roots: &StoreRoots,
        name: &OsStr,
        bytes: u64,
        overwrite: bool,
        role: WriterRole,
    ) -> Result<SharedRegion> {
        let (path, name) = (object_path(name)?, object_name(name));
        let directory = roots.memory_to_write(&name)?;
        let (object, fresh) = open_or_create(&directory, &path, &name)?;
        // Another node of this attempt may have made the object of a shared row.
        if !fresh && !overwrite && !matches!(role, WriterRole::Follower(_)) {
            return Err(exists(&name));
        }
        let region =
            SharedRegion { file: OpenFile::in_memory(object), name, fresh, directory, path };
        let waits = || {
            let_wait(region.file.buffered()).map_err(|errno| fault(errno, &region.name, "written"))
        };
        match region.fit(bytes, role).and_then(|()| waits()) {
            Ok(()) => Ok(region),
            Err(error) => {
                region.discard();
                Err(error)
            }
        }
    }

    /// Refuses an object that has lost its name, or whose name another one has now: nobody would
    /// find the data.
    ///
    /// # Errors
    /// `Data`.
    pub(super) fn check_named(&self) -> Result<()> {
        if self.is_named() {
            return Ok(());
        }
        let what = format!("{} was removed or replaced while it was written", self.name.display());
        Err(Error::new(Code::Data, what).remedy("run again when nobody else uses that name"))
    }

    /// Its name still means the object that is open here.
    fn is_named(&self) -> bool {
        let name = self.path.file_name().unwrap_or_default();
        let named = fstatat(&self.directory, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        match (named, fstat(self.file.buffered())) {
            (Ok(named), Ok(open)) => identity(&named) == identity(&open),
            _ => false,
        }
    }

    /// Removes the object if it was made here and still has its name.
    pub(super) fn discard(&self) {
        if self.fresh && self.is_named() {
            // It may be gone already.
            let name = self.path.file_name().unwrap_or_default();
            let _ = unlinkat(&self.directory, name, UnlinkatFlags::NoRemoveDir);
        }
    }

    fn fit(&self, bytes: u64, role: WriterRole) -> Result<()> {
        let about =
            fstat(self.file.buffered()).map_err(|errno| fault(errno, &self.name, "examined"))?;
        if SFlag::from_bits_truncate(about.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
            return Err(Error::new(
                Code::Data,
                format!("{} is no shared memory object", self.name.display()),
            ));
        }
        let has = about.st_size.unsigned_abs();
        match role {
            // Nobody has sized an empty object yet.
            _ if self.fresh || has == 0 => space::size(self.file.buffered(), &self.name, bytes),
            // The node that made it knew only its own rows.
            WriterRole::Follower(_) => space::grow(self.file.buffered(), &self.name, bytes),
            WriterRole::Sole | WriterRole::Leader if has < bytes => {
                Err(too_small(&self.name, bytes, has))
            }
            WriterRole::Sole | WriterRole::Leader => Ok(()),
        }
    }
}

/// Opens the object, or makes it. Returns true where this call has made it.
fn open_or_create(directory: &StoreRoot, path: &Path, name: &Path) -> Result<(OwnedFd, bool)> {
    // Anything else that lies there is examined by its descriptor; opening a pipe would wait.
    let open = |flags| {
        directory.try_open(
            path,
            OFlag::O_RDWR | OFlag::O_NONBLOCK | flags,
            Mode::S_IRUSR | Mode::S_IWUSR,
        )
    };
    let blame = |errno| fault(errno, name, "written");
    // Opening comes first and making is exclusive: kernels refuse O_CREAT for objects of others in
    // a sticky directory.
    for _ in 0..ATTEMPTS_MAX {
        match open(OFlag::empty())? {
            Err(Errno::ENOENT) => {}
            done => return Ok((done.map_err(blame)?, false)),
        }
        match open(OFlag::O_CREAT | OFlag::O_EXCL)? {
            Err(Errno::EEXIST) => {}
            done => return Ok((done.map_err(blame)?, true)),
        }
    }
    Err(Error::new(Code::Data, format!("{} appears and vanishes all the time", name.display())))
}

fn too_small(name: &Path, bytes: u64, has: u64) -> Error {
    Error::new(
        Code::Data,
        format!("{} has {has} bytes, but the rows that write it need {bytes}", name.display()),
    )
    .remedy("make it larger or remove it")
}

const ATTEMPTS_MAX: u32 = 8;
