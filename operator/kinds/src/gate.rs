//! Puts the gate into a pod template, behind the tries of its containers.
//!
//! At a standby the copies carry their gates by construction: a pod that came between the
//! writing of `GatedPods` and the API server's notice of it would run twice. The gate is the
//! one that the chart's admission policy gives to a pod without, and which it then leaves.

use regent_api::gate::{GATE_PATH, WAITS};
use regent_api::{GATE_DRIVER, GATE_NAME};
use regent_core::ids::GroupKey;
use serde_json::{Value, json};

use crate::object::text;
use crate::tries::{is_added, tries};

/// Gives a pod template its gate, as volume and as the init container before which nothing
/// comes but tries. A volume of that name that the template has already is replaced.
pub fn add_gate(template: &mut Value, group: &GroupKey) {
    let Some(spec) = template.get_mut("spec") else { return };
    let tries = tries(spec);
    let Some(pod) = spec.as_object_mut() else { return };
    let containers: Vec<&Value> = ["containers", "initContainers"]
        .iter()
        .filter_map(|list| pod.get(*list)?.as_array())
        .flatten()
        .filter(|c| !is_added(c))
        .collect();
    let sized = |r: Option<&Value>| {
        r.is_some_and(|r| {
            ["requests", "limits"].iter().any(|k| r.get(*k).and_then(Value::as_object).is_some_and(|m| !m.is_empty()))
        })
    };
    let best_effort = !sized(pod.get("resources")) && !containers.iter().any(|c| sized(c.get("resources")));
    let first = pod.get("containers").and_then(|c| c.get(0));
    let gate = container(first.unwrap_or(&Value::Null), best_effort);
    with_list(pod, "initContainers", |inits| {
        inits.retain(|c| !is_added(c));
        inits.splice(0..0, tries.into_iter().chain([gate]));
    });
    let volume = json!({
        "name": GATE_NAME,
        "csi": { "driver": GATE_DRIVER, "readOnly": true, "volumeAttributes": { "group": group.to_string() } },
    });
    with_list(pod, "volumes", |volumes| {
        volumes.retain(|v| text(v, "/name") != GATE_NAME);
        volumes.push(volume);
    });
}

/// The list under a key, made if there is none.
fn with_list(pod: &mut serde_json::Map<String, Value>, key: &str, change: impl FnOnce(&mut Vec<Value>)) {
    let mut list = match pod.remove(key) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    change(&mut list);
    pod.insert(key.to_owned(), Value::Array(list));
}

fn container(first: &Value, best_effort: bool) -> Value {
    // Requests equal to limits keep a Guaranteed pod Guaranteed; none keep BestEffort.
    let share = json!({ "cpu": "10m", "memory": "16Mi" });
    let resources = if best_effort { json!({}) } else { json!({ "requests": share, "limits": share }) };
    let mut gate = json!({
        "name": GATE_NAME,
        "image": first.get("image").cloned().unwrap_or_default(),
        "command": WAITS,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
            "runAsUser": 65532, "privileged": false,
            "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" },
        },
        "volumeMounts": [{ "name": GATE_NAME, "mountPath": GATE_PATH, "readOnly": true }],
    });
    if let Some(policy) = first.get("imagePullPolicy") {
        gate["imagePullPolicy"] = policy.clone();
    }
    gate
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> GroupKey {
        "ireland/shop".parse().unwrap()
    }

    #[test]
    fn the_gate_comes_before_all_but_tries_and_keeps_the_class_of_service() {
        let mut template = json!({ "spec": { "containers": [{ "name": "c", "image": "shop:1" }], "initContainers": [{ "name": "mine" }] } });
        add_gate(&mut template, &group());
        let inits = template["spec"]["initContainers"].as_array().unwrap();
        let names: Vec<&Value> = inits.iter().map(|c| &c["name"]).collect();
        assert_eq!(names, ["regent-try-0", "regent-try-1", "regent-gate", "mine"]);
        assert_eq!((&inits[2]["image"], &inits[2]["resources"]), (&json!("shop:1"), &json!({})));
        assert_eq!(template["spec"]["volumes"][0]["csi"]["volumeAttributes"]["group"], "ireland/shop");

        let sized = json!({ "requests": { "cpu": "1" } });
        let mut template =
            json!({ "spec": { "containers": [{ "name": "c", "image": "shop:1", "resources": sized }] } });
        add_gate(&mut template, &group());
        let inits = &template["spec"]["initContainers"];
        assert_eq!(inits[0]["resources"], template["spec"]["containers"][0]["resources"]);
        assert_eq!(inits[1]["resources"]["limits"]["cpu"], "10m");
    }

    #[test]
    fn a_gate_of_the_users_is_replaced_and_not_doubled() {
        let volume = json!({ "name": "regent-gate", "csi": { "driver": "gate.regent.dev", "volumeAttributes": { "group": "france/other" } } });
        let mut template = json!({ "spec": { "containers": [{ "name": "c", "image": "shop:1" }], "volumes": [volume],
            "initContainers": [{ "name": "mine" }, { "name": "regent-gate", "command": ["true"] }] } });
        add_gate(&mut template, &group());
        let once = template.clone();
        add_gate(&mut template, &group());
        assert_eq!(template, once);
        assert_eq!(template["spec"]["volumes"].as_array().unwrap().len(), 1);
        assert_eq!(template["spec"]["volumes"][0]["csi"]["volumeAttributes"]["group"], "ireland/shop");
        assert_eq!(template["spec"]["initContainers"].as_array().unwrap().len(), 4);
    }
}
