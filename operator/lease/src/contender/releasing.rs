//! A release at its contender: what each step sends (L12).

use super::Contender;
use super::group::{Group, Role};
use super::output::{ContenderEvent, Output};
use super::release::{Release, ReleaseError, ReleaseEvent, ReleasePhase, ReleaseStep};
use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_core::message::{Ask, Refusal};
use regent_core::time::Moment;

impl Group {
    /// Until when brakes would keep the group from any successor: more than `spare` witnesses say
    /// so of an epoch that nobody has begun to retire. One that somebody has must be taken to its
    /// end, for it is granted to nobody any more.
    fn braked(&self, now: Moment, epoch: Epoch, spare: usize) -> Option<Moment> {
        let of_epoch = || self.views.values().filter(|v| v.epoch == epoch);
        if of_epoch().any(|v| v.refusal == Some(Refusal::Retired)) {
            return None;
        }
        let mut until: Vec<Moment> =
            of_epoch().filter_map(|v| v.braked).filter(|u| !u.passed_for_waiting(now)).collect();
        until.sort_by_key(|u| std::cmp::Reverse(u.boot_ns));
        until.get(spare).copied()
    }

    pub(super) fn release(&self) -> Option<&Release> {
        match &self.role {
            Role::Releasing { release, .. } => Some(release),
            _ => None,
        }
    }
}

impl Contender {
    /// Begins to give an epoch of this site's to a successor, or takes up where a replica
    /// that died left: then the epoch is the one that was being released, whatever this
    /// replica holds. Only the leader of the replicas may call this (L10).
    pub fn release(
        &mut self,
        now: Moment,
        key: &GroupKey,
        epoch: Epoch,
        successor: SiteName,
    ) -> Result<Vec<Output>, ReleaseError> {
        let group = self.groups.get_mut(key).ok_or_else(|| ReleaseError::UnknownGroup(key.clone()))?;
        if epoch.site != self.number {
            return Err(ReleaseError::NotOurs(epoch));
        }
        if group.plan().rank(&successor).is_none() {
            return Err(ReleaseError::NotInPlan(successor));
        }
        if let Some(under_way) = group.release() {
            if under_way.epoch == epoch && under_way.successor == successor {
                return Ok(Vec::new());
            }
            return Err(ReleaseError::UnderWay(under_way.epoch, under_way.successor.clone()));
        }
        let spare = self.charter.witness_count() - self.charter.quorum();
        if let Some(until) = group.braked(now, epoch, spare) {
            let wait_s = until.left_for_waiting(now).as_secs();
            return Err(ReleaseError::Braked { group: key.clone(), wait_s });
        }
        group.role = Role::Releasing { release: Release::new(epoch, successor), entered: now, sent: None };
        self.out.push(Output::CloseNodeList { group: key.clone(), epoch });
        Ok(self.flush(now))
    }

    /// What the shell reports of a release.
    pub fn on_release_event(
        &mut self,
        now: Moment,
        key: &GroupKey,
        event: ReleaseEvent,
    ) -> Result<Vec<Output>, ReleaseError> {
        self.step_release(now, key, event)?;
        Ok(self.flush(now))
    }

    pub(super) fn step_release(
        &mut self,
        now: Moment,
        key: &GroupKey,
        event: ReleaseEvent,
    ) -> Result<(), ReleaseError> {
        let group = self.groups.get_mut(key).ok_or_else(|| ReleaseError::UnknownGroup(key.clone()))?;
        let Role::Releasing { release, entered, sent } = &mut group.role else {
            return Err(ReleaseError::NotReleasing(key.clone()));
        };
        let step = release.on(event)?;
        if step != ReleaseStep::Stay {
            (*entered, *sent) = (now, None);
        }
        let (epoch, successor) = (release.epoch, release.successor.clone());
        let group_key = key.clone();
        match step {
            ReleaseStep::Stay | ReleaseStep::Release => {}
            ReleaseStep::Retire => group.retired = group.retired.max(Some(epoch)),
            ReleaseStep::Stop => {
                let retired = ContenderEvent::Retired { group: key.clone(), epoch, at: now };
                self.out.push(Output::Event(retired));
                self.out.push(Output::StopNodes { group: group_key, epoch });
                return self.step_release(now, key, ReleaseEvent::Tick(now));
            }
            ReleaseStep::Done => {
                group.role = Role::Candidate { again: None };
                self.out.push(Output::Released { group: group_key, epoch, successor });
            }
            // Another replica has renewed it meanwhile: the witnesses say what is held.
            ReleaseStep::CalledOff => group.role = Role::Candidate { again: None },
        }
        Ok(())
    }

    /// When the release must be looked at next.
    pub(super) fn release_due(&self, release: &Release, entered: Moment, sent: Option<Moment>) -> Moment {
        let again = sent.map_or(Moment::default(), |at| at.after(self.charter.renewal_period()));
        match &release.phase {
            ReleasePhase::Retiring { .. } => again,
            ReleasePhase::Stopping { run_out, .. } => *run_out,
            ReleasePhase::Releasing { .. } => again.min(entered.after(self.charter.lease_duration())),
            ReleasePhase::ClosingList | ReleasePhase::Released => entered.after(self.charter.lease_duration()),
        }
    }

    pub(super) fn pass_release(&mut self, now: Moment, key: &GroupKey) {
        let Some(Role::Releasing { release, entered, .. }) = self.groups.get(key).map(|g| &g.role) else {
            return;
        };
        let over = entered.after(self.charter.lease_duration()).passed_for_waiting(now);
        let event = match &release.phase {
            ReleasePhase::Releasing { .. } if over => ReleaseEvent::PromisesOver,
            _ => ReleaseEvent::Tick(now),
        };
        // Both are legal in the phases that they are sent to.
        let _ = self.step_release(now, key, event);
    }

    /// Sends retirements and releases, each P until a quorum has answered.
    pub(super) fn send_releases(&mut self, now: Moment) {
        let period = self.charter.renewal_period();
        let mut due = Vec::new();
        for (key, group) in &mut self.groups {
            let Role::Releasing { release, sent, .. } = &mut group.role else {
                continue;
            };
            if sent.is_some_and(|at| !at.after(period).passed_for_stopping(now)) {
                continue;
            }
            let (epoch, successor) = (release.epoch, release.successor.clone());
            let (ask, answered) = match &release.phase {
                ReleasePhase::Retiring { acknowledged, .. } => {
                    (Ask::Retire { group: key.clone(), epoch, successor }, acknowledged)
                }
                ReleasePhase::Releasing { dropped } => (Ask::Release { group: key.clone(), epoch }, dropped),
                ReleasePhase::ClosingList | ReleasePhase::Stopping { .. } | ReleasePhase::Released => continue,
            };
            let to = self.charter.witnesses.iter().filter(|w| !answered.contains(*w)).cloned().collect();
            *sent = Some(now);
            due.push((ask, to));
        }
        for (ask, to) in due {
            self.send(now, ask, Vec::new(), to);
        }
    }
}
