//! Verdicts on nodes and their NICs.

use serde::Serialize;

/// Origin of the rate that is expected of a NIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RateBasis {
    /// The user's line rate.
    Declared,
    /// The line rate that NICs of its class claim, and reach.
    Line,
    /// The median of its class.
    Peers,
}

/// Verdict on a node.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct NodeVerdict {
    /// Rate over what is expected of its NICs together, in the worse direction.
    pub(crate) efficiency: Option<f64>,
    pub(crate) nics: Vec<NicVerdict>,
    /// Causes for which it is named; none for a node that is as good as the rest.
    pub(crate) causes: Vec<FleetCause>,
}

/// Verdict on a NIC.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct NicVerdict {
    /// Best rates over its partners, in Gbit/s.
    pub(crate) sent: f64,
    pub(crate) received: f64,
    /// Expected rates.
    pub(crate) expected: Option<ExpectedRates>,
    /// Rate over the expected one, in the worse direction.
    pub(crate) efficiency: Option<f64>,
}

/// Rates expected of a NIC, in Gbit/s of payload.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct ExpectedRates {
    pub(crate) sent: f64,
    pub(crate) received: f64,
    pub(crate) basis: RateBasis,
}

/// A cause, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct FleetCause {
    pub(crate) cause: String,
    pub(crate) remedy: String,
}

impl NodeVerdict {
    pub(crate) fn is_slow(&self) -> bool {
        !self.causes.is_empty()
    }
}
