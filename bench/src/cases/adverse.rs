//! Faulty links and ends: lost packets, resets, flapping, a failure in one direction, and a frozen
//! sender. Compares the program's rate with that of iperf3 for the same bytes.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::book::BenchResults;
use super::fixture::{CaseFixture, rows};
use super::iperf;
use crate::cluster::{self, CompletedTransfer, LabCluster};
use crate::process::RunningProcess;
use crate::scenario::{BenchScenario, WorkItem};

/// Every packet has 1500 bytes here, which limits the rate of the machine.
const RATE_MBIT: u32 = 500;
const SENDER: u32 = 1;
const RECEIVER: u32 = 2;
/// veth carries up to 64 KiB at once by default; dropping one of these drops 45 packets.
const SINGLE_PACKETS: &str =
    "ethtool -K eth0 tso off gso off gro off tx off; sysctl -q net.netfilter.nf_conntrack_acct=1";
/// A flapping link is down for a fifth of every second.
const FLAPPING: &str =
    "while ip link set eth0 down && sleep 0.2 && ip link set eth0 up; do sleep 0.8; done";
/// Start and duration of a temporary fault: longer than a flow may be silent.
const BEFORE: Duration = Duration::from_secs(1);
const LASTS: Duration = Duration::from_secs(2);

/// Fault of the link or its ends. Faults of single packets spare control connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LinkFault {
    None,
    /// The receiver loses this percentage of data packets.
    Loss(u32),
    /// Connections are reset after 5 MB.
    Resets,
    /// The receiver's NIC goes down and up.
    Flapping,
    /// For a while nothing from the sender arrives.
    OneWay,
    /// For a while the sender is stopped.
    Frozen,
}

const FAULTS: [LinkFault; 7] = [
    LinkFault::None,
    LinkFault::Loss(1),
    LinkFault::Loss(5),
    LinkFault::Resets,
    LinkFault::Flapping,
    LinkFault::OneWay,
    LinkFault::Frozen,
];

pub(super) fn run(bench: &CaseFixture, book: &mut BenchResults) -> Result<()> {
    for fault in FAULTS {
        let title = fault.title();
        book.now(&title);
        // New daemons, free of the effects of the fault before.
        let cluster = bench.cluster(2, &[RATE_MBIT])?;
        [SENDER, RECEIVER]
            .iter()
            .try_for_each(|&node| iperf::inside(&cluster, node, SINGLE_PACKETS))?;
        fault.lay(&cluster)?;
        let work = bench.work(BenchScenario::MemoryToMemory, &[RATE_MBIT])?;
        let ours = ours(&cluster, fault, &work);
        let theirs = theirs(&cluster, fault, &work);
        match &ours {
            Ok(ours) => {
                book.figure(format!("{title}: ours"), ours.gbit_per_s, "Gbit/s", ours.cost());
            }
            Err(error) => book.failed(format!("{title}: ours"), error),
        }
        match &theirs {
            Ok(theirs) => book.figure(format!("{title}: iperf3"), *theirs, "Gbit/s", ""),
            // A lost connection delivers nothing more.
            Err(error) => {
                book.figure(format!("{title}: iperf3"), 0.0, "Gbit/s", format!("{error:#}"));
            }
        }
        if let (Ok(ours), Ok(theirs)) = (&ours, &theirs) {
            book.figure(format!("{title}: ours / iperf3"), ours.gbit_per_s / theirs, "", "");
        }
        if let Ok(ours) = ours {
            book.keep(ours.report);
        }
    }
    Ok(())
}

fn ours(cluster: &LabCluster, fault: LinkFault, work: &WorkItem) -> Result<CompletedTransfer> {
    let master = cluster.start("adverse", &rows(work))?;
    let _lasting = fault.strike(cluster, cluster.daemon(SENDER))?;
    CompletedTransfer::of(&master.wait()?, work.bytes)
}

/// Returns the Gbit/s of iperf3.
fn theirs(cluster: &LabCluster, fault: LinkFault, work: &WorkItem) -> Result<f64> {
    let pair = iperf::IperfPair::start(cluster, 0, iperf::IperfLoad::Bytes(work.bytes))?;
    let _lasting = fault.strike(cluster, pair.client())?;
    pair.rate()
}

impl LinkFault {
    fn title(self) -> String {
        match self {
            LinkFault::None => "a whole link".into(),
            LinkFault::Loss(percent) => format!("{percent} % loss"),
            LinkFault::Resets => "resets every 5 MB".into(),
            LinkFault::Flapping => "a flapping NIC".into(),
            LinkFault::OneWay => format!("one direction fails for {} s", LASTS.as_secs()),
            LinkFault::Frozen => format!("the sender is frozen for {} s", LASTS.as_secs()),
        }
    }

    /// Installs a permanent fault.
    fn lay(self, cluster: &LabCluster) -> Result<()> {
        let spared = "tcp dport != 7000 tcp sport != 7000";
        let (node, rules) = match self {
            LinkFault::Loss(percent) => (
                RECEIVER,
                format!(
                    "add chain inet wire in {{ type filter hook prerouting priority -300; }}
add rule inet wire in {spared} meta length > 1000 numgen random mod 100 < {percent} drop"
                ),
            ),
            // The receiver gets the reset in answer to its acknowledgement, and its system sends
            // one to the sender.
            LinkFault::Resets => (
                SENDER,
                format!(
                    "add chain inet wire in {{ type filter hook input priority 0; }}
add rule inet wire in {spared} tcp flags & rst == 0 ct bytes > 5000000 reject with tcp reset"
                ),
            ),
            LinkFault::None | LinkFault::Flapping | LinkFault::OneWay | LinkFault::Frozen => {
                return Ok(());
            }
        };
        lay_rules(cluster, node, &rules)
    }

    /// Starts a temporary fault on a running transfer of this sender, and ends it. A process that
    /// repeats the fault ends it on drop.
    fn strike(
        self,
        cluster: &LabCluster,
        sender: &RunningProcess,
    ) -> Result<Option<RunningProcess>> {
        thread::sleep(BEFORE);
        match self {
            LinkFault::Flapping => {
                let mut shell = cluster.command(RECEIVER, "sh");
                shell.args(["-c", FLAPPING]);
                return cluster.lab().start("flapping", shell).map(Some);
            }
            LinkFault::OneWay => {
                // On any port.
                let deaf = format!(
                    "add chain inet wire in {{ type filter hook prerouting priority -300; }}
add rule inet wire in ip saddr {} drop",
                    cluster::host(SENDER)
                );
                lay_rules(cluster, RECEIVER, &deaf)?;
                thread::sleep(LASTS);
                iperf::inside(cluster, RECEIVER, "nft delete table inet wire")?;
            }
            LinkFault::Frozen => {
                sender.signal(Signal::SIGSTOP)?;
                thread::sleep(LASTS);
                sender.signal(Signal::SIGCONT)?;
            }
            LinkFault::None | LinkFault::Loss(_) | LinkFault::Resets => {}
        }
        Ok(None)
    }
}

/// Installs these rules of the table `wire` in a node's firewall.
fn lay_rules(cluster: &LabCluster, node: u32, rules: &str) -> Result<()> {
    let script = format!("nft -f - <<RULES\nadd table inet wire\n{rules}\nRULES");
    iperf::inside(cluster, node, &script).context("nft does not take the fault's rules")
}
