//! What a node opens after it listens, and so what stays open to it when it is confined.

use std::path::{Path, PathBuf};

use super::options::NodeOptions;
use crate::core::error::Result;
use crate::io::confine::{ConfineMode, ConfinedPath, Confinement, PathAccess};
use crate::io::store::SealKey;

/// Files of the kernel that a node reads while it runs: its own usage, descriptors and sockets, the
/// settings of NICs, the positions of devices and CPUs.
const READ: [&str; 8] = [
    "/proc/self",
    "/proc/stat",
    "/proc/sys",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys",
    "/dev/urandom",
    "/dev/random",
];
/// Files that it opens for both: the spare descriptor, and the locks on CPUs.
const USED: [&str; 2] = ["/dev/null", affinity::CLAIMS_FILE];
/// Directory of shared memory.
const MEMORY: &str = "/dev/shm";
/// Records of a machine that hwloc reads instead of it, and corrections.
const HWLOC_VARIABLES: [&str; 2] = ["HWLOC_XMLFILE", "HWLOC_PCI_LOCALITY"];

/// Confines the calling thread, which is the only one yet, and binds the roots to the directories
/// that are there now.
///
/// # Errors
/// Those of [`Confinement::begin`], and of roots that cannot be opened.
pub(super) fn begin(options: &mut NodeOptions) -> Result<Confinement> {
    if options.confine == ConfineMode::Off {
        return Confinement::begin(ConfineMode::Off, &[]);
    }
    // They are made where they are missing, and that is the last time.
    affinity::CpuClaims::default().make();
    let _ = SealKey::of_this_user();
    let mut bound = options.roots.clone();
    bound.confine()?;
    let confinement = Confinement::begin(options.confine, &paths(options))?;
    if confinement.binds_files() {
        options.roots = bound;
    }
    Ok(confinement)
}

fn paths(options: &NodeOptions) -> Vec<ConfinedPath> {
    let of = |path: &Path, access| ConfinedPath { path: path.to_path_buf(), access };
    let mut paths: Vec<ConfinedPath> = Vec::new();
    paths.extend(READ.map(|path| of(path.as_ref(), PathAccess::Read)));
    paths.extend(USED.map(|path| of(path.as_ref(), PathAccess::UseFile)));
    let named = HWLOC_VARIABLES.into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    paths.extend(named.map(|path| of(&path, PathAccess::Read)));
    // An allow file that is replaced is another file of the same directory.
    paths.extend(options.access.allow_directories().map(|path| of(&path, PathAccess::Read)));
    let changes = options.roots.rights.writes;
    let access = |writes| if writes && changes { PathAccess::Change } else { PathAccess::Read };
    if options.roots.allowed.memory {
        paths.push(of(MEMORY.as_ref(), access(true)));
    }
    let roots = options.roots.declared.iter();
    paths.extend(roots.map(|root| of(&root.place.directory, access(root.rights.writes))));
    paths
}
