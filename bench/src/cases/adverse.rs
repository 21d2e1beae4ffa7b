//! A link that loses packets, has its connections reset, flaps, or fails for a while in one direction, and a sender that is
//! frozen for a while: what the program gets through, and what iperf3 does.

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

/// Two seconds in which no data arrives.
const ONE_WAY: &str = "sleep 1; nft -f - <<RULES && sleep 2; nft delete table inet wire
add table inet wire
add chain inet wire in { type filter hook prerouting priority -300; }
add rule inet wire in tcp dport != 7000 tcp sport != 7000 meta length > 1000 drop
RULES";
/// Two seconds in which nothing runs at a node.
const FREEZING: &str = "all() { for pid in $(ip netns pids $(ip netns identify $$)); do
    [ $pid = $$ ] || kill -$1 $pid; done 2>/dev/null; }; sleep 1; all STOP; sleep 2; all CONT";

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
    /// For a while the receiver gets no data.
    OneWay,
    /// For a while the sender does nothing.
    Frozen,
}

const FAULTS: [Fault; 7] =
    [Fault::None, Fault::Loss(1), Fault::Loss(5), Fault::Resets, Fault::Flapping, Fault::OneWay, Fault::Frozen];

pub(super) fn run(bench: &Bench, book: &mut Book) -> Result<()> {
    for fault in FAULTS {
        book.now(&fault.title());
        // What one fault did to the daemons is not the next one's matter.
        let cluster = bench.cluster(2, &[RATE_MBIT])?;
        NODES.iter().try_for_each(|&node| iperf::inside(&cluster, node, SINGLE_PACKETS))?;
        fault.lay(&cluster)?;
        let work = bench.work(Scenario::MemoryToMemory, &[RATE_MBIT])?;
        let trouble = fault.begin(&cluster)?;
        let ours = cluster.start("adverse", &rows(&work))?.wait().and_then(|ended| Transferred::of(&ended, work.bytes));
        drop(trouble);
        let trouble = fault.begin(&cluster)?;
        let theirs = iperf::together(&cluster, bench.options.seconds).map(|rates| rates[0]);
        drop(trouble);
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
            Fault::OneWay => "one direction fails for 2 s".into(),
            Fault::Frozen => "the sender is frozen for 2 s".into(),
        }
    }

    /// Lays what is there from the beginning.
    fn lay(self, cluster: &Cluster) -> Result<()> {
        let spared = "tcp dport != 7000 tcp sport != 7000";
        let (node, rules) = match self {
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
            Fault::None | Fault::Flapping | Fault::OneWay | Fault::Frozen => return Ok(()),
        };
        let script = format!("nft -f - <<RULES\nadd table inet wire\n{rules}\nRULES");
        iperf::inside(cluster, node, &script).context("nft does not take the fault's rules")
    }

    /// Begins what comes and goes; it ends when it is dropped.
    fn begin(self, cluster: &Cluster) -> Result<Option<Running>> {
        let (node, script) = match self {
            Fault::Flapping => (2, FLAPPING),
            Fault::OneWay => (2, ONE_WAY),
            Fault::Frozen => (1, FREEZING),
            Fault::None | Fault::Loss(_) | Fault::Resets => return Ok(None),
        };
        let mut shell = cluster.command(node, "sh");
        shell.args(["-c", script]);
        cluster.lab().start("trouble", shell).map(Some)
    }
}
