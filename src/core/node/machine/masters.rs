//! The sessions of a node's masters: what they say, what becomes of an attempt whose session ends,
//! and how another session or another attempt takes its place.

use super::attempt::{Attempt, AttemptFiles, MasterLink};
use super::jobs::{JobKind, NodeJob};
use super::lease::MasterLease;
use super::{NodeAction, NodeMachine, SessionIx};
use crate::core::error::{Code, Error};
use crate::core::node::participant::ParticipantEvent;
use crate::core::piece::TransferIx;
use crate::core::rail::TransferCommand;
use crate::core::units::{Moment, NodeIx};
use crate::core::wire::control::{
    self, NodeStats, Prepare, ResumeSession, Start, ToMaster, ToNode,
};

impl NodeMachine {
    pub(super) fn session_up(&mut self, session: SessionIx) {
        self.sessions.insert(session, None);
        self.alone_since = None;
    }

    pub(super) fn message(&mut self, now: Moment, session: SessionIx, message: ToNode) {
        let Some(&transfer) = self.sessions.get(&session) else { return };
        if let Some(attempt) = transfer.and_then(|transfer| self.attempts.get_mut(&transfer)) {
            attempt.replay.hear();
        }
        match (message, transfer) {
            (ToNode::MakeWay { id }, None) => self.make_way(now, &id),
            (ToNode::Prepare(prepare), None) => self.begin(now, session, prepare),
            (ToNode::Resume(resume), None) => self.resume(session, &resume),
            (ToNode::Start(start), Some(transfer)) => self.start(now, transfer, start),
            (message, Some(transfer)) => {
                self.participant(now, transfer, ParticipantEvent::Master(message));
            }
            (ToNode::Cancel { .. } | ToNode::Finish, None) => self.leave_line(session),
            // There is no transfer yet that it could mean.
            (_, None) => {}
        }
    }

    /// A master ends an attempt that waits for an earlier one: it never begins.
    fn leave_line(&mut self, session: SessionIx) {
        let waited = self.waiting.len();
        self.waiting.retain(|(of, _)| *of != session);
        if self.waiting.len() < waited {
            self.say(session, &ToMaster::Report(NodeStats::default()));
        }
    }

    fn start(&mut self, now: Moment, transfer: TransferIx, start: Start) {
        let Some(attempt) = self.attempts.get_mut(&transfer) else { return };
        let names = start.peers.iter().map(|peer| (NodeIx(peer.index), peer.name.clone()));
        attempt.names.extend(names);
        if !attempt.is_over() {
            let start = Box::new(start.clone());
            let spans = start.relays.clone();
            self.actions.push_back(NodeAction::Plan { transfer, start });
            self.tell_rails(transfer, TransferCommand::Relay { spans });
        }
        self.participant(now, transfer, ParticipantEvent::Master(ToNode::Start(start)));
    }

    /// A master prepares a transfer. An earlier attempt at it whose master is gone ends first: it
    /// must not touch files that this one makes.
    fn begin(&mut self, now: Moment, session: SessionIx, prepare: Prepare) {
        self.make_way(now, &prepare.id);
        if self.attempts.values().any(|attempt| attempt.is_in_the_way(&prepare.id)) {
            return self.waiting.push((session, prepare));
        }
        let transfer = TransferIx(self.next_transfer);
        self.next_transfer += 1;
        let rails =
            prepare.options.transfer.rails(&prepare.nics, self.nics.iter().map(String::as_str));
        let mut attempt = Attempt::new(session, &prepare, &rails);
        attempt.wait_for(now, JobKind::Open);
        self.attempts.insert(transfer, attempt);
        self.sessions.insert(session, Some(transfer));
        let prepare = Box::new(prepare);
        self.actions.push_back(NodeAction::Begin { transfer, session, prepare, rails });
    }

    /// Begins the attempts whose way is free by now.
    pub(super) fn begin_waiting(&mut self, now: Moment) {
        for (session, prepare) in std::mem::take(&mut self.waiting) {
            if self.sessions.contains_key(&session) {
                self.begin(now, session, prepare);
            }
        }
    }

    /// Ends attempts at the transfer `id` whose master is gone.
    fn make_way(&mut self, now: Moment, id: &str) {
        // Files are open as long as they are remembered, and the next attempt may want them.
        for (&transfer, attempt) in &mut self.attempts {
            if attempt.files == AttemptFiles::Remembered && attempt.link.session().is_none() {
                attempt.files = AttemptFiles::Closed;
                self.actions.push_back(NodeAction::Release { transfer });
            }
        }
        let stale = |attempt: &Attempt| attempt.is_in_the_way(id) && !attempt.is_over();
        let stale = self.attempts.iter().filter(|(_, attempt)| stale(attempt));
        for transfer in stale.map(|(&transfer, _)| transfer).collect::<Vec<_>>() {
            self.give_up(now, transfer, "a new attempt takes its place");
        }
    }

    /// Nobody is told any more how an attempt goes on; it ends, if it has not.
    pub(super) fn give_up(&mut self, now: Moment, transfer: TransferIx, reason: &str) {
        let Some(attempt) = self.attempts.get_mut(&transfer) else { return };
        if attempt.link.is_told() {
            attempt.link = MasterLink::Gone;
        }
        let cancel = ToNode::Cancel { reason: reason.into(), forgets: false };
        self.participant(now, transfer, ParticipantEvent::Master(cancel));
        self.settle(now, transfer);
    }

    /// A master comes back on a new session.
    fn resume(&mut self, session: SessionIx, resume: &ResumeSession) {
        let is_meant = |attempt: &Attempt| attempt.is_resumed_by(&resume.transfer, &resume.attempt);
        let Some((&transfer, attempt)) =
            self.attempts.iter_mut().find(|(_, attempt)| is_meant(attempt))
        else {
            let error = Error::new(
                Code::Unreachable,
                "it knows nothing of this attempt: it was started anew, or gave it up",
            )
            .remedy("run the transfer again");
            return self.say(session, &ToMaster::Failed { error, stats: None });
        };
        let replaced = std::mem::replace(&mut attempt.link, MasterLink::Up(session));
        let resumed = ToMaster::Resumed { heard: attempt.replay.heard() };
        let unheard = attempt.replay.unheard(resume.heard).to_vec();
        self.sessions.insert(session, Some(transfer));
        if let MasterLink::Up(broken) = replaced {
            // It broke at the other end; here nobody had noticed.
            self.sessions.remove(&broken);
            self.actions.push_back(NodeAction::CloseSession { session: broken });
        }
        self.say(session, &resumed);
        let again = unheard.into_iter().map(|message| NodeAction::Send { session, message });
        self.actions.extend(again);
    }

    /// Sends a message that no attempt keeps.
    pub(super) fn say(&mut self, session: SessionIx, message: &ToMaster) {
        let message = control::encode(message).expect("it has no lists");
        self.actions.push_back(NodeAction::Send { session, message });
    }

    /// A master does not speak the protocol: its transfer ends with it.
    #[expect(clippy::needless_pass_by_value, reason = "the error ends here")]
    pub(super) fn garbled(&mut self, now: Moment, session: SessionIx, error: Error) {
        if self.sessions.contains_key(&session) {
            self.say(session, &ToMaster::Failed { error: error.clone(), stats: None });
            self.master_left(now, session, &error);
        }
    }

    fn master_left(&mut self, now: Moment, session: SessionIx, error: &Error) {
        self.actions.push_back(NodeAction::CloseSession { session });
        if let Some(transfer) = self.sessions.remove(&session).flatten() {
            self.give_up(now, transfer, &error.to_string());
        }
        self.end_without_masters(now);
    }

    /// A session broke: its transfer goes on without its master.
    pub(super) fn session_broken(&mut self, now: Moment, session: SessionIx) {
        let Some(transfer) = self.sessions.remove(&session) else { return };
        if let Some(attempt) = transfer.and_then(|transfer| self.attempts.get_mut(&transfer)) {
            attempt.link = MasterLink::Lost(MasterLease::new(now, self.launched));
        }
        self.end_without_masters(now);
    }

    pub(super) fn closed(&mut self, now: Moment, session: SessionIx, in_order: bool) {
        if in_order {
            return self.master_done(now, session);
        }
        if self.launched {
            let error = Error::new(Code::Unreachable, "the master closed its session");
            return self.master_left(now, session, &error);
        }
        self.actions.push_back(NodeAction::CloseSession { session });
        self.session_broken(now, session);
    }

    /// A master that is done has said good-bye: whoever was not told otherwise before may forget
    /// the transfer.
    fn master_done(&mut self, now: Moment, session: SessionIx) {
        let Some(transfer) = self.sessions.remove(&session) else { return };
        let of_session =
            transfer.and_then(|transfer| Some((transfer, self.attempts.get_mut(&transfer)?)));
        let Some((transfer, attempt)) = of_session else {
            self.actions.push_back(NodeAction::CloseSession { session });
            return self.end_without_masters(now);
        };
        attempt.link = MasterLink::Leaving(session);
        if attempt.files == AttemptFiles::Remembered {
            attempt.files = AttemptFiles::Confirming;
            attempt.wait_for(now, JobKind::Confirm);
            self.actions.push_back(NodeAction::Work { transfer, job: NodeJob::Confirm });
        }
        self.participant(now, transfer, ParticipantEvent::Master(ToNode::Finish));
        self.settle(now, transfer);
        self.end_without_masters(now);
    }

    /// So many bytes of an attempt without a master have moved.
    pub(super) fn moved(&mut self, now: Moment, transfer: TransferIx, moved_bytes: u64) {
        let Some(attempt) = self.attempts.get_mut(&transfer) else { return };
        if let MasterLink::Lost(lease) = &mut attempt.link
            && lease.is_over(now, moved_bytes)
        {
            self.give_up(now, transfer, "its master is gone");
        }
    }

    /// Removes an attempt that is over and that nobody waits for.
    pub(super) fn settle(&mut self, now: Moment, transfer: TransferIx) {
        let Some(attempt) = self.attempts.get(&transfer) else { return };
        if !attempt.is_over() || attempt.files == AttemptFiles::Confirming {
            return;
        }
        match attempt.link {
            MasterLink::Up(_) | MasterLink::Lost(_) => return,
            MasterLink::Leaving(session) => {
                self.actions.push_back(NodeAction::CloseSession { session });
            }
            MasterLink::Gone => {}
        }
        if attempt.files == AttemptFiles::Remembered {
            self.actions.push_back(NodeAction::Release { transfer });
        }
        self.attempts.remove(&transfer);
        self.begin_waiting(now);
        self.end_without_masters(now);
    }
}
