//! What a problem must be like before it is worth planning; everything that users, peers and
//! kernels can get wrong.

use super::{PairLimit, PlanProblem, StoreCapacity};
use crate::core::error::{Code, Error, Result};

/// Speeds that are taken for speeds, in bytes per second: from below one bit per second, to a
/// thousand times the fastest network there is. Beyond them a plan would be an exercise in
/// rounding.
const BYTES_PER_SECOND: std::ops::RangeInclusive<f64> = 0.1..=1e15;

/// As many rows as a specification may have, and a node for each.
const ROWS_MAX: usize = 1 << 20;

/// # Errors
/// `Code::Usage` naming the node, pair or store.
pub(super) fn check(problem: &PlanProblem) -> Result<()> {
    let rows = problem.offers.len() + problem.wants.len() + problem.group_wants.len();
    if rows > ROWS_MAX || problem.nodes.len() > ROWS_MAX {
        let what = format!(
            "{rows} rows of {} nodes are too many for one plan: {ROWS_MAX} are the most",
            problem.nodes.len()
        );
        return Err(Error::new(Code::Usage, what).remedy("split the transfer"));
    }
    for node in &problem.nodes {
        for bytes_per_second in [node.send_bytes_per_second, node.receive_bytes_per_second] {
            speed(|| format!("{}{}", node.place(), node.name), bytes_per_second)?;
        }
    }
    for StoreCapacity { name, bytes_per_second } in &problem.stores {
        speed(|| format!("store {name}"), *bytes_per_second)?;
    }
    for PairLimit { from, to, bytes_per_second } in &problem.pairs {
        let [from, to] = [from, to].map(|node| &problem.nodes[node.at()].name);
        speed(|| format!("link {from} to {to}"), *bytes_per_second)?;
    }
    Ok(())
}

fn speed(who: impl FnOnce() -> String, bytes_per_second: f64) -> Result<()> {
    if BYTES_PER_SECOND.contains(&bytes_per_second) {
        return Ok(());
    }
    let who = who();
    let what = format!(
        "{who}: a speed of {:e} bit/s is none that could be planned with",
        bytes_per_second * 8.0
    );
    Err(Error::new(Code::Usage, what).remedy("declare its true speed, such as speed=10G"))
}
