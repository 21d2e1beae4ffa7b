//! `copy`: the rows of a specification, made from operands as scp has them.
//!
//! The nodes of all hosts are reached first and say what the paths are. Every file, an empty one
//! too, then becomes rows of one transfer (docs/decisions/0044) over the same nodes.

mod asking;
mod facts;
mod files;
mod operands;
mod rows;

use std::path::PathBuf;
use std::process::ExitCode;

use operands::{CopyNode, CopyRequest};

use super::run::{carry_out_with, not_begun, settings};
use crate::app::cli::Operand;
use crate::app::cli::args::CopyArgs;
use crate::app::cli::events::EventStream;
use crate::app::transfer::{ReachedNodes, Settings, Transfer};
use crate::core::error::Result;
use crate::core::launch::method::LaunchMethod;
use crate::core::launch::slurm_job::SlurmJob;
use crate::core::spec::{DataUri, NodeAddress, Spec};
use crate::io::launch::{NodePlace, NodeToStart};
use crate::io::session::SiteAccess;

/// Limit on an id, which is sent to every node; a longer one is cut and ends with its hash.
const ID_BYTES_MAX: usize = crate::core::spec::ID_BYTES_MAX;

pub(super) fn copy(args: &CopyArgs) -> ExitCode {
    let id = id_of(args.sources(), args.destination());
    // Whatever can be typed wrong is found before a node is started.
    let events = match EventStream::open(args.transfer.events.as_deref()) {
        Ok(events) => events,
        Err(error) => return not_begun(&id, &args.transfer, &error, None),
    };
    match prepared(args, &id) {
        Ok((transfer, warnings)) => carry_out_with(&transfer, &args.transfer, warnings, events),
        Err(error) => not_begun(&id, &args.transfer, &error, events),
    }
}

/// Returns the transfer of a copy over nodes that are reached, and warnings.
fn prepared(args: &CopyArgs, id: &str) -> Result<(Transfer, Vec<String>)> {
    let request = CopyRequest::read(args)?;
    let launch = if request.is_local() { LaunchMethod::Local } else { request.launch.clone() };
    let settings = Settings { launch, ..settings(&args.transfer) };
    settings.check()?;
    let access = SiteAccess::load(settings.key_file.as_deref(), settings.allow_file.as_deref())?;
    let reached = reach(&request, &settings, &access)?;
    let made = asking::rows_of(&request, &reached, args.split)?;
    let spec = Spec { id: id.to_owned(), rows: made.rows, ..Spec::default() };
    Ok((Transfer::over(reached, spec, settings), made.warnings))
}

/// Reaches the nodes of a copy: they are started, or run already as daemons.
fn reach(request: &CopyRequest, settings: &Settings, access: &SiteAccess) -> Result<ReachedNodes> {
    if settings.launch != LaunchMethod::None {
        let job = settings.job()?;
        let start = |node: &CopyNode| NodeToStart {
            address: node.address.clone(),
            place: place(node, settings, job.as_ref()),
        };
        let nodes: Vec<NodeToStart> = request.nodes.iter().map(start).collect();
        // Nothing is to be cleaned up yet: a signal ends the process, and with it the nodes.
        return ReachedNodes::launch(&nodes, settings, &|| false);
    }
    let of = |is_local: bool| {
        let nodes = request.nodes.iter().filter(|node| node.is_local == is_local);
        nodes.map(|node| node.address.clone()).collect::<Vec<NodeAddress>>()
    };
    let (local, remote) = (of(true), of(false));
    access.check_allow()?;
    let daemons = ReachedNodes::resolved(&remote, |host| access.node_key(host));
    let here = ReachedNodes::launch_towards(&local, &daemons, settings)?;
    Ok(daemons.and(here))
}

/// Returns where the node of a copy is started.
fn place(node: &CopyNode, settings: &Settings, job: Option<&SlurmJob>) -> NodePlace {
    match settings.place(&node.address, node.user.as_deref(), job) {
        NodePlace::Loopback => NodePlace::Loopback,
        _ if node.is_local => NodePlace::Here,
        place => place,
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
