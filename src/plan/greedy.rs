//! The greedy scheduler of the CEP paper, section 3.2.
//!
//! A sender spreads its speed over the segments it offers in proportion to their demand; a receiver splits its request
//! for a segment over the senders in proportion to what each set aside for it. Linear in the incidences of senders and
//! segments, and optimal where a transfer is limited by its senders alone or by its receivers alone.

use super::{Planned, Problem, Segment};

/// Gives every segment's senders their weights.
pub(super) fn weigh(problem: &Problem, segments: Vec<Segment>) -> Vec<Planned> {
    let mut offered_bytes = vec![0_u64; problem.nodes.len()];
    for segment in &segments {
        for sender in &segment.senders {
            offered_bytes[sender.at()] += segment.demand_bytes();
        }
    }
    let weigh_one = |segment: Segment| {
        let set_aside: Vec<f64> = segment
            .senders
            .iter()
            .map(|sender| {
                let speed = problem.nodes[sender.at()].send_bytes_per_second;
                speed * segment.demand_bytes() as f64 / (offered_bytes[sender.at()].max(1)) as f64
            })
            .collect();
        Planned { weights: shares(&set_aside), segment }
    };
    segments.into_iter().map(weigh_one).collect()
}

/// What the weights alone would take: the busiest node's time, with nobody taking over another's work.
pub(super) fn predict(problem: &Problem, planned: &[Planned]) -> f64 {
    let mut sent = vec![0.0_f64; problem.nodes.len()];
    let mut received = vec![0.0_f64; problem.nodes.len()];
    for Planned { segment, weights } in planned {
        for receiver in segment.remote_receivers() {
            received[receiver.at()] += segment.span.bytes() as f64;
        }
        for (sender, weight) in segment.senders.iter().zip(weights) {
            sent[sender.at()] += weight * segment.demand_bytes() as f64;
        }
    }
    let seconds = problem.nodes.iter().zip(sent.iter().zip(&received)).map(|(node, (sent, received))| {
        (sent / node.send_bytes_per_second).max(received / node.receive_bytes_per_second)
    });
    seconds.fold(0.0, f64::max)
}

/// Scales `amounts` to sum to 1; amounts that are all zero share equally.
fn shares(amounts: &[f64]) -> Vec<f64> {
    let sum: f64 = amounts.iter().sum();
    if sum > 0.0 {
        amounts.iter().map(|amount| amount / sum).collect()
    } else {
        vec![1.0 / amounts.len() as f64; amounts.len()]
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::{Capacity, Problem, plan};
    use crate::units::{NodeIx, Span};

    fn node(name: &str, speed: f64) -> Capacity {
        Capacity { name: name.into(), send_bytes_per_second: speed, receive_bytes_per_second: speed }
    }

    #[test]
    fn replicas_share_by_speed() {
        let problem = Problem {
            nodes: vec![node("fast", 300.0), node("slow", 100.0), node("sink", 1000.0)],
            offers: vec![(NodeIx(0), Span::new(0, 4000)), (NodeIx(1), Span::new(0, 4000))],
            wants: vec![(NodeIx(2), Span::new(0, 4000))],
        };
        let plan = plan(&problem).expect("servable");
        assert_eq!(plan.planned[0].weights, [0.75, 0.25]);
        assert!((plan.predicted_seconds - 10.0).abs() < 1e-9);
        assert!((plan.bound.seconds - 10.0).abs() < 1e-9);
    }

    #[test]
    fn a_sender_sets_speed_aside_in_proportion_to_demand() {
        // The second segment is offered by both; the first only by node 0, which keeps half its speed for it.
        let problem = Problem {
            nodes: vec![node("a", 100.0), node("b", 100.0), node("sink", 1000.0)],
            offers: vec![(NodeIx(0), Span::new(0, 2000)), (NodeIx(1), Span::new(1000, 2000))],
            wants: vec![(NodeIx(2), Span::new(0, 2000))],
        };
        let plan = plan(&problem).expect("servable");
        assert_eq!(plan.planned[0].weights, [1.0]);
        assert!((plan.planned[1].weights[0] - 1.0 / 3.0).abs() < 1e-9);
        assert!((plan.bound.seconds - 10.0).abs() < 1e-9, "{:?}", plan.bound);
    }

    #[test]
    fn a_node_that_offers_what_it_wants_copies_it_inside() {
        let problem = Problem {
            nodes: vec![node("a", 100.0), node("b", 100.0)],
            offers: vec![(NodeIx(0), Span::new(0, 1000)), (NodeIx(1), Span::new(0, 500))],
            wants: vec![(NodeIx(1), Span::new(0, 1000))],
        };
        let plan = plan(&problem).expect("servable");
        assert_eq!(plan.planned[0].senders_for(NodeIx(1)), [(NodeIx(1), 1.0)]);
        assert_eq!(plan.planned[1].senders_for(NodeIx(1)), [(NodeIx(0), 1.0)]);
        assert!((plan.bound.seconds - 5.0).abs() < 1e-9);
    }
}
