//! The plan's part for each flow: its weight, its number of rail pairs, and its speed.

use std::collections::BTreeMap;

use crate::core::receiver::scheduler::SegmentSenders;
use crate::core::units::NodeIx;
use crate::core::wire::control::PeerNode;

/// Factor by which a paced flow may be faster than planned, so that it can make up for a delay.
/// Measured with 16 receivers that feed each other: 1.1 and 1.25 of the plan's pace keep all in
/// step; with 1.5, TCP shares the sender's link so unevenly that all wait for the slowest.
const RELAY_PACE_HEADROOM: f64 = 1.25;
/// No flow is paced so low that a header or a request for work that it takes over would crawl.
const PACE_BYTES_PER_SECOND_MIN: f64 = 65536.0;

/// Speed that a flow to a sender needs for the plan of receivers that feed each other to come out,
/// and some more; 0 where it is not paced. They wait for each other's parts, so nobody may take
/// much more than its own. `planned` has the bytes from each sender.
pub(super) fn pace(
    planned: &[(NodeIx, u64)],
    sender: NodeIx,
    bound_us: u64,
    limit_bytes_per_second: u64,
) -> u64 {
    let own = weight(planned, sender) as f64;
    let all: f64 = planned.iter().map(|&(_, bytes)| bytes as f64).sum();
    let by_plan = if bound_us > 0 { own * 1e6 / bound_us as f64 } else { f64::INFINITY };
    let limit = limit_bytes_per_second as f64;
    let by_limit = if limit > 0.0 { limit * own / all } else { f64::INFINITY };
    // Every rail pair may carry all of it: NICs may be uneven.
    let bytes_per_second = by_plan.min(by_limit) * RELAY_PACE_HEADROOM;
    // A sender that only stands in has no part of its own.
    if own == 0.0 || !bytes_per_second.is_finite() {
        return 0;
    }
    bytes_per_second.max(PACE_BYTES_PER_SECOND_MIN) as u64
}

/// Rail k pairs with one rail of the peer, so that every rail of both sides is in a pair, and not
/// all with all.
pub(super) fn rail_pairs(rails: u32, peer: &PeerNode) -> u32 {
    rails.max(u32::try_from(peer.rails.len()).unwrap_or(u32::MAX))
}

pub(super) fn weight(planned: &[(NodeIx, u64)], sender: NodeIx) -> u64 {
    planned.iter().find(|(node, _)| *node == sender).map_or(1, |(_, bytes)| *bytes)
}

/// Bytes that a plan wants from each sender.
pub(super) fn planned_bytes(sources: &[SegmentSenders]) -> Vec<(NodeIx, u64)> {
    let mut planned = BTreeMap::new();
    for source in sources {
        let sum: u64 = source.senders.iter().map(|&(_, weight)| u64::from(weight)).sum();
        for &(sender, weight) in &source.senders {
            let bytes =
                u128::from(source.span.bytes()) * u128::from(weight) / u128::from(sum.max(1));
            *planned.entry(sender).or_insert(0) += u64::try_from(bytes).expect("a part of 64 bits");
        }
    }
    planned.into_iter().collect()
}
