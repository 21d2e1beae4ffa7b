//! Which rows follow from what hosts say of the paths of a copy. Pure: nothing is asked here.

use std::path::{Path, PathBuf};

use super::facts::{HostQuestion, SurveyFacts, question};
use super::files::{CopyFile, CopyOperand};
use crate::core::error::{Code, Error, Result};
use crate::core::spec::{DataUri, NodeAddress, Row, RowRole};
use crate::core::units::{MIB, Span};
use crate::core::wire::control::{SurveySubject, SurveyedSource};

/// Alignment of files in the data space: on the grid, so that blocks do not cross files, and are
/// written without the page cache.
const FILE_ALIGNMENT: u64 = MIB;

/// Returns the first questions: about all sources, and about the destination.
pub(super) fn questions(files: &[CopyFile], destination: &CopyOperand) -> Vec<HostQuestion> {
    let of = |operand: &CopyOperand, subject| {
        let one = |host: &String| question(host, &operand.path, subject);
        operand.hosts.iter().map(one).collect::<Vec<_>>()
    };
    let sources = files.iter().flat_map(|file| &file.places);
    let sources = sources.flat_map(|place| of(place, SurveySubject::Source));
    sources.chain(of(destination, SurveySubject::Destination)).collect()
}

/// Destinations of a copy at one host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct HostTargets {
    pub(super) host: String,
    /// Directory of all of them.
    pub(super) directory: PathBuf,
    /// One for each file.
    pub(super) paths: Vec<PathBuf>,
}

/// Returns where the files go, host by host.
///
/// # Errors
/// `Usage` for several files that do not go to a directory, and where the destination is a
/// directory at some hosts only; `Data` where it cannot be made. All name the destination.
pub(super) fn targets(
    files: &[CopyFile],
    destination: &CopyOperand,
    facts: &SurveyFacts,
) -> Result<Vec<HostTargets>> {
    let mut found = Vec::with_capacity(destination.hosts.len());
    for host in &destination.hosts {
        let named = |error: Error| error.at(destination.at(host));
        found.push((host, facts.destination(host, &destination.path).map_err(named)?));
    }
    let is_directory = found.iter().any(|(_, found)| found.is_directory);
    let typed_as_one = destination.names_directory();
    let other = found.iter().find(|(_, found)| !found.is_directory).map(|(host, _)| *host);
    match other {
        Some(host) if typed_as_one => {
            let what = format!("{} is no directory", destination.at(host));
            return Err(Error::new(Code::Data, what).remedy(
                "make it first: copy makes none; or name a file, without a slash behind it",
            ));
        }
        Some(host) if is_directory => {
            let what =
                format!("{} is no directory, and it is one at other hosts", destination.at(host));
            return Err(Error::new(Code::Usage, what)
                .remedy("make it there, too, or name a file that is nowhere a directory"));
        }
        Some(_) | None => {}
    }
    if let ([first, second, ..], false) = (files, is_directory) {
        let (first, second) = (first.name.display(), second.name.display());
        let what = format!(
            "{first} and {second} are two files, and {} is no directory",
            destination.typed
        );
        return Err(Error::new(Code::Usage, what).remedy(
            "name a directory that exists, or end its name with a slash; replicas of one file have \
             one name",
        ));
    }
    let target = |(host, found): (&String, _)| {
        let path: &PathBuf = found;
        let (directory, paths) = if is_directory {
            (path.clone(), files.iter().map(|file| path.join(&file.name)).collect())
        } else {
            let parent = path.parent().unwrap_or(Path::new("/"));
            (parent.to_path_buf(), vec![path.clone()])
        };
        HostTargets { host: host.clone(), directory, paths }
    };
    Ok(found.into_iter().map(|(host, found)| target((host, &found.path))).collect())
}

/// Returns the questions about what is already at the places of files, for the hosts that `may_be`
/// hosts of a source.
pub(super) fn target_questions(
    targets: &[HostTargets],
    may_be: impl Fn(&str) -> bool,
) -> Vec<HostQuestion> {
    let asked = targets.iter().filter(|target| may_be(&target.host));
    let one = |target: &HostTargets| {
        let each = |path: &PathBuf| question(&target.host, path, SurveySubject::Destination);
        target.paths.iter().map(each).collect::<Vec<_>>()
    };
    asked.flat_map(one).collect()
}

/// Rows of a copy, and warnings.
#[derive(Debug, Default)]
pub(super) struct CopyRows {
    pub(super) rows: Vec<Row>,
    pub(super) warnings: Vec<String>,
}

/// Returns the rows. Hosts of one set in `shares` write each byte once, together.
///
/// # Errors
/// Those of sources, with their names; `Integrity` for replicas of different sizes, and `Usage`
/// where a source is its own destination.
pub(super) fn rows(
    files: &[CopyFile],
    targets: &[HostTargets],
    shares: &[Vec<String>],
    facts: &SurveyFacts,
    address: impl Fn(&str) -> NodeAddress,
) -> Result<CopyRows> {
    let mut made = CopyRows::default();
    let group_of = |host: &String| {
        let set = shares.iter().position(|set| set.len() > 1 && set.contains(host));
        set.map(|set| format!("shared {}", set + 1))
    };
    let groups: Vec<Option<String>> = targets.iter().map(|it| group_of(&it.host)).collect();
    let mut start = 0;
    for (at, file) in files.iter().enumerate() {
        let replicas = replicas(file, facts, &mut made.warnings)?;
        check_not_target(&replicas, targets, at, facts)?;
        let bytes = replicas.first().map_or(0, |(_, _, source)| source.bytes);
        let range = range(start, bytes)?;
        for (host, _, source) in replicas {
            made.rows.push(row(RowRole::Sender, address(host), &source.path, range));
        }
        for (target, group) in targets.iter().zip(&groups) {
            let made_row = row(RowRole::Receiver, address(&target.host), &target.paths[at], range);
            // Nobody can have a part of nothing.
            let group = group.clone().filter(|_| !range.is_empty());
            made.rows.push(Row { group, ..made_row });
        }
        start = range.end.next_multiple_of(FILE_ALIGNMENT);
    }
    Ok(made)
}

/// A replica: its host, its name for people, and what the host says of it.
type FoundReplica<'a> = (&'a str, String, &'a SurveyedSource);

/// Returns all replicas of a file, which have one size. Different times are a warning.
fn replicas<'a>(
    file: &'a CopyFile,
    facts: &'a SurveyFacts,
    warnings: &mut Vec<String>,
) -> Result<Vec<FoundReplica<'a>>> {
    let mut replicas: Vec<FoundReplica<'_>> = Vec::new();
    let places = file.places.iter();
    for (place, host) in places.flat_map(|place| place.hosts.iter().map(move |host| (place, host)))
    {
        let name = place.at(host);
        let found = facts.source(host, &place.path).map_err(|error| error.at(&name))?;
        if let Some((_, first, known)) = replicas.first() {
            if known.bytes != found.bytes {
                let (bytes, other) = (known.bytes, found.bytes);
                let what = format!(
                    "{first} has {bytes} bytes and {name} has {other}: they are not replicas"
                );
                return Err(Error::new(Code::Integrity, what).remedy(
                    "compare the files; different files need different names, and a directory to \
                     go to",
                ));
            }
            if known.modified_seconds != found.modified_seconds {
                warnings.push(format!(
                    "{first} and {name} were modified at different times, and are taken for \
                     replicas of one file"
                ));
            }
        }
        replicas.push((host, name, found));
    }
    Ok(replicas)
}

/// Refuses a source that is at the place of its copy.
fn check_not_target(
    replicas: &[FoundReplica<'_>],
    targets: &[HostTargets],
    file: usize,
    facts: &SurveyFacts,
) -> Result<()> {
    for target in targets {
        // A host that is not asked has no source of its machine.
        let Ok(there) = facts.destination(&target.host, &target.paths[file]) else { continue };
        let is_it = |(_, _, source): &&FoundReplica<'_>| Some(source.identity) == there.identity;
        if let Some((_, name, _)) = replicas.iter().find(is_it) {
            let what = format!("{name} is both source and destination");
            return Err(Error::new(Code::Usage, what).remedy("name another destination"));
        }
    }
    Ok(())
}

/// Returns a sentence about each set of hosts that write one directory.
pub(super) fn share_notes(shares: &[Vec<String>], targets: &[HostTargets]) -> Vec<String> {
    let note = |set: &Vec<String>| {
        let target = targets.iter().find(|target| Some(&target.host) == set.first())?;
        Some(format!(
            "{} see one directory as {}: they write each byte there once, together",
            set.join(", "),
            target.directory.display()
        ))
    };
    shares.iter().filter(|set| set.len() > 1).filter_map(note).collect()
}

/// Refuses hosts that do not share the destination, where each byte is to be written once.
///
/// # Errors
/// `Usage`, with two of them.
pub(super) fn check_split(shares: &[Vec<String>], typed: &str) -> Result<()> {
    match shares {
        [one, other, ..] => {
            let what = format!(
                "--split: {typed} is not one place: {} does not see what {} makes there",
                other[0], one[0]
            );
            Err(Error::new(Code::Usage, what)
                .remedy("without --split each host gets a copy of its own"))
        }
        [] | [_] => Ok(()),
    }
}

/// Returns the range of the data space for a file.
fn range(start: u64, bytes: u64) -> Result<Span> {
    let end = start
        .checked_add(bytes)
        .filter(|end| end.checked_next_multiple_of(FILE_ALIGNMENT).is_some());
    end.map(|end| Span::new(start, end)).ok_or_else(|| {
        Error::new(Code::Usage, "the files have more than 2^64 bytes together")
            .remedy("copy them in several commands")
    })
}

fn row(role: RowRole, node: NodeAddress, path: &Path, range: Span) -> Row {
    Row {
        role,
        node,
        uri: DataUri::File(path.into()),
        offset_bytes: 0,
        range,
        speed: None,
        nics: Vec::new(),
        group: None,
        store: None,
        line: 0,
    }
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
