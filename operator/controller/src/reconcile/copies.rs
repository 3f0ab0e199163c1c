//! Read-only copies of other homes' groups, so that every site tells the same story.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use regent_api::{
    ControlLeaseStatus, FIELD_MANAGER, FailoverGroup, FailoverGroupSpec, Protection, Selector, WantedProtection,
    duration,
};
use regent_core::plan::{Plan, VerifiedPlan};
use regent_lease::adoption::Reason;
use tokio_util::sync::CancellationToken;

use super::status;
use crate::objects::{ControlLeases, ObjectError, Snapshot, bounded};
use crate::plans::{Plans, plan_of};

const LOOK: Duration = Duration::from_secs(5);

/// The spec of a copy: what the signed plan says, and of pods what the bundle says where
/// there is one.
pub fn spec_of(plan: &Plan, bundle: Option<&FailoverGroupSpec>) -> FailoverGroupSpec {
    let protection = match Protection::from(plan.protection) {
        Protection::Observed => WantedProtection::Observed,
        Protection::Protected => WantedProtection::Protected,
    };
    FailoverGroupSpec {
        home: plan.group.home.to_string(),
        namespaces: bundle.map(|b| b.namespaces.clone()).unwrap_or_default(),
        selector: bundle.map_or_else(Selector::default, |b| b.selector.clone()),
        standbys: plan.standbys.iter().map(ToString::to_string).collect(),
        takeover_after: duration::format(plan.takeover_after()),
        thaw_limit: duration::format(Duration::from_millis(plan.thaw_limit_ms)),
        trigger: plan.trigger.into(),
        when_not_ready: plan.when_not_ready.into(),
        tier: bundle.map(|b| b.tier).unwrap_or_default(),
        rto: bundle.and_then(|b| b.rto.clone()),
        countries: plan.countries.clone(),
        stays_home: bundle.map(|b| b.stays_home.clone()).unwrap_or_default(),
        protection,
    }
}

/// Whether a plan is all that is left of a group: home has deleted it, or names no standby.
fn is_over(plan: &Plan) -> bool {
    plan.standbys.is_empty() && plan.protection == regent_core::plan::Protection::Observed
}

/// Takes away the copy of a group that is over.
async fn forget(client: &kube::Client, objects: &Snapshot<FailoverGroup>, name: &str) -> Result<(), ObjectError> {
    if !objects.contains_key(name) {
        return Ok(());
    }
    let api: Api<FailoverGroup> = Api::all(client.clone());
    match bounded(&format!("FailoverGroup {name}"), api.delete(name, &DeleteParams::default())).await {
        Err(e) if !e.is_not_found() => Err(e),
        _ => Ok(()),
    }
}

/// Writes a copy, if it differs from what is there.
pub async fn keep(
    client: &kube::Client,
    objects: &Snapshot<FailoverGroup>,
    plan: &Plan,
    bundle: Option<&FailoverGroupSpec>,
) -> Result<(), ObjectError> {
    let name = regent_api::object_name(&plan.group);
    if is_over(plan) {
        return forget(client, objects, &name).await;
    }
    let mut spec = spec_of(plan, bundle);
    let before = objects.get(&name);
    if let Some(before) = before {
        // What an older bundle said of pods is better than nothing.
        if bundle.is_none() {
            (spec.namespaces, spec.selector) = (before.spec.namespaces.clone(), before.spec.selector.clone());
        }
        if before.spec == spec {
            return Ok(());
        }
    }
    let api: Api<FailoverGroup> = Api::all(client.clone());
    let copy = FailoverGroup::new(&name, spec);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    bounded(&format!("FailoverGroup {name}"), api.patch(&name, &params, &Patch::Apply(&copy))).await.map(drop)
}

/// Keeps copies at a site that is a witness alone, until cancelled: it has no reconcilers.
pub async fn run(client: kube::Client, plans: Arc<Plans>, leases: ControlLeases, stop: CancellationToken) {
    let mut changed = plans.watch();
    loop {
        if let Err(e) = look(&client, &plans, &leases).await {
            tracing::debug!("{e}");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changed.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn look(client: &kube::Client, plans: &Plans, leases: &ControlLeases) -> Result<(), ObjectError> {
    let api: Api<FailoverGroup> = Api::all(client.clone());
    let listed = bounded("FailoverGroups", api.list(&ListParams::default())).await?.items;
    let objects: Snapshot<FailoverGroup> = Arc::new(listed.into_iter().map(|o| (o.name_any(), Arc::new(o))).collect());
    let leases = leases.list().await?;
    for envelope in leases.iter().filter_map(|l| plan_of(l.status.as_ref()?)) {
        if let Err(e) = plans.absorb(&envelope) {
            tracing::warn!("a kept plan: {e}");
        }
    }
    for (group, plan) in plans.all().iter() {
        keep(client, &objects, plan.plan(), None).await?;
        let name = regent_api::object_name(group);
        let lease = leases.iter().find(|l| l.name_any() == name).and_then(|l| l.status.as_ref());
        if let Some(object) = objects.get(&name) {
            show(client, object, plan, lease, None).await?;
        }
    }
    Ok(())
}

/// Writes the status of a copy.
pub async fn show(
    client: &kube::Client,
    object: &FailoverGroup,
    plan: &VerifiedPlan,
    lease: Option<&ControlLeaseStatus>,
    revision: Option<String>,
) -> Result<(), ObjectError> {
    let facts = status::Facts { protecting: protecting(object, plan), revision, ..status::Facts::default() };
    let new = status::status(object, &facts, Some(plan), lease, Timestamp::now());
    status::write(client, object, &new).await
}

/// At other sites the signed plan tells how far protection is.
fn protecting(object: &FailoverGroup, plan: &VerifiedPlan) -> Option<(Reason, String)> {
    match plan.plan().protection {
        regent_core::plan::Protection::Protected => None,
        _ => Some((Reason::Observed, format!("its home, {}, says how far it is", object.spec.home))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_follows_the_signed_plan_and_takes_only_pods_from_the_bundle() {
        let plan = Plan {
            group: "ireland/shop".parse().unwrap(),
            version: 3,
            standbys: vec!["france".parse().unwrap()],
            protection: regent_core::plan::Protection::Protected,
            takeover_after_ms: 1500,
            thaw_limit_ms: 8000,
            trigger: regent_core::plan::Trigger::Approval,
            when_not_ready: regent_core::plan::WhenNotReady::Degraded,
            countries: vec!["FR".into()],
        };
        let alone = spec_of(&plan, None);
        assert_eq!((alone.namespaces.len(), alone.standbys.as_slice()), (0, &["france".to_owned()][..]));
        assert_eq!(duration::parse(&alone.takeover_after), Some(Duration::from_millis(1500)));
        assert_eq!(alone.when_not_ready, regent_api::group::WhenNotReady::Degraded);
        let mut bundle = alone.clone();
        bundle.namespaces = vec!["shop".into()];
        bundle.standbys = vec!["atlantis".into()];
        bundle.protection = WantedProtection::Observed;
        let both = spec_of(&plan, Some(&bundle));
        assert_eq!(both, FailoverGroupSpec { namespaces: vec!["shop".into()], ..alone });
    }
}
