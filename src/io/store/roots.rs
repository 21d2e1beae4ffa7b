//! Roots of a node, and what may be done below each: the one way from the path of a row to a
//! directory.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Component, Path};

use nix::sys::stat::fstat;

use super::fault::unserved;
use super::memory_object::object_name;
use super::open::identity;
use super::root::{RootPlace, StoreRoot};
use crate::core::error::{Code, Error, Result};
use crate::core::spec::{DataUri, RootName, RowRole};

/// What may be done with the files below a root, or by a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RootRights {
    pub(crate) reads: bool,
    pub(crate) writes: bool,
}

impl RootRights {
    pub(crate) const ALL: RootRights = RootRights { reads: true, writes: true };
    pub(crate) const READ_ONLY: RootRights = RootRights { reads: true, writes: false };
    pub(crate) const WRITE_ONLY: RootRights = RootRights { reads: false, writes: true };

    /// `self` allows all that `other` does.
    fn covers(self, other: RootRights) -> bool {
        (self.reads || !other.reads) && (self.writes || !other.writes)
    }
}

/// A root as the node's owner declares it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DeclaredRoot {
    pub(crate) place: RootPlace,
    pub(crate) rights: RootRights,
}

impl fmt::Display for DeclaredRoot {
    /// Writes it as `--root` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let RootName::Named(name) = &self.place.name {
            write!(f, "{name}=")?;
        }
        let suffix = match self.rights {
            RootRights::READ_ONLY => ":ro",
            RootRights::WRITE_ONLY => ":wo",
            _ => "",
        };
        write!(f, "{}{suffix}", self.place.directory.display())
    }
}

/// Kinds of data that a node serves only where its owner allows it: they reach beyond the files
/// below its roots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct AllowedKinds {
    /// `mem:` objects, which belong to the whole machine.
    pub(crate) memory: bool,
    /// Block devices, which hold file systems of their own.
    pub(crate) devices: bool,
}

#[cfg(test)]
impl AllowedKinds {
    pub(crate) const ALL: AllowedKinds = AllowedKinds { memory: true, devices: true };
}

/// What a node's owner lets it open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RootOptions {
    /// At least one, each name once.
    pub(crate) declared: Vec<DeclaredRoot>,
    pub(crate) allowed: AllowedKinds,
    /// Rights of the node itself, whatever those of a root are.
    pub(crate) rights: RootRights,
}

impl RootOptions {
    /// Returns the name of the root that a path leads to, if there is one.
    pub(crate) fn name_for(&self, path: &Path) -> Option<&RootName> {
        let found = root_of(&self.declared, |root| root.place.name.clone(), path);
        found.map(|root| &root.place.name)
    }

    /// Checks what is declared against the directories that are there.
    ///
    /// # Errors
    /// `Usage` where two roots have one name, where one is no directory, and where one lies in
    /// another that has rights which it has not: they would hold by another path.
    pub(crate) fn check(&self) -> Result<()> {
        let mut paths = Vec::with_capacity(self.declared.len());
        for root in &self.declared {
            let (path, _) =
                root.place.resolve().map_err(|error| Error { code: Code::Usage, ..error })?;
            paths.push((path, root));
        }
        for (at, (path, root)) in paths.iter().enumerate() {
            let name = &root.place.name;
            if paths[..at].iter().any(|(_, other)| other.place.name == *name) {
                return Err(Error::new(Code::Usage, format!("--root: two roots are named {name}"))
                    .remedy("give each a name of its own: --root NAME=DIR"));
            }
            let undoes = |(outer, other): &&(_, &DeclaredRoot)| {
                path.starts_with(outer) && !root.rights.covers(other.rights)
            };
            if let Some((_, other)) = paths.iter().find(undoes) {
                let what = format!(
                    "--root: {root} lies in {other}, by which more may be done with its files"
                );
                return Err(Error::new(Code::Usage, what)
                    .remedy("give both the same rights, or choose directories apart"));
            }
        }
        Ok(())
    }

    /// Binds each root to the directory that is there now, for a node that the kernel lets open no
    /// other one.
    ///
    /// # Errors
    /// Those of [`RootPlace::open`].
    pub(crate) fn confine(&mut self) -> Result<()> {
        for root in &mut self.declared {
            let directory = root.place.open()?;
            root.place.confined_to = fstat(&directory).ok().map(|about| identity(&about));
        }
        Ok(())
    }
}

/// The open roots of a node.
#[derive(Debug)]
pub(crate) struct StoreRoots {
    roots: Vec<(StoreRoot, RootRights)>,
    memory: bool,
    rights: RootRights,
}

/// A way to use a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FileUse {
    Read,
    Write,
}

impl FileUse {
    fn is_allowed(self, rights: RootRights) -> bool {
        match self {
            FileUse::Read => rights.reads,
            FileUse::Write => rights.writes,
        }
    }
}

impl StoreRoots {
    /// Opens the roots of a node.
    ///
    /// # Errors
    /// Those of [`RootPlace::open`].
    pub(crate) fn open(options: &RootOptions) -> Result<StoreRoots> {
        let RootOptions { declared, allowed, rights } = options;
        let open = |root: &DeclaredRoot| {
            Ok((root.place.open()?.with_devices(allowed.devices), root.rights))
        };
        let roots = declared.iter().map(open).collect::<Result<_>>()?;
        Ok(StoreRoots { roots, memory: allowed.memory, rights: *rights })
    }

    /// The root below which `path` may be read.
    ///
    /// # Errors
    /// `Refused` where none has it, or the node may not read there.
    pub(crate) fn to_read(&self, path: &Path) -> Result<&StoreRoot> {
        self.root_for(path, FileUse::Read)
    }

    /// The root below which `path` may be written, and with it the names beside it.
    ///
    /// # Errors
    /// `Refused` where none has it, or the node may not write there.
    pub(crate) fn to_write(&self, path: &Path) -> Result<&StoreRoot> {
        self.root_for(path, FileUse::Write)
    }

    /// Refuses a row that this node may not carry out.
    ///
    /// # Errors
    /// `Refused`, with the path and the reason.
    pub(crate) fn check(&self, uri: &DataUri, role: RowRole) -> Result<()> {
        let file_use = match role {
            RowRole::Sender => FileUse::Read,
            RowRole::Receiver => FileUse::Write,
        };
        match uri {
            DataUri::File(path) => self.root_for(path, file_use).map(drop),
            DataUri::Mem(name) => self.check_memory(&object_name(name), file_use),
            // They read and write nothing here.
            DataUri::Pattern(_) | DataUri::Null => Ok(()),
        }
    }

    /// The directory of shared memory, to read the object `name` there.
    ///
    /// # Errors
    /// `Refused` where the node's owner does not allow it.
    pub(super) fn memory_to_read(&self, name: &Path) -> Result<StoreRoot> {
        self.check_memory(name, FileUse::Read)?;
        StoreRoot::shared_memory()
    }

    /// The directory of shared memory, to write the object `name` there.
    ///
    /// # Errors
    /// `Refused` where the node's owner does not allow it.
    pub(super) fn memory_to_write(&self, name: &Path) -> Result<StoreRoot> {
        self.check_memory(name, FileUse::Write)?;
        StoreRoot::shared_memory()
    }

    fn check_memory(&self, name: &Path, file_use: FileUse) -> Result<()> {
        if !self.memory {
            return Err(unserved(name, "shared memory", "mem"));
        }
        self.check_node(name, file_use)
    }

    fn root_for(&self, path: &Path, file_use: FileUse) -> Result<&StoreRoot> {
        self.check_node(path, file_use)?;
        let name_of = |(root, _): &&(StoreRoot, _)| root.place().name.clone();
        let Some((root, rights)) = root_of(&self.roots, name_of, path) else {
            let names: Vec<String> =
                self.roots.iter().map(|(root, _)| format!("/{}", root.place().name)).collect();
            let what = format!("{} is refused: it lies below no root of this node", path.display());
            return Err(Error::new(Code::Refused, what)
                .remedy(format!("name a path below {}", names.join(", "))));
        };
        if file_use.is_allowed(*rights) {
            return Ok(root);
        }
        let what = format!("{} is refused: root {} ", path.display(), root.place().name);
        Err(match file_use {
            FileUse::Read => Error::new(Code::Refused, what + "is write-only")
                .remedy("read from another root, or start the node with --root without :wo"),
            FileUse::Write => Error::new(Code::Refused, what + "is read-only")
                .remedy("write to another root, or start the node with --root without :ro"),
        })
    }

    fn check_node(&self, name: &Path, file_use: FileUse) -> Result<()> {
        if file_use.is_allowed(self.rights) {
            return Ok(());
        }
        let (does, option) = match file_use {
            FileUse::Read => ("reads nothing for others", "--no-serve"),
            FileUse::Write => ("writes nothing", "--no-write"),
        };
        let what = format!("{} is refused: this node {does}", name.display());
        Err(Error::new(Code::Refused, what)
            .remedy(format!("use another node, or start this one without {option}")))
    }
}

#[cfg(test)]
impl StoreRoots {
    /// One root for all paths, below which everything is allowed.
    pub(crate) fn of(directory: &Path) -> Result<StoreRoots> {
        let root = StoreRoot::open(directory)?;
        Ok(StoreRoots {
            roots: vec![(root, RootRights::ALL)],
            memory: false,
            rights: RootRights::ALL,
        })
    }

    /// The same roots for a node that serves more than regular files.
    pub(crate) fn allowing(self, allowed: AllowedKinds) -> StoreRoots {
        let roots = self.roots.into_iter();
        let roots = roots.map(|(root, rights)| (root.with_devices(allowed.devices), rights));
        StoreRoots { roots: roots.collect(), memory: allowed.memory, ..self }
    }
}

/// Returns the root that has a path: the one whose name its first component is, or the whole one.
fn root_of<'roots, Root>(
    roots: &'roots [Root],
    name_of: impl Fn(&&'roots Root) -> RootName,
    path: &Path,
) -> Option<&'roots Root> {
    let named = first_component(path).and_then(|first| {
        let is_its = |name: &RootName| name.component().is_some_and(|name| first == name);
        roots.iter().find(|root| is_its(&name_of(root)))
    });
    named.or_else(|| roots.iter().find(|root| name_of(root) == RootName::Whole))
}

fn first_component(path: &Path) -> Option<&OsStr> {
    let first = path.components().find(|component| *component != Component::RootDir);
    first.and_then(|component| match component {
        Component::Normal(name) => Some(name),
        _ => None,
    })
}
