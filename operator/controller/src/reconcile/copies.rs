//! Read-only copies of other homes' groups, so that every site tells the same story.

use kube::api::{Api, Patch, PatchParams};
use regent_api::{FIELD_MANAGER, FailoverGroup, FailoverGroupSpec, Protection, Selector, WantedProtection, duration};
use regent_core::plan::Plan;
use std::time::Duration;

use crate::objects::{ObjectError, Snapshot, bounded};

/// The spec of a copy: what the signed plan says, and of pods what the bundle says where
/// there is one.
pub fn spec_of(plan: &Plan, bundle: Option<&FailoverGroupSpec>) -> FailoverGroupSpec {
    let protection = match Protection::from(plan.protection) {
        Protection::Observed => WantedProtection::Observed,
        Protection::Protected | Protection::Retiring => WantedProtection::Protected,
    };
    FailoverGroupSpec {
        home: plan.group.home.to_string(),
        namespaces: bundle.map(|b| b.namespaces.clone()).unwrap_or_default(),
        selector: bundle.map_or_else(Selector::default, |b| b.selector.clone()),
        standbys: plan.standbys.iter().map(ToString::to_string).collect(),
        takeover_after: duration::format(plan.takeover_after()),
        thaw_limit: duration::format(Duration::from_millis(plan.thaw_limit_ms)),
        trigger: plan.trigger.into(),
        tier: bundle.map(|b| b.tier).unwrap_or_default(),
        rto: bundle.and_then(|b| b.rto.clone()),
        countries: plan.countries.clone(),
        protection,
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
            countries: vec!["FR".into()],
        };
        let alone = spec_of(&plan, None);
        assert_eq!((alone.namespaces.len(), alone.standbys.as_slice()), (0, &["france".to_owned()][..]));
        assert_eq!(duration::parse(&alone.takeover_after), Some(Duration::from_millis(1500)));
        let mut bundle = alone.clone();
        bundle.namespaces = vec!["shop".into()];
        bundle.standbys = vec!["atlantis".into()];
        bundle.protection = WantedProtection::Observed;
        let both = spec_of(&plan, Some(&bundle));
        assert_eq!(both, FailoverGroupSpec { namespaces: vec!["shop".into()], ..alone });
    }
}
