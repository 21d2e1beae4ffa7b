//! Findings about TCP: congestion control, and the limits of socket buffers.

use crate::core::doctor::diagnosis::{DoctorFinding, FindingLevel, finding};
use crate::core::doctor::readings::MachineReadings;
use crate::core::units::{BitRate, MIB, human_bytes};

/// Round trip that buffers should cover: between continents.
const ROUND_TRIP_SECONDS: f64 = 0.1;
/// Smallest acceptable buffer: a few blocks of 1 MiB, and the kernel's default for receivers.
const BUFFER_BYTES_MIN: u64 = 6 * MIB;
/// The kernel keeps these limits in an `int`.
const BUFFER_BYTES_MAX: u64 = i32::MAX as u64;
/// Algorithms for fast and long paths, or for data centres.
const CONTROLS: [&str; 4] = ["bbr", "cubic", "dctcp", "htcp"];

pub(super) fn judge(machine: &MachineReadings) -> Vec<DoctorFinding> {
    let line_bits = machine.line_bits_max();
    let findings = [
        machine.congestion_control.as_deref().map(control),
        machine.tcp_rmem.map(|sizes| buffer("tcp_rmem", sizes, line_bits)),
        machine.tcp_wmem.map(|sizes| buffer("tcp_wmem", sizes, line_bits)),
    ];
    findings.into_iter().flatten().collect()
}

fn control(name: &str) -> DoctorFinding {
    let found = finding(
        if CONTROLS.contains(&name) { FindingLevel::Ok } else { FindingLevel::Note },
        "congestion control",
        name,
    );
    match found.level {
        FindingLevel::Ok => found,
        _ => found
            .costs("it may be slow to win back its rate after a loss on a fast or long path")
            .mended_by("sysctl -w net.ipv4.tcp_congestion_control=cubic"),
    }
}

/// Judges a buffer. A flow never has more bytes in flight than the sockets at its ends may hold.
fn buffer(name: &str, [least, first, most]: [u64; 3], line_bits: Option<u64>) -> DoctorFinding {
    let product =
        line_bits.map_or(0, |bits| (BitRate(bits).bytes_per_second() * ROUND_TRIP_SECONDS) as u64);
    let wanted = product.clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX);
    let found = format!("a socket may hold {}", human_bytes(most));
    if most >= wanted {
        return finding(FindingLevel::Ok, name, found);
    }
    let cost = match line_bits {
        Some(bits) => format!(
            "one flow fills a line of {} up to a round trip of {:.1} ms; at 100 ms it gets {}",
            BitRate(bits),
            most as f64 / BitRate(bits).bytes_per_second() * 1e3,
            rate_at(most)
        ),
        None => format!("one flow gets at most {} at a round trip of 100 ms", rate_at(most)),
    };
    let remedy = format!("sysctl -w net.ipv4.{name}=\"{least} {first} {wanted}\"");
    finding(FindingLevel::Shortfall, name, found).costs(cost).mended_by(remedy)
}

/// Returns the rate of `bytes` in flight at the round trip that buffers should cover.
fn rate_at(bytes: u64) -> BitRate {
    BitRate((bytes as f64 * 8.0 / ROUND_TRIP_SECONDS) as u64)
}
