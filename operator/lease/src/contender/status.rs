//! What people are shown of the groups at this site.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Contender;
use super::believed::Believed;
use super::group::{Group, HeldBack, IdleReason, Role};
use super::release::ReleaseStage;
use regent_core::charter::Charter;
use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_core::message::{Refusal, Vote};
use regent_core::time::Moment;

/// A witness's last word on a group, as this site heard it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WitnessWord {
    /// Why it refused; none: it grants, or would.
    pub refusal: Option<Refusal>,
    /// How long until time alone may lift the refusal, in milliseconds.
    pub wait_ms: Option<u64>,
    /// How long ago it answered, in milliseconds.
    pub heard_ms_ago: u64,
    /// The vote that it named last.
    pub vote: Option<Vote>,
    /// It said yes and didn't grant: not counted for this long, in milliseconds.
    pub left_out_ms: Option<u64>,
    /// The version of the plan that it holds, as it said last.
    pub plan_version: Option<u64>,
}

/// What a replica is to a group, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum RoleName {
    /// Doesn't ask.
    Idle,
    /// Asks whether it would be granted.
    Candidate,
    /// Has asked to be granted.
    Attempting,
    /// Gave up for a while.
    Silent,
    /// Has a certificate.
    Holder,
    /// Had one, and goes on asking for it.
    RanOut,
    /// Gives the group to a successor.
    Releasing,
}

impl RoleName {
    /// Whether what runs of the group may be running here.
    pub fn may_run(self) -> bool {
        matches!(self, Self::Holder | Self::RanOut | Self::Releasing)
    }
}

/// A group as this replica sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupStatus {
    /// Which group.
    pub group: GroupKey,
    /// What this replica is to it.
    pub role: RoleName,
    /// Why it doesn't ask, when `Idle`.
    pub idle: Option<IdleReason>,
    /// Why it asks but doesn't take over.
    pub held_back: Option<HeldBack>,
    /// The epoch that is asked for or held.
    pub epoch: Option<Epoch>,
    /// The epoch of the last certificate.
    pub certified: Option<Epoch>,
    /// What is left of it, in milliseconds.
    pub left_ms: Option<u64>,
    /// Where a release stands that is under way.
    pub release: Option<ReleaseStage>,
    /// The plan's version here.
    pub plan_version: u64,
    /// Who holds the group, by the witnesses' word.
    pub believed: Option<Believed>,
    /// Each witness's last word.
    pub witnesses: BTreeMap<SiteName, WitnessWord>,
}

fn millis(d: std::time::Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

impl Contender {
    /// All groups, for `status` and `explain`.
    pub fn status(&self, now: Moment) -> Vec<GroupStatus> {
        self.groups.iter().map(|(key, group)| group.status(now, key, &self.charter, &self.site)).collect()
    }

    /// One group.
    pub fn group_status(&self, now: Moment, key: &GroupKey) -> Option<GroupStatus> {
        self.groups.get(key).map(|group| group.status(now, key, &self.charter, &self.site))
    }

    /// What this replica is to a group.
    pub fn role(&self, now: Moment, key: &GroupKey) -> Option<RoleName> {
        self.groups.get(key).map(|group| group.role.name(now))
    }

    /// The groups of which something may be running here.
    pub fn running(&self, now: Moment) -> BTreeSet<GroupKey> {
        let running = self.groups.iter().filter(|(_, group)| group.role.name(now).may_run());
        running.map(|(key, _)| key.clone()).collect()
    }
}

impl Role {
    fn name(&self, now: Moment) -> RoleName {
        match self {
            Self::Idle(_) => RoleName::Idle,
            Self::Candidate { .. } => RoleName::Candidate,
            Self::Attempting { .. } => RoleName::Attempting,
            Self::Silent { .. } => RoleName::Silent,
            Self::Holder { held, .. } if held.until.passed_for_stopping(now) => RoleName::RanOut,
            Self::Holder { .. } => RoleName::Holder,
            Self::Releasing { .. } => RoleName::Releasing,
        }
    }
}

impl Group {
    fn status(&self, now: Moment, key: &GroupKey, charter: &Charter, site: &SiteName) -> GroupStatus {
        let (idle, left_ms) = match &self.role {
            Role::Idle(reason) => (Some(*reason), None),
            Role::Holder { held, .. } => (None, Some(millis(held.until.left_for_stopping(now)))),
            _ => (None, None),
        };
        let asks = matches!(self.role, Role::Candidate { .. } | Role::Attempting { .. } | Role::Silent { .. });
        GroupStatus {
            group: key.clone(),
            role: self.role.name(now),
            idle,
            held_back: if asks { self.held_back(charter, site) } else { None },
            epoch: self.asked().or(self.release().map(|r| r.epoch)),
            certified: self.certified,
            left_ms,
            release: self.release().map(|r| r.phase.stage()),
            plan_version: self.plan().version,
            believed: self.believed(now, charter),
            witnesses: self.views.keys().map(|w| (w.clone(), self.word(now, w))).collect(),
        }
    }

    fn word(&self, now: Moment, witness: &SiteName) -> WitnessWord {
        let view = self.views.get(witness);
        let left_out = self.left_out.get(witness).map(|l| millis(l.until.left_for_waiting(now))).filter(|ms| *ms > 0);
        let heard = view.map_or(0, |v| now.boot_ns.saturating_sub(v.at.boot_ns) / 1_000_000);
        WitnessWord {
            refusal: view.and_then(|v| v.refusal),
            wait_ms: view
                .filter(|v| v.refusal.is_some())
                .and_then(|v| v.ready)
                .map(|r| millis(r.left_for_waiting(now))),
            heard_ms_ago: heard,
            vote: self.votes.of(witness).cloned(),
            left_out_ms: left_out,
            plan_version: self.holds.get(witness).map(|h| h.version),
        }
    }
}
