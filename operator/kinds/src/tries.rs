//! Tries: whether every container of a held pod would start, found out while it is held.
//!
//! ```text
//!   regent-try-0 (image, env, mounts of init container a)   ends at once
//!   regent-try-1 (image, env, mounts of container b)        ends at once
//!   regent-gate                                             waits for the takeover
//!   a, then b
//! ```
//!
//! The gate proves that one image is on the node. All the rest of a container the kubelet
//! makes only when its turn comes: it pulls the image, looks the environment's Secrets and
//! ConfigMaps up, mounts, sets the user. At a takeover home's registry is gone, so it is done
//! before, by a container that differs in its program alone; what stands in the way is then
//! in the pod's status in the kubelet's own words.

use regent_api::GATE_NAME;
use regent_api::gate::{GATE_PATH, TRIES, TRY_PREFIX, is_gates_path};
use serde_json::{Map, Value, json};

use crate::object::{items, text};

/// What a try has of its container: whatever the kubelet needs before the program starts.
const KEPT: [&str; 7] =
    ["image", "imagePullPolicy", "envFrom", "volumeDevices", "securityContext", "resources", "workingDir"];
/// Volumes whose files are Kubernetes' or an image's own, so that no container makes them.
const CONTENT: [&str; 5] = ["configMap", "secret", "projected", "downwardAPI", "image"];

/// The tries of a pod, in the order of its containers; alike ones need one.
pub fn tries(pod: &Value) -> Vec<Value> {
    let named = |(i, (mut it, _)): (usize, (Map<String, Value>, Vec<String>))| {
        it.insert("name".into(), format!("{TRY_PREFIX}{i}").into());
        Value::Object(it)
    };
    grouped(pod).into_iter().enumerate().map(named).collect()
}

/// The containers of a copy's pod that a try stands for, for messages.
pub fn tried_by(pod: &Value, name: &str) -> Vec<String> {
    let index = name.strip_prefix(TRY_PREFIX).and_then(|i| i.parse::<usize>().ok());
    index.and_then(|i| grouped(pod).into_iter().nth(i)).map(|(_, containers)| containers).unwrap_or_default()
}

/// Whether a container is the gate or a try: nothing that home has.
pub(crate) fn is_added(container: &Value) -> bool {
    let name = text(container, "/name");
    name == GATE_NAME || name.starts_with(TRY_PREFIX)
}

/// Each try with the names of its containers.
fn grouped(pod: &Value) -> Vec<(Map<String, Value>, Vec<String>)> {
    let mut made: Vec<(Map<String, Value>, Vec<String>)> = Vec::new();
    for container in items(pod, "/initContainers").chain(items(pod, "/containers")) {
        let name = text(container, "/name");
        if is_added(container) {
            continue;
        }
        let it = one(pod, container);
        match made.iter_mut().find(|(other, _)| is_alike(other, &it)) {
            Some((_, names)) => names.push(name.to_owned()),
            None => made.push((it, vec![name.to_owned()])),
        }
    }
    made
}

/// How much a container asks for doesn't change whether it starts: the pod is placed.
fn is_alike(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    let rest = |it: &Map<String, Value>| {
        let mut rest = it.clone();
        rest.remove("resources");
        rest
    };
    rest(one) == rest(other)
}

fn one(pod: &Value, container: &Value) -> Map<String, Value> {
    let mut it = Map::new();
    for key in KEPT {
        if let Some(value) = container.get(key) {
            it.insert(key.into(), value.clone());
        }
    }
    it.insert("command".into(), json!(TRIES));
    // A variable from a file waits for the init container that writes the file.
    let env: Vec<Value> =
        items(container, "/env").filter(|e| e.pointer("/valueFrom/fileKeyRef").is_none()).cloned().collect();
    if !env.is_empty() {
        it.insert("env".into(), Value::Array(env));
    }
    let mounts = items(container, "/volumeMounts").filter(|m| !is_gates_path(text(m, "/mountPath")) && is_safe(pod, m));
    let gate = json!({ "name": GATE_NAME, "mountPath": GATE_PATH, "readOnly": true });
    it.insert("volumeMounts".into(), mounts.cloned().chain([gate]).collect());
    it
}

/// A sub-path that isn't there the kubelet makes, as a folder, where an init container may
/// be about to put a file.
fn is_safe(pod: &Value, mount: &Value) -> bool {
    let is_part = !text(mount, "/subPath").is_empty() || !text(mount, "/subPathExpr").is_empty();
    let volume = items(pod, "/volumes").find(|v| text(v, "/name") == text(mount, "/name"));
    !is_part || volume.is_some_and(|v| CONTENT.iter().any(|kind| v.get(*kind).is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(tries: &[Value]) -> Vec<(&str, &str)> {
        tries.iter().map(|t| (text(t, "/name"), text(t, "/image"))).collect()
    }

    #[test]
    fn every_image_of_a_pod_is_tried_before_its_gate() {
        let pod = json!({
            "initContainers": [{ "name": "schema", "image": "schema:7", "command": ["/bin/schema"], "args": ["up"] },
                               { "name": "proxy", "image": "proxy:1", "restartPolicy": "Always",
                                 "startupProbe": { "exec": { "command": ["true"] } } }],
            "containers": [{ "name": "kiosk", "image": "kiosk:7", "ports": [{ "containerPort": 1 }], "stdin": true },
                           { "name": "courier", "image": "courier:2", "lifecycle": {}, "resizePolicy": [] }] });
        let tries = tries(&pod);
        let expected = [
            ("regent-try-0", "schema:7"),
            ("regent-try-1", "proxy:1"),
            ("regent-try-2", "kiosk:7"),
            ("regent-try-3", "courier:2"),
        ];
        assert_eq!(names(&tries), expected);
        for it in &tries {
            let keys: Vec<&str> = it.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(keys.len(), 4, "nothing but name, image, command and mount: {keys:?}");
            assert_eq!(it["command"], json!(["/regent/regent-gate", "try"]));
        }
    }

    #[test]
    fn a_try_has_whatever_the_kubelet_needs_before_the_program_starts() {
        let container = json!({ "name": "c", "image": "shop:1", "imagePullPolicy": "IfNotPresent", "workingDir": "/w",
            "env": [{ "name": "A", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } },
                    { "name": "B", "valueFrom": { "fileKeyRef": { "volumeName": "v", "path": "p", "key": "k" } } }],
            "envFrom": [{ "configMapRef": { "name": "m" } }],
            "volumeMounts": [{ "name": "model", "mountPath": "/model" }, { "name": "regent-gate", "mountPath": "/regent" }],
            "volumeDevices": [{ "name": "disk", "devicePath": "/dev/x" }],
            "resources": { "requests": { "cpu": "1" } }, "securityContext": { "runAsUser": 7 } });
        let pod =
            json!({ "containers": [container], "volumes": [{ "name": "model", "image": { "reference": "m:1" } }] });
        let it = &tries(&pod)[0];
        for key in KEPT {
            assert_eq!(it[key], container[key], "{key}");
        }
        assert_eq!(it["env"], json!([container["env"][0]]), "no file is there yet");
        let paths: Vec<&str> = items(it, "/volumeMounts").map(|m| text(m, "/mountPath")).collect();
        assert_eq!(paths, ["/model", "/regent"], "and the gate once");
    }

    #[test]
    fn alike_containers_need_one_try() {
        let pod = json!({ "containers": [
            { "name": "a", "image": "shop:1", "resources": { "requests": { "cpu": "1" } } },
            { "name": "b", "image": "shop:1", "args": ["worker"] },
            { "name": "c", "image": "shop:1", "env": [{ "name": "A", "value": "1" }] }] });
        assert_eq!(tries(&pod).len(), 2);
        assert_eq!(tried_by(&pod, "regent-try-0"), ["a", "b"]);
        assert_eq!(tried_by(&pod, "regent-try-1"), ["c"]);
        assert!(tried_by(&pod, "regent-try-2").is_empty() && tried_by(&pod, "regent-gate").is_empty());
    }

    #[test]
    fn a_try_makes_no_folder_where_an_init_container_puts_a_file() {
        let pod = json!({
            "containers": [{ "name": "c", "image": "shop:1", "volumeMounts": [
                { "name": "work", "mountPath": "/etc/shop.conf", "subPath": "shop.conf" },
                { "name": "files", "mountPath": "/etc/other.conf", "subPath": "other.conf" },
                { "name": "work", "mountPath": "/work" }] }],
            "volumes": [{ "name": "work", "emptyDir": {} }, { "name": "files", "configMap": { "name": "files" } }] });
        let it = &tries(&pod)[0];
        let paths: Vec<&str> = items(it, "/volumeMounts").map(|m| text(m, "/mountPath")).collect();
        assert_eq!(paths, ["/etc/other.conf", "/work", "/regent"]);
    }
}
