//! A link that loses packets, has its connections reset, or flaps: what the program gets through it, and what iperf3 does.

use anyhow::{Context, Result};

use super::book::Book;
use super::{Bench, iperf, rows};
use crate::cluster::{Cluster, Transferred};
use crate::contenders::Scenario;
use crate::process::Running;

/// Every packet is one of 1500 bytes here, and there are this many for the machine to move.
const RATE_MBIT: u32 = 500;
const NODES: [u32; 2] = [1, 2];
/// veth carries 64 KiB at once where it may, and whoever drops one of those drops 45.
const SINGLE_PACKETS: &str =
    "ethtool -K eth0 tso off gso off gro off tx off; sysctl -q net.netfilter.nf_conntrack_acct=1";
/// What flaps is gone for a fifth of every second.
const FLAPPING: &str = "while ip link set eth0 down && sleep 0.2 && ip link set eth0 up; do sleep 0.8; done";

/// What is wrong with the link; control connections are spared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// The receiver loses so many of a hundred packets that carry data.
    Loss(u32),
    /// Connections are reset when they have carried 5 MB.
    Resets,
    /// The receiver's NIC goes and comes.
    Flapping,
}

const FAULTS: [Fault; 5] = [Fault::None, Fault::Loss(1), Fault::Loss(5), Fault::Resets, Fault::Flapping];

pub(super) fn run(bench: &Bench, book: &mut Book) -> Result<()> {
    for fault in FAULTS {
        book.now(&fault.title());
        // What one fault did to the daemons is not the next one's matter.
        let cluster = bench.cluster(2, &[RATE_MBIT])?;
        NODES.iter().try_for_each(|&node| iperf::inside(&cluster, node, SINGLE_PACKETS))?;
        let flapping = fault.begin(&cluster)?;
        let work = bench.work(Scenario::MemoryToMemory, &[RATE_MBIT])?;
        let ours = cluster.start("adverse", &rows(&work))?.wait().and_then(|ended| Transferred::of(&ended, work.bytes));
        let theirs = iperf::together(&cluster, bench.options.seconds).map(|rates| rates[0]);
        drop(flapping);
        let title = fault.title();
        match &ours {
            Ok(ours) => book.figure(format!("{title}: ours"), ours.gbit_per_s, "Gbit/s", ours.cost()),
            Err(error) => book.failed(format!("{title}: ours"), error),
        }
        match &theirs {
            Ok(theirs) => book.figure(format!("{title}: iperf3"), *theirs, "Gbit/s", ""),
            // A connection that is gone is all that it has.
            Err(error) => book.figure(format!("{title}: iperf3"), 0.0, "Gbit/s", format!("{error:#}")),
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

impl Fault {
    fn title(self) -> String {
        match self {
            Fault::None => "a whole link".into(),
            Fault::Loss(percent) => format!("{percent} % loss"),
            Fault::Resets => "resets every 5 MB".into(),
            Fault::Flapping => "a flapping NIC".into(),
        }
    }

    /// Begins it; what makes it go on, where that is a process, ends it when it is dropped.
    fn begin(self, cluster: &Cluster) -> Result<Option<Running>> {
        let spared = "tcp dport != 7000 tcp sport != 7000";
        let (node, rules) = match self {
            Fault::None => return Ok(None),
            Fault::Loss(percent) => (
                2,
                format!(
                    "add chain inet wire in {{ type filter hook prerouting priority -300; }}
add rule inet wire in {spared} meta length > 1000 numgen random mod 100 < {percent} drop"
                ),
            ),
            // The receiver is told in answer to what it acknowledges, and its system tells the sender.
            Fault::Resets => (
                1,
                format!(
                    "add chain inet wire in {{ type filter hook input priority 0; }}
add rule inet wire in {spared} tcp flags & rst == 0 ct bytes > 5000000 reject with tcp reset"
                ),
            ),
            Fault::Flapping => {
                let mut shell = cluster.command(2, "sh");
                shell.args(["-c", FLAPPING]);
                return cluster.lab().start("flapping", shell).map(Some);
            }
        };
        let script = format!("nft -f - <<RULES\nadd table inet wire\n{rules}\nRULES");
        iperf::inside(cluster, node, &script).context("nft does not take the fault's rules")?;
        Ok(None)
    }
}
