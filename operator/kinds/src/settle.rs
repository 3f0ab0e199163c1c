//! When a release counts: only once it has become ready at home.
//!
//! A roll-out that never gets ready at home must not replace what standbys hold: a cut would
//! start the revision that home itself could not start.
//!
//! | home's workload | verdict |
//! |---|---|
//! | all pods updated, available, none of another revision | settled |
//! | paused since it was made | idle: nothing of it runs anywhere |
//! | paused or partitioned half-way | unsettled: two revisions run |
//! | anything else | unsettled: between two revisions, or not whole |

use serde_json::Value;

use crate::kind::replicas;
use crate::object::{number, object_of, text};

/// Whether a workload's newest revision is what home runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is, in full.
    Settled,
    /// It wants pods and has never had any: it is paused since it was made.
    Idle,
    /// It isn't; why, naming the object and numbers.
    Unsettled(String),
}

/// Judges a workload as its controller's status tells, with the number of its ready pods as
/// they were listed: the status may be newer than the list.
pub fn settle(workload: &Value, ready_pods: usize) -> Verdict {
    let object = object_of(workload);
    if number(workload, "/status/observedGeneration") < number(workload, "/metadata/generation") {
        return Verdict::Unsettled(format!(
            "home is between two revisions: the controller of {object} has not seen generation {} yet",
            number(workload, "/metadata/generation")
        ));
    }
    let wanted = replicas(workload);
    let count = |field: &str| number(workload, &format!("/status/{field}"));
    let (all, updated) = (count("replicas"), count("updatedReplicas"));
    let is_set = text(workload, "/kind") == "StatefulSet";
    let available =
        if is_set { count("availableReplicas").min(count("readyReplicas")) } else { count("availableReplicas") };
    let halted = halted(workload);
    if halted == Some("paused") && all == 0 && updated == 0 && wanted > 0 {
        return Verdict::Idle;
    }
    // Counted as if all pods of the revision before were available.
    let fresh = available.saturating_sub(all.saturating_sub(updated)).min(wanted);
    let is_split = updated < all || (is_set && !is_one_revision(workload));
    match halted {
        Some(why) if is_split => Verdict::Unsettled(format!(
            "home runs two revisions of {object}: it is {why} with {updated} of {all} pods updated"
        )),
        _ if is_split => Verdict::Unsettled(format!(
            "home is between two revisions: {object} has {fresh} of {wanted} updated pods available"
        )),
        _ if all != wanted || updated != wanted || available != wanted => {
            Verdict::Unsettled(format!("home is not whole: {object} has {available} of {wanted} pods available"))
        }
        _ if (ready_pods as u64) < wanted => {
            Verdict::Unsettled(format!("home is not whole: {object} has {ready_pods} of {wanted} pods ready"))
        }
        _ => Verdict::Settled,
    }
}

/// What keeps a roll-out from going on by itself.
fn halted(workload: &Value) -> Option<&'static str> {
    if workload.pointer("/spec/paused") == Some(&Value::Bool(true)) {
        return Some("paused");
    }
    (number(workload, "/spec/updateStrategy/rollingUpdate/partition") > 0).then_some("partitioned")
}

/// Whether a StatefulSet's controller knows of one revision only. With `OnDelete` it never
/// moves `currentRevision`: there the updated pods alone tell.
fn is_one_revision(set: &Value) -> bool {
    text(set, "/spec/updateStrategy/type") == "OnDelete"
        || text(set, "/status/currentRevision") == text(set, "/status/updateRevision")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A Deployment of two pods with these numbers: replicas, updated, available.
    fn deployment(spec: Value, (all, updated, available): (u64, u64, u64)) -> Value {
        let mut made = json!({ "kind": "Deployment", "metadata": { "name": "rates", "namespace": "case", "generation": 2 },
            "spec": { "replicas": 2 },
            "status": { "observedGeneration": 2, "replicas": all, "updatedReplicas": updated, "availableReplicas": available } });
        for (key, value) in spec.as_object().unwrap() {
            made["spec"][key] = value.clone();
        }
        made
    }

    fn set(strategy: Value, (all, updated, ready): (u64, u64, u64), revisions: (&str, &str)) -> Value {
        let mut made = deployment(json!({ "updateStrategy": strategy }), (all, updated, ready));
        made["kind"] = json!("StatefulSet");
        made["status"]["readyReplicas"] = ready.into();
        made["status"]["currentRevision"] = revisions.0.into();
        made["status"]["updateRevision"] = revisions.1.into();
        made
    }

    fn unsettled(what: &str) -> Verdict {
        Verdict::Unsettled(what.to_owned())
    }

    #[test]
    fn a_deployment_counts_when_all_of_its_pods_are_updated_and_available() {
        let between = "home is between two revisions: Deployment case/rates has";
        let cases = [
            (json!({}), (2, 2, 2), 2, Verdict::Settled),
            // A roll-out whose new pod never gets ready: both old ones serve on.
            (json!({}), (3, 1, 2), 2, unsettled(&format!("{between} 0 of 2 updated pods available"))),
            (json!({}), (2, 1, 2), 2, unsettled(&format!("{between} 1 of 2 updated pods available"))),
            (json!({}), (2, 2, 1), 1, unsettled("home is not whole: Deployment case/rates has 1 of 2 pods available")),
            (json!({}), (2, 2, 2), 1, unsettled("home is not whole: Deployment case/rates has 1 of 2 pods ready")),
            (json!({}), (0, 0, 0), 0, unsettled("home is not whole: Deployment case/rates has 0 of 2 pods available")),
            (json!({ "replicas": 0 }), (0, 0, 0), 0, Verdict::Settled),
            (
                json!({ "replicas": 0 }),
                (2, 2, 2),
                2,
                unsettled("home is not whole: Deployment case/rates has 2 of 0 pods available"),
            ),
            (json!({ "paused": true }), (0, 0, 0), 0, Verdict::Idle),
            (json!({ "paused": true, "replicas": 0 }), (0, 0, 0), 0, Verdict::Settled),
            (json!({ "paused": true }), (2, 2, 2), 2, Verdict::Settled),
            (
                json!({ "paused": true }),
                (2, 1, 2),
                2,
                unsettled("home runs two revisions of Deployment case/rates: it is paused with 1 of 2 pods updated"),
            ),
        ];
        for (spec, numbers, ready, verdict) in cases {
            assert_eq!(settle(&deployment(spec.clone(), numbers), ready), verdict, "{spec} {numbers:?}");
        }
        let mut unseen = deployment(json!({}), (2, 2, 2));
        unseen["metadata"]["generation"] = json!(3);
        assert!(matches!(settle(&unseen, 2), Verdict::Unsettled(why) if why.contains("generation 3")));
    }

    #[test]
    fn a_statefulset_counts_when_its_controller_knows_one_revision() {
        let (rolling, parts) = (
            json!({ "type": "RollingUpdate" }),
            json!({ "type": "RollingUpdate", "rollingUpdate": { "partition": 1 } }),
        );
        let on_delete = json!({ "type": "OnDelete" });
        let cases = [
            (&rolling, (2, 2, 2), ("a", "a"), Verdict::Settled),
            (
                &rolling,
                (2, 2, 2),
                ("a", "b"),
                unsettled("home is between two revisions: StatefulSet case/rates has 2 of 2 updated pods available"),
            ),
            (
                &rolling,
                (2, 2, 1),
                ("a", "a"),
                unsettled("home is not whole: StatefulSet case/rates has 1 of 2 pods available"),
            ),
            (
                &parts,
                (2, 1, 2),
                ("a", "b"),
                unsettled(
                    "home runs two revisions of StatefulSet case/rates: it is partitioned with 1 of 2 pods updated",
                ),
            ),
            (&parts, (2, 2, 2), ("a", "a"), Verdict::Settled),
            (
                &on_delete,
                (2, 1, 2),
                ("a", "b"),
                unsettled("home is between two revisions: StatefulSet case/rates has 1 of 2 updated pods available"),
            ),
            (&on_delete, (2, 2, 2), ("a", "b"), Verdict::Settled),
        ];
        for (strategy, numbers, revisions, verdict) in cases {
            assert_eq!(settle(&set(strategy.clone(), numbers, revisions), 2), verdict, "{strategy} {numbers:?}");
        }
    }
}
