//! The files that a confined process may open: a ruleset of Landlock.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
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
/// those that they know.
const KNOWN: ABI = ABI::V5;
/// Rights of Linux 6.2, from where on all that a node could do to a file is among them.
const WHOLE: ABI = ABI::V3;
/// Rights of Linux 5.13: reading, writing, making and removing files. Nothing is moved or linked
/// from one directory to another there, which a node never does.
const LEAST: ABI = ABI::V1;

/// Reason why this kernel cannot bind the files of a process, if so.
pub(crate) fn obstacle() -> Option<String> {
    knows(LEAST).err().map(|error| {
        format!("no Landlock of Linux 5.13 or later, or it is not among the lsm= of boot: {error}")
    })
}

/// What this kernel leaves a process whose files it binds, if so.
pub(crate) fn weakness() -> Option<String> {
    let is_weak = obstacle().is_none() && knows(WHOLE).is_err();
    is_weak.then(|| "Landlock before Linux 6.2 lets files be truncated that may be read".into())
}

fn knows(abi: ABI) -> Result<(), RulesetError> {
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    ruleset.handle_access(AccessFs::from_all(abi)).and_then(Ruleset::create).map(drop)
}

/// Binds the calling thread to `paths`. Returns what has to stay open.
///
/// # Errors
/// The obstacle, in words; then nothing is bound.
pub(super) fn confine(paths: &[ConfinedPath]) -> Result<Vec<HeldPath>, String> {
    if let Some(obstacle) = obstacle() {
        return Err(obstacle);
    }
    // With a right to move files that the kernel does not know, the library would bind nothing.
    let moves = knows(ABI::V2).is_ok();
    confine_with(if moves { KNOWN } else { LEAST }, paths)
}

/// The same with the rights of `known`, as far as the kernel knows them.
pub(super) fn confine_with(known: ABI, paths: &[ConfinedPath]) -> Result<Vec<HeldPath>, String> {
    let mut held = Vec::new();
    bind(known, paths, &mut held).map_err(|error| format!("Landlock: {error}"))?;
    Ok(held)
}

fn bind(known: ABI, paths: &[ConfinedPath], held: &mut Vec<HeldPath>) -> Result<(), String> {
    let said = |error: &dyn std::error::Error| error.to_string();
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(known))
        .and_then(|ruleset| ruleset.scope(Scope::AbstractUnixSocket | Scope::Signal))
        .and_then(Ruleset::create)
        .map_err(|error| said(&error))?;
    for ConfinedPath { path, access } in paths {
        // What is not there is left out.
        let Ok(open) = PathFd::new(path) else { continue };
        let rule = PathBeneath::new(&open, rights(known, path, *access));
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

fn rights(known: ABI, path: &Path, access: PathAccess) -> BitFlags<AccessFs> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::WriteFile | AccessFs::Truncate;
    let change = AccessFs::MakeReg | AccessFs::RemoveFile | AccessFs::RemoveDir | AccessFs::Refer;
    let all = match access {
        PathAccess::Read => read,
        PathAccess::UseFile => read | write,
        PathAccess::Change => read | write | change,
    };
    // Rights of directories make no rule for a file.
    all & if path.is_dir() { AccessFs::from_all(known) } else { AccessFs::from_file(known) }
}
