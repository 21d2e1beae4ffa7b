//! Load of the machine, for nodes that are measured: how long threads of this process waited for a
//! processor, what others took of its processors, and what TCP sent again.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use super::usage;
use crate::core::load::MachineLoad;
use crate::io::clock::awake;

/// Ticks of `/proc/stat` in a second: `USER_HZ`, which is the same for all programs.
const TICKS_PER_SECOND: u64 = 100;

/// Counts of the kernel at one moment. What cannot be read counts as zero.
#[derive(Clone, Debug)]
pub(super) struct LoadSnapshot {
    at: Instant,
    /// Processor time of this process.
    own: Duration,
    /// Time that each thread has waited for a processor.
    waits_ns: BTreeMap<u32, u64>,
    cpus: Vec<usize>,
    busy: CpuTicks,
    tcp: TcpSegments,
}

/// Ticks of some processors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct CpuTicks {
    /// Of processes, without those of low priority while this one is none of them. Interrupts are
    /// not among it: those of the network are this process's own work.
    busy: u64,
    stolen: u64,
}

/// Segments of all connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct TcpSegments {
    sent: u64,
    resent: u64,
}

impl LoadSnapshot {
    /// Reads the counts of now.
    pub(super) fn take() -> LoadSnapshot {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpus = affinity::cpus_allowed().unwrap_or_default();
        LoadSnapshot {
            at: awake(),
            own: usage::cpu(),
            waits_ns: waits_ns(),
            busy: ticks(&text("/proc/stat"), &cpus, is_low(&text("/proc/self/stat"))),
            tcp: segments(&text("/proc/self/net/snmp")),
            cpus,
        }
    }

    /// Returns the load since an earlier snapshot.
    pub(super) fn since(&self, before: &LoadSnapshot) -> MachineLoad {
        let waited = self.waits_ns.iter().map(|(thread, wait)| {
            wait.saturating_sub(before.waits_ns.get(thread).copied().unwrap_or(0))
        });
        let own_ns = nanos(self.own.saturating_sub(before.own));
        let busy_ns = ticks_ns(self.busy.busy.saturating_sub(before.busy.busy));
        MachineLoad {
            window_ns: nanos(self.at.saturating_duration_since(before.at)),
            wait_ns: waited.sum(),
            others_ns: busy_ns.saturating_sub(own_ns),
            stolen_ns: ticks_ns(self.busy.stolen.saturating_sub(before.busy.stolen)),
            cpus: self.cpus.len() as u64,
            resent_segments: self.tcp.resent.saturating_sub(before.tcp.resent),
            sent_segments: self.tcp.sent.saturating_sub(before.tcp.sent),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn ticks_ns(ticks: u64) -> u64 {
    ticks.saturating_mul(1_000_000_000 / TICKS_PER_SECOND)
}

/// Returns the time that each thread of this process has waited for a processor.
fn waits_ns() -> BTreeMap<u32, u64> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return BTreeMap::new() };
    let wait = |entry: fs::DirEntry| {
        let thread = entry.file_name().to_str()?.parse().ok()?;
        Some((thread, wait_ns(&fs::read_to_string(entry.path().join("schedstat")).ok()?)?))
    };
    threads.filter_map(|entry| wait(entry.ok()?)).collect()
}

/// Reads a thread's `schedstat`: the time that it ran, the time that it waited, and how often it
/// ran.
fn wait_ns(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Returns true for a process of low priority, from its `stat`: its nice value is the sixteenth
/// column behind the name in parentheses and its state.
fn is_low(text: &str) -> bool {
    let columns = text.rsplit_once(')').map_or("", |(_, columns)| columns);
    let nice = columns.split_ascii_whitespace().nth(16);
    nice.and_then(|nice| nice.parse::<i32>().ok()).is_some_and(|nice| nice > 0)
}

/// Reads the lines of some processors in `/proc/stat`: user, nice, system, idle, iowait, irq,
/// softirq, steal. Processes of low priority count beside one that `is_low` itself.
fn ticks(text: &str, cpus: &[usize], is_low: bool) -> CpuTicks {
    let mut sum = CpuTicks::default();
    for line in text.lines() {
        let mut columns = line.split_ascii_whitespace();
        let cpu = columns.next().and_then(|name| name.strip_prefix("cpu")?.parse().ok());
        if !cpu.is_some_and(|cpu: usize| cpus.contains(&cpu)) {
            continue;
        }
        let columns: Vec<u64> = columns.map_while(|column| column.parse().ok()).collect();
        if let [user, nice, system, ..] = columns[..] {
            sum.busy += user + system + if is_low { nice } else { 0 };
        }
        sum.stolen += columns.get(7).copied().unwrap_or(0);
    }
    sum
}

/// Reads `Tcp:` of `/proc/net/snmp`: a line of names and one of numbers.
fn segments(text: &str) -> TcpSegments {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp:"));
    let (Some(names), Some(numbers)) = (lines.next(), lines.next()) else {
        return TcpSegments::default();
    };
    let of = |wanted: &str| {
        let columns = names.split_ascii_whitespace().zip(numbers.split_ascii_whitespace());
        let number = columns.into_iter().find(|(name, _)| *name == wanted);
        number.and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
    };
    TcpSegments { sent: of("OutSegs"), resent: of("RetransSegs") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read() {
        let stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 5 100 2 900 7 1 1 4 0 0\n\
                    cpu1 50 0 20 0 0 0 0 0 0 0\ncpu10 1 1 1 1 1 1 1 1 0 0\nintr 7 0\n";
        assert_eq!(ticks(stat, &[0], false), CpuTicks { busy: 7, stolen: 4 });
        assert_eq!(ticks(stat, &[0], true), CpuTicks { busy: 107, stolen: 4 });
        assert_eq!(ticks(stat, &[0, 1], false), CpuTicks { busy: 77, stolen: 4 });
        assert_eq!(ticks("cpu0\n", &[0], false), CpuTicks::default());
        let own = |nice: &str| format!("7 (a) b) R 1 7 7 0 -1 4 1 0 0 0 1 2 0 0 20 {nice} 1 0 9");
        assert!(is_low(&own("10")) && !is_low(&own("0")) && !is_low(&own("-5")) && !is_low(""));
        assert_eq!(wait_ns("1038464 44510 9\n"), Some(44510));
        assert_eq!(wait_ns(""), None);
        let snmp = "Ip: Forwarding\nIp: 1\nTcp: RtoMin OutSegs RetransSegs InErrs\nTcp: 200 812 \
                    3 0\n";
        assert_eq!(segments(snmp), TcpSegments { sent: 812, resent: 3 });
        assert_eq!(segments("Tcp: OutSegs\n"), TcpSegments::default());
    }

    #[test]
    fn this_machine_has_them() {
        let before = LoadSnapshot::take();
        assert!(!before.waits_ns.is_empty() && !before.cpus.is_empty());
        let load = LoadSnapshot::take().since(&before);
        assert_eq!(load.cpus, before.cpus.len() as u64);
    }

    #[test]
    fn a_thread_that_is_new_has_waited_since_it_began() {
        let now = LoadSnapshot::take();
        let with = |waits: &[(u32, u64)]| LoadSnapshot {
            waits_ns: waits.iter().copied().collect(),
            ..now.clone()
        };
        let load = with(&[(1, 50), (3, 7)]).since(&with(&[(1, 40), (2, 99)]));
        assert_eq!((load.wait_ns, load.window_ns), (17, 0));
    }
}
