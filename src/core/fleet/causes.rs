//! Causes for which a node is named, with their remedies.

use super::measure::{FleetNic, FleetNode, LoadShares};
use super::spread::{RobustCentre, median};
use super::verdict::{FleetCause, NicVerdict, RateBasis};
use crate::core::units::BitRate;

/// Part of the time in which threads want a processor and have none that harms.
const WAIT_MIN: f64 = 0.25;
/// Times that it makes everything slower than at the other nodes, so that it is this node's matter.
const SLOWED_ABOVE: f64 = 2.5;
/// The same in deviations of the fleet.
const SLOWED_SIGMAS: f64 = 5.0;
/// Part of the time that explains a low rate.
const WAIT_EXPLAINS: f64 = 0.1;
/// Times that it makes everything slower than at the other nodes, so that it explains a low rate.
const SLOWED_EXPLAINS: f64 = 1.5;
/// Part of its CPUs that makes others the cause, if it is more than on the other nodes.
const OTHERS_MIN: f64 = 0.25;
/// Part more than on the other nodes.
const OTHERS_ABOVE: f64 = 0.15;
/// Part of its CPUs that makes others the cause in any case.
const OTHERS_MOST: f64 = 0.75;
/// Part of its CPUs that makes a hypervisor the cause.
const STOLEN_MIN: f64 = 0.1;
/// Part of its threads that are never idle: more is not to be had of them.
const BOUND_PART: f64 = 0.9;
/// Part of the segments sent again that costs rate.
const RESENT_MIN: f64 = 0.01;
/// Times the others' part that makes it this node's matter.
const RESENT_ABOVE: f64 = 4.0;
/// Part of the line rate of the others below which a link has negotiated less.
const LINK_PART: f64 = 0.9;

/// A NIC that is below what is expected of it.
pub(super) struct SlowNic<'a> {
    pub(super) nic: &'a FleetNic,
    pub(super) verdict: &'a NicVerdict,
    /// The other NICs of its class.
    pub(super) peers: Vec<&'a FleetNic>,
    /// Line rate of its class, in Gbit/s.
    pub(super) class_line: Option<f64>,
}

/// What is usual in a fleet.
pub(super) struct FleetNorms {
    /// Logarithm of how many times slower waiting makes the threads of a node.
    slowed: Option<RobustCentre>,
    /// Medians.
    others: f64,
    resent: f64,
    cpus: Option<f64>,
}

impl FleetNorms {
    pub(super) fn of(nodes: &[FleetNode]) -> FleetNorms {
        let shares =
            |of: fn(&LoadShares) -> f64| nodes.iter().filter_map(move |node| node.share(of));
        FleetNorms {
            slowed: RobustCentre::of(shares(|load| load.wait).map(slowed)),
            others: median(shares(|load| load.others)).unwrap_or(0.0),
            resent: median(shares(|load| load.resent)).unwrap_or(0.0),
            cpus: median(nodes.iter().filter_map(|node| node.cpus).map(|cpus| cpus as f64)),
        }
    }

    /// Returns true if a node waits for processors far longer than the others.
    fn is_far(&self, wait: f64) -> bool {
        let norm = self.slowed.unwrap_or(RobustCentre { median: 0.0, sigma: 0.0 });
        let above = SLOWED_ABOVE.ln().max(SLOWED_SIGMAS * norm.sigma);
        wait >= WAIT_MIN && slowed(wait) >= norm.median + above
    }

    /// Returns true if a node that is slow waits long enough for that to be why.
    fn explains(&self, wait: f64) -> bool {
        let norm = self.slowed.map_or(0.0, |norm| norm.median);
        wait >= WAIT_EXPLAINS && slowed(wait) >= norm + SLOWED_EXPLAINS.ln()
    }
}

/// Returns the logarithm of how many times slower a part of waiting makes threads.
fn slowed(wait: f64) -> f64 {
    -(1.0 - wait.clamp(0.0, 0.999_999)).ln()
}

/// Returns the causes for which a node is named; none for one that is as good as the rest.
pub(super) fn causes(
    node: &FleetNode,
    norms: &FleetNorms,
    slow: &[SlowNic<'_>],
) -> Vec<FleetCause> {
    let mut causes: Vec<FleetCause> =
        processor(node, norms, !slow.is_empty()).into_iter().collect();
    let of_node = of_node(node, norms);
    causes.extend(slow.iter().map(|slow| of_nic(slow, &of_node)));
    causes
}

/// Returns the cause if processors are what a node lacks.
fn processor(node: &FleetNode, norms: &FleetNorms, is_slow: bool) -> Option<FleetCause> {
    let share = |of: fn(&LoadShares) -> f64| node.share(of).unwrap_or(0.0);
    let (wait, others, stolen) =
        (share(|load| load.wait), share(|load| load.others), share(|load| load.stolen));
    let lacks = norms.is_far(wait) || (is_slow && norms.explains(wait));
    if !lacks {
        return is_slow.then(|| own_bound(node)).flatten();
    }
    let of_cpus = match node.cpus {
        Some(1) => "its CPU".to_owned(),
        Some(count) => format!("its {count} CPUs"),
        None => "its CPUs".to_owned(),
    };
    let waited =
        format!("its threads waited for a CPU in {} of the time they wanted one", percent(wait));
    let (cause, remedy) = if stolen >= STOLEN_MIN && stolen >= others {
        (
            format!("CPU busy: the hypervisor takes {} of {of_cpus}; {waited}", percent(stolen)),
            "give the virtual machine CPUs of its own".to_owned(),
        )
    } else if others >= OTHERS_MIN.max(norms.others + OTHERS_ABOVE).min(OTHERS_MOST) {
        (
            format!("CPU busy: others take {} of {of_cpus}; {waited}", percent(others)),
            "look with `top` who runs there, end it, or give the node CPUs of its own".to_owned(),
        )
    } else {
        (
            format!("CPU limited: {waited}, and others take {} of {of_cpus}", percent(others)),
            "look at cpu.max of its control group, and give it more".to_owned(),
        )
    };
    Some(FleetCause { cause, remedy })
}

/// Returns the cause if a node's own threads are never idle.
fn own_bound(node: &FleetNode) -> Option<FleetCause> {
    let threads: usize = node.nics.iter().map(|nic| nic.threads).sum();
    let cpus = node.cpus.map_or(threads as f64, |cpus| (cpus as f64).min(threads as f64));
    let cores = node.share(|load| load.cores)?;
    (cpus > 0.0 && cores >= BOUND_PART * cpus).then(|| FleetCause {
        cause: format!("CPU bound: its threads keep {cores:.1} CPUs busy, of {cpus:.0}"),
        remedy: "give it more CPUs, or --threads-per-nic; `cep-fast doctor` there lists the rest"
            .into(),
    })
}

/// Returns what may slow down each NIC of a node, with a remedy.
fn of_node(node: &FleetNode, norms: &FleetNorms) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let resent = node.share(|load| load.resent).unwrap_or(0.0);
    if resent >= RESENT_MIN && resent >= RESENT_ABOVE * norms.resent {
        found.push((
            format!("{} of its TCP segments were sent again", percent(resent)),
            "look for errors on its cables and switch ports".to_owned(),
        ));
    }
    if let (Some(own), Some(rest)) = (node.cpus, norms.cpus)
        && 2.0 * own as f64 <= rest
        && own < node.nics.len() as u64
    {
        found.push((
            format!("it may use {own} CPUs, others {rest:.0}"),
            "give it as many CPUs as NICs".to_owned(),
        ));
    }
    found
}

/// Returns the cause of a slow NIC.
fn of_nic(slow: &SlowNic<'_>, of_node: &[(String, String)]) -> FleetCause {
    let SlowNic { nic, verdict, .. } = slow;
    let mut cause = format!(
        "{} sends {} and receives {}",
        nic.name,
        rate(verdict.sent),
        rate(verdict.received)
    );
    if let Some(expected) = verdict.expected {
        let basis = match expected.basis {
            RateBasis::Declared => "the line rate declared",
            RateBasis::Line => "the line rate of its peers",
            RateBasis::Peers => "the median of its peers",
        };
        let rates = match (rate(expected.sent), rate(expected.received)) {
            (sent, received) if sent == received => sent,
            (sent, received) => format!("{sent} and {received}"),
        };
        cause += &format!("; expected {rates}, {basis}");
    }
    let own = own_findings(slow);
    let found: Vec<&(String, String)> = own.iter().chain(of_node).collect();
    for (what, _) in &found {
        cause += &format!("; {what}");
    }
    let remedy = found.first().map_or_else(
        || {
            format!(
                "look at its cable, its switch port and limits on it: `ethtool {0}`, `ethtool -S \
                 {0}`, `tc qdisc show dev {0}`",
                nic.name
            )
        },
        |(_, remedy)| remedy.clone(),
    );
    FleetCause { cause, remedy }
}

/// Returns the cause of a NIC that a node does not use, and `having` of `count` nodes do.
pub(super) fn of_missing(nic: &str, having: usize, count: usize) -> FleetCause {
    FleetCause {
        cause: format!("{nic} is missing: {having} of {count} nodes use one of that name"),
        remedy: format!(
            "`ip address show {nic}` there: it has to be up and have an address; look at its \
             cable, or for the NIC itself (`lspci`)"
        ),
    }
}

/// Returns what differs between a NIC and its peers.
fn own_findings(slow: &SlowNic<'_>) -> Vec<(String, String)> {
    let SlowNic { nic, peers, class_line, .. } = slow;
    let name = &nic.name;
    let mut found = Vec::new();
    if slow.verdict.sent.max(slow.verdict.received) <= 0.0 {
        found.push((
            "it carries nothing".to_owned(),
            "look at its cable and switch port, and for a firewall or a missing route between it \
             and its peers"
                .to_owned(),
        ));
    }
    if let (Some(own), Some(line)) = (nic.line_gbit_per_s, class_line)
        && own < LINK_PART * line
    {
        found.push((
            format!("its link is at {}, those of its peers at {}", rate(own), rate(*line)),
            format!("`ethtool {name}`: look at cable, transceiver and switch port"),
        ));
    }
    let mtu = median(peers.iter().filter_map(|peer| peer.mtu).map(f64::from));
    if let (Some(own), Some(of_peers)) = (nic.mtu, mtu)
        && (f64::from(own) - of_peers).abs() >= 1.0
    {
        found.push((
            format!("its MTU is {own}, that of its peers {of_peers:.0}"),
            format!("ip link set {name} mtu {of_peers:.0}"),
        ));
    }
    let faults = median(peers.iter().map(|peer| peer.faults as f64)).unwrap_or(0.0);
    if nic.faults as f64 > 100.0 + RESENT_ABOVE * faults {
        found.push((
            format!("it counted {} errors and drops", nic.faults),
            format!("`ethtool -S {name}`: look which, then at cable and rings (`ethtool -g`)"),
        ));
    }
    let is_ring =
        |nic: &FleetNic| nic.driver.as_ref().is_some_and(|driver| driver.starts_with("io_uring"));
    let with_ring = peers.iter().filter(|peer| is_ring(peer)).count();
    if let Some(driver) = nic.driver.as_ref().filter(|_| !is_ring(nic))
        && 2 * with_ring > peers.len()
    {
        found.push((
            format!("its operations are done by {driver}"),
            "`cep-fast doctor` there says why there is no io_uring".to_owned(),
        ));
    }
    found
}

fn rate(gbit_per_s: f64) -> String {
    BitRate((gbit_per_s * 1e9).round() as u64).to_string()
}

fn percent(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}
