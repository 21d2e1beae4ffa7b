//! `copy`: the rows of a specification, made from operands as scp has them.
//!
//! Every file, an empty one too, becomes rows of one transfer (docs/decisions/0044).

mod files;
mod survey;

use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use files::{CopyFile, CopyOperand, group};
use survey::FileSurvey;

use super::run::{carry_out, failed, settings};
use crate::app::cli::Operand;
use crate::app::cli::args::CopyArgs;
use crate::app::transfer::Transfer;
use crate::core::error::{Code, Error, Result};
use crate::core::launch::method::LaunchMethod;
use crate::core::spec::{DataUri, NodeAddress, Row, RowRole, Spec};
use crate::core::units::{MIB, Span};

/// Limit on the files of one command: all rows of a node are in one message.
const FILES_MAX: usize = crate::core::spec::NODE_ROWS_MAX;
/// Alignment of files in the data space: on the grid, so that blocks do not cross files, and are
/// written without the page cache.
const FILE_ALIGNMENT: u64 = MIB;
/// Limit on an id, which is sent to every node; a longer one is cut and ends with its hash.
const ID_BYTES_MAX: usize = crate::core::spec::ID_BYTES_MAX;

pub(super) fn copy(args: &CopyArgs) -> ExitCode {
    let id = id_of(args.sources(), args.destination());
    match rows(args) {
        Ok((rows, warnings)) => {
            let settings = crate::app::transfer::Settings {
                launch: LaunchMethod::Local,
                ..settings(&args.transfer)
            };
            let spec = Spec { id, rows, ..Spec::default() };
            carry_out(&Transfer::from_spec(spec, settings), &args.transfer, warnings)
        }
        Err(error) => failed(&id, &args.transfer, &error),
    }
}

/// Returns the rows of all files, and warnings.
fn rows(args: &CopyArgs) -> Result<(Vec<Row>, Vec<String>)> {
    check_launch(args)?;
    let root = args.transfer.launch.root.clone().unwrap_or_else(|| "/".into());
    let node_names = node_names(args);
    let place = |operand: &Operand, local: &str| -> Result<CopyOperand> {
        let hosts = if operand.is_local() { vec![local.to_owned()] } else { operand.hosts.clone() };
        Ok(CopyOperand { hosts, path: absolute(operand, &root)?, typed: operand.to_string() })
    };
    let sources = args
        .sources()
        .iter()
        .map(|source| place(source, &node_names.0))
        .collect::<Result<Vec<CopyOperand>>>()?;
    let files = group(sources)?;
    if files.len() > FILES_MAX {
        let what =
            format!("too many files: {}; the limit for one command is {FILES_MAX}", files.len());
        return Err(Error::new(Code::Usage, what)
            .remedy("copy them in several commands, or pack them first"));
    }
    let mut destination = place(args.destination(), &node_names.1)?;
    let is_directory = destination.names_directory() || below(&root, &destination.path).is_dir();
    if let ([first, second, ..], false) = (files.as_slice(), is_directory) {
        let (first, second) = (first.name.display(), second.name.display());
        let what = format!(
            "{first} and {second} are two files, and {} is no directory",
            args.destination()
        );
        return Err(Error::new(Code::Usage, what).remedy(
            "name a directory that exists, or end its name with a slash; replicas of one file have \
             one name",
        ));
    }
    if !is_directory {
        destination.path = real_parent(&destination.path, args.destination(), &root)?;
    }
    let (mut rows, mut warnings, mut start) = (Vec::new(), Vec::new(), 0);
    for file in &files {
        let target = if is_directory {
            real_parent(&destination.path.join(&file.name), args.destination(), &root)?
        } else {
            destination.path.clone()
        };
        let bytes = survey(file, &target, &root, &mut warnings)?;
        let range = range(start, bytes)?;
        for source in &file.places {
            let path =
                if root == Path::new("/") { real(&source.path) } else { source.path.clone() };
            rows.extend(source.hosts.iter().map(|host| row(RowRole::Sender, host, &path, range)));
        }
        rows.extend(
            destination.hosts.iter().map(|host| row(RowRole::Receiver, host, &target, range)),
        );
        start = range.end.next_multiple_of(FILE_ALIGNMENT);
    }
    Ok((rows, warnings))
}

fn check_launch(args: &CopyArgs) -> Result<()> {
    let mut operands = args.sources().iter().chain([args.destination()]);
    let Some(remote) = operands.find(|operand| !operand.is_local()) else { return Ok(()) };
    if args.transfer.launch.launch == Some(LaunchMethod::Local) {
        return Ok(());
    }
    let what = format!("{remote}: copy does not know how to start a node on another host");
    let typed = format!("{}:{}", remote.hosts.join(","), remote.path.display());
    let remedy = if Path::new(&typed).exists() {
        format!("write ./{typed} for the file of that name here")
    } else {
        "use --launch local to try it on this machine, or write a specification for running daemons"
            .into()
    };
    Err(Error::new(Code::Usage, what).remedy(remedy))
}

/// Returns the names for the nodes of local sources and of a local destination in reports. They
/// differ from all hosts of operands.
fn node_names(args: &CopyArgs) -> (String, String) {
    let is_host = |name: &str| {
        let mut operands = args.sources().iter().chain([args.destination()]);
        operands.any(|operand| operand.hosts.iter().any(|host| host == name))
    };
    let free = |name: &str| {
        let mut name = name.to_owned();
        while is_host(&name) {
            name.insert_str(0, "local-");
        }
        name
    };
    (free("source"), free("target"))
}

/// Returns the path of an operand, from the root of its node.
fn absolute(operand: &Operand, root: &Path) -> Result<PathBuf> {
    if operand.path.is_absolute() {
        return Ok(operand.path.clone());
    }
    if !operand.is_local() || root != Path::new("/") {
        let what = format!(
            "{operand}: the path must start with a slash: it names a place below the node's root"
        );
        return Err(Error::new(Code::Usage, what));
    }
    let here = std::env::current_dir();
    let here = here.map_err(|error| {
        Error::new(Code::Usage, format!("there is no current directory: {error}"))
    })?;
    Ok(here.join(&operand.path))
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Returns the file that a local path leads to: `/dev/stdin` leads elsewhere in a node. Returns the
/// path itself if that fails.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.into())
}

/// Returns a destination without `..`, which a node refuses. A local path is the user's own, so it
/// is resolved by the system. Below a root given with --root, the node refuses `..`.
fn real_parent(path: &Path, typed: &Operand, root: &Path) -> Result<PathBuf> {
    let climbs = path.components().any(|component| component == Component::ParentDir);
    let (Some(parent), Some(name), true) =
        (path.parent(), path.file_name(), typed.is_local() && climbs)
    else {
        return Ok(path.into());
    };
    if root != Path::new("/") {
        return Ok(path.into());
    }
    let parent = parent.canonicalize().map_err(|error| {
        Error::new(Code::Data, format!("{typed}: {} cannot be entered: {error}", parent.display()))
            .remedy("make the directory, or check the path")
    })?;
    Ok(parent.join(name))
}

/// Returns the size of a file, which must be that of all its replicas. Different times are a
/// warning.
fn survey(file: &CopyFile, target: &Path, root: &Path, warnings: &mut Vec<String>) -> Result<u64> {
    let mut first: Option<(&CopyOperand, FileSurvey)> = None;
    for place in &file.places {
        let path = below(root, &place.path);
        if same_file(&path, &below(root, target)) {
            return Err(Error::new(
                Code::Usage,
                format!("{} is both source and destination", place.typed),
            )
            .remedy("name another destination"));
        }
        let found = survey::of(&path).map_err(|error| error.at(&place.typed))?;
        let Some((replica, known)) = first else {
            first = Some((place, found));
            continue;
        };
        if known.bytes != found.bytes {
            let (bytes, other) = (known.bytes, found.bytes);
            let what = format!(
                "{} has {bytes} bytes and {} has {other}: they are not replicas",
                replica.typed, place.typed
            );
            return Err(Error::new(Code::Integrity, what).remedy(
                "compare the files; different files need different names, and a directory to go to",
            ));
        }
        if known.modified_seconds != found.modified_seconds {
            warnings.push(format!(
                "{} and {} were modified at different times, and are taken for replicas of one \
                 file",
                replica.typed, place.typed
            ));
        }
    }
    Ok(first.map_or(0, |(_, survey)| survey.bytes))
}

fn same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
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

fn row(role: RowRole, host: &str, path: &Path, range: Span) -> Row {
    Row {
        role,
        node: NodeAddress { host: host.to_owned(), port: 0 },
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

/// Returns the transfer's id, by which another attempt finds the files of this one: the first
/// source and the destination, as typed.
fn id_of(sources: &[Operand], destination: &Operand) -> String {
    let absolute = |operand: &Operand| {
        let here = std::env::current_dir().unwrap_or_default();
        let path = if operand.is_local() { here.join(&operand.path) } else { operand.path.clone() };
        let uri = DataUri::File(path).to_string();
        let hosts = Operand { path: PathBuf::new(), ..operand.clone() };
        format!(
            "{}{}",
            if operand.is_local() { String::new() } else { hosts.to_string() },
            &uri["file://".len()..]
        )
    };
    let first = sources.first().map(absolute).unwrap_or_default();
    let more = match sources.len() {
        0 | 1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    shortened(format!("copy {first}{more} {}", absolute(destination)))
}

fn shortened(id: String) -> String {
    if id.len() <= ID_BYTES_MAX {
        return id;
    }
    let hash = blake3::hash(id.as_bytes()).to_hex();
    let kept = id.floor_char_boundary(ID_BYTES_MAX - "… ".len() - 16);
    format!("{}… {}", &id[..kept], &hash[..16])
}
