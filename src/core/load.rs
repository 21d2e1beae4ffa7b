//! Load of a machine while its node took part in a transfer: what the processors did besides, and
//! what TCP had to send again.

/// Load of a machine over a span of time. Counts are those of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MachineLoad {
    /// Duration of the span.
    pub window_ns: u64,
    /// Time in which threads of the node were ready to run and waited for a processor, summed over
    /// the threads.
    pub wait_ns: u64,
    /// Processor time of other processes on the CPUs that the node may use, without those of low
    /// priority while the node is none of them.
    pub others_ns: u64,
    /// Time that a hypervisor gave to others on those CPUs.
    pub stolen_ns: u64,
    /// Number of CPUs that the node may use.
    pub cpus: u64,
    /// TCP segments that were sent again, by all connections of the machine.
    pub resent_segments: u64,
    /// TCP segments that were sent, by all connections of the machine.
    pub sent_segments: u64,
}
