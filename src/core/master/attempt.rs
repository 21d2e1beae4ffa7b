//! Settings of one attempt that all nodes share, and conversion of the plan into messages.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use zeroize::Zeroize;

use super::roster::{Roster, RosterEntry};
use crate::core::block_grid::BlockGrid;
use crate::core::check::CheckMethod;
use crate::core::options::{CheckKind, Scheduler, TransferOptions};
use crate::core::plan;
use crate::core::plan::{GroupIx, NodeCapacity, PlanProblem, PlannedSegment, StoreIx};
use crate::core::spec::{RowRole, Spec};
use crate::core::units::{NodeIx, goodput};
use crate::core::wire::control::{
    FlowKey, NodeAdvert, PeerNode, PlanSegment, Prepare, RailAdvert, ReplicaRange, SenderShare,
    WireOptions, WireRow,
};

/// Assumed rate of a NIC of unknown speed. Above what memory can feed through TCP today, so that
/// the bound stays a bound.
const ASSUMED_BITS_PER_SECOND: f64 = 100e9;
/// Sum of a segment's weights in messages, where weights are integers.
const WEIGHT_SUM: f64 = 1e6;

/// Identity of this attempt for its nodes.
#[derive(Clone, Debug)]
pub(crate) struct TransferIdentity {
    pub(crate) id: String,
    pub(crate) transfer: [u8; 16],
    pub(crate) attempt: [u8; 16],
    pub(crate) flow_key: [u8; 32],
}

impl Drop for TransferIdentity {
    fn drop(&mut self) {
        self.flow_key.zeroize();
    }
}

/// Settings of one attempt at a transfer.
#[derive(Clone, Debug)]
pub(crate) struct AttemptConfig {
    identity: TransferIdentity,
    options: TransferOptions,
    grid: BlockGrid,
    pub(crate) method: CheckMethod,
}

impl AttemptConfig {
    pub(crate) fn new(
        spec: &Spec,
        roster: &Roster,
        identity: TransferIdentity,
        options: TransferOptions,
    ) -> AttemptConfig {
        let grid = roster.grid;
        let method = method(options.check, grid, spec, roster);
        AttemptConfig { identity, options, grid, method }
    }

    pub(crate) fn identity(&self) -> &TransferIdentity {
        &self.identity
    }

    pub(crate) fn options(&self) -> &TransferOptions {
        &self.options
    }

    pub(crate) fn block_bytes(&self) -> u64 {
        self.grid.block_bytes()
    }

    /// Returns true if the parts of groups are dealt as they land. Equal stripes do not heed speed,
    /// and under a limit the shares of the limit decide.
    pub(super) fn deals_late(&self) -> bool {
        self.options.scheduler != Scheduler::Uniform && self.options.limit.is_none()
    }

    /// Returns the share of the limit for a receiver of `bytes` of all wanted bytes, or 0 without a
    /// limit.
    pub(super) fn limit_of(&self, bytes: u64, wanted_bytes: u64) -> u64 {
        let part = bytes as f64 / wanted_bytes.max(1) as f64;
        self.options.limit.map_or(0, |limit| (limit.bytes_per_second() * part).max(1.0) as u64)
    }

    /// Reduces a node's advert to the rails that the node will use (it selects them by the same
    /// rule), without the fields for people.
    pub(super) fn admit(&self, named: &[String], mut advert: NodeAdvert) -> NodeAdvert {
        let used = self.options.rails(named, advert.rails.iter().map(|rail| rail.nic.as_str()));
        advert.rails = used.into_iter().map(|rail| advert.rails[rail].clone()).collect();
        (advert.software, advert.boot_id) = Default::default();
        advert
    }

    /// Builds the first message to a node.
    pub(super) fn prepare(
        &self,
        node: NodeIx,
        entry: &RosterEntry,
        replicas: Vec<ReplicaRange>,
        names_wait: bool,
        nics: Vec<String>,
    ) -> Prepare {
        let claimant =
            |at: usize| if entry.claims[at] { entry.address.to_string() } else { String::new() };
        let rows =
            entry.rows.iter().zip(&entry.sharing).enumerate().map(|(at, (row, sharing))| WireRow {
                role: row.role,
                uri: row.uri.to_string(),
                offset_bytes: row.offset_bytes,
                span: row.range,
                sharing: *sharing,
                claimant: claimant(at),
            });
        Prepare {
            transfer: self.identity.transfer,
            id: self.identity.id.clone(),
            attempt: self.identity.attempt,
            flow_key: FlowKey(self.identity.flow_key),
            node_index: node.0,
            rows: rows.collect(),
            options: self.wire_options(),
            replicas,
            names_wait,
            nics,
        }
    }

    fn wire_options(&self) -> WireOptions {
        let object = match self.method {
            CheckMethod::Blake3(object) => object,
            CheckMethod::None | CheckMethod::Crc64 => None,
        };
        WireOptions {
            block_bytes: u32::try_from(self.grid.block_bytes())
                .expect("the parser limits blocks to 64 MiB"),
            origin: self.grid.origin(),
            object,
            transfer: self.options.of_nodes(),
        }
    }
}

/// Returns the check of a transfer. BLAKE3 makes a digest of the whole if the pieces are subtrees
/// of it: the wanted bytes are one range, the grid starts with it, and rows are cut on the grid.
fn method(kind: CheckKind, grid: BlockGrid, spec: &Spec, roster: &Roster) -> CheckMethod {
    let wanted = roster.wanted();
    let object = match wanted.as_slice() {
        &[whole] => {
            let inside = |position: u64| whole.start < position && position < whole.end;
            let boundaries = spec.rows.iter().flat_map(|row| [row.range.start, row.range.end]);
            let on_grid = boundaries.filter(|&at| inside(at)).all(|at| grid.is_line(at));
            (grid.is_line(whole.start) && on_grid && grid.block_bytes().is_power_of_two())
                .then_some(whole)
        }
        _ => None,
    };
    CheckMethod::new(kind, object)
}

impl Roster {
    /// Returns the input of the planner. `adverts` are those of the nodes that have connected.
    pub(crate) fn problem(&self, adverts: &[Option<NodeAdvert>]) -> PlanProblem {
        let mut problem = PlanProblem {
            grid: (self.grid.origin(), self.grid.block_bytes()),
            ..PlanProblem::default()
        };
        for store in &self.stores {
            let bytes_per_second = store.rate.bytes_per_second();
            problem.stores.push(plan::StoreCapacity { name: store.name.clone(), bytes_per_second });
        }
        for &(from, to, rate) in &self.pairs {
            let bytes_per_second = rate.bytes_per_second() * headers(adverts[to.at()].as_ref());
            problem.pairs.push(plan::PairLimit { from, to, bytes_per_second });
        }
        let mut groups: BTreeMap<&str, GroupIx> = BTreeMap::new();
        for ((node, entry), advert) in self.nodes().zip(adverts) {
            let bytes_per_second = bytes_per_second(entry, advert.as_ref());
            problem.nodes.push(NodeCapacity {
                name: entry.address.to_string(),
                line: entry.rows[0].line,
                send_bytes_per_second: bytes_per_second,
                receive_bytes_per_second: bytes_per_second,
                relays: entry.keeps_all(),
                reads: self.store(entry, RowRole::Sender),
                writes: self.store(entry, RowRole::Receiver),
            });
            for row in &entry.rows {
                match (row.role, &row.group) {
                    (RowRole::Sender, _) => problem.offers.push((node, row.range)),
                    (RowRole::Receiver, None) => problem.wants.push((node, row.range)),
                    (RowRole::Receiver, Some(name)) => {
                        let next =
                            GroupIx(u32::try_from(groups.len()).expect("fewer groups than rows"));
                        let group = *groups.entry(name).or_insert(next);
                        problem.group_wants.push((group, node, row.range));
                    }
                }
            }
        }
        problem
    }

    /// Returns the store of a node's rows of one role. All these rows name the same one.
    fn store(&self, entry: &RosterEntry, role: RowRole) -> Option<StoreIx> {
        let name = entry.rows.iter().find(|row| row.role == role)?.store.as_ref()?;
        let at = self.stores.iter().position(|store| store.name == *name)?;
        u32::try_from(at).ok().map(StoreIx)
    }

    /// Returns the speed of a node by its rows or its advert, in payload bytes per second.
    pub(super) fn bytes_per_second(&self, node: NodeIx, advert: Option<&NodeAdvert>) -> f64 {
        bytes_per_second(self.get(node), advert)
    }

    /// Returns true if some node's speed is neither declared nor known to its kernel.
    pub(crate) fn assumes_speed(&self, adverts: &[Option<NodeAdvert>]) -> bool {
        self.entries
            .iter()
            .zip(adverts)
            .any(|(entry, advert)| known_bits_per_second(entry, advert.as_ref()).is_none())
    }
}

fn bytes_per_second(entry: &RosterEntry, advert: Option<&NodeAdvert>) -> f64 {
    let bits = known_bits_per_second(entry, advert).unwrap_or(ASSUMED_BITS_PER_SECOND);
    bits / 8.0 * headers(advert)
}

/// Returns the part of a line's bits that packet headers leave to payload.
fn headers(advert: Option<&NodeAdvert>) -> f64 {
    let mtu = advert.and_then(|advert| advert.rails.iter().filter_map(|rail| rail.mtu).max());
    goodput(mtu.unwrap_or(1500))
}

fn known_bits_per_second(entry: &RosterEntry, advert: Option<&NodeAdvert>) -> Option<f64> {
    let declared = entry.speed().map(|rate| rate.0 as f64);
    declared.or_else(|| advert?.nics().map(rail_bits_per_second).sum())
}

fn rail_bits_per_second(rail: &RailAdvert) -> Option<f64> {
    rail.line.map(|rate| rate.0 as f64)
}

/// Builds the message for a planned segment of `receiver`.
pub(super) fn segment(planned: &PlannedSegment, receiver: NodeIx) -> PlanSegment {
    let share = |(sender, weight): (NodeIx, f64)| SenderShare {
        index: sender.0,
        weight: (weight * WEIGHT_SUM).round() as u32,
    };
    let senders = planned.senders_for(receiver).into_iter().map(share).collect();
    PlanSegment { span: planned.segment.span, senders }
}

/// Builds a node's description of another one. `relays` is true for a receiver that passes on
/// pieces; `channel` leads to it through the launcher.
pub(super) fn peer(
    node: NodeIx,
    entry: &RosterEntry,
    advert: &NodeAdvert,
    relays: bool,
    channel: Option<SocketAddr>,
) -> PeerNode {
    let rails = advert.rails.iter().map(|rail| rail.address).collect();
    PeerNode { index: node.0, name: entry.address.to_string(), rails, relays, channel }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::units::BitRate;

    #[test]
    fn what_passes_between_two_nodes_slows_their_plan() {
        let plan = |option: &str| {
            let rows = "writer a:1 pattern:1 0 0-99999999 speed=10G\n\
                        writer b:1 pattern:1 0 0-99999999 speed=10G\n\
                        reader c:1 null: 0 0-99999999 speed=10G\n";
            let spec = Spec::parse("pair", &format!("id pair\n{option}\n{rows}"))
                .expect("a specification");
            plan::plan(&Roster::new(&spec).problem(&[None, None, None]), Scheduler::Lp)
                .expect("a plan")
        };
        let (free, slow) = (plan(""), plan("option pair a:1 c:1 1G\noption pair b:1 c:1 4G"));
        assert!(
            (slow.bound.seconds / free.bound.seconds - 2.0).abs() < 1e-6,
            "{:?} {:?}",
            slow.bound,
            free.bound
        );
        assert!(slow.bound.bottleneck.contains("link"), "{}", slow.bound.bottleneck);
        let weights = slow.planned[0].senders_for(NodeIx(2));
        assert!(
            (weights[0].1 - 0.2).abs() < 1e-6 && (weights[1].1 - 0.8).abs() < 1e-6,
            "{weights:?}"
        );
    }

    #[test]
    fn two_threads_of_one_nic_have_one_line() {
        let rail = |nic: &str, port| RailAdvert {
            nic: nic.into(),
            address: ([10, 0, 0, 1], port).into(),
            line: Some(BitRate(40_000_000_000)),
            mtu: Some(1500),
            numa: None,
        };
        let rails = vec![rail("eth0", 1), rail("eth0", 2), rail("eth1", 3), rail("eth1", 4)];
        let advert = NodeAdvert {
            software: String::new(),
            rails,
            cores: 4,
            boot_id: String::new(),
            incarnation: 1,
        };
        let spec =
            Spec::parse("two", "id two\nwriter a:1 pattern:1 0 0-9\nreader b:1 null: 0 0-9\n")
                .expect("a spec");
        let roster = Roster::new(&spec);
        let problem = roster.problem(&[Some(advert), None]);
        let expected = 80e9 / 8.0 * goodput(1500);
        assert!(
            (problem.nodes[0].send_bytes_per_second - expected).abs() < 1.0,
            "{:?}",
            problem.nodes[0]
        );
    }
}
