//! `Takeover` objects: planned moves and approvals, and their records.
//!
//! ```text
//!   Pending --released by the core, step by step--> Closed --> Retired --> Stopped --> Released
//!                                                     witnesses name the successor --> Certified
//!                                                        the successor runs the group --> Complete
//! ```
//!
//! The epoch that is to end is written into the object before the core begins, so that
//! another replica takes up where this one died.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use regent_api::condition;
use regent_api::group::{PROTECTED, StandbyState, StandbyStatus};
use regent_api::takeover::{Phase, Step, TakeoverType};
use regent_api::{FailoverGroup, Takeover, TakeoverStatus};
use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_core::plan::Protection;
use regent_lease::contender::{ContenderEvent, GroupStatus, ReleaseError, RoleName};
use regent_shell::clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::publish::named;
use super::steps::{Approval, Next, approval, fail, now, reached, started, step, wait};
use super::{LeaseShell, NodeLists, ReleaseJobs, record, release};
use crate::federation::client::Peers;
use crate::leader::Leadership;
use crate::objects::{ObjectError, Snapshot, bounded};
use crate::plans::Plans;

/// While a takeover is under way its steps are noted this often.
const LOOK: Duration = Duration::from_millis(100);
const IDLE: Duration = Duration::from_secs(2);
/// How long a holder's notice that it has released may take to be known here.
const NOTICE: Duration = Duration::from_secs(2);

/// What a takeover's objects are judged by.
pub struct Takeovers {
    /// The contender.
    pub shell: Arc<LeaseShell>,
    /// The lists of nodes.
    pub lists: Arc<NodeLists>,
    /// The plans.
    pub plans: Arc<Plans>,
    /// The groups' objects.
    pub groups: watch::Receiver<Snapshot<FailoverGroup>>,
    /// The takeovers' objects.
    pub takeovers: watch::Receiver<Snapshot<Takeover>>,
    /// Who leads.
    pub leadership: watch::Receiver<Leadership>,
    /// For writing their status.
    pub api: Api<Takeover>,
}

/// A planned takeover, and how its group stands.
struct Planned<'a> {
    takeover: &'a Takeover,
    group: &'a GroupKey,
    to: &'a SiteName,
    status: &'a GroupStatus,
}

/// Drives planned takeovers while this replica leads, until cancelled.
pub async fn drive_takeovers(mut all: Takeovers, peers: Peers, jobs: ReleaseJobs, stop: CancellationToken) {
    tokio::spawn(release::work(all.shell.clone(), all.lists.clone(), peers, jobs, stop.clone()));
    let mut facts = all.shell.facts();
    loop {
        let objects = all.takeovers.borrow_and_update().clone();
        let leads = all.leadership.borrow().term_at(clock::now()).is_some();
        let open = objects.values().filter(|t| leads && is_open(t));
        let mut busy = false;
        for takeover in open {
            busy = true;
            if let Err(e) = all.advance(takeover).await {
                tracing::warn!("{e}");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = all.takeovers.changed() => {}
            fact = facts.recv() => match fact {
                Ok(ContenderEvent::Certificate { group, epoch, .. }) if leads => all.record(group, epoch),
                _ => {}
            },
            () = tokio::time::sleep(if busy { LOOK } else { IDLE }) => {}
        }
    }
}

fn phase_of(takeover: &Takeover) -> Phase {
    takeover.status.as_ref().map(|s| s.phase).unwrap_or_default()
}

fn is_open(takeover: &Takeover) -> bool {
    takeover.metadata.deletion_timestamp.is_none() && !matches!(phase_of(takeover), Phase::Complete | Phase::Failed)
}

impl Takeovers {
    async fn advance(&self, takeover: &Takeover) -> Result<(), ObjectError> {
        let (Ok(group), Ok(to)) = (takeover.spec.key(), takeover.spec.to.parse::<SiteName>()) else {
            let message = "spec.group or spec.to is no name; make another Takeover".to_owned();
            return self.write(takeover, |s| fail(s, "BadName", &message)).await;
        };
        let Some(status) = self.shell.group_status(&group) else {
            // The plan that left this site out took effect when the group was elsewhere.
            if phase_of(takeover) >= Phase::Released {
                let next = self.runs_elsewhere(takeover, &group, &to);
                return self.carry_out(takeover, next).await;
            }
            let message = format!("no plan of group {group} names this site; make the Takeover at the holder's site");
            return self.write(takeover, |s| fail(s, "UnknownGroup", &message)).await;
        };
        match takeover.spec.kind {
            TakeoverType::Planned => {
                self.advance_planned(&Planned { takeover, group: &group, to: &to, status: &status }).await
            }
            TakeoverType::Approval if takeover.status.as_ref().is_some_and(|s| s.epoch.is_some()) => {
                let next = self.runs_there(takeover, &group, &to, &status);
                self.carry_out(takeover, next).await
            }
            TakeoverType::Approval => self.advance_approval(takeover, &status).await,
            TakeoverType::Lapse => {
                let next = self.runs_there(takeover, &group, &to, &status);
                self.carry_out(takeover, next).await
            }
        }
    }

    /// A certificate for a new epoch: if another site held the group until now and did not
    /// hand it over, this is a takeover after a lapse.
    fn record(&self, group: GroupKey, epoch: Epoch) {
        let Some(before) = self.lists.holder_before(&group) else { return };
        let older = before.epoch.parse::<Epoch>().is_ok_and(|e| e < epoch);
        if before.site == self.shell.context.site.as_str() || !older {
            return;
        }
        let (shell, lists, api) = (self.shell.clone(), self.lists.clone(), self.api.clone());
        tokio::spawn(async move {
            // The holder's notice may have come to the other replica, and be on its way.
            tokio::time::sleep(NOTICE).await;
            if shell.was_handed_over(&group) || lists.was_handed_over(&group, &before.epoch) {
                return;
            }
            if let Err(e) = record::lapse(&shell, &api, &group, epoch, before).await {
                tracing::warn!("the takeover is not on record: {e}");
            }
        });
    }

    async fn advance_planned(&self, planned: &Planned<'_>) -> Result<(), ObjectError> {
        let Planned { takeover, group, to, status } = *planned;
        let ends: Option<Epoch> = takeover.status.as_ref().and_then(|s| s.old_epoch.as_ref()?.parse().ok());
        let Some(epoch) = ends else { return self.begin(planned).await };
        let next = match (phase_of(takeover), status.release) {
            (Phase::Pending | Phase::Closed | Phase::Retired | Phase::Stopped, None) => {
                self.take_up(takeover, group, epoch, to)
            }
            (phase, Some(release)) if reached(release) > phase => Next::Reached(reached(release), None),
            (Phase::Released, None) => self.certified(epoch, to, status),
            (Phase::Certified | Phase::Started, None) => self.runs_there(takeover, group, to, status),
            _ => Next::Stay,
        };
        self.carry_out(takeover, next).await
    }

    async fn carry_out(&self, takeover: &Takeover, next: Next) -> Result<(), ObjectError> {
        match next {
            Next::Stay => Ok(()),
            Next::Waits(message) => self.write(takeover, |s| wait(s, &message)).await,
            Next::Reached(phase, epoch) => {
                self.write(takeover, |s| {
                    step(s, phase, self.shell.context.site.as_str(), epoch.as_deref());
                    s.epoch = epoch.clone().or(s.epoch.take());
                })
                .await
            }
            Next::Failed { reason, message } => self.write(takeover, |s| fail(s, reason, &message)).await,
        }
    }

    /// Checks that the move can be made, notes the epoch that is to end, and begins.
    async fn begin(&self, planned: &Planned<'_>) -> Result<(), ObjectError> {
        let Planned { takeover, group, to, status } = *planned;
        if self.is_being_protected(group) {
            return Ok(());
        }
        if let Err((reason, message)) = self.check(group, to, status) {
            return self.write(takeover, |s| fail(s, reason, &message)).await;
        }
        let Some(epoch) = status.certified else { return Ok(()) };
        let site = self.shell.context.site.to_string();
        self.write(takeover, |s| {
            s.from = Some(site.clone());
            s.old_epoch = Some(epoch.to_string());
            s.timeline.push(Step { event: "Begun".into(), at: Time(now()), site: Some(site.clone()), detail: None });
        })
        .await?;
        match self.shell.release(group, epoch, to.clone()) {
            Ok(()) => Ok(()),
            Err(e) => {
                let message = e.to_string();
                self.write(takeover, |s| fail(s, "Refused", &message)).await
            }
        }
    }

    /// Whether home still has the list of nodes closed on the way to Protected. It opens the
    /// list at the end of that way, which must not be in the middle of a release (L12).
    fn is_being_protected(&self, group: &GroupKey) -> bool {
        let groups = self.groups.borrow();
        let object = groups.get(&FailoverGroup::name_at(group, &self.shell.context.site));
        let status = object.and_then(|o| o.status.as_ref());
        let done = status.is_some_and(|s| condition::is_true(&s.conditions, PROTECTED));
        group.home == self.shell.context.site && self.lists.listed(group).1 && !done
    }

    fn check(&self, group: &GroupKey, to: &SiteName, status: &GroupStatus) -> Result<(), (&'static str, String)> {
        let site = &self.shell.context.site;
        let Some(plan) = self.plans.get(group) else {
            return Err(("UnknownGroup", format!("this site has no plan of group {group}")));
        };
        if status.role != RoleName::Holder {
            let holder = named(status, self.shell.context.charter.faulty_witnesses as usize);
            let holder = holder.map_or_else(|| "nobody that is known".to_owned(), |v| format!("site {}", v.site));
            return Err((
                "NotHolder",
                format!("site {site} does not hold group {group}, {holder} does; make the Takeover there"),
            ));
        }
        if to == site {
            return Err(("AlreadyThere", format!("group {group} is at site {site} already")));
        }
        if plan.plan().protection != Protection::Protected {
            return Err((
                "NotProtected",
                format!(
                    "group {group} is not Protected, so no other site may hold it; run `kubectl regent protect {}`",
                    group.name
                ),
            ));
        }
        let state = self.state_of(group, to);
        match plan.rank(to) {
            None => Err((
                "NotAStandby",
                format!(
                    "site {to} is neither home nor a standby of group {group} that has countersigned its plan; name one that is"
                ),
            )),
            Some(_) if !plan.is_lawful(to, &self.shell.context.charter) => Err((
                "Unlawful",
                format!(
                    "group {group} may not run at site {to}; add its country to spec.countries of the FailoverGroup, or name another standby"
                ),
            )),
            Some(_) => match state {
                Some(StandbyState::NameTaken | StandbyState::Blocked | StandbyState::Waiting) => Err((
                    "NotReady",
                    format!(
                        "site {to} has nothing ready for group {group} ({state:?}): see standbys in the status of its FailoverGroup; nobody would run it"
                    ),
                )),
                _ => Ok(()),
            },
        }
    }

    /// What a standby has prepared, as this site knows.
    fn state_of(&self, group: &GroupKey, to: &SiteName) -> Option<StandbyState> {
        self.entry_of(group, to).map(|s| s.state)
    }

    /// What a site said last of the group.
    fn entry_of(&self, group: &GroupKey, site: &SiteName) -> Option<StandbyStatus> {
        let objects = self.groups.borrow();
        let object = objects.get(&FailoverGroup::name_at(group, &self.shell.context.site))?;
        let standbys = &object.status.as_ref()?.standbys;
        standbys.iter().find(|s| s.site == site.as_str()).cloned()
    }

    /// The core knows of no release, but the object says that one was begun.
    fn take_up(&self, takeover: &Takeover, group: &GroupKey, epoch: Epoch, to: &SiteName) -> Next {
        let status = self.shell.group_status(group);
        // Done between two looks: a candidate again, whose witnesses have the epoch retired.
        if self.shell.has_released(group, epoch) {
            return Next::Reached(Phase::Released, None);
        }
        if phase_of(takeover) == Phase::Pending
            && status.is_some_and(|s| s.role == RoleName::Holder && s.certified != Some(epoch))
        {
            let message = format!("epoch {epoch} was replaced before its release began; make another Takeover");
            return Next::Failed { reason: "Replaced", message };
        }
        match self.shell.release(group, epoch, to.clone()) {
            Ok(()) | Err(ReleaseError::UnderWay(..)) => Next::Stay,
            Err(e) => Next::Failed { reason: "Refused", message: e.to_string() },
        }
    }

    fn certified(&self, ended: Epoch, to: &SiteName, status: &GroupStatus) -> Next {
        match named(status, self.shell.context.charter.faulty_witnesses as usize) {
            Some(vote) if vote.epoch > ended && &vote.site == to => {
                Next::Reached(Phase::Certified, Some(vote.epoch.to_string()))
            }
            Some(vote) if vote.epoch > ended => {
                let message = format!("site {} has acquired the group, not {to}; see its FailoverGroup", vote.site);
                Next::Failed { reason: "WentElsewhere", message }
            }
            _ => Next::Stay,
        }
    }

    /// The same, at a site that is in the group's plan no more: by the successor's word alone.
    fn runs_elsewhere(&self, takeover: &Takeover, group: &GroupKey, to: &SiteName) -> Next {
        let epoch = |text: Option<&String>| text.and_then(|e| e.parse::<Epoch>().ok());
        let status = takeover.status.clone().unwrap_or_default();
        let entry = self.entry_of(group, to);
        let said = epoch(entry.as_ref().and_then(|e| e.epoch.as_ref()));
        match phase_of(takeover) {
            Phase::Released if said > epoch(status.old_epoch.as_ref()) => {
                Next::Reached(Phase::Certified, said.map(|e| e.to_string()))
            }
            Phase::Released => Next::Stay,
            phase => started(phase, epoch(status.epoch.as_ref()), entry.as_ref()),
        }
    }

    /// How the successor runs the group, as its own site says: complete is what is ready by its
    /// own probes.
    fn runs_there(&self, takeover: &Takeover, group: &GroupKey, to: &SiteName, status: &GroupStatus) -> Next {
        let epoch = takeover.status.as_ref().and_then(|s| s.epoch.as_ref()?.parse::<Epoch>().ok());
        let later = named(status, self.shell.context.charter.faulty_witnesses as usize);
        if let Some(vote) = later.filter(|v| &v.site != to && Some(v.epoch) > epoch) {
            let message = format!("site {} has acquired the group under epoch {} since", vote.site, vote.epoch);
            return Next::Failed { reason: "Overtaken", message };
        }
        started(phase_of(takeover), epoch, self.entry_of(group, to).as_ref())
    }

    async fn advance_approval(&self, takeover: &Takeover, status: &GroupStatus) -> Result<(), ObjectError> {
        let site = &self.shell.context.site;
        let known = named(status, self.shell.context.charter.faulty_witnesses as usize);
        let certified = status.certified.filter(|_| status.role == RoleName::Holder);
        match approval(takeover, site, certified, known.as_ref()) {
            Approval::Wait => Ok(()),
            Approval::About(epoch) => {
                self.write(takeover, |s| {
                    s.old_epoch = Some(epoch.to_string());
                    if !takeover.spec.approve {
                        s.phase = Phase::AwaitingApproval;
                    }
                })
                .await
            }
            Approval::Took(epoch) => {
                self.write(takeover, |s| {
                    s.epoch = Some(epoch.to_string());
                    step(s, Phase::Certified, site.as_str(), Some(&epoch.to_string()));
                })
                .await
            }
            Approval::Outdated(message) => self.write(takeover, |s| fail(s, "Outdated", &message)).await,
        }
    }

    /// Changes a takeover's status by compare-and-swap; a conflict is tried again at the
    /// next look, on what is there then.
    async fn write(&self, takeover: &Takeover, change: impl FnOnce(&mut TakeoverStatus)) -> Result<(), ObjectError> {
        let name = takeover.name_any();
        let mut next = takeover.clone();
        let mut status = next.status.take().unwrap_or_default();
        change(&mut status);
        status.observed_generation = takeover.metadata.generation;
        if takeover.status.as_ref() == Some(&status) {
            return Ok(());
        }
        next.status = Some(status);
        let object = format!("Takeover {name}");
        match bounded(&object, self.api.replace_status(&name, &PostParams::default(), &next)).await {
            Err(e) if e.is_conflict() => Ok(()),
            written => written.map(drop),
        }
    }
}
