//! A link that loses packets, has its connections reset, flaps, or fails for a while in one
//! direction, and a sender that is frozen for a while: what the program gets through, and what
//! iperf3 does with as many bytes.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::book::BenchResults;
use super::{CaseFixture, iperf, rows};
use crate::cluster::{self, CompletedTransfer, LabCluster};
use crate::contenders::{BenchScenario, WorkItem};
use crate::process::RunningProcess;

/// Every packet is one of 1500 bytes here, and there are this many for the machine to move.
const RATE_MBIT: u32 = 500;
const SENDER: u32 = 1;
const RECEIVER: u32 = 2;
/// veth carries 64 KiB at once where it may, and whoever drops one of those drops 45.
const SINGLE_PACKETS: &str =
    "ethtool -K eth0 tso off gso off gro off tx off; sysctl -q net.netfilter.nf_conntrack_acct=1";
/// What flaps is gone for a fifth of every second.
const FLAPPING: &str =
    "while ip link set eth0 down && sleep 0.2 && ip link set eth0 up; do sleep 0.8; done";
/// When a fault that comes later comes, and how long one lasts that goes again: longer than a flow
/// may be silent.
const BEFORE: Duration = Duration::from_secs(1);
const LASTS: Duration = Duration::from_secs(2);

/// What is wrong with the link or its ends. What spoils single packets spares control connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LinkFault {
    None,
    /// The receiver loses so many of a hundred packets that carry data.
    Loss(u32),
    /// Connections are reset when they have carried 5 MB.
    Resets,
    /// The receiver's NIC goes and comes.
    Flapping,
    /// For a while nothing of what the sender sends arrives.
    OneWay,
    /// For a while the sender does nothing.
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
        // What one fault did to the daemons is not the next one's matter.
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
                book.figure(format!("{title}: ours"), ours.gbit_per_s, "Gbit/s", ours.cost())
            }
            Err(error) => book.failed(format!("{title}: ours"), error),
        }
        match &theirs {
            Ok(theirs) => book.figure(format!("{title}: iperf3"), *theirs, "Gbit/s", ""),
            // A connection that is gone is all that it has.
            Err(error) => {
                book.figure(format!("{title}: iperf3"), 0.0, "Gbit/s", format!("{error:#}"))
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

/// The Gbit/s of iperf3.
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

    /// Lays what is there from the beginning.
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
            // The receiver is told in answer to what it acknowledges, and its system tells the
            // sender.
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

    /// Lets what comes later come to a transfer whose sender this is, and go again where it does.
    /// What makes it go on, where that is a process, ends it when it is dropped.
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
                // On whatever port.
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

/// Makes a node's firewall follow these rules of the table `wire`.
fn lay_rules(cluster: &LabCluster, node: u32, rules: &str) -> Result<()> {
    let script = format!("nft -f - <<RULES\nadd table inet wire\n{rules}\nRULES");
    iperf::inside(cluster, node, &script).context("nft does not take the fault's rules")
}
