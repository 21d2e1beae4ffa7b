//! `doctor`: problems that keep this machine from line rate and, with a peer, problems between the
//! two.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::examined_hosts;
use super::output::{print, print_json};
use super::run::own_program;
use crate::app::bench::{NextRun, PROBE_BYTES, parts, rows};
use crate::app::cli::args::{DoctorArgs, KeyArgs};
use crate::app::cli::{exit_code, fail};
use crate::app::doctor;
use crate::app::doctor::{DoctorPeer, PairDirection, pairs};
use crate::app::transfer::{Settings, Transfer, resolve_one};
use crate::core::error::{Code, Error, Result};
use crate::core::launch::method::LaunchMethod;
use crate::core::report::{NodeReport, Report, ReportError};
use crate::core::spec::NodeAddress;
use crate::core::units::printable_lines;
use crate::io::launch;
use crate::io::launch::{LaunchConfig, LaunchPurpose};
use crate::io::node::options::NodeOptions;
use crate::io::session::{Identity, Key};

/// Duration of the test of each direction: long enough for TCP to find its rate.
const TRY_FOR: Duration = Duration::from_secs(1);
/// Time for one of several addresses of a peer to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Root of the node that is started for the test: a directory that exists everywhere, with nothing
/// secret or writable in it. Patterns need none.
const ROOT: &str = "/sys/class/net";

pub(super) fn doctor(args: &DoctorArgs) -> Result<ExitCode> {
    if args.launch.as_ref().is_some_and(|launch| *launch != LaunchMethod::None) {
        return examined_hosts::examine_hosts(args);
    }
    let peer = peer_of(args)?;
    let identity = args.keys.key_file.as_deref().map(Identity::load).transpose()?;
    let key = identity.map(|identity| identity.names());
    let mut diagnosis = doctor::examine();
    let tried = peer.as_ref().map(|peer| with_peer(peer, &args.keys));
    let failed = match tried {
        Some(Ok(peer)) => {
            diagnosis = diagnosis.with(peer);
            None
        }
        Some(Err(error)) => Some(error),
        None => None,
    };
    let written = if args.json {
        print_json(&with_more(&diagnosis.json(), key.as_deref(), failed.as_ref()))
    } else {
        let key = key.map_or_else(String::new, |key| format!("key: {key}\n"));
        print(&printable_lines(&format!("{diagnosis}{key}")))
    };
    if let Some(error) = failed {
        return Ok(fail(&error));
    }
    written?;
    // The machine is the source and destination of data; docs/decisions/0013 explains this code.
    Ok(if diagnosis.is_well() { ExitCode::SUCCESS } else { exit_code(Code::Data) })
}

/// Returns the node to test this machine with, if one is named.
fn peer_of(args: &DoctorArgs) -> Result<Option<NodeAddress>> {
    let usage = |what: String| {
        Error::new(Code::Usage, what)
            .remedy("name one node by HOST:PORT, or have each host examined: n[01-16] --launch ssh")
    };
    match &args.hosts[..] {
        [] => Ok(None),
        [only] => {
            let expected = |expected| usage(format!("{only}: expected {expected}"));
            only.parse().map(Some).map_err(expected)
        }
        [_, second, ..] => Err(usage(format!("{second} is one host too many"))),
    }
}

/// Returns the JSON object of a diagnosis, with the key in use and the error that prevented the
/// test of the peer, if any.
fn with_more(diagnosis: &str, key: Option<&str>, error: Option<&Error>) -> String {
    let is_more = key.is_some() || error.is_some();
    let Some(serde_json::Value::Object(mut object)) =
        is_more.then(|| serde_json::from_str(diagnosis).ok()).flatten()
    else {
        return diagnosis.to_owned();
    };
    if let Some(key) = key {
        object.insert("key".into(), key.into());
    }
    if let Some(error) = error {
        object.insert("error".into(), serde_json::json!(ReportError::from(error)));
    }
    serde_json::Value::Object(object).to_string()
}

/// Moves data in both directions between the peer and a node that is started here.
fn with_peer(peer: &NodeAddress, keys: &KeyArgs) -> Result<DoctorPeer> {
    let remote = answering(&resolve_one(peer)?);
    let own = SocketAddr::new(launch::address_towards(remote)?, 0);
    NodeOptions::check_key(own, keys.key_file.is_some())?;
    let (key_file, allow_file) = (keys.key_file.clone(), keys.allow_file.clone());
    let settings = Settings { key_file, allow_file, ..Settings::default() };
    let try_out = TryOut { peer, own, settings };
    let nics = affinity::nics(&affinity::SysfsTree::at("/sys")).unwrap_or_default();
    let reaches = |own: IpAddr, far: IpAddr| {
        nics.iter()
            .flat_map(|nic| &nic.addresses)
            .any(|address| address.ip == own && address.reaches(far))
    };
    let (mut tried, mut warnings) = (Vec::new(), Vec::new());
    for direction in [PairDirection::Out, PairDirection::In] {
        let report = try_out.moved(direction, &mut warnings)?;
        let is_peer = |node: &&NodeReport| node.name == peer.to_string();
        let there = report.nodes.iter().find(is_peer).expect("both nodes are in the report");
        let here =
            report.nodes.iter().find(|node| !is_peer(node)).expect("both nodes are in the report");
        tried.extend(pairs(direction, (here, there), report.seconds, reaches));
    }
    warnings.sort();
    warnings.dedup();
    Ok(DoctorPeer { name: peer.to_string(), pairs: tried, warnings })
}

/// Returns the first address of a peer that accepts connections, or the first of all if none does:
/// the transfer then reports why.
fn answering(addresses: &[SocketAddr]) -> SocketAddr {
    let answers =
        |address: &&SocketAddr| TcpStream::connect_timeout(address, ANSWER_WITHIN).is_ok();
    let mut several = addresses.iter().filter(|_| addresses.len() > 1);
    several.find(answers).copied().unwrap_or(addresses[0])
}

/// Short transfers between a local node and the peer.
struct TryOut<'a> {
    peer: &'a NodeAddress,
    /// Address of local nodes.
    own: SocketAddr,
    settings: Settings,
}

impl TryOut<'_> {
    /// Makes short runs until the rate is known, then one of the intended duration.
    fn moved(&self, direction: PairDirection, warnings: &mut Vec<String>) -> Result<Report> {
        let mut bytes = PROBE_BYTES;
        loop {
            let report = self.run(direction, bytes)?;
            warnings.extend(report.warnings);
            match parts(&[(bytes, report.seconds)], TRY_FOR) {
                NextRun::Probe(larger) => bytes = larger[0],
                NextRun::Measure(enough) => {
                    let report = self.run(direction, enough[0])?;
                    warnings.extend_from_slice(&report.warnings);
                    return Ok(report);
                }
            }
        }
    }

    fn run(&self, direction: PairDirection, bytes: u64) -> Result<Report> {
        // A launched node serves one master, and ends with it.
        let program = own_program().ok_or_else(|| {
            Error::new(Code::Internal, "this program cannot find itself").remedy("mount /proc")
        })?;
        let key = Key::generate()?;
        let launch_config = LaunchConfig {
            program: Some(&program),
            root: Path::new(ROOT),
            secret: &key.to_hex(),
            slots: None,
            ports: None,
            purpose: LaunchPurpose::Transfer,
        };
        let launched = launch::start_at(self.own, &launch_config)?;
        let node = launched.addresses().flatten().next().expect("one was started");
        let here = [NodeAddress { host: node.ip().to_string(), port: node.port() }];
        let there = std::slice::from_ref(self.peer);
        let mut transfer = Transfer::new("doctor", self.settings.clone());
        transfer.add_own_node(here[0].clone(), key);
        let rows = match direction {
            PairDirection::Out => rows(&here, there, &[bytes]),
            PairDirection::In => rows(there, &here, &[bytes]),
        };
        rows.into_iter().for_each(|row| transfer.schedule(row));
        let report = transfer.transfer()?;
        let warnings = report.warnings.clone();
        report.into_result().map_err(|error| {
            let all: Vec<String> = std::iter::once(error.message.clone()).chain(warnings).collect();
            Error { message: all.join("; "), ..error }
        })
    }
}
