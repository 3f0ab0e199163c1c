//! Drives `Takeover` objects: planned moves and approvals, and their records.
//! [`regent_lease::takeover`] decides what comes next.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::api::{Api, PostParams};
use regent_api::condition;
use regent_api::group::PROTECTED;
use regent_api::takeover::Phase;
use regent_api::{FailoverGroup, Takeover, TakeoverStatus};
use regent_core::ids::{Epoch, GroupKey, SiteName};
use regent_lease::contender::{ContenderEvent, ReleaseError};
use regent_lease::takeover::{Facts, Next, Record, Word, next};
use regent_shell::clock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{LeaseShell, NodeLists, ReleaseJobs, record, release, steps};
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

fn is_open(takeover: &Takeover) -> bool {
    let phase = takeover.status.as_ref().map(|s| s.phase).unwrap_or_default();
    takeover.metadata.deletion_timestamp.is_none() && !matches!(phase, Phase::Complete | Phase::Failed)
}

impl Takeovers {
    async fn advance(&self, takeover: &Takeover) -> Result<(), ObjectError> {
        let (Ok(group), Some(record)) = (takeover.spec.key(), steps::read(takeover)) else {
            let message = "spec.group or spec.to is no name; make another Takeover";
            return self.write(takeover, |s| steps::fail(s, "BadName", message)).await;
        };
        let (status, plan) = (self.shell.group_status(&group), self.plans.get(&group));
        let word = self.word_of(&group, &record.to);
        let context = &self.shell.context;
        let facts = Facts {
            charter: &context.charter,
            here: &context.site,
            group: &group,
            plan: plan.as_deref(),
            status: status.as_ref(),
            adopting: self.is_being_protected(&group),
            released: record.ends.is_some_and(|ends| self.shell.has_released(&group, ends)),
            word: word.as_ref(),
        };
        self.carry_out(takeover, &group, &record, next(&record, &facts)).await
    }

    async fn carry_out(
        &self,
        takeover: &Takeover,
        group: &GroupKey,
        record: &Record,
        next: Next,
    ) -> Result<(), ObjectError> {
        let here = self.shell.context.site.as_str();
        match next {
            Next::Stay => Ok(()),
            Next::Waits(message) => self.write(takeover, |s| steps::wait(s, &message)).await,
            Next::Begin(epoch) => {
                self.write(takeover, |s| steps::begin(s, epoch, here)).await?;
                match self.shell.release(group, epoch, record.to.clone()) {
                    Ok(()) => Ok(()),
                    Err(e) => self.write(takeover, |s| steps::fail(s, "Refused", &e.to_string())).await,
                }
            }
            Next::GoOn(epoch) => match self.shell.release(group, epoch, record.to.clone()) {
                Ok(()) | Err(ReleaseError::UnderWay(..)) => Ok(()),
                Err(e) => self.give_up(takeover, group, record, "Refused", &e.to_string()).await,
            },
            Next::About(epoch) => self.write(takeover, |s| steps::about(s, epoch, record.approved)).await,
            Next::Reached(phase, epoch) => self.write(takeover, |s| steps::reach(s, phase, epoch, here)).await,
            Next::Failed { reason, message } => self.give_up(takeover, group, record, reason, &message).await,
        }
    }

    /// Opens the list first: once the takeover has failed nobody would look after it.
    async fn give_up(
        &self,
        takeover: &Takeover,
        group: &GroupKey,
        record: &Record,
        reason: &str,
        message: &str,
    ) -> Result<(), ObjectError> {
        if record.may_have_closed() {
            self.lists.open(group).await?;
        }
        self.write(takeover, |s| steps::fail(s, reason, message)).await
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

    /// Whether home still has the list of nodes closed on the way to Protected. It opens the
    /// list at the end of that way, which must not be in the middle of a release (L12).
    fn is_being_protected(&self, group: &GroupKey) -> bool {
        let groups = self.groups.borrow();
        let object = groups.get(&FailoverGroup::name_at(group, &self.shell.context.site));
        let status = object.and_then(|o| o.status.as_ref());
        let done = status.is_some_and(|s| condition::is_true(&s.conditions, PROTECTED));
        group.home == self.shell.context.site && self.lists.listed(group).closed && !done
    }

    /// What a site said last of the group.
    fn word_of(&self, group: &GroupKey, site: &SiteName) -> Option<Word> {
        let objects = self.groups.borrow();
        let object = objects.get(&FailoverGroup::name_at(group, &self.shell.context.site))?;
        let standbys = &object.status.as_ref()?.standbys;
        standbys.iter().find(|s| s.site == site.as_str()).map(steps::word)
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
