//! One transfer as the control thread carries it out: its files, its flows, and its counts. What it
//! does next is decided by the node's machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::counters::NicCounters;
use super::histories::CHANGERS;
use super::machine_load::LoadSnapshot;
use super::transfer_flows::TransferFlows;
use super::usage;
use crate::core::options::WireLevel;
use crate::core::spec::RowRole;
use crate::core::wire::control::{NodeStats, Prepare, RailStats, ToMaster};
use crate::core::wire::terms::WirePolicy;
use crate::io::clock;
use crate::io::rail::paths;
use crate::io::rail::paths::PathStats;
use crate::io::rail::transfer_files::TransferFiles;
use crate::io::store::DestinationClaim;

/// One transfer on this node.
pub(super) struct NodeTransfer {
    pub(super) prepare: Prepare,
    pub(super) flows: TransferFlows,
    /// Open once the participant is prepared.
    pub(super) transfer_files: Option<Arc<TransferFiles>>,
    /// Files that this node has claimed, until bytes move.
    pub(super) claims: Vec<DestinationClaim>,
    /// Set when nobody waits any more for the worker that opens the transfer.
    pub(super) quits: Arc<AtomicBool>,
    cpu_before: Duration,
    /// Time for which the process had been stopped before.
    stopped_before: Duration,
    /// Counters of the NICs before any byte of the transfer moved.
    counters_before: NicCounters,
    /// Load of the machine before, if the node is measured.
    load_before: Option<LoadSnapshot>,
}

/// Pieces of a transfer that is small at a node.
pub(super) const SMALL_PIECES: u64 = 4;

impl NodeTransfer {
    /// A transfer that begins, over some `ports`. `nics` are the names of all ports' NICs.
    pub(super) fn new(
        prepare: Prepare,
        wire: WirePolicy,
        ports: Vec<usize>,
        nics: &[&str],
        is_measured: bool,
    ) -> NodeTransfer {
        NodeTransfer {
            flows: TransferFlows::new(&prepare, wire, ports),
            prepare,
            transfer_files: None,
            claims: Vec::new(),
            quits: Arc::default(),
            cpu_before: usage::cpu(),
            stopped_before: clock::stopped(),
            counters_before: NicCounters::read(nics),
            load_before: is_measured.then(LoadSnapshot::take),
        }
    }

    /// Its files, which are open.
    pub(super) fn files(&self) -> Arc<TransferFiles> {
        Arc::clone(self.transfer_files.as_ref().expect("a prepared transfer has its files open"))
    }

    /// Returns true if this node has few pieces of up to `block_bytes` to send and to receive.
    pub(super) fn is_small(&self, block_bytes: u64) -> bool {
        let rows = |role| self.prepare.rows.iter().filter(move |row| row.role == role);
        let bytes = |role| rows(role).fold(0_u64, |sum, row| sum.saturating_add(row.span.bytes()));
        let bytes = bytes(RowRole::Sender).max(bytes(RowRole::Receiver));
        bytes <= SMALL_PIECES * block_bytes
    }

    /// Has the worker that opens the transfer end soon.
    pub(super) fn quit(&self) {
        self.quits.store(true, Ordering::Relaxed);
    }

    /// Adds to a message what the rails and the process counted; `nics` are the names of the ports'
    /// NICs.
    pub(super) fn complete(&self, message: &mut ToMaster, nics: &[&str]) {
        match message {
            ToMaster::Report(stats) | ToMaster::Landed { stats, .. } => {
                self.complete_stats(stats, nics);
            }
            ToMaster::Failed { stats: Some(stats), .. } => self.complete_stats(stats, nics),
            ToMaster::Progress { sent_bytes, lost, .. } => {
                *sent_bytes = self.sent_bytes();
                *lost = self.flows.take_lost();
            }
            ToMaster::Failed { stats: None, .. }
            | ToMaster::Prepared(_)
            | ToMaster::Comparing { .. }
            | ToMaster::Committed
            | ToMaster::Resumed { .. }
            | ToMaster::Surveyed(_)
            | ToMaster::Call(_) => {}
        }
    }

    /// Adds them to the participant's counts. The threads of one NIC count as one.
    fn complete_stats(&self, stats: &mut NodeStats, nics: &[&str]) {
        stats.cpu_ns = u64::try_from(usage::cpu().saturating_sub(self.cpu_before).as_nanos())
            .unwrap_or(u64::MAX);
        stats.memory_bytes_max = usage::memory_bytes_max();
        stats.warnings = self.warnings(nics);
        stats.load = self.load_before.as_ref().map(|before| LoadSnapshot::take().since(before));
        let Some(transfer_files) = &self.transfer_files else { return };
        let counters = NicCounters::read(nics);
        stats.rails.clear();
        for &port in self.flows.ports() {
            let (nic, tally) = (nics[port], &transfer_files.tallies[port]);
            let (sent_bytes, received_bytes) = (tally.sent_bytes(), tally.received_bytes());
            match stats.rails.iter_mut().find(|rail| rail.nic == nic) {
                Some(rail) => {
                    rail.sent_bytes += sent_bytes;
                    rail.received_bytes += received_bytes;
                }
                None => {
                    let counted = counters.since(&self.counters_before, nic);
                    let faults = counted.filter(|_| stats.load.is_some()).map_or(0, |it| it.faults);
                    let counted = counted.map(|it| (it.sent_bytes, it.received_bytes));
                    let same = self.flows.ports().iter().filter(|&&port| nics[port] == nic);
                    let paths: Vec<&PathStats> =
                        same.map(|&port| &transfer_files.tallies[port].paths).collect();
                    let (path, driver) = (paths::describe(&paths), tally.paths.driver());
                    let same = self.flows.ports().iter().filter(|&&port| nics[port] == nic);
                    let wires = same.filter_map(|&port| transfer_files.tallies[port].wire.least());
                    let wire = wires.min_by_key(|wire| wire.level);
                    stats.rails.push(RailStats {
                        nic: nic.into(),
                        sent_bytes,
                        received_bytes,
                        counted,
                        faults,
                        path,
                        driver,
                        wire,
                    });
                }
            }
        }
        // Bytes that came twice, or changed, or after the end, are more than was kept.
        let kept_bytes = stats.received_bytes;
        stats.received_bytes = stats.rails.iter().map(|rail| rail.received_bytes).sum();
        stats.wasted_bytes = stats.received_bytes.saturating_sub(kept_bytes);
        stats.sent_bytes = stats.rails.iter().map(|rail| rail.sent_bytes).sum();
        stats.active_ns = transfer_files.activity.active_ns();
    }

    /// Warnings of the report about time that was lost here, and about NICs that carried nothing.
    fn warnings(&self, nics: &[&str]) -> Vec<String> {
        let stopped = clock::stopped().saturating_sub(self.stopped_before);
        let mut warnings: Vec<String> =
            clock::stop_warning("the node", stopped).into_iter().collect();
        warnings.extend(self.flows.warnings(clock::awake(), nics));
        warnings.extend(self.request_warnings(nics));
        warnings
    }

    /// Protection of its least protected flow, if there was any.
    pub(super) fn wire(&self) -> Option<WireLevel> {
        let tallies = self.transfer_files.iter().flat_map(|transfer_files| &transfer_files.tallies);
        tallies.filter_map(|tally| tally.wire.least()).map(|wire| wire.level).min()
    }

    /// Warnings about requests that arrived changed. The threads of one NIC count as one.
    fn request_warnings(&self, nics: &[&str]) -> impl Iterator<Item = String> {
        let mut counts = BTreeMap::new();
        for &port in self.flows.ports() {
            let tally = self.transfer_files.as_ref().map(|files| &files.tallies[port]);
            let of_port = tally.map(|tally| tally.changed_requests.counts()).unwrap_or_default();
            for (receiver, count) in of_port {
                *counts.entry((nics[port].to_owned(), receiver)).or_insert(0) += count;
            }
        }
        counts.into_iter().map(|((nic, receiver), count): (_, u64)| {
            format!("{nic}: {count} requests of {receiver} arrived changed; {CHANGERS}")
        })
    }

    /// Payload sent so far.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.transfer_files
            .iter()
            .flat_map(|transfer_files| &transfer_files.tallies)
            .map(|tally| tally.sent_bytes())
            .sum()
    }

    /// Payload sent and received so far.
    pub(super) fn moved_bytes(&self) -> u64 {
        let tallies = self.transfer_files.iter().flat_map(|transfer_files| &transfer_files.tallies);
        tallies.map(|tally| tally.sent_bytes() + tally.received_bytes()).sum()
    }
}
