//! Pods: whose they are, and how they stand.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, ContainerState, ContainerStatus, Pod};
use kube::ResourceExt;
use regent_api::GATE_NAME;
use regent_api::gate::TRY_PREFIX;
use serde_json::Value;

use crate::object::{controller_of, object_of, text};

/// Reason of a pod that no node takes.
const NO_CAPACITY: &str = "NoCapacity";
/// Reasons by which a kubelet says that a container is on its way.
const ON_ITS_WAY: [&str; 3] = ["", "PodInitializing", "ContainerCreating"];

/// A workload as it is now, with the pods that it controls.
#[derive(Debug, Clone)]
pub struct Live {
    /// The Deployment or StatefulSet.
    pub workload: Value,
    /// Its pods that have not ended.
    pub pods: Vec<Pod>,
    /// Why the API server refuses a further pod of it, in its own words, where that was asked.
    pub refused: Option<String>,
}

/// What is in the way of a pod: one word, and where and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// One word: the kubelet's, where it has one.
    pub reason: String,
    /// The object, what is wrong with it, in the words of who refused it.
    pub message: String,
}

/// How a pod stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stand {
    /// Held by its gate: everything else of it has been tried.
    Held,
    /// Its gate has opened: what it runs may be running.
    Open,
    /// On its way to the gate.
    Coming,
    /// Something is in its way.
    Stuck(Obstacle),
}

/// Gives each workload the pods that it controls, by owner references: labels may be shared
/// by workloads whose selectors overlap.
pub fn owned(workloads: Vec<Value>, replica_sets: &[Value], pods: &[Pod]) -> BTreeMap<String, Live> {
    let uid = |o: &Value| text(o, "/metadata/uid").to_owned();
    let mut live = BTreeMap::new();
    for workload in workloads {
        let own = uid(&workload);
        let sets = replica_sets.iter().filter(|r| controller_of(r).is_some_and(|(_, _, owner)| owner == own));
        let mut makers: BTreeSet<String> = sets.map(uid).collect();
        makers.insert(own);
        let is_ours = |p: &&Pod| {
            let controllers = p.owner_references().iter().filter(|o| o.controller == Some(true));
            !is_gone(p) && controllers.into_iter().any(|o| makers.contains(&o.uid))
        };
        let pods = pods.iter().filter(is_ours).cloned().collect();
        live.insert(object_of(&workload), Live { workload, pods, refused: None });
    }
    live
}

/// Whether a pod is on its way out or has ended.
pub fn is_gone(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    pod.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed"))
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<(&'a str, Option<&'a str>)> {
    let mut conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    conditions.find(|c| c.type_ == kind).map(|c| (c.status.as_str(), c.message.as_deref()))
}

/// Whether a pod's condition `Ready` is true.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|(status, _)| status == "True")
}

fn inits(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|s| s.init_container_statuses.iter().flatten())
}

fn mains(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten())
}

fn gate(pod: &Pod) -> Option<&ContainerState> {
    inits(pod).find(|s| s.name == GATE_NAME)?.state.as_ref()
}

/// Whether a pod is held by its gate.
pub fn is_held(pod: &Pod) -> bool {
    gate(pod).is_some_and(|s| s.running.is_some())
}

/// Whether something of a pod may be running: its gate has opened, or it has none.
pub fn may_run(pod: &Pod) -> bool {
    let has_gate = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten()).any(|c| c.name == GATE_NAME);
    let started = mains(pod).any(|s| s.state.as_ref().is_some_and(|s| s.running.is_some()));
    !has_gate || started || gate(pod).is_some_and(|s| s.terminated.as_ref().is_some_and(|t| t.exit_code == 0))
}

/// What the newest warning Events say, by the object that they are about: `Kind NAMESPACE/NAME`.
pub type Warnings = BTreeMap<String, Obstacle>;

/// How a pod stands. A volume that can't be mounted, and a claim for which there is no class,
/// are told by `warnings` alone.
pub fn stand(pod: &Pod, warnings: Option<&Warnings>) -> Stand {
    if is_held(pod) {
        return Stand::Held;
    }
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let of_claim = || {
        let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
        let mut claims = volumes.filter_map(|v| v.persistent_volume_claim.as_ref());
        claims.find_map(|c| warnings?.get(&format!("PersistentVolumeClaim {namespace}/{}", c.claim_name)))
    };
    match obstacle(pod) {
        Some(obstacle) if obstacle.reason == NO_CAPACITY => match of_claim() {
            Some(claim) => {
                Stand::Stuck(Obstacle { message: format!("{}; {}", obstacle.message, claim.message), ..obstacle })
            }
            None => Stand::Stuck(obstacle),
        },
        Some(obstacle) => Stand::Stuck(obstacle),
        None if may_run(pod) => Stand::Open,
        None => {
            let warning = warnings.and_then(|w| w.get(&format!("Pod {namespace}/{name}")));
            warning.map_or(Stand::Coming, |w| Stand::Stuck(w.clone()))
        }
    }
}

/// What keeps a pod from its gate, or a started one from running.
pub fn obstacle(pod: &Pod) -> Option<Obstacle> {
    let name = format!("pod {}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    if let Some(("False", message)) = condition(pod, "PodScheduled") {
        let message = format!("{name}: {}", message.unwrap_or("no node takes it"));
        return Some(Obstacle { reason: NO_CAPACITY.into(), message });
    }
    inits(pod).chain(mains(pod)).find_map(|status| {
        let state = status.state.as_ref()?;
        let tell = |reason: &str, message: &str| Obstacle {
            reason: reason.to_owned(),
            message: format!("{name}, container {}: {message}", real(pod, &status.name)),
        };
        if let Some(waiting) = &state.waiting {
            let reason = waiting.reason.as_deref().unwrap_or_default();
            let message = waiting.message.as_deref().unwrap_or(reason);
            let (reason, message) = steady(reason, message);
            return (!ON_ITS_WAY.contains(&reason)).then(|| tell(reason, message));
        }
        let ended = state.terminated.as_ref().filter(|t| t.exit_code != 0)?;
        let reason = ended.reason.as_deref().unwrap_or("Error");
        let message = ended.message.clone().unwrap_or_else(|| format!("ended with status {}", ended.exit_code));
        Some(tell(reason, message.trim()))
    })
}

/// A kubelet that can't pull says so in turns with that it will try again later: the same words
/// for both, so that nothing is news that isn't.
fn steady<'a>(reason: &'a str, message: &'a str) -> (&'a str, &'a str) {
    match (reason, message.split_once(": ErrImagePull: ")) {
        ("ImagePullBackOff", Some((_, why))) => ("ErrImagePull", why),
        _ => (reason, message),
    }
}

/// The container that a try stands for, or the name itself.
fn real<'a>(pod: &'a Pod, name: &'a str) -> &'a str {
    let spec = pod.spec.as_ref();
    let containers = || spec.into_iter().flat_map(|s| s.init_containers.iter().flatten().chain(&s.containers));
    let Some(tried) = containers().find(|c| c.name == name && name.starts_with(TRY_PREFIX)) else { return name };
    let is_it = |c: &&Container| {
        !c.name.starts_with(TRY_PREFIX) && c.image == tried.image && c.env == tried.env && c.env_from == tried.env_from
    };
    containers().filter(|c| c.name != GATE_NAME).find(is_it).map_or(name, |c| c.name.as_str())
}

/// Why a started pod is not ready: by its own probes, or by a readiness gate that nobody sets.
pub fn unready(pod: &Pod) -> Obstacle {
    let name = format!("pod {}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    if let Some(obstacle) = obstacle(pod) {
        return obstacle;
    }
    let gates = pod.spec.iter().flat_map(|s| s.readiness_gates.iter().flatten());
    let unset = gates.map(|g| g.condition_type.as_str()).find(|t| condition(pod, t).is_none_or(|(s, _)| s != "True"));
    let waiting = mains(pod).find(|s| !s.ready).map(|s| s.name.as_str());
    let (reason, message) = match (waiting, unset) {
        _ if is_held(pod) => ("Held", format!("{name} is still held by its gate")),
        (Some(container), _) => {
            ("NotReady", format!("{name}, container {container} is not ready by its own probe yet"))
        }
        (None, Some(gate)) => ("ReadinessGate", format!("{name}: nobody here sets its readiness gate {gate}")),
        (None, None) => ("NotReady", format!("{name} is on its way")),
    };
    Obstacle { reason: reason.into(), message }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn waiting(reason: &str, message: &str) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "shop" }, "status": { "initContainerStatuses": [
            { "name": "regent-try-0", "image": "", "imageID": "", "ready": false, "restartCount": 0,
              "state": { "waiting": { "reason": reason, "message": message } } }] },
            "spec": { "initContainers": [{ "name": "regent-try-0", "image": "i:1" }, { "name": "regent-gate", "image": "i:1" }],
                      "containers": [{ "name": "app", "image": "i:1" }] } }))
        .unwrap()
    }

    #[test]
    fn a_pull_that_fails_is_said_once_and_of_the_container_that_needs_the_image() {
        let fails = obstacle(&waiting("ErrImagePull", "not found")).unwrap();
        let waits =
            obstacle(&waiting("ImagePullBackOff", "Back-off pulling image \"i:1\": ErrImagePull: not found")).unwrap();
        assert_eq!(fails, waits);
        assert_eq!(
            (fails.reason.as_str(), fails.message.as_str()),
            ("ErrImagePull", "pod shop/p, container app: not found")
        );
        assert_eq!(obstacle(&waiting("PodInitializing", "")), None);
    }
}
