//! What of a pod template a standby refuses, whoever signed it.
//!
//! Pod Security may be off in the partner's namespace; what reaches a node, or another's pod
//! or volume, is refused all the same, with the field and the remedy.

use regent_api::gate::is_gates_path;
use regent_api::{GATE_DRIVER, GATE_NAME};
use serde_json::Value;

use crate::marks::is_homes;
use crate::object::{items, labels, text};

/// Volumes that hold what is the group's, or the pod's own.
const VOLUMES: [&str; 8] =
    ["configMap", "secret", "emptyDir", "projected", "downwardAPI", "image", "persistentVolumeClaim", "ephemeral"];
/// Beginning of the names that are Regent's in a pod.
const OURS: &str = "regent-";

/// What a workload has that no copy may have: field and why.
pub fn dangers(workload: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut refuse = |field: String, why: &str| found.push((field, why.to_owned()));
    for key in selector_keys(workload).filter(|k| is_homes(k)) {
        let why = "a controller acts on this label, so it does not travel; select the pods by another one";
        refuse(format!("selector {key}"), why);
    }
    let pod = workload.pointer("/spec/template/spec").unwrap_or(&Value::Null);
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        if pod.get(field) == Some(&Value::Bool(true)) {
            refuse(field.to_owned(), "reaches into the partner's nodes; leave it out");
        }
    }
    if text(pod, "/priorityClassName").starts_with("system-") {
        refuse(
            "priorityClassName".to_owned(),
            "would drive out what the partner's cluster lives on; use a class of your own",
        );
    }
    if is_host_process(pod) {
        refuse("securityContext".to_owned(), "hostProcess reaches into the partner's nodes; leave it out");
    }
    items(pod, "/volumes").for_each(|volume| one_volume(volume, &mut refuse));
    for container in items(pod, "/initContainers").chain(items(pod, "/containers")) {
        one_container(container, &mut refuse);
    }
    for claim in items(workload, "/spec/volumeClaimTemplates") {
        let field = format!("volumeClaimTemplates {}", text(claim, "/metadata/name"));
        sources(claim, field, &mut refuse);
    }
    found
}

/// The keys of a workload's own selector.
pub fn selector_keys(workload: &Value) -> impl Iterator<Item = String> + '_ {
    let expressions = items(workload, "/spec/selector/matchExpressions").map(|e| text(e, "/key").to_owned());
    labels(workload, "/spec/selector/matchLabels").into_keys().chain(expressions)
}

fn is_host_process(of: &Value) -> bool {
    of.pointer("/securityContext/windowsOptions/hostProcess") == Some(&Value::Bool(true))
}

fn one_volume(volume: &Value, refuse: &mut impl FnMut(String, &str)) {
    let name = text(volume, "/name");
    let field = format!("volume {name}");
    if name == GATE_NAME && text(volume, "/csi/driver") == GATE_DRIVER {
        return;
    }
    if name.starts_with(OURS) {
        refuse(field.clone(), "names that begin with regent- are Regent's; rename it");
    }
    let kinds = volume.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).filter(|key| *key != "name");
    for kind in kinds.filter(|kind| !VOLUMES.contains(kind)) {
        let why = format!(
            "{kind} reaches what is not the group's: a node, a share, another's driver; use a claim that a template of the group makes"
        );
        refuse(field.clone(), &why);
    }
    if let Some(claim) = volume.pointer("/ephemeral/volumeClaimTemplate") {
        sources(claim, field, refuse);
    }
}

/// A claim that is filled from another object of the namespace.
fn sources(claim: &Value, field: String, refuse: &mut impl FnMut(String, &str)) {
    if claim.pointer("/spec/dataSource").or_else(|| claim.pointer("/spec/dataSourceRef")).is_some() {
        refuse(field, "is filled from an object that does not travel; leave dataSource and dataSourceRef out");
    }
}

fn one_container(container: &Value, refuse: &mut impl FnMut(String, &str)) {
    let name = text(container, "/name");
    let field = |of: &str| format!("container {name}{of}");
    if name.starts_with(OURS) {
        refuse(field(""), "names that begin with regent- are Regent's; rename it, and leave the gate out: it is added");
    }
    if container.pointer("/securityContext/privileged") == Some(&Value::Bool(true)) || is_host_process(container) {
        refuse(field(", securityContext"), "privileged reaches into the partner's nodes; leave it out");
    }
    for port in items(container, "/ports") {
        if let Some(taken) = port.get("hostPort").and_then(Value::as_u64).filter(|p| *p > 0) {
            refuse(field(&format!(", hostPort {taken}")), "takes a port of the partner's nodes; use a Service");
        }
    }
    for mount in items(container, "/volumeMounts").filter(|m| is_gates_path(text(m, "/mountPath"))) {
        let path = text(mount, "/mountPath");
        if (text(mount, "/name"), path, mount.get("subPath")) != (GATE_NAME, "/regent", None) {
            refuse(field(&format!(", volumeMount {path}")), "is where the gate's volume is mounted; use another path");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(pod: Value) -> Vec<String> {
        let workload = json!({ "kind": "Deployment", "spec": { "template": { "spec": pod } } });
        dangers(&workload).into_iter().map(|(field, _)| field).collect()
    }

    fn of_container(container: Value) -> Vec<String> {
        let mut it = json!({ "name": "c", "image": "i" });
        it.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
        fields(json!({ "containers": [it] }))
    }

    #[test]
    fn what_reaches_a_node_or_anothers_volume_is_refused_by_field() {
        for (pod, field) in [
            (json!({ "hostNetwork": true }), "hostNetwork"),
            (json!({ "hostPID": true }), "hostPID"),
            (json!({ "hostIPC": true }), "hostIPC"),
            (json!({ "priorityClassName": "system-node-critical" }), "priorityClassName"),
            (json!({ "volumes": [{ "name": "v", "hostPath": { "path": "/" } }] }), "volume v"),
            (json!({ "volumes": [{ "name": "v", "nfs": { "server": "s" } }] }), "volume v"),
            (json!({ "volumes": [{ "name": "v", "csi": { "driver": "secrets.example" } }] }), "volume v"),
            (json!({ "volumes": [{ "name": "v", "csi": { "driver": "gate.regent.dev" } }] }), "volume v"),
            (
                json!({ "volumes": [{ "name": "v", "ephemeral": { "volumeClaimTemplate": { "spec": { "dataSource": {} } } } }] }),
                "volume v",
            ),
            (json!({ "volumes": [{ "name": "regent-x", "emptyDir": {} }] }), "volume regent-x"),
        ] {
            assert_eq!(fields(pod), [field]);
        }
        for (container, field) in [
            (json!({ "securityContext": { "privileged": true } }), "container c, securityContext"),
            (json!({ "ports": [{ "containerPort": 80, "hostPort": 80 }] }), "container c, hostPort 80"),
            (json!({ "name": "regent-try-0" }), "container regent-try-0"),
            (
                json!({ "volumeMounts": [{ "name": "mine", "mountPath": "/regent" }] }),
                "container c, volumeMount /regent",
            ),
            (
                json!({ "volumeMounts": [{ "name": "regent-gate", "mountPath": "//regent/x" }] }),
                "container c, volumeMount //regent/x",
            ),
        ] {
            assert_eq!(of_container(container), [field]);
        }
    }

    #[test]
    fn an_ordinary_template_and_one_that_reads_the_epoch_are_accepted() {
        let gate = json!({ "name": "regent-gate", "csi": { "driver": "gate.regent.dev", "readOnly": true } });
        let mounts = json!([{ "name": "regent-gate", "mountPath": "/regent" }, { "name": "regent-gate", "mountPath": "/epoch" }]);
        let pod = json!({ "hostUsers": true, "hostNetwork": false,
            "volumes": [gate, { "name": "a", "emptyDir": {} }, { "name": "b", "image": { "reference": "i" } }],
            "containers": [{ "name": "c", "volumeMounts": mounts, "ports": [{ "containerPort": 80, "hostPort": 0 }] }] });
        assert_eq!(fields(pod), Vec::<String>::new());
    }

    #[test]
    fn a_selector_by_a_label_that_acts_and_a_claim_filled_from_another_are_refused() {
        let set = json!({ "kind": "StatefulSet", "spec": {
            "selector": { "matchLabels": { "istio.io/rev": "x" }, "matchExpressions": [{ "key": "argocd.argoproj.io/instance" }] },
            "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": { "dataSourceRef": { "kind": "PersistentVolumeClaim" } } }] } });
        let fields: Vec<String> = dangers(&set).into_iter().map(|(field, _)| field).collect();
        assert_eq!(
            fields,
            ["selector istio.io/rev", "selector argocd.argoproj.io/instance", "volumeClaimTemplates data"]
        );
    }
}
