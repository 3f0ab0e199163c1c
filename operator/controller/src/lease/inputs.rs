//! What the contender is told of its groups: plans, approvals, and what is held ready.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regent_api::group::{StandbyState, StandbyStatus};
use regent_api::takeover::{Phase, TakeoverType};
use regent_api::{ControlLease, FailoverGroup, Takeover};
use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_core::plan::VerifiedPlan;
use regent_core::time::Moment;
use regent_lease::contender::{GroupInput, GroupStatus, Readiness};
use regent_shell::clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::LeaseShell;
use crate::objects::Snapshot;
use crate::plans::Plans;

/// For how many D a successor that was told of a release counts as approved.
const HANDED_OVER: u32 = 12;
const LOOK_AGAIN: Duration = Duration::from_secs(5);
const SETTLE: Duration = Duration::from_millis(20);

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
        let status = self.group_status(group);
        let holder = status.as_ref().and_then(GroupStatus::holder);
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
    mut leases: watch::Receiver<Snapshot<ControlLease>>,
    stop: CancellationToken,
) {
    let mut changed = plans.watch();
    let mut approved_before: BTreeSet<GroupKey> = BTreeSet::new();
    let mut told: Vec<GroupInput> = Vec::new();
    loop {
        let approved = approvals(&shell, &takeovers.borrow_and_update().clone());
        let objects = groups.borrow_and_update().clone();
        let held = leases.borrow_and_update().clone();
        let site = &shell.context.site;
        let running = shell.running();
        let ours = |group: &GroupKey, plan: &VerifiedPlan| {
            plan.plan().rank(site).is_some() || running.contains(group) || has_held(group, site, &held)
        };
        let known = plans.all();
        let is_approved = |group: &GroupKey| approved.contains(group) || shell.handed_over.contains(group);
        let inputs = known.iter().filter(|(group, plan)| ours(group, plan)).map(|(group, plan)| {
            let readiness = readiness(plan, group, site, &objects);
            GroupInput { plan: plan.clone(), approved: is_approved(group), readiness }
        });
        let inputs: Vec<GroupInput> = inputs.collect();
        // Most changes of objects are none to the contender, whose lock renewals wait for.
        if inputs != told {
            shell.set_groups(inputs.clone());
            told = inputs;
        }
        let handed: BTreeSet<GroupKey> = known.keys().filter(|g| is_approved(g)).cloned().collect();
        for group in handed.difference(&approved_before) {
            shell.nudge(group);
        }
        approved_before = handed;
        // Changes come in bursts; who was handed a group asks at once.
        tokio::select! {
            () = tokio::time::sleep(SETTLE) => {}
            () = shell.inputs_changed.notified() => continue,
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changed.changed() => {}
            _ = groups.changed() => {}
            _ = takeovers.changed() => {}
            _ = leases.changed() => {}
            () = shell.inputs_changed.notified() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// Groups whose takeover by this site somebody has approved, and that has not happened yet.
fn approvals(shell: &LeaseShell, takeovers: &Snapshot<Takeover>) -> BTreeSet<GroupKey> {
    let open = |t: &&Arc<Takeover>| {
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

/// Whether this site held the group when its object was last written: a replica that starts
/// anew goes on with that, though a newer plan leaves the site out.
fn has_held(group: &GroupKey, site: &SiteName, leases: &Snapshot<ControlLease>) -> bool {
    let lease = leases.get(&regent_api::object_name(group)).and_then(|o| o.status.as_ref());
    lease.and_then(|s| s.holder.as_ref()).is_some_and(|holder| holder.site == site.as_str())
}

/// How much of what this site would run is there: at home it always is; a standby needs its
/// copies, and its read-only object tells.
fn readiness(plan: &VerifiedPlan, group: &GroupKey, site: &SiteName, objects: &Snapshot<FailoverGroup>) -> Readiness {
    if &plan.plan().group.home == site {
        return Readiness::All;
    }
    let object = objects.get(&FailoverGroup::name_at(group, site));
    let standbys = object.and_then(|o| o.status.as_ref()).map(|s| s.standbys.as_slice()).unwrap_or_default();
    standbys.iter().find(|s| s.site == site.as_str()).map_or(Readiness::None, readiness_of)
}

fn readiness_of(standby: &StandbyStatus) -> Readiness {
    match standby.state {
        StandbyState::Armed | StandbyState::Holding => Readiness::All,
        _ if standby.armed_pods > 0 => Readiness::Some,
        _ => Readiness::None,
    }
}

#[cfg(test)]
mod tests {
    use regent_api::lease::{ControlLeaseSpec, ControlLeaseStatus, HolderView};

    use super::*;

    #[test]
    fn only_a_standby_that_holds_everything_ready_is_ready() {
        use StandbyState as S;
        let table = [
            (S::Armed, 3, Readiness::All),
            (S::Holding, 0, Readiness::All),
            (S::Preparing, 1, Readiness::Some),
            (S::Preparing, 0, Readiness::None),
            (S::Blocked, 2, Readiness::Some),
            (S::Blocked, 0, Readiness::None),
            (S::Waiting, 0, Readiness::None),
            (S::NameTaken, 0, Readiness::None),
            (S::Left, 0, Readiness::None),
            (S::Starting, 1, Readiness::Some),
        ];
        for (state, armed_pods, wanted) in table {
            let status = StandbyStatus { site: "france".into(), state, armed_pods, ..StandbyStatus::default() };
            assert_eq!(readiness_of(&status), wanted, "{state:?} with {armed_pods} pods");
        }
    }

    #[test]
    fn a_group_that_the_object_says_this_site_holds_stays_its_own() {
        let group: GroupKey = "ireland/shop".parse().unwrap();
        let name = regent_api::object_name(&group);
        let mut lease = ControlLease::new(&name, ControlLeaseSpec { group: group.to_string() });
        let holder = HolderView {
            site: "france".into(),
            epoch: "2.2".into(),
            protection: regent_api::Protection::Protected,
            valid: false,
            observed_at: None,
        };
        let held = |lease: &ControlLease, site: &str| {
            has_held(&group, &site.parse().unwrap(), &Arc::new([(name.clone(), Arc::new(lease.clone()))].into()))
        };
        assert!(!held(&lease, "france"));
        lease.status = Some(ControlLeaseStatus { holder: Some(holder), ..ControlLeaseStatus::default() });
        assert!(held(&lease, "france") && !held(&lease, "germany"));
    }
}
