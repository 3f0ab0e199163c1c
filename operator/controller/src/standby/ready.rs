//! What a standby really holds ready.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerState, Pod};
use kube::ResourceExt;
use regent_api::GATE_NAME;
use serde_json::Value;

use super::derive::Mode;
use crate::mirror::StandbyReport;
use crate::mirror::bundle::text;

/// A copy of a workload as it is now, and its pods.
#[derive(Debug, Clone)]
pub struct Live {
    /// The Deployment or StatefulSet.
    pub workload: Value,
    /// The pods that its selector matches.
    pub pods: Vec<Pod>,
}

/// How a pod stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stand {
    /// Held by its gate.
    Held,
    /// All of its containers are ready.
    Ready,
    /// On its way.
    Coming,
    /// Something is in its way.
    Stuck { reason: String, message: String },
}

fn gate_state(pod: &Pod) -> Option<&ContainerState> {
    let statuses = pod.status.as_ref()?.init_container_statuses.as_ref()?;
    statuses.iter().find(|s| s.name == GATE_NAME)?.state.as_ref()
}

/// Whether a pod is held by its gate.
pub fn is_held(pod: &Pod) -> bool {
    gate_state(pod).is_some_and(|s| s.running.is_some())
}

/// Whether a pod is on its way out or has ended.
pub fn is_gone(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether a pod's condition `Ready` is true.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn stand(pod: &Pod) -> Stand {
    if is_held(pod) {
        return Stand::Held;
    }
    if is_ready(pod) {
        return Stand::Ready;
    }
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let unplaced = conditions.into_iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(condition) = unplaced {
        let message = condition.message.clone().unwrap_or_default();
        return Stand::Stuck { reason: "NoCapacity".into(), message: format!("pod {}: {message}", pod.name_any()) };
    }
    let waiting = gate_state(pod).and_then(|s| s.waiting.as_ref());
    match waiting.map(|w| (w.reason.as_deref().unwrap_or_default(), w.message.as_deref().unwrap_or_default())) {
        Some((reason, message)) if !matches!(reason, "" | "PodInitializing" | "ContainerCreating") => {
            let message = format!("pod {}, container {GATE_NAME}: {message}", pod.name_any());
            Stand::Stuck { reason: reason.to_owned(), message }
        }
        _ => Stand::Coming,
    }
}

fn number(object: &Value, pointer: &str) -> u64 {
    object.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

/// The pods that a workload wants.
pub fn replicas(workload: &Value) -> u64 {
    workload.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1)
}

/// Whether the controller has seen the newest revision and has no pods of older ones.
fn is_settled(workload: &Value, pods: &[&Pod]) -> bool {
    let seen = number(workload, "/status/observedGeneration") >= number(workload, "/metadata/generation");
    let newest = match text(workload, "/kind") {
        "StatefulSet" => {
            let revision = text(workload, "/status/updateRevision");
            pods.iter().all(|p| is_of_revision(p, revision))
        }
        _ => {
            let all = number(workload, "/status/replicas");
            number(workload, "/status/updatedReplicas") == all && all == replicas(workload)
        }
    };
    seen && newest
}

/// Whether a StatefulSet's pod is of a revision.
pub fn is_of_revision(pod: &Pod, revision: &str) -> bool {
    pod.labels().get("controller-revision-hash").is_some_and(|r| r == revision)
}

/// What to report, given the bundle's workloads and those that live here by `Kind NAMESPACE/NAME`.
pub fn judge(revision: &str, wanted: &[&Value], live: &BTreeMap<String, Live>, mode: Mode) -> StandbyReport {
    let mut report = StandbyReport { revision: revision.to_owned(), ..StandbyReport::default() };
    let mut stuck: Option<(String, String)> = None;
    let mut settled = true;
    for workload in wanted {
        let count = replicas(workload);
        report.wanted = report.wanted.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        let Some(live) = live.get(&crate::mirror::bundle::object_of(workload)) else {
            settled = false;
            continue;
        };
        let pods: Vec<&Pod> = live.pods.iter().filter(|p| !is_gone(p)).collect();
        settled &= is_settled(&live.workload, &pods);
        let good = if mode == Mode::Held { Stand::Held } else { Stand::Ready };
        let stands: Vec<Stand> = pods.iter().map(|p| stand(p)).collect();
        let held = stands.iter().filter(|s| **s == good).count() as u64;
        report.armed = report.armed.saturating_add(u32::try_from(held.min(count)).unwrap_or(u32::MAX));
        stuck = stuck.or_else(|| {
            stands.into_iter().find_map(|s| match s {
                Stand::Stuck { reason, message } => Some((reason, message)),
                _ => None,
            })
        });
    }
    if mode == Mode::Running {
        report.reason = "Holding".into();
        report.message = format!("runs here: {} of {} pods are ready", report.armed, report.wanted);
    } else if let Some((reason, message)) = stuck {
        (report.reason, report.message) = (reason, message);
    } else if !settled || report.armed < report.wanted {
        report.reason = "Preparing".into();
        report.message = format!("{} of {} pods are held by their gates", report.armed, report.wanted);
    }
    report
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(replicas: u32, updated: u32, all: u32) -> Value {
        json!({ "kind": "Deployment", "metadata": { "name": "shop", "namespace": "shop", "generation": 2 },
            "spec": { "replicas": replicas }, "status": { "observedGeneration": 2, "replicas": all, "updatedReplicas": updated } })
    }

    fn pod(status: Value) -> Pod {
        serde_json::from_value(
            json!({ "metadata": { "name": "p", "labels": { "controller-revision-hash": "r1" } }, "status": status }),
        )
        .unwrap()
    }

    fn held() -> Pod {
        pod(
            json!({ "initContainerStatuses": [{ "name": "regent-gate", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "running": {} } }] }),
        )
    }

    fn judged(workload: Value, pods: Vec<Pod>) -> (u32, u32, String) {
        let live =
            BTreeMap::from([(crate::mirror::bundle::object_of(&workload), Live { workload: workload.clone(), pods })]);
        let report = judge("r", &[&workload], &live, Mode::Held);
        (report.armed, report.wanted, report.reason)
    }

    #[test]
    fn armed_is_said_only_when_every_pod_of_the_newest_revision_is_held() {
        assert_eq!(judged(deployment(2, 2, 2), vec![held(), held()]), (2, 2, String::new()));
        assert_eq!(judged(deployment(2, 2, 2), vec![held(), pod(json!({}))]).2, "Preparing");
        assert_eq!(judged(deployment(2, 1, 2), vec![held(), held()]).2, "Preparing", "one is of an older revision");
        let mut unseen = deployment(2, 2, 2);
        unseen["metadata"]["generation"] = json!(3);
        assert_eq!(judged(unseen, vec![held(), held()]).2, "Preparing", "the controller has not looked yet");
        assert_eq!(judged(deployment(0, 0, 0), vec![]), (0, 0, String::new()));
        let missing = judge("r", &[&deployment(1, 1, 1)], &BTreeMap::new(), Mode::Held);
        assert_eq!((missing.armed, missing.wanted, missing.reason.as_str()), (0, 1, "Preparing"));
    }

    #[test]
    fn a_statefulset_with_a_pod_of_an_older_revision_is_not_armed() {
        let set = |revision: &str| {
            json!({ "kind": "StatefulSet", "metadata": { "name": "db", "namespace": "shop", "generation": 1 },
                "spec": { "replicas": 1 }, "status": { "observedGeneration": 1, "updateRevision": revision } })
        };
        assert_eq!(judged(set("r1"), vec![held()]).2, "");
        assert_eq!(judged(set("r2"), vec![held()]).2, "Preparing");
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let unplaced =
            pod(json!({ "conditions": [{ "type": "PodScheduled", "status": "False", "message": "0/1 nodes" }] }));
        assert_eq!(judged(deployment(1, 1, 1), vec![unplaced]).2, "NoCapacity");
        let image = pod(
            json!({ "initContainerStatuses": [{ "name": "regent-gate", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": { "waiting": { "reason": "ImagePullBackOff", "message": "no such image" } } }] }),
        );
        assert_eq!(judged(deployment(1, 1, 1), vec![image]).2, "ImagePullBackOff");
    }

    #[test]
    fn a_group_that_runs_here_counts_ready_pods() {
        let ready = pod(json!({ "conditions": [{ "type": "Ready", "status": "True" }] }));
        let workload = deployment(1, 1, 1);
        let live = BTreeMap::from([(
            crate::mirror::bundle::object_of(&workload),
            Live { workload: workload.clone(), pods: vec![ready] },
        )]);
        let report = judge("r", &[&workload], &live, Mode::Running);
        assert_eq!((report.armed, report.reason.as_str()), (1, "Holding"));
    }
}
