//! A participant whose part of the plan grows while bytes move.

use super::growth::GrowthStep;
use super::{Participant, ParticipantAction};
use crate::core::units::{Moment, common, union};

impl Participant {
    /// A worker has made room for further segments, or bytes begin to move.
    pub(super) fn extended(&mut self, now: Moment) {
        if let Some(step) = self.scheduler.as_ref().and_then(|it| self.growth.made(it)) {
            self.grow(now, step);
        }
    }

    /// Follows the plan as far as there is room, and has more made.
    pub(super) fn grow(&mut self, now: Moment, GrowthStep { ready, lacking }: GrowthStep) {
        if !lacking.is_empty() {
            let wanted = union(lacking);
            let holes = common(self.plan.holes(), &wanted);
            self.actions.push_back(ParticipantAction::Extend { wanted, holes });
        }
        let (Some(scheduler), grows) = (&mut self.scheduler, self.growth.grows()) else { return };
        let pair_count = |sender| self.plan.pair_count(sender);
        match scheduler.reassign(now, &ready, self.plan.holes(), pair_count, grows) {
            Ok(()) => {
                self.keep_to_plan(now);
                self.follow_owner();
            }
            Err(error) => self.abort(error),
        }
    }
}
