//! Checks of a problem before planning: everything that users, peers and kernels can get wrong.

use super::{PairLimit, PlanProblem, StoreCapacity};
use crate::core::error::{Code, Error, Result};

/// Accepted speeds in bytes per second: from below one bit per second up to a thousand times the
/// fastest network. Outside this range, rounding errors dominate a plan.
const BYTES_PER_SECOND: std::ops::RangeInclusive<f64> = 0.1..=1e15;

/// Limit on rows, as in a specification, and on nodes, one for each row.
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
    let what = format!("{who}: speed {:e} bit/s is out of range", bytes_per_second * 8.0);
    Err(Error::new(Code::Usage, what).remedy("declare its true speed, such as speed=10G"))
}
