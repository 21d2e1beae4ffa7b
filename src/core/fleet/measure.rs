//! Measures of a node, in rounds with different partners.

/// A node, and how it did.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct FleetNode {
    pub(crate) name: String,
    pub(crate) nics: Vec<FleetNic>,
    /// Number of CPUs that it may use, if known.
    pub(crate) cpus: Option<u64>,
    pub(crate) rounds: Vec<FleetRound>,
}

/// A NIC of a node.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct FleetNic {
    pub(crate) name: String,
    /// Its line rate, if it, or somebody for it, claims one.
    pub(crate) line_gbit_per_s: Option<f64>,
    pub(crate) mtu: Option<u32>,
    /// Driver of its operations.
    pub(crate) driver: Option<String>,
    /// Threads that serve it.
    pub(crate) threads: usize,
    /// Errors and drops that it counted, in all rounds.
    pub(crate) faults: u64,
}

/// One round of a node.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct FleetRound {
    /// Place of the node at the other end.
    pub(crate) partner: usize,
    /// Payload of each NIC, in the order of the NICs.
    pub(crate) rates: Vec<NicRate>,
    /// What its processors did, if known.
    pub(crate) load: Option<LoadShares>,
}

/// Payload of a NIC.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct NicRate {
    pub(crate) sent_gbit_per_s: f64,
    pub(crate) received_gbit_per_s: f64,
}

/// Load of a machine as shares.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct LoadShares {
    /// Processors that the node kept busy.
    pub(crate) cores: f64,
    /// Part of the time in which threads of the node wanted a processor and had none.
    pub(crate) wait: f64,
    /// Part of its CPUs that other processes of normal priority took.
    pub(crate) others: f64,
    /// Part of its CPUs that a hypervisor gave to others.
    pub(crate) stolen: f64,
    /// Part of the TCP segments that were sent again.
    pub(crate) resent: f64,
}

/// Direction of bytes, seen from a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum RateDirection {
    Out,
    In,
}

impl RateDirection {
    pub(crate) const BOTH: [RateDirection; 2] = [RateDirection::Out, RateDirection::In];

    /// Returns the direction, seen from the other end.
    pub(crate) fn other_end(self) -> RateDirection {
        match self {
            RateDirection::Out => RateDirection::In,
            RateDirection::In => RateDirection::Out,
        }
    }
}

impl NicRate {
    pub(crate) fn of(self, direction: RateDirection) -> f64 {
        match direction {
            RateDirection::Out => self.sent_gbit_per_s,
            RateDirection::In => self.received_gbit_per_s,
        }
    }
}

impl FleetNode {
    /// Returns the best rate of a NIC over its partners: a partner that is slow makes it slow only
    /// where the two meet.
    pub(crate) fn best(&self, nic: usize, direction: RateDirection) -> f64 {
        let rates = self.rounds.iter().filter_map(|round| round.rates.get(nic));
        rates.map(|rate| rate.of(direction)).fold(0.0, f64::max)
    }

    /// Returns the median of a share of its load over the rounds.
    pub(crate) fn share(&self, share: impl Fn(&LoadShares) -> f64) -> Option<f64> {
        super::spread::median(
            self.rounds.iter().filter_map(|round| round.load.as_ref().map(&share)),
        )
    }
}
