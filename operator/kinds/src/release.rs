//! Home's release of a group: what its objects amount to now, and whether that counts.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use regent_api::FailoverGroupSpec;
use regent_core::ids::GroupKey;

use crate::bundle::Bundle;
use crate::kind::replicas;
use crate::needs::unmet;
use crate::object::{listed, object_of};
use crate::owners::is_ready;
use crate::pin::pin;
use crate::pods::owned;
use crate::report::StandbyReport;
use crate::roll;
use crate::select::{Listing, accounts, is_ours, select};
use crate::settle::{Verdict, settle};
use crate::strip::strip;

/// Workloads that are named when several are between two revisions.
const NAMED: usize = 3;

/// Why home's objects, as they are now, are given to no standby.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Withheld {
    /// A workload is between two revisions, or not whole.
    Unsettled(String),
    /// Nothing that is mirrored wants a pod.
    Empty,
}

impl Withheld {
    /// What a person is told. `revision` is what home gave last, `since` when it became empty.
    pub fn words(&self, revision: Option<&str>, since: Option<&str>) -> String {
        match (self, revision) {
            (Self::Unsettled(why), Some(_)) => format!("{why}; the last complete revision stays held"),
            (Self::Unsettled(why), None) => format!("{why}; nothing is mirrored before it is complete"),
            (Self::Empty, Some(revision)) => {
                let since = since.map(|s| format!(" since {s}")).unwrap_or_default();
                format!(
                    "home is empty{since}: standbys keep revision {revision} held; bring the workloads back, or delete the FailoverGroup if they are gone for good"
                )
            }
            (Self::Empty, None) => "the selector matches nothing that is mirrored: no Deployment or StatefulSet in spec.namespaces that wants a pod has a template with the labels of spec.selector".to_owned(),
        }
    }
}

/// How the group runs at home, by its own probes.
pub fn at_home(spec: &FailoverGroupSpec, listings: &[Listing]) -> StandbyReport {
    let mut live = BTreeMap::new();
    for listing in listings {
        let workloads = listing.workloads.iter().filter(|w| is_ours(&spec.selector, w)).cloned().collect();
        let pods: Vec<Pod> = listing.pods.iter().filter_map(|p| serde_json::from_value(p.clone()).ok()).collect();
        live.extend(owned(workloads, &listing.replica_sets, &pods));
    }
    roll::running("", &[], &live)
}

/// A group's objects at home, read at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    /// The bundle that standbys get, unless it is withheld.
    pub bundle: Bundle,
    /// Why it is.
    pub withheld: Option<Withheld>,
    /// What belongs to the group and stays at home: `Kind NAMESPACE/NAME`.
    pub unknown: BTreeSet<String>,
    /// What pods need and standbys don't get.
    pub unmet: Vec<String>,
    /// What else a person should know.
    pub notices: Vec<String>,
}

/// Makes the release from what the group's namespaces hold. A function of the objects: every
/// replica makes the same. `pruned` is what a person has said is gone for good.
pub fn release(group: &GroupKey, spec: &FailoverGroupSpec, pruned: &[String], listings: &[Listing]) -> Release {
    let (mut objects, mut idle, mut unsettled, mut wanted) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let (mut unknown, mut missing, mut notices) = (BTreeSet::new(), Vec::new(), Vec::new());
    let accounts = accounts(&spec.selector, listings);
    for listing in listings {
        let (selected, owners) = (select(&spec.selector, listing, &accounts), listing.owners());
        notices.extend(listing.notices.iter().cloned());
        unknown.extend(selected.unknown);
        for mut workload in selected.workloads {
            let mut pods = owners.pods_of(&workload, &listing.pods);
            pods.retain(|p| is_ready(p));
            match settle(&workload, pods.len()) {
                Verdict::Settled => wanted += replicas(&workload),
                Verdict::Unsettled(why) => {
                    wanted += replicas(&workload);
                    unsettled.push(why);
                }
                Verdict::Idle => {
                    let object = object_of(&workload);
                    notices.push(format!("{object} is paused at home: nothing of it runs at a standby"));
                    idle.push(object);
                }
            }
            missing.extend(unmet(&workload, &listing.others));
            notices.extend(pin(&mut workload, &pods));
            objects.push(strip(&workload));
        }
        objects.extend(selected.others.iter().map(strip));
    }
    let withheld = match (wanted, unsettled.is_empty()) {
        (0, _) => Some(Withheld::Empty),
        (_, false) => Some(Withheld::Unsettled(listed(&unsettled, NAMED))),
        (_, true) => None,
    };
    let there: BTreeSet<String> = objects.iter().map(object_of).collect();
    let mut bundle = Bundle::new(group.clone(), spec.clone(), objects);
    idle.sort_unstable();
    bundle.idle = idle;
    // What is there again is not gone, whatever an old annotation says.
    bundle.pruned = pruned.iter().filter(|o| !there.contains(*o)).cloned().collect();
    Release { bundle, withheld, unknown, unmet: missing, notices }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec() -> FailoverGroupSpec {
        let json = json!({ "home": "ireland", "namespaces": ["case"], "standbys": ["france"], "selector": { "matchLabels": { "app": "case" } } });
        serde_json::from_value(json).unwrap()
    }

    fn deployment(name: &str, spec: Value, status: Value) -> Value {
        let mut made = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "namespace": "case", "uid": name, "generation": 1 },
            "spec": { "template": { "metadata": { "labels": { "app": "case" } }, "spec": { "containers": [{ "name": "c", "image": "r/c:1" }] } } },
            "status": status });
        made["status"]["observedGeneration"] = json!(1);
        for (key, value) in spec.as_object().unwrap() {
            made["spec"][key] = value.clone();
        }
        made
    }

    fn running(n: u64) -> Value {
        json!({ "replicas": n, "updatedReplicas": n, "availableReplicas": n })
    }

    /// A ready pod of a workload.
    fn pod(name: &str, of: &str) -> Value {
        json!({ "kind": "Pod", "metadata": { "name": name, "namespace": "case",
                "ownerReferences": [{ "kind": "Deployment", "name": of, "uid": of, "controller": true }] },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }] } })
    }

    fn made(workloads: Vec<Value>, pods: Vec<Value>, pruned: &[String]) -> Release {
        let listing = Listing { workloads, pods, ..Listing::default() };
        release(&"ireland/case".parse().unwrap(), &spec(), pruned, &[listing])
    }

    #[test]
    fn a_workload_that_is_paused_since_birth_travels_idle_and_one_between_revisions_withholds_all() {
        let next = deployment("next-tariff", json!({ "paused": true, "replicas": 2 }), json!({}));
        let tariff = deployment("tariff", json!({ "replicas": 1 }), running(1));
        let both = made(vec![next.clone(), tariff], vec![pod("a", "tariff")], &[]);
        assert_eq!((both.withheld, both.bundle.idle), (None, vec!["Deployment case/next-tariff".to_owned()]));
        assert!(
            both.notices
                .iter()
                .any(|n| n == "Deployment case/next-tariff is paused at home: nothing of it runs at a standby")
        );
        let rolling = json!({ "replicas": 3, "updatedReplicas": 1, "availableReplicas": 2 });
        let rates = deployment("rates", json!({ "replicas": 2 }), rolling);
        let between = made(vec![next, rates], vec![], &[]).withheld.unwrap().words(Some("ab"), None);
        let words = "home is between two revisions: Deployment case/rates has 0 of 2 updated pods available; the last complete revision stays held";
        assert_eq!(between, words);
    }

    #[test]
    fn what_wants_no_pod_is_empty() {
        let zero = || deployment("till", json!({ "replicas": 0 }), json!({}));
        let next = || deployment("next", json!({ "paused": true }), json!({}));
        for workloads in [vec![], vec![zero()], vec![next()], vec![zero(), next()]] {
            assert_eq!(made(workloads, vec![], &[]).withheld, Some(Withheld::Empty));
        }
        let going = deployment("till", json!({ "replicas": 0 }), running(1));
        assert_eq!(made(vec![going], vec![], &[]).withheld, Some(Withheld::Empty), "it is being emptied");
        let one = made(vec![zero(), deployment("desk", json!({}), running(1))], vec![pod("a", "desk")], &[]);
        assert_eq!(one.withheld, None);
        let words = Withheld::Empty.words(Some("ab"), Some("2026-01-01T00:00:00Z"));
        assert!(
            words.starts_with("home is empty since 2026-01-01T00:00:00Z: standbys keep revision ab held"),
            "{words}"
        );
        assert!(Withheld::Empty.words(None, None).starts_with("the selector matches nothing that is mirrored"));
    }

    #[test]
    fn only_what_a_person_names_and_home_lacks_is_gone_for_good() {
        let said = crate::bundle::pruned(" Deployment case/old,Deployment case/desk, ,Deployment case/old");
        let desk = || vec![deployment("desk", json!({}), running(1))];
        assert_eq!(made(desk(), vec![], &said).bundle.pruned, ["Deployment case/old"]);
        assert_eq!(made(desk(), vec![], &[]).bundle.pruned, Vec::<String>::new());
    }
}
