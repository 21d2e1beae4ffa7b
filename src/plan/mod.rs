//! The schedule: rows and speeds in, plan out. Pure; nothing here moves a byte or asks a clock.
//!
//! The data space is cut at every row boundary into segments ([`segments`]). A scheduler gives each segment's senders
//! weights ([`greedy`], CEP paper section 3.2), and [`bound`] says what no schedule can beat and who sets it.
//! Weights are soft limits: the engine treats them as order and share, and lets idle links take what others leave.

pub(crate) mod bound;
mod greedy;
mod segments;

use crate::error::Result;
use crate::units::{NodeIx, Span};

pub(crate) use bound::Bound;
pub(crate) use segments::Segment;

/// What a plan is made from: who can send and receive how fast, who offers what, and who wants what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Problem {
    /// The nodes, in the order of their index.
    pub(crate) nodes: Vec<Capacity>,
    /// A range that a node offers, one entry a sender row.
    pub(crate) offers: Vec<(NodeIx, Span)>,
    /// A range that a node wants, one entry a receiver row.
    pub(crate) wants: Vec<(NodeIx, Span)>,
}

/// How fast a node can send and receive, in payload bytes per second.
#[derive(Clone, Debug)]
pub(crate) struct Capacity {
    /// `host:port`, for messages and the bottleneck's name.
    pub(crate) name: String,
    /// Sending capacity `C_i`: the sum over the node's rails.
    pub(crate) send_bytes_per_second: f64,
    /// Receiving capacity `B_j`: the sum over the node's rails.
    pub(crate) receive_bytes_per_second: f64,
}

/// One segment of a plan: the bytes, who wants them, and each sender's share of every receiver's demand.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Planned {
    pub(crate) segment: Segment,
    /// Weights in the order of `segment.senders`; they sum to 1.
    pub(crate) weights: Vec<f64>,
}

impl Planned {
    /// Who sends this segment to `receiver`, with which weight. A node that offers what it wants copies it inside.
    pub(crate) fn senders_for(&self, receiver: NodeIx) -> Vec<(NodeIx, f64)> {
        if self.segment.senders.binary_search(&receiver).is_ok() {
            return vec![(receiver, 1.0)];
        }
        self.segment.senders.iter().copied().zip(self.weights.iter().copied()).collect()
    }
}

/// All weights, the predicted time, and the lower bound.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Plan {
    pub(crate) planned: Vec<Planned>,
    /// What the weights alone would take, without stealing.
    pub(crate) predicted_seconds: f64,
    pub(crate) bound: Bound,
}

/// The greedy plan for `problem`.
///
/// # Errors
/// `Code::Usage` where a wanted range is offered by nobody; the error carries the ranges.
pub(crate) fn plan(problem: &Problem) -> Result<Plan> {
    let segments = segments::cut(problem)?;
    let bound = bound::lower(problem, &segments);
    let planned = greedy::weigh(problem, segments);
    let predicted_seconds = greedy::predict(problem, &planned);
    Ok(Plan { planned, predicted_seconds, bound })
}
