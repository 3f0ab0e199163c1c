//! The status of a `FailoverGroup`, made from the facts.

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use regent_api::condition::{self, Truth};
use regent_api::group::{LAWFUL, MIRRORED, PROTECTED, READY, StandbyState, StandbyStatus, VALID};
use regent_api::{ControlLeaseStatus, FIELD_MANAGER, FailoverGroup, FailoverGroupStatus, Protection};
use regent_core::plan::VerifiedPlan;

use super::judge::Finding;
use super::news;
use crate::objects::{ObjectError, bounded};

/// Pods that are named when some have no gate.
const NAMED: usize = 20;

/// What is known of a group at this site.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Whether this site is the group's home.
    pub home: bool,
    /// What is wrong with the spec.
    pub invalid: Option<Finding>,
    /// What residency forbids.
    pub unlawful: Option<Finding>,
    /// Where the way to Protected stands: the condition's reason and message; none: at its end.
    pub protecting: Option<(String, String)>,
    /// Pods without a gate, as NAMESPACE/NAME.
    pub ungated: Vec<String>,
    /// The digest of the newest bundle here.
    pub revision: Option<String>,
    /// What is not mirrored.
    pub unknown: Vec<String>,
    /// Why nothing could be captured.
    pub capture_failed: Option<String>,
}

type Say = (Truth, &'static str, String);

fn mirrored(facts: &Facts, standbys: &[StandbyStatus], holder_elsewhere: bool) -> Say {
    if let Some(why) = &facts.capture_failed {
        return (Truth::False, "CaptureFailed", why.clone());
    }
    if holder_elsewhere {
        return (Truth::Unknown, "HeldElsewhere", "nothing is mirrored while another site holds the group".into());
    }
    let behind: Vec<&str> = standbys.iter().filter(|s| s.revision != facts.revision).map(|s| s.site.as_str()).collect();
    match (&facts.revision, behind.is_empty(), standbys.is_empty()) {
        (None, ..) => (Truth::Unknown, "NoBundle", "nothing has been captured yet".into()),
        (_, _, true) => (Truth::Unknown, "NoReports", "no standby has reported yet".into()),
        (_, true, _) => (Truth::True, "Current", "every standby that reports holds the newest bundle".into()),
        _ => (Truth::False, "Behind", format!("older bundles are held at {}", behind.join(", "))),
    }
}

fn ready(facts: &Facts, standbys: &[StandbyStatus], wants_protection: bool) -> Say {
    if let Some(finding) = facts.invalid.as_ref().or(facts.unlawful.as_ref().filter(|f| f.reason == "NoLawfulStandby"))
    {
        return (Truth::False, finding.reason, finding.message.clone());
    }
    if let Some((reason, message)) = facts.protecting.as_ref().filter(|_| wants_protection) {
        let reason = if reason == "PodsWithoutGate" { "PodsWithoutGate" } else { "Protecting" };
        return (Truth::False, reason, message.clone());
    }
    let good = |s: &&StandbyStatus| matches!(s.state, StandbyState::Armed | StandbyState::Holding);
    if let Some(standby) = standbys.iter().find(good) {
        return (Truth::True, "StandbyReady", format!("{} could take the group over", standby.site));
    }
    let tell = |s: &StandbyStatus| format!("{}: {}", s.site, s.message.as_deref().unwrap_or("nothing is known"));
    let told: Vec<String> = standbys.iter().map(tell).collect();
    let message = if told.is_empty() { "no standby has reported yet".to_owned() } else { told.join("; ") };
    (Truth::False, "NoStandbyReady", message)
}

fn found(finding: Option<&Finding>, good: &'static str, message: &str) -> Say {
    match finding {
        Some(f) => (Truth::False, f.reason, f.message.clone()),
        None => (Truth::True, good, message.to_owned()),
    }
}

/// The status that follows. Standbys' entries are their own: see `mirror::reports`.
pub fn status(
    object: &FailoverGroup,
    facts: &Facts,
    plan: Option<&VerifiedPlan>,
    lease: Option<&ControlLeaseStatus>,
    now: Timestamp,
) -> FailoverGroupStatus {
    let old = object.status.clone().unwrap_or_default();
    let wants = object.spec.protection == regent_api::WantedProtection::Protected;
    let standbys = old.standbys.as_slice();
    let holder = lease.and_then(|l| l.holder.as_ref());
    let elsewhere = holder.is_some_and(|h| h.site != object.spec.home);
    let planned = plan.is_some_and(|p| p.plan().protection == regent_core::plan::Protection::Protected);
    let protected: Say = match &facts.protecting {
        None => (Truth::True, "Protected", "fence and gate are in force".into()),
        Some((reason, message)) => {
            let known = PROTECTING.iter().find(|r| **r == reason).copied().unwrap_or("Observed");
            (Truth::False, known, message.clone())
        }
    };
    let mut says = vec![(READY, ready(facts, standbys, wants)), (PROTECTED, protected)];
    if facts.home {
        says.push((VALID, found(facts.invalid.as_ref(), "Valid", "spec and charter agree")));
        says.push((
            LAWFUL,
            found(facts.unlawful.as_ref(), "Lawful", "home and every standby are where the group may run"),
        ));
        says.push((MIRRORED, mirrored(facts, standbys, elsewhere)));
    }
    let mut conditions = old.conditions.clone();
    for (kind, (truth, reason, message)) in says {
        condition::set(&mut conditions, kind, truth, reason, &message, object.metadata.generation, now);
    }
    let in_force = if planned && facts.protecting.is_none() { Protection::Protected } else { Protection::Observed };
    FailoverGroupStatus {
        observed_generation: object.metadata.generation,
        protection: plan.map(|_| in_force),
        holder: holder.map(|h| h.site.clone()),
        epoch: holder.map(|h| h.epoch.clone()),
        plan_version: plan.and_then(|p| i64::try_from(p.plan().version).ok()),
        countersigned: plan.map(|p| p.countersigned().iter().map(ToString::to_string).collect()).unwrap_or_default(),
        revision: facts.revision.clone(),
        pods_without_gate: i32::try_from(facts.ungated.len()).unwrap_or(i32::MAX),
        ungated: facts.ungated.iter().take(NAMED).cloned().collect(),
        nodes: lease.map(|l| l.nodes.iter().map(|n| n.name.clone()).collect()).unwrap_or_default(),
        standbys: Vec::new(),
        unknown_kinds: facts.unknown.clone(),
        conditions,
    }
}

/// The reasons of the condition `Protected` while it is false.
const PROTECTING: [&str; 9] = [
    "Observed",
    "InvalidSpec",
    "NoStandby",
    "NoCertificate",
    "PodsWithoutGate",
    super::protect::CONFIRMING,
    super::protect::REGISTERING,
    "GuardSilent",
    "Unknown",
];

/// Writes a status, if it is news.
pub async fn write(
    client: &kube::Client,
    object: &FailoverGroup,
    new: &FailoverGroupStatus,
) -> Result<(), ObjectError> {
    let mut old = object.status.clone().unwrap_or_default();
    old.standbys.clear();
    if &old == new {
        return Ok(());
    }
    let name = object.name_any();
    let api: Api<FailoverGroup> = Api::all(client.clone());
    let patch = serde_json::json!({
        "apiVersion": "regent.dev/v1alpha1", "kind": "FailoverGroup", "metadata": { "name": name }, "status": new,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    bounded(&format!("FailoverGroup {name}"), api.patch_status(&name, &params, &Patch::Apply(&patch))).await?;
    news::publish(client, object, news::between(&old, new)).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(standbys: serde_json::Value) -> FailoverGroup {
        serde_json::from_value(json!({
            "apiVersion": "regent.dev/v1alpha1", "kind": "FailoverGroup", "metadata": { "name": "shop", "generation": 4 },
            "spec": { "home": "ireland", "namespaces": ["shop"], "standbys": ["france"], "protection": "Protected" },
            "status": { "standbys": standbys },
        }))
        .unwrap()
    }

    fn said(facts: &Facts, standbys: serde_json::Value, kind: &str) -> (String, String, String) {
        let made = status(&object(standbys), facts, None, None, Timestamp::UNIX_EPOCH);
        let c = condition::get(&made.conditions, kind).unwrap();
        (c.status.clone(), c.reason.clone(), c.message.clone())
    }

    fn facts() -> Facts {
        Facts { home: true, revision: Some("r2".into()), ..Facts::default() }
    }

    #[test]
    fn ready_means_protected_with_a_standby_that_could_take_over() {
        let armed = json!([{ "site": "france", "state": "Armed", "revision": "r2" }]);
        assert_eq!(said(&facts(), armed.clone(), READY).0, "True");
        let taken = json!([{ "site": "france", "state": "NameTaken", "message": "Service shop/shop exists" }]);
        let (truth, reason, message) = said(&facts(), taken, READY);
        assert_eq!((truth.as_str(), reason.as_str()), ("False", "NoStandbyReady"));
        assert!(message.contains("france: Service shop/shop exists"), "{message}");
        let under_way = Facts { protecting: Some(("PodsWithoutGate".into(), "2 pods".into())), ..facts() };
        assert_eq!(said(&under_way, armed.clone(), READY).1, "PodsWithoutGate");
        let none = Finding { reason: "NoLawfulStandby", message: "no".into() };
        assert_eq!(said(&Facts { unlawful: Some(none), ..facts() }, armed, READY).1, "NoLawfulStandby");
    }

    #[test]
    fn mirrored_compares_what_is_held_with_what_home_has() {
        let old = json!([{ "site": "france", "state": "Armed", "revision": "r1" }]);
        assert_eq!(said(&facts(), old.clone(), MIRRORED).1, "Behind");
        let new = json!([{ "site": "france", "state": "Armed", "revision": "r2" }]);
        assert_eq!(said(&facts(), new, MIRRORED).0, "True");
        let failed = Facts { capture_failed: Some("forbidden".into()), ..facts() };
        assert_eq!(said(&failed, old, MIRRORED).1, "CaptureFailed");
    }

    #[test]
    fn every_reason_on_the_way_to_protected_is_shown_as_it_is() {
        for reason in PROTECTING {
            let facts = Facts { protecting: Some((reason.to_owned(), "m".into())), ..facts() };
            assert_eq!(said(&facts, json!([]), PROTECTED).1, reason);
        }
    }

    #[test]
    fn a_copy_says_nothing_of_what_only_home_can_tell() {
        let made = status(&object(json!([])), &Facts::default(), None, None, Timestamp::UNIX_EPOCH);
        assert!(condition::get(&made.conditions, VALID).is_none());
        assert!(condition::get(&made.conditions, READY).is_some());
    }
}
