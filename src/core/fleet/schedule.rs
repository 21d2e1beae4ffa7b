//! Schedule of a tournament: each round pairs the nodes, so that each is tried with several others.
//!
//! The circle method: one node stays, the others go round, and the nodes that face each other are a
//! pair. All rounds together are each pair once. A few of them, far apart on the circle, give each
//! node as many different partners, for any number of nodes, with nothing to search.

/// Pairs of one round, by the places of the nodes. With an odd number of nodes one rests.
pub(crate) type RoundPairs = Vec<(usize, usize)>;

/// Returns rounds in which each of `count` nodes has `partners` different partners, or all others
/// if they are fewer.
pub(crate) fn rounds(count: usize, partners: usize) -> Vec<RoundPairs> {
    if count < 2 {
        return Vec::new();
    }
    let is_odd = count % 2 == 1;
    let on_circle = if is_odd { count } else { count - 1 };
    // Each node rests once in all rounds of an odd number.
    let wanted = (partners.max(1) + usize::from(is_odd)).min(on_circle);
    (0..wanted).map(|at| round(count, at * on_circle / wanted)).collect()
}

/// Returns the pairs after the nodes went `turns` places round a circle.
fn round(count: usize, turns: usize) -> RoundPairs {
    let on_circle = if count % 2 == 1 { count } else { count - 1 };
    // Two nodes are a pair if their places add up to twice the turns, modulo the circle.
    let facing = |place: usize| (2 * turns + on_circle - place) % on_circle;
    let mut pairs = RoundPairs::with_capacity(count / 2);
    for place in 0..on_circle {
        let other = facing(place);
        if place < other {
            pairs.push((place, other));
        } else if place == other && on_circle < count {
            pairs.push((place, on_circle));
        }
    }
    pairs
}

/// Returns a round in which each node of which too little is known meets one that is good, as far
/// as there are enough.
pub(crate) fn clearing_round(unclear: &[usize], good: &[usize]) -> RoundPairs {
    unclear.iter().copied().zip(good.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn four_nodes_meet_each_other_in_three_rounds() {
        assert_eq!(
            rounds(4, 3),
            [vec![(0, 3), (1, 2)], vec![(0, 2), (1, 3)], vec![(0, 1), (2, 3)]]
        );
        assert_eq!(rounds(2, 3), [vec![(0, 1)]]);
        assert_eq!(rounds(1, 3), Vec::<RoundPairs>::new());
    }

    #[test]
    fn each_node_has_as_many_partners_as_are_wanted_and_one_at_a_time() {
        for count in (2..40).chain([999, 1000]) {
            for wanted in 1..6 {
                let rounds = rounds(count, wanted);
                let mut partners = vec![BTreeSet::new(); count];
                for pairs in &rounds {
                    let mut busy = BTreeSet::new();
                    for &(one, other) in pairs {
                        assert!(busy.insert(one) && busy.insert(other), "{count}: {pairs:?}");
                        assert!(partners[one].insert(other) && partners[other].insert(one));
                    }
                    assert!(busy.len() >= count - count % 2);
                }
                let least = wanted.min(count - 1);
                assert!(partners.iter().all(|met| met.len() >= least), "{count}, {wanted}");
                assert!(rounds.len() <= wanted + count % 2);
            }
        }
    }
}
