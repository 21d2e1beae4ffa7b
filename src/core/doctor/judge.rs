//! Judgement of a machine's readings: problems, their cost and their remedy.

use super::diagnosis::{Diagnosis, DoctorFinding, KernelPath};
use super::readings::MachineReadings;
use crate::core::doctor::peer::DoctorPeer;

mod kernel;
mod nics;
mod peer;
mod rights;
mod system;
mod tcp;

/// Judges a machine. The worst findings come first.
pub(crate) fn judge(machine: MachineReadings) -> Diagnosis {
    let mut findings = nics::judge(&machine);
    findings.extend(system::judge(&machine));
    findings.extend(kernel::judge(&machine));
    findings.extend(rights::judge(&machine));
    findings.extend(tcp::judge(&machine));
    findings.sort_by_key(|finding| finding.level);
    let path = path(&machine);
    Diagnosis { kernel: machine.kernel, path, nics: machine.nics, peer: None, findings }
}

impl Diagnosis {
    /// Adds the findings together with a peer.
    pub(crate) fn with(mut self, peer: DoctorPeer) -> Diagnosis {
        self.findings.extend(judge_peer(&peer));
        self.findings.sort_by_key(|finding| finding.level);
        Diagnosis { peer: Some(peer), ..self }
    }
}

/// Returns the data path of rails on this machine, by the same fallbacks that rails use.
fn path(machine: &MachineReadings) -> KernelPath {
    match &machine.io_uring {
        Ok(io_uring) if io_uring.locked.is_ok() => KernelPath::IoUringRegistered,
        Ok(_) => KernelPath::IoUringUnregistered,
        Err(_) => KernelPath::Plain,
    }
}

/// Judges the transfers between this machine and a peer.
pub(crate) fn judge_peer(peer: &DoctorPeer) -> Vec<DoctorFinding> {
    peer::judge(peer)
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
