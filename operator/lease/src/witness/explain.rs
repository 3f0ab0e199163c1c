//! Why a group is where it is, for people: each witness's view as data.

use serde::{Deserialize, Serialize};

use super::Witness;
use super::decide::{Claim, No};
use super::group::Group;
use super::receive::ceil_ms;
use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_core::message::{Entry, Refusal, Vote};
use regent_core::plan::{Protection, VerifiedPlan};
use regent_core::time::{Moment, nanos};

/// A witness as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WitnessView {
    /// Which one.
    pub witness: SiteName,
    /// Its count of starts.
    pub start: u64,
    /// Whether it may answer at all (L9).
    pub leads: bool,
    /// Whether its state may be stale (L8).
    pub stale: bool,
    /// How long it still grants nothing but its votes (L7, L9), in milliseconds.
    pub waits_ms: u64,
    /// Its groups.
    pub groups: Vec<GroupView>,
}

/// The promise of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PromiseView {
    /// To whom.
    pub site: SiteName,
    /// For how long still, in milliseconds.
    pub left_ms: u64,
}

/// Who waits in line (L4.7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InLine {
    /// Who.
    pub site: SiteName,
    /// For which epoch it asked last.
    pub epoch: Epoch,
    /// How long ago, in milliseconds.
    pub asked_ago_ms: u64,
    /// Not all that it would run is ready: every ready site and home come before it.
    pub degraded: bool,
}

/// What a site would be answered if it asked now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claimant {
    /// Who.
    pub site: SiteName,
    /// For the lowest epoch that it could get.
    pub epoch: Epoch,
    /// The rule that refuses it; none: it would be granted.
    pub refusal: Option<Refusal>,
    /// When time alone may have ended that, in milliseconds.
    pub wait_ms: Option<u64>,
}

/// A group as one witness sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupView {
    /// The group.
    pub group: GroupKey,
    /// The vote.
    pub vote: Option<Vote>,
    /// The highest retired epoch.
    pub retired: Option<Epoch>,
    /// The registered plan's version.
    pub plan_version: Option<u64>,
    /// Its protection.
    pub protection: Option<Protection>,
    /// Its standbys that countersigned, best first.
    pub standbys: Vec<SiteName>,
    /// The unexpired promise.
    pub promise: Option<PromiseView>,
    /// How long ago the incumbent was last proven, in milliseconds.
    pub proven_ago_ms: u64,
    /// When it lapses unless it is proven, in milliseconds; 0: it has (L5).
    pub lapses_in_ms: u64,
    /// Whether the record is being written, or its last write failed.
    pub busy: bool,
    /// Who waits.
    pub line: Vec<InLine>,
    /// Certified changes of holder within the last hour (L14).
    pub changes_this_hour: usize,
    /// What each site of the plan would be answered, and the incumbent's that it leaves out.
    pub claimants: Vec<Claimant>,
}

impl Witness {
    /// The witness and its groups as they are `now`.
    pub fn view(&self, now: Moment) -> WitnessView {
        WitnessView {
            witness: self.site.clone(),
            start: self.start,
            leads: self.leads(now),
            stale: self.is_stale(),
            waits_ms: self.waits(now).map_or(0, |until| ceil_ms(until, now)),
            groups: self.explain(now),
        }
    }

    /// Each group as it is `now`.
    pub fn explain(&self, now: Moment) -> Vec<GroupView> {
        self.groups.iter().map(|(key, group)| self.explain_one(key, group, now)).collect()
    }

    /// One group as it is `now`, if the witness knows it.
    pub fn explain_group(&self, key: &GroupKey, now: Moment) -> Option<GroupView> {
        self.groups.get(key).map(|group| self.explain_one(key, group, now))
    }

    fn explain_one(&self, key: &GroupKey, group: &Group, now: Moment) -> GroupView {
        let record = &group.record;
        let plan = group.plan.as_ref();
        let live = group.promise.as_ref().filter(|p| !p.until.passed_for_waiting(now));
        let span = self.charter.renewal_period() * 2;
        let waiting = group.line.iter().filter(|(_, asked)| !asked.at.after(span).passed_for_waiting(now));
        GroupView {
            group: key.clone(),
            vote: record.vote.clone(),
            retired: record.retired.as_ref().map(|r| r.epoch),
            plan_version: plan.map(|p| p.plan().version),
            protection: plan.map(|p| p.plan().protection),
            standbys: plan.map_or_else(Vec::new, countersigned_by_rank),
            promise: live.map(|p| PromiseView { site: p.site.clone(), left_ms: ceil_ms(p.until, now) }),
            proven_ago_ms: ago_ms(group.proven_at, now),
            lapses_in_ms: ceil_ms(group.lapses_at(&self.charter), now),
            busy: group.is_busy(),
            line: waiting
                .map(|(site, asked)| InLine {
                    site: site.clone(),
                    epoch: asked.epoch,
                    asked_ago_ms: ago_ms(asked.at, now),
                    degraded: asked.degraded,
                })
                .collect(),
            changes_this_hour: group.brake.counted(now),
            claimants: plan.map_or_else(Vec::new, |p| self.claimants(key, group, p, now)),
        }
    }

    fn claimants(&self, key: &GroupKey, group: &Group, plan: &VerifiedPlan, now: Moment) -> Vec<Claimant> {
        let leaving = Some(group.incumbent(key)).filter(|site| plan.plan().rank(site).is_none());
        let sites = plan.plan().standbys.iter().chain(std::iter::once(&plan.plan().group.home)).chain(leaving);
        sites.filter_map(|site| self.claimant(site, key, group, plan, now)).collect()
    }

    fn claimant(
        &self,
        site: &SiteName,
        key: &GroupKey,
        group: &Group,
        plan: &VerifiedPlan,
        now: Moment,
    ) -> Option<Claimant> {
        let record = &group.record;
        let held = group.highest().filter(|v| &v.site == site && !group.is_retired());
        let seen = [group.highest().map(|v| v.epoch), record.retired.as_ref().map(|r| r.epoch)];
        let highest = seen.into_iter().flatten().map(|e| e.term).max().unwrap_or(0);
        let next = Epoch { term: highest.saturating_add(1), site: self.charter.site(site)?.number };
        let epoch = held.map_or(next, |v| v.epoch);
        let entry = Entry { group: key.clone(), epoch, state: plan.plan().protection };
        let verdict = self.decide(Claim { site, entry: &entry, binding: true, now });
        let no = verdict.err();
        Some(Claimant {
            site: site.clone(),
            epoch,
            refusal: no.map(|No { reason, .. }| reason),
            wait_ms: no.and_then(|No { until, .. }| until).map(|until| ceil_ms(until, now)),
        })
    }
}

fn countersigned_by_rank(plan: &VerifiedPlan) -> Vec<SiteName> {
    plan.plan().standbys.iter().filter(|s| plan.countersigned().contains(s)).cloned().collect()
}

/// Time since `then`, in milliseconds, by the slower clock.
fn ago_ms(then: Moment, now: Moment) -> u64 {
    let boot = now.boot_ns.saturating_sub(then.boot_ns);
    boot.min(now.raw_ns.saturating_sub(then.raw_ns)) / nanos(std::time::Duration::from_millis(1))
}
