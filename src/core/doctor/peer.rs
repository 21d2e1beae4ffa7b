//! Transfers between this machine and a peer: each pair of rails in each direction, and the NIC
//! that carried it.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use crate::core::receiver::rail_pairs::pair_by;
use crate::core::report::{NodeReport, RailReport, gbit_per_s};
use crate::core::units::{MIB, goodput};

/// A NIC that counted this part of the payload carried it; counters may be read a moment late.
const COUNTED_PART: f64 = 0.98;
/// Bytes that may have been queued in sockets of flows that closed before sending them.
const UNSENT_BYTES_MAX: u64 = 8 * MIB;

/// A peer, and the rails between it and this machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct DoctorPeer {
    /// Its host:port.
    pub(crate) name: String,
    /// Each direction of each pair of rails.
    pub(crate) pairs: Vec<TriedPair>,
    /// Warnings of the nodes about lost time, and about rails without traffic.
    pub(crate) warnings: Vec<String>,
}

impl DoctorPeer {
    /// Returns the receiver's reason why the receiving NIC of a pair carried nothing, if it gave
    /// one.
    pub(crate) fn cause(&self, pair: &TriedPair) -> Option<&str> {
        let receiver = if pair.direction == PairDirection::In { &pair.nic } else { &pair.peer_nic };
        let begin = format!(": {receiver} carried nothing from ");
        let said = self.warnings.iter().find_map(|warning| warning.split_once(&begin))?.1;
        Some(said.split_once(": ").map_or(said, |(_, cause)| cause))
    }
}

/// Direction in which a pair of rails was tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PairDirection {
    /// From this machine to the peer.
    Out,
    /// From the peer to this machine.
    In,
}

/// A local rail and a rail of the peer, in one direction. All pairs of a direction work at the same
/// time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct TriedPair {
    pub(crate) direction: PairDirection,
    /// Local NIC.
    pub(crate) nic: String,
    /// The peer's NIC.
    pub(crate) peer_nic: String,
    /// Payload of the pair.
    pub(crate) bytes: u64,
    pub(crate) gbit_per_s: f64,
    /// Line rate of the slower NIC, if one of them is known.
    pub(crate) line_gbit_per_s: Option<f64>,
    /// Part of it that TCP packets leave to payload.
    pub(crate) goodput_gbit_per_s: Option<f64>,
    /// Local NIC that counted the payload; `None` if the system does not report counters.
    pub(crate) carried_by: Option<String>,
    /// NIC of the peer that counted the payload.
    pub(crate) peer_carried_by: Option<String>,
}

/// Name for a NIC that has no rail.
pub(crate) const ANOTHER: &str = "another";

/// Returns the pairs of one run of `seconds`. `reaches` returns true if a local address and one of
/// the peer are in one subnet.
pub(crate) fn pairs(
    direction: PairDirection,
    (here, there): (&NodeReport, &NodeReport),
    seconds: f64,
    reaches: impl Fn(IpAddr, IpAddr) -> bool,
) -> Vec<TriedPair> {
    let (ours, theirs) = (here.rails.len(), there.rails.len());
    let near = |own: usize, far: usize| match (here.rails[own].address, there.rails[far].address) {
        (Some(own), Some(far)) => reaches(own.ip(), far.ip()),
        _ => false,
    };
    let sends = direction == PairDirection::Out;
    let mut pairs: Vec<TriedPair> = Vec::new();
    for (own, far) in
        (0..ours.max(theirs)).filter_map(|rail_pair| pair_by(ours, theirs, rail_pair, near))
    {
        let (own, far) = (&here.rails[own], &there.rails[far]);
        // The side with more rails has one for each pair.
        let bytes = if ours >= theirs { payload(own, sends) } else { payload(far, !sends) };
        match pairs.iter_mut().find(|pair| pair.nic == own.nic && pair.peer_nic == far.nic) {
            Some(pair) => pair.bytes += bytes,
            None => pairs.push(TriedPair {
                direction,
                nic: own.nic.clone(),
                peer_nic: far.nic.clone(),
                bytes,
                gbit_per_s: 0.0,
                line_gbit_per_s: slower(own.line_gbit_per_s, far.line_gbit_per_s),
                goodput_gbit_per_s: slower(payload_line(own), payload_line(far)),
                carried_by: carrier(&here.rails, &own.nic, sends),
                peer_carried_by: carrier(&there.rails, &far.nic, !sends),
            }),
        }
    }
    pairs.iter_mut().for_each(|pair| pair.gbit_per_s = gbit_per_s(pair.bytes, seconds));
    pairs
}

fn payload(rail: &RailReport, sends: bool) -> u64 {
    if sends { rail.bytes_sent } else { rail.bytes_received }
}

fn payload_line(rail: &RailReport) -> Option<f64> {
    Some(rail.line_gbit_per_s? * goodput(rail.mtu.unwrap_or(1500)))
}

fn slower(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    [a, b].into_iter().flatten().min_by(f64::total_cmp)
}

/// Returns the NIC that carried the payload of the rails of `nic`: itself, or one that counted
/// about that much more than its own.
fn carrier(rails: &[RailReport], nic: &str, sends: bool) -> Option<String> {
    // All rails of one NIC report the counters of the NIC.
    let sums = |nic: &str| {
        let of_nic = rails.iter().filter(|rail| rail.nic == nic);
        let counted = of_nic
            .clone()
            .filter_map(|rail| rail.counted)
            .map(|it| if sends { it.0 } else { it.1 })
            .max()?;
        Some((of_nic.map(|rail| payload(rail, sends)).sum::<u64>(), counted))
    };
    let (moved, counted) = sums(nic)?;
    let missing = moved.saturating_sub(counted);
    if counted as f64 >= moved as f64 * COUNTED_PART || missing <= UNSENT_BYTES_MAX {
        return Some(nic.into());
    }
    let has_more = |other: &&RailReport| {
        other.nic != nic
            && sums(&other.nic)
                .is_some_and(|(moved, counted)| counted.saturating_sub(moved) >= missing / 2)
    };
    Some(rails.iter().find(has_more).map_or(ANOTHER, |other| &other.nic).into())
}

impl fmt::Display for TriedPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = if self.direction == PairDirection::Out { "→" } else { "←" };
        write!(f, "{} {arrow} peer's {}", self.nic, self.peer_nic)
    }
}

#[cfg(test)]
#[path = "peer_tests.rs"]
mod tests;
