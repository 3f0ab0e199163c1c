//! Puts the gate into a pod template.
//!
//! At a standby the copies carry their gates by construction: a pod that came between the
//! writing of `GatedPods` and the API server's notice of it would run twice. The result is
//! what the chart's admission policy makes of a pod without a gate, which then leaves it.

use regent_api::{GATE_DRIVER, GATE_NAME};
use regent_core::ids::GroupKey;
use serde_json::{Value, json};

/// Gives a pod template its gate, as volume and first init container. A volume of that
/// name that the template has already stays, with this group in it.
pub fn add_gate(template: &mut Value, group: &GroupKey) {
    let Some(pod) = template.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let containers: Vec<&Value> = ["containers", "initContainers"]
        .iter()
        .filter_map(|list| pod.get(*list)?.as_array())
        .flatten()
        .filter(|c| c.get("name").and_then(Value::as_str) != Some(GATE_NAME))
        .collect();
    let sized = |r: Option<&Value>| {
        r.is_some_and(|r| {
            ["requests", "limits"].iter().any(|k| r.get(*k).and_then(Value::as_object).is_some_and(|m| !m.is_empty()))
        })
    };
    let best_effort = !sized(pod.get("resources")) && !containers.iter().any(|c| sized(c.get("resources")));
    let image = pod.get("containers").and_then(|c| c.pointer("/0/image")).cloned().unwrap_or_default();
    let gate = container(&image, best_effort);
    let is_gate = |v: &Value| v.get("name").and_then(Value::as_str) == Some(GATE_NAME);
    with_list(pod, "initContainers", |inits| {
        inits.retain(|c| !is_gate(c));
        inits.insert(0, gate);
    });
    let volume = json!({
        "name": GATE_NAME,
        "csi": { "driver": GATE_DRIVER, "readOnly": true, "volumeAttributes": { "group": group.to_string() } },
    });
    with_list(pod, "volumes", |volumes| {
        volumes.retain(|v| !is_gate(v));
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

fn container(image: &Value, best_effort: bool) -> Value {
    // Requests equal to limits keep a Guaranteed pod Guaranteed; none keep BestEffort.
    let share = json!({ "cpu": "10m", "memory": "16Mi" });
    let resources = if best_effort { json!({}) } else { json!({ "requests": share, "limits": share }) };
    json!({
        "name": GATE_NAME,
        "image": image,
        "command": ["/regent/regent-gate", "wait"],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
            "runAsUser": 65532, "privileged": false,
            "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" },
        },
        "volumeMounts": [{ "name": GATE_NAME, "mountPath": "/regent", "readOnly": true }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> GroupKey {
        "ireland/shop".parse().unwrap()
    }

    #[test]
    fn the_gate_is_the_first_init_container_and_keeps_the_class_of_service() {
        let mut template = json!({ "spec": { "containers": [{ "name": "c", "image": "shop:1" }], "initContainers": [{ "name": "mine" }] } });
        add_gate(&mut template, &group());
        let inits = template["spec"]["initContainers"].as_array().unwrap();
        assert_eq!(
            (&inits[0]["name"], &inits[0]["image"], &inits[1]["name"]),
            (&json!("regent-gate"), &json!("shop:1"), &json!("mine"))
        );
        assert_eq!(inits[0]["resources"], json!({}));
        assert_eq!(template["spec"]["volumes"][0]["csi"]["volumeAttributes"]["group"], "ireland/shop");

        let sized = json!({ "requests": { "cpu": "1" } });
        let mut template =
            json!({ "spec": { "containers": [{ "name": "c", "image": "shop:1", "resources": sized }] } });
        add_gate(&mut template, &group());
        assert_eq!(template["spec"]["initContainers"][0]["resources"]["limits"]["cpu"], "10m");
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
        assert_eq!(template["spec"]["initContainers"].as_array().unwrap().len(), 2);
    }
}
