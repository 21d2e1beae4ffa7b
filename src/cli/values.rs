//! The values that options take.

use std::str::FromStr;

use clap::ValueEnum;

use crate::spec::Address;

/// How nodes get started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Launch {
    /// They run already: dial each row's host:port
    None,
    /// Each host is a child process on this machine with a loopback address of its own
    Local,
    /// Over ssh, on each host
    Ssh,
    /// As a step of the Slurm job this runs in
    Slurm,
}

/// Who decides which sender serves what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Scheduler {
    /// In proportion to demand and speed
    Greedy,
    /// The exact optimum
    Lp,
    /// Equal stripes with no regard to speed: a baseline to compare with
    Uniform,
}

/// How bytes are checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Check {
    /// CRC-64/NVME of every piece, combined into the checksum of the whole
    Crc64,
    /// BLAKE3 of every piece, merged into what b3sum prints
    Blake3,
    /// Trust network and memory
    None,
}

/// Which way bytes take through the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum DataPath {
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
pub struct Nodes(pub Vec<Address>);

impl FromStr for Nodes {
    type Err = String;

    /// Reads addresses and hostlists with commas between them: `a:1,b:2`, `dtn[01-04]:5000`, `a,b:5000`.
    ///
    /// # Errors
    /// What was expected instead.
    fn from_str(text: &str) -> Result<Nodes, String> {
        Address::list(text).map(Nodes)
    }
}

/// Which CPUs rail threads are pinned to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pin {
    /// Those nearest to the NIC.
    Auto,
    /// Wherever the kernel likes.
    None,
    /// These, one after the other.
    List(Vec<usize>),
}

impl FromStr for Pin {
    type Err = &'static str;

    /// Reads `auto`, `none`, or CPUs as taskset writes them: `0-3,8`.
    ///
    /// # Errors
    /// What was expected instead.
    fn from_str(text: &str) -> Result<Pin, &'static str> {
        match text {
            "auto" => Ok(Pin::Auto),
            "none" => Ok(Pin::None),
            _ => cpus(text).map(Pin::List).ok_or(PIN_EXPECTED),
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

const PIN_EXPECTED: &str = "auto, none, or CPUs such as 0-3,8";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins() {
        let cases = [
            ("auto", Ok(Pin::Auto)),
            ("none", Ok(Pin::None)),
            ("5", Ok(Pin::List(vec![5]))),
            ("0-2,8", Ok(Pin::List(vec![0, 1, 2, 8]))),
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
    fn threads() {
        assert_eq!("auto".parse(), Ok(ThreadsPerNic::Auto));
        assert_eq!("64".parse(), Ok(ThreadsPerNic::Count(64)));
        for text in ["0", "65", "-1", "x", ""] {
            assert!(text.parse::<ThreadsPerNic>().is_err(), "{text}");
        }
    }
}
