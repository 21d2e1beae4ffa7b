//! Conversion of the load of a machine, and of what its NICs dropped meanwhile: one list of
//! numbers.

use crate::core::load::MachineLoad;
use crate::core::wire::WireError;
use crate::core::wire::control::RailStats;

/// Numbers of the load; those of the rails follow.
const LOAD_NUMBERS: usize = 7;

pub(super) fn to_proto(load: MachineLoad, rails: &[RailStats]) -> Vec<u64> {
    let MachineLoad { window_ns, wait_ns, others_ns, stolen_ns, cpus, .. } = load;
    let (resent, sent) = (load.resent_segments, load.sent_segments);
    let own = [window_ns, wait_ns, others_ns, stolen_ns, cpus, resent, sent];
    own.into_iter().chain(rails.iter().map(|rail| rail.faults)).collect()
}

/// Reads the load, and enters the faults of the rails.
pub(super) fn load(
    numbers: &[u64],
    rails: &mut [RailStats],
) -> Result<Option<MachineLoad>, WireError> {
    if numbers.is_empty() {
        return Ok(None);
    }
    let Some((own, faults)) = numbers.split_first_chunk::<LOAD_NUMBERS>() else {
        return Err(WireError::Contradiction { field: "the load of a node" });
    };
    if faults.len() != rails.len() {
        return Err(WireError::Contradiction { field: "the load of a node" });
    }
    for (rail, &faults) in rails.iter_mut().zip(faults) {
        rail.faults = faults;
    }
    let &[window_ns, wait_ns, others_ns, stolen_ns, cpus, resent_segments, sent_segments] = own;
    Ok(Some(MachineLoad {
        window_ns,
        wait_ns,
        others_ns,
        stolen_ns,
        cpus,
        resent_segments,
        sent_segments,
    }))
}
