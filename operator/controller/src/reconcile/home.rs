//! The groups that are at home here: judged, planned, gated, protected.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Resource, ResourceExt};
use regent_api::condition;
use regent_api::gate::has_gate;
use regent_api::group::{PROTECTED, StandbyState};
use regent_api::{ControlLeaseStatus, FailoverGroup, STRIKE_ANNOTATION, WantedProtection};
use regent_core::ids::{GroupKey, NodeName, SiteName};
use regent_core::plan::{Plan, Protection, VerifiedPlan};
use regent_lease::contender::{GroupStatus, RoleName};

use regent_kinds::report::StandbyReport;
use regent_shell::clock;

use super::judge::{Finding, Judged, judge, missing_standbys};
use super::protect::{self, CONFIRMING, REGISTERING, Step, must_open, next};
use super::status::{self, Facts};
use super::{Reconciler, pods};
use crate::lease::held_elsewhere;
use crate::mirror::reports::forget_report;
use crate::mirror::{MirrorError, note_report};
use crate::objects::{Snapshot, bounded};
use crate::standby::apply::{Applier, Permit};

/// What one look at a group found before anything is written.
struct Look<'a> {
    object: &'a FailoverGroup,
    key: GroupKey,
    judged: Judged,
    pods: Result<Vec<k8s_openapi::api::core::v1::Pod>, String>,
}

impl Reconciler {
    /// One pass over all groups that are at home here.
    pub(super) async fn tend_home(&self) {
        let here = self.context.site.as_str();
        let objects = self.groups.borrow().clone();
        let groups: Vec<FailoverGroup> = objects
            .values()
            .filter(|g| g.spec.home == here && !g.name_any().contains('.') && g.metadata.deletion_timestamp.is_none())
            .cloned()
            .collect();
        let mut found = BTreeMap::new();
        for group in &groups {
            let Ok(key) = group.key() else { continue };
            found.insert(key, pods::of_group(&self.client, &group.spec).await.map_err(|e| e.to_string()));
        }
        let names = found
            .iter()
            .filter_map(|(key, pods)| Some((key.clone(), pods.as_ref().ok()?.iter().map(pods::name_of).collect())));
        let held = |key: &GroupKey| self.plans.get(key).map_or(Protection::Observed, |p| p.plan().protection);
        let mut judged = judge(&groups, &self.context.charter, held, &names.collect());
        let looks = groups.iter().filter_map(|object| {
            let key = object.key().ok()?;
            Some(Look { object, judged: judged.remove(&key)?, pods: found.remove(&key)?, key })
        });
        // Each by itself: a guard that is silent holds up its own groups only.
        futures::future::join_all(looks.map(|look| self.tend_group(look))).await;
        self.end_deleted(&objects).await;
    }

    /// An Observed group whose object somebody has deleted has no standbys any more, so that
    /// nothing of it stays behind with them. A Protected one stays as it is: its plan falls
    /// slowly (I9).
    async fn end_deleted(&self, objects: &Snapshot<FailoverGroup>) {
        let here = &self.context.site;
        for (group, plan) in self.plans.all().into_iter().filter(|(group, _)| &group.home == here) {
            let (name, plan) = (FailoverGroup::name_at(&group, here), plan.plan().clone());
            let ended = plan.standbys.is_empty() || plan.protection != Protection::Observed;
            if ended || objects.contains_key(&name) {
                continue;
            }
            // What is watched may be behind, or not be there yet: only a plain no counts.
            let api: Api<FailoverGroup> = Api::all(self.client.clone());
            let Ok(None) = bounded(&format!("FailoverGroup {name}"), api.get_opt(&name)).await else { continue };
            tracing::info!(%group, "its FailoverGroup is deleted: its plan has no standbys any more");
            if let Err(e) = self.plans.register(Plan { standbys: Vec::new(), ..plan }, &self.peers).await {
                tracing::warn!("{e}");
            }
        }
    }

    async fn tend_group(&self, look: Look<'_>) {
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
        let holder = shell.as_ref().and_then(|s| held_elsewhere(s, &self.context.charter, &self.context.site));
        match &look.judged.plan {
            Ok(plan) => {
                if let Some(finding) = holder.as_ref().and_then(|site| leaves_holder_out(plan, site)) {
                    facts.invalid = Some(finding);
                } else if let Err(e) = self.plans.register(plan.clone(), &self.peers).await {
                    facts.invalid = Some(Finding { reason: "PlanRefused", message: e.to_string() });
                }
            }
            Err(finding) => facts.invalid = Some(finding.clone()),
        }
        self.gate(&look, &mut facts, shell.as_ref()).await;
        let run = self.capture(&look.key, &mut facts).await;
        self.tell_run(&look.key, &look.object.name_any(), run.as_ref(), shell.as_ref()).await;
        self.strike(&look).await;
        self.protect(&look, &mut facts, lease.as_ref(), shell.as_ref()).await;
        self.show(&look, &facts, lease.as_ref()).await;
        self.forget_others(&look, holder.as_ref()).await;
    }

    /// Gates are injected once home has held a certificate: before that nothing could
    /// open them.
    async fn gate(&self, look: &Look<'_>, facts: &mut Facts, shell: Option<&GroupStatus>) {
        match &look.pods {
            Ok(pods) => {
                let ungated = pods.iter().filter(|p| !has_gate(p, &look.key));
                facts.ungated = ungated.map(pods::name_of).collect();
            }
            Err(e) => facts.capture_failed = Some(self.closed_namespace(look.object, e)),
        }
        let planned = self.plans.get(&look.key);
        let protected = planned.as_ref().is_some_and(|p| p.plan().protection == Protection::Protected);
        let certified = shell.is_some_and(|s| s.certified.is_some());
        if facts.invalid.is_some() || !(certified || protected) {
            return;
        }
        // Goes with an Observed group; outlives the object of a Protected one.
        let owner = (!protected).then(|| owner_of(look.object));
        let leadership = self.leadership.clone();
        let permit: Permit = Arc::new(move || leadership.borrow().term_at(clock::now()).is_some());
        let applier = Applier { client: self.client.clone(), group: look.key.clone(), permit };
        let spec = &look.object.spec;
        if let Err(e) = applier.gate_pods(&spec.namespaces, &spec.selector, owner.as_ref()).await {
            facts.capture_failed = Some(self.closed_namespace(look.object, &e.to_string()));
        }
    }

    fn closed_namespace(&self, object: &FailoverGroup, error: &str) -> String {
        let namespaces = object.spec.namespaces.join(", ");
        format!(
            "namespaces {namespaces}: {error}; let the operator in with `kubectl regent home prepare --namespace NAMESPACE | kubectl apply -f -`"
        )
    }

    /// Captures home's release; says how the group runs here.
    async fn capture(&self, group: &GroupKey, facts: &mut Facts) -> Option<StandbyReport> {
        match self.mirror.captured(group).await {
            Ok(Some(captured)) => {
                facts.revision = captured.served.map(|s| s.digest.to_string()).or(facts.revision.take());
                facts.withheld = captured.withheld;
                (facts.unknown, facts.more_unknown) = (captured.unknown, 0);
                facts.unmet = captured.unmet;
                facts.notices = captured.notices;
                Some(captured.run)
            }
            Ok(None) => None,
            Err(e @ (MirrorError::Read { .. } | MirrorError::Bundle(_))) => {
                facts.capture_failed = Some(e.to_string());
                None
            }
        }
    }

    /// Takes nodes off the list that are gone for good, as a person says by annotation.
    async fn strike(&self, look: &Look<'_>) {
        let Some(names) = look.object.annotations().get(STRIKE_ANNOTATION) else { return };
        let attached = self.hub.nodes();
        let (listed, _) = self.lists.listed(&look.key);
        for name in names.split(',').map(str::trim).filter(|n| listed.iter().any(|l| l.name == *n)) {
            let node = NodeName(name.to_owned());
            if attached.get(&node).is_some_and(|v| v.attached) {
                tracing::warn!(group = %look.key, %node, "annotation {STRIKE_ANNOTATION} names a node whose agent is here: it stays on the list");
            } else if let Err(e) = self.lists.strike(&look.key, &node).await {
                tracing::warn!("{e}");
            }
        }
    }

    async fn protect(
        &self,
        look: &Look<'_>,
        facts: &mut Facts,
        lease: Option<&ControlLeaseStatus>,
        shell: Option<&GroupStatus>,
    ) {
        let plan = self.plans.get(&look.key);
        let conditions = look.object.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        let before = condition::get(conditions, PROTECTED).map(|c| c.reason.as_str()).unwrap_or_default();
        let planned = plan.as_ref().is_some_and(|p| p.plan().protection == Protection::Protected);
        let known = protect::Facts {
            wanted: look.object.spec.protection == WantedProtection::Protected,
            valid: facts.invalid.is_none() && look.pods.is_ok(),
            standbys: plan.as_ref().map_or(0, |p| p.plan().standbys.len()),
            holds: shell.is_some_and(|s| s.role == RoleName::Holder),
            ungated: facts.ungated.len(),
            planned,
            registered: plan.as_ref().is_some_and(|p| self.shell.is_registered(&look.key, p.plan().version)),
            done: condition::is_true(conditions, PROTECTED),
            closed: matches!(before, CONFIRMING | REGISTERING) && lease.is_some_and(|l| l.nodes_closed),
        };
        let step = next(&known);
        if must_open(&known, step) {
            self.open(&look.key).await;
        }
        facts.protecting = match step {
            Step::Rest if planned => None,
            Step::Rest => Some((
                "Observed".into(),
                "mirrored and measured, never frozen; `kubectl regent protect` raises it".into(),
            )),
            Step::Wait(reason) => Some((reason.to_owned(), waiting(reason, facts, plan.as_ref()))),
            Step::Finish => self.open(&look.key).await.then_some(()).map_or_else(
                || Some((REGISTERING.into(), "q witnesses hold the plan; the list of nodes is opened next".into())),
                |()| None,
            ),
            Step::Confirm => self.confirm(look, facts, lease, plan.as_ref()).await,
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
        look: &Look<'_>,
        facts: &mut Facts,
        lease: Option<&ControlLeaseStatus>,
        plan: Option<&VerifiedPlan>,
    ) -> Option<(String, String)> {
        let said = |reason: &str, message: String| Some((reason.to_owned(), message));
        // Said before it is done: whoever leads next opens a list that was left closed.
        facts.protecting = said(CONFIRMING, "every listed node's guard is asked to confirm".into());
        self.show(look, facts, lease).await;
        let nodes = match self.lists.close(&look.key).await {
            Ok(nodes) => nodes,
            Err(e) => return said(CONFIRMING, e.to_string()),
        };
        let failed = self.lists.protect(&look.key).await;
        if !failed.is_empty() {
            self.open(&look.key).await;
            let why: Vec<String> = failed.values().map(ToString::to_string).collect();
            let names: Vec<&str> = failed.keys().map(|n| n.0.as_str()).collect();
            let remedy =
                format!("kubectl annotate failovergroup {} {STRIKE_ANNOTATION}={}", look.key.name, names.join(","));
            return said("GuardSilent", format!("{}; if they are gone for good: {remedy}", why.join("; ")));
        }
        let Some(plan) = plan else { return said(CONFIRMING, "the group has no plan yet".into()) };
        let wanted = Plan { protection: Protection::Protected, ..plan.plan().clone() };
        match self.plans.register(wanted, &self.peers).await {
            Ok(version) => said(
                REGISTERING,
                format!("{} nodes have confirmed; witnesses are given plan version {version}", nodes.len()),
            ),
            Err(e) => said(CONFIRMING, e.to_string()),
        }
    }

    async fn show(&self, look: &Look<'_>, facts: &Facts, lease: Option<&ControlLeaseStatus>) {
        let plan = self.plans.get(&look.key);
        // As it is now: this pass may have written it already.
        let object = self.groups.borrow().get(&look.object.name_any()).cloned().unwrap_or_else(|| look.object.clone());
        let new = status::status(&object, facts, plan.as_ref(), lease, Timestamp::now());
        if let Err(e) = status::write(&self.client, &object, &new).await {
            tracing::debug!("{e}");
        }
    }

    /// Standbys that residency forbids say nothing any more: home says it of them.
    /// Reports of sites that are no standbys at all any more are forgotten.
    async fn forget_others(&self, look: &Look<'_>, holder: Option<&SiteName>) {
        let Some(plan) = self.plans.get(&look.key) else { return };
        if let Some(finding) = &look.judged.unlawful {
            let report = StandbyReport::of(StandbyState::Unlawful, "Unlawful", finding.message.clone());
            for standby in missing_standbys(look.object, plan.plan()) {
                let noted =
                    note_report(&self.client, &self.groups, &self.context.site, &standby, &look.key, &report).await;
                if let Err(e) = noted {
                    tracing::debug!("{e}");
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
                tracing::debug!("{e}");
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
fn waiting(reason: &str, facts: &Facts, plan: Option<&VerifiedPlan>) -> String {
    match reason {
        "PodsWithoutGate" => {
            let named: Vec<&str> = facts.ungated.iter().take(5).map(String::as_str).collect();
            let more = if facts.ungated.len() > named.len() { " and others" } else { "" };
            format!(
                "{} pods run without a gate ({}{more}): they have to be re-created; `kubectl regent protect` restarts them",
                facts.ungated.len(),
                named.join(", ")
            )
        }
        "NoCertificate" => {
            "this site holds no certificate for the group: see which witnesses refuse with `kubectl regent explain`"
                .into()
        }
        "NoStandby" => "the plan has no standby: name a lawful one in spec.standbys".into(),
        "InvalidSpec" => {
            facts.invalid.as_ref().map_or_else(|| "the group's pods can't be read".into(), |f| f.message.clone())
        }
        _ => format!("witnesses are given plan version {}", plan.map_or(0, |p| p.plan().version)),
    }
}
