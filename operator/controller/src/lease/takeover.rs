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

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use regent_api::condition::{self, Truth};
use regent_api::group::{PROTECTED, StandbyState};
use regent_api::takeover::{COMPLETE, Phase, Step, TakeoverType};
use regent_api::{FailoverGroup, Takeover, TakeoverStatus};
use regent_core::contender::{ContenderEvent, GroupStatus, ReleaseError};
use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_core::message::Vote;
use regent_core::plan::Protection;
use regent_shell::clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::publish::named;
use super::{LeaseShell, NodeLists, ReleaseJobs, record, release};
use crate::federation::client::Peers;
use crate::leader::Leadership;
use crate::objects::{ObjectError, Snapshot, bounded};
use crate::plans::Plans;

/// While a takeover is under way its steps are noted this often.
const LOOK: Duration = Duration::from_millis(100);
const IDLE: Duration = Duration::from_secs(2);

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

/// What comes next for a takeover.
enum Next {
    Stay,
    Reached(Phase, Option<String>),
    Failed { reason: &'static str, message: String },
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
                Ok(ContenderEvent::Certificate { group, epoch, .. }) if leads => all.record(&group, epoch).await,
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

fn now() -> Timestamp {
    Timestamp::from_nanosecond(i128::from(clock::realtime_ns())).unwrap_or_default()
}

impl Takeovers {
    async fn advance(&self, takeover: &Takeover) -> Result<(), ObjectError> {
        let (Ok(group), Ok(to)) = (takeover.spec.key(), takeover.spec.to.parse::<SiteName>()) else {
            let message = "spec.group or spec.to is no name; make another Takeover".to_owned();
            return self.write(takeover, |s| fail(s, "BadName", &message)).await;
        };
        let Some(status) = self.shell.group_status(&group) else {
            let message = format!("no plan of group {group} names this site; make the Takeover at the holder's site");
            return self.write(takeover, |s| fail(s, "UnknownGroup", &message)).await;
        };
        match takeover.spec.kind {
            TakeoverType::Planned => {
                self.advance_planned(&Planned { takeover, group: &group, to: &to, status: &status }).await
            }
            TakeoverType::Approval => self.advance_approval(takeover, &status).await,
            TakeoverType::Lapse => match self.runs_there(&group, &to) {
                Next::Reached(phase, _) => {
                    self.write(takeover, |s| step(s, phase, self.shell.context.site.as_str(), None)).await
                }
                Next::Stay | Next::Failed { .. } => Ok(()),
            },
        }
    }

    /// A certificate for a new epoch: if another site held the group until now and did not
    /// hand it over, this is a takeover after a lapse.
    async fn record(&self, group: &GroupKey, epoch: Epoch) {
        let Some(before) = self.lists.holder_before(group) else { return };
        let older = before.epoch.parse::<Epoch>().is_ok_and(|e| e < epoch);
        if before.site == self.shell.context.site.as_str() || !older || self.shell.was_handed_over(group) {
            return;
        }
        if let Err(e) = record::lapse(&self.shell, &self.api, group, epoch, before).await {
            tracing::warn!("the takeover is not on record: {e}");
        }
    }

    async fn advance_planned(&self, planned: &Planned<'_>) -> Result<(), ObjectError> {
        let Planned { takeover, group, to, status } = *planned;
        let ends: Option<Epoch> = takeover.status.as_ref().and_then(|s| s.old_epoch.as_ref()?.parse().ok());
        let Some(epoch) = ends else { return self.begin(planned).await };
        let next = match (phase_of(takeover), status.release) {
            (Phase::Pending | Phase::Closed | Phase::Retired | Phase::Stopped, None) => {
                self.take_up(takeover, group, epoch, to)
            }
            (phase, Some(release)) => match reached(release) {
                Some(to) if to as u8 > phase as u8 => Next::Reached(to, None),
                _ => Next::Stay,
            },
            (Phase::Released, None) => self.certified(epoch, to, status),
            (Phase::Certified, None) => self.runs_there(group, to),
            _ => Next::Stay,
        };
        match next {
            Next::Stay => Ok(()),
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
        if status.role != "Holder" {
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

    /// What a standby has prepared, as this site knows. Home is no standby of its own, and
    /// standbys report to home alone.
    fn state_of(&self, group: &GroupKey, to: &SiteName) -> Option<StandbyState> {
        let objects = self.groups.borrow();
        let object = objects.get(&FailoverGroup::name_at(group, &self.shell.context.site))?;
        let standbys = &object.status.as_ref()?.standbys;
        standbys.iter().find(|s| s.site == to.as_str()).map(|s| s.state)
    }

    /// The core knows of no release, but the object says that one was begun.
    fn take_up(&self, takeover: &Takeover, group: &GroupKey, epoch: Epoch, to: &SiteName) -> Next {
        let status = self.shell.group_status(group);
        // Done between two looks: a candidate again, whose witnesses have the epoch retired.
        if self.shell.has_released(group, epoch) {
            return Next::Reached(Phase::Released, None);
        }
        if phase_of(takeover) == Phase::Pending
            && status.is_some_and(|s| s.role == "Holder" && s.certified != Some(epoch))
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

    /// The successor runs the group, as far as that can be known here.
    fn runs_there(&self, group: &GroupKey, to: &SiteName) -> Next {
        match self.state_of(group, to) {
            Some(StandbyState::Holding | StandbyState::Unknown) | None => Next::Reached(Phase::Complete, None),
            Some(_) => Next::Stay,
        }
    }

    async fn advance_approval(&self, takeover: &Takeover, status: &GroupStatus) -> Result<(), ObjectError> {
        let site = &self.shell.context.site;
        let known = named(status, self.shell.context.charter.faulty_witnesses as usize);
        let certified = status.certified.filter(|_| status.role == "Holder");
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
                    step(s, Phase::Complete, site.as_str(), None);
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
        next.status = Some(status);
        let object = format!("Takeover {name}");
        match bounded(&object, self.api.replace_status(&name, &PostParams::default(), &next)).await {
            Err(e) if e.is_conflict() => Ok(()),
            written => written.map(drop),
        }
    }
}

/// What comes next for an approval.
#[derive(Debug, PartialEq, Eq)]
enum Approval {
    Wait,
    /// It is about the end of this epoch, and of no later one.
    About(Epoch),
    /// This site has acquired the group.
    Took(Epoch),
    Outdated(String),
}

/// An approval lets a standby end one epoch: the one that was in force when it was made.
/// Left lying around, it must not let the group move at some later lapse.
fn approval(takeover: &Takeover, site: &SiteName, certified: Option<Epoch>, known: Option<&Vote>) -> Approval {
    let Some(ends) = takeover.status.as_ref().and_then(|s| s.old_epoch.as_ref()?.parse().ok()) else {
        return known.map_or(Approval::Wait, |vote| Approval::About(vote.epoch));
    };
    match (certified.filter(|epoch| *epoch > ends && takeover.spec.approve), known) {
        (Some(epoch), _) => Approval::Took(epoch),
        (None, Some(vote)) if vote.epoch > ends && &vote.site != site => Approval::Outdated(format!(
            "it was about epoch {ends}, and site {} holds the group under epoch {} by now; make another Takeover",
            vote.site, vote.epoch
        )),
        _ => Approval::Wait,
    }
}

/// The phase that follows from where the core's release is.
fn reached(release: &str) -> Option<Phase> {
    let phases = BTreeMap::from([
        ("Retiring", Phase::Closed),
        ("Stopping", Phase::Retired),
        ("Releasing", Phase::Stopped),
        ("Released", Phase::Released),
    ]);
    phases.get(release).copied()
}

fn step(status: &mut TakeoverStatus, phase: Phase, site: &str, detail: Option<&str>) {
    status.phase = phase;
    let (event, site, detail) = (format!("{phase:?}"), Some(site.to_owned()), detail.map(str::to_owned));
    status.timeline.push(Step { event, at: Time(now()), site, detail });
    let done = phase == Phase::Complete;
    let message = if done { "the group has moved" } else { "the group is on its way" };
    condition::set(&mut status.conditions, COMPLETE, done.into(), &format!("{phase:?}"), message, None, now());
}

fn fail(status: &mut TakeoverStatus, reason: &str, message: &str) {
    status.phase = Phase::Failed;
    condition::set(&mut status.conditions, COMPLETE, Truth::False, reason, message, None, now());
}

#[cfg(test)]
mod tests {
    use regent_api::TakeoverSpec;

    use super::*;

    fn epoch(text: &str) -> Epoch {
        text.parse().unwrap()
    }

    fn approving(old_epoch: Option<&str>) -> Takeover {
        let (group, to) = ("ireland/shop".into(), "france".into());
        let spec = TakeoverSpec { group, to, kind: TakeoverType::Approval, reason: None, approve: true };
        let mut takeover = Takeover::new("t", spec);
        takeover.status = Some(TakeoverStatus { old_epoch: old_epoch.map(str::to_owned), ..TakeoverStatus::default() });
        takeover
    }

    #[test]
    fn an_approval_ends_the_epoch_that_it_was_made_in_and_no_later_one() {
        let site: SiteName = "france".parse().unwrap();
        let vote = |site: &str, e: &str| Vote { site: site.parse().unwrap(), epoch: epoch(e) };
        let next = |old, certified: Option<&str>, known: Option<Vote>| {
            approval(&approving(old), &site, certified.map(epoch), known.as_ref())
        };
        assert_eq!(next(None, None, None), Approval::Wait);
        assert_eq!(next(None, None, Some(vote("ireland", "3.1"))), Approval::About(epoch("3.1")));
        assert_eq!(next(Some("3.1"), None, Some(vote("ireland", "3.1"))), Approval::Wait);
        assert_eq!(next(Some("3.1"), None, Some(vote("france", "4.2"))), Approval::Wait);
        assert_eq!(next(Some("3.1"), Some("4.2"), Some(vote("france", "4.2"))), Approval::Took(epoch("4.2")));
        let outdated = next(Some("3.1"), None, Some(vote("germany", "4.3")));
        assert!(matches!(outdated, Approval::Outdated(why) if why.contains("germany") && why.contains("4.3")));
    }
}
