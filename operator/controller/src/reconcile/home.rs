//! The groups that are at home here: judged, planned, gated, protected.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Resource, ResourceExt};
use regent_api::condition;
use regent_api::group::{PROTECTED, StandbyState};
use regent_api::{ControlLeaseStatus, FailoverGroup, STRIKE_ANNOTATION, WantedProtection, object_name};
use regent_core::ids::{GroupKey, NodeName, SiteName};
use regent_core::plan::{Plan, Protection, VerifiedPlan};
use regent_lease::adoption::{self, Reason, Step, must_open, next};
use regent_lease::contender::{GroupStatus, RoleName};

use regent_kinds::report::StandbyReport;
use regent_shell::clock;

use super::Reconciler;
use super::inputs::{Inputs, Made, versions};
use super::judge::{Finding, Judged, judge, missing_standbys};
use super::pods::{self, Matched};
use super::status::{self, Facts};
use crate::cache::Unread;
use crate::mirror::capture::KINDS;
use crate::mirror::reports::forget_report;
use crate::mirror::{MirrorError, note_report};
use crate::objects::{Snapshot, bounded};
use crate::standby::apply::{Applier, Permit};

/// Groups that are looked at at once: a guard that is silent holds up its own group only.
const AT_ONCE: usize = 32;

/// What one look at a group found before anything is written.
struct Look {
    object: Arc<FailoverGroup>,
    key: GroupKey,
    inputs: Inputs,
    judged: Judged,
    pods: Result<Vec<Matched>, String>,
}

/// Whether something of a look is to be tried again although nothing that is watched may change.
#[derive(Default)]
struct Left(AtomicBool);

impl Left {
    fn some(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Notes what failed, and tells it.
    fn failed(&self, e: &impl std::fmt::Display) {
        tracing::debug!("{e}");
        self.some();
    }
}

impl Reconciler {
    /// One pass over all groups that are at home here. Only those are looked at of which
    /// something has changed.
    pub(super) async fn tend_home(&self) {
        let here = self.context.site.as_str();
        let objects = self.groups.borrow().clone();
        let is_ours = |g: &&Arc<FailoverGroup>| {
            g.spec.home == here && !g.name_any().contains('.') && g.metadata.deletion_timestamp.is_none()
        };
        let groups: BTreeMap<GroupKey, Arc<FailoverGroup>> =
            objects.values().filter(is_ours).filter_map(|g| Some((g.key().ok()?, g.clone()))).collect();
        let now = clock::now();
        let mut due: BTreeMap<GroupKey, Inputs> = BTreeMap::new();
        for (key, object) in &groups {
            let inputs = self.inputs_at_home(key, object);
            if inputs.made_of != Made::Namespaces(None) && self.looks().is_due(key, &inputs, now) {
                due.insert(key.clone(), inputs);
            }
        }
        if !due.is_empty() {
            self.look_at(&groups, due).await;
        }
        self.tell_again(&groups).await;
        self.end_deleted(&objects).await;
    }

    fn inputs_at_home(&self, key: &GroupKey, object: &FailoverGroup) -> Inputs {
        let shell = self.shell.group_status(key);
        let plan = self.plans.get(key);
        let lease = self.leases.borrow().get(&object_name(key)).cloned();
        Inputs {
            versions: versions(Some(object), lease.as_deref()),
            registered: plan.as_ref().is_some_and(|p| self.shell.is_registered(key, p.plan().version)),
            plan,
            made_of: Made::Namespaces(self.cache.version(&object.spec.namespaces, &KINDS)),
            role: shell.as_ref().map(|s| (s.role, s.certified)),
            elsewhere: shell.as_ref().and_then(|s| s.held_elsewhere(&self.context.site).cloned()),
        }
    }

    async fn look_at(&self, groups: &BTreeMap<GroupKey, Arc<FailoverGroup>>, mut due: BTreeMap<GroupKey, Inputs>) {
        // Two groups may not select one pod, so all are judged together.
        let found =
            |(key, object): (&GroupKey, &Arc<FailoverGroup>)| match pods::of_group(&self.cache, key, &object.spec) {
                Ok(pods) => (key.clone(), Ok(pods)),
                Err(Unread::Listing) => (key.clone(), Err("its objects are being listed".to_owned())),
                Err(Unread::Refused(e)) => (key.clone(), Err(e.to_string())),
            };
        let mut found: BTreeMap<GroupKey, Result<Vec<Matched>, String>> = groups.iter().map(found).collect();
        let names = found.iter().filter_map(|(key, pods)| {
            Some((key.clone(), pods.as_ref().ok()?.iter().map(|p| p.name.clone()).collect()))
        });
        let held = |key: &GroupKey| self.plans.get(key).map_or(Protection::Observed, |p| p.plan().protection);
        let mut judged = judge(groups.values().map(Arc::as_ref), &self.context.charter, held, &names.collect());
        let looks = groups.iter().filter_map(|(key, object)| {
            let (inputs, key) = (due.remove(key)?, key.clone());
            Some(Look { object: object.clone(), judged: judged.remove(&key)?, pods: found.remove(&key)?, inputs, key })
        });
        let looks: Vec<Look> = looks.collect();
        let tended = futures::stream::iter(looks).map(|look| async move {
            let left = Left::default();
            self.tend_group(&look, &left).await;
            self.looks().note(look.key, look.inputs, !left.0.into_inner(), clock::now());
        });
        tended.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    }

    /// An Observed group whose object somebody has deleted has no standbys any more, so that
    /// nothing of it stays behind with them. A Protected one stays as it is: its plan falls
    /// slowly (I9).
    async fn end_deleted(&self, objects: &Snapshot<FailoverGroup>) {
        let here = &self.context.site;
        for (group, plan) in self.plans.all().iter().filter(|(group, _)| &group.home == here) {
            let (name, plan) = (FailoverGroup::name_at(group, here), plan.plan());
            let ended = plan.standbys.is_empty() || plan.protection != Protection::Observed;
            if ended || objects.contains_key(&name) {
                continue;
            }
            // What is watched may be behind, or not be there yet: only a plain no counts.
            let api: Api<FailoverGroup> = Api::all(self.client.clone());
            let Ok(None) = bounded(&format!("FailoverGroup {name}"), api.get_opt(&name)).await else { continue };
            tracing::info!(%group, "its FailoverGroup is deleted: its plan has no standbys any more");
            if let Err(e) = self.plans.register(Plan { standbys: Vec::new(), ..plan.clone() }, &self.peers).await {
                tracing::warn!("{e}");
            }
        }
    }

    async fn tend_group(&self, look: &Look, left: &Left) {
        let mut facts = Facts { home: true, unlawful: look.judged.unlawful.clone(), ..Facts::default() };
        // What was given out, and said of it, stays so while this replica has not looked itself.
        if let Some(before) = &look.object.status {
            facts.revision = before.revision.clone();
            facts.unknown = before.unknown_kinds.clone();
            facts.more_unknown = usize::try_from(before.more_unknown_kinds).unwrap_or_default();
            facts.notices = before.notices.clone();
        }
        let lease = self.lease(&look.key);
        let shell = self.shell.group_status(&look.key);
        let holder = look.inputs.elsewhere.as_ref();
        match &look.judged.plan {
            Ok(plan) => {
                if let Some(finding) = holder.and_then(|site| leaves_holder_out(plan, site)) {
                    facts.invalid = Some(finding);
                } else if let Err(e) = self.plans.register(plan.clone(), &self.peers).await {
                    left.some();
                    facts.invalid = Some(Finding { reason: "PlanRefused", message: e.to_string() });
                }
            }
            Err(finding) => facts.invalid = Some(finding.clone()),
        }
        self.gate(look, &mut facts, shell.as_ref(), left).await;
        let run = self.capture(&look.key, &mut facts, left);
        if let Err(e) = self.tell_run(&look.key, &look.object.name_any(), run.as_ref(), shell.as_ref()).await {
            left.failed(&e);
        }
        self.strike(look, left).await;
        self.protect(look, &mut facts, lease.as_ref(), shell.as_ref(), left).await;
        self.show(look, &facts, lease.as_ref(), left).await;
        self.forget_others(look, holder, left).await;
    }

    /// Gates are injected once home has held a certificate: before that nothing could
    /// open them.
    async fn gate(&self, look: &Look, facts: &mut Facts, shell: Option<&GroupStatus>, left: &Left) {
        match &look.pods {
            Ok(pods) => {
                facts.ungated = pods.iter().filter(|p| !p.gated).map(|p| p.name.clone()).collect();
            }
            Err(e) => facts.capture_failed = Some(self.closed_namespace(&look.object, e)),
        }
        let planned = self.plans.get(&look.key);
        let protected = planned.as_ref().is_some_and(|p| p.plan().protection == Protection::Protected);
        let certified = shell.is_some_and(|s| s.certified.is_some());
        if facts.invalid.is_some() || !(certified || protected) {
            return;
        }
        // Goes with an Observed group; outlives the object of a Protected one.
        let owner = (!protected).then(|| owner_of(&look.object));
        let leadership = self.leadership.clone();
        let permit: Permit = Arc::new(move || leadership.borrow().term_at(clock::now()).is_some());
        let applier = Applier { client: self.client.clone(), group: look.key.clone(), permit };
        let spec = &look.object.spec;
        if let Err(e) = applier.keep_gated(&self.cache, &spec.namespaces, &spec.selector, owner.as_ref()).await {
            left.some();
            facts.capture_failed = Some(self.closed_namespace(&look.object, &e.to_string()));
        }
    }

    fn closed_namespace(&self, object: &FailoverGroup, error: &str) -> String {
        let namespaces = object.spec.namespaces.join(", ");
        format!(
            "namespaces {namespaces}: {error}; let the operator in with `kubectl regent home prepare --namespace NAMESPACE | kubectl apply -f -`"
        )
    }

    /// Captures home's release; says how the group runs here.
    fn capture(&self, group: &GroupKey, facts: &mut Facts, left: &Left) -> Option<StandbyReport> {
        match self.mirror.captured(group) {
            Ok(Some(captured)) => {
                let revision = captured.served.as_ref().map(|s| s.digest.to_string());
                facts.revision = revision.or(facts.revision.take());
                facts.withheld.clone_from(&captured.withheld);
                (facts.unknown, facts.more_unknown) = (captured.unknown.clone(), 0);
                facts.unmet.clone_from(&captured.unmet);
                facts.notices.clone_from(&captured.notices);
                Some(captured.run.clone())
            }
            Ok(None) => None,
            Err(e @ (MirrorError::Read { .. } | MirrorError::Bundle(_))) => {
                left.some();
                facts.capture_failed = Some(e.to_string());
                None
            }
        }
    }

    /// Takes nodes off the list that are gone for good, as a person says by annotation.
    async fn strike(&self, look: &Look, left: &Left) {
        let Some(names) = look.object.annotations().get(STRIKE_ANNOTATION) else { return };
        // An agent that goes later changes nothing that is compared.
        left.some();
        let attached = self.hub.nodes();
        let listed = self.lists.listed(&look.key).nodes;
        let named = names.split(',').map(|name| NodeName(name.trim().to_owned()));
        for node in named.filter(|node| listed.contains_key(node)) {
            if attached.get(&node).is_some_and(|v| v.attached) {
                tracing::warn!(group = %look.key, %node, "annotation {STRIKE_ANNOTATION} names a node whose agent is here: it stays on the list");
            } else if let Err(e) = self.lists.strike(&look.key, &node).await {
                tracing::warn!("{e}");
            }
        }
    }

    async fn protect(
        &self,
        look: &Look,
        facts: &mut Facts,
        lease: Option<&ControlLeaseStatus>,
        shell: Option<&GroupStatus>,
        left: &Left,
    ) {
        let plan = self.plans.get(&look.key);
        let conditions = look.object.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        let before = condition::get(conditions, PROTECTED).map(|c| c.reason.as_str()).unwrap_or_default();
        let planned = plan.as_ref().is_some_and(|p| p.plan().protection == Protection::Protected);
        let known = adoption::Facts {
            wanted: look.object.spec.protection == WantedProtection::Protected,
            valid: facts.invalid.is_none() && look.pods.is_ok(),
            standbys: plan.as_ref().map_or(0, |p| p.plan().standbys.len()),
            holds: shell.is_some_and(|s| s.role == RoleName::Holder),
            ungated: facts.ungated.len(),
            planned,
            registered: plan.as_ref().is_some_and(|p| self.shell.is_registered(&look.key, p.plan().version)),
            done: condition::is_true(conditions, PROTECTED),
            closed: Reason::may_have_closed(before) && lease.is_some_and(|l| l.nodes_closed),
        };
        let step = next(&known);
        if must_open(&known, step) && !self.open(&look.key).await {
            left.some();
        }
        facts.protecting = match step {
            Step::Rest if planned => None,
            Step::Rest => Some((
                Reason::Observed,
                "mirrored and measured, never frozen; `kubectl regent protect` raises it".into(),
            )),
            Step::Wait(reason) => Some((reason, waiting(reason, facts, plan.as_deref()))),
            Step::Finish if self.open(&look.key).await => None,
            Step::Finish => {
                left.some();
                Some((Reason::Registering, "q witnesses hold the plan; the list of nodes is opened next".into()))
            }
            Step::Confirm => {
                // A guard that is silent is asked again, though nothing that is watched changes.
                left.some();
                self.confirm(look, facts, lease, plan.as_deref(), left).await
            }
        };
    }

    async fn open(&self, group: &GroupKey) -> bool {
        match self.lists.open(group).await {
            Ok(()) => true,
            Err(e) => {
                tracing::warn!("the list of nodes of group {group} stays closed for now: {e}");
                false
            }
        }
    }

    /// Closes the list, has every listed guard confirm, and registers the plan.
    async fn confirm(
        &self,
        look: &Look,
        facts: &mut Facts,
        lease: Option<&ControlLeaseStatus>,
        plan: Option<&VerifiedPlan>,
        left: &Left,
    ) -> Option<(Reason, String)> {
        let said = |reason: Reason, message: String| Some((reason, message));
        // Said before it is done: whoever leads next opens a list that was left closed.
        facts.protecting = said(Reason::Confirming, "every listed node's guard is asked to confirm".into());
        self.show(look, facts, lease, left).await;
        let nodes = match self.lists.close(&look.key).await {
            Ok(nodes) => nodes,
            Err(e) => return said(Reason::Confirming, e.to_string()),
        };
        let failed = self.lists.protect(&look.key).await;
        if !failed.is_empty() {
            self.open(&look.key).await;
            let why: Vec<String> = failed.values().map(ToString::to_string).collect();
            let names: Vec<&str> = failed.keys().map(|n| n.0.as_str()).collect();
            let remedy =
                format!("kubectl annotate failovergroup {} {STRIKE_ANNOTATION}={}", look.key.name, names.join(","));
            return said(Reason::GuardSilent, format!("{}; if they are gone for good: {remedy}", why.join("; ")));
        }
        let Some(plan) = plan else { return said(Reason::Confirming, "the group has no plan yet".into()) };
        let wanted = Plan { protection: Protection::Protected, ..plan.plan().clone() };
        match self.plans.register(wanted, &self.peers).await {
            Ok(version) => said(
                Reason::Registering,
                format!("{} nodes have confirmed; witnesses are given plan version {version}", nodes.len()),
            ),
            Err(e) => said(Reason::Confirming, e.to_string()),
        }
    }

    async fn show(&self, look: &Look, facts: &Facts, lease: Option<&ControlLeaseStatus>, left: &Left) {
        let plan = self.plans.get(&look.key);
        // As it is now: this pass may have written it already.
        let object = self.groups.borrow().get(&look.object.name_any()).cloned().unwrap_or_else(|| look.object.clone());
        let new = status::status(&object, facts, plan.as_deref(), lease, Timestamp::now());
        if let Err(e) = status::write(&self.client, &object, &new).await {
            left.failed(&e);
        }
    }

    /// Standbys that residency forbids say nothing any more: home says it of them.
    /// Reports of sites that are no standbys at all any more are forgotten.
    async fn forget_others(&self, look: &Look, holder: Option<&SiteName>, left: &Left) {
        let Some(plan) = self.plans.get(&look.key) else { return };
        if let Some(finding) = &look.judged.unlawful {
            let report = StandbyReport::of(StandbyState::Unlawful, "Unlawful", finding.message.clone());
            for standby in missing_standbys(&look.object, plan.plan()) {
                let noted =
                    note_report(&self.client, &self.groups, &self.context.site, &standby, &look.key, &report).await;
                if let Err(e) = noted {
                    left.failed(&e);
                }
            }
        }
        let named: BTreeSet<&str> = look.object.spec.standbys.iter().map(String::as_str).collect();
        let reported = look.object.status.iter().flat_map(|s| &s.standbys);
        for standby in reported.filter(|s| !named.contains(s.site.as_str())) {
            let Ok(site) = standby.site.parse() else { continue };
            if plan.plan().rank(&site).is_some() || holder == Some(&site) {
                continue;
            }
            if let Err(e) = forget_report(&self.client, &look.object.name_any(), &site).await {
                left.failed(&e);
            }
        }
    }
}

/// A plan may not leave out, nor forbid, the site that holds the group: it takes effect when
/// the group is elsewhere, by a move that both sides see.
fn leaves_holder_out(plan: &Plan, holder: &SiteName) -> Option<Finding> {
    plan.rank(holder).is_none().then(|| Finding {
        reason: "HolderLeaves",
        message: format!(
            "site {holder} holds group {}, and this spec leaves it out of standbys or countries: move the group first (`kubectl regent takeover {} --to SITE`, at {holder}), then the change takes effect; until then the plan before stays in force",
            plan.group, plan.group.name
        ),
    })
}

fn owner_of(object: &FailoverGroup) -> OwnerReference {
    OwnerReference {
        api_version: FailoverGroup::api_version(&()).into_owned(),
        kind: FailoverGroup::kind(&()).into_owned(),
        name: object.name_any(),
        uid: object.uid().unwrap_or_default(),
        ..OwnerReference::default()
    }
}

/// What a person is told while a step waits.
fn waiting(reason: Reason, facts: &Facts, plan: Option<&VerifiedPlan>) -> String {
    match reason {
        Reason::PodsWithoutGate => {
            let named: Vec<&str> = facts.ungated.iter().take(5).map(String::as_str).collect();
            let more = if facts.ungated.len() > named.len() { " and others" } else { "" };
            format!(
                "{} pods run without a gate ({}{more}): they have to be re-created; `kubectl regent protect` restarts them",
                facts.ungated.len(),
                named.join(", ")
            )
        }
        Reason::NoCertificate => {
            "this site holds no certificate for the group: see which witnesses refuse with `kubectl regent explain`"
                .into()
        }
        Reason::NoStandby => "the plan has no standby: name a lawful one in spec.standbys".into(),
        Reason::InvalidSpec => {
            facts.invalid.as_ref().map_or_else(|| "the group's pods can't be read".into(), |f| f.message.clone())
        }
        _ => format!("witnesses are given plan version {}", plan.map_or(0, |p| p.plan().version)),
    }
}
