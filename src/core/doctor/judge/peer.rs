//! Findings about a peer: rails that carried nothing, that other NICs carried, or that were slow.

use crate::core::doctor::diagnosis::{DoctorFinding, FindingLevel, finding};
use crate::core::doctor::peer::{ANOTHER, DoctorPeer, PairDirection, TriedPair};
use crate::core::units::BitRate;

/// Part of the fastest pair's payload below which a pair carried nothing: a block or two of tests.
const NOTHING_PART: f64 = 0.02;
/// Part of its goodput that a pair should reach: a run of a second includes slow start.
const GOODPUT_PART: f64 = 0.8;
/// Part of the fastest pair's rate that a pair should reach, if its line is no slower.
const FELLOW_PART: f64 = 0.5;

pub(crate) fn judge(peer: &DoctorPeer) -> Vec<DoctorFinding> {
    let is_new = |warning: &&String| {
        !warning.contains(" carried nothing from ") && !warning.contains(" itself counted ")
    };
    let said = peer.warnings.iter().filter(is_new);
    let said = said.map(|warning| {
        let remedy = "as it says; `cep-fast doctor` on each machine names NICs that answer for \
                      each other";
        finding(FindingLevel::Note, &peer.name, warning.clone())
            .costs("time before bytes move")
            .mended_by(remedy)
    });
    peer.pairs.iter().map(|pair| one(peer, pair)).chain(said).collect()
}

fn one(peer: &DoctorPeer, pair: &TriedPair) -> DoctorFinding {
    let fellows = peer.pairs.iter().filter(|other| other.direction == pair.direction);
    let fastest = fellows
        .max_by(|a, b| a.gbit_per_s.total_cmp(&b.gbit_per_s))
        .expect("the pair is one of them");
    let rate = BitRate((pair.gbit_per_s * 1e9) as u64);
    let found = |level, text: String| finding(level, &pair.to_string(), text);
    if pair.bytes == 0 || pair.gbit_per_s < NOTHING_PART * fastest.gbit_per_s {
        let cause = peer.cause(pair).map_or(String::new(), |cause| format!(": {cause}"));
        return found(
            FindingLevel::Shortfall,
            format!("it carried nothing, while {fastest} carried {}{cause}", fastest_rate(fastest)),
        )
        .costs("its whole line rate")
        .mended_by(format!(
            "ping -I {} ADDRESS-OF-{}; look for a firewall, a missing route, a dead cable or \
             switch port",
            pair.nic, pair.peer_nic
        ));
    }
    if let Some(misled) = misled(pair) {
        return misled;
    }
    let of_goodput = pair.goodput_gbit_per_s.map(|goodput| pair.gbit_per_s / goodput);
    if of_goodput.is_some_and(|part| part < GOODPUT_PART) {
        let line = BitRate((pair.line_gbit_per_s.unwrap_or_default() * 1e9) as u64);
        return slow(
            found(FindingLevel::Shortfall, format!("{rate} of a line of {line}")),
            peer,
            pair,
        );
    }
    let is_slower = |line: f64| fastest.line_gbit_per_s.is_some_and(|other| line < other);
    if pair.gbit_per_s < FELLOW_PART * fastest.gbit_per_s
        && !pair.line_gbit_per_s.is_some_and(is_slower)
    {
        return slow(
            found(
                FindingLevel::Shortfall,
                format!("{rate}, where {fastest} has {}", fastest_rate(fastest)),
            ),
            peer,
            pair,
        );
    }
    let of_goodput = of_goodput.map_or_else(
        || "its line rate is not known".into(),
        |part| format!("{:.0} % of what packets leave of its line", part * 100.0),
    );
    found(FindingLevel::Ok, format!("{rate}; {of_goodput}"))
}

fn fastest_rate(pair: &TriedPair) -> BitRate {
    BitRate((pair.gbit_per_s * 1e9) as u64)
}

fn slow(found: DoctorFinding, peer: &DoctorPeer, pair: &TriedPair) -> DoctorFinding {
    let sender = if pair.direction == PairDirection::Out { "here" } else { "at the peer" };
    found.costs("transfers give it as little, and the rest goes to other NICs").mended_by(format!(
        "`ethtool {}` here and `ethtool {}` there for the speed agreed on; `nstat TcpRetransSegs` \
         {sender} for losses; `cep-fast doctor` on {} for its part",
        pair.nic, pair.peer_nic, peer.name
    ))
}

/// Detects payload that another NIC counted, on this machine or the peer.
fn misled(pair: &TriedPair) -> Option<DoctorFinding> {
    let sides = [
        ("here", &pair.nic, &pair.carried_by),
        ("at the peer", &pair.peer_nic, &pair.peer_carried_by),
    ];
    let (place, nic, by) = sides
        .into_iter()
        .find_map(|(place, nic, by)| Some((place, nic, by.as_ref().filter(|by| *by != nic)?)))?;
    let by = if by == ANOTHER { "none of the NICs in use" } else { by };
    let sends = (pair.direction == PairDirection::Out) == (place == "here");
    let remedy = if sends {
        "look at `ip rule` and `ip route get PEER from ADDRESS` there; a peer on the same machine \
         is reached over lo"
    } else {
        "sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2 there, where \
         two NICs are in one subnet; look at the routes of the other side"
    };
    let found = finding(
        FindingLevel::Shortfall,
        &pair.to_string(),
        format!("{place}, {by} carried what {nic} should have"),
    );
    Some(found.costs("two rails share one line").mended_by(remedy))
}
