//! Values of options.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::core::options::{CheckKind, Cipher, DataPath, Scheduler, WireLevel};
use crate::core::spec::NodeAddress;
use crate::core::units::{BitRate, parse_duration, parse_rate};

impl ValueEnum for Scheduler {
    fn value_variants<'a>() -> &'a [Scheduler] {
        &[Scheduler::Auto, Scheduler::Greedy, Scheduler::Lp, Scheduler::Uniform]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Scheduler::Auto => "Greedy if it is optimal or the plan is very large, else lp",
            Scheduler::Greedy => "In proportion to demand and speed",
            Scheduler::Lp => "The exact optimum",
            Scheduler::Uniform => "Equal stripes regardless of speed: a baseline for comparison",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

impl ValueEnum for CheckKind {
    fn value_variants<'a>() -> &'a [CheckKind] {
        &[CheckKind::Crc64, CheckKind::Blake3, CheckKind::None]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            CheckKind::Crc64 => {
                "CRC-64/NVME of every piece, combined into the checksum of the whole"
            }
            CheckKind::Blake3 => "BLAKE3 of every piece, merged into the b3sum of the whole",
            CheckKind::None => "Trust network and memory",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

impl ValueEnum for DataPath {
    fn value_variants<'a>() -> &'a [DataPath] {
        use DataPath::{Auto, Copy, Direct, Splice, Zerocopy};
        &[Auto, Direct, Splice, Zerocopy, Copy]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            DataPath::Auto => "From the page cache what it holds wholly, past it all else",
            DataPath::Direct => "Past the page cache (`O_DIRECT`), into registered buffers",
            DataPath::Splice => {
                "From the page cache to the socket without a copy; uncached data goes through \
                 buffers"
            }
            DataPath::Zerocopy => {
                "Zero-copy sends from buffers, until the kernel reports that it copies"
            }
            DataPath::Copy => "Plain reads and writes through the page cache",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

impl ValueEnum for WireLevel {
    fn value_variants<'a>() -> &'a [WireLevel] {
        &[WireLevel::Sealed, WireLevel::Signed, WireLevel::Clear]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            WireLevel::Sealed => "Encrypted and authenticated",
            WireLevel::Signed => "Authenticated and readable, for networks that are trusted",
            WireLevel::Clear => "Neither: anybody between the hosts can read and change the bytes",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

impl ValueEnum for Cipher {
    fn value_variants<'a>() -> &'a [Cipher] {
        &[Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Cipher::Aes256Gcm => "For processors with instructions for AES",
            Cipher::ChaCha20Poly1305 => "For all others",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

/// Further checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum VerifyArg {
    /// Read every file back from its disk, past the page cache, before it is renamed
    Disk,
    /// Compare all bytes that several senders offer, not a sample, before any byte moves
    Replicas,
}

/// Confinement of a node by the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ConfineArg {
    /// As far as the kernel can
    Auto,
    /// Not at all
    Off,
    /// Wholly, or the node does not start
    Required,
}

/// Modes of the progress display.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ProgressMode {
    /// Bars on a terminal, else a line every few seconds
    Auto,
    /// No progress
    Never,
}

/// A part of a whole, above 0 and up to 1.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PartArg(pub f64);

impl FromStr for PartArg {
    type Err = String;

    /// Parses a number such as `0.9`.
    ///
    /// # Errors
    /// The expected form, as text.
    fn from_str(text: &str) -> Result<PartArg, String> {
        let part = text.parse().ok().filter(|part: &f64| *part > 0.0 && *part <= 1.0);
        part.map(PartArg).ok_or_else(|| "a number above 0 and up to 1, such as 0.9".into())
    }
}

/// The nodes of one side of a benchmark, each `host:port`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BenchNodes(pub Vec<NodeAddress>);

impl FromStr for BenchNodes {
    type Err = String;

    /// Parses addresses and hostlists separated by commas: `a:1,b:2`, `dtn[01-04]:5000`,
    /// `a,b:5000`.
    ///
    /// # Errors
    /// The expected form, as text.
    fn from_str(text: &str) -> Result<BenchNodes, String> {
        NodeAddress::list(text).map(BenchNodes)
    }
}

/// Another rate of a node's line in a simulation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeRate {
    /// The node's name in the specification.
    pub node: String,
    /// Its line rate, in both directions.
    pub rate: BitRate,
    /// Time after the first bytes move.
    pub after: Duration,
}

impl FromStr for NodeRate {
    type Err = String;

    /// Parses `NODE=RATE` and `NODE=RATE@TIME`.
    ///
    /// # Errors
    /// The expected form, as text.
    fn from_str(text: &str) -> Result<NodeRate, String> {
        let (node, rest) =
            text.split_once('=').filter(|(node, _)| !node.is_empty()).ok_or(NODE_RATE_EXPECTED)?;
        let (rate, after) = match rest.split_once('@') {
            None => (rest, Duration::ZERO),
            Some((rate, time)) => (rate, parse_duration(time)?),
        };
        Ok(NodeRate { node: node.into(), rate: parse_rate(rate)?, after })
    }
}

/// The death of a node in a simulation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeDeath {
    /// The node's name in the specification.
    pub node: String,
    /// Time after the first bytes move.
    pub after: Duration,
}

impl FromStr for NodeDeath {
    type Err = String;

    /// Parses `NODE@TIME`.
    ///
    /// # Errors
    /// The expected form, as text.
    fn from_str(text: &str) -> Result<NodeDeath, String> {
        let (node, time) =
            text.split_once('@').filter(|(node, _)| !node.is_empty()).ok_or(NODE_DEATH_EXPECTED)?;
        Ok(NodeDeath { node: node.into(), after: parse_duration(time)? })
    }
}

/// CPUs that rail threads are pinned to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PinArg {
    /// CPUs nearest to the NIC.
    Auto,
    /// No pinning.
    None,
    /// These CPUs, in turn.
    List(Vec<usize>),
}

impl FromStr for PinArg {
    type Err = &'static str;

    /// Parses `auto`, `none`, or CPUs in the form of taskset: `0-3,8`.
    ///
    /// # Errors
    /// The expected form, as text.
    fn from_str(text: &str) -> Result<PinArg, &'static str> {
        match text {
            "auto" => Ok(PinArg::Auto),
            "none" => Ok(PinArg::None),
            _ => {
                let cpus = affinity::parse_cpus(text).filter(|cpus| !cpus.is_empty());
                cpus.map(PinArg::List).ok_or(PIN_EXPECTED)
            }
        }
    }
}

/// Number of rail threads for each NIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ThreadsPerNic {
    /// As many as its line rate needs.
    Auto,
    /// This many, at least one.
    Count(usize),
}

impl FromStr for ThreadsPerNic {
    type Err = &'static str;

    /// Parses `auto` or a number from 1 to 64.
    ///
    /// # Errors
    /// The expected form, as text.
    fn from_str(text: &str) -> Result<ThreadsPerNic, &'static str> {
        if text == "auto" {
            return Ok(ThreadsPerNic::Auto);
        }
        let count = text.parse().ok().filter(|count| (1..=THREADS_PER_NIC_MAX).contains(count));
        count.map(ThreadsPerNic::Count).ok_or("auto or a number from 1 to 64")
    }
}

/// Largest number of threads for a NIC: fewer saturate 400 Gbit/s.
const THREADS_PER_NIC_MAX: usize = 64;

const NODE_RATE_EXPECTED: &str = "a node and a rate, such as n1:5000=100M or n1:5000=100M@2s";
const NODE_DEATH_EXPECTED: &str = "a node and a time, such as n1:5000@500ms";
const PIN_EXPECTED: &str = "auto, none, or CPUs such as 0-3,8";

/// Parses a value. Types return the expected form; the user reads a sentence.
pub(super) fn expect<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|expected| format!("expected {expected}"))
}

pub(super) fn rate(text: &str) -> Result<BitRate, String> {
    parse_rate(text).map_err(|expected| format!("expected {expected}"))
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|expected| format!("expected {expected}"))
}

pub(super) fn slots(text: &str) -> Result<u32, String> {
    let slots = text.parse().ok().filter(|slots| (SLOTS_MIN..=SLOTS_MAX).contains(slots));
    slots.ok_or_else(|| format!("expected a number from {SLOTS_MIN} to {SLOTS_MAX}"))
}

/// Smallest number of slots: a relay needs one to send from and one to receive into.
const SLOTS_MIN: u32 = 2;

/// Largest number of slots: 4 GiB of locked memory at 1 MiB each. If a NIC needs more, something
/// else keeps it from being busy.
const SLOTS_MAX: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins() {
        let cases = [
            ("auto", Ok(PinArg::Auto)),
            ("none", Ok(PinArg::None)),
            ("5", Ok(PinArg::List(vec![5]))),
            ("0-2,8", Ok(PinArg::List(vec![0, 1, 2, 8]))),
            ("", Err(PIN_EXPECTED)),
            ("3-1", Err(PIN_EXPECTED)),
            ("0-99999999999", Err(PIN_EXPECTED)),
            ("a", Err(PIN_EXPECTED)),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse(), expected, "{text}");
        }
    }

    #[test]
    fn what_befalls_nodes_of_a_simulation() {
        let rate = |after| Ok(NodeRate { node: "a:1".into(), rate: BitRate(100_000_000), after });
        assert_eq!("a:1=100M".parse(), rate(Duration::ZERO));
        assert_eq!("a:1=100M@500ms".parse(), rate(Duration::from_millis(500)));
        let death = NodeDeath { node: "[::1]:7".into(), after: Duration::from_secs(2) };
        assert_eq!("[::1]:7@2".parse(), Ok(death));
        for text in ["a:1", "=1G", "a:1=", "a:1=0", "a:1=1G@", "a:1=1G@x", "a:1@1"] {
            assert!(text.parse::<NodeRate>().is_err(), "{text}");
        }
        for text in ["a:1", "@1", "a:1@", "a:1@-1"] {
            assert!(text.parse::<NodeDeath>().is_err(), "{text}");
        }
    }

    #[test]
    fn threads() {
        assert_eq!("auto".parse(), Ok(ThreadsPerNic::Auto));
        assert_eq!("64".parse(), Ok(ThreadsPerNic::Count(64)));
        for text in ["0", "65", "-1", "x", ""] {
            assert!(text.parse::<ThreadsPerNic>().is_err(), "{text}");
        }
    }
}
