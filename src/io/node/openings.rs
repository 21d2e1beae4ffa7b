//! Opening the flow of one rail pair: which ways are tried, when, and what is remembered of those
//! that fail.
//!
//! The usual way joins the rail pair's two rails, bound to the NIC here where the peer is in its
//! subnet. A connection over it may never come up: answers come in by another NIC, a filter drops
//! them, a router carries only other pairs of NICs. So the next way is tried while the first is
//! still waited for, and the first that comes up is taken, as RFC 8305 does for the addresses of a
//! name. The decision page on ways and addresses says which ways there are.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use affinity::NicAddress;

use super::flows::pair;
use crate::core::error::{Code, Error};

/// Time that the peer's kernel has to answer a connection. TCP asks at 0, 1 and 3 s.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(4);
/// Delay after which the first other way is tried beside the usual one.
const FIRST_STAGGER: Duration = Duration::from_secs(1);
/// Delay between further ones (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// A flow that came up later than this has cost time that the report tells.
const LATE: Duration = Duration::from_millis(900);
/// Ways that are remembered: some for each of the peers of a node with many NICs.
const DETOURS_MAX: usize = 4096;
/// Addresses that one message names.
const NAMED_MAX: usize = 4;

/// One way to open a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FlowRoute {
    /// The port here that the flow leaves from.
    pub(super) port: usize,
    /// The data address there.
    pub(super) address: SocketAddr,
    /// The socket is bound to the port's NIC.
    pub(super) is_bound: bool,
}

/// A flow that is being opened.
#[derive(Debug)]
pub(super) struct FlowOpening {
    pub(super) weight_bytes: u64,
    pub(super) pace_bytes_per_second: u64,
    usual: FlowRoute,
    untried: VecDeque<FlowRoute>,
    under_way: Vec<FlowRoute>,
    /// The instant at which the next way is tried, although others are still waited for.
    next_at: Option<Instant>,
    began: Instant,
    failed: Vec<(FlowRoute, Error)>,
}

impl FlowOpening {
    /// A flow that is opened by `ways`, the first of which is the usual one; `remembered` is tried
    /// before it.
    pub(super) fn new(
        now: Instant,
        ways: Vec<FlowRoute>,
        remembered: Option<FlowRoute>,
        weight_bytes: u64,
        pace_bytes_per_second: u64,
    ) -> Option<FlowOpening> {
        let usual = *ways.first()?;
        let mut untried = VecDeque::from(ways);
        if let Some(way) = untried
            .iter()
            .position(|way| Some(*way) == remembered)
            .and_then(|at| untried.remove(at))
        {
            untried.push_front(way);
        }
        let (under_way, failed) = (Vec::new(), Vec::new());
        Some(FlowOpening {
            weight_bytes,
            pace_bytes_per_second,
            usual,
            untried,
            under_way,
            next_at: Some(now),
            began: now,
            failed,
        })
    }

    /// The instant at which [`FlowOpening::next`] is due although nothing has failed.
    pub(super) fn due(&self) -> Option<Instant> {
        self.next_at.filter(|_| !self.untried.is_empty())
    }

    /// The next way to try.
    pub(super) fn next(&mut self, now: Instant) -> Option<FlowRoute> {
        let way = self.untried.pop_front()?;
        let is_first = self.under_way.is_empty() && self.failed.is_empty();
        self.next_at = Some(now + if is_first { FIRST_STAGGER } else { STAGGER });
        self.under_way.push(way);
        Some(way)
    }

    /// A way did not come up. True where no other is left or still waited for.
    pub(super) fn fail(&mut self, way: FlowRoute, error: Error) -> bool {
        self.under_way.retain(|other| *other != way);
        self.failed.push((way, error));
        self.under_way.is_empty() && self.untried.is_empty()
    }

    /// Returns true if another way should be tried now: none is waited for any more.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// The outcome of a flow that came up by `way`: late, or by another way than the usual one.
    pub(super) fn came_up(&self, now: Instant, way: FlowRoute) -> FlowOutcome {
        let took = now.saturating_duration_since(self.began);
        FlowOutcome { took: (took >= LATE).then_some(took), is_detour: way != self.usual }
    }

    /// The error of a flow that did not come up, with the addresses that were tried.
    pub(super) fn error(&self, nic_of: impl Fn(usize) -> String) -> Error {
        let Some((way, first)) = self.failed.first() else {
            return Error::new(Code::Unreachable, "its flow could not be opened");
        };
        let at =
            |way: &FlowRoute| format!("its data address {} from {}", way.address, nic_of(way.port));
        let mut error = first.clone().at(at(way));
        let mut named = vec![(way.port, way.address)];
        for (way, other) in &self.failed[1..] {
            if named.len() < NAMED_MAX && !named.contains(&(way.port, way.address)) {
                named.push((way.port, way.address));
                error.message += &format!("; {}: {}", at(way), other.message);
            }
        }
        if error.code == Code::Unreachable {
            error.remedy = Some(DATA_PORTS.into());
        }
        error
    }

    /// The error so far, while it is still being opened: nothing has answered for so long.
    pub(super) fn so_far(&self, now: Instant, nic_of: impl Fn(usize) -> String) -> Option<Error> {
        let waited = now.saturating_duration_since(self.began);
        if waited < LATE {
            return None;
        }
        if !self.failed.is_empty() {
            return Some(self.error(nic_of));
        }
        let FlowRoute { address, port, .. } = self.usual;
        let what = format!(
            "its data address {address} from {}: no connection for {:.1} s",
            nic_of(port),
            waited.as_secs_f64()
        );
        Some(Error::new(Code::Unreachable, what).remedy(DATA_PORTS))
    }

    pub(super) fn usual(&self) -> FlowRoute {
        self.usual
    }
}

const DATA_PORTS: &str = "let TCP connections to the data ports of that node through: free ports \
                          of its kernel, in net.ipv4.ip_local_port_range there";

/// The outcome of a flow that came up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FlowOutcome {
    /// Time that it took, where that is worth telling.
    pub(super) took: Option<Duration>,
    /// Another way than the usual one was taken.
    pub(super) is_detour: bool,
}

/// Ways that came up where the usual ones did not, as long as the node runs and its interfaces stay
/// what they are: by the NIC and the address there of the usual way.
#[derive(Debug, Default)]
pub(super) struct KnownDetours(BTreeMap<(String, IpAddr), RouteDetour>);

/// A way, without the ports that each process chooses anew.
#[derive(Clone, PartialEq, Eq, Debug)]
struct RouteDetour {
    nic: String,
    address: IpAddr,
    is_bound: bool,
}

impl KnownDetours {
    /// Remembers which of `ways` came up in place of the usual one.
    pub(super) fn remember(
        &mut self,
        usual: FlowRoute,
        way: FlowRoute,
        nic_of: impl Fn(usize) -> String,
    ) {
        let key = (nic_of(usual.port), usual.address.ip());
        if way == usual {
            self.0.remove(&key);
        } else if self.0.len() < DETOURS_MAX || self.0.contains_key(&key) {
            let detour = RouteDetour {
                nic: nic_of(way.port),
                address: way.address.ip(),
                is_bound: way.is_bound,
            };
            self.0.insert(key, detour);
        }
    }

    /// The one of `ways` that came up the last time.
    pub(super) fn recall(
        &self,
        ways: &[FlowRoute],
        nic_of: impl Fn(usize) -> String,
    ) -> Option<FlowRoute> {
        let usual = ways.first()?;
        let known = self.0.get(&(nic_of(usual.port), usual.address.ip()))?;
        let is_known = |way: &&FlowRoute| {
            let nic = nic_of(way.port);
            *known == RouteDetour { nic, address: way.address.ip(), is_bound: way.is_bound }
        };
        ways.iter().find(is_known).copied()
    }

    /// The interfaces have changed: what was found out may be wrong.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

/// The ways of rail pair `index`, the usual one first, by the places of `ports`. Over all rail
/// pairs of two nodes, every pair of a NIC here and an address there is among them once.
///
/// The rail pair keeps its rail of the side that has more of them, and goes through those of the
/// other side.
pub(super) fn ways(
    ports: &[NicAddress],
    rails: &[SocketAddr],
    index: usize,
    binds: impl Fn(usize, IpAddr) -> bool,
) -> Vec<FlowRoute> {
    let Some((port, address)) = pair(ports, rails, index) else { return Vec::new() };
    let way = |port: usize, address: SocketAddr| FlowRoute {
        port,
        address,
        is_bound: binds(port, address.ip()),
    };
    let usual = way(port, address);
    let mut ways = vec![usual];
    if usual.is_bound {
        ways.push(FlowRoute { is_bound: false, ..usual });
    }
    let mut others: Vec<FlowRoute> = Vec::new();
    if ports.len() >= rails.len() {
        let at = rails.iter().position(|rail| *rail == address).unwrap_or(0);
        let round = (1..rails.len()).map(|step| rails[(at + step) % rails.len()]);
        others.extend(round.map(|rail| way(port, rail)));
    } else {
        let round = (1..ports.len()).map(|step| (port + step) % ports.len());
        others.extend(round.map(|other| way(other, address)));
    }
    for other in others {
        // Threads of one NIC are no other way.
        let is_same = |known: &FlowRoute| {
            ports[known.port].ip == ports[other.port].ip && known.address.ip() == other.address.ip()
        };
        if !ways.iter().any(is_same) {
            ways.push(other);
        }
    }
    ways
}

/// The history of the flows of one rail pair, for the report.
#[derive(Debug)]
pub(super) struct RailPairHistory {
    nic: String,
    address: SocketAddr,
    has_brought: bool,
    /// Flows that stood, owed an answer, and were given up.
    silent_flows: u32,
    /// The reason why the last flow did not come up, or brought nothing.
    trouble: Option<String>,
    /// The instant at which the flow that stands was asked for something first.
    asked: Option<Instant>,
    /// A flow that came up late: the time that it took, and the way that it took at last.
    late: Option<(Duration, String)>,
}

impl RailPairHistory {
    pub(super) fn new(nic: String, address: SocketAddr) -> RailPairHistory {
        RailPairHistory {
            nic,
            address,
            has_brought: false,
            silent_flows: 0,
            trouble: None,
            asked: None,
            late: None,
        }
    }

    pub(super) fn asked(&mut self, now: Instant) {
        self.asked.get_or_insert(now);
    }

    pub(super) fn brought(&mut self) {
        (self.has_brought, self.silent_flows, self.trouble) = (true, 0, None);
    }

    pub(super) fn nic(&self) -> &str {
        &self.nic
    }

    pub(super) fn silent_flows(&self) -> u32 {
        self.silent_flows
    }

    pub(super) fn has_brought(&self) -> bool {
        self.has_brought
    }

    /// A flow did not come up, or ended.
    pub(super) fn failed(&mut self, error: &Error) {
        self.silent_flows += u32::from(error.code == Code::Stalled && !self.has_brought);
        self.asked = None;
        if error.code != Code::Cancelled && !self.has_brought {
            self.trouble = Some(error.to_string());
        }
    }

    pub(super) fn came_up(&mut self, took: Duration, how: String) {
        self.late.get_or_insert((took, how));
    }

    /// The warning of the report, with the peer's name. `opening` is what is known of a flow that
    /// is still being opened; `others_brought` is true if another rail pair of the NIC to the peer
    /// brought something.
    pub(super) fn warning(
        &self,
        now: Instant,
        peer: &str,
        opening: Option<Error>,
        others_brought: bool,
    ) -> Option<String> {
        let RailPairHistory { nic, address, .. } = self;
        if self.has_brought || others_brought {
            let (took, how) = self.late.as_ref()?;
            let seconds = took.as_secs_f64();
            return Some(format!(
                "{nic} lost {seconds:.1} s before its flow to {address} of {peer} stood: {how}"
            ));
        }
        let waited = self
            .asked
            .map(|asked| now.saturating_duration_since(asked))
            .filter(|waited| *waited >= LATE);
        let silent = waited.map(|waited| {
            format!("nothing came for {:.1} s of what it was asked for", waited.as_secs_f64())
        });
        let why =
            opening.map(|error| error.to_string()).or(silent).or_else(|| self.trouble.clone())?;
        Some(format!("{nic} carried nothing from {peer}: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(hosts: &[[u8; 4]]) -> Vec<NicAddress> {
        hosts.iter().map(|host| NicAddress { ip: (*host).into(), prefix_bits: 24 }).collect()
    }

    fn rails(hosts: &[[u8; 4]]) -> Vec<SocketAddr> {
        let port = |(at, host): (usize, &[u8; 4])| {
            SocketAddr::from((*host, 1000 + u16::try_from(at).expect("few")))
        };
        hosts.iter().enumerate().map(port).collect()
    }

    /// The ways of each rail pair: the port, the last two numbers of the address, and whether it is
    /// bound.
    fn all(ports: &[[u8; 4]], there: &[[u8; 4]]) -> Vec<Vec<(usize, [u8; 2], bool)>> {
        let (own, rails) = (own(ports), rails(there));
        let binds = |port: usize, peer: IpAddr| own[port].reaches(peer);
        let short = |way: &FlowRoute| match way.address.ip() {
            IpAddr::V4(ip) => (way.port, [ip.octets()[2], ip.octets()[3]], way.is_bound),
            IpAddr::V6(_) => panic!("only IPv4 here"),
        };
        let rail_pairs = 0..ports.len().max(there.len());
        rail_pairs
            .map(|rail_pair| ways(&own, &rails, rail_pair, binds).iter().map(short).collect())
            .collect()
    }

    #[test]
    fn the_usual_way_is_first_then_the_same_unbound_then_other_pairs() {
        let rail_pairs = all(&[[10, 0, 0, 2], [10, 0, 1, 2]], &[[10, 0, 0, 1], [10, 0, 1, 1]]);
        assert_eq!(rail_pairs[0], [(0, [0, 1], true), (0, [0, 1], false), (0, [1, 1], false)]);
        assert_eq!(rail_pairs[1], [(1, [1, 1], true), (1, [1, 1], false), (1, [0, 1], false)]);
        let routed = all(&[[10, 0, 0, 2], [10, 0, 1, 2]], &[[10, 0, 8, 1], [10, 0, 9, 1]]);
        assert_eq!(
            routed[0],
            [(0, [8, 1], false), (0, [9, 1], false)],
            "nothing is bound behind a router"
        );
    }

    #[test]
    fn the_lanes_of_two_nodes_have_every_pair_of_nics_once() {
        for (here, there) in [(1, 1), (1, 3), (3, 1), (2, 2), (3, 5), (16, 16)] {
            let hosts =
                |net: u8, count: u8| (0..count).map(|nic| [10, net, nic, 1]).collect::<Vec<_>>();
            let rail_pairs = all(&hosts(1, here), &hosts(2, there));
            let mut pairs: Vec<(usize, [u8; 2])> =
                rail_pairs.iter().flatten().map(|way| (way.0, way.1)).collect();
            pairs.sort_unstable();
            pairs.dedup();
            assert_eq!(
                pairs.len(),
                usize::from(here) * usize::from(there),
                "{here} and {there} NICs"
            );
            assert_eq!(rail_pairs.iter().map(Vec::len).sum::<usize>(), pairs.len(), "none twice");
        }
        let threads = all(&[[10, 0, 0, 2]; 4], &[[10, 0, 0, 1]; 4]);
        assert!(
            threads.iter().all(|ways| ways.len() == 2),
            "threads of a NIC are no other way: {threads:?}"
        );
    }

    fn opening(now: Instant, remembered: Option<FlowRoute>) -> (FlowOpening, Vec<FlowRoute>) {
        let ports = own(&[[10, 0, 0, 2], [10, 0, 1, 2]]);
        let rails = rails(&[[10, 0, 0, 1], [10, 0, 1, 1]]);
        let ways = ways(&ports, &rails, 1, |port, peer| ports[port].reaches(peer));
        (FlowOpening::new(now, ways.clone(), remembered, 1, 0).expect("there are ways"), ways)
    }

    fn nic_of(port: usize) -> String {
        format!("eth{port}")
    }

    #[test]
    fn other_ways_are_tried_beside_one_that_is_not_answered() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let (mut opening, ways) = opening(start, None);
        assert_eq!((opening.due(), opening.next(start)), (Some(start), Some(ways[0])));
        assert_eq!((opening.due(), opening.next(at(1000))), (Some(at(1000)), Some(ways[1])));
        assert_eq!((opening.due(), opening.next(at(1250))), (Some(at(1250)), Some(ways[2])));
        assert_eq!((opening.due(), opening.next(at(2000))), (None, None));
        let took = Some(Duration::from_millis(1300));
        assert_eq!(opening.came_up(at(1300), ways[1]), FlowOutcome { took, is_detour: true });
        assert_eq!(opening.came_up(at(10), ways[0]), FlowOutcome { took: None, is_detour: false });
    }

    #[test]
    fn every_address_that_was_tried_is_named_when_all_have_failed() {
        let start = Instant::now();
        let (mut opening, ways) = opening(start, None);
        let mut refused = false;
        for way in &ways {
            assert!(!refused && opening.next(start) == Some(*way));
            refused =
                opening.fail(*way, Error::new(Code::Unreachable, "refused").remedy("look there"));
        }
        assert!(refused);
        let text = opening.error(nic_of).to_string();
        assert!(text.starts_with(
            "its data address 10.0.1.1:1001 from eth1: refused; its data address 10.0.0.1:1000 "
        ));
        assert!(text.contains("data ports") && text.matches("10.0.1.1").count() == 1, "{text}");
    }

    #[test]
    fn what_came_up_is_tried_first_the_next_time_and_forgotten_once_the_usual_way_does() {
        let (mut detours, now) = (KnownDetours::default(), Instant::now());
        let (_, ways) = opening(now, None);
        detours.remember(ways[0], ways[2], nic_of);
        assert_eq!(detours.recall(&ways, nic_of), Some(ways[2]));
        let (mut again, _) = opening(now, detours.recall(&ways, nic_of));
        assert_eq!(
            (again.next(now), again.next(now), again.next(now)),
            (Some(ways[2]), Some(ways[0]), Some(ways[1]))
        );
        assert!(again.came_up(now, ways[2]).is_detour);
        detours.remember(ways[0], ways[0], nic_of);
        assert_eq!(detours.recall(&ways, nic_of), None);
    }

    #[test]
    fn a_lane_that_brought_nothing_says_why_and_one_that_was_late_how_long() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let story = || RailPairHistory::new("eth1".into(), ([10, 0, 1, 1], 1001).into());
        let said = |story: &RailPairHistory, others: bool| {
            story.warning(at(5000), "a:1", None, others).unwrap_or_default()
        };
        assert_eq!(said(&story(), false), "", "it had nothing to do");
        let mut failed = story();
        failed.failed(&Error::new(Code::Cancelled, "everything has landed"));
        assert_eq!(said(&failed, false), "");
        failed.failed(&Error::new(Code::Stalled, "the sender was silent for 10 s"));
        assert_eq!(
            said(&failed, false),
            "eth1 carried nothing from a:1: the sender was silent for 10 s"
        );
        assert_eq!(said(&failed, true), "", "another thread of the NIC carried what there was");
        let mut silent = story();
        silent.asked(at(1500));
        assert!(said(&silent, false).contains("nothing came for 3.5 s of what it was asked for"));
        silent.came_up(Duration::from_millis(1040), "not bound".into());
        silent.brought();
        assert_eq!(
            said(&silent, false),
            "eth1 lost 1.0 s before its flow to 10.0.1.1:1001 of a:1 stood: not bound"
        );
    }
}
