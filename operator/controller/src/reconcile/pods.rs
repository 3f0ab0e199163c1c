//! The pods of a group, and which of them carry its gate.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use regent_api::{FailoverGroupSpec, GATE_DRIVER, GATE_NAME};
use regent_core::ids::GroupKey;

use crate::objects::{ObjectError, bounded};
use crate::standby::ready::is_gone;

/// All pods that the group's selector matches and that have not ended.
pub async fn of_group(client: &kube::Client, spec: &FailoverGroupSpec) -> Result<Vec<Pod>, ObjectError> {
    let params = ListParams::default().labels(&spec.selector.to_label_selector());
    let mut pods = Vec::new();
    for namespace in &spec.namespaces {
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let found = bounded(&format!("pods in namespace {namespace}"), api.list(&params)).await?;
        pods.extend(found.items.into_iter().filter(|p| !is_gone(p)));
    }
    Ok(pods)
}

/// `NAMESPACE/NAME`.
pub fn name_of(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

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
        assert_eq!(name_of(&pod("a", "b")), "shop/p");
    }
}
