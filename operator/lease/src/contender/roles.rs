//! What time changes in a group's role.

use std::collections::BTreeSet;
use std::time::Duration;

use super::group::{Group, LeftOut, Role};
use super::output::{ContenderEvent, Output};
use super::{BETWEEN_QUERIES, Contender};
use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_core::message::Refusal;
use regent_core::time::Moment;

/// After how many D without a certificate an attempt is given up (L11).
pub(super) const GIVE_UP: u32 = 3;
/// For how many D per rank the site lets others try then (L11). The best one pauses too, for D.
const PAUSE: u32 = 2;
/// For how many D at most a witness that doesn't keep its word is left out (L11).
const LEFT_OUT_MOST: u32 = 40;

impl Contender {
    /// When [`Contender::tick`] must be called next.
    pub fn next_tick(&self) -> Option<Moment> {
        let (period, d) = (self.charter.renewal_period(), self.charter.lease_duration());
        let mut next: Option<Moment> = None;
        let mut sooner = |at: Moment| next = Some(next.map_or(at, |n| n.min(at)));
        let later = |last: Option<Moment>| last.map_or(Moment::default(), |at| at.after(period));
        for group in self.groups.values() {
            if group.asked().is_some() {
                sooner(if self.renew_now { Moment::default() } else { later(self.renewed) });
            }
            match &group.role {
                Role::Candidate { again } => {
                    sooner(later(self.queried));
                    let soonest = self.queried.map_or(Moment::default(), |at| at.after(BETWEEN_QUERIES));
                    if let Some(at) = again {
                        sooner(at.max(soonest));
                    }
                    if self.query_now {
                        sooner(soonest);
                    }
                }
                Role::Attempting { since, again, .. } => {
                    sooner(since.after(d * GIVE_UP));
                    again.iter().for_each(|at| sooner(*at));
                }
                Role::Silent { until } => sooner(*until),
                Role::Holder { held, told: false, .. } => sooner(held.until),
                Role::Holder { held, told: true, .. } => sooner(held.until.after(d * GIVE_UP)),
                Role::Releasing { release, entered, sent } => sooner(self.release_due(release, *entered, *sent)),
                Role::Idle(_) => {}
            }
        }
        next
    }

    /// Takes a group's role as far as `now`.
    pub(super) fn pass_time(&mut self, now: Moment, key: &GroupKey) {
        let idle = self.groups.get(key).and_then(|g| g.idle(&self.site));
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        match (&group.role, idle) {
            (Role::Candidate { .. } | Role::Silent { .. } | Role::Idle(_), Some(reason)) => {
                group.role = Role::Idle(reason);
            }
            (Role::Idle(_), None) => group.role = Role::Candidate { again: None },
            (Role::Silent { until }, None) if until.passed_for_waiting(now) => {
                group.role = Role::Candidate { again: None };
            }
            (Role::Attempting { .. }, _) => self.pass_attempt(now, key),
            (Role::Holder { .. }, _) => self.pass_hold(now, key),
            (Role::Releasing { .. }, _) => self.pass_release(now, key),
            (Role::Candidate { .. } | Role::Silent { .. }, None) => {}
        }
    }

    fn pass_attempt(&mut self, now: Moment, key: &GroupKey) {
        let (f, d) = self.bounds();
        let (site, number) = (self.site.clone(), self.number);
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        let Role::Attempting { epoch, since, raised, yes, again, busy } = group.role.clone() else {
            return;
        };
        let retired = group.views.values().filter(|v| v.epoch == epoch && v.refusal == Some(Refusal::Retired)).count();
        let over = since.after(d * GIVE_UP).passed_for_stopping(now);
        if retired > f || (over && retired > 0) {
            group.retired = group.retired.max(Some(epoch));
        }
        if over {
            leave_out(group, now, d, &yes, epoch);
            let rank = group.plan().rank(&site).unwrap_or_default();
            group.role = Role::Silent { until: now.after(pause(d, rank)) };
        } else if Some(epoch) <= group.retired {
            group.role = Role::Candidate { again: None };
        } else if let Some((raised_to, counts)) = group.raise(now, f, (&site, number), epoch, Some(raised), d) {
            let raised = if counts { now } else { raised };
            group.role = Role::Attempting { epoch: raised_to, since, raised, yes, again, busy };
            self.renew_now |= counts;
        }
    }

    fn pass_hold(&mut self, now: Moment, key: &GroupKey) {
        let (f, d) = self.bounds();
        let (site, number) = (self.site.clone(), self.number);
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        let Role::Holder { epoch, held, raised, told } = group.role.clone() else {
            return;
        };
        if !held.until.passed_for_stopping(now) {
            if let Some((raised_to, counts)) = group.raise(now, f, (&site, number), epoch, raised, d) {
                let raised = if counts { Some(now) } else { raised };
                group.role = Role::Holder { epoch: raised_to, held, raised, told };
                self.renew_now |= counts;
            }
            return;
        }
        let own = held.epoch;
        // Going on would keep the group from others for ever, at the few witnesses that it
        // reaches: they count proof and not contact, but promise it to whoever asks first. A
        // candidate that a quorum doesn't hear stands in nobody's way, and gets it again if it can.
        let given_up = held.until.after(d * GIVE_UP).passed_for_waiting(now);
        if given_up || group.overtaken(epoch) {
            if group.views.values().any(|v| v.epoch == epoch && v.refusal == Some(Refusal::Retired)) {
                group.retired = group.retired.max(Some(epoch));
            }
            group.role = Role::Candidate { again: None };
            let higher = group.higher_vote(f);
            let event = ContenderEvent::Lost { group: key.clone(), epoch: own, at: now, higher };
            self.out.push(Output::Event(event));
        } else if !told {
            group.role = Role::Holder { epoch, held, raised, told: true };
            let event = ContenderEvent::RanOut { group: key.clone(), epoch: own, at: held.until };
            self.out.push(Output::Event(event));
        }
    }

    fn bounds(&self) -> (usize, Duration) {
        (self.charter.faulty_witnesses as usize, self.charter.lease_duration())
    }
}

impl Group {
    /// The epoch to go on with when a witness refused `epoch` for a higher vote, and
    /// whether it is a raise of our own (L10: at most one in D). Another replica's raise is
    /// followed without one.
    fn raise(
        &self,
        now: Moment,
        f: usize,
        own: (&SiteName, u32),
        epoch: Epoch,
        raised: Option<Moment>,
        d: Duration,
    ) -> Option<(Epoch, bool)> {
        if !self.outvoted(epoch) {
            return None;
        }
        let target = self.target(f, own);
        if target <= epoch {
            return None;
        }
        if self.votes.names(own.0, target) {
            return Some((target, false));
        }
        raised.is_none_or(|at| at.after(d).passed_for_waiting(now)).then_some((target, true))
    }
}

/// For how long a site of that rank lets others try.
pub(super) fn pause(d: Duration, rank: usize) -> Duration {
    let times = u32::try_from(rank).unwrap_or(u32::MAX).saturating_mul(PAUSE).max(1);
    d.saturating_mul(times)
}

/// Leaves out who said yes and granted nothing, twice as long each time (L11).
fn leave_out(group: &mut Group, now: Moment, d: Duration, yes: &BTreeSet<SiteName>, epoch: Epoch) {
    for witness in yes {
        let kept =
            group.views.get(witness).is_some_and(|v| v.line.is_none() && v.refusal.is_none() && v.epoch == epoch);
        if kept {
            continue;
        }
        let times = group.left_out.get(witness).map_or(0, |l| l.times);
        let factor = 2u32.saturating_pow(times).min(LEFT_OUT_MOST);
        group
            .left_out
            .insert(witness.clone(), LeftOut { until: now.after(d * factor), times: times.saturating_add(1) });
    }
}
