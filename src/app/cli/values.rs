//! The values that options take.

use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;

use crate::core::spec::NodeAddress;
use crate::core::units::{BitRate, parse_duration, parse_rate};

/// How nodes get started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum LaunchMethod {
    /// They run already: dial each row's host:port
    None,
    /// Each host is a child process on this machine with a loopback address of its own
    Local,
    /// Over ssh, on each host
    #[value(hide = true)]
    Ssh,
    /// As a step of the Slurm job this runs in
    #[value(hide = true)]
    Slurm,
}

/// Who decides which sender serves what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum SchedulerArg {
    /// Greedy where that is the best or the plan is very large, else lp
    Auto,
    /// In proportion to demand and speed
    Greedy,
    /// The exact optimum
    Lp,
    /// Equal stripes with no regard to speed: a baseline to compare with
    Uniform,
}

/// How bytes are checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum CheckArg {
    /// CRC-64/NVME of every piece, combined into the checksum of the whole
    Crc64,
    /// BLAKE3 of every piece, merged into what b3sum prints
    Blake3,
    /// Trust network and memory
    None,
}

/// Which way bytes take through the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum DataPathArg {
    /// What was measured to be the fastest
    Auto,
    /// Past the page cache (`O_DIRECT`), into registered buffers
    Direct,
    /// From the page cache to the socket without a copy; what is not cached goes through buffers
    Splice,
    /// Zero-copy sends from buffers, until the kernel says that it copies
    Zerocopy,
    /// Plain reads and writes through the page cache
    Copy,
}

/// What is checked beyond what is checked anyway.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum VerifyArg {
    /// Read every file back from its disk, past the page cache, before it gets its name
    Disk,
    /// Compare all bytes that several senders offer, not a sample of them, before any byte moves
    Replicas,
}

/// When progress is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ProgressMode {
    /// Bars on a terminal, else a line every few seconds
    Auto,
    /// Not at all
    Never,
}

/// The nodes of one side of a benchmark, each `host:port`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BenchNodes(pub Vec<NodeAddress>);

impl FromStr for BenchNodes {
    type Err = String;

    /// Reads addresses and hostlists with commas between them: `a:1,b:2`, `dtn[01-04]:5000`,
    /// `a,b:5000`.
    ///
    /// # Errors
    /// What was expected instead.
    fn from_str(text: &str) -> Result<BenchNodes, String> {
        NodeAddress::list(text).map(BenchNodes)
    }
}

/// Another rate of a node's line in a simulation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeRate {
    /// The node as the specification names it.
    pub node: String,
    /// Its line rate, in both directions.
    pub rate: BitRate,
    /// How long after bytes begin to move.
    pub after: Duration,
}

impl FromStr for NodeRate {
    type Err = String;

    /// Reads `NODE=RATE` and `NODE=RATE@TIME`.
    ///
    /// # Errors
    /// What was expected instead.
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
    /// The node as the specification names it.
    pub node: String,
    /// How long after bytes begin to move.
    pub after: Duration,
}

impl FromStr for NodeDeath {
    type Err = String;

    /// Reads `NODE@TIME`.
    ///
    /// # Errors
    /// What was expected instead.
    fn from_str(text: &str) -> Result<NodeDeath, String> {
        let (node, time) =
            text.split_once('@').filter(|(node, _)| !node.is_empty()).ok_or(NODE_DEATH_EXPECTED)?;
        Ok(NodeDeath { node: node.into(), after: parse_duration(time)? })
    }
}

/// Which CPUs rail threads are pinned to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PinArg {
    /// Those nearest to the NIC.
    Auto,
    /// Wherever the kernel likes.
    None,
    /// These, one after the other.
    List(Vec<usize>),
}

impl FromStr for PinArg {
    type Err = &'static str;

    /// Reads `auto`, `none`, or CPUs as taskset writes them: `0-3,8`.
    ///
    /// # Errors
    /// What was expected instead.
    fn from_str(text: &str) -> Result<PinArg, &'static str> {
        match text {
            "auto" => Ok(PinArg::Auto),
            "none" => Ok(PinArg::None),
            _ => cpus(text).map(PinArg::List).ok_or(PIN_EXPECTED),
        }
    }
}

fn cpus(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= CPUS_MAX || cpus.len() + (last - first) >= CPUS_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// How many rail threads each NIC gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ThreadsPerNic {
    /// As many as its line rate needs.
    Auto,
    /// This many, at least one.
    Count(usize),
}

impl FromStr for ThreadsPerNic {
    type Err = &'static str;

    /// Reads `auto` or a number from 1 to 64.
    ///
    /// # Errors
    /// What was expected instead.
    fn from_str(text: &str) -> Result<ThreadsPerNic, &'static str> {
        if text == "auto" {
            return Ok(ThreadsPerNic::Auto);
        }
        let count = text.parse().ok().filter(|count| (1..=THREADS_PER_NIC_MAX).contains(count));
        count.map(ThreadsPerNic::Count).ok_or("auto or a number from 1 to 64")
    }
}

/// The largest `CONFIG_NR_CPUS` of Linux.
const CPUS_MAX: usize = 8192;

/// A 400 Gbit/s NIC is saturated by fewer.
const THREADS_PER_NIC_MAX: usize = 64;

const NODE_RATE_EXPECTED: &str = "a node and a rate, such as n1:5000=100M or n1:5000=100M@2s";
const NODE_DEATH_EXPECTED: &str = "a node and a time, such as n1:5000@500ms";
const PIN_EXPECTED: &str = "auto, none, or CPUs such as 0-3,8";

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
            ("0-8191,0-8191", Err(PIN_EXPECTED)),
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
