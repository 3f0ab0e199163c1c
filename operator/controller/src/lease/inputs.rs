//! What the contender is told of its groups: plans, approvals, and what is held ready.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::ResourceExt;
use regent_api::group::StandbyState;
use regent_api::takeover::{Phase, TakeoverType};
use regent_api::{FailoverGroup, Takeover};
use regent_core::contender::GroupInput;
use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_core::plan::VerifiedPlan;
use regent_core::time::Moment;
use regent_shell::clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::LeaseShell;
use super::publish::named;
use crate::objects::Snapshot;
use crate::plans::Plans;

/// For how many D a successor that was told of a release counts as approved.
const HANDED_OVER: u32 = 12;
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Groups that their holder has released to this site, and until when that counts.
#[derive(Debug, Default)]
pub struct HandedOver(Mutex<BTreeMap<GroupKey, Moment>>);

impl HandedOver {
    fn note(&self, group: GroupKey, until: Moment) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(group, until);
    }

    fn contains(&self, group: &GroupKey) -> bool {
        let now = clock::now();
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(group).is_some_and(|until| !until.passed_for_stopping(now))
    }
}

impl LeaseShell {
    /// The holder, as f+1 witnesses name it, says that it has released a group to this site. It
    /// is believed in this alone: that asking now is worth while, and that an approval is there. The witnesses
    /// decide by themselves.
    pub fn handed_over(&self, caller: &SiteName, group: &GroupKey, epoch: Epoch) -> bool {
        let number = self.context.charter.site(caller).map(|s| s.number);
        // Only who holds a group can hand it over: any other site's word would stand in for
        // the approval that the group's owner asks for.
        let faulty = self.context.charter.faulty_witnesses as usize;
        let holder = self.group_status(group).and_then(|status| named(&status, faulty));
        if number != Some(epoch.site) || holder.is_none_or(|vote| &vote.site != caller) {
            return false;
        }
        let until = clock::now().after(self.context.charter.lease_duration() * HANDED_OVER);
        self.handed_over.note(group.clone(), until);
        self.inputs_changed.notify_one();
        true
    }
}

impl LeaseShell {
    /// Whether a holder has released the group to this site of late.
    pub(super) fn was_handed_over(&self, group: &GroupKey) -> bool {
        self.handed_over.contains(group)
    }
}

/// Keeps the contender's groups current, until cancelled.
pub async fn follow_inputs(
    shell: Arc<LeaseShell>,
    plans: Arc<Plans>,
    mut groups: watch::Receiver<Snapshot<FailoverGroup>>,
    mut takeovers: watch::Receiver<Snapshot<Takeover>>,
    stop: CancellationToken,
) {
    let mut changed = plans.watch();
    let mut approved_before: BTreeSet<GroupKey> = BTreeSet::new();
    loop {
        let approved = approvals(&shell, &takeovers.borrow_and_update().clone());
        let objects = groups.borrow_and_update().clone();
        let site = &shell.context.site;
        let inputs =
            plans.all().into_iter().filter(|(_, plan)| plan.plan().rank(site).is_some()).map(|(group, plan)| {
                let ready = is_ready(&plan, &group, site, &objects);
                let approved = approved.contains(&group) || shell.handed_over.contains(&group);
                GroupInput { plan: plan.envelope().clone(), approved, ready }
            });
        shell.set_groups(inputs.collect());
        let handed: BTreeSet<GroupKey> =
            plans.all().into_keys().filter(|g| approved.contains(g) || shell.handed_over.contains(g)).collect();
        for group in handed.difference(&approved_before) {
            shell.nudge(group);
        }
        approved_before = handed;
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changed.changed() => {}
            _ = groups.changed() => {}
            _ = takeovers.changed() => {}
            () = shell.inputs_changed.notified() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// Groups whose takeover by this site somebody has approved, and that has not happened yet.
fn approvals(shell: &LeaseShell, takeovers: &BTreeMap<String, Takeover>) -> BTreeSet<GroupKey> {
    let open = |t: &&Takeover| {
        let phase = t.status.as_ref().map(|s| s.phase).unwrap_or_default();
        // Which epoch it ends is noted first: a later lapse needs another approval.
        let is_noted = t.status.as_ref().is_some_and(|s| s.old_epoch.is_some());
        is_noted
            && t.spec.kind == TakeoverType::Approval
            && t.spec.approve
            && t.spec.to == shell.context.site.as_str()
            && t.metadata.deletion_timestamp.is_none()
            && !matches!(phase, Phase::Complete | Phase::Failed)
    };
    takeovers.values().filter(open).filter_map(|t| t.spec.key().ok()).collect()
}

/// Whether what this site would run is there: at home it always is; a standby needs its
/// copies, and its read-only object tells.
fn is_ready(plan: &VerifiedPlan, group: &GroupKey, site: &SiteName, objects: &BTreeMap<String, FailoverGroup>) -> bool {
    if &plan.plan().group.home == site {
        return true;
    }
    let object = objects.values().find(|o| o.name_any() == FailoverGroup::name_at(group, site));
    let standbys = object.and_then(|o| o.status.as_ref()).map(|s| s.standbys.as_slice()).unwrap_or_default();
    let own = standbys.iter().find(|s| s.site == site.as_str());
    own.is_some_and(|s| matches!(s.state, StandbyState::Armed | StandbyState::Holding | StandbyState::Preparing))
}
