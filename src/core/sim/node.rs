//! One simulated node: the machine of a real one, with the rails, workers and sessions that it
//! gives orders to.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use super::context::SimContext;
use super::disk::{SimDisk, VoidDisk};
use super::messages::{SessionClose, SessionEnd, SessionRef, SimEvent, SimOpening};
use super::rails::SimRails;
use super::transfer::SimTransfer;
use super::workers::{SimWorkers, WorkerTask};
use super::world::{MasterIx, SimEndpoint};
use crate::core::node::machine::{
    JobAnswer, LEASE, MasterOrigin, NodeAction, NodeEvent, NodeJob, NodeMachine, SessionIx,
};
use crate::core::node::participant::ParticipantState;
use crate::core::piece::TransferIx;
use crate::core::rail::RailNotice;
use crate::core::receiver::scheduler::SchedulerEvent;
use crate::core::units::{Moment, NodeIx};
use crate::core::wire::control::{self, Prepare, ToMaster, ToNode};

/// Interval at which a worker that reads for long says how far it is.
const READING_EVERY: Duration = Duration::from_secs(10);

/// Gives each attempt of a node its files.
pub(crate) type DiskOpener = Box<dyn FnMut() -> Box<dyn SimDisk>>;

/// State of a node's process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NodeFate {
    Running,
    /// It has ended in good order.
    Exited,
    /// It was killed, or its machine has lost its power.
    Killed,
}

/// A node.
pub(super) struct SimNode {
    node: NodeIx,
    machine: NodeMachine,
    launched: bool,
    pub(super) rails: SimRails,
    workers: SimWorkers,
    open_disk: DiskOpener,
    fate: NodeFate,
    /// The sessions that its machine knows, and the transfers that they are for.
    sessions: BTreeMap<SessionIx, (SessionRef, Option<TransferIx>)>,
    /// Counted messages of each master that have been applied.
    applied: BTreeMap<MasterIx, u32>,
    /// Masters that have said good-bye.
    dismissed_by: BTreeSet<MasterIx>,
    /// True while rails end.
    is_resting: bool,
    /// Time for which a worker that opens files reads them.
    reads_for: Duration,
}

impl SimNode {
    pub(super) fn new(node: NodeIx, rail_count: usize, launched: bool) -> SimNode {
        let nics = vec!["sim0".to_owned(); rail_count];
        SimNode {
            node,
            machine: NodeMachine::new(Moment(0), nics, launched),
            launched,
            rails: SimRails::new(node),
            workers: SimWorkers::default(),
            open_disk: Box::new(|| Box::new(VoidDisk)),
            fate: NodeFate::Running,
            sessions: BTreeMap::new(),
            applied: BTreeMap::new(),
            dismissed_by: BTreeSet::new(),
            is_resting: false,
            reads_for: Duration::ZERO,
        }
    }

    #[cfg(test)]
    pub(super) fn set_disks(&mut self, open_disk: DiskOpener) {
        self.open_disk = open_disk;
    }

    /// Workers that open files read them for so long.
    #[cfg(test)]
    pub(super) fn read_for(&mut self, reads_for: Duration) {
        self.reads_for = reads_for;
    }

    pub(super) fn is_running(&self) -> bool {
        self.fate == NodeFate::Running
    }

    /// Returns true if it lives, or ended in good order, and has heard the good-bye of a master.
    pub(super) fn has_heard_out(&self, master: MasterIx) -> bool {
        self.fate != NodeFate::Killed && self.dismissed_by.contains(&master)
    }

    /// The attempt with this name, also if it is over.
    pub(super) fn find(&self, attempt: &[u8; 16]) -> Option<(TransferIx, &SimTransfer)> {
        let mut transfers = self.rails.transfers.iter();
        let found = transfers.find(|(_, it)| it.prepare.attempt == *attempt);
        found.map(|(&transfer, it)| (transfer, it))
    }

    /// The attempt of a transfer, as long as it is under way.
    pub(super) fn at_work(&self, transfer: TransferIx) -> Option<&SimTransfer> {
        let transfer = self.rails.transfers.get(&transfer);
        transfer.filter(|it| !it.is_over && self.is_running())
    }

    /// Returns a part of the node, but for its workers, that holds anything although no master is
    /// left.
    pub(super) fn held(&self) -> Option<&'static str> {
        let disks = || self.rails.transfers.values().any(|it| it.disk.is_some());
        match self.fate {
            NodeFate::Killed | NodeFate::Exited => None,
            NodeFate::Running if !self.machine.is_idle() => Some("a session or an attempt"),
            NodeFate::Running if !self.rails.is_idle() => Some("a rail"),
            NodeFate::Running if disks() => Some("files"),
            NodeFate::Running => self.launched.then_some("its process"),
        }
    }

    /// Returns true if a worker has not done its work.
    pub(super) fn has_work(&self) -> bool {
        !self.workers.is_idle()
    }

    /// Hands an event to the machine, and carries out what follows.
    pub(super) fn handle(&mut self, cx: &mut SimContext, event: NodeEvent) {
        if self.is_running() {
            self.tell(cx.now(), event);
            self.follow(cx);
        }
    }

    fn tell(&mut self, now: Moment, event: NodeEvent) {
        self.machine.handle(now, event);
        for (&transfer, state) in self.rails.transfers.iter_mut().filter(|(_, it)| !it.is_over) {
            state.state = self.machine.state(transfer);
        }
    }

    /// A master's session stands.
    pub(super) fn session_up(&mut self, cx: &mut SimContext, session: SessionRef) {
        self.sessions.insert(session.session, (session, None));
        self.handle(
            cx,
            NodeEvent::SessionUp { session: session.session, origin: MasterOrigin::default() },
        );
    }

    /// A master's message arrives.
    ///
    /// # Panics
    /// If it is not the one that follows the last: one was passed over, or is told again.
    pub(super) fn hear(
        &mut self,
        cx: &mut SimContext,
        session: SessionRef,
        index: Option<u32>,
        message: ToNode,
    ) {
        if let ToNode::Resume(resume) = &message {
            cx.sessions.resumes(session, *resume);
        }
        if let Some(index) = index {
            let applied = self.applied.entry(session.master).or_default();
            let what = "the message of a master that node";
            assert_eq!(index, *applied, "{what} {} is told, and those applied", self.node.0);
            *applied += 1;
        }
        self.handle(cx, NodeEvent::Message { session: session.session, message });
    }

    /// The other end of a session is closed.
    pub(super) fn session_closed(
        &mut self,
        cx: &mut SimContext,
        session: SessionRef,
        close: SessionClose,
    ) {
        let in_order = match close {
            SessionClose::Reset => return self.session_broken(cx, session),
            SessionClose::GoodBye => true,
            SessionClose::Closed => false,
        };
        if cx.sessions.is_open(session, SessionEnd::Node) {
            // It stays until the machine closes it: that tells the master something.
            cx.sessions.leave(session, SessionEnd::Node);
            if in_order {
                self.dismissed_by.insert(session.master);
            }
            self.handle(cx, NodeEvent::Closed { session: session.session, in_order });
        }
    }

    /// A session breaks at this end.
    pub(super) fn session_broken(&mut self, cx: &mut SimContext, session: SessionRef) {
        let was_open = cx.sessions.is_open(session, SessionEnd::Node);
        let (end, close) = (SessionEnd::Node, SessionClose::Reset);
        cx.sessions.shut(&mut cx.schedule, session, end, close);
        self.sessions.remove(&session.session);
        if was_open {
            self.handle(cx, NodeEvent::SessionBroken { session: session.session });
        }
    }

    /// A worker has had its time: its work is done now.
    pub(super) fn job_done(&mut self, cx: &mut SimContext, job: u64) {
        let Some(job) = self.workers.take(job) else { return };
        let (transfer, answer) = (job.transfer, job.run());
        if !self.is_running() {
            return;
        }
        let state = self.rails.transfer(transfer);
        match (&answer, job.job()) {
            // It may be over by now.
            (JobAnswer::Opened(_), _) if state.is_over => return,
            (JobAnswer::Opened(Ok(opened)), _) => {
                state.found = opened.found.clone().unwrap_or_default();
            }
            (JobAnswer::Preallocated(Ok(())), Some(NodeJob::Preallocate(room))) => {
                state.begin(&room.wanted, &room.holes, &room.kept);
            }
            (JobAnswer::Extended(Ok(())), Some(NodeJob::Extend { wanted, holes })) => {
                state.begin(wanted, holes, &[]);
            }
            _ => {}
        }
        self.handle(cx, NodeEvent::Worker { transfer, answer });
    }

    /// Carries out all that the machines want, until they want nothing.
    pub(super) fn follow(&mut self, cx: &mut SimContext) {
        while self.is_running() {
            if let Some((port, notice)) = self.rails.poll_notice() {
                self.notice(cx, port, notice);
            } else if let Some(action) = self.machine.poll_action() {
                self.carry_out(cx, action);
            } else if !self.rails.act(cx) {
                break;
            }
        }
        self.rails.check_slots();
        if self.rails.remove_idle() && std::mem::take(&mut self.is_resting) {
            let delay = cx.disk_seconds(0);
            cx.after(delay, SimEvent::Node(self.node, NodeEvent::RailsEnded));
        }
        self.check_told(cx);
    }

    /// On every session of an attempt all has been told that the machine has to tell.
    fn check_told(&mut self, cx: &SimContext) {
        for (session, transfer) in self.sessions.values() {
            let told = transfer.and_then(|transfer| self.machine.told_count(transfer));
            let next = cx.sessions.next(*session, SessionEnd::Node);
            if let (Some(told), Some(next)) = (told, next) {
                let node = self.node.0;
                assert_eq!(next, told, "messages that node {node} has told its master, and has");
            }
        }
    }

    /// A rail tells the control thread something.
    fn notice(&mut self, cx: &mut SimContext, port: usize, notice: RailNotice) {
        let event = match notice {
            RailNotice::Scheduler { transfer, event } => {
                if let SchedulerEvent::FlowDown { flow, .. } = &event {
                    self.rails.transfer(transfer).flows.remove(flow);
                }
                NodeEvent::Flow { transfer, event }
            }
            RailNotice::Broken { transfer, error } => NodeEvent::Broken { transfer, error },
            RailNotice::Drained { transfer } => {
                let drained = NodeEvent::Drained { transfer, rail: port };
                return cx.after(Duration::ZERO, SimEvent::Node(self.node, drained));
            }
            RailNotice::Failed { .. } => unreachable!("no simulated rail fails"),
        };
        self.tell(cx.now(), event);
    }

    fn carry_out(&mut self, cx: &mut SimContext, action: NodeAction) {
        let now = cx.now();
        match action {
            NodeAction::Begin { transfer, session, prepare, rails } => {
                self.begin(cx, transfer, session, *prepare, rails);
            }
            NodeAction::Quit { transfer } => {
                if let Some(job) = self.workers.opening(transfer) {
                    let delay = cx.disk_seconds(0);
                    cx.after(delay, SimEvent::JobDone { node: self.node, job });
                }
            }
            NodeAction::Join { transfer } => {
                self.rails.join(transfer);
                self.tell(now, NodeEvent::Joined { transfer, result: Ok(()) });
            }
            NodeAction::Plan { transfer, start } => self.rails.transfer(transfer).plan(&start),
            NodeAction::Work { transfer, job } => self.work(cx, transfer, job),
            NodeAction::OpenFlow { transfer, rail_pair, weight, .. } => {
                let opening = SimOpening { receiver: self.node, transfer, rail_pair, weight };
                cx.after(3 * cx.world.latency, SimEvent::FlowOpened(opening));
            }
            NodeAction::Flow { transfer, command } => {
                self.rails.flow_command(now, transfer, command);
            }
            NodeAction::Rails { transfer, command } => {
                self.rails.command_all(now, transfer, &command);
            }
            NodeAction::CountMoved { transfer } => self.count_moved(now, transfer),
            NodeAction::Complete { transfer, mut message } => {
                if let ToMaster::Progress { sent_bytes, .. } = &mut message {
                    *sent_bytes = self.rails.transfers[&transfer].sent_bytes;
                }
                self.tell(now, NodeEvent::Completed { transfer, message });
            }
            NodeAction::Send { session, message } => self.send(cx, session, &message),
            NodeAction::CloseSession { session } => {
                if let Some((session, _)) = self.sessions.remove(&session) {
                    let (end, close) = (SessionEnd::Node, SessionClose::Closed);
                    cx.sessions.shut(&mut cx.schedule, session, end, close);
                }
            }
            NodeAction::Forget { transfer, keeps_files, .. } => {
                self.forget(cx, transfer, keeps_files);
            }
            NodeAction::Release { transfer } => self.rails.transfer(transfer).disk = None,
            NodeAction::Survey { .. } | NodeAction::EndSurvey { .. } => {
                unreachable!("simulated masters know the paths")
            }
            NodeAction::Call { .. } => unreachable!("simulated nodes are reached"),
            NodeAction::Exit => self.end(cx, NodeFate::Exited),
        }
    }

    fn begin(
        &mut self,
        cx: &mut SimContext,
        transfer: TransferIx,
        session: SessionIx,
        prepare: Prepare,
        ports: Vec<usize>,
    ) {
        if let Some((session, of)) = self.sessions.get_mut(&session) {
            *of = Some(transfer);
            cx.sessions.bind(*session, SessionEnd::Node, 0);
        }
        let disk = Rc::new(RefCell::new((self.open_disk)()));
        let state = SimTransfer::new(cx.now(), prepare.clone(), Rc::clone(&disk), ports);
        self.rails.transfers.insert(transfer, state);
        let job = self.workers.begin(transfer, disk, WorkerTask::Open(Box::new(prepare)));
        let mut reads_for = Duration::ZERO;
        while reads_for + READING_EVERY < self.reads_for {
            reads_for += READING_EVERY;
            let reading = NodeEvent::Reading { transfer, read_bytes: reads_for.as_secs() };
            cx.after(reads_for, SimEvent::Node(self.node, reading));
        }
        let delay = self.reads_for + cx.disk_seconds(0);
        cx.after(delay, SimEvent::JobDone { node: self.node, job });
    }

    /// Has a worker do something with the files of a transfer.
    fn work(&mut self, cx: &mut SimContext, transfer: TransferIx, job: NodeJob) {
        let now = cx.now();
        let state = self.rails.transfer(transfer);
        let disk = Rc::clone(state.disk.as_ref().expect("what has files is worked for"));
        match &job {
            NodeJob::Keep { pieces } => disk.borrow_mut().keep(pieces),
            NodeJob::Commit { .. } => _ = state.committed.get_or_insert(now),
            _ => {}
        }
        let job = self.workers.begin(transfer, disk, WorkerTask::Job(job));
        let delay = cx.disk_seconds(0);
        cx.after(delay, SimEvent::JobDone { node: self.node, job });
    }

    /// Says how many bytes have moved of an attempt without a master.
    ///
    /// # Panics
    /// If it is given up although bytes have moved within its lease.
    fn count_moved(&mut self, now: Moment, transfer: TransferIx) {
        let Some(state) = self.rails.transfers.get(&transfer) else { return };
        let (moved_bytes, moved_at) = (state.moved_bytes(), state.moved_at);
        let was_moving = self.machine.state(transfer) == Some(ParticipantState::Moving);
        self.tell(now, NodeEvent::Moved { transfer, moved_bytes });
        let is_moving = self.machine.state(transfer) == Some(ParticipantState::Moving);
        if was_moving && !is_moving && !self.launched {
            let idle = now.since(moved_at);
            assert!(idle >= LEASE, "given up without a master although bytes moved {idle:?} ago");
        }
    }

    fn send(&mut self, cx: &mut SimContext, session: SessionIx, message: &[u8]) {
        let message = control::decode::<ToMaster>(message).expect("nodes speak the protocol");
        let Some(&(session, _)) = self.sessions.get(&session) else { return };
        if let ToMaster::Resumed { .. } = message {
            let resume = cx.sessions.take_resume(session).expect("it answers a resume");
            let transfer = self.find(&resume.attempt).map(|(transfer, _)| transfer);
            self.sessions.insert(session.session, (session, transfer));
            cx.sessions.bind(session, SessionEnd::Node, resume.heard);
        }
        cx.sessions.send_to_master(&mut cx.schedule, session, message);
    }

    fn forget(&mut self, cx: &mut SimContext, transfer: TransferIx, keeps_files: bool) {
        drop(self.machine.take_remains());
        let ends_rails = self.rails.leave(cx.now(), transfer);
        let state = self.rails.transfer(transfer);
        state.is_over = true;
        state.state = None;
        if !keeps_files {
            state.disk = None;
        }
        if ends_rails {
            self.is_resting = true;
            self.tell(cx.now(), NodeEvent::RailsEnding);
        }
    }

    /// Returns the moment at which a machine is due.
    pub(super) fn poll_timeout(&self) -> Option<Moment> {
        let due = self.machine.poll_timeout().into_iter().chain(self.rails.poll_timeout()).min();
        due.filter(|_| self.is_running())
    }

    pub(super) fn tick(&mut self, cx: &mut SimContext) {
        let now = cx.now();
        self.rails.tick(now);
        if self.machine.poll_timeout().is_some_and(|due| now >= due) {
            self.tell(now, NodeEvent::Tick);
        }
        self.follow(cx);
    }

    /// The process ends.
    pub(super) fn end(&mut self, cx: &mut SimContext, fate: NodeFate) {
        self.fate = fate;
        let place = SimEndpoint::Node(self.node);
        let is_off = cx.reach.is_off(place);
        self.rails.end(cx, is_off);
        for session in cx.sessions.of(place) {
            if is_off {
                cx.sessions.vanish(session, SessionEnd::Node);
                cx.sessions.watch(&mut cx.schedule, session);
            } else {
                let (end, close) = (SessionEnd::Node, SessionClose::Closed);
                cx.sessions.shut(&mut cx.schedule, session, end, close);
            }
        }
        let disks = self.rails.transfers.values_mut().filter_map(|it| it.disk.take());
        if fate == NodeFate::Killed {
            disks.for_each(|disk| disk.borrow_mut().crash());
            self.workers.crash();
        } else {
            disks.for_each(drop);
        }
    }
}
