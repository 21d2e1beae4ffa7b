//! The files that a confined process may open: a ruleset of Landlock.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};

/// A path that stays open to a confined process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ConfinedPath {
    pub(crate) path: PathBuf,
    pub(crate) access: PathAccess,
}

/// What a confined process may do at a path and below it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PathAccess {
    /// Read files, list directories.
    Read,
    /// Read and write the one file of that name.
    UseFile,
    /// Read, write, make and remove files.
    Change,
}

/// A path of a rule, open.
pub(super) type HeldPath = PathFd;

/// Rights that are taken away where no rule gives them: of Linux 6.10. Older kernels take away
/// those that they know; reading, writing and making files are among them since 6.2.
const KNOWN: ABI = ABI::V5;
/// Rights that a kernel must know for a process to count as confined: those of Linux 6.2.
const NEEDED: ABI = ABI::V3;

/// Reason why this kernel cannot bind the files of a process, if so.
pub(crate) fn obstacle() -> Option<String> {
    let created = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(NEEDED))
        .and_then(Ruleset::create);
    created.err().map(|error| {
        format!("no Landlock of Linux 6.2 or later, or it is not among the lsm= of boot: {error}")
    })
}

/// Binds the calling thread to `paths`. Returns what has to stay open.
///
/// # Errors
/// The obstacle, in words; then nothing is bound.
pub(super) fn confine(paths: &[ConfinedPath]) -> Result<Vec<HeldPath>, String> {
    if let Some(obstacle) = obstacle() {
        return Err(obstacle);
    }
    let mut held = Vec::new();
    bind(paths, &mut held).map_err(|error| format!("Landlock: {error}"))?;
    Ok(held)
}

fn bind(paths: &[ConfinedPath], held: &mut Vec<HeldPath>) -> Result<(), String> {
    let said = |error: &dyn std::error::Error| error.to_string();
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))
        .and_then(|ruleset| ruleset.scope(Scope::AbstractUnixSocket | Scope::Signal))
        .and_then(Ruleset::create)
        .map_err(|error| said(&error))?;
    for ConfinedPath { path, access } in paths {
        // What is not there is left out.
        let Ok(open) = PathFd::new(path) else { continue };
        let rule = PathBeneath::new(&open, rights(path, *access));
        rules = rules.add_rule(rule).map_err(|error| said(&error))?;
        if *access != PathAccess::UseFile {
            held.push(open);
        }
    }
    let status = rules.restrict_self().map_err(|error| said(&error))?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err("nothing is enforced".into()),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}

fn rights(path: &Path, access: PathAccess) -> BitFlags<AccessFs> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::WriteFile | AccessFs::Truncate;
    let change = AccessFs::MakeReg | AccessFs::RemoveFile | AccessFs::RemoveDir | AccessFs::Refer;
    let all = match access {
        PathAccess::Read => read,
        PathAccess::UseFile => read | write,
        PathAccess::Change => read | write | change,
    };
    // Rights of directories make no rule for a file.
    if path.is_dir() { all } else { all & AccessFs::from_file(KNOWN) }
}
