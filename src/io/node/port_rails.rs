//! The rails of one thread of a NIC: started when a transfer needs one, kept for some seconds after
//! the last one, ended then.

use std::time::{Duration, Instant};

use affinity::{CpuClaim, CpuClaims};

use crate::core::error::Result;
use crate::core::piece::TransferIx;
use crate::core::rail::TransferCommand;
use crate::io::clock::{Clock, awake};
use crate::io::rail::{RailCommand, RailHandle, RailPlacement, RailSize, ReportSender};

/// Time that a rail without a transfer is kept. Its slots are locked memory that took longer to
/// make than a small transfer takes; a node at rest is small.
const KEPT: Duration = Duration::from_secs(5);
/// Slots that are larger may be fewer than a transfer asks for, by this factor.
const FEWER: u32 = 4;

/// The rails of one thread of a NIC.
pub(super) struct PortRails {
    /// CPUs that a rail may be pinned to, the best one first.
    cpus: Vec<usize>,
    /// The memory node of the NIC, where that is known.
    numa: Option<u32>,
    /// Blocks are powers of two from 4 KiB to 64 MiB, and a rail has few slots or all: there are
    /// thirty at most.
    rails: Vec<PortRail>,
    /// Rails that were started here.
    started: u32,
}

/// A rail of a port: a number that is never used twice there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RailSerial(u32);

/// A rail and its transfers.
struct PortRail {
    rail: RailHandle,
    serial: RailSerial,
    size: RailSize,
    /// The transfers that it works for.
    transfers: Vec<TransferIx>,
    /// The instant at which the last transfer left, while there is none.
    idle_since: Option<Instant>,
    /// The CPU that it is pinned to, which other nodes of this machine avoid meanwhile.
    _cpu: Option<CpuClaim>,
}

impl PortRail {
    /// Returns true if its slots hold the blocks of a transfer, and are as many as it needs. Larger
    /// slots may be fewer: a transfer with small blocks needs no rail of its own.
    fn fits(&self, size: RailSize) -> bool {
        let bytes = |size: RailSize| u64::from(size.slots) * size.block_bytes;
        let are_enough = self.size.slots >= size.slots
            || (self.size.slots >= size.slots / FEWER && bytes(self.size) >= bytes(size));
        self.size.block_bytes >= size.block_bytes && are_enough
    }
}

impl PortRails {
    /// None yet, for a NIC at this memory node.
    pub(super) fn new(cpus: Vec<usize>, numa: Option<u32>) -> PortRails {
        PortRails { cpus, numa, rails: Vec::new(), started: 0 }
    }

    /// Returns the memory node of the NIC.
    pub(super) fn numa(&self) -> Option<u32> {
        self.numa
    }

    /// Returns the rail for a transfer: the smallest one that fits, started if there is none.
    /// Transfers with smaller blocks that are under way keep theirs.
    ///
    /// # Errors
    /// Those of [`RailHandle::spawn`].
    pub(super) fn rail_for<R: ReportSender>(
        &mut self,
        transfer: TransferIx,
        clock: Clock,
        size: RailSize,
        reports: impl FnOnce(RailSerial) -> R,
    ) -> Result<&RailHandle> {
        let fitting = self.rails.iter().enumerate().filter(|(_, it)| it.fits(size));
        let smallest = fitting.min_by_key(|(_, it)| (it.size.block_bytes, it.size.slots));
        let at = match smallest {
            Some((at, _)) => at,
            None => {
                self.started += 1;
                let serial = RailSerial(self.started);
                let cpu = CpuClaims::default().claim(&self.cpus);
                let place = RailPlacement { cpu: cpu.as_ref().map(CpuClaim::cpu), numa: self.numa };
                let rail = RailHandle::spawn(clock, size, place, reports(serial))?;
                let (transfers, idle_since) = (Vec::new(), None);
                let rail = PortRail { rail, serial, size, transfers, idle_since, _cpu: cpu };
                self.rails.push(rail);
                self.rails.len() - 1
            }
        };
        let rail = &mut self.rails[at];
        rail.transfers.push(transfer);
        rail.idle_since = None;
        Ok(&rail.rail)
    }

    /// Returns true if a transfer is on a rail here.
    #[cfg(test)]
    pub(super) fn has(&self, transfer: TransferIx) -> bool {
        self.rails.iter().any(|it| it.transfers.contains(&transfer))
    }

    /// A rail has failed: the next transfer gets another one. Gives it, and the transfers that
    /// were on it.
    pub(super) fn remove_failed(
        &mut self,
        serial: RailSerial,
    ) -> Option<(RailHandle, Vec<TransferIx>)> {
        let at = self.rails.iter().position(|it| it.serial == serial)?;
        let PortRail { rail, transfers, .. } = self.rails.swap_remove(at);
        Some((rail, transfers))
    }

    /// Tells the rail that a transfer is on. Where there is none any more nobody hears it, and a
    /// socket in it is closed.
    pub(super) fn tell(&self, transfer: TransferIx, command: RailCommand) {
        if let Some(rail) = self.rails.iter().find(|it| it.transfers.contains(&transfer)) {
            rail.rail.tell(command);
        }
    }

    /// Has the rail that a transfer is on do something for it.
    pub(super) fn command(&self, transfer: TransferIx, command: TransferCommand) {
        self.tell(transfer, RailCommand::Transfer { transfer, command });
    }

    /// A transfer is over. The rail that it was on is idle if no other transfer is on it.
    pub(super) fn leave(&mut self, transfer: TransferIx) {
        self.command(transfer, TransferCommand::Leave);
        for rail in self.rails.iter_mut().filter(|it| it.transfers.contains(&transfer)) {
            rail.transfers.retain(|other| *other != transfer);
            rail.idle_since = rail.transfers.is_empty().then(awake);
        }
    }

    /// The instant at which the first idle rail is to be ended.
    pub(super) fn due(&self) -> Option<Instant> {
        self.rails.iter().filter_map(|it| it.idle_since).min().map(|since| since + KEPT)
    }

    /// Takes out the rails that are to be ended: those that were idle for long, and all idle ones
    /// that are in the way of a transfer whose rail would be another one. Dropping a rail waits for
    /// its thread.
    pub(super) fn take_idle(&mut self, now: Instant, wanted: Option<RailSize>) -> Vec<RailHandle> {
        let unfit = |it: &PortRail| wanted.is_some_and(|size| !it.fits(size));
        let is_over =
            |it: &mut PortRail| it.idle_since.is_some_and(|since| now >= since + KEPT || unfit(it));
        self.rails.extract_if(.., is_over).map(|it| it.rail).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use crossbeam_channel::Sender;

    use super::*;
    use crate::core::error::Code;
    use crate::core::rail::RailNotice;

    const SIZE: RailSize = RailSize { slots: 2, receives: false, sends: false, block_bytes: 4096 };

    #[test]
    fn a_rail_is_kept_for_the_next_transfer_and_ended_once_none_has_come() {
        let mut rails = PortRails::new(Vec::new(), None);
        let mut started = 0;
        let mut join = |rails: &mut PortRails, transfer, size| {
            let (sender, _) = crossbeam_channel::unbounded();
            let reports = |_| {
                started += 1;
                Panicking(sender, Arc::default())
            };
            rails.rail_for(transfer, Clock::start(), size, reports).expect("a rail");
            started
        };
        assert_eq!(join(&mut rails, TransferIx(1), SIZE), 1);
        assert_eq!(rails.due(), None, "it works");
        rails.leave(TransferIx(1));
        let due = rails.due().expect("it is idle");
        assert!(rails.take_idle(due - Duration::from_millis(1), None).is_empty());
        assert_eq!(join(&mut rails, TransferIx(2), SIZE), 1, "the same one");
        assert!(rails.take_idle(due, None).is_empty(), "it works again");
        rails.leave(TransferIx(2));
        // A transfer with larger blocks cannot use it; it gives its memory back at once.
        let larger = RailSize { block_bytes: 8192, ..SIZE };
        assert!(rails.take_idle(awake(), Some(SIZE)).is_empty());
        assert_eq!(rails.take_idle(awake(), Some(larger)).len(), 1);
        assert_eq!(join(&mut rails, TransferIx(3), larger), 2);
        assert_eq!(join(&mut rails, TransferIx(4), SIZE), 2, "its slots hold them as well");
        rails.leave(TransferIx(3));
        assert_eq!(rails.due(), None, "the other one is still on");
        let many = |slots| RailSize { slots, ..SIZE };
        assert_eq!(join(&mut rails, TransferIx(5), many(4)), 2, "fewer of them, and as many bytes");
        assert_eq!(join(&mut rails, TransferIx(6), many(8)), 3, "too few");
        rails.leave(TransferIx(5));
        rails.leave(TransferIx(6));
        assert_eq!(rails.take_idle(awake() + 2 * KEPT, None).len(), 1);
        rails.leave(TransferIx(4));
        let due = rails.due().expect("it is idle");
        assert_eq!(rails.take_idle(due, None).len(), 1);
        assert_eq!(rails.due(), None);
    }

    /// Takes reports in, and panics in the rail's thread at the first of them if it is told to.
    #[derive(Clone)]
    struct Panicking(Sender<RailNotice>, Arc<AtomicBool>);

    impl ReportSender for Panicking {
        fn deliver(&self, reports: &mut VecDeque<RailNotice>) {
            assert!(!self.1.swap(false, Ordering::Relaxed), "as a test");
            reports.drain(..).for_each(|report| self.0.send(report).expect("the test listens"));
        }
    }

    /// A rail that panicked said nothing, and the next transfer joined what was left of it.
    #[test]
    fn a_rail_that_panics_says_so_and_the_next_transfer_gets_a_new_one() {
        let mut port = PortRails::new(Vec::new(), None);
        let (sender, reports) = crossbeam_channel::unbounded();
        let panics = Arc::new(AtomicBool::new(true));
        let mut serials = Vec::new();
        let mut join = |port: &mut PortRails, transfer| {
            let reports = |serial| {
                serials.push(serial);
                Panicking(sender.clone(), Arc::clone(&panics))
            };
            port.rail_for(transfer, Clock::start(), SIZE, reports).expect("a rail");
            port.command(transfer, TransferCommand::Drain);
        };
        let heard = || reports.recv_timeout(Duration::from_secs(20)).expect("it says something");
        let (first, second, third) = (TransferIx(1), TransferIx(2), TransferIx(3));
        join(&mut port, first);
        let failed = heard();
        assert!(
            matches!(&failed, RailNotice::Failed { error } if error.code == Code::Internal),
            "{failed:?}"
        );
        // One that comes before the failure is heard of is on the old rail as well.
        join(&mut port, second);
        let (_, transfers) = port.remove_failed(RailSerial(1)).expect("it is known");
        assert_eq!(transfers, [first, second]);
        assert!(!port.has(first) && port.remove_failed(RailSerial(1)).is_none());
        join(&mut port, third);
        assert!(matches!(heard(), RailNotice::Drained { transfer } if transfer == third));
        assert_eq!(serials, [RailSerial(1), RailSerial(2)]);
    }
}
