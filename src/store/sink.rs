//! A destination: what a receiver's rows write.
//!
//! All rows of one node that name the same data share one sink. The order of calls: [`Sink::prepare`], then
//! [`Sink::zero`] for holes and [`Sink::preallocate`] for the rest, then the rails write, then [`Sink::sync`] and
//! [`Sink::commit`]. A sink that is dropped before its commit leaves nothing behind.
//!
//! Where several nodes write one path, the elected one prepares first and commits last, when all others have synced.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::unistd::fsync;

use super::fault::fault;
use super::open::{OpenFile, retried};
use super::partial::{Partial, Place};
use super::region::Region;
use super::{Root, space};
use crate::error::{Code, Error, Result};
use crate::spec::DataUri;
use crate::units::Span;

/// What this node is to the others that write the same path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shared {
    /// No other node names this path.
    Alone,
    /// Others do, and this one makes the file, sizes it and gives it its name.
    Elected,
    /// Others do. Where this node sees the elected one's file it writes into that, else into one of its own.
    Member,
}

/// How a destination is to be prepared.
#[derive(Clone, Debug)]
pub(crate) struct SinkOptions {
    /// Whether an existing file may be replaced.
    pub(crate) overwrite: bool,
    /// Whether the file and its name are to survive a crash.
    pub(crate) fsync: bool,
    /// What names the partial file: the hash of the transfer and the row, in letters and digits.
    pub(crate) tag: String,
    /// The attempt's random bytes.
    pub(crate) attempt: [u8; 16],
    /// Whether other nodes write the same path.
    pub(crate) shared: Shared,
}

/// An open destination.
#[derive(Debug)]
pub(crate) struct Sink {
    target: Target,
    overwrite: bool,
    fsync: bool,
    shared: Shared,
    /// Set once the destination is complete, or given up: then dropping has nothing to do.
    settled: AtomicBool,
}

#[derive(Debug)]
enum Target {
    /// A partial file that this node renames or removes.
    Owned(Partial),
    /// A partial file that the elected node renames or removes.
    Joined(Partial),
    /// A shared memory object.
    Region(Region),
    /// `null:`.
    Nothing,
}

impl Sink {
    /// Opens what `uri` names for rows that together end at byte `file_bytes` of it.
    ///
    /// # Errors
    /// `Data` where the destination cannot be made, exists (without `overwrite`), or is too small; `Refused` where it
    /// lies out of the root; `Usage` for a URI that only a sender can have. Nothing is left behind then.
    ///
    /// # Panics
    /// If the tag is not 1 to 64 letters and digits: it is made of a hash.
    pub(crate) fn prepare(root: &Root, uri: &DataUri, file_bytes: u64, options: &SinkOptions) -> Result<Sink> {
        let target = match uri {
            DataUri::File(path) => prepare_file(root, path, options)?,
            DataUri::Mem(name) => Target::Region(Region::prepare(name, file_bytes, options.shared)?),
            DataUri::Null => Target::Nothing,
            DataUri::Pattern(_) => {
                return Err(Error::new(Code::Usage, format!("{uri} cannot be written")).remedy("use null: to discard"));
            }
        };
        let SinkOptions { overwrite, fsync, shared, .. } = *options;
        // From here on an error drops the sink, and that removes what was made.
        let sink = Sink { target, overwrite, fsync, shared, settled: AtomicBool::new(false) };
        sink.make_room(file_bytes)?;
        if let (Target::Owned(partial), Shared::Elected) = (&sink.target, shared) {
            // Last: who sees the token may rely on the file.
            partial.place.write_token(&options.attempt)?;
        }
        Ok(sink)
    }

    /// The files to write to, indexed as the extents of this sink's layouts say; none for `null:`.
    pub(crate) fn files(&self) -> &[OpenFile] {
        self.file().map_or(&[], std::slice::from_ref)
    }

    /// Whether the file is another node's, who will rename it.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.target, Target::Joined(_))
    }

    /// Whether what nobody writes reads as zeros already.
    pub(crate) fn is_fresh(&self) -> bool {
        match &self.target {
            Target::Region(region) => region.fresh,
            Target::Owned(_) | Target::Joined(_) | Target::Nothing => true,
        }
    }

    /// Reserves room for the data to come: `spans` are offsets of the file, without the holes.
    ///
    /// # Errors
    /// `Data` where the disk has not that much left.
    pub(crate) fn preallocate(&self, spans: &[Span]) -> Result<()> {
        self.file().map_or(Ok(()), |file| space::reserve(file.buffered(), self.name(), spans))
    }

    /// Makes the holes read as zeros: `spans` are offsets of the file. Does nothing for a fresh file.
    ///
    /// # Errors
    /// `Data` where the system refuses to.
    pub(crate) fn zero(&self, spans: &[Span]) -> Result<()> {
        match self.file() {
            Some(file) if !self.is_fresh() => space::zero(file.buffered(), self.name(), spans),
            _ => Ok(()),
        }
    }

    /// Makes what was written durable, if that was asked for. Each node does it for itself, before the commit.
    ///
    /// # Errors
    /// `Data` where the device could not write.
    pub(crate) fn sync(&self) -> Result<()> {
        match (&self.target, self.fsync) {
            (Target::Owned(partial) | Target::Joined(partial), true) => {
                retried(|| fsync(partial.file.buffered())).map_err(|errno| self.write_failed(errno))
            }
            _ => Ok(()),
        }
    }

    /// Gives the complete file its name; for a shared file that is the elected node's part, after everybody's sync.
    ///
    /// # Errors
    /// `Data` where the name was taken meanwhile, where another attempt has replaced the file, or where the system refuses.
    /// The file is then removed.
    pub(crate) fn commit(&self) -> Result<()> {
        self.sync()?;
        if let Target::Owned(partial) = &self.target {
            // The token goes first: while the file has its final name nothing of ours lies beside it.
            self.remove_token(partial)?;
            let finished = partial.finish(self.overwrite, self.fsync);
            if let Err(error) = finished {
                self.discard();
                return Err(error);
            }
        }
        self.settled.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Removes what is not complete. A node that has joined another's file leaves it to that one.
    pub(crate) fn discard(&self) {
        if self.settled.swap(true, Ordering::Relaxed) {
            return;
        }
        match &self.target {
            Target::Owned(partial) => {
                // A removal that fails has no one to tell; the next attempt replaces what is left.
                let _ = self.remove_token(partial);
                partial.discard();
            }
            Target::Region(region) => region.discard(),
            Target::Joined(_) | Target::Nothing => {}
        }
    }

    /// The error for a write that the system refused with `errno`.
    pub(crate) fn write_failed(&self, errno: Errno) -> Error {
        fault(errno, self.name(), "written")
    }

    /// Partial files start empty; a region has fitted itself.
    fn make_room(&self, bytes: u64) -> Result<()> {
        match &self.target {
            Target::Owned(partial) => space::size(partial.file.buffered(), self.name(), bytes),
            Target::Joined(partial) => space::grow(partial.file.buffered(), self.name(), bytes),
            Target::Region(_) | Target::Nothing => Ok(()),
        }
    }

    /// Removes the token that this node has left, unless a newer attempt's lies there now.
    fn remove_token(&self, partial: &Partial) -> Result<()> {
        let left_one = self.shared == Shared::Elected && partial.is_ours();
        if left_one { partial.place.remove_token() } else { Ok(()) }
    }

    fn file(&self) -> Option<&OpenFile> {
        match &self.target {
            Target::Owned(partial) | Target::Joined(partial) => Some(&partial.file),
            Target::Region(region) => Some(&region.file),
            Target::Nothing => None,
        }
    }

    fn name(&self) -> &Path {
        match &self.target {
            Target::Owned(partial) | Target::Joined(partial) => &partial.place.path,
            Target::Region(region) => &region.name,
            Target::Nothing => Path::new("null:"),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.discard();
    }
}

fn prepare_file(root: &Root, path: &Path, options: &SinkOptions) -> Result<Target> {
    let tag = &options.tag;
    assert!((1..=TAG_BYTES_MAX).contains(&tag.len()), "a tag has 1 to {TAG_BYTES_MAX} bytes");
    assert!(tag.bytes().all(|byte| byte.is_ascii_alphanumeric()), "a tag is made of letters and digits");
    let place = Place::find(root, path, tag, options.overwrite)?;
    if options.shared == Shared::Member && place.has_token(&options.attempt)? {
        return place.join().map(Target::Joined);
    }
    place.create().map(Target::Owned)
}

/// Leaves most of a name of 255 bytes to the user's.
const TAG_BYTES_MAX: usize = 64;
