//! The gate in a pod: how one is told from whatever looks like it.

use k8s_openapi::api::core::v1::{Container, Pod};
use regent_core::ids::GroupKey;

use crate::{GATE_DRIVER, GATE_NAME};

/// What the gate's container runs, and nothing else: a pod made before its gate was checked
/// at admission may have a container of that name which asks nobody.
pub const WAITS: [&str; 2] = ["/regent/regent-gate", "wait"];
/// What a try's container runs.
pub const TRIES: [&str; 2] = ["/regent/regent-gate", "try"];
/// Beginning of the names of tries: init containers before the gate that have the image,
/// environment and volumes of one that comes after it, and end at once.
pub const TRY_PREFIX: &str = "regent-try-";
/// Where the gate's volume is mounted.
pub const GATE_PATH: &str = "/regent";

/// Whether a mount path is the gate's folder or below it, however it is spelled, or may be.
pub fn is_gates_path(path: &str) -> bool {
    let mut parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    parts.clone().any(|part| part == "..") || parts.next() == GATE_PATH.strip_prefix('/')
}

fn is_try(container: &Container) -> bool {
    let runs = container.command.as_deref().unwrap_or_default();
    container.name.starts_with(TRY_PREFIX)
        && runs == TRIES
        && container.args.is_none()
        && container.restart_policy.is_none()
}

/// Whether a pod carries this group's gate: the volume that tells the guard of it, and the
/// init container that waits, with nothing but tries before it.
pub fn has_gate(pod: &Pod, group: &GroupKey) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let first = spec.init_containers.iter().flatten().find(|c| !is_try(c));
    let waits = first.is_some_and(|c| {
        let runs = c.command.as_deref().unwrap_or_default();
        c.name == GATE_NAME && runs == WAITS && c.args.is_none() && c.restart_policy.is_none()
    });
    let volumes = spec.volumes.iter().flatten().filter_map(|v| v.csi.as_ref());
    let mut gates = volumes.filter(|csi| csi.driver == GATE_DRIVER).filter_map(|csi| csi.volume_attributes.as_ref());
    waits && gates.any(|attributes| attributes.get("group") == Some(&group.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod_of(inits: Value, group: &str) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "shop" }, "spec": {
            "containers": [], "initContainers": inits,
            "volumes": [{ "name": "regent-gate", "csi": { "driver": "gate.regent.dev", "volumeAttributes": { "group": group } } }] } }))
        .unwrap()
    }

    #[test]
    fn a_gate_is_the_volume_of_this_group_and_the_first_init_container() {
        let pod_running =
            |init: &str, group: &str, command: &[&str]| pod_of(json!([{ "name": init, "command": command }]), group);
        let pod = |init: &str, group: &str| pod_running(init, group, &WAITS);
        let group: GroupKey = "ireland/shop".parse().unwrap();
        assert!(has_gate(&pod("regent-gate", "ireland/shop"), &group));
        assert!(!has_gate(&pod("regent-gate", "ireland/bank"), &group));
        assert!(!has_gate(&pod("mine", "ireland/shop"), &group));
        assert!(!has_gate(&pod_running("regent-gate", "ireland/shop", &["/bin/true"]), &group));
        assert!(!has_gate(&pod_running("regent-gate", "ireland/shop", &[]), &group));
    }

    #[test]
    fn only_true_tries_may_come_before_the_gate() {
        let group: GroupKey = "ireland/shop".parse().unwrap();
        let gate = json!({ "name": "regent-gate", "command": WAITS });
        let before = |first: Value| has_gate(&pod_of(json!([first, gate]), "ireland/shop"), &group);
        assert!(before(json!({ "name": "regent-try-0", "command": TRIES })));
        assert!(!before(json!({ "name": "mine", "command": TRIES })));
        assert!(!before(json!({ "name": "regent-try-0", "command": ["/bin/shop"] })));
        assert!(!before(json!({ "name": "regent-try-0", "command": TRIES, "args": ["x"] })));
        assert!(!before(json!({ "name": "regent-try-0", "command": TRIES, "restartPolicy": "Always" })));
    }

    #[test]
    fn the_gates_folder_is_known_however_it_is_spelled() {
        for path in ["/regent", "/regent/", "regent/x", "//regent/regent-gate", "/./regent", "/a/../regent"] {
            assert!(is_gates_path(path), "{path}");
        }
        for path in ["/", "/regents", "/data/regent", "/..data"] {
            assert!(!is_gates_path(path), "{path}");
        }
    }
}
