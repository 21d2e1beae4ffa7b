//! Contenders of a scenario: the program, its raw limit, and its peers.
//!
//! Each runs real programs as their users would, with their fast settings; measurements.md has the
//! sources of these.

mod contender;
pub(crate) mod gridftp;
mod iperf;
mod ours;
mod rclone;
mod rcp;
mod ssh_copy;

use std::path::Path;

use crate::raw::{RawLimit, WaitMode};
pub(crate) use contender::{Contender, RunTiming, missing_program, program};
use iperf::StreamCount;

/// Returns all contenders, ours first.
///
/// `cep_fast` is the program to measure, `peers` the folder that `tools/peers` built in, `cores`
/// the CPUs of the raw limit.
pub(crate) fn all(
    cep_fast: &Path,
    peers: &Path,
    cores: Option<(usize, usize)>,
) -> Vec<Box<dyn Contender>> {
    let ours =
        |wire, checks| Box::new(ours::CepFast { program: cep_fast.to_owned(), checks, wire });
    let iperf = |streams, tunnelled| Box::new(iperf::IperfContender { streams, tunnelled });
    let rcp = |encrypts| Box::new(rcp::Rcp { binaries: peers.join("bin"), encrypts });
    vec![
        ours("clear", true),
        ours("clear", false),
        ours("signed", true),
        ours("sealed", true),
        Box::new(RawLimit { cores, wait: WaitMode::Gather }),
        Box::new(RawLimit { cores, wait: WaitMode::Rest }),
        iperf(StreamCount::One, false),
        iperf(StreamCount::Two, false),
        iperf(StreamCount::Four, false),
        iperf(StreamCount::One, true),
        Box::new(gridftp::GridFtp),
        Box::new(rclone::Rclone),
        rcp(false),
        rcp(true),
        Box::new(ssh_copy::SshCopy::Scp),
        Box::new(ssh_copy::SshCopy::Rsync),
    ]
}
