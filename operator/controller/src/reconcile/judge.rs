//! What is right and wrong with the groups that are at home here, all at once.

use std::collections::BTreeMap;

use kube::ResourceExt;
use regent_api::FailoverGroup;
use regent_core::charter::Charter;
use regent_core::ids::{GroupKey, SiteName};
use regent_core::plan::{Plan, PlanError, Protection};

/// A pod that a group's selector matches: `NAMESPACE/NAME`.
pub type PodName = String;

/// What a check found: reason and message of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// One word.
    pub reason: &'static str,
    /// What is wrong, where, and what to do.
    pub message: String,
}

/// A group, judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The plan that follows from the spec, without its version; none where the spec can't
    /// be followed: then the last good plan stays in force.
    pub plan: Result<Plan, Finding>,
    /// What residency forbids (I5).
    pub unlawful: Option<Finding>,
}

/// Judges all groups. `pods` are the pods that each group's selector matches now.
pub fn judge<'a>(
    groups: impl Iterator<Item = &'a FailoverGroup> + Clone,
    charter: &Charter,
    protection: impl Fn(&GroupKey) -> Protection,
    pods: &BTreeMap<GroupKey, Vec<PodName>>,
) -> BTreeMap<GroupKey, Judged> {
    let mut judged = BTreeMap::new();
    for group in groups.clone() {
        let Ok(key) = group.key() else { continue };
        let plan = plan_of(group, &key, protection(&key));
        let verdict = match plan {
            Err(finding) => Judged { plan: Err(finding), unlawful: None },
            Ok(plan) => follow(plan, charter),
        };
        judged.insert(key, verdict);
    }
    for (key, finding) in claimed_twice(groups, pods) {
        if let Some(verdict) = judged.get_mut(&key) {
            verdict.plan = Err(finding);
        }
    }
    judged
}

fn plan_of(group: &FailoverGroup, key: &GroupKey, protection: Protection) -> Result<Plan, Finding> {
    let bad = |e: regent_api::ApiError| Finding { reason: "InvalidSpec", message: e.to_string() };
    let millis = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    Ok(Plan {
        group: key.clone(),
        version: 1,
        standbys: group.standbys().map_err(bad)?,
        protection,
        takeover_after_ms: millis(group.takeover_after().map_err(bad)?),
        thaw_limit_ms: millis(group.thaw_limit().map_err(bad)?),
        trigger: group.spec.trigger.into(),
        when_not_ready: group.spec.when_not_ready.into(),
        countries: group.spec.countries.clone(),
    })
}

/// A standby that residency forbids leaves the plan at once, so that a narrower rule acts
/// on what is prepared too; everything else that is wrong keeps the last good plan.
fn follow(mut plan: Plan, charter: &Charter) -> Judged {
    let mut outside = Vec::new();
    for error in plan.errors(charter) {
        match error {
            PlanError::StandbyOutside { ref standby, .. } => {
                outside.push(error.to_string());
                plan.standbys.retain(|s| s != standby);
            }
            PlanError::HomeOutside { .. } => {
                let finding = Finding { reason: "HomeOutsideCountries", message: error.to_string() };
                return Judged { plan: Err(finding.clone()), unlawful: Some(finding) };
            }
            other => {
                let finding = Finding { reason: reason_of(&other), message: other.to_string() };
                return Judged { plan: Err(finding), unlawful: None };
            }
        }
    }
    let unlawful = (!outside.is_empty()).then(|| {
        let none_left = plan.standbys.is_empty();
        let reason = if none_left { "NoLawfulStandby" } else { "StandbyOutsideCountries" };
        let mut message = outside.join("; ");
        if none_left {
            message.push_str("; no lawful standby is left: if home is lost, the group stays held");
        }
        Finding { reason, message }
    });
    Judged { plan: Ok(plan), unlawful }
}

fn reason_of(error: &PlanError) -> &'static str {
    match error {
        PlanError::UnknownHome { .. } | PlanError::UnknownStandby { .. } => "UnknownSite",
        PlanError::StandbyIsHome { .. } => "StandbyIsHome",
        PlanError::StandbyTwice { .. } => "StandbyTwice",
        PlanError::NotACountry { .. } => "NotACountry",
        PlanError::Timing { .. } => "Timing",
        _ => "InvalidSpec",
    }
}

/// Groups that select a pod which an older group selects already.
fn claimed_twice<'a>(
    groups: impl Iterator<Item = &'a FailoverGroup>,
    pods: &BTreeMap<GroupKey, Vec<PodName>>,
) -> BTreeMap<GroupKey, Finding> {
    let mut ordered: Vec<&FailoverGroup> = groups.collect();
    ordered.sort_by_key(|g| (g.metadata.creation_timestamp.clone(), g.name_any()));
    let mut owners: BTreeMap<&PodName, GroupKey> = BTreeMap::new();
    let mut findings = BTreeMap::new();
    for key in ordered.into_iter().filter_map(|g| g.key().ok()) {
        for pod in pods.get(&key).into_iter().flatten() {
            let owner = owners.entry(pod).or_insert_with(|| key.clone());
            if *owner != key {
                let message = format!(
                    "group {key}: field selector matches pod {pod}, which group {owner} selects already; two groups may not select one pod: change the selector or namespaces of one of them"
                );
                findings.entry(key.clone()).or_insert(Finding { reason: "PodClaimedTwice", message });
            }
        }
    }
    findings
}

/// The standbys of a spec that its plan lacks.
pub fn missing_standbys(group: &FailoverGroup, plan: &Plan) -> Vec<SiteName> {
    group.standbys().unwrap_or_default().into_iter().filter(|s| !plan.standbys.contains(s)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reconcile::tests::charter;

    fn group(name: &str, created: &str, spec: serde_json::Value) -> FailoverGroup {
        let mut whole = json!({ "home": "ireland", "namespaces": ["shop"] });
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        serde_json::from_value(json!({
            "apiVersion": "regent.dev/v1alpha1", "kind": "FailoverGroup",
            "metadata": { "name": name, "creationTimestamp": created }, "spec": whole,
        }))
        .unwrap()
    }

    fn verdict(spec: serde_json::Value) -> Judged {
        let groups = [group("shop", "2026-01-01T00:00:00Z", spec)];
        let mut judged = judge(groups.iter(), &charter(), |_| Protection::Observed, &BTreeMap::new());
        judged.pop_first().unwrap().1
    }

    #[test]
    fn a_good_group_becomes_a_plan() {
        let judged = verdict(
            json!({ "standbys": ["france", "germany"], "takeoverAfter": "1500ms", "countries": ["IE", "FR", "DE"] }),
        );
        let plan = judged.plan.unwrap();
        assert_eq!((plan.takeover_after_ms, plan.thaw_limit_ms, plan.standbys.len()), (1500, 8000, 2));
        assert_eq!(judged.unlawful, None);
    }

    #[test]
    fn wrong_input_keeps_the_last_plan_and_names_field_and_remedy() {
        let cases = [
            (json!({ "standbys": ["atlantis"] }), "UnknownSite", "add the site to the charter"),
            (json!({ "standbys": ["ireland"] }), "StandbyIsHome", "list other sites only"),
            (json!({ "standbys": ["france"], "takeoverAfter": "5x" }), "InvalidSpec", "such as 5s"),
            (json!({ "standbys": ["france"], "takeoverAfter": "25h" }), "Timing", "at most"),
            (json!({ "standbys": ["france"], "countries": ["Ireland"] }), "NotACountry", "capital letters"),
            (json!({ "standbys": ["france"], "countries": ["FR"] }), "HomeOutsideCountries", "add IE to countries"),
        ];
        for (spec, reason, remedy) in cases {
            let finding = verdict(spec).plan.unwrap_err();
            assert_eq!(finding.reason, reason, "{}", finding.message);
            assert!(finding.message.contains(remedy), "{}", finding.message);
            assert!(finding.message.contains("shop"), "{}", finding.message);
        }
    }

    #[test]
    fn a_standby_outside_the_countries_leaves_the_plan_and_is_named() {
        let judged = verdict(json!({ "standbys": ["france", "germany"], "countries": ["IE", "DE"] }));
        assert_eq!(judged.plan.unwrap().standbys, vec!["germany".parse().unwrap()]);
        let finding = judged.unlawful.unwrap();
        assert_eq!(finding.reason, "StandbyOutsideCountries");
        assert!(finding.message.contains("france") && finding.message.contains("add FR"), "{}", finding.message);
        let judged = verdict(json!({ "standbys": ["france"], "countries": ["IE"] }));
        assert_eq!(judged.plan.unwrap().standbys, vec![]);
        assert_eq!(judged.unlawful.unwrap().reason, "NoLawfulStandby");
    }

    #[test]
    fn of_two_groups_that_claim_one_pod_the_younger_is_refused() {
        let standbys = json!({ "standbys": ["france"] });
        let groups =
            [group("a", "2026-01-02T00:00:00Z", standbys.clone()), group("b", "2026-01-01T00:00:00Z", standbys)];
        let key = |name: &str| format!("ireland/{name}").parse::<GroupKey>().unwrap();
        let both = vec!["shop/web-1".to_owned()];
        let pods = BTreeMap::from([(key("a"), both.clone()), (key("b"), both)]);
        let judged = judge(groups.iter(), &charter(), |_| Protection::Observed, &pods);
        assert!(judged[&key("b")].plan.is_ok());
        let finding = judged[&key("a")].plan.clone().unwrap_err();
        assert_eq!(finding.reason, "PodClaimedTwice");
        assert!(finding.message.contains("shop/web-1") && finding.message.contains("ireland/b"), "{}", finding.message);
    }
}
