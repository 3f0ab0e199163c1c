//! The standby: copies of other homes' groups, held ready behind their gates.
//!
//! ```text
//!   home --Bundle--> verify --> Secret --derive--> copies --> pods held by their gates
//!                                                                |
//!   home, the other standbys <-----------Readiness---------------+
//! ```
//!
//! One replica does this, the leader. It asks home, and nobody asks it: a standby needs
//! nothing of home to start what it holds.

pub mod apply;
pub mod derive;
pub mod gate;
pub mod ready;
pub mod store;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Preconditions};
use regent_api::{FailoverGroup, GROUP_LABEL, Site, SiteSpec, group_label};
use regent_core::ids::GroupKey;
use regent_core::plan::VerifiedPlan;
use regent_core::time::Moment;
use regent_shell::clock;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::federation::client::Peers;
use crate::leader::Leadership;
use crate::lease::LeaseShell;
use crate::mirror::bundle::{object_of, text};
use crate::mirror::capture::list;
use crate::mirror::{StandbyReport, note_report};
use crate::objects::{ObjectError, Snapshot, bounded};
use crate::plans::Plans;
use apply::{Applier, ApplyError};
use derive::{Mode, derive};
use ready::{Live, judge};
use store::{Held, Store};

/// How often home is asked and the copies are looked at.
const POLL: Duration = Duration::from_secs(2);
/// The same, while copies are not ready.
const POLL_BUSY: Duration = Duration::from_millis(700);
/// Copies that somebody has changed are put right within this time.
const REAPPLY: Duration = Duration::from_secs(60);
const REPORT: Duration = Duration::from_secs(2);

/// What was applied last.
#[derive(Debug, Clone)]
struct Applied {
    digest: String,
    mode: Mode,
    tables: SiteSpec,
    at: Moment,
}

#[derive(Debug, Default)]
struct Memory {
    held: Option<Held>,
    applied: Option<Applied>,
    /// Since when the group runs here.
    runs_since: Option<Moment>,
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
    memory: Mutex<BTreeMap<GroupKey, Memory>>,
}

impl Standby {
    /// A standby that knows nothing yet.
    pub fn new(
        context: Arc<Context>,
        client: kube::Client,
        plans: Arc<Plans>,
        peers: Peers,
        shell: Arc<LeaseShell>,
        groups: watch::Receiver<Snapshot<FailoverGroup>>,
        leadership: watch::Receiver<Leadership>,
    ) -> Self {
        Self { context, client, plans, peers, shell, groups, leadership, memory: Mutex::default() }
    }

    /// Keeps the copies of all groups current while this replica leads, until cancelled.
    /// Each group has a task of its own: one that hangs delays no other.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut tasks: BTreeMap<GroupKey, CancellationToken> = BTreeMap::new();
        let mut changed = self.plans.watch();
        loop {
            let here = &self.context.site;
            for group in self.plans.all().into_keys().filter(|g| &g.home != here) {
                tasks.entry(group.clone()).or_insert_with(|| {
                    let token = stop.child_token();
                    tokio::spawn(self.clone().tend(group, token.clone()));
                    token
                });
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = changed.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn tend(self: Arc<Self>, group: GroupKey, stop: CancellationToken) {
        loop {
            let mut wait = POLL;
            if self.leadership.borrow().term_at(clock::now()).is_some() {
                if let Some(report) = self.look(&group).await {
                    if !matches!(report.reason.as_str(), "" | "Holding") {
                        wait = POLL_BUSY;
                    }
                    self.report(&group, &report).await;
                }
            } else {
                self.forget(&group);
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Another replica leads: what this one knows grows old.
    fn forget(&self, group: &GroupKey) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).remove(group);
    }

    /// The verified bundle of a group, for its read-only copy.
    pub fn held(&self, group: &GroupKey) -> Option<Held> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).get(group).and_then(|m| m.held.clone())
    }

    fn remember(&self, group: &GroupKey, change: impl FnOnce(&mut Memory)) {
        change(self.memory.lock().unwrap_or_else(PoisonError::into_inner).entry(group.clone()).or_default());
    }

    fn mode(&self, group: &GroupKey) -> Mode {
        let role = self.shell.group_status(group).map(|s| s.role);
        if matches!(role, Some("Holder" | "RanOut" | "Releasing")) { Mode::Running } else { Mode::Held }
    }

    /// One look at a group: what this site holds ready. None where it has no part.
    async fn look(&self, group: &GroupKey) -> Option<StandbyReport> {
        let plan = self.plans.get(group)?;
        let here = &self.context.site;
        let (mode, is_standby) = (self.mode(group), plan.plan().standbys.contains(here));
        let lawful = plan.is_lawful(here, &self.context.charter);
        if mode == Mode::Held && !(is_standby && lawful) {
            if let Err(e) = self.drop_copies(group).await {
                tracing::warn!("removing the copies of group {group}: {e}");
            }
            return is_standby.then(|| self.unlawful(&plan));
        }
        let held = match self.bundle(group, mode).await {
            Ok(held) => held,
            Err(report) => return Some(report),
        };
        match self.prepare(group, &held, mode).await {
            Ok(report) => Some(report),
            Err(e) => Some(StandbyReport {
                revision: held.digest,
                reason: e.reason().to_owned(),
                message: e.to_string(),
                ..StandbyReport::default()
            }),
        }
    }

    fn unlawful(&self, plan: &VerifiedPlan) -> StandbyReport {
        let here = &self.context.site;
        let country = self.context.charter.site(here).map(|s| s.country.as_str()).unwrap_or_default();
        let message = format!(
            "site {here} is in {country}, where group {} may not run; remove it from standbys, or add {country} to countries",
            plan.plan().group
        );
        StandbyReport { reason: "Unlawful".into(), message, ..StandbyReport::default() }
    }

    /// This site may not hold the group: nothing of it stays but the record.
    async fn drop_copies(&self, group: &GroupKey) -> Result<(), ApplyError> {
        let store = Store::new(self.client.clone(), self.context.charter.clone());
        let Ok(Some(held)) = store.load(group).await else { return Ok(()) };
        Applier { client: self.client.clone() }.remove_all(group, &held.bundle.spec.namespaces).await?;
        store.forget(group).await?;
        self.forget(group);
        Ok(())
    }

    /// The newest bundle; the one that is kept when home can't be asked, and while the
    /// group runs here.
    async fn bundle(&self, group: &GroupKey, mode: Mode) -> Result<Held, StandbyReport> {
        let store = Store::new(self.client.clone(), self.context.charter.clone());
        let mut why = "no bundle yet: its home has not been reached".to_owned();
        if self.held(group).is_none() {
            match store.load(group).await {
                Ok(held) => self.remember(group, |m| m.held = held),
                Err(e) => why = e.to_string(),
            }
        }
        let held = self.held(group);
        if mode == Mode::Held
            && let Some(home) = self.peers.get(&group.home)
        {
            let have = held.as_ref().map(|h| h.digest.as_str()).unwrap_or_default();
            match store.fetch(group, home, have).await {
                Ok(Some(new)) => {
                    tracing::info!(%group, revision = new.digest, "a new bundle");
                    self.remember(group, |m| m.held = Some(new.clone()));
                    return Ok(new);
                }
                Ok(None) => {}
                Err(e) => {
                    tracing::debug!("{e}");
                    why = e.to_string();
                }
            }
        }
        held.ok_or_else(|| StandbyReport { reason: "Waiting".into(), message: why, ..StandbyReport::default() })
    }

    async fn prepare(&self, group: &GroupKey, held: &Held, mode: Mode) -> Result<StandbyReport, ApplyError> {
        let tables = self.tables().await?;
        let bundle = &held.bundle;
        let copies: Vec<Value> = bundle.objects.iter().map(|o| derive(o, group, &tables, mode)).collect();
        let now = clock::now();
        let applied =
            self.memory.lock().unwrap_or_else(PoisonError::into_inner).get(group).and_then(|m| m.applied.clone());
        let is_current = applied.is_some_and(|a| {
            a.digest == held.digest
                && a.mode == mode
                && a.tables == tables
                && !a.at.after(REAPPLY).passed_for_stopping(now)
        });
        let workloads: Vec<&Value> =
            copies.iter().filter(|c| matches!(text(c, "/kind"), "Deployment" | "StatefulSet")).collect();
        if !is_current && self.may_write(group, held, &workloads, mode, now).await? {
            let applier = Applier { client: self.client.clone() };
            applier.gate_pods(group, &bundle.spec, None).await?;
            applier.apply(group, &copies, || self.mode(group) == Mode::Held).await?;
            if mode == Mode::Held {
                applier.prune(group, &bundle.spec.namespaces, &copies).await?;
            }
            let applied = Applied { digest: held.digest.clone(), mode, tables, at: now };
            self.remember(group, |m| m.applied = Some(applied));
        }
        let live = self.live(group, &bundle.spec.namespaces).await?;
        if mode == Mode::Held {
            self.renew_sets(&live).await?;
        }
        Ok(judge(&held.digest, &workloads, &live, mode))
    }

    /// Whether copies may be written now. After a takeover nothing is written until the
    /// pods are ready: the API server and the kubelets have better things to do then.
    async fn may_write(
        &self,
        group: &GroupKey,
        held: &Held,
        workloads: &[&Value],
        mode: Mode,
        now: Moment,
    ) -> Result<bool, ObjectError> {
        let mut since = None;
        self.remember(group, |m| {
            m.runs_since = (mode == Mode::Running).then(|| m.runs_since.unwrap_or(now));
            since = m.runs_since;
        });
        let Some(since) = since else { return Ok(true) };
        let live = self.live(group, &held.bundle.spec.namespaces).await?;
        let report = judge(&held.digest, workloads, &live, mode);
        Ok(report.armed >= report.wanted || since.after(REAPPLY).passed_for_stopping(now))
    }

    /// The site's own table of names.
    async fn tables(&self) -> Result<SiteSpec, ObjectError> {
        let name = self.context.site.as_str();
        let api: Api<Site> = Api::all(self.client.clone());
        Ok(bounded(&format!("Site {name}"), api.get_opt(name)).await?.map(|s| s.spec).unwrap_or_default())
    }

    /// The copies of workloads as they are, with their pods.
    async fn live(&self, group: &GroupKey, namespaces: &[String]) -> Result<BTreeMap<String, Live>, ObjectError> {
        let ours = ListParams::default().labels(&format!("{GROUP_LABEL}={}", group_label(group)));
        let mut live = BTreeMap::new();
        for namespace in namespaces {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
            for kind in [("apps/v1", "Deployment"), ("apps/v1", "StatefulSet")] {
                for workload in list(&self.client, kind, namespace, &ours).await? {
                    let Some(Value::Object(labels)) = workload.pointer("/spec/selector/matchLabels") else { continue };
                    let query: Vec<String> =
                        labels.iter().filter_map(|(k, v)| Some(format!("{k}={}", v.as_str()?))).collect();
                    let params = ListParams::default().labels(&query.join(","));
                    let pods = bounded(&format!("pods of {}", object_of(&workload)), pods.list(&params)).await?.items;
                    live.insert(object_of(&workload), Live { workload, pods });
                }
            }
        }
        Ok(live)
    }

    /// A StatefulSet that rolls on delete needs its held pods of older revisions deleted.
    /// They have never run: what runs is never deleted (I4).
    async fn renew_sets(&self, live: &BTreeMap<String, Live>) -> Result<(), ApplyError> {
        for Live { workload, pods } in live.values().filter(|l| text(&l.workload, "/kind") == "StatefulSet") {
            let revision = text(workload, "/status/updateRevision");
            let namespace = text(workload, "/metadata/namespace");
            let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
            let old =
                pods.iter().filter(|p| ready::is_held(p) && !ready::is_gone(p) && !ready::is_of_revision(p, revision));
            for pod in old.filter(|_| !revision.is_empty()) {
                let (name, object) = (pod.name_any(), format!("pod {namespace}/{}", pod.name_any()));
                // Only as it was seen: a gate that has opened since changes the pod.
                let preconditions = Preconditions { uid: pod.uid(), resource_version: pod.resource_version() };
                let removal = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                match bounded(&object, api.delete(&name, &removal)).await {
                    Err(e) if e.is_forbidden() => {
                        return Err(ApplyError::NotPrepared { namespace: namespace.to_owned(), error: e });
                    }
                    Err(e) if !e.is_not_found() && !e.is_conflict() => return Err(e.into()),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Tells home and the other standbys, and this site's own object.
    async fn report(&self, group: &GroupKey, report: &StandbyReport) {
        let here = &self.context.site;
        if let Err(e) = note_report(&self.client, &self.groups, here, here, group, report).await {
            tracing::debug!("{e}");
        }
        let Some(plan) = self.plans.get(group) else { return };
        let others = plan.plan().standbys.iter().chain([&group.home]).filter(|s| *s != here);
        let calls = others.filter_map(|site| self.peers.get(site)).map(|peer| {
            let wire = report.to_wire(group);
            peer.call(REPORT, |mut client| async move { client.readiness(wire).await })
        });
        for answer in futures::future::join_all(calls).await {
            if let Err(e) = answer {
                tracing::debug!("telling what is held ready: {e}");
            }
        }
    }
}
