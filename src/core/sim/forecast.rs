//! A transfer of a specification on virtual time, with given speeds, delays and failures.

use std::time::Duration;

use super::cluster::SimCluster;
use super::messages::SimEvent;
use super::net::{NodeLinks, SimStore};
use super::timeline::TransferTimeline;
use super::world::{InjectedFault, PieceFaults, SimWorld};
use crate::core::error::{Code, Error, Result};
use crate::core::master::attempt::{AttemptConfig, TransferIdentity};
use crate::core::master::roster::Roster;
use crate::core::options::{CheckKind, STALL_TIMEOUT, Scheduler, TransferOptions};
use crate::core::plan::{Plan, PlanProblem};
use crate::core::receiver::scheduler::SchedulerCounts;
use crate::core::spec::Spec;
use crate::core::units::{BitRate, NodeIx, goodput};

/// A scenario, besides the specification.
#[derive(Clone, Debug)]
pub(crate) struct SimScenario {
    pub(crate) scheduler: Scheduler,
    /// One way between any two nodes.
    pub(crate) delay: Duration,
    /// Seed of the chance: it decides the order of events at one moment.
    pub(crate) seed: u64,
    /// Changes of nodes, so long after bytes begin to move.
    pub(crate) changes: Vec<(NodeIx, Duration, NodeChange)>,
}

/// Change of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NodeChange {
    /// Its line has this rate, in both directions, whatever the plan believes.
    Rate(BitRate),
    /// It is gone.
    Kill,
}

/// The course that a transfer would take.
#[derive(Clone, Debug)]
pub(crate) struct TransferForecast {
    /// The pieces that were simulated.
    pub(crate) block_bytes: u64,
    /// From the start to the last piece.
    pub(crate) seconds: f64,
    pub(crate) history: TransferTimeline,
    pub(crate) counts: SchedulerCounts,
    /// Cause of an incomplete transfer.
    pub(crate) error: Option<Error>,
}

/// Runs the transfer of `spec`, for which `plan` is the plan of `problem`. It takes time and
/// memory, but no network and no disk: data is where it is wanted at once.
///
/// # Errors
/// `Code::Usage` where it would take too long.
pub(crate) fn forecast(
    spec: &Spec,
    problem: &PlanProblem,
    plan: &Plan,
    scenario: &SimScenario,
) -> Result<TransferForecast> {
    let block_bytes = block_bytes(problem.grid.1, plan)?;
    let mut spec = spec.clone();
    // The grid has to go through where it did.
    (spec.block_bytes, spec.origin) = (Some(block_bytes), Some(problem.grid.0));
    let roster = Roster::new(&spec);
    let slowest = scenario.slowest(problem);
    let terms = AttemptConfig::new(
        &spec,
        &roster,
        nobody(&spec),
        scenario.transfer_options(block_bytes as f64 / slowest),
    );
    let world = SimWorld {
        links: problem.nodes.iter().map(|node| links(node.send_bytes_per_second)).collect(),
        rails: Vec::new(),
        claims: Vec::new(),
        stores: stores(problem),
        latency: scenario.delay,
        disk_latency: Duration::ZERO,
        disk_bytes_per_second: f64::INFINITY,
        disks: Vec::new(),
        disk_whims: Duration::ZERO,
        faults: PieceFaults::default(),
        lossy: None,
        launched: false,
        seed: scenario.seed,
        keeps_log: false,
    };
    let mut cluster = SimCluster::new(roster, terms, world);
    for &(node, after, change) in &scenario.changes {
        let happening = match change {
            NodeChange::Rate(rate) => {
                SimEvent::Relink { node, links: links(payload(rate)), told: Some(rate) }
            }
            NodeChange::Kill => SimEvent::Fault(InjectedFault::Kill(node)),
        };
        cluster.later(after, happening);
    }
    let outcome = cluster.run();
    let (seconds, history) = (outcome.seconds, outcome.history);
    Ok(TransferForecast {
        block_bytes,
        seconds,
        history,
        counts: outcome.counts,
        error: outcome.error,
    })
}

impl SimScenario {
    /// The least rate that any node has at any time, in payload bytes per second.
    fn slowest(&self, problem: &PlanProblem) -> f64 {
        let changed = self.changes.iter().filter_map(|&(_, _, change)| match change {
            NodeChange::Rate(rate) => Some(payload(rate)),
            NodeChange::Kill => None,
        });
        problem
            .nodes
            .iter()
            .map(|node| node.send_bytes_per_second)
            .chain(changed)
            .fold(f64::INFINITY, f64::min)
    }

    /// Options that the user of the transfer would give; `piece_seconds` is the time of one piece
    /// over the slowest link.
    fn transfer_options(&self, piece_seconds: f64) -> TransferOptions {
        // Pieces may be larger than they will be. Nobody shall be taken for dead for that.
        let patience =
            Duration::try_from_secs_f64(piece_seconds * PATIENCE_PIECES).unwrap_or(Duration::MAX);
        let stall_timeout = STALL_TIMEOUT.max(patience.min(PATIENCE_MAX));
        let (check, scheduler) = (CheckKind::None, self.scheduler);
        TransferOptions {
            check,
            resume: false,
            stall_timeout,
            scheduler,
            ..TransferOptions::default()
        }
    }
}

/// The pieces to simulate: those of the grid, or several of them together where there would be too
/// many.
fn block_bytes(block_bytes: u64, plan: &Plan) -> Result<u64> {
    // Segments are cut into pieces each for itself, so that every one of them has a piece at least.
    let least: u64 =
        plan.planned.iter().map(|planned| planned.segment.receivers.len() as u64).sum();
    if least > PIECES_MAX {
        let what = format!(
            "the plan has {least} parts of segments and receivers; {PIECES_MAX} can be simulated"
        );
        return Err(Error::new(Code::Usage, what).remedy("simulate a part of the transfer"));
    }
    let doubled = std::iter::successors(Some(block_bytes), |block| {
        block.checked_mul(2).filter(|it| *it <= BLOCK_MAX)
    });
    let enough = doubled.clone().find(|block| plan.wanted_bytes() / block <= PIECES_WANTED);
    let block = enough.or_else(|| doubled.last()).unwrap_or(block_bytes);
    let pieces = plan.wanted_bytes() / block;
    if pieces > PIECES_MAX {
        let what = format!(
            "{pieces} pieces of {block} bytes are too many to simulate; {PIECES_MAX} are the most"
        );
        return Err(Error::new(Code::Usage, what).remedy("simulate a part of the transfer"));
    }
    Ok(block)
}

fn stores(problem: &PlanProblem) -> Vec<SimStore> {
    let nodes = || (0..).map(NodeIx).zip(&problem.nodes);
    let stores = problem.stores.iter().zip(0..).map(|(store, at)| SimStore {
        bytes_per_second: store.bytes_per_second,
        read_by: nodes()
            .filter(|(_, node)| node.reads.is_some_and(|it| it.0 == at))
            .map(|(node, _)| node)
            .collect(),
        written_by: nodes()
            .filter(|(_, node)| node.writes.is_some_and(|it| it.0 == at))
            .map(|(node, _)| node)
            .collect(),
    });
    stores.collect()
}

fn links(bytes_per_second: f64) -> NodeLinks {
    NodeLinks { up: bytes_per_second, down: bytes_per_second }
}

/// The payload that a line carries, as plans count it where nobody knows its MTU.
fn payload(rate: BitRate) -> f64 {
    rate.bytes_per_second() * goodput(ETHERNET_MTU)
}

fn nobody(spec: &Spec) -> TransferIdentity {
    TransferIdentity { id: spec.id.clone(), transfer: [0; 16], attempt: [0; 16], flow_key: [0; 32] }
}

/// Pieces of which a simulation takes a second or so.
const PIECES_WANTED: u64 = 20_000;
/// Pieces of which it takes a minute.
const PIECES_MAX: u64 = 1 << 20;
/// The largest block that the protocol takes.
const BLOCK_MAX: u64 = 64 << 20;
/// The MTU of Ethernet where nobody changed it.
const ETHERNET_MTU: u32 = 1500;
/// Pieces that may have to pass the slowest link before one of them is there: those of 64 flows, of
/// which each has a few on its way; and three, because a silent flow is given a third of the time.
const PATIENCE_PIECES: f64 = 3.0 * 64.0 * 4.0;
/// Far below the largest number that the protocol can tell.
const PATIENCE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
