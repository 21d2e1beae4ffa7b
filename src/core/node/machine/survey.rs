//! Questions of a master about paths, before it prepares a transfer: on which session, how many at
//! once, and when what they made is removed.

use super::NodeMachine;
use super::events::{NodeAction, SessionIx};
use super::limits::{MasterSession, SURVEYS_MAX};
use crate::core::error::{Code, Error};
use crate::core::units::Moment;
use crate::core::wire::control::{SurveyAnswer, SurveyQuestion, ToMaster};
use crate::core::wire::limits::share_of_one;

impl NodeMachine {
    /// A master asks about paths. One survey of a session is under way at a time.
    pub(super) fn survey(
        &mut self,
        now: Moment,
        session: SessionIx,
        questions: Vec<SurveyQuestion>,
    ) {
        let Some(master) = self.sessions.get_mut(&session) else { return };
        if self.surveys.contains_key(&session) {
            let what = "its master asks again before it has been answered";
            return self.garbled(now, session, Error::new(Code::Internal, what));
        }
        let origin = master.origin;
        let of_one = self.surveys.values().filter(|other| **other == origin).count();
        if self.surveys.len() >= SURVEYS_MAX || of_one >= share_of_one(SURVEYS_MAX) {
            let what = "this node is at its limit of questions about paths";
            let error = Error::new(Code::Refused, what)
                .remedy("run it again when others have ended; a file system of it may hang");
            return self.say(session, &ToMaster::Failed { error, stats: None });
        }
        (master.since, master.surveys) = (now, true);
        self.is_surveyed = true;
        self.surveys.insert(session, origin);
        self.actions.push_back(NodeAction::Survey { session, questions });
    }

    /// Paths were looked at, for a session that may have ended meanwhile.
    pub(super) fn surveyed(&mut self, now: Moment, session: SessionIx, answers: Vec<SurveyAnswer>) {
        self.surveys.remove(&session);
        match self.sessions.get_mut(&session) {
            Some(master) => {
                master.since = now;
                self.say(session, &ToMaster::Surveyed(answers));
            }
            None => self.actions.push_back(NodeAction::EndSurvey { session }),
        }
    }

    /// Forgets a session, and has what its surveys made removed.
    pub(super) fn remove_session(&mut self, session: SessionIx) -> Option<MasterSession> {
        let removed = self.sessions.remove(&session)?;
        if removed.surveys {
            self.actions.push_back(NodeAction::EndSurvey { session });
        }
        Some(removed)
    }
}
