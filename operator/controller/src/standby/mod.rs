//! The standby: copies of other homes' groups, held ready behind their gates.
//!
//! ```text
//!   home --Bundle--> verify --> Secret --derive--> copies --> pods held by their gates
//!                                                                |
//!   home, the other standbys <-----------Readiness---------------+
//! ```
//!
//! One replica does this, the leader. It asks who holds the group, which is home as a rule: a
//! standby needs nothing of anybody to start what it holds. A group is in one of three places
//! here:
//!
//! | | what is written |
//! |---|---|
//! | it may be running ([`running`]) | nothing but roll-out settings: people here are its masters; what they change is offered to the other standbys ([`offer`]) |
//! | this site stands by for it ([`held`]) | copies of the newest revision, beside the good one |
//! | neither | its copies are removed, and what stays is said |

pub mod apply;
mod ask;
mod held;
mod offer;
mod running;
pub mod store;
pub mod survey;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::ResourceExt;
use kube::api::Api;
use regent_api::group::{Difference, StandbyState};
use regent_api::{FailoverGroup, LEAVE_ANNOTATION, Site, SiteSpec};
use regent_core::ids::{GroupKey, SiteName};
use regent_core::plan::VerifiedPlan;
use regent_core::time::Moment;
use regent_kinds::amend::{Amendment, Change};
use regent_kinds::report::StandbyReport;
use regent_shell::clock;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::context::Context;
use crate::federation::client::Peers;
use crate::leader::Leadership;
use crate::lease::LeaseShell;
use crate::mirror::{note_report, to_wire};
use crate::objects::{ObjectError, Snapshot, bounded};
use crate::plans::Plans;
use apply::{Applier, ApplyError, Keep, Permit};
use ask::Quiet;
use store::{Held, Revisions, Store};
use survey::Surveyor;

/// How often home is asked and the copies are looked at.
const POLL: Duration = Duration::from_secs(3);
/// The same, while pods are on their way.
const POLL_BUSY: Duration = Duration::from_millis(700);
const REPORT: Duration = Duration::from_secs(2);
/// What has not changed is told other sites again this often.
const TELL_AGAIN: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct Memory {
    /// Read from the Secrets once, then kept with them.
    revisions: Option<Revisions>,
    /// Why there is nothing newer.
    word: String,
    /// That nothing is newer than what is held, as it was said last.
    quiet: Option<Quiet>,
    /// Something is newer.
    wake: Arc<Notify>,
    /// The copies that were applied last.
    applied: Option<Applied>,
    /// What was said of copies that are all held, what it was made of, and when it was looked at.
    calm: Option<(Basis, StandbyReport, Moment)>,
    /// What everyone was told last, and when.
    told: Option<(StandbyReport, Moment)>,
    /// The revision after which copies that nothing keeps were removed.
    pruned: Option<String>,
    /// What was said last of copies that are held, and when.
    said: Option<(StandbyReport, Moment)>,
    /// A revision of which a set was put back, and when.
    failed: Option<(String, Moment)>,
    /// Since when the group runs here.
    runs_since: Option<Moment>,
    /// What people changed here, as last compared.
    compared: Option<(Compared, Moment)>,
    /// What is offered to the other standbys, by what runs here.
    offers: Option<(String, Amendment)>,
    /// What names that, as it was read last.
    offered: Option<(String, Moment)>,
}

/// What was applied.
#[derive(Debug)]
struct Applied {
    copies: Vec<Value>,
    /// The namespaces' version in the cache before that.
    version: u64,
    at: Moment,
}

/// What a look at held copies is made of: the same again is held the same.
#[derive(Debug, PartialEq)]
struct Basis {
    /// The namespaces' version in the cache.
    version: u64,
    /// Of the good revision and of the next.
    digests: [Option<String>; 2],
    /// The site's table of names.
    tables: SiteSpec,
    /// Why there is nothing newer.
    word: String,
}

/// What people changed here.
#[derive(Debug, Clone, Default)]
struct Compared {
    /// As it is shown.
    differences: Vec<Difference>,
    /// As it is carried to other standbys.
    changes: Vec<Change>,
}

/// This site's part as a standby.
pub struct Standby {
    /// This site.
    pub context: Arc<Context>,
    /// Its API server.
    pub client: kube::Client,
    /// The plans.
    pub plans: Arc<Plans>,
    /// The other sites.
    pub peers: Peers,
    /// Who holds what.
    pub shell: Arc<LeaseShell>,
    /// The groups' objects at this site.
    pub groups: watch::Receiver<Snapshot<FailoverGroup>>,
    /// Who leads.
    pub leadership: watch::Receiver<Leadership>,
    /// What the namespaces of held copies hold.
    pub cache: Cache,
    memory: Mutex<BTreeMap<GroupKey, Memory>>,
    /// The site's table of names, as it was read last.
    tables: tokio::sync::Mutex<Option<(SiteSpec, Moment)>>,
}

impl Standby {
    /// A standby that knows nothing yet.
    pub fn new(
        context: Arc<Context>,
        plans: Arc<Plans>,
        peers: Peers,
        shell: Arc<LeaseShell>,
        groups: watch::Receiver<Snapshot<FailoverGroup>>,
        leadership: watch::Receiver<Leadership>,
        cache: Cache,
    ) -> Self {
        let (client, memory, tables) = (cache.client(), Mutex::default(), tokio::sync::Mutex::default());
        Self { context, client, plans, peers, shell, groups, leadership, cache, memory, tables }
    }

    /// Keeps the copies of all groups current while this replica leads, until cancelled.
    /// Each group has a task of its own: one that hangs delays no other.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let asking = tokio::spawn(self.clone().ask_for_all(stop.clone()));
        let mut tasks: BTreeMap<GroupKey, CancellationToken> = BTreeMap::new();
        let mut changed = self.plans.watch();
        loop {
            let here = &self.context.site;
            for group in self.plans.all().keys().filter(|g| &g.home != here) {
                tasks.entry(group.clone()).or_insert_with(|| {
                    let token = stop.child_token();
                    tokio::spawn(self.clone().tend(group.clone(), token.clone()));
                    token
                });
            }
            tokio::select! {
                () = stop.cancelled() => break,
                changed = changed.changed() => if changed.is_err() { break },
            }
        }
        // It ends with the same token.
        let _ = asking.await;
    }

    async fn tend(self: Arc<Self>, group: GroupKey, stop: CancellationToken) {
        let mut followed = None;
        loop {
            let mut wait = POLL;
            if self.leads() {
                if let Some(report) = self.look(&group).await {
                    let report = report.bounded();
                    if is_moving(&report) {
                        wait = POLL_BUSY;
                    }
                    self.tell(&group, &report).await;
                }
            } else {
                self.forget(&group);
            }
            let (wake, namespaces) =
                self.remember(&group, |m| (m.wake.clone(), m.revisions.as_ref().map(Revisions::namespaces)));
            if namespaces != followed {
                self.follow();
                followed = namespaces;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = wake.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn leads(&self) -> bool {
        self.leadership.borrow().term_at(clock::now()).is_some()
    }

    /// Another replica leads: what this one knows grows old.
    fn forget(&self, group: &GroupKey) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).remove(group);
    }

    /// The newest verified bundle of a group, for its read-only copy.
    pub fn held(&self, group: &GroupKey) -> Option<Held> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let revisions = memory.get(group)?.revisions.as_ref()?;
        revisions.next.clone().or_else(|| revisions.good.clone())
    }

    fn remember<T>(&self, group: &GroupKey, change: impl FnOnce(&mut Memory) -> T) -> T {
        change(self.memory.lock().unwrap_or_else(PoisonError::into_inner).entry(group.clone()).or_default())
    }

    /// Writes are permitted while this replica leads and the group's role here is what it was.
    fn applier(&self, group: &GroupKey, running: bool) -> Applier {
        let (leadership, shell, key) = (self.leadership.clone(), self.shell.clone(), group.clone());
        let permit: Permit =
            Arc::new(move || leadership.borrow().term_at(clock::now()).is_some() && shell.may_run(&key) == running);
        Applier { client: self.client.clone(), group: group.clone(), permit }
    }

    fn store(&self) -> Store {
        Store::new(self.client.clone(), self.context.charter.clone())
    }

    fn surveyor(&self) -> Surveyor {
        Surveyor { client: self.client.clone() }
    }

    /// The revisions that are kept; read from the Secrets once.
    async fn revisions(&self, group: &GroupKey) -> Result<Revisions, StandbyReport> {
        if let Some(known) = self.remember(group, |m| m.revisions.clone()) {
            return Ok(known);
        }
        match self.store().load(group).await {
            Ok(read) => {
                self.remember(group, |m| m.revisions = Some(read.clone()));
                Ok(read)
            }
            Err(e) => Err(StandbyReport::of(StandbyState::Waiting, "Waiting", e.to_string())),
        }
    }

    /// One look at a group: what this site holds ready, or how it runs. None where it has no part.
    async fn look(&self, group: &GroupKey) -> Option<StandbyReport> {
        let plan = self.plans.get(group)?;
        let here = &self.context.site;
        if self.shell.may_run(group) {
            return Some(self.look_running(group).await);
        }
        self.remember(group, |m| (m.runs_since, m.compared, m.offers) = (None, None, None));
        let is_standby = plan.plan().standbys.contains(here);
        if self.has_left(group) {
            let said = format!(
                "the partner has taken group {group} out of site {here}; `kubectl regent standby join` takes it back"
            );
            return Some(self.leave(group, StandbyReport::of(StandbyState::Left, "Left", said)).await.0);
        }
        if !is_standby {
            let said = format!("site {here} is no standby of group {group} any more");
            let (report, was_here) =
                self.leave(group, StandbyReport::of(StandbyState::Left, "NotAStandby", said)).await;
            return was_here.then_some(report);
        }
        if !plan.is_lawful(here, &self.context.charter) {
            return Some(self.leave(group, self.unlawful(&plan)).await.0);
        }
        Some(self.look_held(group).await)
    }

    /// Whether the partner has said that its cluster is to be free of the group.
    fn has_left(&self, group: &GroupKey) -> bool {
        let groups = self.groups.borrow();
        let object = groups.get(&FailoverGroup::name_at(group, &self.context.site));
        object.is_some_and(|o| o.annotations().get(LEAVE_ANNOTATION).is_some_and(|v| v == "true"))
    }

    fn unlawful(&self, plan: &VerifiedPlan) -> StandbyReport {
        let here = &self.context.site;
        let country = self.context.charter.site(here).map(|s| s.country.as_str()).unwrap_or_default();
        let message = format!(
            "site {here} is in {country}, where group {} may not run; remove it from standbys, or add {country} to countries",
            plan.plan().group
        );
        StandbyReport::of(StandbyState::Unlawful, "Unlawful", message)
    }

    /// This site has no part in the group: nothing of it stays but data and the record. Says
    /// too whether anything was here.
    async fn leave(&self, group: &GroupKey, report: StandbyReport) -> (StandbyReport, bool) {
        let revisions = match self.revisions(group).await {
            Ok(revisions) => revisions,
            Err(report) => return (report, true),
        };
        let namespaces = revisions.namespaces();
        if namespaces.is_empty() {
            return (report, false);
        }
        let done = self.remove_copies(group, &revisions).await;
        let report = match done {
            Ok(kept) if kept.is_empty() => report,
            Ok(kept) => StandbyReport { notices: kept, ..report },
            Err(Staying::Occupied(pods)) => {
                let message = format!(
                    "{}; its copies stay: pods of it may be running here ({}); move the group first",
                    report.message,
                    pods.join(", ")
                );
                StandbyReport { state: StandbyState::Blocked, reason: "StillRunning".into(), message, ..report }
            }
            Err(Staying::Failed(e)) => {
                let message = format!("{}; its copies can't be removed yet: {e}", report.message);
                StandbyReport { state: StandbyState::Blocked, reason: e.reason().into(), message, ..report }
            }
        };
        (report, true)
    }

    async fn remove_copies(&self, group: &GroupKey, revisions: &Revisions) -> Result<Vec<String>, Staying> {
        let (applier, namespaces) = (self.applier(group, false), revisions.namespaces());
        let survey = self.surveyor().survey(group, &namespaces).await.map_err(ApplyError::from)?;
        let occupied = survey.occupied();
        if !occupied.is_empty() {
            return Err(Staying::Occupied(occupied));
        }
        let claims = self.surveyor().claims(revisions).await;
        applier.prune(&namespaces, &Keep::default()).await?;
        applier.ungate(&namespaces).await?;
        self.store().forget(group).await.map_err(ApplyError::from)?;
        self.forget(group);
        Ok(claims)
    }

    /// Says which namespaces are watched: those of all revisions that are kept here.
    fn follow(&self) {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = memory.values().filter_map(|m| m.revisions.as_ref());
        self.cache.follow(&kept.flat_map(Revisions::namespaces).collect());
    }

    /// The site's own table of names: one for all groups, read now and then.
    async fn tables(&self) -> Result<SiteSpec, ObjectError> {
        let mut held = self.tables.lock().await;
        if let Some((tables, at)) = held.as_ref()
            && !at.after(POLL).passed_for_stopping(clock::now())
        {
            return Ok(tables.clone());
        }
        let name = self.context.site.as_str();
        let api: Api<Site> = Api::all(self.client.clone());
        let read = bounded(&format!("Site {name}"), api.get_opt(name)).await?.map(|s| s.spec).unwrap_or_default();
        *held = Some((read.clone(), clock::now()));
        Ok(read)
    }

    /// Tells what is news to somebody: this site's own object at once, the other sites again
    /// after a while too, for they may have been away.
    async fn tell(&self, group: &GroupKey, report: &StandbyReport) {
        let here = &self.context.site;
        if let Err(e) = note_report(&self.client, &self.groups, here, here, group, report).await {
            tracing::debug!("{e}");
        }
        let now = clock::now();
        let is_old = |at: &Moment| at.after(TELL_AGAIN).passed_for_stopping(now);
        let is_known = self.remember(group, |m| m.told.as_ref().is_some_and(|(t, at)| t == report && !is_old(at)));
        if !is_known && self.report(group, report).await {
            self.remember(group, |m| m.told = Some((report.clone(), now)));
        }
    }

    /// Tells home and the other standbys; whether all have heard.
    async fn report(&self, group: &GroupKey, report: &StandbyReport) -> bool {
        let Some(plan) = self.plans.get(group) else { return false };
        // Who holds it tells everyone: also the site that it came from, which may be in the plan no more.
        let runs = matches!(report.state, StandbyState::Starting | StandbyState::Holding);
        let is_told = |s: &SiteName| runs || *s == group.home || plan.plan().standbys.contains(s);
        let calls = self.peers.iter().filter(|peer| is_told(peer.site())).map(|peer| {
            let wire = to_wire(report, group);
            peer.call(REPORT, |mut client| async move { client.readiness(wire).await })
        });
        let mut all = true;
        for answer in futures::future::join_all(calls).await {
            if let Err(e) = answer {
                tracing::debug!("telling what is held ready: {e}");
                all = false;
            }
        }
        all
    }
}

/// Whether pods are on their way: to their gates, to being ready, or from one revision to the
/// next. What is blocked waits for somebody, and is looked at as often as what is still.
fn is_moving(report: &StandbyReport) -> bool {
    let comes = matches!(report.state, StandbyState::Preparing | StandbyState::Starting);
    comes || (report.next.is_some() && report.reason == "Preparing")
}

/// Why copies stay where they should go.
enum Staying {
    /// These pods may be running.
    Occupied(Vec<String>),
    /// The API server refused, or can't be asked.
    Failed(ApplyError),
}

impl From<ApplyError> for Staying {
    fn from(e: ApplyError) -> Self {
        Self::Failed(e)
    }
}
