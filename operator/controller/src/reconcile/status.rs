//! The status of a `FailoverGroup`, made from the facts.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use regent_api::condition::{self, Truth};
use regent_api::group::{
    LAWFUL, MAX_NODES, MAX_OBJECT, MAX_UNKNOWN_KINDS, MIRRORED, NO_STANDBY_READY, PROTECTED, READY, StandbyState,
    StandbyStatus, VALID,
};
use regent_api::{
    ControlLeaseStatus, FIELD_MANAGER, FailoverGroup, FailoverGroupSpec, FailoverGroupStatus, Protection,
};
use regent_core::plan::VerifiedPlan;
use regent_kinds::object::shortened;
use regent_kinds::release::Withheld;
use regent_kinds::report::bounded_notices;
use regent_lease::adoption::Reason;

use super::judge::Finding;
use super::news;
use crate::mirror::since_of;
use crate::objects::{ObjectError, bounded};

/// Pods that are named when some have no gate; objects, in a message.
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
    pub protecting: Option<(Reason, String)>,
    /// Pods without a gate, as NAMESPACE/NAME.
    pub ungated: Vec<String>,
    /// The digest of the newest bundle here.
    pub revision: Option<String>,
    /// What belongs to the group and stays at home.
    pub unknown: Vec<String>,
    /// How many more there are of it, whose names this replica hasn't seen.
    pub more_unknown: usize,
    /// What pods need and standbys don't get.
    pub unmet: Vec<String>,
    /// What else a person should know.
    pub notices: Vec<String>,
    /// Why home's objects, as they are now, are given to no standby.
    pub withheld: Option<Withheld>,
    /// Why nothing could be captured.
    pub capture_failed: Option<String>,
}

type Say = (Truth, &'static str, String);

/// Why home's objects are given to no standby, as reason and message.
fn withheld(facts: &Facts, since: Option<&Time>) -> Option<Say> {
    let withheld = facts.withheld.as_ref()?;
    let reason = match (withheld, &facts.revision) {
        (Withheld::Unsettled(_), _) => "BetweenRevisions",
        (Withheld::Empty, Some(_)) => "Emptied",
        (Withheld::Empty, None) => "Empty",
    };
    let since = since.map(|t| since_of(t.0));
    Some((Truth::False, reason, withheld.words(facts.revision.as_deref(), since.as_deref())))
}

/// What belongs to the group and stays at home, by the names that the schema has room for: first
/// what is not accepted by name, and how much of that there is.
fn stays_home<'a>(facts: &'a Facts, accepted: &[String]) -> (Vec<&'a str>, usize) {
    let named = facts.unknown.iter().map(|o| shortened(o, MAX_OBJECT));
    let (good, mut all): (Vec<&str>, Vec<&str>) = named.partition(|o| accepted.iter().any(|a| a == o));
    let wanting = all.len();
    all.extend(good);
    (all, wanting)
}

/// The first of several, and how many more there are beside them and `unnamed`.
fn listed<S: AsRef<str>>(items: &[S], unnamed: usize, separator: &str) -> String {
    let named: Vec<&str> = items.iter().take(NAMED).map(AsRef::as_ref).collect();
    let more = items.len() - named.len() + unnamed;
    let more = if more > 0 { format!("{separator}and {more} more") } else { String::new() };
    format!("{}{more}", named.join(separator))
}

/// What keeps a group from being ready although a standby may be.
fn wanting(facts: &Facts, accepted: &[String]) -> Option<Say> {
    if let Some(say @ (_, "Empty", _)) = withheld(facts, None) {
        return Some(say);
    }
    if !facts.unmet.is_empty() {
        return Some((Truth::False, "NeedsMissing", listed(&facts.unmet, 0, "; ")));
    }
    let (stays, wanting) = stays_home(facts, accepted);
    // More than can be named are more than can be accepted.
    (wanting + facts.more_unknown > 0).then(|| {
        let message = format!(
            "belongs to the group and stays at home: {}; accept each by name in spec.staysHome, and see that the standbys have their own",
            listed(&stays[..wanting], facts.more_unknown, ", ")
        );
        (Truth::False, "Incomplete", message)
    })
}

fn mirrored(facts: &Facts, standbys: &[StandbyStatus], holder_elsewhere: bool, since: Option<&Time>) -> Say {
    if let Some(why) = &facts.capture_failed {
        return (Truth::False, "CaptureFailed", why.clone());
    }
    if holder_elsewhere {
        return (Truth::Unknown, "HeldElsewhere", "nothing is mirrored while another site holds the group".into());
    }
    if let Some(say) = withheld(facts, since) {
        return say;
    }
    let behind: Vec<&str> = standbys.iter().filter(|s| s.revision != facts.revision).map(|s| s.site.as_str()).collect();
    match (&facts.revision, behind.is_empty(), standbys.is_empty()) {
        (None, ..) => (Truth::Unknown, "NoBundle", "nothing has been captured yet".into()),
        (_, _, true) => (Truth::Unknown, "NoReports", "no standby has reported yet".into()),
        (_, true, _) => (Truth::True, "Current", "every standby that reports holds the newest bundle".into()),
        _ => (Truth::False, "Behind", format!("older bundles are held at {}", behind.join(", "))),
    }
}

fn ready(facts: &Facts, standbys: &[StandbyStatus], spec: &FailoverGroupSpec) -> Say {
    let wants_protection = spec.protection == regent_api::WantedProtection::Protected;
    if let Some(finding) = facts.invalid.as_ref().or(facts.unlawful.as_ref().filter(|f| f.reason == "NoLawfulStandby"))
    {
        return (Truth::False, finding.reason, finding.message.clone());
    }
    if let Some((reason, message)) = facts.protecting.as_ref().filter(|_| wants_protection) {
        let reason = if *reason == Reason::PodsWithoutGate { reason.as_str() } else { "Protecting" };
        return (Truth::False, reason, message.clone());
    }
    if let Some(say) = wanting(facts, &spec.stays_home) {
        return say;
    }
    let good = |s: &&StandbyStatus| matches!(s.state, StandbyState::Armed | StandbyState::Holding);
    if let Some(standby) = standbys.iter().find(good) {
        return (Truth::True, "StandbyReady", format!("{} could take the group over", standby.site));
    }
    let tell = |s: &StandbyStatus| format!("{}: {}", s.site, s.message.as_deref().unwrap_or("nothing is known"));
    let told: Vec<String> = standbys.iter().map(tell).collect();
    let message = if told.is_empty() { "no standby has reported yet".to_owned() } else { told.join("; ") };
    (Truth::False, NO_STANDBY_READY, message)
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
    // Home's own entry says how the group runs there.
    let standbys: Vec<StandbyStatus> = old.standbys.iter().filter(|s| s.site != object.spec.home).cloned().collect();
    let standbys = standbys.as_slice();
    let holder = lease.and_then(|l| l.holder.as_ref());
    let elsewhere = holder.is_some_and(|h| h.site != object.spec.home);
    let planned = plan.is_some_and(|p| p.plan().protection == regent_core::plan::Protection::Protected);
    let protected: Say = match &facts.protecting {
        None => (Truth::True, "Protected", "fence and gate are in force".into()),
        Some((reason, message)) => (Truth::False, reason.as_str(), message.clone()),
    };
    let is_emptied = facts.withheld == Some(Withheld::Empty) && facts.revision.is_some();
    let empty_since = is_emptied.then(|| old.empty_since.clone().unwrap_or(Time(now)));
    let mut says = vec![(READY, ready(facts, standbys, &object.spec)), (PROTECTED, protected)];
    if facts.home {
        says.push((VALID, found(facts.invalid.as_ref(), "Valid", "spec and charter agree")));
        says.push((
            LAWFUL,
            found(facts.unlawful.as_ref(), "Lawful", "home and every standby are where the group may run"),
        ));
        says.push((MIRRORED, mirrored(facts, standbys, elsewhere, empty_since.as_ref())));
    }
    let mut conditions = old.conditions.clone();
    for (kind, (truth, reason, message)) in says {
        condition::set(&mut conditions, kind, truth, reason, &message, object.metadata.generation, now);
    }
    let (stays, _) = stays_home(facts, &object.spec.stays_home);
    let more_unknown = stays.len().saturating_sub(MAX_UNKNOWN_KINDS) + facts.more_unknown;
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
        nodes: lease.map(|l| l.nodes.iter().take(MAX_NODES).map(|n| n.name.clone()).collect()).unwrap_or_default(),
        standbys: Vec::new(),
        empty_since,
        unknown_kinds: stays.into_iter().take(MAX_UNKNOWN_KINDS).map(str::to_owned).collect(),
        more_unknown_kinds: i32::try_from(more_unknown).unwrap_or(i32::MAX),
        notices: bounded_notices(facts.unmet.iter().chain(&facts.notices)),
        conditions,
    }
}

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
        let under_way = Facts { protecting: Some((Reason::PodsWithoutGate, "2 pods".into())), ..facts() };
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
    fn what_is_withheld_is_said_and_since_when_home_is_empty_outlives_a_restart() {
        let armed = json!([{ "site": "france", "state": "Armed", "revision": "r2" }]);
        let between = Facts {
            withheld: Some(Withheld::Unsettled("home is between two revisions: Deployment case/rates".into())),
            ..facts()
        };
        let (truth, reason, message) = said(&between, armed.clone(), MIRRORED);
        assert_eq!((truth.as_str(), reason.as_str()), ("False", "BetweenRevisions"));
        assert!(message.ends_with("the last complete revision stays held"), "{message}");
        assert_eq!(said(&between, armed.clone(), READY).0, "True", "the standby holds what was complete");

        let never = Facts { home: true, withheld: Some(Withheld::Empty), ..Facts::default() };
        assert_eq!(said(&never, json!([]), MIRRORED).1, "Empty");
        assert_eq!(said(&never, armed.clone(), READY).1, "Empty");

        let emptied = Facts { withheld: Some(Withheld::Empty), ..facts() };
        let mut home = object(json!([]));
        let at = |s| Timestamp::from_second(s).unwrap();
        home.status = Some(status(&home, &emptied, None, None, at(0)));
        let later = status(&home, &emptied, None, None, at(3600));
        assert_eq!(later, home.status.clone().unwrap(), "nothing is news an hour later");
        let mirrored = condition::get(&later.conditions, MIRRORED).unwrap();
        assert_eq!(mirrored.reason, "Emptied");
        assert!(
            mirrored.message.starts_with("home is empty since 1970-01-01T00:00:00Z: standbys keep revision r2 held")
        );
        assert_eq!(status(&home, &facts(), None, None, at(7200)).empty_since, None);
    }

    #[test]
    fn a_group_whose_parts_stay_at_home_is_incomplete_until_each_is_accepted_by_name() {
        let armed = json!([{ "site": "france", "state": "Armed", "revision": "r2" }]);
        let unknown = vec!["Ingress case/desk".to_owned(), "Role case/desk".to_owned()];
        let chart = Facts { unknown, ..facts() };
        let mut home = object(armed.clone());
        let reason = |home: &FailoverGroup, facts: &Facts| {
            let made = status(home, facts, None, None, Timestamp::UNIX_EPOCH);
            let ready = condition::get(&made.conditions, READY).unwrap();
            (ready.reason.clone(), ready.message.clone())
        };
        home.spec.stays_home = vec!["Ingress case/desk".into()];
        let (incomplete, message) = reason(&home, &chart);
        assert_eq!(incomplete, "Incomplete");
        assert!(message.contains("Role case/desk") && !message.contains("Ingress"), "{message}");
        home.spec.stays_home.push("Role case/desk".into());
        assert_eq!(reason(&home, &chart).0, "StandbyReady");
        let late = "Secret case/late is missing at home; container main, env LATE needs it".to_owned();
        let missing = Facts { unmet: vec![late.clone()], ..chart };
        assert_eq!(reason(&home, &missing), ("NeedsMissing".to_owned(), late.clone()));
        assert_eq!(status(&home, &missing, None, None, Timestamp::UNIX_EPOCH).notices, [late]);
    }

    #[test]
    fn notices_are_bounded() {
        let many = Facts { notices: vec!["é".repeat(600); 40], ..facts() };
        let made = status(&object(json!([])), &many, None, None, Timestamp::UNIX_EPOCH).notices;
        assert_eq!((made.len(), made[0].len()), (32, 512));
        assert_eq!(made[31], "and 9 more, which are not shown");
    }

    #[test]
    fn what_stays_at_home_is_named_as_far_as_there_is_room_and_counted_beyond() {
        let mut home = object(json!([{ "site": "france", "state": "Armed", "revision": "r2" }]));
        let unknown: Vec<String> = (0..70).map(|n| format!("Role case/desk-{n:02}")).collect();
        home.spec.stays_home = unknown[..64].to_vec();
        let seen = Facts { unknown, ..facts() };
        let first = status(&home, &seen, None, None, Timestamp::UNIX_EPOCH);
        assert_eq!((first.unknown_kinds.len(), first.more_unknown_kinds), (64, 6));
        assert_eq!(first.unknown_kinds[0], "Role case/desk-64", "what is not accepted comes first");
        let message = |status: &FailoverGroupStatus| condition::get(&status.conditions, READY).unwrap().message.clone();
        assert!(message(&first).contains("desk-69") && !message(&first).contains("desk-63"), "{}", message(&first));

        // Another replica has not looked itself, and says the same by what it reads.
        let read = Facts { unknown: first.unknown_kinds.clone(), more_unknown: 6, ..facts() };
        let again = status(&home, &read, None, None, Timestamp::UNIX_EPOCH);
        assert_eq!((&again.unknown_kinds, again.more_unknown_kinds), (&first.unknown_kinds, 6));
        assert_eq!(condition::get(&again.conditions, READY).unwrap().reason, "Incomplete");
    }

    #[test]
    fn a_copy_says_nothing_of_what_only_home_can_tell() {
        let made = status(&object(json!([])), &Facts::default(), None, None, Timestamp::UNIX_EPOCH);
        assert!(condition::get(&made.conditions, VALID).is_none());
        assert!(condition::get(&made.conditions, READY).is_some());
    }
}
