//! `copy`: the rows of a specification, made from operands as scp has them.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::run::{carry_out, settings};
use crate::cli::Operand;
use crate::cli::args::{CopyArgs, Launch};
use crate::error::{Code, Error, Result};
use crate::spec::{Address, DataUri, Role, Row, Spec};
use crate::transfer::Transfer;
use crate::units::Span;

/// What the node of a local source is called in reports, and that of a local destination.
const LOCAL_NAMES: [&str; 2] = ["source", "target"];

pub(super) fn copy(args: &CopyArgs) -> Result<ExitCode> {
    let all_local = args.sources.iter().chain([&args.destination]).all(Operand::is_local);
    let mut settings = settings(&args.transfer);
    if !all_local && args.transfer.launch == Launch::None {
        return Err(Error::new(Code::Usage, "copy does not know how to start a node on another host")
            .remedy("use --launch local to try it on this machine, or write a specification for running daemons"));
    }
    settings.launch_local = true;
    let root = settings.root.clone();
    let sources = args.sources.iter().map(|source| absolute(source, &root)).collect::<Result<Vec<PathBuf>>>()?;
    let bytes = size(&sources, &root)?;
    let destination = destination(&absolute(&args.destination, &root)?, &sources[0], &root);
    if sources.iter().any(|source| same_file(&below(&root, source), &below(&root, &destination))) {
        let what = format!("{} is both source and destination", destination.display());
        return Err(Error::new(Code::Usage, what));
    }
    if bytes == 0 {
        return make_empty(&below(&root, &destination), settings.overwrite);
    }
    let mut rows = Vec::new();
    for (operand, path) in args.sources.iter().zip(&sources) {
        rows.extend(rows_of(Role::Sender, operand, path, bytes));
    }
    rows.extend(rows_of(Role::Receiver, &args.destination, &destination, bytes));
    let id = format!("copy {} {}", sources[0].display(), destination.display());
    let spec = Spec { id, rows, ..Spec::default() };
    carry_out(&Transfer::from_spec(spec, settings), &args.transfer)
}

/// The path of an operand, from the root of its node on.
fn absolute(operand: &Operand, root: &Path) -> Result<PathBuf> {
    let path = Path::new(&operand.path);
    if path.is_absolute() {
        return Ok(path.into());
    }
    if !operand.is_local() || root != Path::new("/") {
        let what = format!("{operand}: the path must start with a slash: it names a place below the node's root");
        return Err(Error::new(Code::Usage, what));
    }
    let here = std::env::current_dir();
    let here = here.map_err(|error| Error::new(Code::Usage, format!("there is no current directory: {error}")))?;
    Ok(here.join(path))
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The size that all sources have.
fn size(sources: &[PathBuf], root: &Path) -> Result<u64> {
    let mut sizes = Vec::new();
    for source in sources {
        let about = std::fs::metadata(below(root, source)).map_err(|error| {
            Error::new(Code::Data, format!("{}: cannot be read: {error}", source.display())).remedy("check the path")
        })?;
        if about.is_dir() {
            return Err(Error::new(Code::Data, format!("{} is a directory", source.display()))
                .remedy("copy its files one by one, or pack them first"));
        }
        sizes.push(about.len());
    }
    match sizes.iter().find(|size| **size != sizes[0]) {
        None => Ok(sizes[0]),
        Some(size) => Err(Error::new(Code::Data, format!("the sources differ: {} and {size} bytes", sizes[0]))
            .remedy("several sources must be replicas of one file")),
    }
}

/// A directory takes the file under its own name.
fn destination(path: &Path, source: &Path, root: &Path) -> PathBuf {
    match source.file_name() {
        Some(name) if below(root, path).is_dir() => path.join(name),
        _ => path.into(),
    }
}

fn same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

fn make_empty(path: &Path, overwrite: bool) -> Result<ExitCode> {
    let mut options = OpenOptions::new();
    options.write(true).truncate(overwrite).create(overwrite).create_new(!overwrite);
    options.open(path).map_err(|error| {
        let error = Error::new(Code::Data, format!("{}: cannot be made: {error}", path.display()));
        error.remedy("an existing file is replaced with --overwrite")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A row for each host of an operand.
fn rows_of(role: Role, operand: &Operand, path: &Path, bytes: u64) -> Vec<Row> {
    let local = [LOCAL_NAMES[usize::from(role == Role::Receiver)].to_string()];
    let hosts = if operand.is_local() { &local[..] } else { &operand.hosts };
    let row = |host: &String| Row {
        role,
        node: Address { host: host.clone(), port: 0 },
        uri: DataUri::File(path.into()),
        offset_bytes: 0,
        range: Span::new(0, bytes),
        speed: None,
        nics: Vec::new(),
        group: None,
        store: None,
        line: 0,
    };
    hosts.iter().map(row).collect()
}
