//! The sessions of a node's masters: what they say, what becomes of an attempt whose session ends,
//! and how another session or another attempt takes its place.

use super::NodeMachine;
use super::attempt::Attempt;
use super::events::{MasterOrigin, NodeAction, SessionIx};
use super::limits::{MasterSession, PREPARE_WITHIN, TransferWeight, check_room};
use crate::core::error::{Code, Error};
use crate::core::node::participant::ParticipantEvent;
use crate::core::piece::TransferIx;
use crate::core::units::Moment;
use crate::core::wire::control::{self, NodeStats, Prepare, ResumeSession, ToMaster, ToNode};

impl NodeMachine {
    pub(super) fn session_up(&mut self, now: Moment, session: SessionIx, origin: MasterOrigin) {
        self.sessions
            .insert(session, MasterSession { transfer: None, origin, since: now, surveys: false });
        self.alone_since = None;
    }

    pub(super) fn message(&mut self, now: Moment, session: SessionIx, message: ToNode) {
        let Some(&MasterSession { transfer, .. }) = self.sessions.get(&session) else { return };
        if let Some(attempt) = transfer.and_then(|transfer| self.attempts.get_mut(&transfer))
            && message.is_counted()
        {
            attempt.channel.hear();
        }
        match (message, transfer) {
            (ToNode::MakeWay { id }, None) => self.make_way(now, &id),
            (ToNode::Prepare(prepare), None) if self.is_taken(session, &prepare) => {
                let error = Error::new(
                    Code::Refused,
                    "this node was started for one transfer, and takes no other",
                )
                .remedy("start a node for each, or a daemon");
                self.garbled(now, session, error);
            }
            (ToNode::Prepare(prepare), None) => self.begin(now, session, prepare),
            (ToNode::Resume(resume), None) => self.resume(now, session, &resume),
            (ToNode::Survey(questions), None) => self.survey(now, session, questions),
            (ToNode::Start(start), Some(transfer)) => {
                self.attempt(now, transfer, |attempt| attempt.start(now, start));
            }
            (ToNode::Called { call, receiver }, Some(transfer)) => {
                if self.attempts.get(&transfer).is_some_and(|attempt| !attempt.is_over()) {
                    self.actions.push_back(NodeAction::Call { transfer, call, receiver });
                }
            }
            (message, Some(transfer)) => {
                let event = ParticipantEvent::Master(message);
                self.attempt(now, transfer, |attempt| attempt.handle(now, event));
            }
            (ToNode::Cancel { .. } | ToNode::Finish, None) => self.leave_line(session),
            // There is no transfer yet that it could mean.
            (_, None) => {}
        }
    }

    /// Returns true if a launched node serves another transfer, or another master.
    fn is_taken(&self, session: SessionIx, prepare: &Prepare) -> bool {
        let has_other_master = || {
            let others = self.sessions.iter().filter(|(other, _)| **other != session);
            others.into_iter().any(|(_, session)| session.transfer.is_some())
        };
        let is_other = |served: &String| *served != prepare.id || has_other_master();
        self.launched && !self.has_several && self.served.as_ref().is_some_and(is_other)
    }

    /// A master ends an attempt that waits for an earlier one: it never begins.
    fn leave_line(&mut self, session: SessionIx) {
        let waited = self.waiting.len();
        self.waiting.retain(|(of, ..)| *of != session);
        if self.waiting.len() < waited {
            self.say(session, &ToMaster::Report(NodeStats::default()));
        }
    }

    /// A master prepares a transfer. An earlier attempt at it whose master is gone ends first: it
    /// must not touch files that this one makes.
    fn begin(&mut self, now: Moment, session: SessionIx, prepare: Prepare) {
        self.served.get_or_insert_with(|| prepare.id.clone());
        self.make_way(now, &prepare.id);
        // One that waits already would be a second one.
        if self.waiting.iter().any(|(of, ..)| *of == session) {
            return;
        }
        let Some(master) = self.sessions.get(&session) else { return };
        let weight = TransferWeight::of(&prepare, master.origin);
        let waiting = self.waiting.iter().map(|(.., weight)| weight);
        let held = self.weights.values().chain(waiting);
        if let Err(error) = check_room(held, &weight, self.transfers_max) {
            return self.say(session, &ToMaster::Failed { error, stats: None });
        }
        if self.attempts.values().any(|attempt| attempt.is_in_the_way(&prepare.id)) {
            return self.waiting.push((session, prepare, weight));
        }
        let transfer = TransferIx(self.next_transfer);
        self.next_transfer += 1;
        let rails =
            prepare.options.transfer.rails(&prepare.nics, self.nics.iter().map(String::as_str));
        let attempt = Attempt::new(now, transfer, session, prepare, rails);
        self.attempts.insert(transfer, attempt);
        self.weights.insert(transfer, weight);
        self.belongs(session, transfer);
        self.attempt(now, transfer, |_| {});
    }

    /// Begins the attempts whose way is free by now.
    pub(super) fn begin_waiting(&mut self, now: Moment) {
        for (session, prepare, _) in std::mem::take(&mut self.waiting) {
            if self.sessions.contains_key(&session) {
                self.begin(now, session, prepare);
            }
        }
    }

    /// Ends attempts at the transfer `id` whose master is gone.
    fn make_way(&mut self, now: Moment, id: &str) {
        self.each_attempt(now, Attempt::make_way);
        let stale = |attempt: &Attempt| attempt.is_in_the_way(id) && !attempt.is_over();
        let stale = self.attempts.iter().filter(|(_, attempt)| stale(attempt));
        for transfer in stale.map(|(&transfer, _)| transfer).collect::<Vec<_>>() {
            let reason = "a new attempt takes its place";
            self.attempt(now, transfer, |attempt| attempt.give_up(now, reason));
        }
    }

    /// A master comes back on a new session.
    fn resume(&mut self, now: Moment, session: SessionIx, resume: &ResumeSession) {
        let is_meant = |attempt: &Attempt| attempt.is_resumed_by(&resume.transfer, &resume.attempt);
        let meant = self.attempts.iter().find(|(_, attempt)| is_meant(attempt));
        let Some(transfer) = meant.map(|(&transfer, _)| transfer) else {
            let error = Error::new(
                Code::Unreachable,
                "it knows nothing of this attempt: it was started anew, or gave it up",
            )
            .remedy("run the transfer again");
            return self.say(session, &ToMaster::Failed { error, stats: None });
        };
        self.belongs(session, transfer);
        let replaced =
            self.attempt(now, transfer, |attempt| attempt.resume(session, resume.heard)).flatten();
        if let Some(broken) = replaced {
            self.remove_session(broken);
        }
    }

    /// The first moment at which a session has been without a transfer for too long.
    pub(super) fn idle_due(&self) -> Option<Moment> {
        let idle = self.sessions.iter().filter(|(session, it)| self.is_idle_session(**session, it));
        idle.map(|(_, it)| it.since + PREPARE_WITHIN).min()
    }

    /// Ends the sessions that have been without a transfer for too long.
    pub(super) fn end_idle(&mut self, now: Moment) {
        let is_over = |(session, it): &(&SessionIx, &MasterSession)| {
            self.is_idle_session(**session, it) && now >= it.since + PREPARE_WITHIN
        };
        let over: Vec<SessionIx> =
            self.sessions.iter().filter(is_over).map(|(&session, _)| session).collect();
        for session in over {
            let what = format!("its master prepared nothing for {} s", PREPARE_WITHIN.as_secs());
            self.garbled(now, session, Error::new(Code::Refused, what));
        }
    }

    fn is_idle_session(&self, session: SessionIx, it: &MasterSession) -> bool {
        it.transfer.is_none() && !self.waiting.iter().any(|(waits, ..)| *waits == session)
    }

    fn belongs(&mut self, session: SessionIx, transfer: TransferIx) {
        if let Some(master) = self.sessions.get_mut(&session) {
            master.transfer = Some(transfer);
        }
    }

    /// Sends a message that no attempt keeps.
    pub(super) fn say(&mut self, session: SessionIx, message: &ToMaster) {
        let message = control::encode(message).expect("its lists are short");
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
        if let Some(transfer) = self.remove_session(session).and_then(|it| it.transfer) {
            let reason = error.to_string();
            self.attempt(now, transfer, |attempt| attempt.give_up(now, &reason));
        }
        self.end_without_masters(now);
    }

    /// A session broke: its transfer goes on without its master.
    pub(super) fn session_broken(&mut self, now: Moment, session: SessionIx) {
        let Some(MasterSession { transfer, .. }) = self.remove_session(session) else { return };
        let launched = self.launched;
        if let Some(transfer) = transfer {
            self.attempt(now, transfer, |attempt| attempt.channel.lose(now, launched));
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
        let Some(MasterSession { transfer, .. }) = self.remove_session(session) else { return };
        let told = transfer.and_then(|transfer| {
            self.attempt(now, transfer, |attempt| attempt.master_done(now, session))
        });
        if told.is_none() {
            self.actions.push_back(NodeAction::CloseSession { session });
        }
        self.end_without_masters(now);
    }
}
