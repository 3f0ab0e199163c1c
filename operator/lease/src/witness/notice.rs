//! What a witness reports of itself, with the moment at which it became true.

use super::Witness;
use regent_core::ids::{Epoch, GroupKey};
use regent_core::time::Moment;

/// Why a witness's state may be older than its answers (L8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StaleCause {
    /// A tag of its own names a later start than its count of starts.
    TagOfLaterStart(u64),
    /// A tag of its own names more writes than were on disk when it started.
    TagOfLaterWrite(u64),
    /// An object is older than what it has written there.
    SetBack(GroupKey),
    /// An object that it has written is gone.
    ObjectMissing(GroupKey),
    /// An operator says so.
    SaidSo,
}

/// Something that became true at a witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WitnessEvent {
    /// L5: the holder of the vote has lapsed.
    Lapsed {
        /// The group.
        group: GroupKey,
        /// The epoch of the vote.
        epoch: Epoch,
    },
    /// After a lapse a holder is proven: the one that had lapsed, or whoever took over.
    Proven {
        /// The group.
        group: GroupKey,
        /// The epoch of the vote.
        epoch: Epoch,
    },
    /// The witness grants nothing until it has read its state from others (L8).
    Stale(StaleCause),
    /// A persisted plan does not verify: nobody is granted its group until home sends a good one.
    BadPlan {
        /// The group.
        group: GroupKey,
        /// What is wrong with it.
        error: String,
    },
}

/// Events on their way to the shell.
#[derive(Debug, Default)]
pub(super) struct Notices(Vec<(Moment, WitnessEvent)>);

impl Notices {
    pub(super) fn push(&mut self, at: Moment, event: WitnessEvent) {
        self.0.push((at, event));
    }
}

impl Witness {
    /// What became true until `now`, each with its own moment: a lapse is reported with
    /// the moment at which L5 became true, however late the tick is.
    pub fn tick(&mut self, now: Moment) -> Vec<(Moment, WitnessEvent)> {
        for (key, group) in &mut self.groups {
            if group.reported.is_some() {
                continue;
            }
            let Some(vote) = group.record.vote.clone().filter(|_| group.plan.is_some() && !group.is_retired()) else {
                continue;
            };
            let at = group.lapses_at(&self.charter);
            if at.passed_for_waiting(now) {
                let event = WitnessEvent::Lapsed { group: key.clone(), epoch: vote.epoch };
                self.notices.push(at, event);
                group.reported = Some(vote);
            }
        }
        std::mem::take(&mut self.notices.0)
    }

    /// When the next lapse will be, if nothing proves its holder before: the shell sleeps
    /// until both clocks have passed it and ticks.
    pub fn next_deadline(&self) -> Option<Moment> {
        let watched = self
            .groups
            .values()
            .filter(|g| g.reported.is_none() && g.record.vote.is_some() && g.plan.is_some() && !g.is_retired());
        watched.map(|g| g.lapses_at(&self.charter)).min_by_key(|m| m.boot_ns)
    }
}
