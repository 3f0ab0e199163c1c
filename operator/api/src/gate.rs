//! The gate in a pod: how one is told from whatever looks like it.

use k8s_openapi::api::core::v1::Pod;
use regent_core::ids::GroupKey;

use crate::{GATE_DRIVER, GATE_NAME};

/// What the gate's container runs, and nothing else: a pod made before its gate was checked
/// at admission may have a container of that name which asks nobody.
const WAITS: [&str; 2] = ["/regent/regent-gate", "wait"];

/// Whether a pod carries this group's gate: the volume that tells the guard of it, and the
/// init container that waits.
pub fn has_gate(pod: &Pod, group: &GroupKey) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let first = spec.init_containers.as_ref().and_then(|c| c.first());
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
    use serde_json::json;

    use super::*;

    #[test]
    fn a_gate_is_the_volume_of_this_group_and_the_first_init_container() {
        let pod_running = |init: &str, group: &str, command: &[&str]| -> Pod {
            serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "shop" }, "spec": {
                "containers": [], "initContainers": [{ "name": init, "command": command }],
                "volumes": [{ "name": "regent-gate", "csi": { "driver": "gate.regent.dev", "volumeAttributes": { "group": group } } }] } }))
            .unwrap()
        };
        let pod = |init: &str, group: &str| pod_running(init, group, &WAITS);
        let group: GroupKey = "ireland/shop".parse().unwrap();
        assert!(has_gate(&pod("regent-gate", "ireland/shop"), &group));
        assert!(!has_gate(&pod("regent-gate", "ireland/bank"), &group));
        assert!(!has_gate(&pod("mine", "ireland/shop"), &group));
        assert!(!has_gate(&pod_running("regent-gate", "ireland/shop", &["/bin/true"]), &group));
        assert!(!has_gate(&pod_running("regent-gate", "ireland/shop", &[]), &group));
    }
}
