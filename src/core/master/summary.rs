//! Summary of a transfer: the state of the coordinator as a [`Report`].

use std::time::Duration;

use super::coordinator::Coordinator;
use super::counter_check;
use super::peer::PeerRecord;
use super::phase::TransferPhase;
use super::resume::keeps;
use super::roster::RosterEntry;
use crate::core::error::Code;
use crate::core::options::WireLevel;
use crate::core::report::{
    NodeReport, NodeRole, PhaseReport, RailReport, Report, ReportError, TransferState, gbit_per_s,
};
use crate::core::wire::control::NodeAdvert;

/// Returns the number of plans that were made. Further parts of groups are no plans.
pub(crate) fn plan_count(coordinator: &Coordinator) -> u32 {
    coordinator.planning.plan_count()
}

/// Builds the report of a transfer that has ended. `wall` is the duration of the whole command.
pub(crate) fn report(coordinator: &Coordinator, wall: Duration) -> Report {
    let mut error = coordinator.error();
    if let Some(error) = error.as_mut().filter(|_| is_resumable(coordinator)) {
        error.message += "; what has landed is kept: run it again to continue";
    }
    let state = match &error {
        None => TransferState::Complete,
        Some(error) if error.code == Code::Cancelled => TransferState::Cancelled,
        Some(_) => TransferState::Failed,
    };
    let peers = coordinator.peers();
    let bytes = coordinator.landed_bytes();
    // Nodes may report any number.
    let sum = |count: fn(&PeerRecord) -> u64| peers.iter().map(count).fold(0, u64::saturating_add);
    let resumed_bytes = sum(|peer| peer.stats().resumed_bytes).min(bytes);
    let active_ns = peers.iter().map(|peer| peer.stats().active_ns).max().unwrap_or(0);
    let seconds = active_ns as f64 / 1e9;
    let adverts: Vec<Option<NodeAdvert>> = peers.iter().map(PeerRecord::advert).collect();
    let (bound_seconds, bottleneck) =
        bound(coordinator, coordinator.roster().assumes_speed(&adverts)).unzip();
    let nodes = coordinator.roster().entries.iter().zip(peers);
    let sent = nodes.clone().flat_map(|(entry, peer)| {
        peer.stats().warnings.iter().map(move |warning| format!("{}: {warning}", entry.address))
    });
    let counted = nodes.clone().flat_map(|(entry, peer)| counted(entry, peer));
    Report {
        transfer: coordinator.terms().identity().id.clone(),
        state,
        bytes,
        resumed_bytes,
        seconds,
        wall_seconds: wall.as_secs_f64(),
        phases: coordinator.plan().map(|_| phases(coordinator, wall)),
        gbit_per_s: gbit_per_s(bytes - resumed_bytes, seconds),
        bound_seconds,
        bottleneck,
        // The scheduler that made the plan, also with `auto`.
        scheduler: coordinator
            .plan()
            .map_or(coordinator.terms().options().scheduler, |plan| plan.scheduler)
            .name()
            .into(),
        block_bytes: Some(coordinator.terms().block_bytes()),
        check: coordinator.terms().options().check.name().into(),
        digest: error.is_none().then(|| coordinator.digest()).flatten(),
        wire: least_protected(peers).map(|level| level.name().into()),
        wasted_bytes: sum(|peer| peer.stats().wasted_bytes),
        stolen_bytes: sum(|peer| peer.stats().stolen_bytes),
        retries: sum(|peer| peer.stats().retries),
        replicas: coordinator.replicas.report(),
        warnings: coordinator
            .planning
            .warnings()
            .iter()
            .cloned()
            .chain(sent)
            .chain(counted)
            .collect(),
        nodes: nodes.map(|(entry, peer)| node(entry, peer, seconds)).collect(),
        error: error.as_ref().map(ReportError::from),
    }
}

/// Returns true if some receiver keeps what has landed, so that another attempt can continue.
fn is_resumable(coordinator: &Coordinator) -> bool {
    coordinator.terms.options().resume
        && !coordinator.replicas.differ
        && coordinator.landed_bytes() > 0
        && coordinator.roster.entries.iter().any(keeps)
}

/// Returns the level of the least protected flow of all nodes.
fn least_protected(peers: &[PeerRecord]) -> Option<WireLevel> {
    let rails = peers.iter().flat_map(|peer| &peer.stats().rails);
    rails.filter_map(|rail| rail.wire).map(|wire| wire.level).min()
}

/// Divides the duration of the whole command.
fn phases(coordinator: &Coordinator, wall: Duration) -> PhaseReport {
    let spent = |phase| coordinator.times.of(phase).as_secs_f64();
    let peers = coordinator.peers();
    // Nodes may report any number.
    let most = |nanos: fn(&PeerRecord) -> u64, of: f64| {
        let nanos = peers.iter().map(nanos).max().unwrap_or(0);
        (nanos as f64 / 1e9).min(of)
    };
    let moving = spent(TransferPhase::Moving);
    let preallocate_seconds = most(|peer| peer.stats().room_ns, moving);
    let synced = most(|peer| peer.stats().commit_ns, moving - preallocate_seconds);
    let prepare_seconds = spent(TransferPhase::Preparing);
    let committing = spent(TransferPhase::Committing);
    let finish_seconds = spent(TransferPhase::Finishing);
    let known = prepare_seconds + moving + committing + finish_seconds;
    PhaseReport {
        connect_seconds: (wall.as_secs_f64() - known).max(0.0),
        prepare_seconds,
        preallocate_seconds,
        move_seconds: moving - preallocate_seconds - synced,
        commit_seconds: synced + committing,
        finish_seconds,
    }
}

/// Returns the lower bound and its cause: nodes and networks, or the requested limit.
pub(super) fn bound(coordinator: &Coordinator, assumes_speed: bool) -> Option<(f64, String)> {
    let bound = coordinator.planning.bound()?;
    let limit_seconds = coordinator.planning.limit_seconds(coordinator.planning_input());
    if let Some(seconds) = limit_seconds.filter(|seconds| *seconds > bound.seconds) {
        return Some((seconds, "the limit".into()));
    }
    let assumed = if bound.seconds > 0.0 && assumes_speed { " (its speed is assumed)" } else { "" };
    Some((bound.seconds, format!("{}{assumed}", bound.bottleneck)))
}

/// Returns the warnings of what a node's NICs have counted.
fn counted(entry: &RosterEntry, peer: &PeerRecord) -> Vec<String> {
    match entry.feeds_itself() {
        true => Vec::new(),
        false => counter_check::warnings(&entry.address, &peer.stats().rails),
    }
}

fn node(entry: &RosterEntry, peer: &PeerRecord, seconds: f64) -> NodeReport {
    let role = match (entry.sends(), entry.receives()) {
        (true, true) => NodeRole::Both,
        (true, false) => NodeRole::Sender,
        (false, _) => NodeRole::Receiver,
    };
    let advert = peer.advert();
    let rail_of = |nic: &str| advert.as_ref()?.rails.iter().find(|rail| rail.nic == nic);
    let line_of = |nic: &str| {
        let nics = advert.as_ref()?.nics().count();
        let declared = entry.speed().filter(|_| nics == 1);
        let line = declared.or_else(|| rail_of(nic)?.line)?;
        Some(line.0 as f64 / 1e9)
    };
    let threads_of = |nic: &str| {
        let rails = advert.iter().flat_map(|advert| &advert.rails);
        rails.filter(|rail| rail.nic == nic).count().max(1)
    };
    let rails = peer.stats().rails.iter().map(|rail| {
        let line_gbit_per_s = line_of(&rail.nic);
        let achieved = gbit_per_s(rail.sent_bytes.max(rail.received_bytes), seconds);
        RailReport {
            nic: rail.nic.clone(),
            threads: threads_of(&rail.nic),
            bytes_sent: rail.sent_bytes,
            bytes_received: rail.received_bytes,
            line_gbit_per_s,
            efficiency: line_gbit_per_s.map(|line| achieved / line),
            path: Some(rail.path.clone()).filter(|path| !path.is_empty()),
            driver: Some(rail.driver.clone()).filter(|driver| !driver.is_empty()),
            wire: rail.wire.map(|wire| wire.level.name().into()),
            cipher: rail
                .wire
                .filter(|wire| wire.level > WireLevel::Clear)
                .map(|wire| wire.cipher.name().into()),
            mtu: rail_of(&rail.nic).and_then(|rail| rail.mtu),
            address: rail_of(&rail.nic).map(|rail| rail.address),
            counted: rail.counted,
            faults: rail.faults,
        }
    });
    NodeReport {
        name: entry.address.to_string(),
        role,
        bytes_sent: peer.stats().sent_bytes,
        bytes_received: peer.stats().received_bytes,
        cpu_seconds: peer.stats().cpu_ns as f64 / 1e9,
        memory_bytes_max: peer.stats().memory_bytes_max,
        seconds: peer.stats().active_ns as f64 / 1e9,
        load: peer.stats().load,
        rails: rails.collect(),
    }
}
