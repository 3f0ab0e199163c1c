//! Deadlines and what follows from them: freezing, killing, opening, and the reports
//! of the shell that did it.

use std::time::Duration;

use serde_json::json;

use super::effect::Effect;
use super::pod::{PodAction, PodEvent, PodState, PodUid};
use super::{Guard, GuardError, may_run_at};
use regent_core::event::names;
use regent_core::ids::{Epoch, GroupKey};
use regent_core::instruction::Instruction;
use regent_core::time::Moment;

impl Guard {
    /// When [`Guard::tick`] must be called next, on whichever clock comes first.
    pub fn next_deadline(&self) -> Option<Moment> {
        let mut next: Option<Moment> = None;
        let mut sooner = |at: Moment| next = Some(next.map_or(at, |n| n.min(at)));
        for record in self.journal.pods.values() {
            let Some(group) = self.journal.groups.get(&record.pod.group).filter(|g| g.protected) else {
                continue;
            };
            match record.state {
                PodState::Running { .. } => {
                    if let Some(lease) = group.lease {
                        sooner(self.fence_at(lease.until));
                    }
                }
                PodState::Frozen { since, .. } => {
                    sooner(since.after(group.thaw_limit()));
                    if let Some(lease) = group.lease {
                        sooner(lease.until);
                    }
                }
                PodState::Gated | PodState::Killing => {}
            }
        }
        next
    }

    /// The shell has frozen the pod; `took` is how long it took.
    pub fn on_frozen(&mut self, now: Moment, uid: &PodUid, took: Duration) -> Result<Vec<Effect>, GuardError> {
        self.state_of(uid)?;
        self.advance(now);
        let most = self.config.charter.usable_lease() / 8;
        self.slowest_freeze = self.slowest_freeze.max(took).min(most);
        self.report(now, uid, names::FROZEN)
    }

    /// The shell could not freeze the pod: it is killed instead.
    pub fn on_freeze_failed(&mut self, now: Moment, uid: &PodUid) -> Result<Vec<Effect>, GuardError> {
        self.state_of(uid)?;
        self.advance(now);
        self.step(uid, PodEvent::Stop);
        Ok(self.finish())
    }

    /// The shell has thawed the pod.
    pub fn on_thawed(&mut self, now: Moment, uid: &PodUid) -> Result<Vec<Effect>, GuardError> {
        self.state_of(uid)?;
        self.advance(now);
        self.report(now, uid, names::THAWED)
    }

    /// The shell has let the pod's gate go on.
    pub fn on_gate_opened(&mut self, now: Moment, uid: &PodUid) -> Result<Vec<Effect>, GuardError> {
        self.state_of(uid)?;
        self.advance(now);
        self.report(now, uid, names::GATE_OPENED)
    }

    /// The shell has killed the pod's cgroup, and it is empty.
    pub fn on_killed(&mut self, now: Moment, uid: &PodUid) -> Result<Vec<Effect>, GuardError> {
        let (next, _) = self.state_of(uid)?.next(PodEvent::Dead)?;
        self.advance(now);
        let Some(record) = self.journal.pods.get_mut(uid) else {
            return Err(GuardError::UnknownPod(uid.clone()));
        };
        record.state = next;
        let pod = record.pod.clone();
        self.mark(false);
        self.event(now, names::KILLED, &pod.group, None, json!({ "pod": pod.name, "namespace": pod.namespace }));
        self.confirm_retired(now, &pod.group);
        self.settle(now, &pod.group);
        Ok(self.finish())
    }

    fn report(&mut self, now: Moment, uid: &PodUid, what: &str) -> Result<Vec<Effect>, GuardError> {
        let Some(record) = self.journal.pods.get(uid) else {
            return Err(GuardError::UnknownPod(uid.clone()));
        };
        let (pod, epoch) = (record.pod.clone(), record.state.epoch());
        self.event(now, what, &pod.group, epoch, json!({ "pod": pod.name, "namespace": pod.namespace }));
        Ok(self.finish())
    }

    fn state_of(&self, uid: &PodUid) -> Result<PodState, GuardError> {
        self.journal.pods.get(uid).map(|r| r.state).ok_or_else(|| GuardError::UnknownPod(uid.clone()))
    }

    /// Freezing starts here to be complete at `until`.
    pub(super) fn fence_at(&self, until: Moment) -> Moment {
        until.before(self.config.freeze_margin + self.slowest_freeze)
    }

    /// Fences whatever has run out by `now`.
    pub(super) fn advance(&mut self, now: Moment) {
        let protected: Vec<GroupKey> =
            self.journal.groups.iter().filter(|(_, g)| g.protected).map(|(k, _)| k.clone()).collect();
        for group in protected {
            self.end_lease(now, &group);
            self.end_pauses(now, &group);
        }
    }

    fn end_lease(&mut self, now: Moment, group: &GroupKey) {
        let lease = self.journal.groups.get(group).and_then(|g| g.lease);
        // Without any lease what runs must have stopped long ago: now is the latest.
        let until = lease.map_or(now, |l| l.until);
        if !self.fence_at(until).passed_for_stopping(now) {
            return;
        }
        let running: Vec<PodUid> = self
            .pods_of(group)
            .filter(|p| matches!(p.state, PodState::Running { .. }))
            .map(|p| p.pod.uid.clone())
            .collect();
        for uid in running {
            self.step(&uid, PodEvent::LeaseEnds(until));
        }
        if let Some(lease) = lease.filter(|l| l.until.passed_for_stopping(now)) {
            let ended: Vec<String> = self
                .pods_of(group)
                .filter(|p| matches!(p.state, PodState::Frozen { since, .. } if since == lease.until))
                .map(|p| p.pod.name.clone())
                .collect();
            if let Some(record) = self.journal.groups.get_mut(group) {
                record.lease = None;
            }
            self.mark(false);
            if !ended.is_empty() {
                self.event(lease.until, names::LEASE_END, group, Some(lease.epoch), json!({ "pods": ended }));
            }
        }
    }

    fn end_pauses(&mut self, now: Moment, group: &GroupKey) {
        let Some(limit) = self.journal.groups.get(group).map(super::GroupRecord::thaw_limit) else {
            return;
        };
        let over: Vec<PodUid> = self
            .pods_of(group)
            .filter(
                |p| matches!(p.state, PodState::Frozen { since, .. } if since.after(limit).passed_for_stopping(now)),
            )
            .map(|p| p.pod.uid.clone())
            .collect();
        for uid in over {
            self.step(&uid, PodEvent::Stop);
        }
    }

    /// The epoch under which the group may run here now, if it may.
    fn permit(&self, now: Moment, group: &GroupKey) -> Option<Epoch> {
        let record = self.journal.groups.get(group)?;
        if record.protected {
            record.lease.filter(|l| !self.fence_at(l.until).passed_for_stopping(now)).map(|l| l.epoch)
        } else {
            record.observed
        }
    }

    /// Lets the group's pods know of what permits them to run, if anything does.
    pub(super) fn settle(&mut self, now: Moment, group: &GroupKey) {
        let Some(epoch) = self.permit(now, group) else {
            return;
        };
        let pods: Vec<(PodUid, PodState)> = self.pods_of(group).map(|p| (p.pod.uid.clone(), p.state)).collect();
        for (uid, state) in pods {
            let asks = self.asking.contains(&uid);
            if state.has_run() || asks {
                self.step(&uid, PodEvent::Permit(epoch));
            }
            // A container that came back alone asks at the gate of a pod that runs.
            let runs = matches!(self.journal.pods.get(&uid).map(|p| p.state), Some(PodState::Running { .. }));
            if runs && asks {
                self.asking.remove(&uid);
                self.out.then.push(Effect::OpenGate(uid));
            }
        }
    }

    /// Takes one pod one step further. Events that can't happen to it change nothing.
    pub(super) fn step(&mut self, uid: &PodUid, event: PodEvent) {
        let Some(record) = self.journal.pods.get_mut(uid) else {
            return;
        };
        let Ok((next, action)) = record.state.next(event) else {
            return;
        };
        if record.state != next {
            record.state = next;
            self.mark(false);
        }
        match action {
            PodAction::Nothing => {}
            // `settle` opens every gate that asks, after the epoch is written.
            PodAction::Open(epoch) | PodAction::WriteEpoch(epoch) => {
                self.out.then.push(Effect::WriteEpoch(uid.clone(), epoch));
            }
            PodAction::Freeze => self.out.first.push(Effect::Freeze(uid.clone())),
            PodAction::Thaw => self.out.then.push(Effect::Thaw(uid.clone())),
            PodAction::Kill => {
                self.asking.remove(uid);
                self.out.then.push(Effect::Kill(uid.clone()));
            }
        }
    }

    /// Confirms a retirement when nothing that it stops is alive any more.
    pub(super) fn confirm_retired(&mut self, now: Moment, group: &GroupKey) {
        let Some(stopping) = self.stopping.get(group) else {
            return;
        };
        if self.pods_of(group).any(|p| may_run_at(p.state, stopping.retired)) {
            return;
        }
        let Some(done) = self.stopping.remove(group) else {
            return;
        };
        if !done.pods.is_empty() {
            self.event(now, names::LEASE_END, group, done.ran.or(Some(done.retired)), json!({ "pods": done.pods }));
        }
        self.out.then.push(Effect::Confirm(group.clone(), Instruction::Retire(done.retired)));
    }
}
