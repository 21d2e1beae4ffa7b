//! Ways to open the flow of a rail pair: which there are, and which of them came up before.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use affinity::NicAddress;

use crate::core::receiver::rail_pairs::pair_by;

/// Ways that are remembered: some for each of the peers of a node with many NICs.
const DETOURS_MAX: usize = 4096;

/// One way to open a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FlowRoute {
    /// The port here that the flow leaves from.
    pub(super) port: usize,
    /// The data address there, and the rail behind it: the place among those that the plan tells.
    pub(super) address: SocketAddr,
    pub(super) rail: usize,
    /// The socket is bound to the port's NIC.
    pub(super) is_bound: bool,
    /// The address is one of this machine, from which the launcher leads to the peer.
    pub(super) is_channel: bool,
}

/// Ways that came up where the usual ones did not, as long as the node runs and its interfaces stay
/// what they are: by the NIC and the address there of the usual way.
#[derive(Debug, Default)]
pub(super) struct KnownDetours(BTreeMap<(String, IpAddr), RouteDetour>);

/// A way, without the ports that each process chooses anew.
#[derive(Clone, PartialEq, Eq, Debug)]
enum RouteDetour {
    /// From a NIC to an address.
    Dialled { nic: String, address: IpAddr, is_bound: bool },
    /// Through the launcher.
    Channel,
    /// The other side dialled.
    Called,
}

/// A way to begin with, because it came up the last time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KnownRoute {
    Dialled(FlowRoute),
    /// The other side dials.
    Called,
}

impl KnownDetours {
    /// Remembers which way came up in place of the usual one; none is a call.
    pub(super) fn remember(
        &mut self,
        usual: FlowRoute,
        way: Option<FlowRoute>,
        nic_of: impl Fn(usize) -> String,
    ) {
        let key = (nic_of(usual.port), usual.address.ip());
        if way == Some(usual) {
            self.0.remove(&key);
        } else if self.0.len() < DETOURS_MAX || self.0.contains_key(&key) {
            self.0.insert(key, RouteDetour::of(way, nic_of));
        }
    }

    /// The one of `ways` that came up the last time, in place of `usual`.
    pub(super) fn recall(
        &self,
        usual: FlowRoute,
        ways: &[FlowRoute],
        nic_of: impl Fn(usize) -> String,
    ) -> Option<KnownRoute> {
        let known = self.0.get(&(nic_of(usual.port), usual.address.ip()))?;
        if *known == RouteDetour::Called {
            return Some(KnownRoute::Called);
        }
        let is_known = |way: &&FlowRoute| *known == RouteDetour::of(Some(**way), &nic_of);
        ways.iter().find(is_known).copied().map(KnownRoute::Dialled)
    }

    /// The interfaces have changed: what was found out may be wrong.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

impl RouteDetour {
    fn of(way: Option<FlowRoute>, nic_of: impl Fn(usize) -> String) -> RouteDetour {
        match way {
            None => RouteDetour::Called,
            Some(way) if way.is_channel => RouteDetour::Channel,
            Some(way) => RouteDetour::Dialled {
                nic: nic_of(way.port),
                address: way.address.ip(),
                is_bound: way.is_bound,
            },
        }
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
    let Some((port, rail)) = pair(ports, rails, index) else { return Vec::new() };
    let way = |port: usize, rail: usize| {
        let address = rails[rail];
        let is_bound = binds(port, address.ip());
        FlowRoute { port, address, rail, is_bound, is_channel: false }
    };
    let usual = way(port, rail);
    let mut ways = vec![usual];
    if usual.is_bound {
        ways.push(FlowRoute { is_bound: false, ..usual });
    }
    let mut others: Vec<FlowRoute> = Vec::new();
    if ports.len() >= rails.len() {
        let round = (1..rails.len()).map(|step| (rail + step) % rails.len());
        others.extend(round.map(|rail| way(port, rail)));
    } else {
        let round = (1..ports.len()).map(|step| (port + step) % ports.len());
        others.extend(round.map(|other| way(other, rail)));
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

/// The ways from a port to a rail that calls, and to the other addresses of that node.
pub(super) fn ways_to(
    port: usize,
    rails: &[SocketAddr],
    rail: usize,
    binds: impl Fn(IpAddr) -> bool,
) -> Vec<FlowRoute> {
    if rails.is_empty() {
        return Vec::new();
    }
    let way = |rail: usize| {
        let address = rails[rail];
        FlowRoute { port, address, rail, is_bound: binds(address.ip()), is_channel: false }
    };
    let usual = way(rail % rails.len());
    let mut ways = vec![usual];
    if usual.is_bound {
        ways.push(FlowRoute { is_bound: false, ..usual });
    }
    for step in 1..rails.len() {
        let other = way((rail + step) % rails.len());
        if ways.iter().all(|known| known.address.ip() != other.address.ip()) {
            ways.push(other);
        }
    }
    ways
}

/// The port here and the rail there that make up rail pair `index`: rails of one subnet where there
/// are such, else those of one index, so that a router between them may carry it.
///
/// The threads of a NIC are rails of one subnet, so that they spread over the threads of the NIC at
/// the other end.
fn pair(ports: &[NicAddress], rails: &[SocketAddr], index: usize) -> Option<(usize, usize)> {
    pair_by(ports.len(), rails.len(), index, |port, rail| ports[port].reaches(rails[rail].ip()))
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

    fn nic_of(port: usize) -> String {
        format!("eth{port}")
    }

    #[test]
    fn what_came_up_is_recalled_and_forgotten_once_the_usual_way_does() {
        let mut detours = KnownDetours::default();
        let ports = own(&[[10, 0, 0, 2], [10, 0, 1, 2]]);
        let rails = rails(&[[10, 0, 0, 1], [10, 0, 1, 1]]);
        let ways = ways(&ports, &rails, 1, |port, peer| ports[port].reaches(peer));
        detours.remember(ways[0], Some(ways[2]), nic_of);
        let recalled = detours.recall(ways[0], &ways, nic_of);
        assert_eq!(recalled, Some(KnownRoute::Dialled(ways[2])));
        detours.remember(ways[0], None, nic_of);
        assert_eq!(detours.recall(ways[0], &ways, nic_of), Some(KnownRoute::Called));
        detours.remember(ways[0], Some(ways[0]), nic_of);
        assert_eq!(detours.recall(ways[0], &ways, nic_of), None);
    }

    /// A NIC with `threads` threads in subnet 10.0.`subnet`.0/24.
    fn threads_of(nics: &[(u8, u8, usize)]) -> Vec<NicAddress> {
        let own = |&(subnet, host, threads): &(u8, u8, usize)| {
            vec![NicAddress { ip: [10, 0, subnet, host].into(), prefix_bits: 24 }; threads]
        };
        nics.iter().flat_map(own).collect()
    }

    /// The same as others see it: one address, a port of its own for each thread.
    fn rails_of(nics: &[(u8, u8, usize)]) -> Vec<SocketAddr> {
        let port = |(at, own): (usize, NicAddress)| {
            SocketAddr::new(own.ip, 1000 + u16::try_from(at).expect("few"))
        };
        threads_of(nics).into_iter().enumerate().map(port).collect()
    }

    /// The pairs that the rail pairs of `here` and `there` make up: rails by index.
    fn pairs(here: &[(u8, u8, usize)], there: &[(u8, u8, usize)]) -> Vec<(usize, usize)> {
        let (own, rails) = (threads_of(here), rails_of(there));
        let rail_pair = |index| pair(&own, &rails, index).expect("there are rails");
        (0..own.len().max(rails.len())).map(rail_pair).collect()
    }

    #[test]
    fn threads_of_one_nic_pair_with_threads_of_one_nic() {
        let nic = |host, threads| [(0, host, threads)];
        assert_eq!(pairs(&nic(1, 1), &nic(2, 1)), [(0, 0)]);
        assert_eq!(pairs(&nic(1, 1), &nic(2, 2)), [(0, 0), (0, 1)]);
        assert_eq!(pairs(&nic(1, 2), &nic(2, 1)), [(0, 0), (1, 0)]);
        assert_eq!(pairs(&nic(1, 2), &nic(2, 2)), [(0, 0), (1, 1)]);
        assert_eq!(pairs(&nic(1, 2), &nic(2, 3)), [(0, 0), (1, 1), (0, 2)]);
    }

    #[test]
    fn threads_of_several_nics_stay_within_their_subnets() {
        let node = |host, a, b| [(0, host, a), (1, host, b)];
        assert_eq!(pairs(&node(1, 2, 2), &node(2, 2, 2)), [(0, 0), (1, 1), (2, 2), (3, 3)]);
        assert_eq!(pairs(&node(1, 2, 2), &node(2, 1, 1)), [(0, 0), (1, 0), (2, 1), (3, 1)]);
        assert_eq!(pairs(&node(1, 1, 1), &node(2, 2, 2)), [(0, 0), (0, 1), (1, 2), (1, 3)]);
        // A group that does not begin at a multiple of its size pairs crosswise, and still one to
        // one.
        assert_eq!(pairs(&node(1, 1, 2), &node(2, 1, 2)), [(0, 0), (1, 2), (2, 1)]);
        assert_eq!(pairs(&node(1, 3, 1), &node(2, 1, 3)), [(0, 0), (1, 0), (2, 0), (3, 1)]);
        // The other way round in the advert.
        assert_eq!(
            pairs(&[(1, 1, 2), (0, 1, 2)], &node(2, 2, 2)),
            [(0, 2), (1, 3), (2, 0), (3, 1)]
        );
    }

    #[test]
    fn every_nic_is_used_where_subnets_say_nothing() {
        // All NICs in one subnet: the second thread of each finds the other NIC.
        let here = [(0, 1, 2), (0, 2, 2)];
        assert_eq!(pairs(&here, &[(0, 3, 1), (0, 4, 1)]), [(0, 0), (1, 1), (2, 0), (3, 1)]);
        assert_eq!(pairs(&here, &[(0, 3, 2), (0, 4, 2)]), [(0, 0), (1, 1), (2, 2), (3, 3)]);
        // A router between all of them.
        assert_eq!(pairs(&here, &[(8, 3, 2), (9, 4, 2)]), [(0, 0), (1, 1), (2, 2), (3, 3)]);
        assert_eq!(pairs(&here, &[(8, 3, 1)]), [(0, 0), (1, 0), (2, 0), (3, 0)]);
    }

    #[test]
    fn nobody_to_pair_with() {
        assert_eq!(pair(&[], &rails_of(&[(0, 1, 1)]), 0), None);
        assert_eq!(pair(&threads_of(&[(0, 1, 1)]), &[], 0), None);
    }
}
